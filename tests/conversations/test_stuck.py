"""Peers that take nothing, and limits to the letter: what is bounded ends when it should, and goes no further."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import REQUEST, RawClient, application, client_bytes, close, connected, masked
from tests.support.slow import on_a_socket, stuck
from trioktor import (
    CLOSE,
    ChannelConfig,
    CloseReason,
    ConnectionBroken,
    ConnectionClosed,
    Frame,
    FrameType,
    PerMessageDeflate,
    PingTimeout,
    WebSocketSession as Session,
    WriteTimeout,
    broadcast,
)
from trioktor.engine.streams import StreamTransport
from trioktor.engine.transport import HangUp


async def push(session: Session) -> None:
    """Send until that raises."""
    while True:
        await session.send(bytes(100))


# a writer that waits for the peer


@pytest.mark.parametrize("way", ["cancelled", "terminate", "aclose", "write timeout"])
async def test_a_writer_that_is_stuck_ends_by_its_deadline(autojump_clock: MockClock, way: str) -> None:
    """Each way has its own, and none of them begins anew."""
    sessions: list[Session] = []

    async def handler(session: Session) -> None:
        sessions.append(session)
        if way == "aclose":
            session.send_nowait(bytes(100))
            with trio.move_on_after(9):
                await session.aclose()
            return
        await push(session)

    async with stuck(handler, write_timeout=7 if way == "write timeout" else None) as (_, served):
        began = trio.current_time()
        await trio.sleep(5)
        assert sessions[0].statistics().outgoing > 0 or way == "aclose"
        if way == "cancelled":
            served.cancel_scope.cancel()
        elif way == "terminate":
            sessions[0].terminate()
    expected = {"cancelled": 6, "terminate": 5, "aclose": 9, "write timeout": 7}
    assert pytest.approx(expected[way], abs=0.01) == trio.current_time() - began


async def test_a_ping_timeout_does_not_wait_for_a_stuck_writer(autojump_clock: MockClock) -> None:
    """The Close gets half a second to go out, and does not: then there is nothing to wait for."""
    causes: list[BaseException | None] = []

    async def handler(session: Session) -> None:
        try:
            await push(session)
        except ConnectionBroken as error:
            causes.append(error.__cause__)
            raise

    async with stuck(handler, ping_period=10, timeout=5, write_timeout=None):
        began = trio.current_time()
    assert pytest.approx(15.5, abs=0.01) == trio.current_time() - began
    assert [PingTimeout] == [type(cause) for cause in causes]


async def test_a_write_timeout_is_the_cause_of_the_end(autojump_clock: MockClock) -> None:
    """1006: nothing could be said."""
    sessions: list[Session] = []
    causes: list[BaseException | None] = []

    async def handler(session: Session) -> None:
        sessions.append(session)
        try:
            await push(session)
        except ConnectionBroken as error:
            causes.append(error.__cause__)
            raise

    async with stuck(handler, write_timeout=7):
        pass
    assert [WriteTimeout] == [type(cause) for cause in causes]
    assert 1006 == getattr(sessions[0].close_reason, "code", None)
    assert sessions[0].close_sent is None


async def test_nothing_follows_a_frame_that_was_torn() -> None:
    """The connection is dropped in the middle of it: no rest, no Close, no other frame."""
    told = trio.Event()

    async def handler(session: Session) -> None:
        session.send_nowait(b"x" * 300_000)
        session.send_nowait(b"y" * 300_000)
        session.send_nowait(Frame.Ping(b"z"))
        await told.wait()
        session.terminate()
        await trio.lowlevel.checkpoint()

    async with on_a_socket(handler) as client:
        first = await client.stream.receive_some(1000)
        told.set()
        received = bytes(client.raw) + bytes(first)
        try:
            while data := await client.stream.receive_some():
                received += data
        except trio.BrokenResourceError:
            pass
    frame = b"\x82\x7f" + (300_000).to_bytes(8, "big") + b"x" * 300_000
    assert 0 < len(received) < len(frame)
    assert frame.startswith(received.removeprefix(b"\x89\x01z"))


async def test_unread_input_does_not_reset_the_close_behind_a_violation() -> None:
    """It is read and thrown away for a while, or the peer would see a reset and no reason."""

    async def handler(session: Session) -> None:
        async for _ in session:
            pass

    async with on_a_socket(handler) as client, trio.open_nursery() as nursery:

        async def talk() -> None:
            try:
                await client.stream.send_all(masked(0x83) + bytes(2_000_000))
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(talk)
        await trio.sleep(0.05)
        assert [close(1002)] == await client.receive_rest()


async def test_what_does_not_fit_behind_a_handler_that_has_ended_is_dropped(autojump_clock: MockClock) -> None:
    """The peer's Close is behind it, and has to be found."""

    async def handler(session: Session) -> None:
        await trio.sleep(1)

    async with connected(handler, incoming=2, max_queued_bytes=100) as (client, sessions):
        await client.send(*[Frame.Binary(bytes(60))] * 50)
        assert close(1000) == await client.receive()
        await client.send(*[Frame.Binary(bytes(60))] * 50, close(1000))
        await client.receive_rest()
    assert CloseReason(1000) == sessions[0].close_received


# limits to the letter


@pytest.mark.parametrize("size", [1, 10, 333, 500, 999, 1000, 1001])
async def test_the_limit_of_bytes_that_wait_to_be_sent_is_exact(autojump_clock: MockClock, size: int) -> None:
    """What waits may be as long as the limit; one message always passes."""
    accepted: list[int] = []

    async def handler(session: Session) -> None:
        with pytest.raises(trio.WouldBlock):
            while True:
                session.send_nowait(bytes(size))
                accepted.append(size)

    async with connected(handler, outgoing=5000, max_queued_bytes=1000) as (client, _):
        await client.receive_rest()
    assert max(1, math.floor(1000 / size)) == len(accepted)


@pytest.mark.parametrize("size", [1, 10, 333, 500, 999, 1000, 1001])
async def test_the_limit_of_bytes_that_wait_to_be_received_is_exact(autojump_clock: MockClock, size: int) -> None:
    """The same for the reader, which stops then."""
    waiting: list[int] = []

    async def handler(session: Session) -> None:
        await trio.sleep(5)
        waiting.append(session.statistics().incoming)

    async with connected(handler, incoming=5000, max_queued_bytes=1000) as (client, _):
        await client.send(*[Frame.Binary(bytes(size))] * 3000)
        await client.receive_rest()
    assert [math.floor(1000 / size) + 1] == waiting


@pytest.mark.parametrize("capacity", [1, 2, 5])
async def test_a_queue_that_is_emptied_does_not_overflow(autojump_clock: MockClock, capacity: int) -> None:
    """However many messages pass it in all."""
    received: list[str] = []

    async def handler(session: Session) -> None:
        async for frame in session.incoming:
            received.append(frame.text)

    async with connected(handler, incoming=ChannelConfig(capacity, on_overflow=CLOSE)) as (client, sessions):
        for number in range(10 * capacity):
            await client.send(Frame.Text(str(number)))
            await trio.testing.wait_all_tasks_blocked()
        await client.send(close(1000))
        await client.receive_rest()
    assert [str(number) for number in range(10 * capacity)] == received
    assert CloseReason(1000) == sessions[0].close_reason


@pytest.mark.parametrize("first", [0x01, 0x02])
@pytest.mark.parametrize("inside", [0x81, 0x82, 0x01, 0x02])
async def test_a_new_message_inside_a_fragmented_one_is_a_violation(
    autojump_clock: MockClock, first: int, inside: int
) -> None:
    """RFC 6455 §5.4, whole frames included."""

    async def handler(session: Session) -> None:
        async for frame in session:
            await session.send(frame)

    async with connected(handler) as (client, _):
        await client.send_bytes(masked(first, b"frag") + masked(inside, b"whole") + masked(0x80, b"ment"))
        assert [close(1002)] == await client.receive_rest()


# turns


async def passes_during(function: Any) -> int:
    """How often another task had its turn meanwhile."""
    passes = 0
    async with trio.open_nursery() as nursery:

        async def count() -> None:
            nonlocal passes
            while True:
                await trio.lowlevel.checkpoint()
                passes += 1

        nursery.start_soon(count)
        await function()
        nursery.cancel_scope.cancel()
    return passes


async def test_a_chunk_of_many_frames_leaves_others_their_turn(autojump_clock: MockClock) -> None:
    """After 256 of them, whether they wait or are answered at once."""

    async def handler(session: Session) -> None:
        await trio.sleep(1)
        while session.statistics().frames_received < 8192:
            await trio.lowlevel.checkpoint()

    async with connected(handler, incoming=10_000) as (client, sessions):
        data = masked(0x82) * 8192  # 48 KiB: one read

        async def wait() -> None:
            await client.send_bytes(data)
            while sessions[0].statistics().frames_received < 8192:
                await trio.lowlevel.checkpoint()

        assert await passes_during(wait) >= 8192 // 256
        await client.send(close(1000))
        await client.receive_rest()


async def test_a_long_broadcast_is_compressed_in_steps(autojump_clock: MockClock) -> None:
    """Once for all, and others have their turn between the slices."""
    outcome: list[int] = []
    message = Frame.Binary(bytes(range(256)) * 4096)
    request = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"

    async def handler(session: Session) -> None:
        assert session.extensions
        outcome.append(await passes_during(lambda: broadcast([session], message)))

    ours, theirs = trio.testing.memory_stream_pair()
    app = application(handler, extensions=[PerMessageDeflate()], max_frame_size=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.handle_stream, theirs)
        await ours.send_all((REQUEST % b"/")[:-2] + request)
        client = RawClient(ours)
        await client.read_head()
        await trio.sleep(1)
        await ours.aclose()
    assert outcome[0] >= len(message.data) // (1 << 15)


async def test_many_sessions_leave_others_their_turn(autojump_clock: MockClock) -> None:
    """The fewer of them, the longer the message."""
    outcome: list[int] = []

    async def handler(session: Session) -> None:
        for size in (10, 1 << 18):
            outcome.append(await passes_during(lambda size=size: broadcast([session] * 256, bytes(size))))
        with pytest.raises(ConnectionClosed):
            session.close()
            await session.send("x")

    async with connected(handler, outgoing=1000, max_queued_bytes=1 << 30) as (client, _):
        await client.send(close(1000))
        await client.receive_rest()
    assert 3 <= outcome[0] <= 8
    assert outcome[1] >= 256 // 4 - 1


# what is noticed, and when


async def test_a_failed_write_ends_a_connection_whose_reader_waits(autojump_clock: MockClock) -> None:
    """Nobody reads, so nobody else would find out."""
    outcome: list[float] = []

    async def handler(session: Session) -> None:
        await trio.sleep(7.3)
        with pytest.raises(ConnectionClosed):
            while True:
                await session.send("x")
                await trio.sleep(0.1)
        outcome.append(trio.current_time())

    async with connected(handler, incoming=1) as (client, _):
        await client.send(*[Frame.Text("x")] * 5)
        await trio.sleep(1)
        await client.aclose()
    assert [pytest.approx(7.3, abs=0.25)] == outcome


async def test_the_grace_of_a_peer_that_has_left_is_given_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler takes nothing while the peer's end waits behind a full queue: then there is no second grace."""
    monkeypatch.setattr(StreamTransport, "hang_up", lambda self: HangUp.HALF)
    outcome: list[float] = []

    async def handler(session: Session) -> None:
        try:
            await trio.sleep_forever()
        finally:
            outcome.append(trio.current_time())

    async with connected(handler, incoming=1, handler_grace=10) as (client, sessions):
        await client.send(*[Frame.Text("x")] * 5)
        await client.receive_rest()
    assert [pytest.approx(1 + 10)] == outcome
    assert 1006 == getattr(sessions[0].close_reason, "code", None)


async def test_a_handler_that_takes_renews_the_grace_of_a_peer_that_has_left(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slowly, as long as it is faster than the grace."""
    monkeypatch.setattr(StreamTransport, "hang_up", lambda self: HangUp.HALF)
    received: list[str] = []

    async def handler(session: Session) -> None:
        async for frame in session.frames(Frame.Text):
            received.append(frame.text)
            await trio.sleep(8)

    async with connected(handler, incoming=1, handler_grace=10) as (client, sessions):
        await client.send(*(Frame.Text(str(number)) for number in range(5)), close(4000))
        await client.receive_rest()
    assert ["0", "1", "2", "3", "4"] == received
    assert CloseReason(4000) == sessions[0].close_reason


async def test_misuse_after_the_peers_close_cuts_nothing_short(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The end is the peer's by then: what was accepted goes out, and its Close is answered."""

    async def handler(session: Session) -> None:
        async for _ in session:
            pass
        await session.send("before")
        session.outgoing.send_nowait(42)  # type: ignore[arg-type]
        await session.flush()
        session.outgoing.send_nowait("behind")

    async with connected(handler) as (client, _):
        await client.send(close(4000))
        assert [Frame.Text("before"), Frame.Text("behind"), close(4000)] == await client.receive_rest()


async def test_a_long_message_counts_as_one_frame(autojump_clock: MockClock) -> None:
    """Also if it passes its extensions in steps."""
    outcome: list[int] = []
    request = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"

    async def handler(session: Session) -> None:
        for size in (10, 100_000):
            await session.send(bytes(size))
        await session.flush()
        outcome.append(session.statistics().frames_sent)

    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application(handler, extensions=[PerMessageDeflate()]).handle_stream, theirs)
        await ours.send_all((REQUEST % b"/")[:-2] + request)
        await trio.sleep(1)
        await ours.aclose()
    assert [2] == outcome


async def test_messages_that_were_taken_leave_nothing(autojump_clock: MockClock) -> None:
    """Not even their sizes, when there are many and they are empty."""

    async def handler(session: Session) -> None:
        async for frame in session.incoming:
            if frame.data:
                await session.send(str(len(session._connection.inbox._sizes)))

    async with connected(handler, incoming=10) as (client, _):
        for _ in range(100):
            await client.send(*[Frame.Text("")] * 10)
            await trio.sleep(1)
        await client.send(Frame.Text("how many?"))
        answer = await client.receive()
        assert isinstance(answer, Frame.Text)
        assert int(answer.text) <= 2 * 10 + 1
        await client.send(close(1000))


@pytest.mark.parametrize("way", ["bytes", "messages"])
async def test_a_reader_that_waits_looks_once_a_second(
    autojump_clock: MockClock, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a hang-up; as long as nobody takes anything there is nothing else to find."""
    looks: list[float] = []
    wakes = 0

    def hang_up(_transport: StreamTransport) -> HangUp:
        looks.append(trio.current_time())
        return HangUp.NO

    monkeypatch.setattr(StreamTransport, "hang_up", hang_up)

    async def handler(session: Session) -> None:
        await trio.sleep(100)

    class Wakes(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal wakes
            wakes += task.name == "trioktor reader"

    settings: dict[str, Any] = {"max_queued_bytes": 10} if way == "bytes" else {"incoming": 1}
    async with connected(handler, **settings) as (client, _):
        await client.send(*[Frame.Binary(bytes(20))] * 5)
        await trio.sleep(10)
        trio.lowlevel.add_instrument(instrument := Wakes())
        await trio.sleep(50)
        trio.lowlevel.remove_instrument(instrument)
        await client.aclose()
    assert 95 <= len(looks) <= 101
    assert wakes <= 110


@pytest.mark.parametrize("form", ["session", "channel"])
async def test_what_waits_for_bytes_goes_on_when_they_are_taken(autojump_clock: MockClock, form: str) -> None:
    """At once for the session; by a look that comes the later the longer nobody takes, for the channel."""
    received: list[float] = []

    async def handler(session: Session) -> None:
        for _ in range(5):
            await trio.sleep(0.4)
            await (session.receive() if form == "session" else session.incoming.receive())
            received.append(trio.current_time())

    async with connected(handler, max_queued_bytes=10) as (client, _):
        await client.send(*[Frame.Binary(bytes(20))] * 5)
        await client.receive_rest()
    assert [pytest.approx(0.4 * number, abs=0.5 if form == "channel" else 1e-6) for number in range(1, 6)] == received


async def test_unread_input_does_not_reset_the_close_behind_the_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands behind a Close is read and thrown away, too."""

    async def handler(session: Session) -> None:
        async for _ in session:
            pass

    async with on_a_socket(handler) as client, trio.open_nursery() as nursery:

        async def talk() -> None:
            try:
                await client.stream.send_all(client_bytes(close(4000)) + bytes(2_000_000))
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(talk)
        await trio.sleep(0.05)
        assert [close(4000)] == await client.receive_rest()


async def test_a_violation_behind_our_close_does_not_cut_it_off() -> None:
    """What was accepted is still on its way to a slow reader."""

    async def handler(session: Session) -> None:
        await session.receive()
        await session.send(bytes(300_000))
        session.close(4000)

    async with on_a_socket(handler) as client:
        await client.send(Frame.Text("go"))
        await trio.testing.wait_all_tasks_blocked()
        await client.send_bytes(masked(0x83))
        await trio.testing.wait_all_tasks_blocked()
        assert [Frame.Binary(bytes(300_000)), close(4000)] == await client.receive_rest()


async def test_a_message_in_pieces_that_has_not_begun_holds_nothing_back(autojump_clock: MockClock) -> None:
    """Nothing of it was said, so what is queued behind it can be."""

    async def handler(session: Session) -> None:
        async with trio.open_nursery() as nursery:

            async def stream() -> None:
                with pytest.raises(ConnectionClosed):
                    async with session.message(FrameType.TEXT) as message:
                        await trio.sleep(3)
                        await message.send("never")

            session.send_nowait("before")
            nursery.start_soon(stream)
            await trio.lowlevel.checkpoint()
            await trio.sleep(1)
            session.send_nowait("behind")
            session.close()

    async with connected(handler) as (client, _):
        assert [Frame.Text("before"), Frame.Text("behind"), close(1000)] == [await client.receive() for _ in range(3)]
        await client.send(close(1000))


async def test_the_peak_of_a_burst_is_kept(autojump_clock: MockClock) -> None:
    """Whether somebody looks meanwhile or not; of single messages none is kept."""
    peaks: list[int] = []

    async def handler(session: Session) -> None:
        await trio.sleep(5)
        for _ in range(7):
            await session.incoming.receive()
        peaks.append(session.statistics().incoming_peak)

    async with connected(handler) as (client, _):
        await client.send(*[Frame.Text("x")] * 7)
        await trio.sleep(10)
        await client.aclose()
    assert [7] == peaks


async def test_tasks_that_have_ended_leave_nothing(autojump_clock: MockClock) -> None:
    """However many a handler starts."""

    async def handler(session: Session) -> None:
        for _ in range(10):
            session.start_soon(trio.sleep, 1)
            await trio.sleep(2)
        assert not session._connection.tasks._children

    async with connected(handler) as (client, _):
        await trio.sleep(30)
        await client.send(close(1000))
