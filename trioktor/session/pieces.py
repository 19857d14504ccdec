"""Messages that come in pieces: joined for `receive`, or given out one by one to `receive_message`."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from io import BytesIO

import trio

from ..protocol.errors import FrameTooBig
from ..protocol.first_byte import FIN
from ..protocol.frames import Frame, TextFrame, Unkept
from ..protocol.from_wire import frame_from_wire
from .streaming import IncomingMessage


class Pieces:
    """What one session has taken of the message that is arriving.

    Attributes:
      taking: the right to take pieces: one task at a time, or they would be shuffled.
      is_partway: a message was taken in part, and there is more of it to come.
    """

    __slots__ = ("_joining", "_kind", "_message", "is_partway", "taking")

    def __init__(self) -> None:
        self.taking: trio.Lock = trio.Lock()
        self.is_partway: bool = False
        self._message: weakref.ref[IncomingMessage] | None = None  # that is being received piece by piece
        self._joining: BytesIO | None = None  # the pieces that `receive` has so far
        self._kind: type[Frame] = Frame  # of the message that they are of

    def begin(self, first: Frame, receive: Callable[[IncomingMessage], Awaitable[Frame | None]]) -> IncomingMessage:
        """Give out a message piece by piece, from the first on."""
        self.note(first)
        message = IncomingMessage(first, receive)
        self._message = weakref.ref(message)  # it holds the session
        return message

    def is_of(self, message: IncomingMessage) -> bool:
        """Whether the next piece is one of this message."""
        return self._message is not None and self._message() is message and self.is_partway

    def note(self, frame: Frame) -> bool:
        """A piece was taken; whether it is the last of its message."""
        self.is_partway = frame.first_byte < FIN
        return not self.is_partway

    def skip(self, frame: Frame) -> None:
        """What is left of a message that was received in part is not wanted any more."""
        self.note(frame)
        self._message = None

    def add(self, frame: Frame, limit: int | None) -> Frame | None:
        """The whole message that a piece completes, or None.

        Raises:
          FrameTooBig: what is joined has more bytes than the limit.
        """
        if self.is_partway:
            self.skip(frame)
            return None
        is_last = frame.first_byte >= FIN
        if self._joining is None:
            if is_last:
                return frame
            self._joining, self._kind = BytesIO(), type(frame)
        self._joining.write(frame.data)
        size = self._joining.tell()
        if limit is not None and size > limit:
            raise FrameTooBig(size, limit)
        return self.joined(fin=FIN) if is_last else None

    def joined(self, *, fin: int) -> Frame | None:
        """What was joined until now, as one frame; None if that is nothing."""
        if self._joining is None:
            return None
        data = self._joining.getvalue()
        self._joining = None
        frame = frame_from_wire(self._kind, fin | self._kind.type.opcode, data)
        if self._kind is TextFrame:  # checked before, and cut between characters
            frame.decoded = Unkept.TEXT
        return frame
