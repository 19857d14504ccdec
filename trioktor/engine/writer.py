"""The writer: the one task that writes to the stream.

It takes what waits in the outbox, joins it, and hands it over in one write of about 64 KiB; a frame longer than
that is handed over by itself, where joining it to its head would copy it. Under Trio draining alone joins little,
because each `await send` of a handler is a point at which this task runs. So while unread messages wait for the
handler, the writer lingers: up to three passes of the scheduler, each gathering what has come since. Three, because
a handler's receive and send are two checkpoints (measured: one pass gains nothing, a fourth no more). A lone message
pays nothing: nothing is pending then.

The writer parks on the outgoing channel, or on the message that goes out in pieces, inside a scope that is
cancelled for one purpose only: to have it look at the control lane, or at what a sender could not write whole.
`wake` does so when the place itself shows the writer parked; a flag of our own would lag by a pass, and a
cancellation that arrives in the middle of a write would tear a frame.
"""

from __future__ import annotations

from typing import Final

import trio

from .ends import Ends
from .inbox import Inbox
from .outbox import Outbox
from .shields import Shields
from .transport import CHUNK

_LINGER_PASSES: Final = 3


class Writer:
    """Write what an outbox holds to a transport, until it is sealed and empty.

    Args:
      pieces: what goes in front of it.
    """

    __slots__ = (
        "_ends",
        "_inbox",
        "_is_woken",
        "_outbox",
        "_pieces",
        "_scope",
        "_shields",
        "_wire",
        "is_done",
    )

    def __init__(self, outbox: Outbox, inbox: Inbox, shields: Shields, ends: Ends, pieces: list[bytes]) -> None:
        self._outbox = outbox
        self._inbox = inbox
        self._wire = outbox.wire
        self._ends = ends
        self._scope: trio.CancelScope | None = None
        self._is_woken = False
        self._pieces = pieces
        self._shields = shields
        self.is_done: bool = False

    async def run(self) -> bool:
        """Write until everything is written; False if the deadline of the shields came first.

        Raises:
          trio.BrokenResourceError, WriteTimeout: as `Transport.send`.
        """
        try:
            while True:
                with self._shields.open() as self._scope:
                    await self._write()
                    return True
                if not self._is_woken:
                    return False
                self._is_woken = False
        finally:
            self.is_done = True

    def wake(self) -> None:
        """Have a parked writer look at the control lane; a busy one looks by itself."""
        if self._scope is not None and self._outbox.pending.is_writer_parked:
            self._is_woken = True
            self._scope.cancel("control frames wait")

    async def _write(self) -> None:
        outbox, pieces = self._outbox, self._pieces
        while True:
            if not self._wire.is_clear:  # what somebody wrote was not taken whole
                await self._drain()
                outbox.note_written()
            size = outbox.gather(pieces)
            if not pieces and outbox.is_encoding:
                outbox.encode_on(pieces)
                await trio.lowlevel.checkpoint()
                if not pieces:
                    continue
                size = sum(map(len, pieces))
            if not pieces:
                if outbox.is_sealed:
                    outbox.note_done()
                    return
                try:
                    await outbox.receive(pieces)
                except trio.EndOfChannel:
                    self._ends.last_handle_closed()
                continue
            if size < CHUNK and self._inbox.waiting and not outbox.is_encoding:
                size = await self._linger(pieces)
            await self._hand_over(pieces)
            outbox.note_written()
            if outbox.waiting:
                await trio.lowlevel.checkpoint()

    async def _linger(self, pieces: list[bytes]) -> int:
        size = 0
        for _ in range(_LINGER_PASSES):
            await trio.lowlevel.checkpoint()
            size = self._outbox.gather(pieces)
            if size >= CHUNK or not self._inbox.waiting:
                break
        return size

    async def _hand_over(self, pieces: list[bytes]) -> None:
        # joining would copy it once more
        last = pieces.pop() if len(pieces[-1]) >= CHUNK and not self._wire.takes_parts else b""
        if pieces:
            await self._send(pieces)
            pieces.clear()
        if last:
            await self._send([last])

    async def _send(self, parts: list[bytes]) -> None:
        if not self._wire.write(parts):
            await self._drain()

    async def _drain(self) -> None:
        """See out what the system did not take; the peer may go on only when it is read."""
        self._inbox.takers.end_lease()
        await self._wire.drain()
