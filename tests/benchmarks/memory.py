"""What a connection holds that has compressed and inflated one message, by setting.

python -m tests.benchmarks.memory [--connections N]
"""

from __future__ import annotations

import argparse
import functools
import os
import socket
import subprocess
import sys
import zlib
from typing import Any

import trio

from tests.support.helpers import REQUEST, masked

SETTINGS: dict[str, dict[str, Any]] = {
    "no extension": {},
    "level=1, window_bits=12, mem_level=5 (default)": {"level": 1},
    "window_bits=15, mem_level=8": {"window_bits": 15, "mem_level": 8},
    "window_bits=13, mem_level=6": {"window_bits": 13, "mem_level": 6},
    "window_bits=9, mem_level=1": {"window_bits": 9, "mem_level": 1},
    "server_no_context_takeover=True": {"server_no_context_takeover": True},
    "both no_context_takeover": {"server_no_context_takeover": True, "client_no_context_takeover": True},
}


async def serve_echo(settings: dict[str, Any]) -> None:
    """An echo with one of the settings."""
    from trioktor import Application, PerMessageDeflate, WebSockets, WebSocketSession, serve

    app = Application()
    app.install(WebSockets(extensions=[PerMessageDeflate(**settings)] if settings else []))

    @app.websocket("/")
    async def echo(session: WebSocketSession) -> None:
        async for frame in session:
            await session.send(frame)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(functools.partial(serve, app, 0, host="127.0.0.1", backlog=4096))
        print(server.port, flush=True)


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def talk(port: int, deflate: bool) -> socket.socket:
    """Connect, have one message of 1 KiB echoed, and stay."""
    sock = socket.create_connection(("127.0.0.1", port))
    offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n" if deflate else b"\r\n"
    sock.sendall((REQUEST % b"/")[:-2] + offer)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    text = " ".join(map(str, range(300))).encode()[:1024]
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    packed = (packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    sock.sendall(masked(0xC1, packed) if deflate else masked(0x81, text))
    assert sock.recv(1 << 16)
    return sock


def main() -> None:
    """Serve, or measure each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        trio.run(serve_echo, SETTINGS[arguments.serve])
        return
    for name, settings in SETTINGS.items():
        command = [sys.executable, "-m", "tests.benchmarks.memory", "--serve", name]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            clients = [talk(port, bool(settings)) for _ in range(50)]  # what every process needs once
            before = resident(server.pid)
            clients += [talk(port, bool(settings)) for _ in range(arguments.connections)]
            size = (resident(server.pid) - before) / arguments.connections / 1024
            print(f"{name:50} {size:6.1f} KiB a connection")
            for client in clients:
                client.close()
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
