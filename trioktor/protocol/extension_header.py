"""The `Sec-WebSocket-Extensions` header: extensions with parameters, as offered or accepted (RFC 6455 §9.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, final

import attrs

_MAX_PARTS: Final = 1000
"""Tokens, quoted strings and delimiters of all offers together; a browser's has one to five."""
_PART: Final = re.compile(r'[ \t]*([,;=]|[!#$%&\'*+\-.^_`|~0-9A-Za-z]+|"(?:[^"\\]|\\.)*")[ \t]*')
TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@final
@attrs.frozen
class ExtensionHeader:
    """An extension with parameters, as offered or accepted: ``name; flag; parameter=value``."""

    name: str
    parameters: tuple[tuple[str, str | None], ...] = ()

    def __str__(self) -> str:
        parts = [name if value is None else f"{name}={value}" for name, value in self.parameters]
        return "; ".join([self.name, *parts])


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
    if not TOKEN.fullmatch(part):
        raise ValueError(part)
    return part


def _expect_value(part: str) -> str:
    if part.startswith('"'):  # RFC 6455 §9.1: what it quotes must be a token, too
        part = re.sub(r"\\(.)", r"\1", part[1:-1])
    return _expect_token(part)
