"""One task that reads all plain sockets of a server, by an epoll of its own.

Theory of operation. The poller's epoll watches the sockets, Trio watches that epoll: so an idle connection needs no
task that waits for its input, and one wake-up serves all sockets that have something to read. What makes that sound:

- It is level-triggered: what was not read is reported again.
- Nothing is awaited between the poll and the end of its batch, and each socket is read once in a turn.
- The poller never waits for a connection. One whose input can't go on is watched for a hang-up only, once: a socket
  without any event wanted would report a reset for ever. A task of the connection's own nursery waits, and gives
  the socket back.
- Some sockets are lent to the tasks in `receive` for a while (`engine.lending`), and are not in the epoll then.
- A socket leaves the epoll in the step that decides so, before it is closed: its number may be given to another.
- What goes wrong in one connection ends that one.

The poller lives in the nursery that owns the connections, and ends after the last of them: cancelled, it reads on
while there are some, for their goodbye.
"""

from __future__ import annotations

import select
import sys
from typing import Final, Protocol, final

import trio

from .later import Later
from .lending import Lending
from .sockets import ENDED

_BATCH: Final = 128
"""Sockets that are read in one step of the loop."""
_CROWD: Final = 16
"""Sockets that are read in one step where it is better to read all of them here."""
_LOOK: Final = 0.01
"""Seconds that handlers have to see the end of their conversations before somebody looks."""
_GOODBYE_LIMIT: Final = 1.5
"""Seconds for which a cancelled poller reads on: a little more than connections have for their goodbye."""

if sys.platform == "linux":
    _READ: Final = select.EPOLLIN | ENDED
    _HANG_UP_ONCE: Final = ENDED | select.EPOLLONESHOT


class Polled(Protocol):
    """What a poller sees of a reader."""

    def read(self) -> None:
        """Read once. Never raises."""

    def note_alone(self) -> None:
        """No other socket had anything."""


@final
class Poller:
    """The task, and what it reads.

    Attributes:
      is_running: whether it takes more sockets.
    """

    def __init__(self) -> None:
        self._readers: dict[int, Polled] = {}
        self._epoll = select.epoll()
        self._is_closing = False
        self._scope = trio.CancelScope()
        self.later: Later = Later()
        self.looks: Later = Later(_LOOK)
        self.lending: Lending = Lending()
        self.is_running: bool = False

    @staticmethod
    def is_possible() -> bool:
        """Whether the system has what it takes."""
        return sys.platform == "linux"

    def close(self) -> None:
        """Take no more sockets, and end after the last of them."""
        self._is_closing = True
        self._end_if_last()

    def _end_if_last(self) -> None:
        if self._is_closing and not self._readers:
            self._scope.cancel("the last connection is gone")
            self.later.close()
            self.looks.close()
            self.lending.close()
            self.is_running = False

    @trio.lowlevel.enable_ki_protection  # what it reads for one connection must not be lost half-way
    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read until `close` was called, or it is cancelled, and the last connection is gone."""
        self.is_running = True
        task_status.started()
        try:
            with self._scope:
                await self._read()
        except trio.Cancelled:
            self.lending.close()  # nobody will look after the leases
            self.close()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _GOODBYE_LIMIT) as self._scope:
                self._end_if_last()
                await self._read()
            raise
        finally:
            self.is_running = False
            self._epoll.close()

    async def _read(self) -> None:
        descriptor = self._epoll.fileno()
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            self._read_batch()

    def _read_batch(self) -> None:
        readers = self._readers
        events = self._epoll.poll(0, _BATCH)
        for fd, _ in events:
            reader = readers.get(fd)
            if reader is not None:  # else it left in this very batch
                reader.read()
        if len(events) == 1 and reader is not None:
            reader.note_alone()
        elif len(events) >= _CROWD:
            self.lending.end_all()

    # what a reader asks for

    def add(self, fd: int, reader: Polled) -> None:
        """Live as long as this one; it is not read yet."""
        self._readers[fd] = reader

    def watch(self, fd: int) -> None:
        """Read a socket from now on."""
        if not self._epoll.closed:
            self._epoll.register(fd, _READ)

    def unwatch(self, fd: int) -> None:
        """Do not read it any more."""
        if not self._epoll.closed:
            try:
                self._epoll.unregister(fd)
            except OSError:  # it could not be watched, which is why it ends
                pass

    def pause(self, fd: int) -> None:
        """Read nothing of it for a while."""
        if not self._epoll.closed:
            self._epoll.modify(fd, _HANG_UP_ONCE)

    def resume(self, fd: int) -> None:
        """Read it again."""
        if not self._epoll.closed:
            self._epoll.modify(fd, _READ)

    def remove(self, fd: int, *, is_watched: bool) -> None:
        """It is read no more, by nobody."""
        if self._readers.pop(fd, None) is not None and is_watched:
            self.unwatch(fd)
        if self._is_closing:
            self._end_if_last()
