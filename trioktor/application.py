"""`Application`: settings and routes, and what they make of a request.

Routes are checked when they are registered, by what a person would get wrong: a handler that is not an
`async def`, a parameter that the path does not name, WebSockets that are not installed. Once served, an
application is frozen, so that all its servers serve the same thing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypedDict, TypeVar, Unpack, final, overload

import attrs
import trio

from .call import Call
from .config import WebSockets
from .protocol.handshake import Origins
from .protocol.http import Refusal, RequestHead, Response
from .routing import Pattern, RouteTable, join
from .session import WebSocketSession

H = TypeVar("H", bound=Callable[..., Awaitable[object]])


class Overrides(TypedDict, total=False):
    """The settings of `WebSockets`, to be overridden for a route."""

    ping_period: float | None
    timeout: float
    max_frame_size: int | None
    masking: bool
    origins: Origins
    subprotocols: Sequence[str]
    max_fragments: int | None
    incoming: int
    outgoing: int
    close_timeout: float
    write_timeout: float | None
    answer_grace: float
    handler_grace: float | None
    max_queued_bytes: int


@final
@attrs.frozen
class WebSocketRoute:
    """A WebSocket handler with its settings, and the path parameters it wants by name."""

    handler: Callable[..., Awaitable[object]]
    settings: WebSockets
    wanted: tuple[str, ...]

    def bind(self, session: WebSocketSession) -> Callable[[], Awaitable[object]]:
        """The handler, ready to be run for a session."""
        values = session.call.path_parameters
        arguments = {name: values.get(name) for name in self.wanted}
        return lambda: self.handler(session, **arguments)


@final
@attrs.frozen
class GetRoute:
    """A handler of plain GET requests, and the path parameters it wants by name."""

    handler: Callable[..., Awaitable[object]]
    wanted: tuple[str, ...]

    async def respond(self, call: Call) -> Response:
        """Run the handler for a request."""
        values = call.path_parameters
        answer = await self.handler(call, **{name: values.get(name) for name in self.wanted})
        if isinstance(answer, (str, bytes)):
            return Response(answer)
        if not isinstance(answer, Response):
            raise TypeError(f"a GET handler returns a Response, str or bytes, not {type(answer).__name__}")
        return answer


@attrs.define
class _Endpoint:
    """What is served under one pattern."""

    websocket: WebSocketRoute | None = None
    get: GetRoute | None = None


class Routes:
    """A place in the tree of routes, to register handlers below (Ktor's `Route`)."""

    def __init__(self, application: Application, prefix: str) -> None:
        self._application = application
        self._prefix = prefix

    def route(self, path: str) -> Routes:
        """A place below this one; what is registered on it gets the path in front (Ktor's `route(path) { … }`).

        Raises:
          ValueError: the pattern is malformed.
        """
        if callable(path):
            raise TypeError("route(path) nests routes and is no decorator: write @app.websocket(path) above a handler")
        prefix = join(self._prefix, path)
        Pattern(prefix)
        return Routes(self._application, prefix)

    @overload
    def websocket(self, path: str, /, **overrides: Unpack[Overrides]) -> Callable[[H], H]: ...
    @overload
    def websocket(self, path: str, handler: H, /, **overrides: Unpack[Overrides]) -> H: ...
    def websocket(self, path: str, handler: Any = None, /, **overrides: Unpack[Overrides]) -> Any:
        """Serve WebSockets at a path: a decorator, or with the handler as second argument.

        The handler is `async def handler(session, ...)`; parameters behind the session are filled from the
        path by name. It is returned unchanged. Keywords override the installed settings for this route.
        Source: Ktor's `webSocket(path) { … }` (F15).

        Raises:
          RuntimeError: WebSockets are not installed, or the application is being served.
          TypeError: the handler is not an `async def` that takes a session.
          ValueError: the path is malformed or taken, or does not name a parameter of the handler.
        """

        def register(handler: H) -> H:
            settings = self._application._settings_with(overrides)
            pattern = Pattern(join(self._prefix, path))
            route = WebSocketRoute(handler, settings, _wanted_parameters(handler, pattern, "session"))
            self._application._register(pattern, websocket=route)
            return handler

        return register if handler is None else register(handler)

    @overload
    def get(self, path: str, /) -> Callable[[H], H]: ...
    @overload
    def get(self, path: str, handler: H, /) -> H: ...
    def get(self, path: str, handler: Any = None, /) -> Any:
        """Answer plain GET requests at a path, such as health checks, with a small `Response`.

        The handler is `async def handler(call, ...)` and returns a `Response`, str or bytes. The connection
        is closed after the answer. A path may serve both this and WebSockets.

        Raises:
          As `websocket`, but that nothing needs to be installed.
        """

        def register(handler: H) -> H:
            pattern = Pattern(join(self._prefix, path))
            self._application._register(pattern, get=GetRoute(handler, _wanted_parameters(handler, pattern, "call")))
            return handler

        return register if handler is None else register(handler)


@final
class Application(Routes):
    """Settings and routes of one application; may be served several times at once."""

    def __init__(self) -> None:
        super().__init__(self, "")
        self._settings: WebSockets | None = None
        self._table: RouteTable[_Endpoint] = RouteTable()
        self._is_frozen = False

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
          Refusal: 404 for the path or 405 for the method, the same with and without parameters.
        """
        methods = ("GET",) if head.is_upgrade else ("GET", "HEAD")
        fallback: tuple[WebSocketRoute | GetRoute, dict[str, str]] | None = None
        for endpoint, parameters in self._table.find(head.target.partition("?")[0]):
            wanted = endpoint.websocket if head.is_upgrade else endpoint.get
            if wanted is not None and head.method in methods:
                return wanted, parameters
            other = wanted or endpoint.websocket or endpoint.get
            if fallback is None and other is not None:
                fallback = other, parameters
        if fallback is None:
            raise Refusal(404, "there is nothing at this path")
        if head.method not in methods:
            raise Refusal(405, f"{head.method} is not served here", (("Allow", "GET"),))
        return fallback

    def freeze(self) -> None:
        """Allow no more changes; called when the application is first served."""
        self._is_frozen = True

    def _check_not_frozen(self) -> None:
        if self._is_frozen:
            raise RuntimeError("this application has been served: install and register before that")

    def _settings_with(self, overrides: Overrides) -> WebSockets:
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
            endpoint = _Endpoint()
            self._table.add(pattern, endpoint)
        if (websocket and endpoint.websocket) or (get and endpoint.get):
            raise ValueError(f"{pattern.text!r} has a {'WebSocket' if websocket else 'GET'} handler already")
        endpoint.websocket = websocket or endpoint.websocket
        endpoint.get = get or endpoint.get


def _wanted_parameters(handler: object, pattern: Pattern, first: str) -> tuple[str, ...]:
    """The path parameters that a handler takes by name, or an error that says what is wrong with it."""
    name = getattr(handler, "__qualname__", repr(handler))
    if not callable(handler):
        raise TypeError(f"a handler is an async function, not {handler!r}")
    target: Callable[..., object] = handler
    while isinstance(target, functools.partial):
        target = target.func
    if not inspect.isroutine(target):
        target = type(target).__call__
    if inspect.isasyncgenfunction(target):
        raise TypeError(f"{name} is an async generator: take the {first} and send with it instead of yielding")
    if not inspect.iscoroutinefunction(inspect.unwrap(target)):
        raise TypeError(f"{name} is not async: write `async def {name}({first})`")
    parameters = list(inspect.signature(handler).parameters.values())
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise TypeError(f"{name} takes no {first}: write `async def {name}({first})`")
    wanted = []
    for parameter in parameters[1:]:
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise TypeError(f"{name} takes {parameter.name!r} by position: path parameters are given by name")
        if parameter.name in pattern.names:
            wanted.append(parameter.name)
        elif parameter.default is inspect.Parameter.empty:
            raise ValueError(
                f"{name} wants {parameter.name!r}, which {pattern.text!r} does not name:"
                f" put {{{parameter.name}}} into the path, or take it from {first}"
            )
    return tuple(wanted)
