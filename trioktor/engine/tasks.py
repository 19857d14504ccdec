"""The handler, and the tasks it started beside itself: they end together.

The handler runs in the body of the connection's nursery, the others as its children, each in a scope of
its own, so that they can be cancelled without cancelling the connection. The first that raises cancels the
handler; the handler's return cancels the rest; and when the last of them is gone, what they raised is
handed on, once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Protocol

import trio

from .outcome import merge, reraise, split

_OVER: Final = "the handler has returned, or the block was left"


class Owner(Protocol):
    """What the tasks tell their connection."""

    def handler_ended(self, error: Exception | None) -> None:
        """The last task has ended, with what they raised."""

    def interrupted(self) -> None:
        """One of them is cancelled from outside, or interrupted."""


class HandlerTasks:
    """The handler of one connection, which runs in a `with` of this, and the tasks of `session.start_soon`.

    Attributes:
      task: the one that the handler runs in.
      has_returned: whether the handler itself has.
    """

    __slots__ = ("_children", "_errors", "_gone", "_owner", "_running", "_scope", "has_returned", "task")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self.task: trio.lowlevel.Task = trio.lowlevel.current_task()
        self._scope = trio.CancelScope()
        self._children: set[trio.CancelScope] | None = None
        self._errors: list[Exception] | None = None
        self._running = 1  # the handler
        self._gone: trio.Event | None = None
        self.has_returned: bool = False

    @property
    def are_done(self) -> bool:
        """Whether the handler and all others have ended."""
        return self._running == 0

    @trio.lowlevel.enable_ki_protection  # or its scope could be left open
    def __enter__(self) -> None:
        """What follows is the handler, or a block in its place."""
        self._scope.__enter__()

    @trio.lowlevel.enable_ki_protection
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Keep what it raised, if that counts as a failure, and cancel what it started."""
        try:
            try:
                if error is not None:
                    self._failed(error, self._scope)
            finally:
                del error, traceback  # or the traceback would keep both
                self.has_returned = True
                self._end_one()
        except BaseException as rest:  # the scope is left, whatever went wrong
            if not self._scope.__exit__(type(rest), rest, rest.__traceback__):
                raise
        else:
            self._scope.__exit__(None, None, None)
        self.cancel_children(_OVER)
        return True

    def start_soon(self, nursery: trio.Nursery, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        """Run a task beside the handler; cancelled at once if the handler is on its way out."""
        scope = trio.CancelScope()
        if self.has_returned or self._scope.cancel_called:
            scope.cancel(_OVER)
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
            try:
                await fn(*args)
            except BaseException as error:
                self._failed(error, scope)
            finally:
                self._end_one()
        if self._children is not None:
            self._children.discard(scope)

    def _failed(self, error: BaseException, scope: trio.CancelScope) -> None:
        """Keep what counts as a failure, and raise the rest."""
        judged, rest = split(error)
        if judged is not None:
            if self._errors is None:
                self._errors = []
            self._errors.append(judged)
            self._scope.cancel("a task of the session failed")
        if rest is not None:
            if not scope.cancel_called:
                self._owner.interrupted()
            try:
                reraise(rest)
            finally:
                del error, judged, rest  # or its traceback would keep it, and it the traceback

    def _end_one(self) -> None:
        self._running -= 1
        if self._running == 0:
            errors, self._errors = self._errors, None  # their tracebacks hold what holds this
            self._owner.handler_ended(merge(errors) if errors else None)
            del errors
            if self._gone is not None:
                self._gone.set()


def lineage() -> set[trio.lowlevel.Task]:
    """The current task, and those that it was started below: a handler's is among them if this is its own."""
    lineage = set()
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while task is not None:
        lineage.add(task)
        task = None if task.parent_nursery is None else task.parent_nursery.parent_task
    return lineage
