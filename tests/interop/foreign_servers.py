"""Foreign servers on asyncio, each in a process of its own: `python -m tests.interop.foreign_servers NAME`.

At /echo each sends back what comes, at /close it says goodbye. It prints its port. What may not be installed is
imported by its name when it is asked for.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, Final

HERE: Final = "127.0.0.1"
PROTOCOL: Final = "echo.v1"
"""The subprotocol that every server here chooses where it is offered."""

GOODBYE: Final = (4001, "that is all")


def websockets(sock: socket.socket) -> None:
    """`websockets`; at / there is a page, which a proxy asks for."""
    server: Any = import_module("websockets.asyncio.server")

    async def talk(websocket: Any) -> None:
        if websocket.request.path == "/close":
            await websocket.close(*GOODBYE)
        async for message in websocket:
            await websocket.send(message)

    def page(websocket: Any, request: Any) -> Any:
        return websocket.respond(200, "in good health\n") if request.path == "/" else None

    async def main() -> None:
        async with server.serve(talk, sock=sock, subprotocols=[PROTOCOL], process_request=page) as running:
            await running.serve_forever()

    asyncio.run(main())


def aiohttp(sock: socket.socket) -> None:
    """aiohttp."""
    web: Any = import_module("aiohttp.web")

    async def talk(request: Any) -> Any:
        websocket = web.WebSocketResponse(protocols=[PROTOCOL])
        await websocket.prepare(request)
        if request.path == "/close":
            await websocket.close(code=GOODBYE[0], message=GOODBYE[1].encode())
        async for message in websocket:
            await (websocket.send_str if isinstance(message.data, str) else websocket.send_bytes)(message.data)
        return websocket

    app = web.Application()
    app.add_routes([web.get("/echo", talk), web.get("/close", talk)])
    web.run_app(app, sock=sock, print=None)


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """The application for servers that speak ASGI."""
    if scope["type"] == "lifespan":
        for _ in range(2):  # startup, shutdown
            event = await receive()
            await send({"type": f"{event['type']}.complete"})
        return
    await receive()  # that somebody connects
    await send({"type": "websocket.accept", "subprotocol": PROTOCOL if PROTOCOL in scope["subprotocols"] else None})
    if scope["path"] == "/close":
        await send({"type": "websocket.close", "code": GOODBYE[0], "reason": GOODBYE[1]})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


def uvicorn(sock: socket.socket, implementation: str) -> None:
    """uvicorn, with one of the protocols that it has for WebSockets."""
    library: Any = import_module("uvicorn")
    library.Server(library.Config(asgi, ws=implementation)).run(sockets=[sock])


def hypercorn(sock: socket.socket) -> None:
    """Hypercorn on asyncio."""
    serve: Any = import_module("hypercorn.asyncio").serve
    config: Any = import_module("hypercorn.config").Config()
    config.bind = [f"fd://{sock.fileno()}"]
    asyncio.run(serve(asgi, config))


def main(name: str, *arguments: str) -> None:
    """Listen, say where, and serve."""
    sock = socket.create_server((HERE, 0))
    print(sock.getsockname()[1], flush=True)
    serve: dict[str, Callable[..., None]] = {
        "websockets": websockets,
        "aiohttp": aiohttp,
        "uvicorn": uvicorn,
        "hypercorn": hypercorn,
    }
    serve[name](sock, *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
