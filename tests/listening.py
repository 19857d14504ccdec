"""A server without sockets: a listener in memory, for tests of `serve` with the autojump clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, final

import trio
import trio.testing

from tests.helpers import RawClient
from trioktor import Application, Server, serve

Pipe = trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream]


@final
class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts the connections that `connect` makes."""

    def __init__(self, pair: Callable[[], tuple[Any, Any]] = trio.testing.memory_stream_pair) -> None:
        self._pair = pair
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](100)
        self.is_closed = False

    async def connect(self) -> Any:
        """The client's end of a new connection."""
        ours, theirs = self._pair()
        await self._send.send(theirs)
        return ours

    async def accept(self) -> trio.abc.Stream:
        """The server's end of the next connection."""
        return await self._receive.receive()

    async def aclose(self) -> None:
        """Accept no more."""
        self.is_closed = True
        self._receive.close()
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def serving(
    app: Application, listener: MemoryListener | None = None, **options: Any
) -> AsyncIterator[tuple[Server, Callable[[], Awaitable[RawClient]]]]:
    """A server in memory, and how to connect to it; cancelled at the end of the block."""
    where = listener or MemoryListener()

    async def connect() -> RawClient:
        return RawClient(await where.connect())

    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, app, listeners=[where], **options))
        yield server, connect
        nursery.cancel_scope.cancel()
