"""From a request for a WebSocket to its 101, or to the answer that it gets instead."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import trio

from ..config import WebSockets
from ..http.call import Call
from ..http.handshake import check_host, check_origin, choose_subprotocol, upgrade_response
from ..http.headers import Refusal
from ..http.requests import RequestHead
from ..protocol.extensions import Extension
from ..protocol.negotiation import negotiate as negotiate_extensions
from ..routing.endpoints import GetRoute, WebSocketRoute
from ..routing.registry import Registry
from .seldom import Seldom

logger: logging.Logger = logging.getLogger("trioktor.server")

_LOGGED: Final = 200
"""Characters of a path that are logged."""


class Peer(Protocol):
    """Who asks: what our transport, or somebody else's server, knows of him."""

    @property
    def client(self) -> tuple[str, int] | str | None:
        """Host and port, or the path of a UNIX socket."""

    @property
    def is_local(self) -> bool:
        """Whether he is on this machine for certain."""

    @property
    def is_secure(self) -> bool:
        """Whether TLS is spoken."""


def check_client(head: RequestHead, call: Call, settings: WebSockets, logged: Seldom) -> None:
    """Check the host that is asked for, and the origin that asks.

    Raises:
      Refusal: with what to answer.
    """
    if settings.hosts is not None:
        check_host(head.authority, settings.hosts)
    try:
        check_origin(head.headers, head.authority, settings.origins, is_secure=call.scheme == "wss")
    except Refusal as refusal:
        if logged.is_due(refusal.text, trio.current_time()):
            logger.warning("%s at %a: list it in WebSockets(origins=[...])", refusal.text, call.path[:_LOGGED])
        raise


def new_call(
    registry: Registry,
    head: RequestHead,
    parameters: Mapping[str, str],
    route: WebSocketRoute | GetRoute,
    peer: Peer,
) -> Call:
    """The call that a request makes, with what a trusted proxy says of the client."""
    client, is_secure = peer.client, peer.is_secure
    forwarded = registry.forwarded(client, head.headers, is_local=peer.is_local)
    if forwarded is not None:
        client = forwarded.client or client
        is_secure = is_secure if forwarded.is_secure is None else forwarded.is_secure
    scheme = ("http" if isinstance(route, GetRoute) else "ws") + "s" * is_secure
    return Call(head, path_parameters=parameters, client=client, scheme=scheme, route=route.pattern)


def negotiate(key: str, route: WebSocketRoute, call: Call) -> tuple[Callable[[], bytes], tuple[Extension, ...]]:
    """Choose the subprotocol, and negotiate extensions; returns what makes the 101, with the call's headers.

    Raises:
      Refusal: as `choose_protocol`; 400 if the offer of extensions is malformed.
    """
    choose_protocol(route, call)
    factories = route.settings.extensions if route.negotiates_extensions else ()
    lines = call.headers.index().get("sec-websocket-extensions", [])
    if not factories and not lines:
        return functools.partial(_response, key, call, ""), ()
    try:
        answers, extensions = negotiate_extensions(factories, lines)
    except ValueError:  # RFC 6455 §9.1
        raise Refusal(400, "Sec-WebSocket-Extensions breaks its grammar") from None
    chosen = ", ".join(map(str, answers))
    return functools.partial(_response, key, call, chosen), extensions


def _response(key: str, call: Call, extensions: str) -> bytes:
    return upgrade_response(key, call.protocol, extensions, call.take_response_headers())


def choose_protocol(route: WebSocketRoute, call: Call) -> None:
    """Choose the subprotocol, and note it on the call.

    Raises:
      Refusal: 500 if the function that chooses failed, or chose what was not offered; logged.
    """
    call.protocol = route.protocol
    if call.protocol is None and route.settings.subprotocols:
        call.protocol = _chosen_protocol(route.settings, call)


def _chosen_protocol(settings: WebSockets, call: Call) -> str | None:
    choose = settings.subprotocols
    if not callable(choose):
        return choose_subprotocol(call.offered_protocols, choose)
    try:
        chosen = choose(call)
        if chosen is not None and chosen not in call.offered_protocols:
            raise ValueError(f"the subprotocol {chosen!r:.100} was chosen, and not offered")
    except Exception:
        logger.exception("choosing a subprotocol failed for %.200s", call.path)
        raise Refusal(500, "the server failed") from None
    return chosen
