"""permessage-deflate in conversations: negotiated, in order, bounded, and out of the way."""

from __future__ import annotations

import logging
import random
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from tests.support.helpers import REQUEST, RawClient, application, close, masked, records_above_info
from trioktor import (
    Application,
    ConnectionBroken,
    Extension,
    ExtensionFactory,
    ExtensionHeader,
    Frame,
    FrameTooBig,
    FrameType,
    PerMessageDeflate,
    RawWebSocketSession,
    WebSockets,
    WebSocketSession,
    broadcast,
    connect,
)
from trioktor.session.base import BaseSession

Clock = trio.testing.MockClock
Session = WebSocketSession
TAIL = b"\x00\x00\xff\xff"
HELLO = bytes.fromhex("f248cdc9c90700")
OFFER = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"


class DeflateClient(RawClient):
    """A raw client that has offered permessage-deflate; frames show as they came."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        super().__init__(stream, raw=True)
        self._reader.parser.reserved = 0x40
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
        self._inflate = zlib.decompressobj(-15)

    async def offer(self, offer: bytes = OFFER, path: bytes = b"/") -> bytes:
        """Perform the handshake with an offer."""
        await self.stream.send_all((REQUEST % path)[:-2] + offer)
        return await self.read_head()

    async def say(self, data: bytes, first_byte: int = 0xC1) -> None:
        """Send a compressed message."""
        packed = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        await self.send_bytes(masked(first_byte, packed[:-4]))

    async def hear(self) -> bytes:
        """The next frame's payload, inflated if it was compressed."""
        frame = await self.receive()
        assert frame is not None
        return self._inflate.decompress(frame.data + TAIL) if frame.rsv1 else frame.data


@asynccontextmanager
async def served(app: Application) -> AsyncIterator[DeflateClient]:
    """A client of an application; hangs up at the end, and waits for the server."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.handle_stream, theirs)
        yield DeflateClient(ours)
        await ours.aclose()


async def echo(session: BaseSession) -> None:
    """Send everything back."""
    async for frame in session:
        await session.send(frame)


def deflating(handler: object = echo, **settings: object) -> Application:
    """An application with compression."""
    settings.setdefault("extensions", [PerMessageDeflate()])
    return application(handler, **settings)  # type: ignore[arg-type]


async def test_messages_are_compressed_both_ways(autojump_clock: Clock) -> None:
    """A hundred of them through one context each way; the answer names what was agreed on."""
    async with served(deflating()) as client:
        head = await client.offer()
        assert b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n" in head + b"\r\n"
        for number in range(100):
            text = f"message {number} " * number
            await client.say(text.encode())
            frame = await client.receive()
            assert frame is not None
            assert bool(text) == frame.rsv1
            assert text.encode() == (client._inflate.decompress(frame.data + TAIL) if text else frame.data)


@pytest.mark.parametrize(
    "offer", [b"\r\n", b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8\r\n\r\n"]
)
async def test_without_an_agreement_nothing_is(autojump_clock: Clock, offer: bytes) -> None:
    """No offer, or none that can be met: no header, plain frames, and rsv1 is 1002."""
    async with served(deflating(answer_grace=0)) as client:
        assert b"extensions" not in (await client.offer(offer)).lower()
        await client.send(Frame.Text("plain"))
        assert Frame.Text("plain") == await client.receive()
        await client.say(b"compressed")
        assert close(1002) == await client.receive()


async def test_plain_messages_may_be_mixed_in(autojump_clock: Clock) -> None:
    """Either side decides message by message; contexts are not disturbed."""
    app = deflating(extensions=[PerMessageDeflate(compress_if_bigger_than=10)])
    async with served(app) as client:
        await client.offer()
        for text in (b"short", b"a longer message", b"short", b"a longer message"):
            await client.say(text)
            assert text == await client.hear()
            await client.send(Frame.Binary(text))
            assert text == await client.hear()


async def test_control_frames_stand_between_compressed_fragments(autojump_clock: Clock) -> None:
    """They are never compressed, and break nothing."""
    async with served(deflating()) as client:
        await client.offer()
        await client.send_bytes(masked(0x41, HELLO[:3]) + masked(0x89, b"?") + masked(0x80, HELLO[3:]))
        assert Frame.Pong(b"?") == await client.receive()
        assert b"Hello" == await client.hear()


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (masked(0xC1, b"\xff\xff\xff\xff"), 1007),
        (masked(0xC1, zlib.compressobj(6, zlib.DEFLATED, -15).flush(zlib.Z_SYNC_FLUSH)[:-4] + b"\x07"), 1007),
        (masked(0x41, HELLO[:3]) + masked(0xC0, HELLO[3:]), 1002),
        (masked(0xC9), 1002),
        (masked(0xC8), 1002),
        (masked(0xA1, b"x"), 1002),
    ],
    ids=["no deflate data", "a bad block", "rsv1 on a continuation", "on a Ping", "on a Close", "rsv2"],
)
async def test_violations(autojump_clock: Clock, wire: bytes, code: int) -> None:
    """RFC 7692 §6.1: the bit stands on the first frame of a message, and nowhere else."""
    async with served(deflating(answer_grace=0)) as client:
        await client.offer()
        await client.send_bytes(wire)
        assert close(code) == await client.receive()


async def test_text_is_checked_once_it_is_inflated(autojump_clock: Clock) -> None:
    """1007 for what is no UTF-8."""
    async with served(deflating(answer_grace=0)) as client:
        await client.offer()
        await client.say(b"\xff\xfe")
        assert close(1007) == await client.receive()


async def test_the_limit_holds_for_what_is_inflated(autojump_clock: Clock) -> None:
    """Exactly `max_frame_size` passes; one byte more is 1009, and the handler is told why."""
    causes: list[object] = []

    async def handler(session: Session) -> None:
        try:
            await echo(session)
        except ConnectionBroken as error:
            causes.append(error.__cause__)
            raise

    async with served(deflating(handler, max_frame_size=100_000)) as client:
        await client.offer()
        await client.say(bytes(100_000), 0xC2)
        assert bytes(100_000) == await client.hear()
        await client.say(bytes(100_001), 0xC2)
        assert close(1009) == await client.receive()
    assert isinstance(causes[0], FrameTooBig)


@pytest.mark.parametrize("size", [1, 1000, 10_000, 32_767, 32_768, 100_000])
@pytest.mark.parametrize("mem_level", [1, 5, 9])
@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("in_pieces", [True, False])
async def test_what_can_not_be_packed_passes_up_to_the_limit(
    size: int, level: int, mem_level: int, in_pieces: bool, autojump_clock: Clock
) -> None:
    """Though it becomes longer; and what comes behind it is not harmed, both ways."""
    noise = random.Random(size).randbytes(size)
    said = [noise, b"packed" * (size // 12), noise, noise[:100], noise]
    packing = PerMessageDeflate(level=level, mem_level=mem_level, client_no_context_takeover=level == 1)

    async def handler(session: Session) -> None:
        if in_pieces:
            for _ in said:
                message = await session.receive_message()
                await session.send(b"".join([piece async for piece in message if isinstance(piece, bytes)]))
        else:
            await echo(session)

    app = deflating(handler, max_frame_size=size, extensions=[packing])
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.handle_stream, theirs)
        async with connect("ws://host/", stream=ours, extensions=[packing], max_frame_size=size) as session:
            for message in said:
                await session.send(message)
                assert (await session.receive()).data == message


async def test_long_messages_keep_their_place(autojump_clock: Clock) -> None:
    """They are worked on in steps; Pings are answered meanwhile, and the order of messages stays."""

    async def handler(session: Session) -> None:
        await session.receive()
        await session.send("before")
        await session.send(bytes(1_000_000))
        await session.send("after")
        await session.flush()
        assert session.statistics().frames_sent >= 3

    async with served(deflating(handler, max_frame_size=None)) as client:
        await client.offer()
        await client.say(b"x" * 3_000_000)
        assert [b"before", bytes(1_000_000), b"after"] == [await client.hear() for _ in range(3)]
        assert close(1000) == await client.receive()


async def test_others_have_their_turn_meanwhile(autojump_clock: Clock) -> None:
    """Between two slices of a long message, in and out, every other task runs."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery, served(deflating(max_frame_size=None)) as client:
        await client.offer()
        nursery.start_soon(count)
        await client.say(b"ab" * 1_000_000)
        assert b"ab" * 1_000_000 == await client.hear()
        assert turns > 100
        nursery.cancel_scope.cancel()


async def test_fragments_go_out_as_they_are(autojump_clock: Clock) -> None:
    """A message that is sent in pieces is not compressed; whole ones around it are."""

    async def handler(session: Session) -> None:
        await session.send("one one one")
        async with session.message(FrameType.TEXT) as message:
            await message.send("two ")
            await message.send("two")
        await session.send(Frame.Binary(b"3", fin=False))
        await session.send(Frame.Binary(b"3"))
        await session.send("four four four")

    async with served(deflating(handler)) as client:
        await client.offer()
        assert b"one one one" == await client.hear()
        expected: list[Frame] = [
            Frame.Text("two ", fin=False),
            Frame.Text("two", fin=False),
            Frame.Text(""),
            Frame.Binary(b"3", fin=False),
            Frame.Binary(b"3"),
        ]
        assert expected == [await client.receive() for _ in range(5)]
        assert b"four four four" == await client.hear()


async def test_compressed_messages_can_be_received_in_pieces(autojump_clock: Clock) -> None:
    """They are inflated whole first, within the limit; plain ones come as they arrive."""
    seen: list[object] = []

    async def handler(session: Session) -> None:
        for _ in range(3):
            seen.append([piece async for piece in await session.receive_message()])
        await session.receive()

    async with served(deflating(handler, max_frame_size=20_000, answer_grace=0)) as client:
        await client.offer()
        await client.say(b"compressed " * 1000)
        await client.send_bytes(masked(0x41, HELLO[:2]) + masked(0x00, HELLO[2:4]) + masked(0x80, HELLO[4:]))
        await client.send(Frame.Text("pl", fin=False))
        await trio.testing.wait_all_tasks_blocked()
        await client.send_bytes(masked(0x80, b"ain"))
        await client.say(b"x" * 20_001)
        assert close(1009) == await client.receive()
    assert [["compressed " * 1000], ["Hello"], ["pl", "ain"]] == seen


async def test_reserved_bits_are_the_extensions(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Who sends may not set them: refused at the call, 1011 through the channel."""

    async def handler(session: Session) -> None:
        with pytest.raises(Exception, match="reserved bit"):
            await session.send(Frame.Text("x", rsv1=True))
        await session.outgoing.send(Frame.Text("x", rsv1=True))
        with pytest.raises(ConnectionBroken):
            await session.receive()

    async with served(deflating(handler)) as client:
        await client.offer()
        assert close(1011) == await client.receive()
    assert [logging.ERROR] == [record.levelno for record in records_above_info(caplog)]


async def test_extensions_are_on_the_session(autojump_clock: Clock) -> None:
    """F40: all of them, or one by its kind; LookupError for what was not agreed on."""
    found: list[object] = []

    async def handler(session: BaseSession) -> None:
        found.append(session.extensions)
        try:
            found.append(session.extension(PerMessageDeflate))
        except LookupError as error:
            found.append(str(error))

    async with served(deflating(handler)) as client:
        await client.offer()
        await client.receive()
    assert found[0] == (found[1],)
    found.clear()
    async with served(deflating(handler)) as client:
        await client.offer(b"\r\n")
        await client.receive()
    assert [(), "PerMessageDeflate was not agreed on; look at session.extensions"] == found


@pytest.mark.parametrize("negotiates", [False, True])
async def test_raw_sessions_do_it_themselves(autojump_clock: Clock, negotiates: bool) -> None:
    """F18: where it is asked for, offers are answered; frames come as they are, bits and all."""
    seen: list[object] = []

    async def handler(session: RawWebSocketSession) -> None:
        frame = await session.receive()
        seen.append(frame)
        deflate = session.extension(PerMessageDeflate)
        seen.append(deflate.decode(frame, 100).text)
        await session.send(deflate.encode(Frame.Text("Hello, you")))

    app = Application()
    app.install(WebSockets(extensions=[PerMessageDeflate()], close_timeout=1))
    app.websocket_raw("/", handler, negotiate_extensions=negotiates)
    async with served(app) as client:
        head = await client.offer()
        assert negotiates == (b"permessage-deflate" in head)
        await client.send_bytes(masked(0xC1, HELLO))
        if negotiates:
            assert b"Hello, you" == await client.hear()
        else:
            assert close(1002) == await client.receive()
    if negotiates:
        assert "Hello" == seen[1]
        assert isinstance(seen[0], Frame.Text)
        assert seen[0].rsv1


async def test_an_extension_of_ones_own_may_only_look(autojump_clock: Clock) -> None:
    """Without a name there is nothing to negotiate: it is on for every connection, and sees every message."""
    log: list[str] = []

    class Looker(Extension):
        def encode(self, message: Frame) -> Frame:
            log.append(f"> {message.text}")
            return message

        def decode(self, message: Frame, max_size: int | None) -> Frame:
            log.append(f"< {message.data.decode()}")
            return message

    class Looking(ExtensionFactory):
        name = None

        def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension]:
            return offer, Looker(self)

    async with served(deflating(extensions=[Looking(), PerMessageDeflate()])) as client:
        head = await client.offer()
        assert b"Extensions: permessage-deflate\r\n" in head + b"\r\n"
        await client.say(b"compressed")
        assert b"compressed" == await client.hear()
        await client.send(Frame.Text("plain"))
        assert b"plain" == await client.hear()
    assert ["< compressed", "> compressed", "< plain", "> plain"] == log


async def test_a_bomb_costs_next_to_nothing(autojump_clock: Clock) -> None:
    """512 MiB in half a megabyte: 1009, and no memory to speak of."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(1 << 20)
    bomb = b"".join(compressor.compress(zeros) for _ in range(512)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    async with served(deflating(answer_grace=0)) as client:
        await client.offer()
        wire = masked(0xC2, bomb[:-4])
        tracemalloc.start()
        try:
            await client.send_bytes(wire)
            assert close(1009) == await client.receive()
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("size", [20, 200_000])
async def test_a_broadcast_is_compressed_once(autojump_clock: Clock, size: int) -> None:
    """All with the same window share the bytes, takeover or not; what they say and hear next is whole."""
    asked: list[int] = []
    sessions: list[Session] = []
    told = trio.Event()

    def compress_if(frame: Frame) -> bool:
        asked.append(len(frame.data))
        return True

    async def handler(session: Session) -> None:
        await session.send("before before before")
        sessions.append(session)
        await told.wait()
        await session.send("after after after")

    text = b"to all " * (size // 7)
    app = deflating(handler, extensions=[PerMessageDeflate(compress_if=compress_if)])
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(served(app)) for _ in range(6)]
        for client in clients[:3]:
            await client.offer()
        await clients[3].offer(OFFER.replace(b"\r\n\r\n", b"; server_no_context_takeover\r\n\r\n"))
        await clients[4].offer(OFFER.replace(b"\r\n\r\n", b"; server_max_window_bits=9\r\n\r\n"))
        await clients[5].offer(b"\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert 6 == await broadcast(sessions, Frame.Text(text))
        told.set()
        for client in clients:
            if client is clients[4]:
                client._inflate = zlib.decompressobj(-9)
            if client is clients[3]:
                await hear_alone(client, [b"before before before", text, b"after after after"])
            else:
                assert [b"before before before", text, b"after after after"] == [await client.hear() for _ in range(3)]
            assert close(1000) == await client.receive()
    assert 2 == asked.count(len(text))  # for windows of 12 bits and of 9


async def hear_alone(client: DeflateClient, expected: list[bytes]) -> None:
    """Each message is readable without what came before it."""
    for data in expected:
        client._inflate = zlib.decompressobj(-15)
        assert data == await client.hear()


async def test_a_broadcast_through_a_queue_keeps_its_place(autojump_clock: Clock) -> None:
    """Between messages that were compressed on their own, which go on to be readable."""

    async def handler(session: Session) -> None:
        for number in range(5):
            await session.send(f"own {number} own {number}")
            assert 1 == await broadcast([session], f"all {number} all {number}")

    async with served(deflating(handler)) as client:
        await client.offer()
        for number in range(5):
            assert f"own {number} own {number}".encode() == await client.hear()
            assert f"all {number} all {number}".encode() == await client.hear()


async def test_an_extension_that_cannot_share_encodes_for_each(autojump_clock: Clock) -> None:
    """The default: every connection's own."""
    count = 0

    class Counter(Extension):
        def encode(self, message: Frame) -> Frame:
            nonlocal count
            count += 1
            return message

    class Counting(ExtensionFactory):
        name = None

        def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension]:
            return offer, Counter(self)

    sessions: list[Session] = []

    async def handler(session: Session) -> None:
        sessions.append(session)
        await session.wait_closed()

    app = deflating(handler, extensions=[Counting()])
    async with served(app) as one, served(app) as other:
        await one.offer(b"\r\n")
        await other.offer(b"\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert 2 == await broadcast(sessions, "to all")
        assert [b"to all"] * 2 == [await one.hear(), await other.hear()]
    assert 2 == count
