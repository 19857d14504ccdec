"""How a conversation ends (RFC 6455 §7): what was said and heard, which code, and who was first.

Theory of operation. Each half of a conversation (`protocol.halves`) leaves OPEN once and never returns. Whatever
happens (a call of `close`, a Close of the peer, a broken rule, a reset) is told to the `ClosingHandshake` by one of its
methods, none of which raises; it moves the halves, settles the reason of the end the first time, and says which Close
frame we owe. What to wait for next is read from the table.
"""

from __future__ import annotations

import functools
from typing import Final, final

from .close import CloseCode, CloseReason
from .frames import CloseFrame
from .halves import CLIENT_WAITS, RAW_WAITS, WAITS, WORDS, Ours, Step, Theirs, Timer, Wait

_NO_STATUS: Final = CloseReason(CloseCode.NO_STATUS)
_ABNORMAL: Final = CloseReason(CloseCode.CLOSED_ABNORMALLY)


@functools.lru_cache(maxsize=32)
def _echo(code: int) -> CloseFrame:
    """A Close that says a code again, and no text; of 1005 one without a code."""
    return CloseFrame(None if code == CloseCode.NO_STATUS else CloseReason(code))


@final
class ClosingHandshake:
    """Where a conversation stands, and how it ends.

    Args:
      client: whether ours is the client's side.
      raw: whether the application answers Closes by itself.

    Attributes:
      ours, theirs: the two halves.
      reason: what ended the conversation; None while it goes on.
      cause: the error behind a broken end, if there is one.
      received: what the peer's Close said, once it has come (empty: 1005).
      closed_here: whether we were first to say Close.
      goodbye: the Close that is to stand behind everything else we said; None if there is none (yet).
    """

    __slots__ = (
        "_sent",
        "_table",
        "_write_error",
        "cause",
        "closed_here",
        "goodbye",
        "is_client",
        "is_raw",
        "ours",
        "reason",
        "received",
        "theirs",
    )

    def __init__(self, *, client: bool = False, raw: bool = False) -> None:
        self._table = RAW_WAITS if raw else CLIENT_WAITS if client else WAITS
        self.is_raw: bool = raw
        self.is_client: bool = client
        self.ours: Ours = Ours.OPEN
        self.theirs: Theirs = Theirs.OPEN
        self.reason: CloseReason | None = None
        self.cause: BaseException | None = None
        self._write_error: BaseException | None = None
        self._sent: CloseFrame | None = None
        self.received: CloseReason | None = None
        self.closed_here: bool = False
        self.goodbye: CloseFrame | None = None

    def __repr__(self) -> str:
        return f"<ClosingHandshake {self.word} ours={self.ours.name} theirs={self.theirs.name} {self.reason!r}>"

    @property
    def word(self) -> str:
        """One word for the pair of halves: OPEN, CLOSING, ANSWERING, FAILING, CLOSED or BROKEN."""
        return WORDS.get((self.ours, self.theirs)) or ("CLOSED" if self.is_clean else "BROKEN")

    @property
    def sent(self) -> CloseReason | None:
        """What our Close said, once it is with the system (empty: 1005)."""
        return None if self._sent is None else self._sent.reason or _NO_STATUS

    @property
    def step(self) -> Step:
        """What to wait for now, and the timer that runs."""
        return self._table[self.ours, self.theirs]

    @property
    def is_open(self) -> bool:
        """Whether nobody has begun to end it."""
        return self.reason is None

    @property
    def is_said(self) -> bool:
        """Whether the application can say nothing more to it: the reason is settled, and our half has ended."""
        return self.reason is not None and self.ours is not Ours.OPEN

    @property
    def is_over(self) -> bool:
        """Whether nothing more is read."""
        return self.theirs is not Theirs.OPEN

    @property
    def is_clean(self) -> bool:
        """Whether the peer said goodbye."""
        return self.theirs is Theirs.CLOSED

    @property
    def may_accept(self) -> bool:
        """Whether the application may send: once nothing more can be said it is not told before it is known why."""
        return self.ours is Ours.OPEN or self.reason is None

    # from the application

    def close(self, reason: CloseReason | None) -> None:
        """We end it; None is a Close without a code.

        If the end has begun, nothing more is to be said than the answer to it; in a raw session this is the answer.
        """
        if self.reason is None:
            self._settle(reason or _NO_STATUS)
            self.closed_here = True
            if self.ours is Ours.OPEN:
                self.ours = Ours.CLOSING
                self.goodbye = CloseFrame(reason)
        else:
            self.answered(CloseFrame(reason) if self.is_raw else None)

    def answered(self, own: CloseFrame | None = None) -> None:
        """There is nothing more to say to what came: our Close follows, where one is due.

        That is the peer's code, echoed (RFC 6455 §5.5.1), or the violation's; but in a raw session whose peer broke
        no rule only `own`.
        """
        if self.ours is not Ours.OPEN or self.reason is None:
            return
        self.ours = Ours.CLOSING
        if self.is_raw and self.theirs is not Theirs.FAILED:
            self.goodbye = own
        else:
            self.goodbye = _echo(self.reason.code)

    def leave(self, own: CloseFrame | None = None) -> None:
        """A raw handler returned: what was accepted goes out, and no Close but the one it sent itself."""
        if self.reason is not None:
            self.answered(own)
        elif own is not None:
            self.close(own.reason)
        else:
            self._settle(_ABNORMAL)
            self.theirs = Theirs.GONE
            if self.ours is Ours.OPEN:
                self.ours = Ours.CLOSING

    def precede(self, close: CloseFrame) -> None:
        """A Close that was accepted before ours came to light only now: it was first, and is the one that is said."""
        if self.ours is not Ours.CLOSING:
            return
        if self.closed_here and self.theirs is Theirs.OPEN:
            self.reason = close.reason or _NO_STATUS
            self.goodbye = close
        elif self.is_raw and self.theirs is Theirs.CLOSED and not self.closed_here:
            self.goodbye = close

    def fail(self, reason: CloseReason, cause: BaseException, *, by_peer: bool = False) -> bool:
        """It can't go on: no Pong, what may not be sent, a full queue. Our Close says `reason`, and nothing is read.

        If the end has begun, this is only noted, as the cause should it become a broken one; but if it was the peer
        that broke a rule, nothing more is read. Returns whether it was first.
        """
        is_first = self._settle(reason, cause)
        if is_first and self.ours is Ours.OPEN:
            self.ours = Ours.CLOSING
            self.goodbye = CloseFrame(reason)
        if (is_first or by_peer) and self.theirs is Theirs.OPEN:
            self.theirs = Theirs.FAILED
        return is_first

    # from the peer

    def receive_close(self, reason: CloseReason | None) -> None:
        """The peer's Close has come; behind it nothing is read (RFC 6455 §5.5.1)."""
        if self.theirs is Theirs.OPEN:
            self.received = reason or _NO_STATUS
            self._settle(self.received)
            self.theirs = Theirs.CLOSED

    def violate(self, reason: CloseReason, cause: BaseException) -> None:
        """The peer broke a rule: the handler may answer what came before, and our Close says why."""
        if self.theirs is Theirs.OPEN:
            self._settle(reason, cause)
            self.theirs = Theirs.FAILED

    def receive_eof(self) -> None:
        """The peer's half of the stream has ended without a Close; a raw session may still answer."""
        if self.theirs is Theirs.OPEN:
            self._settle(_ABNORMAL, self._write_error)
            self.theirs = Theirs.GONE
            if not self.is_raw:
                self.ours = Ours.GONE

    # from whoever carries the bytes

    def written(self) -> None:
        """What was accepted, and our Close behind it, is with the system."""
        if self.ours is Ours.CLOSING:
            self.ours = Ours.CLOSED
            self._sent = self.goodbye

    def write_failed(self, error: BaseException) -> None:
        """The peer takes nothing more; what it said before may still be there to be read."""
        self.ours = Ours.GONE
        self._write_error = self._write_error or _bare(error)

    def lose(self, cause: BaseException | None = None) -> None:
        """The stream is gone, or is to be: nothing more is said or read."""
        if self.theirs is Theirs.OPEN:
            self.theirs = Theirs.GONE
            cause = self._write_error or cause
        self._settle(_ABNORMAL, cause)
        self.ours = Ours.GONE

    def expire(self, timer: Timer, cause: BaseException) -> None:
        """The time of a timer is up; nothing happens if another one runs by now."""
        if self.step[1] is not timer:
            return
        if self.step[0] is Wait.ANSWERS:
            self.answered()
        elif self.step[0] is Wait.EOF:
            self.ours = Ours.GONE
        else:
            self.lose(cause)

    def _settle(self, reason: CloseReason, cause: BaseException | None = None) -> bool:
        """Settle the reason, if nobody has; the cause also later, of an end that may come to be a broken one."""
        is_first = self.reason is None
        if is_first:
            self.reason = reason
        if self.cause is None and cause is not None:
            self.cause = _bare(cause)
        return is_first


def _bare(error: BaseException) -> BaseException:
    """An error that is kept: without the frames that it went through, for they hold whatever holds it."""
    inner: BaseException | None = error
    while inner is not None and inner.__traceback__ is not None:
        inner.__traceback__ = inner.__context__ = None
        inner = inner.__cause__
    return error
