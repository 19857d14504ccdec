"""Inflating the messages of one direction (RFC 7692 §7.2.2), within bounds.

What is inflated is bounded while it is inflated: at most one byte more than the limit ever exists. Short messages take
one call of zlib. Long ones are worked on in slices, of their input as of their output, so that others get their turn
between them: there are blocks that take long to read and give nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, final

from .close import CloseCode
from .errors import FrameTooBig, ProtocolError
from .extensions import Steps
from .first_byte import RSV1
from .frames import Frame
from .from_wire import frame_from_wire, message_from_wire

TAIL: Final = b"\x00\x00\xff\xff"
"""The end of a flushed block, which stays away from the wire."""
SLICE: Final = 1 << 15
"""Bytes between two pauses: about a millisecond of compressing."""
_AT_ONCE: Final = 1 << 12
"""Bytes of a message that may be inflated in one call, to a slice at most."""
_SHORT_VIEW: Final = 256
_CALL: Final = 256
"""What a call of zlib costs, in bytes of work."""
_MAX_BLOCKS: Final = 64
_BYTES_PER_BLOCK: Final = 64
"""A message may have so many blocks that end its data, and one more for so many bytes: each costs a new inflater."""


class _Begun(NamedTuple):
    """What a first call of zlib has done of a message, and of the end that belongs to it."""

    taken: int = 0
    size: int = 0
    is_more: bool = False


_NOTHING: Final = _Begun()


def _not_deflate(error: zlib.error) -> ProtocolError:
    return ProtocolError(f"not deflate data: {error}", CloseCode.NOT_CONSISTENT)


@final
class Inflater:
    """Inflate one message after the other.

    Args:
      bits: the size of the peer's window.
      forgets: whether it starts afresh with each message.
    """

    __slots__ = ("_bits", "_decompressor", "_forgets")

    def __init__(self, bits: int, *, forgets: bool) -> None:
        self._bits = bits
        self._forgets = forgets
        self._decompressor: Any = None

    def inflate_in_steps(self, message: Frame, max_size: int | None) -> Steps:
        """Inflate a message slice by slice.

        Raises:
          FrameTooBig: it would be longer than `max_size`; one byte more was made, and no more.
          ProtocolError: 1007, it is not deflate data.
        """
        return (yield from self._go_on(message, max_size, b"", _NOTHING))

    def begin(self, message: Frame, max_size: int | None) -> Frame | Steps:
        """Inflate a short message in one call of zlib, if that is all it takes; as `inflate_in_steps`."""
        data = message.data
        if not 0 < len(data) <= _AT_ONCE:
            return self.inflate_in_steps(message, max_size)
        decompressor = self._decompressor
        if decompressor is None:
            decompressor = self._decompressor = zlib.decompressobj(-self._bits)
        room = SLICE if max_size is None or max_size >= SLICE else max_size + 1
        try:
            piece = decompressor.decompress(data + TAIL, room)
        except zlib.error as error:
            raise _not_deflate(error) from None
        if decompressor.eof or len(piece) == room or decompressor.unconsumed_tail:
            if max_size is not None and len(piece) > max_size:
                raise FrameTooBig(len(piece), max_size)
            left = len(decompressor.unused_data if decompressor.eof else decompressor.unconsumed_tail)
            if decompressor.eof:
                self._decompressor = None
            taken = len(data) + len(TAIL) - left
            begun = _Begun(taken, len(piece), len(piece) == room and self._decompressor is not None)
            return self._go_on(message, max_size, piece, begun)
        if self._forgets:
            self._decompressor = None
        return message_from_wire(message.first_byte & ~RSV1, piece)

    def _go_on(self, message: Frame, max_size: int | None, first: bytes, begun: _Begun) -> Steps:
        pieces: list[bytes] = [first] if first else []
        inflating = self._inflate(message.data, max_size, begun)
        work = 0
        for piece, cost in inflating:
            if piece:
                pieces.append(piece)
            work += cost
            if work >= SLICE:
                work = 0
                yield
        if self._forgets:
            self._decompressor = None
        return frame_from_wire(type(message), message.first_byte & ~RSV1, b"".join(pieces))

    def _inflate(self, data: bytes, max_size: int | None, begun: _Begun) -> Iterator[tuple[bytes, int]]:
        """What the bytes of a message inflate to, call by call of zlib, and about how many bytes each worked on.

        zlib copies what it leaves of its input, so it is given a view of bounded length; a short one behind a block
        that ends the data, since there may be many of these.
        """
        size = begun.size
        blocks = int(begun.taken > 0 and self._decompressor is None)  # the first call came to a last block
        start = begun.taken
        if not data:  # RFC 7692 §7.2.3.6 has a longer form for it, but there is nothing else that it could say
            return
        for view in (memoryview(data), memoryview(TAIL)):
            position, step, is_more = min(start, len(view)), SLICE, begun.is_more and start <= len(view)
            start = max(0, start - len(view))
            if view.obj is TAIL and self._decompressor is None and begun.taken <= len(data):
                return  # RFC 7692 §7.2.3.4: the last block said so itself
            while position < len(view) or is_more:
                if self._decompressor is None:
                    self._decompressor = zlib.decompressobj(-self._bits)
                decompressor = self._decompressor
                fed = view[position : position + step]
                room = SLICE if max_size is None else min(SLICE, max_size - size + 1)
                try:
                    piece = decompressor.decompress(fed, room)
                except zlib.error as error:
                    raise _not_deflate(error) from None
                size += len(piece)
                if max_size is not None and size > max_size:
                    raise FrameTooBig(size, max_size)
                if decompressor.eof:  # RFC 7692 §7.2.3.4: the last of all blocks, and yet more may follow
                    self._decompressor = None
                    left, is_more, step = len(decompressor.unused_data), False, _SHORT_VIEW
                    blocks += 1
                    if blocks > _MAX_BLOCKS + len(data) // _BYTES_PER_BLOCK:
                        raise ProtocolError("a message of too many last blocks", CloseCode.VIOLATED_POLICY)
                else:
                    left, is_more, step = len(decompressor.unconsumed_tail), len(piece) == room, min(SLICE, 2 * step)
                taken = len(fed) - left
                position += taken
                yield piece, taken + len(piece) + _CALL
