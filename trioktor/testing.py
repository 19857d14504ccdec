"""Conversations in memory, for tests: the real engine on both sides, no socket, no real time.

A conversation runs the application's own connection code on one end of a pair of memory streams, and a
client on the other: a real handshake, masked frames, the closing handshake. It gets along with Trio's
autojump clock. What a handler raises surfaces in the test, as itself.
"""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self, final

import attrs
import h11
import trio
import trio.testing

from .application import Application
from .call import Call
from .config import WebSockets
from .engine.connection import Connection
from .engine.outbox import Message
from .engine.outcome import merge
from .engine.transport import StreamTransport
from .errors import HandshakeRefused
from .host import Host
from .protocol.close import CloseReason
from .protocol.frames import Frame
from .protocol.handshake import accept_token
from .protocol.http import HeaderPairs, Headers, RequestHead, header_pairs
from .session import WebSocketSession

__all__ = ["Conversation", "Handshake", "handle_websocket_conversation"]

_HOST = "localhost"


@final
@attrs.frozen
class Handshake:
    """A server's answer to an opening handshake."""

    status: int
    headers: Headers
    body: bytes = b""


@final
class Conversation(tuple[trio.MemoryReceiveChannel[Frame], trio.MemorySendChannel[Message]]):
    """The client's end of a conversation; unpacks into `incoming` and `outgoing`.

    Attributes:
      session: the client's own `WebSocketSession`.
      response: the server's 101.
    """

    session: WebSocketSession
    response: Handshake

    def __new__(cls, session: WebSocketSession, response: Handshake) -> Self:
        """Pair the channels of a session."""
        conversation = super().__new__(cls, (session.incoming, session.outgoing))
        conversation.session = session
        conversation.response = response
        return conversation

    @property
    def incoming(self) -> trio.MemoryReceiveChannel[Frame]:
        """The server's messages; ends with `trio.EndOfChannel`."""
        return self[0]

    @property
    def outgoing(self) -> trio.MemorySendChannel[Message]:
        """Takes what the client says."""
        return self[1]

    @property
    def close_reason(self) -> CloseReason | None:
        """What ended the conversation, as the client sees it."""
        return self.session.close_reason


def _request(uri: str, key: str, headers: Sequence[tuple[str, str]]) -> h11.Request:
    pairs = list(headers)
    if not any(name.lower() == "host" for name, _ in pairs):
        pairs.insert(0, ("Host", _HOST))
    return h11.Request(
        method="GET",
        target=uri,
        headers=[
            *pairs,
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", key),
            ("Sec-WebSocket-Version", "13"),
        ],
    )


async def _shake_hands(
    stream: trio.abc.Stream, uri: str, headers: Sequence[tuple[str, str]]
) -> tuple[RequestHead, Handshake, bytes]:
    """Perform the client's opening handshake; returns the request, the answer, and what came behind it."""
    key = base64.b64encode(os.urandom(16)).decode("ascii")
    request = _request(uri, key, headers)
    http = h11.Connection(h11.CLIENT)
    await stream.send_all(http.send(request) or b"")
    body = b""
    answer: h11.Response | h11.InformationalResponse | None = None
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, (h11.Response, h11.InformationalResponse)):
            answer = event
            if event.status_code == 101:
                break
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            break
    assert answer is not None
    raw = tuple((bytes(name), bytes(value)) for name, value in answer.headers)
    handshake = Handshake(answer.status_code, Headers(raw), body)
    if handshake.status != 101:
        raise HandshakeRefused(handshake.status, handshake.headers, handshake.body)
    assert handshake.headers.get("sec-websocket-accept") == accept_token(key)
    sent = Headers(tuple((bytes(name), bytes(value)) for name, value in request.headers))
    return RequestHead("GET", uri, "1.1", sent), handshake, http.trailing_data[0]


@asynccontextmanager
async def handle_websocket_conversation(
    app: Application,
    uri: str,
    *,
    headers: HeaderPairs = (),
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    pings: bool = False,
) -> AsyncIterator[Conversation]:
    """Hold a conversation with an application: ``async with … as (incoming, outgoing)``.

    Leaving the block closes with 1000, waits for the handler, and raises what the handler raised, as
    itself. Configured Pings are off unless `pings` is True, so that the clock can jump.

    Raises:
      HandshakeRefused: the server answered with another status than 101.
      Exception: what the handler raised; if the block raised too and the handler failed, the handler's
        error, `from` the block's.
    """
    failures: list[Exception] = []
    body: Exception | None = None
    try:
        async with _converse(app, uri, headers, subprotocols, origin, pings, failures) as conversation:
            try:
                yield conversation
            except Exception as error:  # raised below, once the handler has ended
                body = error
    except BaseExceptionGroup as group:
        raised: BaseException = group
        while isinstance(raised, BaseExceptionGroup) and len(raised.exceptions) == 1:
            raised = raised.exceptions[0]
        raise raised from None
    failure = merge(failures)
    if failure is not None:
        raise failure from body
    if body is not None:
        raise body


@asynccontextmanager
async def _converse(
    app: Application,
    uri: str,
    headers: HeaderPairs,
    subprotocols: Sequence[str],
    origin: str | None,
    pings: bool,
    failures: list[Exception],
) -> AsyncIterator[Conversation]:
    pairs = list(header_pairs(headers))
    if origin is not None:
        pairs.append(("Origin", origin))
    if subprotocols:
        pairs.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    host = Host(app, on_failure=failures.append, pings=pings)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.handle, theirs, name="trioktor server")
        try:
            request, response, trailing = await _shake_hands(ours, uri, pairs)
        except BaseException:
            await trio.aclose_forcefully(ours)
            raise
        # It answers a Close at once: a test that is told the end has nothing more to say.
        settings = WebSockets(max_frame_size=None, answer_grace=0)
        connection = Connection(StreamTransport(ours), settings, client=True, trailing=trailing)
        call = Call(
            request,
            path_parameters={},
            client=None,
            scheme="ws",
            protocol=response.headers.get("sec-websocket-protocol"),
        )
        session = WebSocketSession(connection, call, None)
        entered, left = trio.Event(), trio.Event()

        async def stay() -> None:
            entered.set()
            await left.wait()

        nursery.start_soon(connection.run, stay, name="trioktor client")
        await entered.wait()
        try:
            yield Conversation(session, response)
        finally:
            left.set()
