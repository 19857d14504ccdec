"""Ways to a server: TCP, a UNIX socket, through a proxy, or somebody else's stream; and TLS on any of them."""

from __future__ import annotations

import functools
import os
import ssl
from typing import Final

import trio

from ..engine.outcome import first_leaf
from ..engine.sockets import SocketTransport
from ..engine.streams import open_transport
from ..engine.transport import Transport
from ..errors import CannotConnect
from ..http.address import Address
from .options import Options, StreamSource
from .proxies import Proxy, proxy_from_environment, through_socks, tunnel

_LOOK_UP_LIMIT: Final = 1.0
"""Seconds for the addresses in an error."""


async def dial(options: Options, address: Address) -> Transport:
    """What reaches an address, with TLS where that asks for it.

    Raises:
      CannotConnect: there is nobody, or TLS failed; `__cause__` says more.
    """
    if options.stream is not None:
        stream = await _take(options.stream)
        if isinstance(stream, trio.SSLStream):
            return open_transport(stream)
    elif options.path is not None:
        stream = await _open_unix(options.path)
    else:
        proxy = options.proxy
        if isinstance(proxy, bool):
            proxy = proxy_from_environment(address) if proxy else None
        if proxy is None and not address.is_secure and options.local_address is None and address.is_literal:
            return await _connect_directly(address.host, address.port)
        stream = await _open_tcp(options, address, proxy)
    if address.is_secure:
        is_first = address.origin == options.address.origin  # a redirect's host has a certificate of its own
        name = (options.server_hostname if is_first else None) or address.name
        stream = await _secure(stream, options.ssl_context or _default_context(), name)
    return open_transport(stream)


async def _connect_directly(host: str, port: int) -> Transport:
    try:
        return await SocketTransport.connect(host, port)
    except OSError as error:
        raise _unreachable(host, port, error, (host,)) from error


@functools.lru_cache(maxsize=1)
def _default_context() -> ssl.SSLContext:
    """The certificates that the system trusts; they are read once, for that takes long."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _take(source: StreamSource) -> trio.abc.Stream:
    if isinstance(source, trio.abc.Stream):
        return source
    try:
        stream = await source()
        if not isinstance(stream, trio.abc.Stream):
            raise TypeError(f"stream must open a trio.abc.Stream, not {stream!r}")
        return stream
    except (OSError, trio.BrokenResourceError) as error:
        raise CannotConnect(f"the stream cannot be opened: {error}") from error


async def _open_unix(path: str | os.PathLike[str]) -> trio.abc.Stream:
    try:
        return await trio.open_unix_socket(path)
    except OSError as error:
        raise CannotConnect(f"cannot connect to {path}: {error.strerror or error}", (os.fspath(path),)) from error


async def _open_tcp(options: Options, address: Address, proxy: Proxy | None) -> trio.abc.Stream:
    if proxy is None:
        return await _connect(address.host, address.port, options.local_address)
    if proxy.is_socks:
        return await through_socks(proxy, address, options.local_address)
    stream = await _connect(proxy.host, proxy.port, options.local_address, "the proxy ")
    if proxy.scheme == "https":
        stream = await _secure(stream, options.ssl_context or _default_context(), proxy.host)
    try:
        await tunnel(stream, proxy, address)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _connect(host: str, port: int, local_address: str | None, what: str = "") -> trio.abc.Stream:
    """Connect over TCP, to several addresses of a name at a time if the first are slow (RFC 8305)."""
    try:
        return await trio.open_tcp_stream(host, port, local_address=local_address)
    except (OSError, UnicodeError) as error:
        raise _unreachable(f"{what}{host}", port, error, await look_up(host, port)) from error


def _unreachable(host: str, port: int, error: OSError | UnicodeError, addresses: tuple[str, ...]) -> CannotConnect:
    """With what the system said of the first address; behind it may stand more."""
    leaf = first_leaf(error.__cause__ or error)
    number = getattr(leaf, "errno", None)
    reason = os.strerror(number) if number and number > 0 else str(getattr(leaf, "strerror", None) or leaf)
    return CannotConnect(f"cannot connect to {host} port {port}: {reason}", addresses)


async def look_up(host: str, port: int) -> tuple[str, ...]:
    """The addresses of a name that could not be reached; () if it has none, or they are not known at once."""
    with trio.move_on_after(_LOOK_UP_LIMIT):
        try:
            found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return ()
        return tuple(dict.fromkeys(str(address[4][0]) for address in found))
    return ()


async def _secure(stream: trio.abc.Stream, context: ssl.SSLContext, name: str) -> trio.abc.Stream:
    try:
        secure = trio.SSLStream(stream, context, server_hostname=name.removesuffix("."))  # RFC 6066 §3
        await secure.do_handshake()
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if isinstance(error, (trio.BrokenResourceError, ssl.SSLError, OSError, ValueError)):
            cause = error.__cause__ or error
            raise CannotConnect(f"TLS with {name} failed: {cause}") from cause
        raise
    return secure
