"""`serve`: an application on listeners, and its end; `run`: the same as a program.

The end has two forms. `Server.aclose` is the graceful one: no new connections, Close 1001 to every
session, `shutdown_grace` for the handlers to return, then their cancellation. Cancelling the scope round
`serve` is the other: handlers are cancelled at once, and all connections together have one second for
their goodbye.
"""

from __future__ import annotations

import contextvars
import functools
import os
import signal
import ssl
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn, final

import attrs
import trio

from .application import Application
from .arguments import Arguments
from .base_session import BaseSession
from .engine.connection import STOP_LIMIT
from .engine.listeners import open_tcp, open_unix, remove_unix, wrap_tls
from .engine.outcome import first_leaf
from .host import Host, Limits
from .protocol.close import CloseCode, CloseReason

Listener = trio.abc.Listener[trio.abc.Stream]

_TO_OPEN: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to find what listens on every interface: only some systems open those addresses themselves."""


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
        self._listening = trio.CancelScope()
        self.listeners: Sequence[Listener] = tuple(listeners)

    @property
    def port(self) -> int:
        """The TCP port, the same on every address.

        Raises:
          RuntimeError: it listens on no TCP port, or on several.
        """
        ports = {name[1] for name in map(_address, self.listeners) if isinstance(name, tuple)}
        if len(ports) != 1:
            raise RuntimeError(f"this server has {len(ports)} TCP ports: look at its listeners")
        return int(ports.pop())

    @property
    def sessions(self) -> tuple[BaseSession, ...]:
        """The sessions that are running now."""
        return self._host.sessions

    async def aclose(self, reason: CloseReason | int = CloseCode.GOING_AWAY) -> None:
        """Stop gracefully: stop listening, close every session, wait, then cancel what is left.

        Waits for all sessions, but for the one whose handler calls this; at most about a second longer
        than `shutdown_grace`. May be called again. Cancelled, it stops waiting; the closing goes on.
        """
        if not isinstance(reason, CloseReason):
            reason = CloseReason(reason)
        host = self._host
        host.is_stopping = True
        self._listening.cancel("the server is closing")
        host.cancel_opening()
        for connection in host.connections():
            connection.close(reason)
        with trio.move_on_after(self._shutdown_grace):
            await host.wait_gone(host.connections())
        for connection in host.connections():
            connection.tasks.cancel("the server is closing")
            connection.stop_by(trio.current_time() + STOP_LIMIT)
        await host.wait_gone(host.connections())

    def _abort(self) -> None:
        """End without any goodbye."""
        self._host.stop.deadline = min(self._host.stop.deadline, trio.current_time())


def _address(listener: Listener) -> Any:
    inner = listener.transport_listener if isinstance(listener, trio.SSLListener) else listener
    return inner.socket.getsockname() if isinstance(inner, trio.SocketListener) else None


async def serve(
    app: Application,
    port: int | None = None,
    *,
    host: str | None = None,
    path: str | os.PathLike[str] | None = None,
    listeners: Sequence[Listener] | None = None,
    backlog: int | None = None,
    ssl_context: ssl.SSLContext | None = None,
    open_timeout: float = 10,
    shutdown_grace: float = 5,
    max_head_size: int = 16384,
    max_headers: int = 100,
    max_connections: int | None = None,
    max_connections_per_address: int | None = None,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an application until `Server.aclose`, or cancellation.

    Args:
      port: TCP port; 0 takes a free one, the same on every address.
      host: address or name to listen on; None is every interface.
      path: a UNIX socket instead of a port.
      listeners: ready-made listeners instead of a port; closed at the end.
      backlog: as `trio.open_tcp_listeners`.
      ssl_context: speak TLS.
      open_timeout: seconds for TLS and the request's head together.
      shutdown_grace: seconds for handlers to return after `Server.aclose`.
      max_head_size, max_headers: limits of a request's head, in bytes and lines.
      max_connections: beyond so many, 503.
      max_connections_per_address: beyond so many of one client's address, 503; behind a trusted proxy the
        address is what the proxy says. Clients of a UNIX socket are not told apart.
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
        listeners=listeners,
        backlog=backlog,
        ssl_context=ssl_context,
        open_timeout=open_timeout,
        shutdown_grace=shutdown_grace,
        max_head_size=max_head_size,
        max_headers=max_headers,
        max_connections=max_connections,
        max_connections_per_address=max_connections_per_address,
        handler_nursery=handler_nursery,
    )
    limits = Limits(
        open_timeout=open_timeout,
        max_head_size=max_head_size,
        max_headers=max_headers,
        max_connections=max_connections,
        max_connections_per_address=max_connections_per_address,
    )
    connections = Host(app, limits)
    opened: list[Listener] = list(listeners or ())
    if port is not None:
        opened.extend(await open_tcp(port, host=host, backlog=backlog))
    if path is not None:
        opened.append(await open_unix(path, backlog=backlog))
    if ssl_context is not None:
        opened = wrap_tls(opened, ssl_context)
    server = Server(connections, opened, shutdown_grace)
    try:
        async with trio.open_nursery() as nursery:
            await _accept(server, connections, handler_nursery or nursery, task_status, owns=handler_nursery is None)
    except BaseExceptionGroup as group:
        _raise_single(group)
    finally:
        if path is not None:
            remove_unix(path)


async def _accept(
    server: Server, host: Host, nursery: trio.Nursery, task_status: trio.TaskStatus[Server], *, owns: bool
) -> None:
    try:
        with server._listening:
            task_status.started(server)
            await trio.serve_listeners(host.handle, list(server.listeners), handler_nursery=nursery)
        if owns:
            await host.wait_gone(host.connections())
    except BaseException:
        # Handlers that are slow to notice their cancellation must not delay the others' goodbye.
        host.cancel_opening()
        if owns:
            host.stop.begin()
        raise


def _raise_single(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Raise what matters most of a group: Ctrl-C, an exit, an error; or the group if there are several."""
    for kind in (KeyboardInterrupt, SystemExit):
        found = group.subgroup(kind)
        if found is not None:
            raise first_leaf(found) from None
    cancelled, rest = group.split(trio.Cancelled)
    if rest is None:
        assert cancelled is not None
        raise first_leaf(cancelled) from None
    leaf = first_leaf(rest)
    raise leaf if len(rest.exceptions) == 1 else group


def run(app: Application, port: int | None = 8080, *, host: str | None = "127.0.0.1", **options: Any) -> None:
    """Serve an application as the whole program, until a signal.

    Prints the address, and where to open the page if there is one at "/" (`Application.get`). The first SIGINT
    or SIGTERM stops gracefully, and `run` returns; a second ends it at once, with exit status 130 or 143. The
    options are those of `serve`.

    Raises:
      SystemExit: after the second signal.
      ValueError, TypeError, OSError: as `serve`.
    """
    status = trio.run(functools.partial(_run, app, port, host=host, **options))
    if status:
        sys.exit(status)


async def _run(app: Application, port: int | None, *, host: str | None, **options: Any) -> int:
    if options.get("path") is not None or options.get("listeners") is not None:
        port = host = None
    status = 0
    try:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                server = await nursery.start(functools.partial(serve, app, port, host=host, **options))
                for line in describe(server):
                    print(line, flush=True)
                await anext(signals)
                async with trio.open_nursery() as stopping:
                    stopping.start_soon(_stop, server, stopping.cancel_scope)
                    status = 128 + await anext(signals)
                    server._abort()
                    nursery.cancel_scope.cancel("second signal")
                    stopping.cancel_scope.cancel("second signal")
    except BaseExceptionGroup as group:
        _raise_single(group)
    return status


async def _stop(server: Server, waiting: trio.CancelScope) -> None:
    await server.aclose()
    waiting.cancel("the server has stopped")


def describe(server: Server) -> list[str]:
    """One line for each address that a server listens on, and one for the page at "/", if there is one."""
    lines, pages = [], []
    for listener in server.listeners:
        name, is_secure = _address(listener), isinstance(listener, trio.SSLListener)
        if isinstance(name, tuple):
            lines.append(f"listening on {'wss' if is_secure else 'ws'}://{_authority(name[0], name[1])}")
            here = _authority(_TO_OPEN.get(name[0]) or name[0], name[1])
            pages.append(f"a page to try it: {'https' if is_secure else 'http'}://{here}/")
        else:
            lines.append(f"listening on {name or f'a {type(listener).__name__}'}")
    if server._host.application._has_page():
        lines.extend(pages[:1])
    return lines


def _authority(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
