"""The sending side on real sockets: who writes, what flush waits for, and why it ended."""

from __future__ import annotations

import logging
import re
import socket
import struct

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import REQUEST, application, client_bytes, close, connected
from tests.support.slow import on_a_socket, stuck
from trioktor import ConnectionBroken, Frame, FrameType, WebSocketSession as Session
from trioktor.engine.sockets import SocketTransport


async def test_an_answer_to_a_reader_needs_neither_queue_nor_writer() -> None:
    """It goes straight to the socket; a long one that the system takes in part does need one."""
    sessions: list[Session] = []
    ends: list[bool] = []

    async def handler(session: Session) -> None:
        sessions.append(session)
        async for frame in session:
            await session.send(frame)
            ends.append(session._connection.writing.writer is None)

    async with on_a_socket(handler) as client:
        for _ in range(3):
            await client.send(Frame.Text("short"))
            assert await client.receive() == Frame.Text("short")
        await client.send(Frame.Binary(bytes(300_000)))
        assert await client.receive() == Frame.Binary(bytes(300_000))
        await client.send(close(1000))
        assert await client.receive() == close(1000)
    assert ends == [True, True, True, False]


async def test_a_stream_that_is_no_socket_has_a_writer(autojump_clock: MockClock) -> None:
    """It can't say what it takes."""
    ends: list[bool] = []

    async def handler(session: Session) -> None:
        await session.receive()
        await session.send("answer")
        ends.append(session._connection.writing.writer is not None)

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("question"))
        assert await client.receive() == Frame.Text("answer")
    assert ends == [True]


# flush


@pytest.mark.parametrize("way", ["straight", "queued", "behind pieces"])
async def test_flush_waits_for_what_the_system_has_not_taken(way: str) -> None:
    """Written straight out and taken in part, queued, or behind a message that goes out in pieces."""
    states: list[bool] = []
    read_on = trio.Event()

    async def send_long(session: Session) -> None:
        await session.send(bytes(300_000))

    async def handler(session: Session) -> None:
        await session.receive()
        if way == "straight":
            await session.send(bytes(300_000))
        elif way == "queued":
            await session.send("first")
            await session.send(bytes(300_000))
        else:
            async with trio.open_nursery() as nursery, session.message(FrameType.TEXT) as message:
                await message.send("piece")
                session.send_nowait(bytes(300_000))
                nursery.start_soon(flush, session)
                await trio.testing.wait_all_tasks_blocked(0.01)
        await flush(session)

    async def flush(session: Session) -> None:
        with trio.move_on_after(0.1) as scope:
            await session.flush()
        states.append(scope.cancelled_caught)
        read_on.set()
        await session.flush()
        states.append(session.statistics().outgoing == 0 and session._connection.outbox.wire.is_clear)

    async with on_a_socket(handler) as client:
        await client.send(Frame.Text("go"))
        await read_on.wait()
        while await client.receive() != close(1000):
            pass
        await client.send(close(1000))
    assert states[:2] == [True, True]
    assert states[-1] is True


async def test_it_is_not_idle_while_a_ping_waits() -> None:
    """Also where nothing has ever been queued."""
    states: list[bool] = []

    async def handler(session: Session) -> None:
        await session.receive()
        outbox, conversation = session._connection.outbox, session._connection.conversation
        states.append(outbox.is_idle)
        conversation.send_control(Frame.Ping(b"?"))
        states.extend([outbox.is_direct, outbox.is_idle])
        session._connection.look_up()
        states.append(outbox.is_idle)

    async with on_a_socket(handler) as client:
        await client.send(Frame.Text("go"))
        assert await client.receive() == Frame.Ping(b"?")
        assert await client.receive() == close(1000)
        await client.send(close(1000))
    assert states == [True, True, False, True]


# why it ended


@pytest.mark.parametrize("way", ["straight", "writer"])
async def test_what_the_system_says_is_the_cause(way: str) -> None:
    """Of a send that failed, whoever wrote; not what Trio made of it."""
    causes: list[BaseException | None] = []

    async def handler(session: Session) -> None:
        await session.receive()
        try:
            while True:
                if way == "writer":
                    session.outgoing.send_nowait(bytes(300_000))
                    await trio.sleep(0.01)
                await session.send(bytes(100_000))
        except ConnectionBroken as error:
            causes.append(error.__cause__)
        except trio.BrokenResourceError:
            with pytest.raises(ConnectionBroken) as caught:
                await session.send("x")
            causes.append(caught.value.__cause__)

    async with on_a_socket(handler) as client:
        await client.send(Frame.Text("go"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        stream = client.stream
        assert isinstance(stream, trio.SocketStream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    [cause] = causes
    assert isinstance(cause, OSError), cause


# what is logged of frames


async def test_a_frame_is_logged_each_way_with_eighty_bytes(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole line."""
    caplog.set_level(logging.DEBUG, "trioktor.frames")

    async def handler(session: Session) -> None:
        async for frame in session:
            await session.send(frame)

    async with connected(handler) as (client, _):
        await client.send(Frame.Binary(b"0123456789" * 9))
        await client.receive()
        await client.send(close(1000))
        await client.receive_rest()
    lines = [record.getMessage() for record in caplog.records if record.name == "trioktor.frames"]
    shown = repr(b"0123456789" * 8)
    for line, sign, frame in zip(
        lines,
        "<><>",
        ["<Frame BINARY fin=True, 90 bytes> " + shown] * 2 + [r"<Frame CLOSE fin=True, 2 bytes> b'\x03\xe8'"] * 2,
        strict=True,
    ):
        assert re.fullmatch(rf"<WebSocketSession [^>]*> {sign} {re.escape(frame)}", line), line


async def test_a_goodbye_that_fails_has_its_cause() -> None:
    """The peer is gone in the step in which the handler says it, and nobody has noticed yet."""
    causes: list[BaseException | None] = []
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]

    async def handler(session: Session) -> None:
        await session.receive()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        session.close()
        with pytest.raises(ConnectionBroken) as caught:
            await session.receive()
        causes.append(caught.value.__cause__)

    peer = socket.create_connection(listener.socket.getsockname())
    async with listener:
        stream = await listener.accept()
        peer.sendall(REQUEST % b"/" + client_bytes(Frame.Text("go")))
        await application(handler).handle_stream(stream)
    [cause] = causes
    assert isinstance(cause, OSError), cause


async def test_what_was_handed_to_the_writer_does_not_go_out_behind_a_drop() -> None:
    """The writer is parked, and is given a frame, in the step in which the connection is dropped."""

    async def handler(session: Session) -> None:
        await session.outgoing.send("first")
        await session.receive()
        session.outgoing.send_nowait("too late")
        session.terminate()

    async with on_a_socket(handler) as client:
        assert await client.receive() == Frame.Text("first")
        await client.send(Frame.Text("go"))
        assert await client.receive() is None


async def test_flush_waits_for_control_frames_that_nobody_takes(autojump_clock: MockClock) -> None:
    """Everything else is written: they are counted beside the queue."""
    states: list[bool] = []

    async def handler(session: Session) -> None:
        await session.send(bytes(1000))
        await session.flush()
        await session.send(Frame.Ping(b"x"))
        with trio.move_on_after(1) as scope:
            await session.flush()
        states.append(scope.cancelled_caught)

    async with stuck(handler) as (peer, served):
        data = b""
        while len(data) < 1004:
            data += await peer.receive_some()
        await trio.sleep(5)
        served.cancel_scope.cancel()
    assert states == [True]


async def test_flush_waits_for_a_ping_that_is_the_first_that_is_written(autojump_clock: MockClock) -> None:
    """Its writer has not begun yet."""
    states: list[bool] = []

    async def handler(session: Session) -> None:
        await session.receive()
        await session.send(Frame.Ping(b"x"))
        with trio.move_on_after(1) as scope:
            await session.flush()
        states.append(scope.cancelled_caught)

    async with stuck(handler) as (peer, served):
        await peer.send_all(client_bytes(Frame.Text("go")))
        await trio.sleep(5)
        served.cancel_scope.cancel()
    assert states == [True]


async def test_when_it_is_closed_the_stream_is_closed() -> None:
    """`wait_closed` returns when nothing is left of it, though the handler goes on."""
    states: list[int] = []

    async def handler(session: Session) -> None:
        session.close()
        await session.wait_closed()
        transport = session._connection.transport
        assert isinstance(transport, SocketTransport)
        states.append(transport._socket.fileno())

    async with on_a_socket(handler) as client:
        assert await client.receive() == close(1000)
        await client.send(close(1000))
        assert await client.receive() is None
    assert states == [-1]


async def test_frames_that_go_straight_out_are_counted() -> None:
    """As those of the writer are."""
    counts: list[int] = []

    async def handler(session: Session) -> None:
        async for frame in session:
            await session.send(frame)
            counts.append(session.statistics().frames_sent)

    async with on_a_socket(handler) as client:
        for number in range(3):
            await client.send(Frame.Text(str(number)))
            await client.receive()
        await client.send(close(1000))
        assert await client.receive() == close(1000)
    assert counts == [1, 2, 3]


async def test_a_peer_that_reads_no_more_is_the_cause_of_the_end(autojump_clock: MockClock) -> None:
    """It says nothing either, and is given half a second for what it may have said before."""
    causes: list[BaseException | None] = []
    theirs, ours = socket.socketpair()
    ours.setblocking(False)

    async def handler(session: Session) -> None:
        await session.receive()
        theirs.shutdown(socket.SHUT_RD)
        await session.send("nobody reads this")
        with pytest.raises(ConnectionBroken) as caught:
            await session.receive()
        causes.append(caught.value.__cause__)

    with theirs:
        theirs.sendall(REQUEST % b"/" + client_bytes(Frame.Text("go")))
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        await application(handler).handle_stream(stream)
    assert [BrokenPipeError] == [type(cause) for cause in causes]


async def test_tasks_of_a_session_end_with_the_connection(autojump_clock: MockClock) -> None:
    """Though the handler stays on for a while."""
    ends: list[float] = []
    child: list[float] = []

    async def beside() -> None:
        try:
            await trio.sleep_forever()
        finally:
            child.append(trio.current_time())

    async def handler(session: Session) -> None:
        session.start_soon(beside)
        with pytest.raises(trio.EndOfChannel):
            await session.receive()
        await session.wait_closed()
        ends.append(trio.current_time())
        await trio.sleep(2)
        ends.append(trio.current_time())

    async with connected(handler) as (client, _):
        await client.send(close(1000))
        await client.receive_rest()
    assert ends[1] - ends[0] == pytest.approx(2, abs=0.01)
    assert child == [pytest.approx(ends[0], abs=0.01)]
