"""One task that reads all plain sockets of a server, by an epoll of its own.

Theory of operation. The poller's epoll watches the sockets, Trio watches that epoll: so an idle connection needs no
task that waits for its input, and one wake-up serves all sockets that have something to read. What makes that sound:

- It is level-triggered: what was not read is reported again.
- Nothing is awaited between the poll and the end of its batch, and each socket is read once in a turn.
- The poller never waits for a connection. One whose input can't go on is watched for a hang-up only, once: a socket
  without any event wanted would report a reset for ever. A task of the connection's own nursery waits, and gives
  the socket back.
- A socket leaves the epoll in the step that decides so, before it is closed: its number may be given to another.
- What goes wrong in one connection ends that one.

The poller lives in the nursery that owns the connections, and ends after the last of them: cancelled, it reads on
while there are some, for their goodbye.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from typing import Final, final

import trio

from ..protocol.closing import ClosingHandshake
from .intake import Intake
from .later import Later
from .shields import Shields
from .sockets import SocketTransport

_BATCH: Final = 128
"""Sockets that are read in one step of the loop."""
_GOODBYE_LIMIT: Final = 1.5
"""Seconds for which a cancelled poller reads on: a little more than connections have for their goodbye."""

if sys.platform == "linux":
    _READ: Final = select.EPOLLIN | select.EPOLLRDHUP
    _HANG_UP_ONCE: Final = select.EPOLLRDHUP | select.EPOLLONESHOT


@final
class Poller:
    """The task, and what it reads.

    Attributes:
      is_running: whether it takes more sockets.
    """

    def __init__(self) -> None:
        self._readers: dict[int, PolledReader] = {}
        self._epoll = select.epoll()
        self._is_closing = False
        self._scope = trio.CancelScope()
        self.later: Later = Later()
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

    @trio.lowlevel.enable_ki_protection  # what it reads for one connection must not be lost half-way
    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read until `close` was called, or it is cancelled, and the last connection is gone."""
        self.is_running = True
        task_status.started()
        try:
            with self._scope:
                await self._read()
        except trio.Cancelled:
            self.close()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _GOODBYE_LIMIT) as self._scope:
                self._end_if_last()
                await self._read()
            raise
        finally:
            self.is_running = False
            self._epoll.close()

    async def _read(self) -> None:
        epoll, readers = self._epoll, self._readers
        descriptor = epoll.fileno()
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            for fd, _ in epoll.poll(0, _BATCH):
                reader = readers.get(fd)
                if reader is not None:  # else it left in this very batch
                    reader.read()

    # what a reader asks for

    def add(self, fd: int, reader: PolledReader) -> None:
        """Read a socket from now on."""
        self._epoll.register(fd, _READ)
        self._readers[fd] = reader

    def pause(self, fd: int) -> None:
        """Read nothing of it for a while."""
        if not self._epoll.closed:
            self._epoll.modify(fd, _HANG_UP_ONCE)

    def resume(self, fd: int) -> None:
        """Read it again."""
        if not self._epoll.closed:
            self._epoll.modify(fd, _READ)

    def remove(self, fd: int) -> None:
        """Read it no more."""
        if self._readers.pop(fd, None) is not None and not self._epoll.closed:
            self._epoll.unregister(fd)
        self._end_if_last()


@final
class PolledReader:
    """One connection's side of a poller; the same as a `Reader`, without a task.

    Args:
      trailing_data: bytes that came with the handshake.
    """

    __slots__ = (
        "_closing",
        "_fd",
        "_intake",
        "_nursery",
        "_pause",
        "_poller",
        "_shields",
        "_trailing_data",
        "_transport",
    )

    def __init__(
        self,
        poller: Poller,
        transport: SocketTransport,
        intake: Intake,
        closing: ClosingHandshake,
        shields: Shields,
        trailing_data: bytes,
    ) -> None:
        self._poller = poller
        self._transport = transport
        self._intake = intake
        self._closing = closing
        self._shields = shields
        self._trailing_data = trailing_data
        self._fd = transport.fileno()
        self._nursery: trio.Nursery | None = None
        self._pause: _Pause | None = None  # while a task hands on what was read

    def start(self, nursery: trio.Nursery) -> None:
        """Read from now on; what has to wait is a task of `nursery`."""
        if self._closing.is_over:
            return
        self._nursery = nursery
        self._poller.add(self._fd, self)
        if self._trailing_data:
            self._begin_pause()

    def read(self) -> None:
        """Read once, and hand it on as far as there is room."""
        if self._pause is not None:  # it hung up meanwhile: whoever waits for room looks for that himself
            return
        try:
            try:
                if not self._read() and not self._closing.is_over:
                    self._begin_pause()
            except trio.BrokenResourceError as error:
                self._intake.lose(error)
        except Exception as error:  # it would end the task that reads all others
            self._intake.fail(error)

    def _read(self) -> bool:
        """Read once; False if what was read has to wait."""
        target = self._intake.target
        if target is not None:
            count = self._transport.read_into(target)
            if count:
                return self._intake.take_filled(count)
            return count is None or self._intake.take(b"")
        data = self._transport.read_nowait()
        return data is None or self._intake.take(data)

    def stop(self) -> None:
        """Read nothing more."""
        if self._nursery is not None:
            self._poller.remove(self._fd)
        if self._pause is not None:
            self._pause.scope.cancel("nothing more is to be read")

    def later(self, call: Callable[[], None]) -> bool:
        """Call this when the handler had its turn; False if nobody would."""
        later = self._poller.later
        if later.is_running:
            later.call(call)
        return later.is_running

    async def wait_ended(self) -> None:
        """Wait until nobody reads the socket any more."""
        if self._pause is not None:
            await self._pause.ended.wait()

    def _begin_pause(self) -> None:
        assert self._nursery is not None
        self._poller.pause(self._fd)
        self._pause = _Pause()
        self._nursery.start_soon(self._finish, self._pause, name="trioktor intake")

    async def _finish(self, pause: _Pause) -> None:
        """Hand on what was read, and then let more be read."""
        data, self._trailing_data = self._trailing_data, b""
        try:
            with self._shields.open(pause.scope):
                try:
                    if not data or not self._intake.take(data):
                        await self._intake.finish()
                except Exception as error:
                    self._intake.fail(error)
            if not self._closing.is_over:
                self._poller.resume(self._fd)
        finally:
            self._pause = None
            pause.ended.set()


@final
class _Pause:
    """The time in which a task hands on what was read."""

    __slots__ = ("ended", "scope")

    def __init__(self) -> None:
        self.scope = trio.CancelScope(shield=True)
        self.ended = trio.Event()
