"""`serve`: an application on listeners, and its end.

The end has two forms. `Server.aclose` is the graceful one: no new connections, Close 1001 to every
session, `shutdown_grace` for the handlers to return, then their cancellation. Cancelling the scope round
`serve` is the other: handlers are cancelled at once, and all connections together have one second for
their goodbye.
"""

from __future__ import annotations

import contextvars
import logging
import os
import ssl
from collections.abc import Sequence
from typing import Any, NoReturn, final

import attrs
import trio

from ..engine.outcome import first_leaf, reraise, unwrapped
from ..engine.poller import Poller
from ..engine.tasks import lineage
from ..protocol.close import CloseCode, CloseReason
from ..session.base import BaseSession
from .accepting import accept_all
from .admission import Limits, default_places
from .application import Application
from .arguments import Arguments
from .host import Host
from .listeners import open_tcp, open_unix, remove_unix, unix_identity, wrap_tls

logger: logging.Logger = logging.getLogger("trioktor.server")

Listener = trio.abc.Listener[trio.abc.Stream]


@final
@attrs.define
class Import:
    """The import of a module that another program is going to serve, as `trioktor serve` does."""

    has_served: bool = False
    """It tried to serve by itself, which would leave that program waiting for its end."""


current_import: contextvars.ContextVar[Import | None] = contextvars.ContextVar("trioktor.current_import", default=None)
"""Set while such an import runs: it is not to start a server."""


def _check_not_imported() -> None:
    importing = current_import.get()
    if importing is not None:
        importing.has_served = True
        raise RuntimeError('a module that is imported starts a server: put that under `if __name__ == "__main__":`')


@final
class Server:
    """A running server, as `nursery.start(serve, …)` returns it."""

    def __init__(self, host: Host, listeners: Sequence[Listener], shutdown_grace: float) -> None:
        self._host = host
        self._shutdown_grace = shutdown_grace
        self.listeners: Sequence[Listener] = tuple(listeners)

    @property
    def port(self) -> int:
        """The TCP port, the same on every address.

        Raises:
          RuntimeError: it listens on no TCP port, or on several.
        """
        ports = {name[1] for name in map(listening_on, self.listeners) if isinstance(name, tuple)}
        if len(ports) != 1:
            raise RuntimeError(f"this server has {len(ports)} TCP ports: look at its listeners")
        return int(ports.pop())

    @property
    def sessions(self) -> tuple[BaseSession, ...]:
        """The sessions that are running now."""
        return self._host.sessions

    async def aclose(self, reason: CloseReason | int = CloseCode.GOING_AWAY) -> None:
        """Stop gracefully: stop listening, close every other session, wait, then cancel what is left.

        Closes and waits for all sessions and GET handlers, except the one that calls this, which ends when it returns;
        at most 1.5 s longer than `shutdown_grace`. A handler that ignores its cancellation is named in a warning, and
        `serve` goes on waiting for it. One that blocks the loop holds this up, too. May be called again. Cancelled, it
        stops waiting; the closing goes on.
        """
        if not isinstance(reason, CloseReason):
            reason = CloseReason(reason)
        host = self._host
        host.is_stopping = True
        host.listening.cancel("the server is closing")
        host.cancel_opening()
        mine, until = lineage(), trio.current_time() + self._shutdown_grace
        for connection in host.running.connections(mine):
            connection.ends.close(reason)
        try:
            await self._see_out(mine, until)
        except trio.Cancelled:
            assert host.nursery is not None
            try:
                host.nursery.start_soon(self._see_out, mine, until, name="trioktor closing")
            except RuntimeError:  # that nursery is over, and all that ran in it
                pass
            raise

    async def _see_out(self, mine: set[trio.lowlevel.Task], until: float) -> None:
        """Wait until that time for whatever is not `mine`, and cancel it then."""
        for stubborn in await self._host.running.see_out(mine, until):
            logger.warning("the server has closed, but a handler does not heed its cancellation: %s", stubborn)

    @property
    def max_connections(self) -> int:
        """Connections that are let in at once."""
        limit = self._host.limits.max_connections
        assert limit is not None
        return limit

    @property
    def has_page(self) -> bool:
        """Whether something answers a plain GET of "/"."""
        return self._host.application.registry.has_page


def listening_on(listener: Listener) -> Any:
    """The name of what a listener listens on, as `getsockname` gives it; None if it has none."""
    inner = listener.transport_listener if isinstance(listener, trio.SSLListener) else listener
    try:
        return inner.socket.getsockname() if isinstance(inner, trio.SocketListener) else None
    except OSError:  # it is closed
        return None


async def serve(
    app: Application,
    port: int | None = None,
    *,
    host: str | None = None,
    path: str | os.PathLike[str] | None = None,
    mode: int | None = None,
    listeners: Sequence[Listener] | None = None,
    backlog: int | None = None,
    ssl_context: ssl.SSLContext | None = None,
    open_timeout: float = 10,
    response_timeout: float | None = 30,
    shutdown_grace: float = 5,
    max_head_size: int = 16384,
    max_headers: int = 100,
    max_connections: int | None = None,
    max_connections_per_address: int | None = None,
    max_opening: int | None = None,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an application until `Server.aclose`, or cancellation.

    Args:
      port: TCP port; 0 takes a free one, the same on every address.
      host: address or name to listen on; None is every interface.
      path: a UNIX socket instead of a port.
      mode: who may connect to it, as `chmod` has it, such as 0o660; None leaves that to the umask.
      listeners: ready-made listeners instead of a port; closed at the end.
      backlog: as `trio.open_tcp_listeners`.
      ssl_context: speak TLS.
      open_timeout: seconds for TLS and the request's head together; and as many again for the hooks.
      response_timeout: seconds for a GET handler to return its response, or it is cancelled: 503. None is for ever.
      shutdown_grace: seconds for handlers to return after `Server.aclose`; those that take no more messages have
        `handler_grace`, if that is less.
      max_head_size, max_headers: limits of a request's head, in bytes and lines.
      max_connections: connections that are let in at once; beyond, 503. None is as many as the open files that
        the process may have (RLIMIT_NOFILE) leave room for: `Server.max_connections`.
      max_connections_per_address: the same for one client's address, of which IPv6 has a /64; behind a trusted
        proxy the address is what the proxy says. Clients of a UNIX socket are not told apart. None is no limit.
      max_opening: connections that may be without their request, or being refused; beyond, the one that has been
        so longest is cut. None goes by RLIMIT_NOFILE, too: 1,000 at most.
      handler_nursery: where connections run, if they are to outlive this call; it owns them then.
      task_status: reports the `Server` once it accepts connections.

    Raises:
      ValueError: not exactly one of port, path and listeners, or an argument that makes no sense; nothing has
        been opened then.
      TypeError: `app` is no `Application`, or `ssl_context` no context.
      OSError: it cannot listen there.
    """
    _check_not_imported()
    if not isinstance(app, Application):
        raise TypeError(f"serve wants an Application, not {app!r}")
    if sum(option is not None for option in (port, path, listeners)) != 1:
        raise ValueError("give exactly one of port, path and listeners")
    Arguments(
        port=port,
        host=host,
        path=path,
        mode=mode,
        listeners=listeners,
        backlog=backlog,
        ssl_context=ssl_context,
        open_timeout=open_timeout,
        response_timeout=response_timeout,
        shutdown_grace=shutdown_grace,
        max_head_size=max_head_size,
        max_headers=max_headers,
        max_connections=max_connections,
        max_connections_per_address=max_connections_per_address,
        max_opening=max_opening,
        handler_nursery=handler_nursery,
    )
    places, opening = default_places()
    limits = Limits(
        open_timeout=open_timeout,
        response_timeout=response_timeout,
        max_head_size=max_head_size,
        max_headers=max_headers,
        max_connections=places if max_connections is None else max_connections,
        max_connections_per_address=max_connections_per_address,
        max_opening=opening if max_opening is None else max_opening,
    )
    connections = Host(app, limits)
    opened: list[Listener] = list(listeners or ())
    if port is not None:
        opened.extend(await open_tcp(port, host=host, backlog=backlog))
    if path is not None:
        opened.append(await open_unix(path, backlog=backlog, mode=mode))
    identity = None if path is None else unix_identity(path)
    if ssl_context is not None:
        opened = wrap_tls(opened, ssl_context)
    server = Server(connections, opened, shutdown_grace)
    try:
        async with trio.open_nursery() as nursery:
            await _accept(server, connections, handler_nursery or nursery, task_status, owns=handler_nursery is None)
    except BaseExceptionGroup as group:
        raise_single(group)
    finally:
        if path is not None:
            remove_unix(path, identity)


async def _accept(
    server: Server, host: Host, nursery: trio.Nursery, task_status: trio.TaskStatus[Server], *, owns: bool
) -> None:
    host.nursery = nursery
    try:
        if Poller.is_possible():
            host.poller = Poller()
            nursery.start_soon(host.poller.run, name="trioktor poller")
            nursery.start_soon(host.poller.later.run, name="trioktor later")
            nursery.start_soon(host.poller.looks.run, name="trioktor looks")
            nursery.start_soon(host.poller.lending.run, name="trioktor lending")
        with host.listening:
            task_status.started(server)
            await accept_all(server.listeners, host.handle, host.handle_socket, nursery)
        if owns:
            await host.running.wait_gone(host.running.others())
    except BaseException:
        # Handlers that are slow to notice their cancellation must not delay the others' goodbye.
        host.cancel_opening()
        if owns:
            host.stop.begin()
        raise
    finally:
        if host.poller is not None:
            host.poller.close()


def raise_single(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Raise what matters most of a group: Ctrl-C, an exit, an error; or the group if there are several."""
    for kind in (KeyboardInterrupt, SystemExit):
        found = group.subgroup(kind)
        if found is not None:
            raise first_leaf(found) from None
    cancelled, rest = group.split(trio.Cancelled)
    if rest is None:
        assert cancelled is not None
        raise first_leaf(cancelled) from None
    alone = unwrapped(rest)
    reraise(group if isinstance(alone, BaseExceptionGroup) else alone)
