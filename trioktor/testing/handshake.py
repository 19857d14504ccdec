"""The client's side of HTTP, for tests: the opening handshake, and plain requests."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import Final, final

import attrs
import h11
import trio

from ..errors import HandshakeRefused
from ..http.handshake import accept_token
from ..http.headers import Headers
from ..http.requests import RequestHead

HOST: Final = "localhost"


@final
@attrs.frozen
class Handshake:
    """A server's answer to an opening handshake, or to a plain request."""

    status: int
    headers: Headers
    body: bytes = b""


async def shake_hands(
    stream: trio.abc.Stream, uri: str, headers: Sequence[tuple[str, str]]
) -> tuple[RequestHead, Handshake, bytes]:
    """Perform the opening handshake; returns the request, the answer, and what came behind it.

    Raises:
      HandshakeRefused: the answer is not 101.
    """
    key = base64.b64encode(os.urandom(16)).decode("ascii")
    upgrade = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", "13"),
    ]
    request = _request(uri, [*headers, *upgrade])
    answer, trailing_data = await _ask(stream, request)
    if answer.status != 101:
        raise HandshakeRefused(answer.status, answer.headers, answer.body)
    assert answer.headers.get("sec-websocket-accept") == accept_token(key)
    sent = Headers(tuple((bytes(name), bytes(value)) for name, value in request.headers))
    return RequestHead("GET", uri, "1.1", sent, sent.get("host", "")), answer, trailing_data


async def get(stream: trio.abc.Stream, uri: str, headers: Sequence[tuple[str, str]]) -> Handshake:
    """Make a plain GET request."""
    answer, _ = await _ask(stream, _request(uri, headers))
    return answer


def _request(uri: str, headers: Sequence[tuple[str, str]]) -> h11.Request:
    pairs = list(headers)
    if not any(name.lower() == "host" for name, _ in pairs):
        pairs.insert(0, ("Host", HOST))
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    return h11.Request(method="GET", target=uri, headers=encoded)


async def _ask(stream: trio.abc.Stream, request: h11.Request) -> tuple[Handshake, bytes]:
    http = h11.Connection(h11.CLIENT)
    await stream.send_all(http.send(request) or b"")
    body = b""
    answer: h11.Response | h11.InformationalResponse | None = None
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, (h11.Response, h11.InformationalResponse)):
            answer = event
            if event.status_code == 101:
                break
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            break
    assert answer is not None
    raw = tuple((bytes(name), bytes(value)) for name, value in answer.headers)
    return Handshake(answer.status_code, Headers(raw), body), http.trailing_data[0]
