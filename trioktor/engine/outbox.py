"""What waits to be written, in the order in which it goes out: `session.outgoing`, from the writer's side.

In the simplest case nothing waits: the first answer to a message goes straight to the socket
(`write_through`), without a queue, a task or a switch between tasks. Whatever cannot go that way opens the
channel, and with it comes the writer. Most connections of most servers never need either.

Who may write is one question, `is_wire_free`: as long as there is no channel there is no writer, and whoever
sends may write, in one step. From then on only the writer does, but while the channel itself shows it parked:
then nothing has been handed to it, and nothing is in its hands.

What waits is in three places, emptied in this order: the control lane (Pings, and the Pongs we owe), the
backlog, the channel. The backlog exists only once the outbox is sealed: `seal` moves everything out of the
channel, which also completes the sends that were blocked on it, and shuts the channel; the Close comes behind
the rest. So whatever was accepted before the end goes out in order, and then the Close, with no second queue
on the way of a frame in normal times.

Trio hands what is put into a channel straight to the task that is parked on it, one pass before that runs. If the
outbox is sealed in that pass, the item is in nobody's sight; it stands before all that `seal` found, and is put
there when the writer has its turn (`_put_before`).

A message that is sent piece by piece is one item of the channel (`streamed`): while it is open, it is what
the writer takes from, and the channel waits. If it can't be finished, nothing behind it can be said either.

The engine holds no send handle of the channel, so that closing the last one can be seen. Sends through
`session.send` are bounded in bytes, too, and wait in a room of their own; those through the channel itself are
bounded only in number. What the writer has taken and not written yet counts as well, but for half of the limit at
most: behind a long message there has to be room for short ones.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Protocol

import trio

from ..config import ChannelConfig, Overflow
from ..protocol.conversation import Conversation
from ..protocol.errors import ProtocolError
from ..protocol.extensions import Steps
from ..protocol.frames import (
    CONTROL,
    FIN,
    RESERVED,
    CloseFrame,
    Frame,
    FrameType,
    TextFrame,
    judge_utf8,
)
from ..protocol.prepared import PreparedMessage
from .flushes import Flushes
from .items import Item, as_frame, compose, drain, size
from .streamed import StreamedMessage
from .transport import CHUNK
from .waiting_room import WaitingRoom
from .wire import Wire

_NOBODY: Final[WaitingRoom[Any]] = WaitingRoom()
_NONE: Final[deque[Any]] = deque()
_EMPTY: Final[list[Any]] = []
"""What an outbox without a channel has, like all others: nothing is ever put there."""


class Owner(Protocol):
    """What an outbox tells its connection."""

    def close_frame_sent(self, frame: CloseFrame) -> None:
        """A Close came out of the channel."""

    def close_frame_overtaken(self, frame: CloseFrame) -> None:
        """A Close that was put into the channel before the outbox was sealed came to light only now."""

    def misused(self, error: ProtocolError) -> None:
        """Something came out of the channel that may not be sent."""

    def crashed(self, error: Exception) -> None:
        """An extension failed at a message."""

    def overflowed(self) -> None:
        """More was put in than there is room for, and that is to be the end."""

    def need_writer(self) -> None:
        """There is something to write that cannot go straight out."""

    def take_kept(self, pieces: list[bytes]) -> None:
        """Append what was put aside, in front of everything else."""


class Outbox:
    """The outgoing queue of one connection.

    Args:
      owner: the connection.
      wire: what is written to.
      config: frames that may wait in the channel, and what happens beyond them.
      max_bytes: bytes that `session.send` lets wait.
      conversation: says what goes out by itself.

    Attributes:
      queued_bytes: bytes of the messages in the channel that `accept` put there.
      opened: the kind of the message whose fragments were accepted from sessions, until its last one.
    """

    __slots__ = (
        "_backlog",
        "_config",
        "_conversation",
        "_counted",
        "_encoding",
        "_is_done",
        "_is_dropping",
        "_is_receiving",
        "_outgoing",
        "_owner",
        "_queue",
        "_senders",
        "_stream",
        "_unwritten",
        "_wire",
        "flushes",
        "is_sealed",
        "max_bytes",
        "opened",
        "peak",
        "queued_bytes",
        "send_channel",
    )

    def __init__(
        self,
        owner: Owner,
        wire: Wire,
        config: ChannelConfig,
        max_bytes: int,
        conversation: Conversation,
    ) -> None:
        self._owner = owner
        self._wire = wire
        self._config = config
        self._conversation = conversation
        self._outgoing = conversation.outgoing
        # what waits
        self.send_channel: trio.MemorySendChannel[Item] | None = None  # once `channel` was asked for
        self._queue: trio.MemoryReceiveChannel[Item] | None = None
        self._stream: StreamedMessage | None = None  # the one that is going out
        self._encoding: Steps | None = None  # of a long message that is under way
        self._is_receiving = False  # the writer is in `receive`
        self._senders: WaitingRoom[Frame | StreamedMessage] = _NOBODY  # until there is a channel
        self.max_bytes: int = max_bytes
        self.queued_bytes: int = 0
        self._unwritten = 0  # bytes that were taken to be written, and are not with the system yet
        self._counted: deque[Frame | PreparedMessage] = _NONE  # whose bytes these are
        self.opened: FrameType | None = None
        # the end
        self.is_sealed: bool = False
        self._is_dropping = False  # what waited when it was sealed
        self._backlog: list[Item] = _EMPTY  # the next item last
        self._is_done = False
        # what was
        self.flushes: Flushes = Flushes(taken=0 if wire.is_clear else 1)  # the answer to the handshake
        self.peak: int = 0  # of what waited when the writer looked

    @property
    def waiting(self) -> int:
        """Frames that nobody has taken to be written yet."""
        queued = self._queue.statistics().current_buffer_used if self._queue is not None else 0
        backlog = len(self._backlog) + self._conversation.is_goodbye_due
        return queued + backlog + (self._stream.waiting if self._stream is not None else 0)

    def has_room_for(self, item: Frame | StreamedMessage | PreparedMessage) -> bool:
        """Whether the bytes of an item may wait; else `session.send` does, whatever the channel has room for."""
        return self.is_sealed or (not self._senders.waiters and self._fits(size(item)))

    def _fits(self, size: int) -> bool:
        half = self.max_bytes // 2
        if not self.queued_bytes and self._unwritten <= half:
            return True  # one message always passes
        return self.queued_bytes + min(self._unwritten, half) + size <= self.max_bytes

    @property
    def is_to_close_when_full(self) -> bool:
        """Whether a full queue is the end, rather than something to wait for."""
        return self._config.on_overflow is Overflow.CLOSE

    @property
    def is_wire_free(self) -> bool:
        """Whether something may be written now, in one step, by whoever asks: nobody is writing."""
        return self._wire.is_clear if self._queue is None else self._is_parked

    @property
    def _is_parked(self) -> bool:
        """Whether the writer waits on the channel, and nothing has been handed to it."""
        return self._queue is not None and self._queue.statistics().tasks_waiting_receive > 0

    @property
    def is_writer_parked(self) -> bool:
        """Whether the writer waits for something to write, and nothing has been handed to it."""
        return self._stream.is_awaited if self._stream is not None else self._is_parked

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to be written, but for what was put aside."""
        if self._is_done:
            return True
        conversation = self._conversation
        is_nothing_ahead = not (conversation.has_control or self._backlog or conversation.is_goodbye_due)
        return is_nothing_ahead and self.is_wire_free

    # the sending side

    @property
    def channel(self) -> trio.MemorySendChannel[Item]:
        """The sending end of the channel; opened, and its writer started, when first asked for."""
        if self.send_channel is None:
            self.open()
            if not self.is_sealed:
                self._owner.need_writer()
        assert self.send_channel is not None
        return self.send_channel

    def open(self) -> None:
        """Open the channel: from now on there is a writer, and the wire is its own."""
        if self._queue is None:
            if self.is_sealed and self.is_idle:
                self.note_done()  # there will be no writer to say so
            self._senders, self._counted = WaitingRoom(), deque()
            self.send_channel, self._queue = trio.open_memory_channel[Item](self._config.capacity)
            if self.is_sealed:
                self._queue.close()

    def check(self, item: Item) -> None:
        """Refuse what may not be sent behind what was accepted.

        Raises:
          ProtocolError: a reserved bit without its extension, or a message inside another one's fragments.
          UnicodeDecodeError: a Text message that is not UTF-8.
        """
        if isinstance(item, Frame):
            if item.first_byte & RESERVED & ~self._outgoing.free_bits:
                raise ProtocolError(f"{item!r}: a reserved bit needs an extension that uses it")
            if item.first_byte & CONTROL:
                return
            if self.opened is None:
                if isinstance(item, TextFrame) and item.first_byte >= FIN and not item.first_byte & RESERVED:
                    judge_utf8(item)
                return
            if self.opened is item.type:
                return
        if self.opened is not None:
            raise ProtocolError(f"{item!r}: finish the fragmented {self.opened.name} message first")

    def accept(self, item: Frame | StreamedMessage | PreparedMessage) -> bool:
        """Queue an item if there is room for it; False if there is not.

        Raises:
          trio.BrokenResourceError, trio.ClosedResourceError: nothing more is accepted, or this handle was closed.
        """
        if type(item) is StreamedMessage:
            if not self.has_room_for(item):
                return False
            size = 0
        else:  # the hot path: no call that can be done without
            size = self.queued_bytes + len(item.data)
            if (size + self._unwritten > self.max_bytes or self._senders.waiters) and not self.has_room_for(item):
                return False
        try:
            (self.send_channel or self.channel).send_nowait(item)
        except trio.WouldBlock:
            return False
        if type(item) is not StreamedMessage:
            self._counted.append(item)
            self.queued_bytes = size
        return True

    async def wait_for_room(self, item: Frame | StreamedMessage) -> None:
        """Queue an item once there is room for it, behind all who wait already.

        A checkpoint. Cancelled, it was not queued.

        Raises:
          trio.BrokenResourceError, trio.ClosedResourceError: as `accept`.
          ProtocolError, UnicodeDecodeError: it may not stand behind what was accepted before it.
        """
        self.channel  # noqa: B018  # there has to be one
        await self._senders.wait(item)

    def _admit(self) -> None:
        """Accept what waits for room, as far as there is some."""
        while self._senders.waiters and self._fits(size(self._senders.first)):
            item = self._senders.first
            try:
                self.check(item)
                self.channel.send_nowait(item)
            except trio.WouldBlock:
                return
            except (ProtocolError, UnicodeDecodeError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._senders.refuse(error)
            else:
                if type(item) is not StreamedMessage:
                    self._counted.append(item)
                    self.queued_bytes += len(item.data)
                self.note_accepted(item)
                self._senders.accept()

    def note_taken(self, frames: int, unwritten: int) -> None:
        """So many frames were taken to be written, past the channel; so many bytes are not with the system yet."""
        self.flushes.taken += frames
        self._unwritten = unwritten

    def note_accepted(self, item: Item) -> None:
        """Keep in mind which message is open behind a fragment, or a message, that was accepted."""
        if isinstance(item, Frame) and not item.first_byte & CONTROL:
            self.opened = None if item.first_byte >= FIN else item.type

    async def flush(self) -> None:
        """Wait until all that was sent before is with the system, or the connection is over. A checkpoint."""
        if self.is_idle:
            await trio.lowlevel.checkpoint()
        elif self.is_sealed:
            await self.flushes.wait_for_all()
        else:
            in_hand = self._is_receiving and not self._is_parked  # handed over, and not counted yet
            queued = self._queue.statistics().current_buffer_used if self._queue is not None else 0
            controls = self.flushes.controls_taken + self._conversation.control.waiting
            await self.flushes.wait(self.flushes.taken + in_hand + queued, controls)

    # the end

    def seal(self, *, drop_queued: bool = False) -> CloseFrame | None:
        """Accept nothing more: what is accepted already goes out, up to a Close among it, which is returned.

        Who waits for room is accepted, too, unless what stands before him can't be finished.
        """
        if self.is_sealed:
            return None
        self.is_sealed = True
        self._is_dropping = drop_queued
        items: list[Item] = [] if self._stream is None else [self._stream]
        self._stream = None
        if self._queue is not None:
            items.extend(drain(self._queue))
            self._queue.close()
        self._counted.clear()
        self.queued_bytes = 0
        kept, close, is_end = compose(items)
        while self._senders.waiters and not is_end and not drop_queued:
            item = self._senders.first
            try:
                self.check(item)
            except (ProtocolError, UnicodeDecodeError) as error:
                self._senders.refuse(error)
                continue
            if type(item) is StreamedMessage:
                self._senders.refuse(trio.BrokenResourceError("nothing is accepted any more"))
            else:
                self.note_accepted(item)
                kept.append(self._senders.accept())
        self._senders.refuse_all()
        self._backlog = [] if drop_queued else kept[::-1]
        self.flushes.expect_all()
        return close

    def _put_before(self, item: Item) -> None:
        """Put in front what had been handed to the writer, unseen, when the outbox was sealed."""
        kept, close, is_end = compose([item])
        if self._is_dropping:
            return
        if is_end:
            self._backlog.clear()
        self._backlog.extend(reversed(kept))
        if close is not None:
            self._owner.close_frame_overtaken(close)

    def abandon(self) -> None:
        """Nothing will be written any more: refuse new sends, let go of those who wait."""
        self.seal(drop_queued=True)
        self._is_dropping = True
        self._backlog.clear()
        self._conversation.abandon()
        self._encoding = None
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
        if self._stream is not None:
            await self._stream.wait()
            return
        assert self._queue is not None
        self.flushes.release()
        try:
            self._is_receiving = True
            item = await self._queue.receive()
        except trio.ClosedResourceError:
            return  # sealed
        finally:
            self._is_receiving = False
        if self.is_sealed:
            self._put_before(item)
            return
        self.flushes.taken += 1
        self._uncount(item)
        self._look_at(self._queue.statistics())
        self._serialize(item, pieces)
        self._unwritten = sum(map(len, pieces))
        if self._senders.waiters:
            self._admit()

    def _uncount(self, item: Item) -> None:
        """An item left the channel: its bytes wait no more, if they were counted."""
        # Those that were not are put into the channel by others; the order of the rest is the channel's.
        if self._counted and self._counted[0] is item:
            self.queued_bytes -= len(self._counted.popleft().data)

    def gather(self, pieces: list[bytes]) -> int:
        """Serialize what waits, up to about one chunk; returns the bytes of all pieces, about."""
        self._owner.take_kept(pieces)
        if self._conversation.has_control:
            self._gather_control(pieces)
        size = sum(map(len, pieces))
        if self._encoding is not None:
            return size
        queue, counted = self._queue, self._counted
        taken = 0
        if not size and queue is not None:
            self._look_at(queue.statistics())
        while size < CHUNK:
            item: Item
            if self._stream is not None:
                piece = self._stream.take()
                if piece is None:
                    if pieces or not self._stream.is_over:
                        break
                    self._stream = None
                    continue
                item = piece
            elif self.is_sealed:
                if self._backlog:
                    item = self._backlog.pop()
                elif (goodbye := self._conversation.take_goodbye()) is not None:
                    item = goodbye
                else:
                    break
                taken += 1
            elif queue is None:
                break
            else:
                try:
                    item = queue.receive_nowait()
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
                taken += 1
                if counted and counted[0] is item:
                    self.queued_bytes -= len(counted.popleft().data)
            start = len(pieces)
            self._serialize(item, pieces)
            if self._encoding is not None:
                break  # type: ignore[unreachable]  # `_serialize` has begun it
            if len(pieces) > start:  # a head of a few bytes, and a payload
                size += len(pieces[-1]) + 4
        self.flushes.taken += taken
        self._unwritten = size
        if self._senders.waiters:
            self._admit()
        return size

    def _gather_control(self, pieces: list[bytes]) -> None:
        control = self._conversation.control
        self.flushes.controls_taken += control.waiting
        self._outgoing.frames_sent += control.take(self._outgoing.serializer, pieces)

    @property
    def is_encoding(self) -> bool:
        """Whether a long message is in the middle of its extensions: call `encode_step` until it is not."""
        return self._encoding is not None

    def encode_step(self, pieces: list[bytes]) -> None:
        """Do a slice of the work on a long message; the last serializes it."""
        assert self._encoding is not None
        try:
            next(self._encoding)
        except StopIteration as stop:
            self._encoding = None
            self._outgoing.finish(stop.value, pieces)
        except (ProtocolError, TypeError, ValueError) as error:
            self._encoding = None
            self._misused(error, "a message")
        except Exception as error:
            self._encoding = None
            self._owner.crashed(error)

    def _look_at(self, statistics: trio.MemoryChannelStatistics) -> None:
        if statistics.current_buffer_used > self.peak:
            self.peak = statistics.current_buffer_used
        if statistics.tasks_waiting_send and self.is_to_close_when_full and not self.is_sealed:
            self._owner.overflowed()

    def _serialize(self, item: Item, pieces: list[bytes]) -> None:
        try:
            if type(item) is StreamedMessage:
                self._stream = item
                return
            frame = item if isinstance(item, (Frame, PreparedMessage)) else as_frame(item)
            if type(frame) is CloseFrame and not self.is_sealed:
                self._owner.close_frame_sent(frame)  # the same as session.close
            elif isinstance(frame, Frame) and frame.first_byte & CONTROL and self._goes_ahead:
                ahead: list[bytes] = []
                self._outgoing.add(frame, ahead)
                pieces[:0] = ahead
            else:
                self._encoding = self._outgoing.add(frame, pieces)
        except (ProtocolError, TypeError, ValueError) as error:
            self._misused(error, item)
        except Exception as error:
            self._owner.crashed(error)

    @property
    def _goes_ahead(self) -> bool:
        """Whether control frames overtake what was gathered with them."""
        return not self.is_sealed and not self._conversation.closing.is_raw

    def _misused(self, error: Exception, item: object) -> None:
        self._owner.misused(error if isinstance(error, ProtocolError) else ProtocolError(f"{item!r:.100}: {error}"))

    def note_written(self) -> None:
        """All pieces gathered so far are with the system."""
        self._unwritten = 0
        stream = self._stream
        is_open = stream is not None and not stream.is_over
        self.flushes.note_written(is_open + (self._encoding is not None))
        if stream is not None:
            stream.flushes.note_written(0)
