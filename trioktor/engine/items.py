"""What the outgoing channel holds: messages, frames, messages in pieces and messages that many get."""

from __future__ import annotations

from typing import TypeAlias

import trio

from ..protocol.frames import BinaryFrame, CloseFrame, Frame, TextFrame
from ..protocol.prepared import PreparedMessage
from ..protocol.serializer import is_sendable
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


def drain(queue: trio.MemoryReceiveChannel[Item]) -> list[Item]:
    """Take everything out of a channel, what blocked senders wait to put there included."""
    items: list[Item] = []
    try:
        while True:
            items.append(queue.receive_nowait())
    except (trio.WouldBlock, trio.EndOfChannel):
        return items


def size(item: Frame | StreamedMessage | PreparedMessage) -> int:
    """The bytes of an item that count; those of a message in pieces have a bound of their own."""
    return 0 if type(item) is StreamedMessage else len(item.data)


def compose(items: list[Item]) -> tuple[list[Item], CloseFrame | None, bool]:
    """What of a sealed queue can go out, the Close that ends it, and whether nothing more can stand behind.

    Behind a Close, or a message in pieces that can't be finished any more, nothing can be said.
    """
    kept: list[Item] = []
    close: CloseFrame | None = None
    is_end = False
    for item in items:
        if type(item) is StreamedMessage:
            frames = item.seal()
            if not is_end:
                kept.extend(frames)
                is_end = item.has_begun and not item.is_finished
        elif is_end:
            continue
        elif isinstance(item, CloseFrame) and is_sendable(item):
            close = item
            is_end = True
        else:
            kept.append(item)
    return kept, close, is_end
