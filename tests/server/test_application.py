"""Registration: what a person gets wrong is an error that names the fix; and what requests then meet."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
import trio.testing

from trioktor import Application, Call, HandshakeRefused, Response, Routes, WebSockets, WebSocketSession
from trioktor.testing import handle_websocket_conversation


def installed() -> Application:
    """An application with WebSockets and no routes."""
    app = Application()
    app.install(WebSockets())
    return app


async def quiet(session: WebSocketSession) -> None:
    """A handler that returns at once."""


async def page(call: Call) -> str:
    """A handler of plain requests."""
    return "a page"


async def with_room(session: WebSocketSession, room: str) -> None:
    """A handler with a parameter."""


def sync(session: WebSocketSession) -> None:
    """Not a coroutine function."""


async def generator(session: WebSocketSession) -> AsyncIterator[str]:
    """A handler that yields what it means to send."""
    yield "never"


async def nothing() -> None:
    """A handler without a session."""


async def positional_only(session: WebSocketSession, room: str, /) -> None:
    """A handler with a parameter that cannot be filled by name."""


async def keyword_only(*, session: WebSocketSession) -> None:
    """A handler whose session cannot be handed over."""


class SyncCallable:
    """An object whose call is not async."""

    def __call__(self, session: WebSocketSession) -> None:
        """Not a coroutine function."""


def twice(register: Callable[[], object]) -> None:
    """Register the same thing two times."""
    register()
    register()


# errors at registration


@pytest.mark.parametrize(
    ("register", "error", "fix"),
    [
        (lambda app: Application().websocket("/", quiet), RuntimeError, r"app\.install\(WebSockets\(\)\)"),
        (lambda app: Application().route("/a").websocket("/", quiet), RuntimeError, r"app\.install\(WebSockets\(\)\)"),
        (lambda app: app.install(WebSockets()), RuntimeError, r"installed already.*one WebSockets\(\.\.\.\)"),
        (lambda app: app.install({"timeout": 5}), TypeError, r"WebSockets\(\.\.\.\)"),
        (lambda app: app.install(WebSockets), TypeError, r"WebSockets\(\.\.\.\)"),
        (lambda app: app.websocket("/", sync), TypeError, "sync is not async: write `async def sync"),
        (lambda app: app.websocket("/", SyncCallable()), TypeError, "is not async"),
        (lambda app: app.websocket("/", lambda session: None), TypeError, "is not async: write `async def"),
        (lambda app: app.websocket("/", functools.partial(sync)), TypeError, "is not async"),
        (lambda app: app.websocket("/{room}", positional_only), (TypeError, ValueError), "room"),
        (lambda app: app.websocket("/", generator), TypeError, "generator is an async generator.*instead of yielding"),
        (lambda app: app.websocket("/", "quiet"), TypeError, "an async function, not 'quiet'"),
        (lambda app: app.websocket("/", nothing), TypeError, r"takes no session: write `async def nothing\(session\)`"),
        (lambda app: app.websocket("/", keyword_only), TypeError, "takes no session"),
        (lambda app: app.websocket("/", with_room), ValueError, r"'room'.*put \{room\} into the path"),
        (lambda app: app.websocket("/{rooms}", with_room), ValueError, r"'room'.*put \{room\} into the path"),
        (lambda app: app.websocket("/{", quiet), ValueError, r"write \{name\}"),
        (lambda app: app.route("/{"), ValueError, r"write \{name\}"),
        (lambda app: app.route("/{a}").websocket("/{a}", quiet), ValueError, "names a parameter twice"),
        (lambda app: app.route("/{rest...}").websocket("/x", quiet), ValueError, "must be the last segment"),
        (lambda app: twice(lambda: app.websocket("/a", quiet)), ValueError, "'/a' has a WebSocket handler already"),
        (lambda app: twice(lambda: app.get("/a", page)), ValueError, "'/a' has a GET handler already"),
        (lambda app: app.route(quiet), TypeError, r"no decorator: write @app\.websocket\(path\)"),
        (lambda app: app.websocket("/", quiet, ping_timeout=5), TypeError, "unknown settings: ping_timeout"),
        (lambda app: app.websocket("/", quiet, timeout=-1), ValueError, "^timeout "),
        (lambda app: app.websocket("/", quiet, origins="https://x"), ValueError, "^origins "),
        (lambda app: app.get("/", sync), TypeError, "sync is not async"),
        (lambda app: app.get("/", nothing), TypeError, r"takes no call: write `async def nothing\(call\)`"),
        (lambda app: app.get("/", with_room), ValueError, r"'room'.*put \{room\} into the path"),
    ],
    ids=[
        "not installed", "not installed, nested", "installed twice", "a dict installed", "the class installed",
        "sync function", "sync callable", "lambda", "sync partial", "positional only",
        "async generator", "a string", "no session", "session by keyword",
        "unknown parameter", "misspelt parameter", "malformed", "malformed route", "name twice over nesting",
        "below a tail", "duplicate path", "duplicate get", "route as decorator", "unknown override",
        "override out of range", "override of a wrong kind", "sync get", "get without call", "get unknown parameter",
    ],
)  # fmt: skip
def test_a_mistake_at_registration_names_its_fix(
    register: Callable[[Any], object], error: type[Exception] | tuple[type[Exception], ...], fix: str
) -> None:
    """F01, F15: at the line where it is made, not at the first request."""
    with pytest.raises(error, match=fix):
        register(installed())


def test_a_mistake_shows_under_the_decorator_too() -> None:
    """The decorator form checks the same."""
    with pytest.raises(TypeError, match="sync is not async"):
        installed().websocket("/")(sync)  # type: ignore[type-var]


def test_a_refused_registration_leaves_the_path_free() -> None:
    """After the error the right handler can be registered."""
    app = installed()
    with pytest.raises(TypeError, match="not async"):
        app.websocket("/a", sync)  # type: ignore[type-var]
    app.websocket("/a", quiet)


@pytest.mark.parametrize(
    "change",
    [
        lambda app: app.install(WebSockets()),
        lambda app: app.websocket("/late", quiet),
        lambda app: app.route("/late").websocket("/", quiet),
        lambda app: app.get("/late", page),
    ],
    ids=["install", "websocket", "nested", "get"],
)
async def test_a_served_application_takes_no_changes(
    change: Callable[[Application], object], autojump_clock: trio.testing.MockClock
) -> None:
    """Routes and settings are frozen when it is first served."""
    app = installed()
    app.websocket("/", quiet)
    async with handle_websocket_conversation(app, "/"):
        pass
    with pytest.raises(RuntimeError, match="has been served: install and register before that"):
        change(app)


# what is registered


def test_the_decorator_and_the_direct_form_return_the_handler_unchanged() -> None:
    """So that it can be registered again, called, and tested."""
    app = installed()
    assert app.websocket("/a", quiet) is quiet
    assert app.websocket("/b")(quiet) is quiet
    assert app.get("/c", page) is page
    assert app.get("/d")(page) is page


def test_a_route_is_a_place_for_more() -> None:
    """`route` gives `Routes`, which nest."""
    chats = installed().route("/chats")
    assert isinstance(chats, Routes)
    assert isinstance(chats.route("/{room}"), Routes)


class Greeter:
    """Handlers that are no plain functions."""

    async def method(self, session: WebSocketSession, name: str) -> None:
        """A bound method with a parameter."""
        await session.send(f"method {name}")

    async def __call__(self, session: WebSocketSession, name: str) -> None:
        """A callable object with a parameter."""
        await session.send(f"object {name}")


async def function(session: WebSocketSession, *, name: str, title: str = "") -> None:
    """A function with a keyword, and one that the path does not name."""
    await session.send(f"function {title}{name}")


async def anything(session: WebSocketSession, *args: object, **kwargs: object) -> None:
    """A function that takes whatever it is given: the session alone."""
    await session.send(f"anything {args} {kwargs}")


async def positional(greeting: str, session: WebSocketSession, name: str) -> None:
    """To be bound with `functools.partial`."""
    await session.send(f"{greeting} {name}")


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (function, "function ada"),
        (Greeter().method, "method ada"),
        (Greeter(), "object ada"),
        (functools.partial(positional, "partial"), "partial ada"),
        (functools.partial(function, title="Countess "), "function Countess ada"),
        (anything, "anything () {}"),
    ],
    ids=["function", "method", "object", "partial", "partial keyword", "var arguments"],
)
async def test_whatever_is_async_and_takes_a_session_is_a_handler(
    handler: Any, expected: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Path parameters are filled in by name, the handler's own defaults stay."""
    app = installed()
    assert app.websocket("/{name}", handler) is handler
    async with handle_websocket_conversation(app, "/ada") as (incoming, _):
        assert (await incoming.receive()).text == expected


async def test_an_optional_parameter_that_is_missing_is_none(autojump_clock: trio.testing.MockClock) -> None:
    """`{name?}` at the end of a path that has nothing there."""
    app = installed()

    @app.websocket("/greet/{name?}")
    async def greet(session: WebSocketSession, name: str | None) -> None:
        await session.send(repr(name))

    for path, expected in [("/greet", "None"), ("/greet/ada", "'ada'")]:
        async with handle_websocket_conversation(app, path) as (incoming, _):
            assert (await incoming.receive()).text == expected


async def test_nested_routes_serve_below_their_prefix(autojump_clock: trio.testing.MockClock) -> None:
    """F22: prefixes and parameters of every level count."""
    app = installed()
    chats = app.route("/chats")
    room = chats.route("{room}")

    @chats.websocket("")
    async def lobby(session: WebSocketSession) -> None:
        await session.send("lobby")

    @room.websocket("/users/{user}")
    async def user(session: WebSocketSession, room: str, user: str) -> None:
        await session.send(f"{user} in {room}")

    for path, expected in [("/chats", "lobby"), ("/chats/hall/users/ada", "ada in hall")]:
        async with handle_websocket_conversation(app, path) as (incoming, _):
            assert (await incoming.receive()).text == expected
    for path in ["/", "/users/ada", "/chats/hall", "/chats/"]:
        with pytest.raises(HandshakeRefused, match="404"):
            async with handle_websocket_conversation(app, path):
                pass


async def ask(app: Application, path: str, method: str = "GET") -> bytes:
    """The whole answer to a plain request."""
    ours, theirs = trio.testing.memory_stream_pair()
    answer = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.handle_stream, theirs)
        await ours.send_all(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        async for data in ours:
            answer += data
        await ours.aclose()
    return answer


@pytest.mark.parametrize("first", ["get", "websocket"])
async def test_one_path_serves_plain_requests_and_websockets(
    first: str, autojump_clock: trio.testing.MockClock
) -> None:
    """F21: an upgrade goes to one handler, a plain GET to the other, whichever was registered first."""
    app = installed()

    async def greet(session: WebSocketSession) -> None:
        await session.send("a session")

    if first == "get":
        app.get("/", page)
    app.websocket("/", greet)
    if first == "websocket":
        app.get("/", page)
    async with handle_websocket_conversation(app, "/") as (incoming, _):
        assert (await incoming.receive()).text == "a session"
    assert (await ask(app, "/")).endswith(b"\r\n\r\na page")


async def test_an_upgrade_passes_by_a_better_path_that_serves_plain_requests_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """F21: what is asked for decides before the quality of the match."""
    app = installed()

    async def tail(session: WebSocketSession, rest: str) -> None:
        await session.send(rest)

    app.get("/page", page)
    app.websocket("/{rest...}", tail)
    async with handle_websocket_conversation(app, "/page") as (incoming, _):
        assert (await incoming.receive()).text == "page"
    assert (await ask(app, "/page")).endswith(b"a page")


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        ("täxt", b"200 OK", "täxt".encode()),
        (b"bytes", b"200 OK", b"bytes"),
        (Response("gone\n", status=404), b"404 Not Found", b"gone\n"),
        (Response(status=204), b"204 No Content", b""),
        (Response("", headers={"X-Extra": "y"}), b"200 OK", b""),
    ],
    ids=["str", "bytes", "response", "empty", "headers"],
)
async def test_a_get_handler_returns_a_small_response(
    answer: object, status: bytes, body: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """Text, bytes or a `Response`; the connection is closed after it."""
    app = Application()

    @app.get("/health/{part}")
    async def health(call: Call, part: str) -> object:
        assert part == "disk"
        assert call.scheme == "http"
        return answer

    head, _, rest = (await ask(app, "/health/disk")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert b"\r\nConnection: close" in head
    assert rest == body
    if isinstance(answer, Response) and answer.headers:
        assert b"\r\nX-Extra: y" in head


async def test_settings_can_be_overridden_for_a_route(autojump_clock: trio.testing.MockClock) -> None:
    """The other routes keep what was installed."""
    app = Application()
    app.install(WebSockets(max_frame_size=1000, timeout=7))

    async def tell(session: WebSocketSession) -> None:
        await session.send(f"{session.max_frame_size} {session.timeout:g} {session.call.protocol}")

    app.websocket("/plain", tell)
    app.websocket("/small", tell, max_frame_size=10, subprotocols=["v1"])
    app.route("/nested").websocket("/endless", tell, max_frame_size=None, timeout=2)
    for path, expected in [
        ("/plain", "1000 7 None"),
        ("/small", "10 7 v1"),
        ("/nested/endless", "None 2 None"),
    ]:
        async with handle_websocket_conversation(app, path, subprotocols=["v1"]) as (incoming, _):
            assert (await incoming.receive()).text == expected


async def test_origins_can_be_overridden_for_a_route(autojump_clock: trio.testing.MockClock) -> None:
    """One path open to anyone, the others not."""
    app = installed()
    app.websocket("/open", quiet, origins=None)
    app.websocket("/closed", quiet)
    async with handle_websocket_conversation(app, "/open", origin="https://elsewhere.example"):
        pass
    with pytest.raises(HandshakeRefused, match="403"):
        async with handle_websocket_conversation(app, "/closed", origin="https://elsewhere.example"):
            pass
