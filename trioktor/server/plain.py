"""Answers plain requests: the GET routes beside the WebSockets."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from ..engine.patience import Patience
from ..engine.transport import HangUp
from ..http.call import Call
from ..http.headers import Refusal
from ..http.responses import Response
from ..routing.endpoints import GetRoute
from .answering import with_headers
from .hooks import Hooks
from .running import Running

logger: logging.Logger = logging.getLogger("trioktor.server")


async def serve_get(
    route: GetRoute,
    call: Call,
    send: Callable[[Response], Awaitable[None]],
    *,
    hooks: Hooks,
    running: Running,
    limit: float | None,
    hang_up: Callable[[], HangUp] | None = None,
) -> Response | None:
    """Answer a plain request, within the limit; returns what a hook answers instead.

    Raises:
      Refusal: 503, the handler took too long, or the server is shutting down. Not once the answer has begun: some of
        it may be with the client, and nothing may be said behind it.
    """
    if route.before:
        no = await hooks.ask(route.before, call, hang_up)
        if no is not None:
            return with_headers(no, call)
    response: Response | None = None
    with running.answering(call.path[:100]) as scope, scope:
        response = with_headers(await _respond(route, call, limit), call)
        await send(response)
    if response is None:
        raise Refusal(503, "the server is shutting down")
    return None


async def _respond(route: GetRoute, call: Call, limit: float | None) -> Response:
    responses: list[Response] = []

    async def respond() -> None:
        responses.append(await route.respond(call))

    try:
        if await Patience(limit).finish(respond):
            return responses[0]
    except Exception:
        logger.exception("the handler of GET %.200s failed", call.path)
        return Response("the server failed\n", status=500)
    logger.warning("the handler of GET %.200s took longer than %g s", call.path, limit)
    raise Refusal(503, "the server took too long")
