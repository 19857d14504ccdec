"""One connection from its first byte to its last: the request, then the conversation.

A `Host` is what the connections of one `serve` have in common: limits, the registry, their shared end. It
never raises for what a peer does: a bad request is answered and forgotten, and touches nobody else.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import TypeAlias

import attrs
import trio

from ..engine.connection import Connection
from ..engine.lifetime import FirstWait, Lifetime
from ..engine.outcome import split
from ..engine.poller import Poller
from ..engine.shields import Stop
from ..engine.sockets import SocketTransport
from ..engine.streams import open_transport
from ..engine.transport import Transport
from ..http.call import Call
from ..http.handshake import check_host, check_upgrade
from ..http.headers import Refusal
from ..http.requests import RequestHead
from ..http.responses import Response, refusal_response
from ..routing.endpoints import GetRoute, WebSocketRoute
from ..routing.routes import Routes
from ..session.base import BaseSession
from ..session.raw import RawWebSocketSession
from ..session.session import WebSocketSession
from .admission import Limits, Places
from .answering import answer, http_date, with_headers
from .arrival import Request, Tls, read_request
from .connection_log import log_begin, log_bug, log_end
from .hooks import Hooks
from .plain import serve_get
from .running import Running
from .seldom import Seldom
from .upgrade import check_client, negotiate, new_call

_Admitted: TypeAlias = "tuple[Connection, BaseSession, WebSocketRoute, str]"

logger: logging.Logger = logging.getLogger("trioktor.server")


class Host:
    """Serve connections of one application.

    Args:
      on_failure: called with what a handler raised instead of logging it.
      pings: False turns the configured Pings off.
    """

    def __init__(
        self,
        application: Routes,
        limits: Limits | None = None,
        *,
        on_failure: Callable[[Exception], None] | None = None,
        pings: bool = True,
    ) -> None:
        application.registry.freeze()
        self.application: Routes = application
        self._registry = application.registry
        self.stop: Stop = Stop(on_begin=self._stop_all)
        self.is_stopping: bool = False
        self.limits: Limits = limits or Limits()
        self._on_failure = on_failure
        self._pings = pings
        self._places = Places(
            self.limits.max_connections, self.limits.max_connections_per_address, self.limits.max_opening
        )
        self._hooks = Hooks(self.limits.open_timeout)
        self._refused_origins = Seldom(60)
        self.running: Running = Running()
        self.listening: trio.CancelScope = trio.CancelScope()  # round the listeners
        self.nursery: trio.Nursery | None = None  # that connections run in, while it serves
        self.poller: Poller | None = None  # where there is one task that reads all plain sockets

    @property
    def sessions(self) -> tuple[BaseSession, ...]:
        """The sessions that are running."""
        return tuple(connection.owner for connection in self.running.conversing)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection and close its stream."""
        try:
            transport = open_transport(stream)
        except Exception as error:
            (self._on_failure or log_bug)(error)
            await trio.aclose_forcefully(stream)
            return
        await self._handle(transport, stream if isinstance(stream, trio.SSLStream) else None)

    def handle_socket(self, sock: socket.socket, client: tuple[str, int] | None) -> Coroutine[None, None, None]:
        """As `handle`, of a plain socket that was just accepted from a client; None if its name is not known."""
        try:
            transport = SocketTransport(sock, client)
        except Exception as error:
            return self._drop(sock, error)
        return self._handle(transport, None)

    async def _drop(self, sock: socket.socket, error: Exception) -> None:
        (self._on_failure or log_bug)(error)
        sock.close()
        await trio.lowlevel.checkpoint()

    async def _handle(self, transport: Transport, tls: Tls | None) -> None:
        try:
            request = await self._open(transport, tls)
            admitted = None if request is None else await self._admit(transport, *request)
            del request  # the conversation may be long
            if admitted is not None:
                connection, session, route, place = admitted
                del admitted
                try:
                    self._begin(connection, session.call)
                    async with Lifetime(connection):
                        await FirstWait(route.converse(session, session.call), connection.writing.respond)
                finally:
                    self.running.discard(connection)
                    self._places.leave(place)
                    log_end(connection, session.call)
        except BaseException as error:
            # Nothing but cancellation and Ctrl-C is meant to get here, and nothing else may end the server.
            bug, rest = split(error)
            if bug is not None:
                (self._on_failure or log_bug)(bug)
            if rest is not None:
                raise rest from None
        finally:
            if not transport.close_nowait():
                await transport.aclose()

    # the request

    async def _open(self, transport: Transport, tls: Tls | None) -> Request | None:
        """The request, or None if there is nobody to answer any more."""
        try:
            return await read_request(transport, tls, self.limits, self._places, lambda: self.is_stopping)
        except Refusal as refusal:
            refused = refusal
        except (trio.BrokenResourceError, OSError, ssl.SSLError) as error:
            logger.debug("a connection was lost before its request: %s", error)
            return None
        await self._refuse(transport, refused)
        return None

    async def _refuse(self, transport: Transport, refusal: Refusal, *, with_body: bool = True) -> None:
        logger.debug("refused with %d: %s", refusal.status, refusal.text)
        await self._say_no(transport, refusal_response(refusal), with_body=with_body)

    async def _say_no(self, transport: Transport, response: Response, *, with_body: bool = True) -> None:
        """Answer somebody who is not let in, and has no place."""
        with self._places.asking():
            await self._answer(transport, response, with_body=with_body)

    async def _answer(self, transport: Transport, response: Response, *, with_body: bool) -> None:
        await answer(transport, response.to_bytes(date=http_date(), with_body=with_body))

    async def _admit(self, transport: Transport, head: RequestHead, trailing_data: bytes) -> _Admitted | None:
        """Find what serves a request; the connection for a conversation, or None once it is answered otherwise."""
        is_head = head.method == "HEAD"
        no: Response | None = None
        try:
            route, parameters = self._registry.find(head)
            call = new_call(self._registry, head, parameters, route, transport)
            if isinstance(route, GetRoute):
                check_host(head.authority, self._registry.hosts)
            place: str | None = self._places.take(call.client)
            try:
                if isinstance(route, GetRoute):
                    no = await serve_get(
                        route,
                        call,
                        lambda response: self._answer(transport, response, with_body=not is_head),
                        hooks=self._hooks,
                        running=self.running,
                        limit=self.limits.response_timeout,
                        hang_up=transport.hang_up,
                    )
                else:
                    opened = await self._upgrade(transport, route, head, call, trailing_data)
                    if not isinstance(opened, Response):
                        kept, place = place, None
                        assert kept is not None
                        return *opened, route, kept
                    no = opened
            finally:
                if place is not None:
                    self._places.leave(place)
        except Refusal as refusal:
            await self._refuse(transport, refusal, with_body=not is_head)
        else:
            if no is not None:
                await self._say_no(transport, no, with_body=not is_head)
        return None

    # the conversation

    async def _upgrade(
        self,
        transport: Transport,
        route: WebSocketRoute,
        head: RequestHead,
        call: Call,
        trailing_data: bytes,
    ) -> tuple[Connection, BaseSession] | Response:
        """The connection, ready to run; or what a hook answers instead."""
        settings = route.settings
        key = check_upgrade(head)
        check_client(head, call, settings, self._refused_origins)
        hooks = self._registry.hooks(route)
        if hooks:
            refusal = await self._hooks.ask(hooks, call, transport.hang_up)
            if refusal is not None:
                return with_headers(refusal, call)
        response, extensions = negotiate(key, route, call)
        if not self._pings:
            settings = attrs.evolve(settings, ping_period=None)
        connection = Connection(
            transport,
            settings,
            raw=route.is_raw,
            response=response,
            extensions=extensions,
            trailing_data=trailing_data,
            stop=self.stop,
            poller=self.poller,
            on_failure=self._on_failure,
        )
        kind = RawWebSocketSession if route.is_raw else WebSocketSession
        return connection, kind(connection, call, self.application)

    def _begin(self, connection: Connection, call: Call) -> None:
        """The conversation is about to begin."""
        call.headers.compact()
        log_begin(call)
        self.running.add(connection)
        if self.is_stopping:
            connection.ends.close(None)

    # the end

    def cancel_opening(self) -> None:
        """Drop the connections that have not been let in yet."""
        self._places.turn_away()
        self._hooks.cancel()

    def _stop_all(self) -> None:
        """Cancel every handler; have every connection say goodbye and be gone by the shared deadline."""
        self.is_stopping = True
        self.cancel_opening()
        for connection in list(self.running.conversing):
            connection.ends.stop_by(self.stop.deadline)
            connection.tasks.cancel("the server is ending")
