"""Who waits until what was sent is with the system: `session.flush`.

Counted are items as they are taken out of the queue, and those of them that are written; Pings and Pongs, which
overtake the queue, are counted beside them. A count alone would not do: an item that was counted may be
withdrawn. So a writer with nothing left to write lets go of everybody, and so does the end. What goes past the queue,
and is with the system at once, is not counted: nobody waits for anything then.
"""

from __future__ import annotations

import math
from typing import final

import attrs
import trio


@final
@attrs.define(eq=False)
class _Flush:
    items: float
    controls: int
    written: trio.Event = attrs.field(factory=trio.Event)


@final
@attrs.define(eq=False, weakref_slot=False)
class Flushes:
    """What was taken to be written, what is written, and who waits for it.

    Attributes:
      taken, controls_taken: items and control frames that have left their queues.
      controls_written: control frames that are with the system.
    """

    taken: int = 0
    controls_taken: int = 0
    _written: int = 0
    controls_written: int = 0
    _waiting: list[_Flush] | None = None

    def note_written(self, unfinished: int) -> None:
        """All that was taken is with the system, but for so many items that are not through yet."""
        self._written = self.taken - unfinished
        self.controls_written = self.controls_taken
        if self._waiting:
            still = []
            for flush in self._waiting:
                if self._is_written(flush.items, flush.controls):
                    flush.written.set()
                else:
                    still.append(flush)
            self._waiting = still

    def release(self) -> None:
        """Nothing is left to be written: let go of everybody."""
        self._written = self.taken
        self.controls_written = self.controls_taken
        for flush in self._waiting or ():
            flush.written.set()
        self._waiting = None

    async def wait_for_all(self) -> None:
        """Wait until nothing is left to be written."""
        await self.wait(math.inf, 0)

    async def wait(self, items: float, controls: int) -> None:
        """Wait until so many items and control frames in all are written, or nothing is left. A checkpoint."""
        if self._is_written(items, controls):
            await trio.lowlevel.checkpoint()
            return
        if self._waiting is None:
            self._waiting = []
        flush = _Flush(items, controls)
        self._waiting.append(flush)
        try:
            await flush.written.wait()
        finally:
            if self._waiting and not flush.written.is_set():
                self._waiting.remove(flush)

    def _is_written(self, items: float, controls: int) -> bool:
        return self._written >= items and self.controls_written >= controls
