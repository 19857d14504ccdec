"""Something is done when a coroutine waits for the first time, and nothing stands between it and Trio."""

from __future__ import annotations

import sys
import types
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from trioktor.engine.lifetime import FirstWait


@types.coroutine
def trap(value: object) -> Any:
    """Give a value to whoever steps the coroutine; returns what is sent back."""
    return (yield value)


async def test_then_is_called_in_the_step_of_the_first_wait() -> None:
    """Before any other task runs, and once."""
    seen: list[str] = []

    async def waits() -> None:
        nursery.start_soon(other)
        seen.append("runs")
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        seen.append("returns")

    async def other() -> None:
        seen.append("other")

    async with trio.open_nursery() as nursery:
        await FirstWait(waits(), lambda: seen.append("then"))
    assert seen == ["runs", "then", "other", "returns"]


@pytest.mark.parametrize("error", [None, KeyError("mine")])
async def test_who_never_waits_calls_nothing(error: Exception | None) -> None:
    """Whether it returns or raises."""
    called: list[str] = []

    async def ends() -> None:
        if error is not None:
            raise error

    if error is None:
        await FirstWait(ends(), lambda: called.append("then"))
    else:
        with pytest.raises(KeyError, match="mine"):
            await FirstWait(ends(), lambda: called.append("then"))
    assert called == []


def test_what_is_yielded_and_sent_passes_as_it_is() -> None:
    """Also None, which a generator is sent by another way; and `then` is not called again."""
    calls: list[str] = []
    got: list[object] = []

    async def inner() -> None:
        for number in range(3):
            got.append(await trap(number))

    async def outer() -> str:
        await FirstWait(inner(), lambda: calls.append("then"))
        return "done"

    coroutine = outer()
    assert coroutine.send(None) == 0
    assert calls == ["then"]
    assert coroutine.send(None) == 1
    assert coroutine.send("value") == 2
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    assert stop.value.value == "done"
    assert got == [None, "value", None]
    assert calls == ["then"]


def test_an_error_is_thrown_in_where_it_waits() -> None:
    """It may be caught there, and the coroutine goes on."""
    seen: list[str] = []

    async def inner() -> None:
        try:
            await trap("first")
        except KeyError:
            seen.append("caught")
        await trap("second")

    waiting = FirstWait(inner(), lambda: seen.append("then"))
    assert next(waiting) == "first"
    assert waiting.throw(KeyError("mine")) == "second"
    with pytest.raises(ValueError, match="not mine"):
        waiting.throw(ValueError("not mine"))
    assert seen == ["then", "caught"]


def test_closed_it_goes_on_no_more() -> None:
    """What has to be cleaned up is."""
    seen: list[str] = []

    async def inner() -> None:
        try:
            await trap("first")
            seen.append("went on")
        finally:
            seen.append("cleaned up")

    waiting = FirstWait(inner(), lambda: None)
    next(waiting)
    waiting.close()
    assert seen == ["cleaned up"]
    with pytest.raises(RuntimeError, match="reuse"):
        waiting.send(None)


class Waits:
    """No coroutine."""

    def __await__(self) -> Any:
        """Wait once."""
        yield from trio.lowlevel.checkpoint().__await__()  # noqa: ASYNC105


@types.coroutine
def generator() -> Any:
    """A coroutine of the old kind."""
    yield from trio.lowlevel.checkpoint().__await__()  # noqa: ASYNC105


@pytest.mark.parametrize("make", [Waits, generator, trio.lowlevel.checkpoint])
async def test_whatever_can_be_awaited_will_do(make: Callable[[], Awaitable[object]]) -> None:
    """And its first wait is seen."""
    called: list[str] = []
    await FirstWait(make(), lambda: called.append("then"))
    assert called == ["then"]


# what walks along the stack


async def test_the_stack_of_a_task_can_be_seen_through_it() -> None:
    """By whoever walks along it, as for a dump of one that hangs."""
    names: list[str] = []

    async def inner() -> None:
        nursery.start_soon(look, trio.lowlevel.current_task())
        await trio.testing.wait_all_tasks_blocked()

    async def outer() -> None:
        await inner()

    async def look(task: trio.lowlevel.Task) -> None:
        names.extend(frame.f_code.co_name for frame, _ in task.iter_await_frames())

    async with trio.open_nursery() as nursery:
        await FirstWait(outer(), lambda: None)
    where = names.index("outer")
    assert names[where : where + 2] == ["outer", "inner"]


def test_the_frame_and_what_is_awaited_are_the_coroutines_own() -> None:
    """Until it has ended: then there is none."""

    async def inner() -> None:
        await trap("first")

    coroutine: Any = inner()
    waiting: Any = FirstWait(coroutine, lambda: None)
    seen = [(waiting.cr_frame is coroutine.cr_frame, waiting.cr_await)]
    next(waiting)
    seen.append((waiting.cr_frame is coroutine.cr_frame, waiting.cr_await))
    assert seen == [(True, None), (True, coroutine.cr_await)]
    assert seen[1][1] is not None
    with pytest.raises(StopIteration):
        waiting.send(None)
    assert (waiting.cr_frame, waiting.cr_await) == (None, None)


async def test_nothing_stands_between_trio_and_the_coroutine_later() -> None:
    """No frame of ours, in which Ctrl-C could end its steps half-way."""
    callers: list[str] = []

    async def waits() -> None:
        for _ in range(3):
            frame = sys._getframe().f_back
            assert frame is not None
            callers.append(frame.f_code.co_name)
            await trio.lowlevel.checkpoint()

    async def runs() -> None:
        await FirstWait(waits(), lambda: None)

    await runs()
    assert callers == ["__next__", "runs", "runs"]
