"""Plain TCP and UNIX sockets, read and written on the standard library's socket.

Trio's `wait_readable` and `wait_writable` do the waiting. That saves a failed `recv` for every read, and a task
switch for every write that the system takes at once.

What is said later, a Pong say, should not wait behind much in the system. So a TCP socket counts as writable only while
little of what was written is unsent. In a long message nothing else can be said: while one is written more may be.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
from typing import TYPE_CHECKING, Final, final

import trio

from .patience import Patience
from .transport import LONG_WRITE, TARGET_READ, HangUp, Transport

if TYPE_CHECKING:
    from ..protocol._native import Filling

_ERROR: Final = getattr(select, "POLLERR", 0)
_HANG_UP: Final = getattr(select, "POLLHUP", 0)
ENDED: Final[int] = getattr(select, "POLLRDHUP", 0x2000 if sys.platform == "linux" else 0)
"""The peer has ended its half, of `poll` and `epoll`: Linux has it, though PyPy has no name for it."""
_UNSENT: Final = 1 << 14
"""Bytes that may wait unsent before a socket counts as full: as Trio has it."""
_UNSENT_OF_LONG: Final = 1 << 20
"""The same in the middle of a long message."""


def set_options(sock: socket.socket) -> bool:
    """Send at once what is written, and keep little of what was not sent; whether the system did so."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    except OSError:  # it is gone already, which its reader finds
        return False
    return keep_unsent(sock, _UNSENT)


def keep_unsent(sock: socket.socket, most: int) -> bool:
    """Let at most about so many bytes wait unsent; whether the system did so. Where it has no such limit it did."""
    try:
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, most)
    except OSError:  # it is gone already, or no TCP
        return False
    return True


def look_at(sock: socket.socket | trio.socket.SocketType) -> HangUp:
    """Whether the other end has hung up, as far as the system says so without a read."""
    if not hasattr(select, "poll"):  # Windows
        return HangUp.NO
    poll = select.poll()
    poll.register(sock.fileno(), ENDED)  # hang-up and error are always reported
    events = 0
    for _, event in poll.poll(0):
        events |= event
    # A UNIX socket hangs up though there may be something to read; TCP only when both directions are over.
    is_gone = events & _ERROR or (events & _HANG_UP and not is_unix(sock))
    return HangUp.FULL if is_gone else HangUp.HALF if events & (_HANG_UP | ENDED) else HangUp.NO


def is_unix(sock: socket.socket | trio.socket.SocketType) -> bool:
    """Whether this is a UNIX socket."""
    return sock.family == getattr(socket, "AF_UNIX", None)


def peer_name(sock: socket.socket | trio.socket.SocketType) -> tuple[str, int] | str | None:
    """The peer's address: host and port, or a UNIX socket's path; None if it has no name.

    Told apart by the family, not by the shape of the name: one in Linux' abstract namespace is bytes, and begins
    with a zero; it is shown with an @ instead.
    """
    try:
        name = sock.getpeername()
    except OSError:
        return None
    if not is_unix(sock):
        return name[0], name[1]
    if isinstance(name, bytes):
        return "@" + name[1:].decode("utf-8", "backslashreplace") if name[1:] else None
    return name or None


@final
class SocketTransport(Transport):
    """A plain stream socket, which it owns from now on.

    Args:
      client: host and port of the peer, if they are known already.
    """

    __slots__ = ("_has_waited", "_socket", "client", "is_local")
    takes_nowait = True
    is_secure = False

    def __init__(self, sock: socket.socket, client: tuple[str, int] | None = None) -> None:
        super().__init__()
        self._socket = sock
        self._has_waited = False  # a task may wait for it in Trio's hands
        sock.setblocking(False)
        self.client: tuple[str, int] | str | None = client or peer_name(sock)
        self.is_local: bool = client is None and is_unix(sock)

    @classmethod
    def of(cls, stream: trio.SocketStream) -> SocketTransport:
        """Take a stream's socket out of Trio's hands."""
        inner = stream.socket
        family, kind, proto = inner.family, inner.type, inner.proto
        return cls(socket.socket(family, kind, proto, fileno=inner.detach()))

    @classmethod
    async def connect(cls, host: str, port: int) -> SocketTransport:
        """Connect to an IP address over TCP. A checkpoint.

        Raises:
          OSError: nobody is there.
        """
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            sock.setblocking(False)
            set_options(sock)
            number = sock.connect_ex((host, port))
            if number in (errno.EINPROGRESS, errno.EWOULDBLOCK):
                await trio.lowlevel.wait_writable(sock)
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            else:
                await trio.lowlevel.checkpoint()
            if number:
                raise OSError(number, os.strerror(number))
            return cls(sock, (host, port))
        except BaseException:
            trio.lowlevel.notify_closing(sock)
            sock.close()
            raise

    async def receive(self) -> bytes:
        self._has_waited = True
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            data = self.read_nowait()
            if data is not None:  # else it was woken for nothing
                return data

    async def send(self, data: bytes | memoryview) -> None:
        is_long = len(data) >= LONG_WRITE
        if is_long:
            keep_unsent(self._socket, _UNSENT_OF_LONG)
        sent = self.send_nowait(data)
        if sent < len(data):
            await self._send_rest(memoryview(data)[sent:])
        if is_long:
            keep_unsent(self._socket, _UNSENT)

    async def _send_rest(self, rest: memoryview) -> None:
        patience = Patience(self.write_timeout)

        def send_some() -> bool:
            nonlocal rest
            taken = self.send_nowait(rest)
            if taken:  # else it was woken for nothing
                rest = rest[taken:]
                patience.renew()
                self.progressed()
            return taken > 0

        async def send_all() -> None:
            while rest:
                await self._wait_writable()
                send_some()

        while await patience.outlast(send_all):
            # Some room is not "writable" for the system until it is a good part of the buffer.
            if not send_some():
                raise self.timed_out()

    async def _wait_writable(self) -> None:
        self._has_waited = True
        try:
            await trio.lowlevel.wait_writable(self._socket)
        except trio.ClosedResourceError:
            pass  # it was closed, which the next write finds

    def send_nowait(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    def send_parts_nowait(self, parts: list[bytes]) -> int:
        if sys.platform == "win32":
            return super().send_parts_nowait(parts)
        is_long = len(parts[-1]) >= LONG_WRITE
        if is_long:
            keep_unsent(self._socket, _UNSENT_OF_LONG)
        try:
            return self._socket.sendmsg(parts)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        finally:
            if is_long:
                keep_unsent(self._socket, _UNSENT)

    def fileno(self) -> int:
        """The socket's number."""
        return self._socket.fileno()

    def read_nowait(self) -> bytes | None:
        try:
            return self._socket.recv(self.read_size)
        except BlockingIOError:
            return None
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    def read_into(self, target: Filling) -> int | None:
        """Read at most `TARGET_READ` bytes into the beginning of a target, without waiting.

        Returns how many; 0 at the end of the stream, None if there are none now.

        Raises:
          trio.BrokenResourceError: the connection is lost.
        """
        try:
            with memoryview(target) as view:
                return self._socket.recv_into(view[:TARGET_READ])
        except BlockingIOError:
            return None
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def send_eof(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def hang_up(self) -> HangUp:
        return look_at(self._socket)

    def close_nowait(self) -> bool:
        if self._socket.fileno() >= 0:
            if self._has_waited:
                trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        return True

    async def aclose(self) -> None:
        self.close_nowait()
        await trio.lowlevel.checkpoint()
