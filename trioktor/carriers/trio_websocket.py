"""An application on a trio-websocket server: its routes as a handler for `trio_websocket.serve_websocket`.

trio-websocket speaks the protocol and has the socket; everything else is as under `serve`. What it cannot do (raw
routes, Pings, extensions, masking) is refused when the application is handed over. A handler that fails ends its own
conversation, and not the server.

What remains: a frame that is half written when its time is up (`write_timeout`, or the second after a cancellation)
is torn by trio-websocket's own `send_all`, and the connection is dropped behind it. And a server that is cancelled
cancels trio-websocket's reader, too: if that is first, the peer gets no Close. Behind a Close of ours it tells of
nothing that the peer says: so messages are lost then, and the code of the peer's Close is not known (1005).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest

from ..config import Supports
from ..engine.messages import Messages, close_frame
from ..http.call import Call
from ..http.headers import Headers, Refusal
from ..http.requests import RequestHead, normal_form, origin_form
from ..http.responses import Response, encoded, refusal_response
from ..protocol.close import CloseCode, CloseReason
from ..protocol.frames import BinaryFrame, CloseFrame, Frame, TextFrame
from ..routing.routes import Routes
from ..server.foreign import ForeignHost, ForeignPeer

logger: logging.Logger = logging.getLogger("trioktor.server")

TRIO_WEBSOCKET: Final = Supports(name="trio-websocket", frames=False, pings=False, extensions=False)


def handler(app: Routes) -> Callable[[WebSocketRequest], Awaitable[None]]:
    """What `trio_websocket.serve_websocket` takes: serves the WebSockets of an application.

    ::

        await trio_websocket.serve_websocket(handler(app), "127.0.0.1", 8080, ssl_context=None)

    A request that no route serves, or that a hook or a check of origins turns away, is rejected with the same answer as
    under `serve`.

    Raises:
      ValueError: at once; names every route and setting that trio-websocket cannot serve.
    """
    host = ForeignHost(app, TRIO_WEBSOCKET)

    async def serve(request: WebSocketRequest) -> None:
        door = _Door(request)
        try:
            head, peer = _head(request), _peer(request)
        except Refusal as refusal:
            await host.refuse(door, refusal_response(refusal))
        except OSError:
            pass  # it has no name any more: the client has gone
        else:
            await host.converse(head, peer, door)

    async def handle(request: WebSocketRequest) -> None:
        try:
            await serve(request)
        except Exception:  # what leaves a handler would end the server there
            logger.exception("a connection ended with an error of trioktor's own")

    return handle


def _head(request: WebSocketRequest) -> RequestHead:
    # It keeps the Host header, and the offers that are headers of their own, to itself.
    authority = getattr(getattr(request, "_event", None), "host", "")
    lines = [(bytes(name), bytes(value)) for name, value in request.headers]
    lines.append((b"host", authority.encode("latin-1", "replace")))
    if request.proposed_subprotocols:
        lines.append((b"sec-websocket-protocol", ", ".join(request.proposed_subprotocols).encode("latin-1", "replace")))
    target, host = origin_form(b"GET", request.path)  # a client may write the whole address, of which the host counts
    return RequestHead("GET", normal_form(target), "1.1", Headers(lines), host or authority, is_upgrade=True)


def _peer(request: WebSocketRequest) -> ForeignPeer:
    remote = request.remote
    if isinstance(remote, str):
        return ForeignPeer(client=None, is_secure=False, is_local=True)
    return ForeignPeer(client=(str(remote.address), remote.port), is_secure=remote.is_ssl)


@final
class _Door:
    """How trio-websocket is told what becomes of a request."""

    def __init__(self, request: WebSocketRequest) -> None:
        self._request = request

    async def accept(self, call: Call, close_timeout: float) -> Messages:
        """Let it in."""
        headers = encoded(call.take_response_headers())
        try:
            connection = await self._request.accept(subprotocol=call.protocol, extra_headers=headers)
        except ConnectionClosed as error:
            raise trio.BrokenResourceError("the client has gone") from error
        return _Messages(connection, close_timeout)

    async def refuse(self, response: Response) -> None:
        """Reject it."""
        pairs = [pair for pair in encoded(response.fields()) if pair[0] != b"content-length"]  # it is added there
        try:
            await self._request.reject(response.status, extra_headers=pairs, body=response.payload)
        except ConnectionClosed:
            pass  # the client has gone


@final
class _Messages:
    """The messages of one connection of trio-websocket, which has no limit of its own for the closing handshake."""

    def __init__(self, connection: WebSocketConnection, close_timeout: float) -> None:
        self._connection = connection
        self.close_timeout: float = close_timeout
        self._said_close: trio.Event | None = None  # once we do: set when it was answered, or will not be
        self._is_answered = False

    async def receive(self) -> Frame | None:
        """Wait for a message, or the end."""
        try:
            message = await self._connection.get_message()
        except ConnectionClosed as closed:
            if self._said_close is not None:  # it tells of our own Close then, at once
                await self._said_close.wait()
                return CloseFrame() if self._is_answered else None
            reason = closed.reason
            if reason is None or reason.code == CloseCode.CLOSED_ABNORMALLY:
                return None
            return close_frame(reason.code, reason.reason)
        return TextFrame(message) if isinstance(message, str) else BinaryFrame(message)

    async def send(self, message: Frame) -> None:
        """Hand over a message; or our Close, and wait for the peer's."""
        try:
            if isinstance(message, CloseFrame):
                reason = message.reason or CloseReason(CloseCode.NORMAL)
                self._said_close = trio.Event()
                try:
                    with trio.move_on_after(self.close_timeout):
                        await self._connection.aclose(int(reason.code), reason.message)
                        self._is_answered = True
                finally:
                    self._said_close.set()
            else:
                await self._connection.send_message(message.text if isinstance(message, TextFrame) else message.data)
        except ConnectionClosed as error:
            raise trio.BrokenResourceError("the client has gone") from error

    async def aclose(self) -> None:
        """Drop the connection."""
        with trio.CancelScope() as scope:
            scope.cancel("dropped")
            await self._connection.aclose()
