"""Writes whole HTTP answers, to clients that may be slow to take them."""

from __future__ import annotations

import functools
import time
from email.utils import formatdate
from typing import Final

import attrs
import trio

from ..engine.transport import Transport
from ..errors import WriteTimeout
from ..http.call import Call
from ..http.responses import Response

_ANSWER_LIMIT: Final = 5.0
"""Seconds in which a client must take some of a plain HTTP answer."""


def http_date() -> str:
    """The time of day as HTTP writes it (RFC 9110 §5.6.7); made once a second."""
    return _date_of(int(time.time()))


@functools.lru_cache(maxsize=1)
def _date_of(second: int) -> str:
    return formatdate(second, usegmt=True)


def with_headers(response: Response, call: Call) -> Response:
    """An answer, with the headers that were added to the call's."""
    headers = call.take_response_headers()
    return attrs.evolve(response, headers=(*response.headers, *headers)) if headers else response


async def answer(transport: Transport, data: bytes) -> None:
    """Write a whole HTTP answer and let the client read it: a close with unread input would reset it.

    The client must take some of it every few seconds.
    """
    transport.write_timeout = _ANSWER_LIMIT
    try:
        if not transport.takes_nowait:  # such a stream can't tell by itself
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.watch, name="trioktor write timeout")
                failure = await _try_to_send(transport, data)
                nursery.cancel_scope.cancel("it is sent")
        else:
            failure = await _try_to_send(transport, data)
        if failure is None:
            await transport.linger()
    except (trio.BrokenResourceError, OSError):
        pass


async def _try_to_send(transport: Transport, data: bytes) -> Exception | None:
    try:
        await transport.send(data)
    except (trio.BrokenResourceError, WriteTimeout, OSError) as error:
        return error
    return None
