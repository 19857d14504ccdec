"""The opening handshake of a server: which requests are acceptable, from where, and the answer."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given, strategies as st

from trioktor.http.handshake import (
    LOOPBACK,
    SAME_ORIGIN,
    Hosts,
    Origins,
    accept_token,
    check_host,
    check_origin,
    check_upgrade,
    choose_subprotocol,
    upgrade_response,
)
from trioktor.http.headers import Headers, Refusal
from trioktor.http.requests import RequestHead

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD = {
    "Upgrade": ["websocket"],
    "Connection": ["Upgrade"],
    "Sec-WebSocket-Key": [KEY],
    "Sec-WebSocket-Version": ["13"],
}


def head(version: str = "1.1", **replace: list[str]) -> RequestHead:
    """A good request, some of whose headers are replaced."""
    headers = {**GOOD, **{name.replace("_", "-"): values for name, values in replace.items()}}
    pairs = [(name.encode(), value.encode("latin-1")) for name, values in headers.items() for value in values]
    return RequestHead("GET", "/chat", version, Headers(pairs))


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        pytest.param(head(), None, id="good"),
        pytest.param(head(Connection=["keep-alive, upgrade"]), None, id="T322 a list, in lower case"),
        pytest.param(head(Connection=["keep-alive", "Upgrade"]), None, id="several lines"),
        pytest.param(head(Upgrade=["h2c, WebSocket"]), None, id="a list of protocols"),
        pytest.param(head(Upgrade=[]), 426, id="no Upgrade"),
        pytest.param(head(Connection=[]), 426, id="no Connection"),
        pytest.param(head(Connection=["Upgrade\xff"]), 426, id="a token beyond ASCII"),
        pytest.param(head("1.0"), 400, id="HTTP/1.0"),
        pytest.param(head("1.0", Upgrade=[]), 426, id="HTTP/1.0 and no Upgrade"),
        pytest.param(head(Sec_WebSocket_Version=[]), 426, id="R01 no version"),
        pytest.param(head(Sec_WebSocket_Version=["8"]), 426, id="R01 version 8"),
        pytest.param(head(Sec_WebSocket_Version=["13", "13"]), 426, id="R01 two versions"),
        pytest.param(head(Sec_WebSocket_Version=["13, 8"]), 426, id="R01 a list of versions"),
        pytest.param(head(Sec_WebSocket_Key=[]), 400, id="R01 no key"),
        pytest.param(head(Sec_WebSocket_Key=[KEY, KEY]), 400, id="R01 two keys"),
        pytest.param(head(Sec_WebSocket_Key=["dGVzdA=="]), 400, id="R01 a key of four bytes"),
        pytest.param(head(Sec_WebSocket_Key=[base64.b64encode(bytes(15)).decode()]), 400, id="R01 of 15 bytes"),
        pytest.param(head(Sec_WebSocket_Key=[base64.b64encode(bytes(17)).decode()]), 400, id="R01 of 17 bytes"),
        pytest.param(head(Sec_WebSocket_Key=["!" * 24]), 400, id="R01 a key that is not base64"),
        pytest.param(head(Sec_WebSocket_Key=["\xff" * 24]), 400, id="R01 a key beyond ASCII"),
    ],
)
def test_a_request_is_acceptable_or_refused_with_its_status(request_head: RequestHead, status: int | None) -> None:
    """RFC 6455 §4.2.1; what is acceptable gives its key."""
    if status is None:
        assert check_upgrade(request_head) == KEY
        return
    with pytest.raises(Refusal) as refusal:
        check_upgrade(request_head)
    assert refusal.value.status == status


def test_the_version_that_is_spoken_is_named() -> None:
    """RFC 6455 §4.4 and RFC 9110 §15.5.22: a 426 says 13, and to what one may upgrade; a 400 says nothing."""
    for bad in (head(Upgrade=[]), head(Sec_WebSocket_Version=["8"])):
        with pytest.raises(Refusal) as refusal:
            check_upgrade(bad)
        assert refusal.value.headers == (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
    with pytest.raises(Refusal) as refusal:
        check_upgrade(head(Sec_WebSocket_Key=[]))
    assert refusal.value.headers == ()


def test_the_accept_token_is_the_one_of_the_rfc() -> None:
    """RFC 6455 §1.3."""
    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" == accept_token(KEY)
    assert upgrade_response(KEY) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    assert b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n" in upgrade_response(KEY, "chat")


def test_the_answer_says_what_was_chosen_in_order() -> None:
    """Subprotocol, extensions, and the application's own headers; nothing that was not chosen."""
    answer = upgrade_response(KEY, "chat", "a; b=1, c", [("Set-Cookie", "x=1"), ("Set-Cookie", "y=2"), ("X", "\xe9")])
    assert answer.startswith(upgrade_response(KEY)[:-2])
    assert answer[len(upgrade_response(KEY)) - 2 :] == (
        b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: a; b=1, c\r\n"
        b"Set-Cookie: x=1\r\nSet-Cookie: y=2\r\nX: \xe9\r\n\r\n"
    )


def test_the_servers_preference_chooses_the_subprotocol() -> None:
    """Among those offered; None if there is none."""
    assert "b" == choose_subprotocol(["a", "b"], ["c", "b", "a"])
    assert choose_subprotocol(["a"], ["A"]) is None
    assert choose_subprotocol([], ["a"]) is None
    assert choose_subprotocol(iter(["a", "b"]), []) is None


# where it was sent to


HOSTS: list[tuple[Hosts, str, bool]] = [
    (None, "anything", True),
    (None, "", True),
    ([], "", True),
    ([], "a.example", False),
    (LOOPBACK, "", True),
    (LOOPBACK, "localhost", True),
    (LOOPBACK, "LOCALHOST.:80", True),
    (LOOPBACK, "a.b.localhost", True),
    (LOOPBACK, "127.255.0.1:1", True),
    (LOOPBACK, "[::1]", True),
    (LOOPBACK, "[::ffff:10.0.0.1]", False),
    (LOOPBACK, "notlocalhost", False),
    (LOOPBACK, "localhost.example", False),
    (LOOPBACK, "126.0.0.1", False),
    (["a.example"], "A.Example.:8080", True),
    (["A.example"], "a.example", True),
    (["a.example"], "b.a.example", False),
    (["x.example", "a.example"], "a.example", True),
    (["*.example"], "b.a.example", True),
    (["*.example"], ".example", False),
    (["[::2]"], "[::2]:80", True),
    (["::2"], "[::2]", True),
    ([re.compile("a|b")], "b:80", True),
    ([re.compile("a|b")], "ab", False),
    ([""], ":80", False),
    (["*.example"], "my_app.example", True),
    (["a.example"], "[V1.x]", False),
    (["a.example"], "[v1.x]", False),
    (LOOPBACK, "[VF.x]", False),
]


@pytest.mark.parametrize(("hosts", "authority", "is_served"), HOSTS)
def test_only_hosts_that_are_served_pass(hosts: Hosts, authority: str, is_served: bool) -> None:
    """RFC 9110 §15.5.20: 421; without regard to case, port, or the dot that may end a name."""
    if is_served:
        check_host(authority, hosts)
        return
    with pytest.raises(Refusal) as refusal:
        check_host(authority, hosts)
    assert refusal.value.status == 421


# where it comes from


def origin_passes(origins: Origins, *origin: str, host: str = "example.com", is_secure: bool = False) -> bool:
    """Whether a request with these Origin headers passes."""
    raw = [(b"host", host.encode()), *((b"origin", value.encode()) for value in origin)]
    try:
        check_origin(Headers(tuple(raw)), host, origins, is_secure=is_secure)
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
    ("origin", "host", "passes"),
    [
        ("https://example.com", "example.com", True),
        ("wss://example.com", "example.com:443", True),
        ("https://example.com:8443", "example.com:8443", True),
        ("http://example.com", "example.com", False),
        ("ws://example.com", "example.com", False),
        ("http://example.com:443", "example.com", False),
        ("http://example.com:8443", "example.com:8443", False),
        ("https://example.com", "example.com:80", False),
    ],
)
def test_where_tls_is_spoken_a_page_that_came_without_it_is_of_another_origin(
    origin: str, host: str, passes: bool
) -> None:
    """Whoever is on the way may have written it (RFC 6454 §4)."""
    assert passes == origin_passes(SAME_ORIGIN, origin, host=host, is_secure=True)


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
        (["https://*.a.com"], "https://x.a-com", False),
        (["https://*.a.com"], "https://X1_2.A.com", True),
        (["https://*.*.a.com"], "https://x.y.a.com", True),
        ([re.compile(r"https://[ab]\.com")], "https://b.com", True),
        ([re.compile(r"https://[ab]\.com")], "https://b.com.evil.net", False),
        ([], "https://a.com", False),
        (None, "null", True),
    ],
)
def test_origins_may_be_listed(origins: Origins, origin: str, passes: bool) -> None:
    """Names, stars, patterns, or anyone."""
    assert passes == origin_passes(origins, origin)


@given(
    st.lists(st.sampled_from(["*", "a", "-", ".", ":", "_", "A", "*-*"]), min_size=1, max_size=7).map("".join),
    st.text("ab-.:_A/", max_size=12),
)
def test_stars_match_what_they_would_with_all_patience(pattern: str, origin: str) -> None:
    """As a pattern that tries every way."""
    patient = re.compile(re.escape(pattern).replace(r"\*", "[a-z0-9._-]+"), re.IGNORECASE | re.ASCII)
    assert origin_passes([pattern], origin) == (patient.fullmatch(origin) is not None)


@pytest.mark.parametrize("pattern", ["https://*-*-*-*.example", "*.*.*.*.*.x", "*a*a*a*a*b"])
@pytest.mark.parametrize("text", ["a", "-", ".", "a.", "-a"])
def test_stars_cost_no_power_of_the_length(pattern: str, text: str) -> None:
    """It would not come to its end."""
    assert not origin_passes([pattern], "https://" + text * 8000)


def test_no_origin_passes_and_two_do_not() -> None:
    """Browsers always send one; nobody sends two."""
    assert origin_passes(SAME_ORIGIN)
    assert origin_passes([])
    assert not origin_passes(SAME_ORIGIN, "http://example.com", "http://example.com")


def test_a_refused_origin_is_named() -> None:
    """In printable characters, and not at length."""
    for origin, shown in ((b"http://evil\x1b\xff", r"'http://evil\x1b\xff'"), (b"x" * 5000, "'" + "x" * 200 + "'")):
        with pytest.raises(Refusal) as refusal:
            check_origin(Headers([(b"origin", origin)]), "example.com", [])
        assert refusal.value.text == f"the origin {shown} is not allowed"
