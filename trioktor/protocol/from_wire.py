"""Makes frames from parts that were checked before, past their constructors: the parser's way."""

from __future__ import annotations

from .first_byte import OPCODE, WHOLE_BINARY, WHOLE_TEXT
from .frames import BinaryFrame, CloseFrame, Frame, PingFrame, PongFrame, TextFrame

FRAME_CLASSES: dict[int, type[Frame]] = {
    0x1: TextFrame,
    0x2: BinaryFrame,
    0x8: CloseFrame,
    0x9: PingFrame,
    0xA: PongFrame,
}
"""Frame classes by opcode; an opcode that is not here is reserved (RFC 6455 §5.2)."""


def frame_from_wire(kind: type[Frame], first_byte: int, data: bytes) -> Frame:
    """Make a frame from parts that the parser has checked, past the constructor."""
    frame = kind.__new__(kind)
    frame.first_byte = first_byte
    frame.data = data
    frame.decoded = None
    return frame


def message_from_wire(payload: bytes, text: str | int | None) -> Frame:
    """Make a whole Text frame of a payload and its text, or without a text a Binary one; or by its first byte."""
    frame: Frame
    if isinstance(text, int):
        return frame_from_wire(FRAME_CLASSES[text & OPCODE], text, payload)
    if text is None:
        frame = BinaryFrame.__new__(BinaryFrame)
        frame.first_byte = WHOLE_BINARY
    else:
        frame = TextFrame.__new__(TextFrame)
        frame.first_byte = WHOLE_TEXT
    frame.data = payload
    frame.decoded = text
    return frame
