"""Ktor's own tests, in the strict form of the RFC; the numbers are those of its list (T101 and so on)."""

from __future__ import annotations

import contextvars
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing

from tests.support.helpers import RawClient, application, client_bytes, close, connected
from trioktor import CloseReason, ConnectionBroken, ConnectionClosed, Frame, HandshakeRefused, WebSocketSession, serve
from trioktor.http.handshake import accept_token
from trioktor.testing import handle_websocket_conversation

Clock = trio.testing.MockClock
Session = WebSocketSession

DIGITS = "0123456789abcdef"


async def echo(session: Session) -> None:
    """Send everything back."""
    async for frame in session:
        await session.send(frame)


async def swallow(session: Session) -> None:
    """Receive until the end."""
    async for _ in session:
        pass


def texts() -> list[str]:
    """125 texts of 1 to 125 characters."""
    return ["".join(DIGITS[i & 15] for i in range(size)) for size in range(1, 126)]


async def test_single_echo(autojump_clock: Clock) -> None:
    """T101, and its bytes: a masked Hello comes back as the vector of RFC 6455 §5.7."""

    async def handler(session: Session) -> None:
        await session.send(await session.receive())

    async with connected(handler) as (client, _):
        await client.send_bytes(bytes.fromhex("818537fa213d7f9f4d5158"))
        assert Frame.Text("Hello") == await client.receive()
        assert client.raw.startswith(bytes.fromhex("810548656c6c6f"))


async def test_frame_size(autojump_clock: Clock) -> None:
    """T106: a frame of 0xc123 bytes out, one of 0xcdef in."""

    async def handler(session: Session) -> None:
        await session.send("+" * 0xC123)
        await session.send(len((await session.receive()).data).to_bytes(4, "big"))

    async with connected(handler) as (client, _):
        assert Frame.Text("+" * 0xC123) == await client.receive()
        assert client.raw.startswith(bytes.fromhex("817ec123"))
        await client.send(Frame.Text("+" * 0xCDEF))
        assert Frame.Binary(bytes.fromhex("0000cdef")) == await client.receive()


async def test_parameters(autojump_clock: Clock) -> None:
    """T109: what the path says reaches the handler."""

    async def handler(session: Session, p: str = "") -> None:
        await session.send(p + session.call.parameters["p"])

    async with handle_websocket_conversation(application(handler, "/{p}"), "/aaa") as (incoming, _):
        assert "aaaaaa" == (await incoming.receive()).text


@pytest.mark.parametrize("size", [20 << 20])
async def test_big_frame(autojump_clock: Clock, size: int) -> None:
    """T110, T312: 20 MiB come back as they were."""
    data = os.urandom(1 << 20) * (size >> 20)
    app = application(echo, max_frame_size=size)
    async with handle_websocket_conversation(app, "/") as (incoming, outgoing):
        await outgoing.send(data)
        assert data == (await incoming.receive()).data


async def test_fragmentation_max_size(autojump_clock: Clock) -> None:
    """T113: the sum of fragments is limited too."""

    async def handler(session: Session) -> None:
        with pytest.raises(ConnectionBroken):
            await session.receive()

    async with connected(handler, max_frame_size=1025) as (client, _):
        await client.send(*[Frame.Binary(bytes(1024), fin=False)] * 3, Frame.Binary(bytes(1024)))
        assert [close(1009)] == await client.receive_rest()


async def test_conversation(autojump_clock: Clock) -> None:
    """T115: each message is answered, and the server saw them all."""
    seen: list[str] = []

    async def handler(session: Session) -> None:
        while True:
            seen.append(await session.receive_text())
            await session.send(seen[-1])

    async with handle_websocket_conversation(application(handler), "/") as (incoming, outgoing):
        for message in ["HELLO", "WORLD"]:
            await outgoing.send(message)
            assert message == (await incoming.receive()).text
    assert ["HELLO", "WORLD"] == seen


async def test_flush_after_close(autojump_clock: Clock) -> None:
    """T117: it neither raises nor hangs, before the peer's answer and after the end."""

    async def handler(session: Session) -> None:
        session.close()
        await trio.sleep(0.001)
        await session.flush()
        await session.wait_closed()
        await session.flush()

    async with connected(handler) as (client, _):
        assert close(1000) == await client.receive()
        await client.send(close(1000))
        assert await client.receive() is None


async def test_close_by_the_client(autojump_clock: Clock) -> None:
    """T201, T315: the reason arrives, the code comes back, and sending comes to fail."""

    async def handler(session: Session) -> None:
        with pytest.raises(trio.EndOfChannel):
            await session.receive()
        with pytest.raises(ConnectionClosed):
            for _ in range(10):
                await session.send("x")
                await trio.sleep(0.1)

    async with connected(handler) as (client, [session]):
        await client.send(close(1001, "Completed."))
        *_, last = await client.receive_rest()
        assert close(1001) == last
        assert CloseReason(1001, "Completed.") == session.close_reason


async def test_outgoing_capacity(autojump_clock: Clock) -> None:
    """T205: as many sends as the queue holds complete without a reader, and arrive in order."""

    async def handler(session: Session) -> None:
        for number in range(1000):
            session.outgoing.send_nowait(str(number))
        with pytest.raises(trio.WouldBlock):
            session.outgoing.send_nowait("one too many")

    async with connected(handler, outgoing=1000) as (client, _):
        assert [str(number) for number in range(1000)] == [
            frame.text for _ in range(1000) if (frame := await client.receive()) is not None
        ]


async def test_the_peer_stops_speaking(autojump_clock: Clock) -> None:
    """T212: the end of its stream without a Close is 1006; the server does not pretend otherwise."""
    async with connected(swallow_broken) as (client, [session]):
        await client.stream.send_eof()
        assert [] == await client.receive_rest()
        assert CloseReason(1006) == session.close_reason


async def swallow_broken(session: Session) -> None:
    """Receive until the broken end."""
    with pytest.raises(ConnectionBroken):
        await swallow(session)


async def test_connection_loss(autojump_clock: Clock) -> None:
    """T213: everything completes, in the middle of whatever it was."""

    async def sending(session: Session) -> None:
        with pytest.raises(ConnectionBroken):
            while True:
                await session.send("x")
                await trio.sleep(1)

    for handler in (swallow_broken, sending):
        async with connected(handler) as (client, _):
            await client.aclose()


async def test_close_sequence_begun_by_the_client(autojump_clock: Clock) -> None:
    """T214, T216: with messages and without, the same reason on both sides."""
    cases: list[list[str]] = [["content"], []]
    for messages in cases:
        received: list[str] = []

        async def handler(session: Session, received: list[str] = received) -> None:
            async for frame in session:
                received.append(frame.text)

        async with connected(handler) as (client, [session]):
            await client.send(*map(Frame.Text, messages), close(1000))
            assert [close(1000)] == await client.receive_rest()
            assert CloseReason(1000) == session.close_reason
        assert messages == received


async def test_sending_to_what_is_closed(autojump_clock: Clock) -> None:
    """T215: one documented error on both sides."""
    async with handle_websocket_conversation(application(swallow), "/") as conversation:
        await conversation.session.aclose()
        with pytest.raises(ConnectionClosed):
            await conversation.session.send("x")

    async def handler(session: Session) -> None:
        await session.aclose()
        with pytest.raises(ConnectionClosed):
            await session.send("x")

    async with handle_websocket_conversation(application(handler), "/") as conversation:
        await conversation.session.wait_closed()


async def ready(client: RawClient) -> None:
    """Nothing more from this end: reset the connection."""
    client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # type: ignore[attr-defined]
    await client.aclose()


async def sleep(session: Session) -> None:
    """No input, no output."""
    await session.wait_closed()


async def send_forever(session: Session) -> None:
    """Output without end."""
    while True:
        await session.send("a" * 2000)


@pytest.mark.parametrize("handler", [swallow, send_forever, sleep])
@pytest.mark.parametrize("how", ["reset", "hang up"])
async def test_disconnect_on_a_real_socket(handler: Callable[[Session], Awaitable[None]], how: str) -> None:
    """T301, T302, T303: the session notices, whatever its handler does."""
    sessions: list[Session] = []

    async def recording(session: Session) -> None:
        sessions.append(session)
        await handler(session)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, application(recording), 0, host="127.0.0.1"))
        client = RawClient(await trio.open_tcp_stream("127.0.0.1", server.port))
        await client.upgrade()
        while not sessions:
            await trio.lowlevel.checkpoint()
        await (ready(client) if how == "reset" else client.aclose())
        assert CloseReason(1006) == await sessions[0].wait_closed()
        nursery.cancel_scope.cancel()


async def test_a_hang_up_is_seen_while_the_reader_waits(autojump_clock: Clock) -> None:
    """A handler that takes nothing does not hide that its peer was reset."""
    sessions: list[Session] = []

    async def handler(session: Session) -> None:
        sessions.append(session)
        await session.wait_closed()

    async with trio.open_nursery() as nursery:
        app = application(handler, incoming=1)
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        stream = await trio.open_tcp_stream(*listener.socket.getsockname())
        nursery.start_soon(app.handle_stream, await listener.accept())
        await listener.aclose()
        client = RawClient(stream)
        await client.upgrade()
        await client.send(*[Frame.Text("x")] * 10)
        while not sessions or sessions[0]._connection.inbox.pause is None:
            await trio.lowlevel.checkpoint()
        await ready(client)
        assert CloseReason(1006) == await sessions[0].wait_closed()


async def test_generic_sequence(autojump_clock: Clock) -> None:
    """T307: Hello, then Close."""
    received = []

    async def handler(session: Session) -> None:
        async for frame in session:
            received.append(frame.text)

    async with connected(handler) as (client, _):
        await client.send_bytes(bytes.fromhex("818537fa213d7f9f4d5158 888237fa213d3412"))
        assert [close(1000)] == await client.receive_rest()
    assert ["Hello"] == received


async def test_receive_messages(autojump_clock: Clock) -> None:
    """T309: 125 texts of growing length, in order, and nothing more."""
    received = []

    async def handler(session: Session) -> None:
        async for frame in session:
            received.append(frame.text)

    async with connected(handler) as (client, _):
        await client.send(*map(Frame.Text, texts()), close(1000))
        assert [close(1000)] == await client.receive_rest()
    assert texts() == received


async def test_produce_messages(autojump_clock: Clock) -> None:
    """T311: the same the other way round."""

    async def handler(session: Session) -> None:
        for text in texts():
            await session.send(text)

    async with connected(handler) as (client, _):
        assert [*map(Frame.Text, texts()), close(1000)] == [await client.receive() for _ in range(126)]
        await client.send(close(1000))
        assert await client.receive() is None


async def test_a_lot_of_frames(autojump_clock: Clock) -> None:
    """T313: twenty thousand frames are counted in order."""
    count = 0

    async def handler(session: Session) -> None:
        nonlocal count
        async for frame in session:
            count += 1
            assert str(count) == frame.text

    async with connected(handler) as (client, _):
        data = b"".join(client_bytes(Frame.Text(str(number))) for number in range(1, 20_001))
        await client.send_bytes(data + client_bytes(close(1000)))
        assert [close(1000)] == await client.receive_rest()
    assert 20_000 == count


user: contextvars.ContextVar[str] = contextvars.ContextVar("user")


async def test_sessions_inherit_the_context_of_the_server(autojump_clock: Clock) -> None:
    """T317: a context variable that was set where the server was started."""

    async def handler(session: Session) -> None:
        await session.send(user.get())

    user.set("Ada")
    async with connected(handler) as (client, _):
        assert Frame.Text("Ada") == await client.receive()


async def test_sessions_are_cancelled_when_the_server_stops() -> None:
    """T318: with no grace at all, `finally` runs."""
    ended = trio.Event()

    async def handler(session: Session) -> None:
        try:
            await swallow(session)
            await trio.sleep_forever()
        finally:
            ended.set()

    async with trio.open_nursery() as nursery:
        app = application(handler, handler_grace=None)
        server = await nursery.start(partial(serve, app, 0, host="127.0.0.1", shutdown_grace=0))
        client = RawClient(await trio.open_tcp_stream("127.0.0.1", server.port))
        await client.upgrade()
        await server.aclose()
        assert ended.is_set()
        await client.aclose()


async def test_missing_routes_leave_nothing_behind(autojump_clock: Clock) -> None:
    """T321: two hundred requests to nowhere, and no task is left."""
    before = trio.lowlevel.current_statistics().tasks_living
    app = application(echo)
    for _ in range(200):
        with pytest.raises(HandshakeRefused):
            async with handle_websocket_conversation(app, "/nowhere"):
                pytest.fail("refused handshakes have no conversation")
    assert before == trio.lowlevel.current_statistics().tasks_living


async def test_many_at_once(autojump_clock: Clock) -> None:
    """T507: a hundred conversations in parallel, a hundred growing echoes in one."""
    app = application(echo)

    async def talk(number: int) -> None:
        async with handle_websocket_conversation(app, "/") as (incoming, outgoing):
            await outgoing.send(str(number))
            assert str(number) == (await incoming.receive()).text

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(talk, number)
    async with handle_websocket_conversation(app, "/") as (incoming, outgoing):
        for number in range(100):
            await outgoing.send("Hello" + "." * number)
            assert "Hello" + "." * number == (await incoming.receive()).text


async def test_a_close_is_the_last_of_what_was_queued(autojump_clock: Clock) -> None:
    """T606: behind 65,535 bytes come `88 02 03 e8`, and the channel is closed."""

    async def handler(session: Session) -> None:
        await session.send(b"\x77" * 65535)
        session.close()
        with pytest.raises(trio.BrokenResourceError):
            await session.outgoing.send("x")

    async with connected(handler) as (client, _):
        assert [Frame.Binary(b"\x77" * 65535), close(1000)] == [await client.receive(), await client.receive()]
        assert 4 + 65535 + 4 == len(client.raw)
        assert client.raw.endswith(b"\x88\x02\x03\xe8")


@pytest.mark.parametrize("text", ["", "ascii", "яяя", "日本語", "a😀b", "mix: aя日😀", "x" * 123, "я" * 61 + "x"])
def test_reasons_are_measured_in_utf8(text: str) -> None:
    """T615 to T618, T620: what fits in 123 bytes is taken whole; nothing is ever cut."""
    frame = Frame.Close(CloseReason(1000, text))
    assert 2 + len(text.encode()) == len(frame.data)
    assert CloseReason(1000, text) == frame.reason
    assert 500 == len(Frame.Binary(bytes(500)).data)


def test_the_key_is_answered_as_the_suite_expects() -> None:
    """T322: the accept token of Ktor's engine suite."""
    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" == accept_token("dGhlIHNhbXBsZSBub25jZQ==")
