"""Bounded queues: waiting for room, or the end; nothing that was accepted is lost."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.support.helpers import RawClient, application, client_bytes, close, connected, connected_raw
from trioktor import (
    CLOSE,
    SUSPEND,
    ChannelConfig,
    ChannelOverflow,
    CloseReason,
    ConnectionBroken,
    Frame,
    RawWebSocketSession,
    WebSocketSession,
)
from trioktor.testing import handle_websocket_conversation

Clock = trio.testing.MockClock
Session = WebSocketSession

CLOSING = ChannelConfig(1, on_overflow=CLOSE)


async def echo(session: Session | RawWebSocketSession) -> None:
    """Send everything back."""
    async for frame in session:
        await session.send(frame)


async def test_queues_of_one_frame_lose_nothing(autojump_clock: Clock) -> None:
    """T401: a hundred messages through queues of one, all back in order."""
    app = application(echo, incoming=ChannelConfig(1, on_overflow=SUSPEND), outgoing=ChannelConfig(1))
    async with handle_websocket_conversation(app, "/") as (incoming, outgoing), trio.open_nursery() as nursery:

        async def talk() -> None:
            for number in range(1, 101):
                await outgoing.send(f"message {number}")

        nursery.start_soon(talk)
        for number in range(1, 101):
            assert f"message {number}" == (await incoming.receive()).text


async def test_raw_queues_of_one_frame_lose_nothing(autojump_clock: Clock) -> None:
    """T401, raw."""
    async with connected_raw(echo, incoming=1, outgoing=1) as (client, _):
        frames: list[Frame] = [Frame.Text(f"message {number}") for number in range(100)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, *frames)
            assert frames == [await client.receive() for _ in range(100)]


@pytest.mark.parametrize("raw", [False, True])
async def test_input_that_overflows_is_the_end(autojump_clock: Clock, raw: bool) -> None:
    """T403: 1008 to the peer; the handler gets what was accepted, and then the broken end says why."""
    seen: list[object] = []

    async def handler(session: Session | RawWebSocketSession) -> None:
        await trio.sleep(10)
        try:
            async for frame in session:
                seen.append(frame.data)
        except ConnectionBroken as error:
            seen.append(type(error.__cause__))

    connect = connected_raw if raw else connected
    config = ChannelConfig(3, on_overflow=CLOSE)
    async with connect(handler, incoming=config, handler_grace=None) as (client, sessions):
        await client.send(*[Frame.Text(str(number)) for number in range(100)])
        assert [close(1008)] == await client.receive_rest()
    assert [b"0", b"1", b"2", ChannelOverflow] == seen
    assert CloseReason(1008) == sessions[0].close_reason


async def test_input_bytes_overflow_too(autojump_clock: Clock) -> None:
    """`max_queued_bytes` bounds what waits, however few frames that is."""
    seen: list[object] = []

    async def handler(session: Session) -> None:
        await trio.sleep(10)
        try:
            async for frame in session:
                seen.append(len(frame.data))
        except ConnectionBroken as error:
            seen.append(type(error.__cause__))

    config = ChannelConfig(64, on_overflow=CLOSE)
    async with connected(handler, incoming=config, max_queued_bytes=1000, handler_grace=None) as (client, _):
        await client.send(*[Frame.Binary(bytes(400)) for _ in range(10)])
        assert close(1008) == await client.receive()
    assert [400, 400, 400, ChannelOverflow] == seen


async def test_an_end_while_a_message_waits_for_the_channel_is_nobodys_failure(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What is in the channel is still there for the handler, which is not cancelled."""
    seen: list[object] = []

    async def handler(session: Session) -> None:
        incoming = session.incoming
        await trio.sleep(1)
        await session.outgoing.send(123)  # type: ignore[arg-type]  # the end
        await trio.sleep(1)
        seen.extend([frame.text async for frame in incoming])

    async with connected(handler, incoming=ChannelConfig(1)) as (client, _):
        await client.send(*map(Frame.Text, "abc"))
        assert close(1011) == await client.receive()
    assert ["a"] == seen
    assert ["what may not be sent was put into outgoing" in record.getMessage() for record in caplog.records] == [True]


async def deaf(app_handler: object, **settings: object) -> list[Frame]:
    """What a client gets that upgrades, takes nothing for a minute, and reads everything then."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    client = RawClient(ours)
    app = application(app_handler, write_timeout=None, **settings)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.handle_stream, theirs)
        await client.upgrade()
        await trio.sleep(60)
        frames = []
        while (frame := await client.receive()) is not None:
            frames.append(frame)
            if isinstance(frame, Frame.Close):
                break
        await client.aclose()
    return frames


@pytest.mark.parametrize("form", ["send", "send_nowait", "outgoing", "message"])
async def test_output_that_overflows_is_the_end(autojump_clock: Clock, form: str) -> None:
    """T402: 1013 behind everything that was accepted; the sender sees ChannelOverflow."""
    accepted: list[str] = []
    causes: list[object] = []

    async def handler(session: Session) -> None:
        try:
            for number in range(100):
                text = f"{number} " + "x" * 70_000
                if form == "send":
                    await session.send(text)
                elif form == "send_nowait":
                    session.send_nowait(text)
                    await trio.lowlevel.checkpoint()
                elif form == "outgoing":
                    await session.outgoing.send(text)
                else:
                    async with session.message(Frame.Text.type) as message:
                        await message.send(text)
                accepted.append(text)
        except (ConnectionBroken, trio.BrokenResourceError) as error:
            causes.append(error.__cause__)
            raise

    frames = await deaf(handler, outgoing=ChannelConfig(2, on_overflow=CLOSE), max_queued_bytes=10 << 20)
    if form == "outgoing":  # who uses the channel itself waits, until the writer looks
        assert close(1013) == frames[-1]
        assert len(frames) - 1 >= len(accepted)
    elif form == "message":  # a message of its own waits for the one before; no overflow with a single task
        assert close(1000) == frames[-1]
        assert 100 == len(accepted)
    else:
        assert [Frame.Text(text) for text in accepted] + [close(1013)] == frames
        assert [ChannelOverflow] == [type(cause) for cause in causes]


async def test_the_sender_that_finds_no_room_is_told_at_the_call(autojump_clock: Clock) -> None:
    """And the bytes that wait count as the frames do."""
    raised: list[BaseException] = []

    async def handler(session: Session) -> None:
        try:
            while True:
                await session.send(bytes(1000))
        except ConnectionBroken as error:
            raised.append(error)
            raise

    frames = await deaf(handler, outgoing=ChannelConfig(1000, on_overflow=CLOSE), max_queued_bytes=100_000)
    assert isinstance(raised[0].__cause__, ChannelOverflow)
    assert close(1013) == frames[-1]
    assert 100 < len(frames) < 400


async def test_send_nowait_and_receive_nowait(autojump_clock: Clock) -> None:
    """The twins without a checkpoint: they do it, or raise WouldBlock and have done nothing."""

    async def handler(session: Session) -> None:
        with pytest.raises(trio.WouldBlock):
            session.receive_nowait()
        frame = await session.receive()
        count = 0
        with pytest.raises(trio.WouldBlock):
            while True:
                session.send_nowait(frame)
                count += 1
        assert 3 <= count <= 5
        await session.flush()
        session.send_nowait(str(count))
        await trio.sleep(1)
        assert "second" == session.receive_nowait().text

    async with connected(handler, outgoing=3) as (client, _):
        await client.send(Frame.Text("first"))
        await trio.testing.wait_all_tasks_blocked()
        await client.send(Frame.Text("second"))
        frames = await client.receive_rest()
        assert close(1000) == frames[-1]
        assert Frame.Text(str(len(frames) - 2)) == frames[-2]


async def test_after_the_end_the_twins_say_so(autojump_clock: Clock) -> None:
    """EndOfChannel at a clean end, ConnectionClosed on sending."""

    async def handler(session: Session) -> None:
        await trio.sleep(1)
        assert "last" == session.receive_nowait().text
        with pytest.raises(trio.EndOfChannel):
            session.receive_nowait()
        with pytest.raises(ConnectionBroken if session.close_reason == CloseReason(1006) else trio.BrokenResourceError):
            session.send_nowait("too late")

    async with connected(handler, answer_grace=0) as (client, _):
        await client.send_bytes(client_bytes(Frame.Text("last"), close(1000)))
        assert close(1000) == await client.receive()
