"""The incoming queue by itself: what it counts, when it says wait, and how long a handler may go on answering."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trioktor import CLOSE, ChannelConfig, ChannelOverflow, Frame
from trioktor.engine.inbox import Inbox
from trioktor.engine.transport import HangUp


def inbox(capacity: int = 4, max_bytes: int = 100) -> Inbox:
    """An empty one."""
    return Inbox(ChannelConfig(capacity), max_bytes)


def present() -> HangUp:
    """The peer is there."""
    return HangUp.NO


async def wait(one: Inbox) -> None:
    """The reader's pause."""
    await one.wait(present, None, "somebody")


# the grace


async def test_a_handler_that_never_received_has_the_grace_of_its_first_message(autojump_clock: MockClock) -> None:
    """Counted from when it came, and never more than is granted."""
    await trio.sleep(100)
    one = inbox()
    assert one.answer_grace(5) == 0
    assert one.offer(Frame.Binary(b"x"))
    assert one.answer_grace(5) == 5
    await trio.sleep(2)
    assert one.offer(Frame.Binary(b"y"))
    assert one.answer_grace(5) == pytest.approx(3)
    await trio.sleep(2.5)
    assert one.answer_grace(5) == pytest.approx(0.5)
    await trio.sleep(50)
    assert one.answer_grace(5) == 0.0


async def test_a_handler_that_receives_has_all_of_it(autojump_clock: MockClock) -> None:
    """It took something, or waits for it."""
    await trio.sleep(100)
    one = inbox()
    one.offer(Frame.Binary(b"x"))
    one.offer(Frame.Binary(b"y"))
    await trio.sleep(50)
    assert one.answer_grace(5) == 0
    one.receive_channel.receive_nowait()
    assert one.answer_grace(5) == 5
    waiting = inbox()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting.receive_channel.receive)
        await trio.testing.wait_all_tasks_blocked()
        assert waiting.answer_grace(5) == 5
        nursery.cancel_scope.cancel()


async def test_a_handler_that_closed_its_input_has_none(autojump_clock: MockClock) -> None:
    """Whatever it took before."""
    one = inbox()
    one.offer(Frame.Binary(b"x"))
    one.receive_channel.receive_nowait()
    one.receive_channel.close()
    assert one.answer_grace(5) == 0


# the limits


async def test_what_is_taken_makes_room(autojump_clock: MockClock) -> None:
    """In bytes: the newest are counted that are still there."""
    one = inbox(capacity=10)
    assert one.offer(Frame.Binary(bytes(60)))
    assert one.offer(Frame.Binary(bytes(40)))
    assert not one.offer(Frame.Binary(bytes(1)))
    one.receive_channel.receive_nowait()
    assert one.offer(Frame.Binary(bytes(59)))
    assert not one.offer(Frame.Binary(bytes(1)))
    assert one.waiting == 4


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
async def test_one_message_always_passes(size: int, autojump_clock: MockClock) -> None:
    """And the room for more beside what is arriving is exact."""
    one = inbox()
    assert one.has_room_beside(size)
    assert one.offer(Frame.Binary(bytes(40)))
    assert one.has_room_beside(size) == (40 + size <= 100)


async def test_beside_nothing_there_is_always_room(autojump_clock: MockClock) -> None:
    """Though what was taken is still counted, until somebody looks."""
    one = inbox()
    one.offer(Frame.Binary(bytes(90)))
    one.receive_channel.receive_nowait()
    assert one.has_room_beside(1000)
    one.offer(Frame.Binary(bytes(90)))
    assert not one.has_room_beside(11)
    assert one.has_room_beside(10)


async def test_the_sizes_of_messages_that_were_taken_are_forgotten(autojump_clock: MockClock) -> None:
    """However small they are."""
    one = inbox(capacity=3)
    for _ in range(1000):
        assert one.offer(Frame.Binary(b""))
        one.receive_channel.receive_nowait()
        assert len(one._sizes) <= 7


async def test_the_peak_is_the_most_that_was_seen(autojump_clock: MockClock) -> None:
    """By whoever looked."""
    one = inbox()
    for _ in range(3):
        one.offer(Frame.Binary(b"x"))
    one.look()
    one.receive_channel.receive_nowait()
    assert (one.waiting, one.peak) == (2, 3)


async def test_a_reader_that_waits_is_stalled_until_there_is_room(autojump_clock: MockClock) -> None:
    """For a place, or for bytes."""
    for one, message in ((inbox(capacity=1), b""), (inbox(max_bytes=10), bytes(6))):
        assert one.offer(Frame.Binary(message))
        states = [one.is_stalled]
        assert not one.offer(Frame.Binary(message))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, one)
            await trio.testing.wait_all_tasks_blocked()
            states.append(one.is_stalled)
            await trio.sleep(3)
            one.receive_channel.receive_nowait()
            if one.room is not None:
                one.room.set()
        assert [False, True, False] == [*states, one.is_stalled]
        assert one.waiting == 1


async def test_the_reader_looks_by_itself(autojump_clock: MockClock) -> None:
    """A handler may take from the channel: soon at first, then ever more seldom, and a second at most."""
    one = inbox(max_bytes=10)
    one.offer(Frame.Binary(bytes(8)))
    assert not one.offer(Frame.Binary(bytes(8)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, one)
        await trio.sleep(0.0005)
        began = trio.current_time()
        one.receive_channel.receive_nowait()
    assert trio.current_time() - began <= 0.001
    assert not one.offer(Frame.Binary(bytes(8)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, one)
        await trio.sleep(100)
        one.receive_channel.receive_nowait()
    assert trio.current_time() - began - 100 <= 1.002


@pytest.mark.parametrize("way", ["place", "bytes", "beside"])
async def test_who_is_not_wanted_any_more_is_not_waited_for(way: str, autojump_clock: MockClock) -> None:
    """From then on what does not fit is dropped."""
    one = inbox(capacity=1 if way == "place" else 9, max_bytes=10)
    one.offer(Frame.Binary(bytes(8)))
    if way == "beside":
        assert not one.has_room_beside(8)
    else:
        assert not one.offer(Frame.Binary(bytes(8)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, one)
        await trio.testing.wait_all_tasks_blocked()
        one.let_overflow()
    before = one.waiting
    assert one.offer(Frame.Binary(bytes(8)))
    assert one.has_room_beside(1000)
    assert one.waiting == before + (way == "beside")
    assert one.offer(Frame.Binary(bytes(8)))
    assert one.waiting <= 2


async def test_a_queue_that_closes_does_not_wait(autojump_clock: MockClock) -> None:
    """It says how much there was."""
    one = Inbox(ChannelConfig(4, on_overflow=CLOSE), 10)
    one.offer(Frame.Binary(bytes(8)))
    assert one.has_room_beside(1000)
    assert not one.offer(Frame.Binary(bytes(8)))
    with pytest.raises(ChannelOverflow, match="2 messages of 16 bytes"):
        await wait(one)
    assert not one.is_stalled


async def test_input_that_nobody_wants_is_dropped(autojump_clock: MockClock) -> None:
    """The handler closed `incoming`: nothing is counted."""
    one = inbox()
    one.receive_channel.close()
    for _ in range(10):
        assert one.offer(Frame.Binary(bytes(90)))
    assert one.waiting == 0
    held = inbox(capacity=1)
    held.offer(Frame.Binary(b"x"))
    assert not held.offer(Frame.Binary(b"y"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, held)
        await trio.testing.wait_all_tasks_blocked()
        held.receive_channel.close()


async def test_a_handler_that_lets_its_input_wait_is_named_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """After ten seconds."""
    one = inbox(capacity=1)
    one.offer(Frame.Binary(b"x"))
    assert not one.offer(Frame.Binary(b"y"))
    with trio.move_on_after(9.9):
        await wait(one)
    assert caplog.records == []
    with trio.move_on_after(100):
        await wait(one)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("somebody: the handler lets its input wait")


@pytest.mark.parametrize("found", [HangUp.HALF, HangUp.FULL])
@pytest.mark.parametrize("grace", [0.5, 4.0, None])
async def test_a_peer_that_is_gone_is_noticed_while_the_reader_waits(
    found: HangUp, grace: float | None, autojump_clock: MockClock
) -> None:
    """Within a second; one that only ended its half leaves the handler its grace, without an end if there is none."""
    one = inbox(capacity=1)
    one.offer(Frame.Binary(b"x"))
    assert not one.offer(Frame.Binary(b"y"))
    gone_at = trio.current_time() + 2.5

    def look() -> HangUp:
        return found if trio.current_time() >= gone_at else HangUp.NO

    is_broken = False
    with trio.move_on_after(1000):
        try:
            await one.wait(look, grace, "somebody")
        except trio.BrokenResourceError:
            is_broken = True
    assert not one.is_stalled
    assert is_broken == (found is HangUp.FULL or grace is not None)
    if not is_broken:
        assert not one.has_lost_patience
        return
    expected = 3 + (grace or 0 if found is HangUp.HALF else 0)
    assert expected == pytest.approx(trio.current_time(), abs=0.01)
    assert one.has_lost_patience == (found is HangUp.HALF)


async def test_a_message_that_is_dropped_in_the_step_in_which_it_is_taken_harms_nobody(
    autojump_clock: MockClock,
) -> None:
    """The handler takes one, so that the held one has its place, and ends."""
    one = inbox(capacity=1)
    one.offer(Frame.Binary(b"x"))
    assert not one.offer(Frame.Binary(b"y"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, one)
        await trio.testing.wait_all_tasks_blocked()
        one.receive_channel.receive_nowait()
        one.let_overflow()
    assert one.waiting == 1
    assert not one.is_stalled
