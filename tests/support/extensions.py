"""Extensions for tests: what a peer compresses, one whose work can be seen, and one that fails."""

from __future__ import annotations

import zlib
from typing import Any, final

import attrs

from trioktor.protocol.errors import ProtocolError
from trioktor.protocol.extension_header import ExtensionHeader
from trioktor.protocol.extensions import Extension, ExtensionFactory
from trioktor.protocol.first_byte import FIN, RSV1
from trioktor.protocol.frames import BinaryFrame, Frame
from trioktor.protocol.from_wire import frame_from_wire


def deflated(data: bytes, *, level: int = 6) -> bytes:
    """What bytes are compressed to, with a window of their own, as a message of RFC 7692."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def packed(data: bytes, kind: type[Frame] = BinaryFrame) -> Frame:
    """A whole message with RSV1, as it comes from the wire."""
    return frame_from_wire(kind, FIN | RSV1 | kind.type.opcode, data)


@attrs.frozen
class Marking(ExtensionFactory):
    """Appends a letter on the way out, and takes it off on the way in."""

    name: str | None
    reserved: int
    letter: str = "x"

    def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension] | None:
        """Accept everything."""
        return ExtensionHeader(offer.name), Marker(self)


class Marker(Extension):
    """One of these at work."""

    def encode(self, message: Frame) -> Frame:
        """Append the letter."""
        assert isinstance(self.factory, Marking)
        data = message.data + self.factory.letter.encode()
        return frame_from_wire(type(message), message.first_byte | self.factory.reserved, data)

    def decode(self, message: Frame, max_size: int | None) -> Frame:
        """Take the letter off, which has to be there."""
        assert isinstance(self.factory, Marking)
        assert message.data.endswith(self.factory.letter.encode())
        return frame_from_wire(type(message), message.first_byte & ~self.factory.reserved, message.data[:-1])


@final
@attrs.frozen
class Failing(ExtensionFactory):
    """Makes an extension that fails at what begins with "bad"."""

    how: str
    name = None

    def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension]:
        """Always on."""
        return offer, Failure(self)


class Failure(Extension):
    """At work."""

    def encode(self, message: Frame) -> Any:
        """Fail, or give what may not be sent."""
        how = self.factory.how if b"bad" in message.data[:60] else ""  # type: ignore[attr-defined]
        if how == "error":
            raise RuntimeError("on purpose")
        if how == "rule":
            raise ProtocolError("on purpose")
        return None if how == "nothing" else BinaryFrame(b"", rsv3=True) if how == "bit" else message
