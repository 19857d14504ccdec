"""The pinger and its watchdog: when a Ping goes out, what puts the time for its Pong back, and when it is up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, final

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trioktor.engine.pinging import Keepalive, Ping

PERIOD = 10
TIMEOUT = 4


@final
class Owner:
    """A connection, and what happened when; the times count from the beginning."""

    def __init__(self) -> None:
        self._began = trio.current_time()
        self.is_stalled: bool = False
        self.pings: list[Ping] = []
        self.forgotten: list[Ping] = []
        self.sent: list[float] = []
        self.timeouts: list[float] = []

    def now(self) -> float:
        """Seconds since the beginning."""
        return round(trio.current_time() - self._began, 6)

    async def sleep_until(self, seconds: float) -> None:
        """Wait until so many have gone by."""
        await trio.sleep_until(self._began + seconds)

    def ping(self) -> Ping:
        """Note it."""
        self.sent.append(self.now())
        self.pings.append(Ping(trio.current_time()))
        return self.pings[-1]

    def forget(self, ping: Ping) -> None:
        """Note it."""
        self.forgotten.append(ping)

    def answer(self) -> None:
        """The Pong of the last one comes."""
        self.pings[-1].answered.set()

    def timed_out(self) -> None:
        """No Pong came."""
        self.timeouts.append(self.now())


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Owner, Keepalive]]:
    """A pinger, stopped at the end of the block."""
    owner: Any = Owner()
    keepalive = Keepalive(owner, PERIOD, TIMEOUT, owner.timed_out)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keepalive.run_pinger)
        yield owner, keepalive
        keepalive.stop()


async def test_a_ping_goes_out_a_period_after_the_pong_of_the_one_before(autojump_clock: MockClock) -> None:
    """None is behind another one's Pong; and the first waits for its period, too."""
    async with running() as (owner, _):
        for answered in (11, 21, 34.5):
            await owner.sleep_until(answered)
            await trio.testing.wait_all_tasks_blocked()
            owner.answer()
        await owner.sleep_until(200)
        assert owner.sent == [10, 21, 31, 44.5]
        assert owner.timeouts == [44.5 + TIMEOUT]


async def test_who_answers_in_time_is_not_given_up(autojump_clock: MockClock) -> None:
    """However often it is asked, and however near to the limit it answers."""
    async with running() as (owner, _):
        for _ in range(50):
            await trio.sleep(PERIOD + TIMEOUT - 0.01)
            owner.answer()
        assert len(owner.sent) == 50
        assert owner.timeouts == []


async def test_silence_is_told_once_when_the_time_is_up(autojump_clock: MockClock) -> None:
    """And nothing more is sent meanwhile."""
    async with running() as (owner, _):
        await owner.sleep_until(1000)
        assert (owner.sent, owner.timeouts) == ([PERIOD], [PERIOD + TIMEOUT])


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        ([9.5], 14),  # before the Ping it says nothing
        ([10.5], 14.5),
        ([13.9], 17.9),
        ([13.9, 17.8, 21.7], 25.7),
        ([14.5], 14),  # too late
    ],
)
async def test_a_sign_of_life_begins_the_time_anew(
    signs: Sequence[float], expected: float, autojump_clock: MockClock
) -> None:
    """The last one counts."""
    async with running() as (owner, keepalive):
        for at in signs:
            await owner.sleep_until(at)
            keepalive.sign_of_life()
        await owner.sleep_until(100)
        assert owner.timeouts == [expected]


async def test_the_time_stands_while_our_own_reader_waits(autojump_clock: MockClock) -> None:
    """The Pong may be there, unread; afterwards it has its time again."""
    async with running() as (owner, _):
        await owner.sleep_until(12)
        owner.is_stalled = True
        await owner.sleep_until(500)
        assert owner.timeouts == []
        owner.is_stalled = False
        await owner.sleep_until(1000)
        (at,) = owner.timeouts
        assert 500 + TIMEOUT * 3 / 4 <= at <= 500 + TIMEOUT


@pytest.mark.parametrize("comes", [True, False])
async def test_a_pause_of_the_whole_process_is_not_counted(comes: bool, autojump_clock: MockClock) -> None:
    """The Pong lies unread, or it does not come, and the time-out is put off by the pause."""
    async with running() as (owner, _):
        await owner.sleep_until(12.5)
        autojump_clock.jump(60)
        await trio.sleep(0.1)
        assert owner.timeouts == []
        if comes:
            owner.answer()
        await owner.sleep_until(80)
        if comes:
            assert owner.timeouts == []
        else:
            (at,) = owner.timeouts
            assert PERIOD + TIMEOUT + 60 - TIMEOUT / 4 <= at <= PERIOD + TIMEOUT + 60 + TIMEOUT / 4


@pytest.mark.parametrize("at", [0, 5, 12])
async def test_stopped_it_ends_in_the_same_step(at: float, autojump_clock: MockClock) -> None:
    """Both tasks, whether a Ping is out or not; and there is no time-out any more."""
    owner: Any = Owner()
    keepalive = Keepalive(owner, PERIOD, TIMEOUT, owner.timed_out)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keepalive.run_pinger)
        if at:
            await owner.sleep_until(at)
        keepalive.stop()
        keepalive.stop()
    assert owner.now() == at
    assert owner.sent == ([PERIOD] if at > PERIOD else [])
    assert owner.forgotten == owner.pings
    await owner.sleep_until(100)
    assert owner.timeouts == []


async def test_a_cancellation_from_outside_passes_through(autojump_clock: MockClock) -> None:
    """It ends both tasks, and is not swallowed."""
    owner: Any = Owner()
    keepalive = Keepalive(owner, PERIOD, TIMEOUT, owner.timed_out)
    with trio.move_on_after(12) as scope:
        await keepalive.run_pinger()
    assert scope.cancelled_caught
    assert (owner.sent, owner.timeouts) == ([PERIOD], [])


async def test_it_says_what_it_was_made_with(autojump_clock: MockClock) -> None:
    """To be shown, and to be kept when only one of them changes."""
    owner: Any = Owner()
    keepalive = Keepalive(owner, 7, 3, owner.timed_out)
    assert (keepalive.period, keepalive.timeout) == (7, 3)
