"""A transport over somebody else's WebSocket, who gives and takes whole messages: an ASGI server, trio-websocket.

Theory of operation. Everything above a transport is about bytes, and about what may go wrong with bytes. So that all of
it holds here, too (order, cancellation, back-pressure, how a conversation ends), messages are written as the frames of
a client on their way in, and what we write is read as frames and handed over as messages on its way out. The price is
the heads of those frames; the payload is copied once. The other one speaks the real protocol: he answers Pings and
joins fragments, and when he tells of a Close he has answered it already, so that nothing can be said behind it.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import Protocol, final

import trio

from ..config import Supports
from ..protocol.close import CloseReason, may_be_sent
from ..protocol.conversation import Conversation
from ..protocol.frames import CloseFrame, Frame
from ..protocol.halves import Theirs
from ..protocol.serializer import head
from .transport import HangUp, Transport

logger: logging.Logger = logging.getLogger("trioktor.session")

_NO_KEY = bytes(4)
"""A masking key that changes nothing."""


class Messages(Protocol):
    """What somebody else's WebSocket has to be able to do.

    Attributes:
      close_timeout: seconds for which `send` of our Close waits for the peer's, beside what handing it over takes.
    """

    close_timeout: float

    @abstractmethod
    async def receive(self) -> Frame | None:
        """Wait for a Text, a Binary, or the peer's Close; None if it has gone without one."""

    @abstractmethod
    async def send(self, message: Frame) -> None:
        """Hand over a Text, a Binary, or our Close.

        Raises:
          trio.BrokenResourceError: the peer has gone.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Drop the connection, as far as that can be done."""


def close_frame(code: int, text: str | None) -> CloseFrame:
    """The Close that somebody else tells of; one without a code, if no peer can have said that."""
    if not may_be_sent(code):
        return CloseFrame()
    try:
        return CloseFrame(CloseReason(code, text or ""))
    except ValueError:  # too long a text
        return CloseFrame(CloseReason(code))


@final
class MessageTransport(Transport):
    """The frames of a conversation over messages.

    Args:
      max_size: bytes of the longest message that is sent in pieces: they are joined here; None is no limit.
    """

    __slots__ = ("_is_ended", "_max_size", "_messages", "_said", "client", "is_local", "is_secure", "supports")

    def __init__(
        self,
        messages: Messages,
        supports: Supports,
        *,
        client: tuple[str, int] | str | None,
        is_secure: bool,
        max_size: int | None,
    ) -> None:
        super().__init__()
        self._messages = messages
        self._said = Conversation(client=True)  # reads what we say
        self._max_size = max_size
        self._is_ended = False  # the peer has said Close, or has gone
        self.supports: Supports = supports
        self.client: tuple[str, int] | str | None = client
        self.is_local: bool = False
        self.is_secure: bool = is_secure

    async def receive(self) -> bytes:
        if self._is_ended:
            await trio.lowlevel.checkpoint()
            return b""
        message = await self._messages.receive()
        self._is_ended = message is None or isinstance(message, CloseFrame)
        if message is None:
            return b""
        return head(message.first_byte, len(message.data), 0x80) + _NO_KEY + message.data

    async def send(self, data: bytes | memoryview) -> None:
        said = self._said
        with trio.CancelScope() as scope:
            for message in said.receive(bytes(data)):
                if message is not None:
                    await self._hand_over(message, scope)
            if said.closing.theirs is Theirs.CLOSED:
                reason = said.closing.received
                assert reason is not None
                await self._hand_over(CloseFrame(None if reason.code == 1005 else reason), scope)
        if scope.cancelled_caught:
            raise self.timed_out()
        if self._max_size is not None and said.kept - said.parser.kept > self._max_size:
            error = f"a message that is sent in pieces is longer than max_frame_size, {self._max_size} bytes"
            logger.error("%s: here it has to be joined, which is too much", error)
            raise trio.BrokenResourceError(error)

    async def _hand_over(self, message: Frame, scope: trio.CancelScope) -> None:
        if self._is_ended:
            raise trio.BrokenResourceError("the peer has said goodbye, and was answered")
        if self.write_timeout is not None:
            answer = self._messages.close_timeout if isinstance(message, CloseFrame) else 0
            scope.deadline = trio.current_time() + self.write_timeout + answer
        await self._messages.send(message)
        self.progressed()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    def hang_up(self) -> HangUp:
        return HangUp.FULL if self._is_ended else HangUp.NO

    async def aclose(self) -> None:
        self._is_ended = True
        await self._messages.aclose()
