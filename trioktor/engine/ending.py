"""Sees a conversation out, wait by wait.

There is one loop for all ends: ask the table of `protocol.closing` what to wait for and which timer runs, wait, and
tell what came of it. An idle connection has none. It begins when the end does: in the handler's own task, if the
handler returns first, else in a task started for it.
"""

from __future__ import annotations

from typing import Final, Protocol

import trio

from ..config import WebSockets
from ..errors import CloseTimeout, WriteTimeout
from ..protocol.conversation import Conversation
from ..protocol.halves import Ours, Step, Timer, Wait
from .ends import Ends
from .inbox import Inbox
from .part import Part
from .patience import Patience
from .shields import TIME_IS_UP, Shields
from .tasks import HandlerTasks
from .transport import Transport

LAST_INPUT: Final = 0.5
"""Seconds for what the peer said before it stopped reading."""

_LATE: Final = "the peer did not answer our Close in time"


class Owner(Protocol):
    """What the ending sees of its connection, and asks of it."""

    conversation: Conversation
    settings: WebSockets
    transport: Transport
    answer_grace: float
    ends: Ends
    inbox: Inbox

    def look_up(self) -> None:
        """Something happened in the conversation."""

    async def wait_unread(self) -> None:
        """Wait until nobody reads the stream any more."""

    async def finish(self) -> None:
        """Close the stream."""


class Ending(Part[Owner]):
    """The end of one connection."""

    __slots__ = ("_changed", "_closing", "_shields", "_step")

    def __init__(self, connection: Owner, shields: Shields) -> None:
        super().__init__(connection)
        self._closing = connection.conversation.closing
        self._shields = shields
        self._changed: trio.Event | None = None
        self._step: Step | None = None  # that is being waited for

    def look_up(self) -> None:
        """The conversation may stand elsewhere by now."""
        if self._changed is not None and self._closing.step != self._step:
            self._changed.set()

    async def run(self, *, shield: bool) -> None:
        """See it out, and close the stream; unshielded, a cancellation makes it short."""
        try:
            try:
                await self._see_out(shield=shield)
            except BaseException:
                self._connection.ends.interrupted()
                await self._see_out(shield=True)
                raise
        finally:
            await self._connection.finish()

    async def run_beside(self, tasks: HandlerTasks) -> None:
        """See it out while the handler runs, and then the handler."""
        await self.run(shield=True)
        connection = self._connection
        tasks.cancel_children("the connection has ended")
        grace = connection.settings.handler_grace
        while not tasks.are_done and grace is not None:
            left = connection.inbox.waiting
            if connection.inbox.has_lost_patience or (
                await Patience(grace).outlast(tasks.wait_done) and connection.inbox.waiting >= left
            ):
                tasks.cancel("the conversation is over")
                return

    async def _see_out(self, *, shield: bool) -> None:
        closing = self._closing
        is_unread = closing.step[0] is Wait.NOTHING and self._is_input_unread()
        if closing.step[0] is Wait.NOTHING and not is_unread:
            return
        with self._shields.open(shield=shield):
            while (step := closing.step)[0] is not Wait.NOTHING:
                await self._wait(step)
            if is_unread or self._is_input_unread():
                await self._connection.wait_unread()
                await self._connection.transport.linger()
        if closing.step[0] is not Wait.NOTHING:  # its time is up
            is_said = closing.ours is not Ours.CLOSING
            closing.lose(CloseTimeout(_LATE) if is_said else WriteTimeout(TIME_IS_UP))
            self._connection.look_up()

    async def _wait(self, step: Step) -> None:
        wait, timer = self._step = step
        connection = self._connection
        if wait is Wait.EOF:
            await connection.wait_unread()
            self._changed = trio.Event()
            await connection.transport.linger()
            self._closing.expire(Timer.LINGER, CloseTimeout(_LATE))
            return
        self._changed = trio.Event()
        if not await Patience(self._seconds(timer)).outlast(self._changed.wait):
            return
        if wait is Wait.ANSWERS:
            connection.ends.end_sending()
        else:
            assert timer is not None
            self._closing.expire(timer, CloseTimeout(_LATE))
            connection.look_up()

    def _seconds(self, timer: Timer | None) -> float | None:
        if timer is Timer.CLOSE_TIMEOUT:
            return self._connection.settings.close_timeout
        if timer is Timer.ANSWER_GRACE:
            return self._connection.answer_grace
        return None if timer is None else LAST_INPUT

    def _is_input_unread(self) -> bool:
        """Whether input is unread though the end is clean; closing with it would reset the connection."""
        closing = self._closing
        is_clean = closing.is_clean and closing.ours is Ours.CLOSED and not closing.is_client
        return is_clean and bool(self._connection.transport.receive_nowait())
