"""Transports over a plain socket, a memory stream and TLS, each with the stream at its other end."""

from __future__ import annotations

import socket
import struct
from typing import Any

import trio
import trio.testing

from tests.support.listening import tls
from trioktor.engine.streams import open_transport
from trioktor.engine.transport import Transport


async def pair(kind: str) -> tuple[Transport, Any]:
    """A transport, and the stream at its other end."""
    if kind == "socket":
        first, second = trio.socket.socketpair()
        return open_transport(trio.SocketStream(first)), trio.SocketStream(second)
    ours, theirs = trio.testing.memory_stream_pair()
    if kind == "memory":
        return open_transport(ours), theirs
    server, client = tls()
    secure = trio.SSLStream(ours, server, server_side=True, https_compatible=True)
    peer = trio.SSLStream(theirs, client, server_hostname="localhost", https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure.do_handshake)
        nursery.start_soon(peer.do_handshake)
    return open_transport(secure), peer


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """The accepted and the connecting end of a TCP connection."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        ours = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return await listener.accept(), ours


async def read(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """So many bytes of a stream."""
    data = b""
    while len(data) < count:
        chunk = await stream.receive_some()
        assert chunk
        data += chunk
    return data


async def finish(transport: Transport, peer: trio.abc.AsyncResource) -> None:
    """Close both ends."""
    await transport.aclose()
    await trio.aclose_forcefully(peer)


async def reset(stream: trio.SocketStream) -> None:
    """Close an end of a TCP connection so that the other end is reset."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()
