"""Headers that hooks and handlers add to the answer of a request, the 101 included (Ktor: `call.response.headers`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, final

from .headers import TOKEN
from .responses import OURS, check_header

_OF_THE_UPGRADE: Final = ("upgrade", "content-type", "sec-websocket-")
_COOKIE_VALUE: Final = re.compile(r"[!#-+\--:<-\[\]-~]*")
"""cookie-octet of RFC 6265 §4.1.1: no blank, quote, comma, semicolon or backslash."""
_ATTRIBUTE: Final = re.compile(r"[ -:<-~]*")


@final
class ResponseHeaders:
    """What is to stand in the answer beside the server's own headers, in order.

    It may be changed until the answer goes out: by hooks, by the function that chooses a subprotocol, by GET handlers,
    and by a WebSocket's handler until it sends or waits for the first time, for then the 101 goes out. On a server of
    somebody else's (ASGI, trio-websocket) that has gone out before the handler begins.
    """

    __slots__ = ("_is_sent", "_pairs")

    def __init__(self) -> None:
        self._pairs: list[tuple[str, str]] = []
        self._is_sent = False

    def append(self, name: str, value: str) -> None:
        """Add a header; one of the same name stays.

        Raises:
          ValueError: it cannot be written, such as one with a line break (response splitting), or is the server's
            to write: Connection, Content-Length, Content-Type, Date, Transfer-Encoding, Upgrade, Sec-WebSocket-…
          RuntimeError: the answer has gone out.
        """
        check_header(name, value)
        if name.lower() in OURS or name.lower().startswith(_OF_THE_UPGRADE):
            raise ValueError(f"the header {name} is written by the server: leave it out")
        if self._is_sent:
            raise RuntimeError("the answer has gone out: add headers before the handler sends or waits, or in a hook")
        self._pairs.append((name, value))

    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: int | None = None,
        path: str | None = None,
        domain: str | None = None,
        secure: bool = False,
        http_only: bool = True,
        same_site: Literal["Strict", "Lax", "None"] | None = "Lax",
    ) -> None:
        """Add a `Set-Cookie` header (RFC 6265 §4.1); `max_age` is in seconds.

        Raises:
          ValueError: a name, value or attribute that a cookie cannot have; quote or encode the value yourself.
          RuntimeError: as `append`.
        """
        if not TOKEN.fullmatch(name):
            raise ValueError(f"not a cookie's name: {name!r}")
        if not _COOKIE_VALUE.fullmatch(value):
            raise ValueError(f"a cookie's value holds a blank, a quote, a comma, a semicolon or a backslash: {value!r}")
        if same_site not in (None, "Strict", "Lax", "None"):
            raise ValueError(f"same_site must be Strict, Lax, None or nothing, not {same_site!r}")
        parts = [f"{name}={value}"]
        for key, text in (("Max-Age", max_age), ("Path", path), ("Domain", domain), ("SameSite", same_site)):
            if text is not None:
                if not _ATTRIBUTE.fullmatch(str(text)):
                    raise ValueError(f"a cookie's {key} holds a semicolon or a control character: {text!r}")
                parts.append(f"{key}={text}")
        parts += ["Secure"] * secure + ["HttpOnly"] * http_only
        self.append("Set-Cookie", "; ".join(parts))

    def take(self) -> tuple[tuple[str, str], ...]:
        """All of them, for the answer that goes out now."""
        self._is_sent = True
        return tuple(self._pairs)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(tuple(self._pairs))

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return f"<ResponseHeaders {', '.join(name for name, _ in self._pairs):.200}>"  # what they say may be secret
