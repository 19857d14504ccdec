"""A host in memory with as many clients as a test wants: messages, frames, or bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import final

import trio

from ..client.session import ClientRawWebSocketSession, ClientWebSocketSession
from ..client.upgrade import shake_hands
from ..converters import ContentConverter
from ..engine.streams import StreamTransport
from ..http.asking import Handshake
from ..http.responses import HeaderPairs, header_pairs
from ..server.application import Application
from ..session.base import BaseSession
from .conversation import Conversation, Served, connect, converse
from .cutting import CutStream
from .handshake import get, opening


@final
class ApplicationHost:
    """An application that is served in memory; made by `open_test_host`.

    What a WebSocket handler raises comes out of the block, or the call, of the client that it served, if it is a
    failure: not the end of its conversation, nor what it did not expect of its peer. A GET handler's is a 500.
    """

    def __init__(self, served: Served) -> None:
        self._served = served

    @property
    def sessions(self) -> tuple[BaseSession, ...]:
        """The server's sessions that are running now."""
        return self._served.sessions

    def websocket(
        self,
        uri: str,
        *,
        headers: HeaderPairs = (),
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        cut_after: int | None = None,
        content_converter: ContentConverter | None = None,
    ) -> AbstractAsyncContextManager[Conversation[ClientWebSocketSession]]:
        """Hold a conversation in messages: ``async with host.websocket("/p") as (incoming, outgoing)``.

        `cut_after` cuts the connection after so many bytes of what the client says behind its handshake.
        As `handle_websocket_conversation` otherwise.
        """
        options = opening(uri, headers=headers, subprotocols=subprotocols, origin=origin, converter=content_converter)
        return converse(self._served, ClientWebSocketSession, options, cut_after=cut_after)

    def websocket_raw(
        self,
        uri: str,
        *,
        headers: HeaderPairs = (),
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        cut_after: int | None = None,
    ) -> AbstractAsyncContextManager[Conversation[ClientRawWebSocketSession]]:
        """Hold a conversation in frames: nothing is answered by itself, the end included."""
        options = opening(uri, headers=headers, subprotocols=subprotocols, origin=origin)
        return converse(self._served, ClientRawWebSocketSession, options, cut_after=cut_after)

    async def websocket_bytes(
        self, uri: str, data: bytes, *, headers: HeaderPairs = (), cut_after: int | None = None
    ) -> bytes:
        """Upgrade, say these bytes, and return all that the server says (Ktor's `handleWebSocket`).

        After `data` the client says no more, and listens until the server hangs up; with `cut_after` it is
        gone after so many bytes, and hears nothing.
        """
        async with connect(self._served) as stream:
            options = opening(uri, headers=headers)
            answer = (
                await shake_hands(StreamTransport(stream), options, options.address, options.headers)
            ).trailing_data
            if cut_after is not None:
                try:
                    await CutStream(stream, cut_after).send_all(data)
                except trio.BrokenResourceError:
                    return b""
                raise ValueError(f"cut_after is {cut_after}, but there are only {len(data)} bytes to say")
            await stream.send_all(data)
            await stream.send_eof()
            while chunk := await stream.receive_some():
                answer += bytes(chunk)
            return answer

    async def get(self, uri: str, *, headers: HeaderPairs = ()) -> Handshake:
        """Make a plain GET request."""
        async with connect(self._served) as stream:
            return await get(stream, uri, header_pairs(headers))


@asynccontextmanager
async def open_test_host(app: Application, *, pings: bool = False) -> AsyncIterator[ApplicationHost]:
    """Serve an application in memory: ``async with open_test_host(app) as host``.

    The real engine, no socket, no real time. Configured Pings are off unless `pings` is True, so that the
    clock can jump. The clients' blocks end before this one, so nothing is left then.
    """
    yield ApplicationHost(Served(app, pings=pings))
    await trio.lowlevel.checkpoint()
