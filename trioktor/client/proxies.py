"""Ways through a proxy: HTTP CONNECT, over TLS or not, and SOCKS by python-socks."""

from __future__ import annotations

import base64
import importlib.util
import math
from typing import Final, final

import attrs
import trio

from ..engine.streams import StreamTransport
from ..errors import CannotConnect, HandshakeRefused
from ..http.address import Address, host_and_user, split_url
from ..http.asking import BadAnswer, Exchange
from .exchange import exchange

_LONGEST_NAME: Final = 255
"""Bytes that SOCKS has room for (RFC 1929)."""
_PORTS: Final = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}


@final
@attrs.frozen
class Proxy:
    """A proxy: http and https tunnel by CONNECT (RFC 9110 §9.3.6); socks4a and socks5h look names up themselves."""

    scheme: str
    host: str
    port: int
    user: tuple[str, str] | None = attrs.field(default=None, repr=False)

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS."""
        return self.scheme.startswith("socks")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_proxy(url: str) -> Proxy:
    """Take a proxy's address apart.

    Raises:
      ValueError: it is none.
      ImportError: SOCKS needs the extra `proxy`.
    """
    shown = url.rpartition("@")[2]  # without what stands before it, which may be a password
    try:
        parts, port = split_url(url)
        if parts.scheme not in _PORTS or port == 0 or parts.path not in ("", "/") or parts.query or "#" in url:
            raise ValueError(f"write http://host:port, or https, or one of {', '.join(list(_PORTS)[2:])}")
        host, user = host_and_user(parts)
        if (
            user is not None
            and parts.scheme.startswith("socks")
            and max(map(len, map(str.encode, user))) > _LONGEST_NAME
        ):
            raise ValueError(f"SOCKS takes at most {_LONGEST_NAME} bytes of a user's name and password")
    except ValueError as error:
        raise ValueError(f"not a proxy's address: {shown!r}: {error}") from None
    proxy = Proxy(parts.scheme, host, port or _PORTS[parts.scheme], user)
    if proxy.is_socks and importlib.util.find_spec("python_socks") is None:
        raise ImportError("SOCKS needs python-socks: pip install 'trioktor[proxy]'")
    return proxy


def proxy_from_environment(address: Address) -> Proxy | None:
    """The proxy that the environment, or the system, names for an address; None if it is to be reached without.

    That is `wss_proxy`, `https_proxy` or `all_proxy`, for ws `ws_proxy`, `http_proxy` or `all_proxy`, in small or
    capital letters; unless `no_proxy` names the host.

    Raises:
      ValueError, ImportError: as `parse_proxy`.
    """
    from urllib.request import getproxies, proxy_bypass  # here: it imports much

    hosts = address.host, f"{address.host}:{address.port}", f"[{address.host}]"
    if any(map(proxy_bypass, hosts)):
        return None
    proxies = getproxies()
    for name in ("wss", "https", "all") if address.is_secure else ("ws", "http", "all"):
        url = proxies.get(name)
        if url:
            return parse_proxy(url if "://" in url else f"http://{url}")
    return None


async def tunnel(stream: trio.abc.Stream, proxy: Proxy, address: Address) -> None:
    """Have an HTTP proxy connect a stream to an address.

    Raises:
      CannotConnect: it would not; a `HandshakeRefused` behind it says how it answered.
    """
    host = f"[{address.name}]" if ":" in address.host else address.host
    target = f"{host}:{address.port}"
    headers = []
    if proxy.user is not None:
        secret = base64.b64encode(":".join(proxy.user).encode()).decode("ascii")
        headers.append(("Proxy-Authorization", f"Basic {secret}"))
    try:
        answer, trailing_data = await exchange(StreamTransport(stream), Exchange("CONNECT", target, target, headers))
    except (BadAnswer, trio.BrokenResourceError) as error:
        how = "answered wrongly" if isinstance(error, BadAnswer) and not error.is_end else "did not answer"
        raise CannotConnect(f"the proxy {proxy} {how}: {error!s:.200}") from error
    if not 200 <= answer.status <= 299:
        refusal = HandshakeRefused(answer.status, answer.headers, answer.body)
        raise CannotConnect(f"the proxy {proxy} answered {answer.status}") from refusal
    if trailing_data:  # a server speaks second
        raise CannotConnect(f"the proxy {proxy} sent something of its own behind its answer")


async def through_socks(proxy: Proxy, address: Address, local_address: str | None) -> trio.abc.Stream:
    """Connect to an address by a SOCKS proxy.

    Raises:
      CannotConnect: the proxy cannot be reached, or would not.
    """
    from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError, ProxyType
    from python_socks.async_.trio import Proxy as SocksProxy

    kind = ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5
    name, password = proxy.user or (None, None)
    socks = SocksProxy(kind, proxy.host, proxy.port, name, password, rdns=proxy.scheme in ("socks4a", "socks5h"))
    try:
        sock = await socks.connect(
            address.host,
            address.port,
            timeout=math.inf,  # `open_timeout` is what counts
            local_addr=None if local_address is None else (local_address, 0),
        )
    except (ProxyConnectionError, ProxyError, ProxyTimeoutError, OSError, ValueError) as error:
        raise CannotConnect(f"the proxy {proxy} did not connect: {error}") from error
    return trio.SocketStream(sock)
