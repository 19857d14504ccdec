"""The writer's task, seen from the stream: what leaves together, what by itself, and that nothing is torn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import close
from tests.support.plain_transport import PlainSocket, PlainTransport, running, settle, texts
from trioktor import Frame, WebSockets, WriteTimeout
from trioktor.engine.connection import Connection
from trioktor.engine.streamed import StreamedMessage
from trioktor.engine.transport import CHUNK
from trioktor.protocol.close import CloseReason
from trioktor.protocol.halves import Ours


@asynccontextmanager
async def writing(*, answers: bool = True, **settings: Any) -> AsyncIterator[tuple[Connection, PlainTransport]]:
    """A connection over a stream that has to be awaited, so that whatever is sent is the writer's."""
    transport = PlainTransport(answers=answers)
    connection = Connection(transport, WebSockets(**{"outgoing": 1000, "incoming": 1000, **settings}))
    async with running(connection):
        yield connection, transport


async def test_what_waits_leaves_in_one_write(autojump_clock: MockClock) -> None:
    """Whatever came while the one before was being written."""
    async with writing() as (connection, transport):
        channel = connection.outbox.channel
        transport.allow(0)
        channel.send_nowait("first")
        await settle()
        for number in range(20):
            channel.send_nowait(str(number))
        await settle()
        assert transport.writes == []
        transport.allow(None)
        await settle()
        assert transport.frames == texts("first", *range(20))
        assert len(transport.writes) == 2


async def test_a_write_is_about_a_chunk(autojump_clock: MockClock) -> None:
    """However much waits."""
    async with writing() as (connection, transport):
        frames = [Frame.Binary(bytes([number % 256] * 1000)) for number in range(400)]
        for frame in frames:
            connection.outbox.channel.send_nowait(frame)
        await settle()
        assert transport.frames == frames
        sizes = [len(data) for data in transport.writes]
        assert max(sizes) <= CHUNK + 1004
        assert min(sizes[:-1]) >= CHUNK - 1004


async def test_a_socket_is_given_a_long_frame_with_its_head(autojump_clock: MockClock) -> None:
    """And with what waits before it: it takes parts."""
    transport = PlainSocket()
    connection = Connection(transport, WebSockets(outgoing=10))
    async with running(connection):
        long = b"0123456789" * CHUNK
        connection.outbox.channel.send_nowait("before")
        connection.outbox.channel.send_nowait(long)
        await settle()
        assert transport.frames == [Frame.Text("before"), Frame.Binary(long)]
        assert len(transport.writes) == 1


async def test_a_long_frame_is_handed_over_by_itself(autojump_clock: MockClock) -> None:
    """Joining it to others would copy it."""
    async with writing() as (connection, transport):
        long = b"0123456789" * CHUNK
        for item in ("before", long, "behind"):
            connection.outbox.channel.send_nowait(item)
        await settle()
        assert transport.frames == [Frame.Text("before"), Frame.Binary(long), Frame.Text("behind")]
        assert long in transport.writes


async def test_answers_to_what_waits_are_gathered(autojump_clock: MockClock) -> None:
    """While unread messages wait for the handler, the writer lingers; a lone answer leaves at once."""
    async with writing() as (connection, transport):
        messages = texts(*range(40))

        async def echo() -> None:
            for _ in messages:
                await connection.outbox.channel.send(await connection.inbox.channel.receive())

        transport.say(*messages)
        await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
        await settle()
        assert transport.frames == messages
        assert len(transport.writes) <= 20
        del transport.writes[:]
        connection.outbox.channel.send_nowait("alone")
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        assert transport.frames == texts("alone")


@pytest.mark.parametrize("is_end", [False, True])
async def test_a_flush_waits_for_what_was_sent_before_it(is_end: bool, autojump_clock: MockClock) -> None:
    """Though what was sent later is stuck; but from the end on for everything."""
    async with writing(answers=False) as (connection, transport):
        transport.allow(0)
        connection.outbox.channel.send_nowait("a")
        await settle()
        flushed: list[str] = []

        async def flush() -> None:
            await connection.flush(())
            flushed.append("flushed")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            await settle()
            connection.outbox.channel.send_nowait("b")
            if is_end:
                connection.ends.close(CloseReason(1000))
            transport.allow(3)
            await settle()
            assert (transport.frames, flushed) == (texts("a"), [] if is_end else ["flushed"])
            transport.allow(None)
            await settle()
            assert flushed == ["flushed"]


# control frames


async def test_a_parked_writer_looks_at_control_frames(autojump_clock: MockClock) -> None:
    """Also one that waits for the rest of a message in pieces: they stand between its fragments."""
    async with writing() as (connection, transport):
        stream = StreamedMessage()
        connection.outbox.channel.send_nowait(stream)
        await settle()
        connection.pinging.ping(b"1")
        await settle()
        await stream.put(Frame.Text("piece", fin=False))
        await settle()
        connection.pinging.ping(b"2")
        await settle()
        await stream.put(Frame.Text("end"))
        await settle()
        connection.pinging.ping(b"3")
        await settle()
        first, second, third = (Frame.Ping(b"%d" % number) for number in (1, 2, 3))
        assert transport.frames == [first, Frame.Text("piece", fin=False), second, Frame.Text("end"), third]


@pytest.mark.parametrize("room", range(1, 14))
async def test_a_frame_that_is_half_out_is_not_torn(room: int, autojump_clock: MockClock) -> None:
    """By a Ping, by the Close, nor by a cancellation from outside."""
    async with writing() as (connection, transport):
        transport.allow(room)
        connection.outbox.channel.send_nowait("0123456789")
        await settle()
        connection.pinging.ping(b"!")
        connection.ends.interrupted()
        await settle()
        transport.allow(None)
        await settle()
        frames = transport.frames
        assert frames[0] == Frame.Text("0123456789")
        assert frames[1:] == [Frame.Ping(b"!"), close(1001)]


# the end


async def test_it_ends_when_all_is_said(autojump_clock: MockClock) -> None:
    """The Close is last."""
    async with writing() as (connection, transport):
        connection.outbox.channel.send_nowait("last")
        await settle()
        connection.outbox.channel.send_nowait("words")
        connection.ends.close(CloseReason(4000))
        await settle()
        assert transport.frames == [*texts("last", "words"), close(4000)]
        writer = connection.writing.writer
        assert writer is not None
        assert writer.is_done


async def test_the_last_handle_of_the_channel_ends_the_conversation(autojump_clock: MockClock) -> None:
    """Behind what it holds."""
    async with writing() as (connection, transport):
        connection.outbox.channel.send_nowait("last")
        connection.outbox.channel.close()
        await settle()
        assert transport.frames == [*texts("last"), close(1000)]


async def test_a_deadline_ends_a_writer_that_is_stuck(autojump_clock: MockClock) -> None:
    """What was left to say is lost."""
    async with writing() as (connection, transport):
        transport.allow(0)
        connection.outbox.channel.send_nowait("stuck")
        await settle()
        connection.ends.stop_by(trio.current_time() + 2)
        await trio.sleep(1.9)
        assert connection.closing.ours is Ours.CLOSING
        await connection.ending.wait_closed()
        assert trio.current_time() == pytest.approx(2)
        assert (connection.closing.reason, connection.closing.sent) == (CloseReason(1001), None)
        assert transport.written == b""


async def test_what_was_not_said_in_time_is_the_cause(autojump_clock: MockClock) -> None:
    """Whether the writer finds that first, or who sees the conversation out: our Close never went out."""
    causes: set[str] = set()
    for _ in range(30):
        async with writing() as (connection, transport):
            transport.allow(0)
            connection.outbox.channel.send_nowait("stuck")
            await settle()
            connection.ends.stop_by(trio.current_time() + 2)
            await connection.ending.wait_closed()
            causes.add(repr(connection.closing.cause))
    assert causes == {"WriteTimeout('the time for what was left to say was up')"}


async def test_a_peer_that_takes_nothing_is_given_up(autojump_clock: MockClock) -> None:
    """Whatever it took before; progress begins the time anew."""
    async with writing(write_timeout=5) as (connection, transport):
        transport.allow(1)
        connection.outbox.channel.send_nowait("stuck")
        await trio.sleep(4)
        transport.allow(1)
        await connection.ending.wait_closed()
        assert trio.current_time() == pytest.approx(9)
        assert isinstance(connection.closing.cause, WriteTimeout)


async def test_a_stream_that_is_lost_is_the_end(autojump_clock: MockClock) -> None:
    """What the system said is the cause."""
    error = ConnectionResetError("reset")
    async with writing() as (connection, transport):
        transport.allow(0)
        connection.outbox.channel.send_nowait("stuck")
        await settle()
        transport.lose(error)
        await connection.ending.wait_closed()
        assert connection.closing.cause is error
