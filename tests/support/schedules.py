"""Random schedules of one conversation: what its tasks do, what its peer does, and how its stream behaves.

A `Schedule` is a value, so that hypothesis can draw one and make it smaller. `play` runs it with the real engine
over a stream that takes as many bytes as it likes, when it likes, and gives back a `Record`: what was accepted
when, what was cancelled, and the bytes on the wire. `judge` says whether they belong together. Nothing in here
knows how the engine is built, but for the one place where the stream is put under it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, final

import attrs
import pytest
import trio
import trio.testing

from tests.support.helpers import REQUEST, application, client_bytes, raw_application
from trioktor import (
    CLOSE,
    SKIP,
    ClientRawWebSocketSession,
    ClientWebSocketSession,
    ConnectionClosed,
    ExtensionHeader,
    Frame,
    FrameType,
    Handshake,
    Headers,
    PerMessageDeflate,
    ProtocolError,
    RawWebSocketSession,
    WebSocketSession,
    broadcast,
)
from trioktor.client.connect import wire
from trioktor.client.options import client_options
from trioktor.client.upgrade import Opened
from trioktor.engine.lifetime import hold
from trioktor.engine.patience import Patience
from trioktor.engine.poller import Poller
from trioktor.engine.transport import HangUp, Transport
from trioktor.http.requests import RequestHead
from trioktor.protocol.deflate import PerMessageDeflate as _Deflate
from trioktor.protocol.parser import FrameParser
from trioktor.protocol.serializer import head
from trioktor.server.host import Host

PATIENCE: Final = 1000.0
"""Seconds, on a clock that jumps: what takes longer hangs."""
DEFLATE_OFFER: Final = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


@final
@attrs.frozen
class Op:
    """One thing that a task of the handler does; cancelled after so many passes, if that is no None."""

    name: str
    size: int = 0
    cancel_after: int | None = None


@final
@attrs.frozen
class PeerOp:
    """One thing that the peer does, after so many passes."""

    name: str
    after: int = 0
    size: int = 0


@final
@attrs.frozen
class Schedule:
    """What happens in one conversation."""

    tasks: tuple[tuple[Op, ...], ...]
    peer: tuple[PeerOp, ...] = ()
    seed: int = 0
    end: str = "return"
    is_socket: bool = True
    settings: tuple[tuple[str, Any], ...] = ()
    raw: bool = False
    deflate: bool = False
    corks: bool = False
    is_client: bool = False


class Broken(Exception):
    """What a handler of a schedule fails with."""


@final
class FickleTransport(Transport):
    """A stream that takes a random number of bytes, none at times, and lets a writer wait at random."""

    takes_nowait = True

    def __init__(self, seed: int, *, is_socket: bool) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self._is_socket = is_socket
        self._input = bytearray()
        self._arrival = trio.Event()
        self._has_ended = False
        self._error: OSError | None = None
        self._is_closed = False
        self.taken = bytearray()
        self.is_stuck = False
        self.client: tuple[str, int] | str | None = ("127.0.0.1", 1)
        self.is_local: bool = False
        self.is_secure: bool = False

    # the engine's side

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._input:
            self._fail()
            if self._has_ended:
                return b""
            self._arrival = trio.Event()
            await self._arrival.wait()
        size = self._random.choice((1, 7, 100, 65536, 65536))
        data = bytes(self._input[:size])
        del self._input[:size]
        return data

    async def send(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        patience = Patience(self.write_timeout)
        while view:
            is_over = await patience.outlast(self._wait_writable)
            taken = self._take(view) if not is_over else 0
            if is_over:
                raise self.timed_out()
            patience.renew()
            self.progressed()
            view = view[taken:]

    async def _wait_writable(self) -> None:
        for _ in range(self._random.choice((0, 0, 1, 3))):
            await trio.lowlevel.checkpoint()
        while self.is_stuck:  # noqa: ASYNC110
            await trio.sleep(1)
        await trio.lowlevel.checkpoint_if_cancelled()

    def send_nowait(self, data: bytes | memoryview) -> int:
        self._fail()
        return self._take(data) if self._is_socket and not self.is_stuck else 0

    def _take(self, data: bytes | memoryview) -> int:
        self._fail()
        size = self._random.choice((0, 1, 3, 50, 1 << 10, 1 << 30, 1 << 30))
        self.taken += data[:size]
        return min(size, len(data))

    def _fail(self) -> None:
        if self._is_closed:
            raise trio.BrokenResourceError("closed")
        if self._error is not None:
            raise trio.BrokenResourceError("reset") from self._error

    def read_nowait(self) -> bytes | None:
        data = bytes(self._input)
        self._input.clear()
        return data or None

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    def hang_up(self) -> HangUp:
        return HangUp.FULL if self._error is not None else HangUp.HALF if self._has_ended else HangUp.NO

    async def aclose(self) -> None:
        self._is_closed = True
        self._arrival.set()
        await trio.lowlevel.checkpoint()

    # the peer's side

    def say(self, data: bytes) -> None:
        """Bytes of the peer arrive."""
        self._input += data
        self._arrival.set()

    def end(self) -> None:
        """The peer says no more."""
        self._has_ended = True
        self._arrival.set()

    def reset(self) -> None:
        """The connection is gone."""
        self._error = ConnectionResetError("reset")
        self._arrival.set()


@final
@attrs.define(eq=False)
class Sent:
    """One message: when its sending began and when it was accepted, on one scale of steps."""

    frame: Frame
    began: int
    accepted: int | None = None
    is_unfinished: bool = False
    pieces: list[bytes] = attrs.field(factory=list)


@final
class Record:
    """What came of a schedule."""

    def __init__(self, transport: FickleTransport) -> None:
        self.transport = transport
        self.step = 0
        self.sent: dict[bytes, Sent] = {}
        self.flushed: list[tuple[int, int]] = []  # began at this step, ended with so many bytes taken
        self.controls: list[bytes] = []  # Pings and Pongs that were accepted
        self.misuses = 0
        self.session: Any = None
        self.was_interrupted = False  # the connection was dropped, lost or failed on purpose

    def now(self) -> int:
        """The next step."""
        self.step += 1
        return self.step


@final
class _Tasks:
    """Does what a schedule says."""

    def __init__(self, schedule: Schedule, record: Record, session: Any) -> None:
        self._schedule = schedule
        self._record = record
        self._session = session
        self._clone: Any = None
        self._number = 0
        self._has_fragmented = False

    def _payload(self, size: int) -> bytes:
        self._number += 1
        return f"<{self._number:06}>".encode() + bytes(random.Random(self._number).choices(b"abcdef", k=size))

    async def run(self, ops: tuple[Op, ...]) -> None:
        for op in ops:
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                if op.cancel_after is not None:
                    nursery.start_soon(self._cancel, scope, op.cancel_after)
                with scope:
                    try:
                        await getattr(self, op.name)(op)
                    except (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel):
                        pass
                    except trio.WouldBlock:
                        pass
                    except ProtocolError:
                        pass
                nursery.cancel_scope.cancel()

    async def _cancel(self, scope: trio.CancelScope, passes: int) -> None:
        for _ in range(passes):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async def _send(self, op: Op, send: Callable[[Frame], Awaitable[object]], **flags: Any) -> None:
        frame: Frame = (Frame.Text if op.size % 2 else Frame.Binary)(self._payload(op.size), **flags)
        if isinstance(frame, Frame.Text) and flags.get("fin", True):
            frame = Frame.Text(frame.data.decode())
        sent = self._record.sent[frame.data] = Sent(frame, self._record.now())
        await send(frame)
        sent.accepted = self._record.now()

    async def send(self, op: Op) -> None:
        await self._send(op, self._session.send)

    async def send_text(self, op: Op) -> None:
        await self._send(attrs.evolve(op, size=op.size | 1), self._session.send)

    async def send_nowait(self, op: Op) -> None:
        async def send(frame: Frame) -> None:
            self._session.send_nowait(frame)

        await self._send(op, send)

    async def channel(self, op: Op) -> None:
        await self._send(op, self._session.outgoing.send)

    async def channel_nowait(self, op: Op) -> None:
        async def send(frame: Frame) -> None:
            self._session.outgoing.send_nowait(frame)

        await self._send(op, send)

    async def clone(self, op: Op) -> None:
        if self._clone is None:
            self._clone = self._session.outgoing.clone()
        await self._send(op, self._clone.send)

    async def drop_handle(self, op: Op) -> None:
        self._session.outgoing.close()
        if self._clone is not None:
            self._clone.close()

    async def spread(self, op: Op) -> None:
        async def send(frame: Frame) -> None:
            if not await broadcast([self._session], frame, on_full=CLOSE if op.size % 7 == 3 else SKIP):
                raise trio.WouldBlock

        await self._send(op, send)

    async def fragments(self, op: Op) -> None:
        if self._has_fragmented:  # a second one of the kind would continue the first, by right
            return
        self._has_fragmented = True
        session = self._session
        await session.send(Frame.Binary(b"part one,", fin=False))
        await trio.lowlevel.checkpoint()
        await session.send(Frame.Binary(b"part two", fin=True))

    async def message(self, op: Op) -> None:
        kind = FrameType.BINARY
        payload = self._payload(op.size)
        sent = Sent(Frame.Binary(payload), self._record.now(), is_unfinished=True)
        self._record.sent[payload] = sent
        async with self._session.message(kind) as message:
            for start in range(0, len(payload), max(1, len(payload) // 3)):
                piece = payload[start : start + max(1, len(payload) // 3)]
                await message.send(piece)
                sent.pieces.append(piece)
                if op.size % 5 == 4:
                    await self._session.flush()
            if op.size % 11 == 10:
                raise ProtocolError("given up")
        sent.is_unfinished = False
        sent.accepted = self._record.now()

    async def ping(self, op: Op) -> None:
        await self._control(Frame.Ping, self._session.send)

    async def pong(self, op: Op) -> None:
        await self._control(Frame.Pong, self._session.send)

    async def channel_ping(self, op: Op) -> None:
        await self._control(Frame.Ping, self._session.outgoing.send)

    async def channel_pong_nowait(self, op: Op) -> None:
        async def send(frame: Frame) -> None:
            self._session.outgoing.send_nowait(frame)

        await self._control(Frame.Pong, send)

    async def _control(self, kind: Any, send: Callable[[Frame], Awaitable[object]]) -> None:
        payload = self._payload(0)
        await send(kind(payload))
        self._record.controls.append(payload)

    async def junk(self, op: Op) -> None:
        self._session.outgoing.send_nowait(42)
        self._record.misuses += 1

    async def flush(self, op: Op) -> None:
        began = self._record.now()
        await self._session.flush()
        if self._session.close_reason is None:
            self._record.flushed.append((began, len(self._record.transport.taken)))

    async def receive(self, op: Op) -> None:
        with trio.move_on_after(50):
            await self._session.receive()

    async def take_nowait(self, op: Op) -> None:
        self._session.receive_nowait()

    async def echo(self, op: Op) -> None:
        frame = None
        with trio.move_on_after(50):
            frame = await self._session.receive()
        if frame is not None:
            await self._session.send(frame)

    async def rest(self, op: Op) -> None:
        for _ in range(op.size):
            await trio.lowlevel.checkpoint()

    async def nap(self, op: Op) -> None:
        await trio.sleep(0.1)

    async def close(self, op: Op) -> None:
        self._session.close(4000)

    async def channel_close_nowait(self, op: Op) -> None:
        self._session.outgoing.send_nowait(Frame.Close())

    async def aclose(self, op: Op) -> None:
        if op.cancel_after is not None:
            self._record.was_interrupted = True
        await self._session.aclose(4001)

    async def terminate(self, op: Op) -> None:
        self._record.was_interrupted = True
        self._session.terminate()

    async def stuck(self, op: Op) -> None:
        self._record.transport.is_stuck = True
        try:
            for _ in range(op.size % 50):
                await trio.lowlevel.checkpoint()
        finally:
            self._record.transport.is_stuck = False


async def _peer(schedule: Schedule, record: Record) -> None:
    transport = record.transport

    def written(*frames: Frame) -> bytes:
        if not schedule.is_client:
            return client_bytes(*frames)
        return b"".join(head(frame.first_byte, len(frame.data)) + frame.data for frame in frames)

    for number, op in enumerate(schedule.peer):
        for _ in range(op.after):
            await trio.lowlevel.checkpoint()
        if op.name == "message":
            transport.say(written(Frame.Binary(b"peer" + bytes(op.size))))
        elif op.name == "fragment":
            first, rest = Frame.Text(b"frag", fin=False), Frame.Text(b"ment")
            transport.say(written(first) + bytes([0x80]) + written(rest)[1:])
        elif op.name == "ping":
            transport.say(written(Frame.Ping(b"peer %d" % number)))
        elif op.name == "pong":
            transport.say(written(Frame.Pong(b"peer %d" % number)))
        elif op.name == "close":
            transport.say(written(Frame.Close()))
        elif op.name == "violate":
            transport.say(bytes([0x83]) + written(Frame.Text("no such opcode"))[1:])
        elif op.name == "hang_up":
            record.was_interrupted = True
            transport.end()
        elif op.name == "reset":
            record.was_interrupted = True
            transport.reset()
    if schedule.end == "stay":
        transport.say(written(Frame.Close()))


def play(schedule: Schedule, patch: pytest.MonkeyPatch) -> Record:
    """Run a schedule to its end, on a clock that jumps."""
    record: Record | None = None

    async def main() -> None:
        nonlocal record
        transport = FickleTransport(schedule.seed, is_socket=schedule.is_socket)
        record = Record(transport)
        await _play(schedule, record, patch)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert record is not None
    return record


async def _play(schedule: Schedule, record: Record, patch: pytest.MonkeyPatch) -> None:
    failures: list[Exception] = []

    async def handler(session: WebSocketSession | RawWebSocketSession) -> None:
        record.session = session
        tasks = _Tasks(schedule, record, session)
        async with trio.open_nursery() as nursery:
            for ops in schedule.tasks:
                nursery.start_soon(tasks.run, ops)
        if schedule.end == "raise":
            raise Broken
        if schedule.end == "stay":
            async for _ in session.incoming:
                pass

    if schedule.is_client:
        await _play_client(schedule, record, handler)
        return
    settings: dict[str, Any] = dict(schedule.settings)
    if schedule.deflate:
        settings["extensions"] = [PerMessageDeflate()]
    app = (raw_application if schedule.raw else application)(handler, **settings)
    request = REQUEST % b"/"
    if schedule.deflate:
        request = request.replace(b"\r\n\r\n", b"\r\n" + DEFLATE_OFFER + b"\r\n")
    record.transport.say(request)
    patch.setattr("trioktor.server.host.open_transport", lambda stream: record.transport)
    ours, _ = trio.testing.memory_stream_pair()
    host = Host(app, on_failure=failures.append)
    poller = Poller() if schedule.corks and Poller.is_possible() else None
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            if poller is not None:  # for its waker alone: such a stream has a reader of its own
                host.poller = poller
                nursery.start_soon(poller.later.run)
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(_peer, schedule, record)
            await host.handle(ours)
            nursery.cancel_scope.cancel()
    if poller is not None:
        poller._epoll.close()
    assert all(isinstance(failure, Broken) for failure in failures), failures
    assert record.session is not None
    assert record.session.close_reason is not None


async def _play_client(schedule: Schedule, record: Record, handler: Callable[[Any], Awaitable[object]]) -> None:
    """The same in a client's block, behind its handshake."""
    settings: Any = {name: value for name, value in schedule.settings if name != "masking"}
    options = client_options("ws://localhost/", settings)
    kind: Any = ClientRawWebSocketSession if schedule.raw else ClientWebSocketSession
    deflate = (PerMessageDeflate().accept(ExtensionHeader("permessage-deflate")),)
    opened = Opened(
        transport=record.transport,
        address=options.address,
        head=RequestHead("GET", "/", "1.1", Headers()),
        response=Handshake(101, Headers()),
        protocol=None,
        extensions=deflate if schedule.deflate else (),
        trailing_data=b"",
    )
    failures: list[Exception] = []
    connection, session = wire(opened, options, kind, failures)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_peer, schedule, record)
            try:
                async with hold(connection, failures):
                    await handler(session)
            except Broken:
                pass
            nursery.cancel_scope.cancel()
    assert record.session.close_reason is not None


# what must hold


def judge(schedule: Schedule, record: Record) -> None:
    """The wire holds what was accepted: each frame whole, in order, a Close at most once and last."""
    said = bytes(record.transport.taken)
    is_cut = record.was_interrupted or record.session.close_sent is None
    offset, rest = 0, said
    if not schedule.is_client:
        answer, separator, rest = said.partition(b"\r\n\r\n")
        if is_cut and not separator:
            return
        assert answer.startswith(b"HTTP/1.1 101 ")
        offset = len(answer) + 4
    frames = _frames(schedule, rest)
    closes = [position for position, (frame, _) in enumerate(frames) if isinstance(frame, Frame.Close)]
    assert closes in ([], [len(frames) - 1])
    controls = [frame.data for frame, _ in frames if isinstance(frame, (Frame.Ping, Frame.Pong))]
    ours = [data for data in controls if not data.startswith(b"peer ")]
    assert len(set(controls)) == len(controls)
    assert set(ours) <= set(record.controls) | {data for data in ours if data.startswith(b"<")}
    messages = _messages(frames)
    _check_messages(schedule, record, messages, is_cut=is_cut)
    _check_flushes(record, messages, offset)


def _frames(schedule: Schedule, data: bytes) -> list[tuple[Frame, int]]:
    """Each frame, and the byte behind which it stands; half a frame at the end is left out."""
    parser = FrameParser(
        masked=schedule.is_client or dict(schedule.settings).get("masking", False),
        max_frame_size=None,
        whole_messages=False,
        reserved=0x40 if schedule.deflate else 0,
    )
    frames: list[tuple[Frame, int]] = []
    start = 0
    while (end := start + _size(data, start)) <= len(data):
        frames.extend((frame, end) for frame in parser.feed(data[start:end]))
        start = end
    assert not list(parser.feed(data[start:]))
    return frames


def _size(data: bytes, start: int) -> int:
    """The bytes of the frame that begins here, so far as they are known."""
    if len(data) < start + 2:
        return 2
    length, key = data[start + 1] & 0x7F, 4 * (data[start + 1] >> 7)
    extra = {126: 2, 127: 8}.get(length, 0)
    if extra:
        length = int.from_bytes(data[start + 2 : start + 2 + extra], "big")
    return 2 + extra + key + length


def _messages(frames: list[tuple[Frame, int]]) -> list[tuple[bytes, int, bool]]:
    """Messages, where they end, and whether they do; inflated where they have to be."""
    messages: list[tuple[bytes, int, bool]] = []
    codec = _codec()
    first: Frame | None = None
    payload = b""
    for frame, end in frames:
        if frame.type.is_control:
            continue
        payload += frame.data
        first = first or frame
        if frame.fin:
            if first.rsv1:
                whole = Frame.Binary(payload, rsv1=True)
                payload = codec.decode(whole, None).data
            messages.append((payload, end, True))
            first, payload = None, b""
    if first is not None:
        messages.append((payload, frames[-1][1], False))
    return messages


def _codec() -> Any:
    agreed = _Deflate().negotiate(ExtensionHeader("permessage-deflate"))
    assert agreed is not None
    return agreed[1]


def _check_messages(
    schedule: Schedule, record: Record, messages: list[tuple[bytes, int, bool]], *, is_cut: bool
) -> None:
    others = (b"part one,part two", b"part one,")
    seen: list[Sent] = []
    for payload, _, is_whole in messages:
        if payload.startswith((b"peer", b"frag", b"ment")) or payload in others:
            continue
        sent = record.sent.get(payload)
        if not is_whole or sent is None or sent.is_unfinished:
            assert (payload, is_whole) == (messages[-1][0], messages[-1][2]), "half a message, and more behind it"
            candidates = [sent for sent in record.sent.values() if sent.is_unfinished or is_cut]
            assert any(sent.frame.data.startswith(payload) for sent in candidates), payload[:40]
            continue
        seen.append(sent)
    assert len({id(sent) for sent in seen}) == len(seen), "a message came twice"
    latest_begin = 0
    for sent in seen:
        assert sent.accepted is not None or is_cut, f"not accepted, and yet sent: {sent.frame!r}"
        assert sent.accepted is None or sent.accepted > latest_begin, "messages came in another order"
        latest_begin = max(latest_begin, sent.began)
    lost = [sent for sent in record.sent.values() if sent.accepted is not None and sent not in seen]
    if not is_cut and not may_lose(schedule):
        assert not lost, f"accepted, and never sent: {lost}"


def may_lose(schedule: Schedule) -> bool:
    """Whether what was accepted behind something that ends the conversation may be dropped by right."""
    names = {op.name for ops in schedule.tasks for op in ops}
    unfinished = any(op.name == "message" for ops in schedule.tasks for op in ops)
    # A raw echo of half a message leaves it open, and what is put into the channel then is misuse.
    echoes_fragments = schedule.raw and "echo" in names and any(op.name == "fragment" for op in schedule.peer)
    return bool(names & {"junk", "channel_close_nowait"}) or unfinished or echoes_fragments


def _check_flushes(record: Record, messages: list[tuple[bytes, int, bool]], offset: int) -> None:
    ends = {payload: end + offset for payload, end, is_whole in messages if is_whole}
    for began, taken in record.flushed:
        for payload, sent in record.sent.items():
            if sent.accepted is not None and sent.accepted < began and payload in ends:
                assert ends[payload] <= taken, "flush returned before what was sent before it was written"
