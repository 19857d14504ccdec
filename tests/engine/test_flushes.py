"""Who waits until what was sent is written: let go of when that is so, in any order of what happens."""

from __future__ import annotations

from typing import Final, final

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from trioktor.engine.flushes import Flushes


async def wait(flushes: Flushes, done: list[str], name: str, items: float, controls: int = 0) -> None:
    """Wait for so many, and say so."""
    await flushes.wait(items, controls)
    done.append(name)


async def test_flushes_go_on_when_what_they_wait_for_is_written(autojump_clock: MockClock) -> None:
    """Each at its own count, of items and of control frames."""
    flushes = Flushes(taken=1)
    done: list[str] = []
    async with trio.open_nursery() as nursery:
        for name, items, controls in (("one", 1, 0), ("three", 3, 0), ("two controls", 0, 2), ("all", 3, 2)):
            nursery.start_soon(wait, flushes, done, name, items, controls)
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        flushes.note_written(1)
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        flushes.note_written(0)
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["one"]
        flushes.taken = 3
        flushes.controls_taken = 1
        flushes.note_written(1)
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["one"]
        flushes.note_written(0)
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["one", "three"]
        flushes.controls_taken = 2
        flushes.note_written(0)
    assert set(done) == {"one", "three", "two controls", "all"}


async def test_who_gives_up_a_flush_is_forgotten(autojump_clock: MockClock) -> None:
    """Whatever happens to the others afterwards."""
    flushes = Flushes()
    done: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, flushes, done, "other", 1)
        for _ in range(3):
            with trio.move_on_after(1):
                await flushes.wait(1, 0)
        assert flushes._waiting is not None
        assert len(flushes._waiting) == 1
        flushes.taken = 1
        flushes.note_written(0)
    assert done == ["other"]


async def test_nothing_left_lets_go_of_everybody(autojump_clock: MockClock) -> None:
    """Also of those whose count will never be reached; and the next one waits for the next."""
    flushes = Flushes()
    done: list[str] = []

    async def wait_for_all() -> None:
        await flushes.wait_for_all()
        done.append("all")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, flushes, done, "never", 100, 100)
        nursery.start_soon(wait_for_all)
        await trio.testing.wait_all_tasks_blocked()
        flushes.taken = 1
        flushes.note_written(0)
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        flushes.taken, flushes.controls_taken = 2, 1
        flushes.release()
    assert set(done) == {"never", "all"}
    await flushes.wait(2, 1)
    for items, controls in ((3, 0), (0, 2)):
        with trio.move_on_after(1) as scope:
            await flushes.wait(items, controls)
        assert scope.cancelled_caught


async def test_those_whose_flush_is_done_are_forgotten(autojump_clock: MockClock) -> None:
    """One by one; and a count begins with nothing taken, and nothing written."""
    flushes = Flushes()
    await flushes.wait(0, 0)
    done: list[int] = []

    async def flush(items: int) -> None:
        await flushes.wait(items, 0)
        done.append(items)

    async with trio.open_nursery() as nursery:
        for items in (1, 2, 3):
            nursery.start_soon(flush, items)
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        for number in (1, 2, 3):
            flushes.taken += 1
            flushes.note_written(0)
            assert len(flushes._waiting or ()) == 3 - number
            await trio.testing.wait_all_tasks_blocked()
            assert done == list(range(1, number + 1))
    with trio.move_on_after(1) as scope:
        await flushes.wait(3, 1)
    assert scope.cancelled_caught


async def test_a_flush_that_was_let_go_is_forgotten(autojump_clock: MockClock) -> None:
    """With everybody else's."""
    flushes = Flushes()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flushes.wait_for_all)
        await trio.testing.wait_all_tasks_blocked()
        flushes.release()
    assert not flushes._waiting


@pytest.mark.parametrize(("items", "controls"), [(0, 0), (2, 0), (0, 1), (2, 1)])
async def test_what_is_written_by_now_is_not_waited_for(items: int, controls: int) -> None:
    """It is a checkpoint all the same."""
    flushes = Flushes(taken=2, controls_taken=1)
    flushes.note_written(0)
    with trio.testing.assert_checkpoints():
        await flushes.wait(items, controls)


async def test_a_cancelled_flush_of_nothing_is_cancelled() -> None:
    """As a checkpoint is."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await Flushes().wait(0, 0)
    assert scope.cancelled_caught


@pytest.mark.parametrize("way", ["written", "release"])
async def test_who_is_let_go_of_and_cancelled_in_one_step_harms_nobody(way: str, autojump_clock: MockClock) -> None:
    """He is not there any more to be forgotten."""
    flushes = Flushes(taken=1)
    done: list[str] = []
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def cancelled() -> None:
            with scope:
                await wait(flushes, done, "first", 1)

        nursery.start_soon(cancelled)
        nursery.start_soon(wait, flushes, done, "second", 2)
        await trio.testing.wait_all_tasks_blocked()
        if way == "written":
            flushes.note_written(0)
        else:
            flushes.release()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        flushes.taken = 2
        flushes.note_written(0)
    assert set(done) == {"first", "second"}


# in any order


Step = tuple[str, int]
STEPS: Final = st.lists(
    st.tuples(
        st.sampled_from(["take", "control", "written", "release", "flush", "cancel"]),
        st.integers(0, 3),
    ),
    max_size=25,
)


@final
class Model:
    """The same by plain counts: each flush is what it waits for, and is in `done` once it was let go of."""

    def __init__(self) -> None:
        self.taken = self.controls = 0
        self.written = self.controls_written = 0
        self.waiting: dict[int, tuple[int, int]] = {}
        self.done: set[int] = set()

    def note_written(self, unfinished: int) -> None:
        """All is written but for so many items."""
        self.written, self.controls_written = self.taken - unfinished, self.controls
        for name, (items, controls) in tuple(self.waiting.items()):
            if items <= self.written and controls <= self.controls_written:
                del self.waiting[name]
                self.done.add(name)

    def release(self) -> None:
        """Nothing is left."""
        self.note_written(0)
        self.done.update(self.waiting)
        self.waiting.clear()

    def flush(self, name: int, items: int, controls: int) -> None:
        """Wait for so many."""
        self.waiting[name] = (items, controls)
        if items <= self.written and controls <= self.controls_written:
            del self.waiting[name]
            self.done.add(name)


async def _play(steps: list[Step]) -> None:
    flushes, model = Flushes(), Model()
    scopes: dict[int, trio.CancelScope] = {}
    done: set[int] = set()

    async def flush(name: int, items: int, controls: int) -> None:
        with scopes[name]:
            await flushes.wait(items, controls)
            done.add(name)

    async with trio.open_nursery() as nursery:
        for number, (name, count) in enumerate(steps):
            if name == "take":
                flushes.taken += count
                model.taken += count
            elif name == "control":
                flushes.controls_taken += count
                model.controls += count
            elif name == "written":
                flushes.note_written(min(count, flushes.taken))
                model.note_written(min(count, model.taken))
            elif name == "release":
                flushes.release()
                model.release()
            elif name == "flush":
                scopes[number] = trio.CancelScope()
                items, controls = flushes.taken + count - 1, flushes.controls_taken + count // 2
                nursery.start_soon(flush, number, items, controls)
                model.flush(number, items, controls)
            elif model.waiting:
                leaving = sorted(model.waiting)[count % len(model.waiting)]
                scopes[leaving].cancel()
                del model.waiting[leaving]
            await trio.testing.wait_all_tasks_blocked()
            assert done == model.done
        nursery.cancel_scope.cancel()


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_in_any_order_everybody_is_let_go_of_at_his_count(steps: list[Step]) -> None:
    """Not before, and not later; as a model that only counts."""
    trio.run(_play, steps)
