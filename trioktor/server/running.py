"""What is running on a server, and who waits for its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, final

import attrs
import trio

from ..engine.connection import Connection
from ..engine.shields import STOP_LIMIT
from ..engine.tasks import lineage

_MARGIN: Final = 0.5
"""Seconds beyond their common deadline in which connections are gone."""


@final
@attrs.define(eq=False)
class Answering:
    """A GET handler that is running."""

    path: str
    task: trio.lowlevel.Task = attrs.field(factory=trio.lowlevel.current_task, repr=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, repr=False)


@final
class Running:
    """The connections and GET handlers of one server.

    Attributes:
      conversing: the connections.
    """

    def __init__(self) -> None:
        self.conversing: set[Connection] = set()
        self._answering: set[Answering] = set()
        self._changed = trio.lowlevel.ParkingLot()

    def add(self, connection: Connection) -> None:
        """A connection runs from now on."""
        self.conversing.add(connection)

    def discard(self, connection: Connection) -> None:
        """It does not run any more."""
        self.conversing.discard(connection)
        if self._changed:
            self._changed.unpark_all()

    @contextmanager
    def answering(self, path: str) -> Iterator[trio.CancelScope]:
        """A GET handler runs while the block does; gives the scope that ends it."""
        answering = Answering(path)
        self._answering.add(answering)
        try:
            yield answering.scope
        finally:
            self._answering.discard(answering)
            self._changed.unpark_all()

    def connections(self, mine: set[trio.lowlevel.Task] | None = None) -> set[Connection]:
        """The connections that are running, but for the one whose handler is among these tasks, or calls this."""
        mine = lineage() if mine is None else mine
        return {connection for connection in self.conversing if connection.task not in mine}

    def others(self, mine: set[trio.lowlevel.Task] | None = None) -> set[Connection | Answering]:
        """The connections and GET handlers that are running, but for the same one."""
        mine = lineage() if mine is None else mine
        everything: set[Connection | Answering] = {*self.conversing, *self._answering}
        return {one for one in everything if one.task not in mine}

    def cancel_answering(self, mine: set[trio.lowlevel.Task] | None = None) -> None:
        """Cancel the GET handlers, but for the same one."""
        mine = lineage() if mine is None else mine
        for answering in self._answering:
            if answering.task not in mine:
                answering.scope.cancel("the server is closing")

    async def wait_gone(self, running: Iterable[Connection | Answering]) -> None:
        """Wait until none of these is running."""
        wanted = set(running)
        while wanted & {*self.conversing, *self._answering}:
            await self._changed.park()
        await trio.lowlevel.checkpoint()

    async def see_out(self, mine: set[trio.lowlevel.Task], until: float) -> set[Connection | Answering]:
        """Wait until that time for all but `mine`, cancel what is left, and wait for that; gives what does not heed it.

        At most 1.5 s longer.
        """
        with trio.move_on_at(until):
            await self.wait_gone(self.others(mine))
        for connection in self.connections(mine):
            connection.tasks.cancel("the server is closing")
            connection.ends.stop_by(trio.current_time() + STOP_LIMIT)
        self.cancel_answering(mine)
        with trio.move_on_after(STOP_LIMIT + _MARGIN):
            await self.wait_gone(self.others(mine))
        return self.others(mine)
