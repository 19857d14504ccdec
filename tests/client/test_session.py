"""The sessions of a client: what they show of the request, of the server's answer, and of the rules they keep."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trioktor import ClientRawWebSocketSession, ClientWebSocketSession, Headers, WebSockets
from trioktor.client.upgrade import Opened
from trioktor.engine.connection import Connection
from trioktor.engine.streams import StreamTransport
from trioktor.http.address import parse_address
from trioktor.http.asking import Handshake
from trioktor.http.requests import RequestHead

SESSIONS = pytest.mark.parametrize("kind", [ClientWebSocketSession, ClientRawWebSocketSession])


def opened(url: str = "ws://example.org/", **more: Any) -> Opened:
    """A connection whose handshake is done."""
    address = parse_address(url)
    head = RequestHead("GET", address.target, "1.1", Headers([(b"x", b"y")]), address.authority)
    stream, _ = trio.testing.memory_stream_pair()
    values: dict[str, Any] = {
        "transport": StreamTransport(stream),
        "address": address,
        "head": head,
        "response": Handshake(101, Headers([(b"x-server", b"z")])),
        "protocol": None,
        "extensions": (),
        "trailing_data": b"",
        **more,
    }
    return Opened(**values)


def session_of(kind: Any, what: Opened) -> Any:
    """A session on it."""
    raw = kind is ClientRawWebSocketSession
    connection = Connection(what.transport, WebSockets(), client=True, raw=raw, extensions=what.extensions)
    return kind(connection, what)


@SESSIONS
async def test_the_call_is_the_request_that_was_sent(kind: Any) -> None:
    """No peer's address and no parameters of a path: nobody asked us."""
    call = session_of(kind, opened("ws://ada:secret@example.org:81/a%20b?c=d")).call
    assert (call.method, call.path, call.query, call.scheme) == ("GET", "/a%20b", {"c": ["d"]}, "ws")
    assert (call.client, call.path_parameters, call.route, call.headers["X"]) == (None, {}, "", "y")


@SESSIONS
@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_the_scheme_is_that_of_the_address_that_answered(kind: Any, scheme: str) -> None:
    """Whatever carries it."""
    assert session_of(kind, opened(f"{scheme}://example.org/")).call.scheme == scheme


@SESSIONS
@pytest.mark.parametrize("protocol", [None, "v1"])
async def test_the_subprotocol_is_what_the_server_chose(kind: Any, protocol: str | None) -> None:
    """It stands in the call, too, as a handler has it."""
    session = session_of(kind, opened(protocol=protocol))
    assert session.protocol == session.call.protocol == protocol


@SESSIONS
async def test_the_answer_is_there(kind: Any) -> None:
    """The whole 101; no application, for there is none."""
    what = opened()
    session = session_of(kind, what)
    assert session.response is what.response
    assert session.application is None
    assert session.close_reason is None


@SESSIONS
async def test_it_always_masks(kind: Any) -> None:
    """RFC 6455 §5.1."""
    session = session_of(kind, opened())
    assert session.masking
    with pytest.raises(ValueError, match="always masks"):
        session.masking = False


@SESSIONS
async def test_it_has_nothing_else(kind: Any) -> None:
    """A misspelt name is found at once."""
    session = session_of(kind, opened())
    with pytest.raises(AttributeError):
        session.respones = None


async def test_two_connections_are_two() -> None:
    """Each with its own answer."""
    one = opened()
    other = attrs.evolve(one, response=Handshake(101, Headers()))
    assert session_of(ClientWebSocketSession, one).response is not session_of(ClientWebSocketSession, other).response
