"""Scopes that a cancellation from outside does not end, and the deadline that they share."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from trioktor.engine.shields import Shields


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
