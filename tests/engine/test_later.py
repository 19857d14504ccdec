"""Calls that are put off, by two passes of the loop or by some milliseconds: each once, whatever else happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trioktor.engine.later import Later

Clock = trio.testing.MockClock


@asynccontextmanager
async def running(waker: Later) -> AsyncIterator[Later]:
    """One whose task has parked; closed behind the block."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waker.run)
        await trio.testing.wait_all_tasks_blocked()
        yield waker
        waker.close()


async def test_later_calls_each_once_and_what_is_due_at_its_end(autojump_clock: Clock) -> None:
    """Two passes later, whatever else happens; closed, it ends."""
    later = Later()
    calls: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later.run)
        await trio.testing.wait_all_tasks_blocked()
        assert later.is_running
        later.call(lambda: calls.append(1))
        later.call(lambda: later.call(lambda: calls.append(2)))
        await trio.testing.wait_all_tasks_blocked()
        assert calls == [1, 2]
        later.call(lambda: calls.append(3))
        later.close()
    assert calls == [1, 2, 3]
    assert not later.is_running


async def test_later_goes_on_when_one_fails(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The fault of one connection is in the log, and the others' calls are made, now and then."""
    later = Later()
    calls: list[int] = []

    def fail() -> None:
        raise ZeroDivisionError

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later.run)
        await trio.testing.wait_all_tasks_blocked()
        later.call(fail)
        later.call(lambda: calls.append(1))
        await trio.testing.wait_all_tasks_blocked()
        later.call(lambda: calls.append(2))
        await trio.testing.wait_all_tasks_blocked()
        later.close()
    assert calls == [1, 2]
    (record,) = caplog.records
    assert record.exc_info


async def test_a_call_comes_two_passes_after_the_waker() -> None:
    """A task that is woken in the same step has run by then, and has done one thing more."""
    seen: list[str] = []
    event = trio.Event()

    async def task() -> None:
        await event.wait()
        seen.append("woken")
        await trio.lowlevel.checkpoint()
        seen.append("one thing more")

    async with running(Later()) as later, trio.open_nursery() as nursery:
        nursery.start_soon(task)
        await trio.testing.wait_all_tasks_blocked()
        later.call(lambda: seen.append("called"))
        event.set()
        for _ in range(3):
            assert "called" not in seen
            await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        assert seen == ["woken", "one thing more", "called"]


async def test_calls_are_made_in_their_order() -> None:
    """Those that are put off meanwhile come in a later turn."""
    seen: list[int] = []

    def first() -> None:
        seen.append(1)
        later.call(lambda: seen.append(4))

    async with running(Later()) as later:
        later.call(first)
        await trio.lowlevel.checkpoint()
        for number in (2, 3):
            later.call(lambda number=number: seen.append(number))  # type: ignore[misc]
        while len(seen) < 3:
            await trio.lowlevel.checkpoint()
        assert seen == [1, 2, 3]
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [1, 2, 3, 4]


async def test_with_nothing_to_call_it_parks(autojump_clock: Clock) -> None:
    """Each time again: nothing runs in the loop, so the clock can jump."""
    async with running(Later()) as later:
        for number in range(3):
            calls: list[int] = []
            later.call(lambda calls=calls, number=number: calls.append(number))  # type: ignore[misc]
            await trio.sleep(100)
            assert calls == [number]


async def test_what_is_put_off_before_it_runs_is_called_then() -> None:
    """It does not park in front of it."""
    later = Later()
    calls: list[int] = []
    later.call(lambda: calls.append(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later.run)
        await trio.testing.wait_all_tasks_blocked()
        assert calls == [1]
        later.close()


@pytest.mark.parametrize("is_parked", [True, False])
async def test_cancelled_from_outside_it_calls_what_is_due(is_parked: bool, caplog: pytest.LogCaptureFixture) -> None:
    """One that fails keeps no other from it; and then it takes no more."""
    later = Later()
    calls: list[int] = []

    def fail() -> None:
        raise ZeroDivisionError

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later.run)
        await trio.testing.wait_all_tasks_blocked()
        if is_parked:
            nursery.cancel_scope.cancel()
        later.call(fail)
        later.call(lambda: calls.append(1))
        nursery.cancel_scope.cancel()
        assert calls == []
    assert calls == [1]
    assert not later.is_running
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_closed_before_it_runs_it_ends_at_once() -> None:
    """Behind what is due."""
    later = Later()
    calls: list[int] = []
    later.call(lambda: calls.append(1))
    later.close()
    await later.run()
    assert calls == [1]
    assert not later.is_running


async def test_no_interrupt_comes_between_what_is_called() -> None:
    """What one connection put aside must not be lost."""
    protected: list[bool] = []
    async with running(Later()) as later:
        later.call(lambda: protected.append(trio.lowlevel.currently_ki_protected()))
    assert protected == [True]


# looks


async def test_a_look_comes_ten_milliseconds_after_the_first_that_asks(autojump_clock: Clock) -> None:
    """Whoever asks in between is called at the same look; afterwards there is none."""
    seen: list[tuple[str, float]] = []

    def note(name: str) -> None:
        seen.append((name, trio.current_time() - began))

    async with running(Later(0.01)) as looks:
        for began in (trio.current_time(), trio.current_time() + 5):
            await trio.sleep_until(began)
            looks.call(lambda: note("first"))
            await trio.sleep(0.006)
            looks.call(lambda: note("second"))
            assert seen == []
            await trio.sleep(3)
            assert [name for name, _ in seen] == ["first", "second"]
            assert [after for _, after in seen] == pytest.approx([0.01, 0.01])
            seen.clear()


async def test_what_is_asked_for_twice_is_called_once(autojump_clock: Clock) -> None:
    """At one look; and once more if it is asked for behind it, or at it."""
    calls: list[float] = []

    def call() -> None:
        calls.append(trio.current_time())
        if len(calls) == 1:
            looks.call(call)

    async with running(Later(0.01)) as looks:
        looks.call(call)
        looks.call(call)
        await trio.sleep(1)
        assert len(calls) == 2
        assert calls[1] - calls[0] == pytest.approx(0.01)


async def test_a_look_goes_on_when_one_fails(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The fault of one connection is in the log, and the others are looked at, now and then."""
    calls: list[int] = []

    def fail() -> None:
        raise ZeroDivisionError

    async with running(Later(0.01)) as looks:
        for number in (1, 2):
            looks.call(fail)
            looks.call(lambda number=number: calls.append(number))  # type: ignore[misc]
            await trio.sleep(1)
    assert calls == [1, 2]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


@pytest.mark.parametrize("seconds", [None, 0.01])
@pytest.mark.parametrize("way", ["closed", "cancelled", "closed before it runs"])
async def test_at_the_end_all_that_is_due_is_called(way: str, seconds: float | None) -> None:
    """At once; and from then on nothing is put off."""
    later = Later(seconds)
    calls: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later.run)
        if way != "closed before it runs":
            await trio.testing.wait_all_tasks_blocked()
        states = [later.is_running]
        later.call(lambda: calls.append(1))
        if way == "cancelled":
            nursery.cancel_scope.cancel()
        else:
            later.close()
    assert [*states, later.is_running] == [True, False]
    later.call(lambda: calls.append(2))
    assert calls == [1, 2]
