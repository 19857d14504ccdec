"""Fragments to messages, joined or in pieces: what comes of them, where text is judged, and what is too many."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest
from hypothesis import given, strategies as st

from trioktor.protocol.assembler import MessageAssembler, check_text, check_text_in_steps
from trioktor.protocol.close import CloseCode
from trioktor.protocol.errors import FrameTooBig, ProtocolError
from trioktor.protocol.extensions import coded_limit
from trioktor.protocol.first_byte import FIN, RSV1
from trioktor.protocol.frames import KEPT_TEXT, Frame, Unkept
from trioktor.protocol.from_wire import frame_from_wire
from trioktor.protocol.parser import FrameParser


def new(*, limit: int | None = None, fragments: int | None = None) -> MessageAssembler:
    """One with nothing under way."""
    return MessageAssembler(FrameParser(masked=True, max_frame_size=limit), fragments)


def fragments(kind: type[Frame], *parts: bytes, bits: int = 0) -> list[Frame]:
    """The frames of a message, as the parser gives them."""
    frames = [frame_from_wire(kind, 0, part) for part in parts]
    frames[0].first_byte |= kind.type.opcode | bits
    frames[-1].first_byte |= FIN
    return frames


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Bytes, cut at these places."""
    ends = sorted(min(place, len(data)) for place in places)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def code_of(error: pytest.ExceptionInfo[ProtocolError]) -> int:
    """What it is answered with."""
    return error.value.close_code


# whole messages


@pytest.mark.parametrize("kind", [Frame.Text, Frame.Binary])
@pytest.mark.parametrize("parts", [[b"a", b"b"], [b"", b""], [b"", b"ab", b""], [b"a"] * 200, [b"x" * 1000, b"y"]])
def test_fragments_are_joined(kind: type[Frame], parts: list[bytes]) -> None:
    """Only the last gives a message: a whole one, of the kind of the first."""
    assembler = new()
    for _ in range(2):
        *begun, last = fragments(kind, *parts)
        kept = 0
        for frame in begun:
            assert assembler.add(frame) is None
            kept += len(frame.data)
            assert (assembler.kept, assembler.is_judging) == (kept, kind is Frame.Text)
        message = assembler.add(last)
        assert message is not None
        assert (type(message), message.first_byte) == (kind, FIN | kind.type.opcode)
        assert message.data == b"".join(parts)
        assert message.decoded is (Unkept.TEXT if kind is Frame.Text else None)
        assert (assembler.kept, assembler.is_judging) == (0, False)


@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode), st.lists(st.integers(0, 60), max_size=5))
def test_text_is_judged_as_the_codec_judges_it(data: bytes, places: list[int]) -> None:
    """Wherever it is cut; a good one is the same text."""
    frames = fragments(Frame.Text, *cut(data, places), b"")
    assembler = new()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        with pytest.raises(ProtocolError) as error:
            [assembler.add(frame) for frame in frames]
        assert code_of(error) == CloseCode.NOT_CONSISTENT
        return
    *_, message = (assembler.add(frame) for frame in frames)
    assert message is not None
    assert message.text == text


@pytest.mark.parametrize("data", [b"ab\xff", b"\xc3\xa9\xe2\x28", b"\xf4\x90", b"\xed\xa0"])
@pytest.mark.parametrize("is_partial", [False, True])
def test_text_fails_at_its_first_bad_byte(data: bytes, is_partial: bool) -> None:
    """RFC 6455 §8.1: not at its end. Byte by byte, as fragments and inside a frame; a surrogate at its second byte."""
    assembler = new()
    add = assembler.add_partial if is_partial else assembler.add
    *good, bad = (
        frame_from_wire(Frame.Text, 0 if at and not is_partial else 1, data[at : at + 1]) for at in range(len(data))
    )
    for frame in good:
        add(frame)
    with pytest.raises(ProtocolError) as error:
        add(bad)
    assert code_of(error) == CloseCode.NOT_CONSISTENT


def test_what_was_judged_early_is_not_judged_twice() -> None:
    """A frame of which parts were seen is complete then: its rest is judged, and it is a message, or a fragment."""
    data = "日本語".encode()
    for first in ([], [frame_from_wire(Frame.Text, 0x01, data[:1])]):
        assembler = new()
        for frame in first:
            assembler.add(frame)
        rest = data[len(first) :]
        opcode = 0 if first else 1
        for start, stop in ((0, 2), (2, 4)):
            assembler.add_partial(frame_from_wire(Frame.Text, FIN | opcode, rest[start:stop]))
        assert assembler.is_judging
        message = assembler.add(frame_from_wire(Frame.Text, FIN | opcode, rest))
        assert message == Frame.Text("日本語")
        assert (message.decoded, assembler.is_judging) == (Unkept.TEXT, False)
        with pytest.raises(ProtocolError):  # of the next one nothing has been seen
            assembler.add(frame_from_wire(Frame.Text, 0x01, b"\xff"))


def test_a_part_of_what_is_no_plain_text_is_not_judged() -> None:
    """Binary data, and what an extension reads first."""
    assembler = new()
    assembler.add_partial(frame_from_wire(Frame.Binary, 0x82, b"\xff"))
    assembler.add_partial(frame_from_wire(Frame.Text, 0x81 | RSV1, b"\xff"))
    assert not assembler.is_judging


def test_what_an_extension_reads_is_joined_as_it_is() -> None:
    """Its bit is on the first fragment only, and then on the message; text is not judged."""
    frames = fragments(Frame.Text, b"\xff", b"\xfe", bits=RSV1)
    assembler = new()
    assert assembler.add(frames[0]) is None
    assembler.add_partial(frame_from_wire(Frame.Text, FIN, b"\xfe"))
    assert not assembler.is_judging
    message = assembler.add(frames[1])
    assert message is not None
    assert (message.first_byte, message.data, message.decoded) == (0x81 | RSV1, b"\xff\xfe", None)


@pytest.mark.parametrize("piece", [b"", b"x"])
@pytest.mark.parametrize("limit", [0, 1, 10])
def test_too_many_fragments_are_refused(piece: bytes, limit: int) -> None:
    """Empty ones and tiny ones: 1008 beyond the allowance."""
    frames = fragments(Frame.Binary, *[piece] * (limit + 2))
    assembler = new(fragments=limit)
    for frame in frames[:limit]:
        assert assembler.add(frame) is None
    with pytest.raises(ProtocolError, match=f"a message of {limit + 1} fragments") as error:
        assembler.add(frames[limit])
    assert code_of(error) == CloseCode.VIOLATED_POLICY


def test_the_last_fragment_counts_too() -> None:
    """Three are more than two."""
    assembler = new(fragments=2)
    *begun, last = fragments(Frame.Binary, b"", b"", b"")
    for frame in begun:
        assembler.add(frame)
    with pytest.raises(ProtocolError):
        assembler.add(last)


def test_fragments_that_carry_something_are_welcome() -> None:
    """One for every 64 bytes is always allowed, and the count starts anew with each message."""
    assembler = new(fragments=0)
    for frame in fragments(Frame.Binary, *[b"x" * 64] * 500):
        assembler.add(frame)
    for frame in fragments(Frame.Binary, b"x" * 128, b""):
        assembler.add(frame)
    with pytest.raises(ProtocolError):
        assembler.add(frame_from_wire(Frame.Binary, 0x02, b"x" * 63))
    assembler = new(fragments=2)
    for _ in range(100):
        *_, message = (assembler.add(frame) for frame in fragments(Frame.Text, b"a", b"b"))
        assert message == Frame.Text("ab")
    assembler = new(fragments=None)
    for frame in fragments(Frame.Binary, *[b""] * 9000):
        assembler.add(frame)


def test_others_have_a_turn_among_many_fragments() -> None:
    """Once in 1,024."""
    assembler = new()
    turns = []
    for number in range(1, 3000):
        assembler.add(frame_from_wire(Frame.Binary, 0x02 if number == 1 else 0x00, b""))
        if assembler.is_turn:
            turns.append(number)
    assert turns == [1024, 2048]


# pieces


def given_of(assembler: MessageAssembler, frames: Iterable[Frame]) -> list[Frame]:
    """The pieces of these frames."""
    return [piece for frame in frames for piece in assembler.add_piece(frame)]


@given(
    text=st.text(max_size=30),
    places=st.lists(st.integers(0, 60), max_size=6),
    kind=st.sampled_from([Frame.Text, Frame.Binary]),
)
def test_pieces_are_the_message(text: str, places: list[int], kind: type[Frame]) -> None:
    """The last says so; a text's are cut between characters; none is empty but the last."""
    assembler = new()
    for _ in range(2):
        pieces = given_of(assembler, fragments(kind, *cut(text.encode(), places)))
        assert b"".join(piece.data for piece in pieces) == text.encode()
        assert [piece.fin for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert all(type(piece) is kind for piece in pieces)
        assert all(piece.data for piece in pieces[:-1])
        if kind is Frame.Text:
            assert "".join(piece.data.decode() for piece in pieces) == text
            assert {piece.decoded for piece in pieces} == {Unkept.TEXT}
        assert (assembler.kept, assembler.is_judging) == (0, False)


@given(st.binary(max_size=30), st.lists(st.integers(0, 30), max_size=4))
def test_pieces_of_bad_text_end_where_it_is_bad(data: bytes, places: list[int]) -> None:
    """What was given before is good text."""
    assembler, given_before, code = new(), b"", None
    try:
        for frame in fragments(Frame.Text, *cut(data, places)):
            for piece in assembler.add_piece(frame):
                given_before += piece.data
    except ProtocolError as error:
        code = error.close_code
    assert data.startswith(given_before)
    assert given_before == given_before.decode().encode()
    try:
        data.decode()
    except UnicodeDecodeError:
        assert code == CloseCode.NOT_CONSISTENT
    else:
        assert (given_before, code) == (data, None)


def test_a_part_of_a_frame_is_a_piece() -> None:
    """It ends no message, though its frame does; only whole frames count as fragments."""
    assembler = new(fragments=1)
    data = "é".encode() * 2
    pieces: list[Frame] = []
    for number in range(4):
        pieces += assembler.add_partial_piece(frame_from_wire(Frame.Text, 0x81, data[number : number + 1]))
    pieces += assembler.add_piece(frame_from_wire(Frame.Text, 0x81, b""))
    assert pieces == [Frame.Text("é", fin=False), Frame.Text("é", fin=False), Frame.Text("")]


@pytest.mark.parametrize("kind", [Frame.Text, Frame.Binary])
def test_what_was_joined_before_is_the_first_piece(kind: type[Frame]) -> None:
    """Once; what was judged early is judged again, with what follows."""
    assembler = new()
    data = "日本".encode()
    assembler.add(frame_from_wire(kind, kind.type.opcode, data[:2]))
    assembler.add(frame_from_wire(kind, 0, data[2:4]))
    assembler.add_partial(frame_from_wire(kind, FIN, data[4:5]))
    assembler.begin_pieces()
    assert not assembler.is_judging
    [first] = assembler.take_joined()
    assert (type(first), first.data, first.fin) == (kind, data[:3] if kind is Frame.Text else data[:4], False)
    assert assembler.kept == 0
    assert list(assembler.take_joined()) == []
    [last] = given_of(assembler, [frame_from_wire(kind, FIN, data[4:])])
    assert (type(last), first.data + last.data, last.fin) == (kind, data, True)


def test_nothing_was_joined() -> None:
    """Then there is no first piece."""
    assembler = new()
    assembler.begin_pieces()
    assert list(assembler.take_joined()) == []


def test_too_many_pieces_are_refused() -> None:
    """As fragments: what was given counts; what ends a message does not."""
    assembler = new(fragments=2)
    for _ in range(10):  # each message is counted anew
        assert given_of(assembler, fragments(Frame.Binary, b"", b"", b"")) == [Frame.Binary(b"")]
    with pytest.raises(ProtocolError) as error:
        given_of(assembler, fragments(Frame.Binary, b"", b"", b"", b""))
    assert code_of(error) == CloseCode.VIOLATED_POLICY
    assembler = new(fragments=0)
    assert len(given_of(assembler, fragments(Frame.Binary, *[b"x" * 64] * 100))) == 100


def test_what_an_extension_reads_is_joined_in_pieces_too() -> None:
    """It is given whole, with its bit, also what was joined before; the next message is given in pieces."""
    coded = frame_from_wire(Frame.Text, 0x81 | RSV1, b"\xff\xfe\xfd")
    assembler = new(limit=3)
    first, second, last = fragments(Frame.Text, b"\xff", b"\xfe", b"\xfd", bits=RSV1)
    assert given_of(assembler, [first, second]) == []
    assert assembler.kept == 2
    assert list(assembler.take_joined()) == []
    [message] = given_of(assembler, [last])
    assert (message, message.first_byte) == (coded, coded.first_byte)
    assert given_of(assembler, fragments(Frame.Binary, b"aa", b"bb")) == [
        Frame.Binary(b"aa", fin=False),
        Frame.Binary(b"bb"),
    ]


def test_what_an_extension_reads_keeps_the_limit() -> None:
    """Of what it made; and the number of its fragments does, too."""
    most = coded_limit(3)
    for size in (most, most + 1):
        frames = fragments(Frame.Binary, *[b"x"] * size, bits=RSV1)
        if size == most:
            assembler = new(limit=3, fragments=most - 1)
            for _ in range(10):  # each message is counted anew
                assert len(given_of(assembler, fragments(Frame.Binary, b"x" * 10, b"x"))) == 2
                assert len(given_of(assembler, frames)) == 1
        else:
            with pytest.raises(FrameTooBig) as error:
                given_of(new(limit=3), frames)
            assert (error.value.size, error.value.limit) == (most + 1, 3)
    with pytest.raises(ProtocolError) as refused:
        given_of(new(fragments=2), fragments(Frame.Binary, b"", b"", b"", b"", bits=RSV1))
    assert code_of(refused) == CloseCode.VIOLATED_POLICY


# texts and Closes


@pytest.mark.parametrize("size", [0, 1, KEPT_TEXT, KEPT_TEXT + 1])
def test_a_whole_text_is_judged_and_a_short_one_kept(size: int) -> None:
    """A longer one is known to be text."""
    message = Frame.Text(b"x" * size)
    check_text(message)
    assert message.decoded == ("x" * size if size <= KEPT_TEXT else Unkept.TEXT)


@pytest.mark.parametrize("data", [b"\xff", b"ab\xe2\x82", b"x" * KEPT_TEXT + b"\xff"])
def test_a_whole_text_that_is_none_is_refused(data: bytes) -> None:
    """With 1007."""
    for check in (check_text, lambda message: list(check_text_in_steps(message))):
        with pytest.raises(ProtocolError, match="a text message is not UTF-8") as error:
            check(Frame.Text(data))
        assert code_of(error) == CloseCode.NOT_CONSISTENT


@pytest.mark.parametrize("text", ["x", "é" * 300_000, "🌍" * 300_000, "x" * (1 << 18), "x" * (1 << 18) + "é"])
def test_a_long_text_is_judged_in_steps(text: str) -> None:
    """With a pause for each quarter of a megabyte; then it is known to be one."""
    data = text.encode()
    frame = Frame.Text(data)
    pauses = len(list(check_text_in_steps(frame)))
    assert pauses == (-(-len(data) // (1 << 18)) if len(data) > 1 << 18 else 0)
    assert frame.decoded is not None
    assert text == frame.text


@pytest.mark.parametrize("data", [b"x" * 300_000 + b"\xff", b"x" * 300_000 + b"\xe2\x82", os.urandom(400_000)])
def test_a_long_text_that_is_none_is_refused(data: bytes) -> None:
    """Wherever its bad byte is, at the end included."""
    with pytest.raises(ProtocolError) as error:
        list(check_text_in_steps(Frame.Text(data)))
    assert CloseCode.NOT_CONSISTENT == error.value.close_code


def test_what_was_joined_for_an_extension_before_counts_against_the_limit() -> None:
    """The parser counts no more once pieces are given."""
    assembler = new(limit=3)
    first, second, last = fragments(Frame.Text, b"\xff" * (coded_limit(3) - 1), b"\xfe", b"\xfd", bits=RSV1)
    assembler.add(first)
    assembler.begin_pieces()
    assert given_of(assembler, [second]) == []
    with pytest.raises(FrameTooBig):
        given_of(assembler, [last])
