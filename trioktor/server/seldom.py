"""Log lines that strangers can cause: each once in a while, and not too many different ones."""

from __future__ import annotations

from typing import Final, final

_MOST: Final = 20
"""Different lines in one period; whoever wants to fill a log makes up new ones."""


@final
class Seldom:
    """What was logged lately.

    Args:
      period: seconds in which a line is logged once.
    """

    __slots__ = ("_period", "_since")

    def __init__(self, period: float) -> None:
        self._period = period
        self._since: dict[str, float] = {}  # the oldest first

    def is_due(self, line: str, now: float) -> bool:
        """Whether a line is to be logged at this time; True counts as logged."""
        while self._since and now - next(iter(self._since.values())) >= self._period:
            del self._since[next(iter(self._since))]
        if line in self._since or len(self._since) >= _MOST:
            return False
        self._since[line] = now
        return True
