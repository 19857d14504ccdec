"""The carriers of a conversation: our own listener's bytes, an ASGI server, and trio-websocket; all in memory.

Each serves an application, and the client is the same: `connect`, over a memory stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import trio
import trio.testing
import trio_websocket

from trioktor import (
    Application,
    ClientWebSocketSession,
    CloseReason,
    ConnectionBroken,
    ConnectionClosed,
    Frame,
    WebSockets,
    WebSocketSession,
    connect,
)
from trioktor.carriers.trio_websocket import handler

Dial: TypeAlias = "Callable[..., AbstractAsyncContextManager[ClientWebSocketSession]]"
"""Connect to a path."""
Serve: TypeAlias = "Callable[[trio.abc.HalfCloseableStream], Awaitable[object]]"


@asynccontextmanager
async def _dialling(serve: Serve) -> AsyncIterator[Dial]:
    async with trio.open_nursery() as nursery:

        async def open_stream() -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(serve, theirs)
            await trio.lowlevel.checkpoint()
            return ours

        def dial(path: str = "/", **options: Any) -> AbstractAsyncContextManager[ClientWebSocketSession]:
            return connect(f"ws://localhost{path}", stream=open_stream, **options)

        yield dial
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def over_bytes(app: Application) -> AsyncIterator[Dial]:
    """Our own."""
    async with _dialling(app.handle_stream) as dial:
        yield dial


@asynccontextmanager
async def over_trio_websocket(app: Application) -> AsyncIterator[Dial]:
    """A connection of trio-websocket, as its server makes it."""
    handle = handler(app)

    async def serve(stream: trio.abc.HalfCloseableStream) -> None:
        async with trio.open_nursery() as nursery:
            request = await trio_websocket.wrap_server_stream(nursery, stream)
            try:
                await handle(request)
            finally:
                await trio.aclose_forcefully(stream)
                nursery.cancel_scope.cancel()

    async with _dialling(serve) as dial:
        yield dial


class AsgiServer:
    """What an ASGI server does with one WebSocket, over a session of ours: strict, and as the specification has it."""

    def __init__(self, session: WebSocketSession) -> None:
        self._session = session
        self._is_connected = False
        self._is_over = False
        self.events: list[str] = []

    async def receive(self) -> dict[str, Any]:
        """The next event for the application."""
        if not self._is_connected:
            self._is_connected = True
            await trio.lowlevel.checkpoint()
            return {"type": "websocket.connect"}
        try:
            frame = await self._session.receive()
        except (trio.EndOfChannel, ConnectionBroken):
            self._is_over = True
            reason = self._session.close_received or CloseReason(1006)
            return {"type": "websocket.disconnect", "code": int(reason.code), "reason": reason.message}
        if isinstance(frame, Frame.Binary):
            return {"type": "websocket.receive", "bytes": frame.data, "text": None}
        return {"type": "websocket.receive", "text": frame.text}

    async def send(self, event: Any) -> None:
        """What the application says."""
        kind = event["type"]
        self.events.append(kind)
        await trio.lowlevel.checkpoint()
        if kind == "websocket.accept":
            return
        if self._is_over or "websocket.close" in self.events[:-1]:
            raise OSError("the connection is closed")
        try:
            if kind == "websocket.close":
                self._session.close(event.get("code", 1000), event.get("reason") or "")
            elif event.get("text") is not None:
                await self._session.send(event["text"])
            else:
                await self._session.send(event["bytes"])
        except ConnectionClosed as error:
            raise OSError("the connection is closed") from error


@asynccontextmanager
async def over_asgi(app: Application) -> AsyncIterator[Dial]:
    """An ASGI server."""
    below = Application()
    below.install(WebSockets(max_frame_size=1 << 24, handler_grace=None))

    @below.websocket("/{path...}")
    async def serve(session: WebSocketSession) -> None:
        server = AsgiServer(session)
        scope = {
            "type": "websocket",
            "http_version": "1.1",
            "scheme": session.call.scheme,
            "path": session.call.path,
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "client": ("192.0.2.1", 1234),
            "subprotocols": [],
        }
        await app(scope, server.receive, server.send)
        if "websocket.close" not in server.events and session.close_reason is None:
            session.terminate()  # what is left when an application returns without a word
            await trio.lowlevel.checkpoint()

    async with _dialling(below.handle_stream) as dial:
        yield dial


CARRIERS: dict[str, Callable[[Application], AbstractAsyncContextManager[Dial]]] = {
    "bytes": over_bytes,
    "asgi": over_asgi,
    "trio-websocket": over_trio_websocket,
}
