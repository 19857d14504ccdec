"""Makes frames from parts that were checked before, past their constructors: the parser's way."""

from __future__ import annotations

from typing import Final

from .first_byte import OPCODE
from .frames import KEPT_TEXT, BinaryFrame, CloseFrame, Frame, PingFrame, PongFrame, TextFrame
from .native import message

FRAME_CLASSES: dict[int, type[Frame]] = {
    0x1: TextFrame,
    0x2: BinaryFrame,
    0x8: CloseFrame,
    0x9: PingFrame,
    0xA: PongFrame,
}
"""Frame classes by opcode; an opcode that is not here is reserved (RFC 6455 §5.2)."""
MESSAGE_KINDS: Final = (TextFrame, BinaryFrame)
"""What the native part makes of short messages."""


def frame_from_wire(kind: type[Frame], first_byte: int, data: bytes) -> Frame:
    """Make a frame from parts that the parser has checked, past the constructor."""
    frame = kind.__new__(kind)
    frame.first_byte = first_byte
    frame.data = data
    frame.decoded = None
    return frame


def message_from_wire(first_byte: int, data: bytes) -> Frame:
    """Make a whole Text or Binary message; its text is known then if it is plain, short and UTF-8, or not yet."""
    if message is None or len(data) > KEPT_TEXT:
        return frame_from_wire(FRAME_CLASSES[first_byte & OPCODE], first_byte, data)
    made: Frame = message(first_byte, data, MESSAGE_KINDS)
    return made
