"""Frames past their constructors: they are what the constructors make of the same parts."""

from __future__ import annotations

import pytest

from trioktor.protocol.close import CloseReason
from trioktor.protocol.errors import UnexpectedFrame
from trioktor.protocol.first_byte import FrameType
from trioktor.protocol.frames import Frame
from trioktor.protocol.from_wire import FRAME_CLASSES, frame_from_wire, message_from_wire


def test_every_type_has_its_class() -> None:
    """By opcode; what is not there is reserved (RFC 6455 §5.2)."""
    assert {opcode: kind.type for opcode, kind in FRAME_CLASSES.items()} == {kind.opcode: kind for kind in FrameType}


@pytest.mark.parametrize(
    "frame",
    [
        Frame.Text("é"),
        Frame.Text(b"\xe2", fin=False),
        Frame.Text("x", rsv1=True, rsv2=True, rsv3=True),
        Frame.Binary(b"x"),
        Frame.Binary(b"", fin=False, rsv1=True),
        Frame.Close(),
        Frame.Close(CloseReason(1000, "bye")),
        Frame.Ping(b"x"),
        Frame.Pong(b"x" * 125),
    ],
)
def test_a_frame_of_parts_equals_one_that_was_constructed(frame: Frame) -> None:
    """Of its class, with its first byte and data; nothing is known of its text."""
    made = frame_from_wire(type(frame), frame.first_byte, frame.data)
    assert made == frame
    assert (type(made), made.first_byte, made.data) == (type(frame), frame.first_byte, frame.data)
    assert made.decoded is None


def test_a_continuation_is_shown_as_its_message() -> None:
    """The class says the type, also where the opcode on the wire is 0."""
    last = frame_from_wire(Frame.Text, 0x80, b"lo")
    assert (last.type, last.fin, last) == (FrameType.TEXT, True, Frame.Text("lo"))
    with pytest.raises(UnexpectedFrame):
        _ = last.text


def test_a_message_with_a_text_is_a_text() -> None:
    """Whose text is known, the empty one, too."""
    for text in ("é", ""):
        message = message_from_wire(text.encode(), text)
        assert message == Frame.Text(text)
        assert (message.first_byte, message.decoded, message.text) == (0x81, text, text)


def test_a_message_without_a_text_is_binary() -> None:
    """Whatever it holds."""
    message = message_from_wire(b"ab", None)
    assert message == Frame.Binary(b"ab")
    assert (message.first_byte, message.decoded) == (0x82, None)


@pytest.mark.parametrize("first_byte", [0x81, 0x82, 0xC1, 0xC2, 0xF1, 0xB2])
def test_a_message_may_be_named_by_its_first_byte(first_byte: int) -> None:
    """With its reserved bits; nothing is known of its text."""
    message = message_from_wire(b"ab", first_byte)
    assert type(message) is (Frame.Text if first_byte & 1 else Frame.Binary)
    assert (message.first_byte, message.data, message.decoded) == (first_byte, b"ab", None)
