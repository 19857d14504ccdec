"""Messages in pieces, for those that are too long to hold or that come into being slowly.

Both directions pass the back-pressure on. Sending: a piece is accepted once the writer has taken the one
before; other tasks' messages wait behind. Receiving: pieces are what arrived, about 64 KiB each at most (but for
what had come whole before, and what an extension reads), and wait in `incoming` like messages.
"""

from __future__ import annotations

import codecs
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import NoReturn, Self, final

import trio

from ..engine.streamed import StreamedMessage
from ..protocol.first_byte import FIN, FrameType
from ..protocol.frames import BinaryFrame, Frame, TextFrame, text_of

_new_decoder = codecs.getincrementaldecoder("utf-8")


@final
class OutgoingMessage:
    """One message, sent piece by piece: `async with session.message(FrameType.TEXT) as message`.

    Leaving the block ends the message. Left by an exception, cancellation included, the message cannot be
    ended truthfully: the conversation ends with 1011.
    """

    __slots__ = ("_decoder", "_end", "_is_left", "_queue", "_raise_over", "_streamed", "type")

    def __init__(
        self,
        kind: FrameType,
        queue: Callable[[StreamedMessage], Awaitable[None]],
        end: Callable[[StreamedMessage], None],
        raise_over: Callable[[], NoReturn],
    ) -> None:
        if kind is not FrameType.TEXT and kind is not FrameType.BINARY:
            raise ValueError(f"a message is of FrameType.TEXT or FrameType.BINARY, not {kind!r}")
        self._queue = queue
        self._end = end
        self._raise_over = raise_over
        self._streamed = StreamedMessage()
        self._is_left = False
        self._decoder = _new_decoder() if kind is FrameType.TEXT else None
        self.type: FrameType = kind

    async def __aenter__(self) -> Self:
        """Queue up behind what was sent before. Cancelled, it has sent nothing."""
        self._streamed.begin()
        await self._queue(self._streamed)
        return self

    async def send(self, piece: str | bytes) -> None:
        """Send a piece as a fragment: str or UTF-8 bytes of a Text message, bytes of a Binary one.

        Waits until the piece before has been taken to be written. Always a checkpoint.

        Raises:
          ConnectionClosed: the conversation is over, or being closed.
          TypeError, UnicodeDecodeError: this is no piece of such a message; nothing was sent.
          trio.ClosedResourceError: the block was left.
        """
        before = self._cut
        data = self._check(piece)
        after = self._cut
        try:
            await self._put(self._frame(data, fin=False) if data else None)
        except BaseException:  # it was not sent: what comes next does not follow it
            if self._decoder is not None and self._cut == after:
                self._decoder.setstate(before)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the message, or the conversation."""
        try:
            if error is None:
                if self._decoder is not None:
                    self._decoder.decode(b"", final=True)
                await self._put(self._frame(b"", fin=True))
        finally:
            self._is_left = True
            self._end(self._streamed)

    @property
    def _cut(self) -> tuple[bytes, int]:
        """What a text ends with that is no whole character."""
        return (b"", 0) if self._decoder is None else self._decoder.getstate()

    def _check(self, piece: str | bytes) -> bytes:
        if self._decoder is not None and isinstance(piece, str):
            piece = piece.encode()
        if not isinstance(piece, (bytes, bytearray, memoryview)):
            kinds = "bytes" if self._decoder is None else "str or bytes"
            raise TypeError(f"a piece of a {self.type.name} message is {kinds}, not {type(piece).__name__}")
        data = bytes(piece)
        if self._decoder is not None:
            before = self._cut
            try:
                self._decoder.decode(data)
            except UnicodeDecodeError:
                self._decoder.setstate(before)
                raise
        return data

    def _frame(self, data: bytes, *, fin: bool) -> Frame:
        return TextFrame(data, fin=fin) if self._decoder is not None else BinaryFrame(data, fin=fin)

    async def _put(self, frame: Frame | None) -> None:
        """Send a fragment; None is none, and only asks whether one could be sent."""
        if self._is_left:
            raise trio.ClosedResourceError
        try:
            if frame is not None or self._streamed.is_shut:
                await self._streamed.put(frame or self._frame(b"", fin=False))
            else:
                await trio.lowlevel.checkpoint()
        except trio.BrokenResourceError:
            self._raise_over()


@final
class IncomingMessage(trio.abc.ReceiveChannel["str | bytes"]):
    """One message, received piece by piece: `async for piece in await session.receive_message()`.

    Pieces are str of a Text message, bytes of a Binary one. What is not taken of a message is skipped when
    the next one is asked for.

    Attributes:
      type: Text or Binary.
      size: payload bytes in the pieces that were taken.
    """

    __slots__ = ("__weakref__", "_next", "_receive_piece", "is_complete", "size", "type")

    def __init__(self, first: Frame, receive_piece: Callable[[IncomingMessage], Awaitable[Frame | None]]) -> None:
        self._receive_piece = receive_piece
        self._next: Frame | None = first
        self.type: FrameType = first.type
        self.size: int = 0
        self.is_complete: bool = first.first_byte >= FIN

    async def receive(self) -> str | bytes:
        """Receive the next piece. Always a checkpoint. Cancelled, it has taken nothing.

        Raises:
          trio.EndOfChannel: that was the whole message.
          ConnectionBroken: the conversation ended in the middle of it, be it with a goodbye of the peer.
          trio.ClosedResourceError: somebody has asked for the next message, and what was left of this is gone.
        """
        while True:
            if self._next is not None or self.is_complete:
                await trio.lowlevel.checkpoint()
            frame, self._next = self._next, None
            if frame is None and not self.is_complete:
                frame = await self._receive_piece(self)
            if frame is None:
                raise trio.EndOfChannel
            if frame.data:
                self.size += len(frame.data)
                return text_of(frame) if type(frame) is TextFrame else frame.data

    async def skip(self) -> None:
        """Take what is left, and throw it away. Always a checkpoint."""
        async for _ in self:
            pass

    async def aclose(self) -> None:
        """As `skip`; what is gone already, because somebody has asked for the next message, is closed."""
        try:
            await self.skip()
        except trio.ClosedResourceError:
            pass
