"""One connection's side of a poller: what it reads, when it pauses, and when the socket is lent.

The same to a connection as a `Reader`, without a task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import trio

from ..protocol.conversation import Conversation
from .inbox import Inbox
from .intake import Intake
from .poller import Poller
from .shields import Shields
from .sockets import SocketTransport
from .wire import Wire

if TYPE_CHECKING:
    from ..protocol._native import Filling

_OFTEN: Final = 4
"""So often a socket has to be found alone until it is lent."""


@final
class PolledReader:
    """Reads one connection when the poller says so, or the task that the socket is lent to.

    Args:
      trailing_data: bytes that came with the handshake.
    """

    __slots__ = (
        "_conversation",
        "_fd",
        "_inbox",
        "_intake",
        "_nursery",
        "_pause",
        "_poller",
        "_shields",
        "_times_alone",
        "_trailing_data",
        "_transport",
        "_wire",
    )

    def __init__(
        self,
        poller: Poller,
        transport: SocketTransport,
        inbox: Inbox,
        intake: Intake,
        conversation: Conversation,
        wire: Wire,
        shields: Shields,
        trailing_data: bytes,
    ) -> None:
        self._poller = poller
        self._transport = transport
        self._inbox = inbox
        self._intake = intake
        self._conversation = conversation
        self._wire = wire
        self._shields = shields
        self._trailing_data = trailing_data
        self._fd = transport.fileno()
        self._nursery: trio.Nursery | None = None
        self._times_alone = 0  # so often the poller found this socket alone
        self._pause: _Pause | None = None  # while a task hands on what was read

    def start(self, nursery: trio.Nursery) -> None:
        """Read from now on; what has to wait is a task of `nursery`."""
        if self._conversation.closing.is_over:
            return
        self._nursery = nursery
        self._poller.add(self._fd, self)
        if not self._lend():
            self._watch()
        if self._trailing_data and not self._conversation.closing.is_over:  # it is if the socket can't be watched
            self._begin_pause()

    def fileno(self) -> int:
        """The socket's number."""
        return self._fd

    def read(self) -> None:
        """Read once, and hand it on as far as there is room."""
        if self._pause is not None:  # it hung up meanwhile: whoever waits for room looks for that himself
            return
        self._read_once()

    def note_alone(self) -> None:
        """No other socket had anything to read: lend this one, if that is worth it."""
        if self._inbox.is_batch:
            self._times_alone = 0
        elif self._may_be_lent:
            self._times_alone += 1
            if self._times_alone >= _OFTEN and self._lend():
                self._poller.unwatch(self._fd)

    @property
    def _may_be_lent(self) -> bool:
        """Whether a task waited for what was just read, and will read by itself; and nobody else waits for the peer."""
        inbox, conversation = self._inbox, self._conversation
        was_taken = inbox.is_plain and not inbox.takers and not inbox.queue and not conversation.kept
        return was_taken and self._pause is None and self._wire.is_clear and not conversation.awaits_answer

    def read_lent(self) -> None:
        """As `read`, by the task that it is lent to. The first message goes to the lease, others into the queue."""
        self._read_once()
        if self._inbox.is_batch:  # the poller reads those in fewer steps
            self.take_back()

    def _lend(self) -> bool:
        """Lend the socket; False if it can't be."""
        lease = self._poller.lending.lend(self)
        if lease is not None:
            self._times_alone = 0
            self._inbox.takers.lease = lease
        return lease is not None

    def take_back(self) -> None:
        """End the lease, if there is one, and have the poller read."""
        if self._inbox.takers.lease is not None:
            self._watch()
            self._end_lease()

    def _watch(self) -> None:
        try:
            self._poller.watch(self._fd)
        except OSError as error:
            self._intake.fail(error)

    def _end_lease(self) -> bool:
        """End the lease; False if there is none."""
        takers = self._inbox.takers
        lease, takers.lease = takers.lease, None
        if lease is not None:
            lease.end()
        return lease is not None

    def _read_once(self) -> None:
        try:
            try:
                if self._intake.target is None:
                    data = self._transport.read_nowait()
                    is_done = data is None or self._intake.take(data)
                else:
                    is_done = self._fill(self._intake.target)
                if not is_done and not self._conversation.closing.is_over:
                    self._begin_pause()
            except trio.BrokenResourceError as error:
                self._intake.lose(error)
        except Exception as error:  # it would end the task that reads all others
            self._intake.fail(error)

    def _fill(self, target: Filling) -> bool:
        """Read more of a long message; False if what was read has to wait."""
        count = self._transport.read_into(target)
        if count:
            return self._intake.take_filled(count)
        return count is None or self._intake.take(b"")

    def stop(self) -> None:
        """Read nothing more."""
        is_lent = self._end_lease()
        if self._nursery is not None:
            self._poller.remove(self._fd, is_watched=not is_lent)
        if self._pause is not None:
            self._pause.scope.cancel("nothing more is to be read")

    async def wait_ended(self) -> None:
        """Wait until nobody reads the socket any more."""
        if self._pause is not None:
            await self._pause.ended.wait()

    def _begin_pause(self) -> None:
        assert self._nursery is not None
        self.take_back()
        if self._conversation.closing.is_over:  # it can't be watched
            return
        self._poller.pause(self._fd)
        self._pause = _Pause()
        self._nursery.start_soon(self._finish, self._pause, name="trioktor intake")

    async def _finish(self, pause: _Pause) -> None:
        """Hand on what was read, and then let more be read."""
        data, self._trailing_data = self._trailing_data, b""
        try:
            with self._shields.open(pause.scope):
                try:
                    if not self._conversation.closing.is_over and (not data or not self._intake.take(data)):
                        await self._intake.finish()
                except Exception as error:
                    self._intake.fail(error)
            if not self._conversation.closing.is_over:
                self._poller.resume(self._fd)
        finally:
            self._pause = None
            pause.ended.set()


@final
class _Pause:
    """The time in which a task hands on what was read."""

    __slots__ = ("ended", "scope")

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
