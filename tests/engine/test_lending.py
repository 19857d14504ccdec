"""Sockets that are lent to the task in `receive`: when, to how many, and that every way out of it gives them back."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from tests.support.helpers import REQUEST, RawClient, application, client_bytes, close, records_above_info
from tests.support.lent import ask, connected, echo, lending_of
from tests.support.listening import no_descriptor_left, running, talking
from trioktor import CLOSE, ChannelConfig, ConnectionBroken, Frame, Server, WebSocketSession
from trioktor.engine import (
    lending as lending_module,
    polled_reader as reader_module,
    poller as poller_module,
)
from trioktor.engine.lending import Lease, Lending
from trioktor.engine.polled_reader import PolledReader
from trioktor.engine.poller import Poller
from trioktor.engine.sockets import SocketTransport

Clock = trio.testing.MockClock
Session = WebSocketSession

pytestmark = pytest.mark.skipif(not Poller.is_possible(), reason="the system has no epoll")


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    """What was lent is given back, and closed in the end."""
    with no_descriptor_left():
        yield


async def earn(client: RawClient, server: Server) -> None:
    """Talk until the socket is lent, and waited for; until then the poller reads it."""
    lending = lending_of(server)
    if lending.leases:
        (lease,) = lending.leases
        lease.lender.take_back()
        await trio.testing.wait_all_tasks_blocked()
    while not lending.leases:
        await ask(client, "alone")
    await trio.testing.wait_all_tasks_blocked()
    (lease,) = lending.leases
    assert lease.is_waiting


async def test_who_talks_alone_reads_by_himself(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The poller reads nothing more, and nothing runs that did not before."""
    by_poller: list[PolledReader] = []
    read = PolledReader.read

    def spy(self: PolledReader) -> None:
        by_poller.append(self)
        read(self)

    monkeypatch.setattr(PolledReader, "read", spy)
    async with talking(echo) as (client, server):
        assert lending_of(server).leases[0].is_waiting  # from the beginning
        assert by_poller == []
        await earn(client, server)
        assert len(by_poller) == reader_module._OFTEN
        del by_poller[:]
        for number in range(100):
            await ask(client, str(number))
        await trio.sleep(1)
        await ask(client, "still")
        assert by_poller == []
        (session,) = server.sessions
        assert session._connection._nursery is not None
        assert set() == session._connection._nursery.child_tasks
        await client.send(Frame.Ping(b"!"))
        assert Frame.Pong(b"!") == await client.receive()
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()
        assert by_poller == []


async def test_a_message_is_received_in_the_pass_of_its_event(autojump_clock: Clock) -> None:
    """One pass of the loop less than through the poller: what it is for."""

    class Passes(trio.abc.Instrument):
        """Counts when the loop looked for events."""

        count = 0

        def after_io_wait(self, timeout: float) -> None:
            """One pass."""
            self.count += 1

    passes, seen = Passes(), []

    async def handler(session: Session) -> None:
        async for _ in session:
            seen.append(passes.count)

    async with talking(handler) as (client, server):
        trio.lowlevel.add_instrument(passes)
        needed = []
        lending_of(server).leases[0].lender.take_back()
        for _ in range(reader_module._OFTEN + 2):
            await trio.testing.wait_all_tasks_blocked()
            before = passes.count
            await client.send(Frame.Text("x"))
            await trio.testing.wait_all_tasks_blocked()
            needed.append(seen[-1] - before)
        trio.lowlevel.remove_instrument(passes)
    assert needed[0] - 1 == needed[-1]


# every way out


Way = Callable[[Session, RawClient], Awaitable[object]]


async def opens_the_channel(session: Session, client: RawClient) -> None:
    """From now on all goes through it."""
    assert session.incoming is not None


async def is_sent_several(session: Session, client: RawClient) -> None:
    """The poller reads those better."""
    several = [Frame.Text(str(number)) for number in range(3)]
    await client.send(*several)
    assert several == [await client.receive() for _ in several]


@pytest.mark.parametrize("way", [opens_the_channel, is_sent_several])
async def test_who_wants_it_otherwise_ends_the_lease(way: Way, autojump_clock: Clock) -> None:
    """The conversation goes on through the poller."""
    async with talking(echo) as (client, server):
        await earn(client, server)
        (session,) = server.sessions
        await way(session, client)  # type: ignore[arg-type]
        assert lending_of(server).leases == []
        for text in ("a", "b"):
            await ask(client, text)
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()


async def test_a_cancelled_receive_has_taken_nothing_and_gives_back(autojump_clock: Clock) -> None:
    """What comes then is read by the poller: a Ping is answered at once."""
    resume = trio.Event()

    async def handler(session: Session) -> None:
        while True:
            with trio.move_on_after(1):
                await session.send(await session.receive())
                continue
            await resume.wait()
            await echo(session)
            return

    async with talking(handler) as (client, server):
        await earn(client, server)
        await trio.sleep(1)
        await trio.testing.wait_all_tasks_blocked()
        assert lending_of(server).leases == []
        await client.send(Frame.Text("later"), Frame.Ping(b"now"))
        with trio.fail_after(0.5):
            assert Frame.Pong(b"now") == await client.receive()
        resume.set()
        assert Frame.Text("later") == await client.receive()


async def test_a_handler_that_does_something_else_is_noticed(autojump_clock: Clock) -> None:
    """Nothing but a look makes the poller read for it again, and that comes in time, without any traffic."""
    answered: list[float] = []

    async def handler(session: Session) -> None:
        async for frame in session:
            if frame == Frame.Text("sleep"):
                await trio.sleep(100)
            await session.send(frame)

    async with talking(handler) as (client, server):
        for often in (1, 3, 100):
            await earn(client, server)
            for _ in range(often):
                await ask(client, "still there")
                await trio.sleep(0.1)
            began = trio.current_time()
            await client.send(Frame.Text("sleep"))
            await trio.testing.wait_all_tasks_blocked()
            await client.send(Frame.Ping(b"!"))
            assert Frame.Pong(b"!") == await client.receive()
            answered.append(trio.current_time() - began)
            assert lending_of(server).leases == []
            assert Frame.Text("sleep") == await client.receive()
            assert 100 == pytest.approx(trio.current_time() - began)
    assert all(0 < seconds <= lending_module._LATEST_LOOK + lending_module._LOOK for seconds in answered), answered


@pytest.mark.parametrize("end", ["Close", "end of the stream", "reset"])
@pytest.mark.parametrize("is_away", [False, True])
async def test_the_peers_end_is_seen(end: str, is_away: bool, autojump_clock: Clock) -> None:
    """While the handler waits, and while it does something else."""
    over = trio.Event()
    reasons: list[Any] = []

    async def handler(session: Session) -> None:
        async for frame in session:
            if frame == Frame.Text("sleep"):
                await trio.sleep(0.5)
            else:
                await session.send(frame)

    async def watch(session: Any) -> None:
        reasons.append(await session.wait_closed())
        over.set()

    async with talking(handler) as (client, server), trio.open_nursery() as nursery:
        await earn(client, server)
        nursery.start_soon(watch, server.sessions[0])
        if is_away:
            await client.send(Frame.Text("sleep"))
            await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        if end == "Close":
            await client.send(close(1000))
            assert close(1000) == await client.receive()
            assert trio.current_time() - began <= (0.51 if is_away else 0)
        else:
            if end == "reset":
                client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # type: ignore[attr-defined]
            await client.aclose()
        with trio.fail_after(5):
            await over.wait()
        assert lending_of(server).leases == []
    assert (1000 if end == "Close" else 1006) == reasons[0].code


async def test_a_full_queue_ends_the_lease(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit waits in the system, and all of it comes, in order; nobody is kept busy meanwhile."""
    in_pause: list[bool] = []

    async def handler(session: Session) -> None:
        async for frame in session:
            if frame == Frame.Text("sleep"):
                await trio.sleep(1)
            await session.send(frame)

    async with talking(handler, incoming=2) as (client, server):
        await earn(client, server)
        read = PolledReader.read

        def spy(self: PolledReader) -> None:
            in_pause.append(self._pause is not None)
            read(self)

        monkeypatch.setattr(PolledReader, "read", spy)
        many = [Frame.Text("sleep"), *(Frame.Text(str(number)) for number in range(500))]
        await client.send(*many)
        assert many == [await client.receive() for _ in many]
        assert lending_of(server).leases == []
    assert not any(in_pause)


@pytest.mark.parametrize("end", ["close", "terminate", "aclose", "cancel"])
@pytest.mark.parametrize("is_lent", [True, False])
async def test_an_end_of_ours_while_the_socket_is_waited_for(
    is_lent: bool, end: str, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another task: the handler is told, or cancelled, as without a lease, and the peer's Close is read."""
    if not is_lent:
        monkeypatch.setattr(PolledReader, "_lend", lambda self: None)
    ends: list[str] = []

    async def handler(session: Session) -> None:
        try:
            await echo(session)
            ends.append("clean")
        except ConnectionBroken:
            ends.append("broken")
        except trio.Cancelled:
            ends.append("cancelled")
            raise

    async with talking(handler) as (client, server), trio.open_nursery() as nursery:
        if is_lent:
            await earn(client, server)
        (session,) = server.sessions
        if end == "close":
            session.close()
        elif end == "terminate":
            session.terminate()
        elif end == "aclose":
            nursery.start_soon(server.aclose)
        else:
            session._connection.tasks.cancel("a test")
        if end != "terminate":
            answer = await client.receive()
            assert answer is not None
            assert {"close": 1000, "aclose": 1001, "cancel": 1000}[end] == int.from_bytes(answer.data[:2])
            await client.send(answer)
        assert [] == await client.receive_rest()
        await trio.testing.wait_all_tasks_blocked()
        assert lending_of(server).leases == []
    assert ["cancelled" if end in ("terminate", "cancel") else "clean"] == ends


async def test_the_servers_cancellation_says_goodbye_through_the_poller(autojump_clock: Clock) -> None:
    """All leases end, and what the peer answers is read."""
    async with talking(echo) as (client, server):
        await earn(client, server)
        lending = lending_of(server)
        server._host.listening.cancel()
        for connection in server._host.running.connections():
            connection.tasks.cancel("a test")
        lending.close()
        await trio.testing.wait_all_tasks_blocked()
        assert lending.leases == []
        answer = await client.receive()
        assert answer is not None
        await client.send(answer)
        assert [] == await client.receive_rest()


async def test_several_who_receive_have_their_turns(autojump_clock: Clock) -> None:
    """Nothing is lent then, or the one that reads would get what the others wait for, or they what it does."""
    got: list[list[Frame]] = [[], [], []]

    async def taker(session: Session, frames: list[Frame]) -> None:
        async for frame in session:
            frames.append(frame)
            await session.send(frame)

    async def handler(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            for frames in got:
                nursery.start_soon(taker, session, frames)

    async with talking(handler) as (client, server):
        for number in range(60):
            await ask(client, str(number))
            await trio.testing.wait_all_tasks_blocked()
            assert lending_of(server).leases == []
        assert [20, 20, 20] == [len(frames) for frames in got]
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()


async def test_another_who_receives_ends_the_lease(autojump_clock: Clock) -> None:
    """And each message is taken once."""
    got: list[Frame] = []

    async def handler(session: Session) -> None:
        await echo_some(session, 3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo_some, session, 20)
            await trio.sleep(1)
            nursery.start_soon(echo_some, session, 20)
        await echo(session)

    async def echo_some(session: Session, count: int) -> None:
        for _ in range(count):
            frame = await session.receive()
            got.append(frame)
            await session.send(frame)

    async with talking(handler) as (client, server):
        for number in range(60):
            await trio.sleep(0.1)
            await ask(client, str(number))
        assert [Frame.Text(str(number)) for number in range(43)] == got
        await earn(client, server)


async def test_who_waits_for_room_to_write_is_not_woken() -> None:
    """Nothing is lent while the writer waits for a slow peer; and woken for nothing it tears nothing."""
    long = Frame.Binary(bytes(range(256)) * 40_000)

    async def handler(session: Session) -> None:
        async for frame in session:
            await session.send(long if frame == Frame.Text("long") else frame)

    async with talking(handler) as (client, server):
        await earn(client, server)
        await client.send(Frame.Text("long"))
        await trio.testing.wait_all_tasks_blocked()
        (session,) = server.sessions
        assert not session._connection.outbox.wire.is_clear
        assert lending_of(server).leases == []
        trio.lowlevel.notify_closing(session._connection.reader.fileno())  # type: ignore[union-attr]
        several = [Frame.Text(str(number)) for number in range(3 * reader_module._OFTEN)]
        for message in several:
            await client.send(message)
            await trio.testing.wait_all_tasks_blocked()
            assert lending_of(server).leases == []
        assert [long, *several] == [await client.receive() for _ in range(1 + len(several))]


async def test_to_be_woken_for_nothing_is_no_progress_of_a_writers(autojump_clock: Clock) -> None:
    """A peer that takes nothing is dropped in time."""
    ends: list[float] = []

    async def handler(session: Session) -> None:
        session.start_soon(session.send, bytes(20_000_000))
        try:
            await echo(session)
        finally:
            ends.append(trio.current_time())

    async with talking(handler, write_timeout=1) as (_, server):
        began = trio.current_time()
        (session,) = server.sessions
        reader: Any = session._connection.reader
        for _ in range(40):
            await trio.sleep(0.3)
            if session.close_reason is not None:
                break
            trio.lowlevel.notify_closing(reader.fileno())
            await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() <= began + 3
        await trio.sleep(5)
    assert len(ends) == 1


async def test_handlers_tasks_are_protected_while_they_read(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C loses nothing that was read, whoever reads."""
    protected: list[tuple[str, bool]] = []
    read = SocketTransport.read_nowait

    def spy(self: SocketTransport) -> bytes | None:
        protected.append((trio.lowlevel.current_task().name, trio.lowlevel.currently_ki_protected()))
        return read(self)

    async with talking(echo) as (client, server):
        await earn(client, server)
        monkeypatch.setattr(SocketTransport, "read_nowait", spy)
        await ask(client, "x")
    assert ("trioktor connection", True) == protected[0]


@pytest.mark.parametrize("is_lent", [True, False])
async def test_a_handler_that_waits_may_answer_behind_the_peers_close(
    is_lent: bool, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that has received nothing before."""
    if not is_lent:
        monkeypatch.setattr(lending_module, "_MOST", 0)

    async def handler(session: Session) -> None:
        async for _ in session:
            pass
        await trio.sleep(0.05)
        await session.send("goodbye")

    async with talking(handler) as (client, server):
        assert len(lending_of(server).leases) == is_lent
        await client.send(close(1000))
        assert [Frame.Text("goodbye"), close(1000)] == await client.receive_rest()


@pytest.mark.parametrize("is_lent", [True, False])
@pytest.mark.parametrize("capacity", [1, 2, 5])
async def test_who_waits_holds_one_message_more_than_the_queue(
    capacity: int, is_lent: bool, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many may come at once, where a full queue is the end; with one more it is."""
    if not is_lent:
        monkeypatch.setattr(lending_module, "_MOST", 0)

    async def handler(session: Session) -> None:
        async for frame in session:
            await trio.sleep(1)
            await session.send(frame)

    for more, code in ((1, 1000), (2, 1008)):
        async with talking(handler, incoming=ChannelConfig(capacity, CLOSE)) as (client, server):
            assert len(lending_of(server).leases) == is_lent
            await client.send(*[Frame.Text("x")] * (capacity + more), *([close(1000)] if code == 1000 else []))
            rest = await client.receive_rest()
            assert isinstance(rest[-1], Frame.Close)
            assert code == int.from_bytes(rest[-1].data[:2])


# who, and how many


async def test_who_sends_several_at_once_has_the_poller(autojump_clock: Clock) -> None:
    """It reads them in fewer steps."""
    async with talking(echo) as (client, server):
        for number in range(10):
            several = [Frame.Text(str(number)), Frame.Text("and another")]
            await client.send(*several)
            assert several == [await client.receive(), await client.receive()]
            assert lending_of(server).leases == []


async def test_a_crowd_has_the_poller(autojump_clock: Clock) -> None:
    """Those who always come with others are not lent."""
    async with talking(echo) as (first, server), AsyncExitStack() as stack:
        clients = [first, *[await connected(server, stack) for _ in range(3)]]
        for lease in tuple(lending_of(server).leases):
            lease.lender.take_back()
        for number in range(2 * reader_module._OFTEN):
            for client in clients:
                client.stream.socket._sock.send(client_bytes(Frame.Text(str(number))))  # type: ignore[attr-defined]
            for client in clients:
                assert Frame.Text(str(number)) == await client.receive()
        assert lending_of(server).leases == []


async def test_a_crowd_ends_the_leases(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """One wake-up of the poller serves all of them then; nobody is forgotten."""
    monkeypatch.setattr(poller_module, "_CROWD", 3)
    async with talking(echo) as (first, server), AsyncExitStack() as stack:
        clients = [first, *[await connected(server, stack) for _ in range(4)]]
        leases = lending_of(server).leases
        assert len(leases) == 5
        for lease in leases[2:]:
            lease.lender.take_back()
        for many, left in ((2, 2), (3, 0)):
            crowd = clients[2 : 2 + many]
            for client in crowd:
                client.stream.socket._sock.send(client_bytes(Frame.Text("x")))  # type: ignore[attr-defined]
            for client in crowd:
                assert Frame.Text("x") == await client.receive()
            assert len(leases) == left
        for client in clients:
            await ask(client, "still there")


class Lent:
    """A reader whose task waits by its lease."""

    def __init__(self, lending: Lending) -> None:
        self.lease = lending.lend(self)
        if self.lease is not None:
            self.lease.is_waiting = True

    def fileno(self) -> int:
        """The socket's number."""
        return -1

    def read_lent(self) -> None:
        """Nothing is there."""

    def take_back(self) -> None:
        """End the lease."""
        assert self.lease is not None
        self.lease.end()
        self.lease = None


async def looked(lending: Lending) -> None:
    """Wait for the next look."""
    while lending.is_watching:  # noqa: ASYNC110  # nothing says so
        await trio.sleep(0.001)


@pytest.mark.parametrize(
    ("uses", "is_crowd"),
    [
        ([100] * 4, False),
        ([100] * 4 + [0], False),
        ([100] * 4 + [1], True),
        ([51] * 5, False),
        ([52] * 5, True),
        ([1] * 8, False),
        ([100] * 8, True),
    ],
)
@pytest.mark.parametrize("looks", [0, 1, 3])
async def test_leases_that_are_too_busy_make_room_for_the_poller(
    uses: list[int], is_crowd: bool, looks: int, autojump_clock: Clock
) -> None:
    """More than a few, and so often that there is no pause to save; for a second nothing is lent.

    However long it is from the use to the look, which depends on the looks before.
    """
    lending = Lending()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lending.run)
        await trio.testing.wait_all_tasks_blocked()
        lent = [Lent(lending) for _ in uses]
        await trio.sleep(0.2)
        for _ in range(looks):
            lending.watch()
            await trio.sleep(0.2)
        for longer in range(3):  # what was before a look does not count behind it
            await trio.sleep(5)  # nor does the silence before the use
            lending.watch()
            for one, count in zip(lent, uses, strict=True):
                if one.lease is not None:
                    one.lease.uses += count * 2 ** min(1 + looks + longer, 4)
            await trio.sleep(0.005)
            lending.watch()
            await looked(lending)
            assert [one.lease is None for one in lent] == [is_crowd] * len(lent)
            if is_crowd:
                break
        lending.end_all()
        assert (Lent(lending).lease is None) is is_crowd
        await trio.sleep(0.9)
        assert (Lent(lending).lease is None) is is_crowd
        await trio.sleep(0.1)
        assert Lent(lending).lease is not None
        nursery.cancel_scope.cancel()


async def test_looks_come_later_and_later_while_all_handlers_come_back(autojump_clock: Clock) -> None:
    """And soon again behind one who did not, or when another socket is lent."""
    lending = Lending()

    async def use() -> float:
        began = trio.current_time()
        lending.watch()
        await looked(lending)
        return trio.current_time() - began

    growing = [pytest.approx(seconds, abs=0.002) for seconds in (0.01, 0.02, 0.04, 0.08, 0.16, 0.16, 0.16)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lending.run)
        await trio.testing.wait_all_tasks_blocked()
        first, second = Lent(lending), Lent(lending)
        assert growing == [await use() for _ in growing]
        assert second.lease is not None
        second.lease.is_waiting = False
        assert growing[-1] == await use()
        assert (first.lease is None, second.lease is None) == (False, True)
        assert growing == [await use() for _ in growing]
        third = Lent(lending)
        assert growing == [await use() for _ in growing]
        assert third.lease is not None
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("lent_after", "looked_after"), [(0.08, 0.09), (0.155, 0.16)])
async def test_a_new_lease_brings_an_expected_look_forward(
    lent_after: float, looked_after: float, autojump_clock: Clock
) -> None:
    """But never puts it off."""
    lending = Lending()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lending.run)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            lending.watch()
            await looked(lending)
        began = trio.current_time()
        lending.watch()
        await trio.sleep(lent_after)
        assert Lent(lending).lease is not None
        await looked(lending)
        assert trio.current_time() - began == pytest.approx(looked_after, abs=0.002)
        nursery.cancel_scope.cancel()


async def test_a_crowd_of_leases_is_served_on(autojump_clock: Clock) -> None:
    """By the poller, all of them, and alone again when they have become quiet."""
    async with talking(echo) as (first, server), AsyncExitStack() as stack:
        clients = [first, *[await connected(server, stack) for _ in range(5)]]
        leases = lending_of(server).leases
        assert len(leases) == 6
        for number in range(50):
            for client in clients:
                await ask(client, str(number))
        await trio.sleep(0.02)
        assert leases == []
        for client in clients:
            await ask(client, "still there")
        await trio.sleep(1)
        for number in range(2 * reader_module._OFTEN):
            await ask(first, str(number))
        assert len(leases) == 1


@pytest.mark.parametrize("way", ["behind the request", "a burst", "another receives", "incoming", "nobody receives"])
async def test_a_lent_socket_that_can_not_be_given_back_ends_its_connection_alone(
    way: str, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The system may watch no more sockets. That is said once, and holds nothing."""

    def fail(_poller: Poller, _fd: int) -> None:
        raise OSError(errno.ENOSPC, "no more watches")

    async def handler(session: Session) -> None:
        async for _ in session:
            await trio.sleep(1)

    behind = client_bytes(Frame.Text("x")) if way == "behind the request" else b""
    with trio.fail_after(30):
        async with running(application(handler)) as server, await trio.open_tcp_stream("127.0.0.1", server.port) as end:
            client = RawClient(end)
            if behind:
                monkeypatch.setattr(Poller, "watch", fail)
            await client.send_bytes(REQUEST % b"/" + behind)
            assert (await client.read_head()).startswith(b"HTTP/1.1 101 ")
            await trio.testing.wait_all_tasks_blocked()
            monkeypatch.setattr(Poller, "watch", fail)
            if way == "a burst":
                await client.send_bytes(client_bytes(*[Frame.Text("x")] * 400))
            elif way == "another receives":
                server.sessions[0].start_soon(server.sessions[0].receive)
            elif way == "incoming":
                assert server.sessions[0].incoming is not None
            elif way == "nobody receives":
                await client.send(Frame.Text("x"))
            assert [close(1011)] == await client.receive_rest()
            await trio.sleep(1)
            assert server.sessions == ()
    (record,) = records_above_info(caplog)
    assert record.exc_info
    assert "no more watches" in str(record.exc_info[1])


async def test_what_is_over_or_has_to_wait_is_not_lent(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it was found alone often enough: by a Close, or by a message that there is no room for."""
    async with talking(echo) as (client, server):
        lending_of(server).leases[0].lender.take_back()
        for number in range(reader_module._OFTEN - 1):
            await ask(client, str(number))
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()
        assert lending_of(server).leases == []

    monkeypatch.setattr(reader_module, "_OFTEN", 3)

    async def handler(session: Session) -> None:
        await session.receive()
        await trio.sleep(10)
        await echo(session)

    async with talking(handler, incoming=1) as (client, server):
        lending_of(server).leases[0].lender.take_back()
        for text in ("taken", "queued", "held"):
            await client.send(Frame.Text(text))
            await trio.testing.wait_all_tasks_blocked()
        assert lending_of(server).leases == []
        assert [Frame.Text("queued"), Frame.Text("held")] == [await client.receive(), await client.receive()]


async def test_there_are_few_and_idle_ones_make_room(autojump_clock: Clock) -> None:
    """Who talks keeps what he has, and who is silent loses it when another asks."""
    async with talking(echo) as (first, server), AsyncExitStack() as stack:
        leases = lending_of(server).leases
        clients = [first, *[await connected(server, stack) for _ in range(7)]]
        assert len(leases) == 8
        held = list(leases)
        clients.append(await connected(server, stack))
        assert held == leases  # nobody has had the time to be idle
        for silent in (clients[3], clients[5]):
            for client in clients:
                if client is not silent:
                    await ask(client, "I use it")
            await trio.sleep(2 * lending_module._LOOK)
            clients.append(await connected(server, stack))
            await trio.sleep(2 * lending_module._LOOK)
        assert [lease for number, lease in enumerate(held) if number not in (3, 5)] == leases[:-2]
        for client in clients:
            await ask(client, "still there")


async def test_who_says_nothing_at_first_has_it_until_another_asks(autojump_clock: Clock) -> None:
    """To take it back for nothing would cost more than it saves."""
    async with talking(echo) as (client, server):
        (lease,) = lending_of(server).leases
        await trio.sleep(10)
        assert [lease] == lending_of(server).leases
        assert lease.is_idle
        await ask(client, "hello")
        assert not lease.is_idle


async def test_who_does_not_receive_at_first_is_noticed(autojump_clock: Clock) -> None:
    """A handler that begins with something else: a Ping and a hang-up do not wait for it."""

    async def handler(session: Session) -> None:
        await trio.sleep(100)

    async with talking(handler) as (client, server):
        began = trio.current_time()
        await client.send(Frame.Ping(b"!"))
        assert Frame.Pong(b"!") == await client.receive()
        assert trio.current_time() - began <= 2 * lending_module._LOOK
        assert lending_of(server).leases == []


async def test_bytes_behind_the_request_are_not_passed_over(autojump_clock: Clock) -> None:
    """They are handed on first, and the poller reads."""
    async with talking(echo) as (_, server), await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        client = RawClient(stream)
        await stream.send_all(REQUEST % b"/" + client_bytes(Frame.Text("a"), Frame.Text("b")))
        await client.read_head()
        assert [Frame.Text("a"), Frame.Text("b")] == [await client.receive(), await client.receive()]
        await ask(client, "c")


# one lease by itself


class FakeLender:
    """A socket that may be lent, and what is asked of it."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.calls: list[str] = []
        self.lease: Any = None

    def fileno(self) -> int:
        """Its number."""
        return self.ours.fileno()

    def read_lent(self) -> None:
        """Note it."""
        self.calls.append("read")

    def take_back(self) -> None:
        """End the lease."""
        self.calls.append("back")
        self.lease.end()

    def close(self) -> None:
        """Close both ends."""
        self.ours.close()
        self.theirs.close()


async def test_nothing_is_read_by_a_lease_that_is_over() -> None:
    """Though there was input, and the task that waited has it from Trio: somebody may end the lease before its turn."""
    before = 0
    for _ in range(100):
        lender = FakeLender()
        lending = Lending()
        lender.lease = lease = Lease(lending, lender)
        lending.leases.append(lease)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lease.wait)
            await trio.testing.wait_all_tasks_blocked()
            lender.theirs.send(b"x")
            with lender.ours.dup() as twin:
                await trio.lowlevel.wait_readable(twin)  # in the same pass as the lease, behind it or in front of it
            lease.end()
            before += not lender.calls
            seen = list(lender.calls)
        assert seen == lender.calls
        lender.close()
    assert 0 < before < 100


async def test_when_nobody_looks_any_more_all_leases_end() -> None:
    """Those that are waited for, too: their handlers may go elsewhere, and nobody would notice."""
    lender = FakeLender()
    poller = Poller()
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as owners:
            owners.start_soon(poller.run)
            owners.start_soon(poller.lending.run)
            await trio.testing.wait_all_tasks_blocked()
            lender.lease = lease = poller.lending.lend(lender)
            assert lease is not None
            nursery.start_soon(lease.wait)
            await trio.testing.wait_all_tasks_blocked()
            owners.cancel_scope.cancel()
        assert (["back"], []) == (lender.calls, poller.lending.leases)
        assert poller.lending.lend(lender) is None
    lender.close()


async def test_a_cancelled_poller_lends_nothing_while_it_reads_on() -> None:
    """Though somebody looks."""
    lender, reader = FakeLender(), FakeLender()
    poller = Poller()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.lending.run)
        async with trio.open_nursery() as owners:
            await owners.start(poller.run)
            poller.add(reader.fileno(), reader)  # type: ignore[arg-type]
            owners.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            assert poller.lending.lend(lender) is None
            poller.remove(reader.fileno(), is_watched=False)
    lender.close()
    reader.close()


async def test_nothing_is_lent_before_somebody_looks() -> None:
    """Or a handler that does something else would not be noticed."""
    lender = FakeLender()
    assert Lending().lend(lender) is None
    lender.close()


# any order

Step = tuple[str, int]

HANDLER = st.lists(
    st.tuples(
        st.sampled_from(["receive", "receive", "cancelled", "nowait", "sleep", "two", "open"]), st.integers(0, 5)
    ),
    max_size=25,
)
PEER = st.lists(
    st.tuples(st.sampled_from(["one", "one", "one", "several", "ping", "long", "part", "wait"]), st.integers(0, 5)),
    max_size=25,
)


class _Played:
    """A handler and a peer that do what they are told, by leases that come at the first chance."""

    def __init__(self, handler: list[Step], peer: list[Step]) -> None:
        self._handler = handler
        self._peer = peer
        self.got: list[bytes] = []
        self.said: list[bytes] = []
        self.pings: list[bytes] = []
        self.lent = 0

    async def handler(self, session: Session) -> None:
        """Receive in many ways, and then what is left."""
        for name, number in self._handler:
            if name == "receive":
                await self._receive(session, 100)
            elif name == "cancelled":
                await self._receive(session, number / 1000)
            elif name == "nowait":
                try:
                    self.got.append(session.receive_nowait().data)
                except trio.WouldBlock:
                    pass
            elif name == "sleep":
                await trio.sleep(number / 100)
            elif name == "open":
                assert session.incoming is not None
            else:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._receive, session, 1)
                    nursery.start_soon(self._receive, session, number / 1000)
        async for frame in session:
            self.got.append(frame.data)

    async def _receive(self, session: Session, seconds: float) -> None:
        with trio.move_on_after(seconds):
            try:
                frame = await session.receive()
            except trio.EndOfChannel:
                return
            self.got.append(frame.data)

    def _message(self, size: int) -> Frame:
        data = b"%d:" % len(self.said) + bytes(size)
        self.said.append(data)
        return Frame.Binary(data)

    async def peer(self, client: RawClient, server: Server) -> None:
        """Say all of that, and close."""
        for name, number in self._peer:
            if name == "one":
                await client.send(self._message(number))
            elif name == "several":
                await client.send(*[self._message(number) for _ in range(number)])
            elif name == "ping":
                self.pings.append(b"%d" % len(self.pings))
                await client.send(Frame.Ping(self.pings[-1]))
            elif name == "long":
                await client.send(self._message(200_000))
            elif name == "part":
                data = client_bytes(self._message(number))
                await client.stream.send_all(data[:3])
                await trio.sleep(number / 1000)
                await client.stream.send_all(data[3:])
            await trio.sleep(number / 500)
            self.lent += bool(lending_of(server).leases)
        await client.send(close(1000))

    async def run(self) -> None:
        """All of it, on a clock that jumps."""
        async with talking(self.handler, incoming=3) as (client, server):
            with trio.fail_after(1000):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.peer, client, server)
                    rest = await client.receive_rest()
            assert [*map(Frame.Pong, self.pings), close(1000)] == rest
            await trio.testing.wait_all_tasks_blocked()
            assert lending_of(server).leases == []
        if not any(name == "two" for name, _ in self._handler):
            assert self.said == self.got
        assert sorted(self.said) == sorted(self.got)


def test_in_any_order_everything_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the handler receives and its peer sends: nothing is lost, doubled or swapped, and no lease is left."""
    monkeypatch.setattr(reader_module, "_OFTEN", 1)
    lent = 0

    @settings(max_examples=150)
    @given(HANDLER, PEER)
    def examples(handler: list[Step], peer: list[Step]) -> None:
        nonlocal lent
        played = _Played(handler, peer)
        trio.run(played.run, clock=trio.testing.MockClock(autojump_threshold=0))
        lent += played.lent

    examples()
    assert lent > 50
