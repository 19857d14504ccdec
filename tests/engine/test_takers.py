"""Tasks in `receive`: who gets the next message, who has to look again, and who waits by a lease."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any, final

import pytest
import trio
import trio.testing
from outcome import Outcome
from trio.testing import MockClock

from trioktor import Frame
from trioktor.engine.lending import Takers

ONE, TWO = Frame.Text("1"), Frame.Text("2")


@final
class FakeLease:
    """A lease, and its lender: it notes when it is used and when it is ended."""

    def __init__(self, takers: Takers, *, is_waiting: bool = False) -> None:
        self.is_waiting = is_waiting
        self.message: Frame | None = None
        self.calls: list[str] = []
        self.lender = self
        self._takers = takers
        lease: Any = self
        takers.lease = lease

    async def wait(self) -> Frame | None:
        """Read a message."""
        await trio.lowlevel.checkpoint()
        self.calls.append("wait")
        return ONE

    def take_back(self) -> None:
        """End it, as a lender does."""
        self.calls.append("back")
        self._takers.lease = None


async def take(takers: Takers, name: str, taken: dict[str, Frame | None]) -> None:
    """Wait for a message."""
    taken[name] = await takers.wait()


async def test_the_first_to_come_gets_the_message(autojump_clock: MockClock) -> None:
    """From the hand of who has it, one each; nobody else is woken."""
    takers = Takers()
    taken: dict[str, Frame | None] = {}
    async with trio.open_nursery() as nursery:
        for number, name in enumerate("abc"):
            assert len(takers) == number
            nursery.start_soon(take, takers, name, taken)
            await trio.testing.wait_all_tasks_blocked()
        takers.hand(ONE)
        takers.hand(TWO)
        assert len(takers) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert taken == {"a": ONE, "b": TWO}
        takers.hand(ONE)
    assert taken["c"] is ONE
    assert not takers


async def test_without_a_task_that_waits_there_is_nobody_to_give_to() -> None:
    """And whoever has a message keeps it."""
    assert not Takers().hand(ONE)


async def test_woken_all_of_them_look_again(autojump_clock: MockClock) -> None:
    """Without a message; and where nobody waits nothing happens."""
    takers = Takers()
    takers.wake()
    taken: dict[str, Frame | None] = {}
    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(take, takers, name, taken)
        await trio.testing.wait_all_tasks_blocked()
        takers.wake()
        assert not takers
    assert taken == dict.fromkeys("abc")


@pytest.mark.parametrize("leaving", ["a", "b", "c", "ab", "ac", "abc"])
async def test_who_is_cancelled_has_taken_nothing(leaving: str, autojump_clock: MockClock) -> None:
    """He is out of the queue in that step; the others keep their places."""
    takers = Takers()
    taken: dict[str, Frame | None] = {}
    scopes = {name: trio.CancelScope() for name in "abcd"}

    async def held(name: str) -> None:
        with scopes[name]:
            await take(takers, name, taken)

    async with trio.open_nursery() as nursery:
        for name in "abcd":
            nursery.start_soon(held, name)
            await trio.testing.wait_all_tasks_blocked()
        for name in leaving:
            scopes[name].cancel()
        assert len(takers) == 4 - len(leaving)
        first = next(name for name in "abcd" if name not in leaving)
        takers.hand(ONE)
        await trio.testing.wait_all_tasks_blocked()
        assert taken == {first: ONE}
        nursery.cancel_scope.cancel()
    assert not takers


async def test_first_in_an_empty_queue_again_and_again(autojump_clock: MockClock) -> None:
    """The first who left is not mistaken for the next one."""
    takers = Takers()
    taken: dict[str, Frame | None] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, takers, "a", taken)
        await trio.testing.wait_all_tasks_blocked()
        takers.hand(ONE)
        scope = trio.CancelScope()

        async def held() -> None:
            with scope:
                await take(takers, "b", taken)

        nursery.start_soon(held)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(take, takers, "c", taken)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        takers.hand(TWO)
    assert taken == {"a": ONE, "c": TWO}


async def test_who_was_given_a_message_is_not_cancelled_any_more(autojump_clock: MockClock) -> None:
    """It would be lost."""
    takers = Takers()
    taken: dict[str, Frame | None] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, takers, "a", taken)
        await trio.testing.wait_all_tasks_blocked()
        takers.hand(ONE)
        nursery.cancel_scope.cancel()
    assert taken == {"a": ONE}


# a lease


async def test_who_waits_alone_waits_by_the_lease(autojump_clock: MockClock) -> None:
    """He reads by himself, and is not in the queue."""
    takers = Takers()
    lease = FakeLease(takers)
    assert takers.by_lease == 0
    assert await takers.wait() is ONE
    assert lease.calls == ["wait"]
    assert not takers


@pytest.mark.parametrize("is_waiting", [False, True])
async def test_what_is_read_next_belongs_to_who_waits_by_the_lease(is_waiting: bool) -> None:
    """One at most; without a lease nobody."""
    takers = Takers()
    assert takers.by_lease == 0
    FakeLease(takers, is_waiting=is_waiting)
    assert takers.by_lease == is_waiting


async def test_who_reads_by_the_lease_gets_one_message() -> None:
    """While he waits for it, and if he has none yet."""
    takers = Takers()
    lease = FakeLease(takers)
    assert not takers.hand(ONE)
    assert lease.message is None
    lease.is_waiting = True
    assert takers.hand(ONE)
    assert not takers.hand(TWO)
    assert lease.message is ONE


async def test_another_who_comes_ends_the_lease_and_waits_in_the_queue(autojump_clock: MockClock) -> None:
    """Of several who wait each has his turn."""
    takers = Takers()
    lease = FakeLease(takers, is_waiting=True)
    taken: dict[str, Frame | None] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, takers, "other", taken)
        await trio.testing.wait_all_tasks_blocked()
        assert lease.calls == ["back"]
        assert takers.lease is None
        takers.hand(TWO)
    assert taken == {"other": TWO}


async def test_the_lease_ends_when_somebody_asks(autojump_clock: MockClock) -> None:
    """Those in the queue, if there are some, wait on until they are woken."""
    takers = Takers()
    taken: dict[str, Frame | None] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, takers, "a", taken)
        await trio.testing.wait_all_tasks_blocked()
        lease = FakeLease(takers)
        takers.end_lease()
        assert lease.calls == ["back"]
        assert len(takers) == 1
        takers.wake()
    assert taken == {"a": None}


async def test_a_message_is_handed_on_as_an_outcome(autojump_clock: MockClock) -> None:
    """Whoever resumes the task may unwrap it, or send it into a generator of either kind."""

    def echo() -> Generator[object, Frame, None]:
        while True:
            seen.append((yield None))

    async def echo_async() -> AsyncGenerator[object, Frame]:
        while True:
            seen.append((yield None))

    seen: list[Frame] = []
    handed: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio.lowlevel, "reschedule", lambda task, outcome: handed.append(outcome))
        takers = Takers()
        takers.append(trio.lowlevel.current_task())
        takers.hand(ONE)
    [outcome] = handed
    assert isinstance(outcome, Outcome)
    assert outcome.unwrap() is ONE
    generator, async_generator = echo(), echo_async()
    next(generator)
    outcome.send(generator)
    await anext(async_generator)
    await outcome.asend(async_generator)
    assert seen == [ONE, ONE]
    await async_generator.aclose()
