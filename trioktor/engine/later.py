"""A task that calls functions later: when others had their turn, or when some time has gone by.

It is one task for all connections of a server, and parks while there is nothing to call; no traffic is needed to wake
it. What was put aside is called after two passes of the loop: a task that was woken runs in the next pass, and does
what it is woken for in one more. A connection that has no poller has such a task of its own. What will most often not
be needed by then is called some milliseconds later, all together.
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
    """Calls functions later, each once.

    Args:
      seconds: how long after the first call that is asked for; None is two passes of the loop.

    Attributes:
      is_running: whether it takes more.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._due: dict[Callable[[], None], None] = {}
        self._scope = trio.CancelScope()
        self._parked: trio.lowlevel.Task | None = None
        self.is_running: bool = True

    def close(self) -> None:
        """End the task."""
        self._scope.cancel("nobody asks for anything any more")

    def call(self, function: Callable[[], None]) -> None:
        """Call this later, or now if it has ended; what it raises later is logged, and nobody else's."""
        if not self.is_running:
            function()
            return
        self._due[function] = None
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
                    if self._seconds is not None:
                        await trio.sleep(self._seconds)
                    else:
                        for _ in range(_PASSES):
                            await trio.lowlevel.checkpoint()
                    self._call_all()
        finally:
            self.is_running = False
            self._call_all()

    async def _park(self) -> None:
        self._parked = trio.lowlevel.current_task()

        def leave(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    def _call_all(self) -> None:
        due, self._due = self._due, {}
        for function in due:
            try:
                function()
            except Exception:
                logger.exception("what was put aside failed by an error of trioktor's own")
