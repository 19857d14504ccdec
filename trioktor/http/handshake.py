"""The opening handshake (RFC 6455 §4.2): is this request acceptable, and what is the answer.

Every line that Ktor leaves unchecked (version, key, body, repeated headers, origin) is checked here.
"""

from __future__ import annotations

import binascii
import functools
import hashlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, TypeAlias, final
from urllib.parse import urlsplit

from .headers import Headers, Refusal
from .requests import RequestHead

VERSION: Final = "13"
_UPGRADE: Final = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION))
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SHA1: Final = hashlib.sha1(usedforsecurity=False)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_LABELS: Final = "[a-z0-9._-]"
"""What the names of hosts consist of, character by character."""


@final
class OriginPolicy(Enum):
    """Named policies for `WebSockets(origins=…)`."""

    SAME_ORIGIN = "same origin, or no Origin header"


SAME_ORIGIN: Final = OriginPolicy.SAME_ORIGIN


@final
class HostPolicy(Enum):
    """Named policies for `WebSockets(hosts=…)`."""

    LOOPBACK = "names and addresses of the loopback"


LOOPBACK: Final = HostPolicy.LOOPBACK
Hosts: TypeAlias = "HostPolicy | Sequence[str | re.Pattern[str]] | None"
Origins: TypeAlias = "OriginPolicy | Sequence[str | re.Pattern[str]] | None"


def check_upgrade(head: RequestHead) -> str:
    """Check everything about an upgrade request but its origin; returns the key (RFC 6455 §4.2.1).

    Raises:
      Refusal: with the status and headers that the RFC asks for.
    """
    if not head.is_upgrade:
        raise Refusal(426, "this path speaks WebSocket only", _UPGRADE)
    if head.http_version != "1.1":
        raise Refusal(400, "a WebSocket needs HTTP/1.1")
    index = head.headers.index()
    if index.get("sec-websocket-version") != [VERSION]:  # RFC 6455 §4.4; RFC 9110 §15.5.22 has Upgrade beside it
        raise Refusal(426, f"Sec-WebSocket-Version must be {VERSION}", _UPGRADE)
    keys = index.get("sec-websocket-key", ())
    if len(keys) != 1 or not _is_key(keys[0]):
        raise Refusal(400, "Sec-WebSocket-Key must be given once and be 16 bytes in base64")
    return keys[0]


def _is_key(value: str) -> bool:
    try:
        return len(value) == 24 and len(binascii.a2b_base64(value, strict_mode=True)) == 16
    except (binascii.Error, ValueError):
        return False


def accept_token(key: str) -> str:
    """What `Sec-WebSocket-Accept` has to be for a key (RFC 6455 §4.2.2, item 5.4)."""
    digest = _SHA1.copy()  # a new one is looked up by its name first
    digest.update(key.encode("ascii") + _GUID)
    return binascii.b2a_base64(digest.digest(), newline=False).decode("ascii")


def upgrade_response(
    key: str,
    subprotocol: str | None = None,
    extensions: str = "",
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """The 101 that ends HTTP on this connection; `headers` are the application's, and checked."""
    chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol is not None else ""
    if extensions:
        chosen += f"Sec-WebSocket-Extensions: {extensions}\r\n"
    for name, value in headers:
        chosen += f"{name}: {value}\r\n"
    return (
        "HTTP/1.1 101 Switching Protocols\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_token(key)}\r\n{chosen}\r\n"
    ).encode("latin-1")


def choose_subprotocol(offered: Iterable[str], served: Sequence[str]) -> str | None:
    """The first of `served` that the client offered, or None (RFC 6455 §4.2.2, item 5.5)."""
    offers = set(offered)
    return next((name for name in served if name in offers), None)


def check_host(authority: str, hosts: Hosts) -> None:
    """Check what host was asked for.

    A page may have its own name point at any address after it was loaded (DNS rebinding), and then it has the same
    origin as what answers there. Only the name gives it away.

    Raises:
      Refusal: 421 (RFC 9110 §15.5.20).
    """
    if hosts is None or not authority:  # every browser says it
        return
    host = _host_of(authority)
    if isinstance(hosts, HostPolicy):
        if host == "localhost" or host.endswith(".localhost") or _is_loopback(host):
            return
    elif host and any(_is_host(host, pattern) for pattern in hosts):
        return
    raise Refusal(421, "this server does not answer to that host")


@functools.lru_cache(maxsize=64)
def _host_of(authority: str) -> str:
    """The host of an authority, without the dot that may end a name."""
    # in lower case: it takes no [V1.x] for an address, though RFC 3986 does
    return (urlsplit(f"//{authority.lower()}").hostname or "").removesuffix(".")


@functools.lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_host(host: str, pattern: str | re.Pattern[str]) -> bool:
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch(host) is not None
    return _matches(host, pattern.strip("[]"))


def check_origin(headers: Headers, authority: str, origins: Origins, *, is_secure: bool = False) -> None:
    """Check the Origin header against a policy (RFC 6455 §10.2).

    A request without the header does not come from a browser's page, so it passes. The same origin is that of
    the `authority` that was asked for, by TLS if `is_secure`. If not, a proxy that nobody named may have spoken TLS for
    us, and both schemes pass.

    Raises:
      Refusal: 403; the text names the origin.
    """
    values = headers.index().get("origin")
    if origins is None or not values:
        return
    origin = values[0]
    if len(values) == 1:
        if isinstance(origins, OriginPolicy):
            if authority and _is_same_origin(origin, authority, is_secure=is_secure):
                return
        elif any(_matches(origin, pattern) for pattern in origins):
            return
    raise Refusal(403, f"the origin {origin[:200]!a} is not allowed")


def _is_same_origin(origin: str, host: str, *, is_secure: bool) -> bool:
    try:
        parts = urlsplit(origin)
        if origin != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
            return False
        default = _DEFAULT_PORTS[parts.scheme]
        if is_secure and default != _DEFAULT_PORTS["https"]:  # whoever is on the way may have written that page
            return False
        here = urlsplit(f"//{host}")
        return (parts.hostname, parts.port or default) == (here.hostname, here.port or default)
    except (KeyError, ValueError):
        return False


def _matches(origin: str, pattern: str | re.Pattern[str]) -> bool:
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch(origin) is not None
    if "*" not in pattern:
        return origin.lower() == pattern.lower()
    # A star stands for one or more labels of a host name, and for nothing that could end it. What stands behind one is
    # taken where it is found first, for good: else several stars would cost a power of the length, which is a peer's.
    first, *middle, last = map(re.escape, pattern.split("*"))
    regex = first + "".join(f"(?>{_LABELS}+?{part})" for part in middle) + f"{_LABELS}+{last}"
    return re.fullmatch(regex, origin, re.IGNORECASE | re.ASCII) is not None
