"""Frames, close reasons and the closing table: values that explain and defend themselves."""

from __future__ import annotations

import pytest

from trioktor import CloseCode, CloseReason, Frame, FrameType, ProtocolError, UnexpectedFrame


def test_frames_show_their_parts() -> None:
    """Type, text, data, fin and the reserved bits."""
    frame = Frame.Text("hé", fin=False, rsv2=True)
    assert (FrameType.TEXT, "hé".encode(), False, False, True, False) == (
        frame.type, frame.data, frame.fin, frame.rsv1, frame.rsv2, frame.rsv3,
    )  # fmt: skip
    assert "<Frame TEXT fin=False, rsv2, 3 bytes>" == repr(frame)
    assert [(1, False), (2, False), (8, True), (9, True), (10, True)] == [(t.opcode, t.is_control) for t in FrameType]


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
        (lambda: Frame.Text(1), TypeError, "not int"),  # type: ignore[arg-type]
        (lambda: Frame.Binary("x"), TypeError, "not str"),  # type: ignore[arg-type]
        (lambda: Frame.Ping("x"), TypeError, "not str"),  # type: ignore[arg-type]
        (lambda: Frame.Close(1000), TypeError, "not int"),  # type: ignore[arg-type]
        (lambda: Frame.Ping(b"x" * 126), ValueError, "at most 125"),
        (lambda: Frame.Pong(b"x" * 126), ValueError, "at most 125"),
        (lambda: Frame.Text("\ud800"), ValueError, "surrogates"),
        (lambda: CloseReason(1000, "x" * 124), ValueError, "123 bytes"),
        (lambda: CloseReason(1000, "я" * 62), ValueError, "takes 124"),
        (lambda: CloseReason(1000, "\ud800"), ValueError, "surrogates"),
        (lambda: CloseReason(65536), ValueError, "two bytes"),
        (lambda: CloseReason("1000"), TypeError, "not str"),  # type: ignore[arg-type]
        (lambda: CloseReason(1000, b"x"), TypeError, "not bytes"),  # type: ignore[arg-type]
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


def test_reasons_name_their_codes() -> None:
    """Known codes by name, others by number; codes compare with plain numbers."""
    assert "CloseReason(NORMAL, 'bye')" == repr(CloseReason(CloseReason.Codes.NORMAL, "bye"))
    assert "CloseReason(4001, '')" == repr(CloseReason(4001))
    assert CloseCode.TOO_BIG is CloseReason(1009).known_code
    assert CloseReason(4001).known_code is None
    assert CloseReason(1000) == CloseReason(CloseCode.NORMAL)


@pytest.mark.parametrize(("data", "code"), [(b"\x03", 1002), (b"\x03\xe8\xff", 1007)])
def test_a_bad_close_payload_has_no_reason(data: bytes, code: int) -> None:
    """Reading it raises the violation that it is."""
    frame = Frame.Close()
    frame.data = data
    with pytest.raises(ProtocolError) as error:
        _ = frame.reason
    assert code == error.value.close_code


def test_the_registered_codes_have_their_numbers() -> None:
    """RFC 6455 §7.4.1 and the registry."""
    assert [1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015] == list(CloseCode)
    assert "TLS_HANDSHAKE" == CloseCode(1015).name


def test_a_code_is_any_number_of_two_bytes() -> None:
    """It may be named, if not sent."""
    assert (0, 0xFFFF) == (CloseReason(0).code, CloseReason(0xFFFF).code)
    for code in (-1, 0x10000):
        with pytest.raises(ValueError, match="two bytes"):
            CloseReason(code)
