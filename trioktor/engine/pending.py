"""What was accepted and is not taken to be written yet.

It is in up to three places, emptied in this order: the message in pieces that is going out, the backlog, the queue.
The backlog exists only once the outbox is sealed: everything is moved there out of the queue, which also completes the
sends that were blocked on it. Normally an item waits in one place only.

A message that is sent piece by piece is one item of the queue (`streamed`): while it is open, it is what the writer
takes from, and the queue waits. If it can't be finished, nothing behind it can be said either.

Trio hands what is put into a channel straight to the task that is parked on it, one pass before that runs. If the
outbox is sealed in that pass, the item is in nobody's sight; it stands before all that was found then, and is put
there when the writer has its turn.
"""

from __future__ import annotations

import trio

from ..protocol.conversation import Conversation
from ..protocol.frames import CloseFrame
from ..protocol.serializer import is_sendable
from .flushes import Flushes
from .items import Item
from .send_queue import SendQueue
from .streamed import StreamedMessage


class Pending:
    """What waits on one connection.

    Attributes:
      stream: the message in pieces that is going out.
      queue: once the channel was asked for.
      backlog: once the outbox is sealed, if something waited.
    """

    __slots__ = ("_conversation", "_flushes", "backlog", "queue", "stream")

    def __init__(self, conversation: Conversation, flushes: Flushes) -> None:
        self._conversation = conversation
        self._flushes = flushes
        self.stream: StreamedMessage | None = None
        self.queue: SendQueue | None = None
        self.backlog: Backlog | None = None

    @property
    def waiting(self) -> int:
        """Items, and pieces, that nobody has taken yet."""
        queued = self.queue.waiting if self.queue is not None else 0
        backlog = len(self.backlog) if self.backlog is not None else 0
        return queued + backlog + (self.stream.waiting if self.stream is not None else 0)

    @property
    def size(self) -> int:
        """Bytes of what was put into the queue that are not with the system yet."""
        return 0 if self.queue is None else self.queue.queued + self.queue.unwritten

    @property
    def controls(self) -> int:
        """Control frames that were sent in all, those that wait included."""
        return self._flushes.controls_taken + self._conversation.control.waiting

    @property
    def controls_unwritten(self) -> int:
        """Control frames that were sent and are not with the system yet."""
        return self.controls - self._flushes.controls_written

    async def wait_for_controls(self, most: int) -> None:
        """Wait until no more than so many of those that were sent are unwritten, or the connection is over."""
        await self._flushes.wait(0, self.controls - most)

    @property
    def is_writer_parked(self) -> bool:
        """Whether the writer waits for something, and nothing has been handed to it."""
        if self.stream is not None:
            return self.stream.is_awaited
        return self.queue is not None and self.queue.is_writer_parked

    def take(self, *, at_start: bool) -> Item | None:
        """Take the next item, and count it; None if there is none now.

        Args:
          at_start: nothing was gathered that has to be written first.
        """
        while self.stream is not None:
            piece = self.stream.take()
            if piece is not None:
                return piece  # its message was counted
            if not at_start or not self.stream.is_over:
                return None
            self.stream = None
        item: Item | None = None
        if self.backlog:
            item = self.backlog.take()
        elif self.queue is not None:
            try:
                item = self.queue.take()
            except trio.WouldBlock:
                pass
        self._flushes.taken += item is not None
        return item

    async def wait(self) -> Item | None:
        """Wait for the next item, and take it; None: there is something to be taken, or nothing more will come.

        Raises:
          trio.EndOfChannel: the last handle of the channel was closed.
        """
        if self.stream is not None:
            await self.stream.wait()
            return None
        assert self.queue is not None
        try:
            item = await self.queue.receive()
        except trio.ClosedResourceError:
            return None  # sealed
        if self.backlog is None:
            return item
        close = self.backlog.put_before(item)
        if close is not None:
            self._conversation.closing.precede(close)  # it was put in before the end: the first reason stands
        return None

    def seal(self, *, drop: bool) -> CloseFrame | None:
        """Move everything to the backlog; returns the Close that stands among it, and ends it.

        Who waits for room is accepted, too, unless what stands before him can't be finished.
        """
        items: list[Item] = [] if self.stream is None else [self.stream]
        self.stream = None
        if self.queue is not None:
            items.extend(self.queue.shut())
        elif not items:
            return None
        self.backlog = Backlog(items, drop=drop)
        if self.queue is not None:
            if not self.backlog.is_final and not drop:
                self.backlog.extend(self.queue.accept_rest())
            self.queue.senders.refuse_all()
        return self.backlog.close


class Backlog:
    """The rest of a sealed outbox.

    Args:
      items: what waited.
      drop: whether that is not to be written any more.

    Attributes:
      close: the Close among the items: it is the end of them.
      is_final: nothing more can stand behind the items.
    """

    __slots__ = ("_is_dropping", "_items", "close", "is_final")

    def __init__(self, items: list[Item], *, drop: bool) -> None:
        self.close: CloseFrame | None
        self.is_final: bool
        kept, self.close, self.is_final = _compose(items)
        self._is_dropping = drop
        self._items: list[Item] = [] if drop else kept[::-1]  # the next one last

    def __len__(self) -> int:
        return len(self._items)

    def extend(self, items: list[Item]) -> None:
        """What was accepted last."""
        self._items[:0] = items[::-1]

    def put_before(self, item: Item) -> CloseFrame | None:
        """Put in front what had been handed to the writer, unseen, at the end; returns it if it is a Close."""
        kept, close, is_final = _compose([item])
        if self._is_dropping:
            return None
        if is_final:
            self._items.clear()
        self._items.extend(reversed(kept))
        return close

    def take(self) -> Item:
        """Take the next item; there has to be one."""
        return self._items.pop()

    def drop(self) -> None:
        """Nothing will be written any more."""
        self._is_dropping = True
        self._items.clear()


def _compose(items: list[Item]) -> tuple[list[Item], CloseFrame | None, bool]:
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
