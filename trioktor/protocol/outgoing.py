"""Messages to bytes: through the extensions at work, in one step or in several, and then the serializer.

Messages pass the extensions in the order in which they go out, so whoever calls decides on that order. A short message
takes one step; a long one gives `Steps`, and nothing may go out before they are done. A message that many connections
get (`PreparedMessage`) may be bytes already.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Final, final

from .errors import ProtocolError
from .extensions import Extension, Steps, encode_alone_in_steps, encode_in_steps
from .first_byte import CONTROL, FIN, RESERVED, WHOLE_TEXT, FrameType
from .frames import Frame, TextFrame, check_utf8
from .prepared import Key, PreparedMessage, shared_key
from .serializer import Serializer, new_byte_decoder, new_text_decoder

LONG: Final = 1 << 15
"""Bytes beyond which a message passes its extensions in steps."""


@final
class Outgoing:
    """The way out of one connection's messages.

    Attributes:
      extensions: those at work, in the order in which messages pass them.
      shared_key: what they have in common with those of other connections; None if that is nothing.
      frames_sent: frames that were made bytes.
      opened: the kind of the message whose fragments were accepted from sessions, until its last one.
      is_transparent: whether whole messages go out as they are, seen by nobody.
      is_torn: an extension has seen a message that failed on its way: nothing may be sent behind it.
    """

    __slots__ = (
        "_decoder",
        "extensions",
        "frames_sent",
        "is_torn",
        "is_transparent",
        "opened",
        "serializer",
        "shared_key",
    )

    def __init__(self, serializer: Serializer, extensions: tuple[Extension, ...]) -> None:
        self.serializer: Serializer = serializer
        self.extensions: tuple[Extension, ...] = extensions
        self.shared_key: Key | None = None if serializer.is_watched else shared_key(extensions)
        self.is_transparent: bool = not extensions and not serializer.is_watched
        self.is_torn: bool = False
        self.frames_sent: int = 0
        self.opened: FrameType | None = None
        self._decoder: codecs.IncrementalDecoder | None = None  # of a text whose fragments were accepted

    # what may be said

    def check(self, item: object) -> None:
        """Refuse what may not be sent behind what was accepted.

        Raises:
          ProtocolError: a reserved bit without its extension, a message inside another one's fragments, or a fragment
            with which a Text can't be UTF-8.
          UnicodeDecodeError: a Text message that is not UTF-8.
        """
        if isinstance(item, Frame):
            free_bits = 0 if self.extensions else self.serializer.reserved  # those of extensions at work are theirs
            if item.first_byte & RESERVED & ~free_bits:
                raise ProtocolError(f"{item!r}: a reserved bit needs an extension that uses it")
            if item.first_byte & CONTROL:
                return
            if self.opened is None:
                if isinstance(item, TextFrame) and not item.first_byte & RESERVED:
                    if item.first_byte >= FIN:
                        check_utf8(item)
                    else:
                        self._check_fragment(item)
                return
            if self.opened is item.type:
                if isinstance(item, TextFrame):
                    self._check_fragment(item)
                return
        if self.opened is not None:
            raise ProtocolError(f"{item!r}: finish the fragmented {self.opened.name} message first")

    def note_accepted(self, item: object) -> None:
        """Keep in mind which message is open behind a fragment, or a message, that was accepted."""
        if isinstance(item, Frame) and not item.first_byte & CONTROL:
            is_last = item.first_byte >= FIN
            self.opened = None if is_last else item.type
            if is_last:
                self._decoder = None
            elif isinstance(item, TextFrame):
                if self._decoder is None:
                    self._decoder = new_byte_decoder() if item.first_byte & RESERVED else new_text_decoder()
                self._decoder.decode(item.data)

    def _check_fragment(self, fragment: TextFrame) -> None:
        """Refuse a fragment with which its message can't be UTF-8; whether it is accepted is not known yet."""
        decoder = self._decoder or new_text_decoder()
        state = decoder.getstate()
        try:
            decoder.decode(fragment.data, fragment.first_byte >= FIN)
        except UnicodeDecodeError as error:
            raise ProtocolError(f"{fragment!r}: not UTF-8: {error.reason}") from None
        finally:
            decoder.setstate(state)

    # bytes

    def add(self, item: Frame | PreparedMessage, pieces: list[bytes]) -> Steps | None:
        """Append the bytes of a frame or message to `pieces`; or give the steps that it takes, to be told to `finish`.

        Raises:
          ProtocolError: it may not be sent here; nothing was appended.
        """
        if type(item) is PreparedMessage:
            if self._may_take_prepared:
                pieces.append(item.wire(self.shared_key or (), self.extensions))
                self.frames_sent += 1
                return None
            frame = item.frame
        else:
            frame = item
        first_byte = frame.first_byte
        if self.extensions and first_byte >= FIN and not first_byte & CONTROL and not self.serializer.is_in_message:
            # fragments, and what ends them, go out as they are
            if first_byte & RESERVED:
                raise ProtocolError(f"{frame!r}: its reserved bits are the extensions'")
            if frame.decoded is None and first_byte == WHOLE_TEXT:
                check_utf8(frame)
            self.is_torn = True
            if len(frame.data) > LONG:
                return encode_in_steps(self.extensions, frame)
            for extension in self.extensions:
                frame = extension.encode(frame)
            self.serializer.add(frame, pieces)
            self.is_torn = False
        else:
            self.serializer.add(frame, pieces)
        self.frames_sent += 1
        return None

    def add_now(self, item: Frame | PreparedMessage, pieces: list[bytes]) -> bool:
        """As `add`, for an item that was judged; False, and nothing is done, if it takes several steps."""
        frame = item.frame if type(item) is PreparedMessage else item
        if self.extensions and len(frame.data) > LONG and not (frame is not item and self._may_take_prepared):
            return False
        self.add(item, pieces)
        return True

    def encode_now(self, message: Frame) -> Frame | bytes | None:
        """What `Serializer.joined` takes instead of a whole message that was judged; None if that takes several steps.

        Raises:
          ProtocolError: what an extension made of it may not be sent.
        """
        if len(message.data) > LONG:
            return None
        self.is_torn = True
        frame = message
        for extension in self.extensions:
            frame = extension.encode(frame)
        first_byte = frame.first_byte
        is_usual = first_byte in self.serializer.heads and type(frame.data) is bytes
        if not is_usual or (first_byte == WHOLE_TEXT and frame.decoded is None) or self.serializer.is_watched:
            pieces: list[bytes] = []
            self.serializer.add(frame, pieces)
            self.is_torn = False
            return b"".join(pieces)
        self.is_torn = False
        return frame

    def finish(self, frame: Frame, pieces: list[bytes]) -> None:
        """Append what the last of such steps gave."""
        self.serializer.add(frame, pieces)
        self.is_torn = False
        self.frames_sent += 1

    def preparing(self, message: PreparedMessage) -> Iterator[None] | None:
        """The steps that compress a long message for connections like this one; None if there is nothing to do."""
        key = self.shared_key
        if key is None or self.serializer.masking or len(message.frame.data) <= LONG or message.is_prepared(key):
            return None  # what is masked is nobody else's
        return self._prepare(message, key)

    def _prepare(self, message: PreparedMessage, key: Key) -> Iterator[None]:
        message.prepare(key, (yield from encode_alone_in_steps(self.extensions, message.frame)))

    @property
    def _may_take_prepared(self) -> bool:
        """Whether the bytes that others get, too, can stand here."""
        return self.shared_key is not None and not self.serializer.masking and not self.serializer.is_in_message
