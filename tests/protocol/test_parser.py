"""Bytes to frames, cut anywhere: what a plain parser of whole bytes sees, or the same violation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.support.helpers import masked
from trioktor.protocol import native
from trioktor.protocol.close import CloseCode
from trioktor.protocol.errors import FrameTooBig, ProtocolError
from trioktor.protocol.extensions import coded_limit
from trioktor.protocol.frames import KEPT_TEXT, Frame
from trioktor.protocol.from_wire import FRAME_CLASSES, frame_from_wire
from trioktor.protocol.mask import mask
from trioktor.protocol.parser import FrameParser
from trioktor.protocol.serializer import head


def server(limit: int | None = None, **options: Any) -> FrameParser:
    """What a server reads a client's frames with."""
    return FrameParser(masked=True, max_frame_size=limit, **options)


def read(parser: FrameParser, *chunks: bytes) -> tuple[list[Frame], int | None]:
    """The frames of these chunks, and the close code of the violation they end with."""
    frames: list[Frame] = []
    try:
        for chunk in chunks:
            frames.extend(parser.feed(chunk))
    except ProtocolError as error:
        return frames, error.close_code
    return frames, None


def pieces(data: bytes, size: int) -> list[bytes]:
    """Bytes, so many at a time."""
    return [data[start : start + size] for start in range(0, len(data), size)]


# the rules, as a table and as a plain parser


FRAMES: dict[str, tuple[bytes, Frame]] = {
    "a text": (masked(0x81, b"Hello"), Frame.Text("Hello")),
    "an empty text": (masked(0x81, b""), Frame.Text("")),
    "a text that is none": (masked(0x81, b"\xff"), frame_from_wire(Frame.Text, 0x81, b"\xff")),
    "125 bytes": (masked(0x82, b"x" * 125), Frame.Binary(b"x" * 125)),
    "126 bytes": (masked(0x82, b"x" * 126), Frame.Binary(b"x" * 126)),
    "65,535 bytes": (masked(0x82, b"x" * 65535), Frame.Binary(b"x" * 65535)),
    "65,536 bytes": (masked(0x82, b"x" * 65536), Frame.Binary(b"x" * 65536)),
    "a Ping of 125 bytes": (masked(0x89, b"p" * 125), Frame.Ping(b"p" * 125)),
    "a Pong": (masked(0x8A, b""), Frame.Pong()),
    "a Close": (masked(0x88, b""), Frame.Close()),
    "a fragment": (masked(0x01, b"\xe2"), Frame.Text(b"\xe2", fin=False)),
}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1 << 20])
@pytest.mark.parametrize("case", FRAMES)
def test_a_frame_is_given_when_it_is_complete(case: str, size: int) -> None:
    """Not before, however it is cut; a client's and a server's."""
    data, frame = FRAMES[case]
    size = size if len(data) < 1000 else size * 500
    parser = server()
    *begun, last = pieces(data, size)
    assert read(parser, *begun) == ([], None)
    assert read(parser, last) == ([frame], None)
    assert (parser.kept, parser.missing) == (0, 0)
    plain = head(frame.first_byte, len(frame.data)) + frame.data
    assert read(FrameParser(masked=False, max_frame_size=None), *pieces(plain, size)) == ([frame], None)


def violation(data: bytes, at: int, *, opened: type[Frame] | None, size: int, limit: int | None) -> int | None:
    """The code that the head at a place is refused with, by its first bytes that say so."""
    first_byte, second = data[at], data[at + 1]
    opcode, length = first_byte & 0x0F, second & 0x7F
    if first_byte & 0x70 or (opcode and opcode not in FRAME_CLASSES):
        return 1002
    if first_byte < 0x80 if opcode >= 8 else (opcode == 0) != (opened is not None):
        return 1002
    if length < 126:
        if second < 0x80:
            return 1002
    elif second < 0x80 or opcode >= 8:
        return 1002
    else:
        stop = at + (4 if length == 126 else 10)
        if len(data) < stop:
            return None
        length = int.from_bytes(data[at + 2 : stop], "big")
        if length < (126 if stop == at + 4 else 0x10000) or length >> 63:
            return 1002
    return 1009 if limit is not None and opcode < 8 and length + size > limit else None


def plainly(data: bytes, limit: int | None) -> tuple[list[Frame], int | None]:
    """The model: a client's frames in whole bytes, one after the other (RFC 6455 §5.2 and §5.4)."""
    frames: list[Frame] = []
    opened: type[Frame] | None = None
    at = size = 0
    while len(data) - at >= 2:
        code = violation(data, at, opened=opened, size=size, limit=limit)
        if code is not None:
            return frames, code
        first_byte, length = data[at], data[at + 1] & 0x7F
        start = at + {126: 4, 127: 10}.get(length, 2)
        if length >= 126:
            length = int.from_bytes(data[at + 2 : start], "big")
        if len(data) < start + 4 + length:
            break
        kind = FRAME_CLASSES.get(first_byte & 0x0F) or opened
        assert kind is not None
        at = start + 4 + length
        frames.append(frame_from_wire(kind, first_byte, mask(data[start + 4 : at], data[start : start + 4])))
        if not first_byte & 8:
            opened = None if first_byte >= 0x80 else kind
            size = 0 if opened is None else size + length
    return frames, None


WIRE = st.lists(
    st.one_of(
        st.builds(masked, st.sampled_from([0x81, 0x82]), st.binary(max_size=200)),
        st.builds(masked, st.sampled_from([0x01, 0x02, 0x00, 0x80, 0x80, 0x89, 0x88]), st.binary(max_size=20)),
        st.builds(masked, st.integers(0, 255), st.binary(max_size=200)),
        st.builds(lambda count: masked(0x81, b"x") * count, st.integers(0, 40)),
        st.binary(max_size=4),
    ),
    max_size=8,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(data=WIRE, cuts=st.lists(st.integers(0, 1000), max_size=6), limit=st.sampled_from([None, 0, 20, 126, 200]))
def test_any_bytes_are_read_as_a_plain_parser_reads_them(data: bytes, cuts: list[int], limit: int | None) -> None:
    """The frames before a violation, and its code; however they are cut."""
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    chunks = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert read(server(limit), *chunks) == plainly(data, limit)


MIB = 1 << 20
BAD: dict[str, tuple[bytes, int]] = {
    "R02 unmasked": (b"\x81\x05Hello", 1002),
    "R02 unmasked and long": (b"\x82\x7e\x00\x80", 1002),
    "R04 rsv1": (masked(0xC1, b"x"), 1002),
    "R04 rsv2": (masked(0xA2, b"x"), 1002),
    "R04 rsv3 on a Ping": (masked(0x99, b"x"), 1002),
    "T602 R05 a 16-bit length that fits in 7": (b"\x81\xfe\x00\x06", 1002),
    "R05 a 16-bit length of 125": (b"\x81\xfe\x00\x7d", 1002),
    "R05 a 64-bit length that fits in 16": (b"\x82\xff" + (65535).to_bytes(8, "big"), 1002),
    "R05 the most significant bit": (b"\x82\xff" + (1 << 63 | 5).to_bytes(8, "big"), 1002),
    "R05 all bits": (b"\x82\xff" + b"\xff" * 8, 1002),
    "T603 an enormous length": (b"\x82\xff" + bytes.fromhex("123456789abcdef0"), 1009),
    "2 GiB": (b"\x82\xff" + (1 << 31).to_bytes(8, "big"), 1009),
    "one byte too long": (b"\x82\xff" + (MIB + 1).to_bytes(8, "big"), 1009),
    "T608 a long control frame": (b"\x89\xfe", 1002),
    "a fragmented Ping": (masked(0x09, b"x"), 1002),
    "a fragmented Close": (masked(0x08, b""), 1002),
    "nothing to continue": (masked(0x80, b"x"), 1002),
    "T609 a new message inside another": (masked(0x01, b"Foo") + masked(0x81, b"Bar"), 1002),
    "T319 opcode 3": (bytes.fromhex("838037fa213d"), 1002),
    "opcode B": (masked(0x8B, b""), 1002),
    "a 64-bit length of 126": (b"\x82\xff" + (126).to_bytes(8, "big"), 1002),
    "a continuation that is not masked": (masked(0x02, b"x") + b"\x80\x01x", 1002),
    "a binary message inside another": (masked(0x02, b"x") + masked(0x82, b""), 1002),
    "fragments of a text inside another": (masked(0x01, b"x") + masked(0x01, b""), 1002),
    "a continuation behind the last": (masked(0x01, b"x") + masked(0x80, b"") + masked(0x80, b""), 1002),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_bytes_are_refused_with_their_code(case: str) -> None:
    """The frames before a violation come out first, however the bytes are cut."""
    data, code = BAD[case]
    hello = masked(0x81, b"Hello")
    for size in (1, 3, 1 << 20):
        begun, found = read(server(MIB), *pieces(data, size))
        assert (len(begun), found) == (len(plainly(data, MIB)[0]), code)
        assert read(server(MIB), *pieces(hello + data, size)) == ([Frame.Text("Hello"), *begun], code)


@pytest.mark.parametrize("is_masked", [True, False])
def test_a_mask_that_is_missing_or_too_much_is_named(is_masked: bool) -> None:
    """By the side that has to have it, and the one that must not (RFC 6455 §5.1)."""
    reader = FrameParser(masked=is_masked, max_frame_size=None)
    with pytest.raises(ProtocolError) as error:
        list(reader.feed(b"\x81\x01x" if is_masked else masked(0x81, b"x")))
    assert str(error.value) == ("a frame is not masked" if is_masked else "a frame is masked")


@pytest.mark.parametrize(
    ("first_byte", "text"),
    [
        (0x83, "unknown opcode 0x3"),
        (0x8B, "unknown opcode 0xb"),
        (0x09, "fragmented"),
        (0x80, "no message to continue"),
    ],
)
def test_a_bad_first_byte_is_refused_with_the_second(first_byte: int, text: str) -> None:
    """Nothing behind them is waited for; the error says what is wrong."""
    parser = server()
    assert list(parser.feed(bytes([first_byte]))) == []
    with pytest.raises(ProtocolError, match=text):
        list(parser.feed(b"\x80"))


@pytest.mark.parametrize("opcode", range(16))
def test_reserved_bits_need_an_owner_and_stand_on_first_data_frames_only(opcode: int) -> None:
    """RSV1 of a negotiated extension passes on Text and Binary and nowhere else."""
    data = masked(0xC0 | opcode, b"")
    assert ([], 1002) == read(server(), data)
    assert ([], 1002) == read(server(reserved=0x30), data)
    frames, code = read(server(reserved=0x40), data)
    assert (None if opcode in (1, 2) else 1002) == code
    assert all(frame.rsv1 and not frame.rsv2 for frame in frames)


def test_a_reserved_bit_stands_on_the_first_fragment_only() -> None:
    """RFC 7692 §6.1."""
    first, more = masked(0x42, b"a"), masked(0x80, b"b")
    assert read(server(reserved=0x40), first + more) == (
        [Frame.Binary(b"a", fin=False, rsv1=True), Frame.Binary(b"b")],
        None,
    )
    assert read(server(reserved=0x40), first + masked(0xC0, b"b"))[1] == 1002


# limits


def test_the_limit_is_exact_for_frames_and_messages() -> None:
    """T112 to T114: exactly the limit passes; one more is refused from its header."""
    assert ([Frame.Binary(b"x" * 1024)], None) == read(server(1024), masked(0x82, b"x" * 1024))
    assert ([], 1009) == read(server(1023), masked(0x82, b"x" * 1024)[:4])
    first, begun = masked(0x02, b"x" * 1000), Frame.Binary(b"x" * 1000, fin=False)
    assert ([begun, Frame.Binary(b"x" * 25)], None) == read(server(1025), first, masked(0x80, b"x" * 25))
    assert ([begun], 1009) == read(server(1025), first, masked(0x80, b"x" * 26)[:2])
    control = masked(0x02, b"x" * 8) + masked(0x89, b"p" * 9) + masked(0x80, b"")
    assert (3, None) == (len(read(server(8), control)[0]), read(server(8), control)[1])


@pytest.mark.parametrize("limit", [0, 3, 1024, 100_000])
def test_what_an_extension_made_may_be_a_little_longer(limit: int) -> None:
    """What can't be packed is; whole or in fragments, and nothing else is."""
    most = coded_limit(limit)
    assert most > limit
    assert len(read(server(limit, reserved=0x40), masked(0xC2, b"x" * most))[0]) == 1
    assert read(server(limit, reserved=0x40), masked(0xC2, b"x" * (most + 1))[:14]) == ([], 1009)
    fragments = masked(0x42, b"x"), masked(0x00, b"x" * (most - 2)), masked(0x80, b"x")
    assert len(read(server(limit, reserved=0x40), *fragments)[0]) == 3
    assert read(server(limit, reserved=0x40), *fragments[:2], masked(0x80, b"xx"))[1] == 1009
    plain = masked(0x82, b"x" * (limit + 1))
    assert read(server(limit, reserved=0x40), *fragments, plain)[1] == 1009
    assert read(server(limit, reserved=0x40, whole_messages=False), masked(0xC2, plain[-limit - 1 :]))[1] == 1009


@pytest.mark.parametrize("size", [KEPT_TEXT - 1, KEPT_TEXT, KEPT_TEXT + 1, 2 * KEPT_TEXT])
def test_the_limit_is_exact_where_short_messages_end(size: int) -> None:
    """Below and beyond what is looked for at once."""
    for first_byte in (0x81, 0x82):
        data = masked(first_byte, b"x" * size) * 3
        assert len(read(server(size), data)[0]) == 3
        assert read(server(size - 1), data) == ([], 1009)


def test_too_big_names_size_and_limit() -> None:
    """Of the frame, or of the message with it."""
    for data, size in ((masked(0x82, b"x" * 2000), 2000), (masked(0x02, b"x" * 900) + masked(0x80, b"x" * 101), 1001)):
        with pytest.raises(FrameTooBig, match=f"{size} bytes are more than max_frame_size allows") as error:
            list(server(1000).feed(data))
        assert (size, 1000) == (error.value.size, error.value.limit)


def test_the_limit_may_be_changed_and_left_out() -> None:
    """A new limit counts from the next header; None is none; a raw parser limits frames alone."""
    parser = server(10)
    parser.max_frame_size = None
    assert [Frame.Binary(b"x" * 5000)] == read(parser, masked(0x82, b"x" * 5000))[0]
    data = masked(0x82, b"x" * 100)
    assert read(parser, data[:20]) == ([], None)
    parser.max_frame_size = 10
    assert read(parser, data[20:] + data) == ([Frame.Binary(b"x" * 100)], 1009)
    raw = server(10, whole_messages=False)
    assert 3 == len(list(raw.feed(masked(0x02, b"x" * 10) + masked(0x00, b"x" * 10) + masked(0x80, b"x" * 10))))


def test_a_limit_that_is_changed_counts_from_the_next_message() -> None:
    """Though more of them were looked for at once."""
    reader = server()
    frames = reader.feed(masked(0x82, bytes(100)) * 5)
    assert next(frames) == Frame.Binary(bytes(100))
    reader.max_frame_size = 100
    assert next(frames) == Frame.Binary(bytes(100))
    reader.max_frame_size = 99
    with pytest.raises(FrameTooBig) as error:
        next(frames)
    assert error.value.close_code == CloseCode.TOO_BIG


@pytest.mark.parametrize("fragments", [1, 2, 5])
@pytest.mark.parametrize("size", [3, 1 << 20])
def test_a_fragmented_message_takes_nothing_from_the_limit_of_the_next(fragments: int, size: int) -> None:
    """Each may be as long as the limit, however they are cut."""
    first = masked(0x02, b"x" * 10) + masked(0x00, b"x") * (fragments - 1) + masked(0x80, b"x")
    whole = masked(0x82, b"x" * 100)
    frames, code = read(server(100), *pieces(first + whole + first + whole, size))
    assert (2 * (fragments + 1) + 2, None) == (len(frames), code)


# frames that are not complete


def test_what_is_kept_is_what_arrived() -> None:
    """W-02: a header may claim anything."""
    parser = server()
    assert read(parser, head(0x82, 1 << 62, 0x80) + bytes(4) + b"x" * 10) == ([], None)
    assert (parser.kept, parser.missing) == (10, (1 << 62) - 10)


def given_in_pieces(parser: FrameParser, chunks: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """What is given as frames, and in between."""
    for chunk in chunks:
        yield from (("frame", frame.data) for frame in parser.feed(chunk))
        partial = parser.take_partial()
        if partial is not None:
            yield "partial", partial.data


def test_each_new_piece_may_be_looked_at_once() -> None:
    """The whole frame is given all the same."""
    data = masked(0x81, b"abcdefghij")
    seen = list(given_in_pieces(server(), [data[:3], data[3:8], data[8:12], b"", data[12:] + data[:9]]))
    assert seen == [("partial", b"ab"), ("partial", b"cdef"), ("frame", b"abcdefghij"), ("partial", b"abc")]


def test_while_streaming_each_byte_is_given_once() -> None:
    """The frame is what was not taken before; of a control frame nothing is given away."""
    parser = server(5)
    data, ping = masked(0x81, b"abcdefghij"), masked(0x89, b"!?")
    assert list(given_in_pieces(parser, [masked(0x81, b"12345")[:8]])) == [("partial", b"12")]
    parser.stream()
    assert parser.missing == 0
    rest = masked(0x81, b"12345")[8:]
    assert list(given_in_pieces(parser, [rest + data[:8], data[8:12], data[12:] + ping[:7], ping[7:]])) == [
        ("frame", b"12345"),
        ("partial", b"ab"),
        ("partial", b"cdef"),
        ("frame", b"ghij"),
        ("partial", b"!"),
        ("frame", b"!?"),
    ]
    assert parser.kept == 0


def test_streaming_may_begin_in_the_middle_of_a_frame() -> None:
    """All that is kept of it is given then; the limit is for nobody any more."""
    parser = server(10)
    data = masked(0x82, b"abcdefghij")
    assert read(parser, data[:10]) == ([], None)
    parser.stream()
    partial = parser.take_partial()
    assert partial == Frame.Binary(b"abcd")
    assert read(parser, data[10:]) == ([Frame.Binary(b"efghij")], None)
    assert read(parser, masked(0x82, b"x" * 1000)) == ([Frame.Binary(b"x" * 1000)], None)


def test_nothing_is_read_into_what_is_given_away() -> None:
    """Nor where there is no native part: else the rest of a long frame may be."""
    parser = server()
    data = masked(0x82, bytes(range(100)))
    assert read(parser, data[:50]) == ([], None)
    if native.Filling is not None:
        assert parser.target is not None
        with memoryview(parser.target) as view:
            view[:56] = data[50:]
        parser.fill(56)
        assert (parser.kept, parser.missing) == (100, 0)
        assert read(parser, b"") == ([Frame.Binary(bytes(range(100)))], None)
        assert read(parser, data[:50]) == ([], None)
    parser.stream()
    assert parser.target is None


def test_nothing_is_parsed_before_it_is_asked_for() -> None:
    """What stands behind a frame is judged when it is reached."""
    frames = server().feed(masked(0x89, b"1") + masked(0x89, b"2") + b"\xff\xff")
    assert [next(frames), next(frames)] == [Frame.Ping(b"1"), Frame.Ping(b"2")]
    with pytest.raises(ProtocolError):
        next(frames)


# in one step


def test_where_nothing_can_be_done_in_one_step_nothing_is_done() -> None:
    """Something under way, or no native part: the bytes are for `feed`, and it reads them."""
    text = masked(0x81, b"hi")
    for begun in (text[:1], text[:-1], masked(0x01, b"x")):
        parser = server()
        assert len(read(parser, begun)[0]) == (begun[0] == 0x01)
        assert parser.single(text) is None
        assert parser.run(text, 10, 100) == ([], text)
    parser = server()
    for data in (b"", text[:-1], masked(0x89, b"x"), masked(0x01, b"x"), masked(0x82, bytes(KEPT_TEXT + 1))):
        assert parser.single(data) is None
        assert parser.run(data, 10, 100) == ([], data)
    assert parser.run(text, 0, 100) == ([], text)
    assert read(parser, text) == ([Frame.Text("hi")], None)


@pytest.mark.parametrize("is_masked", [True, False])
def test_short_messages_in_one_step(is_masked: bool) -> None:
    """Within the limit; without a native part they are left to `feed`."""
    parser = FrameParser(masked=is_masked, max_frame_size=5)
    short, long = (masked(0x81, data) if is_masked else head(0x81, len(data)) + data for data in (b"12345", b"123456"))
    is_native = native.is_native
    assert parser.single(short) == (Frame.Text("12345") if is_native else None)
    assert parser.single(long) is None
    expected = ([Frame.Text("12345")] * 2, long) if is_native else ([], short * 2 + long)
    assert parser.run(short * 2 + long, 10, 100) == expected
    assert parser.run(short * 3, 2, 100)[1] == (short if is_native else short * 3)
