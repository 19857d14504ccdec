"""A connection that is cut at a byte."""

from __future__ import annotations

from typing import final

import trio


@final
class CutStream(trio.abc.HalfCloseableStream):
    """A stream that lets so many bytes out, and is gone then, in the middle of whatever it was."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, after: int) -> None:
        self._stream = stream
        self._left = after

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send up to the byte at which it is cut."""
        piece = bytes(data[: self._left])
        if piece:
            await self._stream.send_all(piece)
        self._left -= len(piece)
        if len(piece) < len(data) or not self._left:
            await self._stream.aclose()
            raise trio.BrokenResourceError("cut here")

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream below."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As the stream below."""
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        """As the stream below."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """As the stream below."""
        await self._stream.aclose()
