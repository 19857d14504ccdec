"""The first byte of a frame: fin, three reserved bits and the opcode (RFC 6455 §5.2)."""

from __future__ import annotations

from enum import Enum
from typing import final

FIN = 0x80
RSV1 = 0x40
RSV2 = 0x20
RSV3 = 0x10
RESERVED = RSV1 | RSV2 | RSV3
CONTROL = 0x08
OPCODE = 0x0F
CONTINUATION = 0x0
WHOLE_TEXT = FIN | 0x1
WHOLE_BINARY = FIN | 0x2
MAX_CONTROL_BYTES = 125


@final
class FrameType(Enum):
    """The five kinds of frames; a continuation is shown as the type of the message it continues."""

    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA

    @property
    def opcode(self) -> int:
        """The four bits that name this type on the wire."""
        return self.value

    @property
    def is_control(self) -> bool:
        """Whether frames of this type may stand between the fragments of a message."""
        return self.value >= CONTROL
