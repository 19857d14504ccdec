"""Bytes to frames (RFC 6455 §5.2), one pass, cut anywhere.

`FrameParser.feed` is a generator: it gives each frame as soon as it is complete, so that whoever carries
the frames on can stop between two of them and nothing is parsed ahead of him. Frames that stand before a
violation come out first; then `ProtocolError` is raised, and the parser is of no further use.

A header is judged as soon as its bytes are there: an unknown opcode with the first two, a length beyond
the limit before a byte of payload is kept. A payload that arrives in several pieces stands in a `PartialFrame`
until it is complete. `take_partial` gives the new piece away, so that text can be judged in the middle of a
frame; while streaming it is given away for good, and a frame may be of any size.

The native part looks for short whole messages, which is what most reads consist of: `single` and `run` give those at
the front of a read in one step, and `feed` a few at once. It stops at anything else, and the loop here judges that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .errors import FrameTooBig, ProtocolError
from .extensions import coded_limit
from .first_byte import CONTROL, FIN, MAX_CONTROL_BYTES, OPCODE, RESERVED, WHOLE_BINARY, WHOLE_TEXT
from .frames import KEPT_TEXT, BinaryFrame, Frame, TextFrame
from .from_wire import FRAME_CLASSES, MESSAGE_KINDS, frame_from_wire
from .native import mask, scan, single
from .partial import PartialFrame

if TYPE_CHECKING:
    from ._native import Filling

_LENGTH_16 = 126
_LENGTH_64 = 127

_RUN = 16
"""Messages that are looked for at once; somebody may not want the rest yet."""
_RUN_BYTES = 1 << 13
"""Bytes of them."""


class FrameParser:
    """Parse the frames of one direction of one connection.

    Args:
      masked: whether the frames must be masked (those of a client must, those of a server must not be).
      max_frame_size: the limit in bytes for a frame and for the payloads of a message together; None is no limit.
        May be changed at any time and counts from the next header. What an extension made may be a little longer.
      whole_messages: False limits each frame alone, as a raw session wants it.
      reserved: the reserved bits that negotiated extensions own, as in `Frame.first_byte`.
    """

    __slots__ = (
        "_head",
        "_is_coded",
        "_limit",
        "_longest",
        "_message_kind",
        "_message_size",
        "_partial",
        "is_streaming",
        "masked",
        "reserved",
        "whole_messages",
    )

    def __init__(
        self, *, masked: bool, max_frame_size: int | None, whole_messages: bool = True, reserved: int = 0
    ) -> None:
        self.masked: bool = masked
        self.max_frame_size = max_frame_size
        self.whole_messages: bool = whole_messages
        self.reserved: int = reserved
        self._head = b""  # the beginning of a header that is not complete
        # the message whose fragments are arriving
        self._message_kind: type[Frame] | None = None
        self._message_size = 0
        self._is_coded = False  # an extension made it
        self._partial: PartialFrame | None = None  # whose payload is arriving
        self.is_streaming: bool = False  # data frames are given away in pieces

    @property
    def max_frame_size(self) -> int | None:
        """The limit in bytes for a frame and for the payloads of a message together."""
        return self._limit

    @max_frame_size.setter
    def max_frame_size(self, size: int | None) -> None:
        self._limit = size
        self._longest = KEPT_TEXT if size is None or size > KEPT_TEXT else size  # that the native part looks for

    @property
    def kept(self) -> int:
        """Bytes that are kept of a frame that is not complete."""
        return 0 if self._partial is None else self._partial.kept

    @property
    def missing(self) -> int:
        """Bytes that are still to come of a frame that is kept until it is complete."""
        return 0 if self.is_streaming or self._partial is None else self._partial.missing

    @property
    def target(self) -> Filling | None:
        """What the rest of such a frame may be read into, to be told to `fill`; None if there is no such thing."""
        return None if self.is_streaming or self._partial is None else self._partial.target

    def fill(self, count: int) -> None:
        """So many bytes were read into the target; what comes of them is for `feed` to say, with nothing."""
        assert self._partial is not None
        self._partial.fill(count)

    def stream(self) -> None:
        """From now on keep nothing of data frames: `take_partial` has it, from the frame under way on."""
        self.is_streaming = True

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Give the frames that `data` completes; to be exhausted before the next call.

        Raises:
          ProtocolError: the bytes break a rule; its `close_code` is the answer to give.
        """
        position = 0
        partial = self._partial
        if partial is not None:
            position = partial.add(data)
            if partial.missing:
                return
            yield self._complete_partial(partial)
        elif self._head:
            data = self._head + data
            self._head = b""
        end = len(data)
        mask_bit, key_size = (0x80, 4) if self.masked else (0, 0)
        while end - position >= 2:
            if scan is not None and self._message_kind is None:
                limit, longest = self._limit, self._longest
                run, position = scan(data, position, longest, _RUN, _RUN_BYTES, self.reserved, key_size, MESSAGE_KINDS)
                if run:
                    for frame in run:
                        if self._limit is not limit:  # it was changed meanwhile
                            self._check_whole(frame.data)
                        yield frame
                    continue
            first_byte = data[position]
            length = data[position + 1] ^ mask_bit
            if self._message_kind is None and first_byte == WHOLE_TEXT:
                kind: type[Frame] = TextFrame
            elif self._message_kind is None and first_byte == WHOLE_BINARY:
                kind = BinaryFrame
            else:
                kind = self._check_first_byte(first_byte)
            if length >= _LENGTH_16:
                start = self._check_length(first_byte, length, data, position, end)
                if not start:
                    break
                length = int.from_bytes(data[position + 2 : start], "big")
            else:
                start = position + 2
            if (limit := self._limit) is not None and length + self._message_size > limit:
                self._check_size(first_byte, length, limit)
            payload_start = start + key_size
            if payload_start > end:
                break
            position = payload_start + length
            if position > end:
                key = data[start:payload_start] if key_size else None
                partial = PartialFrame(kind, first_byte, key, length, is_given=self.is_streaming)
                partial.add(data[payload_start:])
                self._partial = partial
                return
            payload = data[payload_start:position]
            if key_size and length:
                payload = mask(payload, data[start:payload_start])
            if first_byte != WHOLE_TEXT and first_byte != WHOLE_BINARY and not first_byte & CONTROL:
                self._note_fragment(kind, first_byte, length)
            yield frame_from_wire(kind, first_byte, payload)
        self._head = data[position:]

    def single(self, data: bytes) -> Frame | None:
        """The frame, if `data` is one short whole message and nothing else stands here: `feed` in one step.

        None, and nothing is done, if not, or where there is no native part.
        """
        if single is None or self._partial is not None or self._head or self._message_kind is not None:
            return None
        frame: Frame | None = single(data, self._longest, self.masked, MESSAGE_KINDS)
        return frame

    def run(self, data: bytes, most: int, size: int) -> tuple[list[Frame], bytes]:
        """The short whole messages at the front of `data`, and the rest of it: `feed` in one step.

        It stops behind `most` of them, or `size` bytes. There are none, and nothing is done, where something else
        stands there, or where there is no native part.
        """
        is_plain = self._partial is None and not self._head and self._message_kind is None
        if scan is None or not is_plain or most <= 0:
            return [], data
        frames, position = scan(data, 0, self._longest, most, size, 0, self.masked, MESSAGE_KINDS)
        return frames, data[position:]

    def take_partial(self) -> Frame | None:
        """What the last bytes brought of a frame that is not complete: a frame of that head and these bytes.

        Each byte is given once; None when there is nothing new. The whole frame still comes from `feed`;
        while streaming this gives all that is kept, and `feed` only the part that was not taken before.
        """
        partial = self._partial
        if partial is None:
            return None
        if self.is_streaming and not partial.first_byte & CONTROL:
            return partial.take_all()
        return partial.take_fresh()

    def _check_first_byte(self, first_byte: int) -> type[Frame]:
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

    def _check_length(self, first_byte: int, length: int, data: bytes, position: int, end: int) -> int:
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

    def _check_size(self, first_byte: int, length: int, limit: int) -> None:
        if first_byte & CONTROL or self.is_streaming:
            return
        size = length + self._message_size
        is_coded = first_byte & RESERVED or (self._is_coded and self._message_kind is not None)
        if not is_coded or not self.whole_messages or size > coded_limit(limit):
            raise FrameTooBig(size, limit)

    def _check_whole(self, payload: bytes) -> None:
        limit = self._limit
        if limit is not None and len(payload) > limit:
            self._check_size(WHOLE_BINARY, len(payload), limit)

    def _note_fragment(self, kind: type[Frame], first_byte: int, length: int) -> None:
        """Keep in mind whether a message is open after this complete frame, and how long it is."""
        if first_byte & CONTROL:
            return
        if first_byte >= FIN:
            self._message_kind = None
            self._message_size = 0
        else:
            if self._message_kind is None:
                self._is_coded = bool(first_byte & RESERVED)
            self._message_kind = kind
            if self.whole_messages:
                self._message_size += length

    def _complete_partial(self, partial: PartialFrame) -> Frame:
        self._partial = None
        payload = partial.payload()
        self._note_fragment(partial.kind, partial.first_byte, len(payload))
        return frame_from_wire(partial.kind, partial.first_byte, payload)
