"""What a test's client asks: any address, any headers; and plain requests on a stream of one's own."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trioktor import JsonConverter, Response
from trioktor.http.asking import BadAnswer
from trioktor.http.responses import encoded
from trioktor.testing.handshake import get, opening


def test_what_nobody_says() -> None:
    """An address in memory; the end is answered at once, and no message is too long."""
    options = opening("/")
    assert options.address.target == "/"
    assert options.address.authority == "localhost"
    assert not options.address.is_secure
    assert (options.headers, options.subprotocols, options.extensions, options.origin) == ((), (), (), None)
    assert (options.settings.answer_grace, options.settings.max_frame_size) == (0, None)
    assert options.settings.content_converter is None
    assert options.settings.handler_grace is None


@pytest.mark.parametrize("uri", ["/", "/a?b=c", "/%ff", "//a", "*", "/a b", "http://other.example/"])
def test_any_address_is_asked_for(uri: str) -> None:
    """As it is: a test may want to know what a server makes of it."""
    assert opening(uri).address.target == uri


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"headers": {"X": "y"}}, "headers", (("X", "y"),)),
        ({"headers": [("X", "1"), ("X", "2")]}, "headers", (("X", "1"), ("X", "2"))),
        ({"headers": {"Host": "other.example"}}, "headers", (("Host", "other.example"),)),
        ({"headers": {"Sec-WebSocket-Version": "12"}}, "headers", (("Sec-WebSocket-Version", "12"),)),
        ({"subprotocols": ["v2", "v1"]}, "subprotocols", ("v2", "v1")),
        ({"subprotocols": ["two words", ""]}, "subprotocols", ("two words", "")),
        ({"origin": "https://a.example"}, "origin", "https://a.example"),
        ({"origin": "null"}, "origin", "null"),
    ],
)
def test_what_no_other_client_may_say_a_test_may(given: dict[str, Any], name: str, expected: object) -> None:
    """Headers that belong to the handshake, and subprotocols that are none."""
    assert getattr(opening("/", **given), name) == expected


@pytest.mark.parametrize("headers", [{"X": "1\r\nY: 2"}, [("X\n", "1")], {"X": "\0"}])
def test_a_header_is_one_line(headers: Any) -> None:
    """Whatever a test wants."""
    with pytest.raises(ValueError, match="header"):
        opening("/", headers=headers)


def test_the_converter_is_the_clients() -> None:
    """For values of its own."""
    converter = JsonConverter()
    assert opening("/", converter=converter).settings.content_converter is converter


@pytest.mark.parametrize("headers", [[], [("X", "y")]])
async def test_a_plain_request(headers: list[tuple[str, str]], autojump_clock: MockClock) -> None:
    """Its bytes, and the answer."""
    ours, theirs = trio.testing.memory_stream_pair()
    response = Response("hello", status=203, headers={"X-More": "z"})
    lines = [name + b": " + value for name, value in encoded(response.fields())]
    await theirs.send_all(b"\r\n".join([b"HTTP/1.1 203 Yes", *lines, b"", b"hello"]))
    answer = await get(ours, "/a?b", headers)
    assert (answer.status, answer.headers["x-more"], answer.body) == (203, "z", b"hello")
    said = "".join(f"{name}: {value}\r\n" for name, value in headers)
    assert bytes(await theirs.receive_some()) == f"GET /a?b HTTP/1.1\r\nHost: localhost\r\n{said}\r\n".encode()


async def test_a_plain_request_without_an_answer(autojump_clock: MockClock) -> None:
    """It says that nobody answered."""
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_eof()
    with pytest.raises(BadAnswer) as caught:
        await get(ours, "/", [])
    assert caught.value.is_end
