"""One connection from its first byte to its last: the request, then the conversation.

A `Host` is what the connections of one `serve` have in common: limits, the registry, their shared end. It
never raises for what a peer does: a bad request is answered and forgotten, and touches nobody else.
"""

from __future__ import annotations

import functools
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Final, TypeAlias, final

import attrs
import trio

from .answering import answer, http_date, with_headers
from .base_session import BaseSession
from .call import Call
from .connection_log import log_begin, log_bug, log_end
from .endpoints import Before, GetRoute, WebSocketRoute
from .engine.connection import Connection
from .engine.outcome import split
from .engine.patience import Patience
from .engine.poller import Poller
from .engine.sockets import SocketTransport
from .engine.stop import Stop
from .engine.streams import open_transport
from .engine.tasks import lineage
from .engine.transport import HangUp, Transport
from .places import Places
from .protocol.handshake import judge_host
from .protocol.headers import Refusal
from .protocol.http import HeadReader, RequestHead
from .protocol.responses import Response, refusal_response
from .raw_session import RawWebSocketSession
from .routes import Routes
from .seldom import Seldom
from .session import WebSocketSession
from .upgrade import agree, ask_hooks, judge

_Admitted: TypeAlias = "tuple[Connection, WebSocketRoute, str]"
Tls: TypeAlias = "trio.SSLStream[trio.abc.Stream]"

logger: logging.Logger = logging.getLogger("trioktor.server")

_LOOK: Final = 0.25
"""Seconds between looks whether a client for whom hooks are being asked is still there."""


@final
@attrs.define(eq=False)
class Answering:
    """A GET handler that is running."""

    path: str
    task: trio.lowlevel.Task = attrs.field(factory=trio.lowlevel.current_task, repr=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, repr=False)


def _bound(route: WebSocketRoute, call: Call) -> Callable[[BaseSession], Awaitable[object]]:
    """The handler of a route, with the path parameters that it wants."""
    if not route.wanted:
        return route.handler
    values = call.path_parameters
    return functools.partial(route.handler, **{name: values.get(name) for name in route.wanted})


@final
@attrs.frozen(kw_only=True)
class Limits:
    """What a server grants to a connection before its conversation."""

    open_timeout: float = 10
    response_timeout: float | None = 30
    max_head_size: int = 16384
    max_headers: int = 100
    max_connections: int | None = None
    max_connections_per_address: int | None = None
    max_opening: int | None = None


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
        self._asking_hooks: set[trio.CancelScope] = set()
        self._refused_origins = Seldom(60)
        self._connections: set[Connection] = set()
        self._answering: set[Answering] = set()
        self._changed = trio.lowlevel.ParkingLot()
        self.poller: Poller | None = None  # where there is one task that reads all plain sockets

    @property
    def sessions(self) -> tuple[BaseSession, ...]:
        """The sessions that are running."""
        return tuple(connection.owner for connection in self._connections)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection and close its stream."""
        try:
            transport = open_transport(stream)
        except Exception as error:
            (self._on_failure or log_bug)(error)
            await trio.aclose_forcefully(stream)
            return
        await self._handle(transport, stream if isinstance(stream, trio.SSLStream) else None)

    def handle_socket(self, sock: socket.socket) -> Coroutine[None, None, None]:
        """As `handle`, of a plain socket that was just accepted."""
        try:
            transport = SocketTransport(sock)
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
                conversing = self._converse(*admitted)
                del admitted
                await conversing
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

    async def _open(self, transport: Transport, tls: Tls | None) -> tuple[RequestHead, bytes] | None:
        """TLS and the request's head, within `open_timeout`; None if there is nobody to answer."""
        reader = HeadReader(self.limits.max_head_size, self.limits.max_headers)
        try:
            data = None if tls is not None else transport.read_nowait()
            request = reader.feed(data) if data else None
            if request is None and data != b"":
                request = await self._wait_for_request(transport, tls, reader)
            if request is not None and self.is_stopping:
                raise Refusal(503, "the server is shutting down")
            return request
        except Refusal as refusal:
            refused = refusal
        except (trio.BrokenResourceError, OSError, ssl.SSLError) as error:
            logger.debug("a connection was lost before its request: %s", error)
            return None
        await self._refuse(transport, refused)
        return None

    async def _wait_for_request(
        self, transport: Transport, tls: Tls | None, reader: HeadReader
    ) -> tuple[RequestHead, bytes] | None:
        """As `_open`, where the request has not come with the connection.

        Raises:
          Refusal: with what to answer.
        """
        patience = Patience(self.limits.open_timeout)
        data = b""

        async def receive() -> None:
            nonlocal data
            data = await transport.receive()

        with self._places.asking() as scope:
            if self.is_stopping:  # accepted in the last moment
                scope.cancel("the server is shutting down")
            if tls is not None and not await patience.finish(tls.do_handshake):
                return None
            while not (is_late := await patience.outlast(receive)) and data:
                request = reader.feed(data)
                if request is not None:
                    return request
            if is_late and not reader.is_empty:
                raise Refusal(408, "the request took too long")
        return None

    async def _refuse(self, transport: Transport, refusal: Refusal, *, with_body: bool = True) -> None:
        logger.debug("refused with %d: %s", refusal.status, refusal.text)
        await self._say_no(transport, refusal_response(refusal), with_body=with_body)

    async def _say_no(self, transport: Transport, response: Response, *, with_body: bool = True) -> None:
        """Answer somebody who is not let in, and has no place."""
        with self._places.asking():
            await answer(transport, response.to_bytes(date=http_date(), with_body=with_body))

    async def _admit(self, transport: Transport, head: RequestHead, trailing: bytes) -> _Admitted | None:
        """Find what serves a request; the connection for a conversation, or None once it is answered otherwise."""
        is_head = head.method == "HEAD"
        no: Response | None = None
        try:
            route, parameters = self._registry.find(head)
            call = self._call(transport, head, parameters, "http" if isinstance(route, GetRoute) else "ws")
            call.route = route.pattern
            if isinstance(route, GetRoute):
                judge_host(head.authority, self._registry.hosts)
            place: str | None = self._places.take(call.client)
            try:
                if isinstance(route, GetRoute):
                    no = await self._serve_get(transport, route, call)
                else:
                    opened = await self._upgrade(transport, route, head, call, trailing)
                    if not isinstance(opened, Response):
                        kept, place = place, None
                        assert kept is not None
                        return opened, route, kept
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

    def _call(self, transport: Transport, head: RequestHead, parameters: Mapping[str, str], scheme: str) -> Call:
        client, is_secure = transport.client, transport.is_secure
        forwarded = self._registry.forwarded(client, head.headers, is_local=transport.is_local)
        if forwarded is not None:
            client = forwarded.client or client
            is_secure = is_secure if forwarded.is_secure is None else forwarded.is_secure
        return Call(head, path_parameters=parameters, client=client, scheme=scheme + "s" * is_secure)

    async def _serve_get(self, transport: Transport, route: GetRoute, call: Call) -> Response | None:
        """Answer a plain request; returns what a hook answers instead."""
        if route.before:
            no = await self._ask(transport, route.before, call)
            if no is not None:
                return with_headers(no, call)
        answering = Answering(call.path[:100])
        self._answering.add(answering)
        try:
            with answering.scope:
                response = await self._respond(route, call)
                response = with_headers(response, call)
                await answer(transport, response.to_bytes(date=http_date(), with_body=call.method != "HEAD"))
                return None
            raise Refusal(503, "the server is shutting down")
        finally:
            self._answering.discard(answering)
            self._changed.unpark_all()

    async def _respond(self, route: GetRoute, call: Call) -> Response:
        """Run a GET handler, within `response_timeout`."""
        limit = self.limits.response_timeout
        responses: list[Response] = []

        async def respond() -> None:
            responses.append(await route.respond(call))

        try:
            if await Patience(limit).finish(respond):
                return responses[0]
        except Exception:
            logger.exception("the handler of GET %.200s failed", call.path)
            return Response("the server failed\n", status=500)
        logger.warning("the handler of GET %.200s took longer than %g s", call.path, limit)
        raise Refusal(503, "the server took too long")

    # the conversation

    async def _upgrade(
        self,
        transport: Transport,
        route: WebSocketRoute,
        head: RequestHead,
        call: Call,
        trailing: bytes,
    ) -> Connection | Response:
        """The connection, ready to run; or what a hook answers instead."""
        settings = route.settings
        key = judge(head, settings, self._refused_origins)
        hooks = self._registry.hooks(route)
        if hooks:
            response = await self._ask(transport, hooks, call)
            if response is not None:
                return with_headers(response, call)
        greeting, extensions = agree(key, route, call)
        if not self._pings:
            settings = attrs.evolve(settings, ping_period=None)
        connection = Connection(
            transport,
            settings,
            raw=route.is_raw,
            greeting=greeting,
            extensions=extensions,
            trailing=trailing,
            stop=self.stop,
            poller=self.poller,
            on_failure=self._on_failure,
        )
        kind = RawWebSocketSession if route.is_raw else WebSocketSession
        kind(connection, call, self.application)
        return connection

    async def _ask(self, transport: Transport, hooks: Sequence[Before], call: Call) -> Response | None:
        """Ask the hooks, within `open_timeout`, and not beyond the server's end, nor the client's."""
        answers: list[Response | None] = []

        async def ask() -> None:
            answers.append(await ask_hooks(hooks, call))

        async def client_gone() -> None:
            # Behind a plain request a client may end its half, and still read the answer.
            gone = (HangUp.FULL,) if call.scheme.startswith("http") else (HangUp.FULL, HangUp.HALF)
            while transport.hang_up() not in gone:  # noqa: ASYNC110  # the system wakes nobody for it
                await trio.sleep(_LOOK)

        try:
            with trio.CancelScope() as scope:
                self._asking_hooks.add(scope)
                try:
                    if await Patience(self.limits.open_timeout).finish(ask, unless=client_gone):
                        return answers[0]
                finally:
                    self._asking_hooks.discard(scope)
        except ExceptionGroup as failure:  # what is left of a group when its cancellations are taken out
            logger.error("a hook failed while it was cancelled, for %.200s", call.path, exc_info=failure)
        raise Refusal(503, "the server is shutting down" if self.is_stopping else "the server took too long")

    async def _converse(self, connection: Connection, route: WebSocketRoute, place: str) -> None:
        session: BaseSession = connection.owner
        call = session.call
        call.headers.compact()
        log_begin(call)
        self._connections.add(connection)
        try:
            if self.is_stopping:
                connection.close(None)
            await connection.run(_bound(route, call))
        finally:
            self._places.leave(place)
            self._connections.discard(connection)
            self._changed.unpark_all()
            log_end(connection, call)

    # the end

    def cancel_opening(self) -> None:
        """Drop the connections that have not been let in yet."""
        self._places.turn_away()
        for scope in self._asking_hooks:
            scope.cancel("the server is shutting down")

    def connections(self) -> set[Connection]:
        """The connections that are running, but for the one whose handler calls this."""
        mine = lineage()
        return {connection for connection in self._connections if connection.task not in mine}

    def running(self) -> set[Connection | Answering]:
        """The connections and GET handlers that are running, but for the one that calls this."""
        mine = lineage()
        everything: set[Connection | Answering] = {*self._connections, *self._answering}
        return {one for one in everything if one.task not in mine}

    def cancel_answering(self) -> None:
        """Cancel the GET handlers, but for the one that calls this."""
        mine = lineage()
        for answering in self._answering:
            if answering.task not in mine:
                answering.scope.cancel("the server is closing")

    async def wait_gone(self, running: Iterable[Connection | Answering]) -> None:
        """Wait until none of these is running."""
        wanted = set(running)
        while wanted & {*self._connections, *self._answering}:
            await self._changed.park()
        await trio.lowlevel.checkpoint()

    def _stop_all(self) -> None:
        """Cancel every handler; have every connection say goodbye and be gone by the shared deadline."""
        self.is_stopping = True
        self.cancel_opening()
        for connection in list(self._connections):
            connection.stop_by(self.stop.deadline)
            connection.tasks.cancel("the server is ending")
