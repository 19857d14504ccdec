"""The sending half of a stream: the one place from which bytes go out.

`write` hands bytes to the system. What that does not take at once is *pending*, and until `drain` has seen it
out nothing else can be written: a second `write` is an error, whoever calls it. So bytes of one frame never
stand inside another's, and nothing goes out before the answer to the handshake: something in its place is pending from
the beginning, until it is made.

Who may write at all is asked first, by `Outbox.is_wire_free`: without a writer whoever has something to say,
in one step; with one the writer alone, but while it is parked.
"""

from __future__ import annotations

from typing import Final, final

import trio

from .transport import CHUNK, Transport

_ANSWER: Final = b"the answer to the handshake"
"""Stands for it while it is not known yet."""


@final
class Wire:
    """Write to a transport, one whole piece after the other.

    Args:
      is_begun: False if an answer to the handshake has to go out first, which is no part of the conversation.

    Attributes:
      pending: what was written and is not with the system yet; to be looked at only.
    """

    __slots__ = ("_transport", "_written", "pending")

    def __init__(self, transport: Transport, *, is_begun: bool = True) -> None:
        self._transport = transport
        self.pending: bytes | memoryview = b"" if is_begun else _ANSWER
        self._written = 0

    @trio.lowlevel.enable_ki_protection  # between the bytes that went out and the keeping of the rest
    def answer(self, response: bytes) -> bool:
        """Write the answer to the handshake, which opens the wire; the same as `write`."""
        self.pending = b""
        self._written = -len(response)
        return self.write([response])

    @property
    def takes_parts(self) -> bool:
        """Whether a long part needs no copy to be written with others."""
        return self._transport.takes_nowait

    @property
    def is_clear(self) -> bool:
        """Whether all that was written is with the system."""
        return not self.pending

    @property
    def bytes_written(self) -> int:
        """Bytes that the system took."""
        return max(0, self._written)

    def write(self, parts: list[bytes]) -> bool:
        """Write bytes, which may be in parts; False if some are pending, and `drain` has to see them out.

        A long part at the end is not copied where the system takes parts.

        Raises:
          RuntimeError: something is pending already.
          trio.BrokenResourceError: the connection is lost.
        """
        if self.pending:
            raise RuntimeError("two writers on one wire: something is pending")
        last = parts[-1] if parts else b""
        if len(last) < CHUNK:
            data = b"".join(parts)
            sent = self._transport.send_nowait(data)
            self._written += sent
            if sent < len(data):
                self.pending = memoryview(data)[sent:] if sent else data
            return not self.pending
        before = b"".join(parts[:-1])  # the system takes few parts at once
        sent = self._transport.send_parts_nowait([before, last] if before else [last])
        self._written += sent
        if sent < len(before):
            self.pending = memoryview(before + last)[sent:]
        elif sent < len(before) + len(last):
            self.pending = memoryview(last)[sent - len(before) :]
        return not self.pending

    async def drain(self) -> None:
        """Wait until nothing is pending. Cut short, what is pending is torn, and nothing more can be written.

        Raises:
          trio.BrokenResourceError, WriteTimeout: as `Transport.send`.
        """
        pending = self.pending
        assert pending is not _ANSWER
        if pending:
            await self._transport.send(pending)
            self._written += len(pending)
            self.pending = b""
