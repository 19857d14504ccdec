"""Memory in proportion to what came: what is counted is what is held."""

from __future__ import annotations

import functools
import gc
import socket
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.benchmarks.bounds import MIB, measure
from tests.support.helpers import KEY, REQUEST, application, close, connected, masked
from tests.support.reading import FrameReader
from tests.support.slow import stuck
from trioktor import CLOSE, ChannelConfig, Frame, Server, WebSocketSession as Session, serve
from trioktor.http.requests import RequestHead
from trioktor.protocol.frames import KEPT_TEXT
from trioktor.protocol.mask import mask
from trioktor.protocol.serializer import head

MOST = {
    "takes nothing": 1.5,
    "`send(frame)` for each": 4,
    "`send(await receive_text())`": 8,
    "`receive_message()`, and stops": 1.5,
    "raw, `send(frame)` for each": 4,
}
"""MiB that docs/security.md promises."""


@pytest.mark.parametrize("attack", ["texts of 1 MiB", "texts of 4 KiB", "texts in fragments of 512 KiB"])
@pytest.mark.parametrize("handler", MOST)
def test_what_a_connection_holds_is_bounded(handler: str, attack: str) -> None:
    """Of a peer that sends as much as it can, and reads nothing; with the defaults."""
    assert measure(handler, attack) < MOST[handler] * MIB


# pieces


READERS: dict[str, tuple[Callable[[], FrameReader], int]] = {
    "binary": (FrameReader, 0x82),
    "text": (FrameReader, 0x81),
    "second fragment": (FrameReader, 0x80),
    "raw": (lambda: FrameReader(raw=True), 0x82),
    "compressed, in pieces": (lambda: FrameReader(pieces=True, reserved=0x40), 0xC2),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("step", [1, 2])
def test_a_frame_in_tiny_segments_holds_what_was_sent(name: str, step: int) -> None:
    """Not dozens of bytes for each of them."""
    make, first_byte = READERS[name]
    size = 10_000
    wire = memoryview(head(first_byte, size, 0x80) + KEY + mask(b"x" * size, KEY))
    held = 0
    for _ in range(2):  # the first time is for whoever keeps something at a first time
        reader = make()
        if first_byte == 0x80:
            assert list(reader.feed(masked(0x02, b"begun"))) == []
        gc.collect()
        tracemalloc.start()
        try:
            for start in range(0, len(wire) - step, step):
                assert list(reader.feed(bytes(wire[start : start + step]))) == []
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert held < 1.25 * size + 6144
    assert size - 1000 <= reader.kept <= size + 5


async def test_pieces_that_are_joined_hold_what_was_sent(autojump_clock: MockClock) -> None:
    """`receive`, once messages come in pieces, joins them as they come."""
    size = 8_000
    whole: list[Frame] = []
    joined = trio.Event()

    async def handler(session: Session) -> None:
        await (await session.receive_message()).skip()
        whole.append(await session.receive())
        joined.set()

    async with connected(handler) as (client, _):
        await client.send(Frame.Binary(b"first"))
        await trio.testing.wait_all_tasks_blocked()
        wire = head(0x82, size, 0x80) + KEY + mask(b"x" * size, KEY)
        await client.send_bytes(wire[:100])
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        tracemalloc.start()
        try:
            for start in range(100, len(wire) - 4, 2):
                await client.send_bytes(wire[start : start + 2])
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        await client.send_bytes(wire[start + 2 :])
        await joined.wait()
        await client.send(close(1000))
    assert [Frame.Binary(b"x" * size)] == whole
    assert held < 4 * size


# texts


@pytest.mark.parametrize("size", [1, KEPT_TEXT, KEPT_TEXT + 1, 100_000])
@pytest.mark.parametrize("last", ["x", "é", "я", "🌍"])
async def test_a_long_text_is_held_as_its_bytes(autojump_clock: MockClock, size: int, last: str) -> None:
    """Received, or to be sent; and it is the same text whenever it is asked for."""
    text = "x" * (size - len(last.encode())) + last
    held: list[object] = []

    async def handler(session: Session) -> None:
        frame = await session.receive()
        held.append(frame.decoded)
        assert [text, text] == [frame.text, frame.text]
        held.append(frame.decoded)
        mine = Frame.Text(text)
        held.append(mine.decoded)
        assert text == mine.text
        held.append(mine.decoded)
        await session.send(mine)

    async with connected(handler) as (client, _):
        await client.send(Frame.Text(text))
        assert Frame.Text(text) == await client.receive()
    is_kept = len(text.encode()) <= KEPT_TEXT == 4096
    assert [is_kept] * 4 == [one == text for one in held]
    assert None not in held


@pytest.mark.parametrize(
    "data", [b"\xff" * 5000, b"x" * 5000 + b"\xf0\x9f", b"x" * 4095 + b"\xc3", "é".encode() * 5000 + b"\xed\xa0\x80"]
)
async def test_a_long_text_that_is_none_is_not_sent(autojump_clock: MockClock, data: bytes) -> None:
    """The caller is told, as with short ones."""

    async def handler(session: Session) -> None:
        with pytest.raises(UnicodeDecodeError):
            await session.send(Frame.Text(data))
        with pytest.raises(UnicodeDecodeError):
            Frame.Text(data).text  # noqa: B018

    async with connected(handler) as (client, _):
        assert close(1000) == await client.receive()


# a message that is arriving


async def test_the_reader_stops_in_the_middle_of_a_message(autojump_clock: MockClock) -> None:
    """What is half there comes on top of what waits; it goes on when that was taken."""
    go = trio.Event()
    received: list[int] = []

    async def handler(session: Session) -> None:
        await go.wait()
        async for frame in session:
            received.append(len(frame.data))

    async with connected(handler, max_queued_bytes=1000) as (client, sessions):
        reader = sessions[0]._connection.conversation
        wire = masked(0x82, bytes(600))
        await client.send_bytes(wire + wire[:8])
        for position in range(8, len(wire), 50):
            await client.send_bytes(wire[position : position + 50])
            await trio.testing.wait_all_tasks_blocked()
        assert 400 <= reader.kept <= 450
        assert 1 == sessions[0].statistics().incoming
        go.set()
        await client.send(Frame.Binary(bytes(5000)), close(1000))
        await client.receive_rest()
    assert [600, 600, 5000] == received


async def test_a_handler_that_takes_from_the_channel_lets_it_go_on(autojump_clock: MockClock) -> None:
    """Unseen by the session: the reader looks by itself."""
    received: list[int] = []

    async def handler(session: Session) -> None:
        await trio.sleep(1)
        async for frame in session.incoming:
            received.append(len(frame.data))

    async with connected(handler, max_queued_bytes=1000) as (client, _):
        wire = masked(0x82, bytes(900))
        for message in (wire[:300], wire[300:], wire[:300], wire[300:600], wire[600:]):
            await client.send_bytes(message)
            await trio.testing.wait_all_tasks_blocked()
        await client.send(close(1000))
        await client.receive_rest()
    assert [900, 900] == received


@pytest.mark.parametrize("way", ["close", "return", "aclose"])
async def test_a_handler_that_ends_lets_go_of_the_message_under_way(autojump_clock: MockClock, way: str) -> None:
    """The peer's Close behind it is still read."""

    async def handler(session: Session) -> None:
        await trio.sleep(1)
        if way == "close":
            session.close()
            async for _ in session:
                pass
        elif way == "aclose":
            await session.aclose()

    async with connected(handler, max_queued_bytes=1000) as (client, sessions):
        wire = masked(0x82, bytes(900))
        await client.send_bytes(wire + wire[:500])
        await trio.testing.wait_all_tasks_blocked()
        await client.send_bytes(wire[500:600])
        await trio.sleep(2)
        await client.send_bytes(wire[600:])
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()
    assert sessions[0].close_received is not None


async def test_a_queue_that_is_to_close_judges_whole_messages(autojump_clock: MockClock) -> None:
    """The peer is not blamed for a message before it is there."""
    received: list[int] = []

    async def handler(session: Session) -> None:
        await trio.sleep(1)
        async for frame in session:
            received.append(len(frame.data))

    settings: dict[str, Any] = {"incoming": ChannelConfig(10, on_overflow=CLOSE), "max_queued_bytes": 1000}
    async with connected(handler, **settings) as (client, _):
        wire = masked(0x82, bytes(900))
        await client.send_bytes(wire + wire[:500])
        await trio.sleep(2)
        await client.send_bytes(wire[500:])
        await trio.testing.wait_all_tasks_blocked()
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()
    assert [900, 900] == received


# what is half out


async def test_a_long_message_that_is_half_out_leaves_room_for_short_ones(autojump_clock: MockClock) -> None:
    """It counts for half of the limit: long ones wait, and broadcasts of short ones do not pass anybody over."""
    outcomes: list[object] = []

    async def handler(session: Session) -> None:
        await session.send(bytes(5000))
        await trio.testing.wait_all_tasks_blocked()
        for size in (501, 300, 201, 200):
            try:
                session.send_nowait(bytes(size))
                outcomes.append(size)
            except trio.WouldBlock:
                outcomes.append("full")
        with trio.move_on_after(1) as scope:
            await session.send(b"x")
        outcomes.append(scope.cancelled_caught)

    async with stuck(handler, max_queued_bytes=1000) as (_, served):
        await trio.sleep(5)
        served.cancel_scope.cancel()
    assert ["full", 300, "full", 200, True] == outcomes


# the request


async def test_the_request_is_not_kept_for_the_whole_conversation(autojump_clock: MockClock) -> None:
    """Of the head stays what the call shows."""

    async def handler(session: Session) -> None:
        await session.receive()

    def heads() -> set[int]:
        gc.collect()
        return {id(one) for one in gc.get_objects() if type(one) is RequestHead}

    before = heads()  # of other tests
    async with connected(handler) as (client, _):
        assert heads() <= before
        await client.send(close(1000))


async def test_an_idle_connection_holds_what_the_docs_say() -> None:
    """About 8 KiB, with a handler that waits; the server's side alone, as far as Python allocates it."""
    count, held = 100, 0

    async def handler(session: Session) -> None:
        async for _ in session:
            pass

    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(functools.partial(serve, application(handler), 0, host="127.0.0.1"))
        clients = []
        try:
            for measured in (False, True):
                gc.collect()
                tracemalloc.start()
                for _ in range(count):
                    sock = socket.socket()
                    sock.setblocking(False)
                    sock.connect_ex(("127.0.0.1", server.port))
                    clients.append(sock)
                    await trio.lowlevel.wait_writable(sock)
                    sock.send(REQUEST % b"/")
                    await trio.lowlevel.wait_readable(sock)
                gc.collect()
                held = tracemalloc.get_traced_memory()[0] if measured else 0
                tracemalloc.stop()
        finally:
            for sock in clients:
                sock.close()
        nursery.cancel_scope.cancel()
    assert held / count < 9.5 * 1024
