"""What waits to be written, in the order in which it goes out: `session.outgoing`, from the writer's side.

In the simplest case nothing waits: the first answer to a message goes straight to the socket
(`write_through`), without a queue, a task or a switch between tasks. Whatever cannot go that way opens the
channel, and with it comes the writer. Most connections of most servers never need either.

What does wait is in four places, emptied in this order: the rest of a frame that the system did not take
whole, the control lane (Pings, and the Pongs we owe), the backlog, the channel. The backlog exists only
once the outbox is sealed: `seal` moves everything out of the channel, which also completes the sends that
were blocked on it, and shuts the channel; the Close is put behind the rest. So whatever was accepted before
the end goes out in order, and then the Close, with no second queue on the way of a frame in normal times.

A message that is sent piece by piece is one item of the channel (`streamed`): while it is open, it is what
the writer takes from, and the channel waits.

The engine holds no send handle of the channel, so that closing the last one can be seen. Sends through
`session.send` are bounded in bytes, too; those through the channel itself only in number.

`flush` counts: items ever taken out of the channel, against items whose bytes are with the system.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeAlias

import attrs
import trio

from ..config import ChannelConfig, Overflow
from ..protocol.errors import ProtocolError
from ..protocol.extensions import Extension, Steps, encode, encode_in_steps
from ..protocol.frames import CONTROL, FIN, RESERVED, BinaryFrame, CloseFrame, Frame, PongFrame, TextFrame
from ..protocol.serializer import Serializer, is_sendable
from .shared import Key, SharedMessage, shared_key
from .streamed import StreamedMessage, drain
from .transport import CHUNK, Transport

Message: TypeAlias = "Frame | str | bytes"
"""What may be put into `outgoing`."""
Item: TypeAlias = "Message | StreamedMessage | SharedMessage"
"""What the channel holds."""

LONG: Final = 1 << 15
"""Bytes beyond which a message passes its extensions in steps."""
MAX_PONGS: Final = 16
"""Pongs that wait; beyond that the oldest is dropped (RFC 6455 §5.5.3 allows answering the latest only)."""


def as_frame(message: object) -> Frame:
    """The frame that says a message.

    Raises:
      TypeError: it is neither a frame nor str nor bytes.
    """
    if isinstance(message, Frame):
        return message
    if isinstance(message, str):
        return TextFrame(message)
    if isinstance(message, (bytes, bytearray, memoryview)):
        return BinaryFrame(message)
    raise TypeError(f"a message is a Frame, str or bytes, not {type(message).__name__}")


@attrs.define(eq=False)
class _Waiter:
    """A `session.send` that waits because too many bytes are queued."""

    frame: Frame
    woken: trio.Event = attrs.field(factory=trio.Event)
    accepted: bool = False


class Owner(Protocol):
    """What an outbox tells its connection."""

    def close_frame_sent(self, frame: CloseFrame) -> None:
        """A Close came out of the channel."""

    def misused(self, error: ProtocolError) -> None:
        """Something came out of the channel that may not be sent."""

    def overflowed(self) -> None:
        """More was put in than there is room for, and that is to be the end."""

    def need_writer(self) -> None:
        """There is something to write that cannot go straight out."""


class Outbox:
    """The outgoing queue of one connection.

    Args:
      owner: the connection.
      config: frames that may wait in the channel, and what happens beyond them.
      max_bytes: bytes that `session.send` lets wait.
      extensions: what messages pass on their way out.
      in_order: whether control frames, too, wait for what was put into the channel before them.
    """

    __slots__ = (
        "_backlog",
        "_config",
        "_control",
        "_controls_gathered",
        "_controls_put",
        "_controls_written",
        "_encoding",
        "_flushes",
        "_in_order",
        "_is_receiving",
        "_owner",
        "_pongs",
        "_queue",
        "_rest",
        "_stream",
        "_taken",
        "_written",
        "bytes_written",
        "extensions",
        "frames_taken",
        "is_sealed",
        "max_bytes",
        "peak",
        "queued_bytes",
        "send_channel",
        "serializer",
        "shared_key",
        "waiters",
    )

    def __init__(
        self,
        owner: Owner,
        config: ChannelConfig,
        max_bytes: int,
        serializer: Serializer,
        *,
        in_order: bool = False,
        extensions: tuple[Extension, ...] = (),
    ) -> None:
        self._owner = owner
        self._config = config
        self._in_order = in_order
        self.extensions: tuple[Extension, ...] = extensions
        self.shared_key: Key | None = shared_key(extensions)
        self._encoding: Steps | None = None  # of a long message that is under way
        self.send_channel: trio.MemorySendChannel[Item] | None = None  # once `channel` was asked for
        self._queue: trio.MemoryReceiveChannel[Item] | None = None
        self._stream: StreamedMessage | None = None  # the one that is going out
        self.serializer: Serializer = serializer
        self._rest = b""  # of a frame that went out in part
        self.bytes_written: int = 0
        self.max_bytes: int = max_bytes
        self.is_sealed: bool = False
        self._control: list[Frame] = []
        self._pongs: list[Frame] = []
        self._backlog: list[Item] = []  # the next item last
        # bytes that session.send put into the channel, and who waits until they are fewer
        self.queued_bytes: int = 0
        self.waiters: list[_Waiter] = []
        # flush: items taken out of the channel, and those of them whose bytes are with the system
        self._taken = 0
        self._written = 0
        self._is_receiving = False  # the writer is in `receive`
        self._controls_put = 0  # the same for the control lane, which overtakes the channel
        self._controls_gathered = 0
        self._controls_written = 0
        self._flushes: list[tuple[int, int, trio.Event]] = []
        self.frames_taken: int = 0
        self.peak: int = 0  # of what waited when the writer looked

    @property
    def free_bits(self) -> int:
        """The reserved bits that whoever sends may set himself; those of extensions at work are theirs."""
        return 0 if self.extensions else self.serializer.reserved

    @property
    def is_full_of_bytes(self) -> bool:
        """Whether `session.send` has to wait."""
        return (self.queued_bytes > self.max_bytes or bool(self.waiters)) and not self.is_sealed

    @property
    def waiting(self) -> int:
        """Frames that nobody has taken to be written yet."""
        queued = self._queue.statistics().current_buffer_used if self._queue is not None else 0
        return queued + len(self._backlog) + (self._stream.waiting if self._stream is not None else 0)

    @property
    def is_full(self) -> bool:
        """Whether the channel has no place for another item."""
        return self._queue is not None and self._queue.statistics().current_buffer_used >= self._config.capacity

    @property
    def is_to_close_when_full(self) -> bool:
        """Whether a full queue is the end, rather than something to wait for."""
        return self._config.on_overflow is Overflow.CLOSE

    @property
    def is_writer_parked(self) -> bool:
        """Whether the writer waits on the channel, and nothing has been handed to it yet."""
        source = self._source
        return source is not None and source.statistics().tasks_waiting_receive > 0

    @property
    def _source(self) -> trio.MemoryReceiveChannel[Item] | trio.MemoryReceiveChannel[Frame] | None:
        """Where the writer takes the next item from."""
        return self._stream.queue if self._stream is not None else self._queue

    # the sending side

    @property
    def channel(self) -> trio.MemorySendChannel[Item]:
        """The sending end of the channel; opened, and its writer started, when first asked for."""
        if self.send_channel is None:
            self.send_channel, self._queue = trio.open_memory_channel[Item](self._config.capacity)
            if self.is_sealed:
                self._queue.close()
            else:
                self._owner.need_writer()
        return self.send_channel

    @trio.lowlevel.enable_ki_protection  # between the bytes that went out and the keeping of the rest
    def write_through(self, item: Frame | SharedMessage, transport: Transport) -> bool:
        """Write a whole data frame straight to the socket, if nothing at all is in its way.

        The writer must be parked (the channel itself says so) or not exist; what the system does not take
        is left to it, in the same step.
        """
        if self._queue is not None and not self.is_writer_parked:
            return False
        if self.is_sealed or self._rest or self._control or self._pongs or self._stream is not None:
            return False
        pieces: list[bytes] = []
        if type(item) is SharedMessage:
            self._add_shared(item, pieces)
        else:
            frame = item
            if self.extensions and self._is_whole(frame):
                if len(frame.data) > LONG:
                    return False
                frame = encode(self.extensions, frame)
            self.serializer.add(frame, pieces)
        data = b"".join(pieces)
        self._taken += 1
        self.frames_taken += 1
        self.hand_over(data, transport)
        return True

    def hand_over(self, data: bytes, transport: Transport) -> None:
        """Write bytes that nothing stands before; what is not taken at once is left to the writer."""
        sent = transport.send_nowait(data)
        self.bytes_written += sent
        if sent == len(data):
            self._written = self._taken - len(self._backlog)
        else:
            self._rest = data[sent:]
            self._owner.need_writer()

    def put_control(self, frame: Frame) -> None:
        """Send a Ping or Pong ahead of what is queued; dropped once the outbox is sealed."""
        if not self.is_sealed:
            self._control.append(frame)
            self._controls_put += 1

    def owe_pong(self, ping: Frame) -> None:
        """Answer a Ping ahead of what is queued."""
        if not self.is_sealed:
            self._pongs.append(PongFrame(ping.data))
            if len(self._pongs) > MAX_PONGS:
                del self._pongs[0]

    async def wait_for_room(self, frame: Frame) -> bool:
        """Wait until few enough bytes are queued; True if the frame was accepted meanwhile by `seal`."""
        waiter = _Waiter(frame)
        self.waiters.append(waiter)
        mine = 0
        try:
            await waiter.woken.wait()
            mine = len(frame.data)
        finally:
            self.waiters.remove(waiter)
            self._wake_waiter(mine)
        return waiter.accepted

    def _wake_waiter(self, more: int = 0) -> None:
        if self.waiters and self.queued_bytes + more <= self.max_bytes:
            self.waiters[0].woken.set()

    async def flush(self) -> None:
        """Wait until all that was sent before is with the system, or the connection is over.

        While a streamed message is going out: until its fragments are, since what is behind it has to wait.
        """
        while self._is_receiving and not self.is_writer_parked:
            await trio.lowlevel.checkpoint()  # an item may be in the writer's hand: it is counted at its next turn
        target = self._taken
        if self._stream is not None:
            target += self._stream.waiting
        elif self._queue is not None:
            statistics = self._queue.statistics()
            target += statistics.current_buffer_used + statistics.tasks_waiting_send
        controls = self._controls_put
        if self._written >= target and self._controls_written >= controls:
            await trio.lowlevel.checkpoint()
            return
        event = trio.Event()
        self._flushes.append((target, controls, event))
        await event.wait()

    def seal(self, *, drop_queued: bool = False) -> CloseFrame | None:
        """Accept nothing more: what is accepted already goes out, up to a Close among it, which is returned."""
        if self.is_sealed:
            return None
        self.is_sealed = True
        items = self._seal_queues()
        for waiter in self.waiters:
            items.append(waiter.frame)
            waiter.accepted = True
            waiter.woken.set()
        close = None
        for position, item in enumerate(items):
            if isinstance(item, CloseFrame) and is_sendable(item):
                close = item
                del items[position:]
                break
        self._backlog = [] if drop_queued else items[::-1]
        self._taken += len(items)
        return close

    def say_goodbye(self, close: CloseFrame) -> None:
        """Put our Close behind what was accepted."""
        self._backlog.insert(0, close)
        self._taken += 1

    def _seal_queues(self) -> list[Item]:
        """Shut the channel and the streamed messages; returns what they held.

        What stands behind a streamed message that is not finished is dropped: it cannot be said any more.
        """
        items: list[Item] = []
        streams = [self._stream] if self._stream is not None else []
        queued = drain(self._queue) if self._queue is not None else []
        if self._queue is not None:
            self._queue.close()
        is_cut = False
        for item in [*streams, *queued]:
            if isinstance(item, StreamedMessage):
                frames = item.seal()
                if not is_cut:
                    items.extend(frames)
                is_cut = is_cut or not item.is_finished
            elif not is_cut:
                items.append(item)
        self._stream = None
        return items

    @trio.lowlevel.enable_ki_protection
    def write_goodbye(self, transport: Transport) -> bool:
        """Write the Close of a sealed outbox that never had a writer; False if that needs one."""
        if self._queue is not None or self._rest or self._control or self._pongs or len(self._backlog) != 1:
            return False
        pieces: list[bytes] = []
        self.gather(pieces)
        self.hand_over(b"".join(pieces), transport)
        return not self._rest

    def abandon(self) -> None:
        """Nothing will be written any more: refuse new sends, let go of those who wait."""
        self.seal(drop_queued=True)
        self._backlog.clear()
        self._control.clear()
        self._pongs.clear()
        self._rest = b""
        self._controls_gathered = self._controls_put
        self.note_written()

    # the writing side

    async def receive(self, pieces: list[bytes]) -> None:
        """Wait for an item and serialize it; nothing comes if the outbox was sealed instead.

        Raises:
          trio.EndOfChannel: the last handle on the channel was closed.
        """
        source = self._source
        assert source is not None
        try:
            self._is_receiving = True
            item = await source.receive()
        except trio.ClosedResourceError:
            return  # sealed
        except trio.EndOfChannel:
            if self._stream is None:
                raise
            self._stream = None
            return
        finally:
            self._is_receiving = False
        if self._queue is not None:
            self._look_at(self._queue.statistics())
        self._taken += 1
        self._serialize(item, pieces)

    def gather(self, pieces: list[bytes]) -> int:
        """Serialize what waits, up to about one chunk; returns the bytes of all pieces."""
        if self._rest:
            pieces.append(self._rest)
            self._rest = b""
        if self._control or self._pongs:
            self._gather_control(pieces)
        size = sum(map(len, pieces))
        if self._encoding is not None:
            return size
        before = size
        if not size and self._queue is not None:
            self._look_at(self._queue.statistics())
        try:
            while size < CHUNK:
                if self._backlog:
                    item = self._backlog.pop()
                elif self.is_sealed or self._queue is None:
                    break
                elif self._stream is not None:
                    try:
                        item = self._stream.queue.receive_nowait()
                    except trio.EndOfChannel:
                        self._stream = None
                        continue
                    self._taken += 1
                else:
                    item = self._queue.receive_nowait()
                    self._taken += 1
                start = len(pieces)
                self._serialize(item, pieces)
                if self.extensions and self.is_encoding:
                    break
                for piece in pieces[start:]:
                    size += len(piece)
        except (trio.WouldBlock, trio.EndOfChannel):
            self.queued_bytes = 0
        else:
            self.queued_bytes = max(0, self.queued_bytes - (size - before))
        self._wake_waiter()
        return size

    def _gather_control(self, pieces: list[bytes]) -> None:
        for frame in self._control + self._pongs:
            self.serializer.add(frame, pieces)
            self.frames_taken += 1
        self._control.clear()
        self._pongs.clear()
        self._controls_gathered = self._controls_put

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
            self.serializer.add(stop.value, pieces)
            self.frames_taken += 1

    def _add_shared(self, message: SharedMessage, pieces: list[bytes]) -> None:
        """Append the bytes that others get, too, or one's own, if they cannot be shared."""
        if self.shared_key is None or self.serializer.masking or self.serializer.is_in_message:
            frame = encode(self.extensions, message.frame) if self.extensions else message.frame
            self.serializer.add(frame, pieces)
        else:
            pieces.append(message.wire(self.shared_key, self.extensions))

    def _look_at(self, statistics: trio.MemoryChannelStatistics) -> None:
        if statistics.current_buffer_used > self.peak:
            self.peak = statistics.current_buffer_used
        if statistics.tasks_waiting_send and self.is_to_close_when_full and not self.is_sealed:
            self._owner.overflowed()

    def _serialize(self, item: Item, pieces: list[bytes]) -> None:
        try:
            if (type(item) is TextFrame or type(item) is BinaryFrame) and not self.extensions:  # most of them
                self.serializer.add(item, pieces)
                self.frames_taken += 1
                return
            if isinstance(item, Frame):
                frame = item
            elif type(item) is StreamedMessage:
                self._stream = item
                return
            elif type(item) is SharedMessage:
                self._add_shared(item, pieces)
                self.frames_taken += 1
                return
            else:
                frame = as_frame(item)
            if type(frame) is CloseFrame and not self.is_sealed:
                self._owner.close_frame_sent(frame)  # the same as session.close
                return
            if self.extensions and self._is_whole(frame):
                self._judge_plain(frame)
                if len(frame.data) > LONG:
                    self._encoding = encode_in_steps(self.extensions, frame)
                    return
                frame = encode(self.extensions, frame)
            if frame.first_byte & CONTROL and not self.is_sealed and not self._in_order:
                ahead: list[bytes] = []
                self.serializer.add(frame, ahead)
                pieces[:0] = ahead
            else:
                self.serializer.add(frame, pieces)
        except (ProtocolError, TypeError, ValueError) as error:
            self._owner.misused(error if isinstance(error, ProtocolError) else ProtocolError(f"{item!r:.100}: {error}"))
            return
        self.frames_taken += 1

    def _is_whole(self, frame: Frame) -> bool:
        """Whether this is a message; fragments go out as they are."""
        return not frame.first_byte & CONTROL and frame.first_byte >= FIN and not self.serializer.is_in_message

    def _judge_plain(self, frame: Frame) -> None:
        """Refuse what extensions cannot be given."""
        if frame.first_byte & RESERVED:
            raise ProtocolError(f"{frame!r}: its reserved bits are the extensions'")
        if type(frame) is TextFrame and frame.decoded is None:
            frame.text  # noqa: B018  # decodes, or raises UnicodeDecodeError

    def note_written(self) -> None:
        """All pieces gathered so far are with the system."""
        self._written = self._taken - len(self._backlog) - (self._encoding is not None)
        self._controls_written = self._controls_gathered
        if not self._flushes:
            return
        flushes, self._flushes = self._flushes, []
        for target, controls, event in flushes:
            if self._written >= target and self._controls_written >= controls:
                event.set()
            else:
                self._flushes.append((target, controls, event))
