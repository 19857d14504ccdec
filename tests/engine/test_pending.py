"""What was accepted and is not taken yet: its order, who waits for it, and what the end makes of it."""

from __future__ import annotations

from typing import Any, final

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st
from trio.testing import MockClock

from trioktor.engine.flushes import Flushes
from trioktor.engine.items import Item
from trioktor.engine.pending import Backlog, Pending
from trioktor.engine.send_queue import SendQueue
from trioktor.engine.streamed import StreamedMessage
from trioktor.protocol.close import CloseReason
from trioktor.protocol.conversation import Conversation
from trioktor.protocol.frames import CloseFrame, Frame

PIECE, LAST = Frame.Text("piece", fin=False), Frame.Text("last")
OWN = CloseFrame(CloseReason(4001))


@final
class Parts:
    """One, with a queue that holds these."""

    def __init__(self, *items: Item, capacity: int = 10) -> None:
        self.conversation: Conversation = Conversation()
        self.flushes = Flushes()
        self.pending: Pending = Pending(self.conversation, self.flushes)
        self.queue = SendQueue(capacity, 1000, self.conversation.outgoing)
        self.pending.queue = self.queue
        for item in items:
            self.queue.channel.send_nowait(item)

    def close(self) -> Any:
        """Seal it, with a Close behind it."""
        self.conversation.closing.close(CloseReason(1000))
        return self.pending.seal(drop=False)

    def taken(self) -> list[Item]:
        """All that can be taken now."""
        items: list[Item] = []
        while (item := self.pending.take(at_start=not items)) is not None:
            items.append(item)
        goodbye = self.conversation.closing.goodbye  # which stands behind them
        return [*items, goodbye] if goodbye is not None and self.conversation.add_goodbye([]) else items


def test_in_the_beginning_there_is_nothing() -> None:
    """Before anybody asked for the channel."""
    pending = Pending(Conversation(), Flushes())
    assert (pending.waiting, pending.is_writer_parked) == (0, False)
    assert pending.take(at_start=True) is None


def test_what_is_queued_is_taken_in_order_and_counted() -> None:
    """One by one."""
    parts = Parts("a", "b", "c")
    assert parts.pending.waiting == 3
    assert parts.pending.take(at_start=True) == "a"
    assert (parts.pending.waiting, parts.flushes.taken) == (2, 1)
    assert parts.taken() == ["b", "c"]
    assert (parts.pending.waiting, parts.flushes.taken) == (0, 3)


# a message in pieces


async def test_a_message_in_pieces_lets_what_is_queued_wait() -> None:
    """Until it is finished, and what was gathered of it is written; its pieces are not counted as items."""
    parts = Parts("behind")
    stream = parts.pending.stream = StreamedMessage()
    assert parts.taken() == []
    await stream.put(PIECE)
    assert parts.pending.waiting == 2
    assert parts.taken() == [PIECE]
    await stream.put(LAST)
    assert parts.taken() == [LAST]
    states: list[Any] = [parts.pending.stream, parts.flushes.taken]
    assert parts.pending.take(at_start=False) is None
    assert parts.taken() == ["behind"]
    assert [*states, parts.pending.stream, parts.flushes.taken] == [stream, 0, None, 1]


async def test_whoever_waits_for_a_piece_looks_again(autojump_clock: MockClock) -> None:
    """He is parked while there is none."""
    parts = Parts("behind")
    stream = parts.pending.stream = StreamedMessage()
    got: list[Any] = []

    async def wait() -> None:
        got.append(await parts.pending.wait())

    async with trio.open_nursery() as nursery:
        states = [parts.pending.is_writer_parked]
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        states.append(parts.pending.is_writer_parked)
        await stream.put(PIECE)
    assert (got, states) == ([None], [False, True])
    assert parts.taken() == [PIECE]


# waiting


async def test_whoever_waits_is_given_the_next_item(autojump_clock: MockClock) -> None:
    """Handed over, it is in nobody's sight: he is not parked any more, and it does not wait."""
    parts = Parts()
    got: list[Any] = []

    async def wait() -> None:
        got.append(await parts.pending.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        states = [parts.pending.is_writer_parked]
        parts.queue.channel.send_nowait("a")
        states.append(parts.pending.is_writer_parked)
        assert (states, parts.pending.waiting) == ([True, False], 0)
    assert got == ["a"]


async def test_the_last_handle_may_be_closed(autojump_clock: MockClock) -> None:
    """That is told apart from the end."""
    parts = Parts()
    parts.queue.channel.close()
    with pytest.raises(trio.EndOfChannel):
        await parts.pending.wait()


@pytest.mark.parametrize(
    ("item", "reason", "rest"),
    [
        (None, CloseReason(1000), [Frame.Close(CloseReason(1000))]),
        ("a", CloseReason(1000), ["a", Frame.Close(CloseReason(1000))]),
        (OWN, CloseReason(4001), [OWN]),  # the first reason stands
    ],
)
async def test_what_was_handed_over_in_the_pass_of_the_end_stands_before_the_rest(
    item: Any, reason: CloseReason, rest: list[Any], autojump_clock: MockClock
) -> None:
    """Nothing comes out of the wait: there is something to be taken."""
    parts = Parts()
    got: list[Any] = []

    async def wait() -> None:
        got.append(await parts.pending.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        if item is not None:
            parts.queue.channel.send_nowait(item)
        assert parts.close() is None
    assert got == [None]
    assert parts.conversation.closing.reason == reason
    assert parts.taken() == rest


# the end


async def test_sealed_it_gives_what_waits_and_then_the_close_once(autojump_clock: MockClock) -> None:
    """A message that is going out in pieces is first, with the pieces that were accepted."""
    parts = Parts("a", "b")
    stream = parts.pending.stream = StreamedMessage()
    await stream.put(LAST)
    assert parts.close() is None
    assert [parts.pending.stream, parts.pending.waiting] == [None, 3]
    assert parts.taken() == [LAST, "a", "b", Frame.Close(CloseReason(1000))]
    assert parts.taken() == []


async def test_behind_a_message_that_can_not_be_finished_there_is_the_close_only() -> None:
    """What was accepted of it goes out."""
    parts = Parts("a")
    stream = parts.pending.stream = StreamedMessage()
    await stream.put(PIECE)
    parts.close()
    assert parts.taken() == [PIECE, Frame.Close(CloseReason(1000))]


def test_a_close_that_waits_is_told() -> None:
    """It ends what goes out: whoever seals it has it said, as the Close that is due."""
    parts = Parts("a", OWN, "b")
    assert parts.pending.seal(drop=False) is OWN
    assert parts.taken() == ["a"]
    parts.conversation.closing.close(OWN.reason)
    assert parts.taken() == [OWN]


def test_what_is_to_be_dropped_is_not_taken() -> None:
    """But its Close is told."""
    parts = Parts("a", OWN)
    assert parts.pending.seal(drop=True) is OWN
    assert (parts.pending.waiting, parts.taken()) == (0, [])


@pytest.mark.parametrize("way", ["room", "final", "drop"])
async def test_who_waits_for_room_is_accepted_if_that_can_still_go_out(way: str, autojump_clock: MockClock) -> None:
    """Behind what waits; else he is refused. Who waits at the channel itself stands before him."""
    parts = Parts(OWN if way == "final" else "a", capacity=1)
    outcomes: dict[str, str] = {}

    async def send(name: str, how: Any, item: Frame) -> None:
        try:
            await how(item)
            outcomes[name] = "accepted"
        except trio.BrokenResourceError:
            outcomes[name] = "refused"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, "room", parts.queue.senders.wait, Frame.Text("room"))
        nursery.start_soon(send, "channel", parts.queue.channel.send, Frame.Text("channel"))
        await trio.testing.wait_all_tasks_blocked()
        parts.pending.seal(drop=way == "drop")
    assert outcomes == {"channel": "accepted", "room": "accepted" if way == "room" else "refused"}
    expected = {"room": ["a", Frame.Text("channel"), Frame.Text("room")], "final": [], "drop": []}
    assert parts.taken() == expected[way]


# the backlog


FIRST, SECOND = Frame.Close(CloseReason(4001)), Frame.Close(CloseReason(4002))
UNSENDABLE = Frame.Close(CloseReason(1006))
PARTS = {
    False: Frame.Text("piece", fin=False),
    True: Frame.Text("end"),
}


def taken(backlog: Backlog) -> list[Item]:
    """All that it holds, in its order."""
    return [backlog.take() for _ in range(len(backlog))]


async def streamed(*pieces: bool) -> StreamedMessage:
    """A message in pieces, of which these were accepted; True is its last."""
    message = StreamedMessage()
    for fin in pieces:
        await message.put(PARTS[fin])
    return message


@given(items=st.lists(st.sampled_from(["a", "b", b"c", Frame.Ping(b"!"), FIRST, SECOND]), max_size=12))
def test_everything_goes_out_in_order_up_to_the_first_close(items: list[Any]) -> None:
    """Behind it nothing can be said."""
    closes = [number for number, item in enumerate(items) if item in (FIRST, SECOND)]
    expected = items[: closes[0]] if closes else items
    backlog = Backlog(list(items), drop=False)
    assert (len(backlog), bool(backlog)) == (len(expected), bool(expected))
    assert backlog.close is (items[closes[0]] if closes else None)
    assert backlog.is_final is bool(closes)
    assert taken(backlog) == expected


def test_a_close_that_may_not_be_said_is_an_item_as_any_other() -> None:
    """Whoever makes bytes of it will say so."""
    backlog = Backlog(["a", UNSENDABLE, "b"], drop=False)
    assert (backlog.close, backlog.is_final) == (None, False)
    assert taken(backlog) == ["a", UNSENDABLE, "b"]


@pytest.mark.parametrize(
    ("pieces", "is_final"),
    [([], False), ([False], True), ([True], False)],
)
async def test_a_message_in_pieces_is_shut(pieces: list[bool], is_final: bool) -> None:
    """What was accepted of it goes out; if it can't be finished, nothing goes out behind it."""
    message = await streamed(*pieces)
    backlog = Backlog(["a", message, "b"], drop=False)
    assert message.is_shut
    assert backlog.is_final is is_final
    assert taken(backlog) == ["a", *[PARTS[fin] for fin in pieces], *(["b"] if not is_final else [])]


async def test_a_message_in_pieces_behind_the_end_is_shut_too() -> None:
    """Nothing of it goes out, and nobody waits for it."""
    first, second = await streamed(False), await streamed(True)
    backlog = Backlog([first, second], drop=False)
    assert second.is_shut
    assert taken(backlog) == [PARTS[False]]


def test_what_is_to_be_dropped_is_looked_at_all_the_same() -> None:
    """The Close among it counts."""
    backlog = Backlog(["a", FIRST], drop=True)
    assert (len(backlog), backlog.close, backlog.is_final) == (0, FIRST, True)


def test_what_was_accepted_last_goes_out_last() -> None:
    """In its order."""
    backlog = Backlog(["a", "b"], drop=False)
    assert backlog.take() == "a"
    backlog.extend(["c", "d"])
    backlog.extend([])
    assert taken(backlog) == ["b", "c", "d"]


# what had been handed over unseen


@pytest.mark.parametrize(
    ("item", "close", "rest"),
    [
        ("x", None, ["x", "a", "b"]),
        (FIRST, FIRST, []),
        (UNSENDABLE, None, [UNSENDABLE, "a", "b"]),
    ],
)
def test_what_was_handed_to_the_writer_goes_out_first(item: Any, close: Any, rest: list[Any]) -> None:
    """Behind a Close, which is told, nothing does."""
    backlog = Backlog(["a", "b"], drop=False)
    assert backlog.put_before(item) is close
    assert taken(backlog) == rest


@pytest.mark.parametrize(("pieces", "rest"), [([], ["a"]), ([True], [PARTS[True], "a"]), ([False], [PARTS[False]])])
async def test_a_message_in_pieces_may_have_been_handed_over(pieces: list[bool], rest: list[Any]) -> None:
    """Behind one that can't be finished nothing goes out."""
    backlog = Backlog(["a"], drop=False)
    assert backlog.put_before(await streamed(*pieces)) is None
    assert taken(backlog) == rest


@pytest.mark.parametrize("way", ["queued", "handed over"])
async def test_the_pieces_of_blocked_senders_go_out_too(way: str) -> None:
    """In their order."""
    message = await streamed(False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(message.put, PARTS[True])
        await trio.testing.wait_all_tasks_blocked()
        backlog = Backlog([message, "a"] if way == "queued" else ["a"], drop=False)
        if way == "handed over":
            assert backlog.put_before(message) is None
        assert taken(backlog) == [PARTS[False], PARTS[True], "a"]


@pytest.mark.parametrize("way", ["from the beginning", "later"])
@pytest.mark.parametrize("item", ["x", FIRST])
async def test_what_was_handed_over_is_dropped_with_the_rest(way: str, item: Any) -> None:
    """And a Close among that is not told; but a message in pieces is shut."""
    backlog = Backlog(["a", "b"], drop=way == "from the beginning")
    if way == "later":
        backlog.drop()
    message = await streamed(False)
    assert backlog.put_before(item) is None
    assert backlog.put_before(message) is None
    assert len(backlog) == 0
    assert message.is_shut
    with trio.testing.assert_checkpoints(), pytest.raises(trio.BrokenResourceError):
        await message.put(PARTS[True])
