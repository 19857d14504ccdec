"""The pause of a reader that is ahead: how often it looks, when it goes on, and when it gives up."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, final

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trioktor import ChannelOverflow
from trioktor.engine.stall import wait_for_room
from trioktor.engine.transport import HangUp


@final
class FakeQueue:
    """A queue that is full until somebody makes room; it keeps what it is asked for."""

    def __init__(self, *, look: bool = False) -> None:
        self.is_full = True
        self.has_lost_patience = False
        self.pause: trio.CancelScope | None = None
        self.overflow: ChannelOverflow | None = None
        self.asked: list[tuple[float, float]] = []
        self.event = trio.Event()
        self._looks = look

    async def make_room(self, until: float, look: float) -> None:
        """Wait for room, or until the time."""
        self.asked.append((until, look))
        with trio.move_on_at(min(until, trio.current_time() + look) if self._looks else until):
            await self.event.wait()

    def check_overflow(self) -> None:
        """Raise what is configured."""
        if self.overflow is not None:
            raise self.overflow

    def end_pause(self) -> None:
        """Note it."""
        self.pause = None

    def free(self) -> None:
        """There is room."""
        self.is_full = False
        self.event.set()


def always(found: HangUp) -> Callable[[], HangUp]:
    """What the system says of the peer."""
    return lambda: found


async def test_it_goes_on_as_soon_as_there_is_room(autojump_clock: MockClock) -> None:
    """Until then there is a pause, and nobody is asked before a second."""
    queue: Any = FakeQueue()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_room, queue, always(HangUp.FULL), 5, "somebody")
        await trio.sleep(0.9)
        assert queue.pause is not None
        queue.free()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == pytest.approx(0.9)
    assert queue.pause is None


async def test_with_room_it_does_not_wait() -> None:
    """Neither is the peer looked for."""
    queue: Any = FakeQueue()
    queue.is_full = False
    await wait_for_room(queue, always(HangUp.FULL), 0, "somebody")
    assert (queue.asked, queue.pause) == ([], None)


async def test_woken_for_nothing_it_waits_again(autojump_clock: MockClock) -> None:
    """The peer is looked for at the same time as before."""
    queue: Any = FakeQueue()
    looks: list[float] = []

    def look() -> HangUp:
        looks.append(trio.current_time())
        return HangUp.NO

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_room, queue, look, None, "somebody")
        await trio.sleep(0.5)
        event, queue.event = queue.event, trio.Event()
        event.set()
        await trio.sleep(1.6)
        assert looks == pytest.approx([1, 2])
        queue.free()


async def test_room_that_is_there_at_the_look_comes_first(autojump_clock: MockClock) -> None:
    """Who is gone by then has said something that there is room for."""
    queue: Any = FakeQueue()

    async def free() -> None:
        await trio.sleep(0.9)
        queue.is_full = False  # seen only when the time is up

    async with trio.open_nursery() as nursery:
        nursery.start_soon(free)
        await trio.testing.wait_all_tasks_blocked()
        await wait_for_room(queue, always(HangUp.FULL), None, "somebody")


async def test_the_bytes_are_looked_at_ever_more_seldom(autojump_clock: MockClock) -> None:
    """After a millisecond at first, each time after twice as long; never later than the look for the peer."""
    queue: Any = FakeQueue(look=True)
    with trio.move_on_after(3.5):
        await wait_for_room(queue, always(HangUp.NO), None, "somebody")
    assert [look for _, look in queue.asked] == pytest.approx([0.001 * 2**n for n in range(len(queue.asked))])
    assert sorted({round(until, 3) for until, _ in queue.asked}) == [1, 2, 3, 4]


async def test_where_a_full_queue_is_the_end_nobody_waits() -> None:
    """What the queue says is raised."""
    queue: Any = FakeQueue()
    queue.overflow = ChannelOverflow("full")
    with pytest.raises(ChannelOverflow) as raised:
        await wait_for_room(queue, always(HangUp.NO), None, "somebody")
    assert raised.value is queue.overflow
    assert (queue.asked, queue.pause) == ([], None)


@pytest.mark.parametrize("way", ["nobody cares", "outside"])
async def test_a_pause_that_is_cancelled_is_over(way: str, autojump_clock: MockClock) -> None:
    """By who does not care any more, it is no error; from outside it is a cancellation."""
    queue: Any = FakeQueue()
    returned: list[str] = []

    async def wait() -> None:
        await wait_for_room(queue, always(HangUp.NO), None, "somebody")
        returned.append("returned")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert queue.pause is not None
        if way == "outside":
            nursery.cancel_scope.cancel()
        else:
            queue.pause.cancel()
    assert returned == (["returned"] if way == "nobody cares" else [])
    assert queue.pause is None


# the peer


@pytest.mark.parametrize("found", [HangUp.HALF, HangUp.FULL])
@pytest.mark.parametrize("grace", [0.0, 0.5, 4.0, None])
async def test_a_peer_that_is_gone_is_noticed(found: HangUp, grace: float | None, autojump_clock: MockClock) -> None:
    """Within a second; one that only ended its half leaves the handler its grace, without an end if there is none."""
    queue: Any = FakeQueue()

    def look() -> HangUp:
        return found if trio.current_time() >= 2.5 else HangUp.NO

    is_broken = False
    with trio.move_on_after(1000):
        try:
            await wait_for_room(queue, look, grace, "somebody")
        except trio.BrokenResourceError:
            is_broken = True
    assert queue.pause is None
    assert is_broken == (found is HangUp.FULL or grace is not None)
    assert queue.has_lost_patience == (found is HangUp.HALF and grace is not None)
    if is_broken:
        assert trio.current_time() == pytest.approx(3 + (grace or 0) * (found is HangUp.HALF), abs=0.01)


async def test_a_peer_that_is_gone_within_the_grace_is_not_waited_for(autojump_clock: MockClock) -> None:
    """That is no loss of patience."""
    queue: Any = FakeQueue()

    def look() -> HangUp:
        return HangUp.FULL if trio.current_time() >= 5 else HangUp.HALF

    with pytest.raises(trio.BrokenResourceError):
        await wait_for_room(queue, look, 100, "somebody")
    assert trio.current_time() == pytest.approx(5, abs=1)
    assert not queue.has_lost_patience


async def test_a_pause_of_ours_is_not_held_against_the_handler(autojump_clock: MockClock) -> None:
    """It could take nothing meanwhile."""
    queue: Any = FakeQueue()

    async def stop_the_world() -> None:
        await trio.sleep(2)
        autojump_clock.jump(50)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_the_world)
        with pytest.raises(trio.BrokenResourceError):
            await wait_for_room(queue, always(HangUp.HALF), 8, "somebody")
    assert 50 + 1 + 8 * 3 / 4 <= trio.current_time() <= 50 + 1 + 8 + 1


# the warning


@pytest.mark.parametrize(("seconds", "warnings"), [(9.9, 0), (10.5, 1), (math.inf, 1)])
async def test_a_handler_that_lets_its_input_wait_is_named_once(
    seconds: float, warnings: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """After ten seconds, and not again."""
    queue: Any = FakeQueue()
    with trio.move_on_after(min(seconds, 1000)):
        await wait_for_room(queue, always(HangUp.NO), None, "somebody")
    assert [(record.name, record.levelno) for record in caplog.records] == [
        ("trioktor.session", logging.WARNING)
    ] * warnings
    assert all(record.getMessage().startswith("somebody: the handler lets its input wait") for record in caplog.records)
