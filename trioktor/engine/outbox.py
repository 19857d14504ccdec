"""What waits to be written, in the order in which it goes out: `session.outgoing`, from the writer's side.

In the simplest case nothing waits: the first answer to a message goes straight to the socket
(`write_through`), without a queue, a task or a switch between tasks. Whatever cannot go that way opens the
channel, and with it comes the writer. Most connections of most servers never need either.

What does wait is in four places, emptied in this order: the rest of a frame that the system did not take
whole, the control lane (Pings, and the Pongs we owe), the backlog, the channel. The backlog exists only
once the outbox is sealed: `seal` moves everything out of the channel, which also completes the sends that
were blocked on it, shuts the channel, and puts the Close behind the rest. So whatever was accepted before
the end goes out in order, and then the Close, with no second queue on the way of a frame in normal times.

The engine holds no send handle of the channel, so that closing the last one can be seen. Sends through
`session.send` are bounded in bytes, too; those through the channel itself only in number.

`flush` counts: items ever taken out of the channel, against items whose bytes are with the system.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import attrs
import trio

from ..protocol.errors import ProtocolError
from ..protocol.frames import CONTROL, BinaryFrame, CloseFrame, Frame, PongFrame, TextFrame
from ..protocol.serializer import Serializer
from .transport import CHUNK, Transport

Message: TypeAlias = "Frame | str | bytes"
"""What may be put into `outgoing`."""

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


class Outbox:
    """The outgoing queue of one connection.

    Args:
      capacity: frames that may wait in the channel.
      max_bytes: bytes that `session.send` lets wait.
      on_close_frame: called with the frame when a Close comes out of the channel.
      on_misuse: called with the error when something comes out that may not be sent.
      start_writer: called when there is something to write that cannot go straight out.
    """

    __slots__ = (
        "_backlog",
        "_capacity",
        "_channel",
        "_control",
        "_flushes",
        "_max_bytes",
        "_on_close_frame",
        "_on_misuse",
        "_pongs",
        "_queue",
        "_rest",
        "_start_writer",
        "_taken",
        "_waiters",
        "_written",
        "bytes_written",
        "frames_taken",
        "is_sealed",
        "queued_bytes",
        "serializer",
    )

    def __init__(
        self,
        capacity: int,
        max_bytes: int,
        serializer: Serializer,
        on_close_frame: Callable[[CloseFrame], None],
        on_misuse: Callable[[ProtocolError], None],
        start_writer: Callable[[], None],
    ) -> None:
        self._capacity = capacity
        self._channel: trio.MemorySendChannel[Message] | None = None
        self._queue: trio.MemoryReceiveChannel[Message] | None = None
        self.serializer: Serializer = serializer
        self._start_writer = start_writer
        self._rest = b""  # of a frame that went out in part
        self.bytes_written: int = 0
        self._max_bytes = max_bytes
        self._on_close_frame = on_close_frame
        self._on_misuse = on_misuse
        self.is_sealed: bool = False
        self._control: list[Frame] = []
        self._pongs: list[Frame] = []
        self._backlog: list[Message] = []  # the next item last
        # bytes that session.send put into the channel, and who waits until they are fewer
        self.queued_bytes: int = 0
        self._waiters: list[_Waiter] = []
        # flush: items taken out of the channel, and those of them whose bytes are with the system
        self._taken = 0
        self._written = 0
        self._flushes: list[tuple[int, trio.Event]] = []
        self.frames_taken: int = 0

    @property
    def is_full_of_bytes(self) -> bool:
        """Whether `session.send` has to wait."""
        return (self.queued_bytes > self._max_bytes or bool(self._waiters)) and not self.is_sealed

    @property
    def waiting(self) -> int:
        """Frames that nobody has taken to be written yet."""
        queued = self._queue.statistics().current_buffer_used if self._queue is not None else 0
        return queued + len(self._backlog)

    @property
    def is_writer_parked(self) -> bool:
        """Whether the writer waits on the channel, and nothing has been handed to it yet."""
        return self._queue is not None and self._queue.statistics().tasks_waiting_receive > 0

    # the sending side

    @property
    def channel(self) -> trio.MemorySendChannel[Message]:
        """The sending end of the channel; opened, and its writer started, when first asked for."""
        if self._channel is None:
            self._channel, self._queue = trio.open_memory_channel[Message](self._capacity)
            if self.is_sealed:
                self._queue.close()
            else:
                self._start_writer()
        return self._channel

    @trio.lowlevel.enable_ki_protection  # between the bytes that went out and the keeping of the rest
    def write_through(self, frame: Frame, transport: Transport) -> bool:
        """Write a whole data frame straight to the socket, if nothing at all is in its way.

        The writer must be parked (the channel itself says so) or not exist; what the system does not take
        is left to it, in the same step.
        """
        if self._queue is not None and not self.is_writer_parked:
            return False
        if self.is_sealed or self._rest or self._control or self._pongs:
            return False
        pieces: list[bytes] = []
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
            self._start_writer()

    def put_control(self, frame: Frame) -> None:
        """Send a Ping or Pong ahead of what is queued; dropped once the outbox is sealed."""
        if not self.is_sealed:
            self._control.append(frame)

    def owe_pong(self, ping: Frame) -> None:
        """Answer a Ping ahead of what is queued."""
        if not self.is_sealed:
            self._pongs.append(PongFrame(ping.data))
            if len(self._pongs) > MAX_PONGS:
                del self._pongs[0]

    async def wait_for_room(self, frame: Frame) -> bool:
        """Wait until few enough bytes are queued; True if the frame was accepted meanwhile by `seal`."""
        waiter = _Waiter(frame)
        self._waiters.append(waiter)
        mine = 0
        try:
            await waiter.woken.wait()
            mine = len(frame.data)
        finally:
            self._waiters.remove(waiter)
            self._wake_waiter(mine)
        return waiter.accepted

    def _wake_waiter(self, more: int = 0) -> None:
        if self._waiters and self.queued_bytes + more <= self._max_bytes:
            self._waiters[0].woken.set()

    async def flush(self) -> None:
        """Wait until all that was sent before is with the system, or the connection is over."""
        target = self._taken
        if self._queue is not None:
            statistics = self._queue.statistics()
            target += statistics.current_buffer_used + statistics.tasks_waiting_send
        if self._written >= target:
            await trio.lowlevel.checkpoint()
            return
        event = trio.Event()
        self._flushes.append((target, event))
        await event.wait()

    def seal(self, close: CloseFrame | None, *, drop_queued: bool = False) -> None:
        """Accept nothing more: what is accepted already goes out, and then `close`."""
        if self.is_sealed:
            return
        self.is_sealed = True
        items: list[Message] = []
        if self._queue is not None:
            items = _drain(self._queue)
            self._queue.close()
        for waiter in self._waiters:
            items.append(waiter.frame)
            waiter.accepted = True
            waiter.woken.set()
        self._backlog = [] if drop_queued else items[::-1]
        if close is not None:
            self._backlog.insert(0, close)
        self._taken += len(items) + 1

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
        self.seal(None, drop_queued=True)
        self._backlog.clear()
        self._control.clear()
        self._pongs.clear()
        self._rest = b""
        self._note_written()

    # the writing side

    async def receive(self, pieces: list[bytes]) -> None:
        """Wait for an item and serialize it; nothing comes if the outbox was sealed instead.

        Raises:
          trio.EndOfChannel: the last handle on the channel was closed.
        """
        assert self._queue is not None
        try:
            item = await self._queue.receive()
        except trio.ClosedResourceError:
            return  # sealed
        self._taken += 1
        self._serialize(item, pieces)

    def gather(self, pieces: list[bytes]) -> int:
        """Serialize what waits, up to about one chunk; returns the bytes of all pieces."""
        if self._rest:
            pieces.append(self._rest)
            self._rest = b""
        if self._control or self._pongs:
            for frame in self._control + self._pongs:
                self.serializer.add(frame, pieces)
                self.frames_taken += 1
            self._control.clear()
            self._pongs.clear()
        size = sum(map(len, pieces))
        before = size
        try:
            while size < CHUNK:
                if self._backlog:
                    item = self._backlog.pop()
                elif self.is_sealed or self._queue is None:
                    break
                else:
                    item = self._queue.receive_nowait()
                    self._taken += 1
                start = len(pieces)
                self._serialize(item, pieces)
                for piece in pieces[start:]:
                    size += len(piece)
        except (trio.WouldBlock, trio.EndOfChannel):
            self.queued_bytes = 0
        else:
            self.queued_bytes = max(0, self.queued_bytes - (size - before))
        self._wake_waiter()
        return size

    def _serialize(self, item: Message, pieces: list[bytes]) -> None:
        try:
            frame = item if type(item) is TextFrame or type(item) is BinaryFrame else as_frame(item)
            if type(frame) is CloseFrame and not self.is_sealed:
                self._on_close_frame(frame)  # the same as session.close
                return
            if frame.first_byte & CONTROL and not self.is_sealed:
                ahead: list[bytes] = []
                self.serializer.add(frame, ahead)
                pieces[:0] = ahead
            else:
                self.serializer.add(frame, pieces)
        except (ProtocolError, TypeError, ValueError) as error:
            self._on_misuse(error if isinstance(error, ProtocolError) else ProtocolError(f"{item!r:.100}: {error}"))
            return
        self.frames_taken += 1

    def note_written(self) -> None:
        """All pieces gathered so far are with the system."""
        self._written = self._taken - len(self._backlog)
        if self._flushes:
            self._note_written()

    def _note_written(self) -> None:
        self._written = self._taken - len(self._backlog)
        flushes, self._flushes = self._flushes, []
        for target, event in flushes:
            if self._written >= target:
                event.set()
            else:
                self._flushes.append((target, event))


def _drain(queue: trio.MemoryReceiveChannel[Message]) -> list[Message]:
    items: list[Message] = []
    try:
        while True:
            items.append(queue.receive_nowait())
    except (trio.WouldBlock, trio.EndOfChannel):
        return items
