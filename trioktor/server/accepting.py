"""Accepts connections, many at a wake-up where the listener is a plain socket.

What Trio's own listeners give is a socket and a stream of Trio's for each connection, after a wait for each. Here a
plain socket is taken as the system gives it, and nothing is made of it that nobody uses. Other listeners are asked one
connection at a time. All wait together while there is no room for one more connection.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import trio

from ..engine.sockets import set_options
from .listeners import NO_ROOM, PAUSE, PatientListener, Want

_AT_ONCE: Final = 64
"""Connections that are accepted in one step of the loop."""
_NAME: Final = "trioktor connection"
"""Of each task; one string for all."""

_NAMES: Final = (
    *("EPERM", "ECONNABORTED", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "EHOSTUNREACH"),
    *("EOPNOTSUPP", "ENETUNREACH", "ENOSR", "ESOCKTNOSUPPORT", "EPROTONOSUPPORT", "ETIMEDOUT", "ECONNRESET"),
)
_PASSING: Final = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))
"""What accept(2) may say of a connection that is gone already; the next one may be well."""

HandleStream: TypeAlias = "Callable[[trio.abc.Stream], Awaitable[None]]"
HandleSocket: TypeAlias = "Callable[[socket.socket, tuple[str, int] | None], Awaitable[None]]"


async def accept_all(
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    handle_stream: HandleStream,
    handle_socket: HandleSocket,
    nursery: trio.Nursery,
) -> None:
    """Accept until cancelled, and start a task in `nursery` for each connection; the listeners are closed then.

    Raises:
      OSError, trio.ClosedResourceError: a listener is of no more use.
    """
    want = Want()
    async with trio.open_nursery() as accepting:
        for listener in listeners:
            if type(listener) is trio.SocketListener and sys.platform != "win32":
                accepting.start_soon(_accept_sockets, listener, handle_socket, nursery, want)
            else:
                accepting.start_soon(_accept_streams, PatientListener(listener, want), handle_stream, nursery)


async def _accept_streams(listener: PatientListener, handle: HandleStream, nursery: trio.Nursery) -> None:
    async with listener:
        while True:
            nursery.start_soon(handle, await listener.accept(), name=_NAME)


async def _accept_sockets(
    listener: trio.SocketListener, handle: HandleSocket, nursery: trio.Nursery, want: Want
) -> None:
    # The same listening socket under another number: Trio's object has no `accept` that does not wait.
    async with listener:
        with socket.socket(fileno=os.dup(listener.socket.fileno())) as twin:
            twin.setblocking(False)
            # Linux hands the options of a listening socket on to what it accepts.
            is_tcp = _is_tcp(twin)
            is_inherited = not is_tcp or (sys.platform == "linux" and set_options(twin))
            at_once = 1
            while True:
                if want.is_known:
                    with trio.move_on_at(want.over_at):
                        await trio.lowlevel.wait_readable(listener.socket)
                else:
                    await trio.lowlevel.wait_readable(listener.socket)
                accepted = _accept_waiting(twin, at_once, is_tcp, is_inherited, handle, nursery, want)
                if accepted < 0:
                    await trio.sleep(PAUSE)
                # To ask whether there is one more costs as much as a connection's first read.
                at_once = min(2 * at_once, _AT_ONCE) if accepted == at_once else 1


def _is_tcp(sock: socket.socket) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6)


def _accept_waiting(
    listening: socket.socket,
    at_once: int,
    is_tcp: bool,
    is_inherited: bool,
    handle: HandleSocket,
    nursery: trio.Nursery,
    want: Want,
) -> int:
    """Accept what waits, at most so many; how many that were, or -1 if there was no room for one."""
    count = 0
    for _ in range(at_once):
        try:
            accepted, name = listening.accept()
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno in NO_ROOM:
                want.note(error)
                return -1
            if error.errno not in _PASSING:
                raise
            continue
        if not is_inherited:
            set_options(accepted)
        nursery.start_soon(handle, accepted, name[:2] if is_tcp else None, name=_NAME)
        count += 1
    want.look()
    return count
