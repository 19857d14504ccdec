"""Whole HTTP answers: their date, their headers, and clients that are slow to take them."""

from __future__ import annotations

from email.utils import formatdate

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.calls import call_of
from trioktor import (
    Response,
)
from trioktor.engine.streams import open_transport
from trioktor.engine.transport import Transport
from trioktor.server.answering import answer, http_date, with_headers

LONG = bytes(range(256)) * 40_000
"""More than any buffer on the way takes."""


# the date


def test_the_date_is_as_http_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of RFC 9110 §5.6.7, and the second behind it; what is less than a second does not show."""
    for now, expected in [
        (784111777.0, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (784111777.99, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (784111778.0, "Sun, 06 Nov 1994 08:49:38 GMT"),
        (784111777.0, "Sun, 06 Nov 1994 08:49:37 GMT"),
    ]:
        monkeypatch.setattr("time.time", lambda now=now: now)
        assert http_date() == expected


def test_the_date_is_made_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many answers there are."""
    made: list[float] = []

    def formatted(second: float, *, usegmt: bool) -> str:
        made.append(second)
        return formatdate(second, usegmt=usegmt)

    monkeypatch.setattr("trioktor.server.answering.formatdate", formatted)
    for now in (1.0, 1.1, 1.9, 2.0, 2.5, 3.0):
        monkeypatch.setattr("time.time", lambda now=now: now)
        http_date()
    assert made == [1, 2, 3]


# the headers


def test_headers_of_the_call_stand_behind_those_of_the_answer() -> None:
    """In order; the answer that was given is as it was."""
    call = call_of()
    call.response_headers.append("X-Second", "2")
    call.response_headers.append("X-Third", "3")
    response = Response("body", status=403, headers=[("X-First", "1")], content_type="text/html")
    assert with_headers(response, call) == Response(
        "body",
        status=403,
        headers=[("X-First", "1"), ("X-Second", "2"), ("X-Third", "3")],
        content_type="text/html",
    )
    assert response.headers == (("X-First", "1"),)


def test_without_headers_of_the_call_the_answer_is_itself() -> None:
    """And from then on there can be none: they would come too late."""
    call, response = call_of(), Response("body")
    assert with_headers(response, call) is response
    with pytest.raises(RuntimeError):
        call.response_headers.append("X-Late", "1")


# the way out


async def pair(kind: str) -> tuple[Transport, trio.abc.HalfCloseableStream]:
    """A transport, and the client at its other end."""
    if kind == "socket":
        first, second = trio.socket.socketpair()
        return open_transport(trio.SocketStream(first)), trio.SocketStream(second)
    make = trio.testing.memory_stream_pair if kind == "memory" else trio.testing.lockstep_stream_pair
    ours, theirs = make()
    return open_transport(ours), theirs


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """To the end."""
    data = b""
    async for chunk in stream:
        data += chunk
    return data


KINDS = ["socket", "memory", "lockstep"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [b"short", LONG[:200_000]], ids=["short", "long"])
async def test_an_answer_arrives_whole_and_its_end_is_said(kind: str, data: bytes, autojump_clock: MockClock) -> None:
    """The client sees the end behind it, and ends its own half; no time passes."""
    transport, client = await pair(kind)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, transport, data)
        assert await read_all(client) == data
        await client.send_eof()
    assert trio.current_time() == began
    await transport.aclose()
    await client.aclose()


@pytest.mark.parametrize("kind", ["socket", "memory"])
async def test_what_the_client_still_says_is_thrown_away(kind: str, autojump_clock: MockClock) -> None:
    """For half a second: a close with unread input would reset what it has not read."""
    transport, client = await pair(kind)
    await client.send_all(b"unread")
    began = trio.current_time()
    await answer(transport, b"data")
    assert trio.current_time() - began == 0.5
    assert transport.read_nowait() is None
    await transport.aclose()
    assert await read_all(client) == b"data"
    await client.aclose()


@pytest.mark.parametrize("kind", ["socket", "lockstep"])
async def test_a_client_that_takes_nothing_is_given_up(kind: str, autojump_clock: MockClock) -> None:
    """After five seconds, without a word, and without a wait for what it might say."""
    transport, client = await pair(kind)
    began = trio.current_time()
    await answer(transport, LONG)
    assert trio.current_time() - began == pytest.approx(5, abs=0.1)
    await transport.aclose()
    await client.aclose()


@pytest.mark.parametrize("kind", ["socket", "lockstep"])
async def test_a_client_that_takes_some_every_few_seconds_gets_all(kind: str, autojump_clock: MockClock) -> None:
    """However long it takes together."""
    transport, client = await pair(kind)
    data = LONG[:2_000_000]
    received = b""
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, transport, data)
        while len(received) < len(data):
            await trio.sleep(4)
            wanted = min(len(data), len(received) + 500_000)
            while len(received) < wanted:
                received += await client.receive_some(65536)
        await client.send_eof()
    assert received == data
    assert trio.current_time() - began > 10
    await transport.aclose()
    await client.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_is_gone_is_no_event(kind: str) -> None:
    """Before the answer, or in the middle of it."""
    for is_first in (True, False):
        transport, client = await pair(kind)
        async with trio.open_nursery() as nursery:
            if is_first:
                await trio.aclose_forcefully(client)
            nursery.start_soon(answer, transport, LONG)
            if not is_first:
                await client.receive_some(10)
                await trio.aclose_forcefully(client)
        await transport.aclose()


async def test_a_cancelled_answer_goes_on_no_more() -> None:
    """The cancellation is not eaten."""
    transport, client = await pair("lockstep")
    with trio.CancelScope() as scope:
        scope.cancel()
        await answer(transport, LONG)
    assert scope.cancelled_caught
    await transport.aclose()
    await client.aclose()
