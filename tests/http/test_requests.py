"""The head of a request, from bytes: what is accepted, what it says, and what is refused with which status."""

from __future__ import annotations

from itertools import pairwise
from urllib.parse import quote, unquote

import h11
import pytest
from hypothesis import given, settings, strategies as st

from trioktor.http.handshake import SAME_ORIGIN, check_origin
from trioktor.http.headers import Headers, Refusal
from trioktor.http.requests import HeadReader, RequestHead, has_token, normal_form

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


def refused(data: bytes, *, step: int = 1 << 20, size: int = 16384, headers: int = 100) -> int | None:
    """The status that a head is refused with, if so many of its bytes come at a time."""
    reader = HeadReader(size, headers)
    try:
        for start in range(0, len(data), step):
            if reader.feed(data[start : start + step]) is not None:
                return None
    except Refusal as refusal:
        return refusal.status
    raise AssertionError("more is waited for")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(request(), None, id="good"),
        pytest.param(request("Content-Type: application/json"), None, id="T310 a content type"),
        pytest.param(request("Content-Length: 0"), None, id="an empty body"),
        pytest.param(request("X: \xff\x80"), None, id="bytes beyond ASCII"),
        pytest.param(request(line="PRI * HTTP/2.0"), 400, id="HTTP/2"),
        pytest.param(request(line="GET /chat HTTP/1.0"), None, id="HTTP/1.0"),
        pytest.param(request(line="GET /chat HTTP/1.0", without="Host"), None, id="HTTP/1.0 without a host"),
        pytest.param(request("Host: other", line="GET /chat HTTP/1.0"), 400, id="HTTP/1.0 with two hosts"),
        pytest.param(request(line="GET /chat HTTP/1.2"), 400, id="HTTP/1.2"),
        pytest.param(request(line="GET /chat"), 400, id="no version"),
        pytest.param(request(line="GET  /chat HTTP/1.1"), 400, id="two blanks"),
        pytest.param(request(line="G(T /chat HTTP/1.1"), 400, id="no method"),
        pytest.param(request(line="1ET /chat HTTP/1.1"), 400, id="a method that begins with a digit"),
        pytest.param(request()[:-2] + b"\n", 400, id="a bare line feed at the end"),
        pytest.param(request(line="GET /chat HTTP/1.1\r\n fold"), 400, id="a folded request line"),
        pytest.param(request(line="GET /caf\xe9 HTTP/1.1"), 400, id="a target beyond ASCII"),
        pytest.param(request(line="GET /%ff HTTP/1.1"), 400, id="a target that is no UTF-8"),
        pytest.param(request("Content-Length: 00"), 400, id="a length of 00"),
        pytest.param(request("Content-Length: 0", "Content-Length: 1"), 400, id="two lengths"),
        pytest.param(request("no header"), 400, id="no colon"),
        pytest.param(request(": x"), 400, id="no name"),
        pytest.param(request("X: a\rb"), 400, id="a bare carriage return"),
        pytest.param(request("X: a\x7fb"), 400, id="a DEL"),
        pytest.param(request("X: a\tb"), None, id="a tab"),
        pytest.param(request("Content-Length: 5"), 400, id="a body"),
        pytest.param(request("Transfer-Encoding: chunked"), 400, id="a chunked body"),
        pytest.param(request("Content-Length: 0", "Transfer-Encoding: chunked"), 400, id="both lengths"),
        pytest.param(request("Host: other"), 400, id="two hosts"),
        pytest.param(request(without="Host"), 400, id="no host"),
        pytest.param(request(line="GET http://a/ HTTP/1.1", Host="a b"), 400, id="a bad host beside a good address"),
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
    assert status == refused(data, step=1)


def test_the_limit_of_the_head_is_exact() -> None:
    """A head of just the allowed size passes, its empty line included."""
    data = request()
    for step in (1, 1 << 20):
        assert None is refused(data, size=len(data), step=step)
        assert 431 == refused(data, size=len(data) - 1, step=step)
        assert None is refused(b"\r\n" + data, size=len(data) + 2, step=step)
        assert 431 == refused(b"\r\n" + data, size=len(data) + 1, step=step)


def test_a_head_without_headers_has_none() -> None:
    """In HTTP/1.0, where the host need not be said; the limit of headers is exact."""
    head = read_head(b"GET / HTTP/1.0\r\n\r\n", headers=0)
    assert (head.method, head.target, head.http_version, list(head.headers), head.authority) == (
        "GET",
        "/",
        "1.0",
        [],
        "",
    )
    assert refused(b"GET / HTTP/1.0\r\nX: y\r\n\r\n", headers=0) == 431
    assert refused(b"GET / HTTP/1.0\r\nX: y\r\n\r\n", headers=1) is None


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


@pytest.mark.parametrize(
    ("target", "normal"),
    [
        ("/a", "/a"),
        ("/%61%2D%2e%5f%7E%5A%30", "/a-._~Z0"),
        ("/%2f%3f%23%c3%a9", "/%2F%3F%23%C3%A9"),
        ("/%3a%40%3b%21%24%26%27%28%29%2a%2b%2c%3d", "/:@;!$&'()*+,="),
        ('/a|b"<>[]\\^`{}', "/a%7Cb%22%3C%3E%5B%5D%5C%5E%60%7B%7D"),
        ("/a#b", "/a%23b"),
        ("/%20%25", "/%20%25"),
        ("/%2561", "/%2561"),
        ("/%6", "/%256"),
        ("/%zz%61", "/%25zza"),
        ("/%61?%61=%2f", "/a?%61=%2f"),
        ("/a?%61?%61", "/a?%61?%61"),
    ],
)
def test_a_target_has_one_reading(target: str, normal: str) -> None:
    """Of the path; the query is left as it is. What is normal stays so."""
    assert normal_form(target) == normal
    assert normal_form(normal) == normal


@given(path=st.text(st.characters(exclude_categories=["Cs"])), data=st.data())
def test_a_path_has_one_spelling(path: str, data: st.DataObject) -> None:
    """Whatever of it is escaped, a hook sees the same; and it decodes to what it was."""
    path = "/" + path

    def spelled(byte: int) -> str:
        character = chr(byte)
        is_raw = "!" <= character <= "~" and character not in "%?" and data.draw(st.booleans())
        return character if is_raw or character == "/" else f"%{byte:02x}"

    target = normal_form("".join(map(spelled, path.encode())))
    assert target == normal_form(quote(path))
    assert unquote(target) == path


@pytest.mark.parametrize("target", ["/%FF", "/%c3", "/%ed%a0%80", "/a?x=%ff", "/%c3?%a9"])
def test_a_target_that_is_no_utf8_is_refused(target: str) -> None:
    """In path or query: replaced, two of them would be one."""
    with pytest.raises(Refusal, match="not UTF-8") as refusal:
        normal_form(target)
    assert refusal.value.status == 400


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "get", "x-!#$%&'*+.^_`|~"])
def test_the_method_is_any_token(method: str) -> None:
    """As it was written; a star is a target for OPTIONS alone."""
    assert read_head(request(line=f"{method} / HTTP/1.1")).method == method
    assert refused(request(line=f"{method} * HTTP/1.1")) == (None if method == "OPTIONS" else 400)


@pytest.mark.parametrize(
    ("lines", "has_it"),
    [
        ([], False),
        (["upgrade"], True),
        (["Upgrade"], True),
        (["keep-alive,\tUPGRADE ,x"], True),
        (["close", "x, upgrade"], True),
        (["upgraded"], False),
        (["x upgrade"], False),
        ([""], False),
    ],
)
def test_a_token_is_found_among_others(lines: list[str], has_it: bool) -> None:
    """In whatever case, in all lines of the header."""
    headers = Headers([(b"connection", line.encode()) for line in lines])
    assert has_token(headers, "connection", "upgrade") is has_it


@pytest.mark.parametrize(
    ("connection", "upgrade", "asks"),
    [(b"Upgrade", b"WebSocket", True), (b"Upgrade", b"h2c", False), (b"close", b"websocket", False)],
)
def test_a_request_asks_for_a_websocket_by_two_headers(connection: bytes, upgrade: bytes, asks: bool) -> None:
    """RFC 6455 §4.2.1, items 3 and 4; unless it is known already."""
    headers = Headers([(b"connection", connection), (b"upgrade", upgrade)])
    assert RequestHead("GET", "/", "1.1", headers).is_upgrade is asks
    assert RequestHead("GET", "/", "1.1", headers, is_upgrade=not asks).is_upgrade is not asks


def test_a_head_shows_no_query() -> None:
    """It may be secret; and no more of a path than can be read."""
    headers = Headers([(b"authorization", b"secret")])
    assert repr(RequestHead("GET", "/chat?token=secret", "1.1", headers)) == "<RequestHead GET /chat>"
    assert len(repr(RequestHead("GET", "/" + "x" * 5000, "1.1", headers))) < 300


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


@given(st.lists(st.integers(0, 300), max_size=5), st.integers(0, 2))
def test_a_head_is_the_same_however_it_is_cut(places: list[int], empty: int) -> None:
    """With empty lines in front, and something behind it."""
    data = b"\r\n" * empty + request("X: y") + b"\x81\x80abcd"
    reader, ends = HeadReader(16384, 100), sorted({0, len(data), *(min(place, len(data)) for place in places)})
    for start, end in pairwise(ends):
        result = reader.feed(data[start:end])
        if result is not None:
            head, rest = result
            assert (head.target, head.authority, head.headers["x"]) == ("/chat", "example.com", "y")
            assert rest + data[end:] == b"\x81\x80abcd"
            return
    raise AssertionError("it was not complete")


@pytest.mark.parametrize("blank", [" ", "\t"])
def test_a_fold_is_called_by_its_name(blank: str) -> None:
    """And not a header without one."""
    for data in (request(f"X: y\r\n{blank}z: w"), request(line=f"GET / HTTP/1.1\r\n{blank}z: w")):
        with pytest.raises(Refusal, match="folded over several lines"):
            read_head(data)


_SPOILS = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"\r\n\t",
    b"\0",
    b"\x1f",
    b"\x7f",
    b"\t",
    b"\x80",
    b" ",
    b":",
    b"a",
]


@given(
    st.lists(st.tuples(st.integers(0, 140), st.sampled_from(_SPOILS), st.booleans()), min_size=1, max_size=3),
    st.integers(1, 139),
    st.sampled_from([130, 16384]),
)
def test_a_spoilt_head_is_judged_alike_whole_and_in_pieces(
    spoils: list[tuple[int, bytes, bool]], cut: int, size: int
) -> None:
    """What stands where it may not is seen in one piece, too; so is a head that is too long."""
    data = request()
    for place, spoil, replaces in spoils:
        data = data[:place] + spoil + data[place + replaces * len(spoil) :]

    def judged(pieces: list[bytes]) -> object:
        reader = HeadReader(size, 100)
        behind = b"".join(pieces)
        try:
            for piece in pieces:
                behind = behind[len(piece) :]
                if (result := reader.feed(piece)) is not None:
                    head, rest = result
                    headers = {name: head.headers.get_all(name) for name in head.headers}
                    return head.method, head.target, head.http_version, headers, rest + behind
        except Refusal as refusal:
            return refusal.status
        return None

    assert judged([data]) == judged([data[:cut], data[cut:]])
