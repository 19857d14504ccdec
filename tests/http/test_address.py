"""Addresses of WebSockets: taken apart, checked, shown without secrets, and where redirects lead."""

from __future__ import annotations

import base64

import attrs
import pytest
from hypothesis import given, strategies as st

from trioktor.http.address import Address, parse_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://example.org", Address(False, "example.org", 80, "/")),
        ("wss://example.org/", Address(True, "example.org", 443, "/")),
        ("WS://Example.ORG:99/A?B=C", Address(False, "example.org", 99, "/A?B=C")),
        ("ws://example.org:443", Address(False, "example.org", 443, "/")),
        ("wss://a:1?", Address(True, "a", 1, "/?")),
        ("ws://a:65535/x?y?z", Address(False, "a", 65535, "/x?y?z")),
        ("ws://127.0.0.1:8080/", Address(False, "127.0.0.1", 8080, "/")),
        ("ws://[::1]:99/", Address(False, "::1", 99, "/")),
        ("ws://[FE80::1%25eth0]/", Address(False, "fe80::1%eth0", 80, "/")),
        ("ws://bücher.example/", Address(False, "xn--bcher-kva.example", 80, "/")),
        ("ws://BÜCHER.example./", Address(False, "xn--bcher-kva.example.", 80, "/")),
        ("ws://example.org./", Address(False, "example.org.", 80, "/")),
        ("ws://a_b-c.d/", Address(False, "a_b-c.d", 80, "/")),
        ("ws://@a/", Address(False, "a", 80, "/")),
        ("ws://ada@a/", Address(False, "a", 80, "/", ("ada", ""))),
        ("ws://:x@a/", Address(False, "a", 80, "/", ("", "x"))),
        ("ws://ada:p%C3%A4ss%3Aword@a/", Address(False, "a", 80, "/", ("ada", "päss:word"))),
        ("ws://a/%20%c3%bc/ü?q=é&%2f#"[:-1], Address(False, "a", 80, "/%20%c3%bc/%C3%BC?q=%C3%A9&%2f")),
        ("ws://a/-._~!$&'()*+,;=:@%?/[]", Address(False, "a", 80, "/-._~!$&'()*+,;=:@%?/[]")),
        ('ws://a/"<>?^`{|}', Address(False, "a", 80, "/%22%3C%3E?%5E%60%7B%7C%7D")),
    ],
)
def test_an_address_is_taken_apart(url: str, address: Address) -> None:
    """RFC 6455 §3: names in ASCII, the scheme's port, a target as on the request line."""
    assert parse_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "", "a", "//a", "http://a", "https://a", "ws:", "ws:a", "ws://", "ws:///x", "ws://?x", "ws://:80/", "ws://ada@/",
        "ws://a:0/", "ws://a:x/", "ws://a:65536/", "ws://a:-1/", "ws://[::1/", "ws://a]/", "ws://[a]/", "ws://[1::2::3]/",
        "ws://a/#x", "ws://a/#", "ws://a/ b", " ws://a/", "ws://a/\n", "ws://a\x00/", "ws://a/\x7f", "ws://a<b/",
        "ws://a..b/", "ws://.a/", "ws://./", "ws://a../", "ws://a..ü/", "ws://" + "a" * 64 + "/",
        "ws://" + "a." * 127 + "a/", "ws://ü" + "a" * 70 + "/", "ws://a%3Ab:c@d/",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    """By a text that says what it is not."""
    with pytest.raises(ValueError, match=r"WebSocket address|host's name|user's name"):
        parse_address(url)


@pytest.mark.parametrize("host", ["a" * 63, "a." * 126 + "a", "a." * 126, "%41", "a!$&'()*+,;=~"])
def test_a_name_may_be_as_long_as_names_are(host: str) -> None:
    """63 characters of each label, 253 of all."""
    assert parse_address(f"ws://{host}/").host == host


def test_an_address_is_a_str() -> None:
    """And nothing else."""
    with pytest.raises(TypeError, match="not bytes"):
        parse_address(b"ws://a/")  # type: ignore[arg-type]


@given(st.text(max_size=40) | st.text("ws:/@[]%.:#?aü1 ", max_size=40).map("ws://".__add__))
def test_any_text_is_an_address_or_refused(url: str) -> None:
    """What is one can be written on a request line, and is read again as the same."""
    try:
        address = parse_address(url)
    except ValueError:
        return
    line = f"{address.authority} {address.target}"
    assert line.isascii()
    assert line.isprintable()
    assert line.count(" ") == 1
    assert address.target.startswith("/")
    again = parse_address(f"{'wss' if address.is_secure else 'ws'}://{address.authority}{address.target}")
    assert again == attrs.evolve(address, host=address.name, user=None)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("ws://a/", "a"),
        ("ws://a:80/", "a"),
        ("wss://a:443/", "a"),
        ("ws://a:443/", "a:443"),
        ("wss://a:80/", "a:80"),
        ("ws://[::1]/", "[::1]"),
        ("ws://[::1]:99/", "[::1]:99"),
        ("ws://[::1]:/", "[::1]"),
        ("ws://[fe80::1%25eth0]:99/", "[fe80::1]:99"),
        ("ws://a%20b/", "a%20b"),
    ],
)
def test_the_authority_is_what_the_host_header_says(url: str, authority: str) -> None:
    """The port only where it is not the scheme's own; an interface of ours is nothing to others."""
    assert parse_address(url).authority == authority


@pytest.mark.parametrize("url", ["ws://example.org/a?b", "wss://example.org:444/", "ws://[::1]/", "wss://example.org/"])
def test_an_address_as_text(url: str) -> None:
    """Without what need not be said, or may be secret."""
    assert str(parse_address(url)) == url.partition("?")[0]


@pytest.mark.parametrize(
    ("url", "is_literal"),
    [
        ("ws://127.0.0.1/", True),
        ("ws://[::1]/", True),
        ("ws://[fe80::1%25eth0]/", False),
        ("ws://localhost/", False),
        ("ws://1.2.3/", False),
    ],
)
def test_what_need_not_be_looked_up(url: str, is_literal: bool) -> None:
    """Addresses that are whole, and name no interface."""
    assert parse_address(url).is_literal is is_literal


def test_credentials_belong_to_scheme_host_and_port() -> None:
    """Not to a path, nor to a user."""
    address = parse_address("ws://ada@a/x")
    assert address.origin == parse_address("ws://a:80/y").origin
    others = [parse_address(url).origin for url in ("wss://a:80/", "ws://b/", "ws://a:81/")]
    assert address.origin not in others


@pytest.mark.parametrize(
    ("user", "credentials"),
    [("ada", "ada:"), ("ada:x", "ada:x"), (":x", ":x"), ("ada:p%C3%A4ss%3Aword", "ada:päss:word")],
)
def test_user_information_is_basic_authentication(user: str, credentials: str) -> None:
    """RFC 7617, in UTF-8; without any there is none. The address does not show it."""
    address = parse_address(f"ws://{user}@a/")
    assert address.authorization == "Basic " + base64.b64encode(credentials.encode()).decode()
    assert parse_address("ws://a/").authorization is None
    assert str(address) == "ws://a/"
    assert "ada" not in repr(address)


@pytest.mark.parametrize(
    "url",
    ["ada:secret@host/", "http://ada:secret@host/", "ws://ada:secret@host:99999/", "ws://ada:sec/ret@host/",
     "ws://ada:secret@host/#x", "ws://ada:secret@ho st/", "ws://ada:secret@a..ü/", "ws://ada:secret@[::1/",
     "ws://ada:secret@a..b/", "ws://a%3Asecret:x@b/"],
)  # fmt: skip
def test_an_error_shows_no_password(url: str) -> None:
    """Whatever else is wrong with the address."""
    with pytest.raises(ValueError, match=r"WebSocket address|host's name|user's name") as caught:
        parse_address(url)
    assert "sec" not in str(caught.value)
    assert "ret" not in str(caught.value)


# redirects


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("", "ws://a:99/b/c?d"),
        ("e", "ws://a:99/b/e"),
        (" e ", "ws://a:99/b/e"),
        ("/e?f", "ws://a:99/e?f"),
        ("?f", "ws://a:99/b/c?f"),
        ("../e", "ws://a:99/e"),
        ("e#fragment", "ws://a:99/b/e"),
        ("//b/e", "ws://b/e"),
        ("http://b/e", "ws://b/e"),
        ("HTTPS://b/e", "wss://b/e"),
        ("wss://b:1/e", "wss://b:1/e"),
        ("ws://ada:x@b/", "ws://ada:x@b/"),
    ],
)
def test_a_redirect_leads_from_where_it_stands(location: str, url: str) -> None:
    """RFC 9110 §10.2.2: relative or whole, to http as to ws, without its fragment."""
    assert parse_address("ws://ada:secret@a:99/b/c?d").redirected(location) == parse_address(url)


@pytest.mark.parametrize("location", ["ftp://a/", "ws://", "ws://a:0/", "http://[::1/", "http://a..b/", "mailto:a@b"])
def test_a_redirect_to_nowhere_is_refused(location: str) -> None:
    """As an address that is none."""
    for url in ("ws://a/", "wss://a/"):
        with pytest.raises(ValueError):
            parse_address(url).redirected(location)


def test_no_way_leads_from_wss_to_ws() -> None:
    """Wherever a redirect points."""
    address = parse_address("wss://example.org/a")
    assert str(address.redirected("b")) == "wss://example.org/b"
    assert str(address.redirected("https://other.org/")) == "wss://other.org/"
    for location in ("ws://example.org/", "http://example.org/"):
        with pytest.raises(ValueError, match="from wss to ws"):
            address.redirected(location)
