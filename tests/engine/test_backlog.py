"""What waited at the end: it goes out in order, up to the first thing behind which nothing can be said."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from trioktor.engine.items import Item
from trioktor.engine.pending import Backlog
from trioktor.engine.streamed import StreamedMessage
from trioktor.protocol.close import CloseReason
from trioktor.protocol.frames import Frame

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
