"""`reconnecting`: pauses, what is tried again, and what ends the loop."""

from __future__ import annotations

import itertools
import math
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate

import pytest
import trio
from trio.testing import MockClock

from tests.client.test_connect import URL, Bug, obliging
from tests.support.helpers import RawServer, scripted
from trioktor import (
    CannotConnect,
    CloseReason,
    ConnectionBroken,
    Frame,
    HandshakeInvalid,
    HandshakeRefused,
    Headers,
    connect,
    is_lasting,
    reconnecting,
)
from trioktor.client.reconnect import retry_after

Script = Callable[[RawServer], Awaitable[None]]


def refusal(status: int, *pairs: tuple[bytes, bytes]) -> HandshakeRefused:
    """What `connect` raises for a status."""
    return HandshakeRefused(status, Headers(pairs), b"")


def refusing(answers: Sequence[bytes], times: list[float]) -> Script:
    """A server that refuses as often as there are answers, and accepts then."""
    left = list(answers)

    async def script(server: RawServer) -> None:
        times.append(trio.current_time())
        if not left:
            await obliging(server)
            return
        await server.read_head()
        answer = left.pop(0)
        if answer:
            await server.send_bytes(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % answer)

    return script


@pytest.fixture(autouse=True)
def _longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses are as long as they may be."""
    monkeypatch.setattr("random.uniform", lambda _least, most: most)


async def test_it_tries_again(autojump_clock: MockClock) -> None:
    """At once first, then after pauses that double up to a limit."""
    times: list[float] = []
    began = trio.current_time()
    async with scripted(refusing([b"503 Busy", b"", b"500 Oops", b"502 Bad", b"429 Slow"], times)) as dial:
        async for attempt in reconnecting(URL, stream=dial, first=1, most=5):
            async with attempt as session:
                await session.send("x")
                assert await session.receive_text() == "x"
                break
    assert [round(later - earlier) for earlier, later in itertools.pairwise(times)] == [1, 2, 4, 5, 5]
    assert times[0] == began
    assert session.close_reason == CloseReason(1000)


async def test_a_stream_that_cannot_be_opened_is_tried_again(autojump_clock: MockClock) -> None:
    """What the function raises for it counts as nobody being there."""
    failures: list[Exception] = [OSError("no network"), trio.BrokenResourceError("gone")]
    async with scripted(obliging) as dial:

        async def open_stream() -> trio.abc.Stream:
            if failures:
                raise failures.pop()
            return await dial()

        async for attempt in reconnecting(URL, stream=open_stream):
            async with attempt as session:
                await session.send("x")
                assert await session.receive_text() == "x"
            break
    assert failures == []


async def test_the_pauses_are_random(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything between nothing and the limit: full jitter."""
    asked: list[tuple[float, float]] = []

    def uniform(least: float, most: float) -> float:
        asked.append((least, most))
        return 0

    monkeypatch.setattr("random.uniform", uniform)
    async with scripted(refusing([b"503 Busy"] * 12, [])) as dial:
        async for attempt in reconnecting(URL, stream=dial):
            async with attempt as session:
                session.close()
            break
    assert {least for least, _ in asked} == {0}
    assert [most for _, most in asked] == pytest.approx([min(60, 0.1 * 2**number) for number in range(12)])


async def test_a_long_life_begins_anew(autojump_clock: MockClock) -> None:
    """And a short one does not: a server that takes everybody and drops them must not be asked all the time."""
    times: list[float] = []

    async def script(server: RawServer) -> None:
        times.append(trio.current_time())
        await server.accept()
        await trio.sleep(lives[len(times) - 1])

    lives = [1.0, 29.9, 1.0, 30.1, 1.0]
    async with scripted(script) as dial:
        count = 0
        async for attempt in reconnecting(URL, stream=dial, first=1):
            async with attempt as session:
                count += 1
                if count == 5:
                    break
                await session.receive()
    pauses = [round(later - earlier - life) for earlier, later, life in zip(times, times[1:], lives, strict=False)]
    assert pauses == [1, 2, 4, 1]


@pytest.mark.parametrize(
    "end",
    ["the server closes", "the server is gone", "the block ends", "receive after a goodbye", "a task is told", "both"],
)
async def test_the_end_of_a_conversation_is_not_the_end(end: str, autojump_clock: MockClock) -> None:
    """The next attempt follows, whoever ended it and however the block was told."""

    async def script(server: RawServer) -> None:
        await server.accept()
        if end in ("the server closes", "receive after a goodbye"):
            await server.send(Frame.Close(CloseReason(1001)))
            await server.receive_rest()

    seen: list[CloseReason | None] = []
    async with scripted(script) as dial:
        async for attempt in reconnecting(URL, stream=dial):
            async with attempt as session:
                if len(seen) == 3:
                    break
                if end == "the block ends":
                    seen.append(None)
                    continue
                if end in ("a task is told", "both"):
                    session.start_soon(session.receive)
                try:
                    if end == "a task is told":
                        await trio.sleep(100)
                    if end == "receive after a goodbye":
                        await session.receive()
                    async for _ in session:
                        pass
                finally:
                    seen.append(session.close_reason)
    assert len(seen) == 3


async def test_what_a_block_raises_goes_on(autojump_clock: MockClock) -> None:
    """As itself; so does the end of another conversation, and what comes before its own has ended."""
    async with scripted(obliging) as dial:
        for error in (Bug(), trio.EndOfChannel(), ExceptionGroup("", [Bug()])):
            with pytest.raises(type(error)) as caught:
                async for attempt in reconnecting(URL, stream=dial):
                    async with attempt:
                        raise error
            assert caught.value is error
        with pytest.raises(ConnectionBroken):
            async for outer in reconnecting(URL, stream=dial):
                async with outer as other:
                    async for attempt in reconnecting(URL, stream=dial):
                        async with attempt as session:
                            await session.aclose()
                            raise ConnectionBroken(None, other)


async def test_the_end_of_another_conversation_is_not_the_end(autojump_clock: MockClock) -> None:
    """Though it is told by the same kind of error, when its own is over, too."""

    async def script(server: RawServer) -> None:
        await server.accept()
        await server.send(Frame.Close(CloseReason(1000)))
        await server.receive_rest()

    async with scripted(script) as dial, connect(URL, stream=dial) as other:
        await other.wait_closed()
        for session_of in ("another", "its own"):
            count, raised = 0, False
            try:
                async for attempt in reconnecting(URL, stream=dial):
                    async with attempt as session:
                        count += 1
                        await session.wait_closed()
                        if count == 3:
                            break
                        await (session if session_of == "its own" else other).receive()
            except trio.EndOfChannel:
                raised = True
            assert (count, raised) == ((3, False) if session_of == "its own" else (1, True))


@pytest.mark.parametrize(
    "error",
    [trio.BrokenResourceError("the database"), trio.EndOfChannel("another channel"), trio.ClosedResourceError()],
)
async def test_the_end_of_something_else_is_not_the_end(error: Exception, autojump_clock: MockClock) -> None:
    """Though the conversation is over: hidden, it would be met again and again."""
    async with scripted(obliging) as dial:
        with pytest.raises(type(error)) as caught:
            async for attempt in reconnecting(URL, stream=dial):
                async with attempt as session:
                    await session.aclose()
                    raise error
        assert caught.value is error


async def test_what_is_logged_shows_no_query(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """It may be secret."""
    caplog.set_level("DEBUG")
    async with scripted(refusing([b"", b"503 Busy"], [])) as dial:
        async for attempt in reconnecting(URL + "?token=SECRET", stream=dial):
            async with attempt as session:
                session.close()
            break
    assert "trying again" in caplog.text
    assert "SECRET" not in caplog.text


async def test_a_cancellation_ends_it_anywhere(autojump_clock: MockClock) -> None:
    """In a pause, in a conversation, between them."""
    for script in (refusing([b"503 Busy"] * 1000, []), obliging):
        async with scripted(script) as dial:
            with trio.move_on_after(100) as scope:
                async for attempt in reconnecting(URL, stream=dial):
                    async with attempt:
                        await trio.sleep_forever()
            assert scope.cancelled_caught
    with trio.CancelScope() as scope:
        scope.cancel()
        async for _ in reconnecting(URL):
            raise AssertionError("no checkpoint")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 200, 301, 501])
async def test_what_will_not_change_is_raised(status: int, autojump_clock: MockClock) -> None:
    """At once."""
    times: list[float] = []
    async with scripted(refusing([b"%d X" % status], times)) as dial:
        with pytest.raises(HandshakeRefused):
            async for attempt in reconnecting(URL, stream=dial):
                async with attempt:
                    pass
    assert len(times) == 1


def test_what_lasts() -> None:
    """Certificates, other protocols, most refusals; not what a restart or some time may change."""
    bad = CannotConnect("TLS failed")
    bad.__cause__ = ssl.SSLCertVerificationError("self-signed")
    proxied = CannotConnect("the proxy answered 407")
    proxied.__cause__ = refusal(407)
    busy = CannotConnect("the proxy answered 503")
    busy.__cause__ = refusal(503)
    assert is_lasting(bad)
    assert is_lasting(proxied)
    assert is_lasting(HandshakeInvalid(101, Headers(), b""))
    assert not is_lasting(busy)
    assert not is_lasting(CannotConnect("refused"))
    for status in (408, 421, 425, 429, 500, 502, 503, 504, 520):
        assert not is_lasting(refusal(status))
    for status in (200, 302, 400, 401, 403, 404, 405, 410, 426, 501, 505):
        assert is_lasting(refusal(status))


async def test_a_hook_decides(autojump_clock: MockClock) -> None:
    """It is asked for every try that failed."""
    asked: list[int] = []

    def give_up(error: CannotConnect | HandshakeRefused) -> bool:
        assert isinstance(error, HandshakeRefused)
        asked.append(error.status)
        return error.status == 503

    async with scripted(refusing([b"404 No", b"404 No", b"503 Busy"], [])) as dial:
        with pytest.raises(HandshakeRefused, match="503"):
            async for attempt in reconnecting(URL, stream=dial, give_up=give_up):
                async with attempt:
                    pass
    assert asked == [404, 404, 503]


async def test_retry_after_is_heeded(autojump_clock: MockClock) -> None:
    """On top of the pause, so that not all come at the same time."""
    times: list[float] = []
    async with scripted(refusing([b"503 Busy\r\nRetry-After: 120"], times)) as dial:
        async for attempt in reconnecting(URL, stream=dial, first=1):
            async with attempt:
                break
    assert times[1] - times[0] == pytest.approx(121)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"0", 0), (b"17", 17), (b"99999999999999999999", 3600), (b"-5", 0), (b"1.5", 0), (b"soon", 0), (b"", 0),
        (b"\xb2", 0), (formatdate(time.time() - 100, usegmt=True).encode(), 0), (b"Mon, 99 Nov 2026 99:99:99 GMT", 0),
        (formatdate(time.time() + 1e6, usegmt=True).encode(), 3600),
    ],
)  # fmt: skip
def test_how_long_it_asks_to_wait(text: bytes, seconds: float) -> None:
    """Seconds or a date; what makes no sense is left out, and nobody is sent away for days."""
    assert retry_after(refusal(503, (b"retry-after", text))) == seconds


def test_a_date_in_a_while() -> None:
    """Counted from now."""
    date = formatdate(time.time() + 100, usegmt=True).encode()
    assert 90 < retry_after(refusal(503, (b"retry-after", date))) <= 100
    assert retry_after(CannotConnect("refused")) == 0
    of_a_proxy = CannotConnect("refused by a proxy")
    of_a_proxy.__cause__ = refusal(503, (b"retry-after", b"7"))
    assert retry_after(of_a_proxy) == 7
    behind_it = CannotConnect("refused behind that")
    behind_it.__cause__ = of_a_proxy
    assert retry_after(behind_it) == 7
    of_something = refusal(503, (b"retry-after", b"8"))
    of_something.__cause__ = of_a_proxy
    assert retry_after(of_something) == 8


async def test_arguments_that_make_no_sense(autojump_clock: MockClock) -> None:
    """They are found at the call, before anything is tried."""
    ours, _ = trio.testing.memory_stream_pair()
    for text, options in (
        ("first", {"first": 0}),
        ("first", {"first": math.inf}),
        ("first", {"first": "x"}),
        ("most", {"most": -1}),
        ("stream", {"stream": ours}),
        ("open_timeout", {"open_timeout": 0}),
    ):
        with pytest.raises(ValueError, match=text):
            reconnecting(URL, **options)
    with pytest.raises(TypeError, match="give_up"):
        reconnecting(URL, give_up=None)  # type: ignore[arg-type]


async def test_an_attempt_is_entered_once(autojump_clock: MockClock) -> None:
    """The next one is the loop's to give."""
    async with scripted(obliging) as dial:
        async for attempt in reconnecting(URL, stream=dial):
            async with attempt:
                pass
            with pytest.raises(RuntimeError, match="once"):
                await attempt.__aenter__()
            break
