"""What is kept of a route: its handlers, with their settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, final

import attrs

from ..config import WebSockets
from ..http.call import Call
from ..http.headers import Headers
from ..http.responses import Response
from .signatures import Wanted

Before: TypeAlias = "Callable[[Call], Awaitable[Response | None]]"
"""Asked before a request is served: None lets that happen, a `Response` is sent instead."""


@final
@attrs.frozen
class WebSocketRoute:
    """A WebSocket handler with its settings, and the path parameters it wants by name."""

    handler: Callable[..., Awaitable[object]]
    settings: WebSockets
    wanted: Wanted
    protocol: str | None = None
    before: tuple[Before, ...] = ()
    is_raw: bool = False
    negotiates_extensions: bool = True
    pattern: str = ""

    def converse(self, session: object, call: Call) -> Awaitable[object]:
        """Call the handler for a session, to be awaited."""
        return self.handler(session, **_values(self.wanted, call))


@final
@attrs.frozen
class GetRoute:
    """A handler of plain GET requests, and the path parameters it wants by name."""

    handler: Callable[..., Awaitable[object]]
    wanted: Wanted
    pattern: str = ""
    before: tuple[Before, ...] = ()

    async def respond(self, call: Call) -> Response:
        """Run the handler for a request."""
        answer = await self.handler(call, **_values(self.wanted, call))
        if isinstance(answer, (str, bytes)):
            return Response(answer)
        if not isinstance(answer, Response):
            raise TypeError(f"a GET handler returns a Response, str or bytes, not {type(answer).__name__}")
        return answer


def _values(wanted: Wanted, call: Call) -> dict[str, Any]:
    """The path parameters that a handler wants."""
    return {name: call.path_parameters.get(name, default) for name, default in wanted}


@final
@attrs.define
class Endpoint:
    """What is served under one pattern."""

    websockets: list[WebSocketRoute] = attrs.field(factory=list)
    get: GetRoute | None = None

    def websocket(self, headers: Headers) -> WebSocketRoute | None:
        """The route for a client: one that asks for a subprotocol which the client offers comes first."""
        plain: WebSocketRoute | None = None
        offered: list[str] | None = None  # until somebody asks for one
        for route in self.websockets:
            if route.protocol is None:
                plain = route
            else:
                if offered is None:
                    offered = headers.tokens("sec-websocket-protocol")
                if route.protocol in offered:
                    return route
        return plain
