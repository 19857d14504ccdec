"""From a stream that was accepted to the head of its request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import trio

from ..engine.patience import Patience
from ..engine.transport import Transport
from ..http.headers import Refusal
from ..http.requests import HeadReader, RequestHead
from .admission import Limits, Places

Tls: TypeAlias = "trio.SSLStream[trio.abc.Stream]"
Request: TypeAlias = "tuple[RequestHead, bytes]"


async def read_request(
    transport: Transport, tls: Tls | None, limits: Limits, places: Places, is_stopping: Callable[[], bool]
) -> Request | None:
    """TLS and the request's head, with what came behind it, within `open_timeout`; None if nobody asks.

    What has come with the connection is read without a wait, and without a checkpoint then.

    Raises:
      Refusal: with what to answer.
      trio.BrokenResourceError, OSError: the connection, or its TLS, broke.
    """
    reader = HeadReader(limits.max_head_size, limits.max_headers)
    data = None if tls is not None else transport.read_nowait()
    request = reader.feed(data) if data else None
    if request is None and data != b"":
        with places.asking() as scope:
            if is_stopping():  # accepted in the last moment
                scope.cancel("the server is shutting down")
            request = await _wait_for_request(transport, tls, reader, Patience(limits.open_timeout))
    if request is not None and is_stopping():
        raise Refusal(503, "the server is shutting down")
    return request


async def _wait_for_request(
    transport: Transport, tls: Tls | None, reader: HeadReader, patience: Patience
) -> Request | None:
    data = b""

    async def receive() -> None:
        nonlocal data
        data = await transport.receive()

    if tls is not None and not await patience.finish(tls.do_handshake):
        return None
    while not (is_late := await patience.outlast(receive)) and data:
        request = reader.feed(data)
        if request is not None:
            return request
    if is_late and not reader.is_empty:
        raise Refusal(408, "the request took too long")
    return None
