"""What `connect` takes, checked at the call."""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, final

import attrs
import trio

from ..config import SessionSettings, WebSockets, _seconds
from ..http.address import Address, ascii_host, parse_address
from ..http.opening import check_client_headers, check_subprotocols
from ..http.responses import HeaderPairs, check_header, header_pairs
from ..protocol.extensions import ExtensionFactory
from ..protocol.negotiation import check_factories
from .proxies import Proxy, parse_proxy

_KINDS: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("ssl_context", ssl.SSLContext, "an ssl.SSLContext"),
    ("server_hostname", str, "a host's name"),
    ("proxy", (str, bool), "a proxy's address, True or False"),
    ("path", (str, os.PathLike), "the path of a UNIX socket"),
    ("local_address", str, "an address"),
    ("origin", str, "an origin"),
)
"""What some arguments have to be."""

StreamSource: TypeAlias = "trio.abc.Stream | Callable[[], Awaitable[trio.abc.Stream]]"
"""A stream to speak on, or what opens one."""

_SERVERS_OWN = ("masking", "origins", "hosts", "handler_grace")
"""Settings that mean nothing to a client: it always masks, and nobody but its own code ends its block."""


_DEFAULT = WebSockets(handler_grace=None)


class ConnectOptions(SessionSettings, total=False):
    """What `connect` takes beside the address."""

    websockets: WebSockets | None
    subprotocols: Sequence[str]
    extensions: Sequence[ExtensionFactory]
    origin: str | None
    headers: HeaderPairs
    ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    proxy: str | bool | None
    open_timeout: float | None
    max_redirects: int
    stream: StreamSource | None
    path: str | os.PathLike[str] | None
    local_address: str | None


@final
@attrs.frozen(kw_only=True)
class Options:
    """What a client was told, ready to be used any number of times."""

    address: Address
    settings: WebSockets
    subprotocols: tuple[str, ...]
    extensions: tuple[ExtensionFactory, ...]
    origin: str | None
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    proxy: Proxy | bool | None
    open_timeout: float
    max_redirects: int
    stream: StreamSource | None
    path: str | os.PathLike[str] | None
    local_address: str | None


def client_settings(websockets: WebSockets | None, given: SessionSettings) -> WebSockets:
    """The settings of one client.

    Raises:
      TypeError, ValueError: there is no such setting, or a value makes no sense.
    """
    if websockets is not None and not isinstance(websockets, WebSockets):
        raise TypeError(f"websockets takes WebSockets(...), not {websockets!r}")
    unknown = set(given) - {field.name for field in attrs.fields(WebSockets)} | set(given) & set(_SERVERS_OWN)
    if unknown:
        raise TypeError(f"connect has no argument {', '.join(sorted(unknown))}")
    if websockets is None and not given:
        return _DEFAULT
    changes: dict[str, Any] = {**given, "handler_grace": None}
    return attrs.evolve(websockets or _DEFAULT, **changes)


def client_options(url: str, given: ConnectOptions) -> Options:
    """Check what `connect` was given.

    Raises:
      TypeError, ValueError: an argument makes no sense; the text names it.
    """
    known = {field.name: None for field in attrs.fields(Options)} | {"open_timeout": 10.0, "max_redirects": 0}
    del known["address"], known["settings"]
    values: dict[str, Any] = {name: given.get(name, default) for name, default in known.items()}
    rest = {name: value for name, value in given.items() if name not in values and name != "websockets"}
    settings = client_settings(given.get("websockets"), rest)  # type: ignore[arg-type]  # it checks the names
    subprotocols = values["subprotocols"]
    if subprotocols is None and not callable(settings.subprotocols):
        subprotocols = settings.subprotocols
    values["subprotocols"] = check_subprotocols(() if subprotocols is None else subprotocols)
    extensions = settings.extensions if values["extensions"] is None else values["extensions"]
    check_factories(extensions)
    values["extensions"] = tuple(extensions)
    values["headers"] = header_pairs(() if values["headers"] is None else values["headers"])
    check_client_headers(values["headers"], has_origin=values["origin"] is not None)
    _seconds(optional=True)(None, attrs.fields(Options).open_timeout, values["open_timeout"])
    values["open_timeout"] = math.inf if values["open_timeout"] is None else values["open_timeout"]
    redirects = values["max_redirects"]
    if isinstance(redirects, bool) or not isinstance(redirects, int) or redirects < 0:
        raise ValueError(f"max_redirects must be a whole number of at least 0, not {redirects!r}")
    for name, kinds, what in _KINDS:
        if values[name] is not None and not isinstance(values[name], kinds):
            raise TypeError(f"{name} must be {what}, not {values[name]!r}")
    if values["origin"] is not None:
        check_header("origin", values["origin"])
    for name in ("server_hostname", "local_address"):
        if values[name] is not None:
            try:
                values[name] = ascii_host(values[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    if isinstance(values["proxy"], str):
        values["proxy"] = parse_proxy(values["proxy"])
    _check_ways(values)
    return Options(address=parse_address(url), settings=settings, **values)


def _check_ways(values: dict[str, Any]) -> None:
    """There is one way to the server."""
    ways = [name for name in ("stream", "path", "proxy") if values[name] not in (None, False)]
    if len(ways) > 1:
        raise ValueError(f"give one of {', '.join(ways)}: each of them is a way to the server")
    if values["local_address"] is not None and ("stream" in ways or "path" in ways):
        raise ValueError("local_address is for connections over TCP")
    stream = values["stream"]
    if stream is not None and not isinstance(stream, trio.abc.Stream) and not callable(stream):
        raise TypeError(f"stream must be a trio.abc.Stream, or an async function that opens one, not {stream!r}")
