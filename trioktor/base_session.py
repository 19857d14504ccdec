"""What every session has: the channels, sending and receiving, the end, tasks and settings.

`incoming` and `outgoing` are the connection's memory channels themselves. The session's own `receive` and
`send` do the same and are several times faster under load: they check for cancellation (on every 32nd call
with a full checkpoint, so that others get their turn and deadlines fire), then take or put without
waiting, and after that nothing can be cancelled. So a cancelled call has done nothing, a finished one all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, TypeVarTuple

import trio

from .config import WebSockets
from .engine.connection import Connection
from .engine.items import Message, as_frame
from .engine.streamed import StreamedMessage
from .errors import ConnectionBroken, ConnectionClosed, ConnectionClosedHere
from .iteration import FramesOf
from .protocol.close import CloseCode, CloseReason, may_be_sent
from .protocol.extensions import Extension, ExtensionFactory
from .protocol.frames import WHOLE_BINARY, WHOLE_TEXT, CloseFrame, Frame
from .protocol.prepared import PreparedMessage
from .statistics import SessionStatistics

if TYPE_CHECKING:
    from .call import Call
    from .routes import Routes

F = TypeVar("F", bound=Frame)
Ts = TypeVarTuple("Ts")

_FULL_CHECKPOINT = 0x1F
"""Calls between full checkpoints, less one: `checkpoint_if_cancelled` never reads the clock."""

_checkpoint = trio.lowlevel.checkpoint
_checkpoint_if_cancelled = trio.lowlevel.checkpoint_if_cancelled


class _NothingToAwait:
    """What `close()` returns: falsy as None is, and an error that helps those who await it as in Ktor."""

    def __await__(self) -> NoReturn:
        raise TypeError("session.close() does not wait: call it without await, or `await session.aclose()`")

    def __bool__(self) -> bool:
        return False


_NOTHING_TO_AWAIT = _NothingToAwait()


class BaseSession(trio.abc.Channel[Frame]):
    """What `WebSocketSession` and `RawWebSocketSession` have in common; not to be constructed.

    It may be used from any task of the same Trio run; from threads, go through `trio.from_thread`.

    Attributes:
      call: the request that opened the conversation.
      application: the application that serves it.
    """

    __slots__ = (
        "_connection",
        "_has_pieces",
        "_inbox",
        "_may_write_through",
        "_outbox",
        "_parked",
        "_streams",
        "_thread",
        "_turns",
        "_unparked",
        "application",
        "call",
    )

    def __init__(self, connection: Connection, call: Call, application: Routes | None) -> None:
        self._connection = connection
        self._inbox = connection.inbox
        self._outbox = connection.outbox
        self._thread = get_ident()
        self._turns = 0
        self._has_pieces = False  # messages may come in pieces
        self._parked = 0  # tasks that wait in `receive` for a message
        self._unparked: trio.Event | None = None  # set when there are none
        self._streams: tuple[StreamedMessage, ...] = ()  # messages that are being sent in pieces
        self._may_write_through = False  # something was received since the last send
        self.call: Call = call
        self.application: Routes | None = application
        connection.owner = self

    @property
    def incoming(self) -> trio.MemoryReceiveChannel[Frame]:
        """What the peer sends. It ends with `trio.EndOfChannel` after whatever was buffered, however the
        conversation ended. Closing it says that no input is wanted.

        The channel comes into being when it is first asked for.

        Raises:
          RuntimeError: asked for in another thread.
        """
        self._check_thread("incoming")
        return self._inbox.channel

    @property
    def outgoing(self) -> trio.MemorySendChannel[Message]:
        """Takes frames, str and bytes; closing its last handle is `close()`.

        The channel comes into being when it is first asked for.

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

        Always a cancel point, and a schedule point at least every 32nd call. Cancelled, it has taken
        nothing.

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
        if self._has_pieces:
            return await self._receive_joined(end)
        self._turns = turns = self._turns + 1
        if turns & _FULL_CHECKPOINT:
            await _checkpoint_if_cancelled()
        else:
            await _checkpoint()
        try:
            frame = self._inbox.take()
            if frame is None:
                self._parked += 1
                try:
                    frame = await self._inbox.receive()
                finally:
                    self._unpark()
        except trio.EndOfChannel:
            self._raise_end(end)
        self._may_write_through = True
        return frame

    def _unpark(self) -> None:
        self._parked -= 1
        if self._unparked is not None and not self._parked:
            self._unparked.set()

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
        if self._connection.closing.is_clean:
            raise end from None
        raise self._error(ConnectionBroken) from self._connection.closing.cause

    def __anext__(self) -> Coroutine[Any, Any, Frame]:
        return self._receive(StopAsyncIteration)

    def frames(self, kind: type[F]) -> AsyncIterator[F]:
        """Iterate over the messages of one kind and skip the others (Ktor: `mapNotNull { it as? … }`).

        Ends and raises as iterating over the session does.
        """
        return FramesOf(self, kind)

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
        self._turns = turns = self._turns + 1
        if turns & _FULL_CHECKPOINT:
            await _checkpoint_if_cancelled()
        else:
            await _checkpoint()
        if not self._put_nowait(frame):
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

    def _offer(self, message: PreparedMessage) -> bool:
        """Send a message that others get, too: straight out if nothing is in its way; False if full."""
        self._check_thread("send")
        outbox = self._outbox
        if outbox.is_sealed:
            self._raise_over()
        if outbox.opened is not None or not outbox.has_room_for(message):
            return False
        if self._connection.writing.write_through(message, keep=False):
            return True
        try:
            return outbox.accept(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._raise_over()

    def _put_nowait(self, frame: Frame) -> bool:
        """Send a frame if there is room for it; False if there is not."""
        first_byte = frame.first_byte
        outbox = self._outbox
        is_plain = first_byte == WHOLE_BINARY or (first_byte == WHOLE_TEXT and frame.decoded is not None)
        if not is_plain or outbox.opened is not None:
            if self._is_sent_as_control(frame):
                return True
            outbox.check(frame)
        # The first answer to the last message there is goes straight out; others may have company.
        keep = not self._may_write_through or self._inbox.has_more
        self._may_write_through = False
        if self._connection.writing.write_through(frame, keep=keep):
            if not is_plain:
                outbox.note_accepted(frame)
            return True
        try:
            if not outbox.accept(frame):
                return False
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._raise_over()
        if not is_plain or outbox.opened is not None:
            outbox.note_accepted(frame)
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
            self._connection.overflowed()
            self._raise_over()

    def _is_sent_as_control(self, frame: Frame) -> bool:
        """Send a frame past the queue, if that is its way."""
        if isinstance(frame, CloseFrame):
            self._close(frame.reason)
            return True
        return False

    async def flush(self) -> None:
        """Wait until everything sent before is with the operating system.

        At any time, also after `close()`; returns, and does not raise, if the connection ends. Always a
        checkpoint. Source: Ktor's `flush`, but for all that is queued.

        While a message goes out in pieces (`session.message`), what is queued behind it is waited for, too; but not
        by the task that sends the pieces, nor by those that it started: they wait for the pieces.
        """
        self._check_thread("flush")
        await self._connection.flush(self._streams)

    # ending

    def close(self, reason: CloseReason | int = CloseCode.NORMAL, message: str = "") -> None:
        """Begin the closing handshake, behind what is queued; does not wait.

        The peer's messages go on arriving until its Close does; sending raises from now on. May be called
        again: the first reason stands.

        Raises:
          ValueError: a code that may not be sent (1005, 1006, 1015, unregistered), or too long a message.
        """
        if not isinstance(reason, CloseReason):
            reason = CloseReason(reason, message)
        elif message:
            raise TypeError("give the message inside the CloseReason")
        self._close(reason)
        return _NOTHING_TO_AWAIT  # type: ignore[return-value]  # to a type checker it is None, as it should be

    def _close(self, reason: CloseReason | None) -> None:
        if reason is not None and not may_be_sent(reason.code):
            raise ValueError(f"the close code {reason.code} may not be sent")
        self._check_thread("close")
        self._connection.close(reason)

    async def aclose(self, reason: CloseReason | int = CloseCode.NORMAL, message: str = "") -> None:
        """Close, and wait until the stream is closed; at most `close_timeout` after our Close went out.

        Input that finds no place meanwhile is discarded. Always a checkpoint. Cancelled, it drops the
        connection, and not the handler.

        Raises:
          ValueError: as `close`.
        """
        self.close(reason, message)
        self._connection.inbox.let_overflow()
        try:
            await self._connection.wait_closed()
        except trio.Cancelled:
            self._connection.drop()
            raise

    def terminate(self) -> None:
        """Drop the connection now, without a Close frame, and cancel the handler and its tasks.

        Does not wait: the caller, too, is cancelled at its next checkpoint if it is the handler.
        """
        self._check_thread("terminate")
        self._connection.terminate()

    async def wait_closed(self) -> CloseReason:
        """Wait until the stream is closed; returns what ended the conversation. Always a checkpoint."""
        self._check_thread("wait_closed")
        await self._connection.wait_closed()
        reason = self._connection.closing.reason
        assert reason is not None
        return reason

    @property
    def close_reason(self) -> CloseReason | None:
        """What ended the conversation, ours if we began; None until that is known. No Close at all is 1006."""
        return self._connection.closing.reason

    @property
    def close_sent(self) -> CloseReason | None:
        """What our Close frame said, once it is with the system (empty: 1005)."""
        return self._connection.closing.sent

    @property
    def close_received(self) -> CloseReason | None:
        """What the peer's Close frame said, once it has come (empty: 1005)."""
        return self._connection.closing.received

    def _error(self, kind: type[ConnectionClosed]) -> ConnectionClosed:
        return kind(self._connection.closing.reason, self)

    def _raise_over(self) -> NoReturn:
        connection = self._connection
        if (
            connection.closing.closed_here or connection.closing.reason is None
        ):  # None: this handle was closed, a clone lives
            raise self._error(ConnectionClosedHere) from None
        if connection.closing.is_clean:
            raise self._error(ConnectionClosed) from None
        raise self._error(ConnectionBroken) from connection.closing.cause

    # tasks

    def start_soon(self, fn: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Start a task beside the handler (Ktor's `launch`).

        It is cancelled when the handler returns or the connection ends; an exception of it cancels the
        handler and counts as the handler's own.

        Raises:
          ConnectionClosed: the conversation is over.
        """
        self._check_thread("start_soon")
        if self._connection.closing.is_over or self._connection.tasks.are_done:
            self._raise_over()
        self._connection.start_soon(fn, args)

    # settings

    @property
    def extensions(self) -> tuple[Extension, ...]:
        """The extensions that were agreed on, in the order in which messages pass them on their way out."""
        return self._connection.extensions

    def extension(self, kind: type[ExtensionFactory | Extension]) -> Extension:
        """The extension of a kind: its factory's class, or its own.

        Raises:
          LookupError: it was not agreed on.
        """
        for extension in self.extensions:
            if isinstance(extension, kind) or isinstance(extension.factory, kind):
                return extension
        raise LookupError(f"{kind.__name__} was not agreed on; look at session.extensions")

    @property
    def max_frame_size(self) -> int | None:
        """Bytes of a frame and of a message; counts from the next header on."""
        return self._connection.conversation.max_frame_size

    @max_frame_size.setter
    def max_frame_size(self, size: int | None) -> None:
        WebSockets(max_frame_size=size)
        self._connection.conversation.max_frame_size = size

    @property
    def masking(self) -> bool:
        """Whether what is written from now on is masked, what waits in the queue included."""
        return self._connection.conversation.serializer.masking

    @masking.setter
    def masking(self, on: bool) -> None:
        WebSockets(masking=on)
        self._connection.conversation.serializer.masking = on

    def statistics(self) -> SessionStatistics:
        """What went over the wire until now, what waits, and since when."""
        return SessionStatistics.of(self._connection)

    def __repr__(self) -> str:
        connection = self._connection
        return (
            f"<{type(self).__name__} {self.call.path[:100]} {connection.closing.word}"
            f" in {connection.inbox.waiting} out {connection.outbox.waiting}>"
        )
