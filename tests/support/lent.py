"""Sockets that are lent: an echo, clients that talk to it, and the leases of a server."""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio
import trio.testing

from tests.support.helpers import RawClient
from trioktor import Frame, Server, WebSocketSession
from trioktor.engine.lending import Lending


async def echo(session: WebSocketSession) -> None:
    """Say everything again."""
    async for frame in session:
        await session.send(frame)


def lending_of(server: Server) -> Lending:
    """The leases of a server."""
    assert server._host.poller is not None
    return server._host.poller.lending


async def ask(client: RawClient, text: str) -> None:
    """Send one message, and wait for its echo."""
    await client.send(Frame.Text(text))
    assert Frame.Text(text) == await client.receive()


async def connected(server: Server, stack: AsyncExitStack, path: bytes = b"/") -> RawClient:
    """One more client, in conversation."""
    client = RawClient(await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", server.port)))
    await client.upgrade(path)
    await trio.testing.wait_all_tasks_blocked()
    return client
