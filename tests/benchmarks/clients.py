"""What a client costs: each in a process of its own, all against the same echo server in C (picows).

A client measures itself: the CPU time of its process, of the user and of the system. Compression is off.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeAlias

import trio

CLIENTS: Final[dict[str, tuple[str, ...]]] = {
    "trioktor": (),
    "websockets.trio": ("websockets",),
    "trio-websocket": ("trio_websocket",),
}
"""Each client, and the modules that it needs."""
LOADS: Final[dict[str, tuple[str, int]]] = {
    "client rtt": ("a client: 1 message of 32 B in flight", 1),
    "client pipelined": ("a client: 64 messages of 32 B sent, then 64 echoes received", 64),
    "client connect": ("a client: open, one echo, closing handshake", 0),
}
"""What each load is, and how many messages are in flight; 0 is a new connection for each."""
SERVER: Final = "picows"
_TEXT: Final = "a message of thirty-two letters."

Talk: TypeAlias = "tuple[Callable[[str], Awaitable[object]], Callable[[], Awaitable[str]]]"
"""How to send a text, and how to receive one."""


def missing(name: str) -> list[str]:
    """The modules that a client, and the server, need and that are not installed."""
    return [module for module in (*CLIENTS[name], SERVER) if importlib.util.find_spec(module) is None]


@asynccontextmanager
async def _trioktor(url: str) -> Any:
    from trioktor import connect

    async with connect(url) as session:
        yield session.send, session.receive_text


@asynccontextmanager
async def _websockets(url: str) -> Any:
    from websockets.trio.client import connect

    async with connect(url, compression=None, ping_interval=None) as connection:
        yield connection.send, connection.recv


@asynccontextmanager
async def _trio_websocket(url: str) -> Any:
    from trio_websocket import open_websocket_url

    async with open_websocket_url(url) as connection:
        yield connection.send_message, connection.get_message


OPEN: Final[dict[str, Callable[[str], AbstractAsyncContextManager[Talk]]]] = {
    "trioktor": _trioktor,
    "websockets.trio": _websockets,
    "trio-websocket": _trio_websocket,
}


async def _talk(name: str, url: str, window: int, seconds: float) -> int:
    """Exchange messages for a time; how many."""
    count = 0
    end = time.perf_counter() + seconds
    async with OPEN[name](url) as (send, receive):
        while time.perf_counter() < end:
            for _ in range(window):
                await send(_TEXT)
            for _ in range(window):
                assert await receive() == _TEXT
            count += window
    return count


async def _connect(name: str, url: str, seconds: float) -> int:
    """Connect, one echo, close, over and over; how often."""
    count = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        async with OPEN[name](url) as (send, receive):
            await send(_TEXT)
            assert await receive() == _TEXT
        count += 1
    return count


async def run(name: str, load: str, port: int, seconds: float) -> dict[str, float]:
    """One run in this process: the CPU time of a message, or of a connection, and how many there were a second."""
    url, window = f"ws://127.0.0.1:{port}/", LOADS[load][1]

    async def once(seconds: float) -> int:
        return await (_talk(name, url, window, seconds) if window else _connect(name, url, seconds))

    await once(seconds / 5)
    cpu, start = time.process_time(), time.perf_counter()
    count = await once(seconds)
    return {
        "cpu_us": (time.process_time() - cpu) / count * 1e6,
        "per_second": count / (time.perf_counter() - start),
    }


def measure(load: str, clients: Sequence[str], port: int, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """The medians of a load for each client, each run once in each round."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in clients}
    for _ in range(rounds):
        for name in clients:
            command = [sys.executable, "-m", "tests.benchmarks.clients", name, load, str(port), str(seconds)]
            found[name].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    return {name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in found.items()}


def main() -> None:
    """Run one client, for `measure`."""
    name, load, port, seconds = sys.argv[1:]
    print(json.dumps(trio.run(run, name, load, int(port), float(seconds))))


if __name__ == "__main__":
    main()
