"""What the outgoing channel holds: messages, frames, messages in pieces and messages that many get."""

from __future__ import annotations

from typing import TypeAlias

from ..protocol.frames import BinaryFrame, Frame, TextFrame
from ..protocol.prepared import PreparedMessage
from .streamed import StreamedMessage

Message: TypeAlias = "Frame | str | bytes"
"""What may be put into `outgoing`."""
Item: TypeAlias = "Message | StreamedMessage | PreparedMessage"
"""What the channel holds."""


def as_frame(message: object) -> Frame:
    """The frame that says a message.

    Raises:
      TypeError: it is neither a frame nor str nor bytes.
    """
    if isinstance(message, Frame):
        return message
    if isinstance(message, str):
        return TextFrame(message)
    if isinstance(message, (bytes, bytearray, memoryview)):
        return BinaryFrame(message)
    raise TypeError(f"a message is a Frame, str or bytes, not {type(message).__name__}")
