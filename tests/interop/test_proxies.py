"""The proxies of the recipes in front of a server, where they are installed: the very files that the docs name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from tests.interop.programs import HERE, PATIENCE, through
from tests.support.helpers import RawClient, close
from trioktor import Application, Call, Frame, Server, WebSockets, WebSocketSession as Session, serve


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
async def proxied(found: str, folder: Path) -> AsyncIterator[tuple[int, trio.Event]]:
    """A proxy before a server; its port, and when it has looked at the server's health."""
    checked = trio.Event()
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, application(checked), 0, host=HERE))
        async with through(found, folder, server.port) as port:
            yield port, checked
        nursery.cancel_scope.cancel()


async def status(port: int, request: bytes) -> int:
    """What a request is answered with."""
    async with await trio.open_tcp_stream(HERE, port) as stream:
        await stream.send_all(request)
        return int(bytes(await stream.receive_some()).split()[1])


def upgrade(host: str, *lines: str) -> bytes:
    """A browser's request."""
    head = ["GET / HTTP/1.1", f"Host: {host}", f"Origin: http://{host}", "Upgrade: websocket", "Connection: Upgrade"]
    head += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n"


async def test_a_conversation_through_a_proxy(proxy: str, tmp_path: Path) -> None:
    """The client is known, and nobody that it makes up; pages of the proxy's own address may connect."""
    with trio.fail_after(PATIENCE):
        async with proxied(proxy, tmp_path) as (port, checked):
            for address, line in (("127.0.0.2", "X-Forwarded-For: 192.0.2.66"), ("127.0.0.3", "X: y")):
                client = RawClient(await trio.open_tcp_stream(HERE, port, local_address=address))
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
            if Path(proxy).name == "haproxy":
                await checked.wait()
                await trio.sleep(0.1)
            assert await status(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") == 200
