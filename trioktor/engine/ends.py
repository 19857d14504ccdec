"""Every way in which a connection comes to its end, whoever begins: each tells the closing handshake, and looks up.

`close` finishes the closing handshake first; `terminate` cancels at once. What reads and writes runs shielded
(`engine.shields`), so every way out gives all shields a deadline:

- cancelled from outside, or the server stopped: one absolute time, shared by all connections;
- no Pong: half a second for our Close;
- `terminate`, `aclose` cancelled: now.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

import trio

from ..errors import ChannelOverflow, PingTimeout
from ..protocol.close import CloseCode, CloseReason
from ..protocol.conversation import Conversation
from ..protocol.errors import ProtocolError
from ..protocol.frames import CloseFrame, check_close
from .inbox import Inbox
from .outbox import Outbox
from .outcome import Outcome, classify, origin
from .shields import STOP_LIMIT, Shields, Stop
from .tasks import HandlerTasks

_LAST_WORDS: Final = 0.5
"""Seconds in which a peer that answers no Ping may still take our Close."""

_NORMAL: Final = CloseReason(CloseCode.NORMAL)
_OUTCOME_REASONS: Final = {
    Outcome.REFUSED: CloseReason(CloseCode.CANNOT_ACCEPT),
    Outcome.INCONSISTENT: CloseReason(CloseCode.NOT_CONSISTENT),
    Outcome.FAILED: CloseReason(CloseCode.INTERNAL_ERROR),
}

logger: logging.Logger = logging.getLogger("trioktor.session")


class Owner(Protocol):
    """What ends see of their connection."""

    owner: Any
    conversation: Conversation
    inbox: Inbox
    outbox: Outbox
    shields: Shields
    tasks: HandlerTasks

    @property
    def nursery(self) -> trio.Nursery | None:
        """Where tasks are started; None before and after."""

    def look_up(self) -> None:
        """The conversation was told something."""


class Ends:
    """What may end one connection.

    Args:
      stop: the end shared with other connections.
      on_failure: called with what a handler raised, if that is a failure; the default logs it.
    """

    __slots__ = ("_closing", "_connection", "_on_failure", "_stop")

    def __init__(self, connection: Owner, stop: Stop, on_failure: Callable[[Exception], None] | None) -> None:
        self._connection: Owner = weakref.proxy(connection)
        self._closing = connection.conversation.closing
        self._stop = stop
        self._on_failure = on_failure

    # with a closing handshake

    def close(self, reason: CloseReason | None, *, drop_queued: bool = False) -> None:
        """Begin the closing handshake behind what is queued; None is a Close without a code.

        Once the peer has begun, it says that there is nothing more to answer; but in a raw session it is the
        answer. Whatever the state, nothing more is accepted from now on. A Close that was put into `outgoing` before
        is the one that counts.
        """
        connection = self._connection
        if connection.outbox.is_sealed and self._closing.is_said:
            return
        earlier = connection.outbox.seal(drop_queued=drop_queued)
        self._closing.close(reason if earlier is None else earlier.reason)
        connection.look_up()

    def end_sending(self) -> None:
        """Accept nothing more, once the conversation is not open any more; our Close follows, where one is due."""
        self._closing.answered(self._connection.outbox.seal())
        self._connection.look_up()

    def close_frame_sent(self, frame: CloseFrame) -> None:
        """A Close was put into `outgoing`: the same as `session.close`."""
        self.close(check_close(frame), drop_queued=True)

    def last_handle_closed(self) -> None:
        """The user closed every handle on `outgoing`."""
        self.close(_NORMAL)

    # there is no writing any more

    def write_failed(self, error: Exception) -> None:
        """The peer takes nothing more; what it said before may still be there to be read."""
        connection = self._connection
        cause = error.__cause__ or error
        self._closing.write_failed(cause)
        if connection.inbox.pause is not None:
            self._closing.lose(cause)
        connection.look_up()

    def written(self) -> None:
        """The last was written, and nothing more will be."""
        self._closing.written()
        self._connection.look_up()

    # broken, with a Close that says so

    def fail(
        self, reason: CloseReason, cause: BaseException, *, by_peer: bool = False, drop_queued: bool = True
    ) -> None:
        """End the conversation from our side as broken; see `ClosingHandshake.fail`."""
        connection = self._connection
        if self._closing.fail(reason, cause, by_peer=by_peer):
            connection.outbox.seal(drop_queued=drop_queued)
        connection.look_up()

    def crashed(self, error: Exception, *, is_writing: bool = False) -> None:
        """A fault of an extension's, or ours, came to light: the end of this connection, and of no other.

        Args:
          is_writing: it is the writer's, and nothing more can, or may, be written.
        """
        connection = self._connection
        logger.error("%s: an extension, or trioktor itself, failed", connection.owner, exc_info=error)
        if is_writing:
            self._closing.write_failed(error)
        self.fail(CloseReason(CloseCode.INTERNAL_ERROR), error, by_peer=True)
        if not self._closing.is_client:  # a block is told by what it calls
            connection.tasks.cancel("the connection failed")

    def misused(self, error: ProtocolError, *, is_writing: bool = False) -> None:
        """What may not be sent was put into `outgoing`; `is_writing` as for `crashed`."""
        logger.error("%s: what may not be sent was put into outgoing: %s", self._connection.owner, error)
        if is_writing:
            self._closing.write_failed(error)
        self.fail(CloseReason(CloseCode.INTERNAL_ERROR), error)

    def overflowed(self) -> None:
        """More was put into `outgoing` than it holds, and that is to end the conversation."""
        outbox = self._connection.outbox
        size = outbox.pending.size
        overflow = ChannelOverflow(f"outgoing was full with {outbox.waiting} frames, {size} bytes of it not written")
        self.fail(CloseReason(CloseCode.TRY_AGAIN_LATER), overflow, drop_queued=False)

    def message_given_up(self) -> None:
        """A message in pieces was left unfinished: nothing can be said behind it but a Close."""
        if self._closing.is_open:
            error = ProtocolError("a streamed message was left unfinished")
            self.fail(CloseReason(CloseCode.INTERNAL_ERROR), error, drop_queued=False)
        else:
            self.end_sending()

    def ping_timed_out(self, timeout: float) -> None:
        """No Pong came."""
        self.fail(CloseReason(CloseCode.INTERNAL_ERROR, "Ping timeout"), PingTimeout(f"no Pong within {timeout:g} s"))
        self._connection.shields.stop_by(trio.current_time() + _LAST_WORDS)

    # by a deadline

    def stop_by(self, deadline: float) -> None:
        """Say goodbye (1001) if nothing was said yet, and be gone by `deadline`, an absolute time."""
        self.close(CloseReason(CloseCode.GOING_AWAY))
        self._connection.shields.stop_by(deadline)

    def interrupted(self) -> None:
        """Cancelled: a short goodbye; from outside it is all connections' end, but not if a task of our own failed."""
        nursery = self._connection.nursery
        is_own = nursery is not None and nursery.cancel_scope.cancel_called
        self.stop_by(trio.current_time() + STOP_LIMIT if is_own else self._stop.begin())

    # now

    def lose(self, cause: BaseException | None = None) -> None:
        """The stream is gone, or is to be."""
        self._closing.lose(cause)
        self._connection.look_up()

    def drop(self) -> None:
        """Drop the connection now."""
        self.lose()
        self._connection.shields.stop_by(-math.inf)

    def terminate(self) -> None:
        """Drop the connection now, and cancel the handler."""
        self._connection.tasks.cancel("terminate")  # first: they are to see that, and not the end
        self.drop()

    # the handler's

    def handler_ended(self, error: Exception | None) -> None:
        """The handler and its tasks have ended, with what they raised."""
        connection = self._connection
        closing = self._closing
        outcome = Outcome.RETURNED
        if error is not None:
            if closing.is_client:  # whatever leaves a block is raised by it
                outcome = Outcome.FAILED
            else:
                outcome = classify(error, connection.owner, is_over=closing.reason is not None)
            if outcome is Outcome.FAILED:
                (self._on_failure or self._log_failure)(error)
            else:
                place = origin(error) or "no line of the application's"
                logger.info("%s: the handler ended with %.200s at %s", connection.owner, ascii(error), place)
        connection.inbox.discard_overflow()
        if closing.is_raw and outcome is Outcome.RETURNED:
            closing.leave(connection.outbox.seal())
            connection.look_up()
        else:
            self.close(_NORMAL if outcome is Outcome.RETURNED else _OUTCOME_REASONS[outcome])

    def _log_failure(self, error: Exception) -> None:
        logger.error("%s: the handler failed", self._connection.owner, exc_info=error)
