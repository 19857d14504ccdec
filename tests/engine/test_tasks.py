"""The handler and its tasks: everything passes through as it is, and its end is told once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.interrupts import ctrl_c_at, ctrl_c_felt
from trioktor.engine.lifetime import FirstWait
from trioktor.engine.tasks import HandlerTasks


class Owner:
    """What a connection is told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def handler_waits(self) -> None:
        """For the first time."""
        self.seen.append("first wait")

    def handler_ended(self, error: Exception | None) -> None:
        """All have."""
        self.seen.append(error)

    def interrupted(self) -> None:
        """One is cancelled from outside."""
        self.seen.append("interrupted")


async def run(function: Callable[[Any], Awaitable[object]], owner: Owner | None = None) -> list[Any]:
    """Run a handler; what its owner, which is its session, was told."""
    owner = owner or Owner()
    with HandlerTasks(owner):
        await FirstWait(function(owner), owner.handler_waits)
    return owner.seen


async def test_it_is_told_in_the_step_of_the_first_wait() -> None:
    """Before any other task runs, and once."""

    async def waits(owner: Owner) -> None:
        nursery.start_soon(other, owner)
        await trio.lowlevel.checkpoint_if_cancelled()
        owner.seen.append("runs")
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        owner.seen.append("returns")

    async def other(owner: Owner) -> None:
        owner.seen.append("other")

    async with trio.open_nursery() as nursery:
        assert await run(waits) == ["runs", "first wait", "other", "returns", None]


async def test_who_does_not_wait_is_not_told_of() -> None:
    """Whether it returns or raises, or is no coroutine at all."""
    error = KeyError("mine")

    async def nothing(owner: Owner) -> None:
        """Return."""

    async def fails(owner: Owner) -> None:
        raise error

    def fails_early(owner: Owner) -> Any:
        raise error

    assert await run(nothing) == [None]
    for failing in (fails, fails_early):
        assert await run(failing) == [error]


async def test_errors_pass_in_both_directions(autojump_clock: trio.testing.MockClock) -> None:
    """A cancellation goes in, and may be held up there; what comes out is the owner's."""
    error = ValueError("mine")

    async def works(owner: Owner) -> None:
        with trio.move_on_after(1):
            await trio.sleep(5)
        owner.seen.append("went on")
        try:
            await trio.sleep_forever()
        finally:
            owner.seen.append("cleaned up")

    owner = Owner()
    with trio.move_on_after(3) as scope:
        await run(works, owner)
    assert scope.cancelled_caught
    assert owner.seen == ["first wait", "went on", "cleaned up", "interrupted", None]

    async def raises(owner: Owner) -> None:
        await trio.sleep(1)
        raise error

    assert await run(raises) == ["first wait", error]


async def test_what_cannot_be_awaited_is_an_error() -> None:
    """As anywhere."""
    (error,) = await run(lambda owner: None)  # type: ignore[arg-type, return-value]
    assert isinstance(error, TypeError)
    assert "await" in str(error)

    def stops(owner: Owner) -> Any:
        raise StopIteration

    (error,) = await run(stops)
    assert isinstance(error, StopIteration) or isinstance(error.__cause__, StopIteration)


async def test_what_another_loop_waits_for_is_an_error_where_it_is_awaited() -> None:
    """Trio throws that in; a nursery that is open there ends well."""

    async def mixes(owner: Owner) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await asyncio.sleep(0)
            except TypeError:
                owner.seen.append("thrown in")
                nursery.cancel_scope.cancel()
                raise

    seen = await run(mixes)
    assert seen[:2] == ["first wait", "thrown in"]


@pytest.mark.parametrize("error", [None, ValueError("mine")])
@pytest.mark.parametrize("place", range(1, 30))
def test_ctrl_c_is_not_felt_half_way_in_or_out(place: int, error: Exception | None) -> None:
    """Whichever line it comes at: the scope is closed, the owner told once, and the interrupt comes out behind that."""
    owner, came = Owner(), list[int]()

    async def main() -> None:
        tasks = HandlerTasks(owner)
        with ctrl_c_at(place, HandlerTasks.__enter__, HandlerTasks.__exit__, HandlerTasks._end_one) as found:
            with tasks:
                if error is not None:
                    raise error
            came.extend(found)
        await trio.lowlevel.checkpoint()

    with ctrl_c_felt():
        try:
            trio.run(main)
        except KeyboardInterrupt:
            assert came == [place]
        else:
            assert came == []
    assert owner.seen == [error]


class Undividable(BaseExceptionGroup[BaseException]):
    """A group that no part can be taken of."""

    def derive(self, excs: Any, /) -> Any:
        """Fail."""
        raise ZeroDivisionError


async def test_a_fault_on_the_way_out_leaves_no_scope_open() -> None:
    """It would be found open by the next one outside, and take the whole run with it."""

    class Faulty(Owner):
        """Has a log that fails."""

        def handler_ended(self, error: Exception | None) -> None:
            """Fail."""
            super().handler_ended(error)
            raise ZeroDivisionError

    faulty, owner = Faulty(), Owner()
    with trio.CancelScope():
        with pytest.raises(ZeroDivisionError), HandlerTasks(faulty):
            raise ValueError
        with pytest.raises(ZeroDivisionError), HandlerTasks(faulty):
            pass
        with pytest.raises(ZeroDivisionError), HandlerTasks(owner):
            raise Undividable("several", [ValueError(), KeyboardInterrupt()])
        await trio.lowlevel.checkpoint()
    assert [type(error) for error in faulty.seen] == [ValueError, type(None)]
    assert owner.seen == [None]
