"""The fixtures `websocket_host` and `websocket_server`: what a test gets, and what is left of it afterwards."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import RawClient, assert_all_over
from trioktor import Application, ConnectionClosed, Server, WebSockets, WebSocketSession
from trioktor.testing import ApplicationHost


@pytest.fixture
def sessions() -> list[WebSocketSession]:
    """The server's sessions, of all the test."""
    return []


@pytest.fixture
def returned() -> list[WebSocketSession]:
    """Those whose handler came to its end by itself."""
    return []


@pytest.fixture
def app(sessions: list[WebSocketSession], returned: list[WebSocketSession]) -> Application:
    """The application under test: an echo."""
    application = Application()
    application.install(WebSockets(close_timeout=1))

    @application.websocket("/echo")
    async def echo(session: WebSocketSession) -> None:
        sessions.append(session)
        with suppress(ConnectionClosed):
            async for frame in session:
                await session.send(frame)
        returned.append(session)

    return application


async def test_a_host_in_memory(websocket_host: ApplicationHost) -> None:
    """The fixture serves the fixture `app`."""
    async with websocket_host.websocket("/echo") as (incoming, outgoing):
        await outgoing.send("hello")
        assert (await incoming.receive()).text == "hello"


async def test_a_server_on_a_real_port(websocket_server: Server) -> None:
    """On the loopback, at a free port."""
    stream = await trio.open_tcp_stream("127.0.0.1", websocket_server.port)
    await stream.send_all(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 404 ")
    await stream.aclose()


@pytest.fixture
def left_open(
    sessions: list[WebSocketSession], returned: list[WebSocketSession], app: Application
) -> Iterator[list[socket.socket]]:
    """Clients that a test leaves in conversation with its server.

    To each 1001 is said, no handler is cancelled, and nothing is left of it.
    """
    clients: list[socket.socket] = []
    yield clients
    for client in clients:
        assert client.recv(100) == bytes.fromhex("880203e9")
        client.close()
    assert len(sessions) == len(returned) == len(clients)
    for session in sessions:
        assert_all_over(session)


async def test_the_server_says_goodbye_when_the_test_is_over(
    left_open: list[socket.socket], websocket_server: Server, autojump_clock: MockClock
) -> None:
    """To whoever is still there; the fixture above looks at it."""
    for _ in range(2):
        client = socket.create_connection(("127.0.0.1", websocket_server.port))
        left_open.append(client)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
        assert (await RawClient(stream).upgrade(b"/echo")).startswith(b"HTTP/1.1 101 ")
    await trio.testing.wait_all_tasks_blocked()
    assert len(websocket_server.sessions) == 2


async def test_both_serve_the_same_application(
    websocket_host: ApplicationHost, websocket_server: Server, app: Application
) -> None:
    """It is served by then, and can be changed no more; each has sessions of its own."""
    with pytest.raises(RuntimeError, match="has been served"):
        app.install(WebSockets())
    async with websocket_host.websocket("/echo"):
        assert (len(websocket_host.sessions), len(websocket_server.sessions)) == (1, 0)
