"""A frame whose payload is arriving in several pieces.

What is kept is what arrived, whatever the header claims, in one buffer, however small the pieces: a `BytesIO` gives
away what it holds without another copy. Each piece is unmasked as it comes. Of a Binary frame, which nobody has to look
into before it is complete, a native `Filling` keeps the pieces where there is one: a socket can be read straight into
it (`target`), and what was read is unmasked where it stands. It makes room for little more than 32 times what arrived,
and never for more than the frame.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, final

from .frames import BinaryFrame, Frame
from .from_wire import frame_from_wire
from .mask import rotate
from .native import Filling, mask

if TYPE_CHECKING:
    from ._native import Filling as NativeFilling


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

    __slots__ = ("_buffer", "_fresh", "_key", "_length", "first_byte", "kind", "missing", "target")

    def __init__(self, kind: type[Frame], first_byte: int, key: bytes | None, length: int, *, is_given: bool) -> None:
        self.kind: type[Frame] = kind
        self.first_byte: int = first_byte
        self.missing: int = length
        self._key = key
        self._length = length  # of what is kept of it, once that is complete
        is_filled = Filling is not None and kind is BinaryFrame and not is_given
        self.target: NativeFilling | None = Filling(length, key) if Filling is not None and is_filled else None
        self._buffer = BytesIO()
        self._fresh = b""  # the last piece

    @property
    def kept(self) -> int:
        """Bytes of it that are here."""
        return self._length - self.missing

    def add(self, data: bytes) -> int:
        """Keep what `data` holds of the payload; returns how much that was."""
        taken = min(len(data), self.missing)
        self.missing -= taken
        piece = data[:taken]
        if self.target is not None:
            self.target.append(piece)
            return taken
        if self._key is not None:
            piece = mask(piece, self._key)
            self._key = rotate(self._key, taken)
        self._buffer.write(piece)
        self._fresh = piece
        return taken

    def fill(self, count: int) -> None:
        """So many bytes of the payload were read into the target."""
        assert self.target is not None
        self.target.advance(count)
        self.missing -= count

    def take_fresh(self) -> Frame | None:
        """The last piece, once: a frame of this head and these bytes; it is kept all the same."""
        fresh, self._fresh = self._fresh, b""
        return frame_from_wire(self.kind, self.first_byte, fresh) if fresh else None

    def take_all(self) -> Frame | None:
        """All that is here, for good; from now on each piece is to be taken."""
        payload = self.payload()
        if self.target is not None and self._key is not None:
            self._key = rotate(self._key, len(payload))
        self._buffer, self.target, self._fresh = BytesIO(), None, b""
        self._length = self.missing
        return frame_from_wire(self.kind, self.first_byte, payload) if payload else None

    def payload(self) -> bytes:
        """The bytes that are here and were not taken."""
        return self._buffer.getvalue() if self.target is None else self.target.take()
