"""One connection after the upgrade: one nursery, and who starts in it.

Theory of operation. The connection decides nothing: how the conversation ends, and what is waited for, is the
`ClosingHandshake`'s (`protocol.closing`). Whoever has told it something calls `look_up`, which starts what the new
state asks for: the writer, if there is something to write, and the `Ending`, if there is more to wait for than input.

The nursery holds the handler in its body. Beside it run, when there is a need: the reader, where no poller reads; the
writer; the ending, unless the handler's task is it; the pinger with its watchdog. None of the connection's own tasks
raises for what a peer does. What reads and writes runs shielded (`engine.shields`), so that a cancellation from outside
cannot tear a frame or lose a Close; in exchange every way out gives all shields a deadline:

- cancelled from outside, or the server stopped: one absolute time, shared by all connections;
- no Pong: half a second for our Close;
- `terminate`, `aclose` cancelled: now.

`close` finishes the closing handshake first; `terminate` cancels at once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import trio

from ..config import WebSockets, channel_config
from ..errors import ChannelOverflow, PingTimeout
from ..protocol.close import CloseCode, CloseReason
from ..protocol.closing import ClosingHandshake
from ..protocol.conversation import Conversation
from ..protocol.errors import ProtocolError
from ..protocol.extensions import Extension
from ..protocol.frames import CloseFrame, Frame
from ..protocol.halves import Ours
from ..protocol.raw_conversation import RawConversation
from ..protocol.serializer import judge_close_reason
from .ending import Ending
from .frame_log import is_logging, log_frame
from .inbox import Inbox
from .intake import Intake
from .keepalive import Keepalive
from .outbox import Outbox
from .outcome import Outcome, judge, origin
from .patience import Patience
from .pings import Ping, Pings
from .poller import PolledReader, Poller
from .reader import Reader
from .shields import Shields
from .sockets import SocketTransport
from .stop import STOP_LIMIT, Stop
from .streamed import StreamedMessage
from .tasks import HandlerTasks
from .transport import Transport
from .wire import Wire
from .writing import Writing

_LAST_WORDS: Final = 0.5
"""Seconds in which a peer that answers no Ping may still take our Close."""

_OUTCOME_REASONS: Final = {
    Outcome.RETURNED: CloseReason(CloseCode.NORMAL),
    Outcome.REFUSED: CloseReason(CloseCode.CANNOT_ACCEPT),
    Outcome.INCONSISTENT: CloseReason(CloseCode.NOT_CONSISTENT),
    Outcome.FAILED: CloseReason(CloseCode.INTERNAL_ERROR),
}

logger: logging.Logger = logging.getLogger("trioktor.session")


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
      poller: reads the stream, if it is a plain socket; else, or without one, a task does.
      on_failure: called with what a handler raised, if that is a failure; the default logs it.
    """

    __slots__ = (
        "_closed",
        "_ending",
        "_is_input_over",
        "_keepalive",
        "_nursery",
        "_on_failure",
        "_pings",
        "_reader",
        "_stop",
        "answer_grace",
        "conversation",
        "extensions",
        "inbox",
        "intake",
        "is_closed",
        "opened_at",
        "outbox",
        "owner",
        "settings",
        "shields",
        "task",
        "tasks",
        "timeout",
        "transport",
        "wire",
        "writing",
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
        poller: Poller | None = None,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        self.transport: Transport = transport
        self.settings: WebSockets = settings
        self.opened_at: float = trio.current_time()
        self.task: trio.lowlevel.Task = trio.lowlevel.current_task()
        self.owner: Any = self  # the session: named in errors and logs
        self.timeout: float = settings.timeout
        transport.write_timeout = settings.write_timeout
        # what it consists of
        self.extensions: tuple[Extension, ...] = extensions
        self.conversation: Conversation = (RawConversation if raw else Conversation)(
            client=client,
            max_frame_size=settings.max_frame_size,
            max_fragments=settings.max_fragments,
            extensions=extensions,
            masking=settings.masking,
            on_frame=self._log_frame if is_logging() else None,
        )
        self._pings: Pings | None = None  # once there is one
        self.inbox: Inbox = Inbox(channel_config(settings.incoming), settings.max_queued_bytes)
        self.wire: Wire = Wire(transport, greeting)
        self.outbox: Outbox = Outbox(
            self,
            self.wire,
            channel_config(settings.outgoing),
            settings.max_queued_bytes,
            self.conversation,
        )
        # who runs
        self._nursery: trio.Nursery | None = None
        self.shields: Shields = Shields()
        self.tasks: HandlerTasks = HandlerTasks(self)
        self.intake: Intake = Intake(self)
        self._reader: Reader | PolledReader
        if poller is not None and poller.is_running and isinstance(transport, SocketTransport):
            self._reader = PolledReader(poller, transport, self.intake, self.closing, self.shields, trailing)
        else:
            self._reader = Reader(transport, self.intake, self.closing, self.shields, trailing)
        self.writing: Writing = Writing(self, None if poller is None else poller.later)
        self._keepalive: Keepalive | None = None
        self._on_failure = on_failure
        # how it ends
        self._ending: Ending | None = None  # once it has begun
        self._is_input_over = False  # and the handler will see its end
        self.answer_grace: float = settings.answer_grace
        self.is_closed: bool = False
        self._closed: trio.Event | None = None  # once somebody waits for it
        self._stop = stop or Stop()

    def __repr__(self) -> str:
        return repr(self.owner) if self.owner is not self else object.__repr__(self)

    @property
    def pings(self) -> Pings:
        """The Pings that somebody waits for."""
        if self._pings is None:
            self._pings = Pings(self.conversation)
        return self._pings

    @property
    def latency(self) -> float | None:
        """Seconds that the last answered Ping took."""
        return None if self._pings is None else self._pings.latency

    @property
    def closing(self) -> ClosingHandshake:
        """Where the conversation stands, and how it ends."""
        return self.conversation.closing

    # the nursery

    @property
    def nursery(self) -> trio.Nursery | None:
        """Where the connection's tasks are started; None before it runs, and when it is closed."""
        return None if self.is_closed else self._nursery

    async def run(self, handler: Callable[[Any], Awaitable[object]]) -> None:
        """Run the handler for the session, and the conversation; returns when both are over and the stream is closed.

        Raises:
          BaseException: only what is no `Exception`: `Cancelled`, `KeyboardInterrupt`, `SystemExit`.
        """
        try:
            async with trio.open_nursery() as self._nursery:
                self._reader.start(self._nursery)
                self._greet()
                if not self.closing.is_raw:  # there the handler sees the Pongs
                    self.set_keepalive(self.settings.ping_period, self.timeout)
                try:
                    await self.tasks.run_handler(handler, self.owner)
                except BaseException:
                    self.interrupted()
                    await self._see_out(shield=True)
                    raise
                await self._see_out(shield=False)
        finally:
            if not self.transport.close_nowait():
                await self.transport.aclose()

    async def _see_out(self, *, shield: bool) -> None:
        """The handler has returned: see the conversation out, or wait for the task that does."""
        if self._ending is None:
            self._ending = Ending(self, self.shields)
            await self._ending.run(shield=shield)
            return
        try:
            with trio.CancelScope(shield=shield):  # its end has a deadline
                await self.wait_closed()
        except BaseException:
            self.interrupted()
            raise

    def start_soon(self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        """Run a task beside the handler; its failure counts as the handler's."""
        assert self._nursery is not None
        self.tasks.start_soon(self._nursery, fn, args)

    def _greet(self) -> None:
        self.writing.greet()
        if not self.closing.is_open:  # it was closed before it ran
            self.look_up()

    def look_up(self) -> None:
        """The conversation was told something: start what its state asks for. Called after any input."""
        conversation, closing = self.conversation, self.closing
        conversation.has_news = False
        if conversation.has_answers:
            self.pings.note_answers()
        if closing.is_over and not self._is_input_over:
            self._end_input()
        if closing.ours is Ours.CLOSING or conversation.has_control:
            self.writing.write_rest()
        if closing.reason is not None:
            if closing.ours is Ours.GONE:
                self.outbox.abandon()
            if self._keepalive is not None:
                self._keepalive.stop()
        if self._ending is not None:
            self._ending.look_up()
        elif closing.is_ending and self._nursery is not None and not self._reader.later(self._begin_end):
            self._begin_end()

    def _begin_end(self) -> None:
        """Start the task that sees the conversation out, unless the handler's task does."""
        if self._ending is None and not self.tasks.has_returned:
            assert self._nursery is not None
            self._ending = Ending(self, self.shields)
            self._nursery.start_soon(self._end, self._ending, name="trioktor ending")

    def _end_input(self) -> None:
        """Nothing more is read: the handler comes to the end of `incoming` behind what waits there."""
        self._is_input_over = True
        self._reader.stop()
        self.answer_grace = self.inbox.answer_grace(self.settings.answer_grace)
        self.inbox.end()
        if self._pings is not None:
            self._pings.end()

    async def _end(self, ending: Ending) -> None:
        """See the conversation out while the handler runs, and then the handler."""
        await ending.run(shield=True)
        self.tasks.cancel_children("the connection has ended")
        grace = self.settings.handler_grace
        while not self.tasks.are_done and grace is not None:
            left = self.inbox.waiting
            if self.inbox.has_lost_patience or (
                await Patience(grace).outlast(self.tasks.wait_done) and self.inbox.waiting >= left
            ):
                self.tasks.cancel("the conversation is over")
                return

    async def wait_unread(self) -> None:
        """Wait until nobody reads the stream any more."""
        await self._reader.wait_ended()

    async def finish(self) -> None:
        """Close the stream and let go of everybody who waits for it."""
        self.closing.lose()
        self.look_up()
        self.shields.stop_by(-math.inf)
        self.writing.stop_watching()
        if not self.transport.close_nowait():
            with trio.CancelScope(shield=True):  # it bounds itself
                await self.transport.aclose()
        self.is_closed = True
        if self._closed is not None:
            self._closed.set()

    async def wait_closed(self) -> None:
        """Wait until the stream is closed. A checkpoint."""
        if self._closed is None:
            self._closed = trio.Event()
            if self.is_closed:
                self._closed.set()
        await self._closed.wait()

    def interrupted(self) -> None:
        """Cancelled: a short goodbye; from outside it is all connections' end, but not if a task of our own failed."""
        is_own = self._nursery is not None and self._nursery.cancel_scope.cancel_called
        self.stop_by(trio.current_time() + STOP_LIMIT if is_own else self._stop.begin())

    def handler_ended(self, error: Exception | None) -> None:
        outcome = Outcome.RETURNED
        if error is not None:
            outcome = judge(error, self.owner, is_over=self.closing.reason is not None)
            if outcome is Outcome.FAILED:
                (self._on_failure or self._log_failure)(error)
            else:
                logger.info("%s: the handler ended with %.200s at %s", self.owner, ascii(error), origin(error))
        self.inbox.let_overflow()
        if self.closing.is_raw and outcome is Outcome.RETURNED:
            self.closing.leave(self.outbox.seal())
            self.look_up()
        else:
            self.close(_OUTCOME_REASONS[outcome])

    def _log_frame(self, direction: str, frame: Frame) -> None:
        log_frame(direction, self.owner, frame)

    def _log_failure(self, error: Exception) -> None:
        logger.error("%s: the handler failed", self.owner, exc_info=error)

    # what may end the conversation

    def close(self, reason: CloseReason | None, *, drop_queued: bool = False) -> None:
        """Begin the closing handshake behind what is queued; None is a Close without a code.

        Once the peer has begun, it says that there is nothing more to answer; but in a raw session it is the
        answer. Whatever the state, nothing more is accepted from now on. A Close that was put into `outgoing` before
        is the one that counts.
        """
        earlier = self.outbox.seal(drop_queued=drop_queued)
        self.closing.close(reason if earlier is None else earlier.reason)
        self.look_up()

    def end_sending(self) -> None:
        """Accept nothing more, once the conversation is not open any more; our Close follows, where one is due."""
        self.closing.answered(self.outbox.seal())
        self.look_up()

    def fail(
        self, reason: CloseReason, cause: BaseException, *, by_peer: bool = False, drop_queued: bool = True
    ) -> None:
        """End the conversation from our side as broken, with a Close that says so; see `ClosingHandshake.fail`."""
        if self.closing.fail(reason, cause, by_peer=by_peer):
            self.outbox.seal(drop_queued=drop_queued)
        self.look_up()

    def crashed(self, error: Exception) -> None:
        """A fault of an extension's, or ours, came to light: the end of this connection, and of no other."""
        logger.error("%s: an extension, or trioktor itself, failed", self.owner, exc_info=error)
        self.fail(CloseReason(CloseCode.INTERNAL_ERROR), error, by_peer=True)
        self.tasks.cancel("the connection failed")

    def give_up_message(self) -> None:
        """A message in pieces was left unfinished: nothing can be said behind it but a Close."""
        if self.closing.is_open:
            error = ProtocolError("a streamed message was left unfinished")
            self.fail(CloseReason(CloseCode.INTERNAL_ERROR), error, drop_queued=False)
        else:
            self.end_sending()

    def drop(self) -> None:
        """Drop the connection now."""
        self.closing.lose()
        self.look_up()
        self.shields.stop_by(-math.inf)

    def terminate(self) -> None:
        """Drop the connection now, and cancel the handler."""
        self.drop()
        self.tasks.cancel("terminate")

    def stop_by(self, deadline: float) -> None:
        """Say goodbye (1001) if nothing was said yet, and be gone by `deadline`, an absolute time."""
        self.close(CloseReason(CloseCode.GOING_AWAY))
        self.shields.stop_by(deadline)

    async def flush(self, streams: Iterable[StreamedMessage]) -> None:
        """Wait until all that was sent before is with the system, or the connection is over. A checkpoint.

        Whoever sends one of the `streams` waits for its fragments alone: what is behind has to wait for him.
        """
        self.writing.uncork()
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
        self.closing.precede(frame)

    def misused(self, error: ProtocolError) -> None:
        """What may not be sent was put into `outgoing`."""
        logger.error("%s: what may not be sent was put into outgoing: %s", self.owner, error)
        self.fail(CloseReason(CloseCode.INTERNAL_ERROR), error)

    def overflowed(self) -> None:
        """More was put into `outgoing` than it holds, and that is to end the conversation."""
        overflow = ChannelOverflow(f"outgoing was full with {self.outbox.waiting} frames")
        self.fail(CloseReason(CloseCode.TRY_AGAIN_LATER), overflow, drop_queued=False)

    def last_handle_closed(self) -> None:
        self.close(CloseReason(CloseCode.NORMAL))

    def need_writer(self) -> None:
        """There is something to write that cannot go straight out."""
        self.writing.wake()

    def take_kept(self, pieces: list[bytes]) -> None:
        """What was put aside goes in front of everything else."""
        self.writing.take_kept(pieces)

    # keepalive

    def set_keepalive(self, period: float | None, timeout: float) -> None:
        """Start, stop or re-arm the pinger."""
        self.timeout = timeout
        if self._keepalive is not None:
            self._keepalive.stop()
            self._keepalive = None
        if period is not None and self.closing.is_open and self._nursery is not None:
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
        self.conversation.send_control(frame)
        self.look_up()

    def sign_of_life(self) -> None:
        """The peer sent something, or was not listened to."""
        if self._keepalive is not None:
            self._keepalive.sign_of_life()

    def ping(self, payload: bytes | None = None) -> Ping:
        """Send a Ping; its event is set when the Pong has come, or the conversation is over.

        Raises:
          ValueError: too many bytes, or one with the same is out.
        """
        ping = self.pings.begin(payload)
        self.look_up()
        return ping

    def _ping_timed_out(self) -> None:
        self.fail(
            CloseReason(CloseCode.INTERNAL_ERROR, "Ping timeout"), PingTimeout(f"no Pong within {self.timeout:g} s")
        )
        self.shields.stop_by(trio.current_time() + _LAST_WORDS)
