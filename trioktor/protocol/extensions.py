"""Extensions (RFC 6455 §9): what they are, how they are agreed on, and the order in which they work.

A factory is installed in the configuration, frozen and shared; negotiation makes an instance of it for one
connection. Messages pass the instances on their way out in the order of installation, on their way in in
reverse. Extensions see whole messages; the reserved bits that they own stand on a message's first frame.

How the two sides agree on them stands in `protocol.negotiation`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Hashable, Iterable, Sequence
from typing import Protocol, TypeAlias

from .errors import FrameTooBig
from .extension_header import ExtensionHeader
from .frames import Frame

Steps: TypeAlias = "Generator[None, None, Frame]"
"""Work that pauses at each `yield`, so that others get their turn, and returns a frame."""


def run(steps: Steps) -> Frame:
    """Do such work in one go."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            frame: Frame = done.value
            return frame


class Limit(Protocol):
    """What says how long a message may be, which can change at any time."""

    max_frame_size: int | None


def coded_limit(limit: int) -> int:
    """Bytes that a message of `limit` bytes may have as an extension made it: what can't be packed becomes longer.

    zlib adds 4 % and a few bytes at most, with its smallest memory.
    """
    return limit + (limit >> 4) + 64


class Extension:
    """An extension at work on one connection. As it stands it lets every message pass."""

    __slots__ = ("factory",)

    def __init__(self, factory: ExtensionFactory) -> None:
        self.factory: ExtensionFactory = factory

    def encode(self, message: Frame) -> Frame:
        """What goes out instead of a whole message; called in the order in which messages go out."""
        return message

    def decode(self, message: Frame, max_size: int | None) -> Frame:
        """What comes in instead of a whole message, which must not be longer than `max_size` bytes.

        Called for messages with one of its reserved bits, which it must clear; without any, for all.

        Raises:
          ProtocolError: the message makes no sense; the `close_code` is the answer.
        """
        return message

    def begin_decode(self, message: Frame, max_size: int | None) -> Frame | Steps:
        """As `decode_in_steps`; but the frame itself, where it takes no more than a moment."""
        return self.decode_in_steps(message, max_size)

    @property
    def shared_key(self) -> Hashable:
        """Equal for instances whose `encode_alone` does the same; None (the default) if it cannot be shared."""
        return None

    def encode_alone(self, message: Frame) -> Frame:
        """As `encode`, but without regard to what this connection said: for a message that many get."""
        return self.encode(message)

    def encode_alone_in_steps(self, message: Frame) -> Steps:
        """As `encode_alone`, for a long message: pauses wherever others may have their turn."""
        yield from ()
        return self.encode_alone(message)

    def encoded_elsewhere(self) -> None:
        """A message of `encode_alone`, perhaps of another instance, went out on this connection."""

    def encode_in_steps(self, message: Frame) -> Steps:
        """As `encode`, for a long message: pauses wherever others may have their turn."""
        yield from ()
        return self.encode(message)

    def decode_in_steps(self, message: Frame, max_size: int | None) -> Steps:
        """As `decode`, for any message: pauses wherever others may have their turn."""
        yield from ()
        return self.decode(message, max_size)


class ExtensionFactory(ABC):
    """What `WebSockets(extensions=[…])` takes; frozen, and shared by all connections.

    Attributes:
      name: the extension's, as in the header; None if there is nothing to negotiate: it is always on.
      reserved: the reserved bits that are its own, as in `Frame.first_byte`: RSV1, RSV2, RSV3.
    """

    name: str | None
    reserved: int = 0

    @abstractmethod
    def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension] | None:
        """What to answer to an offer, and the extension at work; None declines this offer.

        An extension without a name is given an offer without parameters, and its answer is not sent.
        """

    def offer(self) -> Sequence[ExtensionHeader]:
        """What a client offers, the best first; unless overridden, the name without parameters."""
        assert self.name is not None
        return (ExtensionHeader(self.name),)

    def accept(self, answer: ExtensionHeader) -> Extension:
        """The extension at work on a client's connection, as the server answered to `offer`.

        Unless overridden it is what `negotiate` makes of the answer: enough where both sides do the same.

        Raises:
          ValueError: it is no answer to what was offered.
        """
        agreed = self.negotiate(answer)
        if agreed is None:
            raise ValueError(f"the server answered {str(answer)[:200]!a}, which was not offered")
        return agreed[1]


def reserved_bits(extensions: Iterable[Extension]) -> int:
    """All reserved bits that these extensions own."""
    bits = 0
    for extension in extensions:
        bits |= extension.factory.reserved
    return bits


def encode_in_steps(extensions: Sequence[Extension], message: Frame) -> Steps:
    """Pass a long message through extensions on its way out, with pauses."""
    for extension in extensions:
        message = yield from extension.encode_in_steps(message)
    return message


def encode_alone_in_steps(extensions: Sequence[Extension], message: Frame) -> Steps:
    """Pass a long message that many get through extensions on its way out, with pauses."""
    for extension in extensions:
        message = yield from extension.encode_alone_in_steps(message)
    return message


def begin_decode(extensions: Sequence[Extension], message: Frame, limit: Limit) -> Frame | Steps:
    """Pass a message through extensions, in this order, on its way in; steps where it takes more than a moment.

    Raises:
      ProtocolError: as an extension.
    """
    left = iter(extensions)
    for extension in left:
        own = extension.factory.reserved
        if message.first_byte & own or not own:
            begun = extension.begin_decode(message, limit.max_frame_size)
            if not isinstance(begun, Frame):
                return _go_on(begun, left, limit)
            message = begun
    return _checked(message, limit)


def _go_on(begun: Steps, extensions: Iterable[Extension], limit: Limit) -> Steps:
    message = yield from begun
    for extension in extensions:
        own = extension.factory.reserved
        if not own or message.first_byte & own:
            message = yield from extension.decode_in_steps(message, limit.max_frame_size)
    return _checked(message, limit)


def _checked(message: Frame, limit: Limit) -> Frame:
    """What an extension made was allowed to be longer; the message is not."""
    most = limit.max_frame_size
    if most is not None and len(message.data) > most:
        raise FrameTooBig(len(message.data), most)
    return message
