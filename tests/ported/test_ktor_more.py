"""More of Ktor's own tests: its raw sessions on real sockets, its builders, and its client's tests of servers."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing

from tests.support.helpers import (
    RawClient,
    application,
    assert_all_over,
    close,
    connected,
    connected_raw,
    masked,
    raw_application,
)
from trioktor import (
    Application,
    CloseReason,
    Frame,
    FrameTooBig,
    HandshakeRefused,
    ProtocolError,
    RawWebSocketSession,
    WebSockets,
    WebSocketSession,
    serve,
)
from trioktor.session.base import BaseSession
from trioktor.testing import handle_websocket_conversation, open_test_host

Clock = trio.testing.MockClock
Session = WebSocketSession


async def echo(session: BaseSession) -> None:
    """Send everything back."""
    async for frame in session:
        await session.send(frame)


# raw sessions on real sockets


async def consume(session: RawWebSocketSession) -> None:
    """Receive until the end."""
    async for _ in session:
        pass


async def send_forever(session: RawWebSocketSession) -> None:
    """Send, and rest a little."""
    while True:
        await session.send("a" * 2000)
        await trio.sleep(0.001)


async def sleep(session: RawWebSocketSession) -> None:
    """Do nothing that could notice."""
    await trio.sleep_forever()


@pytest.mark.parametrize("handler", [consume, send_forever, sleep])
async def test_raw_disconnect_on_a_real_socket(
    handler: Callable[[RawWebSocketSession], Awaitable[None]],
) -> None:
    """T304, T305, T306 (the last two not run by Ktor): reset, the session is over, whatever its handler does."""
    sessions: list[RawWebSocketSession] = []

    async def recording(session: RawWebSocketSession) -> None:
        sessions.append(session)
        await handler(session)

    app = raw_application(recording, close_timeout=0.01, handler_grace=0.01)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, app, 0, host="127.0.0.1"))
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        client = RawClient(stream)
        await client.upgrade()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await client.aclose()
        with trio.fail_after(5):
            while not sessions:
                await trio.lowlevel.checkpoint()
            assert CloseReason(1006) == await sessions[0].wait_closed()
            while server.sessions:
                await trio.lowlevel.checkpoint()
        await server.aclose()
    assert_all_over(sessions[0])


async def test_masked_input_is_read_and_masked_output_can_be_had(autojump_clock: Clock) -> None:
    """T107: the inbound half as it is; the outbound one only where `masking` asks for it."""
    seen: list[str] = []

    async def handler(session: RawWebSocketSession) -> None:
        frame = await session.receive()
        seen.append(frame.text)
        session.masking = True
        await session.send(frame)

    async with connected_raw(handler) as (client, _):
        await client.send_bytes(bytes.fromhex("818537fa213d7f9f4d5158"))
        data = b""
        while chunk := await client.stream.receive_some():
            data += chunk
    assert ["Hello"] == seen
    assert 11 == len(data)
    assert b"\x81\x85" == data[:2]
    assert b"Hello" == bytes(byte ^ data[2 + i % 4] for i, byte in enumerate(data[6:]))


@pytest.mark.parametrize("raw", [False, True])
async def test_reserved_bits_without_an_extension_are_refused(autojump_clock: Clock, raw: bool) -> None:
    """T316 in the strict form: rsv1 is 1002 where nobody negotiated it, in raw sessions, too."""
    connect = connected_raw if raw else connected
    async with connect(consume, answer_grace=0) as (client, sessions):  # type: ignore[arg-type]
        await client.send_bytes(masked(0x41, b"Hello") + masked(0x80, b", World"))
        assert [close(1002)] == await client.receive_rest()
    assert CloseReason(1002) == sessions[0].close_reason


# builders


def test_builders_return_the_handler() -> None:
    """T118: Ktor's return the route; ours leave the function what it was, so that decorators can be stacked."""
    app = Application()
    app.install(WebSockets())
    assert echo is app.websocket("/a", echo)
    assert echo is app.websocket("/b")(echo)
    assert echo is app.websocket_raw("/c", echo)
    assert echo is app.websocket_raw("/d")(echo)
    assert app.route("/e") is not app


async def test_a_conversation_behind_an_interceptor(autojump_clock: Clock) -> None:
    """T116: what runs before the upgrade, and a nursery round the handler, change nothing."""
    order: list[str] = []
    app = Application()
    app.install(WebSockets())

    @app.before_upgrade
    async def monitoring(call: object) -> None:
        order.append("before")

    @app.websocket("/echo")
    async def handler(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, session)

    async with handle_websocket_conversation(app, "/echo") as (incoming, outgoing):
        for message in ("HELLO", "WORLD"):
            await outgoing.send(message)
            order.append((await incoming.receive()).text)
    assert ["before", "HELLO", "WORLD"] == order


def test_reasons_are_bounded_in_utf8() -> None:
    """T610, T612, T616, T617: 123 bytes fit; more is refused, never cut: no text of ours is that long."""
    assert 125 == len(close(1000, "a" * 123).data)
    for text in ("a" * 124, "я" * 62, "a" * 500):
        with pytest.raises(ValueError, match="123"):
            CloseReason(1000, text)


# what Ktor's client tests say of servers (T7xx)


async def test_two_hundred_echoes_side_by_side(autojump_clock: Clock) -> None:
    """T7xx: a hundred conversations with two messages each, at once."""

    async def talk(number: int) -> None:
        async with host.websocket("/") as (incoming, outgoing):
            for _ in range(2):
                await outgoing.send(f"test {number}")
                assert f"test {number}" == (await incoming.receive()).text

    async with open_test_host(application(echo)) as host, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(talk, number)


async def test_a_thousand_unread_echoes_do_not_hang_the_end(autojump_clock: Clock) -> None:
    """T7xx: sent, never read, closed: both sides come to a clean end, and every message was echoed."""
    sessions: list[Session] = []

    async def handler(session: Session) -> None:
        sessions.append(session)
        await echo(session)

    with trio.fail_after(5):
        async with handle_websocket_conversation(application(handler), "/") as conversation:
            for number in range(1000):
                await conversation.outgoing.send(str(number))
    assert CloseReason(1000) == conversation.close_reason == sessions[0].close_reason
    statistics = sessions[0].statistics()
    assert (1001, 1001) == (statistics.frames_received, statistics.frames_sent)  # the Close is one, too
    assert_all_over(sessions[0])


async def test_a_hundred_clients_get_the_immediate_first_frame(autojump_clock: Clock) -> None:
    """T7xx, KTOR-7088: a message that is sent as the first thing is never lost."""

    async def handler(session: Session) -> None:
        await session.send("first")

    async with open_test_host(application(handler)) as host:
        for _ in range(100):
            async with host.websocket("/") as (incoming, _):
                assert "first" == (await incoming.receive()).text


@pytest.mark.parametrize("text", ["", "x" * 24_000])
async def test_a_text_arrives_as_one_frame(autojump_clock: Clock, text: str) -> None:
    """T7xx: empty, or of 24,000 characters: one frame with fin."""
    async with open_test_host(application(echo)) as host, host.websocket_raw("/") as conversation:
        await conversation.session.send(text)
        assert Frame.Text(text) == await conversation.session.receive()


async def test_what_is_too_big_for_the_client_is_its_error(autojump_clock: Clock) -> None:
    """T7xx: a limit of ten bytes, an echo of 1,500."""
    async with handle_websocket_conversation(application(echo), "/") as conversation:
        conversation.session.max_frame_size = 10
        await conversation.session.send(bytes(1500))
        with pytest.raises(trio.BrokenResourceError) as raised:
            await conversation.session.receive()
        assert isinstance(raised.value.__cause__, FrameTooBig)


async def test_the_server_sees_the_headers_of_a_handshake(autojump_clock: Clock) -> None:
    """T7xx: Connection, Upgrade, version and key."""
    headers: list[dict[str, list[str]]] = []

    async def handler(session: Session) -> None:
        headers.append({name: session.call.headers.get_all(name) for name in session.call.headers})

    async with handle_websocket_conversation(application(handler), "/"):
        pass
    assert ["Upgrade"] == headers[0]["connection"]
    assert ["websocket"] == headers[0]["upgrade"]
    assert ["13"] == headers[0]["sec-websocket-version"]
    assert headers[0]["sec-websocket-key"][0]


async def test_text_and_binary_ten_times(autojump_clock: Clock) -> None:
    """T7xx, RemoteTest: both kinds, ten times, then NORMAL "OK"."""
    async with handle_websocket_conversation(application(echo), "/") as conversation:
        for number in range(10):
            await conversation.session.send(f"ping {number}")
            assert f"ping {number}" == await conversation.session.receive_text()
            await conversation.session.send(bytes([number]))
            assert bytes([number]) == await conversation.session.receive_bytes()
        await conversation.session.aclose(CloseReason(1000, "OK"))
    assert CloseReason(1000, "OK") == conversation.close_reason


@pytest.mark.parametrize("code", [4002, 3500, 1011])
async def test_codes_of_ones_own_are_forwarded(autojump_clock: Clock, code: int) -> None:
    """T7xx, OkHttp: what may be sent is sent; 1005 and 1006 are refused at the call."""

    async def handler(session: Session) -> None:
        for unsendable in (1005, 1006):
            with pytest.raises(ValueError, match=str(unsendable)):
                session.close(unsendable)
        session.close(code)

    async with handle_websocket_conversation(application(handler), "/") as conversation:
        await conversation.session.wait_closed()
    assert CloseReason(code) == conversation.close_reason


async def test_a_missing_route_is_an_error_with_its_status(autojump_clock: Clock) -> None:
    """T507, T7xx, W-20, W-21: 404 and its body, at once, a hundred times over, and nothing is left."""
    async with open_test_host(application(echo)) as host:
        for _ in range(100):
            with pytest.raises(HandshakeRefused) as refused:
                async with host.websocket("/missing"):
                    pass
            assert 404 == refused.value.status
        assert () == host.sessions


async def test_plain_requests_before_during_and_after(autojump_clock: Clock) -> None:
    """T7xx: GET and WebSockets do not disturb each other."""
    app = application(echo)

    @app.get("/")
    async def page(call: object) -> str:
        return "a page"

    async with open_test_host(app) as host:
        assert b"a page" == (await host.get("/")).body
        async with host.websocket("/") as (incoming, outgoing):
            assert b"a page" == (await host.get("/")).body
            await outgoing.send("still here")
            assert "still here" == (await incoming.receive()).text
        assert b"a page" == (await host.get("/")).body


async def test_nobody_elses_task_hears_of_a_broken_connection(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """W-27: writer, pinger and reader end in their nursery, whatever the stream raises."""

    async def refuse(*_: object) -> None:
        raise trio.BrokenResourceError

    async def handler(session: Session) -> None:
        await session.send("hello")
        await session.receive()

    ours, theirs = trio.testing.memory_stream_pair()
    theirs.send_stream.send_all_hook = refuse
    app = application(handler, ping_period=1, timeout=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.handle_stream, theirs)
        await ours.send_all(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        await ours.send_all(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
    assert [] == [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_there_is_nothing_to_catch_but_documented_errors() -> None:
    """W-11: no error of ours is a cancellation, and every one has the same root."""
    import trioktor

    values = [getattr(trioktor, name) for name in trioktor.__all__]
    errors = [value for value in values if isinstance(value, type) and issubclass(value, Exception)]
    assert len(errors) >= 11
    assert all(issubclass(error, trioktor.TrioktorError) for error in errors)
    assert not any(issubclass(error, trio.Cancelled) for error in errors)
    assert issubclass(ProtocolError, trioktor.TrioktorError)
