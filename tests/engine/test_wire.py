"""The parts of the sending side by themselves: the wire, who waits for it, and a message in pieces."""

from __future__ import annotations

from typing import Any, final

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trioktor import Frame
from trioktor.engine.flushes import Flushes
from trioktor.engine.streamed import StreamedMessage
from trioktor.engine.transport import HangUp, Transport
from trioktor.engine.wire import Wire


@final
class Taking(Transport):
    """A stream that takes as many bytes at once as it is told, and all when waited for."""

    takes_nowait = True

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.taken = b""
        self.client: Any = None
        self.is_local: bool = False
        self.is_secure: bool = False

    def send_nowait(self, data: bytes | memoryview) -> int:
        size = min(self.sizes.pop(0), len(data))
        self.taken += data[:size]
        return size

    async def send(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.taken += data

    async def receive(self) -> bytes:
        raise NotImplementedError

    def receive_nowait(self) -> bytes:
        raise NotImplementedError

    async def send_eof(self) -> None:
        raise NotImplementedError

    def hang_up(self) -> HangUp:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


async def test_a_wire_takes_one_piece_after_the_other(autojump_clock: MockClock) -> None:
    """What the system does not take is pending, and while it is nobody else can write."""
    transport = Taking(3, 0, 100)
    wire = Wire(transport)
    assert wire.is_clear is True
    assert wire.write(b"abcde") is False
    assert (wire.is_clear, wire.bytes_written, transport.taken) == (False, 3, b"abc")
    with pytest.raises(RuntimeError, match="two writers"):
        wire.write(b"x")
    await wire.drain()
    assert (wire.is_clear, wire.bytes_written, transport.taken) == (True, 5, b"abcde")
    assert wire.write(b"fgh") is False
    assert (wire.is_clear, wire.bytes_written, transport.taken) == (False, 5, b"abcde")
    await wire.drain()
    assert wire.write(b"i") is True
    assert (wire.is_clear, wire.bytes_written, transport.taken) == (True, 9, b"abcdefghi")
    await wire.drain()
    assert transport.taken == b"abcdefghi"


@pytest.mark.parametrize("sizes", [(8,), (3, 8), (0, 0, 8)])
async def test_the_response_is_pending_from_the_beginning(sizes: tuple[int, ...]) -> None:
    """And no part of the conversation: its bytes do not count."""
    transport = Taking(*sizes, 100)
    wire = Wire(transport, is_begun=False)
    with pytest.raises(RuntimeError):
        wire.write(b"x")
    wire.begin(b"response")
    with pytest.raises(RuntimeError):
        wire.write(b"x")
    for number, _ in enumerate(sizes, 1):
        assert wire.bytes_written == 0
        assert wire.push() is (number == len(sizes))
    assert wire.is_clear
    assert wire.push() is True
    assert wire.bytes_written == 0
    assert wire.write(b"xy") is True
    assert (transport.taken, wire.bytes_written) == (b"responsexy", 2)


async def test_a_drain_that_is_cut_short_leaves_the_wire_torn(autojump_clock: MockClock) -> None:
    """Nothing can be written behind it."""
    wire = Wire(Taking(1, 100))
    wire.write(b"abc")
    with trio.CancelScope() as scope:
        scope.cancel()
        await wire.drain()
    assert scope.cancelled_caught
    assert not wire.is_clear
    with pytest.raises(RuntimeError):
        wire.write(b"x")


# flushes


async def wait(flushes: Flushes, done: list[str], name: str, items: float, controls: int = 0) -> None:
    """Wait for so many, and say so."""
    await flushes.wait(items, controls)
    done.append(name)


async def test_flushes_go_on_when_what_they_wait_for_is_written(autojump_clock: MockClock) -> None:
    """Each at its own count, of items and of control frames."""
    flushes = Flushes(taken=1)
    done: list[str] = []
    async with trio.open_nursery() as nursery:
        for name, items, controls in (("one", 1, 0), ("three", 3, 0), ("two controls", 0, 2), ("all", 3, 2)):
            nursery.start_soon(wait, flushes, done, name, items, controls)
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        flushes.note_written(1)
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        flushes.note_written(0)
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["one"]
        flushes.taken = 3
        flushes.controls_taken = 1
        flushes.note_written(1)
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["one"]
        flushes.note_written(0)
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["one", "three"]
        flushes.controls_taken = 2
        flushes.note_written(0)
    assert set(done) == {"one", "three", "two controls", "all"}
    passes = 0

    async def count() -> None:
        nonlocal passes
        await trio.lowlevel.checkpoint()
        passes += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for _ in range(3):
            await flushes.wait(3, 2)
    assert passes == 1


async def test_who_gives_up_a_flush_is_forgotten(autojump_clock: MockClock) -> None:
    """Whatever happens to the others afterwards."""
    flushes = Flushes()
    done: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, flushes, done, "other", 1)
        for _ in range(3):
            with trio.move_on_after(1):
                await flushes.wait(1, 0)
        assert flushes._waiting is not None
        assert len(flushes._waiting) == 1
        flushes.taken = 1
        flushes.note_written(0)
    assert done == ["other"]


async def test_nothing_left_lets_go_of_everybody(autojump_clock: MockClock) -> None:
    """Also of those whose count will never be reached; and the next one waits for the next."""
    flushes = Flushes()
    done: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, flushes, done, "never", 100, 100)
        nursery.start_soon(flushes.wait_for_all)
        await trio.testing.wait_all_tasks_blocked()
        flushes.taken, flushes.controls_taken = 2, 1
        flushes.release()
    assert done == ["never"]
    await flushes.wait(2, 1)
    for items, controls in ((3, 0), (0, 2)):
        with trio.move_on_after(1) as scope:
            await flushes.wait(items, controls)
        assert scope.cancelled_caught


async def test_from_the_end_on_everybody_waits_for_all(autojump_clock: MockClock) -> None:
    """A count would be reached too early by what is counted differently now."""
    flushes = Flushes()
    done: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, flushes, done, "one", 1)
        await trio.testing.wait_all_tasks_blocked()
        flushes.expect_all()
        flushes.taken = 5
        flushes.note_written(0)
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        flushes.release()
    assert done == ["one"]


# messages in pieces


def piece(data: bytes, *, fin: bool = False) -> Frame:
    """A fragment."""
    return Frame.Binary(data, fin=fin)


async def test_pieces_are_taken_in_order(autojump_clock: MockClock) -> None:
    """One waits in the message, others behind it; behind the last one nothing is accepted."""
    stream = StreamedMessage()
    results: list[str] = []

    async def put(frame: Frame) -> None:
        try:
            await stream.put(frame)
            results.append("accepted")
        except trio.BrokenResourceError:
            results.append("refused")

    assert (stream.waiting, stream.has_begun, stream.is_over, stream.take()) == (0, False, False, None)
    async with trio.open_nursery() as nursery:
        for frame in (piece(b"1"), piece(b"2"), piece(b"3", fin=True), piece(b"4")):
            nursery.start_soon(put, frame)
            await trio.testing.wait_all_tasks_blocked()
        assert (stream.waiting, stream.has_begun, stream.is_finished) == (4, True, False)
        assert piece(b"1") == stream.take()
        assert piece(b"2") == stream.take()
        assert (stream.is_finished, stream.is_over) == (True, False)
        assert piece(b"3", fin=True) == stream.take()
        assert (stream.is_over, stream.waiting, stream.take()) == (True, 0, None)
    assert sorted(results) == ["accepted", "accepted", "accepted", "refused"]
    with pytest.raises(trio.BrokenResourceError):
        await stream.put(piece(b"5"))


@pytest.mark.parametrize("last", [False, True])
async def test_sealed_it_gives_what_was_accepted_and_what_waits(autojump_clock: MockClock, last: bool) -> None:
    """Up to the last piece, if that is among them."""
    stream = StreamedMessage()
    refused: list[bytes] = []

    async def put(frame: Frame) -> None:
        try:
            await stream.put(frame)
        except trio.BrokenResourceError:
            refused.append(frame.data)

    async with trio.open_nursery() as nursery:
        for frame in (piece(b"1"), piece(b"2", fin=last), piece(b"3")):
            nursery.start_soon(put, frame)
            await trio.testing.wait_all_tasks_blocked()
        frames = stream.seal()
    assert [frame.data for frame in frames] == ([b"1", b"2"] if last else [b"1", b"2", b"3"])
    assert refused == ([b"3"] if last else [])
    assert (stream.is_finished, stream.is_shut, stream.waiting) == (last, True, 0)
    assert stream.seal() == []
    with pytest.raises(trio.BrokenResourceError):
        await stream.put(piece(b"4"))


async def test_a_writer_waits_for_the_next_piece_or_the_end(autojump_clock: MockClock) -> None:
    """And shows that it does."""
    stream = StreamedMessage()
    woken: list[str] = []

    async def take() -> None:
        for name in ("piece", "end"):
            await stream.wait()
            woken.append(name)
            stream.take()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        assert (stream.is_awaited, woken) == (True, [])
        await stream.put(piece(b"1"))
        await trio.testing.wait_all_tasks_blocked()
        assert (stream.is_awaited, woken) == (True, ["piece"])
        stream.seal()
    assert (stream.is_awaited, woken) == (False, ["piece", "end"])


async def test_the_flush_of_a_message_waits_for_its_pieces_alone(autojump_clock: MockClock) -> None:
    """For those that were accepted, and those that wait."""
    stream = StreamedMessage()
    done: list[str] = []

    async def flush() -> None:
        await stream.flush()
        done.append("flushed")

    await stream.put(piece(b"1"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.put, piece(b"2"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(flush)
        await trio.testing.wait_all_tasks_blocked()
        stream.take()
        stream.flushes.note_written(0)
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        stream.take()
        stream.flushes.note_written(0)
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["flushed"]


async def test_who_sends_a_message_is_known_by_its_tasks(autojump_clock: MockClock) -> None:
    """Those that began inside of it belong to it; those beside it do not."""
    stream = StreamedMessage()
    found: dict[str, bool] = {}

    async def ask(name: str) -> None:
        await trio.testing.wait_all_tasks_blocked()
        found[name] = stream.is_sent_by(trio.lowlevel.current_task())

    async def nested(name: str) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, name)

    assert not stream.is_sent_by(trio.lowlevel.current_task())
    async with trio.open_nursery() as outside:
        outside.start_soon(ask, "beside")
        outside.start_soon(nested, "beside and below")
        stream.begin()
        await ask("itself")
        async with trio.open_nursery() as inside:
            inside.start_soon(ask, "inside")
            inside.start_soon(nested, "inside and below")
    assert found == {
        "itself": True,
        "inside": True,
        "inside and below": True,
        "beside": False,
        "beside and below": False,
    }


async def test_a_message_that_is_shut_is_not_waited_for(autojump_clock: MockClock) -> None:
    """The writer looks elsewhere."""
    stream = StreamedMessage()
    stream.seal()
    with trio.fail_after(1):
        await stream.wait()
