"""Slow peers: a socket that takes next to nothing, and a stream that passes on nothing that is not read."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from tests.support.helpers import REQUEST, Handler, RawClient, application
from trioktor.server.host import Host


@asynccontextmanager
async def on_a_socket(handler: Handler, **settings: Any) -> AsyncIterator[RawClient]:
    """A raw client on a real socket whose buffers hold next to nothing."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours = trio.socket.socket()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    async with trio.open_nursery() as nursery, listener:
        await ours.connect(listener.socket.getsockname())
        nursery.start_soon(application(handler, **settings).handle_stream, await listener.accept())
        client = RawClient(trio.SocketStream(ours))
        await client.upgrade()
        yield client
        await client.aclose()


@asynccontextmanager
async def stuck(handler: Handler, **settings: Any) -> AsyncIterator[tuple[trio.abc.HalfCloseableStream, trio.Nursery]]:
    """A client over a stream that passes on nothing that is not being read, after its handshake."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    host = Host(application(handler, **settings))
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as served:
            served.start_soon(host.handle, theirs)
            async with trio.open_nursery() as writing:
                writing.start_soon(ours.send_all, REQUEST % b"/")
                assert (await ours.receive_some()).startswith(b"HTTP/1.1 101 ")
            yield ours, served
        nursery.cancel_scope.cancel()
