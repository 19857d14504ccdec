"""Bytes to frames (RFC 6455 §5.2), one pass, cut anywhere.

`FrameParser.feed` is a generator: it gives each frame as soon as it is complete, so that whoever carries
the frames on can stop between two of them and nothing is parsed ahead of him. Frames that stand before a
violation come out first; then `ProtocolError` is raised, and the parser is of no further use.

A header is judged as soon as its bytes are there: an unknown opcode with the first two, a length beyond
the limit before a byte of payload is kept. A payload that arrives in several pieces is unmasked piece by
piece; what is kept is what arrived, whatever the header claims, in one buffer, however small the pieces. A
`BytesIO` is one that gives away what it holds without another copy. `take_partial` gives the new piece away,
so that text can be judged in the middle of a frame; while streaming it is given away for good, and a frame
may be of any size.

The native part looks for a few short whole messages at once, which is what most reads consist of. It stops at
anything else, and the loop here judges that.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

from .errors import FrameTooBig, ProtocolError
from .frames import (
    CONTROL,
    FIN,
    FRAME_CLASSES,
    KEPT_TEXT,
    MAX_CONTROL_BYTES,
    OPCODE,
    RESERVED,
    WHOLE_BINARY,
    WHOLE_TEXT,
    BinaryFrame,
    Frame,
    TextFrame,
    frame_from_wire,
    message_from_wire,
)
from .mask import rotate
from .native import join, mask, scan

_LENGTH_16 = 126
_LENGTH_64 = 127

_TOGETHER = 32
"""Pieces of a long frame that are kept as they came, to be joined and unmasked in one pass."""
_RUN = 16
"""Messages that are looked for at once; somebody may not want the rest yet."""
_RUN_BYTES = 1 << 13
"""Bytes of them."""


class FrameParser:
    """Parse the frames of one direction of one connection.

    Args:
      masked: whether the frames must be masked (those of a client must, those of a server must not be).
      max_frame_size: the limit in bytes for a frame and for the payloads of a message together; None is
        no limit. May be changed at any time and counts from the next header.
      whole_messages: False limits each frame alone, as a raw session wants it.
      reserved: the reserved bits that negotiated extensions own, as in `Frame.first_byte`.
    """

    __slots__ = (
        "_head",
        "_is_streaming",
        "_message_kind",
        "_message_size",
        "_missing",
        "_partial",
        "_partial_first_byte",
        "_partial_fresh",
        "_partial_key",
        "_partial_kind",
        "_partial_raw",
        "masked",
        "max_frame_size",
        "reserved",
        "whole_messages",
    )

    def __init__(
        self, *, masked: bool, max_frame_size: int | None, whole_messages: bool = True, reserved: int = 0
    ) -> None:
        self.masked: bool = masked
        self.max_frame_size: int | None = max_frame_size
        self.whole_messages: bool = whole_messages
        self.reserved: int = reserved
        self._head = b""  # the beginning of a header that is not complete
        # the message whose fragments are arriving
        self._message_kind: type[Frame] | None = None
        self._message_size = 0
        # the frame whose payload is arriving
        self._missing = 0
        self._partial_kind: type[Frame] = BinaryFrame
        self._partial_first_byte = 0
        self._partial_key: bytes | None = None
        self._partial: BytesIO | None = None  # what is kept of it
        self._partial_fresh = b""  # its last piece
        self._partial_raw: list[bytes] | None = None  # pieces behind that which are to be unmasked together
        self._is_streaming = False

    @property
    def kept(self) -> int:
        """Bytes that are kept of a frame that is not complete."""
        if self._partial is None:
            return 0
        return self._partial.tell() + sum(map(len, self._partial_raw or ()))

    @property
    def missing(self) -> int:
        """Bytes that are still to come of a frame that is kept until it is complete."""
        return 0 if self._is_streaming else self._missing

    def stream(self) -> None:
        """From now on keep nothing of data frames: `take_partial` has it, from the frame under way on."""
        self._is_streaming = True

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Give the frames that `data` completes; to be exhausted before the next call.

        Raises:
          ProtocolError: the bytes break a rule; its `close_code` is the answer to give.
        """
        position = 0
        if self._missing:
            position = self._add_payload(data)
            if self._missing:
                return
            yield self._complete_partial()
        elif self._head:
            data = self._head + data
            self._head = b""
        end = len(data)
        mask_bit, key_size = (0x80, 4) if self.masked else (0, 0)
        while end - position >= 2:
            if scan is not None and key_size and self._message_kind is None:
                limit = self.max_frame_size
                longest = KEPT_TEXT if limit is None or limit > KEPT_TEXT else limit
                run, position = scan(data, position, longest, _RUN, _RUN_BYTES)
                if run:
                    parts = iter(run)
                    for payload, text in zip(parts, parts, strict=True):
                        if self.max_frame_size is not limit:  # it was changed meanwhile
                            self._judge_whole(payload)
                        yield message_from_wire(payload, text)
                    continue
            first_byte = data[position]
            length = data[position + 1] ^ mask_bit
            if self._message_kind is None and first_byte == WHOLE_TEXT:
                kind: type[Frame] = TextFrame
            elif self._message_kind is None and first_byte == WHOLE_BINARY:
                kind = BinaryFrame
            else:
                kind = self._judge_first_byte(first_byte)
            if length >= _LENGTH_16:
                start = self._judge_length(first_byte, length, data, position, end)
                if not start:
                    break
                length = int.from_bytes(data[position + 2 : start], "big")
            else:
                start = position + 2
            if (limit := self.max_frame_size) is not None and length + self._message_size > limit:
                self._judge_size(first_byte, length, limit)
            payload_start = start + key_size
            if payload_start > end:
                break
            position = payload_start + length
            if position > end:
                key = data[start:payload_start] if key_size else None
                self._begin_partial(kind, first_byte, key, length, data[payload_start:])
                return
            payload = data[payload_start:position]
            if key_size and length:
                payload = mask(payload, data[start:payload_start])
            if first_byte != WHOLE_TEXT and first_byte != WHOLE_BINARY:
                self._note_fragment(kind, first_byte, length)
            yield frame_from_wire(kind, first_byte, payload)
        self._head = data[position:]

    def take_partial(self) -> Frame | None:
        """What the last bytes brought of a frame that is not complete: a frame of that head and these bytes.

        Each byte is given once; None when there is nothing new. The whole frame still comes from `feed`;
        while streaming this gives all that is kept, and `feed` only the part that was not taken before.
        """
        if self._partial is None:
            return None
        if self._is_streaming and not self._partial_first_byte & CONTROL:
            self._unmask_raw()
            self._partial_raw = None
            fresh, self._partial = self._partial.getvalue(), BytesIO()
        else:
            fresh = self._partial_fresh
        self._partial_fresh = b""
        return frame_from_wire(self._partial_kind, self._partial_first_byte, fresh) if fresh else None

    def _judge_first_byte(self, first_byte: int) -> type[Frame]:
        """The class of a frame with this first byte, which is not a plain whole message's."""
        stray = first_byte & RESERVED & ~self.reserved
        opcode = first_byte & OPCODE
        if stray or (first_byte & RESERVED and (opcode & CONTROL or opcode == 0)):
            # RFC 6455 §5.2; RFC 7692 §6.1 allows a bit on the first frame of a message only.
            raise ProtocolError(f"a reserved bit is set without an extension that uses it: {first_byte:#04x}")
        if opcode == 0:
            if self._message_kind is None:
                raise ProtocolError("a continuation frame, but no message to continue")  # RFC 6455 §5.4
            return self._message_kind
        kind = FRAME_CLASSES.get(opcode)
        if kind is None:
            raise ProtocolError(f"unknown opcode {opcode:#x}")
        if opcode & CONTROL:
            if first_byte < FIN:
                raise ProtocolError("control frames can't be fragmented")  # RFC 6455 §5.5
        elif self._message_kind is not None:
            raise ProtocolError("a new message before the fragmented one was finished")  # RFC 6455 §5.4
        return kind

    def _judge_length(self, first_byte: int, length: int, data: bytes, position: int, end: int) -> int:
        """Where an extended length ends, or 0 while its bytes are missing."""
        if length > _LENGTH_64:  # the mask bit is not what it has to be: RFC 6455 §5.1
            raise ProtocolError("a frame is not masked" if self.masked else "a frame is masked")
        if first_byte & CONTROL:
            raise ProtocolError(f"control frames can't be larger than {MAX_CONTROL_BYTES} bytes")  # RFC 6455 §5.5
        stop = position + (4 if length == _LENGTH_16 else 10)
        if stop > end:
            return 0
        claimed = int.from_bytes(data[position + 2 : stop], "big")
        # RFC 6455 §5.2: the minimal number of bytes MUST be used, and the most significant bit MUST be 0.
        if claimed <= (MAX_CONTROL_BYTES if length == _LENGTH_16 else 0xFFFF):
            raise ProtocolError(f"the length {claimed} is not written in the fewest bytes")
        if claimed >> 63:
            raise ProtocolError("the most significant bit of a length is set")
        return stop

    def _judge_size(self, first_byte: int, length: int, limit: int) -> None:
        if not first_byte & CONTROL and not self._is_streaming:
            raise FrameTooBig(length + self._message_size, limit)

    def _judge_whole(self, payload: bytes) -> None:
        limit = self.max_frame_size
        if limit is not None and len(payload) > limit:
            self._judge_size(WHOLE_BINARY, len(payload), limit)

    def _note_fragment(self, kind: type[Frame], first_byte: int, length: int) -> None:
        """Keep in mind whether a message is open after this complete frame, and how long it is."""
        if first_byte & CONTROL:
            return
        if first_byte >= FIN:
            self._message_kind = None
            self._message_size = 0
        else:
            self._message_kind = kind
            if self.whole_messages:
                self._message_size += length

    def _begin_partial(
        self, kind: type[Frame], first_byte: int, key: bytes | None, length: int, arrived: bytes
    ) -> None:
        self._partial_kind = kind
        self._partial_first_byte = first_byte
        self._partial_key = key
        self._partial = BytesIO()
        is_together = join is not None and kind is BinaryFrame and key is not None and not self._is_streaming
        self._partial_raw = [] if is_together else None
        self._missing = length
        if arrived:
            self._add_payload(arrived)

    def _add_payload(self, data: bytes) -> int:
        """Keep what `data` holds of the payload under way; returns how much that was."""
        assert self._partial is not None
        taken = min(len(data), self._missing)
        piece = data[:taken]
        key = self._partial_key
        self._missing -= taken
        if self._partial_raw is not None:
            self._partial_raw.append(piece)
            if len(self._partial_raw) >= _TOGETHER:
                self._unmask_raw()
            return taken
        if key is not None:
            piece = mask(piece, key)
            self._partial_key = rotate(key, taken)
        self._partial.write(piece)
        self._partial_fresh = piece
        return taken

    def _unmask_raw(self) -> None:
        """Unmask the pieces that were kept as they came, behind those before."""
        if self._partial_raw:
            assert self._partial is not None
            self._partial.write(self._joined_raw())

    def _joined_raw(self) -> bytes:
        pieces, key = self._partial_raw, self._partial_key
        assert join is not None
        assert pieces is not None
        assert key is not None
        joined = join(pieces, key)
        self._partial_key = rotate(key, len(joined))
        pieces.clear()
        return joined

    def _complete_partial(self) -> Frame:
        assert self._partial is not None
        if self._partial_raw and not self._partial.tell():
            payload = self._joined_raw()
        else:
            self._unmask_raw()
            payload = self._partial.getvalue()
        self._partial = self._partial_raw = None
        self._partial_fresh = b""
        self._note_fragment(self._partial_kind, self._partial_first_byte, len(payload))
        return frame_from_wire(self._partial_kind, self._partial_first_byte, payload)
