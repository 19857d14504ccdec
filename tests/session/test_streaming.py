"""Messages in pieces, in both directions: order, back-pressure, cancellation, and the ends of it."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.extensions import Marking
from tests.support.helpers import (
    RawClient,
    application,
    client_bytes,
    close,
    connected,
    connected_raw,
    masked,
    records_above_info,
)
from trioktor import (
    CloseReason,
    ConnectionBroken,
    ConnectionClosed,
    Frame,
    FrameTooBig,
    FrameType,
    IncomingMessage,
    ProtocolError,
    WebSocketSession,
)
from trioktor.protocol.first_byte import RSV2
from trioktor.testing import handle_websocket_conversation, open_test_host

Clock = trio.testing.MockClock
Session = WebSocketSession


# sending


async def test_a_message_goes_out_in_pieces_as_it_comes(autojump_clock: Clock) -> None:
    """W-22: each piece is a fragment, on its way before the next one exists; leaving the block ends it."""
    next_piece = trio.Event()

    async def handler(session: Session) -> None:
        async with session.message(FrameType.TEXT) as message:
            await message.send("Hel")
            await next_piece.wait()
            await message.send("lo")
        await session.send("whole")

    async with connected(handler, show_fragments=True) as (client, _):
        assert Frame.Text("Hel", fin=False) == await client.receive()
        next_piece.set()
        received = [await client.receive() for _ in range(4)]
        assert [Frame.Text("lo", fin=False), Frame.Text(""), Frame.Text("whole"), close(1000)] == received


async def test_an_empty_message_is_a_whole_one(autojump_clock: Clock) -> None:
    """No piece at all, or empty ones, make one empty frame."""

    async def handler(session: Session) -> None:
        async with session.message(FrameType.BINARY) as message:
            await message.send(b"")

    async with connected(handler, show_fragments=True) as (client, _):
        assert [Frame.Binary(b""), close(1000)] == [await client.receive() for _ in range(2)]


async def test_a_piece_is_bytes_of_any_kind_and_each_is_a_checkpoint(autojump_clock: Clock) -> None:
    """An empty one, too, though nothing is sent for it."""
    pieces: list[Any] = [b"a", bytearray(b"b"), memoryview(b"c"), b""]

    async def handler(session: Session) -> None:
        async with session.message(FrameType.BINARY) as message:
            for piece in pieces:
                with trio.testing.assert_checkpoints():
                    await message.send(piece)

    async with open_test_host(application(handler)) as host, host.websocket("/") as (incoming, _):
        assert [b"abc"] == [frame.data async for frame in incoming]


async def test_others_wait_behind_and_control_frames_do_not(autojump_clock: Clock) -> None:
    """What is sent meanwhile, by whichever way, goes out whole and in its order behind the message."""

    async def handler(session: Session) -> None:
        await session.send("before")
        async with session.message(FrameType.BINARY) as message:
            await message.send(b"1")
            await session.send("through send")
            await session.outgoing.send("through outgoing")
            session.send_nowait(b"at once")
            await trio.testing.wait_all_tasks_blocked()
            await session.send(Frame.Ping(b"there?"))
            await trio.testing.wait_all_tasks_blocked()
            await message.send(b"2")
        await session.send("after")

    async with connected(handler, show_fragments=True) as (client, _):
        received = [await client.receive() for _ in range(10)]
    assert [
        Frame.Text("before"),
        Frame.Binary(b"1", fin=False),
        Frame.Ping(b"there?"),
        Frame.Binary(b"2", fin=False),
        Frame.Binary(b""),
        Frame.Text("through send"),
        Frame.Text("through outgoing"),
        Frame.Binary(b"at once"),
        Frame.Text("after"),
        close(1000),
    ] == received


async def test_two_tasks_stream_one_after_the_other(autojump_clock: Clock) -> None:
    """Whoever entered first is first; the pieces of two messages never mix."""

    async def handler(session: Session) -> None:
        async def stream(letter: str) -> None:
            async with session.message(FrameType.TEXT) as message:
                for _ in range(3):
                    await message.send(letter)
                    await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream, "a")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(stream, "b")

    async with connected(handler) as (client, _):
        assert [Frame.Text("aaa"), Frame.Text("bbb"), close(1000)] == [await client.receive() for _ in range(3)]


async def test_pieces_wait_for_a_peer_that_does_not_read(autojump_clock: Clock) -> None:
    """The back-pressure: next to nothing is taken while the peer takes nothing."""
    sent: list[int] = []

    async def handler(session: Session) -> None:
        async with session.message(FrameType.BINARY) as message:
            for number in range(1000):
                await message.send(bytes(1000))
                sent.append(number)

    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application(handler, write_timeout=None).handle_stream, theirs)
        await RawClient(ours).upgrade()
        await trio.testing.wait_all_tasks_blocked()
        assert len(sent) < 70  # one chunk of 64 KiB at most, and a piece that waits
        await ours.aclose()


@pytest.mark.parametrize("how", ["cancelled", "raised"])
async def test_a_message_that_cannot_be_ended_ends_the_conversation(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """1011, behind the pieces that were accepted and what was sent before; the rest is not said."""

    async def handler(session: Session) -> None:
        await session.send("before")
        with trio.move_on_after(5):
            async with session.message(FrameType.TEXT) as message:
                await message.send("half a ")
                await session.send("behind")
                if how == "raised":
                    raise ValueError("no other half")
                await trio.sleep_forever()
        with pytest.raises(ConnectionBroken) as raised:
            await session.receive()
        assert isinstance(raised.value.__cause__, ProtocolError)
        with pytest.raises(ConnectionClosed):
            await session.send("after")

    async with connected(handler, show_fragments=True, expect_failure=how == "raised") as (client, sessions):
        assert Frame.Text("before") == await client.receive()
        assert Frame.Text("half a ", fin=False) == await client.receive()
        assert [close(1011)] == await client.receive_rest()
    assert CloseReason(1011) == sessions[0].close_reason
    failures = [record for record in records_above_info(caplog) if record.exc_info]
    assert (["raised"] if failures else ["cancelled"]) == [how]


async def test_a_cancelled_piece_is_not_sent_and_a_cancelled_entry_changes_nothing(autojump_clock: Clock) -> None:
    """A streamed message that has not begun may be given up; the session goes on."""

    async def handler(session: Session) -> None:
        async with session.message(FrameType.TEXT) as message:
            await message.send("first")
            with trio.CancelScope() as scope:
                scope.cancel()
                await message.send("never")
            with trio.CancelScope() as scope:
                scope.cancel()
                async with session.message(FrameType.TEXT):
                    raise AssertionError("entered")

    async with connected(handler) as (client, sessions):
        assert [Frame.Text("first"), close(1000)] == [await client.receive() for _ in range(2)]
        await client.send(close(1000))
    assert CloseReason(1000) == sessions[0].close_reason


@pytest.mark.parametrize("is_blocked", [True, False])
async def test_a_character_that_was_cut_in_a_cancelled_piece_is_not_begun(
    is_blocked: bool, autojump_clock: Clock
) -> None:
    """It may be sent again, and nothing else has to follow."""

    async def handler(session: Session) -> None:
        async with session.message(FrameType.TEXT) as message:
            await message.send("first")
            if is_blocked:
                await message.send("second")
            for half in ("я".encode()[:1], "яя".encode()[:3]):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await message.send(half)
                assert scope.cancelled_caught
            await message.send("я".encode()[:1])
            with trio.CancelScope() as scope:
                scope.cancel()
                await message.send("я".encode()[1:])
            await message.send("я".encode()[1:])

    async with connected(handler) as (client, _):
        assert await client.receive() == Frame.Text("first" + "second" * is_blocked + "я")
        assert await client.receive() == close(1000)


async def test_no_piece_is_sent_when_the_conversation_is_over(autojump_clock: Clock) -> None:
    """Not even an empty one."""
    refused: list[str | bytes] = []

    async def handler(session: Session) -> None:
        try:
            async with session.message(FrameType.TEXT) as message:
                session.close()
                for piece in ("x", "", b""):
                    try:
                        await message.send(piece)
                    except ConnectionClosed:
                        refused.append(piece)
        except ConnectionClosed:
            pass

    async with connected(handler, expect_failure=True) as (client, _):
        await client.receive_rest()
    assert refused == ["x", "", b""]


async def test_a_message_that_was_passed_over_can_be_closed(autojump_clock: Clock) -> None:
    """As what is closed already."""

    async def handler(session: Session) -> None:
        async with await session.receive_message() as first:
            assert await first.receive() == "fir"
            async with await session.receive_message() as second:
                assert await second.receive() == "second"
            with pytest.raises(trio.ClosedResourceError):
                await first.receive()

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("fir", fin=False), Frame.Text("st"), Frame.Text("second"))
        assert await client.receive() == close(1000)


async def test_pieces_are_checked_at_the_call(autojump_clock: Clock) -> None:
    """A wrong piece is refused and nothing of it sent; characters may be cut between pieces of bytes."""

    async def handler(session: Session) -> None:
        with pytest.raises(ValueError, match=r"FrameType.TEXT or FrameType.BINARY"):
            session.message(FrameType.PING)
        async with session.message(FrameType.BINARY) as message:
            with pytest.raises(TypeError, match="bytes, not str"):
                await message.send("text")
            for nothing in (5, [104, 105], None):
                with pytest.raises(TypeError, match="a BINARY message is bytes, not "):
                    await message.send(nothing)  # type: ignore[arg-type]
            await message.send(b"ok")
        async with session.message(FrameType.TEXT) as message:
            await message.send("я".encode()[:1])
            with pytest.raises(UnicodeDecodeError):
                await message.send(b"\xff")
            await message.send("я".encode()[1:])
            with pytest.raises(UnicodeEncodeError):
                await message.send("\ud800")
            for nothing in (5, [104, 105], None):
                with pytest.raises(TypeError, match="a TEXT message is str or bytes, not "):
                    await message.send(nothing)  # type: ignore[arg-type]
            await message.send("!")
        for late in ("too late", "", b""):
            with pytest.raises(trio.ClosedResourceError):
                await message.send(late)
        with pytest.raises(ProtocolError, match="finish the fragmented TEXT message first"):
            await session.send(Frame.Text("fragment", fin=False))
            async with session.message(FrameType.TEXT):
                pass
        await session.send(Frame.Text("", fin=True))

    async with connected(handler) as (client, _):
        expected = [Frame.Binary(b"ok"), Frame.Text("я!"), Frame.Text("fragment"), close(1000)]
        assert expected == [await client.receive() for _ in range(4)]


async def test_text_that_ends_in_half_a_character_cannot_be_ended(autojump_clock: Clock) -> None:
    """It is not UTF-8, so it is no Text message: 1011."""

    async def handler(session: Session) -> None:
        with pytest.raises(UnicodeDecodeError):
            async with session.message(FrameType.TEXT) as message:
                await message.send("я".encode()[:1])

    async with connected(handler, show_fragments=True) as (client, _):
        assert Frame.Text("я".encode()[:1], fin=False) == await client.receive()
        assert close(1011) == await client.receive()


async def test_a_conversation_that_ends_lets_go_of_a_streaming_task(autojump_clock: Clock) -> None:
    """The peer's Close: pieces go out within the answer grace, then sending raises."""
    sent: list[str] = []

    async def handler(session: Session) -> None:
        await session.receive()
        with pytest.raises(ConnectionClosed):
            async with session.message(FrameType.TEXT) as message:
                while True:
                    await message.send("piece")
                    sent.append("piece")
                    await trio.sleep(0.2)

    async with connected(handler, show_fragments=True) as (client, sessions):
        await client.send(Frame.Text("go on"))
        assert Frame.Text("piece", fin=False) == await client.receive()
        await client.send(close(1000))
        rest = await client.receive_rest()
        assert close(1000) == rest[-1]
    assert 2 <= len(sent) <= 4
    assert CloseReason(1000) == sessions[0].close_reason


async def test_flush_inside_a_message_waits_for_its_pieces(autojump_clock: Clock) -> None:
    """Not for what has to wait until the message ends."""

    async def handler(session: Session) -> None:
        async with session.message(FrameType.TEXT) as message:
            await message.send("piece")
            await session.send("behind")
            await session.flush()
            assert session.statistics().bytes_sent >= 7
        await session.flush()

    async with connected(handler) as (client, _):
        assert [Frame.Text("piece"), Frame.Text("behind"), close(1000)] == [await client.receive() for _ in range(3)]


@pytest.mark.parametrize("way", ["send", "outgoing"])
async def test_flush_inside_a_message_waits_for_what_was_sent_before_it(way: str, autojump_clock: Clock) -> None:
    """Also where no piece was sent yet."""
    written: list[int] = []

    async def handler(session: Session) -> None:
        for _ in range(3):
            await (session.send if way == "send" else session.outgoing.send)(b"x" * 100_000)
        async with session.message(FrameType.TEXT) as message:
            await session.flush()
            written.append(session.statistics().bytes_sent)
            await message.send("piece")

    async with connected(handler) as (client, _):
        await client.receive_rest()
    assert written[0] >= 300_000


@pytest.mark.parametrize("way", ["pieces", "joined", "raw"])
async def test_what_is_dropped_leaves_no_gap(way: str, autojump_clock: Clock) -> None:
    """Who receives beside `aclose` gets what came first, and then the end: never parts of several messages as one."""
    got: list[str] = []

    async def handler(session: Any) -> None:
        async def receive() -> None:
            with contextlib.suppress(trio.EndOfChannel, ConnectionBroken):
                if way == "joined":
                    await (await session.receive_message()).skip()
                while True:
                    if way == "pieces":
                        async for piece in await session.receive_message():
                            got.append(piece)
                            await trio.sleep(0.1)
                    else:
                        frame = await session.receive()
                        got.append(frame.data.decode("latin-1"))
                        await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.sleep(0.01)
            await session.aclose(4000)

    connection: Any = connected_raw if way == "raw" else connected
    async with connection(handler, incoming=2) as (client, _):
        await trio.sleep(0.5)
        words = b"".join(
            masked((0x81 if number == 4 else 0x01) & ~(1 if number else 0), letter.encode())
            for word in ("first", "secnd", "third")
            for number, letter in enumerate(word)
        )
        await client.send_bytes(client_bytes(Frame.Text("start")) + words)
        await trio.sleep(2)
        await client.send(Frame.Text("LATER"))
        await trio.sleep(0.1)
        await client.send(close(4000))
        await client.receive_rest()
    begin = {"pieces": ["start"], "joined": [], "raw": ["start"]}[way]
    whole = ["first", "secnd", "third", "LATER"] if way == "joined" else [*"firstsecndthird", "LATER"]
    assert got == [*begin, *whole][: len(got)]
    assert len(begin) <= len(got) < len(begin) + len(whole)


async def test_flush_inside_a_message_waits_for_pings(autojump_clock: Clock) -> None:
    """They overtake it, and yet they are sent by the same task before the flush."""

    async def handler(session: Session) -> None:
        async with session.message(FrameType.TEXT) as message:
            await message.send("piece")
            await session.flush()
            before = session.statistics().bytes_sent
            await session.send(Frame.Ping(b"ping"))
            await session.flush()
            assert session.statistics().bytes_sent - before == 6

    async with connected(handler) as (client, _):
        assert Frame.Ping(b"ping") in await client.receive_rest()


# receiving


def cuts(data: bytes, size: int) -> list[bytes]:
    """The bytes in pieces of a size."""
    return [data[start : start + size] for start in range(0, len(data), size)]


async def take(message: IncomingMessage) -> list[str | bytes]:
    """All pieces of a message."""
    return [piece async for piece in message]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
@pytest.mark.parametrize("masked_frames", [1, 3])
async def test_a_message_comes_in_pieces_however_it_is_cut(
    autojump_clock: Clock, size: int, masked_frames: int
) -> None:
    """The pieces make the message, characters are whole, and Pings between them are answered."""
    text = "Straße, яблоко, 日本語, 😀."
    third = len(text) // 3
    parts = [text] if masked_frames == 1 else [text[:third], text[third : 2 * third], text[2 * third :]]
    frames: list[Frame] = [Frame.Text(part, fin=part is parts[-1]) for part in parts]
    frames[1:1] = [Frame.Ping(b"between")] if len(parts) > 1 else []
    wire = client_bytes(*frames, Frame.Binary(b"\x00\xff" * 3))
    seen: list[tuple[FrameType, str | bytes]] = []

    async def handler(session: Session) -> None:
        for empty in ("", b""):
            message = await session.receive_message()
            pieces = await take(message)
            assert all(pieces)
            seen.append((message.type, type(empty)().join(pieces)))  # type: ignore[arg-type]
            assert message.size == len(empty.join(pieces) if isinstance(empty, bytes) else empty.join(pieces).encode())  # type: ignore[arg-type]

    async with connected(handler) as (client, _):
        for piece in cuts(wire, size):
            await client.send_bytes(piece)
            await trio.testing.wait_all_tasks_blocked()
        answers = await client.receive()
        assert (Frame.Pong(b"between") if len(parts) > 1 else close(1000)) == answers
    assert [(FrameType.TEXT, text), (FrameType.BINARY, b"\x00\xff" * 3)] == seen


async def test_a_message_longer_than_everything_is_received(autojump_clock: Clock) -> None:
    """A handler that asks first takes any size, in one frame or in many, and holds next to none of it."""
    sizes: list[int] = []
    peaks: list[int] = []

    async def handler(session: Session) -> None:
        for _ in range(2):
            message = await session.receive_message()
            async for _piece in message:
                peaks.append(session.incoming.statistics().current_buffer_used)
            sizes.append(message.size)

    megabyte = bytes(1 << 20)
    async with open_test_host(application(handler, max_frame_size=1000)) as host, host.websocket("/") as conversation:
        await conversation.session.send(megabyte * 8)
        async with conversation.session.message(FrameType.BINARY) as message:
            for _ in range(8):
                await message.send(megabyte)
        assert 1000 == (await conversation.session.wait_closed()).code
    assert [8 << 20, 8 << 20] == sizes
    assert max(peaks) <= 64


async def test_the_reader_waits_for_a_handler_that_takes_no_pieces(autojump_clock: Clock) -> None:
    """The back-pressure: no more than `max_queued_bytes` and the queue are taken in."""
    taken = trio.Event()

    async def handler(session: Session) -> None:
        message = await session.receive_message()
        await trio.sleep(100)
        taken.set()
        await message.skip()

    async with connected(handler, max_queued_bytes=100_000) as (client, sessions):
        frame = client_bytes(Frame.Binary(bytes(10_000_000)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_bytes, frame)
            await trio.sleep(50)
            assert sessions[0].statistics().bytes_received < 400_000
        await taken.wait()
        assert close(1000) == await client.receive()


async def test_a_message_that_has_begun_is_given_from_its_beginning(autojump_clock: Clock) -> None:
    """Asked for in the middle: what was joined by then, and half a frame, come as the first pieces."""
    asked = trio.Event()
    pieces: list[str | bytes] = []

    async def handler(session: Session) -> None:
        await asked.wait()
        pieces.extend(await take(await session.receive_message()))

    text = "ab" * 50 + "я" * 50
    wire = client_bytes(Frame.Text(text[:30], fin=False)) + masked(0x80, text[30:].encode())
    async with connected(handler) as (client, _):
        await client.send_bytes(wire[:100])
        await trio.testing.wait_all_tasks_blocked()
        asked.set()
        await trio.testing.wait_all_tasks_blocked()
        for piece in cuts(wire[100:], 9):
            await client.send_bytes(piece)
            await trio.testing.wait_all_tasks_blocked()
        assert close(1000) == await client.receive()
    assert text == "".join(map(str, pieces))
    assert len(pieces) > 5


async def test_messages_that_were_whole_come_as_one_piece(autojump_clock: Clock) -> None:
    """What waited before the first call is not lost, and keeps its order."""
    seen: list[list[str | bytes]] = []

    async def handler(session: Session) -> None:
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            seen.append(await take(await session.receive_message()))

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("one"), Frame.Text(""), Frame.Binary(b"three"))
        assert close(1000) == await client.receive()
    assert [["one"], [], [b"three"]] == seen


async def test_whole_messages_can_still_be_received(autojump_clock: Clock) -> None:
    """`receive` joins, within `max_frame_size`; what was begun in pieces is skipped; a cancelled one is kept."""
    seen: list[object] = []

    async def handler(session: Session) -> None:
        first = await session.receive_message()
        seen.append(await first.receive())
        with trio.move_on_after(5):
            await session.receive()  # skips the first, and has half of the second then
        seen.append(await session.receive())
        seen.append(await take(await session.receive_message()))
        seen.append([frame.data async for frame in session.frames(Frame.Binary)])

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("a", fin=False))
        await client.send_bytes(masked(0x80, b"b"))
        await client.send(Frame.Text("c", fin=False))
        await trio.sleep(10)
        await client.send_bytes(masked(0x80, b"d"))
        await client.send(Frame.Text("e"), Frame.Text("not this"), Frame.Binary(b"f"), close(1000))
        assert close(1000) == await client.receive()
    assert ["a", Frame.Text("cd"), ["e"], [b"f"]] == seen


async def test_joining_keeps_the_limit(autojump_clock: Clock) -> None:
    """1009 when `receive` would have to join more than `max_frame_size`."""
    causes: list[object] = []

    async def handler(session: Session) -> None:
        await (await session.receive_message()).skip()
        try:
            await session.receive()
        except ConnectionBroken as error:
            causes.append(error.__cause__)
            raise

    async with connected(handler, max_frame_size=10) as (client, sessions):
        await client.send(Frame.Text("x" * 100), Frame.Binary(b"12345678", fin=False))
        await client.send_bytes(masked(0x80, b"90123"))
        assert close(1009) == await client.receive()
    assert isinstance(causes[0], FrameTooBig)
    assert CloseReason(1009) == sessions[0].close_reason


async def test_cancelling_loses_no_piece(autojump_clock: Clock) -> None:
    """Random cancellations of `receive_message` and of pieces: every byte arrives once."""
    data = bytes(range(256)) * 40
    received = bytearray()

    async def handler(session: Session) -> None:
        import random

        generator = random.Random(5)
        message: IncomingMessage | None = None
        while len(received) < len(data):
            with trio.CancelScope() as scope:
                if generator.random() < 0.7:
                    scope.deadline = trio.current_time() + generator.random()
                if message is None or message.is_complete:
                    message = await session.receive_message()
                piece = await message.receive()
                assert isinstance(piece, bytes)
                received.extend(piece)

    async with connected(handler) as (client, _):
        wire = b"".join(client_bytes(Frame.Binary(part)) for part in cuts(data, 500))
        for piece in cuts(wire, 97):
            await client.send_bytes(piece)
            await trio.sleep(0.3)
        assert close(1000) == await client.receive()
    assert data == received


async def test_a_message_that_breaks_off_is_a_broken_end(autojump_clock: Clock) -> None:
    """The pieces before it are given; then ConnectionBroken, here as everywhere."""
    seen: list[object] = []

    async def handler(session: Session) -> None:
        try:
            async for piece in await session.receive_message():
                seen.append(piece)
        except ConnectionBroken as error:
            seen.append(error.close_reason)

    async with connected(handler) as (client, _):
        await client.send_bytes(client_bytes(Frame.Text("half a message"))[:-3])
    assert ["half a mess", CloseReason(1006)] == seen


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (masked(0x01, b"ok\xff"), 1007),
        (masked(0x01, "я".encode()[:1]) + masked(0x80), 1007),
        (masked(0x01, b"a") + masked(0x81, b"b"), 1002),
        (masked(0x01, b"a") + masked(0x00) * 200, 1008),
    ],
    ids=["not UTF-8", "half a character", "a new message", "too many fragments"],
)
async def test_the_rules_hold_for_pieces(autojump_clock: Clock, wire: bytes, code: int) -> None:
    """Streaming is no way round them."""

    async def handler(session: Session) -> None:
        async for _ in await session.receive_message():
            pass

    async with connected(handler, max_fragments=100) as (client, sessions):
        await client.send_bytes(wire)
        assert close(code) == await client.receive()
    assert CloseReason(code) == sessions[0].close_reason


async def test_a_stream_is_echoed_as_a_stream(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Both directions at once, through the test host's client, quietly."""
    caplog.set_level(logging.DEBUG)

    async def handler(session: Session) -> None:
        while True:
            incoming = await session.receive_message()
            async with session.message(incoming.type) as outgoing:
                async for piece in incoming:
                    await outgoing.send(piece)

    app = application(handler)
    async with handle_websocket_conversation(app, "/") as conversation:
        for message in ("text " * 1000, bytes(range(256)) * 300):
            await conversation.session.send(message)
            echo = await conversation.session.receive()
            assert message == (echo.text if isinstance(message, str) else echo.data)
    assert not records_above_info(caplog)


async def test_receive_nowait_joins_too(autojump_clock: Clock) -> None:
    """Half a message is not there yet; the next `receive` has all of it."""

    async def handler(session: Session) -> None:
        await (await session.receive_message()).skip()
        await trio.sleep(1)
        with pytest.raises(trio.WouldBlock):
            session.receive_nowait()
        assert Frame.Binary(b"two") == await session.receive()
        await trio.sleep(1)
        assert Frame.Text("three") == session.receive_nowait()

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("one"), Frame.Binary(b"tw", fin=False))
        await trio.sleep(2)
        await client.send_bytes(masked(0x80, b"o"))
        await client.send(Frame.Text("three"))
        assert close(1000) == await client.receive()


async def test_receive_gives_messages_though_a_task_asks_for_pieces_meanwhile(autojump_clock: Clock) -> None:
    """Also where that begins in the one pass of a full checkpoint; either task may be first, so it is tried often."""
    for _ in range(30):
        received: list[Frame] = []

        async def receive(session: Session, received: list[Frame]) -> None:
            received.append(await session.receive())

        async def take_pieces(session: Session) -> None:
            async for _ in await session.receive_message():
                pass

        async def handler(session: Session, received: list[Frame] = received) -> None:
            await trio.sleep(1)
            session._receives = 31
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive, session, received)
                nursery.start_soon(take_pieces, session)

        async with connected(handler) as (client, _):
            await client.send(Frame.Text("whole"))
            for fragment in (masked(0x02, b"xx"), masked(0x80, b"yy")):
                await trio.sleep(2)
                await client.send_bytes(fragment)
            assert await client.receive() == close(1000)
        assert received in ([Frame.Text("whole")], [Frame.Binary(b"xxyy")])


@pytest.mark.parametrize("reserved", [0, RSV2])
async def test_an_extension_without_a_bit_reads_messages_whole(reserved: int, autojump_clock: Clock) -> None:
    """So they are given whole; with a bit of its own it reads those that have it, and the others come in pieces."""
    given: list[str | bytes] = []

    async def handler(session: Session) -> None:
        async for piece in await session.receive_message():
            given.append(piece)

    factory = Marking(None, reserved)
    async with connected(handler, extensions=[factory]) as (client, _):
        await client.send(Frame.Binary(b"ab", fin=False), Frame.Binary(b"cdx"))
        assert await client.receive() == close(1000)
    assert given == ([b"ab", b"cdx"] if reserved else [b"abcd"])
