"""Every scope of a connection that a cancellation from outside must not end, and the deadlines that are shared.

A cancellation must not tear a frame, nor lose a Close. So what reads and writes runs shielded; in exchange each such
scope stands here, and `stop_by` brings all their deadlines forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Final, final

import attrs
import trio

TIME_IS_UP: Final = "the time for what was left to say was up"
"""Why something was not written: the error of who found it first."""
STOP_LIMIT: Final = 1.0
"""Seconds that all connections together have for their goodbye when they are cancelled from outside."""


@final
class Shield:
    """One scope, listed while it is open."""

    __slots__ = ("_open", "_scope")

    def __init__(self, open_scopes: list[trio.CancelScope], scope: trio.CancelScope) -> None:
        self._open = open_scopes
        self._scope = scope

    def __enter__(self) -> trio.CancelScope:
        self._open.append(self._scope)
        return self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._open.remove(self._scope)
        return self._scope.__exit__(kind, error, traceback)


@final
class Shields:
    """The scopes of one connection that have a common deadline.

    Attributes:
      deadline: an absolute time; infinite until somebody sets one.
    """

    __slots__ = ("_open", "deadline")

    def __init__(self) -> None:
        self._open: list[trio.CancelScope] | None = None
        self.deadline: float = math.inf

    def open(self, scope: trio.CancelScope | None = None, *, shield: bool = True) -> Shield:
        """A scope that ends by the common deadline; shielded, unless its task has to hear of a cancellation."""
        if self._open is None:
            self._open = []
        if scope is None:
            scope = trio.CancelScope(shield=shield, deadline=self.deadline)
        else:
            scope.shield = shield
            scope.deadline = min(scope.deadline, self.deadline)
        return Shield(self._open, scope)

    def stop_by(self, deadline: float) -> None:
        """End all of them by `deadline`, an absolute time; also those that are opened later."""
        self.deadline = min(self.deadline, deadline)
        for scope in self._open or ():
            scope.deadline = min(scope.deadline, deadline)


@final
@attrs.define(eq=False)
class Stop:
    """The end that a server's connections share: one absolute deadline for all of them.

    `on_begin` is called as soon as the first of them is cancelled or interrupted, so that all close at the same time.
    """

    deadline: float = math.inf
    on_begin: Callable[[], None] | None = None
    _has_begun: bool = False

    def begin(self) -> float:
        """Begin the end, if nobody has; returns the deadline."""
        if not self._has_begun:
            self._has_begun = True
            self.deadline = min(self.deadline, trio.current_time() + STOP_LIMIT)
            if self.on_begin is not None:
                self.on_begin()
        return self.deadline
