"""The client's side of HTTP, for tests: what a client asks, and plain requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
import trio

from ..client.exchange import exchange
from ..client.options import Options, client_options
from ..config import WebSockets
from ..converters import ContentConverter
from ..engine.streams import StreamTransport
from ..http.asking import Exchange, Handshake
from ..http.responses import HeaderPairs, header_pairs

_URL: Final = "ws://localhost"


def opening(
    uri: str,
    *,
    headers: HeaderPairs = (),
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    converter: ContentConverter | None = None,
) -> Options:
    """What a test's client asks for; its headers and subprotocols may be any.

    It answers a Close at once: a test that is told the end has nothing more to say.
    """
    settings = WebSockets(max_frame_size=None, answer_grace=0, content_converter=converter)
    options = client_options(_URL, {"websockets": settings, "origin": origin})
    return attrs.evolve(
        options,
        address=attrs.evolve(options.address, target=uri),
        headers=header_pairs(headers),
        subprotocols=tuple(subprotocols),
    )


async def get(stream: trio.abc.Stream, uri: str, headers: Sequence[tuple[str, str]]) -> Handshake:
    """Make a plain GET request."""
    answer, _ = await exchange(StreamTransport(stream), Exchange("GET", uri, "localhost", headers))
    return answer
