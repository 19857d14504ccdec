"""Parts of a connection: they know it, and do not keep it alive.

A connection refers to its parts, and they to it. By references that count, every connection that is over would wait for
the garbage collector, with all that it holds; so it is freed at once.
"""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

O = TypeVar("O")  # noqa: E741


class Part(Generic[O]):
    """Whatever belongs to one connection, and is reached through it alone."""

    __slots__ = ("_connection",)

    def __init__(self, connection: O) -> None:
        self._connection: O = weakref.proxy(connection)
