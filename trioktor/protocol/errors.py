"""The errors that have their cause in the bytes of a conversation.

::

    TrioktorError
    ├── ProtocolError          carries the close code it is answered with
    │   └── FrameTooBig        1009
    └── UnexpectedFrame        also an AttributeError

The errors that need a connection to exist (`ConnectionClosed` and below) are in `trioktor.errors`.
"""

from __future__ import annotations

from typing import final

from .close import CloseCode


class TrioktorError(Exception):
    """The root of every exception that trioktor defines."""


class ProtocolError(TrioktorError):
    """One side broke a rule of RFC 6455.

    `close_code` is the code that the rule asks for in the Close frame. The text is for logs: it never
    reaches the peer.
    """

    def __init__(self, message: str, close_code: int = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.close_code: int = close_code


@final
class FrameTooBig(ProtocolError):
    """A frame or message is longer than `max_frame_size`; known from its header, answered with 1009."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"{size} bytes are more than max_frame_size allows ({limit})", CloseCode.TOO_BIG)
        self.size: int = size
        self.limit: int = limit


@final
class UnexpectedFrame(TrioktorError, AttributeError):
    """A frame of another kind than the handler asked for, such as `.text` of a Binary frame.

    Leaving a handler, it closes the conversation with 1003: the peer sent what is not served here.
    """
