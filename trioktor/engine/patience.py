"""Limits on waiting for somebody else, which stand still while we do not listen ourselves.

A process may be stopped and go on, its machine may be paused, a handler may block the loop. What the peer said
meanwhile lies unread in the system's buffer, and a plain deadline that has passed would hold the pause against
him. So a limit is waited for in slices. One from which we wake much later than we asked for was a pause of ours,
and the limit moves by as much.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from .outcome import is_cancellation

_SLICES: Final = 4
_LATE: Final = 1 / 8
"""What is "much later", as a part of the limit."""


@final
class Patience:
    """A limit in seconds (None: no limit), which begins now, or when it was last renewed."""

    __slots__ = ("_seconds", "_since")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = math.inf if seconds is None else seconds
        self._since = trio.current_time()

    @property
    def is_over(self) -> bool:
        """Whether the limit is reached."""
        return trio.current_time() >= self._since + self._seconds

    def renew(self) -> None:
        """Begin anew."""
        self._since = trio.current_time()

    def next_look(self) -> float:
        """The time until which to wait before looking at the limit again."""
        return min(self._since + self._seconds, trio.current_time() + self._seconds / _SLICES)

    def woke(self, asked: float) -> None:
        """Having woken from a wait until `asked`: what came later than that is not counted."""
        now = trio.current_time()
        late = now - asked
        if late > self._seconds * _LATE:
            self._since = min(self._since + late, now)  # it may have been renewed since

    async def outlast(self, wait: Callable[[], Awaitable[object]]) -> bool:
        """Wait for something, at most to the limit; whether the limit came first.

        `wait` is cut short and called again, so cut short it must have lost nothing. It may renew the limit.
        """
        while not self.is_over:
            asked = self.next_look()
            with trio.CancelScope(deadline=asked) as scope:
                await wait()
            if not scope.cancelled_caught:
                return False
            self.woke(asked)
        await trio.lowlevel.checkpoint()
        return True

    async def finish(
        self, work: Callable[[], Awaitable[object]], *, unless: Callable[[], Awaitable[object]] | None = None
    ) -> bool:
        """Do something that can't be begun again, at most to the limit; whether it was finished.

        At the limit, or when `unless` returns, it is cancelled. What it raises comes out as itself.
        """
        failure: BaseException | None = None
        is_finished = False
        scope = trio.CancelScope()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_at_the_end, scope, name="trioktor limit")
                if unless is not None:
                    nursery.start_soon(_cancel_after, unless, scope, name="trioktor watch")
                try:
                    with scope:
                        await work()
                        is_finished = True
                except trio.Cancelled:
                    raise
                except BaseException as error:  # raised below: a nursery would wrap it in a group
                    failure = error
                nursery.cancel_scope.cancel("it is done")
        except BaseException as error:
            if failure is None or not is_cancellation(error):
                raise
        if failure is not None:
            raise failure
        return is_finished

    async def _cancel_at_the_end(self, scope: trio.CancelScope) -> None:
        await self.outlast(trio.sleep_forever)
        scope.cancel("the limit is reached")


async def _cancel_after(wait: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel("there is no sense in it any more")
