"""Frames: the units of the wire, and the values that sessions hand out (RFC 6455 §5.2).

A frame is `first_byte` (fin, rsv1 to rsv3 and opcode exactly as on the wire) and `data`: two attributes,
because frames are made on the hot path and an attribute costs more than a shift. Everything else is
derived. A short text is kept decoded beside its bytes: validating UTF-8 *is* decoding, so it is done once. Of a
long one only the bytes are kept: one character can make four bytes of each of the others.

A fragment shows the type of the message it belongs to, as in Ktor: `Frame.Text(…, fin=False)`. On the
wire all but the first fragment have opcode 0; that is the serializer's and the parser's business.

The classes stand at module level and are aliased into `Frame`, since neither mypy nor pyright narrows a
`match` over really nested subclasses. Treat frames as immutable: they are compared and hashed by value.
"""

from __future__ import annotations

import functools
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, final

from .close import CloseCode, CloseReason, may_be_sent
from .errors import ProtocolError, UnexpectedFrame
from .first_byte import FIN, MAX_CONTROL_BYTES, OPCODE, RSV1, RSV2, RSV3, WHOLE_TEXT, FrameType

KEPT_TEXT: Final = 1 << 12
"""Bytes up to which a text is kept beside its bytes."""


@final
class Unkept(Enum):
    """Stands for a text that is known to be UTF-8, and too long to be kept."""

    TEXT = "…"


class Frame:
    """What all frames have: `type`, `data`, `fin` and the three reserved bits.

    Not to be constructed itself: use `Frame.Text`, `Frame.Binary`, `Frame.Close`, `Frame.Ping` or
    `Frame.Pong`.
    """

    __slots__ = ("data", "decoded", "first_byte")

    type: ClassVar[FrameType]
    data: bytes
    first_byte: int
    decoded: str | Unkept | None  # the text of a Text frame that holds whole characters, once it is known

    if TYPE_CHECKING:
        Text: TypeAlias = "TextFrame"
        Binary: TypeAlias = "BinaryFrame"
        Close: TypeAlias = "CloseFrame"
        Ping: TypeAlias = "PingFrame"
        Pong: TypeAlias = "PongFrame"

    def __init__(self) -> None:
        raise TypeError("Frame is abstract: use Frame.Text, Frame.Binary, Frame.Close, Frame.Ping or Frame.Pong")

    def _fill(self, first_byte: int, data: bytes, decoded: str | Unkept | None = None) -> None:
        self.first_byte = first_byte
        self.data = data
        self.decoded = decoded

    @property
    def fin(self) -> bool:
        """Whether this is the last frame of its message."""
        return self.first_byte >= FIN

    @property
    def rsv1(self) -> bool:
        """The first bit reserved for extensions."""
        return bool(self.first_byte & RSV1)

    @property
    def rsv2(self) -> bool:
        """The second bit reserved for extensions."""
        return bool(self.first_byte & RSV2)

    @property
    def rsv3(self) -> bool:
        """The third bit reserved for extensions."""
        return bool(self.first_byte & RSV3)

    @property
    def text(self) -> str:
        """The text of a whole Text frame.

        Raises:
          UnexpectedFrame: this is a frame of another type, or a fragment.
        """
        raise UnexpectedFrame(f"a {self.type.name} frame has no text: expected a whole TEXT frame")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        return (
            self.type is other.type
            and self.data == other.data
            and self.first_byte & ~OPCODE == other.first_byte & ~OPCODE
        )

    def __hash__(self) -> int:
        return hash((self.type, self.data, self.first_byte & ~OPCODE))

    def __repr__(self) -> str:
        bits = "".join(f", {name}" for name in ("rsv1", "rsv2", "rsv3") if getattr(self, name))
        return f"<Frame {self.type.name} fin={self.fin}{bits}, {len(self.data)} bytes>"


def _first_byte(opcode: int, fin: bool, rsv1: bool, rsv2: bool, rsv3: bool) -> int:
    return (FIN if fin else 0) | (RSV1 if rsv1 else 0) | (RSV2 if rsv2 else 0) | (RSV3 if rsv3 else 0) | opcode


def _as_bytes(data: Any, wanted: str = "bytes") -> bytes:
    if type(data) is bytes:
        return data
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"data must be {wanted}, not {type(data).__name__}")


@final
class TextFrame(Frame):
    """A Text frame: a whole message, or a fragment of one.

    `text` may be given as bytes, which a fragment needs when a character is cut in two; what is sent as a
    whole message must be valid UTF-8.

    Raises:
      ValueError: the text holds a lone surrogate, which UTF-8 cannot say.
      TypeError: neither str nor bytes.
    """

    __slots__ = ()
    __match_args__ = ("text",)
    type = FrameType.TEXT

    def __init__(
        self,
        text: str | bytes | bytearray | memoryview,
        *,
        fin: bool = True,
        rsv1: bool = False,
        rsv2: bool = False,
        rsv3: bool = False,
    ) -> None:
        first_byte = _first_byte(0x1, fin, rsv1, rsv2, rsv3)
        if isinstance(text, str):
            data = text.encode()
            self._fill(first_byte, data, text if len(data) <= KEPT_TEXT else Unkept.TEXT)
        else:
            self._fill(first_byte, _as_bytes(text, "str or bytes"))

    @property
    def text(self) -> str:
        """The text of a whole message; decoded once, or each time if it has more than 4,096 bytes.

        Raises:
          UnexpectedFrame: this is a fragment.
          UnicodeDecodeError: it was made from bytes that are not UTF-8.
        """
        if self.first_byte & (FIN | OPCODE) != WHOLE_TEXT:
            raise UnexpectedFrame("a fragment has no text of its own: expected a whole TEXT frame")
        decoded = self.decoded
        return decoded if type(decoded) is str else text_of(self)


@final
class BinaryFrame(Frame):
    """A Binary frame: a whole message, or a fragment of one."""

    __slots__ = ()
    __match_args__ = ("data",)
    type = FrameType.BINARY

    def __init__(
        self,
        data: bytes | bytearray | memoryview,
        *,
        fin: bool = True,
        rsv1: bool = False,
        rsv2: bool = False,
        rsv3: bool = False,
    ) -> None:
        self._fill(_first_byte(0x2, fin, rsv1, rsv2, rsv3), _as_bytes(data))


@functools.lru_cache(maxsize=32)  # few are said, and each is asked for several times
def _reason_of(data: bytes) -> CloseReason:
    if len(data) == 1:
        raise ProtocolError("a Close frame holds no code or two bytes of it, not one")  # RFC 6455 §5.5.1
    try:
        message = data[2:].decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the text of a Close frame is not UTF-8: {error}", CloseCode.NOT_CONSISTENT) from None
    return CloseReason(int.from_bytes(data[:2], "big"), message)


@final
class CloseFrame(Frame):
    """A Close frame, with a reason or (None) empty."""

    __slots__ = ()
    __match_args__ = ("reason",)
    type = FrameType.CLOSE

    def __init__(self, reason: CloseReason | None = None) -> None:
        if reason is None:
            self._fill(FIN | 0x8, b"")
        elif isinstance(reason, CloseReason):
            self._fill(FIN | 0x8, reason.code.to_bytes(2, "big") + reason.message.encode())
        else:
            raise TypeError(f"reason must be a CloseReason or None, not {type_name(reason)}")

    @property
    def reason(self) -> CloseReason | None:
        """The reason, or None if the frame is empty.

        Raises:
          ProtocolError: the payload is a single byte, or its text is not UTF-8.
        """
        return _reason_of(self.data) if self.data else None


class _PingPongFrame(Frame):
    __slots__ = ()
    __match_args__ = ("data",)

    def __init__(self, data: bytes | bytearray | memoryview = b"") -> None:
        payload = _as_bytes(data)
        if len(payload) > MAX_CONTROL_BYTES:  # RFC 6455 §5.5
            raise ValueError(f"a control frame holds at most {MAX_CONTROL_BYTES} bytes, not {len(payload)}")
        self._fill(FIN | self.type.opcode, payload)


@final
class PingFrame(_PingPongFrame):
    """A Ping frame, with up to 125 bytes that its Pong has to repeat."""

    __slots__ = ()
    type = FrameType.PING


@final
class PongFrame(_PingPongFrame):
    """A Pong frame: the answer to a Ping, or an unasked sign of life."""

    __slots__ = ()
    type = FrameType.PONG


def check_close(frame: CloseFrame) -> CloseReason | None:
    """Refuse a Close frame that may not be sent (RFC 6455 §7.4); returns its reason.

    Raises:
      ProtocolError: its payload is one byte, its code unregistered or for local use, or its text not UTF-8.
    """
    if (reason := _reason_of(frame.data) if frame.data else None) and not may_be_sent(reason.code):
        raise ProtocolError(f"the close code {reason.code} may not be sent")
    return reason


def check_utf8(frame: Frame) -> None:
    """Find out whether the bytes of a frame are UTF-8; nothing is done if that is known.

    Raises:
      UnicodeDecodeError: they are not, or end in the middle of a character.
    """
    if frame.decoded is None:
        if len(frame.data) > KEPT_TEXT and frame.data.isascii():  # no text has to be made to see that
            frame.decoded = Unkept.TEXT
        else:
            text_of(frame)


def text_of(frame: Frame) -> str:
    """The text that the bytes of a frame are.

    Raises:
      UnicodeDecodeError: they are not UTF-8, or end in the middle of a character.
    """
    if isinstance(frame.decoded, str):
        return frame.decoded
    text = frame.data.decode()
    frame.decoded = text if len(frame.data) <= KEPT_TEXT else Unkept.TEXT
    return text


def type_name(value: object) -> str:
    """The name of a value's type, for error texts; inside a frame class `type` is the frame's."""
    return value.__class__.__name__


if not TYPE_CHECKING:
    Frame.Text = TextFrame
    Frame.Binary = BinaryFrame
    Frame.Close = CloseFrame
    Frame.Ping = PingFrame
    Frame.Pong = PongFrame
