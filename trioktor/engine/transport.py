"""How bytes reach the network: what a connection asks of the stream below it.

Plain sockets (`engine.sockets`) and all other streams (`engine.streams`) tell the same story upwards: `receive` gives
b"" at the end of the stream; a write that makes no progress for `write_timeout`, our own pauses not counted, raises
`WriteTimeout`, and what it had handed over by then is torn, so the transport is good for closing only. The streams' own
errors come out as `trio.BrokenResourceError`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import ClassVar, Final, final

import trio

from ..config import EVERYTHING, Supports
from ..errors import WriteTimeout

CHUNK: Final = 65536
"""Bytes of one write to a stream: a chunk taken is progress."""
READ: Final = CHUNK + 14
"""Bytes of one read: a message of a chunk comes whole, with the longest of heads (RFC 6455 §5.2)."""
LONG_READ: Final = 1 << 18
"""Bytes of one read in the middle of a frame that is longer than that."""
LONG_WRITE: Final = 1 << 18
"""Bytes of a message from which on the system may keep more of it unsent."""
TARGET_READ: Final = 1 << 19
"""Bytes of one read into the place where they will stand: nothing is allocated for it."""

LINGER: Final = 0.5
"""Seconds for which input is thrown away behind the last bytes, so that a reset does not overtake them."""


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
    supports: Supports = EVERYTHING
    """What can be done over it."""

    def __init__(self) -> None:
        self.write_timeout: float | None = None
        self.read_size: int = READ
        self.on_progress: Callable[[], None] | None = None

    @abstractmethod
    async def receive(self) -> bytes:
        """Wait for bytes; at most `read_size`, and b"" at the end of the stream.

        Raises:
          trio.BrokenResourceError: the connection is lost.
        """

    def read_nowait(self) -> bytes | None:
        """As `receive`, but None where that would wait, and always where the stream cannot say.

        Raises:
          trio.BrokenResourceError: the connection is lost.
        """
        return None

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
    async def send_eof(self) -> None:
        """Half-close, where the stream can; never raises `OSError` or a resource error. No checkpoint of a socket."""

    async def linger(self) -> None:
        """End our half, and throw input away until the peer ends its own, at most `LINGER` seconds.

        Closing with unread input would reset the connection, and the reset overtake what the peer has not read.
        """
        with trio.move_on_after(LINGER):
            await self.send_eof()
            try:
                if self.read_nowait() != b"":  # most often the peer has ended it by now
                    while await self.receive():
                        pass
            except trio.BrokenResourceError:
                pass

    @abstractmethod
    def hang_up(self) -> HangUp:
        """Whether the peer has hung up, as far as the system says so without a read."""

    def close_nowait(self) -> bool:
        """Close, where that takes no waiting; False where it does. May be repeated."""
        return False

    @abstractmethod
    async def aclose(self) -> None:
        """Close, at once but for what ends the stream below (TLS), which is bounded. A checkpoint.

        Closes even if cancelled; may be repeated.
        """

    async def watch(self) -> None:
        """Enforce `write_timeout`, where `send` can't do so itself; beside it, until it is cancelled."""
        await trio.lowlevel.checkpoint()

    def progressed(self) -> None:
        """A write that had to wait got on."""
        if self.on_progress is not None:
            self.on_progress()

    def timed_out(self) -> WriteTimeout:
        """The error for a write that did not."""
        return WriteTimeout(f"the peer took nothing for {self.write_timeout:g} s")
