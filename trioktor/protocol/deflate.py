"""permessage-deflate (RFC 7692), message by message.

A message is compressed as a whole, flushed to a byte boundary, and its last four bytes (00 00 ff ff) are left
out; the other side puts them back. Both sides keep their window from message to message, unless no context
takeover was agreed on. Compressor and decompressor come into being when first used: a connection that
never compresses costs nothing but this object.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable
from typing import Any, Final, final

import attrs

from .extension_header import ExtensionHeader
from .extensions import Extension, ExtensionFactory, Steps, run
from .first_byte import RSV1
from .frames import Frame
from .from_wire import message_from_wire
from .inflate import SLICE, TAIL, Inflater

NAME: Final = "permessage-deflate"
_MIN_BITS: Final = 9  # zlib cannot make raw deflate with a window of 8 bits
_MAX_BITS: Final = 15
_BITS: Final = {str(bits): bits for bits in range(8, _MAX_BITS + 1)}  # RFC 7692 §7.1.2: no leading zeros

_FLAGS: Final = ("server_no_context_takeover", "client_no_context_takeover")
_SERVER_BITS: Final = "server_max_window_bits"
_CLIENT_BITS: Final = "client_max_window_bits"


def _in_range(least: int, most: int) -> Callable[[Any, attrs.Attribute[int], Any], None]:
    def check(_factory: object, attribute: attrs.Attribute[int], value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{attribute.name} must be a whole number from {least} to {most}, not {value!r}")

    return check


def _never(_message: Frame) -> bool:
    return False


@final
@attrs.frozen(kw_only=True)
class PerMessageDeflate(ExtensionFactory):
    """Compress messages where the peer can (Ktor's `WebSocketDeflateExtension`).

    Raises:
      ValueError: a value makes no sense; the text names the argument.
    """

    level: int = attrs.field(default=1, validator=_in_range(-1, 9))
    """Of zlib: 1 is quick, 9 is small, 0 is not compressed at all, -1 is zlib's own default of 6. Messages are
    short: from 1 to 6 they shrink by a tenth more and cost half as much again."""

    mem_level: int = attrs.field(default=5, validator=_in_range(1, 9))
    """Of zlib, for the compressor: it takes 2 ** (mem_level + 9) bytes."""

    window_bits: int = attrs.field(default=12, validator=_in_range(_MIN_BITS, _MAX_BITS))
    """Our compressor's window, of 2 ** window_bits bytes, four times over; a client need not know of a server's."""

    server_no_context_takeover: bool = False
    """The server forgets its window after each message: it holds nothing between messages, and less is saved."""

    client_no_context_takeover: bool = False
    """The client forgets its window, so that the server holds none for it either; said in the answer, or the offer."""

    compress_if: Callable[[Frame], bool] | None = None
    """Asked for each message whether to compress it; None is yes."""

    compress_if_bigger_than: int = attrs.field(default=0, validator=_in_range(0, 1 << 62))
    """Payload bytes up to which messages are not compressed."""

    name: str | None = attrs.field(default=NAME, init=False, repr=False)
    reserved: int = attrs.field(default=RSV1, init=False, repr=False)

    def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension] | None:
        """Accept an offer with parameters that are all known, legal and possible; else decline it."""
        given = dict(offer.parameters)
        if len(given) != len(offer.parameters):
            return None
        answer: list[tuple[str, str | None]] = []
        for flag in _FLAGS:
            if flag in given:
                if given.pop(flag) is not None:
                    return None
                answer.append((flag, None))
        # Ours needs no announcement: whoever keeps more of a window than we use can read us all the same.
        forgets = self.server_no_context_takeover or answer[:1] == [(_FLAGS[0], None)]
        if self.client_no_context_takeover and (_FLAGS[1], None) not in answer:
            answer.append((_FLAGS[1], None))
        bits = self.window_bits
        if _SERVER_BITS in given:
            offered = _BITS.get(str(given.pop(_SERVER_BITS)))
            if offered is None or offered < _MIN_BITS:
                return None
            bits = min(bits, offered)
            answer.append((_SERVER_BITS, str(offered)))
        client_bits = _MAX_BITS
        if _CLIENT_BITS in given:
            value = given.pop(_CLIENT_BITS)
            hinted = _MAX_BITS if value is None else _BITS.get(value)
            if hinted is None:
                return None
            client_bits = max(hinted, _MIN_BITS)  # RFC 7692 §7.1.2.2: it uses no more, whatever we answer
        if given:
            return None
        codec = Deflate(
            self,
            bits=bits,
            forgets=forgets,
            peer_bits=client_bits,
            peer_forgets=(_FLAGS[1], None) in answer,
        )
        return ExtensionHeader(NAME, tuple(answer)), codec

    def offer(self) -> tuple[ExtensionHeader, ...]:
        """What a client offers: `client_max_window_bits` tells our window, so that the server's for it is no larger."""
        hint = None if self.window_bits == _MAX_BITS else str(self.window_bits)
        wanted: list[tuple[str, str | None]] = [(_CLIENT_BITS, hint)]
        if self.server_no_context_takeover:
            wanted.append((_FLAGS[0], None))
        if self.client_no_context_takeover:
            wanted.append((_FLAGS[1], None))
        return (ExtensionHeader(NAME, tuple(wanted)),)

    def accept(self, answer: ExtensionHeader) -> Extension:
        """What works on a client's connection, as the server answered (RFC 7692 §7.1).

        Raises:
          ValueError: a parameter is unknown, given twice or has a value that it cannot have, or the server would not
            forget its window though that was asked for.
        """
        given = dict(answer.parameters)
        if len(given) != len(answer.parameters):
            raise ValueError(f"{NAME}: a parameter is given twice")
        flags = [flag in given for flag in _FLAGS]
        is_odd = any(given.pop(flag, None) is not None for flag in _FLAGS)
        theirs, ours = (_BITS.get(str(given.pop(name, _MAX_BITS))) for name in (_SERVER_BITS, _CLIENT_BITS))
        if given or is_odd or theirs is None or ours is None:
            raise ValueError(f"{NAME}: {str(answer)[:200]!a} has a parameter that is unknown or has no such value")
        if self.server_no_context_takeover and not flags[0]:
            raise ValueError(f"{NAME}: the server does not forget its window, though that was asked for")
        # zlib cannot make what a window of 8 bits can read; but nothing has to be compressed.
        settings = self if ours >= _MIN_BITS else attrs.evolve(self, compress_if=_never)
        return Deflate(
            settings,
            bits=max(_MIN_BITS, min(self.window_bits, ours)),
            forgets=self.client_no_context_takeover or flags[1],
            peer_bits=max(_MIN_BITS, theirs),
            peer_forgets=flags[0],
        )


@final
class Deflate(Extension):
    """permessage-deflate at work on one connection.

    Args:
      bits, forgets: our window's size, and whether it starts afresh with each message.
      peer_bits, peer_forgets: the peer's.
    """

    __slots__ = ("_bits", "_compressor", "_forgets", "_inflater", "_is_choosy", "_settings")

    def __init__(
        self, factory: PerMessageDeflate, *, bits: int, forgets: bool, peer_bits: int, peer_forgets: bool
    ) -> None:
        super().__init__(factory)
        self._settings = factory
        self._bits = bits
        self._forgets = forgets
        self._inflater = Inflater(peer_bits, forgets=peer_forgets)
        self._compressor: Any = None
        self._is_choosy = factory.compress_if is not None or factory.compress_if_bigger_than > 0

    # out

    def encode(self, message: Frame) -> Frame:
        """Compress a message in one go."""
        if not message.data or (self._is_choosy and not self._wants(message)):
            return message
        compressor = self._compressor or self._new_compressor()
        return self._packed(message, compressor.compress(message.data) + compressor.flush(zlib.Z_SYNC_FLUSH))

    def encode_in_steps(self, message: Frame) -> Steps:
        """Compress a message slice by slice."""
        if not self._wants(message):
            return message
        return (yield from self._compress(message, self._compressor or self._new_compressor()))

    @property
    def shared_key(self) -> Hashable:
        """Those with the same settings and window compress alike."""
        return (self._settings, self._bits)

    def encode_alone(self, message: Frame) -> Frame:
        """Compress a message with a window of its own."""
        return run(self.encode_alone_in_steps(message))

    def encode_alone_in_steps(self, message: Frame) -> Steps:
        """Compress a message with a window of its own, slice by slice."""
        if not self._wants(message):
            return message
        settings = self._settings
        compressor = zlib.compressobj(settings.level, zlib.DEFLATED, -self._bits, settings.mem_level)
        return (yield from self._compress(message, compressor))

    def encoded_elsewhere(self) -> None:
        """Begin with a new window: the peer's has moved on by a message that ours has not seen."""
        self._compressor = None

    def _compress(self, message: Frame, compressor: Any) -> Steps:
        view = memoryview(message.data)
        pieces = []
        for start in range(0, len(view), SLICE):
            pieces.append(compressor.compress(view[start : start + SLICE]))
            yield
        pieces.append(compressor.flush(zlib.Z_SYNC_FLUSH))
        return self._packed(message, b"".join(pieces))

    def _wants(self, message: Frame) -> bool:
        settings = self._settings
        # RFC 7692 §7.2.3.6 has a form for empty messages, but it is longer than to leave them alone.
        return len(message.data) > settings.compress_if_bigger_than and (
            settings.compress_if is None or settings.compress_if(message)
        )

    def _new_compressor(self) -> Any:
        settings = self._settings
        compressor = zlib.compressobj(settings.level, zlib.DEFLATED, -self._bits, settings.mem_level)
        if not self._forgets:
            self._compressor = compressor
        return compressor

    def _packed(self, message: Frame, packed: bytes) -> Frame:
        is_free = self._forgets or len(message.data) >= SLICE  # which is a whole window
        if is_free and len(packed) - len(TAIL) >= len(message.data):
            self._compressor = None  # its window is not the peer's now
            return message
        return message_from_wire(message.first_byte | RSV1, packed[: -len(TAIL)])

    # in

    def begin_decode(self, message: Frame, max_size: int | None) -> Frame | Steps:
        """Inflate a short message at once; see `Inflater.begin`."""
        return self._inflater.begin(message, max_size)

    def decode_in_steps(self, message: Frame, max_size: int | None) -> Steps:
        """Inflate a message slice by slice; see `Inflater.inflate_in_steps`."""
        return self._inflater.inflate_in_steps(message, max_size)

    def decode(self, message: Frame, max_size: int | None) -> Frame:
        """Inflate a message in one go."""
        begun = self._inflater.begin(message, max_size)
        return begun if isinstance(begun, Frame) else run(begun)
