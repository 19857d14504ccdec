"""The headers of a request, as the lines that came, and the refusal of what is none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, final

TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A token of RFC 9110 §5.6.2: header names, subprotocols, the names of cookies."""

_COMMON: Final = (
    *("Host", "Connection", "Upgrade", "Origin", "Cookie", "User-Agent", "Pragma", "Cache-Control"),
    *("Accept-Encoding", "Accept-Language", "Sec-WebSocket-Key", "Sec-WebSocket-Version"),
    *("Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "X-Forwarded-For", "X-Forwarded-Proto"),
)
_KEYS: Final = {written: name.lower() for name in _COMMON for written in (name, name.lower())}
"""What most names come as, and what they are looked up by."""


class Refusal(Exception):
    """A request is answered with an error status and the connection closed."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.status: int = status
        self.text: str = text
        self.headers: tuple[tuple[str, str], ...] = headers


@final
class Headers(Mapping[str, str]):
    """Request headers: names compare without case; `headers[name]` is the first value.

    Values are latin-1 as HTTP has it; `get_all` gives every line of a name, in order. They are kept as the lines that
    came; the index is made when it is needed, and may be dropped.
    """

    __slots__ = ("_index", "_lines")

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]] = (), *, lines: bytes | None = None) -> None:
        if lines is None:
            lines = b"\r\n".join(name + b":" + value for name, value in pairs)
        self._lines = lines
        self._index: dict[str, list[str]] | None = None

    def compact(self) -> None:
        """Drop the index: nobody is going to look for some time."""
        self._index = None

    def index(self) -> Mapping[str, list[str]]:
        """Every value by name, in lower case; not to be changed.

        Raises:
          Refusal: 400, a line has no name, or a blank before its colon.
        """
        if self._index is None:
            index: dict[str, list[str]] = {}
            for line in self._lines.decode("latin-1").split("\r\n") if self._lines else ():
                name, colon, value = line.partition(":")
                key = _KEYS.get(name) or _key(name)
                if not colon:
                    raise Refusal(400, _NAMELESS)
                index.setdefault(key, []).append(value.strip(" \t"))
            self._index = index
        return self._index

    def get_all(self, name: str) -> list[str]:
        """Every value of the header `name`, in the order of the lines; empty if there is none."""
        index = self.index()
        return list(index.get(name) or index.get(name.lower()) or ())

    def tokens(self, name: str) -> list[str]:
        """The comma-separated values of all lines of a header, as RFC 9110 §5.6.1 joins them."""
        return [token for line in self.get_all(name) for part in line.split(",") if (token := part.strip(" \t"))]

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return values[0]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.index()))

    def __len__(self) -> int:
        return len(self.index())

    def __repr__(self) -> str:
        return f"<Headers {', '.join(self):.200}>"  # what they say may be secret


_NAMELESS: Final = "a header of the request has no name"


def _key(name: str) -> str:
    """What a header is looked up by: its name in lower case."""
    if not TOKEN.fullmatch(name):  # RFC 9112 §5.1: no blank before the colon
        raise Refusal(400, _NAMELESS)
    return name.lower()
