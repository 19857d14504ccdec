"""An application under an ASGI server that runs on Trio, such as Hypercorn.

Theory of operation. The server has the listener, HTTP and the WebSocket protocol; here its events are turned into calls
of a `ForeignHost`, which does the rest. Of the three kinds of scopes `websocket` is a conversation, `http` a GET route,
and `lifespan` tells of the beginning, at which the application is checked, and of the end, at which sessions hear 1001.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias, final
from urllib.parse import quote

import trio

from ..config import Supports
from ..engine.messages import Messages, close_frame
from ..http.call import Call
from ..http.headers import Headers, Refusal
from ..http.requests import RequestHead, normal_form
from ..http.responses import Response, encoded, refusal_response
from ..protocol.close import CloseCode, CloseReason
from ..protocol.frames import BinaryFrame, CloseFrame, Frame, TextFrame
from ..routing.routes import Routes
from .foreign import ForeignHost, ForeignPeer

Scope: TypeAlias = "MutableMapping[str, Any]"
Event: TypeAlias = "MutableMapping[str, Any]"
Receive: TypeAlias = "Callable[[], Awaitable[Event]]"
Send: TypeAlias = "Callable[[Event], Awaitable[None]]"

ASGI: Final = Supports(name="an ASGI server", frames=False, pings=False, extensions=False)
_GRACE: Final = 5.0
"""Seconds for handlers to return at the end of the lifespan, as `serve` gives them."""
_NO_TRIO: Final = "trioktor runs on Trio, and this ASGI server does not: try `hypercorn --worker-class trio module:app`"
_PROTOCOL: Final = b"sec-websocket-protocol"
_DENIAL: Final = "websocket.http.response"


@final
class AsgiApplication:
    """What an ASGI server calls; one for each application.

    Raises:
      RuntimeError: on a call, the server does not run on Trio.
      ValueError: on a call, the application asks for what an ASGI server cannot do.
    """

    def __init__(self, application: Routes) -> None:
        self._application = application
        self._host: ForeignHost | None = None  # where the server keeps no state; a new one for each lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(scope, receive, send)
        elif not trio.lowlevel.in_trio_run():
            raise RuntimeError(_NO_TRIO)
        elif kind == "websocket":
            await self._converse(scope, receive, send)
        elif kind == "http":
            await self._respond(scope, send)
        else:
            raise RuntimeError(f"trioktor does not know what {kind!r} is")

    @property
    def _key(self) -> str:
        """Of our host in a server's state: the application may be on several servers at once."""
        return f"trioktor {id(self):x}"

    def _get_host(self, scope: Scope) -> ForeignHost:
        host: ForeignHost | None = (scope.get("state") or {}).get(self._key)
        if host is not None:
            return host
        if self._host is None:
            self._host = ForeignHost(self._application, ASGI)
        return self._host

    def _renew(self) -> None:
        """Whoever is served from now on is another lifespan's, or nobody's."""
        self._host = None

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        self._renew()
        try:
            if not trio.lowlevel.in_trio_run():
                raise RuntimeError(_NO_TRIO)
            if (state := scope.get("state")) is not None:
                state[self._key] = ForeignHost(self._application, ASGI)
            host = self._get_host(scope)
        except (ValueError, RuntimeError) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
        await host.stop(_GRACE)
        self._renew()
        await send({"type": "lifespan.shutdown.complete"})

    async def _converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = self._get_host(scope)
        event = await receive()
        if event["type"] != "websocket.connect":
            return  # it has gone
        door = AsgiDoor(receive, send, can_deny=_DENIAL in (scope.get("extensions") or {}))
        try:
            head = _head(scope, "GET", is_upgrade=True)
        except Refusal as refusal:
            await host.refuse(door, refusal_response(refusal))
            return
        await host.converse(head, _peer(scope, "wss"), door)

    async def _respond(self, scope: Scope, send: Send) -> None:
        is_head = scope["method"] == "HEAD"

        async def answer(response: Response) -> None:
            headers = encoded(response.fields())
            start = {"type": "http.response.start", "status": response.status, "headers": headers}
            try:
                await send(start)
                await send({"type": "http.response.body", "body": b"" if is_head else response.payload})
            except OSError:
                pass  # the client has gone

        host = self._get_host(scope)
        try:
            head = _head(scope, scope["method"], is_upgrade=False)
        except Refusal as refusal:
            await answer(refusal_response(refusal))
            return
        await host.respond(head, _peer(scope, "https"), answer)


@final
class AsgiDoor:
    """How an ASGI server is told what becomes of a request."""

    def __init__(self, receive: Receive, send: Send, *, can_deny: bool) -> None:
        self._receive = receive
        self._send = send
        self._can_deny = can_deny

    async def accept(self, call: Call, close_timeout: float) -> Messages:
        """Let it in."""
        headers = encoded(call.take_response_headers())
        event = {"type": "websocket.accept", "subprotocol": call.protocol, "headers": headers}
        try:
            await self._send(event)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        return AsgiMessages(self._receive, self._send)

    async def refuse(self, response: Response) -> None:
        """Answer otherwise: 403 and nothing else, where the server cannot say more."""
        try:
            if not self._can_deny:
                await self._send({"type": "websocket.close"})
                return
            headers = encoded(response.fields())
            start = {"type": f"{_DENIAL}.start", "status": response.status, "headers": headers}
            await self._send(start)
            await self._send({"type": f"{_DENIAL}.body", "body": response.payload})
        except OSError:
            pass  # the client has gone


@final
class AsgiMessages:
    """The messages of one WebSocket of an ASGI server."""

    close_timeout: float = 0

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._has_closed = False

    async def receive(self) -> Frame | None:
        """Wait for a message, or the end."""
        try:
            event = await self._receive()
        except OSError:
            return None
        if event["type"] == "websocket.receive":
            text = event.get("text")
            return TextFrame(text) if text is not None else BinaryFrame(event.get("bytes") or b"")
        code = event.get("code") or CloseCode.NO_STATUS
        if code == CloseCode.CLOSED_ABNORMALLY and not self._has_closed:
            return None
        # Behind a Close of ours the code says little: some servers tell of every end as abnormal.
        return close_frame(code, event.get("reason"))

    async def send(self, message: Frame) -> None:
        """Hand a message, or our Close, to the server."""
        event: Event
        if isinstance(message, TextFrame):
            event = {"type": "websocket.send", "text": message.text}
        elif isinstance(message, CloseFrame):
            self._has_closed = True
            reason = message.reason or CloseReason(CloseCode.NORMAL)
            event = {"type": "websocket.close", "code": int(reason.code), "reason": reason.message}
        else:
            event = {"type": "websocket.send", "bytes": message.data}
        try:
            await self._send(event)
        except OSError as error:  # what the specification has servers raise when the client has gone
            raise trio.BrokenResourceError(str(error)) from error

    async def aclose(self) -> None:
        """Nothing: the server drops a connection when the application returns."""
        await trio.lowlevel.checkpoint()


def _head(scope: Scope, method: str, *, is_upgrade: bool) -> RequestHead:
    pairs = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    query = scope.get("query_string") or b""
    target = _path(scope) + (f"?{query.decode('latin-1')}" if query else "")
    subprotocols = scope.get("subprotocols") or ()
    if subprotocols and not any(name.lower() == _PROTOCOL for name, _ in pairs):  # taken out by the server
        pairs.append((_PROTOCOL, ", ".join(subprotocols).encode("latin-1")))
    headers = Headers(pairs)
    version = str(scope.get("http_version", "1.1"))
    return RequestHead(method, normal_form(target), version, headers, headers.get("host", ""), is_upgrade)


def _path(scope: Scope) -> str:
    """The path below where the application is mounted, escaped as it came."""
    raw = scope.get("raw_path")
    path = raw.partition(b"?")[0].decode("latin-1") if raw else quote(scope["path"])
    path = normal_form(path)
    root = normal_form(quote(scope.get("root_path") or "")).rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return path or "/"


def _peer(scope: Scope, secure: str) -> ForeignPeer:
    client = scope.get("client")
    return ForeignPeer(
        client=(client[0], client[1] or 0) if client else None,
        is_secure=scope.get("scheme") == secure,
        is_local=client is None,
    )
