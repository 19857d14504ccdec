"""Tasks that wait for a message, and get it from the hand of the reader; or read it, from a socket that is lent.

Theory of operation. Through the poller a message costs two passes of Trio's loop: in the first the poller wakes and
reads, in the second the handler runs. The task in `receive` can wait for the socket in Trio's hands instead, read it,
and has its message in the same pass. So a socket is lent to it when the connection begins, and when the poller found
it alone several times. What makes that sound:

- One reads at a time: a lent socket is not in the poller's epoll.
- A handler that does something else reads nothing, and a Ping or a hang-up would wait for it. So behind a read
  somebody looks, and a socket that nobody waits for goes to the poller. A look costs as much as several messages. The
  first behind a new lease comes within 10 ms; each that finds all handlers back puts the next off, up to 0.16 s.
- Whoever waits for the peer waits for no look. The lease ends when the peer has to answer a Ping of ours, or our Close,
  when it does not take what we write, and when somebody begins to wait for the end.
- Whoever wants the socket read by others, or read no more, ends the lease, which wakes the task that waits.
- There are few leases, and one that is not used is given up for another. A crowd is served better by the poller, which
  needs one wake-up for them all; and so is a peer that sends several messages at once. It is a crowd where the poller
  finds many sockets at once. It is one, too, where more than a few leases are used so often that the loop hardly
  sleeps; then nothing is lent for a second.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from functools import partial
from typing import Final, Protocol, TypeVar, final

import trio
from outcome import Outcome

from ..protocol.frames import Frame

_MOST: Final = 8
"""Sockets that are lent at a time."""
_FEW: Final = 4
"""Sockets that are better lent, however busy they are."""
_BUSY: Final = 25_600
"""Reads a second of all leases: more is a loop that hardly sleeps."""
_LOOK: Final = 0.01
"""Seconds from a read to the look, at first."""
_LATEST_LOOK: Final = 16 * _LOOK
"""The same, at most."""
_REST: Final = 1.0
"""Seconds for which nothing is lent behind a crowd."""

T = TypeVar("T")


class Lender(Protocol):
    """What a lease sees of the reader that lends its socket."""

    def fileno(self) -> int:
        """The socket's number."""

    def read_lent(self) -> None:
        """Read once, and hand it on as far as there is room: the first message to the lease."""

    def take_back(self) -> None:
        """End the lease, and have the poller read."""


@final
class Lease:
    """A lent socket. It ends once; afterwards nobody reads by it.

    Attributes:
      lender: the reader that lends it.
      is_waiting: whether a task waits for a message by it; still so while that task reads.
      message: the first that this task has read, until `wait` returns it in the same step; else None.
      uses: how often it was read since somebody looked.
      is_idle: whether it was not, when somebody looked.
    """

    __slots__ = ("_fd", "_is_over", "_is_parked", "_lending", "is_idle", "is_waiting", "lender", "message", "uses")

    def __init__(self, lending: Lending, lender: Lender) -> None:
        self._fd = lender.fileno()
        self._lending = lending
        self.lender: Lender = lender
        self._is_over = False
        self._is_parked = False  # until there is input
        self.is_waiting: bool = False
        self.message: Frame | None = None
        self.uses: int = 0
        self.is_idle: bool = False

    @trio.lowlevel.enable_ki_protection  # in a handler's task what was read must not be lost half-way either
    async def wait(self) -> Frame | None:
        """Wait for input, and take a message; None means: look again. A checkpoint. Cancelled, it read nothing."""
        self.is_waiting = self._is_parked = True
        try:
            try:
                await trio.lowlevel.wait_readable(self._fd)
            finally:
                self._is_parked = False
            if self._is_over:  # it may have ended between the event and this task's turn
                return None
            self.uses += 1
            self.is_idle = False
            if not self._lending.is_watching:
                self._lending.watch()
            self.lender.read_lent()
            message, self.message = self.message, None
            return message
        except trio.ClosedResourceError:  # the lease is over
            return None
        except BaseException:
            self.lender.take_back()
            raise
        finally:
            self.is_waiting = False

    def end(self) -> None:
        """It is over; who waits is woken."""
        self._is_over = True
        self._lending.leases.remove(self)
        if self._is_parked:
            trio.lowlevel.notify_closing(self._fd)


@final
class Lending:
    """The leases of one poller, and the task that looks at them.

    Attributes:
      leases: those that are not over, oldest first.
      is_watching: whether they will be looked at.
    """

    def __init__(self) -> None:
        self.leases: list[Lease] = []
        self.is_watching: bool = False
        self._is_running = False
        self._scope = trio.CancelScope()
        self._until_look = trio.CancelScope()  # its deadline is the next look
        self._delay = _LOOK
        self._rests_until = -math.inf
        self._used_since = 0.0  # when the look was asked for

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Look at the leases, look by look, until `close` was called, or it is cancelled: then all end."""
        self._is_running = True
        try:
            with self._scope:
                while True:
                    with self._until_look:
                        await trio.sleep_forever()
                    self._until_look = trio.CancelScope()
                    self._look()
        finally:
            self.close()

    def close(self) -> None:
        """Lend nothing more: nobody would look after the leases."""
        self._is_running = False
        self._scope.cancel("nothing is lent any more")
        self.end_all()

    def lend(self, lender: Lender) -> Lease | None:
        """Lend this socket, if there is a place; an idle one makes one."""
        if not self._is_running or trio.current_time() < self._rests_until:
            return None
        if len(self.leases) >= _MOST:
            idle = next((lease for lease in self.leases if lease.is_idle), None)
            if idle is None:
                self.watch()
                return None
            idle.lender.take_back()
        lease = Lease(self, lender)
        self.leases.append(lease)
        if self._delay > _LOOK:  # how this handler does it is not known yet
            self._delay = _LOOK
            self._until_look.deadline = min(self._until_look.deadline, trio.current_time() + _LOOK)
        self.watch()
        return lease

    def end_all(self) -> None:
        """Have the poller read all sockets."""
        for lease in tuple(self.leases):
            lease.lender.take_back()

    def watch(self) -> None:
        """A lease began or was used, or there was no place for one: look at all of them in a while."""
        if not self.is_watching:
            self.is_watching = True
            self._used_since = trio.current_time()
            self._until_look.deadline = self._used_since + self._delay

    def _look(self) -> None:
        """End the leases of sockets that nobody waits for, and see which are idle."""
        self.is_watching = False
        now = trio.current_time()
        uses = [lease.uses for lease in self.leases if lease.uses]
        if len(uses) > _FEW and sum(uses) > _BUSY * (now - self._used_since):
            self._rests_until = now + _REST
            self.end_all()
        are_back = all(lease.is_waiting for lease in self.leases)
        self._delay = min(2 * self._delay, _LATEST_LOOK) if are_back else _LOOK
        for lease in tuple(self.leases):
            if not lease.is_waiting:
                lease.lender.take_back()
            lease.is_idle = not lease.uses
            lease.uses = 0


@final
class _Handed(Outcome[Frame]):
    """A message on its way to the task that waits for it: as `Value`, at a quarter of what that costs."""

    __slots__ = ("_message",)

    def __init__(self, message: Frame) -> None:
        self._message = message

    def unwrap(self) -> Frame:
        return self._message

    def send(self, gen: Generator[T, Frame, object]) -> T:
        return gen.send(self._message)

    async def asend(self, agen: AsyncGenerator[T, Frame]) -> T:
        return await agen.asend(self._message)


class Takers(list[trio.lowlevel.Task]):
    """Tasks parked in `receive`, first come, first served; while it is one alone, it may have a lease.

    Attributes:
      lease: while the socket is lent, to the one task that waits.
    """

    __slots__ = ("_first", "lease")

    _first: trio.lowlevel.Task  # to come when there was nobody

    def __init__(self) -> None:
        super().__init__()
        self.lease: Lease | None = None

    @property
    def by_lease(self) -> int:
        """How many wait by the lease, one at most: what is read next is its own."""
        return self.lease is not None and self.lease.is_waiting

    def hand(self, message: Frame) -> bool:
        """Give a message to the first of them; False if nobody waits, or the task that reads by the lease has one."""
        if self:
            trio.lowlevel.reschedule(self.pop(0), _Handed(message))
            return True
        lease = self.lease
        if lease is None or not lease.is_waiting or lease.message is not None:
            return False
        lease.message = message
        return True

    def end_lease(self) -> None:
        """Have others read the socket, if it is lent."""
        if self.lease is not None:
            self.lease.lender.take_back()

    def wake(self) -> None:
        """Have all of them look again: none gets a message."""
        for task in self:
            trio.lowlevel.reschedule(task)
        self.clear()

    def wait(self) -> Awaitable[Frame | None]:
        """Wait for a message, to be awaited at once; None means: look again. A checkpoint. Cancelled, it took none."""
        if self.lease is not None:
            if not self.lease.is_waiting:
                return self.lease.wait()
            self.end_lease()  # of several who wait each has his turn
        task = trio.lowlevel.current_task()
        if self:
            leave: Callable[[object], trio.lowlevel.Abort] = partial(self._leave, task)
        else:  # which is most often so: nothing is made for it
            self._first = task
            leave = self
        self.append(task)
        return trio.lowlevel.wait_task_rescheduled(leave)  # noqa: ASYNC105  # the caller does

    def __call__(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        """Let go of a task that is cancelled and was the first; by itself, for a bound method takes 64 bytes."""
        self.remove(self._first)
        return trio.lowlevel.Abort.SUCCEEDED

    def _leave(self, task: trio.lowlevel.Task, _raise_cancel: object) -> trio.lowlevel.Abort:
        self.remove(task)
        return trio.lowlevel.Abort.SUCCEEDED
