"""The channel `session.outgoing`, the bytes that may wait in it, and who waits for room.

Sends through `session.send` are bounded in bytes; those through the channel itself are bounded only in number. So the
items that were counted are kept beside the channel, in its order: what comes out of it and stands first here is one
of them. What the writer has taken and not written yet counts as well, but for half of the limit at most: behind a
long message there has to be room for short ones.

Whoever waits for room waits in a `WaitingRoom` beside the channel; whoever makes room accepts it there, in
his own step.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias, final

import trio

from ..protocol.errors import ProtocolError
from ..protocol.frames import Frame
from ..protocol.outgoing import Outgoing
from ..protocol.prepared import PreparedMessage
from .items import Item
from .streamed import StreamedMessage
from .waiting_room import WaitingRoom

Counted: TypeAlias = "Frame | StreamedMessage | PreparedMessage"


def size(item: Counted) -> int:
    """The bytes of an item that count; those of a message in pieces have a bound of their own."""
    return 0 if type(item) is StreamedMessage else len(item.data)


@final
class SendQueue:
    """What waits to be written.

    Args:
      capacity: items that may wait.
      most: bytes that may wait; one message always passes.
      outgoing: says what may stand behind what.

    Attributes:
      channel: the sending end; of the engine's handles it is the only one, so that closing the last can be seen.
      queued: bytes of the messages in the channel that were counted.
      unwritten: bytes that were taken to be written, and are not with the system yet.
      senders: tasks that wait for room, each with what it wants to send.
    """

    __slots__ = (
        "_counted",
        "_is_receiving",
        "_most",
        "_outgoing",
        "_receiver",
        "channel",
        "queued",
        "senders",
        "unwritten",
    )

    def __init__(self, capacity: float, most: int, outgoing: Outgoing) -> None:
        self.channel: trio.MemorySendChannel[Item]
        self._receiver: trio.MemoryReceiveChannel[Item]
        self.channel, self._receiver = trio.open_memory_channel[Item](capacity)
        self._most = most
        self._outgoing = outgoing
        self._counted: deque[Frame | PreparedMessage] = deque()
        self._is_receiving = False  # the writer is in `receive`
        self.queued: int = 0
        self.unwritten: int = 0
        self.senders: WaitingRoom[Counted] = WaitingRoom()

    # what waits

    @property
    def waiting(self) -> int:
        """Items in the channel."""
        return self._receiver.statistics().current_buffer_used

    @property
    def has_blocked_senders(self) -> bool:
        """Whether somebody waits at the channel itself to put something in."""
        return self._receiver.statistics().tasks_waiting_send > 0

    @property
    def is_writer_parked(self) -> bool:
        """Whether the writer waits for an item, and none has been handed to it."""
        return self._receiver.statistics().tasks_waiting_receive > 0

    @property
    def is_handing_over(self) -> bool:
        """Whether an item was handed to the writer, which has not run yet."""
        return self._is_receiving and not self.is_writer_parked

    # the sending side

    def has_room_for(self, item: Counted) -> bool:
        """Whether the bytes of an item may wait, behind those who wait already."""
        return not self.senders.waiters and self._fits(item)

    def _fits(self, item: Counted) -> bool:
        half = self._most // 2
        if not self.queued and self.unwritten <= half:
            return True  # one message always passes
        return self.queued + min(self.unwritten, half) + size(item) <= self._most

    def put(self, item: Counted) -> bool:
        """Put an item in; False if the channel has no room for it.

        Raises:
          trio.BrokenResourceError, trio.ClosedResourceError: it is shut, or this handle was closed.
        """
        try:
            self.channel.send_nowait(item)
        except trio.WouldBlock:
            return False
        if not isinstance(item, StreamedMessage):  # its pieces have a bound of their own
            self._counted.append(item)
            self.queued += len(item.data)
        return True

    def admit(self) -> None:
        """Accept what waits for room, as far as there is some."""
        senders = self.senders
        while senders.waiters and self._fits(senders.first):
            item = senders.first
            try:
                self._outgoing.check(item)
                if not self.put(item):
                    return
            except (ProtocolError, UnicodeDecodeError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                senders.refuse(error)
            else:
                self._outgoing.note_accepted(item)
                senders.accept()

    # the writer's side

    def take(self) -> Item:
        """Take the next item.

        Raises:
          trio.WouldBlock: there is none, or `shut` was called.
        """
        try:
            item = self._receiver.receive_nowait()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise trio.WouldBlock from None
        self._uncount(item)
        return item

    async def receive(self) -> Item:
        """Wait for the next item, and take it. A checkpoint.

        Raises:
          trio.EndOfChannel: the last handle was closed.
          trio.ClosedResourceError: `shut` was called.
        """
        try:
            self._is_receiving = True
            item = await self._receiver.receive()
        finally:
            self._is_receiving = False
        self._uncount(item)
        return item

    def _uncount(self, item: Item) -> None:
        """An item left the channel: its bytes wait no more, if they were counted."""
        if self._counted and self._counted[0] is item:
            self.queued -= len(self._counted.popleft().data)

    # the end

    def shut(self) -> list[Item]:
        """Accept nothing more; returns what waits, with what blocked senders wait to put there."""
        items: list[Item] = []
        try:
            while True:
                items.append(self.take())
        except trio.WouldBlock:
            pass
        self._receiver.close()
        self._counted.clear()
        self.queued = 0
        return items

    def accept_rest(self) -> list[Item]:
        """Accept those who wait for room, in spite of there being none: it is the end."""
        senders = self.senders
        accepted: list[Item] = []
        while senders.waiters:
            item = senders.first
            try:
                self._outgoing.check(item)
            except (ProtocolError, UnicodeDecodeError) as error:
                senders.refuse(error)
                continue
            if type(item) is StreamedMessage:
                senders.refuse(trio.BrokenResourceError("nothing is accepted any more"))
            else:
                self._outgoing.note_accepted(item)
                accepted.append(senders.accept())
        return accepted
