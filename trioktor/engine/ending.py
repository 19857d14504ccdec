"""Sees a conversation out, wait by wait.

There is one loop for all ends: ask the table of `protocol.closing` what to wait for and which timer runs, wait, and
tell what came of it. It runs in the handler's own task, if the handler returns first, else in a task started for it.
"""

from __future__ import annotations

import math
import weakref
from typing import Final, Protocol

import trio

from ..config import WebSockets
from ..errors import CloseTimeout, WriteTimeout
from ..protocol.conversation import Conversation
from ..protocol.halves import Ours, Step, Timer, Wait
from .ends import Ends
from .inbox import Inbox
from .later import Later
from .patience import Patience
from .polled_reader import PolledReader
from .reader import Reader
from .shields import TIME_IS_UP, Shields
from .tasks import HandlerTasks
from .transport import Transport
from .writing import Writing

LAST_INPUT: Final = 0.5
"""Seconds for what the peer said before it stopped reading."""

_LATE: Final = "the peer did not answer our Close in time"


class Owner(Protocol):
    """What the ending sees of its connection, and asks of it."""

    conversation: Conversation
    settings: WebSockets
    transport: Transport
    ends: Ends
    inbox: Inbox
    reader: Reader | PolledReader
    shields: Shields
    tasks: HandlerTasks
    writing: Writing

    @property
    def nursery(self) -> trio.Nursery | None:
        """Where tasks are started; None before and after."""

    def look_up(self) -> None:
        """Something happened in the conversation."""


class Ending:
    """The end of one connection.

    Args:
      looks: when handlers had some time, to return by themselves; without them none has.

    Attributes:
      answer_grace: seconds in which the handler may answer what came before the end.
      is_closed: whether the stream is closed.
    """

    __slots__ = (
        "_changed",
        "_closed",
        "_closing",
        "_connection",
        "_has_begun",
        "_looks",
        "_step",
        "answer_grace",
        "is_closed",
    )

    def __init__(self, connection: Owner, looks: Later | None) -> None:
        self._connection: Owner = weakref.proxy(connection)
        self._closing = connection.conversation.closing
        self._looks = looks
        self._has_begun = False
        self._changed: trio.Event | None = None  # while something is waited for
        self._step: Step | None = None  # that was waited for last
        self._closed: trio.Event | None = None  # once somebody waits for it
        self.answer_grace: float = connection.settings.answer_grace
        self.is_closed: bool = False

    def look_up(self) -> None:
        """One half at least has left OPEN: begin, or see what is to be waited for by now."""
        connection = self._connection
        if self._has_begun:
            if self._changed is not None and self._closing.step != self._step:
                self._changed.set()
        elif not connection.tasks.has_returned:
            # Most handlers return, and see to it. But somebody may wait for it, or there may be nothing to answer.
            if self._looks is None or self._closed is not None or self.answer_grace <= 0:
                self._begin()
            else:
                self._looks.call(self._begin)

    def _begin(self) -> None:
        """Start the task that sees the conversation out, unless the handler's task does."""
        if not self._has_begun:
            self._has_begun = True
            nursery = self._connection.nursery
            assert nursery is not None
            nursery.start_soon(self._run_beside, name="trioktor ending")

    async def see_out(self, *, shield: bool) -> None:
        """The handler has returned: see the conversation out, and close the stream, or wait for the task that does.

        Unshielded, a cancellation makes it short.
        """
        if not self._has_begun:
            self._has_begun = True
            await self._run(shield=shield)
            return
        try:
            with trio.CancelScope(shield=shield):  # its end has a deadline
                await self.wait_closed()
        except BaseException:
            self._connection.ends.interrupted()
            raise

    async def wait_closed(self) -> None:
        """Wait until the stream is closed. A checkpoint."""
        connection = self._connection
        connection.inbox.takers.end_lease()
        if self._closed is None:
            self._closed = trio.Event()
            if self.is_closed:
                self._closed.set()
            else:
                connection.look_up()
        await self._closed.wait()

    async def _run(self, *, shield: bool) -> None:
        try:
            try:
                await self._see_out(shield=shield)
            except BaseException:
                self._connection.ends.interrupted()
                await self._see_out(shield=True)
                raise
        finally:
            await self.finish()

    async def _run_beside(self) -> None:
        """See it out while the handler runs, and then the handler."""
        await self._run(shield=True)
        tasks, inbox = self._connection.tasks, self._connection.inbox
        tasks.cancel_children("the connection has ended")
        grace = self._connection.settings.handler_grace
        while not tasks.are_done and grace is not None:
            left = inbox.waiting
            if inbox.has_lost_patience or (await Patience(grace).outlast(tasks.wait_done) and inbox.waiting >= left):
                tasks.cancel("the conversation is over")
                return

    async def _see_out(self, *, shield: bool) -> None:
        connection, closing = self._connection, self._closing
        step = closing.step
        is_unread = step[0] is Wait.NOTHING and self._is_input_unread()
        if step[0] is Wait.NOTHING and not is_unread:
            return
        with connection.shields.open(shield=shield) as scope:
            while step[0] not in (Wait.NOTHING, Wait.EOF):
                await self._wait(step)
                step = closing.step
            if step[0] is Wait.EOF or is_unread or self._is_input_unread():
                await connection.reader.wait_ended()
                await connection.transport.linger()
                closing.expire(Timer.LINGER, CloseTimeout(_LATE))
        if scope.cancelled_caught and closing.step[0] is not Wait.NOTHING:
            is_said = closing.ours is not Ours.CLOSING
            closing.lose(CloseTimeout(_LATE) if is_said else WriteTimeout(TIME_IS_UP))

    async def _wait(self, step: Step) -> None:
        wait, timer = self._step = step
        self._changed = trio.Event()
        is_late = await Patience(self._seconds(timer)).outlast(self._changed.wait)
        self._changed = None
        if is_late and wait is Wait.ANSWERS:
            self._connection.ends.end_sending()
        elif is_late:
            assert timer is not None
            self._closing.expire(timer, CloseTimeout(_LATE))
            self._connection.look_up()

    def _seconds(self, timer: Timer | None) -> float | None:
        if timer is Timer.CLOSE_TIMEOUT:
            return self._connection.settings.close_timeout
        if timer is Timer.ANSWER_GRACE:
            return self.answer_grace
        return None if timer is None else LAST_INPUT

    def _is_input_unread(self) -> bool:
        """Whether input is unread though the end is clean; closing with it would reset the connection."""
        closing = self._closing
        is_clean = closing.is_clean and closing.ours is Ours.CLOSED and not closing.is_client
        try:
            return is_clean and bool(self._connection.transport.read_nowait())
        except trio.BrokenResourceError:
            return False

    async def finish(self) -> None:
        """Close the stream and let go of everybody who waits for it."""
        connection = self._connection
        self._closing.lose()
        connection.look_up()
        connection.shields.stop_by(-math.inf)
        connection.writing.end()
        if not connection.transport.close_nowait():
            with trio.CancelScope(shield=True):  # it bounds itself
                await connection.transport.aclose()
        self.is_closed = True
        if self._closed is not None:
            self._closed.set()
