"""Frames to messages (RFC 6455 §5.4): fragments are joined, and text is judged.

The loop over the frames is the conversation's (`protocol.conversation`). A message of one frame does not come here
at all; what does is a fragment, or a text of which a part was judged before it was complete.

Text is judged as it arrives, even in the middle of a frame, so that the first bad byte ends the
conversation (RFC 6455 §8.1) and not the last good one. To judge UTF-8 is to decode it, but what comes of that
is kept of short messages only.

A message may have `max_fragments` fragments beyond one for every 64 bytes of payload: enough for anyone who
sends small pieces, and an end to those who send empty ones.

On request messages are not joined but given piece by piece, as they arrive: frames whose `fin`
says whether the message ends with them. Nothing is kept then, so a message may be of any size. But those that
an extension has to read first are joined all the same, within the limit.
"""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterator
from io import BytesIO

from .close import CloseCode
from .errors import FrameTooBig, ProtocolError
from .extensions import Limit, coded_limit
from .first_byte import FIN, RESERVED
from .frames import KEPT_TEXT, Frame, TextFrame, Unkept, check_utf8
from .from_wire import frame_from_wire

_BYTES_PER_FRAGMENT = 64
_TURN = 0x3FF
"""Fragments between two pauses, less one: a millisecond or two."""

_DECODED_AT_ONCE = 1 << 18
"""Bytes of text between two pauses: a millisecond or two."""

_new_decoder = codecs.getincrementaldecoder("utf-8")


class MessageAssembler:
    """Turn the fragments of one direction into whole messages, or into pieces of them.

    Args:
      limit: says how many bytes a message may have which an extension reads.
      max_fragments: fragments beyond one for every 64 bytes; None is no limit.
    """

    __slots__ = ("_decoder", "_first", "_fragments", "_limit", "_payload", "_seen", "_size", "max_fragments")

    def __init__(self, limit: Limit, max_fragments: int | None) -> None:
        self._limit = limit
        self.max_fragments: int | None = max_fragments
        # the fragmented message under way
        self._first: Frame | None = None
        self._payload: BytesIO | None = None
        self._fragments = 0
        self._size = 0  # of what was given of it in pieces
        # what judges its text, and how much of the frame under way it has seen
        self._decoder: codecs.IncrementalDecoder | None = None
        self._seen = 0

    @property
    def kept(self) -> int:
        """Bytes that are kept of a message that is not complete."""
        return 0 if self._payload is None else self._payload.tell()

    @property
    def is_judging(self) -> bool:
        """Whether a part of a text was judged, and its end was not."""
        return self._decoder is not None

    @property
    def is_turn(self) -> bool:
        """Whether it is time to give others a turn: so many fragments came."""
        return not self._fragments & _TURN

    # whole messages

    def add(self, frame: Frame) -> Frame | None:
        """Add a fragment (or a whole text of which a part was judged early); gives the message that it completes.

        Raises:
          ProtocolError: too many fragments, or text that is not UTF-8.
        """
        is_last = frame.first_byte >= FIN
        if self._first is None:
            self._first = frame
        self._fragments += 1
        if not is_last or self._payload is not None:
            if self._payload is None:
                self._payload = BytesIO()
            self._payload.write(frame.data)
            self._check_fragments(self._payload.tell())
        is_text = self._is_plain_text(frame)
        if is_text:
            self._check_more(frame.data[self._seen :], final=is_last)
            self._seen = 0
        if not is_last:
            return None
        payload = frame.data if self._payload is None else self._payload.getvalue()
        message = frame_from_wire(type(frame), FIN | self._first.first_byte, payload)
        self._first = self._payload = self._decoder = None
        self._fragments = 0
        if is_text:
            message.decoded = Unkept.TEXT
        return message

    def add_partial(self, frame: Frame) -> None:
        """Judge what came of a frame that is not complete.

        Raises:
          ProtocolError: 1007, it can't become UTF-8.
        """
        if self._is_plain_text(frame):
            self._check_more(frame.data, final=False)
            self._seen += len(frame.data)

    # pieces of messages

    def begin_pieces(self) -> None:
        """From now on frames are given as pieces, those of the message under way included."""
        self._decoder = None  # what was judged early is given, and judged, again
        if self._payload is not None and self._first is not None and self._first.first_byte & RESERVED:
            self._size = self._payload.tell()  # the parser counts no more

    def take_joined(self) -> Iterator[Frame]:
        """What was joined before there was a wish for pieces, as one."""
        if self._first is not None and self._payload is not None and not self._first.first_byte & RESERVED:
            piece = frame_from_wire(type(self._first), self._first.first_byte, self._payload.getvalue())
            self._first = self._payload = None
            yield from self._piece(piece)

    def add_piece(self, frame: Frame) -> Iterator[Frame]:
        """Give a frame as a piece of its message.

        Raises:
          ProtocolError: too many fragments, or text that is not UTF-8.
        """
        self._fragments += 1
        yield from self._piece(frame)

    def add_partial_piece(self, frame: Frame) -> Iterator[Frame]:
        """Give what came of a frame that is not complete as a piece of its message."""
        yield from self._piece(frame_from_wire(type(frame), frame.first_byte & ~FIN, frame.data))

    def _piece(self, frame: Frame) -> Iterator[Frame]:
        """Give a piece of a message, a text's cut between characters; an empty one only as the last."""
        is_last = frame.first_byte >= FIN
        self._size += len(frame.data)
        if self._first is not None or frame.first_byte & RESERVED:
            yield from self._coded_piece(frame, is_last=is_last)
            return
        if is_last:
            self._size = self._fragments = 0
        else:
            self._check_fragments(self._size)
        if type(frame) is TextFrame:
            begun = b"" if self._decoder is None else self._decoder.getstate()[0]
            cut = self._check_more(frame.data, final=is_last)
            frame.data = (begun + frame.data)[: -cut or None]
            frame.decoded = Unkept.TEXT
            if is_last:
                self._decoder = None
        if frame.data or is_last:
            yield frame

    def _coded_piece(self, frame: Frame, *, is_last: bool) -> Iterator[Frame]:
        """Join the pieces of a message that an extension reads, and give it whole."""
        limit = self._limit.max_frame_size
        if limit is not None and self._size > coded_limit(limit):
            raise FrameTooBig(self._size, limit)
        if self._first is None:
            self._first = frame
        if self._payload is None:
            self._payload = BytesIO()
        self._payload.write(frame.data)
        if not is_last:
            self._check_fragments(self._size)
            return
        message = frame_from_wire(type(frame), FIN | self._first.first_byte, self._payload.getvalue())
        self._first = self._payload = None
        self._size = self._fragments = 0
        yield message

    def _is_plain_text(self, frame: Frame) -> bool:
        """Whether a frame's bytes are UTF-8 as they stand: with a reserved bit an extension reads them first."""
        return type(frame) is TextFrame and not (self._first or frame).first_byte & RESERVED

    def _check_fragments(self, size: int) -> None:
        limit = self.max_fragments
        if limit is not None and self._fragments > limit + size // _BYTES_PER_FRAGMENT:
            raise ProtocolError(f"a message of {self._fragments} fragments", CloseCode.VIOLATED_POLICY)

    def _check_more(self, data: bytes, *, final: bool) -> int:
        """Judge more of a text; returns the bytes at the end that begin a character, and do not end it."""
        if self._decoder is None:
            self._decoder = _new_decoder()
        try:
            self._decoder.decode(data, final)
            begun = self._decoder.getstate()[0]
            if begun[:1] == b"\xed" and begun[1:] >= b"\xa0":  # a surrogate: Python waits for its last byte
                begun.decode()
        except UnicodeDecodeError as error:
            raise _not_utf8(error) from None
        return len(begun)


def check_text(message: Frame) -> None:
    """Judge the text of a whole message, and keep it if it is short.

    Raises:
      ProtocolError: 1007, it is not UTF-8.
    """
    try:
        if len(message.data) <= KEPT_TEXT:
            message.decoded = message.data.decode()
        else:
            check_utf8(message)
    except UnicodeDecodeError as error:
        raise _not_utf8(error) from None


def check_text_in_steps(message: Frame) -> Generator[None]:
    """As `check_text`, with pauses in which others may have their turn."""
    if len(message.data) <= _DECODED_AT_ONCE:
        check_text(message)
        return
    decoder = _new_decoder()
    view = memoryview(message.data)
    try:
        for start in range(0, len(view), _DECODED_AT_ONCE):
            decoder.decode(view[start : start + _DECODED_AT_ONCE])
            yield
        decoder.decode(b"", True)
    except UnicodeDecodeError as error:
        raise _not_utf8(error) from None
    message.decoded = Unkept.TEXT


def _not_utf8(error: UnicodeDecodeError) -> ProtocolError:
    return ProtocolError(f"a text message is not UTF-8: {error.reason}", CloseCode.NOT_CONSISTENT)
