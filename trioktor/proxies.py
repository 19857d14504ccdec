"""What a proxy in front says of the client, believed only of proxies that were named.

Read from `Forwarded` (RFC 7239) or, without one, from `X-Forwarded-For` and `X-Forwarded-Proto`. A list of
addresses is read from the right: every trusted proxy added the address it saw, and the first that is not a
trusted proxy's is the client's. What stands left of it anybody may have made up.
"""

from __future__ import annotations

import ipaddress
from typing import Final, TypeAlias, final

import attrs

from .protocol.http import Headers

Peer: TypeAlias = "tuple[str, int] | str | None"
Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network | str"

UNIX: Final = "unix"
_SECURE: Final = frozenset({"https", "wss"})


@final
@attrs.frozen
class Forwarded:
    """The client as a trusted proxy describes it; None is what it does not say."""

    client: tuple[str, int] | None
    is_secure: bool | None


def parse_network(text: str) -> Network:
    """An address or network to be trusted, or "unix".

    Raises:
      ValueError: neither.
    """
    if text == UNIX:
        return UNIX
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"not a proxy's address, network, or 'unix': {text!r} ({error})") from None


def is_trusted(peer: Peer, networks: tuple[Network, ...]) -> bool:
    """Whether a peer is one of the proxies."""
    if not isinstance(peer, tuple):
        return UNIX in networks
    return _is_trusted_address(peer[0], networks)


def _is_trusted_address(text: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:10.0.0.1 on a socket for both families
    return any(not isinstance(network, str) and (mapped or address) in network for network in networks)


def read_forwarded(peer: Peer, headers: Headers, networks: tuple[Network, ...]) -> Forwarded | None:
    """What the proxy at the other end says; None if it is not to be believed."""
    if not is_trusted(peer, networks):
        return None
    elements = [_parameters(element) for element in headers.tokens("forwarded")]
    if elements:
        hops = [(element.get("for", ""), element.get("proto", "")) for element in elements]
    else:
        addresses = headers.tokens("x-forwarded-for")
        schemes = headers.tokens("x-forwarded-proto")
        # Proxies that add to the one list need not add to the other: an only scheme is the client's.
        schemes = schemes if len(schemes) == len(addresses) else schemes[-1:] * len(addresses)
        hops = list(zip(addresses, schemes or [""] * len(addresses), strict=True))
        if not addresses and headers.get_all("x-forwarded-proto"):
            hops = [("", headers.tokens("x-forwarded-proto")[-1])]
    client: tuple[str, int] | None = None
    is_secure: bool | None = None
    for node, scheme in reversed(hops):
        if scheme:
            is_secure = scheme.lower() in _SECURE
        address = _address(node)
        if address is not None:
            client = address
        if address is None or not _is_trusted_address(address[0], networks):
            break
    return Forwarded(client, is_secure)


def _parameters(element: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in element.split(";"))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def _address(node: str) -> tuple[str, int] | None:
    """A node such as 192.0.2.1, 192.0.2.1:80, 2001:db8::1 or [2001:db8::1]:80; None if it is none."""
    host, port = node, ""
    if node.startswith("["):
        host, _, port = node[1:].partition("]")
        port = port.removeprefix(":")
    elif node.count(":") == 1:
        host, _, port = node.partition(":")
    try:
        return str(ipaddress.ip_address(host)), int(port) if port.isascii() and port.isdigit() else 0
    except ValueError:
        return None
