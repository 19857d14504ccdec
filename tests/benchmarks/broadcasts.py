"""What a broadcast costs, beside `websockets.trio.broadcast`.

    python -m tests.benchmarks.broadcasts [--sessions 10,100,1000,5000] [--rounds N]

For each number of sessions a server process of either library sends rounds of a text of 1 KiB to all of them,
with and without permessage-deflate, and reports the CPU time that it took, until all was with the system.
The other process reads everything. CPU time of the server a session and message, in microseconds.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import selectors
import socket
import subprocess
import sys
import time
from typing import Any

import trio

from tests.support.helpers import REQUEST

SIZE = 1024
_CLOSE = 0x88  # the first byte of a Close


def text(number: int) -> str:
    """A message that compresses as JSON does."""
    return json.dumps([{"id": number * 31 + n, "name": f"name {n}", "on": n % 3 == 0} for n in range(40)])[:SIZE]


async def measure(broadcast: Any, settle: Any, rounds: int) -> str:
    """Rounds of a broadcast; the CPU time of all of them."""
    start = time.process_time()
    for number in range(rounds):
        await broadcast(text(number))
        await settle()
    return str(time.process_time() - start)


async def serve_trioktor(rounds: int, deflate: bool) -> None:
    """The server of this project."""
    from trioktor import Application, PerMessageDeflate, Room, WebSockets, WebSocketSession, serve

    app = Application()
    app.install(WebSockets(extensions=[PerMessageDeflate()] if deflate else []))
    room = Room()

    @app.websocket("/")
    async def listen(session: WebSocketSession) -> None:
        with room.join(session):
            await session.wait_closed()

    @app.websocket("/go")
    async def go(session: WebSocketSession) -> None:
        async def settle() -> None:
            for member in room:
                await member.flush()

        await session.send(await measure(room.broadcast, settle, rounds))

    async with trio.open_nursery() as nursery:
        server = await nursery.start(functools.partial(serve, app, 0, host="127.0.0.1", backlog=4096))
        print(server.port, flush=True)


async def serve_websockets(rounds: int, deflate: bool) -> None:
    """The server of the other."""
    from websockets.trio.server import broadcast, serve

    members: set[Any] = set()

    async def handler(connection: Any) -> None:
        if connection.request.path == "/go":

            async def settle() -> None:
                await trio.lowlevel.checkpoint()  # its broadcast waits until all is with the system

            await connection.send(await measure(functools.partial(broadcast, members), settle, rounds))
            return
        members.add(connection)
        await connection.wait_closed()

    compression: Any = "deflate" if deflate else None
    async with trio.open_nursery() as nursery:
        start = functools.partial(serve, handler, 0, host="127.0.0.1", compression=compression, ping_interval=None)
        server: Any = await nursery.start(start)
        print(server.listeners[0].socket.getsockname()[1], flush=True)


def connect(port: int, path: bytes, deflate: bool) -> socket.socket:
    """A client that has shaken hands."""
    sock = socket.create_connection(("127.0.0.1", port))
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n" if deflate else b"\r\n"
    sock.sendall((REQUEST % path)[:-2] + offer)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    return sock


def run(library: str, sessions: int, rounds: int, deflate: bool) -> float:
    """One server, so many listeners: microseconds of CPU a session and round."""
    command = [sys.executable, "-m", "tests.benchmarks.broadcasts", "--serve", library, "--rounds", str(rounds)]
    server = subprocess.Popen(command + ["--deflate"] * deflate, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = int(server.stdout.readline())
    try:
        with selectors.DefaultSelector() as selector:
            for _ in range(sessions):
                selector.register(connect(port, b"/", deflate), selectors.EVENT_READ)
            go = connect(port, b"/go", False)
            selector.register(go, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    assert isinstance(key.fileobj, socket.socket)
                    data = key.fileobj.recv(1 << 16)
                    if key.fileobj is go:
                        for other in list(selector.get_map().values()):
                            other.fileobj.close()  # type: ignore[union-attr]
                        return float(data[2:].partition(b"\x88")[0]) / sessions / rounds * 1e6
                    if not data or (key.data is None and data[0] == _CLOSE):
                        raise RuntimeError(f"{library} hung up on a listener: its figure would mean nothing")
                    if key.data is None:
                        selector.modify(key.fileobj, selectors.EVENT_READ, "has heard something")
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Serve, or measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", default="10,100,1000,5000")
    parser.add_argument("--rounds", type=int, default=0, help="0: about 20,000 messages")
    parser.add_argument("--serve", choices=["trioktor", "websockets"], help=argparse.SUPPRESS)
    parser.add_argument("--deflate", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if arguments.serve:
        serve = serve_trioktor if arguments.serve == "trioktor" else serve_websockets
        trio.run(serve, arguments.rounds, arguments.deflate)
        return
    print(f"{'sessions':>8} {'deflate':>8} {'trioktor':>10} {'websockets':>11} {'ratio':>6}")
    for sessions in map(int, arguments.sessions.split(",")):
        rounds = arguments.rounds or max(4, 20_000 // sessions)
        for deflate in (False, True):
            ours, theirs = (run(library, sessions, rounds, deflate) for library in ("trioktor", "websockets"))
            print(f"{sessions:8} {'yes' if deflate else 'no':>8} {ours:8.1f} us {theirs:8.1f} us {ours / theirs:6.2f}")


if __name__ == "__main__":
    main()
