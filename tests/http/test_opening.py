"""The request head and the opening handshake, without a network."""

from __future__ import annotations

import re

import h11
import pytest
from hypothesis import given, settings, strategies as st

from trioktor import SAME_ORIGIN, Response
from trioktor.http.handshake import (
    Origins,
    accept_token,
    check_origin,
    check_upgrade,
    choose_subprotocol,
    upgrade_response,
)
from trioktor.http.headers import Headers, Refusal
from trioktor.http.requests import HeadReader, RequestHead
from trioktor.http.responses import refusal_response

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD = {
    "Host": "example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(*extra: str, line: str = "GET /chat HTTP/1.1", without: str = "", **replace: str) -> bytes:
    """A request's head: the good one, with headers left out, replaced or added."""
    lines = [f"{name}: {replace.get(name.replace('-', '_'), value)}" for name, value in GOOD.items() if name != without]
    return "\r\n".join([line, *lines, *extra, "", ""]).encode("latin-1")


def read_head(data: bytes, *, size: int = 16384, headers: int = 100) -> RequestHead:
    """Parse a whole head."""
    result = HeadReader(size, headers).feed(data)
    assert result is not None
    assert result[1] == b""
    return result[0]


def refused(data: bytes, **limits: int) -> int | None:
    """The status that a head is refused with, by the reader or the handshake."""
    try:
        check_upgrade(read_head(data, **limits))
    except Refusal as refusal:
        return refusal.status
    return None


def refused_byte_by_byte(data: bytes) -> int | None:
    """The same for a head that comes one byte at a time."""
    reader = HeadReader(16384, 100)
    try:
        for i in range(len(data)):
            if (result := reader.feed(data[i : i + 1])) is not None:
                check_upgrade(result[0])
    except Refusal as refusal:
        return refusal.status
    return None


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(request(), None, id="good"),
        pytest.param(request(Connection="keep-alive, upgrade"), None, id="T322 a list, in lower case"),
        pytest.param(request("Connection: Upgrade", Connection="keep-alive"), None, id="several lines"),
        pytest.param(request(Upgrade="h2c, WebSocket"), None, id="a list of protocols"),
        pytest.param(request("Content-Type: application/json"), None, id="T310 a content type"),
        pytest.param(request("Content-Length: 0"), None, id="an empty body"),
        pytest.param(request("X: \xff\x80"), None, id="bytes beyond ASCII"),
        pytest.param(request(without="Upgrade"), 426, id="no Upgrade"),
        pytest.param(request(without="Connection"), 426, id="no Connection"),
        pytest.param(request(Connection="Upgrade\xff"), 426, id="a token beyond ASCII"),
        pytest.param(request(without="Sec-WebSocket-Version"), 426, id="R01 no version"),
        pytest.param(request(Sec_WebSocket_Version="8"), 426, id="R01 version 8"),
        pytest.param(request("Sec-WebSocket-Version: 13"), 426, id="R01 two versions"),
        pytest.param(request(without="Sec-WebSocket-Key"), 400, id="R01 no key"),
        pytest.param(request(f"Sec-WebSocket-Key: {KEY}"), 400, id="R01 two keys"),
        pytest.param(request(Sec_WebSocket_Key="dGVzdA=="), 400, id="R01 a key of four bytes"),
        pytest.param(request(Sec_WebSocket_Key="!" * 24), 400, id="R01 a key that is not base64"),
        pytest.param(request(Sec_WebSocket_Key="\xff" * 24), 400, id="R01 a key beyond ASCII"),
        pytest.param(request(line="GET /chat HTTP/1.0"), 400, id="HTTP/1.0"),
        pytest.param(request(line="PRI * HTTP/2.0"), 400, id="HTTP/2"),
        pytest.param(request("Content-Length: 5"), 400, id="a body"),
        pytest.param(request("Transfer-Encoding: chunked"), 400, id="a chunked body"),
        pytest.param(request("Content-Length: 0", "Transfer-Encoding: chunked"), 400, id="both lengths"),
        pytest.param(request("Host: other"), 400, id="two hosts"),
        pytest.param(request(without="Host"), 400, id="no host"),
        pytest.param(request("X: a\r\n b"), 400, id="a folded header"),
        pytest.param(request("X: a\r\n\tb"), 400, id="a header folded by a tab"),
        pytest.param(request("X: a\nY: b"), 400, id="a bare line feed"),
        pytest.param(request("X: a\0b"), 400, id="a NUL"),
        pytest.param(request("X : a"), 400, id="a space before the colon"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01", 400, id="TLS"),
        pytest.param(b"\r\n" + request(), None, id="an empty line first"),
        pytest.param(b"\r\n\r\n\r\n" + request(), None, id="empty lines first"),
        pytest.param(b"\n" + request(), 400, id="a line feed first"),
        pytest.param(b"\r" + request(), 400, id="a carriage return first"),
        pytest.param(b"\r\n" * 8192 + request(), 431, id="empty lines without end"),
        pytest.param(b"GET / HTTP/1.1\n", 400, id="bare line feeds from the start"),
        pytest.param(request("X: " + "x" * 17000), 431, id="too long in one piece"),
        pytest.param(b"GET /" + b"x" * 17000, 431, id="a request line without end"),
        pytest.param(request(*["X: y"] * 96), 431, id="101 headers"),
        pytest.param(request(*["X: y"] * 95), None, id="100 headers"),
    ],
)
def test_requests_are_accepted_or_refused_with_the_status_of_the_rfc(data: bytes, status: int | None) -> None:
    """Whole, and byte by byte: the same status."""
    assert status == refused(data)
    assert status == refused_byte_by_byte(data)


def test_the_limit_of_the_head_is_exact() -> None:
    """A head of just the allowed size passes, its empty line included."""
    data = request()
    assert None is refused(data, size=len(data))
    assert 431 == refused(data, size=len(data) - 1)


@pytest.mark.parametrize("cut", range(0, len(request()) + 5, 7))
def test_what_follows_the_head_is_given_back(cut: int) -> None:
    """Wherever the segments end, the bytes behind the empty line are the conversation's."""
    data = request() + b"\x81\x80abcd"
    reader = HeadReader(16384, 100)
    assert reader.is_empty
    result = reader.feed(data[:cut]) if cut else None
    rest = b""
    if result is None:
        result = reader.feed(data[cut:])
        assert not reader.is_empty
    else:
        rest = data[cut:]
    assert result is not None
    head, trailing = result
    assert b"\x81\x80abcd" == trailing + rest
    assert ("GET", "/chat", "1.1") == (head.method, head.target, head.http_version)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://example.com/chat?a=b", "/chat?a=b"),
        ("WS://example.com:80", "/"),
        ("https://example.com?a", "/?a"),
        ("/chat/http://x", "/chat/http://x"),
    ],
)
def test_a_target_may_be_a_whole_address(target: str, path: str) -> None:
    """RFC 9112 §3.2.2: its path is what counts."""
    assert path == read_head(request(line=f"GET {target} HTTP/1.1")).target


@pytest.mark.parametrize(
    "target",
    ["echo", "*", "example.com:80", "ftp://example.com/", "http:///x", "http://a b/", "http://u@x/", "//", "?"],
)
def test_a_target_is_a_path_or_a_whole_address(target: str) -> None:
    """RFC 9112 §3.2; two slashes are a path."""
    if target == "//":
        assert target == read_head(request(line=f"GET {target} HTTP/1.1")).target
        return
    with pytest.raises(Refusal) as refusal:
        read_head(request(line=f"GET {target} HTTP/1.1"))
    assert 400 == refusal.value.status


HOSTS = {
    "example.com": True, "example.com:80": True, "example.com:": True, "127.0.0.1:8080": True, "[::1]": True,
    "[::1]:8080": True, "[v1.a:b]": True, "a%20b": True, "": True, "ex_ample": True,
    "a b": False, "user@x": False, "http://x": False, "x/y": False, "[::1": False, "::1": False, "[::1]x": False,
    "[1.2.3]": False, "a:b": False, "a:80:80": False, "a%2": False, "é": False, "a,b": True, 'a"b': False,
}  # fmt: skip


@pytest.mark.parametrize(("host", "is_good"), HOSTS.items())
def test_the_host_is_one(host: str, is_good: bool) -> None:
    """RFC 9112 §3.2: anything else is 400, in the header as in a whole address."""
    requests = [request(Host=host)]
    if host and "/" not in host:  # there it would end the host
        requests.append(request(line=f"GET http://{host}/ HTTP/1.1"))
    for data in requests:
        if is_good:
            assert host == read_head(data).authority
        else:
            with pytest.raises(Refusal) as refusal:
                read_head(data)
            assert 400 == refusal.value.status


def test_the_authority_of_a_whole_address_counts() -> None:
    """RFC 9112 §3.2.2: and the Host header beside it does not, for the origin neither."""
    head = read_head(request(line="GET http://here.com/chat HTTP/1.1", Host="there.com"))
    assert "here.com" == head.authority
    check_origin(Headers(((b"origin", b"http://here.com"),)), head.authority, SAME_ORIGIN)
    with pytest.raises(Refusal):
        check_origin(Headers(((b"origin", b"http://there.com"),)), head.authority, SAME_ORIGIN)


def test_the_version_that_is_spoken_is_named() -> None:
    """RFC 6455 §4.4: 426 says 13."""
    with pytest.raises(Refusal) as refusal:
        check_upgrade(read_head(request(Sec_WebSocket_Version="8")))
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in refusal_response(refusal.value).to_bytes()


def test_the_accept_token_is_the_one_of_the_rfc() -> None:
    """RFC 6455 §1.3."""
    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" == accept_token(KEY)
    assert upgrade_response(KEY) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    assert b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n" in upgrade_response(KEY, "chat")


def test_the_servers_preference_chooses_the_subprotocol() -> None:
    """Among those offered; None if there is none."""
    assert "b" == choose_subprotocol(["a", "b"], ["c", "b", "a"])
    assert choose_subprotocol(["a"], ["A"]) is None


def origin_passes(origins: Origins, *origin: str, host: str = "example.com") -> bool:
    """Whether a request with these Origin headers passes."""
    raw = [(b"host", host.encode()), *((b"origin", value.encode()) for value in origin)]
    try:
        check_origin(Headers(tuple(raw)), host, origins)
    except Refusal as refusal:
        return refusal.status != 403
    return True


@pytest.mark.parametrize(
    ("origin", "host", "passes"),
    [
        ("http://example.com", "example.com", True),
        ("https://example.com", "example.com", True),
        ("http://example.com:80", "example.com", True),
        ("https://example.com", "example.com:443", True),
        ("wss://example.com", "example.com:443", True),
        ("ws://example.com", "example.com:80", True),
        ("ws://example.com", "example.com:443", False),
        ("http://EXAMPLE.com", "example.COM", True),
        ("http://example.com:8080", "example.com:8080", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("http://example.com:8080", "example.com", False),
        ("http://example.com", "example.com:8080", False),
        ("https://example.com", "example.com:80", False),
        ("null", "example.com", False),
        ("http://example.com.evil.net", "example.com", False),
        ("http://evil-example.com", "example.com", False),
        ("http://example.com@evil.net", "example.com", False),
        ("http://user@example.com", "example.com", False),
        ("http://example.com/", "example.com", False),
        ("file://example.com", "example.com", False),
        ("http://example.com:99999", "example.com", False),
        ("", "example.com", False),
        ("http://", "", False),
        ("http://example.com", "", False),
    ],
)
def test_the_same_origin_is_host_and_port(origin: str, host: str, passes: bool) -> None:
    """Tricks with prefixes, suffixes, ports and user names do not help."""
    assert passes == origin_passes(SAME_ORIGIN, origin, host=host)


@pytest.mark.parametrize(
    ("origins", "origin", "passes"),
    [
        (["https://a.com"], "https://a.com", True),
        (["https://a.com"], "https://A.com", True),
        (["https://a.com"], "http://a.com", False),
        (["https://a.com"], "https://a.com.evil.net", False),
        (["https://*.a.com"], "https://x.y.a.com", True),
        (["https://*.a.com"], "https://a.com", False),
        (["https://*.a.com"], "https://evil.net/.a.com", False),
        (["https://*.a.com"], "https://x.a.com.evil.net", False),
        ([re.compile(r"https://[ab]\.com")], "https://b.com", True),
        ([re.compile(r"https://[ab]\.com")], "https://b.com.evil.net", False),
        ([], "https://a.com", False),
        (None, "null", True),
    ],
)
def test_origins_may_be_listed(origins: Origins, origin: str, passes: bool) -> None:
    """Names, stars, patterns, or anyone."""
    assert passes == origin_passes(origins, origin)


def test_no_origin_passes_and_two_do_not() -> None:
    """Browsers always send one; nobody sends two."""
    assert origin_passes(SAME_ORIGIN)
    assert origin_passes([])
    assert not origin_passes(SAME_ORIGIN, "http://example.com", "http://example.com")


def test_headers_are_a_mapping_without_case() -> None:
    """The first value by name, all by `get_all`."""
    headers = read_head(request("X: a, b", "x: c")).headers
    assert "a, b" == headers["x"]
    assert ["a, b", "c"] == headers.get_all("X")
    assert ["a", "b", "c"] == headers.tokens("x")
    assert "X" in headers
    assert None is headers.get("y")
    with pytest.raises(KeyError):
        headers["y"]
    assert 6 == len(headers) == len(list(headers))
    assert f"<Headers {', '.join(headers)}>" == repr(headers)


@pytest.mark.parametrize("bad", ["a\rb", "a\nb", "a\0b", "a\x7fb", "a\x01b", "aβ"])
def test_a_response_cannot_be_split(bad: str) -> None:
    """No control character, and nothing beyond latin-1, gets into a header."""
    with pytest.raises(ValueError, match="header"):
        Response("", headers=[("X", bad)])
    with pytest.raises(ValueError, match="header"):
        Response("", headers={bad: "x"})
    with pytest.raises(ValueError, match="header"):
        Response("", content_type=bad)


def test_a_response_is_short_and_closes() -> None:
    """The body may be text or bytes; HEAD leaves it out and keeps its length."""
    response = Response("é", status=201, headers={"X": "y"})
    assert response.to_bytes() == (
        b"HTTP/1.1 201 Created\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 2\r\nX: y\r\n\r\n\xc3\xa9"
    )
    assert Response(b"ab").to_bytes(with_body=False).endswith(b"Content-Length: 2\r\n\r\n")
    assert (
        b"HTTP/1.1 204 No Content\r\nConnection: close\r\nDate: today\r\nX-Content-Type-Options: nosniff\r\n\r\n"
        == Response("", status=204).to_bytes(date="today")
    )
    own = Response("", headers={"X-Content-Type-Options": "none", "Upgrade": "h2c"}).to_bytes()
    assert b"nosniff" not in own
    assert b"\r\nConnection: close, Upgrade\r\n" in own
    for name in ("Connection", "content-length", "DATE", "Transfer-Encoding"):
        with pytest.raises(ValueError, match="written by the server"):
            Response("", headers={name: "x"})
    with pytest.raises(ValueError, match="between 200 and 599"):
        Response("", status=101)


def test_a_status_nobody_knows_has_no_phrase() -> None:
    """RFC 9112 §4: the phrase may be empty; its space may not be missing."""
    assert Response("", status=299).to_bytes().startswith(b"HTTP/1.1 299 \r\n")


WORDS = (
    b"GET, ,/,*,HTTP/1.1,HTTP/1.0,HTTP/2.0,\r\n,\r,\n,Host,:,a.example,Content-Length,0,Transfer-Encoding,chunked,\t,%,"
    b'\x80,\x7f,",Upgrade,0'
).split(b",")
HEAD_PIECES = st.one_of(st.sampled_from([*WORDS, b","]), st.binary(max_size=4))


@settings(max_examples=400, deadline=None)
@given(
    line=st.one_of(st.just(b"GET / HTTP/1.1"), st.lists(HEAD_PIECES, max_size=6).map(b"".join)),
    headers=st.lists(st.lists(HEAD_PIECES, max_size=6).map(b"".join), max_size=5),
    has_host=st.booleans(),
)
def test_what_is_accepted_is_read_as_another_parser_reads_it(line: bytes, headers: list[bytes], has_host: bool) -> None:
    """h11 is the other: it accepts all that is accepted here, and sees the same method, version and headers."""
    lines = [line, *([b"Host: localhost"] if has_host else []), *headers]
    data = b"\r\n".join(lines) + b"\r\n\r\n"
    try:
        read = HeadReader(1 << 14, 100).feed(data)
    except Refusal:
        return
    if read is None:  # nothing but empty lines
        return
    head, rest = read
    other = h11.Connection(h11.SERVER)
    other.receive_data(data[: len(data) - len(rest)])
    request = other.next_event()
    assert isinstance(request, h11.Request)
    assert head.method == request.method.decode()
    assert head.http_version == request.http_version.decode()
    seen = [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in request.headers]
    assert sorted(seen) == sorted((name, value) for name in head.headers for value in head.headers.get_all(name))
