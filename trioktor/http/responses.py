"""Responses in HTTP/1.1: small, whole, and the last on their connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeAlias, final

import attrs

from .headers import TOKEN, Refusal

_END: Final = b"\r\n\r\n"
_BODILESS: Final = (204, 205, 304)
OURS: Final = ("connection", "content-length", "date", "transfer-encoding")
"""Headers that are the server's to write."""


def check_header(name: str, value: str) -> None:
    """Refuse a header that cannot be written.

    Raises:
      ValueError: such as one with a line break (response splitting).
    """
    if not TOKEN.fullmatch(name):
        raise ValueError(f"not a header name: {name!r}")
    if value != value.strip(" \t"):  # RFC 9110 §5.5: they would be no part of it
        raise ValueError(f"the value of the header {name} begins or ends with a blank: {value!r}")
    if any(c in "\r\n\0\x7f" or (ord(c) < 0x20 and c != "\t") or ord(c) > 0xFF for c in value):
        raise ValueError(f"the value of the header {name} has a control character, or one outside latin-1: {value!r}")


HeaderPairs: TypeAlias = "Mapping[str, str] | Sequence[tuple[str, str]]"


def header_pairs(headers: HeaderPairs) -> tuple[tuple[str, str], ...]:
    """Headers as pairs, checked.

    Raises:
      ValueError: a name or value cannot be written, such as one with a line break (response splitting).
      TypeError: they are no pairs of str.
    """
    pairs: list[tuple[str, str]] = []
    given: Any = headers.items() if hasattr(headers, "items") else headers
    if not isinstance(given, Iterable):
        raise TypeError(f"headers are a mapping, or pairs (name, value), of str; not {headers!r}")
    for pair in given:
        is_pair = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
        if not is_pair or not all(isinstance(part, str) for part in pair):
            raise TypeError(f"headers are a mapping, or pairs (name, value), of str; not {pair!r}")
        name, value = pair
        check_header(name, value)
        pairs.append((name, value))
    return tuple(pairs)


def encoded(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Headers as bytes, their names in lower case: what servers of others take."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]


@final
@attrs.frozen
class Response:
    """A small HTTP response: the answer of an `@app.get` handler, or a refusal.

    Args:
      body: str (UTF-8) or bytes.
      status: the status code; 101 is not for you.
      headers: pairs or a mapping; `Content-Length` and `Connection: close` are added.
      content_type: of the body.

    Raises:
      ValueError: a header or body that cannot be written, such as a header with a line break (response
        splitting), a header that is the server's to write (Connection, Content-Length, Date, Transfer-Encoding),
        or a status outside 200 to 599.
      TypeError: a body that is neither str nor bytes, a status that is no number, headers that are no pairs.
    """

    body: str | bytes = ""
    status: int = attrs.field(default=200, kw_only=True)
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), kw_only=True, converter=header_pairs)
    content_type: str = attrs.field(default="text/plain; charset=utf-8", kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.status, int):
            raise TypeError(f"status must be a number, not {self.status!r}")
        if not 200 <= self.status <= 599:
            raise ValueError(f"status must be between 200 and 599, not {self.status}")
        check_header("content-type", self.content_type)
        for name, _ in self.headers:
            if name.lower() == "content-type":
                raise ValueError("the header Content-Type is the argument content_type")
            if name.lower() in OURS:
                raise ValueError(f"the header {name} is written by the server: leave it out")
        if isinstance(self.body, str):
            self.body.encode()  # raises for what UTF-8 cannot say
        elif not isinstance(self.body, bytes):
            raise TypeError(f"body must be str or bytes, not {type(self.body).__name__}")

    def to_bytes(self, *, date: str | None = None, with_body: bool = True) -> bytes:
        """The whole response as it goes on the wire; `with_body=False` answers a HEAD request.

        `date` is when that is (RFC 9110 §6.6.1), in its form.
        """
        # RFC 9110 §7.8: whoever sends Upgrade names it in Connection.
        connection = "close, Upgrade" if any(name.lower() == "upgrade" for name, _ in self.headers) else "close"
        lines = [f"HTTP/1.1 {self.status} {_reason_phrase(self.status)}", f"Connection: {connection}"]
        if date is not None:
            lines.append(f"Date: {date}")
        lines += [f"{name}: {value}" for name, value in self.fields()]
        return "\r\n".join(lines).encode("latin-1") + _END + (self.payload if with_body else b"")

    @property
    def payload(self) -> bytes:
        """The body as bytes; none where the status has none (RFC 9110 §15.3.5, §15.4.5)."""
        if self.status in _BODILESS:
            return b""
        return self.body.encode() if isinstance(self.body, str) else self.body

    def fields(self) -> list[tuple[str, str]]:
        """The headers, with those that say what the body is."""
        fields = []
        if not any(name.lower() == "x-content-type-options" for name, _ in self.headers):
            fields.append(("X-Content-Type-Options", "nosniff"))
        if self.status not in _BODILESS:  # RFC 9110 §8.6: nor a length
            fields += [("Content-Type", self.content_type), ("Content-Length", str(len(self.payload)))]
        return [*fields, *self.headers]


def _reason_phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # RFC 9112 §4 has it empty then
        return ""


def refusal_response(refusal: Refusal) -> Response:
    """The response that says a refusal: its text in one line."""
    return Response(refusal.text + "\n", status=refusal.status, headers=refusal.headers)
