"""Bytes to messages: tables read whole, byte by byte and with more behind them."""

from __future__ import annotations

import codecs
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from tests.support.helpers import KEY, client_bytes, masked
from tests.support.reading import FrameReader
from trioktor import CloseReason, Frame, ProtocolError
from trioktor.protocol.serializer import head

MIB = 1 << 20


def assembler(*, limit: int | None = MIB, fragments: int | None = 4096, reserved: int = 0) -> FrameReader:
    """What a server reads a client with."""
    return FrameReader(max_frame_size=limit, max_fragments=fragments, reserved=reserved)


def read(reader: FrameReader, *chunks: bytes) -> tuple[list[Frame], int | None]:
    """The frames of these chunks, and the close code of the violation they end with."""
    frames: list[Frame] = []
    try:
        for chunk in chunks:
            frames.extend(filter(None, iter(reader.feed(chunk))))
    except ProtocolError as error:
        return frames, error.close_code
    return frames, None


HELLO = bytes.fromhex("818537fa213d7f9f4d5158")
GOOD: dict[str, tuple[bytes, list[Frame]]] = {
    "RFC 5.7 masked Hello, T604": (HELLO, [Frame.Text("Hello")]),
    "T111 fragments with a Ping between": (
        bytes.fromhex("018337fa213d76b862 898437fa213d47934f5a 008237fa213d06c8 808137fa213d04"),
        [Frame.Ping(b"ping"), Frame.Text("ABC123")],
    ),
    "T605 three fragments": (
        masked(0x01, b"1") + masked(0x00, b"2") + masked(0x80, b"3"),
        [Frame.Text("123")],
    ),
    "empty text": (masked(0x81, b""), [Frame.Text("")]),
    "empty fragments": (masked(0x02, b"") + masked(0x00, b"") + masked(0x80, b""), [Frame.Binary(b"")]),
    "T601 five bytes": (masked(0x82, b"12345"), [Frame.Binary(b"12345")]),
    "125 bytes": (masked(0x82, b"x" * 125), [Frame.Binary(b"x" * 125)]),
    "126 bytes": (masked(0x82, b"x" * 126), [Frame.Binary(b"x" * 126)]),
    "65,535 bytes": (masked(0x82, b"x" * 65535), [Frame.Binary(b"x" * 65535)]),
    "65,536 bytes": (masked(0x82, b"x" * 65536), [Frame.Binary(b"x" * 65536)]),
    "a Ping of 125 bytes, T614": (masked(0x89, b"p" * 125), [Frame.Ping(b"p" * 125)]),
    "an unasked Pong": (masked(0x8A, b"p"), [Frame.Pong(b"p")]),
    "an empty Close, T622": (masked(0x88, b""), [Frame.Close()]),
    "a Close": (masked(0x88, b"\x03\xe8bye"), [Frame.Close(CloseReason(1000, "bye"))]),
    "T621 a Close with Cyrillic": (
        masked(0x88, b"\x03\xe8" + "websocket закрыт".encode()),
        [Frame.Close(CloseReason(1000, "websocket закрыт"))],
    ),
    "text whose characters are cut by fragments": (
        masked(0x01, "日本".encode()[:4]) + masked(0x80, "日本".encode()[4:]),
        [Frame.Text("日本")],
    ),
    "a mask of ones": (masked(0x81, b"Hello", b"\xff" * 4), [Frame.Text("Hello")]),
    "a mask of zeros": (masked(0x81, b"Hello", bytes(4)), [Frame.Text("Hello")]),
}


def cuts(data: bytes) -> dict[str, list[bytes]]:
    """The same bytes in several pieces."""
    step = max(1, len(data) // 500)
    return {
        "whole": [data],
        "byte by byte": [data[i : i + 1] for i in range(len(data))] if len(data) < 500 else [data[:7], data[7:]],
        "in pieces": [data[i : i + step] for i in range(0, len(data), step)],
    }


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "in pieces"])
@pytest.mark.parametrize("case", GOOD)
def test_good_bytes_give_their_messages(case: str, cut: str) -> None:
    """However the bytes are cut, and with more behind them."""
    data, frames = GOOD[case]
    assert (frames, None) == read(assembler(), *cuts(data)[cut])
    assert ([*frames, Frame.Text("Hello")], None) == read(assembler(), *cuts(data + HELLO)[cut])


BAD: dict[str, tuple[bytes, int]] = {
    "R09 a Close of one byte": (masked(0x88, b"\x03"), 1002),
    "T108 R09 the code 59395": (masked(0x88, b"\xe8\x03"), 1002),
    "R09 the code 1005": (masked(0x88, b"\x03\xed"), 1002),
    "R06 bad UTF-8 in a Close": (masked(0x88, b"\x03\xe8\xff"), 1007),
    "R06 bad UTF-8": (masked(0x81, b"ab\xff"), 1007),
    "R06 cut-off UTF-8": (masked(0x81, b"ab\xe2\x82"), 1007),
    "R06 a surrogate": (masked(0x81, b"\xed\xa0\x80"), 1007),
    "R06 bad UTF-8 in the second fragment": (masked(0x01, b"ab") + masked(0x00, b"\xff"), 1007),
    "R06 bad UTF-8 across fragments": (masked(0x01, b"\xe2\x82") + masked(0x80, b"A"), 1007),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_bytes_are_refused_with_their_code(case: str) -> None:
    """The messages before a violation come out first, however the bytes are cut."""
    data, code = BAD[case]
    for pieces in cuts(data).values():
        assert ([], code) == read(assembler(), *pieces)
    for pieces in cuts(HELLO + data).values():
        assert ([Frame.Text("Hello")], code) == read(assembler(), *pieces)


def test_a_masked_frame_of_a_server_is_refused() -> None:
    """RFC 6455 §5.1 forbids what a server may not do as well."""
    reader = FrameReader(client=True)
    assert ([Frame.Text("Hello")], 1002) == read(reader, b"\x81\x05Hello" + HELLO)


def test_frames_of_a_server_are_read_in_pieces_too() -> None:
    """The client's side parses without masks."""
    reader = FrameReader(client=True)
    data = b"\x81\x05Hello" + head(0x82, 300) + bytes(300)
    assert ([Frame.Text("Hello"), Frame.Binary(bytes(300))], None) == read(reader, *cuts(data)["byte by byte"])


def test_text_with_a_reserved_bit_is_not_read_as_utf8() -> None:
    """An extension reads it first, whole or in fragments, in one piece or several."""
    whole = masked(0xC1, b"\xff\xfe")
    parts = masked(0x41, b"\xff") + masked(0x80, b"\xfe")
    for data in (whole, parts):
        for pieces in cuts(data).values():
            frames, code = read(assembler(reserved=0x40), *pieces)
            assert code is None
            assert [b"\xff\xfe"] == [frame.data for frame in frames]
            assert frames[0].rsv1


@pytest.mark.parametrize(
    ("code", "answer"), [(999, 1002), (1000, None), (1004, 1002), (1015, 1002), (4999, None), (5000, 1002)]
)
def test_a_close_frame_with_a_code_is_judged_by_it(code: int, answer: int | None) -> None:
    """The parser uses the same list."""
    assert answer == read(assembler(), masked(0x88, code.to_bytes(2, "big")))[1]


def test_utf8_fails_at_the_first_bad_byte_in_the_middle_of_a_frame() -> None:
    """What follows the bad byte is not waited for."""
    reader = assembler()
    data = masked(0x81, "κόσμε".encode() + b"\xf4\x90\x80\x80" + b"x" * 1000)
    assert ([], 1007) == read(reader, *(data[i : i + 1] for i in range(8 + len("κόσμε".encode()) + 2)))


@pytest.mark.parametrize("lead", range(0x80, 0x100))
def test_every_two_bytes_are_judged_as_the_codec_does(lead: int) -> None:
    """Byte by byte, inside a frame and across fragments, the verdict is that of the strict codec.

    But for surrogates, of which that waits for the last byte: they are bad at their second.
    """
    for second in range(0, 0x100, 5):
        text = bytes((lead, second))
        expected = None
        try:
            codecs.getincrementaldecoder("utf-8")().decode(text)
        except UnicodeDecodeError:
            expected = 1007
        if lead == 0xED and 0xA0 <= second <= 0xBF:
            expected = 1007
        long = masked(0x81, text + b"xyz")
        assert expected == read(assembler(), long[:8])[1]
        assert expected == read(assembler(), masked(0x01, text[:1]), masked(0x00, text[1:]))[1]


def test_memory_grows_with_what_arrived_and_not_with_what_was_claimed() -> None:
    """W-02: a header may claim anything: nothing is allocated for it."""
    reader = assembler(limit=None)
    assert 0 == reader.parser.kept == reader.kept
    assert ([], None) == read(reader, b"\x82\xff" + (1 << 62).to_bytes(8, "big") + KEY + b"x" * 10)
    assert 10 == reader.parser.kept == reader.kept
    assert reader.parser.take_partial() is None


frames_strategy = st.lists(
    st.one_of(
        st.text(max_size=200).map(Frame.Text),
        st.binary(max_size=400).map(Frame.Binary),
        st.binary(max_size=125).map(Frame.Ping),
        st.binary(max_size=125).map(Frame.Pong),
    ),
    max_size=6,
)


def cut_at(data: bytes, positions: list[int]) -> list[bytes]:
    """Bytes cut at these positions, taken modulo their length."""
    places = sorted({0, len(data), *(position % (len(data) + 1) for position in positions)})
    return [data[a:b] for a, b in pairwise(places)]


@settings(max_examples=150, deadline=None)
@given(frames_strategy, st.lists(st.integers(0, 10_000), max_size=8))
def test_what_is_written_is_read_however_it_is_cut(frames: list[Frame], positions: list[int]) -> None:
    """Serializer and parser are each other's inverse."""
    assert (frames, None) == read(assembler(), *cut_at(client_bytes(*frames), positions))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([data for data, _ in GOOD.values() if len(data) < 300])),
        max_size=8,
    ),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_any_bytes_give_the_same_frames_and_error_however_they_are_cut(
    pieces: list[bytes], positions: list[int]
) -> None:
    """Frames, or frames and one protocol error, and never another exception."""
    data = b"".join(pieces)
    assert read(assembler(limit=500, fragments=3), data) == read(
        assembler(limit=500, fragments=3), *cut_at(data, positions)
    )


@pytest.mark.parametrize("code", [1005, 1006, 1015, 999, 5000])
def test_a_close_that_may_not_be_sent_is_refused_among_pieces_too(code: int) -> None:
    """As among messages."""
    reader = assembler()
    reader.stream()
    assert ([], 1002) == read(reader, masked(0x88, code.to_bytes(2, "big")))
