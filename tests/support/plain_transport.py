"""A transport in memory that does what it is told, and keeps what was written, write by write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from tests.support.helpers import client_bytes
from tests.support.reading import FrameReader
from trioktor.engine.connection import Connection
from trioktor.engine.patience import Patience
from trioktor.engine.transport import HangUp, Transport
from trioktor.protocol.frames import CloseFrame, Frame
from trioktor.protocol.serializer import Serializer


class PlainTransport(Transport):
    """A stream that has to be awaited.

    Args:
      answers: whether the peer answers a Close; a server then closes the stream.
      client: whether ours is the client's side.

    Attributes:
      writes: what was taken, as it was written.
      room: bytes that the peer takes yet; None is any number.
      is_ended: whether our half was ended.
    """

    def __init__(self, *, answers: bool = True, client: bool = False) -> None:
        super().__init__()
        self._answers = answers
        self._is_client = client
        self._input = b""
        self._has_ended = False
        self._error: OSError | None = None
        self._change = trio.Event()
        self.writes: list[bytes] = []
        self.room: int | None = None
        self.is_ended: bool = False
        self.is_closed: bool = False
        self.client: tuple[str, int] | str | None = None
        self.is_local: bool = True
        self.is_secure: bool = False

    # the engine's side

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._input:
            self._fail()
            if self._has_ended:
                return b""
            await self._wait_change()
        data, self._input = self._input[: self.read_size], self._input[self.read_size :]
        return data

    async def send(self, data: bytes | memoryview) -> None:
        rest = bytes(data)
        patience = Patience(self.write_timeout)
        await trio.lowlevel.checkpoint()
        while True:
            taken = self._take(rest)
            rest = rest[taken:]
            if not rest:
                return
            if taken:
                self.progressed()
                patience.renew()
            if await patience.outlast(self._wait_change):
                raise self.timed_out()

    def _take(self, data: bytes) -> int:
        self._fail()
        taken = len(data) if self.room is None else min(self.room, len(data))
        if taken:
            self.writes.append(data[:taken])
        if self.room is not None:
            self.room -= taken
        frames = self.frames
        if self._answers and frames and isinstance(frames[-1], CloseFrame):
            self._answers = False
            self.say(frames[-1])
            self._has_ended = self._is_client
        return taken

    async def _wait_change(self) -> None:
        await self._change.wait()

    def _fail(self) -> None:
        if self.is_closed:
            raise trio.BrokenResourceError("closed")
        if self._error is not None:
            raise trio.BrokenResourceError("lost") from self._error

    def read_nowait(self) -> bytes | None:
        data, self._input = self._input, b""
        return data or None

    async def send_eof(self) -> None:
        self.is_ended = True
        await trio.lowlevel.checkpoint()

    def hang_up(self) -> HangUp:
        return HangUp.FULL if self._error is not None else HangUp.HALF if self._has_ended else HangUp.NO

    async def aclose(self) -> None:
        self.is_closed = True
        self._notify()
        await trio.lowlevel.checkpoint()

    # the peer's side

    def _notify(self) -> None:
        change, self._change = self._change, trio.Event()
        change.set()

    def say(self, *said: Frame | bytes) -> None:
        """The peer says frames, or bytes as they are."""
        serializer = Serializer(masking=False)
        for one in said:
            if isinstance(one, bytes):
                self._input += one
            elif self._is_client:
                pieces: list[bytes] = []
                serializer.add(one, pieces)
                self._input += b"".join(pieces)
            else:
                self._input += client_bytes(one)
        self._notify()

    def end(self) -> None:
        """The peer says no more."""
        self._has_ended = True
        self._notify()

    def lose(self, error: OSError) -> None:
        """The connection is lost."""
        self._error = error
        self._notify()

    def allow(self, room: int | None) -> None:
        """The peer takes so many bytes more."""
        self.room = room
        self._notify()

    @property
    def written(self) -> bytes:
        """All that was taken."""
        return b"".join(self.writes)

    @property
    def frames(self) -> list[Frame]:
        """The frames of it that are whole, behind the answer to the handshake, if there is one."""
        data = self.written
        if data.startswith(b"HTTP/"):
            data = data.partition(b"\r\n\r\n")[2]
        reader = FrameReader(client=not self._is_client, raw=True)
        return [frame for frame in reader.feed(data) if frame is not None]


class PlainSocket(PlainTransport):
    """The same, which takes what it can at once."""

    takes_nowait = True

    def send_nowait(self, data: bytes | memoryview) -> int:
        return self._take(bytes(data))


@asynccontextmanager
async def running(connection: Connection) -> AsyncIterator[trio.Nursery]:
    """Run a connection round the block, and finish it behind that."""
    async with trio.open_nursery() as nursery:
        connection.begin(nursery)
        try:
            yield nursery
        finally:
            with trio.CancelScope(shield=True):
                await connection.ending.finish()
            nursery.cancel_scope.cancel()


async def settle() -> None:
    """Let all tasks do what they can."""
    await trio.testing.wait_all_tasks_blocked()


def texts(*words: object) -> list[Frame]:
    """A message of each."""
    return [Frame.Text(str(word)) for word in words]
