"""Scopes that a cancellation from outside does not end, and the deadline that they share."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from trioktor.engine.shields import STOP_LIMIT, Shields, Stop


async def test_what_is_shielded_hears_nothing_of_a_cancellation(autojump_clock: MockClock) -> None:
    """And ends by itself."""
    ends: list[str] = []
    with trio.CancelScope() as outside:
        outside.cancel()
        with Shields().open():
            await trio.sleep(1)
            ends.append("shielded")
        await trio.sleep(1)
        ends.append("not shielded")
    assert ends == ["shielded"]


async def test_who_has_to_hear_of_a_cancellation_does(autojump_clock: MockClock) -> None:
    """It goes out through the scope, which has the deadline all the same."""
    shields = Shields()
    with trio.CancelScope() as outside:
        outside.cancel()
        with shields.open(shield=False):
            await trio.sleep(1)
    assert outside.cancelled_caught
    shields.stop_by(trio.current_time() + 2)
    with shields.open(shield=False) as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.parametrize("is_own", [True, False])
async def test_all_end_by_the_deadline(is_own: bool, autojump_clock: MockClock) -> None:
    """Those that are open, and those that are opened later."""
    shields = Shields()
    began = trio.current_time()
    ends: list[tuple[str, float]] = []

    async def wait(name: str) -> None:
        with shields.open(trio.CancelScope() if is_own else None) as scope:
            await trio.sleep_forever()
        assert scope.cancelled_caught
        ends.append((name, trio.current_time() - began))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "first")
        nursery.start_soon(wait, "second")
        await trio.sleep(3)
        shields.stop_by(began + 5)
        await trio.sleep(1)
        nursery.start_soon(wait, "late")
    nothing_left = trio.current_time()
    await wait("too late")
    assert trio.current_time() == nothing_left
    assert sorted(ends) == [("first", 5), ("late", 5), ("second", 5), ("too late", 5)]


async def test_the_deadline_is_only_brought_forward(autojump_clock: MockClock) -> None:
    """Neither all nor one of them is put off by a later one."""
    shields = Shields()
    assert shields.deadline == math.inf
    early = trio.CancelScope(deadline=2)
    with shields.open(early), shields.open() as other:
        assert (early.deadline, other.deadline) == (2, math.inf)
        for deadline, expected in ((10, 10), (5, 5), (7, 5)):
            shields.stop_by(deadline)
            assert (shields.deadline, early.deadline, other.deadline) == (expected, 2, expected)
    for own, expected in ((2.0, 2), (9.0, 5)):
        with shields.open(trio.CancelScope(deadline=own)) as scope:
            assert scope.deadline == expected


async def test_a_scope_of_ones_own_is_shielded_and_can_be_cancelled(autojump_clock: MockClock) -> None:
    """Whatever it was before; who opened it has it back."""
    own = trio.CancelScope(shield=False)
    with Shields().open(own) as scope:
        assert scope is own
        assert own.shield
        own.cancel()
        await trio.sleep_forever()
    assert own.cancelled_caught
    unshielded = trio.CancelScope(shield=True)
    with Shields().open(unshielded, shield=False):
        assert not unshielded.shield


async def test_a_scope_that_is_closed_is_listed_no_more(autojump_clock: MockClock) -> None:
    """Its deadline stays as it was; the others are still there."""
    shields = Shields()
    with shields.open() as outer:
        with shields.open() as inner:
            pass
        shields.stop_by(trio.current_time() + 1)
        assert (inner.deadline, outer.deadline) == (math.inf, trio.current_time() + 1)


async def test_an_error_passes_and_closes(autojump_clock: MockClock) -> None:
    """As itself."""
    shields = Shields()
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as raised, shields.open() as scope:
        raise error
    assert raised.value is error
    shields.stop_by(trio.current_time())
    assert scope.deadline == math.inf


async def test_without_any_scope_the_deadline_is_kept() -> None:
    """Nothing has to be open to be told of it."""
    shields = Shields()
    shields.stop_by(3)
    assert shields.deadline == 3


# the end that connections share


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
