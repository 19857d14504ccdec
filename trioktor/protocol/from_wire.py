"""Makes frames from parts that were checked before, past their constructors: the parser's way."""

from __future__ import annotations

from typing import Final

from .frames import BinaryFrame, CloseFrame, Frame, PingFrame, PongFrame, TextFrame

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
