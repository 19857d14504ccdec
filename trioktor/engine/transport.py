"""How bytes reach the network: plain sockets directly, any other stream through its methods.

A plain TCP or UNIX socket is read and written on the standard library's socket, with Trio's
`wait_readable` and `wait_writable` for the waiting: that saves a failed `recv` for every read, and a task
switch for every write that the system takes at once. Everything else (TLS, memory streams, whatever has
`receive_some` and `send_all`) goes through `StreamTransport`.

Both tell the same story upwards: `receive` gives b"" at the end of the stream; a write that makes no
progress for `write_timeout`, our own pauses not counted, raises `WriteTimeout`, and what it had handed over by
then is torn, so the transport is good for closing only. The streams' own errors come out as `trio.BrokenResourceError`.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import ClassVar, Final, final

import trio

from ..errors import WriteTimeout
from .patience import Patience

CHUNK: Final = 65536
"""Bytes of one read, and of one write to a stream: a chunk taken is progress."""
LONG_READ: Final = 1 << 18
"""Bytes of one read in the middle of a frame that is longer than that."""

_ERROR: Final = getattr(select, "POLLERR", 0)
_HANG_UP: Final = getattr(select, "POLLHUP", 0)
_ENDED: Final = getattr(select, "POLLRDHUP", 0)  # Linux has it

LINGER: Final = 0.5
"""Seconds for which input is thrown away behind the last bytes, so that a reset does not overtake them."""
_GOODBYE_LIMIT: Final = 0.5
"""Seconds in which a peer must take the end of a TLS stream."""


@final
class HangUp(Enum):
    """What the system knows of the other end without a read."""

    NO = "it may say more"
    HALF = "it has said all that it will: behind what is unread is the end"
    FULL = "it is gone"


class Transport(ABC):
    """A byte stream that one reader and one writer use at a time.

    `write_timeout` (seconds, or None) bounds each wait for progress; `on_progress` is called whenever a
    write that had to wait got on; `read_size` is what `receive` takes at most.
    """

    __slots__ = ("on_progress", "read_size", "write_timeout")

    client: tuple[str, int] | str | None
    is_local: bool
    """Whether the peer is on this machine for certain: at a UNIX socket, or at a stream that is no socket at all."""
    is_secure: bool
    takes_nowait: ClassVar[bool] = False
    """Whether `send_nowait` is of any use."""

    def __init__(self) -> None:
        self.write_timeout: float | None = None
        self.read_size: int = CHUNK
        self.on_progress: Callable[[], None] | None = None

    @abstractmethod
    async def receive(self) -> bytes:
        """Wait for bytes; at most `read_size`, and b"" at the end of the stream.

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

    def send_parts_nowait(self, parts: list[bytes]) -> int:
        """As `send_nowait`, of several pieces together."""
        return self.send_nowait(b"".join(parts))

    @abstractmethod
    def receive_nowait(self) -> bytes:
        """What can be read without waiting, or b""; never raises."""

    @abstractmethod
    async def send_eof(self) -> None:
        """Half-close, where the stream can; never raises `OSError` or a resource error."""

    async def linger(self) -> None:
        """End our half, and throw input away until the peer ends its own, at most `LINGER` seconds.

        Closing with unread input would reset the connection, and the reset overtake what the peer has not read.
        """
        with trio.move_on_after(LINGER):
            await self.send_eof()
            try:
                while await self.receive():
                    pass
            except trio.BrokenResourceError:
                pass

    @abstractmethod
    def hang_up(self) -> HangUp:
        """Whether the peer has hung up, as far as the system says so without a read."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close, at once but for what ends the stream below (TLS), which is bounded. A checkpoint.

        Closes even if cancelled; may be repeated.
        """

    async def watch(self) -> None:
        """Enforce `write_timeout`, where `send` can't do so itself; beside it, until it is cancelled."""
        await trio.lowlevel.checkpoint()

    def _progressed(self) -> None:
        if self.on_progress is not None:
            self.on_progress()

    def _timed_out(self) -> WriteTimeout:
        return WriteTimeout(f"the peer took nothing for {self.write_timeout:g} s")


def _look_at(sock: socket.socket | trio.socket.SocketType) -> HangUp:
    poll = select.poll()
    poll.register(sock.fileno(), _ENDED)  # hang-up and error are always reported
    events = 0
    for _, event in poll.poll(0):
        events |= event
    # A UNIX socket hangs up though there may be something to read; TCP only when both directions are over.
    is_gone = events & _ERROR or (events & _HANG_UP and not _is_unix(sock))
    return HangUp.FULL if is_gone else HangUp.HALF if events & (_HANG_UP | _ENDED) else HangUp.NO


@final
class SocketTransport(Transport):
    """A plain stream socket, taken out of Trio's hands with `detach()`."""

    __slots__ = ("_socket", "client", "is_local", "is_secure")
    takes_nowait = True

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__()
        inner = stream.socket
        family, kind, proto = inner.family, inner.type, inner.proto
        self._socket = socket.socket(family, kind, proto, fileno=inner.detach())
        self._socket.setblocking(False)
        self.client: tuple[str, int] | str | None = _peer_name(self._socket)
        self.is_local: bool = _is_unix(self._socket)
        self.is_secure: bool = False

    async def receive(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            data = self.read_nowait()
            if data is not None:  # else it was woken for nothing
                return data

    async def send(self, data: bytes | memoryview) -> None:
        sent = self.send_nowait(data)
        if sent < len(data):
            patience = Patience(self.write_timeout)
            with memoryview(data) as view:
                while sent < len(data):
                    is_over = await patience.outlast(self._wait_writable)
                    # Some room is not "writable" for the system until it is a good part of the buffer.
                    taken = self.send_nowait(view[sent:])
                    if is_over and not taken:
                        raise self._timed_out()
                    patience.renew()
                    self._progressed()
                    sent += taken

    async def _wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self._socket)

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
        try:
            return self._socket.sendmsg(parts)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    def fileno(self) -> int:
        """The socket's number."""
        return self._socket.fileno()

    def read_nowait(self) -> bytes | None:
        """As `receive`, but None where that would wait.

        Raises:
          trio.BrokenResourceError: the connection is lost.
        """
        try:
            return self._socket.recv(self.read_size)
        except BlockingIOError:
            return None
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

    def hang_up(self) -> HangUp:
        return _look_at(self._socket)

    async def aclose(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()


@final
class StreamTransport(Transport):
    """Any other `trio.abc.Stream`: TLS, a memory stream, one of the user's own."""

    __slots__ = (
        "_below",
        "_is_closed",
        "_is_up",
        "_sending",
        "_since",
        "_stream",
        "_wake",
        "client",
        "is_local",
        "is_secure",
    )

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__()
        self._stream = stream
        self.is_secure: bool = isinstance(stream, trio.SSLStream)
        below: object = stream
        while isinstance(below, trio.SSLStream):
            below = below.transport_stream
        self._below = below.socket if isinstance(below, trio.SocketStream) else None
        self.client: tuple[str, int] | str | None = None if self._below is None else _peer_name(self._below)
        self.is_local: bool = self._below is None or _is_unix(self._below)
        self._is_up = False  # something was received: the handshake of TLS is done
        self._is_closed = False
        self._sending: trio.CancelScope | None = None  # round the chunk that is being sent
        self._since: Patience | None = None  # how long that may still take
        self._wake: trio.Event | None = None  # `watch` waits for something to be sent

    async def receive(self) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(self.read_size))
        except (OSError, ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if isinstance(error.__cause__, ssl.SSLEOFError):
                return b""  # the end of TLS was not said; but we know by ourselves whether more should have come
            raise trio.BrokenResourceError(str(error)) from error
        self._is_up = True
        return data

    async def send(self, data: bytes | memoryview) -> None:
        with memoryview(data) as view:
            for start in range(0, len(data), CHUNK):
                self._since = Patience(self.write_timeout)
                if self._wake is not None:
                    self._wake.set()
                with trio.CancelScope() as self._sending:
                    try:
                        await self._stream.send_all(view[start : start + CHUNK])
                    except (OSError, ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                        raise trio.BrokenResourceError(str(error)) from error
                if self._sending.cancelled_caught:
                    raise self._timed_out()
                self._sending = None
                self._progressed()

    async def watch(self) -> None:
        while self.write_timeout is not None:
            since = self._since
            if self._sending is None or since is None:
                self._wake = trio.Event()
                await self._wake.wait()
                self._wake = None
            elif since.is_over:
                self._sending.cancel("the peer took nothing")
                self._since = None
            else:
                asked = since.next_look()
                await trio.sleep_until(asked)
                since.woke(asked)

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

    def hang_up(self) -> HangUp:
        return HangUp.NO if self._below is None or self._below.fileno() < 0 else _look_at(self._below)

    async def aclose(self) -> None:
        # RFC 8446 §6.1: the end has to be said, unless a record that is half out stands before it. A stream that
        # was made to be https_compatible leaves it out by itself.
        if self.is_secure and self._is_up and self._sending is None and not self._is_closed:
            self._is_closed = True
            with trio.move_on_after(_GOODBYE_LIMIT):
                try:
                    await self._stream.aclose()
                except (OSError, ssl.SSLError, trio.BrokenResourceError):
                    pass
        await trio.aclose_forcefully(self._stream)


def _is_unix(sock: socket.socket | trio.socket.SocketType) -> bool:
    return sock.family == getattr(socket, "AF_UNIX", None)


def _peer_name(sock: socket.socket | trio.socket.SocketType) -> tuple[str, int] | str | None:
    """The peer's address: host and port, or a UNIX socket's path; None if it has no name.

    Told apart by the family, not by the shape of the name: one in Linux' abstract namespace is bytes, and begins
    with a zero; it is shown with an @ instead.
    """
    try:
        name = sock.getpeername()
    except OSError:
        return None
    if not _is_unix(sock):
        return name[0], name[1]
    if isinstance(name, bytes):
        return "@" + name[1:].decode("utf-8", "backslashreplace") if name[1:] else None
    return name or None


def open_transport(stream: trio.abc.Stream) -> Transport:
    """The transport that fits a stream."""
    if type(stream) is trio.SocketStream:
        return SocketTransport(stream)
    return StreamTransport(stream)
