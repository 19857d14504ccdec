"""How bytes reach the network: plain sockets directly, any other stream through its methods.

A plain TCP or UNIX socket is read and written on the standard library's socket, with Trio's
`wait_readable` and `wait_writable` for the waiting: that saves a failed `recv` for every read, and a task
switch for every write that the system takes at once. Everything else (TLS, memory streams, whatever has
`receive_some` and `send_all`) goes through `StreamTransport`.

Both tell the same story upwards: `receive` gives b"" at the end of the stream; a write that makes no
progress for `write_timeout` raises `WriteTimeout`, and what it had handed over by then is torn, so the
transport is good for closing only. The streams' own errors come out as `trio.BrokenResourceError`.
"""

from __future__ import annotations

import math
import select
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final, final

import trio

from ..errors import WriteTimeout

CHUNK: Final = 65536
"""Bytes of one read, and of one write to a stream: a chunk taken is progress."""

_HANG_UP: Final = getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)


class Transport(ABC):
    """A byte stream that one reader and one writer use at a time.

    `write_timeout` (seconds, or None) bounds each wait for progress; `on_progress` is called whenever a
    write that had to wait got on.
    """

    __slots__ = ("on_progress", "write_timeout")

    client: tuple[str, int] | str | None
    is_secure: bool
    takes_nowait: ClassVar[bool] = False
    """Whether `send_nowait` is of any use."""

    def __init__(self) -> None:
        self.write_timeout: float | None = None
        self.on_progress: Callable[[], None] | None = None

    @abstractmethod
    async def receive(self) -> bytes:
        """Wait for bytes; at most 64 KiB, and b"" at the end of the stream.

        Raises:
          trio.BrokenResourceError: the connection is lost.
        """

    @abstractmethod
    async def send(self, data: bytes | memoryview) -> None:
        """Hand `data` to the system. No checkpoint if a plain socket takes all of it at once.

        Raises:
          trio.BrokenResourceError: the connection is lost.
          WriteTimeout: the peer took nothing for `write_timeout`.
        """

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Hand over as many bytes of `data` as the system takes without waiting; returns how many.

        Always 0 where the stream cannot say.

        Raises:
          trio.BrokenResourceError: the connection is lost.
        """
        return 0

    @abstractmethod
    def receive_nowait(self) -> bytes:
        """What can be read without waiting, or b""; never raises."""

    @abstractmethod
    async def send_eof(self) -> None:
        """Half-close, where the stream can; never raises `OSError` or a resource error."""

    @abstractmethod
    def has_hung_up(self) -> bool:
        """Whether the system reports the connection as gone without a read."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close at once, without ceremony. A checkpoint; closes even if cancelled; may be repeated."""

    def _waiting(self) -> trio.CancelScope:
        return trio.move_on_after(math.inf if self.write_timeout is None else self.write_timeout)

    def _progressed(self, *, is_any: bool) -> None:
        if not is_any:
            raise WriteTimeout(f"the peer took nothing for {self.write_timeout:g} s")
        if self.on_progress is not None:
            self.on_progress()


@final
class SocketTransport(Transport):
    """A plain stream socket, taken out of Trio's hands with `detach()`."""

    __slots__ = ("_socket", "client", "is_secure")
    takes_nowait = True

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__()
        inner = stream.socket
        family, kind, proto = inner.family, inner.type, inner.proto
        self._socket = socket.socket(family, kind, proto, fileno=inner.detach())
        self._socket.setblocking(False)
        self.client: tuple[str, int] | str | None = _peer_name(self._socket)
        self.is_secure: bool = False

    async def receive(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(CHUNK)
            except BlockingIOError:
                continue  # woken for nothing
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error

    async def send(self, data: bytes | memoryview) -> None:
        sent = self.send_nowait(data)
        if sent < len(data):
            with memoryview(data) as view:
                while sent < len(data):
                    with self._waiting() as scope:
                        await trio.lowlevel.wait_writable(self._socket)
                    # Some room is not "writable" for the system until it is a good part of the buffer.
                    taken = self.send_nowait(view[sent:])
                    self._progressed(is_any=taken > 0 or not scope.cancelled_caught)
                    sent += taken

    def send_nowait(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    def receive_nowait(self) -> bytes:
        try:
            return self._socket.recv(CHUNK)
        except OSError:
            return b""

    async def send_eof(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        await trio.lowlevel.checkpoint()

    def has_hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, 0)  # hang-up and error are always reported
        return any(event & _HANG_UP for _, event in poll.poll(0))

    async def aclose(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()


@final
class StreamTransport(Transport):
    """Any other `trio.abc.Stream`: TLS, a memory stream, one of the user's own."""

    __slots__ = ("_stream", "client", "is_secure")

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__()
        self._stream = stream
        self.is_secure: bool = isinstance(stream, trio.SSLStream)
        below: object = stream
        while isinstance(below, trio.SSLStream):
            below = below.transport_stream
        self.client: tuple[str, int] | str | None = (
            _peer_name(below.socket) if isinstance(below, trio.SocketStream) else None
        )

    async def receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(CHUNK))
        except (OSError, ssl.SSLError, trio.ClosedResourceError) as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def send(self, data: bytes | memoryview) -> None:
        with memoryview(data) as view:
            for start in range(0, len(data), CHUNK):
                with self._waiting() as scope:
                    try:
                        await self._stream.send_all(view[start : start + CHUNK])
                    except (OSError, ssl.SSLError, trio.ClosedResourceError) as error:
                        raise trio.BrokenResourceError(str(error)) from error
                self._progressed(is_any=not scope.cancelled_caught)

    def receive_nowait(self) -> bytes:
        return b""

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            try:
                await self._stream.send_eof()
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                pass
        else:
            await trio.lowlevel.checkpoint()

    def has_hung_up(self) -> bool:
        return False

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)


def _peer_name(sock: socket.socket | trio.socket.SocketType) -> tuple[str, int] | str | None:
    """The peer's address: host and port, or a UNIX socket's path; None if it has no name."""
    try:
        name = sock.getpeername()
    except OSError:
        return None
    return (name or None) if isinstance(name, str) else (name[0], name[1])


def open_transport(stream: trio.abc.Stream) -> Transport:
    """The transport that fits a stream."""
    if type(stream) is trio.SocketStream:
        return SocketTransport(stream)
    return StreamTransport(stream)
