"""Conversations in memory: the application's own connection code on one end, a client on the other.

Each runs in a nursery of its own: leaving its block closes it, waits for the handler, and raises what the
handler raised, as itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Generic, Self, TypeVar, final

import attrs
import trio
import trio.testing

from ..client.connect import wire
from ..client.options import Options
from ..client.session import ClientRawWebSocketSession, ClientWebSocketSession
from ..client.upgrade import shake_hands
from ..converters import ContentConverter
from ..engine.items import Message
from ..engine.lifetime import hold
from ..engine.outcome import first_leaf, is_cancellation, merge, unwrapped
from ..engine.streams import StreamTransport
from ..http.asking import Handshake
from ..http.responses import HeaderPairs
from ..protocol.close import CloseReason
from ..protocol.frames import Frame
from ..server.application import Application
from ..server.host import Host
from ..session.base import BaseSession
from .cutting import CutStream
from .handshake import opening

S = TypeVar("S", ClientWebSocketSession, ClientRawWebSocketSession)
S_co = TypeVar("S_co", bound=BaseSession, covariant=True)


@final
class Conversation(tuple[trio.MemoryReceiveChannel[Frame], trio.MemorySendChannel[Message]], Generic[S_co]):
    """The client's end of a conversation; unpacks into `incoming` and `outgoing`.

    Attributes:
      session: the client's own session.
      response: the server's 101.
    """

    session: S_co
    response: Handshake

    def __new__(cls, session: S_co, _response: Handshake, _cut: Callable[[], None]) -> Self:
        """Pair the channels of a session."""
        return super().__new__(cls, (session.incoming, session.outgoing))

    def __init__(self, session: S_co, response: Handshake, cut: Callable[[], None]) -> None:
        self.session = session
        self.response = response
        self._cut = cut

    def cut(self) -> None:
        """Cut the connection now: the server sees its end, and no Close."""
        self._cut()

    @property
    def incoming(self) -> trio.MemoryReceiveChannel[Frame]:
        """The server's messages, or all of its frames; ends with `trio.EndOfChannel`."""
        return self[0]

    @property
    def outgoing(self) -> trio.MemorySendChannel[Message]:
        """Takes what the client says."""
        return self[1]

    @property
    def close_reason(self) -> CloseReason | None:
        """What ended the conversation, as the client sees it."""
        return self.session.close_reason


@asynccontextmanager
async def handle_websocket_conversation(
    app: Application,
    uri: str,
    *,
    headers: HeaderPairs = (),
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    pings: bool = False,
    content_converter: ContentConverter | None = None,
) -> AsyncIterator[Conversation[ClientWebSocketSession]]:
    """Hold a conversation with an application: ``async with … as (incoming, outgoing)``.

    Leaving the block closes with 1000, or with 1011 if the block raises; waits for the handler, and raises what the
    handler raised, as itself. Configured Pings are off unless `pings` is True, so that the clock can jump.
    `content_converter` is the client's, for `send_serialized` and `receive_deserialized`.

    Raises:
      HandshakeRefused: the server answered with another status than 101.
      CannotConnect: the handler ended it before the answer was out.
      Exception: what the handler raised; if the block raised too and the handler failed, the handler's
        error, `from` the block's.
    """
    options = opening(uri, headers=headers, subprotocols=subprotocols, origin=origin, converter=content_converter)
    async with converse(Served(app, pings=pings), ClientWebSocketSession, options) as conversation:
        yield conversation


@final
class Served:
    """An application that is served in memory: a host for each connection, so that each ends on its own."""

    def __init__(self, app: Application, *, pings: bool) -> None:
        if not isinstance(app, Application):
            raise TypeError(f"what is served is an Application, not {app!r}")
        app.registry.freeze()
        self._app = app
        self._pings = pings
        self._hosts: list[Host] = []

    @property
    def sessions(self) -> tuple[BaseSession, ...]:
        """The server's sessions that are running."""
        return tuple(session for host in self._hosts for session in host.sessions)

    @contextmanager
    def host(self, on_failure: Callable[[Exception], None]) -> Iterator[Host]:
        """The host of one connection."""
        host = Host(self._app, on_failure=on_failure, pings=self._pings)
        self._hosts.append(host)
        try:
            yield host
        finally:
            self._hosts.remove(host)


@asynccontextmanager
async def connect(served: Served) -> AsyncIterator[trio.abc.HalfCloseableStream]:
    """A stream that is served at its other end.

    Leaving the block waits for the server, and raises what a handler raised, or else what the block raised.
    """
    failures: list[Exception] = []
    body: Exception | None = None
    cancelled: BaseException | None = None
    ours, theirs = trio.testing.memory_stream_pair()
    try:
        with served.host(failures.append) as host:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(host.handle, theirs, name="trioktor server")
                try:
                    yield ours
                except Exception as error:  # raised below, once the handler has ended
                    body = error
                finally:
                    await trio.aclose_forcefully(ours)
    except trio.Cancelled as error:  # it must hide neither the handler's failure nor the block's
        cancelled = error
    except BaseExceptionGroup as group:
        if not is_cancellation(group):
            raise unwrapped(group) from None
        cancelled = first_leaf(group)
    failure = merge(failures)
    if failure is not None:
        raise failure from body
    if body is not None or cancelled is not None:
        raise body or cancelled  # type: ignore[misc]  # one of them is there


@asynccontextmanager
async def converse(
    served: Served, kind: type[S], options: Options, *, cut_after: int | None = None
) -> AsyncIterator[Conversation[S]]:
    """Hold a conversation by a session of a kind; see `handle_websocket_conversation`."""
    async with connect(served) as stream:
        opened = await shake_hands(StreamTransport(stream), options, options.address, options.headers)
        if cut_after is not None:
            opened = attrs.evolve(opened, transport=StreamTransport(CutStream(stream, cut_after)))
        failures: list[Exception] = []
        connection, session = wire(opened, options, kind, failures)
        async with hold(connection, failures):
            yield Conversation(session, opened.response, connection.ends.drop)
