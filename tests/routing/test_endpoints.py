"""What is kept of a route: who of several serves a client, and what a plain handler answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from trioktor import Call, Headers, Response, WebSockets, WebSocketSession
from trioktor.http.requests import RequestHead
from trioktor.routing.endpoints import Endpoint, GetRoute, WebSocketRoute
from trioktor.routing.signatures import Wanted


async def quiet(session: WebSocketSession) -> None:
    """A handler that returns at once."""


def websocket(protocol: str | None = None) -> WebSocketRoute:
    """A route that is for a subprotocol, or for all."""
    return WebSocketRoute(quiet, WebSockets(), (), protocol)


def call(path_parameters: Mapping[str, str] | None = None) -> Call:
    """A plain request."""
    head = RequestHead("GET", "/", "1.1", Headers())
    return Call(head, path_parameters=path_parameters or {}, client=None, scheme="http")


# who serves a client


@pytest.mark.parametrize(
    ("served", "offered", "expected"),
    [
        ([], [], None),
        ([], ["v1"], None),
        ([None], [], 0),
        ([None], ["v1"], 0),
        (["v1"], [], None),
        (["v1"], ["v2"], None),
        (["v1"], ["V1"], None),
        (["v1"], ["v1"], 0),
        (["v1"], ["v2, v1"], 0),
        (["v1"], ["v2", "v1"], 0),
        (["v2", "v1"], ["v1, v2"], 0),
        (["v2", "v1"], ["v1"], 1),
        ([None, "v1"], ["v1"], 1),
        ([None, "v1"], ["v2"], 0),
        (["v1", None], ["v2"], 1),
        (["v1", None, "v2"], ["v2"], 2),
    ],
)
def test_who_serves_a_client(served: list[str | None], offered: Sequence[str], expected: int | None) -> None:
    """The first whose subprotocol is offered, or else the one that is for all."""
    routes = [websocket(protocol) for protocol in served]
    headers = Headers([(b"sec-websocket-protocol", line.encode()) for line in offered])
    found = Endpoint(routes).websocket(headers)
    assert found is (None if expected is None else routes[expected])


def test_endpoints_share_nothing() -> None:
    """What is added to one is not in another."""
    one, other = Endpoint(), Endpoint()
    one.websockets.append(websocket())
    assert (other.websockets, other.get) == ([], None)


# what a plain handler answers


@pytest.mark.parametrize("answer", ["text", "", b"data", b""], ids=repr)
async def test_text_and_bytes_are_answers(answer: str | bytes) -> None:
    """With the status and the type that a `Response` of them has."""

    async def handler(call: Call) -> str | bytes:
        return answer

    assert await GetRoute(handler, ()).respond(call()) == Response(answer)


async def test_a_response_is_passed_on() -> None:
    """The very one."""
    answer = Response("gone", status=404)

    async def handler(call: Call) -> Response:
        return answer

    assert await GetRoute(handler, ()).respond(call()) is answer


@pytest.mark.parametrize("answer", [None, 5, ["text"], bytearray(b"data"), Response], ids=repr)
async def test_anything_else_is_a_mistake(answer: Any) -> None:
    """Its kind is said, and not what it holds."""

    async def handler(call: Call) -> Any:
        return answer

    with pytest.raises(TypeError, match=f"returns a Response, str or bytes, not {type(answer).__name__}$"):
        await GetRoute(handler, ()).respond(call())


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((), {}),
        ((("a", None),), {"a": "1"}),
        ((("b", None), ("a", "9")), {"a": "1", "b": "2"}),
        ((("a", None), ("c", None), ("d", "9")), {"a": "1", "c": None, "d": "9"}),
    ],
)
async def test_a_handler_gets_the_parameters_that_it_wants(wanted: Wanted, expected: Mapping[str, str | None]) -> None:
    """By name; what stands for it, or None, for what the path has not."""
    request = call({"a": "1", "b": "2"})
    given: list[object] = []

    async def handler(*args: object, **values: object) -> str:
        given.extend([*args, values])
        return ""

    await GetRoute(handler, wanted).respond(request)
    await WebSocketRoute(handler, WebSockets(), wanted).converse("session", request)
    assert given == [request, expected, "session", expected]


async def test_what_a_handler_raises_comes_out() -> None:
    """Whoever serves it decides what is answered."""

    async def handler(call: Call) -> str:
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        await GetRoute(handler, ()).respond(call())
