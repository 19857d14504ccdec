"""What several test modules need: a connection in memory with a raw client, and the proof that nothing is left."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.reading import FrameReader
from trioktor import Application, CloseReason, Frame, RawWebSocketSession, WebSockets, WebSocketSession
from trioktor.engine.connection import Connection
from trioktor.engine.lifetime import FirstWait, Lifetime
from trioktor.engine.outcome import merge
from trioktor.http.handshake import accept_token
from trioktor.protocol.mask import mask
from trioktor.protocol.serializer import Serializer, head
from trioktor.server.host import Host
from trioktor.session.base import BaseSession

KEY = bytes.fromhex("37fa213d")
Handler = Callable[[WebSocketSession], Awaitable[object]]

REQUEST = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"


def client_bytes(*frames: Frame) -> bytes:
    """Frames as a client writes them: masked."""
    serializer = Serializer(masking=True)
    pieces: list[bytes] = []
    for frame in frames:
        serializer.add(frame, pieces)
    return b"".join(pieces)


def masked(first_byte: int, payload: bytes = b"", key: bytes = KEY) -> bytes:
    """A frame as a client writes it, whatever it says."""
    return head(first_byte, len(payload), 0x80) + key + mask(payload, key)


async def converse(connection: Connection, handler: Callable[[Any], Awaitable[object]]) -> None:
    """A handler's conversation, to its end, as a host has it."""
    async with Lifetime(connection):
        await FirstWait(handler(connection.owner), connection.writing.respond)


def application(handler: Callable[..., Awaitable[object]], path: str = "/", **settings: Any) -> Application:
    """An application with one WebSocket route."""
    app = Application()
    app.install(WebSockets(**settings))
    app.websocket(path, handler)
    return app


def raw_application(handler: Callable[..., Awaitable[object]], path: str = "/", **settings: Any) -> Application:
    """An application with one raw route."""
    app = Application()
    app.install(WebSockets(**settings))
    app.websocket_raw(path, handler)
    return app


class RawPeer:
    """The other end of a connection, byte by byte: nothing is answered by itself."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, reader: FrameReader) -> None:
        self.stream = stream
        self._reader = reader
        self._frames: list[Frame] = []
        self.raw = bytearray()  # all that came behind the head of the handshake

    def feed(self, data: bytes) -> None:
        """Something has come."""
        self.raw += data
        self._frames.extend(filter(None, self._reader.feed(data)))

    async def read_head(self) -> bytes:
        """The head of the other's handshake; what is behind it is the conversation's."""
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = await self.stream.receive_some()
            assert chunk, f"the peer hung up after {data!r}"
            data += chunk
        head, _, rest = data.partition(b"\r\n\r\n")
        self.feed(rest)
        return head

    async def send_bytes(self, data: bytes) -> None:
        """Write bytes as they are."""
        await self.stream.send_all(data)

    async def receive(self) -> Frame | None:
        """The next frame or message of the other, or None at the end of the stream."""
        while not self._frames:
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self.feed(bytes(data))
        return self._frames.pop(0)

    async def receive_rest(self) -> list[Frame]:
        """All frames until the end of the stream."""
        frames = []
        while (frame := await self.receive()) is not None:
            frames.append(frame)
        return frames

    async def aclose(self) -> None:
        """Hang up."""
        await self.stream.aclose()


class RawClient(RawPeer):
    """A client, byte by byte; `raw` has it show fragments instead of messages."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, *, raw: bool = False) -> None:
        super().__init__(stream, FrameReader(client=True, raw=raw))

    async def upgrade(self, path: bytes = b"/") -> bytes:
        """Perform the opening handshake; returns the head of the answer."""
        await self.stream.send_all(REQUEST % path)
        return await self.read_head()

    async def send(self, *frames: Frame) -> None:
        """Write frames, masked."""
        await self.stream.send_all(client_bytes(*frames))


class RawServer(RawPeer):
    """A server, byte by byte."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        super().__init__(stream, FrameReader(client=False, raw=True))
        self._serializer = Serializer(masking=False)
        self.head = b""  # of the request

    def accepting(self, *more: bytes, accept: str | None = None) -> bytes:
        """The 101 that belongs to the request that was read, with more header lines."""
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", self.head)
        assert key is not None
        token = accept_token(key[1].decode()) if accept is None else accept
        lines = (
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + token.encode(),
        )
        return b"\r\n".join([*lines, *more]) + b"\r\n\r\n"

    async def accept(self, *more: bytes) -> None:
        """Read the request, and accept it."""
        self.head = await self.read_head()
        await self.send_bytes(self.accepting(*more))

    async def send(self, *frames: Frame) -> None:
        """Write frames, unmasked."""
        pieces: list[bytes] = []
        for frame in frames:
            self._serializer.add(frame, pieces)
        await self.stream.send_all(b"".join(pieces))


@asynccontextmanager
async def scripted(
    script: Callable[[RawServer], Awaitable[object]],
    *,
    pair: Callable[
        [], tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]
    ] = trio.testing.memory_stream_pair,
) -> AsyncIterator[Callable[[], Awaitable[trio.abc.HalfCloseableStream]]]:
    """What opens streams, to be given to `connect(stream=...)`; a script is the server at the other end of each."""
    async with trio.open_nursery() as nursery:

        async def serve(stream: trio.abc.HalfCloseableStream) -> None:
            try:
                await script(RawServer(stream))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the client has gone
            finally:
                await trio.aclose_forcefully(stream)

        async def open_stream() -> trio.abc.HalfCloseableStream:
            ours, theirs = pair()
            nursery.start_soon(serve, theirs)
            await trio.lowlevel.checkpoint()
            return ours

        yield open_stream
        nursery.cancel_scope.cancel()


def assert_all_over(session: BaseSession) -> None:
    """Nothing is left of a session: the reason is known, the channels are closed, nobody waits."""
    assert session.close_reason is not None
    connection = session._connection
    assert connection.ending.is_closed
    assert connection.tasks.are_done
    assert connection.writing.writer is None or connection.writing.writer.is_done
    assert connection._nursery is not None
    assert not connection._nursery.child_tasks
    assert session.outgoing.statistics().open_receive_channels == 0
    assert session.incoming.statistics().open_send_channels == 0
    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        session.outgoing.send_nowait("too late")
    while True:
        try:
            session.incoming.receive_nowait()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            break


@asynccontextmanager
async def connected(
    handler: Handler, *, show_fragments: bool = False, expect_failure: bool = False, **settings: Any
) -> AsyncIterator[tuple[RawClient, list[WebSocketSession]]]:
    """A raw client in conversation with a handler over memory streams.

    On leaving the block the client's stream is closed, the server's side must come to its end, and nothing
    may be left of it. The list holds the server's session once the handler runs. What the handler raises is
    raised after the block, as itself; a test that expects a failure has it logged, as a server would.
    """
    sessions: list[WebSocketSession] = []

    async def recording(session: WebSocketSession) -> None:
        sessions.append(session)
        await handler(session)

    async with _served(application(recording, **settings), sessions, show_fragments, expect_failure) as client:
        yield client, sessions


@asynccontextmanager
async def connected_raw(
    handler: Callable[[RawWebSocketSession], Awaitable[object]], *, expect_failure: bool = False, **settings: Any
) -> AsyncIterator[tuple[RawClient, list[RawWebSocketSession]]]:
    """As `connected`, with a raw route and a client that sees fragments."""
    sessions: list[RawWebSocketSession] = []

    async def recording(session: RawWebSocketSession) -> None:
        sessions.append(session)
        await handler(session)

    async with _served(raw_application(recording, **settings), sessions, True, expect_failure) as client:
        yield client, sessions


@asynccontextmanager
async def _served(
    app: Application, sessions: Sequence[BaseSession], show_fragments: bool, expect_failure: bool
) -> AsyncIterator[RawClient]:
    failures: list[Exception] = []
    body: Exception | None = None
    host = Host(app, on_failure=None if expect_failure else failures.append)
    ours, theirs = trio.testing.memory_stream_pair()
    client = RawClient(ours, raw=show_fragments)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.handle, theirs)
            try:
                head = await client.upgrade()
                assert head.startswith(b"HTTP/1.1 101 ")
                await trio.testing.wait_all_tasks_blocked()
                yield client
            except Exception as error:  # raised below: a handler that failed is its cause more often than not
                body = error
                nursery.cancel_scope.cancel()
            await ours.aclose()
    finally:  # a cancellation hides neither
        failure = merge(failures)
        if failure is not None:
            raise failure from body
        if body is not None:
            raise body
    for session in sessions:
        assert_all_over(session)


def close(code: int, message: str = "") -> Frame:
    """A Close frame."""
    return Frame.Close(CloseReason(code, message))


def records_above_info(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged that somebody should look at."""
    return [record for record in caplog.records if record.levelno > logging.INFO and record.name.startswith("trioktor")]
