"""One request of a client, and its answer from bytes: in any pieces, as far as it comes, and never too much of it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trioktor.http.asking import MAX_BODY, BadAnswer, Exchange, Handshake

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
ASKING = [("Upgrade", "websocket"), ("Connection", "Upgrade")]


def asking(method: str = "GET") -> Exchange:
    """A request for an upgrade, or a tunnel."""
    return Exchange(method, "/" if method == "GET" else "b:80", "a", ASKING if method == "GET" else [])


def answered(exchange: Exchange, data: bytes, step: int) -> tuple[Handshake, bytes]:
    """The answer, from so many bytes at a time and the end of the stream; what stands behind it."""
    for start in range(0, len(data), step):
        found = exchange.feed(data[start : start + step])
        if found is not None:
            return found[0], found[1] + data[start + step :]
    found = exchange.feed(b"")
    assert found is not None
    return found


# what is asked


def test_the_request_is_what_was_given() -> None:
    """The host first; names keep their case on the wire, and have none as headers."""
    exchange = Exchange("GET", "/a?b", "a:99", [("X-Y", "\xe9"), ("Cookie", "a=b")])
    assert exchange.request == b"GET /a?b HTTP/1.1\r\nHost: a:99\r\nX-Y: \xe9\r\nCookie: a=b\r\n\r\n"
    assert list(exchange.headers) == ["host", "x-y", "cookie"]
    assert exchange.headers["X-Y"] == "\xe9"


@pytest.mark.parametrize("name", ["Host", "host", "HOST"])
def test_a_host_of_ones_own_is_said_instead(name: str) -> None:
    """There is no other then; it stands in front, as RFC 9110 §7.2 wants it."""
    exchange = Exchange("GET", "/", "a", [("X", "y"), (name, "b")])
    assert exchange.headers.get_all("host") == ["b"]
    assert exchange.request.lower() == b"get / http/1.1\r\nhost: b\r\nx: y\r\n\r\n"


# what is answered


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("before", [b"", HINTS, HINTS * 3])
def test_what_follows_a_101_is_given_back(before: bytes, step: int) -> None:
    """Behind answers of 1xx; it ends HTTP."""
    answer, rest = answered(asking(), before + UPGRADED + b"\x81\x02hi", step)
    assert (answer.status, answer.headers["upgrade"], answer.body) == (101, "websocket", b"")
    assert rest == b"\x81\x02hi"


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_what_follows_a_tunnel_is_given_back(step: int) -> None:
    """A 2xx to CONNECT ends HTTP, too; another answer does not."""
    answer, rest = answered(asking("CONNECT"), b"HTTP/1.1 200 Go on\r\n\r\n\x16\x03", step)
    assert (answer.status, rest) == (200, b"\x16\x03")
    answer, rest = answered(asking("CONNECT"), b"HTTP/1.1 407 Who\r\nContent-Length: 3\r\n\r\nwho", step)
    assert (answer.status, answer.body, rest) == (407, b"who", b"")


ANSWERS: dict[str, tuple[bytes, int, bytes]] = {
    "a length": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello", 404, b"hello"),
    "chunked": (
        b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        401,
        b"abcde",
    ),
    "to the end": (b"HTTP/1.0 503 Busy\r\n\r\nto the end", 503, b"to the end"),
    "half of it": (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", 200, b"half"),
    "half a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", 200, b"abc"),
    "a bad chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n", 200, b"abc"),
    "nothing": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "behind 1xx": (HINTS + b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", 302, b""),
    "as much as is kept": (b"HTTP/1.1 500 Oops\r\n\r\n" + b"x" * MAX_BODY, 500, b"x" * MAX_BODY),
    "more than is kept": (b"HTTP/1.1 500 Oops\r\n\r\n" + b"x" * MAX_BODY + b"y" * 9, 500, b"x" * MAX_BODY),
}


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_has_its_body(name: str, step: int) -> None:
    """The first 64 KiB, as far as it comes; that it breaks off is no error."""
    data, status, body = ANSWERS[name]
    answer, _ = answered(asking(), data, step if len(data) < 1000 else step * 1000)
    assert (answer.status, answer.body) == (status, body)


def test_a_body_that_is_long_is_not_waited_for() -> None:
    """Once 64 KiB have come the answer is there."""
    exchange = asking()
    assert exchange.feed(b"HTTP/1.1 500 Oops\r\nContent-Length: 1000000\r\n\r\n") is None
    assert exchange.feed(b"x" * (MAX_BODY - 1)) is None
    assert exchange.feed(b"x") is not None


def test_what_has_come_of_a_body_may_be_asked_for() -> None:
    """As soon as there is a head."""
    exchange = asking()
    states = [exchange.is_in_body]
    for data in (HINTS + b"HTTP/1.1 403 No\r\nX: y\r\nContent-Length: 9\r\n", b"\r\nwe"):
        assert exchange.feed(data) is None
        states.append(exchange.is_in_body)
    assert states == [False, False, True]
    assert exchange.incomplete().body == b"we"
    assert exchange.feed(b" r") is None
    answer = exchange.incomplete()
    assert (answer.status, answer.headers["X"], answer.body) == (403, "y", b"we r")


# what is none


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 101 Sw", UPGRADED[:-2], b"HTTP/1.1 404 No\r\n", HINTS])
def test_the_end_before_an_answer_is_told_from_a_bad_one(data: bytes) -> None:
    """Nobody is there, then."""
    exchange = asking()
    if data:
        assert exchange.feed(data) is None
    with pytest.raises(BadAnswer, match="closed before the answer") as error:
        exchange.feed(b"")
    assert error.value.is_end


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize(
    "data",
    [
        b"220 mail.example ESMTP\r\n\r\n",
        UPGRADED.replace(b"1.1", b"1.0"),
        UPGRADED.replace(b"\r\n\r\n", b"\r\nnothing\r\n\r\n"),
        b"HTTP/1.1 404 No\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 404 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_an_error(data: bytes, step: int) -> None:
    """It says what is wrong, and is not the end of the stream."""
    exchange = asking()
    with pytest.raises(BadAnswer) as error:
        for start in range(0, len(data), step):
            assert exchange.feed(data[start : start + step]) is None
    assert not error.value.is_end
    assert str(error.value)


def test_so_many_answers_of_1xx_and_no_more() -> None:
    """Sixteen."""
    assert answered(asking(), HINTS * 16 + UPGRADED, 1 << 20)[0].status == 101
    with pytest.raises(BadAnswer, match="too many answers of 1xx"):
        asking().feed(HINTS * 17 + UPGRADED)


def test_a_head_is_bounded() -> None:
    """To 64 KiB, however it comes; each of several by itself."""
    exchange = asking()
    with pytest.raises(BadAnswer):
        for _ in range(70):
            assert exchange.feed(b"HTTP/1.1 101 " + b"x" * 1000) is None
    long = HINTS.replace(b"Link: x", b"Link: " + b"x" * 60_000)
    for step in (1000, 1 << 20):
        assert answered(asking(), long * 3 + UPGRADED, step)[0].status == 101


@given(st.binary(max_size=200) | st.binary(max_size=60).map(b"HTTP/1.1 200 OK\r\n".__add__), st.integers(1, 50))
def test_any_bytes_are_an_answer_or_one_error(data: bytes, step: int) -> None:
    """However they are cut."""
    try:
        answer, _ = answered(asking(), data, step)
    except BadAnswer:
        return
    assert 101 <= answer.status <= 999
    assert len(answer.body) <= MAX_BODY
