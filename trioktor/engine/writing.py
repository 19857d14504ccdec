"""Writes for one connection: at once, where nothing is in the way, else by the writer's task.

The task is started when something has to wait for the first time, and lives to the end. What comes of writing is told
to the `ClosingHandshake`.
"""

from __future__ import annotations

from typing import Protocol

import trio

from ..errors import WriteTimeout
from ..protocol.closing import ClosingHandshake
from ..protocol.frames import Frame
from ..protocol.prepared import PreparedMessage
from .inbox import Inbox
from .outbox import Outbox
from .shields import Shields
from .transport import Transport
from .wire import Wire
from .writer import Writer


class Owner(Protocol):
    """What writing sees of its connection."""

    inbox: Inbox
    outbox: Outbox
    shields: Shields
    transport: Transport
    wire: Wire

    @property
    def closing(self) -> ClosingHandshake:
        """Where the conversation stands."""

    @property
    def nursery(self) -> trio.Nursery | None:
        """Where tasks are started; None before and after."""

    def look_up(self) -> None:
        """Something happened in the conversation."""

    def crashed(self, error: Exception) -> None:
        """A fault of an extension's, or ours."""

    def last_handle_closed(self) -> None:
        """The user closed every handle on `outgoing`."""


class Writing:
    """What is written on one connection, by whom.

    Attributes:
      writer: the task, once there is one.
    """

    __slots__ = ("_connection", "_watching", "writer")

    def __init__(self, connection: Owner) -> None:
        self._connection = connection
        self.writer: Writer | None = None
        self._watching: trio.CancelScope | None = None  # of the write timeout

    def wake(self) -> None:
        """There is something to write: start the writer, or have it look."""
        connection = self._connection
        nursery = connection.nursery
        if self.writer is not None:
            self.writer.nudge()
        elif nursery is not None:  # else `Connection.run` looks
            connection.outbox.open()
            self.writer = Writer(
                connection.outbox, connection.inbox, connection.wire, connection.shields, connection.last_handle_closed
            )
            nursery.start_soon(self._write, self.writer, name="trioktor writer")
            if not connection.transport.takes_nowait:
                self._watching = trio.CancelScope(shield=True)  # here: it may be cancelled before its first turn
                nursery.start_soon(self._watch_writer, self._watching, name="trioktor write timeout")

    def write_through(self, item: Frame | PreparedMessage, *, keep: bool) -> bool:
        """Write a frame straight to the socket, if nothing is in its way; False if it has to be queued.

        With `keep` more will follow, and they may go out together.
        """
        connection = self._connection
        if not connection.transport.takes_nowait:
            return False
        try:
            return connection.outbox.write_through(item, keep=keep)
        except trio.BrokenResourceError as error:
            self.failed(error)
            return True  # accepted, and lost with the connection

    def uncork(self) -> None:
        """Write what was put aside."""
        try:
            self._connection.outbox.uncork()
        except trio.BrokenResourceError as error:
            self.failed(error)

    def write_rest(self) -> None:
        """Write what goes out by itself: control frames, and what is left in an outbox that is sealed."""
        try:
            if self._connection.outbox.write_rest():
                self._connection.closing.written()
            else:
                self.wake()
        except trio.BrokenResourceError as error:
            self.failed(error)

    def greet(self) -> None:
        """Write the answer to the handshake."""
        try:
            self._connection.outbox.greet()
        except trio.BrokenResourceError as error:
            self.failed(error)

    def stop_watching(self) -> None:
        """Nothing is written any more."""
        if self._watching is not None:
            self._watching.cancel("nothing is written any more")

    def failed(self, error: Exception) -> None:
        """The peer takes nothing more; what it said before may still be there to be read."""
        connection = self._connection
        cause = error.__cause__ or error
        connection.closing.write_failed(cause)
        if connection.inbox.is_stalled:
            connection.closing.lose(cause)
        connection.look_up()

    async def _write(self, writer: Writer) -> None:
        connection = self._connection
        closing = connection.closing
        try:
            if await writer.run():
                closing.written()
            else:
                closing.write_failed(WriteTimeout("the time for what was left to say was up"))
            connection.look_up()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.failed(error)
        except WriteTimeout as error:
            closing.lose(error)
            connection.look_up()
        except Exception as error:
            closing.write_failed(error)
            connection.crashed(error)

    async def _watch_writer(self, scope: trio.CancelScope) -> None:
        with scope:
            await self._connection.transport.watch()
