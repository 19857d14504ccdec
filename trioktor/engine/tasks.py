"""The handler, and the tasks it started beside itself: they end together.

The handler runs in the body of the connection's nursery, the others as its children, each in a scope of
its own, so that they can be cancelled without cancelling the connection. The first that raises cancels the
handler; the handler's return cancels the rest; and when the last of them is gone, what they raised is
handed on, once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from .outcome import merge, split


class HandlerTasks:
    """The handler of one connection and the tasks of `session.start_soon`.

    Args:
      on_end: called when the last task has ended, with what they raised.
      on_cancelled: called when one of them is cancelled from outside, or interrupted.
    """

    __slots__ = ("_children", "_errors", "_gone", "_on_cancelled", "_on_end", "_running", "_scope", "has_returned")

    def __init__(self, on_end: Callable[[Exception | None], None], on_cancelled: Callable[[], None]) -> None:
        self._on_end = on_end
        self._on_cancelled = on_cancelled
        self._scope = trio.CancelScope()
        self._children: set[trio.CancelScope] | None = None
        self._errors: list[Exception] = []
        self._running = 1  # the handler
        self._gone: trio.Event | None = None
        self.has_returned: bool = False  # the handler itself

    @property
    def are_done(self) -> bool:
        """Whether the handler and all others have ended."""
        return self._running == 0

    async def run_handler(self, handler: Callable[[], Awaitable[object]]) -> None:
        """Run the handler, then cancel what it started."""
        with self._scope:
            await self._run(handler, self._scope)
        self.cancel("the handler has returned")

    def start_soon(self, nursery: trio.Nursery, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        """Run a task beside the handler; cancelled at once if the handler is on its way out."""
        scope = trio.CancelScope()
        if self._scope.cancel_called:
            scope.cancel("the handler has returned")
        if self._children is None:
            self._children = set()
        self._children.add(scope)
        self._running += 1
        nursery.start_soon(self._run_child, fn, args, scope, name=fn)

    def cancel(self, why: str) -> None:
        """Cancel the handler and all others."""
        self._scope.cancel(why)
        self.cancel_children(why)

    def cancel_children(self, why: str) -> None:
        """Cancel the tasks beside the handler."""
        for scope in self._children or ():
            scope.cancel(why)

    async def wait_done(self) -> None:
        """Wait until all have ended; for one waiter."""
        if self._running:
            self._gone = trio.Event()
            await self._gone.wait()

    async def _run_child(
        self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...], scope: trio.CancelScope
    ) -> None:
        with scope:
            await self._run(lambda: fn(*args), scope)
        if self._children is not None:
            self._children.discard(scope)

    async def _run(self, function: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
        try:
            await function()
        except BaseException as error:
            judged, rest = split(error)
            if judged is not None:
                self._errors.append(judged)
                self._scope.cancel("a task of the session failed")
            if rest is not None:
                if not scope.cancel_called:
                    self._on_cancelled()
                raise rest from None
        finally:
            self._running -= 1
            self.has_returned = self.has_returned or scope is self._scope
            if self._running == 0:
                self._on_end(merge(self._errors))
                if self._gone is not None:
                    self._gone.set()
