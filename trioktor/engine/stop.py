"""The end that the connections of a server share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, final

import attrs
import trio

STOP_LIMIT: Final = 1.0
"""Seconds that all connections together have for their goodbye when they are cancelled from outside."""


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
