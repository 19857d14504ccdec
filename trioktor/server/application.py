"""`Application`: where settings, routes and hooks are registered, and served."""

from __future__ import annotations

from typing import TypeVar, final

import trio

from ..config import WebSockets
from ..routing.endpoints import Before
from ..routing.registry import Registry
from ..routing.routes import Routes
from ..routing.signatures import check_hook
from .asgi import AsgiApplication, Receive, Scope, Send
from .host import Host

B = TypeVar("B", bound=Before)


@final
class Application(Routes):
    """Settings and routes of one application; may be served several times at once, also by an ASGI server."""

    def __init__(self) -> None:
        super().__init__(Registry(), "")
        self._asgi = AsgiApplication(self)

    def install(self, settings: WebSockets) -> None:
        """Install WebSockets; before the first route (Ktor's `install(WebSockets) { … }`).

        Raises:
          TypeError: these are no settings.
          RuntimeError: they are installed already, or the application is being served.
        """
        self.registry.check_not_frozen()
        if not isinstance(settings, WebSockets):
            raise TypeError(f"install takes WebSockets(...), not {settings!r}")
        if self.registry.settings is not None:
            raise RuntimeError("WebSockets are installed already: give all settings in one WebSockets(...)")
        self.registry.settings = settings

    def before_upgrade(self, hook: B) -> B:
        """Have a function asked before every upgrade: a decorator; it is returned unchanged.

        `async def hook(call)` may attach values to `call.attributes`, set `call.principal`, or return a
        `Response`, which is sent instead of the upgrade. Hooks run in the order of registration, a route's
        own (`before=`) after them, all together within `open_timeout`; on sockets they are cancelled if the client
        leaves. An exception is a 500, logged. Plain requests have hooks of their own: `get(…, before=…)`.

        Raises:
          TypeError: not an `async def` that takes the call.
          RuntimeError: the application has been served.
        """
        self.registry.check_not_frozen()
        check_hook(hook)
        self.registry.before.append(hook)
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
        self.registry.check_not_frozen()
        self.registry.proxies = self.registry.proxies.with_more(networks, header)

    async def handle_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection on any stream: the request, the conversation, the end. Closes the stream.

        As one connection of `serve`, with its default limits. An `SSLStream` must be a server's; its
        handshake is done here.
        """
        await Host(self).handle(stream)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope of an ASGI server that runs on Trio: ``hypercorn --worker-class trio module:app``.

        Also below a path of another application (`Mount`). Routes, hooks, origins, subprotocols, sessions, rooms and
        GET routes are as under `serve`; what ASGI hides is not: see the page "Where it runs".

        Raises:
          RuntimeError: the server does not run on Trio.
          ValueError: a route or setting asks for what ASGI hides: raw routes, `ping_period`, `extensions`, `masking`.
        """
        await self._asgi(scope, receive, send)
