"""Tasks that wait for a message, and get it from the hand of the reader; or read it, by a lease."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from functools import partial
from typing import TypeVar, final

import trio
from outcome import Outcome

from ..protocol.frames import Frame
from .lending import Lease

T = TypeVar("T")


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
