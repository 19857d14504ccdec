"""Any stream that is no plain socket: TLS, memory streams, whatever has `receive_some` and `send_all`."""

from __future__ import annotations

import ssl
from typing import Final, NoReturn, final

import trio

from .patience import Patience
from .sockets import SocketTransport, is_unix, look_at, peer_name
from .transport import CHUNK, HangUp, Transport

_GOODBYE_LIMIT: Final = 0.5
"""Seconds in which a peer must take the end of a TLS stream."""


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
        self.client: tuple[str, int] | str | None = None if self._below is None else peer_name(self._below)
        self.is_local: bool = self._below is None or is_unix(self._below)
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
            self._raise_lost(error)
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
                        self._raise_lost(error)
                if self._sending.cancelled_caught:
                    raise self.timed_out()
                self._sending = None
                self.progressed()

    def _raise_lost(self, error: BaseException) -> NoReturn:
        """With what the system or TLS said: Trio's own error round that may say nothing."""
        cause = error.__cause__ or error
        raise trio.BrokenResourceError(str(cause)) from cause

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

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            try:
                await self._stream.send_eof()
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                pass
        else:
            await trio.lowlevel.checkpoint()

    def hang_up(self) -> HangUp:
        return HangUp.NO if self._below is None or self._below.fileno() < 0 else look_at(self._below)

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


def open_transport(stream: trio.abc.Stream) -> Transport:
    """The transport that fits a stream."""
    if type(stream) is trio.SocketStream:
        return SocketTransport.of(stream)
    return StreamTransport(stream)
