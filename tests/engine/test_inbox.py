"""The incoming queue by itself: what it counts, when it says wait, and how long a handler may go on answering."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from tests.support.helpers import close, connected
from trioktor import CLOSE, ChannelConfig, ChannelOverflow, Frame, WebSocketSession as Session
from trioktor.engine.inbox import Inbox
from trioktor.engine.stall import wait_for_room
from trioktor.engine.transport import HangUp

Make = Callable[..., Inbox]


@pytest.fixture(params=["direct", "channel"])
def inbox(request: pytest.FixtureRequest) -> Make:
    """An empty one, to be received from through the session, or once the channel was asked for."""

    def make(capacity: int = 4, max_bytes: int = 100) -> Inbox:
        one = Inbox(ChannelConfig(capacity), max_bytes)
        if request.param == "channel":
            assert one.channel.statistics().open_send_channels == 1
        return one

    return make


def present() -> HangUp:
    """The peer is there."""
    return HangUp.NO


async def wait(one: Inbox) -> None:
    """The reader's pause."""
    await wait_for_room(one, present, None, "somebody")


# the grace


async def test_a_handler_that_never_received_has_the_grace_of_its_first_message(
    inbox: Make, autojump_clock: MockClock
) -> None:
    """Counted from when it came, and never more than is granted."""
    await trio.sleep(100)
    one = inbox()
    assert one.answer_grace(5) == 0
    assert one.offer(Frame.Binary(b"x"))
    assert one.answer_grace(5) == 5
    await trio.sleep(2)
    assert one.offer(Frame.Binary(b"y"))
    assert one.answer_grace(5) == pytest.approx(3)
    await trio.sleep(2.5)
    assert one.answer_grace(5) == pytest.approx(0.5)
    await trio.sleep(50)
    assert one.answer_grace(5) == 0.0


async def test_a_handler_that_receives_has_all_of_it(inbox: Make, autojump_clock: MockClock) -> None:
    """It took something, or waits for it."""
    await trio.sleep(100)
    one = inbox()
    one.offer(Frame.Binary(b"x"))
    one.offer(Frame.Binary(b"y"))
    await trio.sleep(50)
    assert one.answer_grace(5) == 0
    one.take()
    assert one.answer_grace(5) == 5
    waiting = inbox()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting.receive)
        await trio.testing.wait_all_tasks_blocked()
        assert waiting.answer_grace(5) == 5
        nursery.cancel_scope.cancel()


async def test_a_handler_that_closed_its_input_has_none(inbox: Make, autojump_clock: MockClock) -> None:
    """Whatever it took before."""
    one = inbox()
    one.offer(Frame.Binary(b"x"))
    one.take()
    one.channel.close()
    assert one.answer_grace(5) == 0


# the limits


async def test_what_is_taken_makes_room(inbox: Make, autojump_clock: MockClock) -> None:
    """In bytes: the newest are counted that are still there."""
    one = inbox(capacity=10)
    assert one.offer(Frame.Binary(bytes(60)))
    assert one.offer(Frame.Binary(bytes(40)))
    assert not one.offer(Frame.Binary(bytes(1)))
    one.take()
    assert one.offer(Frame.Binary(bytes(59)))
    assert not one.offer(Frame.Binary(bytes(1)))
    assert one.waiting == 4


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
async def test_one_message_always_passes(inbox: Make, size: int, autojump_clock: MockClock) -> None:
    """And the room for more beside what is arriving is exact."""
    one = inbox()
    assert one.has_room_beside(size)
    assert one.offer(Frame.Binary(bytes(40)))
    assert one.has_room_beside(size) == (40 + size <= 100)


async def test_beside_nothing_there_is_always_room(inbox: Make, autojump_clock: MockClock) -> None:
    """Though what was taken is still counted, until somebody looks."""
    one = inbox()
    one.offer(Frame.Binary(bytes(90)))
    one.take()
    assert one.has_room_beside(1000)
    one.offer(Frame.Binary(bytes(90)))
    assert not one.has_room_beside(11)
    assert one.has_room_beside(10)


async def test_the_sizes_of_messages_that_were_taken_are_forgotten(inbox: Make, autojump_clock: MockClock) -> None:
    """However small they are."""
    one = inbox(capacity=3)
    for _ in range(1000):
        assert one.offer(Frame.Binary(b""))
        one.take()
        assert len(one._sizes) <= 7


async def test_what_was_taken_takes_no_room_from_what_comes(autojump_clock: MockClock) -> None:
    """Neither from the next read, nor from the channel that is asked for then."""
    one = Inbox(ChannelConfig(10), 100)
    for _ in range(2):
        assert one.offer(Frame.Binary(bytes(40)))
        assert one.take() is not None
    assert one.room == (10, 100)
    assert one.offer(Frame.Binary(bytes(40)))
    assert one.room == (9, 60)
    assert one.take() is not None
    assert one.offer(Frame.Binary(bytes(40)))
    assert one.channel.statistics().current_buffer_used == 1
    assert one.offer(Frame.Binary(bytes(40)))
    assert not one.offer(Frame.Binary(bytes(40)))


@pytest.mark.parametrize("size", [0, 60])
async def test_behind_what_was_dropped_all_is_dropped(inbox: Make, size: int, autojump_clock: MockClock) -> None:
    """There is no gap in what is received: also when there is a place again, or somebody waits."""
    one = inbox(capacity=2 if not size else 10)
    one.discard_overflow()
    frames = [Frame.Binary(bytes([number]) + bytes(size)) for number in range(4)]
    for frame in frames:
        assert one.offer(frame)
    taken = [one.take(), one.take()]
    assert one.offer(Frame.Binary(b"later"))
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.EndOfChannel):
                taken.append(await one.receive())

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        assert one.offer(Frame.Binary(b"latest"))
        one.end(0)
    assert taken == frames[:2]


async def test_behind_what_was_held_all_is_dropped(inbox: Make, autojump_clock: MockClock) -> None:
    """It had no place when the input was not wanted any more."""
    one = inbox(capacity=1)
    assert one.offer(Frame.Binary(b"first"))
    assert not one.offer(Frame.Binary(b"held"))
    one.discard_overflow()
    assert one.take() == Frame.Binary(b"first")
    assert one.offer(Frame.Binary(b"later"))
    assert one.take() is None


async def test_what_was_held_has_its_place_in_the_step_in_which_there_is_one(
    inbox: Make, autojump_clock: MockClock
) -> None:
    """So it is not lost if nothing more is wanted in the same step."""
    one = inbox(capacity=1)
    assert one.offer(Frame.Binary(b"first"))
    assert not one.offer(Frame.Binary(b"held"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, one)
        await trio.testing.wait_all_tasks_blocked()
        assert one.take() == Frame.Binary(b"first")
        one.discard_overflow()
        assert one.take() == Frame.Binary(b"held")


async def test_whoever_is_not_wanted_any_more_is_not_full(inbox: Make, autojump_clock: MockClock) -> None:
    """Its reader may be about to pause when the handler returns."""
    one = inbox(capacity=2)
    assert one.offer(Frame.Binary(bytes(90)))
    assert not one.offer(Frame.Binary(bytes(90)))
    assert one.is_full
    one.discard_overflow()
    assert not one.is_full


async def test_the_peak_is_the_most_that_was_seen(inbox: Make, autojump_clock: MockClock) -> None:
    """By whoever looked."""
    one = inbox()
    for _ in range(3):
        one.offer(Frame.Binary(b"x"))
    assert one.waiting >= 0
    one.take()
    assert (one.waiting, one.peak) == (2, 3)


async def test_a_reader_that_waits_is_stalled_until_there_is_room(inbox: Make, autojump_clock: MockClock) -> None:
    """For a place, or for bytes."""
    for one, message in ((inbox(capacity=1), b""), (inbox(max_bytes=10), bytes(6))):
        assert one.offer(Frame.Binary(message))
        states = [one.pause is not None]
        assert not one.offer(Frame.Binary(message))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, one)
            await trio.testing.wait_all_tasks_blocked()
            states.append(one.pause is not None)
            await trio.sleep(3)
            one.take()
        assert [False, True, False] == [*states, one.pause is not None]
        assert one.waiting == 1


async def test_the_reader_looks_by_itself(inbox: Make, autojump_clock: MockClock) -> None:
    """A handler may take from the channel: soon at first, then ever more seldom, and a second at most."""
    one = inbox(max_bytes=10)
    one.offer(Frame.Binary(bytes(8)))
    assert not one.offer(Frame.Binary(bytes(8)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, one)
        await trio.sleep(0.0005)
        began = trio.current_time()
        one.take()
    assert trio.current_time() - began <= 0.001
    assert not one.offer(Frame.Binary(bytes(8)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, one)
        await trio.sleep(100)
        one.take()
    assert trio.current_time() - began - 100 <= 1.002


@pytest.mark.parametrize("way", ["place", "bytes", "beside"])
async def test_who_is_not_wanted_any_more_is_not_waited_for(inbox: Make, way: str, autojump_clock: MockClock) -> None:
    """From then on what does not fit is dropped."""
    one = inbox(capacity=1 if way == "place" else 9, max_bytes=10)
    one.offer(Frame.Binary(bytes(8)))
    if way == "beside":
        assert not one.has_room_beside(8)
    else:
        assert not one.offer(Frame.Binary(bytes(8)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, one)
        await trio.testing.wait_all_tasks_blocked()
        one.discard_overflow()
    before = one.waiting
    assert one.offer(Frame.Binary(bytes(8)))
    assert one.has_room_beside(1000)
    assert one.waiting == before + (way == "beside")
    assert one.offer(Frame.Binary(bytes(8)))
    assert one.waiting <= 2


async def test_a_queue_that_closes_does_not_wait(autojump_clock: MockClock) -> None:
    """It says how much there was."""
    one = Inbox(ChannelConfig(4, on_overflow=CLOSE), 10)
    one.offer(Frame.Binary(bytes(8)))
    assert one.has_room_beside(1000)
    assert not one.offer(Frame.Binary(bytes(8)))
    with pytest.raises(ChannelOverflow, match="2 messages of 16 bytes"):
        await wait(one)
    assert one.pause is None


async def test_input_that_nobody_wants_is_dropped(inbox: Make, autojump_clock: MockClock) -> None:
    """The handler closed `incoming`: nothing is counted."""
    one = inbox()
    one.channel.close()
    for _ in range(10):
        assert one.offer(Frame.Binary(bytes(90)))
    assert one.waiting == 0
    held = inbox(capacity=1)
    held.offer(Frame.Binary(b"x"))
    assert not held.offer(Frame.Binary(b"y"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, held)
        await trio.testing.wait_all_tasks_blocked()
        held.channel.close()


async def test_a_message_that_is_dropped_in_the_step_in_which_it_is_taken_harms_nobody(
    inbox: Make,
    autojump_clock: MockClock,
) -> None:
    """The handler takes one, so that the held one has its place, and ends."""
    one = inbox(capacity=1)
    one.offer(Frame.Binary(b"x"))
    assert not one.offer(Frame.Binary(b"y"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, one)
        await trio.testing.wait_all_tasks_blocked()
        one.take()
        one.discard_overflow()
    assert one.waiting <= 1
    assert one.pause is None


# who takes


async def take(one: Inbox, taken: list[str], name: str = "") -> None:
    """Receive as a session does."""
    try:
        message = one.take()
        if message is None:
            message = await one.receive()
    except trio.EndOfChannel:
        taken.append(name + "end")
    else:
        taken.append(name + message.data.decode())


async def test_those_who_wait_are_served_in_order(inbox: Make, autojump_clock: MockClock) -> None:
    """One message each; who is cancelled has taken none, and the end is for all."""
    one = inbox()
    taken: list[str] = []
    async with trio.open_nursery() as nursery:
        scopes = []
        for _ in range(5):
            scope = trio.CancelScope()
            scopes.append(scope)

            async def taker(scope: trio.CancelScope = scope, number: int = len(scopes)) -> None:
                with scope:
                    await take(one, taken, f"{number}: ")

            nursery.start_soon(taker)
            await trio.testing.wait_all_tasks_blocked()
        scopes[1].cancel()
        for data in (b"a", b"b"):
            assert one.offer(Frame.Binary(data))
        scopes[0].cancel()  # too late
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(taken) == ["1: a", "3: b"]
        assert one.offer(Frame.Binary(b"c"))
        one.end(0)
    assert sorted(taken) == ["1: a", "3: b", "4: c", "5: end"]
    with pytest.raises(trio.EndOfChannel):
        one.take()


async def test_what_waits_is_taken_before_the_end(inbox: Make, autojump_clock: MockClock) -> None:
    """And whoever asks behind it hears of the end."""
    one = inbox()
    one.offer(Frame.Binary(b"a"))
    one.end(0)
    taken: list[str] = []
    for _ in range(3):
        await take(one, taken)
    assert taken == ["a", "end", "end"]


@pytest.mark.parametrize("state", ["empty", "full", "taken from", "stalled", "ended", "ended with some"])
async def test_the_channel_may_be_asked_for_at_any_time(state: str, autojump_clock: MockClock) -> None:
    """Nobody is forgotten, and nothing lost: what waits, who waits for it, and the reader."""
    one = Inbox(ChannelConfig(3), 100)
    taken: list[str] = []
    async with trio.open_nursery() as nursery:
        if state == "taken from":
            for _ in range(2):
                nursery.start_soon(take, one, taken)
        elif state != "empty":
            for data in (b"a", b"b", b"c")[: 3 if state != "ended" else 0]:
                assert one.offer(Frame.Binary(data))
        if state == "stalled":
            assert not one.offer(Frame.Binary(b"d"))
            nursery.start_soon(wait, one)
        if state.startswith("ended"):
            one.end(0)
        await trio.testing.wait_all_tasks_blocked()
        channel = one.channel
        await trio.testing.wait_all_tasks_blocked()
        if state == "taken from":
            assert channel.statistics().tasks_waiting_receive == 2
            assert one.offer(Frame.Binary(b"a"))
            assert one.offer(Frame.Binary(b"b"))
        if not state.startswith("ended") and state != "stalled":
            one.end(0)
        expected = {"empty": 0, "full": 3, "taken from": 0, "stalled": 4, "ended": 0, "ended with some": 3}[state]
        if state == "stalled":
            for _ in range(4):
                taken.append((await channel.receive()).data.decode())
            await trio.testing.wait_all_tasks_blocked()
            one.end(0)
        taken.extend([message.data.decode() async for message in channel])
    assert sorted(taken) == list("abcd"[: expected or 2 * (state == "taken from")])


async def test_a_reader_that_waits_for_a_handler_that_takes_nothing_looks_once_a_second(
    autojump_clock: MockClock,
) -> None:
    """Without a channel whatever is taken is seen, so there is nothing else to look for."""
    one = Inbox(ChannelConfig(3), 10)
    one.offer(Frame.Binary(bytes(11)))
    looks: list[float] = []

    def look() -> HangUp:
        looks.append(trio.current_time())
        return HangUp.NO

    with trio.move_on_after(10.5):
        await wait_for_room(one, look, None, "somebody")
    assert looks == pytest.approx(list(range(1, 11)))


async def test_receiving_through_the_session_needs_no_channel(autojump_clock: MockClock) -> None:
    """It comes into being when `incoming` is asked for, and then everything goes through it."""
    states: list[bool] = []

    async def handler(session: Session) -> None:
        states.append(session._inbox._channel is None)
        await session.receive()
        await session.receive()
        states.append(session._inbox._channel is None)
        frame = await session.incoming.receive()
        await session.send(frame)
        states.append(session._inbox._channel is None)
        async for frame in session:
            await session.send(frame)

    async with connected(handler) as (client, _):
        for number in range(5):
            await client.send(Frame.Text(str(number)))
            await trio.testing.wait_all_tasks_blocked()
        await client.send(close(1000))
        assert await client.receive_rest() == [Frame.Text(str(number)) for number in (2, 3, 4)] + [close(1000)]
    assert states == [True, True, False]


@pytest.mark.parametrize("mode", ["direct", "channel"])
async def test_a_cancelled_scope_receives_nothing(mode: str, autojump_clock: MockClock) -> None:
    """Though messages wait; and a loop of receives lets others have their turn."""
    outcomes: list[object] = []

    async def handler(session: Session) -> None:
        if mode == "channel":
            session.incoming.statistics()
        await trio.sleep(1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await session.receive()
        outcomes.append((scope.cancelled_caught, session.statistics().incoming))
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(200):
                await session.receive()
            outcomes.append(turns >= 1)
            nursery.cancel_scope.cancel()

    async with connected(handler, incoming=300) as (client, _):
        await client.send(*[Frame.Text("x")] * 200, close(1000))
        await client.receive_rest()
    assert outcomes == [(True, 200), True]


async def test_a_message_that_had_no_place_keeps_its_turn(inbox: Make, autojump_clock: MockClock) -> None:
    """Whoever makes room for it, and waits for the next one in the same step, gets it before any later one."""
    one = inbox(capacity=1)
    taken: list[str] = []
    one.offer(Frame.Binary(b"a"))
    assert not one.offer(Frame.Binary(b"b"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, one)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            await take(one, taken)
            if len(taken) == 2:
                await trio.testing.wait_all_tasks_blocked()
                one.offer(Frame.Binary(b"c"))
    assert taken == ["a", "b", "c"]


async def test_room_that_was_found_beside_a_message_is_not_taken_from_the_next(
    inbox: Make, autojump_clock: MockClock
) -> None:
    """What was asked for once counts while the reader waits for it, and no longer."""
    one = inbox()
    one.offer(Frame.Binary(bytes(90)))
    one.take()
    assert one.has_room_beside(50)
    one.offer(Frame.Binary(bytes(60)))
    one.take()
    assert one.offer(Frame.Binary(bytes(60)))
    with trio.fail_after(1):
        await wait(one)  # there is nothing to wait for


Steps = list[tuple[str, int]]


STEPS = ["come"] * 4 + ["take"] * 6 + ["drop", "channel"]


@settings(max_examples=500)
@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), max_size=30),
    capacity=st.integers(1, 12),
    max_bytes=st.sampled_from([1, 8, 30]),
)
def test_several_messages_in_one_step_are_queued_as_one_by_one(steps: Steps, capacity: int, max_bytes: int) -> None:
    """As many as `room` says; the rest is offered. The answers to the last, and what is there then, are the same."""

    def come(one: Inbox, messages: list[Frame], *, at_once: bool) -> bool:
        """The reader's part; False if it has to wait before more."""
        has_room = True
        if at_once:
            most, size = one.room
            run: list[Frame] = []
            while len(run) < most and size > 0 and messages:
                size -= len(messages[0].data)
                run.append(messages.pop(0))
            has_room = one.extend(run) if run else True
        while has_room and messages:
            has_room = one.offer(messages.pop(0))
        return has_room

    def play(*, at_once: bool) -> list[object]:
        one, number, waits = Inbox(ChannelConfig(capacity), max_bytes), 0, False
        seen: list[object] = []
        for what, size in steps:
            if what == "come" and not waits:
                messages: list[Frame] = [Frame.Binary(bytes((number + i) % 7)) for i in range(size)]
                number += size
                waits = not come(one, messages, at_once=at_once)
                seen.append((waits, len(messages)))
            elif what == "take":
                taken = one.take()
                seen.append(None if taken is None else len(taken.data))
                waits = one.is_full
            elif what == "drop":
                one.discard_overflow()
                waits = False
            elif what == "channel":
                assert one.channel is not None
            seen.append((one.waiting, one.is_full, one.answer_grace(5)))
        return seen

    async def main() -> None:
        assert play(at_once=True) == play(at_once=False)

    trio.run(main, clock=trio.testing.MockClock())


async def test_who_waits_is_served_first_of_several(autojump_clock: MockClock) -> None:
    """And what is left is queued."""
    one = Inbox(ChannelConfig(10), 100)
    got: list[Frame] = []

    async def take() -> None:
        got.append(await one.receive())

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        frames: list[Frame] = [Frame.Text(str(number)) for number in range(4)]
        assert one.extend(list(frames))
    assert sorted(frame.data for frame in got) == [b"0", b"1"]
    assert [one.take(), one.take(), one.take()] == [*frames[2:], None]


async def test_there_is_never_room_for_more_than_a_turn(autojump_clock: MockClock) -> None:
    """However much may be queued."""
    assert Inbox(ChannelConfig(100_000), 1 << 20).room == (255, 1 << 20)


async def test_what_is_dropped_is_held_nowhere(autojump_clock: MockClock) -> None:
    """It does not come back when there is room."""
    one = Inbox(ChannelConfig(1), 100)
    one.discard_overflow()
    for text in ("queued", "dropped"):
        assert one.offer(Frame.Text(text))
    assert (one.is_full, one.take(), one.take()) == (False, Frame.Text("queued"), None)
