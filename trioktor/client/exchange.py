"""Makes one HTTP request, and waits for its answer."""

from __future__ import annotations

import math
from typing import Final

import trio

from ..engine.transport import READ, Transport
from ..http.asking import Exchange, Handshake

_READ: Final = 1 << 12
"""Bytes that are read at once: a body in chunks of a byte each is much work."""
_BODY_LIMIT: Final = 2.0
"""Seconds in which the body of a refusal may come; what has not come then is left out."""


async def exchange(transport: Transport, request: Exchange, until: float = math.inf) -> tuple[Handshake, bytes]:
    """Send a request; returns the answer, and what came behind it.

    Args:
      until: when whoever calls gives up: the body of a refusal has half of what is left, so that it is heard.

    Raises:
      BadAnswer: what came is no answer.
      trio.BrokenResourceError: the connection is lost.
    """
    try:
        await transport.send(request.request)
    except trio.BrokenResourceError:
        pass  # the answer may be there all the same, such as a 431
    answer = None
    transport.read_size = _READ
    with trio.CancelScope() as body:
        while answer is None:
            try:
                data = await transport.receive()
            except trio.BrokenResourceError:
                if not request.is_in_body:
                    raise
                data = b""  # what has come of the refusal is what counts
            answer = request.feed(data)
            if request.is_in_body and body.deadline == math.inf:
                now = trio.current_time()
                body.deadline = now + min(_BODY_LIMIT, (until - now) / 2)
    transport.read_size = READ
    return answer if answer is not None else (request.incomplete(), b"")
