"""Frames: values that explain and defend themselves, and what is known of their text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from trioktor import CloseReason, Frame, FrameType, ProtocolError, UnexpectedFrame
from trioktor.protocol.frames import KEPT_TEXT, CloseFrame, Unkept, check_close, check_utf8, text_of, type_name
from trioktor.protocol.from_wire import frame_from_wire


def test_frames_show_their_parts() -> None:
    """Type, text, data, fin and the reserved bits."""
    frame = Frame.Text("hé", fin=False, rsv2=True)
    assert (FrameType.TEXT, "hé".encode(), False, False, True, False) == (
        frame.type, frame.data, frame.fin, frame.rsv1, frame.rsv2, frame.rsv3,
    )  # fmt: skip
    assert "<Frame TEXT fin=False, rsv2, 3 bytes>" == repr(frame)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Frame.Text("x"),
        lambda: Frame.Binary(b"x", rsv3=True),
        lambda: Frame.Close(CloseReason(1000, "x")),
        lambda: Frame.Ping(b"x"),
        lambda: Frame.Pong(b"x"),
    ],
)
def test_frames_are_compared_and_hashed_by_value(make: object) -> None:
    """Two frames that say the same are the same."""
    assert callable(make)
    assert make() == make()
    assert hash(make()) == hash(make())
    assert make() != Frame.Binary(b"other")
    assert make() != "x"


def test_the_first_byte_is_as_on_the_wire() -> None:
    """Fin, the three reserved bits, and the opcode, each in its place."""
    frames = {
        Frame.Text("x"): 0x81,
        Frame.Text("x", fin=False): 0x01,
        Frame.Binary(b"x"): 0x82,
        Frame.Binary(b"x", fin=False): 0x02,
        Frame.Binary(b"x", rsv1=True): 0xC2,
        Frame.Binary(b"x", fin=False, rsv2=True): 0x22,
        Frame.Text("x", rsv3=True): 0x91,
        Frame.Text("x", rsv1=True, rsv2=True, rsv3=True): 0xF1,
        Frame.Close(): 0x88,
        Frame.Ping(): 0x89,
        Frame.Pong(): 0x8A,
    }
    assert {frame: frame.first_byte for frame in frames} == frames


def test_text_from_bytes_equals_text_from_str() -> None:
    """How a frame was made does not matter; bytes-like objects are copied."""
    assert Frame.Text("é") == Frame.Text("é".encode())
    assert "é" == Frame.Text(bytearray("é".encode())).text
    assert b"ab" == Frame.Binary(memoryview(b"ab")).data
    assert Frame.Text("a") != Frame.Text("a", fin=False)


def test_patterns_take_frames_apart() -> None:
    """`match` binds text, data and reason by position."""
    match [Frame.Text("a"), Frame.Binary(b"b"), Frame.Close(CloseReason(1000)), Frame.Ping(b"d"), Frame.Pong(b"e")]:
        case [Frame.Text(a), Frame.Binary(b), Frame.Close(c), Frame.Ping(d), Frame.Pong(e)]:
            assert ("a", b"b", CloseReason(1000), b"d", b"e") == (a, b, c, d, e)
        case _:
            pytest.fail("no match")


@pytest.mark.parametrize("frame", [Frame.Binary(b"x"), Frame.Ping(), Frame.Close(), Frame.Text("x", fin=False)])
def test_only_a_whole_text_has_text(frame: Frame) -> None:
    """Everything else raises an error that says what was expected; it is an AttributeError, too."""
    with pytest.raises(UnexpectedFrame, match="expected a whole TEXT frame"):
        _ = frame.text
    assert not hasattr(frame, "text")


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Frame(), TypeError, "abstract"),
        (lambda: Frame.Text(1), TypeError, "must be str or bytes, not int"),  # type: ignore[arg-type]
        (lambda: Frame.Binary("x"), TypeError, "not str"),  # type: ignore[arg-type]
        (lambda: Frame.Ping("x"), TypeError, "not str"),  # type: ignore[arg-type]
        (lambda: Frame.Close(1000), TypeError, "not int"),  # type: ignore[arg-type]
        (lambda: Frame.Ping(b"x" * 126), ValueError, "at most 125"),
        (lambda: Frame.Pong(b"x" * 126), ValueError, "at most 125"),
        (lambda: Frame.Text("\ud800"), ValueError, "surrogates"),
    ],
)
def test_wrong_sizes_and_types_are_refused_in_the_constructor(make: object, error: type[Exception], text: str) -> None:
    """T611 to T613, T619: refused where they are made, by a text that says why."""
    assert callable(make)
    with pytest.raises(error, match=text):
        make()


def test_the_longest_reason_fits() -> None:
    """T610: 123 bytes of text make a Close of 125."""
    frame = Frame.Close(CloseReason(1000, "x" * 123))
    assert 125 == len(frame.data)
    assert CloseReason(1000, "x" * 123) == frame.reason


@pytest.mark.parametrize(("data", "code"), [(b"\x03", 1002), (b"\x03\xe8\xff", 1007)])
def test_a_bad_close_payload_has_no_reason(data: bytes, code: int) -> None:
    """Reading it raises the violation that it is."""
    frame = frame_from_wire(Frame.Close, 0x88, data)
    assert isinstance(frame, CloseFrame)
    with pytest.raises(ProtocolError) as error:
        _ = frame.reason
    assert code == error.value.close_code


@pytest.mark.parametrize("kind", [Frame.Ping, Frame.Pong])
def test_a_control_frame_may_hold_125_bytes(kind: Any) -> None:
    """RFC 6455 §5.5: and not one more."""
    assert 125 == len(kind(bytes(125)).data)
    with pytest.raises(ValueError, match="at most 125"):
        kind(bytes(126))


def test_an_empty_close_has_no_reason() -> None:
    """And one with a code alone has an empty text."""
    assert Frame.Close().data == b""
    assert Frame.Close().reason is None
    assert Frame.Close(CloseReason(1000)).data == b"\x03\xe8"
    assert Frame.Close(CloseReason(0x1234, "é")).data == b"\x12\x34\xc3\xa9"


@given(code=st.integers(0, 0xFFFF), message=st.text(max_size=30))
def test_the_reason_of_a_close_is_the_one_it_was_made_of(code: int, message: str) -> None:
    """Made here, or as it comes from the wire."""
    reason = CloseReason(code, message)
    frame = Frame.Close(reason)
    read = frame_from_wire(Frame.Close, frame.first_byte, frame.data)
    assert isinstance(read, CloseFrame)
    assert frame.reason == read.reason == reason


DIFFERENT = [
    Frame.Text("x"),
    Frame.Text("y"),
    Frame.Binary(b"x"),
    Frame.Ping(b"x"),
    Frame.Pong(b"x"),
    Frame.Close(),
    Frame.Text("x", fin=False),
    Frame.Text("x", rsv1=True),
    Frame.Text("x", rsv2=True),
    Frame.Text("x", rsv3=True),
]


def test_frames_that_say_something_else_are_different() -> None:
    """In type, data, fin or a reserved bit."""
    assert len(set(DIFFERENT)) == len(DIFFERENT)
    for frame in DIFFERENT:
        assert [other for other in DIFFERENT if other == frame] == [frame]


def test_the_opcode_of_a_fragment_does_not_count() -> None:
    """A continuation equals the fragment it was made as."""
    continuation = frame_from_wire(Frame.Text, 0x80, b"lo")
    assert continuation == Frame.Text("lo")
    assert hash(continuation) == hash(Frame.Text("lo"))


@pytest.mark.parametrize("bits", range(8))
def test_each_reserved_bit_is_shown(bits: int) -> None:
    """As an attribute and in the text."""
    named = {name: bool(bits & mask) for name, mask in (("rsv1", 4), ("rsv2", 2), ("rsv3", 1))}
    frame = Frame.Binary(b"abc", **named)
    assert (frame.rsv1, frame.rsv2, frame.rsv3) == tuple(named.values())
    shown = "".join(f", {name}" for name, is_set in named.items() if is_set)
    assert repr(frame) == f"<Frame BINARY fin=True{shown}, 3 bytes>"


# what is known of a text


@pytest.mark.parametrize("text", ["", "x" * KEPT_TEXT, "é" * (KEPT_TEXT // 2)])
def test_a_short_text_is_kept(text: str) -> None:
    """Beside its bytes: given as a text, or once it was asked for."""
    assert Frame.Text(text).decoded == text
    frame = Frame.Text(text.encode())
    assert frame.decoded is None
    assert frame.text == frame.text == text
    assert frame.decoded == text


@pytest.mark.parametrize("text", ["x" * (KEPT_TEXT + 1), "é" * (KEPT_TEXT // 2) + "x"])
def test_a_long_text_is_not_kept(text: str) -> None:
    """It is known to be one, and made of the bytes each time."""
    assert Frame.Text(text).decoded is Unkept.TEXT
    frame = Frame.Text(text.encode())
    assert frame.text == frame.text == text
    assert frame.decoded is Unkept.TEXT


def test_a_text_with_reserved_bits_is_whole() -> None:
    """It has text like any other."""
    assert Frame.Text("x", rsv1=True).text == "x"


@pytest.mark.parametrize("data", [b"\xff", b"ab\xe2\x82", b"x" * KEPT_TEXT + b"\xff"])
def test_bytes_that_are_no_text_are_found_when_it_is_asked_for(data: bytes) -> None:
    """By each way to ask; nothing is known of them then."""
    frame = Frame.Text(data)
    for ask in (check_utf8, text_of, lambda frame: frame.text):
        with pytest.raises(UnicodeDecodeError):
            ask(frame)
    assert frame.decoded is None


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (b"", ""),
        ("é".encode(), "é"),
        (b"x" * KEPT_TEXT, "x" * KEPT_TEXT),
        (b"x" * (KEPT_TEXT + 1), Unkept.TEXT),
        ("é".encode() * KEPT_TEXT, Unkept.TEXT),
    ],
)
def test_bytes_that_are_a_text_are_known_to_be_one(data: bytes, known: str | Unkept) -> None:
    """A short one is kept."""
    frame = Frame.Text(data)
    check_utf8(frame)
    assert frame.decoded == known
    assert text_of(frame) == data.decode()


def test_what_is_known_is_not_looked_at_again() -> None:
    """A frame that was judged is not judged twice."""
    frame = frame_from_wire(Frame.Text, 0x81, b"\xff")
    frame.decoded = Unkept.TEXT
    check_utf8(frame)
    frame.decoded = "known"
    assert text_of(frame) == frame.text == "known"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", None),
        (b"\x03\xe8", CloseReason(1000)),
        (b"\x0f\xa0x", CloseReason(4000, "x")),
        (b"\x03", 1002),
        (b"\x03\xed", 1002),
        (b"\xe8\x03", 1002),
        (b"\x03\xe8\xff", 1007),
    ],
)
def test_a_close_that_may_not_be_sent_is_refused(payload: bytes, reason: CloseReason | int | None) -> None:
    """RFC 6455 §7.4: its length, its code, its text."""
    frame = frame_from_wire(Frame.Close, 0x88, payload)
    assert isinstance(frame, CloseFrame)
    if isinstance(reason, int):
        with pytest.raises(ProtocolError) as error:
            check_close(frame)
        assert error.value.close_code == reason
    else:
        assert check_close(frame) == reason


def test_a_type_is_named_for_errors() -> None:
    """Of any value."""
    assert [type_name(value) for value in (1, "x", None, Frame.Ping())] == ["int", "str", "NoneType", "PingFrame"]
