"""What a session has taken of a message that arrives in pieces, joined or one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from trioktor import (
    Frame,
    FrameType,
)
from trioktor.protocol.errors import FrameTooBig
from trioktor.protocol.frames import Unkept
from trioktor.session.pieces import Pieces
from trioktor.session.streaming import IncomingMessage


async def nothing(message: IncomingMessage) -> Frame | None:
    """There is no more."""
    return None


def text(data: str, *, fin: bool = True) -> Frame:
    """A piece of a Text message."""
    return Frame.Text(data, fin=fin)


def test_a_whole_message_is_itself() -> None:
    """Nothing is joined, or copied."""
    pieces = Pieces()
    for frame in (text("one"), Frame.Binary(b""), text("three")):
        assert pieces.add(frame, None) is frame
        assert not pieces.is_partway


@pytest.mark.parametrize("kind", [Frame.Text, Frame.Binary])
@pytest.mark.parametrize("parts", [[b"a", b"b"], [b"", b"a", b""], [b"", b""], [b"a", b"b", b"c", b"d"]], ids=repr)
def test_pieces_are_joined_behind_the_last(kind: Any, parts: list[bytes]) -> None:
    """Into one frame of their kind; the next message is another."""
    pieces = Pieces()
    for _ in range(2):
        for part in parts[:-1]:
            assert pieces.add(kind(part, fin=False), None) is None
        whole = pieces.add(kind(parts[-1]), None)
        assert whole == kind(b"".join(parts))
        assert type(whole) is kind


def test_joined_text_is_not_checked_again() -> None:
    """Its pieces were, and are cut between characters; but it can be read."""
    pieces = Pieces()
    pieces.add(text("h\xe9", fin=False), None)
    whole = pieces.add(text("llo"), None)
    assert whole is not None
    assert whole.decoded is Unkept.TEXT
    assert whole.text == "h\xe9llo"
    pieces.add(Frame.Binary(b"\xff", fin=False), None)
    binary = pieces.add(Frame.Binary(b"\xfe"), None)
    assert binary is not None
    assert binary.decoded is None


@pytest.mark.parametrize(("size", "is_too_big"), [(9, False), (10, False), (11, True)])
def test_what_is_joined_has_a_limit(size: int, is_too_big: bool) -> None:
    """In bytes of all its pieces; whole messages were measured before, and None is no limit."""
    for limit in (10, None):
        pieces = Pieces()
        assert pieces.add(Frame.Binary(bytes(4), fin=False), limit) is None
        if is_too_big and limit is not None:
            with pytest.raises(FrameTooBig):
                pieces.add(Frame.Binary(bytes(size - 4)), limit)
        else:
            assert pieces.add(Frame.Binary(bytes(size - 4)), limit) == Frame.Binary(bytes(size))
    assert pieces.add(Frame.Binary(bytes(size)), 10) == Frame.Binary(bytes(size))


def test_the_limit_is_that_of_each_call() -> None:
    """It may be set while a message is under way, and is told before the last piece has come."""
    pieces = Pieces()
    assert pieces.add(Frame.Binary(bytes(8), fin=False), 10) is None
    with pytest.raises(FrameTooBig):
        pieces.add(Frame.Binary(bytes(1), fin=False), 8)


@pytest.mark.parametrize("fin", [0, 0x80])
def test_what_was_joined_until_now_can_be_taken(fin: int) -> None:
    """Once; what comes behind it is a message of its own then, if nobody says otherwise."""
    pieces = Pieces()
    assert pieces.joined(fin=fin) is None
    for part in ("a", "b"):
        pieces.add(text(part, fin=False), None)
    assert pieces.joined(fin=fin) == text("ab", fin=bool(fin))
    assert pieces.joined(fin=fin) is None
    assert pieces.add(text("c"), None) == text("c")


def test_a_message_that_is_given_out_is_partway_until_its_last_piece() -> None:
    """It is that message, and no other, that the next piece belongs to."""
    pieces = Pieces()
    assert not pieces.is_partway
    message = pieces.begin(text("a", fin=False), nothing)
    assert (message.type, message.is_complete) == (FrameType.TEXT, False)
    other = Pieces().begin(text("x", fin=False), nothing)
    assert (pieces.is_partway, pieces.is_of(message), pieces.is_of(other)) == (True, True, False)
    assert not pieces.note(text("b", fin=False))
    assert pieces.is_of(message)
    assert pieces.note(text("c"))
    assert (pieces.is_partway, pieces.is_of(message)) == (False, False)


def test_a_message_of_one_piece_is_complete_at_once() -> None:
    """Nothing more is to come of it."""
    pieces = Pieces()
    message = pieces.begin(Frame.Binary(b"all"), nothing)
    assert (message.type, message.is_complete) == (FrameType.BINARY, True)
    assert (pieces.is_partway, pieces.is_of(message)) == (False, False)


def test_the_rest_of_a_message_that_was_given_out_is_skipped() -> None:
    """`add` joins nothing of it; the message is told that it is over, though there was more."""
    pieces = Pieces()
    message = pieces.begin(text("a", fin=False), nothing)
    assert pieces.add(text("b", fin=False), 0) is None
    assert (pieces.is_partway, pieces.is_of(message)) == (True, False)
    assert pieces.add(text("c"), 0) is None
    assert not pieces.is_partway
    assert pieces.add(text("next"), None) == text("next")


def test_a_new_message_takes_the_place_of_the_one_before() -> None:
    """Whatever became of that."""
    pieces = Pieces()
    first = pieces.begin(text("a", fin=False), nothing)
    pieces.skip(text("b"))
    second = pieces.begin(text("c", fin=False), nothing)
    assert (pieces.is_of(first), pieces.is_of(second)) == (False, True)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["join", "give out", "take the half"]),
            st.booleans(),
            st.lists(st.binary(max_size=5), min_size=1, max_size=4),
        ),
        max_size=10,
    )
)
def test_any_messages_in_any_ways_give_what_they_are(messages: list[tuple[str, bool, list[bytes]]]) -> None:
    """A plain model: what is joined is the whole message, and what is skipped is gone."""
    pieces = Pieces()
    for way, is_text, parts in messages:
        data = [part.hex() for part in parts] if is_text else parts
        make: Any = Frame.Text if is_text else Frame.Binary
        frames = [make(part, fin=False) for part in data[:-1]] + [make(data[-1])]
        if way == "join":
            assert [pieces.add(frame, None) for frame in frames] == [None] * (len(frames) - 1) + [
                make(data[0][:0].join(data))  # type: ignore[arg-type]
            ]
        elif way == "give out":
            message = pieces.begin(frames[0], nothing)
            assert pieces.is_of(message) == (len(frames) > 1)
            assert [pieces.add(frame, None) for frame in frames[1:]] == [None] * (len(frames) - 1)
        else:
            for frame in frames[:-1]:
                assert pieces.add(frame, None) is None
            half = pieces.joined(fin=0)
            assert (half is None) == (len(frames) == 1)
            if half is not None:
                assert half == make(data[0][:0].join(data[:-1]), fin=False)  # type: ignore[arg-type]
                pieces.begin(half, nothing)
                assert pieces.add(frames[-1], None) is None
        assert not pieces.is_partway
