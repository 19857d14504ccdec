"""Routes: what is kept of a handler when it is registered, wherever in the tree that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from trioktor import Call, Headers, Response, Routes, WebSockets, WebSocketSession
from trioktor.config import SessionSettings
from trioktor.http.headers import Refusal
from trioktor.http.requests import RequestHead
from trioktor.routing.endpoints import GetRoute, WebSocketRoute
from trioktor.routing.registry import Registry
from trioktor.routing.routes import Overrides

INSTALLED = WebSockets(timeout=7)


@pytest.fixture
def routes() -> Routes:
    """The root of a tree in which WebSockets are installed."""
    registry = Registry()
    registry.settings = INSTALLED
    return Routes(registry, "")


async def quiet(session: WebSocketSession) -> None:
    """A handler that returns at once."""


async def page(call: Call) -> str:
    """A handler of plain requests."""
    return "a page"


async def hook(call: Call) -> Response | None:
    """A hook that lets everybody in."""
    return None


async def other_hook(call: Call) -> Response | None:
    """Another one."""
    return None


def found(routes: Routes, target: str, *protocols: str) -> WebSocketRoute:
    """What serves a request for a WebSocket."""
    lines = [(b"sec-websocket-protocol", ", ".join(protocols).encode())]
    route, _ = routes.registry.find(RequestHead("GET", target, "1.1", Headers(lines), is_upgrade=True))
    assert isinstance(route, WebSocketRoute)
    return route


def shown(routes: Routes, target: str) -> GetRoute:
    """What answers a plain request."""
    route, _ = routes.registry.find(RequestHead("GET", target, "1.1", Headers(), is_upgrade=False))
    assert isinstance(route, GetRoute)
    return route


def test_what_is_kept_of_a_handler(routes: Routes) -> None:
    """Unless more is said: the installed settings, and nothing else."""
    routes.websocket("/{room}", quiet)
    assert found(routes, "/a") == WebSocketRoute(quiet, INSTALLED, (), None, (), False, True, "/{room}")
    assert found(routes, "/a").settings is INSTALLED


def test_what_is_kept_of_a_raw_handler(routes: Routes) -> None:
    """It answers offers of extensions only where that is asked for."""
    routes.websocket_raw("/a", quiet)
    routes.websocket_raw("/b", quiet, negotiate_extensions=True)
    assert found(routes, "/a") == WebSocketRoute(quiet, INSTALLED, (), None, (), True, False, "/a")
    assert found(routes, "/b") == WebSocketRoute(quiet, INSTALLED, (), None, (), True, True, "/b")


def test_what_is_kept_of_a_page(routes: Routes) -> None:
    """Its hooks, and the parameters that it wants."""

    async def numbered(call: Call, number: str) -> str:
        return number

    routes.get("/a", page)
    routes.get("/{number}", numbered, before=[hook, other_hook])
    assert shown(routes, "/a") == GetRoute(page, (), "/a", ())
    assert shown(routes, "/7") == GetRoute(numbered, (("number", None),), "/{number}", (hook, other_hook))


def test_a_page_needs_nothing_installed() -> None:
    """It is no WebSocket."""
    routes = Routes(Registry(), "")
    assert routes.websockets is None
    assert routes.get("/", page) is page
    assert shown(routes, "/").handler is page


@pytest.mark.parametrize("register", [Routes.websocket, Routes.websocket_raw, Routes.get])
def test_a_decorator_is_another_way_to_say_it(register: Callable[..., Any], routes: Routes) -> None:
    """It gives back the very handler, and keeps what was said to it for each that it is put above."""
    handler = page if register is Routes.get else quiet
    decorate = register(routes, "/a", before=hook)
    assert decorate(handler) is handler
    assert register(routes.route("/nested"), "/a", handler, before=hook) is handler
    look: Callable[[Routes, str], WebSocketRoute | GetRoute] = shown if register is Routes.get else found
    assert look(routes, "/a").before == look(routes, "/nested/a").before == (hook,)


@pytest.mark.parametrize("register", [Routes.websocket, Routes.websocket_raw])
def test_a_decorator_without_its_path_says_so(register: Callable[..., Any], routes: Routes) -> None:
    """`@app.websocket` above a handler is a common slip."""
    with pytest.raises(TypeError, match=rf"wants the path first: write @app\.{register.__name__}\('/path'\)"):
        register(routes, quiet)


# the tree


@pytest.mark.parametrize(
    ("prefixes", "path", "target"),
    [
        ([], "", "/"),
        ([], "/a", "/a"),
        ([], "a", "/a"),
        (["/a"], "", "/a"),
        (["a"], "/b", "/a/b"),
        (["/a/"], "b", "/a/b"),
        (["/a", "/b", "c"], "/d", "/a/b/c/d"),
        (["/a"], "/", "/a/"),
    ],
)
def test_a_place_in_the_tree(prefixes: list[str], path: str, target: str, routes: Routes) -> None:
    """All that stands above it is in front of it, whatever is registered there."""
    place = routes
    for prefix in prefixes:
        place = place.route(prefix)
    assert place.registry is routes.registry
    assert place.websockets is INSTALLED
    place.websocket(path, quiet)
    place.get(path, page)
    assert found(routes, target).pattern == shown(routes, target).pattern == target


def test_a_place_changes_nothing_above_it(routes: Routes) -> None:
    """Two places are beside each other."""
    one, other = routes.route("/one"), routes.route("/other")
    one.websocket("/a", quiet)
    assert found(routes, "/one/a").handler is quiet
    for target in ("/a", "/other/a", "/one"):
        with pytest.raises(Refusal, match="nothing"):
            found(other, target)


# what is said for a route


def test_settings_are_overridden_for_one_route(routes: Routes) -> None:
    """Its neighbour keeps the installed ones."""
    routes.websocket("/a", quiet, timeout=5, max_frame_size=None)
    routes.websocket("/b", quiet)
    assert found(routes, "/a").settings == WebSockets(timeout=5, max_frame_size=None)
    assert found(routes, "/b").settings is INSTALLED


def test_a_route_for_each_subprotocol(routes: Routes) -> None:
    """And one for who offers none of them."""
    for protocol in ("v2", "v1", None):
        routes.websocket("/", quiet, protocol=protocol)
    assert [found(routes, "/", *offered).protocol for offered in (["v1"], ["v1", "v2"], ["v3"])] == ["v1", "v2", None]


@pytest.mark.parametrize("protocol", ["", "two words", "a,b", "v1\n", "ü", 5, b"v1", ["v1"]])
def test_a_subprotocol_is_one_name(protocol: Any, routes: Routes) -> None:
    """An RFC 9110 token; it is said at the line of the decorator."""
    for register in (routes.websocket, routes.websocket_raw):
        with pytest.raises(ValueError, match=r"^protocol must be one subprotocol's name"):
            register("/", protocol=protocol)


@pytest.mark.parametrize(
    ("before", "expected"),
    [(hook, (hook,)), ([], ()), ((), ()), ([hook], (hook,)), ((other_hook, hook), (other_hook, hook))],
)
def test_hooks_are_one_or_several(before: Any, expected: tuple[object, ...], routes: Routes) -> None:
    """They are kept in order."""
    routes.websocket("/", quiet, before=before)
    routes.get("/", page, before=before)
    assert found(routes, "/").before == shown(routes, "/").before == expected


def test_hooks_are_copied(routes: Routes) -> None:
    """A list that changes later does not change the route."""
    hooks = [hook]
    routes.websocket("/", quiet, before=hooks)
    hooks.append(other_hook)
    assert found(routes, "/").before == (hook,)


@pytest.mark.parametrize("before", [lambda call: None, [hook, 5], "hook", None])
def test_what_is_no_hook_is_refused_at_its_line(before: Any, routes: Routes) -> None:
    """Before a handler is given to the decorator."""
    for register in (routes.websocket, routes.websocket_raw, routes.get):
        with pytest.raises(TypeError, match=r"hook|async"):
            register("/", before=before)


def test_what_may_be_said_for_a_route_is_what_may_be_installed() -> None:
    """And two things that only routes have: the names that type checkers know are those that are taken."""
    settings = {field.name for field in attrs.fields(WebSockets)}
    assert set(Overrides.__annotations__) | set(SessionSettings.__annotations__) == settings | {"protocol", "before"}
