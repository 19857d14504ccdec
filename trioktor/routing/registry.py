"""What is registered with an application, and what that makes of a request.

Once served it is frozen, so that all servers of an application serve the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import attrs

from ..config import Supports, WebSockets
from ..http.handshake import Hosts
from ..http.headers import Headers, Refusal
from ..http.requests import RequestHead
from .endpoints import Before, Endpoint, GetRoute, WebSocketRoute
from .patterns import Pattern, RouteTable
from .proxies import Forwarded, Proxies


@final
class Registry:
    """Settings, routes, hooks and proxies of one application.

    Attributes:
      settings: what was installed; None before that.
      before: the hooks that are asked before every upgrade.
      proxies: those that are believed.
    """

    def __init__(self) -> None:
        self.settings: WebSockets | None = None
        self.before: list[Before] = []
        self.proxies: Proxies = Proxies()
        self._table: RouteTable[Endpoint] = RouteTable()
        self._is_frozen = False

    def find(self, head: RequestHead) -> tuple[WebSocketRoute | GetRoute, Mapping[str, str]]:
        """What serves a request, and the parameters in its path.

        Raises:
          Refusal: 404 for the path, 405 for the method, 400 for the subprotocol; the same with and without
            parameters.
        """
        methods = ("GET",) if head.is_upgrade else ("GET", "HEAD")
        fallback: tuple[Endpoint, Mapping[str, str]] | None = None
        for endpoint, parameters in self._table.find(head.target.partition("?")[0]):
            wanted = endpoint.websocket(head.headers) if head.is_upgrade else endpoint.get
            if wanted is not None and head.method in methods:
                return wanted, parameters
            if fallback is None or (head.is_upgrade and endpoint.websockets and not fallback[0].websockets):
                fallback = endpoint, parameters
        if fallback is None:
            raise Refusal(404, "there is nothing at this path")
        endpoint, parameters = fallback
        is_page = endpoint.get is not None and not endpoint.websockets  # an Upgrade that is asked for is passed over
        if head.method not in methods and not (is_page and head.method == "HEAD"):
            allowed = "GET, HEAD" if endpoint.get is not None else "GET"
            raise Refusal(405, f"{head.method} is not served here", (("Allow", allowed),))
        if head.is_upgrade and endpoint.websockets:
            served = ", ".join(repr(route.protocol) for route in endpoint.websockets)
            raise Refusal(400, f"offer one of the subprotocols that this path serves: {served}")
        route = endpoint.websockets[0] if endpoint.websockets else endpoint.get
        assert route is not None
        return route, parameters

    @property
    def has_page(self) -> bool:
        """Whether something answers a plain GET of "/"."""
        return any(endpoint.get is not None for endpoint, _ in self._table.find("/"))

    @property
    def hosts(self) -> Hosts:
        """The hosts that plain requests are answered for: the installed ones."""
        return None if self.settings is None else self.settings.hosts

    def hooks(self, route: WebSocketRoute) -> list[Before]:
        """What is to be asked before an upgrade of a route."""
        return [*self.before, *route.before]

    def forwarded(self, peer: tuple[str, int] | str | None, headers: Headers, *, is_local: bool) -> Forwarded | None:
        """What a trusted proxy says of the client; None if the peer is none."""
        return self.proxies.read(peer, headers, is_local=is_local)

    def check(self, supports: Supports) -> None:
        """Look at every route, before an application is handed over to somebody who cannot do everything.

        Raises:
          ValueError: names every route, and every setting of one, that could not be kept.
        """
        missing: list[str] = []
        for pattern, endpoint in self._table:
            for route in endpoint.websockets:
                settings = route.settings
                wrong = {
                    "websocket_raw": route.is_raw and not supports.frames,
                    "ping_period": settings.ping_period is not None and not supports.pings,
                    "extensions": bool(settings.extensions) and not supports.extensions,
                    "masking": settings.masking and not supports.extensions,
                }
                missing += [f"{name} of {pattern.text!r}" for name, is_wrong in wrong.items() if is_wrong]
        if missing:
            raise ValueError(f"{supports.name} cannot do what this application asks for: {', '.join(missing)}")

    def freeze(self) -> None:
        """Allow no more changes; called when the application is first served."""
        self._is_frozen = True

    def check_not_frozen(self) -> None:
        """Refuse changes once it has been served.

        Raises:
          RuntimeError: it has.
        """
        if self._is_frozen:
            raise RuntimeError("this application has been served: install and register before that")

    def settings_with(self, overrides: Mapping[str, Any]) -> WebSockets:
        """The installed settings, some of them overridden for a route.

        Raises:
          RuntimeError: none are installed.
          TypeError: there are no such settings.
        """
        if self.settings is None:
            raise RuntimeError("WebSockets are not installed: call app.install(WebSockets()) before the first route")
        unknown = set(overrides) - {field.name for field in attrs.fields(WebSockets)}
        if unknown:
            raise TypeError(f"unknown settings: {', '.join(sorted(unknown))}; see WebSockets for those there are")
        return attrs.evolve(self.settings, **overrides) if overrides else self.settings

    def register(
        self, pattern: Pattern, *, websocket: WebSocketRoute | None = None, get: GetRoute | None = None
    ) -> None:
        """Keep a handler.

        Raises:
          RuntimeError: the application has been served.
          ValueError: the place is taken.
        """
        self.check_not_frozen()
        endpoint = self._table.get(pattern)
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
