"""What a server shows of itself, and sockets that a supervisor hands over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import trio
import trio.testing

from tests.support.helpers import REQUEST, application, client_bytes, close, connected
from trioktor import CloseReason, Frame, WebSocketSession
from trioktor.testing import open_test_host

Clock = trio.testing.MockClock


async def test_the_registry_is_live(autojump_clock: Clock) -> None:
    """Who runs is in it, and nobody else."""

    async def handler(session: WebSocketSession) -> None:
        await session.wait_closed()

    counts = []
    async with open_test_host(application(handler)) as host:
        async with host.websocket("/"):
            async with host.websocket("/"):
                await trio.testing.wait_all_tasks_blocked()
                counts.append(len(host.sessions))
            counts.append(len(host.sessions))
        counts.append(len(host.sessions))
    assert [2, 1, 0] == counts


LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.set_inheritable(3, True)
os.execv(sys.executable, [sys.executable, "-m", "trioktor", "echo", "--listen-fds"])
"""


async def test_a_supervisors_socket_is_served() -> None:
    """A child process with the socket as file descriptor 3; SIGTERM ends it gracefully."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        child = subprocess.Popen(  # noqa: ASYNC220  # it has to have the socket before this one closes
            [sys.executable, "-c", LAUNCHER, str(listening.fileno())],
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        assert child.stdout is not None
        line = await trio.to_thread.run_sync(child.stdout.readline)
        assert line.startswith(f"listening on ws://127.0.0.1:{address[1]}, at most ")
        line = await trio.to_thread.run_sync(child.stdout.readline)
        assert line == f"a page to try it: http://127.0.0.1:{address[1]}/\n"
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(REQUEST % b"/" + client_bytes(Frame.Text("hello")))
            data = b""
            while not data.endswith(b"\x81\x05hello"):
                data += await stream.receive_some()
            child.terminate()
            while chunk := await stream.receive_some():
                data += chunk
                await stream.send_all(client_bytes(close(1001)))
        assert data.endswith(b"\x88\x02\x03\xe9")
        assert 0 == await trio.to_thread.run_sync(child.wait)
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


async def test_a_graceful_stop_lets_out_what_is_queued(autojump_clock: Clock) -> None:
    """W-18: the drain, and then 1001."""

    async def handler(session: WebSocketSession) -> None:
        for number in range(50):
            await session.send(str(number))
        session.close(CloseReason(1001))
        await session.wait_closed()

    async with connected(handler) as (client, _):
        frames = [await client.receive() for _ in range(51)]
        assert frames == [*(Frame.Text(str(number)) for number in range(50)), close(1001)]
