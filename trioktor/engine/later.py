"""Calls a function two passes of the loop later: the waker of what is put aside.

Two, because a task that was woken runs in the next pass, and does what it is woken for in one more. It is one task for
all connections of a server, or one of a connection that has no poller; it parks while there is nothing to call, and no
traffic is needed to wake it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, final

import trio

_PASSES: Final = 2

logger: logging.Logger = logging.getLogger("trioktor.session")


@final
class Later:
    """The task, and what it is to call.

    Attributes:
      is_running: whether it takes more.
    """

    def __init__(self) -> None:
        self._due: list[Callable[[], None]] = []
        self._parked: trio.lowlevel.Task | None = None
        self._scope = trio.CancelScope()
        self.is_running: bool = True

    def close(self) -> None:
        """End the task."""
        self._scope.cancel("nobody puts anything aside any more")

    def call(self, function: Callable[[], None]) -> None:
        """Call this when two passes have gone by; what it raises is logged, and nobody else's."""
        self._due.append(function)
        if self._parked is not None:
            trio.lowlevel.reschedule(self._parked)
            self._parked = None

    @trio.lowlevel.enable_ki_protection  # what one connection put aside must not be lost
    async def run(self) -> None:
        """Call what is due, until cancelled; then what is due is called once more."""
        try:
            with self._scope:
                while True:
                    if not self._due:
                        await self._park()
                    for _ in range(_PASSES):
                        await trio.lowlevel.checkpoint()
                    self._call_all()
        finally:
            self.is_running = False
            self._call_all()

    def _call_all(self) -> None:
        due, self._due = self._due, []
        for function in due:
            try:
                function()
            except Exception:
                logger.exception("what was put aside failed by an error of trioktor's own")

    async def _park(self) -> None:
        self._parked = trio.lowlevel.current_task()

        def leave(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)
