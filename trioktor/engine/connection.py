"""One connection after the upgrade: one nursery, who starts in it, who ends it, in what order.

Theory of operation. The nursery holds the handler in its body, the reader, the writer once something has
to wait, and, while configured, the pinger with its watchdog. None of the connection's own tasks raises for
what a peer does: they report a signal, which moves the closing handshake along its table
(`protocol.closing`) and settles the reason for good the first time.

Reader and writer run shielded, so that a cancellation from outside cannot tear a frame or lose a Close; in
exchange every way out gives both shields a deadline:

- our Close is with the system: `close_timeout` for the peer's;
- the peer's Close, a violation: `answer_grace` for the handler, then the writer's progress limit;
- cancelled from outside, or the server stopped: one absolute deadline, shared by all connections;
- `terminate`, `aclose` cancelled: now.

`terminate` is a cancellation; `close` is a handshake and then one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, final

import attrs
import trio

from ..config import WebSockets, channel_config
from ..errors import ChannelOverflow, PingTimeout, WriteTimeout
from ..protocol.assembler import MessageAssembler, RawFrames, judge_text_in_steps
from ..protocol.close import CloseCode, CloseReason
from ..protocol.closing import TRANSITIONS, Signal, State
from ..protocol.errors import ProtocolError
from ..protocol.extensions import ExtendedFrames, Extension, reserved_bits
from ..protocol.frames import CloseFrame, Frame
from ..protocol.parser import FrameParser
from ..protocol.serializer import Serializer, judge_close_reason
from .frame_log import Feed, LoggingSerializer, is_logging, logged
from .inbox import Inbox
from .keepalive import Keepalive
from .outbox import Outbox
from .outcome import Outcome, judge, origin
from .patience import Patience
from .pings import Ping, Pings
from .reader import DRAIN_LIMIT, Reader
from .shared import SharedMessage
from .streamed import StreamedMessage
from .tasks import HandlerTasks
from .transport import Transport
from .wire import Wire
from .writer import Writer

STOP_LIMIT: Final = 1.0
"""Seconds that all connections together have for their goodbye when they are cancelled from outside."""
_LAST_WORDS: Final = 0.5
"""Seconds in which a peer that answers no Ping may still take our Close."""

_OUTCOME_CODES: Final = {
    Outcome.RETURNED: CloseCode.NORMAL,
    Outcome.REFUSED: CloseCode.CANNOT_ACCEPT,
    Outcome.INCONSISTENT: CloseCode.NOT_CONSISTENT,
    Outcome.FAILED: CloseCode.INTERNAL_ERROR,
}

logger: logging.Logger = logging.getLogger("trioktor.session")


@final
@attrs.define(eq=False)
class Stop:
    """The end that a server's connections share: one absolute deadline for all of them.

    `on_begin` is called when the first of them is cancelled or interrupted: the others must not hear of it
    only when that one has said its goodbye, and the time is up.
    """

    deadline: float = math.inf
    on_begin: Callable[[], None] | None = None
    _has_begun: bool = False

    def begin(self) -> float:
        """Begin the end, if nobody has; returns the deadline."""
        if not self._has_begun:
            self._has_begun = True
            self.deadline = min(self.deadline, trio.current_time() + STOP_LIMIT)
            if self.on_begin is not None:
                self.on_begin()
        return self.deadline


class Connection:
    """An upgraded connection.

    Args:
      transport: the stream below; closed by `run`.
      settings: the configuration that holds here.
      client: whether this is the client's side, which masks.
      raw: whether the session sees every frame and answers by itself.
      extensions: those that were negotiated; in a raw session they are the handler's business.
      greeting: bytes to write first: the 101. Written here, so that no cancellation comes between them and
        the conversation.
      trailing: bytes that came with the handshake.
      stop: the end shared with other connections.
      on_failure: called with what a handler raised, if that is a failure; the default logs it.
    """

    __slots__ = (
        "_goodbye",
        "_keepalive",
        "_nursery",
        "_on_failure",
        "_stop",
        "_watching",
        "_writer_deadline",
        "answered",
        "assembler",
        "cause",
        "client",
        "close_reason",
        "close_received",
        "close_sent",
        "closed",
        "extensions",
        "feed",
        "inbox",
        "is_closed_here",
        "is_raw",
        "opened_at",
        "outbox",
        "owner",
        "pings",
        "reader",
        "settings",
        "state",
        "tasks",
        "timeout",
        "transport",
        "wire",
        "write_error",
        "writer",
    )

    def __init__(
        self,
        transport: Transport,
        settings: WebSockets,
        *,
        client: bool = False,
        raw: bool = False,
        extensions: tuple[Extension, ...] = (),
        greeting: bytes = b"",
        trailing: bytes = b"",
        stop: Stop | None = None,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        self.transport: Transport = transport
        self.settings: WebSockets = settings
        self.client: bool = client
        self.is_raw: bool = raw
        self.opened_at: float = trio.current_time()
        self.owner: Any = self  # the session: named in errors and logs
        self.timeout: float = settings.timeout
        transport.write_timeout = settings.write_timeout
        # how the conversation stands
        self.state: State = State.OPEN
        self.close_reason: CloseReason | None = None
        self.close_sent: CloseReason | None = None
        self.close_received: CloseReason | None = None
        self.is_closed_here: bool = False
        self.cause: BaseException | None = None
        self.write_error: BaseException | None = None
        self._goodbye: CloseReason | None = None  # what our Close says
        # what it consists of
        self.extensions: tuple[Extension, ...] = extensions
        reserved = reserved_bits(extensions) if extensions else 0
        parser = FrameParser(
            masked=not client, max_frame_size=settings.max_frame_size, whole_messages=not raw, reserved=reserved
        )
        self.assembler: MessageAssembler | RawFrames = (
            RawFrames(parser) if raw else MessageAssembler(parser, settings.max_fragments)
        )
        self.pings: Pings = Pings()
        self.inbox: Inbox = Inbox(channel_config(settings.incoming), settings.max_queued_bytes)
        serializer = Serializer(masking=client or settings.masking, reserved=reserved)
        self.feed: Feed = self.assembler.feed
        if extensions and not raw:
            self.feed = ExtendedFrames(self.feed, extensions, lambda: parser.max_frame_size, judge_text_in_steps).feed
        self.wire: Wire = Wire(transport, greeting)
        self.outbox: Outbox = Outbox(
            self,
            self.wire,
            channel_config(settings.outgoing),
            settings.max_queued_bytes,
            serializer,
            in_order=raw,
            extensions=() if raw else extensions,
        )
        # who runs
        self._nursery: trio.Nursery | None = None
        self.tasks: HandlerTasks = HandlerTasks(self._handler_ended, self._interrupted)
        self.reader: Reader = Reader(self, trailing)
        self.writer: Writer | None = None
        self._watching: trio.CancelScope | None = None  # of the write timeout
        self._keepalive: Keepalive | None = None
        self._on_failure = on_failure or self._log_failure
        # how it ends
        self.answered: trio.Event = trio.Event()  # the handler has nothing more to say
        self.closed: trio.Event = trio.Event()
        self._stop = stop or Stop()
        self._writer_deadline = math.inf

    def __repr__(self) -> str:
        return repr(self.owner) if self.owner is not self else object.__repr__(self)

    # the nursery

    def _log_frames(self) -> None:
        self.feed = logged(self.feed, self.owner)
        serializer = self.outbox.serializer
        self.outbox.serializer = LoggingSerializer(
            masking=serializer.masking, reserved=serializer.reserved, who=self.owner
        )

    async def run(self, handler: Callable[[], Awaitable[object]]) -> None:
        """Run the handler and the conversation; returns when both are over and the stream is closed.

        Raises:
          BaseException: only what is no `Exception`: `Cancelled`, `KeyboardInterrupt`, `SystemExit`.
        """
        if is_logging():
            self._log_frames()
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self.reader.run, name="trioktor reader")
                self._greet()
                if not self.is_raw:  # there the handler sees the Pongs
                    self.set_keepalive(self.settings.ping_period, self.timeout)
                try:
                    await self.tasks.run_handler(handler)
                    await self.closed.wait()
                except BaseException:
                    self._interrupted()
                    raise
        finally:
            await self.transport.aclose()

    def start_soon(self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        """Run a task beside the handler; its failure counts as the handler's."""
        assert self._nursery is not None
        self.tasks.start_soon(self._nursery, fn, args)

    def _greet(self) -> None:
        try:
            self.outbox.greet()
        except trio.BrokenResourceError as error:
            self._write_failed(error.__cause__ or error)

    async def finish(self) -> None:
        """Close the stream and let go of everybody who waits for it."""
        self.outbox.abandon()
        if self.writer is not None:
            self.writer.stop_by(-math.inf)
        if self._watching is not None:
            self._watching.cancel("nothing is written any more")
        with trio.CancelScope(shield=True):  # closes at once, or bounds itself
            await self.transport.aclose()
        self.closed.set()

    def _interrupted(self) -> None:
        """Cancelled from outside: a short goodbye."""
        self.stop_by(self._stop.begin())

    def _handler_ended(self, error: Exception | None) -> None:
        outcome = Outcome.RETURNED
        if error is not None:
            outcome = judge(error, self.owner, is_over=self.close_reason is not None)
            if outcome is Outcome.FAILED:
                self._on_failure(error)
            else:
                logger.info("%s: the handler ended with %.200s at %s", self.owner, ascii(error), origin(error))
        self.inbox.let_overflow()
        if self.is_raw and outcome is Outcome.RETURNED:
            self._leave()
        else:
            self.close(CloseReason(_OUTCOME_CODES[outcome]))

    def _leave(self) -> None:
        """A raw handler returned: what is queued goes out, and no Close but the one that it sent itself."""
        if self.state is State.OPEN:
            own = self.outbox.seal()
            if own is not None:
                self.is_closed_here = True
                self.signal(Signal.BEGIN_CLOSE, own.reason or CloseReason(CloseCode.NO_STATUS))
                self._say_goodbye(own.reason)
            else:
                self.lose(may_answer=True)
                self.reader.end_reading()
        self.answered.set()

    def _log_failure(self, error: Exception) -> None:
        logger.error("%s: the handler failed", self.owner, exc_info=error)

    # signals: what may end the conversation

    def signal(self, signal: Signal, reason: CloseReason, cause: BaseException | None = None) -> bool:
        """Move along the table; True if that settled the reason."""
        self.state = TRANSITIONS[self.state][signal]
        if self.close_reason is None:
            self.close_reason = reason
            self.cause = cause
            if self._keepalive is not None:
                self._keepalive.stop()
            return True
        if self.cause is None:  # of the end that may come to be a broken one
            self.cause = cause
        return False

    def close(self, reason: CloseReason | None, *, drop_queued: bool = False) -> None:
        """Begin the closing handshake behind what is queued; None is a Close without a code.

        Once the peer has begun, it says that there is nothing more to answer; but in a raw session it is the
        answer. Whatever the state, nothing more is accepted from now on.
        """
        if self.state is State.OPEN:
            earlier = self.outbox.seal(drop_queued=drop_queued)
            if earlier is not None:  # it was put into `outgoing` before, and the first reason stands
                reason = earlier.reason
            self.is_closed_here = True
            self.signal(Signal.BEGIN_CLOSE, reason or CloseReason(CloseCode.NO_STATUS))
            self._say_goodbye(reason)
        else:
            self.signal(Signal.BEGIN_CLOSE, reason or CloseReason(CloseCode.NO_STATUS))
            self.end_sending(CloseFrame(reason) if self.is_raw else None, drop_queued=drop_queued)
        self.answered.set()

    def end_sending(self, own: CloseFrame | None = None, *, drop_queued: bool = False) -> None:
        """Accept nothing more, once the conversation is not open any more; our Close follows, where one is due.

        That is the peer's code, echoed (RFC 6455 §5.5.1), or the violation's; but in a raw session whose peer
        closed only `own`, or a Close that was put into `outgoing`.
        """
        if self.outbox.is_sealed:
            return
        earlier = self.outbox.seal(drop_queued=drop_queued)
        assert self.close_reason is not None
        if self.is_raw and self.state is not State.FAILING:
            own = earlier or own
            if own is not None:
                self._say_goodbye(own.reason)
        else:
            code = self.close_reason.code
            self._say_goodbye(None if code == CloseCode.NO_STATUS else CloseReason(code))

    def fail(
        self, reason: CloseReason, cause: BaseException, *, by_peer: bool = False, drop_queued: bool = True
    ) -> None:
        """End the conversation from our side as broken, with a Close that says so.

        Once the end has begun, this is only noted: as the cause, should it become a broken one. But if it was the
        peer that broke a rule, nothing more is read.
        """
        if self.signal(Signal.VIOLATE if by_peer else Signal.FAIL, reason, cause):
            self.outbox.seal(drop_queued=drop_queued)
            self._say_goodbye(reason)
        if self.state.is_over:
            self.reader.end_reading()

    def give_up_message(self) -> None:
        """A message in pieces was left unfinished: nothing can be said behind it but a Close."""
        if self.state is State.OPEN:
            error = ProtocolError("a streamed message was left unfinished")
            self.fail(CloseReason(CloseCode.INTERNAL_ERROR), error, drop_queued=False)
        else:
            self.end_sending()

    def lose(self, cause: BaseException | None = None, *, may_answer: bool = False) -> None:
        """The stream is gone, or is to be: end the conversation without a Close.

        `may_answer` leaves what is queued to be written: the peer may have closed its half alone.
        """
        self.signal(Signal.LOSE, CloseReason(CloseCode.CLOSED_ABNORMALLY), cause)
        if not may_answer:
            self.outbox.abandon()

    def drop(self) -> None:
        """Drop the connection now."""
        self.lose()
        self.stop_by(-math.inf)

    def terminate(self) -> None:
        """Drop the connection now, and cancel the handler."""
        self.drop()
        self.tasks.cancel("terminate")

    def stop_by(self, deadline: float) -> None:
        """Say goodbye (1001) if nothing was said yet, and be gone by `deadline`, an absolute time."""
        self.close(CloseReason(CloseCode.GOING_AWAY))
        self._writer_deadline = min(self._writer_deadline, deadline)
        if self.writer is not None:
            self.writer.stop_by(deadline)
        self.reader.stop_by(deadline)

    def _say_goodbye(self, reason: CloseReason | None) -> None:
        self._goodbye = reason or CloseReason(CloseCode.NO_STATUS)
        self.outbox.say_goodbye(CloseFrame(reason))
        if self.writer is None:
            self._write_goodbye()

    async def flush(self, streams: Iterable[StreamedMessage]) -> None:
        """Wait until all that was sent before is with the system, or the connection is over. A checkpoint.

        Whoever sends one of the `streams` waits for its fragments alone: what is behind has to wait for him.
        """
        for stream in streams:
            if stream.is_sent_by(trio.lowlevel.current_task()):
                await stream.flush()
                if not stream.is_shut:
                    return
        await self.outbox.flush()

    # what comes out of `outgoing` and is no message

    def close_frame_sent(self, frame: CloseFrame) -> None:
        """Put into `outgoing`, it is the same as `session.close`."""
        judge_close_reason(frame)
        self.close(frame.reason, drop_queued=True)

    def close_frame_overtaken(self, frame: CloseFrame) -> None:
        """It was put into `outgoing` before `close` was called, one pass ago: the first reason stands."""
        if self.state is State.CLOSING:
            self.close_reason = frame.reason or CloseReason(CloseCode.NO_STATUS)
        if self.state is State.CLOSING or (self.is_raw and self.state is State.ANSWERING):
            self._say_goodbye(frame.reason)

    def misused(self, error: ProtocolError) -> None:
        """What may not be sent was put into `outgoing`."""
        logger.error("%s: what may not be sent was put into outgoing: %s", self.owner, error)
        self.fail(CloseReason(CloseCode.INTERNAL_ERROR), error)

    def overflowed(self) -> None:
        """More was put into `outgoing` than it holds, and that is to end the conversation."""
        overflow = ChannelOverflow(f"outgoing was full with {self.outbox.waiting} frames")
        self.fail(CloseReason(CloseCode.TRY_AGAIN_LATER), overflow, drop_queued=False)

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
    def is_stalled(self) -> bool:
        """Whether the reader waits for the handler."""
        return self.inbox.is_stalled

    @property
    def ping_period(self) -> float | None:
        """Seconds between Pings, or None while there are none."""
        return self._keepalive.period if self._keepalive is not None else None

    def send_control(self, frame: Frame) -> None:
        """Send a Ping or Pong ahead of what is queued."""
        self.outbox.put_control(frame)
        self.need_writer()

    def sign_of_life(self) -> None:
        """The peer sent something, or was not listened to."""
        if self._keepalive is not None:
            self._keepalive.sign_of_life()

    def owe_pong(self, ping: Frame) -> None:
        """Answer a Ping as soon as the writer can."""
        self.outbox.owe_pong(ping)
        self.need_writer()

    def ping(self, payload: bytes | None = None) -> Ping:
        """Send a Ping; its event is set when the Pong has come, or the conversation is over.

        Raises:
          ValueError: too many bytes, or one with the same is out.
        """
        ping = self.pings.begin(payload)
        self.send_control(ping.frame)
        return ping

    def _ping_timed_out(self) -> None:
        self.fail(
            CloseReason(CloseCode.INTERNAL_ERROR, "Ping timeout"), PingTimeout(f"no Pong within {self.timeout:g} s")
        )
        if self.writer is not None:
            self.writer.stop_by(trio.current_time() + _LAST_WORDS)

    # the writer

    def need_writer(self) -> None:
        """There is something to write: start the writer, or have it look."""
        if self.writer is not None:
            self.writer.nudge()
        elif self._nursery is not None and not self.closed.is_set():  # else `run` looks
            self.outbox.open()
            self.writer = Writer(self.outbox, self.inbox, self.wire, self._last_handle_closed)
            self.writer.stop_by(self._writer_deadline)
            self._nursery.start_soon(self._write, self.writer, name="trioktor writer")
            if not self.transport.takes_nowait:
                self._watching = trio.CancelScope(shield=True)  # here: it may be cancelled before its first turn
                self._nursery.start_soon(self._watch_writer, self._watching, name="trioktor write timeout")

    def write_through(self, item: Frame | SharedMessage) -> bool:
        """Write a frame straight to the socket, if nothing is in its way; False if it has to be queued."""
        if self.inbox.is_burst or not self.transport.takes_nowait:
            return False  # in a burst more answers will follow: they go out together
        try:
            return self.outbox.write_through(item)
        except trio.BrokenResourceError as error:
            self._write_failed(error.__cause__ or error)
            return True  # accepted, and lost with the connection

    def _write_goodbye(self) -> None:
        try:
            if self.outbox.write_goodbye():
                self._goodbye_written()
            else:
                self.need_writer()
        except trio.BrokenResourceError as error:
            self._write_failed(error.__cause__ or error)

    def _goodbye_written(self) -> None:
        if self._goodbye is not None and self.close_sent is None:
            self.close_sent = self._goodbye
            if self.state is State.CLOSING:
                assert self._nursery is not None
                self._nursery.start_soon(self._await_answer, name="trioktor close timeout")

    async def _await_answer(self) -> None:
        """Read at most `close_timeout` longer."""
        done = self.reader.done = trio.Event()
        if self.reader.is_reading and await Patience(self.settings.close_timeout).outlast(done.wait):
            self.reader.end_reading()

    async def _watch_writer(self, scope: trio.CancelScope) -> None:
        with scope:
            await self.transport.watch()

    async def _write(self, writer: Writer) -> None:
        try:
            is_all_written = await writer.run()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._write_failed(error.__cause__ or error)
        except WriteTimeout as error:
            self.lose(error)
            self.reader.end_reading()
        else:
            if not is_all_written:
                self.outbox.abandon()
            elif self.outbox.has_said_goodbye:
                self._goodbye_written()

    def _write_failed(self, error: BaseException) -> None:
        """The peer takes nothing more; what it said before may still be there to be read."""
        self.write_error = error
        if self.close_reason is not None:
            self.outbox.abandon()
        if self.is_stalled:
            self.reader.end_reading()
        elif self.reader.is_reading:
            self.reader.limit(trio.current_time() + DRAIN_LIMIT)
