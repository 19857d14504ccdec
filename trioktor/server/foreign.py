"""Conversations of an application on somebody else's server, who has the listener and the protocol.

What `Host` does for our own connections, a `ForeignHost` does for those of others: find the route, ask the hooks, check
host and origin, choose the subprotocol, run the handler, and end all of it when the server does.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

import attrs
import trio

from ..config import Supports
from ..engine.connection import Connection
from ..engine.lifetime import Lifetime
from ..engine.messages import Messages, MessageTransport
from ..engine.tasks import lineage
from ..http.call import Call
from ..http.handshake import check_host
from ..http.headers import Refusal
from ..http.requests import RequestHead
from ..http.responses import Response, refusal_response
from ..protocol.close import CloseCode, CloseReason
from ..routing.endpoints import GetRoute, WebSocketRoute
from ..routing.routes import Routes
from ..session.session import WebSocketSession
from .admission import Limits
from .answering import with_headers
from .connection_log import log_begin, log_end
from .hooks import Hooks
from .plain import serve_get
from .running import Running
from .seldom import Seldom
from .upgrade import check_client, choose_protocol, new_call

_LIMITS = Limits()
"""Those of `serve`, for hooks and the handlers of GET routes."""
_ANSWER_LIMIT = 30.0
"""Seconds for the server to take a refusal, or that a client is let in."""

logger: logging.Logger = logging.getLogger("trioktor.server")

Send: TypeAlias = "Callable[[Response], Awaitable[None]]"


@attrs.frozen(kw_only=True)
class ForeignPeer:
    """Who asks, as the server knows him."""

    client: tuple[str, int] | str | None
    is_secure: bool
    is_local: bool = False


class Door(Protocol):
    """How a server is told what becomes of a request for a WebSocket."""

    @abstractmethod
    async def accept(self, call: Call, close_timeout: float) -> Messages:
        """Let it in, with the subprotocol and the response headers of the call.

        Args:
          close_timeout: seconds for the peer's answer to our Close, where it is waited for below.

        Raises:
          trio.BrokenResourceError: nobody is there any more.
        """

    @abstractmethod
    async def refuse(self, response: Response) -> None:
        """Answer it otherwise, as far as the server can."""


class ForeignHost:
    """An application on a server of somebody else's.

    Raises:
      ValueError: the application asks for what cannot be done there.
    """

    def __init__(self, application: Routes, supports: Supports) -> None:
        self._registry = application.registry
        self._registry.check(supports)
        self._registry.freeze()
        self._application = application
        self._supports = supports
        self._hooks = Hooks(_LIMITS.open_timeout)
        self._refused_origins = Seldom(60)
        self._running = Running()
        self._is_stopping = False

    async def converse(self, head: RequestHead, peer: ForeignPeer, door: Door) -> None:
        """Serve a request for a WebSocket, to its end."""
        try:
            route, call = self._find(head, peer)
            if isinstance(route, GetRoute):
                raise Refusal(404, "there is no WebSocket at this path")
            no = await self._ask(route, head, call)
        except Refusal as refusal:
            no = refusal_response(refusal)
        if no is not None:
            await self.refuse(door, no)
            return
        assert isinstance(route, WebSocketRoute)
        messages: Messages | None = None
        try:
            with trio.move_on_after(_ANSWER_LIMIT):
                messages = await door.accept(call, route.settings.close_timeout)
        except trio.BrokenResourceError:
            return
        if messages is None:
            logger.info("the server did not let %.200s in within %g s", call.path, _ANSWER_LIMIT)
        else:
            await self._run(messages, route, call, peer)

    async def refuse(self, door: Door, response: Response) -> None:
        """Refuse a request, and wait a while for the server to take that."""
        with trio.move_on_after(_ANSWER_LIMIT):
            await door.refuse(response)

    def _find(self, head: RequestHead, peer: ForeignPeer) -> tuple[WebSocketRoute | GetRoute, Call]:
        if self._is_stopping:
            raise Refusal(503, "the server is shutting down")
        route, parameters = self._registry.find(head)
        return route, new_call(self._registry, head, parameters, route, peer)

    async def _ask(self, route: WebSocketRoute, head: RequestHead, call: Call) -> Response | None:
        check_client(head, call, route.settings, self._refused_origins)
        hooks = self._registry.hooks(route)
        response = await self._hooks.ask(hooks, call) if hooks else None
        if response is not None:
            return with_headers(response, call)
        choose_protocol(route, call)
        return None

    async def _run(self, messages: Messages, route: WebSocketRoute, call: Call, peer: ForeignPeer) -> None:
        settings = route.settings
        transport = MessageTransport(
            messages,
            self._supports,
            client=peer.client,
            is_secure=peer.is_secure,
            max_size=settings.max_frame_size,
        )
        connection = Connection(transport, settings)  # cancelled, it ends for itself: that is not the server's end
        session = WebSocketSession(connection, call, self._application)
        call.headers.compact()
        log_begin(call)
        self._running.add(connection)
        try:
            if self._is_stopping:
                connection.ends.close(CloseReason(CloseCode.GOING_AWAY))
            async with Lifetime(connection):
                await route.converse(session, call)
        finally:
            self._running.discard(connection)
            log_end(connection, session.call)

    async def respond(self, head: RequestHead, peer: ForeignPeer, send: Send) -> None:
        """Serve a plain request."""
        try:
            route, call = self._find(head, peer)
            if not isinstance(route, GetRoute):
                raise Refusal(426, "this path speaks WebSocket only", (("Upgrade", "websocket"),))
            check_host(head.authority, self._registry.hosts)
            limit = _LIMITS.response_timeout
            no = await serve_get(route, call, send, hooks=self._hooks, running=self._running, limit=limit)
        except Refusal as refusal:
            no = refusal_response(refusal)
        if no is not None:
            with trio.move_on_after(_ANSWER_LIMIT):
                await send(no)

    async def stop(self, grace: float) -> None:
        """Say 1001 to every session, and wait for their handlers, at most so many seconds; then cancel them.

        One that does not heed its cancellation is named in a warning, and left to the server.
        """
        self._is_stopping = True
        self._hooks.cancel()
        mine, until = lineage(), trio.current_time() + grace
        for connection in self._running.connections(mine):
            connection.ends.close(CloseReason(CloseCode.GOING_AWAY))
        for stubborn in await self._running.see_out(mine, until):
            logger.warning("the server ends, but a handler does not heed its cancellation: %s", stubborn)
