"""Sockets that a poller lends to the tasks in `receive`.

Theory of operation. Through the poller a message costs two passes of Trio's loop: in the first the poller wakes and
reads, in the second the handler runs. A socket that the poller found alone several times in a row is lent: the task in
`receive` waits for it in Trio's hands, reads it, and has its message in the same pass. What makes that sound:

- One reads at a time: the poller watches a lent socket for a hang-up only, once, as it does one that has to wait.
- A handler that does something else reads nothing, and a Ping would wait for it. So while lent sockets are read a task
  looks from time to time, and one that nobody waits for goes back.
- Whoever wants the socket read by others, or read no more, ends the lease, which wakes the task that waits. It waits
  for a duplicate of the descriptor: one that waits for room to write is not woken.
- There are few leases. A crowd is served better by the poller, which needs one wake-up for them all; and so is a peer
  that sends several messages at once.
"""

from __future__ import annotations

import os
from typing import Final, Protocol, final

import trio

_TURNS: Final = 4
"""How often in a row a socket has to be found alone."""
_MOST: Final = 8
"""Sockets that are lent at a time."""
_LOOK: Final = 0.01
"""Seconds after a read until somebody looks whether the socket is waited for."""


class Lender(Protocol):
    """What a lease sees of the reader that lends its socket."""

    def fileno(self) -> int:
        """The socket's number."""

    def read_lent(self) -> None:
        """Read once, and hand it on as far as there is room."""

    def take_back(self) -> None:
        """End the lease, and have the poller read again."""


@final
class Lease:
    """A lent socket. It ends once; afterwards nobody reads by it.

    Raises:
      OSError: there is no descriptor left.

    Attributes:
      is_waiting: whether a task waits for it.
      is_used: whether it was read since somebody asked for a place among the leases.
      lender: the reader that lends it.
    """

    __slots__ = ("_fd", "_is_over", "_lending", "is_used", "is_waiting", "lender")

    def __init__(self, lending: Lending, lender: Lender) -> None:
        self._fd = os.dup(lender.fileno())
        self._lending = lending
        lending.leases.append(self)
        self.lender: Lender = lender
        self._is_over = False
        self.is_waiting: bool = False
        self.is_used: bool = True

    async def wait(self) -> None:
        """Wait for input, and read it once, unless the lease ends before. A checkpoint. Cancelled, it read nothing."""
        self.is_waiting = True
        try:
            await trio.lowlevel.wait_readable(self._fd)
        except trio.ClosedResourceError:
            return
        except BaseException:
            self.lender.take_back()
            raise
        finally:
            self.is_waiting = False
        if not self._is_over:  # it may have ended between the event and this task's turn
            self.is_used = True
            self._lending.watch()
            self.lender.read_lent()

    def end(self) -> None:
        """It is over; who waits is woken."""
        self._is_over = True
        self._lending.leases.remove(self)
        trio.lowlevel.notify_closing(self._fd)
        os.close(self._fd)


@final
class Lending:
    """The leases of one poller, and the task that looks after them.

    Attributes:
      leases: those that are not over, oldest first.
    """

    def __init__(self) -> None:
        self.leases: list[Lease] = []
        self._is_running = False
        self._last = -1  # the number of the socket that was found alone
        self._turns = 0  # how often in a row
        self._scope = trio.CancelScope()  # the watch; its deadline is when to look
        self._is_watching = False  # there is a deadline
        self._is_closing = False

    def close(self) -> None:
        """End the task."""
        self._is_closing = True
        self._scope.cancel("nobody reads any more")

    def is_worth_it(self, lender: Lender) -> bool:
        """Whether to lend this socket, which was found alone."""
        if lender.fileno() != self._last:
            self._last = lender.fileno()
            self._turns = 0
        self._turns += 1
        if self._turns < _TURNS:
            return False
        self._turns = 0
        return self._is_running and self._has_place()

    def _has_place(self) -> bool:
        """Whether there is a place for one more; the oldest that was not used since the last question makes one."""
        if len(self.leases) < _MOST:
            return True
        unused = next((lease for lease in self.leases if not lease.is_used), None)
        for lease in self.leases:
            lease.is_used = False
        if unused is not None:
            unused.lender.take_back()
        return unused is not None

    def watch(self) -> None:
        """A lent socket was read: look whether it is waited for again."""
        if not self._is_watching:
            self._is_watching = True
            self._scope.deadline = trio.current_time() + _LOOK

    async def run(self) -> None:
        """Look, each time when that is due, until `close` or cancelled; then all leases end."""
        self._is_running = True
        try:
            while not self._is_closing:
                with self._scope:
                    await trio.sleep_forever()
                self._scope = trio.CancelScope()
                self._is_watching = False
                self._take_back(idle_only=True)
        finally:
            self._is_running = False
            self._take_back(idle_only=False)

    def _take_back(self, *, idle_only: bool) -> None:
        """End the leases of sockets that nobody waits for, or all of them."""
        for lease in tuple(self.leases):
            if not (idle_only and lease.is_waiting):
                lease.lender.take_back()
