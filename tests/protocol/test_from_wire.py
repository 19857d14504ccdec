"""Frames past their constructors: they are what the constructors make of the same parts."""

from __future__ import annotations

import pytest

from trioktor.protocol.close import CloseReason
from trioktor.protocol.errors import UnexpectedFrame
from trioktor.protocol.first_byte import FrameType
from trioktor.protocol.frames import KEPT_TEXT, Frame
from trioktor.protocol.from_wire import FRAME_CLASSES, MESSAGE_KINDS, frame_from_wire, message_from_wire
from trioktor.protocol.native import is_native


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


@pytest.mark.parametrize(
    "frame",
    [
        Frame.Text("é"),
        Frame.Text("x" * KEPT_TEXT),
        Frame.Text("x" * (KEPT_TEXT + 1)),
        Frame.Text(b"\xff"),
        Frame.Text(b"\xff", rsv1=True),
        Frame.Binary(b"x"),
        Frame.Binary(b"", rsv1=True),
    ],
)
def test_the_text_of_a_message_of_parts_may_be_known(frame: Frame) -> None:
    """Where it is plain, short and UTF-8, by the native part; else it is still to be judged."""
    made = message_from_wire(frame.first_byte, frame.data)
    assert (type(made), made.first_byte, made.data) == (type(frame), frame.first_byte, frame.data)
    is_known = is_native and frame.decoded is not None and frame.first_byte == 0x81 and len(frame.data) <= KEPT_TEXT
    assert made.decoded == (frame.decoded if is_known else None)


def test_a_continuation_is_shown_as_its_message() -> None:
    """The class says the type, also where the opcode on the wire is 0."""
    last = frame_from_wire(Frame.Text, 0x80, b"lo")
    assert (last.type, last.fin, last) == (FrameType.TEXT, True, Frame.Text("lo"))
    with pytest.raises(UnexpectedFrame):
        _ = last.text


def test_the_kinds_of_messages_are_text_and_binary() -> None:
    """In the order in which the native part wants them."""
    assert MESSAGE_KINDS == (Frame.Text, Frame.Binary)
