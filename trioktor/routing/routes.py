"""Routes: where handlers are registered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, Unpack, overload

from ..config import SessionSettings, Subprotocols, WebSockets
from ..http.handshake import Hosts, Origins
from ..http.headers import TOKEN
from ..protocol.extensions import ExtensionFactory
from .endpoints import Before, GetRoute, WebSocketRoute
from .patterns import Pattern, join
from .registry import Registry
from .signatures import check_hook, wanted_parameters

H = TypeVar("H", bound=Callable[..., Awaitable[object]])


class Overrides(SessionSettings, total=False):
    """The settings of `WebSockets`, to be overridden for a route, and what only routes have."""

    protocol: str | None
    before: Before | Sequence[Before]
    masking: bool
    extensions: Sequence[ExtensionFactory]
    origins: Origins
    hosts: Hosts
    subprotocols: Subprotocols
    handler_grace: float | None


def _checked_protocol(protocol: object) -> str | None:
    if protocol is not None and not (isinstance(protocol, str) and TOKEN.fullmatch(protocol)):
        raise ValueError(f"protocol must be one subprotocol's name (an RFC 9110 token), not {protocol!r}")
    return protocol


def _checked_hooks(before: Before | Sequence[Before]) -> tuple[Before, ...]:
    hooks = tuple(before) if isinstance(before, Sequence) else (before,)
    for hook in hooks:
        check_hook(hook)
    return hooks


class Routes:
    """A place in the tree of routes, to register handlers below (Ktor's `Route`).

    Attributes:
      registry: what is registered, for those who serve it.
    """

    def __init__(self, registry: Registry, prefix: str) -> None:
        self.registry: Registry = registry
        self._prefix = prefix

    @property
    def websockets(self) -> WebSockets | None:
        """What was installed; None before that."""
        return self.registry.settings

    def route(self, path: str) -> Routes:
        """A place below this one; what is registered on it gets the path in front (Ktor's `route(path) { … }`).

        Raises:
          ValueError: the pattern is malformed.
        """
        if callable(path):
            raise TypeError("route(path) nests routes and is no decorator: write @app.websocket(path) above a handler")
        prefix = join(self._prefix, path)
        Pattern(prefix)
        return Routes(self.registry, prefix)

    @overload
    def websocket(self, path: str, /, **overrides: Unpack[Overrides]) -> Callable[[H], H]: ...
    @overload
    def websocket(self, path: str, handler: H, /, **overrides: Unpack[Overrides]) -> H: ...
    def websocket(self, path: str, handler: Any = None, /, **overrides: Unpack[Overrides]) -> Any:
        """Serve WebSockets at a path: a decorator, or with the handler as second argument.

        The handler is `async def handler(session, ...)`; parameters behind the session are filled from the
        path by name. It is returned unchanged. Keywords override the installed settings for this route;
        `protocol` has it serve only clients that offer that subprotocol, so that a path may have a handler
        for each; `before` is one function or several that are asked before the upgrade, after those of
        `Application.before_upgrade`. Source: Ktor's `webSocket(path) { … }`.

        Raises:
          RuntimeError: WebSockets are not installed, or the application is being served.
          TypeError: the handler is not an `async def` that takes a session, or says that a path parameter is
            something else than a str.
          ValueError: the path is malformed or taken, or does not name a parameter of the handler.
        """

        return self._websocket(path, handler, overrides, raw=False)

    @overload
    def websocket_raw(
        self, path: str, /, *, negotiate_extensions: bool = False, **overrides: Unpack[Overrides]
    ) -> Callable[[H], H]: ...
    @overload
    def websocket_raw(
        self, path: str, handler: H, /, *, negotiate_extensions: bool = False, **overrides: Unpack[Overrides]
    ) -> H: ...
    def websocket_raw(
        self,
        path: str,
        handler: Any = None,
        /,
        *,
        negotiate_extensions: bool = False,
        **overrides: Unpack[Overrides],
    ) -> Any:
        """Serve WebSockets frame by frame: as `websocket`, but the handler gets a `RawWebSocketSession`.

        `negotiate_extensions` answers the client's offers; what extensions do to frames is then the
        handler's business. Source: Ktor's `webSocketRaw`.

        Raises:
          As `websocket`.
        """
        return self._websocket(path, handler, overrides, raw=True, negotiate_extensions=negotiate_extensions)

    def _websocket(
        self, path: str, handler: Any, overrides: Overrides, *, raw: bool, negotiate_extensions: bool = True
    ) -> Any:
        if callable(path):
            name = "websocket_raw" if raw else "websocket"
            raise TypeError(f"{name}(path) wants the path first: write @app.{name}('/path') above the handler")
        protocol = _checked_protocol(overrides.pop("protocol", None))
        before = _checked_hooks(overrides.pop("before", ()))

        def register(handler: H) -> H:
            pattern = Pattern(join(self._prefix, path))
            route = WebSocketRoute(
                handler,
                self.registry.settings_with(overrides),
                wanted_parameters(handler, pattern, "session"),
                protocol=protocol,
                before=before,
                is_raw=raw,
                negotiates_extensions=negotiate_extensions,
                pattern=pattern.text,
            )
            self.registry.register(pattern, websocket=route)
            return handler

        return register if handler is None else register(handler)

    @overload
    def get(self, path: str, /, *, before: Before | Sequence[Before] = ()) -> Callable[[H], H]: ...
    @overload
    def get(self, path: str, handler: H, /, *, before: Before | Sequence[Before] = ()) -> H: ...
    def get(self, path: str, handler: Any = None, /, *, before: Before | Sequence[Before] = ()) -> Any:
        """Answer plain GET requests at a path, such as health checks, with a small `Response`.

        The handler is `async def handler(call, ...)` and returns a `Response`, str or bytes. The connection
        is closed after the answer. A path may serve both this and WebSockets. `before` is one function or several
        that are asked first, as for `websocket`; those of `Application.before_upgrade` are not.

        Raises:
          As `websocket`, but that nothing needs to be installed.
        """

        hooks = _checked_hooks(before)

        def register(handler: H) -> H:
            pattern = Pattern(join(self._prefix, path))
            wanted = wanted_parameters(handler, pattern, "call")
            route = GetRoute(handler, wanted, pattern.text, hooks)
            self.registry.register(pattern, get=route)
            return handler

        return register if handler is None else register(handler)
