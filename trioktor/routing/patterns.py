"""Which handler serves which path: Ktor's pattern language, matched segment by segment.

A pattern is a path whose segments may be

======================  ==========================================  =======
``chat``                that segment                                1.0
``user-{id}.json``      a parameter between a prefix and a suffix   0.9
``{id}``                one segment                                 0.8
``*``                   one segment, not named                      0.5
``{id?}``               one segment or none, at the end             0.8/0.2
``{rest...}``, ``{...}``  all that is left, at the end              0.1
======================  ==========================================  =======

The numbers are Ktor's: where several patterns match, the first segment in which they differ decides, and
the higher number wins; between equals, the one registered first. A trailing slash counts. Segments are
percent-decoded before they are compared, so an encoded slash does not divide. What a tail holds is the client's
to say, ``..`` included: it is no path of files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final, Generic, TypeVar, final
from urllib.parse import quote, unquote

import attrs

T = TypeVar("T")

_CONSTANT: Final = 1.0
_PARAMETER: Final = 0.8
_AFFIXED: Final = 0.9
_WILDCARD: Final = 0.5
_MISSING: Final = 0.2
_TAIL: Final = 0.1

_UNESCAPED: Final = "!$&'()*+,;=:@"
"""What stands in a path as it is, beside letters, digits and `-._~` (RFC 3986 §3.3): as `http.requests` spells it."""
_PLACEHOLDER: Final = re.compile(r"([^{}]*)\{([A-Za-z_][A-Za-z0-9_]*)?(\?|\.\.\.)?\}([^{}]*)")


@final
class _Kind(Enum):
    CONSTANT = auto()
    PARAMETER = auto()
    OPTIONAL = auto()
    TAIL = auto()


@final
@attrs.frozen
class _Segment:
    kind: _Kind
    text: str = ""  # of a constant; the prefix of a parameter
    suffix: str = ""
    name: str | None = None
    quality: float = _CONSTANT

    @property
    def key(self) -> str:
        """It in its one spelling."""
        spelled = quote(self.text, safe=_UNESCAPED)
        if self.kind is _Kind.CONSTANT:
            return spelled
        return f"{spelled}{{{self.name} {self.kind.name}}}{quote(self.suffix, safe=_UNESCAPED)}"

    def match(self, segment: str) -> str | None:
        """What the parameter is, or None if the segment does not fit."""
        if self.kind is _Kind.CONSTANT:
            return segment if segment == self.text else None
        value = segment.removeprefix(self.text).removesuffix(self.suffix)
        return value if value and segment == self.text + value + self.suffix else None


def _parse_segment(text: str, pattern: str) -> _Segment:
    if text == "*":
        return _Segment(_Kind.PARAMETER, quality=_WILDCARD)
    found = _PLACEHOLDER.fullmatch(text)
    if found is None:
        if "{" in text or "}" in text:
            raise ValueError(
                f"{pattern!r}: {text!r} is not a segment; write {{name}}, {{name?}}, {{name...}} or {{...}}"
            )
        return _Segment(_Kind.CONSTANT, unquote(text))
    prefix, name, mark, suffix = found.groups(default="")
    if mark == "..." and not suffix and not prefix:
        return _Segment(_Kind.TAIL, name=name or None, quality=_TAIL)
    if not name or mark == "..." or (mark and (prefix or suffix)):
        raise ValueError(f"{pattern!r}: {text!r} needs a name, and no text beside `?` or `...`")
    quality = _AFFIXED if prefix or suffix else _PARAMETER
    return _Segment(_Kind.OPTIONAL if mark else _Kind.PARAMETER, unquote(prefix), unquote(suffix), name, quality)


@final
class Pattern:
    """A parsed path pattern.

    Attributes:
      key: what two have in common that are the same: a path may be spelled in several ways.
      names: of its parameters.
      is_constant: whether it matches one path only.

    Raises:
      ValueError: it is malformed; the text shows the forms there are.
    """

    __slots__ = ("is_constant", "key", "names", "segments", "text")

    def __init__(self, text: str) -> None:
        self.text: str = text
        self.segments: list[_Segment] = [_parse_segment(segment, text) for segment in text.removeprefix("/").split("/")]
        self.key: str = "".join("/" + segment.key for segment in self.segments)
        names = [segment.name for segment in self.segments if segment.name]
        if len(names) != len(set(names)):
            raise ValueError(f"{text!r} names a parameter twice")
        if any(segment.kind in (_Kind.OPTIONAL, _Kind.TAIL) for segment in self.segments[:-1]):
            raise ValueError(f"{text!r}: an optional or tail parameter must be the last segment")
        self.names: frozenset[str] = frozenset(names)
        self.is_constant: bool = all(segment.kind is _Kind.CONSTANT for segment in self.segments)

    def match(self, path: list[str]) -> tuple[tuple[float, ...], dict[str, str]] | None:
        """The qualities of the match and the parameters, or None."""
        qualities: list[float] = []
        parameters: dict[str, str] = {}
        for position, segment in enumerate(self.segments):
            left = path[position:]
            if segment.kind is _Kind.TAIL:
                if segment.name:
                    parameters[segment.name] = "/".join(left)
                return (*qualities, _TAIL), parameters
            if segment.kind is _Kind.OPTIONAL and (not left or path == [""]):  # "/" has no segment
                return (*qualities, _MISSING), parameters
            if not left:
                return None
            value = segment.match(left[0])
            if value is None:
                return None
            if segment.name:
                parameters[segment.name] = value
            qualities.append(segment.quality)
        # That the path ends with the pattern counts as a constant would: better than a tail left empty.
        return ((*qualities, _CONSTANT), parameters) if len(path) == len(self.segments) else None


def join(prefix: str, path: str) -> str:
    """One path pattern below another; both may be written with or without slashes at the seam."""
    if not path:
        return prefix or "/"
    return prefix.rstrip("/") + "/" + path.removeprefix("/")


_NO_PARAMETERS: Final[Mapping[str, str]] = MappingProxyType({})


class RouteTable(Generic[T]):
    """Patterns and what they lead to."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[Pattern, T]] = {}

    def __iter__(self) -> Iterator[tuple[Pattern, T]]:
        return iter(self._entries.values())

    def get(self, pattern: Pattern) -> T | None:
        """What was added under the same pattern."""
        entry = self._entries.get(pattern.key)
        return entry[1] if entry else None

    def add(self, pattern: Pattern, target: T) -> None:
        """Add a pattern, later than all others."""
        self._entries[pattern.key] = pattern, target

    def find(self, path: str) -> Iterator[tuple[T, Mapping[str, str]]]:
        """Everything that matches a request's path, in its one spelling, the best match first."""
        exact = self._entries.get(path)
        if exact is not None and exact[0].is_constant:
            yield exact[1], _NO_PARAMETERS
            yield from self._search(path, besides=path)
        else:
            yield from self._search(path)

    def _search(self, path: str, besides: str | None = None) -> Iterator[tuple[T, Mapping[str, str]]]:
        segments = [unquote(segment) for segment in path.removeprefix("/").split("/")]
        matches = []
        for pattern, target in self._entries.values():
            if pattern.key != besides and (match := pattern.match(segments)) is not None:
                matches.append((match[0], target, match[1]))
        matches.sort(key=lambda match: match[0], reverse=True)  # stable: equals keep their order
        for _, target, parameters in matches:
            yield target, parameters
