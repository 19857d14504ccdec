"""What a proxy in front says of the client, believed only of proxies that were named.

Read from the one header that the proxy is known to set: `X-Forwarded-For` with `X-Forwarded-Proto`, or
`Forwarded` (RFC 7239). The other is not looked at, for a proxy that does not know it passes a client's on as
it came. Either is a list, read from the right: every trusted proxy added the address that it saw, and the
first that is not a trusted proxy's is the client's. What stands left of it anybody may have made up.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final, TypeAlias, final

import attrs

from ..http.headers import Headers

Peer: TypeAlias = "tuple[str, int] | str | None"
Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

UNIX: Final = "unix"
_HEADERS: Final = ("x-forwarded-for", "forwarded")
_SECURE: Final = frozenset({"https", "wss"})
_LONGEST_NODE: Final = 64
"""Characters of a node: an IPv6 address has at most 45, its brackets, a zone and a port some more."""
_PORT: Final = re.compile(r"(?::(\d{1,5}|_[\w.-]+))?")
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


@final
@attrs.frozen
class Forwarded:
    """The client as a trusted proxy describes it; None is what it does not say."""

    client: tuple[str, int] | None
    is_secure: bool | None


@final
@attrs.frozen
class Proxies:
    """The proxies that are believed, and the header that they set."""

    networks: tuple[Network, ...] = ()
    has_unix: bool = False
    header: str | None = None

    def with_more(self, networks: Iterable[str], header: str) -> Proxies:
        """These and more.

        Raises:
          ValueError: not an address or network, not a header that is known, or another than before.
        """
        name = header.lower()
        if name not in _HEADERS:
            raise ValueError(f"header must be X-Forwarded-For or Forwarded, not {header!r}")
        if self.header not in (None, name):
            raise ValueError(f"proxies are believed in {self.header} already, not in {header}: choose one")
        names = tuple(networks)
        added = tuple(_parse_network(text) for text in names if text != UNIX)
        return Proxies(self.networks + added, self.has_unix or UNIX in names, name)

    def is_trusted(self, peer: Peer, *, is_local: bool) -> bool:
        """Whether a peer is one of them. Who has no name and is not at a UNIX socket is nobody."""
        if is_local:
            return self.has_unix
        return isinstance(peer, tuple) and bool(self.networks) and self._trusts(peer[0])

    def read(self, peer: Peer, headers: Headers, *, is_local: bool) -> Forwarded | None:
        """What the proxy at the other end says; None if it is not to be believed."""
        if self.header is None or not self.is_trusted(peer, is_local=is_local):
            return None
        client: tuple[str, int] | None = None
        is_secure: bool | None = None
        for node, scheme in _rfc7239_hops(headers) if self.header == "forwarded" else _x_forwarded_hops(headers):
            if scheme:
                is_secure = scheme.lower() in _SECURE
            address = _address(node)
            if address is None:
                break
            client = address
            if not self._trusts(address[0]):
                break
        return Forwarded(client, is_secure)

    def _trusts(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(normal_address(text))
        except ValueError:
            return False
        return any(address in network for network in self.networks)


def normal_address(text: str) -> str:
    """An IP address in the one form in which it is compared: no zone, and IPv4 as IPv4."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:10.0.0.1 on a socket for both families
    return str(mapped or address)


def _parse_network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"not a proxy's address, network, or 'unix': {text!r} ({error})") from None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        bits = int(network.network_address) & 0xFFFFFFFF
        return ipaddress.IPv4Network((bits, network.prefixlen - 96))
    return network


def _x_forwarded_hops(headers: Headers) -> list[tuple[str, str]]:
    """Nodes and schemes, the nearest first."""
    addresses = headers.tokens("x-forwarded-for")
    schemes = headers.tokens("x-forwarded-proto")
    if len(schemes) != len(addresses):
        # Proxies that add to the one list need not add to the other: the last scheme is the nearest proxy's.
        schemes = schemes[-1:] * max(1, len(addresses))
    hops = list(zip(addresses or [""], schemes or [""] * max(1, len(addresses)), strict=True))
    return hops[::-1]


def _rfc7239_hops(headers: Headers) -> list[tuple[str, str]]:
    """Nodes and schemes, the nearest first."""
    hops = []
    for element in _split_from_right(", ".join(headers.get_all("forwarded")), ","):
        pairs = [pair.partition("=") for pair in _split_from_right(element, ";")]
        parameters = {name.strip().lower(): _unquoted(value.strip()) for name, _, value in pairs}
        if len(parameters) != len(pairs):  # RFC 7239 §4: each at most once
            hops.append(("", ""))
        else:
            hops.append((parameters.get("for", ""), parameters.get("proto", "")))
    return hops


def _split_from_right(text: str, separator: str) -> list[str]:
    """What separators outside of quoted strings divide, the last first.

    From the right, because that end is the trusted proxies': a quote that a client left open to the left of
    it must not change how theirs is read.
    """
    parts: list[str] = []
    end = len(text)
    in_quotes = False
    for position in range(len(text) - 1, -1, -1):
        character = text[position]
        if character == '"':
            start = position
            while start and text[start - 1] == "\\":
                start -= 1
            is_escaped = (position - start) % 2 == 1
            in_quotes = not in_quotes or is_escaped
        elif character == separator and not in_quotes:
            parts.append(text[position + 1 : end])
            end = position
    parts.append(text[:end])
    return [part for part in parts if part.strip()]


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def _address(node: str) -> tuple[str, int] | None:
    """A node such as 192.0.2.1, 192.0.2.1:80, 2001:db8::1 or [2001:db8::1]:80; None if it is none."""
    if len(node) > _LONGEST_NODE:
        return None
    if node.startswith("["):
        host, bracket, rest = node[1:].partition("]")
        if not bracket:
            return None
    elif node.count(":") > 1:  # an IPv6 address that stands without brackets has no port
        host, rest = node, ""
    else:
        host, colon, port_text = node.partition(":")
        rest = colon + port_text
    found = _PORT.fullmatch(rest)
    if found is None:
        return None
    port_text = found[1] or ""
    port = int(port_text) if port_text.isdecimal() else 0  # RFC 7239 §6.3: it may be obfuscated
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return (normal_address(host), port) if port <= 0xFFFF else None
