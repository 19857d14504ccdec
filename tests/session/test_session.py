"""`WebSocketSession` in messages: of one kind, in pieces, as values; and its keepalive."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.doors import LITTLE, PEER, Door, Wire, asking
from tests.support.helpers import RawClient, application, close, connected, masked
from tests.support.listening import talking
from tests.support.slow import stuck
from trioktor import (
    CloseReason,
    ConnectionBroken,
    ConnectionClosed,
    ConverterNotFound,
    DeserializationError,
    Frame,
    FrameType,
    JsonConverter,
    NotSupported,
    UnexpectedFrame,
    WebSocketSession,
)
from trioktor.errors import ConnectionClosedHere
from trioktor.protocol.control import MAX_CONTROLS
from trioktor.protocol.errors import FrameTooBig
from trioktor.server.foreign import ForeignHost

Clock = MockClock

# messages of one kind


async def test_text_and_bytes_are_received_as_such(autojump_clock: Clock) -> None:
    """An empty one is one."""
    seen: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        seen.extend([await session.receive_text(), await session.receive_bytes()])
        seen.extend([await session.receive_text(), await session.receive_bytes()])

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("h\xe9llo"), Frame.Binary(b"\x00"), Frame.Text(""), Frame.Binary(b""))
        await client.receive_rest()
    assert seen == ["h\xe9llo", b"\x00", "", b""]


async def test_a_message_of_the_other_kind_is_unexpected_and_consumed(autojump_clock: Clock) -> None:
    """The next call has the next."""
    seen: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises(UnexpectedFrame):
            await session.receive_text()
        with pytest.raises(UnexpectedFrame, match="expected a BINARY frame, got TEXT"):
            await session.receive_bytes()
        seen.extend([await session.receive_text(), await session.receive_bytes()])

    async with connected(handler) as (client, _):
        await client.send(Frame.Binary(b"1"), Frame.Text("2"), Frame.Text("3"), Frame.Binary(b"4"))
        await client.receive_rest()
    assert seen == ["3", b"4"]


@pytest.mark.parametrize("is_clean", [True, False])
async def test_either_ends_as_receive_does(is_clean: bool, autojump_clock: Clock) -> None:
    """So does receiving in pieces."""

    async def handler(session: WebSocketSession) -> None:
        for call in (session.receive_text, session.receive_bytes, session.receive_message):
            with pytest.raises(trio.EndOfChannel if is_clean else ConnectionBroken):
                await call()

    async with connected(handler, answer_grace=5) as (client, _):
        if is_clean:
            await client.send(close(1000))
            await client.receive_rest()
        else:
            await client.aclose()
            await trio.sleep(1)


# control frames


async def test_pings_and_pongs_go_ahead_of_what_is_queued(autojump_clock: Clock) -> None:
    """And Pings are answered without the handler, which sees none of them."""
    seen: list[Frame] = []

    async def handler(session: WebSocketSession) -> None:
        session.outgoing.send_nowait("queued")
        session.outgoing.send_nowait(Frame.Ping(b"first"))
        session.outgoing.send_nowait(Frame.Pong(b"second"))
        await session.send(Frame.Ping(b"ping"))
        session.send_nowait(Frame.Pong(b"pong"))
        async for frame in session:
            seen.append(frame)

    async with connected(handler) as (client, _):
        frames = [await client.receive() for _ in range(5)]
        ahead = [Frame.Ping(b"ping"), Frame.Pong(b"pong"), Frame.Ping(b"first"), Frame.Pong(b"second")]
        assert frames == [*ahead, Frame.Text("queued")]
        await client.send(Frame.Pong(b"ping"), Frame.Ping(b"theirs"), Frame.Text("seen"))
        assert await client.receive() == Frame.Pong(b"theirs")
        await client.send(close(1000))
        await client.receive_rest()
    assert seen == [Frame.Text("seen")]


async def test_control_frames_that_nobody_takes_are_waited_for(autojump_clock: Clock) -> None:
    """So many are held, and no more; none is lost, or passes another."""
    sent: list[bytes] = []

    async def handler(session: WebSocketSession) -> None:
        with trio.move_on_after(10):
            for number in range(1000):
                await session.send(Frame.Pong(b"%d" % number))
                sent.append(b"%d" % number)
        with pytest.raises(trio.WouldBlock):
            session.send_nowait(Frame.Ping(b"too many"))

    async with stuck(handler, outgoing=8, write_timeout=None) as (stream, _):
        await trio.sleep(20)
        client = RawClient(stream)
        assert [Frame.Pong(data) for data in sent] == [await client.receive() for _ in sent]
        assert await client.receive() == close(1000)
        await client.aclose()
    assert len(sent) == MAX_CONTROLS


async def test_who_sends_a_message_in_pieces_does_not_wait_behind_it(autojump_clock: Clock) -> None:
    """With control frames: what others have queued stands behind the message, which would never end."""
    sent: list[int] = []

    async def others(session: WebSocketSession) -> None:
        for _ in range(5):
            await session.send("from others")

    async def handler(session: WebSocketSession) -> None:
        async with trio.open_nursery() as nursery, session.message(FrameType.TEXT) as message:
            await message.send("begun")
            nursery.start_soon(others, session)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(3 * MAX_CONTROLS):
                await session.send(Frame.Pong(b""))
                sent.append(number)

    async with stuck(handler, outgoing=2, write_timeout=None) as (stream, _):
        await trio.testing.wait_all_tasks_blocked()
        client = RawClient(stream)
        frames = await client.receive_rest()
        await client.aclose()
    assert len(sent) == frames.count(Frame.Pong(b"")) == 3 * MAX_CONTROLS
    assert [frame for frame in frames if isinstance(frame, Frame.Text)] == [
        Frame.Text("begun"),
        *[Frame.Text("from others")] * 5,
    ]


@pytest.mark.parametrize("reason", [None, CloseReason(4000, "mine")])
async def test_a_close_frame_that_is_sent_is_a_close(reason: CloseReason | None, autojump_clock: Clock) -> None:
    """Behind what is queued; nothing more is accepted, be it a control frame."""

    async def handler(session: WebSocketSession) -> None:
        await session.send("before")
        await session.send(Frame.Close(reason))
        for late in ("late", Frame.Ping(b"late"), Frame.Pong(b"late")):
            with pytest.raises(ConnectionClosedHere):
                await session.send(late)

    async with connected(handler) as (client, _):
        assert [await client.receive() for _ in range(2)] == [Frame.Text("before"), Frame.Close(reason)]
        await client.send(close(1000))
        assert await client.receive() is None


async def test_a_close_frame_with_a_code_that_may_not_be_sent_is_refused(autojump_clock: Clock) -> None:
    """The conversation goes on."""

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises(ValueError, match="1006"):
            await session.send(Frame.Close(CloseReason(1006)))
        await session.send("as before")

    async with connected(handler) as (client, _):
        assert [await client.receive() for _ in range(2)] == [Frame.Text("as before"), close(1000)]


# messages in pieces


async def test_what_is_no_kind_of_message_is_refused_at_the_call(autojump_clock: Clock) -> None:
    """Before anything is queued."""

    async def handler(session: WebSocketSession) -> None:
        for kind in (FrameType.PING, FrameType.CLOSE, "text", None):
            with pytest.raises(ValueError, match=r"FrameType\.TEXT or FrameType\.BINARY"):
                session.message(kind)  # type: ignore[arg-type]
        async with session.message(FrameType.BINARY) as message:
            await message.send(b"as before")

    async with connected(handler) as (client, _):
        assert [await client.receive() for _ in range(2)] == [Frame.Binary(b"as before"), close(1000)]


async def test_a_message_in_pieces_behind_the_end_is_refused_on_entering(autojump_clock: Clock) -> None:
    """The block does not run."""

    async def handler(session: WebSocketSession) -> None:
        session.close()
        with pytest.raises(ConnectionClosedHere):
            async with session.message(FrameType.TEXT):
                raise AssertionError("it ran")

    async with connected(handler) as (client, _):
        assert await client.receive() == close(1000)


async def test_pieces_are_what_arrived(autojump_clock: Clock) -> None:
    """As large as a read, however long the message is; nothing of it is lost."""
    sizes: list[int] = []
    size = 1 << 20

    async def handler(session: WebSocketSession) -> None:
        message = await session.receive_message()
        sizes.extend([len(piece) async for piece in message])
        await session.send(f"{message.size}")

    async with connected(handler) as (client, _):
        await client.send_bytes(masked(0x82, bytes(size)))
        assert await client.receive() == Frame.Text(str(size))
    assert sum(sizes) == size
    assert 1 << 15 < max(sizes) <= (1 << 16) + 14
    assert len(sizes) <= 20


async def test_the_rest_of_a_message_is_gone_when_the_next_is_asked_for(autojump_clock: Clock) -> None:
    """Whoever still has it is told."""
    seen: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        first = await session.receive_message()
        second = await session.receive_message()
        seen.append([piece async for piece in second])
        seen.append(await first.receive())  # it had that much
        with pytest.raises(trio.ClosedResourceError):
            await first.receive()

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("a", fin=False))
        await trio.sleep(1)
        await client.send_bytes(masked(0x00, b"b"))
        await trio.sleep(1)
        await client.send_bytes(masked(0x80, b"c"))
        await client.send(Frame.Text("next"))
        await client.receive_rest()
    assert seen == [["next"], "a"]


async def test_a_message_in_pieces_ends_with_its_last(autojump_clock: Clock) -> None:
    """For whoever asks, and as often as that; the next message is another."""
    seen: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        message = await session.receive_message()
        seen.append([piece async for piece in message])
        for _ in range(2):
            with pytest.raises(trio.EndOfChannel):
                await message.receive()
        seen.append((message.size, message.is_complete))
        seen.append(await session.receive())

    async with connected(handler) as (client, _):
        for data in (masked(0x02, b"a"), masked(0x00, b"bc"), masked(0x80, b"")):
            await client.send_bytes(data)
            await trio.sleep(1)
        await client.send(Frame.Text("next"))
        await client.receive_rest()
    assert seen == [[b"a", b"bc"], (3, True), Frame.Text("next")]


@pytest.mark.parametrize("way", ["receive", "receive_message"])
async def test_the_first_answer_to_all_there_is_goes_straight_out(way: str) -> None:
    """To the system, in the step of the call."""
    sizes: list[int] = []

    async def handler(session: WebSocketSession) -> None:
        for _ in range(2):
            await (session.receive() if way == "receive" else session.receive_message())
            before = session.statistics().bytes_sent
            session.send_nowait(b"12345678")
            sizes.append(session.statistics().bytes_sent - before)

    async with talking(handler) as (client, _):
        for _ in range(2):
            await client.send(Frame.Text("question"))
            assert await client.receive() == Frame.Binary(b"12345678")
    assert sizes == [10, 10]


async def test_a_cancelled_receive_message_has_taken_nothing(autojump_clock: Clock) -> None:
    """Though a message is there."""
    seen: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        await trio.sleep(1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await session.receive_message()
        assert scope.cancelled_caught
        seen.append([piece async for piece in await session.receive_message()])

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("one"))
        await client.receive_rest()
    assert seen == [["one"]]


@pytest.mark.parametrize("way", ["receive", "receive_nowait"])
async def test_whole_messages_are_joined_once_they_come_in_pieces(way: str, autojump_clock: Clock) -> None:
    """Within the limit; one beyond it is the end, with 1009, and says what was too big."""

    async def handler(session: WebSocketSession) -> None:
        await (await session.receive_message()).skip()
        await trio.sleep(1)
        frame = await session.receive() if way == "receive" else session.receive_nowait()
        assert frame == Frame.Binary(bytes(10))
        with pytest.raises(ConnectionBroken) as broken:
            await session.receive() if way == "receive" else session.receive_nowait()
        assert isinstance(broken.value.__cause__, FrameTooBig)
        assert broken.value.close_reason == CloseReason(1009)

    async with connected(handler, max_frame_size=10) as (client, _):
        await client.send(Frame.Binary(bytes(10)), Frame.Binary(bytes(5), fin=False))
        await client.send_bytes(masked(0x80, bytes(5)))
        await client.send(Frame.Binary(bytes(5), fin=False))
        await client.send_bytes(masked(0x80, bytes(6)))
        assert await client.receive() == close(1009)


# values


async def test_values_go_both_ways(autojump_clock: Clock) -> None:
    """As the converter says and reads them."""

    async def handler(session: WebSocketSession) -> None:
        value = await session.receive_deserialized(dict[str, int])
        await session.send_serialized({"twice": 2 * value["once"]})

    async with connected(handler, content_converter=JsonConverter()) as (client, _):
        await client.send(Frame.Text('{"once": 21}'))
        answer = await client.receive()
        assert answer is not None
        assert answer.text.replace(" ", "") == '{"twice":42}'


class TextOnly:
    """Numbers as Text; reads no Binary."""

    def serialize(self, value: object) -> Frame:
        """The frame of a number."""
        return Frame.Text(str(value))

    def deserialize(self, frame: Frame, kind: Any) -> Any:
        """The number of a frame."""
        try:
            return kind(frame.text)
        except ValueError as error:
            raise DeserializationError("no number", frame) from error

    def is_applicable(self, frame: Frame) -> bool:
        """Whether it reads this."""
        return isinstance(frame, Frame.Text)


@pytest.mark.parametrize("sent", [Frame.Text("no number"), Frame.Binary(b"1")], ids=repr)
async def test_a_message_that_is_not_the_value_is_consumed(sent: Frame, autojump_clock: Clock) -> None:
    """Or that the converter does not read; the error has it, and the next is read."""
    seen: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises(DeserializationError) as error:
            await session.receive_deserialized(int)
        seen.extend([error.value.frame, await session.receive_deserialized(int)])

    async with connected(handler, content_converter=TextOnly()) as (client, _):
        await client.send(sent, Frame.Text("7"))
        await client.receive_rest()
    assert seen == [sent, 7]


async def test_without_a_converter_nothing_is_sent_or_consumed(autojump_clock: Clock) -> None:
    """The error says what to install."""
    seen: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises(ConverterNotFound, match="content_converter="):
            await session.send_serialized(1)
        with pytest.raises(ConverterNotFound):
            await session.receive_deserialized(int)
        seen.append(await session.receive_text())

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("still there"))
        assert await client.receive_rest() == [close(1000)]
    assert seen == ["still there"]


async def test_a_value_that_cannot_be_said_is_an_error_at_the_call(autojump_clock: Clock) -> None:
    """The conversation goes on."""

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises((TypeError, ValueError)):
            await session.send_serialized(object())
        deep: list[object] = []
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(ValueError, match="nested too deep"):
            await session.send_serialized(deep)
        while deep:  # or freeing it would go as deep
            deep = deep.pop()  # type: ignore[assignment]
        await session.send_serialized("as before")

    async with connected(handler, content_converter=JsonConverter()) as (client, _):
        assert [await client.receive() for _ in range(2)] == [Frame.Text('"as before"'), close(1000)]


# keepalive


@pytest.mark.parametrize("end", ["ours", "theirs"])
async def test_a_ping_behind_the_end_raises_and_is_a_checkpoint(end: str, autojump_clock: Clock) -> None:
    """As sending does; none goes out."""

    async def handler(session: WebSocketSession) -> None:
        if end == "ours":
            session.close()
        else:
            await session.wait_closed()
        with pytest.raises(ConnectionClosed) as closed, trio.testing.assert_checkpoints():
            await session.ping()
        assert isinstance(closed.value, ConnectionClosedHere) == (end == "ours")

    async with connected(handler, handler_grace=None, answer_grace=0) as (client, _):
        if end == "theirs":
            await client.send(close(1000))
        assert await client.receive_rest() == [close(1000)]


async def test_a_ping_that_was_cancelled_is_forgotten(autojump_clock: Clock) -> None:
    """Its Pong, when it comes, is nobody's; its bytes may be sent again."""
    trips: list[float] = []

    async def handler(session: WebSocketSession) -> None:
        with trio.move_on_after(1) as scope:
            await session.ping(b"mine")
        assert scope.cancelled_caught
        await trio.sleep(2)
        assert session.latency is None
        trips.append(await session.ping(b"mine"))

    async with connected(handler) as (client, _):
        assert await client.receive() == Frame.Ping(b"mine")
        await trio.sleep(2)
        await client.send(Frame.Pong(b"mine"))
        assert await client.receive() == Frame.Ping(b"mine")
        await trio.sleep(3)
        await client.send(Frame.Pong(b"mine"))
        await client.receive_rest()
    assert trips == [pytest.approx(3)]


async def test_the_keepalive_is_that_of_the_settings_until_it_is_set(autojump_clock: Clock) -> None:
    """What makes no sense leaves it as it was; each of the two leaves the other alone."""

    async def handler(session: WebSocketSession) -> None:
        assert (session.ping_interval, session.timeout) == (20, 8)
        for wrong in (0, -1, "5"):
            with pytest.raises(ValueError, match="ping_period"):
                session.ping_interval = wrong  # type: ignore[assignment]
            with pytest.raises(ValueError, match="timeout"):
                session.timeout = wrong  # type: ignore[assignment]
        assert (session.ping_interval, session.timeout) == (20, 8)
        session.ping_interval = 30
        assert (session.ping_interval, session.timeout) == (30, 8)
        session.timeout = 9
        assert (session.ping_interval, session.timeout) == (30, 9)
        session.ping_interval = None
        assert (session.ping_interval, session.timeout) == (None, 9)

    async with connected(handler, ping_period=20, timeout=8) as (client, _):
        assert await client.receive_rest() == [close(1000)]


async def test_where_pings_do_not_show_there_is_no_keepalive(autojump_clock: Clock) -> None:
    """Each way to it is refused by name; to leave it off is nothing to be done."""
    refused: list[str] = []

    async def handler(session: WebSocketSession) -> None:
        session.ping_interval = None
        session.timeout = 5
        for value in (Frame.Ping(b""), Frame.Pong(b"")):
            with pytest.raises(NotSupported) as error:
                await session.send(value)
            refused.append(str(error.value))
        with pytest.raises(NotSupported) as error:
            await session.ping()
        refused.append(str(error.value))
        with pytest.raises(NotSupported) as error:
            session.ping_interval = 5
        refused.append(str(error.value))
        assert session.ping_interval is None
        await session.send("as before")

    door = Door(Wire())
    await ForeignHost(application(handler), LITTLE).converse(asking(), PEER, door)
    assert refused == [
        *["there is no Ping or Pong here: somebody does not show it"] * 2,
        *["there is no Ping here: somebody does not show it"] * 2,
    ]
    assert door.wire.heard == [Frame.Text("as before"), close(1000)]


async def test_the_latency_is_that_of_the_last_answer(autojump_clock: Clock) -> None:
    """Whoever asked for it."""
    seen: list[Any] = []

    async def handler(session: WebSocketSession) -> None:
        seen.append(session.latency)
        for _ in range(2):
            await session.ping()
            seen.append(session.latency)

    async with connected(handler) as (client, _):
        for seconds in (1, 2):
            ping = await client.receive()
            assert isinstance(ping, Frame.Ping)
            await trio.sleep(seconds)
            await client.send(Frame.Pong(ping.data))
        await client.receive_rest()
    assert seen == [None, pytest.approx(1), pytest.approx(2)]
