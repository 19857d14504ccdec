"""Headers that hooks and handlers add to the answer, the 101 included."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from tests.support.helpers import RawClient, close, records_above_info
from tests.support.listening import talking
from trioktor import (
    Application,
    Call,
    ConnectionClosed,
    Frame,
    Response,
    ResponseHeaders,
    WebSockets,
    WebSocketSession,
    serve,
)
from trioktor.http.requests import HeadReader
from trioktor.server.host import Host

Clock = trio.testing.MockClock


async def head_of(app: Application, request: bytes) -> tuple[str, list[str]]:
    """The first line and the headers of the answer to a request."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.handle_stream, theirs)
        await ours.send_all(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += await ours.receive_some()
        nursery.cancel_scope.cancel()
    line, *headers = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    return line, headers


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def application(hook: Callable[[Call], Any], **settings: Any) -> Application:
    """A WebSocket and a page behind a hook."""
    app = Application()
    app.install(WebSockets(**settings))

    async def asked(call: Call) -> Any:
        return hook(call)

    @app.websocket("/", before=asked)
    async def handler(session: WebSocketSession) -> None:
        await session.receive()

    @app.get("/page", before=asked)
    async def page(call: Call) -> str:
        call.response_headers.append("X-Page", "1")
        return "hello"

    return app


async def test_a_hook_adds_headers_to_the_101(autojump_clock: Clock) -> None:
    """In order, twice the same name too, cookies among them; and the handshake is whole all the same."""

    def hook(call: Call) -> None:
        call.response_headers.append("X-One", "1")
        call.response_headers.set_cookie("a", "b", max_age=60, path="/p", domain="x.org", secure=True, same_site=None)
        call.response_headers.set_cookie("c", "", http_only=False)
        assert ["X-One", "Set-Cookie", "Set-Cookie"] == [name for name, _ in call.response_headers]
        assert 3 == len(call.response_headers)
        assert "<ResponseHeaders X-One, Set-Cookie, Set-Cookie>" == repr(call.response_headers)

    line, headers = await head_of(application(hook), UPGRADE)
    assert "HTTP/1.1 101 Switching Protocols" == line
    assert [
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "X-One: 1",
        "Set-Cookie: a=b; Max-Age=60; Path=/p; Domain=x.org; Secure; HttpOnly",
        "Set-Cookie: c=; SameSite=Lax",
    ] == headers[2:]


async def test_without_any_the_101_is_as_ever(autojump_clock: Clock) -> None:
    """Three lines beside the first."""
    _, headers = await head_of(application(lambda call: None), UPGRADE)
    assert 3 == len(headers)


Handler = Callable[[WebSocketSession], Awaitable[object]]


def adds(session: WebSocketSession) -> None:
    """A handler's header."""
    session.call.response_headers.append("X-Mine", "1")


async def waits(session: WebSocketSession) -> None:
    """For a message."""
    adds(session)
    await session.receive()


async def does_not_give_up_its_turn(session: WebSocketSession) -> None:
    """An await is no wait."""

    async def nothing() -> None:
        await trio.lowlevel.checkpoint_if_cancelled()

    await nothing()
    adds(session)
    await session.receive()


async def returns(session: WebSocketSession) -> None:
    """At once."""
    adds(session)


async def fails(session: WebSocketSession) -> None:
    """At once."""
    adds(session)
    raise KeyError("a bug")


async def sends(session: WebSocketSession) -> None:
    """A message, and then another."""
    adds(session)
    await session.send("hello")
    session.send_nowait("you")
    await session.receive()


async def sends_fragments(session: WebSocketSession) -> None:
    """Of a message."""
    adds(session)
    await session.send(Frame.Text(b"hello", fin=False))
    await session.receive()


async def puts_into_the_channel(session: WebSocketSession) -> None:
    """A message: the writer takes it later."""
    session.outgoing.send_nowait("hello")
    adds(session)
    await session.receive()


async def pings(session: WebSocketSession) -> None:
    """The client: behind what it adds."""
    session.send_nowait(Frame.Ping(b""))
    adds(session)
    await session.receive()


async def closes(session: WebSocketSession) -> None:
    """The conversation: behind what it adds."""
    session.close(1001)
    adds(session)
    await session.receive()


async def starts_a_task(session: WebSocketSession) -> None:
    """Which sends."""
    session.start_soon(session.send, "hello")
    adds(session)
    await session.receive()


@pytest.mark.parametrize(
    "handler",
    [
        waits,
        does_not_give_up_its_turn,
        returns,
        fails,
        sends,
        sends_fragments,
        puts_into_the_channel,
        pings,
        closes,
        starts_a_task,
    ],
)
async def test_a_handler_adds_headers_before_it_sends_or_waits(
    handler: Handler, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Behind those of hooks; and what it says follows the 101."""

    async def hook(call: Call) -> None:
        call.response_headers.append("X-Hook", "1")

    app = Application()
    app.install(WebSockets())
    app.websocket("/", handler, before=hook)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.handle_stream, theirs)
        client = RawClient(ours)
        await ours.send_all(UPGRADE)
        head = (await client.read_head()).decode().split("\r\n")
        assert ("HTTP/1.1 101 Switching Protocols", ["X-Hook: 1", "X-Mine: 1"]) == (head[0], head[-2:])
        if handler in (sends, puts_into_the_channel, starts_a_task):
            assert Frame.Text("hello") == await client.receive()
        if handler in (returns, fails, closes):
            code = {returns: 1000, fails: 1011, closes: 1001}[handler]
            assert close(code) == await client.receive()
        nursery.cancel_scope.cancel()
    assert len(records_above_info(caplog)) == (handler is fails)


async def test_the_101_does_not_wait_for_a_task_that_takes_its_time(autojump_clock: Clock) -> None:
    """The handler has returned, and what it started is slow to end."""

    async def lingers() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(100)

    async def handler(session: WebSocketSession) -> None:
        adds(session)
        session.start_soon(lingers)

    app = Application()
    app.install(WebSockets())
    app.websocket("/", handler)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.handle_stream, theirs)
        await ours.send_all(UPGRADE)
        began = trio.current_time()
        assert b"X-Mine: 1" in await RawClient(ours).read_head()
        waited = trio.current_time() - began
        nursery.cancel_scope.cancel()
    assert waited < 1


async def test_who_is_dropped_at_once_was_let_in(autojump_clock: Clock) -> None:
    """On a socket, which takes the 101 without a wait."""

    async def handler(session: WebSocketSession) -> None:
        adds(session)
        session.terminate()

    app = Application()
    app.install(WebSockets())
    app.websocket("/", handler)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, app, 0, host="127.0.0.1"))
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(UPGRADE)
            client = RawClient(stream)
            assert b"X-Mine: 1" in await client.read_head()
            assert [] == await client.receive_rest()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wait", ["a pass", "a message"])
async def test_then_it_is_too_late(wait: str, autojump_clock: Clock) -> None:
    """The error says so, and the 101 is without it."""
    told: list[str] = []

    async def handler(session: WebSocketSession) -> None:
        if wait == "a pass":
            await trio.lowlevel.checkpoint()
        else:
            await session.send("x")
        with pytest.raises(RuntimeError, match="before the handler sends or waits, or in a hook") as caught:
            adds(session)
        told.append(str(caught.value))

    app = Application()
    app.install(WebSockets())
    app.websocket("/", handler)
    _, headers = await head_of(app, UPGRADE)
    assert (1, 3) == (len(told), len(headers))


async def test_a_first_message_needs_no_writer(autojump_clock: Clock) -> None:
    """It follows the 101 straight to the socket."""
    writers: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        adds(session)
        await session.send("hello")
        writers.append(session._connection.writing.writer)
        await session.receive()

    async with talking(handler) as (client, _):
        assert Frame.Text("hello") == await client.receive()
    assert writers == [None]


async def test_the_function_that_chooses_a_subprotocol_may_add_some(autojump_clock: Clock) -> None:
    """It runs before the answer, too."""

    def choose(call: Call) -> None:
        call.response_headers.append("X-Chosen", "nothing")

    _, headers = await head_of(application(lambda call: None, subprotocols=choose), UPGRADE)
    assert "X-Chosen: nothing" in headers


async def test_pages_and_refusals_of_hooks_have_them(autojump_clock: Clock) -> None:
    """Behind their own."""
    request = UPGRADE.replace(b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"").replace(b"GET / ", b"GET /page ")
    line, headers = await head_of(application(lambda call: call.response_headers.append("X-Hook", "1")), request)
    assert ("HTTP/1.1 200 OK", ["X-Hook: 1", "X-Page: 1"]) == (line, headers[-2:])

    def refuse(call: Call) -> Response:
        call.response_headers.append("X-Why", "b")
        return Response("no", status=403, headers={"X-Own": "a"})

    for wire in (request, UPGRADE):
        line, headers = await head_of(application(refuse), wire)
        assert ("HTTP/1.1 403 Forbidden", ["X-Own: a", "X-Why: b"]) == (line, headers[-2:])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "1\r\nX-B: 2"),
        ("X-A", "\n"),
        ("X-A\r\nX-B", "1"),
        ("X A", "1"),
        ("", "1"),
        ("X-A", "\u20ac"),
        ("X-A", "\x00"),
        ("Connection", "close"),
        ("upgrade", "h2c"),
        ("Sec-WebSocket-Accept", "x"),
        ("sec-websocket-protocol", "x"),
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("Date", "now"),
        ("Content-Type", "text/html"),
    ],
)
def test_what_cannot_be_written_is_refused(name: str, value: str) -> None:
    """And nothing of it stays."""
    headers = ResponseHeaders()
    with pytest.raises(ValueError, match=r"header|server"):
        headers.append(name, value)
    assert 0 == len(headers)


@pytest.mark.parametrize(
    "cookie",
    [
        {"name": "a b"},
        {"name": ""},
        {"name": "a=b"},
        {"value": "a;b"},
        {"value": 'a"b'},
        {"value": "a b"},
        {"value": "a,b"},
        {"value": "a\\b"},
        {"value": "\u00e9"},
        {"path": "/;Domain=evil.org"},
        {"domain": "x\r\ny"},
        {"same_site": "lax"},
    ],
)
def test_what_is_no_cookie_is_refused(cookie: dict[str, Any]) -> None:
    """A value is quoted by whoever means it."""
    headers = ResponseHeaders()
    with pytest.raises(ValueError, match=r"cookie|same_site"):
        headers.set_cookie(**{"name": "a", "value": "b", **cookie})
    assert 0 == len(headers)


@given(st.text(max_size=20), st.text(max_size=20))
def test_whatever_is_taken_is_one_line(name: str, value: str) -> None:
    """No name or value begins another header, or ends the head."""
    headers = ResponseHeaders()
    try:
        headers.append(name, value)
    except ValueError:
        return
    line = f"{name}: {value}".encode("latin-1")
    found = HeadReader(10_000, 10).feed(b"GET / HTTP/1.0\r\n" + line + b"\r\n\r\n")
    assert found is not None
    assert [name.lower()] == list(found[0].headers)


def test_the_answer_that_went_out_takes_no_more() -> None:
    """With or without headers."""
    headers = ResponseHeaders()
    headers.append("X-A", "1")
    assert (("X-A", "1"),) == headers.take()
    with pytest.raises(RuntimeError, match="has gone out"):
        headers.set_cookie("a", "b")


Wait = Callable[[WebSocketSession], Awaitable[object]]


@pytest.mark.parametrize(
    "wait",
    [
        lambda session: session.flush(),
        lambda session: session.receive(),
        lambda session: session.incoming.receive(),
        lambda session: session.wait_closed(),
        lambda session: session.ping(),
        lambda session: session.aclose(),
        lambda session: session.outgoing.send("x"),
    ],
)
@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("cancel", ["before", "after", "not"])
async def test_a_first_wait_that_is_cancelled_harms_nobody(
    wait: Wait, is_reset: bool, cancel: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is waited for, in the step in which the 101 goes out, and if that fails."""
    ended: list[bool] = []

    async def handler(session: WebSocketSession) -> None:
        adds(session)
        if is_reset:
            cut(session)
        with trio.CancelScope() as scope:
            if cancel == "before":
                scope.cancel()
            elif cancel == "after":
                session.start_soon(cancels, scope)
            else:
                scope.deadline = trio.current_time() + 5
            try:
                await wait(session)
            except (ConnectionClosed, trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        ended.append(True)

    async def cancels(scope: trio.CancelScope) -> None:
        scope.cancel()

    def cut(session: WebSocketSession) -> None:
        transport: Any = session._connection.transport
        transport._socket.shutdown(socket.SHUT_RDWR)

    app = Application()
    app.install(WebSockets())
    app.websocket("/", handler)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, app, 0, host="127.0.0.1"))
        for _ in range(2):
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
                await stream.send_all(UPGRADE)
                client = RawClient(stream)
                if is_reset:
                    assert b"" == await stream.receive_some()
                else:
                    assert b"X-Mine: 1" in await client.read_head()
                    await client.receive()
        await trio.sleep(20)
        assert server.sessions == ()
        nursery.cancel_scope.cancel()
    assert ended == [True, True]
    assert [] == records_above_info(caplog)


async def test_a_server_that_is_stopping_lets_a_handler_add_them(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 101 does not go out before it runs, though the Close is on its way."""
    app = Application()
    app.install(WebSockets())
    app.websocket("/", waits)
    host = Host(app)
    ours, theirs = trio.testing.memory_stream_pair()
    begin = host._begin

    def stopping(*args: Any) -> Any:
        host.is_stopping = True
        return begin(*args)

    monkeypatch.setattr(host, "_begin", stopping)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.handle, theirs)
        client = RawClient(ours)
        await ours.send_all(UPGRADE)
        assert b"X-Mine: 1" in await client.read_head()
        answer = await client.receive()
        assert isinstance(answer, Frame.Close)
        nursery.cancel_scope.cancel()
