"""Extensions (RFC 6455 §9): what they are, how they are agreed on, and the order in which they work.

A factory is installed in the configuration, frozen and shared; negotiation makes an instance of it for one
connection. Messages pass the instances on their way out in the order of installation, on their way in in
reverse. Extensions see whole messages; the reserved bits that they own stand on a message's first frame.

The header is the client's. One that breaks the grammar is an error, which is a refusal (RFC 6455 §9.1); an offer
that a factory does not like is declined, and the next one is looked at.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias, final

import attrs

from .first_byte import RESERVED
from .frames import Frame

_MAX_PARTS: Final = 1000
"""Tokens, quoted strings and delimiters of all offers together; a browser's has one to five."""
_PART: Final = re.compile(r'[ \t]*([,;=]|[!#$%&\'*+\-.^_`|~0-9A-Za-z]+|"(?:[^"\\]|\\.)*")[ \t]*')
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

Steps: TypeAlias = "Generator[None, None, Frame]"
"""Work that pauses at each `yield`, so that others get their turn, and returns a frame."""


@final
@attrs.frozen
class ExtensionHeader:
    """An extension with parameters, as offered or accepted: ``name; flag; parameter=value``."""

    name: str
    parameters: tuple[tuple[str, str | None], ...] = ()

    def __str__(self) -> str:
        parts = [name if value is None else f"{name}={value}" for name, value in self.parameters]
        return "; ".join([self.name, *parts])


def run(steps: Steps) -> Frame:
    """Do such work in one go."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            frame: Frame = done.value
            return frame


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


def check_factories(factories: Sequence[object]) -> None:
    """Refuse factories that cannot work side by side.

    Raises:
      ValueError: two claim the same name or reserved bit, or one is no factory.
    """
    names: set[str] = set()
    bits = 0
    for factory in factories:
        if not isinstance(factory, ExtensionFactory):
            hint = f": write {factory.__name__}()" if isinstance(factory, type) else ""
            raise ValueError(f"extensions must be ExtensionFactory objects, not {factory!r}{hint}")
        if factory.name is not None:
            if not _TOKEN.fullmatch(factory.name):
                raise ValueError(f"extensions: {factory.name!r} is not an extension's name (an RFC 9110 token)")
            if factory.name in names:
                raise ValueError(f"extensions: {factory.name!r} is installed twice")
            names.add(factory.name)
        if factory.reserved & ~RESERVED or factory.reserved & bits:
            raise ValueError(f"extensions: a reserved bit of {factory!r} is no reserved bit, or another's already")
        bits |= factory.reserved


def parse_extensions(lines: Iterable[str]) -> list[ExtensionHeader]:
    """The extensions in the lines of a `Sec-WebSocket-Extensions` header, in order.

    Values may be quoted (RFC 6455 §9.1).

    Raises:
      ValueError: a line breaks the grammar, or there is more in them than anybody means.
    """
    headers: list[ExtensionHeader] = []
    parts = _split(",".join(lines))
    part = next(parts)
    while part:
        if part == ",":  # RFC 9110 §5.6.1: a list may have empty elements
            part = next(parts)
            continue
        name = _expect_token(part)
        parameters: list[tuple[str, str | None]] = []
        part = next(parts)
        while part == ";":
            parameter, value = _expect_token(next(parts)), None
            part = next(parts)
            if part == "=":
                value = _expect_value(next(parts))
                part = next(parts)
            parameters.append((parameter, value))
        if part not in ("", ","):
            raise ValueError(part)
        headers.append(ExtensionHeader(name, tuple(parameters)))
    return headers


def _split(line: str) -> Iterator[str]:
    """Tokens, quoted strings and delimiters, and an empty part at the end."""
    position = count = 0
    while position < len(line):
        found = _PART.match(line, position)
        count += 1
        if found is None or count > _MAX_PARTS:
            raise ValueError(line[position:])
        yield found[1]
        position = found.end()
    yield ""


def _expect_token(part: str) -> str:
    if not _TOKEN.fullmatch(part):
        raise ValueError(part)
    return part


def _expect_value(part: str) -> str:
    if part.startswith('"'):  # RFC 6455 §9.1: what it quotes must be a token, too
        part = re.sub(r"\\(.)", r"\1", part[1:-1])
    return _expect_token(part)


def negotiate(
    factories: Sequence[ExtensionFactory], lines: Iterable[str]
) -> tuple[list[ExtensionHeader], tuple[Extension, ...]]:
    """Agree on extensions: what to answer, and the instances, both in the order of installation.

    Raises:
      ValueError: the offer breaks the grammar.
    """
    offers = parse_extensions(lines)
    answers: list[ExtensionHeader] = []
    extensions: list[Extension] = []
    for factory in factories:
        if factory.name is None:
            agreed = factory.negotiate(ExtensionHeader(""))
            if agreed is not None:
                extensions.append(agreed[1])
            continue
        for offer in offers:
            agreed = factory.negotiate(offer) if offer.name == factory.name else None
            if agreed is not None:
                answers.append(agreed[0])
                extensions.append(agreed[1])
                break
    return answers, tuple(extensions)


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


def encode(extensions: Sequence[Extension], message: Frame) -> Frame:
    """Pass a message through extensions on its way out, in one go."""
    for extension in extensions:
        message = extension.encode(message)
    return message


def begin_decode(extensions: Sequence[Extension], message: Frame, max_size: Callable[[], int | None]) -> Frame | Steps:
    """Pass a message through extensions, in this order, on its way in; steps where it takes more than a moment.

    Raises:
      ProtocolError: as an extension.
    """
    for number, extension in enumerate(extensions, 1):
        own = extension.factory.reserved
        if not own or message.first_byte & own:
            begun = extension.begin_decode(message, max_size())
            if not isinstance(begun, Frame):
                return _go_on(begun, extensions[number:], max_size)
            message = begun
    return message


def _go_on(begun: Steps, extensions: Sequence[Extension], max_size: Callable[[], int | None]) -> Steps:
    message = yield from begun
    for extension in extensions:
        own = extension.factory.reserved
        if not own or message.first_byte & own:
            message = yield from extension.decode_in_steps(message, max_size())
    return message
