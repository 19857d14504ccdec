"""What is registered with an application: what a request finds, what is refused, and what a carrier cannot do."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from trioktor import LOOPBACK, Call, Headers, PerMessageDeflate, Response, WebSockets, WebSocketSession
from trioktor.config import EVERYTHING, Supports
from trioktor.http.headers import Refusal
from trioktor.http.requests import RequestHead
from trioktor.routing.endpoints import GetRoute, WebSocketRoute
from trioktor.routing.patterns import Pattern
from trioktor.routing.registry import Registry


async def quiet(session: WebSocketSession) -> None:
    """A handler that returns at once."""


async def page(call: Call) -> str:
    """A handler of plain requests."""
    return "a page"


async def hook(call: Call) -> Response | None:
    """A hook that lets everybody in."""
    return None


def websocket(registry: Registry, pattern: str, protocol: str | None = None, **more: Any) -> WebSocketRoute:
    """Register a WebSocket handler."""
    settings = more.pop("settings", WebSockets())
    route = WebSocketRoute(quiet, settings, (), protocol, pattern=pattern, **more)
    registry.register(Pattern(pattern), websocket=route)
    return route


def get(registry: Registry, pattern: str) -> GetRoute:
    """Register a handler of plain requests."""
    route = GetRoute(page, (), pattern)
    registry.register(Pattern(pattern), get=route)
    return route


def upgrade(target: str, *protocols: str, method: str = "GET") -> RequestHead:
    """A request for a WebSocket."""
    lines = [(b"sec-websocket-protocol", ", ".join(protocols).encode())] if protocols else []
    return RequestHead(method, target, "1.1", Headers(lines), is_upgrade=True)


def plain(target: str, method: str = "GET") -> RequestHead:
    """A plain request."""
    return RequestHead(method, target, "1.1", Headers(), is_upgrade=False)


# what is found


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_each_kind_of_request_finds_its_own(method: str) -> None:
    """On one path; the query is not part of it."""
    registry = Registry()
    served, shown = websocket(registry, "/a"), get(registry, "/a")
    assert registry.find(upgrade("/a?b=/c")) == (served, {})
    assert registry.find(plain("/a?b=/c", method))[0] is shown


def test_the_parameters_of_the_path_are_found() -> None:
    """Decoded."""
    registry = Registry()
    route = websocket(registry, "/{room}/{rest...}")
    assert registry.find(upgrade("/a%20b/c/d")) == (route, {"room": "a b", "rest": "c/d"})


def test_a_better_path_that_serves_something_else_is_passed_by() -> None:
    """In both directions: what is asked for comes before the quality of the match."""
    registry = Registry()
    get(registry, "/page")
    tail = websocket(registry, "/{rest...}")
    websocket(registry, "/socket")
    pages = get(registry, "/{name}")
    assert registry.find(upgrade("/page")) == (tail, {"rest": "page"})
    assert registry.find(plain("/socket")) == (pages, {"name": "socket"})


def test_a_better_path_for_another_subprotocol_is_passed_by() -> None:
    """As if it were not there."""
    registry = Registry()
    first = websocket(registry, "/a", "v1")
    second = websocket(registry, "/{name}", "v2")
    assert registry.find(upgrade("/a", "v2")) == (second, {"name": "a"})
    assert registry.find(upgrade("/a", "v2", "v1")) == (first, {})


def test_who_asks_in_the_wrong_way_finds_what_can_tell_him() -> None:
    """The handler of the other kind: whoever serves it knows the answer, such as 426."""
    registry = Registry()
    served, shown = websocket(registry, "/socket"), get(registry, "/page")
    assert registry.find(plain("/socket"))[0] is served
    assert registry.find(upgrade("/page"))[0] is shown


# what is refused


@pytest.mark.parametrize("target", ["/", "/a/", "/a/b", "/b?/a"])
def test_nothing_at_a_path(target: str) -> None:
    """404, however it is asked for."""
    registry = Registry()
    websocket(registry, "/a")
    get(registry, "/a")
    for head in (upgrade(target), plain(target), plain(target, "POST")):
        with pytest.raises(Refusal, match="nothing at this path") as refusal:
            registry.find(head)
        assert refusal.value.status == 404


@pytest.mark.parametrize(
    ("head", "path", "allowed"),
    [
        (plain("/page", "POST"), "page", "GET, HEAD"),
        (plain("/socket", "POST"), "socket", "GET"),
        (plain("/both", "PUT"), "both", "GET, HEAD"),
        (upgrade("/socket", method="HEAD"), "socket", "GET"),
        (upgrade("/socket", method="POST"), "socket", "GET"),
        (upgrade("/both", method="POST"), "both", "GET, HEAD"),
        (upgrade("/both", method="HEAD"), "both", "GET, HEAD"),
        (plain("/7", "POST"), "number", "GET, HEAD"),
    ],
)
def test_another_method(head: RequestHead, path: str, allowed: str) -> None:
    """405, with those that are served there (RFC 9110 §15.5.6)."""
    registry = Registry()
    get(registry, "/page")
    websocket(registry, "/socket")
    get(registry, "/both")
    websocket(registry, "/both")
    get(registry, "/{number}")
    with pytest.raises(Refusal, match=f"{head.method} is not served here") as refusal:
        registry.find(head)
    assert (refusal.value.status, refusal.value.headers) == (405, (("Allow", allowed),))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_where_there_is_no_websocket_an_upgrade_is_passed_over(method: str) -> None:
    """RFC 9110 §7.8."""
    registry = Registry()
    page = get(registry, "/page")
    assert registry.find(upgrade("/page", method=method))[0] is page


@pytest.mark.parametrize("pattern", ["/a", "/{name}"])
@pytest.mark.parametrize("offered", [(), ("v3",), ("V1", "v3")])
def test_another_subprotocol(pattern: str, offered: tuple[str, ...]) -> None:
    """400, and which there are; with parameters in the path as without."""
    registry = Registry()
    websocket(registry, pattern, "v1")
    websocket(registry, pattern, "v2")
    with pytest.raises(Refusal, match=r"offer one of the subprotocols that this path serves: 'v1', 'v2'$") as refusal:
        registry.find(upgrade("/a", *offered))
    assert refusal.value.status == 400


@pytest.mark.parametrize("order", [("get", "websocket"), ("websocket", "get")])
def test_what_is_refused_is_said_by_the_path_that_speaks_websocket(order: tuple[str, ...]) -> None:
    """A worse match, behind a page: it knows better what is missing than the page does."""
    registry = Registry()
    for kind in order:
        if kind == "get":
            get(registry, "/a")
        else:
            websocket(registry, "/{name}", "v1")
    websocket(registry, "/{rest...}", "v2")
    with pytest.raises(Refusal, match=r"serves: 'v1'$"):
        registry.find(upgrade("/a"))


# what is registered


def test_a_place_is_taken_once() -> None:
    """By a page, by a handler for all, and by one for each subprotocol."""
    registry = Registry()
    get(registry, "/a")
    with pytest.raises(ValueError, match="'/%61' has a GET handler already"):
        get(registry, "/%61")
    with pytest.raises(ValueError, match="'/a' has a GET handler already"):
        get(registry, "/a")
    for protocol, which in ((None, " WebSocket handler already"), ("v1", "handler for the subprotocol 'v1' already")):
        websocket(registry, "/a", protocol)
        with pytest.raises(ValueError, match=f"'/a' has a.*{which}"):
            websocket(registry, "/a", protocol)
    websocket(registry, "/a", "v2")
    websocket(registry, "/b")


def test_what_is_frozen_takes_nothing() -> None:
    """And forgets nothing."""
    registry = Registry()
    route = websocket(registry, "/a")
    registry.check_not_frozen()
    registry.freeze()
    registry.freeze()
    for change in (registry.check_not_frozen, lambda: websocket(registry, "/b"), lambda: get(registry, "/a")):
        with pytest.raises(RuntimeError, match="has been served"):
            change()
    assert registry.find(upgrade("/a"))[0] is route
    with pytest.raises(Refusal, match="nothing"):
        registry.find(upgrade("/b"))


@pytest.mark.parametrize(
    ("pattern", "has_page"), [("/", True), ("/{rest...}", True), ("/a", False), ("/{name}", False)]
)
def test_whether_there_is_a_page_to_look_at(pattern: str, has_page: bool) -> None:
    """At the root, by whatever pattern; a WebSocket there is none."""
    registry = Registry()
    websocket(registry, "/")
    assert not registry.has_page
    get(registry, pattern)
    assert registry.has_page == has_page


def test_the_hooks_of_the_application_come_before_those_of_the_route() -> None:
    """In order; the list may be changed by who asked for it."""
    registry = Registry()
    route = websocket(registry, "/a", before=(hook,))

    async def first(call: Call) -> None: ...
    async def second(call: Call) -> None: ...

    assert registry.hooks(route) == [hook]
    registry.before += [first, second]
    registry.hooks(route).clear()
    assert registry.hooks(route) == [first, second, hook]


# settings


def test_settings_are_those_that_are_installed() -> None:
    """Themselves, where nothing is overridden."""
    registry = Registry()
    with pytest.raises(RuntimeError, match=r"app\.install\(WebSockets\(\)\)"):
        registry.settings_with({})
    assert registry.hosts is None
    registry.settings = WebSockets(timeout=7, hosts=LOOPBACK)
    assert registry.settings_with({}) is registry.settings
    assert registry.settings_with({"timeout": 5}) == WebSockets(timeout=5, hosts=LOOPBACK)
    assert registry.settings.timeout == 7
    assert registry.hosts is LOOPBACK


def test_settings_that_are_none_are_all_named() -> None:
    """In order of their letters."""
    registry = Registry()
    registry.settings = WebSockets()
    with pytest.raises(TypeError, match="unknown settings: ping, time_out; see WebSockets"):
        registry.settings_with({"time_out": 5, "timeout": 5, "ping": 1})
    with pytest.raises(ValueError, match=r"^timeout"):
        registry.settings_with({"timeout": 0})


# what a carrier can do


NOTHING = Supports(name="somebody", frames=False, pings=False, extensions=False)
ASKS: dict[str, dict[str, Any]] = {
    "websocket_raw": {"is_raw": True},
    "ping_period": {"settings": WebSockets(ping_period=5)},
    "extensions": {"settings": WebSockets(extensions=[PerMessageDeflate()])},
    "masking": {"settings": WebSockets(masking=True)},
}
NEEDS = {"websocket_raw": "frames", "ping_period": "pings", "extensions": "extensions", "masking": "extensions"}


@pytest.mark.parametrize("name", ASKS)
def test_what_a_carrier_cannot_do(name: str) -> None:
    """It is named with its route; who can do that alone, or everything, is enough."""
    registry = Registry()
    websocket(registry, "/plain")
    websocket(registry, "/{room}", **ASKS[name])
    registry.check(EVERYTHING)
    able: dict[str, Any] = {NEEDS[name]: True}
    unable: dict[str, Any] = {NEEDS[name]: False}
    registry.check(attrs.evolve(NOTHING, **able))
    for supports in (NOTHING, attrs.evolve(EVERYTHING, name="somebody", **unable)):
        with pytest.raises(ValueError, match=rf"^somebody cannot do .* asks for: {name} of '/\{{room\}}'$"):
            registry.check(supports)


def test_all_that_a_carrier_cannot_do_is_named() -> None:
    """Of all routes, those of one path included; what it can do is not."""
    registry = Registry()
    get(registry, "/page")
    websocket(registry, "/b", is_raw=True, settings=WebSockets(ping_period=5, masking=True))
    websocket(registry, "/a")
    websocket(registry, "/a", "v1", is_raw=True)
    with pytest.raises(ValueError, match="websocket_raw of '/b', ping_period of '/b', masking of '/b', websocket_raw"):
        registry.check(NOTHING)
    registry = Registry()
    websocket(registry, "/a")
    get(registry, "/page")
    registry.check(NOTHING)
