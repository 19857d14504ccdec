"""Frames to bytes: the fewest bytes, masked where it is asked for, and nothing that a peer would refuse."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, strategies as st

from tests.support.helpers import client_bytes
from trioktor.protocol.close import CloseReason, may_be_sent
from trioktor.protocol.errors import ProtocolError
from trioktor.protocol.frames import CloseFrame, Frame, check_close
from trioktor.protocol.from_wire import frame_from_wire
from trioktor.protocol.mask import mask
from trioktor.protocol.parser import FrameParser
from trioktor.protocol.serializer import Serializer, head, is_sendable


def written(*frames: Frame, **options: int) -> str:
    """What a server writes for these frames."""
    serializer = Serializer(masking=False, **options)
    pieces: list[bytes] = []
    for frame in frames:
        serializer.add(frame, pieces)
    return b"".join(pieces).hex()


# one frame


@pytest.mark.parametrize(
    ("size", "plain", "masked"),
    [
        (0, "8200", "8280"),
        (1, "8201", "8281"),
        (125, "827d", "82fd"),
        (126, "827e007e", "82fe007e"),
        (1023, "827e03ff", "82fe03ff"),
        (1024, "827e0400", "82fe0400"),
        (65535, "827effff", "82feffff"),
        (65536, "827f0000000000010000", "82ff0000000000010000"),
        ((1 << 63) - 1, "827f7fffffffffffffff", "82ff7fffffffffffffff"),
    ],
)
def test_a_length_takes_the_fewest_bytes(size: int, plain: str, masked: str) -> None:
    """RFC 6455 §5.2; the mask bit stands beside it."""
    assert head(0x82, size).hex() == plain
    assert head(0x82, size, 0x80).hex() == masked


@pytest.mark.parametrize("size", [0, 1, 125, 126, 1022, 1023, 1024, 1025, 65535, 65536])
@pytest.mark.parametrize("first_byte", [0x81, 0x82, 0x01, 0x02])
def test_every_size_has_its_head(first_byte: int, size: int) -> None:
    """Ready made or not."""
    frame = frame_from_wire(Frame.Text if first_byte & 1 else Frame.Binary, first_byte, bytes(size))
    assert written(frame) == (head(first_byte, size) + bytes(size)).hex()


SERVER_VECTORS = {
    "RFC 5.7 Hello": ("810548656c6c6f", Frame.Text("Hello")),
    "RFC 5.7 Ping": ("890548656c6c6f", Frame.Ping(b"Hello")),
    "RFC 5.7 256 bytes": ("827e0100" + "00" * 256, Frame.Binary(bytes(256))),
    "RFC 5.7 64 KiB": ("827f0000000000010000" + "00" * 65536, Frame.Binary(bytes(65536))),
    "Close 1000": ("880203e8", Frame.Close(CloseReason(1000))),
    "T314 Close 1013": ("880603f574657374", Frame.Close(CloseReason(1013, "test"))),
    "T203 Ping timeout": ("880e03f350696e672074696d656f7574", Frame.Close(CloseReason(1011, "Ping timeout"))),
    "empty Close": ("8800", Frame.Close()),
    "empty text": ("8100", Frame.Text("")),
}


@pytest.mark.parametrize("case", SERVER_VECTORS)
def test_frames_are_written_in_the_fewest_bytes(case: str) -> None:
    """The vectors of RFC 6455 §5.7, and Ktor's."""
    pieces: list[bytes] = []
    Serializer(masking=False).add(SERVER_VECTORS[case][1], pieces)
    assert SERVER_VECTORS[case][0] == b"".join(pieces).hex()


def test_an_empty_payload_is_no_piece() -> None:
    """Pieces are joined by others: there is none too many."""
    pieces = [b"before"]
    serializer = Serializer(masking=False)
    serializer.add(Frame.Text(""), pieces)
    serializer.add(Frame.Ping(b"x"), pieces)
    assert pieces == [b"before", b"\x81\x00", b"\x89\x01", b"x"]


# fragments


def test_fragments_are_continued_and_control_frames_may_stand_between() -> None:
    """RFC 5.7: `01 03 …`, `80 02 …`; a message after the last fragment is a message again."""
    assert "010348656c" + "8900" + "80026c6f" + "810161" == written(
        Frame.Text("Hel", fin=False), Frame.Ping(), Frame.Text("lo"), Frame.Text("a")
    )


def test_a_character_may_be_cut_by_fragments() -> None:
    """Bytes that are no text by themselves are, together."""
    euro = "€".encode()
    assert "0101e2" + "8002" + "82ac" == written(Frame.Text(euro[:1], fin=False), Frame.Text(euro[1:]))


def test_a_message_is_open_until_its_last_fragment() -> None:
    """Control frames between its fragments change nothing."""
    serializer, pieces = Serializer(masking=False), list[bytes]()
    states = []
    for frame in (
        Frame.Ping(), Frame.Text("a"), Frame.Binary(b"a", fin=False), Frame.Ping(), Frame.Close(),
        Frame.Binary(b"b", fin=False), Frame.Binary(b"c"), Frame.Text("d"),
    ):  # fmt: skip
        serializer.add(frame, pieces)
        states.append(serializer.is_in_message)
    assert states == [False, False, True, True, True, True, False, False]


@given(st.text(max_size=30), st.lists(st.integers(0, 120), max_size=5))
def test_a_text_may_be_cut_anywhere(text: str, cuts: list[int]) -> None:
    """Its fragments are text together, and the next message is judged anew."""
    data = text.encode()
    ends = sorted(min(cut, len(data)) for cut in cuts)
    parts = [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    frames = [Frame.Text(part, fin=number == len(parts) - 1) for number, part in enumerate(parts)]
    expected = b"".join(
        head((0x80 if frame.fin else 0) | (0 if number else 1), len(frame.data)) + frame.data
        for number, frame in enumerate(frames)
    )
    assert written(*frames, Frame.Text("é".encode())) == (expected + b"\x81\x02\xc3\xa9").hex()


# what is refused


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        ([Frame.Text("a", fin=False), Frame.Binary(b"b")], "inside the fragments of a TEXT message"),
        ([Frame.Binary(b"a", fin=False), Frame.Text("b", fin=False)], "inside the fragments of a BINARY message"),
        ([Frame.Binary(b"a", rsv1=True)], "a reserved bit needs an extension"),
        ([Frame.Text("a", fin=False), Frame.Text("a", rsv2=True)], "a reserved bit needs an extension"),
        ([Frame.Close(CloseReason(999))], "the close code 999 may not be sent"),
        ([Frame.Text("a", fin=False), Frame.Close(CloseReason(5000))], "the close code 5000 may not be sent"),
        ([Frame.Text(b"\xe2")], "not UTF-8"),
        ([Frame.Text(b"ok", fin=False), Frame.Text(b"\xff", fin=False)], "not UTF-8"),
        ([Frame.Text(b"\xe2", fin=False), Frame.Text(b"")], "not UTF-8"),
        ([Frame.Close(CloseReason(1005))], "the close code 1005 may not be sent"),
        ([Frame.Text(b"\xff")], "not UTF-8"),
        ([Frame.Text(b"\xe2", fin=False), Frame.Text(b"A")], "not UTF-8"),
    ],
)
def test_what_a_peer_would_refuse_is_not_written(frames: list[Frame], error: str) -> None:
    """The serializer knows what went before; nothing is appended then."""
    serializer, pieces = Serializer(masking=False), list[bytes]()
    for frame in frames[:-1]:
        serializer.add(frame, pieces)
    before = list(pieces)
    with pytest.raises(ProtocolError, match=error):
        serializer.add(frames[-1], pieces)
    assert pieces == before


@pytest.mark.parametrize("code", [0, 999, 1000, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 1016, 2999, 3000, 4999, 5000])
def test_a_close_is_sendable_as_its_code_is(code: int) -> None:
    """RFC 6455 §7.4; an empty one is, too."""
    frame = CloseFrame(CloseReason(code))
    assert is_sendable(frame) is may_be_sent(code)
    if may_be_sent(code):
        check_close(frame)
    else:
        with pytest.raises(ProtocolError, match=f"code {code} may not be sent"):
            check_close(frame)
    assert is_sendable(CloseFrame())
    check_close(CloseFrame())


# extensions


def test_a_reserved_bit_goes_out_with_its_extension() -> None:
    """The seam for extensions."""
    assert "c10161" == written(Frame.Text("a", rsv1=True), reserved=0x40)


def test_each_reserved_bit_needs_its_owner() -> None:
    """Those of one extension let no others pass."""
    assert written(Frame.Binary(b"a", rsv2=True, rsv3=True), reserved=0x30) == "b20161"
    with pytest.raises(ProtocolError, match="a reserved bit"):
        written(Frame.Binary(b"a", rsv1=True, rsv2=True), reserved=0x20)
    with pytest.raises(ProtocolError, match="a reserved bit"):
        written(Frame.Text("a", rsv1=True), reserved=0x30)


def test_what_an_extension_made_is_no_text() -> None:
    """With its bit the bytes may be any; a fragment's, too."""
    assert written(Frame.Text(b"\xff", rsv1=True), reserved=0x40) == "c101ff"
    first, last = Frame.Text(b"\xff", rsv1=True, fin=False), Frame.Text("a")
    assert written(first, last, reserved=0x40) == "4101ff" + "800161"


@pytest.mark.parametrize("cuts", [[2], [0, 1, 3]])
def test_a_compressed_text_may_be_cut_anywhere(cuts: list[int]) -> None:
    """Its fragments are no text as they stand; but those of the next message are."""
    serializer = Serializer(masking=False, reserved=0x40)
    pieces: list[bytes] = []
    data = b"\xff\xc3\x80\xfe"
    bounds = [0, *cuts, len(data)]
    for start, end in pairwise(bounds):
        serializer.add(Frame.Text(data[start:end], fin=end == len(data), rsv1=start == 0 and not pieces), pieces)
    assert not serializer.is_in_message
    parser = FrameParser(masked=False, max_frame_size=None, reserved=0x40)
    frames = list(parser.feed(b"".join(pieces)))
    assert b"".join(frame.data for frame in frames) == data
    assert [frame.rsv1 for frame in frames] == [True] + [False] * (len(frames) - 1)
    serializer.add(Frame.Text(b"\xc3", fin=False), [])
    with pytest.raises(ProtocolError, match="not UTF-8"):
        serializer.add(Frame.Text(b"\xff"), [])


def test_what_was_no_text_ends_with_its_message() -> None:
    """However it ends: also by a fragment with the bit, which a raw session may send."""
    serializer = Serializer(masking=False, reserved=0x40)
    for frame in (Frame.Text(b"\xff", fin=False, rsv1=True), Frame.Text(b"\xfe", rsv1=True)):
        serializer.add(frame, [])
    with pytest.raises(ProtocolError, match="not UTF-8"):
        serializer.add(Frame.Text(b"\xff"), [])


def test_a_compressed_message_may_not_stand_inside_another() -> None:
    """As any other."""
    with pytest.raises(ProtocolError, match="inside the fragments"):
        written(Frame.Binary(b"a", fin=False), Frame.Text("b", rsv1=True), reserved=0x40)


# masking


def test_masked_frames_have_a_fresh_key_each() -> None:
    """RFC 6455 §5.3: not the same key twice (but with luck of one in four billion)."""
    first, second = client_bytes(Frame.Binary(bytes(50))), client_bytes(Frame.Binary(bytes(50)))
    assert first != second
    assert first[1] == 0x80 | 50


def test_no_key_comes_twice() -> None:
    """Over many frames, and whatever their number; each unmasks its own payload."""
    serializer, keys = Serializer(masking=True), []
    for number in range(200):
        pieces: list[bytes] = []
        serializer.add(Frame.Text(f"{number:03}"), pieces)
        data = b"".join(pieces)
        assert data[:2] == b"\x81\x83"
        assert mask(data[6:], data[2:6]) == f"{number:03}".encode()
        keys.append(data[2:6])
    assert len(set(keys)) > 190


def test_masking_may_be_changed_at_any_time() -> None:
    """It counts from the next frame on."""
    serializer, pieces = Serializer(masking=False), list[bytes]()
    states = []
    for masking in (False, True, False):
        serializer.masking = masking
        states.append(serializer.masking)
        serializer.add(Frame.Text("a"), pieces)
        serializer.add(Frame.Ping(b"b"), pieces)
    data = b"".join(pieces)
    assert states == [False, True, False]
    assert data.startswith(b"\x81\x01a\x89\x01b\x81\x81")
    assert data.endswith(b"\x81\x01a\x89\x01b")
    assert len(data) == 6 + 14 + 6


def test_control_frames_and_empty_ones_are_masked_too() -> None:
    """RFC 6455 §5.3: every frame of a client."""
    for frame, start in ((Frame.Text(""), b"\x81\x80"), (Frame.Close(), b"\x88\x80"), (Frame.Pong(b"x"), b"\x8a\x81")):
        data = client_bytes(frame)
        assert data[:2] == start
        assert len(data) == 6 + len(frame.data)


ITEMS: st.SearchStrategy[Frame | bytes] = st.one_of(
    st.builds(Frame.Text, st.text(max_size=5)),
    st.builds(Frame.Binary, st.sampled_from([b"", b"x", bytes(125), bytes(126), bytes(1024), bytes(1 << 16)])),
    st.binary(max_size=5),
)


@given(item=ITEMS, masking=st.booleans())
def test_a_message_alone_is_written_as_with_others(item: Frame | bytes, masking: bool) -> None:
    """A long one that is not masked is not copied."""
    pieces = Serializer(masking=masking).pieces_of(item)
    if isinstance(item, bytes):
        assert pieces == [item]
    elif masking:
        assert list(FrameParser(masked=True, max_frame_size=None).feed(b"".join(pieces))) == [item]
    else:
        assert b"".join(pieces) == b"".join(Serializer(masking=False).joined([item]))
        assert len(item.data) < 1 << 16 or pieces[-1] is item.data


@pytest.mark.parametrize("masking", [False, True])
def test_no_message_is_written_inside_another(masking: bool) -> None:
    """RFC 6455 §5.4: whoever writes one by one is stopped here."""
    serializer = Serializer(masking=masking)
    serializer.add(Frame.Text("open", fin=False), [])
    with pytest.raises(ProtocolError, match="inside the fragments"):
        serializer.pieces_of(Frame.Binary(b"x"))
    assert serializer.is_in_message


@given(
    items=st.lists(ITEMS),
    masking=st.booleans(),
    is_behind=st.booleans(),
)
@example(items=[Frame.Text("x"), Frame.Binary(bytes(1 << 16))], masking=False, is_behind=False)
def test_messages_that_were_judged_are_written_together_as_one_by_one(
    items: list[Frame | bytes], masking: bool, is_behind: bool
) -> None:
    """What is bytes already stands between them; a message whose fragments were added first comes behind them."""
    together, apart = Serializer(masking=masking), Serializer(masking=masking)
    if is_behind:
        together.add(Frame.Text("open", fin=False), [])
    pieces = together.joined(items)
    expected: list[bytes] = []
    for item in items:
        if isinstance(item, bytes):
            expected.append(item)
        else:
            apart.add(item, expected)
    if masking:
        assert [len(piece) for piece in pieces] == [len(piece) for piece in expected]
        frames = [item for item in items if isinstance(item, Frame)]
        theirs = [piece for piece, item in zip(pieces, items, strict=True) if isinstance(item, Frame)]
        assert list(FrameParser(masked=True, max_frame_size=None).feed(b"".join(theirs))) == frames
    else:
        assert b"".join(pieces) == b"".join(expected)
        if items and isinstance(last := items[-1], Frame) and len(last.data) >= 1 << 16:
            assert pieces[-1] is last.data  # a long one is not copied
    assert together.is_in_message is is_behind


@given(
    frame=st.one_of(
        st.builds(Frame.Ping, st.binary(max_size=125)),
        st.builds(Frame.Pong, st.binary(max_size=125)),
        st.builds(CloseReason, st.integers(3000, 4999), st.text(max_size=30)).map(Frame.Close),
        st.just(Frame.Close()),
    ),
    is_inside=st.booleans(),
)
def test_a_control_frame_that_was_judged_is_written_as_any_other(frame: Frame, is_inside: bool) -> None:
    """Between the fragments of a message, too, which stays open."""
    for masking in (False, True):
        serializer = Serializer(masking=masking)
        if is_inside:
            serializer.add(Frame.Text("open", fin=False), [])
        judged: list[bytes] = []
        pieces: list[bytes] = []
        serializer.add_control(frame, judged)
        serializer.add(frame, pieces)
        assert list(FrameParser(masked=masking, max_frame_size=None).feed(b"".join(judged))) == [frame]
        assert masking or b"".join(judged) == b"".join(pieces)
        assert serializer.is_in_message is is_inside


def test_keys_come_from_the_systems_random_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 6455 §5.3: nobody can foresee them."""
    asked: list[int] = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return bytes(number % 256 for number in range(size))

    monkeypatch.setattr("trioktor.protocol.serializer.os.urandom", urandom)
    serializer, pieces = Serializer(masking=True), list[bytes]()
    for _ in range(2):
        serializer.add(Frame.Binary(b""), pieces)
    assert [piece[2:6] for piece in pieces] == [bytes([0, 1, 2, 3]), bytes([4, 5, 6, 7])]
    assert len(asked) == 1
