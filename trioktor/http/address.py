"""Where a client connects to: a WebSocket address (RFC 6455 §3), taken apart once and checked."""

from __future__ import annotations

import base64
import ipaddress
import re
from typing import Final, final
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

import attrs

_SCHEMES: Final = {"ws": False, "wss": True}
_OF_HTTP: Final = {"http": "ws", "https": "wss"}
_HINT: Final = "write ws://host:port/path"
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")
_BRACKETED: Final = re.compile(r"\[[^\[\]]*\](?::[0-9]*)?")
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
        if address.host == self.name:  # by which interface it is reached we know by ourselves
            address = attrs.evolve(address, host=self.host)
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
    try:
        parts, port = split_url(url)
        is_secure = _SCHEMES.get(parts.scheme)
        if is_secure is None:
            raise ValueError("its scheme is neither ws nor wss")
        if port == 0:
            raise ValueError("its port is none")
        if "#" in url:
            raise ValueError("it has no fragment (RFC 6455 §3)")
        host, user = host_and_user(parts)
    except ValueError as error:
        raise ValueError(f"not a WebSocket address: {shown!r}: {error}; {_HINT}") from None
    return Address(
        is_secure,
        host,
        port or (443 if is_secure else 80),
        quote(parts.path or "/", safe=_KEPT) + ("?" + quote(parts.query, safe=_KEPT) if "?" in url else ""),
        user,
    )


def split_url(url: str) -> tuple[SplitResult, int | None]:
    """An address with a host in its parts, and the port.

    Raises:
      ValueError: it is none; the text shows nothing that may be secret.
    """
    if _UNSAFE.search(url):
        raise ValueError("it holds blanks, control characters or surrogates")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may hold a part of a password
        raise ValueError("its host or port is none") from None
    host = parts.netloc.rpartition("@")[2]
    if not parts.hostname or ("[" in host and not _BRACKETED.fullmatch(host)):
        raise ValueError("its host is none")
    return parts, port


def host_and_user(parts: SplitResult) -> tuple[str, tuple[str, str] | None]:
    """The host in ASCII, without brackets; and the name and password in front of it.

    Raises:
      ValueError: they are none.
    """
    user = None
    if parts.username or parts.password:
        user = (unquote(parts.username or ""), unquote(parts.password or ""))
        if ":" in user[0]:
            raise ValueError("a user's name holds no colon (RFC 7617 §2)")
    return ascii_host(parts.hostname or ""), user


def _without_user(url: str) -> str:
    """An address as it may be shown: what stands in front of an @ may be a password."""
    before, at, rest = url.rpartition("@")
    scheme, slashes, _ = before.partition("//")
    return (scheme + slashes if slashes else "") + f"…@{rest}" if at else url


def ascii_host(host: str) -> str:
    """A host's name in ASCII (IDNA), or an address, with its zone.

    Raises:
      ValueError: it is none.
    """
    if not host.isascii():
        import idna  # as Trio looks names up

        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"not a host's name: {error}") from None
    zoned = _ZONED.fullmatch(host) if ":" in host else None
    if zoned is not None:
        return zoned[1] + (f"%{zoned[2]}" if zoned[2] else "")
    labels = host.removesuffix(".").split(".")
    if len(host) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"not a host's name: {host[:_LONGEST_NAME]!r}")
    return host.lower()
