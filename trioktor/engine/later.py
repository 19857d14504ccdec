"""Tasks that call functions later: when others had their turn, or when some time has gone by.

Each is one task for all connections of a server, and parks while there is nothing to call; no traffic is needed to
wake it. `Later` is the waker of what is put aside, and calls after two passes of the loop: a task that was woken runs
in the next pass, and does what it is woken for in one more. A connection that has no poller has one of its own. `Looks`
is for what will most often not be needed by then: a pass of the loop would cost more than it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, final

import trio

_PASSES: Final = 2
_LOOK: Final = 0.01
"""Seconds from a call that is asked for to the look at which it is made."""

logger: logging.Logger = logging.getLogger("trioktor.session")


class Waker:
    """What is to be called, each function once.

    Attributes:
      is_running: whether it takes more.
    """

    def __init__(self, *, is_running: bool) -> None:
        self._due: dict[Callable[[], None], None] = {}
        self._scope = trio.CancelScope()
        self.is_running: bool = is_running

    def close(self) -> None:
        """End the task."""
        self._scope.cancel("nobody asks for anything any more")

    def _begin(self) -> None:
        self.is_running = True

    def _end(self) -> None:
        self.is_running = False
        self._call_all()

    def _call_all(self) -> None:
        due, self._due = self._due, {}
        for function in due:
            try:
                function()
            except Exception:
                logger.exception("what was put aside failed by an error of trioktor's own")


@final
class Later(Waker):
    """Calls functions two passes of the loop later."""

    def __init__(self) -> None:
        super().__init__(is_running=True)
        self._parked: trio.lowlevel.Task | None = None

    def call(self, function: Callable[[], None]) -> None:
        """Call this when two passes have gone by; what it raises is logged, and nobody else's."""
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
                    for _ in range(_PASSES):
                        await trio.lowlevel.checkpoint()
                    self._call_all()
        finally:
            self._end()

    async def _park(self) -> None:
        self._parked = trio.lowlevel.current_task()

        def leave(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)


@final
class Looks(Waker):
    """Calls functions at the next look, which is 10 ms after the first that asks for it."""

    def __init__(self) -> None:
        super().__init__(is_running=False)
        self._look = trio.CancelScope()  # its deadline is the next look

    def call(self, function: Callable[[], None]) -> None:
        """Call this at the next look, or now if there is none; what it raises then is logged, and nobody else's."""
        if not self.is_running:
            function()
            return
        if not self._due:
            self._look.deadline = trio.current_time() + _LOOK
        self._due[function] = None

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Call what is due, look by look, until cancelled; then what is due is called once more."""
        self._begin()
        try:
            with self._scope:
                while True:
                    with self._look:
                        await trio.sleep_forever()
                    self._look = trio.CancelScope()
                    self._call_all()
        finally:
            self._end()
