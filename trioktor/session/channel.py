"""A session as a channel of frames: receiving, sending, and how either ends.

`incoming` and `outgoing` are the connection's memory channels themselves. The session's own `receive` and
`send` do the same and are several times faster under load: they check for cancellation (every 32nd
`receive` and every 32nd `send` with a full checkpoint, so that others get their turn and deadlines fire), then
take or put without waiting; behind that nothing is cancelled. So a cancelled call has done nothing, a finished one all.
"""

from __future__ import annotations

from collections.abc import Coroutine
from threading import get_ident
from typing import Any, NoReturn

import trio

from ..engine.connection import Connection
from ..engine.items import Message, as_frame
from ..engine.streamed import StreamedMessage
from ..errors import ConnectionBroken, ConnectionClosed, ConnectionClosedHere
from ..protocol.frames import Frame
from .pieces import Pieces

_FULL_CHECKPOINT = 0x1F
"""Calls of a kind between full checkpoints, less one: `checkpoint_if_cancelled` never reads the clock."""

_THREADS: dict[int, int] = {}
"""Identifiers of threads that had sessions, each once."""

_checkpoint = trio.lowlevel.checkpoint
_checkpoint_if_cancelled = trio.lowlevel.checkpoint_if_cancelled


class FrameChannel(trio.abc.Channel[Frame]):
    """The two ways of a conversation, as one `trio.abc.Channel`; not to be constructed.

    It may be used from any task of the same Trio run; from threads, go through `trio.from_thread`.
    """

    __slots__ = (
        "_connection",
        "_inbox",
        "_may_write_through",
        "_outbox",
        "_outgoing",
        "_parked",
        "_pieces",
        "_receives",
        "_sends",
        "_thread",
        "_unparked",
        "_writing",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = connection.inbox
        self._outbox = connection.outbox
        self._writing = connection.writing
        self._outgoing = connection.conversation.outgoing
        ident = get_ident()  # an object of its own each time
        self._thread = _THREADS.setdefault(ident, ident)
        self._receives = self._sends = 0  # since either waited, or was a full checkpoint
        self._pieces: Pieces | None = None  # once messages may come in pieces
        self._parked = 0  # tasks that wait in `receive` for a message
        self._unparked: trio.Event | None = None  # set when there are none
        self._may_write_through = False  # something was received since the last send

    @property
    def incoming(self) -> trio.MemoryReceiveChannel[Frame]:
        """What the peer sends. It ends with `trio.EndOfChannel` after whatever was buffered, however the
        conversation ended. Closing it says that no input is wanted. It comes into being when it is first asked for.

        Raises:
          RuntimeError: asked for in another thread.
        """
        self._check_thread("incoming")
        return self._inbox.channel

    @property
    def outgoing(self) -> trio.MemorySendChannel[Message]:
        """Takes frames, str and bytes; closing its last handle is `close()`.

        The channel comes into being when it is first asked for. The fragments of a message go all into it, or all to
        `send`; what is no message is found when it is to be written, and ends the conversation with 1011.

        Raises:
          RuntimeError: asked for in another thread.
        """
        self._check_thread("outgoing")
        return self._outbox.channel

    def _check_thread(self, name: str) -> None:
        """Refuse to be used from another thread, before anything is changed."""
        if get_ident() != self._thread:
            raise RuntimeError(
                f"a session belongs to the thread of its Trio run: use trio.from_thread.run(session.{name}, ...),"
                f" or trio.from_thread.run_sync(session.{name}, ...) for what is not async"
            )

    # receiving

    async def receive(self) -> Frame:
        """Receive the next message.

        Always a cancel point, and a schedule point at least every 32nd call. Cancelled, it has taken nothing.

        Raises:
          trio.EndOfChannel: the conversation ended with the peer's Close.
          ConnectionBroken: it ended in any other way; `__cause__` may say more.
          trio.ClosedResourceError: `incoming` was closed here.
        """
        return await self._receive(trio.EndOfChannel)

    async def _receive(self, end: type[Exception]) -> Frame:
        """As `receive`, with the exception that a clean end is told by."""
        if get_ident() != self._thread:
            self._check_thread("receive")
        pieces, inbox = self._pieces, self._inbox
        if pieces is not None:
            return await self._receive_joined(end)
        frame: Frame | None = None
        try:
            if inbox.queue or not inbox.is_plain:  # else it waits, which is a checkpoint
                self._receives = receives = self._receives + 1
                if receives & _FULL_CHECKPOINT:
                    await _checkpoint_if_cancelled()
                else:
                    self._sends = 0
                    await _checkpoint()
                    if self._pieces is not None:  # a task asked for them meanwhile
                        return await self._receive_joined(end)
                frame = inbox.take()
            if frame is None:
                self._parked += 1
                self._receives = self._sends = 0
                try:
                    while frame is None and inbox.is_plain and not inbox.queue:  # again where a lease has ended
                        frame = await inbox.takers.wait()
                    if frame is None:
                        frame = inbox.take() or await inbox.receive()
                finally:
                    self._parked -= 1
                    if self._unparked is not None and not self._parked:
                        self._unparked.set()
        except trio.EndOfChannel:
            self._raise_end(end)
        self._may_write_through = True
        return frame

    def receive_nowait(self) -> Frame:
        """Receive as `receive` does, or not at all: no checkpoint.

        Raises:
          trio.WouldBlock: nothing is there.
          trio.EndOfChannel, ConnectionBroken, trio.ClosedResourceError: as `receive`.
        """
        self._check_thread("receive_nowait")
        try:
            frame = self._inbox.take()
        except trio.EndOfChannel:
            self._raise_end()
        if frame is None:
            raise trio.WouldBlock
        return frame

    async def _receive_joined(self, end: type[Exception]) -> Frame:
        """What `receive` does where messages come in pieces."""
        raise NotImplementedError

    def _raise_end(self, end: type[Exception] = trio.EndOfChannel) -> NoReturn:
        """Tell a broken end of `incoming` from a clean one."""
        closing = self._connection.closing
        if closing.is_clean:
            raise end from None
        raise self._error(ConnectionBroken) from closing.cause

    def __anext__(self) -> Coroutine[Any, Any, Frame]:
        return self._receive(StopAsyncIteration)

    # sending

    async def send(self, value: Message) -> None:
        """Send a frame, a str (as Text) or bytes (as Binary); waits while the queue is full.

        A return means accepted, not delivered. A Close frame is `close()`. Always a cancel point, and a
        schedule point at least every 32nd call. Cancelled, it has sent nothing.

        Raises:
          ConnectionClosed: the conversation is over, or being closed.
          TypeError, ValueError, ProtocolError: this may not be sent (here).
          RuntimeError: called in another thread; so do all methods.
        """
        if get_ident() != self._thread:
            self._check_thread("send")
        frame = value if isinstance(value, Frame) else as_frame(value)
        self._sends = sends = self._sends + 1
        if sends & _FULL_CHECKPOINT:
            await _checkpoint_if_cancelled()
        else:
            self._receives = 0
            await _checkpoint()
        is_last = self._may_write_through and not self._inbox.queue  # else others may follow
        is_simple = self._outbox.is_direct and (self._inbox.is_plain or not is_last)
        if is_simple and self._writing.write_message(frame, keep=not is_last):
            self._may_write_through = False
        elif not self._put_nowait(frame):
            await self._put(frame)

    def send_nowait(self, value: Message) -> None:
        """Send as `send` does, or not at all: no checkpoint.

        Raises:
          trio.WouldBlock: the queue is full.
          ConnectionClosed, TypeError, ValueError, ProtocolError: as `send`.
        """
        self._check_thread("send_nowait")
        if not self._put_nowait(value if isinstance(value, Frame) else as_frame(value)):
            self._close_if_full()
            raise trio.WouldBlock

    def _put_nowait(self, frame: Frame) -> bool:
        """Send a frame if there is room for it; False if there is not."""
        # The first answer to the last message there is goes straight out; others may have company.
        keep = not self._may_write_through or self._inbox.has_more
        is_written = self._writing.write_message(frame, keep=keep)
        is_judged = is_written is not None
        if not is_judged:
            if self._is_sent_as_control(frame):
                return True
            self._outgoing.check(frame)
        self._may_write_through = False
        try:
            is_written = is_written if is_judged else self._writing.write_through(frame, keep=keep)
            if not is_written and not self._outbox.accept(frame):
                return False
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._raise_over()
        if not is_judged:
            self._outgoing.note_accepted(frame)
        return True

    async def _put(self, item: Frame | StreamedMessage) -> None:
        """Send what `_put_nowait` had no room for, once there is some."""
        self._close_if_full()
        try:
            await self._outbox.wait_for_room(item)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._raise_over()

    def _close_if_full(self) -> None:
        """There is no room: the end, where that is configured."""
        if self._outbox.is_to_close_when_full:
            self._connection.ends.overflowed()
            self._raise_over()

    def _is_sent_as_control(self, frame: Frame) -> bool:
        """Send a frame past the queue, if that is its way."""
        raise NotImplementedError

    # the end

    def _error(self, kind: type[ConnectionClosed]) -> ConnectionClosed:
        return kind(self._connection.closing.reason, self)

    def _raise_over(self) -> NoReturn:
        closing = self._connection.closing
        if closing.closed_here or closing.reason is None:  # None: this handle was closed, a clone lives
            raise self._error(ConnectionClosedHere) from None
        if closing.is_clean:
            raise self._error(ConnectionClosed) from None
        raise self._error(ConnectionBroken) from closing.cause
