"""Errors that teach: every refusal and misuse names its remedy."""
# the table has a line for each mistake

from __future__ import annotations

import logging
import re
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import trioktor
from tests.support.helpers import application, connected
from trioktor import (
    SUSPEND,
    Application,
    Call,
    ChannelConfig,
    Frame,
    FrameType,
    HandshakeRefused,
    JsonConverter,
    Overflow,
    PerMessageDeflate,
    WebSockets,
    WebSocketSession,
    broadcast,
    inherited_listeners,
    serve,
)
from trioktor.auth import bearer
from trioktor.testing import handle_websocket_conversation, open_test_host


async def handler(session: WebSocketSession) -> None:
    """A proper handler."""


async def wants_room(session: WebSocketSession, room: str) -> None:
    """Wants a parameter that the path may not name."""


async def generator(session: WebSocketSession) -> AsyncIterator[str]:
    """Yields instead of sending."""
    yield "hello"


async def nothing() -> None:
    """Takes no session."""


async def two(call: Call, other: object) -> None:
    """A hook that wants more than the call."""


def plain(session: WebSocketSession) -> None:
    """Not async."""


def installed() -> Application:
    """An application, ready for routes."""
    app = Application()
    app.install(WebSockets())
    return app


def twice() -> None:
    """One path, two handlers."""
    app = installed()
    app.websocket("/p", handler)
    app.websocket("/p", handler)


def after_serving() -> None:
    """A route that comes too late."""
    app = installed()
    app.registry.freeze()
    app.websocket("/p", handler)


def unchecked(function: Callable[..., Any], *arguments: object, **options: object) -> Callable[[], object]:
    """A call whose types are wrong on purpose."""
    return lambda: function(*arguments, **options)


MISTAKES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "not installed": (lambda: Application().websocket("/p", handler), RuntimeError, r"call app.install\(WebSockets\("),
    "installed twice": (lambda: installed().install(WebSockets()), RuntimeError, "all settings in one WebSockets"),
    "installing a class": (unchecked(Application().install, WebSockets), TypeError, r"install takes WebSockets\("),
    "route on a function": (unchecked(installed().route, handler), TypeError, r"write @app.websocket\(path\)"),
    "websocket on a function": (unchecked(installed().websocket, handler), TypeError, r"@app.websocket\('/path'\)"),
    "raw on a function": (unchecked(installed().websocket_raw, handler), TypeError, r"@app.websocket_raw\('/path'\)"),
    "a sync function": (unchecked(installed().websocket, "/p", plain), TypeError, r"write `async def plain\(session\)"),
    "an async generator": (unchecked(installed().websocket, "/p", generator), TypeError, "send with it instead"),
    "no parameter": (unchecked(installed().websocket, "/p", nothing), TypeError, r"async def nothing\(session\)"),
    "an unknown parameter": (
        lambda: installed().websocket("/p", wants_room),
        ValueError,
        r"put \{room\} into the path",
    ),
    "a malformed pattern": (
        lambda: installed().websocket("/{a b}", handler),
        ValueError,
        r"write \{name\}, \{name\?\}",
    ),
    "a path twice": (twice, ValueError, "'/p' has a WebSocket handler already"),
    "after serving": (after_serving, RuntimeError, "install and register before that"),
    "an unknown setting": (
        unchecked(installed().websocket, "/p", handler, sise=1),
        TypeError,
        "see WebSockets for those",
    ),
    "a hook that wants more": (unchecked(installed().before_upgrade, two), TypeError, r"write two\(call\)"),
    "a token check": (unchecked(bearer, 5), TypeError, "a mapping or an async function"),
    "a proxy": (lambda: installed().trust_proxies("localhost"), ValueError, "address, network, or 'unix'"),
    "two headers": (lambda: installed().trust_proxies("::1", header="X"), ValueError, "X-Forwarded-For or Forwarded"),
    "overflow": (
        lambda: ChannelConfig(1, on_overflow=Overflow.SKIP),
        ValueError,
        "on_overflow must be SUSPEND or CLOSE",
    ),
    "a capacity": (
        lambda: WebSockets(incoming=0),
        ValueError,
        "incoming must be a whole number of at least 1 or a Chan",
    ),
    "a converter's class": (
        unchecked(WebSockets, content_converter=JsonConverter),
        ValueError,
        r"write JsonConverter\(\)",
    ),
    "an extension's class": (
        unchecked(WebSockets, extensions=[PerMessageDeflate]),
        ValueError,
        r"PerMessageDeflate\(\)",
    ),
    "a window of eight": (lambda: PerMessageDeflate(window_bits=8), ValueError, "window_bits must be .* from 9 to 15"),
    "minus one second": (lambda: WebSockets(timeout=-1), ValueError, "timeout must be more than 0 seconds"),
    "an abstract frame": (Frame, TypeError, "use Frame.Text, Frame.Binary"),
    "a long Ping": (lambda: Frame.Ping(bytes(126)), ValueError, "at most 125 bytes, not 126"),
    "no supervisor": (inherited_listeners, RuntimeError, "LISTEN_PID and LISTEN_FDS"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_its_remedy(mistake: str) -> None:
    """At the line that makes it."""
    make, kind, remedy = MISTAKES[mistake]
    with pytest.raises(kind, match=remedy):
        make()


SESSION_MISTAKES: dict[str, tuple[Callable[[WebSocketSession], Any], type[Exception], str]] = {
    "await close": (lambda session: session.close(), TypeError, r"`await session.aclose\(\)`"),
    "a code": (lambda session: session.aclose(1005), ValueError, "the close code 1005 may not be sent"),
    "no message": (lambda session: session.send(5), TypeError, "a message is a Frame, str or bytes, not int"),  # type: ignore[arg-type]
    "half a message": (lambda session: session.send(Frame.Text("a", rsv1=True)), Exception, "needs an extension"),
    "a message of Pings": (lambda session: session.message(FrameType.PING).send("a"), ValueError, "FrameType.TEXT or"),
    "no converter": (
        lambda session: session.send_serialized(1),
        trioktor.ConverterNotFound,
        r"WebSockets\(content_converter=JsonConverter\(\)\)",
    ),
    "no extension": (lambda session: session.extension(PerMessageDeflate), LookupError, "look at session.extensions"),
    "a broadcast that waits": (lambda session: broadcast([session], "a", on_full=SUSPEND), ValueError, "SKIP or CLOSE"),
    "a broadcast of a piece": (
        lambda session: broadcast([session], Frame.Text("a", fin=False)),
        ValueError,
        "only whole messages",
    ),
}


@pytest.mark.parametrize("mistake", SESSION_MISTAKES)
async def test_a_mistake_with_a_session_names_its_remedy(mistake: str, autojump_clock: trio.testing.MockClock) -> None:
    """At the call."""
    make, kind, remedy = SESSION_MISTAKES[mistake]

    async def clumsy(session: WebSocketSession) -> None:
        with pytest.raises(kind, match=remedy):
            await make(session)

    async with connected(clumsy) as (client, _):
        await client.receive()


REFUSALS: dict[str, tuple[str, dict[str, str], int, str]] = {
    "an origin": (
        "/p?token=x",
        {"Origin": "https://evil.example"},
        403,
        r"https://evil.example.*'/p': list it in WebSoc",
    ),
    "a subprotocol": ("/json", {}, 400, "offer one of the subprotocols that this path serves: 'json'"),
    "a path": ("/nowhere", {}, 404, "nothing at this path"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refusal_names_its_remedy(
    refusal: str, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """In its body; but a refused origin in a WARNING: a stranger needs no advice on how to be let in."""
    path, headers, status, remedy = REFUSALS[refusal]
    app = application(handler, "/p")
    app.websocket("/json", handler, protocol="json")
    with pytest.raises(HandshakeRefused) as refused:
        async with handle_websocket_conversation(app, path, headers=headers):
            pass
    assert refused.value.status == status
    assert bool(re.search(remedy, refused.value.body.decode())) == (refusal != "an origin")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [bool(re.search(remedy, warning)) for warning in warnings] == [True] * (refusal == "an origin")


async def test_a_plain_request_is_told_what_is_spoken_here(autojump_clock: trio.testing.MockClock) -> None:
    """426, with the headers that say it."""
    async with open_test_host(application(handler)) as host:
        answer = await host.get("/")
    assert (answer.status, answer.headers["upgrade"], answer.headers["sec-websocket-version"]) == (
        426,
        "websocket",
        "13",
    )
    assert b"this path speaks WebSocket only" in answer.body


@pytest.mark.parametrize("options", [{}, {"port": 0, "path": "/nowhere"}])
async def test_a_server_listens_in_one_way(options: dict[str, Any]) -> None:
    """None or two is a mistake."""
    with pytest.raises(ValueError, match="exactly one of port, path and listeners"):
        await serve(application(handler), **options)


async def test_a_port_in_use_names_the_remedy() -> None:
    """One line, and exit status 1."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, application(handler), 0, host="127.0.0.1"))
        command = [sys.executable, "-m", "trioktor", "echo", "--port", str(server.port)]
        done = await trio.run_process(command, capture_stderr=True, check=False)
        await server.aclose()
    assert done.returncode == 1
    error = done.stderr.decode()
    assert re.fullmatch(r"trioktor echo: cannot listen on .*EADDRINUSE.*; take another --port, or 0 .*\n", error)
