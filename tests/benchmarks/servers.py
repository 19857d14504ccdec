"""Echo servers of several libraries, each as a program of its own: `python -m tests.benchmarks.servers NAME`.

Each prints its port, and then echoes every message on every path. No logging, no Pings; nothing is tuned but what
would forbid the loads: limits of size, and compression, which is on or off as asked for.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import resource
import sys
from typing import Any

import trio

SERVERS: dict[str, tuple[str, ...]] = {
    "trioktor": (),
    "trioktor channels": (),
    "websockets.trio": ("websockets",),
    "trio-websocket": ("trio_websocket",),
    "aiohttp": ("aiohttp",),
    "picows": ("picows",),
    "bare Trio": (),
}
"""Each server, and the modules that it needs."""
COMPRESSING = ("trioktor", "trioktor channels", "websockets.trio", "aiohttp")
"""Those that can compress."""
MOST = 1 << 26
"""Bytes of the longest message."""


def missing(name: str) -> list[str]:
    """The modules that a server needs and that are not installed."""
    return [module for module in SERVERS[name] if importlib.util.find_spec(module) is None]


def raise_file_limit() -> int:
    """Allow this process as many open files as the system lets it have; how many that are."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


async def trioktor(deflate: bool, *, channels: bool = False) -> None:
    """This project: sessions, or their channels."""
    from trioktor import Application, PerMessageDeflate, WebSockets, WebSocketSession, serve

    app = Application()
    app.install(WebSockets(max_frame_size=MOST, extensions=[PerMessageDeflate()] if deflate else []))

    @app.websocket("/{path...}")
    async def echo(session: WebSocketSession) -> None:
        if channels:
            async for frame in session.incoming:
                await session.outgoing.send(frame)
        else:
            async for frame in session:
                await session.send(frame)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(functools.partial(serve, app, 0, host="127.0.0.1", backlog=4096))
        print(server.port, flush=True)


async def websockets_trio(deflate: bool) -> None:
    """`websockets` on Trio."""
    from websockets.trio.server import serve

    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    async with trio.open_nursery() as nursery:
        start = functools.partial(
            serve,
            echo,
            0,
            host="127.0.0.1",
            compression="deflate" if deflate else None,
            max_size=MOST,
            ping_interval=None,
            backlog=4096,
        )
        server: Any = await nursery.start(start)
        print(server.listeners[0].socket.getsockname()[1], flush=True)


async def trio_websocket(_deflate: bool) -> None:
    """trio-websocket."""
    from trio_websocket import ConnectionClosed, serve_websocket

    async def echo(request: Any) -> None:
        connection = await request.accept()
        try:
            while True:
                await connection.send_message(await connection.get_message())
        except ConnectionClosed:
            pass

    async with trio.open_nursery() as nursery:
        start = functools.partial(serve_websocket, echo, "127.0.0.1", 0, None, max_message_size=MOST)
        server: Any = await nursery.start(start)
        print(server.port, flush=True)


async def bare_trio(_deflate: bool) -> None:
    """A task on a Trio stream: no queues, no checks, frames of a client unmasked and sent back."""
    from trioktor.http.handshake import upgrade_response
    from trioktor.protocol.native import mask
    from trioktor.protocol.serializer import head

    async def echo(stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = await stream.receive_some(65536)
            if not chunk:
                return
            data += chunk
        request, _, rest = data.partition(b"\r\n\r\n")
        key = next(
            line for line in request.decode().split("\r\n") if line.lower().startswith("sec-websocket-key:")
        ).split(":")[1]
        await stream.send_all(upgrade_response(key.strip()))
        buffer = bytearray(rest)
        while True:
            answer: list[bytes] = []
            start = 0
            while len(buffer) - start >= 6:
                length, place = buffer[start + 1] & 0x7F, start + 2
                if length >= 126:
                    size = 2 if length == 126 else 8
                    length, place = int.from_bytes(buffer[place : place + size], "big"), place + size
                if len(buffer) < place + 4 + length:
                    break
                payload = bytes(buffer[place + 4 : place + 4 + length])
                answer += [head(buffer[start], length), mask(payload, bytes(buffer[place : place + 4]))]
                start = place + 4 + length
                if answer[-2][0] == 0x88:
                    await stream.send_all(b"".join(answer))
                    return
            del buffer[:start]
            if answer:
                await stream.send_all(b"".join(answer))
            chunk = await stream.receive_some(1 << 18 if len(buffer) > 65536 else 65536)
            if not chunk:
                return
            buffer += chunk

    async def handle(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await echo(stream)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        listeners: Any = await nursery.start(
            functools.partial(trio.serve_tcp, handle, 0, host="127.0.0.1", backlog=4096)
        )
        print(listeners[0].socket.getsockname()[1], flush=True)


async def aiohttp(deflate: bool) -> None:
    """aiohttp, on asyncio's own loop."""
    from aiohttp import WSMsgType, web

    async def echo(request: Any) -> Any:
        socket = web.WebSocketResponse(compress=deflate, max_msg_size=MOST)
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/{path:.*}", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def picows(_deflate: bool) -> None:
    """picows, with a task and a queue for each connection, as a handler would have it."""
    from picows import WSListener, WSMsgType, ws_create_server

    class Echo(WSListener):
        """Queue each message; a task sends it back."""

        def on_ws_connected(self, transport: Any) -> None:
            """Start the task."""
            self.transport = transport
            self.queue: asyncio.Queue[Any] = asyncio.Queue()
            self.task = asyncio.get_running_loop().create_task(self.answer())

        def on_ws_disconnected(self, _transport: Any) -> None:
            """End it."""
            self.task.cancel()

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            """Answer a Close, and queue the rest."""
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            elif frame.msg_type == WSMsgType.PING:
                transport.send_pong(frame.get_payload_as_bytes())
            else:
                self.queue.put_nowait((frame.msg_type, frame.get_payload_as_bytes()))

        async def answer(self) -> None:
            """Send everything back."""
            while True:
                kind, payload = await self.queue.get()
                self.transport.send(kind, payload)

    server = await ws_create_server(lambda request: Echo(), "127.0.0.1", 0, max_frame_size=MOST, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Run the server that is named."""
    name, deflate = sys.argv[1], "--deflate" in sys.argv
    raise_file_limit()
    if name in ("aiohttp", "picows"):
        asyncio.run({"aiohttp": aiohttp, "picows": picows}[name](deflate))
    else:
        on_trio: dict[str, Any] = {
            "trioktor": trioktor,
            "trioktor channels": functools.partial(trioktor, channels=True),
            "websockets.trio": websockets_trio,
            "trio-websocket": trio_websocket,
            "bare Trio": bare_trio,
        }
        trio.run(on_trio[name], deflate)


if __name__ == "__main__":
    main()
