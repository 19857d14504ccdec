"""What a request is answered that does not become a conversation, byte by byte over memory streams."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Final, final

import pytest
import trio
import trio.testing

from tests.support.helpers import ACCEPT, REQUEST, RawClient, client_bytes, close, records_above_info
from tests.support.listening import serving
from trioktor import Application, Call, Frame, WebSockets, WebSocketSession

Clock = trio.testing.MockClock

HEADERS: Final = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def request(
    path: str = "/ws",
    *,
    method: str = "GET",
    version: str = "HTTP/1.1",
    drop: Sequence[str] = (),
    add: Sequence[str] = (),
    **change: str,
) -> bytes:
    """An upgrade request with changes: `upgrade=` replaces that header, `drop` and `add` whole lines."""
    headers = {name: change.get(name.replace("-", "_").lower(), value) for name, value in HEADERS.items()}
    lines = [f"{method} {path} {version}", *(f"{name}: {headers[name]}" for name in headers if name not in drop), *add]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def plain(path: str = "/", *, method: str = "GET", add: Sequence[str] = ()) -> bytes:
    """A request that asks for no upgrade."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *add, "", ""]).encode("latin-1")


@final
class Served:
    """An application with a bit of everything, and how often its handlers ran."""

    def __init__(self) -> None:
        self.sessions = 0
        self.pages = 0
        self.app = Application()
        self.app.install(WebSockets())
        self.app.websocket("/ws", self.echo)
        self.app.websocket("/rooms/{room}", self.echo)
        self.app.get("/page", self.page)
        self.app.get("/crash", self.crash)
        self.app.get("/nonsense", self.nonsense)

    async def echo(self, session: WebSocketSession) -> None:
        """Send back what comes."""
        self.sessions += 1
        async for frame in session:
            await session.send(frame)

    async def page(self, call: Call) -> str:
        """A plain page."""
        self.pages += 1
        return "a page\n"

    async def crash(self, call: Call) -> str:
        """Fail with a text that is nobody's business."""
        raise RuntimeError("the password is 1234")

    async def nonsense(self, call: Call) -> object:
        """Return what cannot be sent."""
        return {"a": "dict"}


async def answer(app: Application, *pieces: bytes) -> bytes:
    """Send the pieces one after another, and return all that comes until the server hangs up."""
    ours, theirs = trio.testing.memory_stream_pair()
    data = b""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.handle_stream, theirs)
            for piece in pieces:
                await ours.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()
            async for chunk in ours:
                data += chunk
    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        await theirs.send_all(b"x")  # its end is closed, not only half of it
    await ours.aclose()
    return data


def parse(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower-case names) and body of the one answer there is."""
    head, _, body = data.partition(b"\r\n\r\n")
    start, *lines = head.decode("ascii").split("\r\n")
    found = re.fullmatch(r"HTTP/1\.1 (\d{3}) [A-Z][A-Za-z ]+", start)
    assert found is not None, start
    return int(found[1]), {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}, body


def assert_short_and_closing(headers: dict[str, str], body: bytes) -> None:
    """What every refusal has: one line of text, its length, and the end of the connection."""
    assert headers["connection"] == ("close, Upgrade" if "upgrade" in headers else "close")
    assert headers["x-content-type-options"] == "nosniff"
    assert parsedate_to_datetime(headers["date"]).year > 2000
    assert int(headers["content-length"]) == len(body)
    assert headers["content-type"].startswith("text/plain")
    assert 10 < len(body) < 1000
    assert body.count(b"\n") == 1
    assert body.endswith(b"\n")


REFUSALS: Final = {
    # nothing there, whatever is asked for
    "404": (404, request("/nothing")),
    "404 plain": (404, plain("/nothing")),
    "404 in a trailing slash": (404, request("/ws/")),
    "404 below a parameter": (404, request("/rooms/7/nothing")),
    "404 at a parameter that is missing": (404, request("/rooms/")),
    "404 in upper case": (404, request("/WS")),
    # there, but not for this method
    "405 POST": (405, plain("/ws", method="POST")),
    "405 POST upgrade": (405, request(method="POST")),
    "405 HEAD upgrade": (405, request(method="HEAD")),
    "405 with a parameter": (405, plain("/rooms/7", method="DELETE")),
    "405 of a page": (405, plain("/page", method="PUT")),
    "405 unknown method": (405, plain("/ws", method="BREW")),
    # not HTTP
    "400 garbage": (400, b"\x00\x01\x02\x03\r\n\r\n"),
    "400 TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32)),
    "400 a frame": (400, client_bytes(Frame.Text("hello"))),
    "400 HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "400 HTTP/0.9": (400, b"GET /ws\r\n\r\n"),
    "400 HTTP/3.0": (400, request(version="HTTP/3.0")),
    "400 no version": (400, request(version="")),
    "400 an empty line, and no request": (400, b"\r\nhello\r\n\r\n"),
    "400 no slash": (400, request("ws")),
    "400 a host that is none": (400, request(drop=["Host"], add=["Host: a b"])),
    "400 a host with a user": (400, request(drop=["Host"], add=["Host: user@x"])),
    "400 extensions": (400, request(add=["Sec-WebSocket-Extensions: permessage-deflate;"])),
    "400 a space in the path": (400, request("/w s")),
    # HTTP that two readers may read differently
    "400 no host": (400, request(drop=["Host"])),
    "400 two hosts": (400, request(add=["Host: elsewhere"])),
    "400 bare line feeds": (400, request().replace(b"\r\n", b"\n") + b"\r\n\r\n"),
    "400 one bare line feed": (400, request(add=["X-A: 1\nX-B: 2"])),
    "400 folded": (400, request(add=["X-A: 1\r\n 2"])),
    "400 folded with a tab": (400, request(add=["X-A: 1\r\n\t2"])),
    "400 space before the colon": (400, request(add=["X-A : 1"])),
    "400 no colon": (400, request(add=["X-A"])),
    "400 empty name": (400, request(add=[": 1"])),
    "400 NUL": (400, request(add=["X-A: \x00"])),
    "400 bare carriage return": (400, request(add=["X-A: 1\rX-B: 2"])),
    # a body
    "400 body": (400, request(add=["Content-Length: 5"]) + b"hello"),
    "400 chunked": (400, request(add=["Transfer-Encoding: chunked"]) + b"0\r\n\r\n"),
    "400 two lengths": (400, request(add=["Content-Length: 0", "Content-Length: 5"])),
    "400 length and chunks": (400, request(add=["Content-Length: 0", "Transfer-Encoding: chunked"])),
    "400 negative length": (400, request(add=["Content-Length: -1"])),
    "400 body for a page": (400, plain("/page", add=["Content-Length: 5"]) + b"hello"),
    # an upgrade that is none
    "400 HTTP/1.0": (400, request(version="HTTP/1.0")),
    "400 no key": (400, request(drop=["Sec-WebSocket-Key"])),
    "400 empty key": (400, request(sec_websocket_key="")),
    "400 two keys": (400, request(add=["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="])),
    "400 key of 15 bytes": (400, request(sec_websocket_key="AAAAAAAAAAAAAAAAAAAA")),
    "400 key of 17 bytes": (400, request(sec_websocket_key="AAAAAAAAAAAAAAAAAAAAAAA=")),
    "400 key in other letters": (400, request(sec_websocket_key="!!!!!!!!!!!!!!!!!!!!!!==")),
    "400 key not ASCII": (400, request(sec_websocket_key="\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9AAAAAAAAAAAA==")),
    # not the WebSocket that is spoken here
    "426 no version": (426, request(drop=["Sec-WebSocket-Version"])),
    "426 version 8": (426, request(sec_websocket_version="8")),
    "426 version 14": (426, request(sec_websocket_version="14")),
    "426 version list": (426, request(sec_websocket_version="13, 8")),
    "426 two versions": (426, request(add=["Sec-WebSocket-Version: 8"])),
    "426 version no number": (426, request(sec_websocket_version="xiii")),
    "426 plain GET": (426, plain("/ws")),
    "426 plain GET with a parameter": (426, plain("/rooms/7")),
    "426 no Upgrade": (426, request(drop=["Upgrade"])),
    "426 no Connection": (426, request(drop=["Connection"])),
    "426 another upgrade": (426, request(upgrade="h2c")),
    "426 a lookalike": (426, request(upgrade="websockets")),
    "426 Connection: close": (426, request(connection="close")),
    # too much
    "431 one long header": (431, request(add=["X-Long: " + "a" * 17 * 1024])),
    "431 no end": (431, b"GET /ws HTTP/1.1\r\nX-Long: " + b"a" * 17 * 1024),
    "431 a long path": (431, request("/" + "a" * 17 * 1024)),
    "431 no line end at all": (431, b"a" * 17 * 1024),
    "431 101 headers": (431, request(add=[f"X-{number}: 1" for number in range(96)])),
}


@pytest.mark.parametrize(("status", "data"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_request_that_cannot_be_served_is_refused(
    status: int, data: bytes, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """F20 and R-lines: the right status, a short body, a closed connection; no handler runs, nobody is alarmed."""
    served = Served()
    found, headers, body = parse(await answer(served.app, data))
    assert found == status
    if not data.startswith(b"HEAD"):
        assert_short_and_closing(headers, body)
    allowed = "GET, HEAD" if b" /page " in data else "GET"
    assert headers.get("allow") == (allowed if status == 405 else None)
    assert headers.get("upgrade") == ("websocket" if status == 426 else None)
    assert headers.get("sec-websocket-version") == ("13" if status == 426 else None)
    assert (served.sessions, served.pages) == (0, 0)
    assert records_above_info(caplog) == []


@pytest.mark.parametrize(
    "data",
    [
        request(),
        request(upgrade="WebSocket", connection="keep-alive, Upgrade"),
        request(upgrade="foo/2, websocket", connection="UPGRADE"),
        request(drop=["Connection"], add=["Connection: keep-alive", "Connection: upgrade"]),
        request("/rooms/7"),
        request("/ws?token=abc"),
        request(add=["Content-Length: 0"]),
        request(add=["X-Latin: \xe9\xff"]),
        request(add=["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"]),
        request(add=["Sec-WebSocket-Protocol: chat"]),
        request(add=[f"X-{number}: 1" for number in range(95)]),
        request(add=["X-Long: " + "a" * 16 * 1000]),
    ],
    ids=[
        "plain", "browser", "lists", "two lines", "parameter", "query", "no body", "latin-1", "extensions",
        "subprotocol", "100 headers", "almost 16 KiB",
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1 << 20, 1000, 1], ids=["whole", "in pieces", "byte by byte"])
async def test_an_acceptable_request_is_upgraded_however_it_is_cut(
    data: bytes, size: int, autojump_clock: Clock
) -> None:
    """101 with the right token, and no extension or subprotocol that was not configured; frames behind it count."""
    served = Served()
    data += client_bytes(Frame.Text("straight away"), close(1000))
    if size == 1:
        pieces = [data[start : start + 1] for start in range(len(data))] if len(data) < 500 else [data]
    else:
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
    received = await answer(served.app, *pieces)
    head, _, frames = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert ACCEPT.strip() in head
    assert b"extensions" not in head.lower()
    assert b"protocol:" not in head.lower()
    assert frames == b"\x81\x0dstraight away\x88\x02\x03\xe8"
    assert served.sessions == 1


@pytest.mark.parametrize("status", [400, 404, 426])
async def test_the_answer_is_the_same_with_and_without_parameters(status: int, autojump_clock: Clock) -> None:
    """F20: Ktor gives 404 instead of 400 as soon as the route has a parameter."""
    served = Served()
    first, second = {
        400: (request("/ws", drop=["Sec-WebSocket-Key"]), request("/rooms/7", drop=["Sec-WebSocket-Key"])),
        404: (request("/nothing"), request("/rooms/7/8")),
        426: (plain("/ws"), plain("/rooms/7")),
    }[status]
    answers = [parse(await answer(served.app, asked)) for asked in (first, second)]
    for _, headers, _ in answers:
        headers.pop("date")
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", ["431 one long header", "431 no end", "431 a long path", "431 101 headers"])
@pytest.mark.parametrize("size", [100, 1000])
async def test_a_head_that_is_too_long_is_refused_in_pieces_too(name: str, size: int, autojump_clock: Clock) -> None:
    """The limits hold however the bytes arrive; what follows the answer is not read for ever."""
    data = REFUSALS[name][1]
    served = Served()
    status, headers, body = parse(
        await answer(served.app, *(data[start : start + size] for start in range(0, len(data), size)))
    )
    assert status == 431
    assert_short_and_closing(headers, body)


@pytest.mark.parametrize("name", [name for name in REFUSALS if name.startswith(("400", "404", "405", "426"))])
async def test_what_follows_a_refused_request_is_never_parsed(name: str, autojump_clock: Clock) -> None:
    """Request smuggling: one answer, and the request behind it reaches no handler."""
    served = Served()
    first = REFUSALS[name][1]
    received = await answer(served.app, first + plain("/page"), request())
    assert received.count(b"HTTP/1.1 ") == 1
    assert parse(received)[0] == REFUSALS[name][0]
    assert (served.sessions, served.pages) == (0, 0)


@pytest.mark.parametrize("name", ["host", "upgrade", "connection", "sec_websocket_key", "sec_websocket_version"])
@pytest.mark.parametrize("byte", [0x01, 0x1B, 0x7F, 0x80, 0xC3, 0xFF])
async def test_odd_bytes_in_a_header_crash_nothing(
    name: str, byte: int, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """One answer, 101 for the Host at most, and no traceback."""
    served = Served()
    change = {name: chr(byte) * 3}
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.app.handle_stream, theirs)
        await ours.send_all(request(**change))
        data = bytes(await ours.receive_some())
        await ours.aclose()
    status = parse(data)[0]
    assert status in ((101, 400) if name == "host" else (400, 426))
    assert records_above_info(caplog) == []


# origins


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost", "http://localhost", 101),
        ("localhost", "https://localhost", 101),
        ("localhost:8080", "http://localhost:8080", 101),
        ("LOCALHOST", "http://localhost", 101),
        ("localhost", "http://localhost:80", 101),
        ("[::1]:8080", "http://[::1]:8080", 101),
        ("localhost", "null", 403),
        ("localhost", "", 403),
        ("localhost", "http://elsewhere.example", 403),
        ("localhost:8080", "http://localhost:9090", 403),
        ("localhost", "http://localhost.evil.example", 403),
        ("localhost", "http://evillocalhost", 403),
        ("localhost", "http://localhost@evil.example", 403),
        ("localhost", "http://evil.example@localhost", 403),
        ("localhost", "http://localhost/path", 403),
        ("localhost", "localhost", 403),
        ("localhost", "http://localhost http://evil.example", 403),
        ("localhost", "http://localhost:notaport", 403),
        ("localhost", "file://", 403),
        ("localhost", "http://[::1", 403),
    ],
)
async def test_by_default_pages_of_the_same_origin_may_connect(
    host: str, origin: str, status: int, autojump_clock: Clock
) -> None:
    """Cross-site WebSocket hijacking: other names, ports, suffixes and user parts are refused."""
    served = Served()
    data = request(host=host, add=[f"Origin: {origin}"]) + client_bytes(close(1000))
    assert parse(await answer(served.app, data))[0] == status
    assert served.sessions == (status == 101)


@pytest.mark.parametrize(
    ("said", "origin", "status"),
    [
        ("https", "https://localhost", 101),
        ("https", "http://localhost", 403),
        ("http", "http://localhost", 101),
        (None, "http://localhost", 101),
        (None, "https://localhost", 101),  # a proxy that nobody named may speak TLS
    ],
)
async def test_a_page_without_tls_may_not_connect_where_tls_is_spoken(
    said: str | None, origin: str, status: int, autojump_clock: Clock
) -> None:
    """As a trusted proxy says, or we know."""
    served = Served()
    served.app.trust_proxies("unix")
    proxy = [] if said is None else [f"X-Forwarded-Proto: {said}", "X-Forwarded-For: 192.0.2.1"]
    data = request(host="localhost", add=[f"Origin: {origin}", *proxy]) + client_bytes(close(1000))
    assert parse(await answer(served.app, data))[0] == status


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        (None, "http://anyone.example", 101),
        (["https://a.example"], "https://a.example", 101),
        (["https://a.example"], "HTTPS://A.example", 101),
        (["https://a.example"], "http://a.example", 403),
        (["https://a.example"], "https://a.example.evil", 403),
        (["https://a.example"], "http://localhost", 403),
        (["https://*.a.example"], "https://b.a.example", 101),
        (["https://*.a.example"], "https://a.example", 403),
        (["https://*.a.example"], "https://evil.example/.a.example", 403),
        (["https://*.a.example"], "https://evil.example?.a.example", 403),
        ([re.compile(r"https://[a-c]\.example")], "https://b.example", 101),
        ([re.compile(r"https://[a-c]\.example")], "https://d.example", 403),
        ([re.compile(r"https://[a-c]\.example")], "https://b.example.evil", 403),
        ([], "http://localhost", 403),
    ],
    ids=str,
)
async def test_other_origins_may_be_listed(
    origins: list[str | re.Pattern[str]] | None, origin: str, status: int, autojump_clock: Clock
) -> None:
    """Names, stars and patterns, each for the whole origin; None is anyone."""
    app = Application()
    app.install(WebSockets(origins=origins))

    @app.websocket("/ws")
    async def handler(session: WebSocketSession) -> None:
        async for _ in session:
            pass

    data = request(add=[f"Origin: {origin}"]) + client_bytes(close(1000))
    assert parse(await answer(app, data))[0] == status


async def test_two_origins_are_refused(autojump_clock: Clock) -> None:
    """One of them may be right: nobody can say which is meant."""
    data = request(add=["Origin: http://localhost", "Origin: http://evil.example"])
    assert parse(await answer(Served().app, data))[0] == 403


async def test_a_refused_origin_is_named_in_the_body_and_in_a_warning(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Both say which origin; at which path, and what to write where, is for the log alone."""
    status, headers, body = parse(
        await answer(Served().app, request("/rooms/7", add=["Origin: http://evil.example:81"]))
    )
    assert status == 403
    assert_short_and_closing(headers, body)
    [record] = records_above_info(caplog)
    assert record.levelno == logging.WARNING
    assert "http://evil.example:81" in body.decode()
    assert "/rooms/7" not in body.decode()
    assert "origins" not in body.decode()
    for text in ("http://evil.example:81", "/rooms/7", "WebSockets(origins=[...])"):
        assert text in record.getMessage()


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        ("/ws", "http://evil\x1b[31m.example"),
        ("/ws", "http://evil\x7f\x80\x9b"),
        ("/ws?\x1b[31m", "http://evil.example"),
        ("/ws", "http://" + "evil." * 3000),
        ("/ws?" + "a" * 15000, "http://evil.example"),
        ("/rooms/" + "a" * 15000, "http://evil.example"),
    ],
    ids=["escape in the origin", "C1 in the origin", "escape in the path", "long origin", "long query", "long path"],
)
async def test_what_a_client_sends_cannot_fill_or_colour_the_log(
    path: str, origin: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Log injection: one short line of printable text, in the log and in the body, if it gets so far."""
    status, headers, body = parse(await answer(Served().app, request(path, add=[f"Origin: {origin}"])))
    assert status in (400, 403)
    assert_short_and_closing(headers, body)
    assert body.decode().rstrip("\n").isprintable()
    for record in records_above_info(caplog):
        assert record.getMessage().isprintable()
        assert len(record.getMessage()) < 1000


# plain requests


@pytest.mark.parametrize("path", ["/crash", "/nonsense"])
async def test_a_failing_page_is_a_500_that_tells_nothing(
    path: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The traceback is for the log, the client gets a line."""
    served = Served()
    status, headers, body = parse(await answer(served.app, plain(path)))
    assert status == 500
    assert_short_and_closing(headers, body)
    assert b"1234" not in body
    [record] = records_above_info(caplog)
    assert record.levelno == logging.ERROR
    assert path in record.getMessage()
    assert record.exc_info is not None
    assert parse(await answer(served.app, plain("/page")))[2] == b"a page\n"


@pytest.mark.parametrize(("path", "status"), [("/page", 200), ("/nothing", 404), ("/ws", 426), ("/crash", 500)])
async def test_head_is_answered_as_get_without_the_body(
    path: str, status: int, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 9110 §9.3.2: the same head, and nothing behind it."""
    app = Served().app
    expected = parse(await answer(app, plain(path)))
    found = parse(await answer(app, plain(path, method="HEAD")))
    assert expected[0] == status
    assert found == (status, expected[1], b"")
    assert len(records_above_info(caplog)) == 2 * (status == 500)


# time


@pytest.mark.parametrize(
    "pieces",
    [[], [b"G"], [request()[:-1]], [b"GET /ws HTTP/1.1\r\n"] + [b"X: 1\r\n"] * 30],
    ids=["silent", "one byte", "all but one byte", "a header every second"],
)
async def test_a_head_that_does_not_come_in_time_ends_the_connection(
    pieces: list[bytes], autojump_clock: Clock
) -> None:
    """Slowloris: `open_timeout` counts from the beginning, 10 seconds by default."""
    ours, theirs = trio.testing.memory_stream_pair()
    began = trio.current_time()

    async def trickle() -> None:
        try:
            for piece in pieces:
                await ours.send_all(piece)
                await trio.sleep(1)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Served().app.handle_stream, theirs)
        nursery.start_soon(trickle)
        answer = bytes(await ours.receive_some())
        assert answer.startswith(b"HTTP/1.1 408 ") == bool(pieces)  # who said nothing is told nothing
        assert trio.current_time() - began == pytest.approx(10)
        await ours.aclose()


async def test_a_client_that_goes_on_sending_after_its_refusal_is_dropped(autojump_clock: Clock) -> None:
    """It may read its answer; it is not listened to for ever."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Served().app.handle_stream, theirs)
        await ours.send_all(REFUSALS["404"][1])
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            while trio.current_time() - began < 60:
                await ours.send_all(b"more of it")
                await trio.sleep(0.01)
        assert trio.current_time() - began < 5
        assert parse(bytes(await ours.receive_some()))[0] == 404
        await ours.aclose()


async def test_a_client_that_does_not_read_its_refusal_is_dropped(autojump_clock: Clock) -> None:
    """An answer nobody takes holds a connection for seconds, not for ever."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Served().app.handle_stream, theirs)
            await ours.send_all(REFUSALS["404"][1])
    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        await theirs.send_all(b"x")  # dropped
    await ours.aclose()


@pytest.mark.parametrize("sent", [0, 1, 40, len(request()) - 1])
async def test_a_client_that_hangs_up_in_its_head_is_no_event(
    sent: int, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """No answer, no log, no error."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Served().app.handle_stream, theirs)
        if sent:
            await ours.send_all(request()[:sent])
        await ours.aclose()
    assert records_above_info(caplog) == []


# a server full of them


async def read_all(client: RawClient) -> bytes:
    """Everything until the end of the stream."""
    data = b""
    while chunk := await client.stream.receive_some():
        data += chunk
    return data


async def test_beyond_max_connections_there_is_a_503(autojump_clock: Clock) -> None:
    """With a proper answer; and room again when somebody has left."""
    served = Served()
    async with serving(served.app, max_connections=2) as (_, connect):
        first, second = await connect(), await connect()
        await first.upgrade(b"/ws")
        await second.upgrade(b"/ws")
        third = await connect()
        await third.send_bytes(request())
        status, headers, body = parse(await read_all(third))
        assert status == 503
        assert_short_and_closing(headers, body)
        await first.send(close(1000))
        await first.receive_rest()
        await first.aclose()
        await third.aclose()
        await trio.testing.wait_all_tasks_blocked()
        fourth = await connect()
        assert (await fourth.upgrade(b"/ws")).startswith(b"HTTP/1.1 101 ")
        assert served.sessions == 3


async def test_a_head_that_completes_while_the_server_closes_gets_a_503(autojump_clock: Clock) -> None:
    """The others that have not sent theirs are dropped."""
    served = Served()
    async with serving(served.app) as (server, connect):
        late, silent = await connect(), await connect()
        await late.send_bytes(request()[:20])
        await trio.testing.wait_all_tasks_blocked()
        await late.send_bytes(request()[20:])
        await server.aclose()
        status, headers, body = parse(await read_all(late))
        assert status == 503
        assert_short_and_closing(headers, body)
        assert await read_all(silent) == b""
        assert served.sessions == 0


async def test_no_bad_client_touches_another_session(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """While every refusal there is goes out, and connections break in all places, an echo goes on."""
    served = Served()
    bad = [data for _, data in REFUSALS.values()]
    bad += [request() + garbage for garbage in (b"\xff" * 100, b"\x81\x05hello", b"\x00", b"\x88\x81aaaaa")]
    bad += [request()[:cut] for cut in range(0, len(request()), 20)]
    async with serving(served.app) as (server, connect):
        good = await connect()
        await good.upgrade(b"/ws")
        for number, data in enumerate(bad):
            client = await connect()
            await client.send_bytes(data)
            await trio.testing.wait_all_tasks_blocked()
            await good.send(Frame.Text(f"message {number}"))
            echo = await good.receive()
            assert echo is not None
            assert echo.text == f"message {number}"
            await client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.sessions) == 1
        await good.send(close(1000))
        assert await good.receive() == close(1000)
        await good.aclose()
    assert records_above_info(caplog) == []


async def test_a_crashing_handler_touches_no_other_session(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own peer sees 1011, the others nothing."""
    served = Served()

    @served.app.websocket("/crash")
    async def crash(session: WebSocketSession) -> None:
        raise RuntimeError("on purpose")

    async with serving(served.app) as (_, connect):
        good, bad = await connect(), await connect()
        await good.upgrade(b"/ws")
        await bad.upgrade(b"/crash")
        assert await bad.receive() == close(1011)
        await good.send(Frame.Text("still here?"))
        assert await good.receive() == Frame.Text("still here?")
        await bad.aclose()
        await good.aclose()
    [record] = records_above_info(caplog)
    assert record.exc_info is not None


async def test_the_request_of_the_helpers_is_the_one_of_the_table(autojump_clock: Clock) -> None:
    """So that both ways of asking are the same."""
    assert sorted(request("/").split(b"\r\n")) == sorted((REQUEST % b"/").split(b"\r\n"))
