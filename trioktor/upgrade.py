"""From a request for a WebSocket to its 101, or to the answer that it gets instead."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import trio

from .call import Call
from .config import WebSockets
from .endpoints import Before, WebSocketRoute
from .protocol.extensions import Extension, negotiate
from .protocol.handshake import choose_subprotocol, judge_host, judge_origin, judge_upgrade, upgrade_response
from .protocol.headers import Refusal
from .protocol.http import RequestHead
from .protocol.responses import Response
from .seldom import Seldom

logger: logging.Logger = logging.getLogger("trioktor.server")

_LOGGED: Final = 200
"""Characters of a path that are logged."""


def judge(head: RequestHead, settings: WebSockets, logged: Seldom) -> str:
    """Check the request, its host and its origin; returns its key.

    Raises:
      Refusal: with what to answer.
    """
    judge_host(head.authority, settings.hosts)
    key = judge_upgrade(head)
    try:
        judge_origin(head.headers, head.authority, settings.origins)
    except Refusal as refusal:
        if logged.is_due(refusal.text, trio.current_time()):
            path = head.target.partition("?")[0][:_LOGGED]  # what stands behind it may be secret
            logger.warning("%s at %a: list it in WebSockets(origins=[...])", refusal.text, path)
        raise
    return key


async def ask_hooks(hooks: Sequence[Before], call: Call) -> Response | None:
    """Ask hooks in their order, until one has an answer.

    Raises:
      Refusal: 500 if one failed; logged.
    """
    for hook in hooks:
        try:
            response = await hook(call)
            if response is not None and not isinstance(response, Response):
                raise TypeError(f"a hook returns None or a Response, not {type(response).__name__}")
        except Exception:
            logger.exception("a hook failed before the upgrade of %.200s", call.path)
            raise Refusal(500, "the server failed") from None
        if response is not None:
            return response
    return None


def agree(key: str, route: WebSocketRoute, call: Call) -> tuple[bytes, tuple[Extension, ...]]:
    """Choose the subprotocol, note it on the call, negotiate extensions, and write the 101.

    Raises:
      Refusal: 500 if the function that chooses failed, or chose what was not offered; logged. 400 if the offer of
        extensions is malformed.
    """
    call.protocol = route.protocol
    if call.protocol is None:
        call.protocol = _chosen_protocol(route.settings, call)
    factories = route.settings.extensions if route.negotiates_extensions else ()
    lines = call.headers.get_all("sec-websocket-extensions")
    if not factories and not lines:
        return upgrade_response(key, call.protocol, headers=call.take_response_headers()), ()
    try:
        answers, extensions = negotiate(factories, lines)
    except ValueError:  # RFC 6455 §9.1
        raise Refusal(400, "Sec-WebSocket-Extensions breaks its grammar") from None
    chosen = ", ".join(map(str, answers))
    return upgrade_response(key, call.protocol, chosen, call.take_response_headers()), extensions


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
