"""What clients write, read once, as its RFC writes it: a table for each rule."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import application
from tests.support.listening import MemoryListener, serving
from tests.support.reading import FrameReader
from trioktor import Application, Frame, JsonConverter, WebSocketSession
from trioktor.auth import basic
from trioktor.errors import DeserializationError
from trioktor.http.call import Call
from trioktor.http.headers import Headers
from trioktor.http.requests import RequestHead
from trioktor.protocol.errors import ProtocolError
from trioktor.protocol.serializer import head
from trioktor.server.host import Host


def call(*headers: tuple[bytes, bytes]) -> Call:
    """A request with these headers."""
    return Call(RequestHead("GET", "/", "1.1", Headers(headers)), path_parameters={}, client=None, scheme="ws")


COOKIES: dict[str, dict[str, str]] = {
    "": {},
    "a=1": {"a": "1"},
    "a=1; b=2": {"a": "1", "b": "2"},
    "a=1;b=2": {"a": "1", "b": "2"},
    "path=/x; session=3": {"path": "/x", "session": "3"},
    "x[y]=2; session=3": {"x[y]": "2", "session": "3"},
    "a=1=2; b==": {"a": "1=2", "b": "="},
    'a="1 2"; b="; c=3': {"a": "1 2", "b": '"', "c": "3"},
    "none; a=1; =2; ;": {"a": "1"},
    "a=; b": {"a": ""},
    "a=1; a=2": {"a": "1"},
    "expires=x; HttpOnly; a=1": {"expires": "x", "a": "1"},
    "A=1; a=2": {"A": "1", "a": "2"},
}


@pytest.mark.parametrize(("line", "expected"), COOKIES.items())
def test_cookies_are_split_as_they_were_joined(line: str, expected: dict[str, str]) -> None:
    """RFC 6265 §5.4: one odd cookie hides no other."""
    assert call((b"cookie", line.encode())).cookies == expected


def test_cookies_may_come_in_several_lines() -> None:
    """As HTTP/2 allows, and proxies pass on."""
    assert call((b"cookie", b"a=1; b=2"), (b"cookie", b"b=3; c=4")).cookies == {"a": "1", "b": "2", "c": "4"}


@pytest.mark.parametrize(
    ("credentials", "is_let_in"),
    [("Ada:secret", True), ("Ada:sec\nret", False), ("A\0da:secret", False), ("Ada:sec\x7fret", False), ("Ada", False)],
)
async def test_names_and_passwords_hold_no_control_characters(credentials: str, is_let_in: bool) -> None:
    """RFC 7617 §2: whatever a check would make of them."""

    async def check(name: str, password: str) -> object:
        return name

    encoded = base64.b64encode(credentials.encode())
    answer: Any = await basic(check)(call((b"authorization", b"Basic " + encoded)))
    assert (answer is None) == is_let_in


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_json_is_utf8_in_binary_frames_too(encoding: str) -> None:
    """RFC 8259 §8.1: the parser would guess others."""
    with pytest.raises(DeserializationError):
        JsonConverter().deserialize(Frame.Binary('{"a": 1}'.encode(encoding)), dict)
    assert JsonConverter().deserialize(Frame.Binary('{"a": "é"}'.encode()), dict) == {"a": "é"}


@pytest.mark.parametrize("data", [b'"\xed\xa0\x80"', b'"\xff"', b"1\x00"])
def test_json_in_binary_frames_has_no_surrogates(data: bytes) -> None:
    """Nor what is no UTF-8 at all, nor what another encoding would make of it."""
    with pytest.raises(DeserializationError):
        JsonConverter().deserialize(Frame.Binary(data), object)


@pytest.mark.parametrize("second", [0x80, 0x9F, 0xA0, 0xBF])
@pytest.mark.parametrize("is_fragmented", [False, True])
def test_a_surrogate_is_bad_at_its_second_byte(second: int, is_fragmented: bool) -> None:
    """When that comes, and not when the third has come; what is none may go on."""
    reader = FrameReader(client=True)
    data = (head(0x01, 2) if is_fragmented else head(0x81, 3)) + bytes((0xED, second))
    if second >= 0xA0:
        with pytest.raises(ProtocolError) as error:
            list(reader.feed(data))
        assert error.value.close_code == 1007
    else:
        assert list(reader.feed(data)) == []


def page(body: bytes) -> Application:
    """An application with one page."""

    async def idle(session: WebSocketSession) -> None:
        await trio.sleep_forever()

    app = application(idle)

    @app.get("/page")
    async def show(call: Call) -> bytes:
        return body

    return app


async def test_a_slow_reader_of_a_plain_answer_is_waited_for(autojump_clock: MockClock) -> None:
    """As long as it takes something every few seconds."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    body = bytes(1 << 20) + b"the end"
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Host(page(body)).handle, theirs)
        await ours.send_all(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
        while not received.endswith(b"the end"):
            await trio.sleep(4)
            received += bytes(await ours.receive_some(1 << 16))
        await ours.aclose()
    assert received.endswith(body)
    assert trio.current_time() > 60


async def test_a_reader_of_a_plain_answer_that_takes_nothing_is_cut(autojump_clock: MockClock) -> None:
    """After five seconds without progress."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
        await Host(page(bytes(1 << 20))).handle(theirs)
    assert trio.current_time() == pytest.approx(5, abs=0.1)


async def test_every_answer_says_when_and_that_it_is_what_it_says(autojump_clock: MockClock) -> None:
    """RFC 9110 §6.6.1, and no guessing of types."""
    listener = MemoryListener()
    async with serving(page(b"hello"), listener):
        for target in (b"/page", b"/nothing", b"/"):
            stream = await listener.connect()
            await stream.send_all(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = bytes(await stream.receive_some())
            assert b"\r\nDate: " in answer
            assert b" GMT\r\n" in answer
            assert b"\r\nX-Content-Type-Options: nosniff\r\n" in answer


# paths


async def asked(target: bytes) -> tuple[bytes, list[tuple[str, str, dict[str, str]]]]:
    """The status of a request, and the path, route and parameters that a hook sees."""
    seen: list[tuple[str, str, dict[str, str]]] = []

    async def idle(session: WebSocketSession, **_: str) -> None:
        pass

    app = application(idle, "/admin")
    app.websocket("/rooms/{room}", idle)
    app.websocket("/files/{rest...}", idle)

    @app.before_upgrade
    async def look(call: Call) -> None:
        seen.append((call.path, call.route, dict(call.path_parameters)))

    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Host(app).handle, theirs)
        await ours.send_all(
            b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        answer = bytes(await ours.receive_some())
        await ours.aclose()
    return answer[9:12], seen


@pytest.mark.parametrize(
    ("target", "path", "route", "parameters"),
    [
        (b"/admin", "/admin", "/admin", {}),
        (b"/%61dmin", "/admin", "/admin", {}),
        (b"/%61%64%6D%69%6e?x=%61", "/admin", "/admin", {}),
        (b"http://a/%61dmin", "/admin", "/admin", {}),
        (b"/rooms/%7euser", "/rooms/~user", "/rooms/{room}", {"room": "~user"}),
        (b"/rooms/%3a%40%3B", "/rooms/:@;", "/rooms/{room}", {"room": ":@;"}),
        (b"/rooms/a|b", "/rooms/a%7Cb", "/rooms/{room}", {"room": "a|b"}),
        (b"/rooms/a%2fb", "/rooms/a%2Fb", "/rooms/{room}", {"room": "a/b"}),
        (b"/rooms/%c3%a9", "/rooms/%C3%A9", "/rooms/{room}", {"room": "é"}),
        (b"/rooms/%2e%2e", "/rooms/..", "/rooms/{room}", {"room": ".."}),
        (b"/files/a/../%2E%2e/b", "/files/a/../../b", "/files/{rest...}", {"rest": "a/../../b"}),
    ],
)
async def test_a_path_has_one_reading(
    autojump_clock: MockClock, target: bytes, path: str, route: str, parameters: dict[str, str]
) -> None:
    """Hooks see what is routed."""
    assert await asked(target) == (b"101", [(path, route, parameters)])


@pytest.mark.parametrize(
    "target", [b"/rooms/%FF", b"/rooms/%FE", b"/rooms/%c3", b"/rooms/%ed%a0%80", b"/admin?x=%FF", b"/admin?%c3=1"]
)
async def test_what_is_no_utf8_is_refused(autojump_clock: MockClock, target: bytes) -> None:
    """In paths and queries: replaced, all of these would be one."""
    assert await asked(target) == (b"400", [])
