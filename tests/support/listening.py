"""Listening: a server in memory for the autojump clock, names with given addresses, and what is left open."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, final

import pytest
import trio
import trio.testing
import trustme

from tests.support.helpers import RawClient, application, close
from trioktor import Application, Frame, Server, serve

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


@asynccontextmanager
async def running(app: Application, **options: Any) -> AsyncIterator[Server]:
    """A server on a socket, cancelled at the end of the block."""
    async with trio.open_nursery() as nursery:
        where: dict[str, Any] = {} if "path" in options or "listeners" in options else {"port": 0, "host": "127.0.0.1"}
        yield await nursery.start(partial(serve, app, **{**where, **options}))
        nursery.cancel_scope.cancel()


def tls(name: str = "localhost") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and one of a client that trusts it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@final
class Addresses(trio.abc.HostnameResolver):
    """Every name has these addresses."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002  # its name there
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """All of them, in order."""
        assert isinstance(port, int)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self._addresses
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        """Not asked for."""
        raise NotImplementedError


def has_ipv6() -> bool:
    """Whether there is an IPv6 loopback address."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """What is open afterwards was open before."""

    def descriptors() -> dict[str, str]:
        found = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                found[name] = os.readlink(f"/proc/self/fd/{name}")
            except FileNotFoundError:
                pass  # the listing's own
        return found

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("this system does not list open descriptors")
    before = descriptors()
    yield
    assert descriptors() == before


@asynccontextmanager
async def talking(handler: Any, **settings: Any) -> AsyncIterator[tuple[RawClient, Server]]:
    """A client in conversation with a handler, on a real socket."""
    async with trio.open_nursery() as nursery:
        app = application(handler, **settings)
        server: Server = await nursery.start(partial(serve, app, 0, host="127.0.0.1"))
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            client = RawClient(stream)
            await client.upgrade()
            await trio.testing.wait_all_tasks_blocked()
            yield client, server
        nursery.cancel_scope.cancel()


class SecureClient(RawClient):
    """A raw client behind TLS."""

    def __init__(self, stream: trio.SSLStream[Any]) -> None:
        super().__init__(stream)  # type: ignore[arg-type]


async def assert_echoes(client: RawClient, path: bytes = b"/") -> None:
    """A whole conversation with a handler that sends back what comes."""
    await client.upgrade(path)
    await client.send(Frame.Text("hello"), close(1000))
    assert await client.receive_rest() == [Frame.Text("hello"), close(1000)]
    await client.aclose()


async def get(stream: Any, path: bytes = b"/page") -> bytes:
    """Ask for a page; the whole answer."""
    await stream.send_all(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
    answer = b""
    while data := await stream.receive_some():
        answer += data
    return answer
