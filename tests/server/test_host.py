"""`Host`: one connection from its stream to its end, and that nothing else feels it."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.helpers import RawClient, application, close, records_above_info
from tests.support.listening import (
    MemoryListener,
    SecureClient,
    assert_echoes,
    running,
    serving,
    tls,
)
from trioktor import WebSocketSession
from trioktor.engine import streams

Clock = trio.testing.MockClock


async def echo(session: WebSocketSession) -> None:
    """Send back what comes."""
    async for frame in session:
        await session.send(frame)


async def endless(session: WebSocketSession) -> None:
    """Take no notice of anything but cancellation."""
    await trio.sleep_forever()


# any stream


async def test_what_handlers_raise_never_leaves_serve(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """An exception, a group of them, the end of somebody else's conversation: all are logged, the server goes on."""
    errors: list[Exception] = [ValueError("a"), ExceptionGroup("b", [ValueError("c"), OSError("d")]), OSError("e")]

    async def handler(session: WebSocketSession) -> None:
        raise errors[int(session.call.parameters["n"])]

    async with serving(application(handler)) as (server, connect):
        for number in range(len(errors)):
            client = await connect()
            await client.upgrade(b"/?n=%d" % number)
            assert await client.receive() == close(1011)
            await client.aclose()
            await trio.testing.wait_all_tasks_blocked()
        assert server.sessions == ()
    assert len(records_above_info(caplog)) == len(errors)


@pytest.mark.parametrize("kind", ["memory", "lockstep", "socket"])
async def test_handle_stream_is_one_connection_and_closes_its_stream(kind: str) -> None:
    """Any `trio.abc.Stream`: its own end is closed when it returns."""
    ours: Any
    theirs: Any
    if kind == "socket":
        first, second = trio.socket.socketpair()
        ours, theirs = trio.SocketStream(first), trio.SocketStream(second)
    else:
        ours, theirs = getattr(trio.testing, f"{kind}_stream_pair")()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application(echo).handle_stream, theirs)
        await assert_echoes(RawClient(ours))
    with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError)):
        await theirs.send_all(b"x")


async def test_handle_stream_speaks_tls_where_the_stream_does(autojump_clock: Clock) -> None:
    """The handshake of an `SSLStream` is done there."""
    server, client = tls()
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            application(echo).handle_stream,
            trio.SSLStream(theirs, server, server_side=True, https_compatible=True),
        )
        stream = trio.SSLStream(ours, client, server_hostname="localhost", https_compatible=True)
        await assert_echoes(SecureClient(stream))


async def test_handle_stream_cancelled_says_1001_within_a_second(autojump_clock: Clock) -> None:
    """As one connection of a cancelled `serve`."""
    ours, theirs = trio.testing.memory_stream_pair()
    client = RawClient(ours)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(application(endless).handle_stream, theirs)
            await client.upgrade()
            began = trio.current_time()
            scope.cancel()
    assert trio.current_time() - began <= 1
    assert (await client.receive_rest())[0] == close(1001)
    await client.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract names")
@pytest.mark.parametrize("name", [b"\0", b"\0abstract", b"\0\xff\xfe"])
async def test_no_name_of_a_client_ends_the_server(name: bytes, tmp_path: Path) -> None:
    """One in the abstract namespace comes as bytes."""
    path = tmp_path / "server"
    async with running(application(echo), path=path):
        for bound in (name, None):
            client = trio.socket.socket(socket.AF_UNIX)
            if bound is not None:
                await client.bind(bound)
            await client.connect(str(path))
            await assert_echoes(RawClient(trio.SocketStream(client)))


class _Unreadable(trio.abc.Stream):
    """A stream that fails as soon as it is looked at."""

    closed = False

    @property
    def transport_stream(self) -> object:
        raise ZeroDivisionError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise ZeroDivisionError

    async def wait_send_all_might_not_block(self) -> None:
        raise ZeroDivisionError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise ZeroDivisionError

    async def aclose(self) -> None:
        self.closed = True


async def test_whatever_goes_wrong_behind_accept_ends_that_connection_alone(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, its stream is closed, and the next one is served."""
    real = streams.open_transport

    def open_transport(stream: trio.abc.Stream) -> Any:
        if isinstance(stream, _Unreadable):
            raise ZeroDivisionError
        return real(stream)

    monkeypatch.setattr("trioktor.server.host.open_transport", open_transport)
    listener = MemoryListener()
    bad = _Unreadable()
    async with serving(application(echo), listener) as (_, connect):
        await listener._send.send(bad)
        await assert_echoes(await connect())
    assert bad.closed
    assert len(records_above_info(caplog)) == 1
