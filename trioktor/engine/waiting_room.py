"""Tasks that wait for a place, each with what it wants to put there, first come first served.

Whoever makes room accepts what waits in its own step, on behalf of the task: so a thing is accepted once, in the
order of arrival, whether its task has run by then or not. A task that is cancelled leaves the room in the step
of the cancellation: what it holds can't be accepted any more.
"""

from __future__ import annotations

from typing import Generic, TypeVar, final

import attrs
import trio
from outcome import Error

T = TypeVar("T")


@final
@attrs.define(eq=False)
class _Waiter(Generic[T]):
    item: T
    task: trio.lowlevel.Task


@final
class WaitingRoom(Generic[T]):
    """A queue of tasks.

    Attributes:
      waiters: those who wait; to be looked at only.
    """

    __slots__ = ("waiters",)

    def __init__(self) -> None:
        self.waiters: list[_Waiter[T]] = []

    async def wait(self, item: T) -> None:
        """Wait until `item` is accepted. A checkpoint. Cancelled, it was not.

        Raises:
          Exception: what it was refused with.
        """
        waiter = _Waiter(item, trio.lowlevel.current_task())
        self.waiters.append(waiter)

        def leave(_raise_cancel: object) -> trio.lowlevel.Abort:
            self.waiters.remove(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    @property
    def first(self) -> T:
        """What the first of them holds."""
        return self.waiters[0].item

    def accept(self) -> T:
        """Let the first task go on; returns what it held, which counts as accepted."""
        waiter = self.waiters.pop(0)
        trio.lowlevel.reschedule(waiter.task)
        return waiter.item

    def refuse(self, error: Exception) -> None:
        """Raise an error in the first task."""
        trio.lowlevel.reschedule(self.waiters.pop(0).task, Error(error))

    def refuse_all(self) -> None:
        """Raise `trio.BrokenResourceError` in everybody."""
        while self.waiters:
            self.refuse(trio.BrokenResourceError("nothing is accepted any more"))
