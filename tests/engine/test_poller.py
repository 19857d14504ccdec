"""One task reads all plain sockets: what it saves, and what must not go wrong for that."""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.helpers import RawClient, application, client_bytes, close, records_above_info
from trioktor import Application, ConnectionBroken, Extension, ExtensionFactory, Frame, Server, WebSocketSession, serve
from trioktor.engine import lending as lending_module, poller as poller_module
from trioktor.engine.connection import Connection
from trioktor.engine.intake import Intake
from trioktor.engine.pinging import Keepalive
from trioktor.engine.polled_reader import PolledReader
from trioktor.engine.poller import Poller
from trioktor.engine.reader import Reader
from trioktor.engine.shields import STOP_LIMIT
from trioktor.engine.sockets import SocketTransport
from trioktor.protocol import native
from trioktor.protocol.conversation import Conversation

Clock = trio.testing.MockClock
Session = WebSocketSession

pytestmark = pytest.mark.skipif(not Poller.is_possible(), reason="the system has no epoll")


needs_native = pytest.mark.skipif(not native.is_native, reason="the native part was not built, or is not wanted")

clients: list[RawClient] = []


@asynccontextmanager
async def serving(app: Application, **options: Any) -> AsyncIterator[Server]:
    """A server on a real port; cancelled at the end of the block, when every client hangs up, too."""
    try:
        async with trio.open_nursery() as nursery:
            yield await nursery.start(partial(serve, app, 0, host="127.0.0.1", **options))
            nursery.cancel_scope.cancel()
    finally:
        while clients:
            await trio.aclose_forcefully(clients.pop().stream)


async def connect(server: Server, *, upgrade: bool = True) -> RawClient:
    """A client of it, in conversation."""
    client = RawClient(await trio.open_tcp_stream("127.0.0.1", server.port))
    clients.append(client)
    if upgrade:
        assert (await client.upgrade()).startswith(b"HTTP/1.1 101 ")
        await trio.testing.wait_all_tasks_blocked()
    return client


def connection_of(session: Session) -> Connection:
    """What is below a session."""
    return session._connection


async def echo(session: Session) -> None:
    """Say everything again."""
    async for frame in session:
        await session.send(frame)


async def test_an_idle_connection_is_its_handlers_task_and_nothing_else(autojump_clock: Clock) -> None:
    """No reader, no writer, no channel; also when it has said something, and was asked for a sign of life."""
    async with serving(application(echo)) as server:
        client = await connect(server)
        await client.send(Frame.Text("hello"))
        assert Frame.Text("hello") == await client.receive()
        await client.send(Frame.Ping(b"still there?"))
        assert Frame.Pong(b"still there?") == await client.receive()
        await trio.sleep(1)
        (session,) = server.sessions
        connection = connection_of(session)  # type: ignore[arg-type]
        assert isinstance(connection.reader, PolledReader)
        assert connection._nursery is not None
        assert set() == connection._nursery.child_tasks
        assert connection.writing.writer is None
        assert (None, None) == (connection.inbox._channel, connection.outbox.pending.queue)


@needs_native
async def test_a_message_alone_needs_no_loop_and_others_do(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that came in one read, with nothing beside it, or several of which all are there; a part of one is not."""
    looped: list[bytes] = []
    receive = Conversation.receive

    def spy(self: Conversation, data: bytes) -> Iterator[Frame | None]:
        if data and not self.closing.is_client:
            looped.append(data)
        return receive(self, data)

    monkeypatch.setattr(Conversation, "receive", spy)
    async with serving(application(echo)) as server:
        client = await connect(server)
        for text in ("one", "another"):
            await client.send(Frame.Text(text))
            assert Frame.Text(text) == await client.receive()
        assert looped == []
        two = client_bytes(Frame.Text("a"), Frame.Text("b"))
        await client.stream.send_all(two)
        assert [Frame.Text("a"), Frame.Text("b")] == [await client.receive(), await client.receive()]
        assert looped == []
        part = client_bytes(Frame.Text("c"))
        await client.stream.send_all(part[:3])
        await trio.testing.wait_all_tasks_blocked(0.01)
        await client.stream.send_all(part[3:])
        assert Frame.Text("c") == await client.receive()
        assert looped == [part[:3], part[3:]]
        await client.send(Frame.Text("alone again"))
        assert Frame.Text("alone again") == await client.receive()
        assert len(looped) == 2
        await client.stream.send_all(two + part[:3])
        assert [Frame.Text("a"), Frame.Text("b")] == [await client.receive(), await client.receive()]
        assert looped[2:] == [part[:3]]


# long messages, read to where they will stand


class Reads(list[int | None]):
    """What every read into a target gave."""

    def __init__(self) -> None:
        super().__init__()
        self.first = trio.Event()

    @property
    def total(self) -> int:
        """The bytes of all of them."""
        return sum(count or 0 for count in self)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """The reads into targets, as they come."""
    seen = Reads()
    read_into = SocketTransport.read_into

    def spy(self: SocketTransport, target: Any) -> int | None:
        seen.append(None)
        seen[-1] = read_into(self, target)
        seen.first.set()
        return seen[-1]

    monkeypatch.setattr(SocketTransport, "read_into", spy)
    return seen


@needs_native
@pytest.mark.parametrize("kind", [Frame.Binary, Frame.Text])
async def test_a_long_message_is_read_to_where_it_will_stand(kind: Any, autojump_clock: Clock, reads: Reads) -> None:
    """But not a text, which is looked at as it comes; what stands behind it is the next message."""
    data = bytes(range(97, 105)) * 50_000
    async with serving(application(echo)) as server:
        client = await connect(server)
        long = kind(data)
        await client.stream.send_all(client_bytes(long, Frame.Text("behind"), long))
        assert [long, Frame.Text("behind"), long] == [await client.receive() for _ in range(3)]
        assert bool(reads) == (kind is Frame.Binary)
        assert reads.total <= 2 * len(data)


@needs_native
@pytest.mark.parametrize("end", ["end of the stream", "reset"])
async def test_a_connection_that_ends_in_a_long_message_is_broken(
    end: str, autojump_clock: Clock, reads: Reads, caplog: pytest.LogCaptureFixture
) -> None:
    """As anywhere else; and nobody else is touched."""
    causes: list[BaseException | None] = []
    ended = trio.Event()

    async def handler(session: Session) -> None:
        try:
            await session.receive()
        except ConnectionBroken as error:
            causes.append(error.__cause__)
            ended.set()

    async with serving(application(handler)) as server:
        client, other = await connect(server), await connect(server)
        await client.stream.send_all(client_bytes(Frame.Binary(bytes(500_000)))[:300_000])
        await reads.first.wait()
        if end == "reset":
            client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # type: ignore[attr-defined]
        await client.stream.aclose()
        await ended.wait()
        assert (end == "reset") == isinstance(causes[0], OSError)
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.sessions) == 1
        await other.send(close(1000))
        assert close(1000) == await other.receive()
    assert [] == records_above_info(caplog)


@needs_native
async def test_pieces_may_be_asked_for_in_the_middle_of_a_long_message(autojump_clock: Clock, reads: Reads) -> None:
    """What was read into its place is given out, and what follows is read as pieces are."""
    data = bytes(range(256)) * 2000
    got: list[bytes] = []

    async def handler(session: Session) -> None:
        await reads.first.wait()
        message = await session.receive_message()
        async for piece in message:
            got.append(piece)  # type: ignore[arg-type]

    async with serving(application(handler)) as server:
        client = await connect(server)
        wire = client_bytes(Frame.Binary(data))
        await client.stream.send_all(wire[:200_000])
        await reads.first.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await client.stream.send_all(wire[200_000:])
        assert close(1000) == await client.receive()
    assert data == b"".join(got)


async def test_other_streams_and_other_hosts_have_a_reader(autojump_clock: Clock) -> None:
    """What the poller can't watch, or nobody's server runs."""
    readers: list[type] = []

    async def handler(session: Session) -> None:
        readers.append(type(connection_of(session).reader))

    ours, theirs = socket.socketpair()
    async with trio.open_nursery() as nursery:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        nursery.start_soon(application(handler).handle_stream, stream)
        async with RawClient(trio.SocketStream(trio.socket.from_stdlib_socket(ours))).stream as near:
            client = RawClient(near)
            await client.upgrade()
            await client.send(close(1000))
            await client.receive_rest()
    assert readers == [Reader]


class Failing(Extension):
    """An extension with a bug."""

    def decode(self, message: Frame, max_size: int | None) -> Frame:
        """Fail at what says so."""
        if message.data == b"decode":
            raise KeyError("a bug")
        return message

    def encode(self, message: Frame) -> Frame:
        """Fail at what says so."""
        if message.data == b"encode":
            raise KeyError("a bug")
        return message


class FailingFactory(ExtensionFactory):
    """Always on."""

    name = None

    def negotiate(self, offer: Any) -> Any:
        """Agree."""
        return offer, Failing(self)


@pytest.mark.parametrize("where", ["decode", "decode behind a full queue", "encode"])
@pytest.mark.parametrize("plain", [True, False])
async def test_an_extension_that_fails_ends_its_own_connection(
    where: str, plain: bool, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """With 1011, once in the log; another connection does not notice, and new ones are let in."""

    async def handler(session: Session) -> None:
        await trio.sleep(1)
        async for frame in session:
            session.outgoing.send_nowait(frame)

    async with serving(application(handler, extensions=[FailingFactory()], incoming=2)) as server:
        if not plain:
            server._host.poller = None
        other = await connect(server)
        failing = await connect(server)
        if where == "decode behind a full queue":
            await failing.send(*[Frame.Text("x")] * 3, Frame.Text("decode"))
        else:
            await failing.send(Frame.Text(where))
        rest = await failing.receive_rest()
        assert close(1011) == rest[-1]
        await other.send(Frame.Text("hello"))
        assert Frame.Text("hello") == await other.receive()
        third = await connect(server)
        await third.send(close(1000))
        assert close(1000) == await third.receive()
    (record,) = records_above_info(caplog)
    assert record.exc_info
    assert isinstance(record.exc_info[1], KeyError)


async def test_a_task_of_the_engine_that_fails_ends_its_own_connection(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours is no reason to stop the server: the others go on."""

    async def fail(_: Keepalive) -> None:
        await trio.sleep(1)
        raise ZeroDivisionError

    async with serving(application(echo, ping_period=10)) as server:
        other = await connect(server)
        monkeypatch.setattr(Keepalive, "run_pinger", fail)
        failing = await connect(server)
        assert [close(1001)] == await failing.receive_rest()
        await trio.sleep(2)
        await other.send(Frame.Text("hello"))
        assert Frame.Text("hello") == await other.receive()
    (record,) = records_above_info(caplog)
    assert record.exc_info


@pytest.mark.parametrize("where", ["accepted", "lose"])
async def test_whatever_goes_wrong_with_one_socket_ends_that_connection_alone(
    where: str, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As it is taken from the listener, or read by the task that reads all; no descriptor is left open."""

    def fail(*_: object) -> None:
        monkeypatch.undo()
        raise ZeroDivisionError

    async with serving(application(echo)) as server:
        other = await connect(server)
        failing = await connect(server, upgrade=where == "lose")
        if where == "lose":
            monkeypatch.setattr(Intake, "lose", fail)
            assert isinstance(failing.stream, trio.SocketStream)
            failing.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            monkeypatch.setattr(SocketTransport, "__init__", fail)
            failing = await connect(server, upgrade=False)
            assert b"" == await failing.stream.receive_some()
        await failing.aclose()
        await trio.sleep(2)
        await other.send(Frame.Text("hello"))
        assert Frame.Text("hello") == await other.receive()
    (record,) = records_above_info(caplog)
    assert record.exc_info


async def test_a_reset_while_there_is_no_room_does_not_keep_the_poller_busy(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported once, and found by whoever waits for room."""
    reads = 0
    read = PolledReader.read

    def counting(self: PolledReader) -> None:
        nonlocal reads
        reads += 1
        read(self)

    monkeypatch.setattr(PolledReader, "read", counting)
    ended: list[float] = []

    async def handler(session: Session) -> None:
        await session.wait_closed()
        ended.append(trio.current_time())
        while True:
            try:
                await session.receive()
            except ConnectionBroken:
                return

    async with serving(application(handler, incoming=2)) as server:
        client = await connect(server)
        await client.send(*[Frame.Text("x")] * 10)
        await trio.sleep(0.1)  # the handler was lent the socket, and does not want it
        before, began = reads, trio.current_time()
        assert isinstance(client.stream, trio.SocketStream)
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await client.aclose()
        await trio.sleep(0.5)
        assert reads - before <= 1
        await trio.sleep(2)
        assert pytest.approx(1, abs=0.1) == ended[0] - began


async def test_a_full_queue_is_the_peers_back_pressure_and_goes_on(autojump_clock: Clock) -> None:
    """Nothing is lost or swapped where the poller gives a socket away and gets it back."""
    received: list[str] = []

    async def handler(session: Session) -> None:
        async for frame in session:
            received.append(frame.text)
            if len(received) % 7 == 0:
                await trio.sleep(0.1)

    async with serving(application(handler, incoming=3)) as server:
        client = await connect(server)
        for start in range(0, 100, 10):
            await client.send(*[Frame.Text(str(number)) for number in range(start, start + 10)])
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()
    assert [str(number) for number in range(100)] == received


async def test_what_came_with_the_request_is_read(autojump_clock: Clock) -> None:
    """Before anything else, though no event tells of it; and a handler that wants pieces meets no limit."""
    sizes: list[int] = []

    async def handler(session: Session) -> None:
        sizes.append(sum([len(piece) async for piece in await session.receive_message()]))

    async with serving(application(handler, max_frame_size=10)) as server:
        client = await connect(server, upgrade=False)
        head = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        head += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        await client.send_bytes(head + client_bytes(Frame.Binary(bytes(1000))))
        await client.read_head()
        assert close(1000) == await client.receive()
    assert [1000] == sizes


async def test_descriptors_that_are_used_again_are_heard(autojump_clock: Clock) -> None:
    """A connection that ends leaves the epoll before its number is another's."""
    async with serving(application(echo)) as server:
        for number in range(30):
            client = await connect(server)
            await client.send(Frame.Text(str(number)), close(1000))
            assert [Frame.Text(str(number)), close(1000)] == await client.receive_rest()
        poller = server._host.poller
        assert poller is not None
        assert {} == poller._readers


async def test_a_session_that_is_over_lets_go_of_a_descriptor_once(autojump_clock: Clock) -> None:
    """Whatever is asked of it later: the connection that has the number by then is heard."""
    numbers: list[int] = []

    async def handler(session: Session) -> None:
        numbers.append(connection_of(session).transport.fileno())  # type: ignore[attr-defined]
        async for frame in session.incoming:
            await session.send(frame)

    async with serving(application(handler)) as server:
        client = await connect(server)
        (earlier,) = server.sessions
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()
        await client.aclose()
        client = await connect(server)
        assert numbers[0] == numbers[1]
        earlier.terminate()
        await client.send(Frame.Text("hello"))
        with trio.fail_after(1):
            assert Frame.Text("hello") == await client.receive()


async def test_the_poller_goes_on_when_the_last_connection_has_gone(autojump_clock: Clock) -> None:
    """It reads the next one, too."""
    async with serving(application(echo)) as server:
        for _ in range(3):
            client = await connect(server)
            (session,) = server.sessions
            assert isinstance(connection_of(session).reader, PolledReader)  # type: ignore[arg-type]
            await client.send(close(1000))
            assert [close(1000)] == await client.receive_rest()
            await trio.testing.wait_all_tasks_blocked()
            assert server.sessions == ()


async def test_the_poller_ends_after_the_last_connection(autojump_clock: Clock) -> None:
    """Which may live longer than `serve`, in a nursery of the caller's; then that nursery ends."""
    closed: list[str] = []

    async def handler(session: Session) -> None:
        await echo(session)
        closed.append("handler")

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(
                partial(serve, application(handler), 0, host="127.0.0.1", handler_nursery=connections)
            )
            client = await connect(server)
            nursery.cancel_scope.cancel()
        await client.send(Frame.Text("still there?"))
        assert Frame.Text("still there?") == await client.receive()
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()
    assert ["handler"] == closed


async def test_connections_are_let_in_when_the_nursery_of_the_poller_is_being_cancelled(
    autojump_clock: Clock,
) -> None:
    """The poller is gone by then; nothing hangs."""
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):
            async with trio.open_nursery() as connections:
                server: Server = await nursery.start(
                    partial(serve, application(echo), 0, host="127.0.0.1", handler_nursery=connections)
                )
                await connect(server)
                connections.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


async def test_a_cancelled_server_hears_the_peers_answer(autojump_clock: Clock) -> None:
    """The poller reads on for the goodbye: it takes no longer than the peer does."""
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as serving_nursery:
            server: Server = await serving_nursery.start(partial(serve, application(echo), 0, host="127.0.0.1"))
            client = await connect(server)
            began = trio.current_time()

            async def answer() -> None:
                assert close(1001) == await client.receive()
                await client.send(close(1001))

            nursery.start_soon(answer)
            serving_nursery.cancel_scope.cancel()
        assert trio.current_time() - began < 0.5


async def test_one_step_reads_so_many_sockets(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """And all of them get their turn."""
    monkeypatch.setattr(poller_module, "_BATCH", 2)
    async with serving(application(echo)) as server:
        clients = [await connect(server) for _ in range(7)]
        for client in clients:
            await client.send(Frame.Text("hello"))
        for client in clients:
            assert Frame.Text("hello") == await client.receive()


async def test_closed_without_a_connection_it_takes_none_from_then_on(autojump_clock: Clock) -> None:
    """Its task ends a pass later, and nobody would read what begins meanwhile."""
    poller = Poller()
    states = [poller.is_running]
    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        states.append(poller.is_running)
        poller.close()
        states.append(poller.is_running)
    assert states == [False, True, False]


class Counting:
    """A reader that counts how often it is to read, and reads what is there."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.reads = 0

    def read(self) -> None:
        """Read once."""
        self.reads += 1
        self._sock.recv(100)

    def note_alone(self) -> None:
        """Nothing to do."""


async def test_a_cancelled_poller_reads_on_and_ends_with_its_last_socket(autojump_clock: Clock) -> None:
    """At once, if there is none."""
    for is_there in (False, True):
        began, poller = trio.current_time(), Poller()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            reader, fd = Counting(ours), ours.fileno()
            async with trio.open_nursery() as nursery:
                await nursery.start(poller.run)
                if is_there:
                    poller.add(fd, reader)
                    poller.watch(fd)
                nursery.cancel_scope.cancel()
                if is_there:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(0.5)
                        theirs.send(b"the answer to our Close")
                        await trio.testing.wait_all_tasks_blocked()
                        poller.remove(fd, is_watched=True)
        assert (trio.current_time() - began, reader.reads) == (0.5 * is_there, is_there)


async def test_a_cancelled_poller_waits_for_no_socket_beyond_the_time_for_a_goodbye(autojump_clock: Clock) -> None:
    """And then it takes no more of them."""
    poller = Poller()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            await nursery.start(poller.run)
            poller.add(ours.fileno(), Counting(ours))
            nursery.cancel_scope.cancel()
    assert STOP_LIMIT < trio.current_time() <= 2 * STOP_LIMIT
    assert not poller.is_running


async def test_what_is_removed_is_not_watched_any_more() -> None:
    """Or its input would keep the poller busy until it is closed; it may be watched anew."""
    poller = Poller()
    ours, theirs = socket.socketpair()
    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        with ours, theirs:
            reader, fd = Counting(ours), ours.fileno()
            for number in (1, 2):
                poller.add(fd, reader)
                poller.watch(fd)
                theirs.send(b"x")
                await trio.testing.wait_all_tasks_blocked()
                assert reader.reads == number
                poller.remove(fd, is_watched=True)
        poller.close()


class Recorded:
    """An epoll, and how long it was to wait each time."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self.waits: list[float | None] = []

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """What there is."""
        self.waits.append(timeout)
        return self._epoll.poll(timeout, maxevents)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)


async def test_woken_for_nothing_it_holds_up_nobody() -> None:
    """What there was to read may be another's, in the same pass: then a look that waits would hold the whole loop."""
    poller: Any = Poller()
    poller._epoll = epoll = Recorded(poller._epoll)
    ours, theirs = socket.socketpair()
    async with trio.open_nursery() as nursery:
        await nursery.start(poller.run)
        with ours, theirs, ours.dup() as twin:
            reader, fd = Counting(ours), ours.fileno()
            poller.add(fd, reader)
            for _ in range(20):
                poller.watch(fd)
                await trio.testing.wait_all_tasks_blocked()
                before = reader.reads
                theirs.send(b"x")
                await trio.lowlevel.wait_readable(twin)  # in the pass of the poller, behind it or in front of it
                poller.unwatch(fd)
                if reader.reads == before:
                    ours.recv(1)
            assert 0 < reader.reads < 20
            assert set(epoll.waits) == {0}
            poller.remove(fd, is_watched=False)
        poller.close()


async def test_a_socket_that_can_not_be_watched_ends_its_connection_alone(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The system may allow no more; the server goes on, and ends when it is told to."""
    watch = Poller.watch

    def fail(self: Poller, fd: int) -> None:
        monkeypatch.setattr(Poller, "watch", watch)
        raise OSError(errno.ENOSPC, "no more watches")

    monkeypatch.setattr(lending_module, "_MOST", 0)
    with trio.fail_after(20):
        async with serving(application(echo)) as server:
            monkeypatch.setattr(Poller, "watch", fail)
            failing = await connect(server)
            assert await failing.receive_rest() == [close(1011)]
            other = await connect(server)
            await other.send(Frame.Text("hello"))
            assert Frame.Text("hello") == await other.receive()
            await other.aclose()
            await server.aclose()
    (record,) = records_above_info(caplog)
    assert record.exc_info


async def test_what_is_asked_of_a_closed_poller_does_nothing() -> None:
    """A connection may outlive it for a moment, when everything is being cancelled."""
    poller = Poller()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader: Any = object()
        poller.add(ours.fileno(), reader)
        poller.watch(ours.fileno())
        poller._epoll.close()
        poller.pause(ours.fileno())
        poller.resume(ours.fileno())
        poller.unwatch(ours.fileno())
        poller.watch(ours.fileno())
        poller.remove(ours.fileno(), is_watched=True)
        poller.remove(ours.fileno(), is_watched=True)
    assert {} == poller._readers


async def test_nothing_is_ever_watched_without_an_event() -> None:
    """With no event wanted at all, a reset would be reported for ever."""
    assert select.EPOLLRDHUP & poller_module._HANG_UP_ONCE
    assert select.EPOLLONESHOT & poller_module._HANG_UP_ONCE
    assert not select.EPOLLET & (poller_module._READ | poller_module._HANG_UP_ONCE)


@needs_native
@pytest.mark.parametrize("limit", [1 << 63, 1 << 70])
async def test_any_number_may_be_a_limit(limit: int, autojump_clock: Clock) -> None:
    """Also one that no machine word holds."""
    async with serving(application(echo, max_queued_bytes=limit)) as server:
        client = await connect(server)
        await client.stream.send_all(client_bytes(Frame.Text("a"), Frame.Text("b")))
        assert [Frame.Text("a"), Frame.Text("b")] == [await client.receive(), await client.receive()]


@pytest.mark.parametrize("capacity", [64, 5000])
async def test_one_step_takes_a_turn_of_messages_and_no_more(
    capacity: int, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many a read holds, and the queue."""
    steps: list[int] = []
    take, go_on = Intake.take, Intake._go_on
    is_taking = False

    def spy_take(self: Intake, data: bytes) -> bool:
        nonlocal is_taking
        before, is_taking = self._connection.conversation.frames_received, True
        done = take(self, data)
        is_taking = False
        steps.append(self._connection.conversation.frames_received - before)
        return done

    def spy_go_on(self: Intake) -> bool:
        before = self._connection.conversation.frames_received
        done = go_on(self)
        if not is_taking:
            steps.append(self._connection.conversation.frames_received - before)
        return done

    monkeypatch.setattr(Intake, "take", spy_take)
    monkeypatch.setattr(Intake, "_go_on", spy_go_on)
    received = 0

    async def handler(session: Session) -> None:
        nonlocal received
        async for _ in session:
            received += 1

    async with serving(application(handler, incoming=capacity)) as server:
        client = await connect(server)
        await client.stream.send_all(client_bytes(Frame.Text("")) * 100)
        await trio.testing.wait_all_tasks_blocked(0.001)
        await client.stream.send_all(client_bytes(Frame.Text("")) * 2900 + client_bytes(close(1000)))
        assert [close(1000)] == await client.receive_rest()
    assert received == 3000
    assert max(steps) <= 256
