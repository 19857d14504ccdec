"""What a server shows of itself, and sockets that a supervisor hands over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import attrs
import pytest
import trio
import trio.testing

from tests.support.helpers import REQUEST, application, client_bytes, close, connected
from trioktor import CloseReason, Frame, SessionStatistics, WebSocketSession
from trioktor.testing import open_test_host

Clock = trio.testing.MockClock


async def test_statistics_are_exact_and_frozen(autojump_clock: Clock) -> None:
    """W-28: frames and bytes as on the wire, ages and latencies in seconds."""
    seen: list[SessionStatistics] = []

    async def handler(session: WebSocketSession) -> None:
        async for frame in session:
            await session.send(frame)
        await session.flush()
        await trio.sleep(10)
        seen.append(session.statistics())

    async with connected(handler, handler_grace=None) as (client, _):
        await client.send(Frame.Text("hello"), Frame.Binary(bytes(200)))
        await client.receive()
        await client.send(close(1000))
        await client.receive_rest()
    (statistics,) = seen
    sent = client_bytes(Frame.Text("hello"), Frame.Binary(bytes(200)), close(1000))
    assert (statistics.frames_received, statistics.bytes_received) == (3, len(sent))
    assert (statistics.frames_sent, statistics.bytes_sent) == (3, len(sent) - 3 * 4)
    assert (statistics.incoming, statistics.outgoing, statistics.latency) == (0, 0, None)
    assert statistics.incoming_peak >= 1
    assert 10 == pytest.approx(statistics.age, abs=0.1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        statistics.age = 0  # type: ignore[misc]


async def test_queues_show_their_peaks(autojump_clock: Clock) -> None:
    """The most that waited, each way."""
    seen: list[SessionStatistics] = []

    async def handler(session: WebSocketSession) -> None:
        await trio.sleep(1)
        for number in range(30):
            session.send_nowait(str(number))
        await session.flush()
        seen.append(session.statistics())

    async with connected(handler) as (client, _):
        await client.send(*[Frame.Text("x")] * 20)
        assert Frame.Text("0") == await client.receive()
    assert (20, 20) == (seen[0].incoming, seen[0].incoming_peak)
    assert 25 <= seen[0].outgoing_peak <= 30


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
