"""What waits to be written, in the order in which it goes out: `session.outgoing`, from the writer's side.

In the simplest case nothing waits: the first answer to a message goes straight to the socket
(`Writing.write_through`), without a queue, a task or a switch between tasks. Whatever cannot go that way opens the
channel, and with it comes the writer. Most connections of most servers never need either.

Who may write is one question, `is_wire_free`: as long as there is no channel there is no writer, and whoever
sends may write, in one step. From then on only the writer does, but while the channel itself shows it parked:
then nothing has been handed to it, and nothing is in its hands.

What waits is in three places, emptied in this order, behind what was put aside (`engine.writing`): the control lane
(Pings, and the Pongs we owe), the backlog, the channel. The backlog exists only once the outbox is sealed: `seal` moves
everything out of the channel, which also completes the sends that were blocked on it, and shuts the channel; the Close
comes behind the rest. So whatever was accepted before the end goes out in order, and then the Close; normally a frame
waits in one queue only.

Trio hands what is put into a channel straight to the task that is parked on it, one pass before that runs. If the
outbox is sealed in that pass, the item is in nobody's sight; it stands before all that `seal` found, and is put
there when the writer has its turn (`_put_before`).

A message that is sent piece by piece is one item of the channel (`streamed`): while it is open, it is what
the writer takes from, and the channel waits. If it can't be finished, nothing behind it can be said either.

The engine holds no send handle of the channel, so that closing the last one can be seen. Sends through
`session.send` are bounded in bytes, too (`engine.byte_bound`), and wait in a room of their own.
"""

from __future__ import annotations

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
from .byte_bound import ByteBound
from .flushes import Flushes
from .items import Item, as_frame, compose, drain
from .streamed import StreamedMessage
from .transport import CHUNK
from .waiting_room import WaitingRoom
from .wire import Wire

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
      opened: the kind of the message whose fragments were accepted from sessions, until its last one.
    """

    __slots__ = (
        "_backlog",
        "_bound",
        "_config",
        "_conversation",
        "_encoding",
        "_is_done",
        "_is_dropping",
        "_is_receiving",
        "_max_bytes",
        "_outgoing",
        "_owner",
        "_queue",
        "_stream",
        "_wire",
        "flushes",
        "is_sealed",
        "opened",
        "peak",
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
        self._max_bytes = max_bytes
        self._bound: ByteBound | None = None  # once there is a channel
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
        return self.is_sealed or self._bound is None or self._bound.has_room_for(item)

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
            self._bound = ByteBound(self._max_bytes)
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
        channel = self.send_channel or self.channel
        bound = self._bound
        assert bound is not None  # it comes with the channel
        if not self.is_sealed and not bound.has_room_for(item):
            return False
        try:
            channel.send_nowait(item)
        except trio.WouldBlock:
            return False
        bound.count(item)
        return True

    async def wait_for_room(self, item: Frame | StreamedMessage) -> None:
        """Queue an item once there is room for it, behind all who wait already.

        A checkpoint. Cancelled, it was not queued.

        Raises:
          trio.BrokenResourceError, trio.ClosedResourceError: as `accept`.
          ProtocolError, UnicodeDecodeError: it may not stand behind what was accepted before it.
        """
        self.channel  # noqa: B018  # and with it what bounds it
        assert self._bound is not None
        await self._bound.senders.wait(item)

    def _admit(self, bound: ByteBound) -> None:
        """Accept what waits for room, as far as there is some."""
        senders = bound.senders
        while senders.waiters and bound.fits(senders.first):
            item = senders.first
            try:
                self.check(item)
                self.channel.send_nowait(item)
            except trio.WouldBlock:
                return
            except (ProtocolError, UnicodeDecodeError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                senders.refuse(error)
            else:
                bound.count(item)
                self.note_accepted(item)
                senders.accept()

    def note_taken(self, frames: int, unwritten: int) -> None:
        """So many frames were taken to be written, past the channel; so many bytes are not with the system yet."""
        self.flushes.taken += frames
        if self._bound is not None:
            self._bound.unwritten = unwritten

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
        kept, close, is_end = compose(items)
        if self._bound is not None:
            self._bound.clear()
            if not is_end and not drop_queued:
                self._accept_waiting(self._bound.senders, kept)
            self._bound.senders.refuse_all()
        self._backlog = [] if drop_queued else kept[::-1]
        self.flushes.expect_all()
        return close

    def _accept_waiting(self, senders: WaitingRoom[Frame | StreamedMessage], kept: list[Item]) -> None:
        """Who waited for room is accepted at the end, too."""
        while senders.waiters:
            item = senders.first
            try:
                self.check(item)
            except (ProtocolError, UnicodeDecodeError) as error:
                senders.refuse(error)
                continue
            if type(item) is StreamedMessage:
                senders.refuse(trio.BrokenResourceError("nothing is accepted any more"))
            else:
                self.note_accepted(item)
                kept.append(senders.accept())

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
        bound = self._bound
        assert bound is not None
        bound.uncount(item)
        self._look_at(self._queue.statistics())
        self._serialize(item, pieces)
        bound.unwritten = sum(map(len, pieces))
        if bound.senders.waiters:
            self._admit(bound)

    def gather(self, pieces: list[bytes]) -> int:
        """Serialize what waits, up to about one chunk; returns the bytes of all pieces, about."""
        self._owner.take_kept(pieces)
        if self._conversation.has_control:
            self._gather_control(pieces)
        size = sum(map(len, pieces))
        if self._encoding is not None:
            return size
        queue, bound = self._queue, self._bound
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
                assert bound is not None
                bound.uncount(item)
            start = len(pieces)
            self._serialize(item, pieces)
            if self._encoding is not None:
                break  # type: ignore[unreachable]  # `_serialize` has begun it
            if len(pieces) > start:  # a head of a few bytes, and a payload
                size += len(pieces[-1]) + 4
        self.flushes.taken += taken
        if bound is not None:
            bound.unwritten = size
            if bound.senders.waiters:
                self._admit(bound)
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
        if self._bound is not None:
            self._bound.unwritten = 0
        stream = self._stream
        is_open = stream is not None and not stream.is_over
        self.flushes.note_written(is_open + (self._encoding is not None))
        if stream is not None:
            stream.flushes.note_written(0)
