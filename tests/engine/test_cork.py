"""Answers that are put aside to leave together: taken where more will follow, and never waiting for traffic."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from tests.support.helpers import RawClient, close
from tests.support.listening import talking
from trioktor import Frame, FrameType, PerMessageDeflate, WebSocketSession, broadcast
from trioktor.engine.poller import Poller
from trioktor.engine.sockets import SocketTransport
from trioktor.engine.transport import CHUNK
from trioktor.protocol.serializer import Serializer

Clock = trio.testing.MockClock
Session = WebSocketSession

pytestmark = pytest.mark.skipif(not Poller.is_possible(), reason="the system has no epoll")


async def receive(client: RawClient, count: int) -> list[Frame | None]:
    """So many frames, which must come by themselves."""
    with trio.fail_after(0.5):
        return [await client.receive() for _ in range(count)]


async def test_answers_to_one_read_leave_in_one_write(autojump_clock: Clock, writes: list[int]) -> None:
    """No channel, no writer; and the last of them needs no waker."""
    seen: list[tuple[int, bool]] = []

    async def handler(session: Session) -> None:
        async for frame in session:
            await session.send(frame)
            seen.append((len(writes), session._connection.writing.writer is None))

    async with talking(handler) as (client, _):
        messages = [Frame.Text(str(number)) for number in range(20)]
        del writes[:]
        await client.send(*messages)
        assert messages == await receive(client, 20)
        assert [sum(2 + len(frame.data) for frame in messages)] == writes
    assert [(0, True)] * 19 + [(1, True)] == seen


async def test_messages_that_were_judged_are_made_bytes_together(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first and the last of them, too: none is written by itself."""
    apart: list[Frame] = []
    add = Serializer.add

    def counting(self: Serializer, frame: Frame, pieces: list[bytes]) -> None:
        if frame.type is FrameType.BINARY:
            apart.append(frame)
        add(self, frame, pieces)

    async def handler(session: Session) -> None:
        async for frame in session:
            await session.send(Frame.Binary(frame.data))

    async with talking(handler) as (client, _):
        monkeypatch.setattr(Serializer, "add", counting)
        await client.send(*[Frame.Text(str(number)) for number in range(20)])
        await receive(client, 20)
        monkeypatch.undo()
    assert apart == []


@pytest.mark.parametrize(("way", "most"), [("session", 1), ("channel", 10)])
async def test_answers_to_what_came_through_the_channel_leave_together(
    way: str, most: int, autojump_clock: Clock, writes: list[int]
) -> None:
    """Whether more of the read wait there is not looked up each time: the waker sees to the last."""

    async def handler(session: Session) -> None:
        incoming = session.incoming
        async for frame in incoming if way == "channel" else session:
            await session.send(frame)

    async with talking(handler) as (client, _):
        messages = [Frame.Text(str(number)) for number in range(20)]
        await client.send(Frame.Text("alone"))
        await receive(client, 1)
        del writes[:]
        await client.send(*messages)
        assert messages == await receive(client, 20)
        assert len(writes) <= most


@pytest.mark.parametrize("fin", [True, False])
async def test_what_nobody_asked_for_leaves_together_behind_the_first(
    fin: bool, autojump_clock: Clock, writes: list[int]
) -> None:
    """Messages and fragments; the first answers what was received."""
    frames = [Frame.Binary(b"x", fin=fin) for _ in range(10)] + [Frame.Binary(b"last")]

    async def handler(session: Session) -> None:
        await session.receive()
        for frame in frames:
            await session.send(frame)
        await session.receive()

    async with talking(handler) as (client, _):
        del writes[:]
        await client.send(Frame.Text("go"))
        await receive(client, 11 if fin else 1)
        assert len(writes) == 2


async def test_what_was_put_aside_is_written_whole_whoever_interrupts(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between the taking of what was put aside and the keeping of what the system did not take loses nothing."""
    seen: list[bool] = []
    write = SocketTransport.send_nowait

    def looking(self: SocketTransport, data: bytes | memoryview) -> int:
        seen.append(trio.lowlevel.currently_ki_protected())
        return write(self, data)

    async def handler(session: Session) -> None:
        await session.receive()
        for word in ("straight", "aside", "aside", "by flush"):
            session.send_nowait(word)
        await session.flush()

    monkeypatch.setattr(SocketTransport, "send_nowait", looking)
    async with talking(handler) as (client, _):
        await client.send(Frame.Text("go"))
        await receive(client, 4)
    assert [True] * len(seen) == seen
    assert len(seen) >= 3


async def test_what_was_put_aside_waits_for_no_traffic(autojump_clock: Clock, writes: list[int]) -> None:
    """The second of two answers before a sleep, and a push to a silent client, are there at once."""

    async def handler(session: Session) -> None:
        await session.receive()
        await session.send("first")
        await session.send("second")
        await session.send("third")
        await trio.sleep(1000)

    async with talking(handler) as (client, server):
        await client.send(Frame.Text("go"))
        assert [Frame.Text("first"), Frame.Text("second"), Frame.Text("third")] == await receive(client, 3)
        assert 3 == len(writes)  # the 101, the first, and the others together
        await server.sessions[0].send("pushed")
        assert [Frame.Text("pushed")] == await receive(client, 1)
        assert 1 == await broadcast(server.sessions, "to all")
        assert [Frame.Text("to all")] == await receive(client, 1)


async def test_an_answer_before_a_sleep_though_more_messages_wait(autojump_clock: Clock) -> None:
    """The handler is slow, and nothing is read meanwhile: its answers are not kept from the peer."""

    async def handler(session: Session) -> None:
        async for frame in session:
            await session.send(frame)
            await trio.sleep(10)

    async with talking(handler) as (client, _):
        await client.send(Frame.Text("a"), Frame.Text("b"), Frame.Text("c"))
        for expected in "abc":
            assert [Frame.Text(expected)] == await receive(client, 1)
            await trio.sleep(10)


@pytest.mark.parametrize("how", ["flush", "close", "return", "ping", "channel", "message", "fragments"])
async def test_what_was_put_aside_goes_first(how: str, autojump_clock: Clock) -> None:
    """Whatever is said next, and by which way."""

    async def handler(session: Session) -> None:
        await session.receive()
        for said in ("1", "2", "3"):
            session.send_nowait(said)
        if how == "flush":
            await session.flush()
            assert session._connection.outbox.is_idle
        elif how == "close":
            session.close()
        elif how == "ping":
            session.send_nowait(Frame.Ping(b"!"))
        elif how == "channel":
            session.outgoing.send_nowait("4")
            session.send_nowait("5")
        elif how == "message":
            async with session.message(Frame.Text("").type) as message:
                await message.send("4")
            await session.send("5")
        elif how == "fragments":
            session.send_nowait(Frame.Text("4", fin=False))
            session.send_nowait(Frame.Text("", fin=True))
            session.send_nowait("5")

    async with talking(handler) as (client, _):
        await client.send(Frame.Text("go"))
        frames = await client.receive_rest()
    texts = "".join(frame.data.decode() for frame in frames if isinstance(frame, Frame.Text))
    assert texts == {"channel": "12345", "message": "12345", "fragments": "12345"}.get(how, "123")
    assert close(1000) == frames[-1]
    assert how != "ping" or Frame.Ping(b"!") in frames


@pytest.mark.parametrize("size", [CHUNK - 5, CHUNK - 4, CHUNK - 3, CHUNK - 1, CHUNK])
@pytest.mark.parametrize("way", ["close", "ping"])
async def test_what_follows_a_chunk_that_was_put_aside(way: str, size: int, autojump_clock: Clock) -> None:
    """With its head it is a chunk and more: our Close, or a Ping, stands behind it all the same."""

    async def handler(session: Session) -> None:
        await session.receive()
        await session.send(bytes(size))  # another message waits
        if way == "ping":
            await session.send(Frame.Ping(b"!"))
            await session.flush()

    async with talking(handler) as (client, _):
        await client.send(Frame.Text("one"), Frame.Text("two"))
        assert await client.receive() == Frame.Binary(bytes(size))
        if way == "ping":
            assert await client.receive() == Frame.Ping(b"!")
        assert await client.receive() == close(1000)


async def test_a_long_message_behind_many_short_ones(autojump_clock: Clock, writes: list[int]) -> None:
    """They leave together, though the system takes no more than 1,024 parts in one call."""

    async def handler(session: Session) -> None:
        await session.receive()
        del writes[:]
        for number in range(1500):
            session.send_nowait(str(number))
        session.send_nowait(bytes(100_000))
        await session.receive()

    async with talking(handler) as (client, _):
        await client.send(Frame.Text("go"))
        frames = await receive(client, 1501)
    assert frames == [*[Frame.Text(str(number)) for number in range(1500)], Frame.Binary(bytes(100_000))]
    assert writes[1] > 100_000 + 1499 * 3  # the first went straight out


async def test_a_chunk_is_not_put_aside(autojump_clock: Clock, writes: list[int]) -> None:
    """What is kept for company is bounded, in one step of the handler, too."""
    held: list[int] = []

    async def handler(session: Session) -> None:
        await session.receive()
        del writes[:]
        for _ in range(15):
            session.send_nowait(bytes(10_000))
        held.append(150_000 - sum(writes))
        await session.receive()

    async with talking(handler) as (client, _):
        await client.send(Frame.Text("go"))
        assert [Frame.Binary(bytes(10_000))] * 15 == await receive(client, 15)
    assert held[0] < 70_000


async def test_a_socket_that_takes_no_more_gets_a_writer(autojump_clock: Clock) -> None:
    """Then the queue bounds what waits, as ever, and the order holds."""

    async def handler(session: Session) -> None:
        await session.receive()
        for number in range(300):
            await session.send(bytes([number % 256]) * 50_000)

    async with talking(handler, max_queued_bytes=100_000) as (client, server):
        await client.send(Frame.Text("go"))
        await trio.testing.wait_all_tasks_blocked()
        assert server.sessions[0]._connection.writing.writer is not None
        frames = await client.receive_rest()
    assert [bytes([number % 256]) for number in range(300)] == [frame.data[:1] for frame in frames[:-1]]


async def test_compressed_answers_leave_together_too(autojump_clock: Clock, writes: list[int]) -> None:
    """Their state goes on from one to the next, in order; a long one takes the long way."""

    async def handler(session: Session) -> None:
        async for frame in session:
            await session.send(frame)

    async with talking(handler, extensions=[PerMessageDeflate()], max_frame_size=None) as (client, _):
        messages = [Frame.Text("x" * number) for number in (1, 50, 40_000, 2, 3)]
        del writes[:]
        await client.send(*messages, close(1000))
        assert [*messages, close(1000)] == await client.receive_rest()
        assert len(writes) <= 3


async def test_a_lost_connection_is_found_by_the_waker(autojump_clock: Clock) -> None:
    """It does not fail for that, and calls what else is due."""
    calls: list[str] = []

    async def handler(session: Session) -> None:
        await session.receive()
        session.send_nowait("1")
        session.send_nowait("2")
        transport = session._connection.transport
        assert isinstance(transport, SocketTransport)
        transport._socket.shutdown(socket.SHUT_WR)
        later = server.sessions[0]._connection.writing._later
        assert later is not None
        later.call(lambda: calls.append("called"))
        await trio.sleep(1)

    async with talking(handler) as (client, server):
        await client.send(Frame.Text("go"))
        await trio.sleep(5)
    assert calls == ["called"]
