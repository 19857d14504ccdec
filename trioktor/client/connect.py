"""`connect`: hold a conversation with a server for as long as a block lasts.

Theory of operation. The block stands where a server has its handler: it is the body of the connection's nursery, in the
task that entered it. So there are the same ends, the same guarantees, and no task that outlives the block. The stream
is opened, and the handshake done, before that nursery is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar, Unpack

from ..engine.connection import Connection
from ..engine.lifetime import hold
from ..engine.outcome import first_leaf, is_cancellation, unwrapped
from .options import ConnectOptions, Options, client_options
from .session import ClientRawWebSocketSession, ClientWebSocketSession
from .upgrade import Opened, open_conversation

S = TypeVar("S", ClientWebSocketSession, ClientRawWebSocketSession)


def connect(url: str, /, **options: Unpack[ConnectOptions]) -> AbstractAsyncContextManager[ClientWebSocketSession]:
    """Connect to a WebSocket server: ``async with connect("wss://example.org/chat") as session``.

    Leaving the block closes the conversation, behind what was sent, and waits for the server's Close, at most
    `close_timeout`: with 1000, with 1011 if an exception leaves the block, with 1001 (and at most a second for it) if
    a cancellation does. What the block raised comes out as itself. A task of `session.start_soon` that fails cancels
    the block, and its exception comes out of it; `session.terminate()` cancels the block, too.

    Entering it is a checkpoint. Cancelled, it leaves no connection. Source: Ktor's `client.webSocket(…) { … }`.

    Args:
      url: ``ws://`` or ``wss://``; a name and password before an @ become basic authentication.
      websockets: settings; every one that a client has may be given as a keyword instead: `ping_period`,
        `max_frame_size`, `content_converter` and others of `WebSockets`. Those that are a server's are ignored.
      subprotocols: to offer, the best first.
      extensions: to offer, such as `[PerMessageDeflate()]`.
      origin: of the Origin header; programs have none.
      headers: more headers of the request.
      ssl_context: for wss, and for TLS to a proxy; the default trusts what the system trusts. `server_hostname` is
        what the server's certificate must be for, if not the host.
      proxy: the address of one (http, https, socks4, socks4a, socks5, socks5h), or True to take the one that the
        environment names (`https_proxy`, `no_proxy`, …).
      open_timeout: seconds for all before the conversation, 10 by default; None is no limit. When they are over, one
        second more may go into naming the addresses.
      max_redirects: how many are followed, none by default. Credentials and cookies stay with the origin that they are
        for.
      stream: a `trio.abc.Stream` to speak on instead of a new connection, or an async function that opens one. For
        wss TLS is spoken on it, unless it is an `SSLStream`. It is closed at the end.
      path: of a UNIX socket to connect to.
      local_address: to connect from.

    Raises:
      ValueError, TypeError: at the call; the text names the argument.
      ImportError: at the call; a SOCKS proxy needs the extra `proxy`.
      CannotConnect: on entering; also an `OSError`. `addresses` were tried.
      HandshakeRefused: on entering; the server answered no, or (`HandshakeInvalid`) wrongly.
      ValueError: on entering; the environment names a proxy that is none.
    """
    return converse(client_options(url, options), ClientWebSocketSession)


def connect_raw(
    url: str, /, **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager[ClientRawWebSocketSession]:
    """As `connect`, frame by frame: nothing is answered by itself, and a block that returns adds no Close.

    Extensions are offered and agreed on; what they do to frames is the caller's business. It raises what `connect`
    raises. Source: Ktor's `webSocketRaw`.
    """
    return converse(client_options(url, options), ClientRawWebSocketSession)


@asynccontextmanager
async def converse(options: Options, kind: type[S]) -> AsyncIterator[S]:
    """Open a conversation, and hold it by a session of a kind."""
    try:
        opened = await open_conversation(options)
    except BaseExceptionGroup as group:  # Trio's own, of the ways that it tries
        raise first_leaf(group) if is_cancellation(group) else unwrapped(group) from None
    failures: list[Exception] = []
    try:
        connection, session = wire(opened, options, kind, failures)
    except BaseException:
        await opened.transport.aclose()
        raise
    async with hold(connection, failures):
        yield session


def wire(opened: Opened, options: Options, kind: type[S], failures: list[Exception]) -> tuple[Connection, S]:
    """The connection and session behind a handshake; what leaves the block goes to `failures`."""
    connection = Connection(
        opened.transport,
        options.settings,
        client=True,
        raw=kind is ClientRawWebSocketSession,
        extensions=opened.extensions,
        trailing_data=opened.trailing_data,
        on_failure=failures.append,
    )
    return connection, kind(connection, opened)
