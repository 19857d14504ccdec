"""Reads a stream that has to be awaited, in a task of its own, until nothing more is to be read."""

from __future__ import annotations

import trio

from ..protocol.closing import ClosingHandshake
from .intake import Intake
from .shields import Shields
from .transport import Transport


class Reader:
    """The task that reads one connection.

    Args:
      trailing_data: bytes that came with the handshake.
    """

    __slots__ = ("_closing", "_ended", "_intake", "_scope", "_shields", "_trailing_data", "_transport")

    def __init__(
        self, transport: Transport, intake: Intake, closing: ClosingHandshake, shields: Shields, trailing_data: bytes
    ) -> None:
        self._transport = transport
        self._intake = intake
        self._closing = closing
        self._shields = shields
        self._trailing_data = trailing_data
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    def start(self, nursery: trio.Nursery) -> None:
        """Start the task; its first step comes after the present task's."""
        nursery.start_soon(self._run, name="trioktor reader")

    async def _run(self) -> None:
        """Read until the peer can say nothing more, or `stop`."""
        try:
            with self._shields.open(self._scope):
                await self._read()
        finally:
            self._ended.set()

    def stop(self) -> None:
        """Read nothing more."""
        self._scope.cancel("nothing more is to be read")

    async def wait_ended(self) -> None:
        """Wait until nobody reads the stream any more."""
        await self._ended.wait()

    async def _read(self) -> None:
        data, self._trailing_data = self._trailing_data, b""
        try:
            while not self._closing.is_over:  # somebody may end it while this task has what it read in its hands
                if data:
                    if not self._intake.take(data):
                        await self._intake.finish()
                    data = b""
                else:
                    data = await self._transport.receive()
                    if not data:
                        self._intake.take(b"")
        except trio.BrokenResourceError as error:
            self._intake.lose(error)
        except Exception as error:
            self._intake.fail(error)
