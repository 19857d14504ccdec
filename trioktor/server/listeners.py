"""Listeners: TCP on one port for every address, UNIX sockets, TLS round either.

Trio gives each address a port of its own when asked for port 0, and has no UNIX listeners; both are done
here, with its public parts.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import socket as stdlib_socket
import ssl
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, final

import trio

logger: logging.Logger = logging.getLogger("trioktor.server")

_ATTEMPTS: Final = 20
_FIRST_FD: Final = 3
"""The first file descriptor that a supervisor hands over: sd_listen_fds(3)."""


async def open_tcp(port: int, *, host: str | None, backlog: int | None) -> list[trio.SocketListener]:
    """Listen on every address of `host` (None: all interfaces), on the same number where port is 0.

    Raises:
      OSError: as `trio.open_tcp_listeners`.
    """
    for attempt in range(_ATTEMPTS):
        listeners = await _open(port, host, backlog)
        ports = {listener.socket.getsockname()[1] for listener in listeners}
        if len(ports) == 1:
            return listeners
        for listener in listeners:
            listener.socket.close()  # all of them, though this may be cancelled
        try:
            return await _open(min(ports), host, backlog)
        except OSError as error:
            # the number that one address had is taken on another
            if error.errno != errno.EADDRINUSE or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


async def _open(port: int, host: str | None, backlog: int | None) -> list[trio.SocketListener]:
    """As Trio does; an error of the system's names the place, as it names a file elsewhere."""
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    except OSError as error:
        if error.errno is not None:
            error.filename = f"port {port}" if host is None else f"{host} port {port}"
        raise


_BACKLOG: Final = 0xFFFF
"""Connections that may wait to be accepted, unless asked otherwise; the system has a bound of its own. As Trio's."""


async def open_unix(
    path: str | os.PathLike[str], *, backlog: int | None, mode: int | None = None
) -> trio.SocketListener:
    """Listen on a UNIX socket; a socket file that nobody listens on any more is replaced.

    `mode` says who may connect, as `chmod` has it; None leaves that to the process' umask.

    Raises:
      OSError: the path is in use, or is something else.
    """
    name = os.fspath(path)
    sock = trio.socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM)
    try:
        if await _is_stale(name):
            os.unlink(name)
        await sock.bind(name)
        try:
            if mode is not None:
                os.chmod(name, mode)  # before anybody can connect
            sock.listen(_BACKLOG if backlog is None else min(backlog, _BACKLOG))
        except BaseException:
            os.unlink(name)
            raise
        return trio.SocketListener(sock)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.errno is not None:  # else its text says it all
            error.filename = name
        raise


async def _is_stale(name: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.stat(name).st_mode):
            return False
    except FileNotFoundError:
        return False
    with trio.socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM) as probe:
        try:
            await probe.connect(name)
        except ConnectionRefusedError:
            return True
    return False


def unix_identity(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    """What tells the file of a UNIX socket from another one in its place; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns  # the number of a file that is gone may be given to the next


def remove_unix(path: str | os.PathLike[str], identity: tuple[int, ...] | None) -> None:
    """Remove the file of a UNIX socket, if it is still there, and still that one: a successor may have begun."""
    if identity is not None and unix_identity(path) == identity:
        try:
            os.unlink(path)
        except OSError:
            pass


def inherited_listeners() -> list[trio.SocketListener]:
    """The listening sockets that a supervisor handed over (systemd's socket activation: `LISTEN_FDS`).

    For `serve(listeners=…)` and `run(listeners=…)`. To be called once: the environment is cleared, so that
    child processes do not take the sockets for theirs.

    Raises:
      RuntimeError: none were handed over to this process.
      OSError: what was handed over is no listening socket.
    """
    pid, count = os.environ.pop("LISTEN_PID", None), os.environ.pop("LISTEN_FDS", None)
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or count is None or not count.isdecimal() or not int(count):
        raise RuntimeError("no listening sockets were handed over (LISTEN_PID and LISTEN_FDS do not name this process)")
    listeners = []
    with ExitStack() as opened:
        for number in range(_FIRST_FD, _FIRST_FD + int(count)):
            sock = opened.enter_context(stdlib_socket.socket(fileno=number))
            sock.setblocking(False)
            sock.set_inheritable(False)
            try:
                listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(sock)))
            except ValueError as error:
                raise OSError(errno.EINVAL, f"the file descriptor {number} is no listening socket: {error}") from None
        opened.pop_all()
    return listeners


def wrap_tls(
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]], context: ssl.SSLContext
) -> list[trio.abc.Listener[trio.abc.Stream]]:
    """Speak TLS on what these listeners accept, its end included (RFC 8446 §6.1)."""
    return [trio.SSLListener(listener, context) for listener in listeners]


NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""What `accept` says when the process, or the system, has no room for one more."""
PAUSE: Final = 0.1
"""Seconds after which that may have changed."""
_LINE_PERIOD: Final = 1.0
"""Seconds without a want of room after which it is over."""


@final
class Want:
    """A want of room, and what is logged of it: a line when it begins, and one when it is over."""

    def __init__(self) -> None:
        self.over_at: float = -math.inf
        self.is_known: bool = False

    def note(self, error: OSError) -> None:
        """There is no room now."""
        self.over_at = trio.current_time() + _LINE_PERIOD
        if not self.is_known:
            self.is_known = True
            logger.error("no more connections can be accepted: %s; those that come wait", error.strerror)

    def look(self) -> None:
        """See whether it is over."""
        if self.is_known and trio.current_time() >= self.over_at:
            self.is_known = False
            logger.warning("connections are accepted again")


@final
class PatientListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener that waits while there is no room for one more connection.

    What was accepted before goes on meanwhile; what connects waits in the system's backlog.
    """

    def __init__(self, inner: trio.abc.Listener[trio.abc.Stream], want: Want) -> None:
        self._inner = inner
        self._want = want

    async def accept(self) -> trio.abc.Stream:
        """The next connection. A checkpoint.

        Raises:
          OSError: anything but a want of room.
          trio.ClosedResourceError: it is closed.
        """
        want = self._want
        while True:
            with trio.move_on_at(want.over_at if want.is_known else math.inf):
                try:
                    stream = await self._inner.accept()
                    want.look()
                    return stream
                except OSError as error:
                    if error.errno not in NO_ROOM:
                        raise
                    want.note(error)
                await trio.sleep(PAUSE)
            want.look()

    async def aclose(self) -> None:
        """Accept no more. A checkpoint."""
        await self._inner.aclose()
