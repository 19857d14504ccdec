"""Raw routes: every frame as it came, nothing answered, nothing added."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from tests.support.helpers import client_bytes, close, connected_raw, records_above_info
from trioktor import (
    CloseReason,
    ConnectionBroken,
    ConnectionClosed,
    Frame,
    FrameTooBig,
    ProtocolError,
    RawWebSocketSession,
)

Clock = trio.testing.MockClock
Session = RawWebSocketSession


async def test_every_frame_shows_as_it_came(autojump_clock: Clock) -> None:
    """T111 raw: fragments keep the type of their message, control frames stand where they stood."""
    frames: list[Frame] = [
        Frame.Text("ABC", fin=False),
        Frame.Ping(b"ping"),
        Frame.Text("12", fin=False),
        Frame.Pong(b"unasked"),
        Frame.Text("3"),
        Frame.Binary(b"\x00"),
        close(1000, "bye"),
    ]
    seen: list[Frame] = []

    async def handler(session: Session) -> None:
        async for frame in session:
            seen.append(frame)

    async with connected_raw(handler) as (client, sessions):
        await client.send_bytes(
            client_bytes(frames[0], frames[1], frames[2], frames[3]) + client_bytes_continued(frames[4:])
        )
        assert await client.receive_rest() == []
    assert frames == seen
    assert CloseReason(1000, "bye") == sessions[0].close_reason


def client_bytes_continued(frames: list[Frame]) -> bytes:
    """Frames of which the first continues a Text message that is open."""
    opened = client_bytes(Frame.Text("", fin=False), *frames)
    return opened[len(client_bytes(Frame.Text("", fin=False))) :]


async def test_ping_is_visible_and_pong_is_the_handlers(autojump_clock: Clock) -> None:
    """T211: nobody but the handler answers."""

    async def handler(session: Session) -> None:
        frame = await session.receive()
        assert frame == Frame.Ping(b"smoke")
        await session.send(Frame.Pong(b"smoke"))
        await session.flush()
        session.terminate()
        await trio.sleep_forever()

    async with connected_raw(handler) as (client, sessions):
        await client.send(Frame.Ping(b"smoke"))
        assert [Frame.Pong(b"smoke")] == await client.receive_rest()
    assert CloseReason(1006) == sessions[0].close_reason


async def test_what_is_queued_goes_out_when_the_handler_returns_and_nothing_else(autojump_clock: Clock) -> None:
    """F17: flushed, and then the end of the stream."""

    async def handler(session: Session) -> None:
        for number in range(10):
            await session.send(str(number))

    async with connected_raw(handler) as (client, sessions):
        assert [Frame.Text(str(number)) for number in range(10)] == await client.receive_rest()
    assert CloseReason(1006) == sessions[0].close_reason
    assert sessions[0].close_sent is None


async def test_what_is_sent_keeps_its_order(autojump_clock: Clock) -> None:
    """A Ping between two fragments stays there; through `outgoing`, too."""
    frames: list[Frame] = [
        Frame.Text("a", fin=False),
        Frame.Ping(b"1"),
        Frame.Text("b", fin=False),
        Frame.Pong(b"2"),
        Frame.Text("c"),
        Frame.Ping(b"3"),
        close(4000, "last"),
    ]

    async def handler(session: Session) -> None:
        for number, frame in enumerate(frames):
            await (session.send(frame) if number % 2 else session.outgoing.send(frame))

    async with connected_raw(handler) as (client, sessions):
        await client.send(close(4000))
        received = await client.receive_rest()
        assert frames == received
    assert CloseReason(4000, "last") == sessions[0].close_sent


async def test_a_second_message_may_not_start_inside_a_fragmented_one(autojump_clock: Clock) -> None:
    """F72, W-22: refused at the call, and the message can go on."""

    async def handler(session: Session) -> None:
        await session.send(Frame.Text("one", fin=False))
        with pytest.raises(ProtocolError, match="finish the fragmented TEXT message first"):
            await session.send(b"other")
        await session.send(Frame.Text(" message"))

    async with connected_raw(handler) as (client, _):
        assert [Frame.Text("one", fin=False), Frame.Text(" message")] == await client.receive_rest()


async def test_through_outgoing_it_ends_the_conversation(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What may not be sent is 1011; what was queued before it goes out."""

    async def handler(session: Session) -> None:
        await session.outgoing.send(Frame.Text("one", fin=False))
        await session.outgoing.send(b"other")
        with pytest.raises(ConnectionBroken) as raised:
            await session.receive()
        assert isinstance(raised.value.__cause__, ProtocolError)

    async with connected_raw(handler) as (client, _):
        assert [Frame.Text("one", fin=False), close(1011)] == await client.receive_rest()
    assert [logging.ERROR] == [record.levelno for record in records_above_info(caplog)]


async def test_the_close_is_the_handlers_to_answer(autojump_clock: Clock) -> None:
    """T214: it comes as a frame, the answer is what the handler sends, and then `incoming` has ended."""

    async def handler(session: Session) -> None:
        async for frame in session:
            if isinstance(frame, Frame.Close):
                await session.send("before")
                await session.send(frame)
        with pytest.raises(ConnectionClosed):
            await session.send("after")

    async with connected_raw(handler) as (client, sessions):
        await client.send(close(1000, "over"))
        assert [Frame.Text("before"), close(1000, "over")] == await client.receive_rest()
    assert CloseReason(1000, "over") == sessions[0].close_reason == sessions[0].close_received == sessions[0].close_sent


async def test_a_close_of_ours_is_answered_or_times_out(autojump_clock: Clock) -> None:
    """The handler sees the peer's Close as a frame; without one it is a broken end after `close_timeout`."""
    for answers in (True, False):
        seen: list[object] = []

        async def handler(session: Session, seen: list[object] = seen) -> None:
            session.close(1001, "going")
            try:
                async for frame in session:
                    seen.append(frame)
            except ConnectionBroken as error:
                seen.append(type(error.__cause__).__name__)

        async with connected_raw(handler, close_timeout=7) as (client, sessions):
            assert close(1001, "going") == await client.receive()
            start = trio.current_time()
            if answers:
                await client.send(Frame.Text("late"), close(1001))
            assert [] == await client.receive_rest()
            assert (0 if answers else 7) == pytest.approx(trio.current_time() - start, abs=1)
        assert ([Frame.Text("late"), close(1001)] if answers else ["CloseTimeout"]) == seen
        assert CloseReason(1001, "going") == sessions[0].close_reason


async def test_the_end_of_the_peers_stream_leaves_the_other_direction(autojump_clock: Clock) -> None:
    """T212: `incoming` ends, and what the handler still has to say is heard."""

    async def handler(session: Session) -> None:
        with pytest.raises(ConnectionBroken):
            await session.receive()
        await trio.sleep(1)
        await session.send("you are not gone")
        await session.send(close(1000))

    async with connected_raw(handler) as (client, sessions):
        await client.stream.send_eof()
        assert [Frame.Text("you are not gone"), close(1000)] == await client.receive_rest()
    assert CloseReason(1006) == sessions[0].close_reason


async def test_last_words_are_bounded(autojump_clock: Clock) -> None:
    """A handler that stays on after the end of the input has `close_timeout`, then `handler_grace`."""
    ends: list[float] = []

    async def handler(session: Session) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ends.append(trio.current_time())

    async with connected_raw(handler, close_timeout=5, handler_grace=2) as (client, _):
        start = trio.current_time()
        await client.send(close(1000))
        assert [] == await client.receive_rest()
        assert trio.current_time() - start == pytest.approx(5, abs=0.6)
    assert ends[0] - start == pytest.approx(7, abs=0.6)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bytes.fromhex("8380 00000000"), 1002),
        (bytes.fromhex("8100"), 1002),
        (bytes.fromhex("c180 00000000"), 1002),
        (bytes.fromhex("8881 00000000 03"), 1002),
        (bytes.fromhex("8882 00000000 03ed"), 1002),
        (client_bytes(Frame.Binary(bytes(1025))), 1009),
    ],
    ids=["bad opcode", "unmasked", "rsv1", "one byte of a code", "1005", "too big"],
)
async def test_violations_are_answered_by_the_engine(autojump_clock: Clock, data: bytes, code: int) -> None:
    """T319, T609: what is no frame cannot be shown; the frames before it were."""
    seen: list[object] = []

    async def handler(session: Session) -> None:
        try:
            async for frame in session:
                seen.append(frame)
        except ConnectionBroken as error:
            seen.append(type(error.__cause__))

    async with connected_raw(handler, max_frame_size=1024) as (client, sessions):
        await client.send_bytes(client_bytes(Frame.Text("Foo"), Frame.Ping(b"")) + data)
        assert [close(code)] == await client.receive_rest()
    assert [Frame.Text("Foo"), Frame.Ping(b"")] == seen[:2]
    assert [FrameTooBig if code == 1009 else ProtocolError] == seen[2:]
    assert CloseReason(code) == sessions[0].close_reason


async def test_the_size_limit_is_a_frames_here(autojump_clock: Clock) -> None:
    """F62: fragments of together more than the limit are the handler's business."""
    sizes: list[int] = []

    async def handler(session: Session) -> None:
        async for frame in session.frames(Frame.Binary):
            sizes.append(len(frame.data))

    async with connected_raw(handler, max_frame_size=1024) as (client, _):
        await client.send(*[Frame.Binary(bytes(1024), fin=False)] * 3, Frame.Binary(bytes(1024)), close(1000))
        assert [] == await client.receive_rest()
    assert [1024] * 4 == sizes


async def test_a_failure_closes_with_1011(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A raw handler that raises has not answered on purpose: the peer is told, and others go on."""

    async def handler(session: Session) -> None:
        await session.receive()
        raise ValueError("a bug")

    async with connected_raw(handler, expect_failure=True) as (client, sessions):
        await client.send(Frame.Text("hello"))
        assert close(1011) == await client.receive()
        await client.send(close(1011))
        assert [] == await client.receive_rest()
    assert CloseReason(1011) == sessions[0].close_reason
    assert 1 == len(records_above_info(caplog))


async def test_no_pings_are_sent(autojump_clock: Clock) -> None:
    """Nobody but the handler sees Pongs, so nobody but the handler sends Pings."""

    async def handler(session: Session) -> None:
        await trio.sleep(100)

    async with connected_raw(handler, ping_period=1, timeout=1) as (client, _):
        assert [] == await client.receive_rest()


async def test_cancelled_from_outside_it_says_goodbye(autojump_clock: Clock) -> None:
    """As every session: 1001."""
    with trio.CancelScope() as scope:

        async def handler(session: Session) -> None:
            await session.receive()
            scope.cancel()
            await trio.sleep_forever()

        async with connected_raw(handler) as (client, _):
            with trio.CancelScope(shield=True):
                await client.send(Frame.Text("go"))
                assert [close(1001)] == await client.receive_rest()
    assert scope.cancelled_caught


async def test_text_is_not_checked_before_it_is_asked_for(autojump_clock: Clock) -> None:
    """Bytes that are no UTF-8 are the handler's to find."""
    seen: list[bytes] = []

    async def handler(session: Session) -> None:
        frame = await session.receive()
        seen.append(frame.data)
        with pytest.raises(UnicodeDecodeError):
            frame.text  # noqa: B018

    async with connected_raw(handler) as (client, _):
        await client.send_bytes(bytes.fromhex("8182 00000000 ffff"))
        assert [] == await client.receive_rest()
    assert [b"\xff\xff"] == seen


async def test_it_has_no_keepalive_and_no_messages() -> None:
    """What needs somebody who answers is not there."""
    for name in ("ping", "latency", "ping_interval", "timeout", "message", "receive_message", "receive_text"):
        assert not hasattr(RawWebSocketSession, name)
