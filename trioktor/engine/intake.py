"""What arrives, on its way into the inbox, as far as there is room.

Whoever reads (the poller, a reader's task, or the one that the socket is lent to) gives what was read to `take`, which
never waits. When it says no, nothing more may go on now, and the rest is in the iterator of the conversation: `finish`
waits until that has changed. Nothing more is read before it returns; that is the back-pressure. Before it waits the
connection looks up, so a Ping in front of a full queue is answered.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from ..config import WebSockets
from ..errors import ChannelOverflow
from ..protocol.close import CloseCode, CloseReason
from ..protocol.conversation import TURN, Conversation
from ..protocol.frames import Frame
from .ends import Ends
from .inbox import Inbox
from .stall import wait_for_room
from .transport import CHUNK, LONG_READ, READ, Transport

if TYPE_CHECKING:
    from ..protocol._native import Filling

_WORTH_A_PLACE: Final = CHUNK // 2
"""Bytes of a frame that have to be here before the rest is read to where it will stand, which makes room for it."""
_NOTHING: Final[Iterator[Frame | None]] = iter(())


class Owner(Protocol):
    """What an intake sees of its connection."""

    owner: Any
    ends: Ends
    settings: WebSockets
    transport: Transport
    inbox: Inbox
    conversation: Conversation

    def look_up(self) -> None:
        """Something happened in the conversation."""


class Intake:
    """What one connection has read and not handed on yet.

    Attributes:
      bytes_read: in all.
      target: what the next bytes may be read into, to be told to `take_filled`, if that is possible.
      on_input: called when the peer sent something, or was not listened to.
    """

    __slots__ = (
        "_connection",
        "_conversation",
        "_frames",
        "_inbox",
        "_is_full",
        "_seen",
        "_transport",
        "bytes_read",
        "on_input",
        "target",
    )

    def __init__(self, connection: Owner) -> None:
        self._connection: Owner = weakref.proxy(connection)
        self._conversation = connection.conversation
        self._inbox = connection.inbox
        self._transport = connection.transport
        self.on_input: Callable[[], None] | None = None
        self._frames: Iterator[Frame | None] = _NOTHING
        self._seen = 0  # frames of the conversation before the bytes in hand
        self._is_full = False  # it stopped because there was no room
        self.bytes_read: int = 0
        self.target: Filling | None = None

    def take(self, data: bytes) -> bool:
        """Hand on what was read; False if `finish` has to see to the rest of it before more may be read."""
        conversation = self._conversation
        if data:
            self.bytes_read += len(data)
            if self.on_input is not None:
                self.on_input()
            frame = conversation.receive_single(data)
            if frame is not None:
                self._inbox.is_batch = False
                is_done = self._inbox.offer(frame)
                if not is_done:
                    self._is_full = True
                    self._seen = conversation.frames_received - 1
            else:
                is_done = self._receive(data)
        else:
            conversation.closing.receive_eof()
            conversation.has_news = is_done = True
        if conversation.has_news:
            self._connection.look_up()
        return is_done

    def take_filled(self, count: int) -> bool:
        """As `take`, of so many bytes that were read into the target."""
        self.bytes_read += count
        if self.on_input is not None:
            self.on_input()
        self._conversation.parser.fill(count)
        is_done = self._receive(b"")
        if self._conversation.has_news:
            self._connection.look_up()
        return is_done

    def _receive(self, data: bytes) -> bool:
        conversation, inbox = self._conversation, self._inbox
        self._seen = conversation.frames_received
        if conversation.may_run(data):
            messages, data = conversation.receive_run(data, *inbox.room)
            if messages:
                self._is_full = not inbox.extend(messages)
                if self._is_full or self._seen | TURN != conversation.frames_received | TURN:
                    self._frames = conversation.receive(data)
                    return False
        self._frames = conversation.receive(data)
        return self._go_on()

    async def finish(self) -> None:
        """Wait, and hand on, until all that was read is handed on or the conversation is over. A checkpoint."""
        conversation = self._conversation
        while True:
            if self._is_full:
                await self._wait_for_room()
            else:
                await trio.lowlevel.checkpoint()
            is_done = conversation.closing.is_over or self._go_on()
            if conversation.has_news:
                self._connection.look_up()
            if is_done:
                return

    def lose(self, error: trio.BrokenResourceError) -> None:
        """Reading failed."""
        self._connection.ends.lose(error.__cause__ or error)

    def fail(self, error: Exception) -> None:
        """Handing on failed by a fault of an extension's, or ours: it is this connection's alone."""
        self._connection.ends.crashed(error)

    def _go_on(self) -> bool:
        """Hand on what is at hand; False if that has to wait."""
        conversation, inbox = self._conversation, self._inbox
        self._is_full = False
        for frame in self._frames:
            if frame is None:
                return False
            if not inbox.offer(frame):
                self._is_full = True
                return False
            if not conversation.frames_received & TURN:
                return False
        self._frames = _NOTHING
        return self._may_read_on(conversation.frames_received - self._seen)

    def _may_read_on(self, completed: int) -> bool:
        """What the bytes that were read completed decides how many are read next, and whether there is room."""
        inbox = self._inbox
        inbox.is_batch = completed > 1
        self.target = None
        if completed:
            self._transport.read_size = READ
            if inbox.is_batch:
                inbox.waiting  # noqa: B018  # keeps the peak
            return True
        # in the middle of a long message, or at the beginning
        conversation = self._conversation
        self._is_full = not inbox.has_room_beside(conversation.kept)
        parser = conversation.parser
        self._transport.read_size = LONG_READ if parser.missing >= LONG_READ else READ
        if parser.missing >= CHUNK and parser.kept >= _WORTH_A_PLACE:
            self.target = parser.target
        return not self._is_full

    async def _wait_for_room(self) -> None:
        connection = self._connection
        try:
            await wait_for_room(
                self._inbox, self._transport.hang_up, connection.settings.handler_grace, connection.owner
            )
            if self.on_input is not None:
                self.on_input()
        except ChannelOverflow as error:
            self._conversation.closing.violate(CloseReason(CloseCode.VIOLATED_POLICY), error)
            self._conversation.has_news = True
        except trio.BrokenResourceError as error:
            self.lose(error)
