"""The waiting room by itself: tasks go on in order, or are told why not, in the step of whoever makes room."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from trioktor import ProtocolError
from trioktor.engine.waiting_room import WaitingRoom


async def wait(room: WaitingRoom[str], name: str, outcomes: dict[str, str]) -> None:
    """Wait, and note how that ended."""
    try:
        await room.wait(name)
        outcomes[name] = "accepted"
    except (ProtocolError, trio.BrokenResourceError) as error:
        outcomes[name] = type(error).__name__


async def test_a_waiting_room_is_first_come_first_served(autojump_clock: MockClock) -> None:
    """Whoever makes room accepts, refuses, or sends all away; who is cancelled has left at once."""
    room: WaitingRoom[str] = WaitingRoom()
    outcomes: dict[str, str] = {}
    assert not room.waiters
    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "c", "d", "e"):
            nursery.start_soon(wait, room, name, outcomes)
            await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await room.wait("never")
        assert (5, "a") == (len(room.waiters), room.first)
        assert "a" == room.accept()
        room.refuse(ProtocolError("not here"))
        assert "c" == room.first
        assert "c" == room.accept()
        room.refuse_all()
        assert not room.waiters
    assert {
        "a": "accepted",
        "b": "ProtocolError",
        "c": "accepted",
        "d": "BrokenResourceError",
        "e": "BrokenResourceError",
    } == outcomes


async def test_who_was_accepted_is_not_cancelled_any_more(autojump_clock: MockClock) -> None:
    """The two meet in one step: what was accepted stands."""
    room: WaitingRoom[str] = WaitingRoom()
    outcomes: dict[str, str] = {}
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def held() -> None:
            with scope:
                await wait(room, "a", outcomes)

        nursery.start_soon(held)
        await trio.testing.wait_all_tasks_blocked()
        room.accept()
        scope.cancel()
    assert {"a": "accepted"} == outcomes


async def test_a_refusal_is_raised_as_it_is(autojump_clock: MockClock) -> None:
    """In the first task alone."""
    room: WaitingRoom[str] = WaitingRoom()
    error = ProtocolError("not here")
    raised: list[Exception] = []

    async def refused() -> None:
        with pytest.raises(ProtocolError) as caught:
            await room.wait("a")
        raised.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused)
        await trio.testing.wait_all_tasks_blocked()
        room.refuse(error)
        assert not room.waiters
        assert raised == []  # it has not run yet
    assert raised == [error]
    assert raised[0] is error


async def test_waiting_is_a_checkpoint(autojump_clock: MockClock) -> None:
    """Even where room is made at once."""
    room: WaitingRoom[str] = WaitingRoom()

    async def accept() -> None:
        room.accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        with trio.testing.assert_checkpoints():
            await room.wait("a")


async def test_who_is_sent_away_with_all_hears_of_the_end(autojump_clock: MockClock) -> None:
    """Each with an error of his own; where nobody waits nothing happens."""
    room: WaitingRoom[str] = WaitingRoom()
    room.refuse_all()
    errors: list[Exception] = []

    async def refused() -> None:
        with pytest.raises(trio.BrokenResourceError, match="nothing is accepted any more") as caught:
            await room.wait("same")
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(refused)
        await trio.testing.wait_all_tasks_blocked()
        room.refuse_all()
    assert len({id(error) for error in errors}) == 3


Step = tuple[str, int]


async def _play(steps: list[Step]) -> None:
    room: WaitingRoom[str] = WaitingRoom()
    model: list[str] = []
    scopes: dict[str, trio.CancelScope] = {}
    outcomes: dict[str, str] = {}
    expected: dict[str, str] = {}

    async def held(name: str) -> None:
        with scopes[name]:
            await wait(room, name, outcomes)

    async with trio.open_nursery() as nursery:
        for number, (step, at) in enumerate(steps):
            if step == "come":
                name = str(number)
                scopes[name] = trio.CancelScope()
                nursery.start_soon(held, name)
                model.append(name)
                await trio.testing.wait_all_tasks_blocked()
            elif step == "pass":
                await trio.testing.wait_all_tasks_blocked()
            elif model and step == "accept":
                assert room.first == model[0]
                assert room.accept() == model[0]
                expected[model.pop(0)] = "accepted"
            elif model and step == "refuse":
                room.refuse(ProtocolError("not here"))
                expected[model.pop(0)] = "ProtocolError"
            elif model and step == "cancel":
                scopes[model.pop(at % len(model))].cancel()
            assert [waiter.item for waiter in room.waiters] == model
        room.refuse_all()
        expected.update(dict.fromkeys(model, "BrokenResourceError"))
    assert outcomes == expected


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["come", "come", "pass", "accept", "refuse", "cancel"]), st.integers(0, 9)),
        max_size=25,
    )
)
def test_in_any_order_each_is_accepted_or_refused_once(steps: list[Step]) -> None:
    """As a plain list; who is cancelled is out of it in the step of the cancellation."""
    trio.run(_play, steps)
