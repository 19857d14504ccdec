"""Where a client connects to: a WebSocket address (RFC 6455 §3), taken apart once and checked."""

from __future__ import annotations

import base64
import ipaddress
import re
from typing import Final, final
from urllib.parse import quote, unquote, urljoin, urlsplit

import attrs

_SCHEMES: Final = {"ws": False, "wss": True}
_OF_HTTP: Final = {"http": "ws", "https": "wss"}
_HINT: Final = "write ws://host:port/path"
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f]")
_KEPT: Final = "/%:@!$&'()*+,;=~?-._[]"
"""What is left as it is in a path and a query; everything else that is no letter or digit is escaped."""
_LABEL: Final = re.compile(r"[A-Za-z0-9\-_~%!$&'()*+,;=]{1,63}")
_ZONED: Final = re.compile(r"([0-9A-Fa-f:.]+)(?:%(?:25)?([A-Za-z0-9\-._~]+))?")
"""An IPv6 address, with the interface by which it is reached (RFC 6874)."""
_LONGEST_NAME: Final = 253


@final
@attrs.frozen
class Address:
    """A WebSocket address.

    Attributes:
      is_secure: whether it is wss.
      host: a name in ASCII, or an address without brackets.
      target: path and query, as on the request line.
      user: name and password, where the address has them.
    """

    is_secure: bool
    host: str
    port: int
    target: str
    user: tuple[str, str] | None = attrs.field(default=None, repr=False)

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them; the port only where it is not the scheme's own."""
        host = f"[{self.name}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_secure else 80) else f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """The host as others know it: an interface of ours is nothing to them (RFC 6874 §4)."""
        return self.host.partition("%")[0] if ":" in self.host else self.host

    @property
    def is_literal(self) -> bool:
        """Whether the host is an IP address, and there is nothing to look up."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return "%" not in self.host  # that names an interface, which is looked up

    @property
    def origin(self) -> tuple[bool, str, int]:
        """What credentials belong to: scheme, host and port."""
        return self.is_secure, self.host, self.port

    @property
    def authorization(self) -> str | None:
        """The Authorization header that the user information stands for (RFC 7617)."""
        if self.user is None:
            return None
        return "Basic " + base64.b64encode(":".join(self.user).encode()).decode("ascii")

    def __str__(self) -> str:
        path = self.target.partition("?")[0]  # what stands behind it may be secret
        return f"{'wss' if self.is_secure else 'ws'}://{self.authority}{path}"

    def redirected(self, location: str) -> Address:
        """Where a Location header leads (RFC 9110 §10.2.2).

        Raises:
          ValueError: to no WebSocket address, or from wss to ws.
        """
        base = f"{'https' if self.is_secure else 'http'}://{self.authority}{self.target}"
        url = urljoin(base, location.strip()).partition("#")[0]
        scheme, colon, rest = url.partition(":")
        address = parse_address(_OF_HTTP.get(scheme.lower(), scheme) + colon + rest)
        if self.is_secure and not address.is_secure:
            raise ValueError("the redirect leads from wss to ws")
        return address


def parse_address(url: str) -> Address:
    """Take a WebSocket address apart.

    Names may hold any letters (IDNA), path and query, too. What stands in front of an @ is name and password.

    Raises:
      ValueError: it is none; the text says why.
    """
    if not isinstance(url, str):
        raise TypeError(f"a WebSocket address is a str, not {type(url).__name__}")
    shown = _without_user(url)
    if _UNSAFE.search(url):
        raise ValueError(f"not a WebSocket address: {shown!r}: it holds blanks or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        why = f" ({error})" if shown == url else ""  # it may hold a part of a password
        raise ValueError(f"not a WebSocket address: {shown!r}{why}; {_HINT}") from None
    is_secure = _SCHEMES.get(parts.scheme)
    if is_secure is None or not parts.hostname or port == 0:
        raise ValueError(f"not a WebSocket address: {shown!r}; {_HINT}")
    if "#" in url:
        raise ValueError(f"a WebSocket address has no fragment (RFC 6455 §3): {shown!r}")
    user = None
    if parts.username or parts.password:
        user = (unquote(parts.username or ""), unquote(parts.password or ""))
        if ":" in user[0]:
            raise ValueError("a user's name holds no colon (RFC 7617 §2)")
    return Address(
        is_secure,
        _ascii(parts.hostname, shown),
        port or (443 if is_secure else 80),
        quote(parts.path or "/", safe=_KEPT) + ("?" + quote(parts.query, safe=_KEPT) if "?" in url else ""),
        user,
    )


def _without_user(url: str) -> str:
    """An address as it may be shown: what stands in front of an @ may be a password."""
    before, at, rest = url.rpartition("@")
    scheme, slashes, _ = before.partition("//")
    return (scheme + slashes if slashes else "") + f"…@{rest}" if at else url


def _ascii(host: str, url: str) -> str:
    if not host.isascii():
        import idna  # as Trio looks names up

        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"not a host's name in {url!r}: {error}") from None
    zoned = _ZONED.fullmatch(host) if ":" in host else None
    if zoned is not None:
        return zoned[1] + (f"%{zoned[2]}" if zoned[2] else "")
    labels = host.removesuffix(".").split(".")
    if len(host) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"not a host's name in {url!r}: {host[:_LONGEST_NAME]!r}")
    return host.lower()
