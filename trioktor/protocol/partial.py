"""A frame whose payload is arriving in several pieces.

What is kept is what arrived, whatever the header claims, in one buffer, however small the pieces: a `BytesIO` gives
away what it holds without another copy. Each piece is unmasked as it comes; but those of a long Binary frame, which
nobody has to look into before it is complete, are kept as they came, and joined and unmasked in one pass where the
native part is at work: up to `_TOGETHER` of them, or many small ones would cost more than they hold.
"""

from __future__ import annotations

from io import BytesIO
from typing import Final, final

from .frames import BinaryFrame, Frame
from .from_wire import frame_from_wire
from .mask import rotate
from .native import join, mask

_TOGETHER: Final = 32


@final
class PartialFrame:
    """What has arrived of one frame.

    Args:
      key: what it is masked with, or None.
      length: bytes of its payload.
      is_given: whether its pieces are taken as they come.

    Attributes:
      missing: bytes that are still to come.
    """

    __slots__ = ("_buffer", "_fresh", "_key", "_raw", "first_byte", "kind", "missing")

    def __init__(self, kind: type[Frame], first_byte: int, key: bytes | None, length: int, *, is_given: bool) -> None:
        self.kind: type[Frame] = kind
        self.first_byte: int = first_byte
        self.missing: int = length
        self._key = key
        self._buffer = BytesIO()
        self._fresh = b""  # the last piece
        is_joined = join is not None and kind is BinaryFrame and key is not None and not is_given
        self._raw: list[bytes] | None = [] if is_joined else None  # pieces behind those in the buffer, as they came

    @property
    def kept(self) -> int:
        """Bytes of it that are here."""
        return self._buffer.tell() + sum(map(len, self._raw or ()))

    def add(self, data: bytes) -> int:
        """Keep what `data` holds of the payload; returns how much that was."""
        taken = min(len(data), self.missing)
        self.missing -= taken
        piece = data[:taken]
        if self._raw is not None:
            self._raw.append(piece)
            if len(self._raw) >= _TOGETHER:
                self._unmask()
            return taken
        if self._key is not None:
            piece = mask(piece, self._key)
            self._key = rotate(self._key, taken)
        self._buffer.write(piece)
        self._fresh = piece
        return taken

    def take_fresh(self) -> Frame | None:
        """The last piece, once: a frame of this head and these bytes; it is kept all the same."""
        fresh, self._fresh = self._fresh, b""
        return frame_from_wire(self.kind, self.first_byte, fresh) if fresh else None

    def take_all(self) -> Frame | None:
        """All that is here, for good; from now on each piece is to be taken."""
        payload = self.payload()
        self._buffer, self._raw, self._fresh = BytesIO(), None, b""
        return frame_from_wire(self.kind, self.first_byte, payload) if payload else None

    def payload(self) -> bytes:
        """The bytes that are here and were not taken."""
        if self._raw and not self._buffer.tell():
            return self._joined(self._raw)
        self._unmask()
        return self._buffer.getvalue()

    def _unmask(self) -> None:
        """Unmask the pieces that are kept as they came."""
        if self._raw:
            self._buffer.write(self._joined(self._raw))

    def _joined(self, pieces: list[bytes]) -> bytes:
        assert join is not None
        assert self._key is not None
        joined = join(pieces, self._key)
        self._key = rotate(self._key, len(joined))
        pieces.clear()
        return joined
