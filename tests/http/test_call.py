"""`Call`: what a handler can read of the request that opened its conversation."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio.testing

from trioktor import Application, Call, Headers, WebSockets, WebSocketSession
from trioktor.http.requests import RequestHead
from trioktor.testing import handle_websocket_conversation


def call(
    target: str = "/", headers: Sequence[tuple[bytes, bytes]] = (), path_parameters: dict[str, str] | None = None
) -> Call:
    """The call of a request."""
    head = RequestHead("GET", target, "1.1", Headers(tuple(headers)))
    return Call(head, path_parameters=path_parameters or {}, client=("127.0.0.1", 4711), scheme="ws")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", {}),
        ("/?", {}),
        ("/?a=1", {"a": ["1"]}),
        ("/?a=1&a=2&b=3", {"a": ["1", "2"], "b": ["3"]}),
        ("/?a=", {"a": [""]}),
        ("/?a", {"a": [""]}),
        ("/?a%20b=c+d%26", {"a b": ["c d&"]}),
        ("/?name=%C3%A9", {"name": ["é"]}),
        ("/?url=http://x/?y=z", {"url": ["http://x/?y=z"]}),
    ],
)
def test_the_query_gives_every_value_in_order(target: str, expected: dict[str, list[str]]) -> None:
    """Repeated, empty and encoded parameters."""
    assert call(target).query == expected


@pytest.mark.parametrize(
    ("target", "path_parameters", "expected"),
    [
        ("/x?a=1&a=2", {}, {"a": "1"}),
        ("/x?a=1", {"id": "7"}, {"a": "1", "id": "7"}),
        ("/x?id=evil", {"id": "7"}, {"id": "7"}),
    ],
    ids=["first of the query", "both", "the path wins"],
)
def test_parameters_merge_path_and_query(
    target: str, path_parameters: dict[str, str], expected: dict[str, str]
) -> None:
    """F22: what the path names, the query cannot replace."""
    assert call(target, path_parameters=path_parameters).parameters == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], {}),
        ([b"a=1"], {"a": "1"}),
        ([b"a=1; b=2"], {"a": "1", "b": "2"}),
        ([b"a=1", b"b=2"], {"a": "1", "b": "2"}),
        ([b'a="quoted value"'], {"a": "quoted value"}),
        ([b"a=x=y"], {"a": "x=y"}),
    ],
)
def test_cookies_are_read_from_every_line(lines: list[bytes], expected: dict[str, str]) -> None:
    """Names and values, quoted or not."""
    assert call(headers=[(b"cookie", line) for line in lines]).cookies == expected


@pytest.mark.parametrize("line", [b"\x00", b"a", b"=", b";;;", b"a[=1", b"\xff=\xfe"])
def test_a_malformed_cookie_is_no_error(line: bytes) -> None:
    """A client's nonsense does not fail the handler, nor the good line beside it."""
    assert call(headers=[(b"cookie", line), (b"cookie", b"good=1")]).cookies["good"] == "1"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], []),
        ([b"chat"], ["chat"]),
        ([b"chat, superchat"], ["chat", "superchat"]),
        ([b"chat", b"superchat"], ["chat", "superchat"]),
        ([b"chat,, ,superchat ,"], ["chat", "superchat"]),
    ],
)
def test_offered_protocols_come_from_all_lines(lines: list[bytes], expected: list[str]) -> None:
    """F19: Ktor reads the first line only."""
    assert call(headers=[(b"sec-websocket-protocol", line) for line in lines]).offered_protocols == expected


def test_attributes_are_a_place_for_the_applications_own_values() -> None:
    """What is put there is there, and belongs to this call alone."""
    first, second = call(), call()
    first.attributes["user"] = "Ada"
    assert first.attributes == {"user": "Ada"}
    assert second.attributes == {}


async def test_a_session_shows_the_request_that_opened_it(autojump_clock: trio.testing.MockClock) -> None:
    """Every name of the contract: method, path, parameters, query, headers, cookies, client, scheme, protocols."""
    calls: list[Call] = []
    app = Application()
    app.install(WebSockets(subprotocols=["v2", "v1"]))

    @app.websocket("/rooms/{room}")
    async def handler(session: WebSocketSession, room: str) -> None:
        calls.append(session.call)
        assert session.application is app
        assert room == "big hall"

    async with handle_websocket_conversation(
        app, "/rooms/big%20hall?who=ada&who=bob", headers={"Cookie": "id=7", "X-Extra": "y"}, subprotocols=["v1", "v2"]
    ):
        pass
    [seen] = calls
    assert seen.method == "GET"
    assert seen.path == "/rooms/big%20hall"
    assert seen.path_parameters == {"room": "big hall"}
    assert seen.parameters == {"room": "big hall", "who": "ada"}
    assert seen.query == {"who": ["ada", "bob"]}
    assert seen.headers["x-extra"] == "y"
    assert seen.cookies == {"id": "7"}
    assert seen.client is None
    assert seen.scheme == "ws"
    assert seen.offered_protocols == ["v1", "v2"]
    assert seen.protocol == "v2"
    assert repr(seen) == "<Call GET /rooms/big%20hall>"
