"""The proxies of the recipes in front of a server, where they are installed: the very files that the docs name."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio

from tests.support.helpers import RawClient, close
from trioktor import Application, Call, Frame, Server, WebSockets, WebSocketSession as Session, serve

FILES: Final = Path(__file__).parents[2] / "examples" / "proxies"
HERE: Final = "127.0.0.1"
PATIENCE: Final = 20
"""Seconds for a proxy to start."""


def command(name: str, folder: Path, port: int, behind: int) -> list[str]:
    """The command that runs a proxy with its file, at a port, before another; skips the test if it is not there."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"there is no {name} here")
    [file] = FILES.glob(f"{name}.*")
    text = file.read_text().replace("8080", str(behind))
    for there, here in (("listen 80;", f"listen {HERE}:{port};"), ("bind :80", f"bind {HERE}:{port}")):
        text = text.replace(there, here)
    config = folder / file.name
    config.write_text(text)
    if name == "haproxy":
        return [found, "-db", "-f", os.fspath(config)]
    settings = f"daemon off; pid {folder}/pid; error_log {folder}/errors;"
    return [found, "-p", os.fspath(folder), "-e", f"{folder}/errors", "-c", os.fspath(config), "-g", settings]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind((HERE, 0))
        return int(sock.getsockname()[1])


def application(checked: trio.Event) -> Application:
    """It tells each client what it knows of it."""
    app = Application()
    app.install(WebSockets())
    app.trust_proxies(HERE)

    @app.websocket("/")
    async def tell(session: Session) -> None:
        call = session.call
        await session.send(json.dumps([call.client, call.scheme, call.headers["host"]]))
        async for frame in session:
            await session.send(frame)

    @app.get("/")
    async def page(call: Call) -> str:
        checked.set()
        return "in good health\n"

    return app


@asynccontextmanager
async def proxied(name: str, folder: Path) -> AsyncIterator[tuple[int, trio.Event]]:
    """A proxy before a server; its port, and when it has looked at the server's health."""
    port, checked = free_port(), trio.Event()
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, application(checked), 0, host=HERE))
        start = command(name, folder, port, server.port)
        nursery.start_soon(partial(trio.run_process, start, capture_stdout=True, capture_stderr=True, check=False))
        yield port, checked
        nursery.cancel_scope.cancel()


async def connect(port: int, address: str) -> trio.SocketStream:
    """Connect to a proxy that may not listen yet."""
    while True:
        try:
            return await trio.open_tcp_stream(HERE, port, local_address=address)
        except OSError:
            await trio.sleep(0.05)


async def status(port: int, request: bytes) -> int:
    """What a request is answered with."""
    async with await connect(port, HERE) as stream:
        await stream.send_all(request)
        return int(bytes(await stream.receive_some()).split()[1])


def upgrade(host: str, *lines: str) -> bytes:
    """A browser's request."""
    head = ["GET / HTTP/1.1", f"Host: {host}", f"Origin: http://{host}", "Upgrade: websocket", "Connection: Upgrade"]
    head += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n"


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
async def test_a_conversation_through_a_proxy(name: str, tmp_path: Path) -> None:
    """The client is known, and nobody that it makes up; pages of the proxy's own address may connect."""
    with trio.fail_after(PATIENCE):
        async with proxied(name, tmp_path) as (port, checked):
            for address, line in (("127.0.0.2", "X-Forwarded-For: 192.0.2.66"), ("127.0.0.3", "X: y")):
                client = RawClient(await connect(port, address))
                await client.send_bytes(upgrade(f"{HERE}:{port}", line, "X-Forwarded-Proto: https"))
                assert (await client.read_head()).startswith(b"HTTP/1.1 101 ")
                told = await client.receive()
                assert told is not None
                assert json.loads(told.text) == [[address, 0], "ws", f"{HERE}:{port}"]
                await client.send(Frame.Text("hello"), Frame.Binary(bytes(100_000)))
                assert [await client.receive(), await client.receive()] == [
                    Frame.Text("hello"),
                    Frame.Binary(bytes(100_000)),
                ]
                await client.send(close(4001, "so long"))
                assert await client.receive() == close(4001)
                await client.aclose()
            evil = upgrade(f"{HERE}:{port}").replace(b"Origin: http://", b"Origin: http://evil.")
            assert await status(port, evil) == 403
            if name == "haproxy":
                await checked.wait()
                await trio.sleep(0.1)
            assert await status(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") == 200
