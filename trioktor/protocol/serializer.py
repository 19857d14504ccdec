"""Frames to bytes (RFC 6455 §5.2): the fewest length bytes, masked where the role asks for it.

The serializer also keeps the order of fragments: it knows the message that is open, gives continuations
their opcode 0, and refuses what the peer would have to refuse. It gives out pieces, not bytes, so that
whoever writes many frames joins them once.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import ClassVar

from .close import may_be_sent
from .errors import ProtocolError
from .first_byte import CONTROL, FIN, OPCODE, RESERVED, RSV1, WHOLE_BINARY, WHOLE_TEXT, FrameType
from .frames import CloseFrame, Frame, TextFrame, check_close
from .native import join, mask_frame

_LENGTH_16 = 126
"""From here on a length takes two bytes more."""
_SHORT = 1024
_NOT_COPIED = 1 << 16
"""Bytes from which on a payload is joined to nothing: whoever writes it hands it over as it is."""
_KEYS = 256
"""Bytes that are taken from the system's source at once: a call for each frame costs as much as the masking."""

new_text_decoder: Callable[[], codecs.IncrementalDecoder] = codecs.getincrementaldecoder("utf-8")
"""Judges a text piece by piece."""
new_byte_decoder: Callable[[], codecs.IncrementalDecoder] = codecs.getincrementaldecoder("latin-1")
"""Takes everything: a text whose bytes an extension has made."""


class Serializer:
    """Serialize the frames of one direction of one connection.

    Args:
      masking: whether to mask, with a fresh random key a frame (RFC 6455 §5.3); may be changed at any time.
      reserved: the reserved bits that negotiated extensions own.

    Attributes:
      heads: those of short messages, by the first byte; what has another one has to be judged.
    """

    __slots__ = ("_decoder", "_keys", "_mask_bit", "_next_key", "_open", "heads", "reserved")
    is_watched: ClassVar[bool] = False
    """Whether each frame has to pass by itself, in its turn."""

    def __init__(self, *, masking: bool, reserved: int = 0) -> None:
        self.reserved: int = reserved
        self.masking = masking
        self._keys = b""  # random bytes, four for each frame that is masked
        self._next_key = 0
        self._open: FrameType | None = None  # the type of the message whose fragments are going out
        self._decoder: codecs.IncrementalDecoder | None = None  # judges its text

    @property
    def masking(self) -> bool:
        """Whether what is written from now on is masked."""
        return self._mask_bit != 0

    @masking.setter
    def masking(self, on: bool) -> None:
        self._mask_bit = 0x80 if on else 0
        self.heads: Mapping[int, tuple[bytes, ...]] = _short_heads(self._mask_bit, self.reserved & RSV1)

    @property
    def is_in_message(self) -> bool:
        """Whether fragments of a message went out, and its last has not."""
        return self._open is not None

    def add(self, frame: Frame, pieces: list[bytes]) -> None:
        """Append the bytes of `frame` to `pieces`.

        Raises:
          ProtocolError: the frame may not be sent here; nothing was appended.
        """
        first_byte = frame.first_byte
        data = frame.data
        size = len(data)
        heads = self.heads.get(first_byte)
        if heads is None or self._open is not None or (first_byte == WHOLE_TEXT and frame.decoded is None):
            start = head(self._check(frame), size, self._mask_bit)
        else:
            start = heads[size] if size < _SHORT else head(first_byte, size, self._mask_bit)
        if self._mask_bit:
            pieces.append(self._masked(start, data))
            return
        pieces.append(start)
        if size:
            pieces.append(data)

    def _masked(self, start: bytes, data: bytes) -> bytes:
        at = self._next_key
        if at == len(self._keys):
            self._keys = os.urandom(_KEYS)
            at = 0
        self._next_key = at + 4
        return mask_frame(start, data, self._keys[at : at + 4])

    def add_control(self, frame: Frame, pieces: list[bytes]) -> None:
        """As `add`, of a control frame that was judged when it was made."""
        start = head(frame.first_byte, len(frame.data), self._mask_bit)
        pieces.append(self._masked(start, frame.data) if self._mask_bit else start + frame.data)

    def pieces_of(self, item: Frame | bytes) -> list[bytes]:
        """As `joined`, of one item alone; a `ProtocolError` inside the fragments of a message of another kind."""
        if isinstance(item, bytes):
            return [item]
        if join is not None and self._open is None and not self._mask_bit and len(item.data) < _NOT_COPIED:
            return [join([item])]
        pieces: list[bytes] = []
        self.add(item, pieces)
        return pieces

    def joined(self, items: list[Frame | bytes]) -> list[bytes]:
        """The bytes of whole messages that were judged, and what was made bytes before, in order.

        The last alone may be a long one, which is not copied.
        """
        pieces: list[bytes] = []
        heads, mask_bit = self.heads, self._mask_bit
        if join is not None and items and not mask_bit:
            last = items[-1]
            is_long = not isinstance(last, bytes) and len(last.data) >= _NOT_COPIED
            pieces.append(join(items[:-1] if is_long else items))
            items = items[-1:] if is_long else []
        for item in items:
            if isinstance(item, bytes):
                pieces.append(item)
                continue
            data = item.data
            size = len(data)
            start = heads[item.first_byte][size] if size < _SHORT else head(item.first_byte, size, mask_bit)
            pieces += (self._masked(start, data),) if mask_bit else (start, data)
        return pieces

    def _check(self, frame: Frame) -> int:
        """Check a frame against what went out before it; returns the first byte it has on the wire."""
        if frame.first_byte & RESERVED & ~self.reserved:
            raise ProtocolError(f"{frame!r}: a reserved bit needs an extension that uses it")
        if frame.first_byte & CONTROL:
            if type(frame) is CloseFrame:
                check_close(frame)
            return frame.first_byte
        if self._open is not None and self._open is not frame.type:
            raise ProtocolError(f"{frame!r}: inside the fragments of a {self._open.name} message")
        if type(frame) is TextFrame:
            if not frame.first_byte & RESERVED:
                self._check_text(frame)
            else:  # an extension has made it bytes, and all that follows
                self._decoder = new_byte_decoder() if frame.first_byte < FIN else None
        first_byte = frame.first_byte & ~OPCODE | (frame.type.opcode if self._open is None else 0)
        self._open = None if frame.first_byte >= FIN else frame.type
        return first_byte

    def _check_text(self, frame: TextFrame) -> None:
        last = frame.first_byte >= FIN
        decoder = self._decoder or new_text_decoder()
        try:
            decoder.decode(frame.data, last)
        except UnicodeDecodeError as error:
            raise ProtocolError(f"{frame!r}: not UTF-8: {error.reason}") from None
        self._decoder = None if last else decoder


def is_sendable(frame: CloseFrame) -> bool:
    """Whether a Close frame's code may be sent: not 1005, 1006, 1015 or unregistered (RFC 6455 §7.4)."""
    reason = frame.reason
    return reason is None or may_be_sent(reason.code)


def head(first_byte: int, size: int, mask_bit: int = 0) -> bytes:
    """The first bytes of a frame, up to its masking key."""
    if size < _LENGTH_16:
        return bytes((first_byte, mask_bit | size))
    if size < 0x10000:
        return bytes((first_byte, mask_bit | 126)) + size.to_bytes(2, "big")
    return bytes((first_byte, mask_bit | 127)) + size.to_bytes(8, "big")


@cache
def _short_heads(mask_bit: int, reserved: int) -> Mapping[int, tuple[bytes, ...]]:
    """The heads of short messages, which are most of them, ready made: 80 KiB for all connections together.

    With the reserved bit of compressed messages (RFC 7692), which an extension has looked at, as much again.
    """
    return {
        first_byte | bit: tuple(head(first_byte | bit, size, mask_bit) for size in range(_SHORT))
        for first_byte in (WHOLE_TEXT, WHOLE_BINARY)
        for bit in {0, reserved}
    }
