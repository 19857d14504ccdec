"""What waits to be written, in the order in which it goes out: `session.outgoing`, from the writer's side.

In the simplest case nothing waits: the first answer to a message goes straight to the socket
(`Writing.write_through`), without a queue, a task or a switch between tasks. Whatever cannot go that way opens the
channel, and with it comes the writer. Most connections of most servers never need either.

Who may write is one question, `is_wire_free`: as long as there is no channel there is no writer, and whoever
sends may write, in one step. From then on only the writer does, but while the channel itself shows it parked:
then nothing has been handed to it, and nothing is in its hands.

What waits is taken from two lanes, behind what was put aside (`engine.writing`): control frames (Pings, and the Pongs
we owe), then what sessions sent (`engine.pending`), and at the end the Close. So whatever was accepted before the end
goes out in order.
"""

from __future__ import annotations

import weakref
from typing import Protocol

import trio

from ..config import ChannelConfig, Overflow
from ..protocol.conversation import Conversation
from ..protocol.frames import CloseFrame
from .encoder import ChannelEnds, Encoder
from .flushes import Flushes
from .items import Item
from .pending import Pending
from .send_queue import Counted, SendQueue
from .streamed import StreamedMessage
from .transport import CHUNK
from .wire import Wire


class Writes(Protocol):
    """Who writes."""

    def wake(self) -> None:
        """There is something to write that cannot go straight out."""


class Owner(Protocol):
    """What an outbox sees of its connection."""

    @property
    def ends(self) -> ChannelEnds:
        """Its ends."""

    @property
    def writing(self) -> Writes:
        """Its writes."""


class Outbox:
    """The outgoing queue of one connection.

    Args:
      wire: what is written to.
      config: frames that may wait in the channel, and what happens beyond them.
      max_bytes: bytes that `session.send` lets wait.
      conversation: says what goes out by itself.

    Attributes:
      is_direct: there is no queue, and never was an end: sends may go past this.
      peak: the most that waited when the writer looked.
      pending: what sessions sent.
    """

    __slots__ = (
        "_config",
        "_connection",
        "_conversation",
        "_encoder",
        "_is_done",
        "_max_bytes",
        "flushes",
        "is_direct",
        "is_sealed",
        "peak",
        "pending",
        "wire",
    )

    def __init__(
        self, owner: Owner, wire: Wire, config: ChannelConfig, max_bytes: int, conversation: Conversation
    ) -> None:
        self._connection: Owner = weakref.proxy(owner)
        self.wire: Wire = wire
        self._config = config
        self._max_bytes = max_bytes
        self._conversation = conversation
        self._encoder: Encoder | None = None  # once the writer needs one
        self.flushes: Flushes = Flushes(taken=0 if wire.is_clear else 1)  # the answer to the handshake
        self.pending: Pending = Pending(conversation, self.flushes)
        self.is_direct: bool = True
        self.is_sealed: bool = False
        self._is_done = False
        self.peak: int = 0

    @property
    def waiting(self) -> int:
        """Frames that nobody has taken to be written yet."""
        return self.pending.waiting + self._conversation.is_goodbye_due

    def has_room_for(self, item: Counted) -> bool:
        """Whether the bytes of an item may wait; else `session.send` does, whatever the channel has room for."""
        return self.is_sealed or self.pending.queue is None or self.pending.queue.has_room_for(item)

    @property
    def is_to_close_when_full(self) -> bool:
        """Whether a full queue is the end, rather than something to wait for."""
        return self._config.on_overflow is Overflow.CLOSE

    @property
    def is_wire_free(self) -> bool:
        """Whether something may be written now, in one step, by whoever asks: nobody is writing."""
        return self.wire.is_clear if self.pending.queue is None else self.pending.queue.is_writer_parked

    @property
    def is_encoding(self) -> bool:
        """Whether a long message is in the middle of its extensions; `encode_on` does a slice of that."""
        return self._encoder is not None and self._encoder.steps is not None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to be written, but for what was put aside."""
        conversation = self._conversation
        if self._is_done:
            return True
        if self.is_direct and conversation.lane is None:  # nothing has ever been queued
            return self.wire.is_clear
        return self.is_wire_free and not (
            conversation.has_control or self.pending.backlog or conversation.is_goodbye_due
        )

    # the sending side

    @property
    def channel(self) -> trio.MemorySendChannel[Item]:
        """The sending end of the channel; opened, and its writer started, when first asked for."""
        return self._open().channel

    def _open(self) -> SendQueue:
        if self.pending.queue is None:
            self.open()
            if not self.is_sealed:
                self._connection.writing.wake()
        assert self.pending.queue is not None
        return self.pending.queue

    def open(self) -> None:
        """Open the channel: from now on there is a writer, and the wire is its own."""
        if self.pending.queue is None:
            if self.is_sealed and self.is_idle:
                self.note_done()  # there will be no writer to say so
            self.pending.queue = SendQueue(self._config.capacity, self._max_bytes, self._conversation.outgoing)
            if self.is_sealed:
                self.pending.queue.shut()
            self.is_direct = False

    def accept(self, item: Counted) -> bool:
        """Queue an item if there is room for it; False if there is not.

        Raises:
          trio.BrokenResourceError, trio.ClosedResourceError: nothing more is accepted, or this handle was closed.
        """
        queue = self.pending.queue or self._open()
        return (self.is_sealed or queue.has_room_for(item)) and queue.put(item)

    async def wait_for_room(self, item: Counted) -> None:
        """Queue an item once there is room for it, behind all who wait already. A checkpoint. Cancelled, it was not.

        It raises what `Outgoing.check` and `accept` raise.
        """
        await self._open().senders.wait(item)

    def note_taken(self, frames: int, unwritten: int) -> None:
        """So many frames were taken to be written, past the channel; so many bytes are not with the system yet."""
        self.flushes.taken += frames
        if self.pending.queue is not None:
            self.pending.queue.unwritten = unwritten

    async def flush(self) -> None:
        """Wait until all that was sent before is with the system, or the connection is over. A checkpoint."""
        if self.is_idle:
            await trio.lowlevel.checkpoint()
        elif self.is_sealed:
            await self.flushes.wait_for_all()
        else:
            queue = self.pending.queue
            ahead = 0 if queue is None else queue.is_handing_over + queue.waiting  # handed over, and not counted yet
            await self.flushes.wait(self.flushes.taken + ahead, self.pending.controls)

    # the end

    def seal(self, *, drop_queued: bool = False) -> CloseFrame | None:
        """Accept nothing more: what is accepted already goes out, up to a Close among it, which is returned.

        Who waits for room is accepted, too, unless what stands before him can't be finished.
        """
        if self.is_sealed:
            return None
        self.is_sealed = True
        self.is_direct = False
        return self.pending.seal(drop=drop_queued)

    def abandon(self) -> None:
        """Nothing will be written any more: refuse new sends, let go of those who wait."""
        if not self.is_sealed:
            self.seal(drop_queued=True)
        if self.pending.backlog is not None:
            self.pending.backlog.drop()
        if self._conversation.lane is not None:
            self._conversation.lane.drop()
        self._encoder = None
        self.note_done()

    def note_done(self) -> None:
        """Nothing is left to be written, and nothing more will come."""
        self._is_done = True
        self.flushes.release()

    # the writing side

    async def receive(self, pieces: list[bytes]) -> None:
        """Wait for something to write; what comes may stand in `pieces` or wait to be gathered.

        Raises:
          trio.EndOfChannel: the last handle on the channel was closed.
        """
        pending = self.pending
        if pending.stream is None:
            self.flushes.release()
        item = await pending.wait()
        queue = pending.queue
        if item is None or queue is None:
            return
        self.flushes.taken += 1
        self._look_at(queue)
        self._encode(item, pieces, 0)
        queue.unwritten = sum(map(len, pieces))
        queue.admit()

    def gather(self, pieces: list[bytes]) -> int:
        """Serialize what waits, up to about one chunk; returns the bytes of all pieces, about."""
        conversation, lane = self._conversation, self._conversation.lane
        if lane is not None and lane.is_waiting:
            self.flushes.controls_taken += lane.waiting
            conversation.outgoing.frames_sent += lane.take(conversation.serializer, pieces)
        size, ahead = sum(map(len, pieces)), len(pieces)
        queue = self.pending.queue
        if not size and queue is not None:
            self._look_at(queue)
        while size < CHUNK and not self.is_encoding:
            item = self.pending.take(at_start=not pieces)
            if item is None:
                if self.is_sealed and self.pending.stream is None:
                    conversation.add_goodbye(pieces)
                break
            start = len(pieces)
            ahead = self._encode(item, pieces, ahead)
            if len(pieces) > start:  # a head of a few bytes, and a payload
                size += len(pieces[-1]) + 4
        if queue is not None:
            queue.unwritten = size
            queue.admit()
        return size

    def _encode(self, item: Item, pieces: list[bytes], ahead: int) -> int:
        if type(item) is StreamedMessage:
            self.pending.stream = item
            item.reach(self.flushes.taken)
            return ahead
        if self._encoder is None:
            self._encoder = Encoder(self._connection.ends, self._conversation)
        return self._encoder.add(item, pieces, ahead, is_sealed=self.is_sealed)

    def encode_on(self, pieces: list[bytes]) -> None:
        """Do a slice of the work on a long message; the last appends its bytes."""
        assert self._encoder is not None
        self._encoder.step(pieces, is_sealed=self.is_sealed)

    def _look_at(self, queue: SendQueue) -> None:
        self.peak = max(self.peak, queue.waiting)
        if self.is_to_close_when_full and not self.is_sealed and queue.has_blocked_senders:
            self._connection.ends.overflowed()

    def note_written(self) -> None:
        """All pieces gathered so far are with the system."""
        if self.pending.queue is not None:
            self.pending.queue.unwritten = 0
        stream = self.pending.stream
        if not self.is_sealed:  # else whoever flushes waits for all that is left
            is_open = stream is not None and not stream.is_over
            self.flushes.note_written(is_open + self.is_encoding)
        if stream is not None:
            stream.flushes.note_written(0)
