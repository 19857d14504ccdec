"""Responses: small, whole, and nothing in them that could be read as something else."""

from __future__ import annotations

from email.message import Message
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from trioktor.http.headers import Headers, Refusal
from trioktor.http.responses import (
    Response,
    check_header,
    encoded,
    header_pairs,
    refusal_response,
)


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
    with pytest.raises(ValueError, match="content_type"):
        Response("", headers={"content-Type": "text/html"})


def test_a_status_nobody_knows_has_no_phrase() -> None:
    """RFC 9112 §4: the phrase may be empty; its space may not be missing."""
    assert Response("", status=299).to_bytes().startswith(b"HTTP/1.1 299 \r\n")


@pytest.mark.parametrize("status", [200, 599])
def test_the_status_of_a_response_has_its_bounds(status: int) -> None:
    """Both belong to it."""
    assert status == Response(status=status).status
    for beyond in (199, 600):
        with pytest.raises(ValueError, match="between 200 and 599"):
            Response(status=beyond)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"status": "200"}, "status must be a number, not '200'"),
        ({"status": None}, "status must be a number"),
        ({"headers": "abc"}, "headers are a mapping, or pairs"),
        ({"headers": [("X", "y", "z")]}, "headers are"),
        ({"headers": {"X": 1}}, "headers are .* not .'X', 1.$"),
    ],
)
def test_what_is_of_another_kind_is_refused_by_name(arguments: dict[str, Any], text: str) -> None:
    """As it is made, not where it would be written."""
    with pytest.raises(TypeError, match=f"^{text}"):
        Response(**arguments)


def test_headers_may_be_pairs_or_a_mapping_of_any_kind() -> None:
    """Lists, too, and what only has `items`, such as a message of the standard library's."""
    message = Message()
    message["X"] = "y"
    for headers in ([("X", "y")], [["X", "y"]], (["X", "y"],), {"X": "y"}, message, Headers([(b"X", b"y")])):
        ((name, value),) = Response(headers=headers).headers  # type: ignore[arg-type]
        assert (name.upper(), value) == ("X", "y")


def test_a_header_may_hold_all_of_latin_1() -> None:
    """RFC 9110 §5.5 calls it obsolete, and lets it be; beyond it nothing can be written."""
    assert Response(headers={"X": "\xff"}).to_bytes().count(b"X: \xff\r\n") == 1
    assert b"X: a\tb\r\n" in Response(headers={"X": "a\tb"}).to_bytes()
    with pytest.raises(ValueError, match="latin-1"):
        Response(headers={"X": "\u0100"})


@pytest.mark.parametrize("name", ["", "a b", "a:", "é", "a\r\nb", '"a"', "a,b"])
def test_a_name_is_a_token(name: str) -> None:
    """RFC 9110 §5.1; and nothing else."""
    with pytest.raises(ValueError, match="not a header name"):
        check_header(name, "x")


@pytest.mark.parametrize("value", [" x", "x ", "\tx", "x\t", " "])
def test_a_value_does_not_begin_or_end_with_a_blank(value: str) -> None:
    """RFC 9110 §5.5: it would be no part of it."""
    with pytest.raises(ValueError, match="begins or ends with a blank"):
        check_header("X", value)


@given(st.text(st.characters(max_codepoint=0x200), max_size=5))
def test_what_passes_is_written_in_one_line(value: str) -> None:
    """And read back as it was."""
    try:
        check_header("X", value)
    except ValueError:
        assert any(ord(c) < 0x20 or ord(c) == 0x7F or ord(c) > 0xFF for c in value) or value != value.strip(" ")
        return
    lines = Response(headers={"X": value}).to_bytes().split(b"\r\n")
    assert lines[-3] == b"X: " + value.encode("latin-1")


def test_headers_are_pairs_or_a_mapping() -> None:
    """In order; the same name twice only as pairs."""
    pairs = (("b", "1"), ("a", "2"), ("b", "3"))
    assert header_pairs(pairs) == header_pairs(list(pairs)) == pairs
    assert header_pairs({"b": "1", "a": "2"}) == pairs[:2]
    assert header_pairs(()) == header_pairs({}) == ()
    with pytest.raises(ValueError, match="control character"):
        header_pairs({"good": "1", "bad": "\n"})


def test_headers_for_servers_of_others_are_bytes() -> None:
    """Names in lower case, values as they are."""
    assert encoded([("X-Y", "A\xe9"), ("x", "")]) == [(b"x-y", b"A\xe9"), (b"x", b"")]
    assert encoded([]) == []


@pytest.mark.parametrize("status", [204, 205, 304])
def test_some_statuses_have_no_body(status: int) -> None:
    """RFC 9110 §15.3.5, §15.4.5, §8.6: nor a type, nor a length."""
    response = Response("body", status=status, headers={"ETag": "x"})
    assert response.payload == b""
    assert response.fields() == [("X-Content-Type-Options", "nosniff"), ("ETag", "x")]
    assert response.to_bytes().endswith(b"\r\nETag: x\r\n\r\n")


def test_a_body_is_text_or_bytes() -> None:
    """Text in UTF-8; what that cannot say, or is neither, is refused at once."""
    assert Response("é").payload == "é".encode()
    assert Response(b"\xff").payload == b"\xff"
    assert Response().payload == b""
    with pytest.raises(ValueError, match="surrogates"):
        Response("\ud800")
    for body in (None, 1, bytearray(b"x")):
        with pytest.raises(TypeError, match=f"not {type(body).__name__}"):
            Response(body)  # type: ignore[arg-type]


def test_the_fields_are_those_of_the_body_and_then_ones_own() -> None:
    """The length is in bytes."""
    assert Response("é", headers=[("A", "1")], content_type="text/html").fields() == [
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Type", "text/html"),
        ("Content-Length", "2"),
        ("A", "1"),
    ]


def test_a_response_is_a_value() -> None:
    """It cannot be changed; two that say the same are the same."""
    response = Response("x", headers={"A": "1"})
    assert response == Response("x", headers=[("A", "1")])
    assert response != Response("x")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        response.body = "y"  # type: ignore[misc]


def test_a_refusal_is_a_line_of_text() -> None:
    """With its status and headers."""
    response = refusal_response(Refusal(426, "why", (("Upgrade", "websocket"),)))
    assert response == Response("why\n", status=426, headers=[("Upgrade", "websocket")])
    assert b"\r\nConnection: close, Upgrade\r\n" in response.to_bytes()
