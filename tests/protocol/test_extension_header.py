"""The `Sec-WebSocket-Extensions` header: its grammar, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trioktor.protocol.extension_header import ExtensionHeader, parse_extensions


def header(name: str, *parameters: str) -> ExtensionHeader:
    """A header from `name=value` strings."""
    pairs = [parameter.partition("=") for parameter in parameters]
    return ExtensionHeader(name, tuple((key, value if equals else None) for key, equals, value in pairs))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["superspeed, colormode; depth=16"], [header("superspeed"), header("colormode", "depth=16")]),
        ([" a ;b = 1 ; c,, ,d"], [header("a", "b=1", "c"), header("d")]),
        (["\ta\t;\tb\t=\t1\t"], [header("a", "b=1")]),
        (['a; b="1"; c="\\x\\y"'], [header("a", "b=1", "c=xy")]),
        (["a", "b; c", ""], [header("a"), header("b", "c")]),
        (["a; b; b"], [header("a", "b", "b")]),
        (["a; b=1; b=2, a"], [header("a", "b=1", "b=2"), header("a")]),
        (["good", "fine"], [header("good"), header("fine")]),
        (["!#$%&'*+-.^_`|~09azAZ"], [header("!#$%&'*+-.^_`|~09azAZ")]),
        (["", " ", ",,"], []),
        ([], []),
    ],
)
def test_the_grammar_of_the_header(lines: list[str], expected: list[ExtensionHeader]) -> None:
    """T623: several lines, quoted values, odd spaces, empty elements."""
    assert expected == parse_extensions(lines)


@pytest.mark.parametrize(
    "line",
    [
        "bad;", ";", "a;;b", "a; =1", "a; b=", "a; b=;c", 'a; b=""', 'a; b="two words"', 'a; b="open', 'a; "b"=1',
        "a b", "a; b=c d", "a=1", "=;,", "é", '"a"', "a; b=c=d", "a\x00", "a\r\nb",
    ],
)  # fmt: skip
def test_a_line_that_breaks_the_grammar_is_an_error(line: str) -> None:
    """RFC 6455 §9.1: not silence. Also beside good lines."""
    for lines in ([line], ["good", line], [line, "good"]):
        with pytest.raises(ValueError):
            parse_extensions(lines)


def test_a_header_is_written_as_it_is_read() -> None:
    """Ktor's has a space at its end; ours has none."""
    for text in ("a", "a; b; c=1"):
        assert text == str(parse_extensions([text])[0])


@given(st.text(max_size=200) | st.text('ab;,= "\\\t', max_size=30))
def test_every_header_is_read_or_refused(line: str) -> None:
    """Whatever a client writes is offers, or an error of one kind; what was read is read again as the same."""
    try:
        offers = parse_extensions([line])
    except ValueError:
        return
    assert offers == parse_extensions([str(offer) for offer in offers])


NAMES = st.text("ab-._~!#$%&'*+^`|19", min_size=1, max_size=8)


@given(
    st.lists(st.builds(ExtensionHeader, NAMES, st.lists(st.tuples(NAMES, st.none() | NAMES), max_size=4).map(tuple)))
)
def test_what_is_written_is_read(headers: list[ExtensionHeader]) -> None:
    """In one line, or each in its own."""
    lines = [str(one) for one in headers]
    assert headers == parse_extensions(lines) == parse_extensions([", ".join(lines)])


def test_more_offers_than_anybody_means_are_refused() -> None:
    """However they are divided among lines; and what is reasonable is not."""
    assert len(parse_extensions(["x;a=b, y"] * 100)) == 200
    for lines in (["a," * 501], ["a;" * 501 + "b"], ["a,b,c,d"] * 200):
        with pytest.raises(ValueError):
            parse_extensions(lines)


def test_a_thousand_parts_are_the_most() -> None:
    """Tokens, quoted strings and delimiters together."""
    assert len(parse_extensions(["a," * 500])) == 500
    with pytest.raises(ValueError):
        parse_extensions(["a," * 500 + "a"])
