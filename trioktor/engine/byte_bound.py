"""The bytes that may wait in the outgoing queue, and who waits for room.

Sends through `session.send` are bounded in bytes; those through the channel itself are bounded only in number. So the
items that were counted are kept beside the channel, in its order: what comes out of it and stands first here is one
of them. What the writer has taken and not written yet counts as well, but for half of the limit at most: behind a
long message there has to be room for short ones.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias, final

from ..protocol.frames import Frame
from ..protocol.prepared import PreparedMessage
from .items import Item, size
from .streamed import StreamedMessage
from .waiting_room import WaitingRoom

Counted: TypeAlias = "Frame | StreamedMessage | PreparedMessage"


@final
class ByteBound:
    """What waits in one queue, in bytes.

    Args:
      most: bytes that may wait; one message always passes.

    Attributes:
      queued: bytes of the messages in the channel that were counted.
      unwritten: bytes that were taken to be written, and are not with the system yet.
      senders: tasks that wait for room, each with what it wants to send.
    """

    __slots__ = ("_counted", "_most", "queued", "senders", "unwritten")

    def __init__(self, most: int) -> None:
        self._most = most
        self._counted: deque[Frame | PreparedMessage] = deque()
        self.queued: int = 0
        self.unwritten: int = 0
        self.senders: WaitingRoom[Frame | StreamedMessage] = WaitingRoom()

    def has_room_for(self, item: Counted) -> bool:
        """Whether the bytes of an item may wait, behind those who wait already."""
        return not self.senders.waiters and self.fits(item)

    def fits(self, item: Counted) -> bool:
        """Whether the bytes of an item may wait."""
        half = self._most // 2
        if not self.queued and self.unwritten <= half:
            return True  # one message always passes
        return self.queued + min(self.unwritten, half) + size(item) <= self._most

    def count(self, item: Counted) -> None:
        """An item was put into the channel."""
        if not isinstance(item, StreamedMessage):  # its pieces have a bound of their own
            self._counted.append(item)
            self.queued += len(item.data)

    def uncount(self, item: Item) -> None:
        """An item left the channel: its bytes wait no more, if they were counted."""
        if self._counted and self._counted[0] is item:
            self.queued -= len(self._counted.popleft().data)

    def clear(self) -> None:
        """Nothing waits in the channel any more."""
        self._counted.clear()
        self.queued = 0
