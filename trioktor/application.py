"""`Application`: settings and routes, and what they make of a request.

Once served, an application is frozen, so that all its servers serve the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, final

import attrs
import trio

from .config import WebSockets
from .handlers import check_hook
from .protocol.handshake import Hosts
from .protocol.http import Headers, Refusal, RequestHead
from .proxies import Forwarded, Proxies
from .routes import Before, Endpoint, GetRoute, Routes, WebSocketRoute
from .routing import Pattern, RouteTable

B = TypeVar("B", bound=Before)


@final
class Application(Routes):
    """Settings and routes of one application; may be served several times at once."""

    def __init__(self) -> None:
        super().__init__(self, "")
        self._settings: WebSockets | None = None
        self._table: RouteTable[Endpoint] = RouteTable()
        self._is_frozen = False
        self._before: list[Before] = []
        self._proxies = Proxies()

    def install(self, settings: WebSockets) -> None:
        """Install WebSockets; before the first route (Ktor's `install(WebSockets) { … }`, F01).

        Raises:
          RuntimeError: they are installed already, or the application is being served.
        """
        self._check_not_frozen()
        if not isinstance(settings, WebSockets):
            raise TypeError(f"install takes WebSockets(...), not {settings!r}")
        if self._settings is not None:
            raise RuntimeError("WebSockets are installed already: give all settings in one WebSockets(...)")
        self._settings = settings

    @property
    def websockets(self) -> WebSockets | None:
        """What was installed (F10); None before that."""
        return self._settings

    def before_upgrade(self, hook: B) -> B:
        """Have a function asked before every upgrade: a decorator; it is returned unchanged.

        `async def hook(call)` may attach values to `call.attributes`, set `call.principal`, or return a
        `Response`, which is sent instead of the upgrade. Hooks run in the order of registration, a route's
        own (`before=`) after them, all together within `open_timeout`; they are cancelled if the client leaves. An
        exception is a 500, logged. Plain requests have hooks of their own: `get(…, before=…)`.

        Raises:
          TypeError: not an `async def` that takes the call.
          RuntimeError: the application has been served.
        """
        self._check_not_frozen()
        check_hook(hook)
        self._before.append(hook)
        return hook

    def trust_proxies(self, *networks: str, header: str = "X-Forwarded-For") -> None:
        """Believe what these proxies say of the client.

        Addresses or networks as "10.0.0.0/8"; "unix" is whoever connects to a UNIX socket, or over a stream that is
        no socket, as in tests. Behind such a proxy `call.client` and `call.scheme` are the client's. Nobody else's
        headers are looked at, and no other header than the one that is named: "X-Forwarded-For" (and with it
        X-Forwarded-Proto), or "Forwarded" (RFC 7239). The proxy must set it, or a client could. May be called again
        to name more.

        Raises:
          ValueError: not an address or network, or not one of the two headers, or another than before.
          RuntimeError: the application has been served.
        """
        self._check_not_frozen()
        self._proxies = self._proxies.with_more(networks, header)

    async def handle_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection on any stream: the request, the conversation, the end. Closes the stream.

        As one connection of `serve`, with its default limits. An `SSLStream` must be a server's; its
        handshake is done here.
        """
        from .host import Host

        await Host(self).handle(stream)

    def find(self, head: RequestHead) -> tuple[WebSocketRoute | GetRoute, dict[str, str]]:
        """What serves a request, and the parameters in its path.

        Raises:
          Refusal: 404 for the path, 405 for the method, 400 for the subprotocol; the same with and without
            parameters.
        """
        methods = ("GET",) if head.is_upgrade else ("GET", "HEAD")
        fallback: tuple[Endpoint, dict[str, str]] | None = None
        for endpoint, parameters in self._table.find(head.target.partition("?")[0]):
            wanted = endpoint.websocket(head.headers) if head.is_upgrade else endpoint.get
            if wanted is not None and head.method in methods:
                return wanted, parameters
            if fallback is None or (head.is_upgrade and endpoint.websockets and not fallback[0].websockets):
                fallback = endpoint, parameters
        if fallback is None:
            raise Refusal(404, "there is nothing at this path")
        if head.method not in methods:
            allowed = "GET, HEAD" if fallback[0].get is not None else "GET"
            raise Refusal(405, f"{head.method} is not served here", (("Allow", allowed),))
        endpoint, parameters = fallback
        if head.is_upgrade and endpoint.websockets:
            served = ", ".join(repr(route.protocol) for route in endpoint.websockets)
            raise Refusal(400, f"offer one of the subprotocols that this path serves: {served}")
        route = endpoint.websockets[0] if endpoint.websockets else endpoint.get
        assert route is not None
        return route, parameters

    def _has_page(self) -> bool:
        return any(endpoint.get is not None for endpoint, _ in self._table.find("/"))

    @property
    def hosts(self) -> Hosts:
        """The hosts that plain requests are answered for: the installed ones."""
        return None if self._settings is None else self._settings.hosts

    def hooks(self, route: WebSocketRoute) -> list[Before]:
        """What is to be asked before an upgrade of a route."""
        return [*self._before, *route.before]

    def forwarded(self, peer: tuple[str, int] | str | None, headers: Headers, *, is_local: bool) -> Forwarded | None:
        """What a trusted proxy says of the client; None if the peer is none."""
        return self._proxies.read(peer, headers, is_local=is_local)

    def is_proxy(self, peer: tuple[str, int] | str | None, *, is_local: bool) -> bool:
        """Whether the peer is a trusted proxy."""
        return self._proxies.is_trusted(peer, is_local=is_local)

    def freeze(self) -> None:
        """Allow no more changes; called when the application is first served."""
        self._is_frozen = True

    def _check_not_frozen(self) -> None:
        if self._is_frozen:
            raise RuntimeError("this application has been served: install and register before that")

    def _settings_with(self, overrides: Mapping[str, Any]) -> WebSockets:
        if self._settings is None:
            raise RuntimeError("WebSockets are not installed: call app.install(WebSockets()) before the first route")
        unknown = set(overrides) - {field.name for field in attrs.fields(WebSockets)}
        if unknown:
            raise TypeError(f"unknown settings: {', '.join(sorted(unknown))}; see WebSockets for those there are")
        return attrs.evolve(self._settings, **overrides) if overrides else self._settings

    def _register(
        self, pattern: Pattern, *, websocket: WebSocketRoute | None = None, get: GetRoute | None = None
    ) -> None:
        self._check_not_frozen()
        endpoint = self._table.get(pattern.text)
        if endpoint is None:
            endpoint = Endpoint()
            self._table.add(pattern, endpoint)
        if get is not None:
            if endpoint.get is not None:
                raise ValueError(f"{pattern.text!r} has a GET handler already")
            endpoint.get = get
        if websocket is not None:
            if any(route.protocol == websocket.protocol for route in endpoint.websockets):
                which = f" for the subprotocol {websocket.protocol!r}" * (websocket.protocol is not None)
                raise ValueError(f"{pattern.text!r} has a WebSocket handler{which} already")
            endpoint.websockets.append(websocket)
