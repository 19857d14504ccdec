"""The opening handshake from the client's side (RFC 6455 §4.1): what to ask, and whether the answer is one to it."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import Final

from .asking import Handshake
from .handshake import VERSION, accept_token
from .headers import TOKEN
from .requests import has_token
from .responses import check_header

_OURS: Final = (
    "connection",
    "content-length",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "transfer-encoding",
    "upgrade",
)
"""Headers that the handshake consists of."""


def new_key() -> str:
    """A key for one handshake: 16 random bytes in base64 (RFC 6455 §4.1, item 7)."""
    return base64.b64encode(os.urandom(16)).decode("ascii")


def check_client_headers(headers: Sequence[tuple[str, str]], *, has_origin: bool = False) -> None:
    """Refuse headers that cannot be written, or are the handshake's own; `has_origin`: there is one beside them.

    Raises:
      ValueError: with the name.
    """
    for name, value in headers:
        check_header(name, value)
        if name.lower() in _OURS:
            raise ValueError(f"the header {name} is written by connect: leave it out, or give its own argument")
    names = [name.lower() for name, _ in headers]
    if names.count("host") > 1:
        raise ValueError("a request has one Host header")
    if names.count("origin") + has_origin > 1:  # RFC 6454 §7.3
        raise ValueError("a request has one Origin header: leave it out of headers=, or origin= away")


def check_subprotocols(names: object) -> tuple[str, ...]:
    """The subprotocols to offer: one name, or a list.

    Raises:
      TypeError: they are no list.
      ValueError: one is no token, or given twice (RFC 6455 §4.1, item 10).
    """
    if isinstance(names, str):
        names = (names,)
    if not isinstance(names, Sequence):
        raise TypeError(f"subprotocols must be a list of names, not {names!r}")
    given: list[str] = []
    for name in names:
        if not isinstance(name, str) or not TOKEN.fullmatch(name):
            raise ValueError(f"subprotocols must be names (RFC 9110 tokens), not {name!r}")
        if name in given:
            raise ValueError("subprotocols: a name is given twice")
        given.append(name)
    return tuple(given)


def opening_headers(
    key: str, *, subprotocols: Sequence[str] = (), extensions: str = "", origin: str | None = None
) -> list[tuple[str, str]]:
    """What makes a request a WebSocket's."""
    pairs = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", VERSION),
    ]
    if origin is not None:
        pairs.append(("Origin", origin))
    if subprotocols:
        pairs.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    if extensions:
        pairs.append(("Sec-WebSocket-Extensions", extensions))
    return pairs


def check_answer(answer: Handshake, key: str, subprotocols: Sequence[str]) -> str | None:
    """Check a 101 as RFC 6455 §4.1 has it, but for the extensions; returns the subprotocol.

    Raises:
      ValueError: it is no answer to this handshake.
    """
    headers = answer.headers
    if [value.lower() for value in headers.get_all("upgrade")] != ["websocket"]:
        raise ValueError("Upgrade is not websocket")
    if not has_token(headers, "connection", "upgrade"):
        raise ValueError("Connection does not name Upgrade")
    if headers.get_all("sec-websocket-accept") != [accept_token(key)]:
        raise ValueError("Sec-WebSocket-Accept is not what belongs to our key")
    chosen = headers.get_all("sec-websocket-protocol")
    if not chosen:
        return None
    if len(chosen) > 1 or chosen[0] not in subprotocols:
        raise ValueError(f"the subprotocol {', '.join(chosen)[:200]!a} was not offered")
    return chosen[0]
