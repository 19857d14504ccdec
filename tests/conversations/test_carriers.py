"""The same conversations over every carrier: how they end, in which order, what a cancellation does, which errors.

What differs stands in one table.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.carriers import CARRIERS, Dial
from tests.support.helpers import application
from trioktor import (
    CloseReason,
    ConnectionBroken,
    ConnectionClosed,
    Frame,
    FrameType,
    JsonConverter,
    NotSupported,
    PerMessageDeflate,
    Room,
    WebSocketSession,
)
from trioktor.carriers.trio_websocket import TRIO_WEBSOCKET, handler as trio_websocket_handler
from trioktor.config import EVERYTHING
from trioktor.server.asgi import ASGI

DIFFERENCES: Final[dict[str, dict[str, Any]]] = {
    # what happens: what is seen over bytes, and where it is otherwise
    "terminate, the client's end": {"bytes": 1006},
    "a message that is too big, the client's end": {"bytes": 1009},
    "an answer behind the peer's Close is heard": {"bytes": True, "asgi": False, "trio-websocket": False},
    "what the server's end says": {"bytes": {1001}, "trio-websocket": {1001, 1006}},  # its reader may be first
    "a handler adds to the 101": {"bytes": True, "asgi": False, "trio-websocket": False},
    "Pings": {"bytes": True, "asgi": False, "trio-websocket": False},
    "the reason of the peer's Close has its text": {"bytes": True},
}
"""What differs between the carriers; one that is not named is as over bytes."""


@pytest.fixture(params=CARRIERS)
def carrier(request: pytest.FixtureRequest) -> str:
    """The name of a carrier."""
    name: str = request.param
    return name


def expected(what: str, carrier: str) -> Any:
    """What the table says."""
    row = DIFFERENCES[what]
    return row.get(carrier, row["bytes"])


Ran = Callable[..., Awaitable[None]]


async def converse(
    carrier: str,
    serve: Callable[[WebSocketSession], Awaitable[object]],
    client: Callable[[Any], Awaitable[object]],
    **settings: Any,
) -> None:
    """One conversation between a handler and a client's block."""
    app = application(serve, **settings)
    async with CARRIERS[carrier](app) as dial:
        async with dial() as session:
            await client(session)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1)


async def echo(session: WebSocketSession) -> None:
    """Send back what comes."""
    async for frame in session:
        await session.send(frame)


async def test_every_message_is_echoed(carrier: str, autojump_clock: MockClock) -> None:
    """Text and bytes, short and long, empty and not ASCII."""

    async def client(session: Any) -> None:
        for message in ("hello", "", "grün 世界", b"", b"\x00\xff", "x" * 300_000, b"y" * 300_000):
            await session.send(message)
            frame = await session.receive()
            assert (frame.text if isinstance(frame, Frame.Text) else frame.data) == message

    await converse(carrier, echo, client)


@pytest.mark.parametrize("how", ["return", "close", "Frame.Close", "last handle"])
async def test_what_was_sent_goes_out_before_the_close(carrier: str, how: str, autojump_clock: MockClock) -> None:
    """All of it, in order, however the handler ends it."""
    code = {"return": 1000, "close": 4001, "Frame.Close": 4002, "last handle": 1000}[how]

    async def serve(session: WebSocketSession) -> None:
        for number in range(100):
            await session.send(str(number))
        if how == "close":
            session.close(4001, "why")
        elif how == "Frame.Close":
            await session.send(Frame.Close(CloseReason(4002)))
        elif how == "last handle":
            session.outgoing.close()
            await session.wait_closed()

    async def client(session: Any) -> None:
        assert [frame.text async for frame in session] == [str(number) for number in range(100)]
        assert session.close_reason == CloseReason(code, "why" if how == "close" else "")

    await converse(carrier, serve, client)


async def test_a_handler_that_fails(carrier: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """1011, without a text, and one error in the log; the next conversation is a good one."""

    async def serve(session: WebSocketSession) -> None:
        if await session.receive_text() == "fail":
            raise LookupError("secret")
        await session.send("fine")

    app = application(serve)
    async with CARRIERS[carrier](app) as dial:
        async with dial() as session:
            await session.send("fail")
            with pytest.raises(trio.EndOfChannel):
                await session.receive()
        assert session.close_reason == CloseReason(1011)
        async with dial() as session:
            await session.send("well")
            assert await session.receive_text() == "fine"
    assert [record.levelno for record in caplog.records if record.levelno > logging.INFO] == [logging.ERROR]


@pytest.mark.parametrize(("message", "code"), [(b"x", 1003), ("{", 1007)])
async def test_messages_that_are_not_served(
    carrier: str, message: str | bytes, code: int, autojump_clock: MockClock
) -> None:
    """The peer's doing, and its code."""

    async def serve(session: WebSocketSession) -> None:
        if code == 1003:
            await session.receive_text()
        await session.receive_deserialized(dict)

    async def client(session: Any) -> None:
        await session.send(message)
        with pytest.raises(trio.EndOfChannel):
            await session.receive()
        assert session.close_reason == CloseReason(code)

    await converse(carrier, serve, client, content_converter=JsonConverter())


async def test_the_peers_close(carrier: str, autojump_clock: MockClock) -> None:
    """A clean end with its reason; sending raises then."""
    ends: list[CloseReason | None] = []

    async def serve(session: WebSocketSession) -> None:
        assert [frame.text async for frame in session] == ["one", "two"]
        ends.append(session.close_reason)
        await trio.sleep(1)
        with pytest.raises(ConnectionClosed):
            await session.send("too late")

    async def client(session: Any) -> None:
        await session.send("one")
        await session.send("two")
        session.close(4003, "enough")

    await converse(carrier, serve, client)
    text = "enough" if expected("the reason of the peer's Close has its text", carrier) else ""
    assert ends == [CloseReason(4003, text)]


async def test_an_answer_behind_the_peers_close(carrier: str, autojump_clock: MockClock) -> None:
    """It is heard where we speak the protocol, and is nobody's trouble where not."""
    heard: list[str] = []

    async def serve(session: WebSocketSession) -> None:
        async for _ in session:
            pass
        await session.send("an answer")

    async def client(session: Any) -> None:
        session.close()
        heard.extend([frame.text async for frame in session])

    await converse(carrier, serve, client)
    assert heard == ["an answer"] * expected("an answer behind the peer's Close is heard", carrier)


async def test_a_client_that_is_gone(carrier: str, autojump_clock: MockClock) -> None:
    """A broken end: 1006."""
    ends: list[tuple[type[Exception], CloseReason | None]] = []

    async def serve(session: WebSocketSession) -> None:
        try:
            await session.receive()
        except Exception as error:
            ends.append((type(error), session.close_reason))
            raise

    async def client(session: Any) -> None:
        session.terminate()

    await converse(carrier, serve, client)
    assert ends == [(ConnectionBroken, CloseReason(1006))]


async def test_terminate(carrier: str, autojump_clock: MockClock) -> None:
    """The handler is cancelled, with its tasks; the client sees no goodbye."""
    ended: list[str] = []

    async def stay(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)

    async def serve(session: WebSocketSession) -> None:
        session.start_soon(stay, "a task")
        await session.receive()
        session.terminate()
        await stay("the handler")

    async def client(session: Any) -> None:
        await session.send("x")
        with pytest.raises(ConnectionBroken):
            await session.receive()
        assert session.close_reason == CloseReason(expected("terminate, the client's end", carrier))

    await converse(carrier, serve, client)
    assert sorted(ended) == ["a task", "the handler"]


async def test_a_message_that_is_too_big(carrier: str, autojump_clock: MockClock) -> None:
    """1009, and a broken end for the handler."""
    causes: list[BaseException | None] = []

    async def serve(session: WebSocketSession) -> None:
        try:
            await session.receive()
        except ConnectionBroken as error:
            causes.append(error.__cause__)

    async def client(session: Any) -> None:
        await session.send("x" * 101)
        with pytest.raises(trio.EndOfChannel):
            await session.receive()
        assert session.close_reason == CloseReason(expected("a message that is too big, the client's end", carrier))

    await converse(carrier, serve, client, max_frame_size=100)
    assert [type(cause).__name__ for cause in causes] == ["FrameTooBig"]


async def test_a_peer_that_does_not_answer_our_close(carrier: str, autojump_clock: MockClock) -> None:
    """`aclose` returns after `close_timeout`."""
    took: list[float] = []

    async def serve(session: WebSocketSession) -> None:
        await session.receive()
        began = trio.current_time()
        await session.aclose(4001)
        took.append(trio.current_time() - began)

    async def client(session: Any) -> None:
        await session.send("x")
        for number in range(200):  # its queue is full: it does not read the Close
            await session.send(str(number) * 1000)
        await trio.sleep(60)

    app = application(serve, close_timeout=2, incoming=1)
    async with CARRIERS[carrier](app) as dial, dial(incoming=1, outgoing=1000) as session:
        await client(session)
    assert len(took) == 1
    assert took[0] <= 13


async def test_channels(carrier: str, autojump_clock: MockClock) -> None:
    """`incoming` and `outgoing` are Trio's; they end as everywhere."""

    async def serve(session: WebSocketSession) -> None:
        async for frame in session.incoming:
            await session.outgoing.send(frame)
        assert session.close_reason == CloseReason(1000)

    async def client(session: Any) -> None:
        for number in range(200):
            await session.send(str(number))
        for number in range(200):
            assert await session.receive_text() == str(number)

    await converse(carrier, serve, client)


async def test_cancelled_calls_lose_nothing(carrier: str, autojump_clock: MockClock) -> None:
    """Nor repeat, nor tear: sends and receives that are cut short at random."""
    accepted: list[str] = []
    received: list[str] = []

    async def serve(session: WebSocketSession) -> None:
        for number in range(200):
            with trio.move_on_after(0.001 * (number % 3)):
                await session.send(str(number) * 50)
                accepted.append(str(number) * 50)
        while len(received) < 100:
            with trio.move_on_after(0.01):
                await session.receive()
                received.append("one")

    heard: list[str] = []

    async def client(session: Any) -> None:
        for _ in range(100):
            await session.send("one")
            await trio.sleep(0.003)
        heard.extend([frame.text async for frame in session])

    await converse(carrier, serve, client)
    assert heard == accepted
    assert len(received) == 100


async def test_two_tasks_keep_their_order(carrier: str, autojump_clock: MockClock) -> None:
    """What one send returned from goes before what began after it."""

    async def serve(session: WebSocketSession) -> None:
        async def say(name: str) -> None:
            for number in range(100):
                await session.send(f"{name}{number}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, "a")
            nursery.start_soon(say, "b")

    async def client(session: Any) -> None:
        texts = [frame.text async for frame in session]
        for name in "ab":
            assert [text for text in texts if text[0] == name] == [f"{name}{number}" for number in range(100)]

    await converse(carrier, serve, client)


async def test_messages_in_pieces(carrier: str, autojump_clock: MockClock) -> None:
    """They come whole where the carrier joins them; either way the same bytes."""

    async def serve(session: WebSocketSession) -> None:
        message = await session.receive_message()
        received = "".join([str(piece) async for piece in message])
        async with session.message(FrameType.TEXT) as out:
            for letter in received:
                await out.send(letter)

    async def client(session: Any) -> None:
        async with session.message(FrameType.TEXT) as out:
            for letter in "pieces":
                await out.send(letter)
        assert await session.receive_text() == "pieces"

    await converse(carrier, serve, client)


async def test_pieces_that_are_joined_are_bounded(
    carrier: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Where they are not, a message may be of any size."""
    ended: list[str] = []

    async def serve(session: WebSocketSession) -> None:
        try:
            async with session.message(FrameType.BINARY) as out:
                for _ in range(50):
                    await out.send(bytes(10))
        except ConnectionClosed as error:
            ended.append(type(error).__name__)
            raise
        ended.append("sent")

    app = application(serve, max_frame_size=100)
    async with CARRIERS[carrier](app) as dial, dial() as session:
        received = sum([len(frame.data) async for frame in session]) if carrier == "bytes" else 0
        await session.wait_closed()
    is_joined = carrier != "bytes"
    assert ended == ["ConnectionBroken" if is_joined else "sent"]
    assert received == (0 if is_joined else 500)
    told = [record for record in caplog.records if "longer than max_frame_size, 100 bytes" in record.getMessage()]
    assert len(told) == is_joined


async def test_rooms(carrier: str, autojump_clock: MockClock) -> None:
    """A broadcast reaches sessions over it, and waits for none."""
    room = Room()

    async def serve(session: WebSocketSession) -> None:
        with room.join(session):
            async for frame in session:
                await room.broadcast(frame)

    app = application(serve)
    async with CARRIERS[carrier](app) as dial, dial() as first, dial() as second:
        await trio.testing.wait_all_tasks_blocked()
        await first.send("to all")
        assert await first.receive_text() == await second.receive_text() == "to all"


async def test_pings(carrier: str, autojump_clock: MockClock) -> None:
    """Where they are not shown, that is said at the call; the client's are answered all the same."""
    told: list[object] = []

    async def serve(session: WebSocketSession) -> None:
        try:
            told.append(await session.ping() >= 0)
        except NotSupported:
            told.append(False)
            with pytest.raises(NotSupported):
                session.ping_interval = 5
            with pytest.raises(NotSupported):
                session.send_nowait(Frame.Ping())
            with pytest.raises(NotSupported):
                session.masking = True
            session.ping_interval = None
        await echo(session)

    async def client(session: Any) -> None:
        assert await session.ping() >= 0
        await session.send("still there")
        assert await session.receive_text() == "still there"

    await converse(carrier, serve, client)
    assert told == [expected("Pings", carrier)]


async def test_the_servers_end(carrier: str, autojump_clock: MockClock) -> None:
    """Cancelled: every session says 1001 within a second, where it still can."""
    seen: list[CloseReason | None] = []

    async def watch(dial: Dial, started: trio.Event) -> None:
        with trio.CancelScope(shield=True):
            try:
                async with dial() as session:
                    started.set()
                    await session.receive()
            except (trio.EndOfChannel, ConnectionBroken):
                seen.append(session.close_reason)

    app = application(echo)
    async with trio.open_nursery() as clients, CARRIERS[carrier](app) as dial:
        started = trio.Event()
        clients.start_soon(watch, dial, started)
        await started.wait()
        await trio.testing.wait_all_tasks_blocked()
    assert len(seen) == 1
    assert seen[0] is not None
    assert seen[0].code in expected("what the server's end says", carrier)


async def test_back_pressure(carrier: str, autojump_clock: MockClock) -> None:
    """A handler that does not read stops the peer, within what the queues hold; nothing is lost."""
    got: list[int] = []

    async def serve(session: WebSocketSession) -> None:
        await trio.sleep(10)
        got.extend([len(frame.data) async for frame in session])

    async def client(session: Any) -> None:
        for _ in range(300):
            await session.send(b"x" * 1000)

    await converse(carrier, serve, client, incoming=4, handler_grace=None)
    assert got == [1000] * 300


@pytest.mark.parametrize("carrier", ["asgi", "trio-websocket"])
def test_what_a_carrier_cannot_do_is_refused_at_once(carrier: str) -> None:
    """One error names every route and setting; without them it is taken."""

    async def handler(session: object) -> None:
        raise AssertionError

    app = application(handler, "/fine")
    supports = {"asgi": ASGI, "trio-websocket": TRIO_WEBSOCKET}[carrier]
    app.registry.check(supports)
    app.websocket("/pings", handler, ping_period=20, masking=True)
    app.websocket("/small", handler, extensions=[PerMessageDeflate()])
    app.websocket_raw("/raw", handler)
    for check in (lambda: app.registry.check(supports), lambda: trio_websocket_handler(app)):
        with pytest.raises(ValueError, match="cannot do") as caught:
            check()
        for what in (
            "ping_period of '/pings'",
            "masking of '/pings'",
            "extensions of '/small'",
            "websocket_raw of '/raw'",
        ):
            assert what in str(caught.value)
        assert "/fine" not in str(caught.value)
    app.registry.check(EVERYTHING)


async def test_statistics_and_latency(carrier: str, autojump_clock: MockClock) -> None:
    """They count the frames, and the bytes that those are on the wire of ours; latency needs Pings."""
    seen: list[Any] = []
    at_rest: list[Any] = []

    async def serve(session: WebSocketSession) -> None:
        at_rest.append((session.latency, session.statistics().frames_received))
        async for frame in session:
            await session.send(frame)
            await session.flush()
            seen.append(session.statistics())

    async def client(session: Any) -> None:
        for text in ("a" * 10, "b" * 20):
            await session.send(text)
            assert Frame.Text(text) == await session.receive()

    await converse(carrier, serve, client)
    assert at_rest == [(None, 0)]
    assert [(1, 1), (2, 2)] == [(one.frames_received, one.frames_sent) for one in seen]
    assert all(one.latency is None and (one.incoming, one.outgoing) == (0, 0) for one in seen)
    assert [(10 + 6, 10 + 2), (30 + 12, 30 + 4)] == [(one.bytes_received, one.bytes_sent) for one in seen]


async def test_a_flush_waits_until_it_was_taken(carrier: str, autojump_clock: MockClock) -> None:
    """By the system, or by the server."""
    flushed: list[float] = []

    async def serve(session: WebSocketSession) -> None:
        frames = [Frame.Binary(bytes(1000)) for _ in range(3)]
        for frame in frames:
            session.outgoing.send_nowait(frame)
        await session.flush()
        assert session.statistics().frames_sent == 3
        assert session.statistics().outgoing == 0
        flushed.append(trio.current_time())

    async def client(session: Any) -> None:
        assert 3 == len([frame async for frame in session])

    await converse(carrier, serve, client)
    assert len(flushed) == 1


async def test_a_header_of_the_handlers(carrier: str, autojump_clock: MockClock) -> None:
    """It goes out with the 101, or the error says that that is too late."""
    told: list[bool] = []

    async def serve(session: WebSocketSession) -> None:
        try:
            session.call.response_headers.append("X-Mine", "1")
        except RuntimeError:
            told.append(False)
        else:
            told.append(True)

    async def client(session: Any) -> None:
        await session.wait_closed()
        if carrier != "asgi":  # its server in memory passes no headers on
            assert ("x-mine" in session.response.headers) is told[0]

    await converse(carrier, serve, client)
    assert [expected("a handler adds to the 101", carrier)] == told
