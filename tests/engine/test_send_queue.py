"""What waits to be written: how much may wait, in which order it is taken, and who is accepted when there is room."""

from __future__ import annotations

from typing import Final, final

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from trioktor import Frame, ProtocolError
from trioktor.engine.send_queue import Counted, SendQueue, size
from trioktor.engine.streamed import StreamedMessage
from trioktor.protocol.outgoing import Outgoing
from trioktor.protocol.prepared import PreparedMessage
from trioktor.protocol.serializer import Serializer


def queue_of(capacity: float = 100, most: int = 100) -> SendQueue:
    """An empty one."""
    return SendQueue(capacity, most, Outgoing(Serializer(masking=False), ()))


def of(count: int) -> Frame:
    """A message of so many bytes."""
    return Frame.Binary(bytes(count))


@final
class Senders:
    """Tasks that wait for room, and how each of them ended."""

    def __init__(self, queue: SendQueue, nursery: trio.Nursery) -> None:
        self._queue = queue
        self._nursery = nursery
        self.ends: dict[str, str] = {}

    async def add(self, name: str, item: Counted) -> None:
        """One more."""

        async def wait() -> None:
            try:
                await self._queue.senders.wait(item)
                self.ends[name] = "accepted"
            except Exception as error:
                self.ends[name] = type(error).__name__

        self._nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()


# how much may wait


async def test_the_payload_is_what_counts() -> None:
    """Whoever it is for; that of a message in pieces has a bound of its own."""
    assert size(of(7)) == 7
    assert size(PreparedMessage(Frame.Text("é"))) == 2
    assert size(StreamedMessage()) == 0


async def test_so_many_items_may_wait() -> None:
    """One more has no place, and changes nothing."""
    queue = queue_of(capacity=2)
    assert [queue.put(of(10)), queue.put(of(10)), queue.put(of(10))] == [True, True, False]
    assert (queue.waiting, queue.queued) == (2, 20)
    queue.take()
    assert (queue.waiting, queue.queued) == (1, 10)
    assert queue.put(of(1))


@pytest.mark.parametrize(
    ("queued", "unwritten", "count", "has_room"),
    [
        (0, 0, 0, True),
        (0, 0, 100, True),
        (0, 0, 1000, True),  # one message always passes
        (0, 50, 1000, True),  # also behind half of the limit
        (0, 51, 50, True),
        (0, 51, 51, False),
        (0, 5000, 50, True),  # a long message leaves room for short ones
        (1, 0, 99, True),
        (1, 0, 100, False),
        (50, 30, 20, True),
        (50, 30, 21, False),
        (50, 5000, 0, True),
        (50, 5000, 1, False),
        (100, 0, 0, True),
        (1000, 0, 0, False),
    ],
)
async def test_so_many_bytes_may_wait(queued: int, unwritten: int, count: int, has_room: bool) -> None:
    """Those that are being written count for half of the limit at most."""
    queue = queue_of()
    if queued:
        assert queue.put(of(queued))
    queue.unwritten = unwritten
    assert queue.has_room_for(of(count)) == has_room
    assert queue.has_room_for(PreparedMessage(of(count))) == has_room


async def test_a_message_in_pieces_needs_no_room_of_its_own(autojump_clock: MockClock) -> None:
    """But a limit that is passed by others."""
    queue = queue_of()
    queue.put(of(100))
    assert queue.has_room_for(StreamedMessage())
    assert queue.put(StreamedMessage())
    assert (queue.waiting, queue.queued) == (2, 100)
    queue.put(of(1))
    assert not queue.has_room_for(StreamedMessage())


async def test_nobody_passes_those_who_wait_for_room(autojump_clock: MockClock) -> None:
    """However little he wants."""
    queue = queue_of()
    queue.put(of(90))
    async with trio.open_nursery() as nursery:
        await Senders(queue, nursery).add("long", of(50))
        assert not queue.has_room_for(of(0))
        nursery.cancel_scope.cancel()
    assert queue.has_room_for(of(0))


# what is counted


ITEMS: Final = st.sampled_from(["counted", "prepared", "pieces", "by the channel", "take"])


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.tuples(ITEMS, st.integers(0, 9)), max_size=30))
def test_items_come_out_in_order_and_what_was_counted_is_counted(steps: list[tuple[str, int]]) -> None:
    """As a plain list; what came by the channel itself counts as a place alone."""

    async def main() -> None:
        queue, model = queue_of(capacity=5), list[tuple[object, int]]()
        for name, count in steps:
            item: Counted = of(count)
            if name == "take":
                if model:
                    assert queue.take() is model.pop(0)[0]
                else:
                    with pytest.raises(trio.WouldBlock):
                        queue.take()
                continue
            if name == "by the channel":
                try:
                    queue.channel.send_nowait(item)
                    is_in, count = True, 0
                except trio.WouldBlock:
                    is_in = False
            else:
                item = PreparedMessage(of(count)) if name == "prepared" else item
                item = StreamedMessage() if name == "pieces" else item
                is_in = queue.put(item)
                count *= name != "pieces"
            assert is_in == (len(model) < 5)
            if is_in:
                model.append((item, count))
            assert queue.waiting == len(model)
            assert queue.queued == sum(count for _, count in model)

    trio.run(main)


# who waits for room


async def test_those_who_wait_are_accepted_in_order(autojump_clock: MockClock) -> None:
    """As far as there is room: a short one does not pass a long one."""
    queue = queue_of()
    queue.put(of(100))
    async with trio.open_nursery() as nursery:
        senders = Senders(queue, nursery)
        for name, count in (("a", 30), ("b", 80), ("c", 1)):
            await senders.add(name, of(count))
        queue.admit()
        assert len(queue.senders.waiters) == 3
        queue.take()
        queue.admit()
        assert (queue.waiting, queue.queued) == (1, 30)
        await trio.testing.wait_all_tasks_blocked()
        assert senders.ends == {"a": "accepted"}
        queue.take()
        queue.admit()
        assert (queue.waiting, queue.queued) == (2, 81)
    assert senders.ends == dict.fromkeys("abc", "accepted")


async def test_who_finds_no_place_waits_on(autojump_clock: MockClock) -> None:
    """There may be room in bytes."""
    queue = queue_of(capacity=1)
    queue.put(of(0))
    async with trio.open_nursery() as nursery:
        senders = Senders(queue, nursery)
        await senders.add("a", of(1))
        queue.admit()
        await trio.testing.wait_all_tasks_blocked()
        assert senders.ends == {}
        queue.take()
        queue.admit()
    assert senders.ends == {"a": "accepted"}


async def test_what_waits_is_judged_when_it_is_accepted(autojump_clock: MockClock) -> None:
    """Behind what was accepted before; whoever is refused keeps nobody."""
    queue = queue_of()
    async with trio.open_nursery() as nursery:
        senders = Senders(queue, nursery)
        for name, item in (
            ("first", Frame.Text("frag", fin=False)),
            ("between", PreparedMessage(Frame.Text("many"))),
            ("bits", Frame.Text("x", rsv1=True)),
            ("last", Frame.Text("ment")),
            ("no text", Frame.Text(b"\xff")),
            ("behind", StreamedMessage()),
        ):
            await senders.add(name, item)
        queue.admit()
    assert senders.ends == {
        "first": "accepted",
        "between": "ProtocolError",
        "bits": "ProtocolError",
        "last": "accepted",
        "no text": "UnicodeDecodeError",
        "behind": "accepted",
    }
    assert queue.waiting == 3


@pytest.mark.parametrize("way", ["shut", "closed"])
async def test_when_nothing_can_be_put_in_any_more_everybody_is_told(way: str, autojump_clock: MockClock) -> None:
    """Each by himself."""
    queue = queue_of()
    async with trio.open_nursery() as nursery:
        senders = Senders(queue, nursery)
        for name in "ab":
            await senders.add(name, of(1))
        if way == "shut":
            queue.shut()
        else:
            queue.channel.close()
        queue.admit()
    assert senders.ends == dict.fromkeys("ab", "BrokenResourceError" if way == "shut" else "ClosedResourceError")


# the writer


async def test_a_writer_that_waits_is_seen(autojump_clock: MockClock) -> None:
    """Parked; and in the step between an item and its next run."""
    queue = queue_of()
    taken: list[object] = []
    item = of(5)

    async def write() -> None:
        taken.append(await queue.receive())

    assert (queue.is_writer_parked, queue.is_handing_over) == (False, False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        assert (queue.is_writer_parked, queue.is_handing_over) == (True, False)
        assert queue.put(item)
        assert (queue.is_writer_parked, queue.is_handing_over) == (False, True)
        assert (queue.waiting, queue.queued) == (0, 5)
    assert (queue.is_writer_parked, queue.is_handing_over) == (False, False)
    assert (taken, queue.queued) == ([item], 0)


async def test_a_writer_that_is_cancelled_has_taken_nothing(autojump_clock: MockClock) -> None:
    """And does not wait any more."""
    queue = queue_of()
    with trio.move_on_after(1):
        await queue.receive()
    assert (queue.is_writer_parked, queue.is_handing_over) == (False, False)
    queue.put(of(1))
    with trio.testing.assert_checkpoints():
        assert await queue.receive() == of(1)


async def test_the_end_of_the_handles_is_the_end_for_the_writer(autojump_clock: MockClock) -> None:
    """Behind what waits; who does not wait is only told that there is nothing."""
    queue = queue_of()
    queue.put(of(1))
    clone = queue.channel.clone()
    queue.channel.close()
    with pytest.raises(trio.ClosedResourceError):
        queue.put(of(2))
    assert await queue.receive() == of(1)
    with trio.move_on_after(1) as scope:
        await queue.receive()
    assert scope.cancelled_caught
    clone.close()
    with pytest.raises(trio.EndOfChannel):
        await queue.receive()
    with pytest.raises(trio.WouldBlock):
        queue.take()


# the end


async def test_shut_it_gives_what_waits_and_accepts_nothing(autojump_clock: MockClock) -> None:
    """With what others wait to put into the channel, who count as accepted."""
    queue = queue_of(capacity=1)
    first = of(3)
    queue.put(first)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.channel.send, "blocked")
        await trio.testing.wait_all_tasks_blocked()
        assert queue.has_blocked_senders
        assert queue.shut() == [first, "blocked"]
    assert (queue.queued, queue.has_blocked_senders) == (0, False)
    with pytest.raises(trio.BrokenResourceError):
        queue.put(of(1))
    with pytest.raises(trio.ClosedResourceError):
        await queue.receive()


async def test_shut_in_the_step_of_a_hand_over_it_counts_nothing_any_more(autojump_clock: MockClock) -> None:
    """The item is the writer's, who has it when he runs."""
    queue = queue_of()
    taken: list[object] = []

    async def write() -> None:
        taken.append(await queue.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        queue.put(of(5))
        assert queue.shut() == []
        assert queue.queued == 0
    assert (taken, queue.queued) == ([of(5)], 0)


async def test_a_writer_that_waits_hears_that_it_is_shut(autojump_clock: MockClock) -> None:
    """It is woken."""
    queue = queue_of()
    ends: list[type[Exception]] = []

    async def write() -> None:
        try:
            await queue.receive()
        except trio.ClosedResourceError as error:
            ends.append(type(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        assert queue.shut() == []
    assert ends == [trio.ClosedResourceError]
    assert not queue.is_handing_over


async def test_at_the_end_those_who_wait_are_accepted_without_room(autojump_clock: MockClock) -> None:
    """What may not be said here is refused, and so is a message that has not begun."""
    queue = queue_of(capacity=1, most=10)
    queue.put(of(10))
    frames = [of(1000), Frame.Text("frag", fin=False), Frame.Text("ment")]
    async with trio.open_nursery() as nursery:
        senders = Senders(queue, nursery)
        for name, item in (
            ("long", frames[0]),
            ("pieces", StreamedMessage()),
            ("first", frames[1]),
            ("between", of(1)),
            ("last", frames[2]),
            ("no text", Frame.Text(b"\xff")),
        ):
            await senders.add(name, item)
        accepted = queue.accept_rest()
    assert accepted == frames
    assert not queue.senders.waiters
    assert senders.ends == {
        "long": "accepted",
        "pieces": "BrokenResourceError",
        "first": "accepted",
        "between": ProtocolError.__name__,
        "last": "accepted",
        "no text": "UnicodeDecodeError",
    }
    assert queue.accept_rest() == []
