"""Work in proportion to what came: what a stranger sends costs so much a byte, however much of it there is.

Compared is the processor's time for an input and for one eight times as long, the least of several runs each: eight
is in proportion, sixty-four is the square. Nothing is compared with a clock on the wall.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.support.helpers import masked
from tests.support.reading import FrameReader
from trioktor import PerMessageDeflate, ProtocolError
from trioktor.auth import bearer
from trioktor.http.call import Call
from trioktor.http.headers import Headers, Refusal
from trioktor.http.requests import HeadReader, RequestHead
from trioktor.protocol.negotiation import negotiate
from trioktor.routing.proxies import Proxies

SMALL: Final = 1500
LARGE: Final = 8 * SMALL
RUNS: Final = 7
MOST: Final = 24.0
"""Times the cost for eight times the length: three for the noise of a shared machine, and far from sixty-four."""


def cost(function: Callable[[], object]) -> float:
    """The least processor time of several runs, in seconds; never nothing."""
    least = float("inf")
    for _ in range(RUNS):
        began = time.process_time()
        try:
            function()
        except (Refusal, ProtocolError, ValueError):
            pass
        least = min(least, time.process_time() - began)
    return max(least, 1e-4)


def read_head(lines: bytes, *, step: int = 1 << 20) -> None:
    """Read a request that holds these lines, in pieces of a length."""
    data = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n\r\n"
    reader = HeadReader(1 << 20, 100_000)
    for start in range(0, len(data), step):
        if reader.feed(data[start : start + step]) is not None:
            return


def forwarded(name: str, value: str) -> None:
    """Read what a trusted proxy says."""
    proxies = Proxies().with_more(["10.0.0.0/8"], name)
    proxies.read(("10.0.0.1", 1), Headers(((name.lower().encode(), value.encode("latin-1")),)), is_local=False)


def frames(data: bytes, *, step: int = 65536) -> None:
    """Parse and assemble frames that come in pieces of a length."""
    reader = FrameReader()
    for start in range(0, len(data), step):
        list(reader.feed(data[start : start + step]))


def agree(line: str) -> None:
    """Negotiate the extensions of a header."""
    negotiate([PerMessageDeflate()], [line])


INPUTS: dict[str, Callable[[int], object]] = {
    "blanks, then NUL": lambda n: read_head(b"X:" + b" " * n + b"\0"),
    "blanks, then VT": lambda n: read_head(b"X:" + b" " * n + b"\x0b"),
    "blanks, then FF": lambda n: read_head(b"X: a" + b"\t " * (n // 2) + b"\x0c"),
    "blanks, then a bare CR": lambda n: read_head(b"X:" + b" " * n + b"\rx"),
    "blanks, then DEL": lambda n: read_head(b"X:" + b" " * n + b"\x7f"),
    "blanks": lambda n: read_head(b"X:" + b" " * n + b"x"),
    "blanks in a name": lambda n: read_head(b"X" + b" " * n + b": x"),
    "colons": lambda n: read_head(b":" * n),
    "a long target": lambda n: read_head(b"X: x\r\n" * (n // 6)),
    "a head byte by byte": lambda n: read_head(b"X: " + b"x" * n, step=1),
    "a node of colons": lambda n: forwarded("X-Forwarded-For", ":" * n + "["),
    "a node of brackets": lambda n: forwarded("X-Forwarded-For", "[" * n + ":1"),
    "many nodes": lambda n: forwarded("X-Forwarded-For", ",".join(["10.0.0.1"] * (n // 9))),
    "a forwarded node": lambda n: forwarded("Forwarded", 'for="' + "[:" * (n // 2) + '"'),
    "quotes": lambda n: forwarded("Forwarded", '"' * n),
    "backslashes": lambda n: forwarded("Forwarded", 'for="' + "\\" * n + '"'),
    "many pairs": lambda n: forwarded("Forwarded", "for=10.0.0.1;" * (n // 13)),
    "extensions": lambda n: agree("permessage-deflate; a=" + "x" * n),
    "an open quote": lambda n: agree('permessage-deflate; a="' + "\\x" * (n // 2)),
    "blanks in an offer": lambda n: agree("permessage-deflate" + " " * n + "\0"),
    "many offers": lambda n: agree(",".join(["x"] * (n // 2))),
    "a frame byte by byte": lambda n: frames(masked(0x82, bytes(n)), step=1),
    "a text byte by byte": lambda n: frames(masked(0x81, b"x" * n), step=1),
    "empty frames": lambda n: frames(masked(0x82, b"") * (n // 6)),
    "fragments": lambda n: frames(masked(0x01, b"x") + masked(0x00, b"x") * (n // 7) + masked(0x80, b"")),
}


@pytest.mark.parametrize("name", INPUTS)
def test_the_cost_grows_as_the_input_does(name: str) -> None:
    """Not faster."""
    function = INPUTS[name]
    small = cost(lambda: function(SMALL))
    assert cost(lambda: function(LARGE)) <= MOST * small


@pytest.mark.parametrize("control", [bytes([code]) for code in (*range(9), *range(11, 13), *range(14, 32), 0x7F)])
@pytest.mark.parametrize("where", ["GET /%s HTTP/1.1", "X: a%sb", "X%s: b"])
def test_a_control_character_is_refused(control: bytes, where: str) -> None:
    """Wherever it stands: it must not reach a handler, nor its log. The same without it is fine."""

    def head(character: bytes) -> bytes:
        line = where.encode() % character
        lines = [line, b"Host: a"] if where.startswith("GET") else [b"GET / HTTP/1.1", b"Host: a", line]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    assert HeadReader(16384, 100).feed(head(b"~")) is not None
    with pytest.raises(Refusal) as refusal:
        HeadReader(16384, 100).feed(head(control))
    assert refusal.value.status == 400


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
@pytest.mark.parametrize("line", [b"X: a\rb", b"X: a\r", b"\rX: a", b"X: a\r\rb", b"X: a\r\r\nY: b"])
def test_a_bare_carriage_return_is_refused(line: bytes, step: int) -> None:
    """However the head is cut: RFC 9112 §2.2."""
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n"
    reader = HeadReader(16384, 100)
    with pytest.raises(Refusal) as refusal:
        for start in range(0, len(data), step):
            reader.feed(data[start : start + step])
    assert refusal.value.status == 400


@pytest.mark.parametrize("step", [1, 2, 3, 5, 1000])
def test_tabs_and_line_ends_are_none_of_these(step: int) -> None:
    """A head that is good stays so, however it is cut."""
    data = b"GET / HTTP/1.1\r\nHost: a\r\nX:\ta\tb \r\n\r\n"
    reader = HeadReader(16384, 100)
    results = [reader.feed(data[start : start + step]) for start in range(0, len(data), step)]
    assert results[-1] is not None
    assert results[-1][0].headers["x"] == "a\tb"


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("192.0.2.1", ("192.0.2.1", 0)),
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("192.0.2.1:_hidden", ("192.0.2.1", 0)),
        ("2001:db8::1", ("2001:db8::1", 0)),
        ("[2001:db8::1]", ("2001:db8::1", 0)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)),
        ("[2001:db8::1", None),
        ("[2001:db8::1]x", None),
        ("[2001:db8::1]:", None),
        ("192.0.2.1:", None),
        ("192.0.2.1:99999", None),
        ("192.0.2.1:8 0", None),
        ("", None),
        ("unknown", None),
        ("_secret", None),
        ("1" * 65, None),
        ("[" + "1" * 65 + "]", None),
    ],
)
def test_a_node_is_an_address_with_or_without_a_port(node: str, expected: tuple[str, int] | None) -> None:
    """Or it is none, and ends the search."""
    proxies = Proxies().with_more(["10.0.0.0/8"], "X-Forwarded-For")
    found = proxies.read(("10.0.0.1", 1), Headers(((b"x-forwarded-for", node.encode()),)), is_local=False)
    assert found is not None
    assert found.client == expected


async def test_a_long_token_is_compared_with_nobodys() -> None:
    """A known one of that length is refused, too: it can't be told apart from others in bounded time."""
    tokens = {"short": "Ada", "x" * 8192: "Bob", "y" * 8193: "Eve"}
    hook = bearer(tokens)
    for token, principal in tokens.items():
        raw = ((b"authorization", b"Bearer " + token.encode()),)
        call = Call(RequestHead("GET", "/", "1.1", Headers(raw)), path_parameters={}, client=None, scheme="ws")
        answer: Any = await hook(call)
        if len(token) > 8192:
            assert answer.status == 401
        else:
            assert (answer, call.principal) == (None, principal)
