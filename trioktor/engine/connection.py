"""One connection after the upgrade: one nursery, who starts in it, who ends it, in what order.

Theory of operation. The nursery holds the handler in its body, the reader and the writer, and, while
configured, the pinger with its watchdog. None of the connection's own tasks raises for what a peer does:
they report a signal, which moves the closing handshake along its table (`protocol.closing`) and settles
the reason for good the first time.

The reader is the connection's thread of life. It reads until the conversation is over (`Reader._receive`),
sees the last answers and our Close out (`_conclude`), closes the stream, and watches a handler that stays
on. It runs shielded, as does the writer, so that a cancellation from outside cannot tear a frame or lose a
Close; in exchange every way out gives both shields a deadline:

- our Close is with the system: `close_timeout` for the peer's;
- the peer's Close, a violation: `answer_grace` for the handler, then the writer's progress limit;
- cancelled from outside, or the server stopped: one absolute deadline, shared by all connections;
- `terminate`, `aclose` cancelled: now.

`terminate` is a cancellation; `close` is a handshake and then one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, final

import attrs
import trio

from ..config import WebSockets
from ..errors import CloseTimeout, PingTimeout, WriteTimeout
from ..protocol.assembler import MessageAssembler
from ..protocol.close import CloseCode, CloseReason
from ..protocol.closing import TRANSITIONS, Signal, State
from ..protocol.errors import ProtocolError
from ..protocol.frames import CONTROL, CloseFrame, Frame, PingFrame
from ..protocol.parser import FrameParser
from ..protocol.serializer import Serializer, judge_close_reason
from .inbox import Inbox
from .keepalive import Keepalive
from .outbox import Outbox
from .outcome import Outcome, judge, merge, split
from .transport import Transport
from .writer import Writer

DRAIN_LIMIT: Final = 0.5
"""Seconds for which input is thrown away after our Close, so that a reset does not overtake it."""
STOP_LIMIT: Final = 1.0
"""Seconds that all connections together have for their goodbye when they are cancelled from outside."""
_LAST_WORDS: Final = 0.5
"""Seconds in which a peer that answers no Ping may still take our Close."""

_TURN: Final = 0xFF
"""Frames after which the reader gives others a turn, less one: a chunk can hold 10,922 empty ones."""

_OUTCOME_CODES: Final = {
    Outcome.RETURNED: CloseCode.NORMAL,
    Outcome.REFUSED: CloseCode.CANNOT_ACCEPT,
    Outcome.FAILED: CloseCode.INTERNAL_ERROR,
}

logger = logging.getLogger("trioktor.session")


@final
@attrs.define(eq=False)
class Stop:
    """The end that a server's connections share: one absolute deadline for all of them."""

    deadline: float = math.inf

    def begin(self) -> float:
        """The deadline; set by the first who asks."""
        if self.deadline == math.inf:
            self.deadline = trio.current_time() + STOP_LIMIT
        return self.deadline


class Connection:
    """An upgraded connection.

    Args:
      transport: the stream below; closed by `run`.
      settings: the configuration that holds here.
      client: whether this is the client's side, which masks.
      trailing: bytes that came with the handshake.
      stop: the end shared with other connections.
      on_failure: called with what a handler raised, if that is a failure; the default logs it.
    """

    __slots__ = (
        "_answered",
        "_children",
        "_errors",
        "_gone",
        "_goodbye",
        "_handler_scope",
        "_is_input_unread",
        "_is_reading",
        "_keepalive",
        "_nursery",
        "_on_failure",
        "_reader_deadline",
        "_reader_scope",
        "_running",
        "_stop",
        "_trailing",
        "_write_error",
        "_writer_deadline",
        "assembler",
        "bytes_received",
        "cause",
        "client",
        "close_reason",
        "close_received",
        "close_sent",
        "closed",
        "frames_received",
        "inbox",
        "is_closed_here",
        "is_handler_done",
        "outbox",
        "owner",
        "settings",
        "state",
        "timeout",
        "transport",
        "writer",
    )

    def __init__(
        self,
        transport: Transport,
        settings: WebSockets,
        *,
        client: bool = False,
        trailing: bytes = b"",
        stop: Stop | None = None,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        self.transport = transport
        self.settings = settings
        self.client = client
        self.owner: Any = self  # the session: named in errors and logs
        self.timeout: float = settings.timeout
        transport.write_timeout = settings.write_timeout
        # how the conversation stands
        self.state = State.OPEN
        self.close_reason: CloseReason | None = None
        self.close_sent: CloseReason | None = None
        self.close_received: CloseReason | None = None
        self.is_closed_here = False
        self.cause: BaseException | None = None
        self._write_error: BaseException | None = None
        # what it consists of
        parser = FrameParser(masked=not client, max_frame_size=settings.max_frame_size)
        self.assembler = MessageAssembler(parser, settings.max_fragments)
        self.inbox = Inbox(settings.incoming, settings.max_queued_bytes)
        self.outbox = Outbox(
            settings.outgoing,
            settings.max_queued_bytes,
            Serializer(masking=client or settings.masking),
            self._close_frame_sent,
            self._misused,
            self._need_writer,
        )
        self.writer: Writer | None = None
        self._keepalive: Keepalive | None = None
        self._trailing = trailing
        # who runs
        self._nursery: trio.Nursery | None = None
        self._handler_scope = trio.CancelScope()
        self._children: set[trio.CancelScope] = set()
        self._running = 1  # the handler and the tasks it started
        self._errors: list[Exception] = []
        self._on_failure = on_failure or self._log_failure
        self.is_handler_done = False
        self._gone: trio.Event | None = None  # the handler's end, where somebody waits for it
        # how it ends
        self._answered = trio.Event()
        self.closed = trio.Event()
        self._stop = stop or Stop()
        self._goodbye: CloseReason | None = None  # what our Close says
        self._is_reading = True
        self._is_input_unread = False
        self._reader_scope: trio.CancelScope | None = None
        self._reader_deadline = math.inf
        self._writer_deadline = math.inf
        # statistics
        self.frames_received = 0
        self.bytes_received = 0

    # the nursery

    async def run(self, handler: Callable[[], Awaitable[object]]) -> None:
        """Run the handler and the conversation; returns when both are over and the stream is closed.

        Raises:
          BaseException: only what is no `Exception`: `Cancelled`, `KeyboardInterrupt`, `SystemExit`.
        """
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._read, name="trioktor reader")
                self.set_keepalive(self.settings.ping_period, self.timeout)
                try:
                    with self._handler_scope:
                        await self._run_task(handler, self._handler_scope)
                    self.cancel_handler("the handler has returned")
                    await self.closed.wait()
                except BaseException:
                    self.stop_by(self._stop.begin())
                    raise
        finally:
            await self.transport.aclose()

    def start_soon(self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        """Run a task beside the handler; its failure counts as the handler's."""
        assert self._nursery is not None
        scope = trio.CancelScope()
        self._children.add(scope)
        self._running += 1
        self._nursery.start_soon(self._run_child, fn, args, scope, name=fn)

    async def _run_child(
        self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...], scope: trio.CancelScope
    ) -> None:
        with scope:
            await self._run_task(lambda: fn(*args), scope)
        self._children.discard(scope)

    async def _run_task(self, function: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
        """Run the handler or a task of it; the end of the last one is the end of the session."""
        try:
            await function()
        except BaseException as error:
            judged, rest = split(error)
            if judged is not None:
                self._errors.append(judged)
                self._handler_scope.cancel("a task of the session failed")
            if rest is not None:
                if not scope.cancel_called:  # cancelled from outside, or Ctrl-C
                    self.stop_by(self._stop.begin())
                raise rest from None
        finally:
            self._running -= 1
            if self._running == 0:
                self._handler_ended()

    def _handler_ended(self) -> None:
        self.is_handler_done = True
        outcome = Outcome.RETURNED
        error = merge(self._errors)
        if error is not None:
            outcome = judge(error, self.owner, is_over=self.close_reason is not None)
            self._report(error, outcome)
        self.inbox.let_overflow()
        self.close(CloseReason(_OUTCOME_CODES[outcome]))
        if self._gone is not None:
            self._gone.set()

    def _report(self, error: Exception, outcome: Outcome) -> None:
        if outcome is Outcome.FAILED:
            self._on_failure(error)
        else:
            logger.info("%s: the handler ended with %.200s", self.owner, ascii(error))

    def _log_failure(self, error: Exception) -> None:
        logger.error("%s: the handler failed", self.owner, exc_info=error)

    def cancel_handler(self, why: str) -> None:
        """Cancel the handler and its tasks; the conversation goes on to its end."""
        self._handler_scope.cancel(why)
        for scope in self._children:
            scope.cancel(why)

    # signals: what may end the conversation

    def _signal(self, signal: Signal, code: CloseReason, cause: BaseException | None = None) -> bool:
        """Move along the table; True if that settled the reason."""
        self.state = TRANSITIONS[self.state][signal]
        if self.state is State.BROKEN and self.cause is None:
            self.cause = cause
        if self.close_reason is not None:
            return False
        self.close_reason = code
        self.cause = cause
        if self._keepalive is not None:
            self._keepalive.stop()
        return True

    def close(self, reason: CloseReason | None, *, drop_queued: bool = False) -> None:
        """Begin the closing handshake behind what is queued; None is a Close without a code.

        Once the peer has begun, it says that there is nothing more to answer.
        """
        if self._signal(Signal.BEGIN_CLOSE, reason or CloseReason(CloseCode.NO_STATUS)):
            self.is_closed_here = True
            self._seal(reason, drop_queued=drop_queued)
        self._answered.set()

    def fail(self, reason: CloseReason, cause: BaseException) -> None:
        """End the conversation from our side as broken, with a Close that says so."""
        if self._signal(Signal.FAIL, reason, cause):
            self._seal(reason, drop_queued=True)
            self._end_reading()

    def lose(self, cause: BaseException | None = None) -> None:
        """The stream is gone, or is to be: end the conversation without a Close."""
        self._signal(Signal.LOSE, CloseReason(CloseCode.CLOSED_ABNORMALLY), cause)

    def drop(self) -> None:
        """Drop the connection now."""
        self.lose()
        self.stop_by(-math.inf)

    def terminate(self) -> None:
        """Drop the connection now, and cancel the handler."""
        self.drop()
        self.cancel_handler("terminate")

    def stop_by(self, deadline: float) -> None:
        """Say goodbye (1001) if nothing was said yet, and be gone by `deadline`, an absolute time."""
        self.close(CloseReason(CloseCode.GOING_AWAY))
        self._writer_deadline = min(self._writer_deadline, deadline)
        if self.writer is not None:
            self.writer.stop_by(deadline)
        self._reader_deadline = min(self._reader_deadline, deadline)
        self._limit_reader(deadline)

    def _seal(self, reason: CloseReason | None, *, drop_queued: bool = False) -> None:
        """Accept no more to send; `reason` goes out behind what was accepted."""
        if not self.outbox.is_sealed:
            self._goodbye = reason or CloseReason(CloseCode.NO_STATUS)
            self.outbox.seal(CloseFrame(reason), drop_queued=drop_queued)
            if self.writer is None:
                self._write_goodbye()

    def _limit_reader(self, deadline: float) -> None:
        if self._reader_scope is not None:
            self._reader_scope.deadline = min(self._reader_scope.deadline, deadline)

    def _end_reading(self) -> None:
        if self._is_reading:
            self._limit_reader(-math.inf)

    # what comes out of `outgoing` and is no message

    def _close_frame_sent(self, frame: CloseFrame) -> None:
        judge_close_reason(frame)
        self.close(frame.reason, drop_queued=True)

    def _misused(self, error: ProtocolError) -> None:
        logger.error("%s: what may not be sent was put into outgoing: %s", self.owner, error)
        self.fail(CloseReason(CloseCode.INTERNAL_ERROR), error)

    def _last_handle_closed(self) -> None:
        self.close(CloseReason(CloseCode.NORMAL))

    # keepalive

    def set_keepalive(self, period: float | None, timeout: float) -> None:
        """Start, stop or re-arm the pinger."""
        self.timeout = timeout
        if self._keepalive is not None:
            self._keepalive.stop()
            self._keepalive = None
        if period is not None and self.state is State.OPEN and self._nursery is not None:
            self._keepalive = Keepalive(self, period, timeout, self._ping_timed_out)
            self.transport.on_progress = self._keepalive.sign_of_life
            self._nursery.start_soon(self._keepalive.run_pinger, name="trioktor pinger")

    @property
    def ping_period(self) -> float | None:
        """Seconds between Pings, or None while there are none."""
        return self._keepalive.period if self._keepalive is not None else None

    def send_control(self, frame: Frame) -> None:
        """Send a Ping or Pong ahead of what is queued."""
        self.outbox.put_control(frame)
        self._need_writer()

    def _ping_timed_out(self) -> None:
        self.fail(
            CloseReason(CloseCode.INTERNAL_ERROR, "Ping timeout"), PingTimeout(f"no Pong within {self.timeout:g} s")
        )
        if self.writer is not None:
            self.writer.stop_by(trio.current_time() + _LAST_WORDS)

    # the reader: the connection's thread of life

    async def _read(self) -> None:
        with trio.CancelScope(shield=True, deadline=self._reader_deadline) as self._reader_scope:
            await self._receive()
        self._is_reading = False
        if not self.state.is_over:  # its time is up
            self.lose(self._write_error or CloseTimeout("the peer did not answer our Close in time"))
        self.inbox.end()
        with trio.CancelScope(shield=True, deadline=self._reader_deadline) as self._reader_scope:
            await self._conclude()
        self.outbox.abandon()
        if self.writer is not None:
            self.writer.stop_by(-math.inf)
        with trio.CancelScope(shield=True):  # closes at once
            await self.transport.aclose()
        self.closed.set()
        await self._watch_handler()

    async def _receive(self) -> None:
        """Read until nothing more is to be read, and signal why."""
        transport, inbox = self.transport, self.inbox
        data, self._trailing = self._trailing, b""
        try:
            while True:
                frames_before = self.frames_received
                for frame in self.assembler.feed(data):
                    self.frames_received += 1
                    if frame.first_byte & CONTROL:
                        if self._is_last(frame):
                            return
                    elif not inbox.offer(frame):
                        await inbox.wait(transport.has_hung_up, self.owner)
                        self._sign_of_life()
                    if not self.frames_received & _TURN:
                        await trio.lowlevel.checkpoint()
                inbox.is_burst = self.frames_received - frames_before > 1
                data = await transport.receive()
                if not data:
                    self.lose(self._write_error)
                    return
                self.bytes_received += len(data)
                self._sign_of_life()
        except ProtocolError as error:
            self._is_input_unread = True
            self._signal(Signal.FAIL, CloseReason(error.close_code), error)
        except trio.BrokenResourceError as error:
            self.lose(self._write_error or error.__cause__ or error)

    def _sign_of_life(self) -> None:
        if self._keepalive is not None:
            self._keepalive.sign_of_life()

    def _is_last(self, frame: Frame) -> bool:
        """Answer a control frame; True if it was a Close, behind which nothing is read."""
        if type(frame) is PingFrame:
            self.outbox.owe_pong(frame)
            self._need_writer()
        elif type(frame) is CloseFrame:
            self.close_received = frame.reason or CloseReason(CloseCode.NO_STATUS)
            self._signal(Signal.PEER_CLOSE, self.close_received)
            return True
        elif self._keepalive is not None:
            self._keepalive.pong_received(frame)
        return False

    async def _conclude(self) -> None:
        """See the last answers and our Close out."""
        if (self.state is State.BROKEN and not self._is_input_unread) or self._write_error is not None:
            return
        if not self.outbox.is_sealed:
            assert self.close_reason is not None
            with trio.move_on_after(self.settings.answer_grace):
                await self._answered.wait()
            code = self.close_reason.code  # the peer's, echoed (RFC 6455 §5.5.1), or the violation's
            self._seal(None if code == CloseCode.NO_STATUS else CloseReason(code))
        await self.outbox.flush()
        if self.state.is_clean and not self.client:
            self._is_input_unread = bool(self.transport.receive_nowait())
        if self._is_input_unread or not self.state.is_clean or self.client:
            await self._drain()

    async def _drain(self) -> None:
        """Let the peer read our Close: closing with unread input would reset the connection."""
        with trio.move_on_after(DRAIN_LIMIT):
            await self.transport.send_eof()
            try:
                while await self.transport.receive():
                    pass
            except trio.BrokenResourceError:
                pass

    async def _watch_handler(self) -> None:
        """Cancel a handler that stays on after the end and does nothing with what is left."""
        for scope in self._children:
            scope.cancel("the connection has ended")
        grace = self.settings.handler_grace
        while not self.is_handler_done and grace is not None:
            left = self.inbox.waiting
            self._gone = trio.Event()
            with trio.move_on_after(grace):
                await self._gone.wait()
                return
            if self.inbox.waiting >= left:
                self.cancel_handler("the conversation is over")
                return

    # the writer

    def _need_writer(self) -> None:
        """There is something to write: start the writer, or have it look."""
        if self.writer is not None:
            self.writer.nudge()
        elif not self.closed.is_set():
            assert self._nursery is not None
            self.writer = Writer(self.outbox, self.inbox, self.transport, self._last_handle_closed)
            self.writer.stop_by(self._writer_deadline)
            self._nursery.start_soon(self._write, self.writer, name="trioktor writer")

    def write_through(self, frame: Frame) -> bool:
        """Write a frame straight to the socket, if nothing is in its way; False if it has to be queued."""
        if self.inbox.is_burst or not self.transport.takes_nowait:
            return False  # in a burst more answers will follow: they go out together
        try:
            return self.outbox.write_through(frame, self.transport)
        except trio.BrokenResourceError as error:
            self._write_failed(error.__cause__ or error)
            return True  # accepted, and lost with the connection

    def _write_goodbye(self) -> None:
        try:
            if self.outbox.write_goodbye(self.transport):
                self._goodbye_written()
            else:
                self._need_writer()
        except trio.BrokenResourceError as error:
            self._write_failed(error.__cause__ or error)

    def _goodbye_written(self) -> None:
        if self._goodbye is not None:
            self.close_sent = self._goodbye
            if self.state is State.CLOSING:
                self._limit_reader(trio.current_time() + self.settings.close_timeout)

    async def _write(self, writer: Writer) -> None:
        try:
            is_all_written = await writer.run()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._write_failed(error.__cause__ or error)
        except WriteTimeout as error:
            self.lose(error)
            self._end_reading()
            self.outbox.abandon()
        else:
            if not is_all_written:
                self.outbox.abandon()
            else:
                self._goodbye_written()

    def _write_failed(self, error: BaseException) -> None:
        """The peer takes nothing more; what it said before may still be there to be read."""
        self._write_error = error
        if self.close_reason is not None:
            self.outbox.abandon()
        if self.inbox.is_stalled:
            self._end_reading()
        elif self._is_reading:
            self._limit_reader(trio.current_time() + DRAIN_LIMIT)
