"""What every session has beside its channel: the request, the end, tasks and settings."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, NoReturn, TypeVar, TypeVarTuple

import trio

from ..config import WebSockets
from ..engine.connection import Connection
from ..engine.streamed import StreamedMessage
from ..errors import NotSupported
from ..protocol.close import CloseCode, CloseReason, may_be_sent
from ..protocol.extensions import Extension, ExtensionFactory
from ..protocol.frames import CloseFrame, Frame
from ..protocol.prepared import PreparedMessage
from .channel import FrameChannel
from .iteration import FramesOf
from .statistics import SessionStatistics

if TYPE_CHECKING:
    from ..http.call import Call
    from ..routing.routes import Routes

F = TypeVar("F", bound=Frame)
Ts = TypeVarTuple("Ts")


class _NothingToAwait:
    """What `close()` returns: falsy as None is, and an error that helps those who await it as in Ktor."""

    def __await__(self) -> NoReturn:
        raise TypeError("session.close() does not wait: call it without await, or `await session.aclose()`")

    def __bool__(self) -> bool:
        return False


_NOTHING_TO_AWAIT = _NothingToAwait()


class BaseSession(FrameChannel):
    """What `WebSocketSession` and `RawWebSocketSession` have in common; not to be constructed.

    Attributes:
      call: the request that opened the conversation.
      application: the application that serves it.
    """

    __slots__ = ("_streams", "application", "call")

    def __init__(self, connection: Connection, call: Call, application: Routes | None) -> None:
        super().__init__(connection)
        self._streams: tuple[StreamedMessage, ...] = ()  # messages that are being sent in pieces
        self.call: Call = call
        self.application: Routes | None = application
        connection.owner = self

    def frames(self, kind: type[F]) -> AsyncIterator[F]:
        """Iterate over the messages of one kind and skip the others (Ktor: `mapNotNull { it as? … }`).

        Ends and raises as iterating over the session does.
        """
        return FramesOf(self, kind)

    # sending

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

        While a message goes out in pieces (`session.message`), this waits for messages queued after it, too. The task
        that sends the pieces, and tasks that it started, wait only for the pieces so far, and for earlier messages.
        """
        self._check_thread("flush")
        await self._connection.flush(self._streams)

    # with others

    def offer(self, message: PreparedMessage) -> bool:
        """Send a message that others get, too: straight out if nothing is in its way; False if there is no room.

        An extension that fails at it ends this conversation, and no other.

        Raises:
          ConnectionClosed, RuntimeError: as `send`.
        """
        self._check_thread("offer")
        outbox, outgoing = self._outbox, self._outgoing
        if outbox.is_sealed:
            self._raise_over()
        is_in_fragments = outgoing.serializer.is_in_message and outbox.pending.stream is None  # behind that it waits
        if outgoing.opened is not None or is_in_fragments or not outbox.has_room_for(message):
            return False
        try:
            return self._writing.write_through(message, keep=False) or outbox.accept(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._raise_over()
        except Exception as error:
            self._connection.ends.crashed(error)
            return False

    def preparing(self, message: PreparedMessage) -> Iterator[None] | None:
        """The steps that make a long message ready for connections like this one; None if there is nothing to do."""
        steps = self._outgoing.preparing(message)
        return None if steps is None else self._prepare(steps)

    def _prepare(self, steps: Iterator[None]) -> Iterator[None]:
        try:
            yield from steps
        except Exception as error:  # as for `offer`
            self._connection.ends.crashed(error)

    def overflow(self) -> None:
        """End the conversation for what there is no room for (1013), as `ChannelConfig` with CLOSE does."""
        self._connection.ends.overflowed()

    # ending

    def close(self, reason: CloseReason | int = CloseCode.NORMAL, message: str = "") -> None:
        """Begin the closing handshake, behind what is queued; does not wait.

        The peer's messages go on arriving until its Close does; sending raises from now on. What is queued behind a
        message in pieces that is not finished cannot be said any more. May be called again: the first reason stands.

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
        self._connection.ends.close(reason)

    async def aclose(self, reason: CloseReason | int = CloseCode.NORMAL, message: str = "") -> None:
        """Close, and wait until the stream is closed; at most `close_timeout` after our Close went out.

        Input that finds no place meanwhile is discarded, and all behind it. Always a checkpoint. Cancelled, it drops
        the connection, and not the handler.

        Raises:
          ValueError: as `close`.
        """
        self.close(reason, message)
        self._connection.inbox.discard_overflow()
        try:
            await self._connection.ending.wait_closed()
        except trio.Cancelled:
            self._connection.ends.drop()
            raise

    def terminate(self) -> None:
        """Drop the connection now, without a Close frame, and cancel the handler and its tasks.

        Does not wait: the caller, too, is cancelled at its next checkpoint if it is the handler.
        """
        self._check_thread("terminate")
        self._connection.ends.terminate()

    async def wait_closed(self) -> CloseReason:
        """Wait until the stream is closed; returns what ended the conversation. Always a checkpoint."""
        self._check_thread("wait_closed")
        await self._connection.ending.wait_closed()
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
        """What the peer's Close frame said, once it has come (empty: 1005); on other servers what they tell of it."""
        return self._connection.closing.received

    # tasks

    def start_soon(self, fn: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Start a task beside the handler (Ktor's `launch`).

        It is cancelled when the handler returns or the connection ends; an exception of it cancels the
        handler and counts as the handler's own.

        Raises:
          ConnectionClosed: the conversation is over.
          TypeError: what is to be run is no function, such as the coroutine of one that was called already.
        """
        self._check_thread("start_soon")
        if not callable(fn):
            _refuse_to_start(fn)
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
        return self._connection.conversation.parser.max_frame_size

    @max_frame_size.setter
    def max_frame_size(self, size: int | None) -> None:
        self._check_thread("max_frame_size")
        WebSockets(max_frame_size=size)
        self._connection.conversation.parser.max_frame_size = size

    @property
    def masking(self) -> bool:
        """Whether what is written from now on is masked, what waits in the queue included."""
        return self._connection.conversation.serializer.masking

    @masking.setter
    def masking(self, on: bool) -> None:
        self._check_thread("masking")
        WebSockets(masking=on)
        if self._connection.closing.is_client and not on:
            raise ValueError("a client always masks what it sends (RFC 6455 §5.1)")
        self._check_supported(self._connection.transport.supports.extensions or not on, "masking")
        self._connection.conversation.serializer.masking = on

    def _check_supported(self, is_supported: bool, what: str) -> None:
        """Refuse what whoever carries the conversation cannot do."""
        if not is_supported:
            raise NotSupported(f"there is no {what} here: {self._connection.transport.supports.name} does not show it")

    def statistics(self) -> SessionStatistics:
        """What went over the wire until now, what waits, and since when."""
        return SessionStatistics.of(self._connection)

    def __repr__(self) -> str:
        connection = self._connection
        return (
            f"<{type(self).__name__} {self.call.path[:100]} {connection.closing.word}"
            f" in {connection.inbox.waiting} out {connection.outbox.waiting}>"
        )


def _refuse_to_start(given: object) -> NoReturn:
    if inspect.iscoroutine(given):
        given.close()
    raise TypeError(f"start_soon takes an async function and its arguments, not {given!r}")
