"""The headers of a request as a mapping, and the refusal of what is none."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trioktor.http.headers import Headers, Refusal

PAIRS = [(b"Host", b"x"), (b"X-Many", b"1"), (b"x-many", b"2, 3"), (b"x-latin", b"\xe9"), (b"Empty", b"")]


@pytest.mark.parametrize("is_of_lines", [True, False])
def test_headers_are_a_mapping_without_case(is_of_lines: bool) -> None:
    """The first value by name, all of them by `get_all`; made of pairs, or of the lines that came."""
    lines = b"Host: x\r\nX-Many:1\r\nx-many: \t2, 3\t \r\nx-latin: \xe9\r\nEmpty:"
    headers = Headers(lines=lines) if is_of_lines else Headers(PAIRS)
    assert headers["X-MANY"] == "1"
    assert headers.get_all("X-Many") == ["1", "2, 3"]
    assert headers.get_all("missing") == []
    assert headers["x-latin"] == "é"
    assert (headers["empty"], headers.get("missing"), headers.get("missing", "else")) == ("", None, "else")
    assert "HOST" in headers
    assert "hos" not in headers
    assert list(headers) == ["host", "x-many", "x-latin", "empty"]
    assert len(headers) == 4
    with pytest.raises(KeyError, match="missing"):
        headers["missing"]


@pytest.mark.parametrize("headers", [Headers(), Headers([]), Headers(lines=b"")])
def test_there_may_be_none(headers: Headers) -> None:
    """Then nothing is found, and nothing is wrong."""
    headers.index()
    assert (len(headers), list(headers), headers.get_all("x"), headers.tokens("x")) == (0, [], [], [])
    assert repr(headers) == "<Headers >"


@pytest.mark.parametrize(
    ("lines", "tokens"),
    [
        ([], []),
        ([b"a"], ["a"]),
        ([b"a, b", b"c"], ["a", "b", "c"]),
        ([b" a ,\tb\t,, ,c"], ["a", "b", "c"]),
        ([b"", b","], []),
        ([b"A b, c"], ["A b", "c"]),
    ],
)
def test_tokens_are_those_of_all_lines(lines: list[bytes], tokens: list[str]) -> None:
    """RFC 9110 §5.6.1: empty ones are left out."""
    assert Headers([(b"x", line) for line in lines]).tokens("X") == tokens


@pytest.mark.parametrize(
    "line", [b"", b"colon", b"no colon", b": x", b"a b: x", b"a : x", b"\xe9: x", b'"a": x', b" a: x"]
)
def test_a_line_without_a_name_is_refused(line: bytes) -> None:
    """RFC 9112 §5.1: 400; wherever it stands."""
    for lines in (line + b"\r\nb: c", b"b: c\r\n" + line, b"b: c\r\n" + line + b"\r\nd: e"):
        with pytest.raises(Refusal, match="has no name") as refusal:
            Headers(lines=lines).index()
        assert refusal.value.status == 400


def test_every_character_of_a_token_may_be_in_a_name() -> None:
    """RFC 9110 §5.6.2; values may hold colons."""
    headers = Headers(lines=b"!#$%&'*+-.^_`|~09azAZ: a:b: c")
    headers.index()
    assert headers["!#$%&'*+-.^_`|~09AZaz"] == "a:b: c"


def test_what_was_looked_up_may_be_forgotten() -> None:
    """It is looked up again when somebody asks, whether it was checked before or not."""
    for lines in (b"a: 1\r\nA: 2", b""):
        headers = Headers(lines=lines)
        headers.compact()
        for _ in range(2):
            assert headers.get_all("a") == (["1", "2"] if lines else [])
            headers.index()
            headers.compact()
            headers.compact()


def test_values_are_not_shown() -> None:
    """They may be secret; of the names no more than can be read."""
    assert repr(Headers([(b"Authorization", b"secret"), (b"x", b"y")])) == "<Headers authorization, x>"
    assert len(repr(Headers([(b"x%d" % number, b"") for number in range(1000)]))) < 250


NAMES = st.text("abAB-1", min_size=1, max_size=3)
VALUES = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=10)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_headers_are_what_a_list_of_pairs_says(pairs: list[tuple[str, str]]) -> None:
    """Names in the order of their first lines, values in the order of theirs, without the blanks around them."""
    headers = Headers([(name.encode(), value.encode("latin-1")) for name, value in pairs])
    model: dict[str, list[str]] = {}
    for name, value in pairs:
        model.setdefault(name.lower(), []).append(value.strip(" \t"))
    assert list(headers) == list(model)
    for name, values in model.items():
        assert headers.get_all(name.upper()) == values
        assert headers[name] == values[0]


def test_a_refusal_says_status_text_and_headers() -> None:
    """The text is what the error is; there may be no headers."""
    refusal = Refusal(426, "why", (("Upgrade", "websocket"),))
    assert (refusal.status, refusal.text, refusal.headers) == (426, "why", (("Upgrade", "websocket"),))
    assert str(Refusal(400, "why")) == "why"
    assert Refusal(400, "why").headers == ()
