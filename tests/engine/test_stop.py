"""The end that the connections of a server share: it begins once, with one deadline for all."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from trioktor.engine.shields import STOP_LIMIT, Stop


async def test_before_it_begins_there_is_no_deadline() -> None:
    """Nobody is called."""
    assert Stop().deadline == math.inf


async def test_who_begins_it_sets_the_deadline_for_all(autojump_clock: MockClock) -> None:
    """Who comes later has what is left."""
    await trio.sleep(100)
    stop = Stop()
    deadline = trio.current_time() + STOP_LIMIT
    assert stop.begin() == deadline
    await trio.sleep(STOP_LIMIT / 2)
    assert stop.begin() == deadline
    await trio.sleep(STOP_LIMIT)
    assert stop.begin() == stop.deadline == deadline


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 0.0), (0.5, 0.5), (5.0, STOP_LIMIT), (math.inf, STOP_LIMIT)])
async def test_a_deadline_that_is_there_is_only_brought_forward(
    seconds: float, expected: float, autojump_clock: MockClock
) -> None:
    """A server may have set one that is sooner."""
    stop = Stop(deadline=trio.current_time() + seconds)
    assert stop.begin() == pytest.approx(trio.current_time() + expected)


async def test_a_deadline_that_is_set_later_counts(autojump_clock: MockClock) -> None:
    """It is not made anew by those who come behind it."""
    stop = Stop()
    stop.begin()
    stop.deadline = trio.current_time() + 0.25
    assert stop.begin() == trio.current_time() + 0.25


async def test_the_others_are_told_once_and_know_the_deadline(autojump_clock: MockClock) -> None:
    """Also where one of them begins it again while he is told."""
    seen: list[float] = []

    def on_begin() -> None:
        seen.append(stop.deadline)
        seen.append(stop.begin())

    stop = Stop(on_begin=on_begin)
    deadline = stop.begin()
    stop.begin()
    assert seen == [deadline, deadline]


async def test_each_is_its_own() -> None:
    """Two that look alike are not the same."""
    one, other = Stop(), Stop()
    one.begin()
    assert other.deadline == math.inf
    assert Stop() != Stop()
