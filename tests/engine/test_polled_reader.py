"""One connection's side of a poller: when it reads, pauses, lends its socket, and takes it back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, final

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import client_bytes
from trioktor import ChannelConfig, Frame
from trioktor.engine.inbox import Inbox
from trioktor.engine.polled_reader import PolledReader
from trioktor.engine.shields import Shields
from trioktor.protocol.close import CloseReason
from trioktor.protocol.conversation import Conversation

FD = 7
OFTEN = 4


@final
class Lease:
    """A lent socket, until it is ended."""

    def __init__(self, lender: Any) -> None:
        self.lender = lender
        self.is_over = False
        self.is_waiting = False
        self.message: Frame | None = None

    def end(self) -> None:
        """Once."""
        assert not self.is_over
        self.is_over = True


@final
class Poller:
    """What an epoll would hold of the socket; misuse is an error, as there."""

    def __init__(self, *, lends: bool = False) -> None:
        self.state = "unknown"
        self.lends = lends
        self.leases: list[Lease] = []
        self.lending: Any = self
        self.error: OSError | None = None

    def lend(self, reader: object) -> Any:
        """Lend it, if that is wanted."""
        if not self.lends:
            return None
        self.leases.append(Lease(reader))
        return self.leases[-1]

    def _go(self, sources: tuple[str, ...], state: str) -> None:
        assert self.state in sources
        self.state = state

    def add(self, fd: int, reader: PolledReader) -> None:
        """Know it."""
        assert (fd, reader.fileno()) == (FD, FD)
        self._go(("unknown",), "known")

    def watch(self, fd: int) -> None:
        """Read it."""
        if self.error is not None:
            raise self.error
        self._go(("known",), "watched")

    def unwatch(self, fd: int) -> None:
        """Read it no more."""
        self._go(("watched",), "known")

    def pause(self, fd: int) -> None:
        """Read nothing for a while."""
        self._go(("watched", "paused"), "paused")

    def resume(self, fd: int) -> None:
        """Read again."""
        self._go(("watched", "paused"), "watched")

    def remove(self, fd: int, *, is_watched: bool) -> None:
        """Forget it."""
        assert is_watched is (self.state != "known")
        self.state = "removed"


@final
class Intake:
    """Takes what is read; there is room until the test says that there is none."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self.brings: list[Frame] = []  # what the next read completes
        self.target: Any = None
        self.has_room = True
        self.room = trio.Event()
        self.seen: list[Any] = []
        self.error: Exception | None = None

    def take(self, data: bytes) -> bool:
        """Note it."""
        if self.error is not None:
            raise self.error
        self.seen.append(data)
        while self.brings:
            assert self._inbox.offer(self.brings.pop(0))
        return self.has_room

    def take_filled(self, count: int) -> bool:
        """Note it."""
        self.seen.append(count)
        return self.has_room

    async def finish(self) -> None:
        """Wait for room."""
        await self.room.wait()
        self.seen.append("finished")

    def lose(self, error: Exception) -> None:
        """Reading failed."""
        self.seen.append(error)

    def fail(self, error: Exception) -> None:
        """A fault."""
        self.seen.append(error)


@final
class Transport:
    """Gives one thing after the other."""

    def __init__(self) -> None:
        self.coming: list[Any] = []

    def fileno(self) -> int:
        """The socket's."""
        return FD

    def read_nowait(self) -> bytes | None:
        """The next."""
        value: Any = self.coming.pop(0)
        if isinstance(value, Exception):
            raise value
        return value  # type: ignore[no-any-return]

    def read_into(self, target: object) -> int | None:
        """The next, which is a count."""
        assert target == "target"
        return self.read_nowait()  # type: ignore[return-value]


@final
class Parts:
    """A reader and what is round it."""

    def __init__(self, *, lends: bool = False, trailing: bytes = b"") -> None:
        self.poller: Any = Poller(lends=lends)
        self.inbox: Inbox = Inbox(ChannelConfig(10), 1000)
        self.intake: Any = Intake(self.inbox)
        self.transport: Any = Transport()
        self.conversation: Conversation = Conversation()
        self.closing = self.conversation.closing
        self.wire: Any = SimpleNamespace(is_clear=True)
        self.shields = Shields()
        new: Any = PolledReader
        self.reader: PolledReader = new(
            self.poller, self.transport, self.inbox, self.intake, self.conversation, self.wire, self.shields, trailing
        )

    def read(self, *values: Any) -> None:
        """The poller finds these, each in one read."""
        self.transport.coming += values
        for _ in values:
            self.reader.read()


async def settle() -> None:
    """Let all tasks do what they can."""
    await trio.testing.wait_all_tasks_blocked()


# the beginning


@pytest.mark.parametrize("lends", [False, True])
async def test_at_first_the_socket_is_lent_or_watched(lends: bool) -> None:
    """It is known to the poller either way."""
    async with trio.open_nursery() as nursery:
        parts = Parts(lends=lends)
        parts.reader.start(nursery)
        assert parts.poller.state == ("known" if lends else "watched")
        assert parts.inbox.takers.lease is (parts.poller.leases[0] if lends else None)
        assert not nursery.child_tasks


async def test_a_socket_that_cannot_be_watched_is_not_paused() -> None:
    """Its connection has ended by then; what came with the handshake is not read."""
    async with trio.open_nursery() as nursery:
        parts = Parts(trailing=b"trailing")
        parts.poller.error = OSError("no space left")
        parts.intake.fail = parts.closing.lose
        parts.reader.start(nursery)
        assert not nursery.child_tasks
    assert parts.closing.cause is parts.poller.error
    assert parts.intake.seen == []


async def test_what_is_over_before_it_begins_is_never_known_to_the_poller() -> None:
    """Nobody would forget it; to stop and to wait does nothing then."""
    async with trio.open_nursery() as nursery:
        parts = Parts(trailing=b"trailing")
        parts.closing.lose()
        parts.reader.start(nursery)
        parts.reader.stop()
        await parts.reader.wait_ended()
        assert parts.poller.state == "unknown"
    assert parts.intake.seen == []


@pytest.mark.parametrize("lends", [False, True])
@pytest.mark.parametrize("has_room", [True, False])
async def test_what_came_with_the_handshake_is_handed_on_first(lends: bool, has_room: bool) -> None:
    """The socket is not read before; then the poller reads."""
    async with trio.open_nursery() as nursery:
        parts = Parts(lends=lends, trailing=b"trailing")
        parts.intake.has_room = has_room
        parts.reader.start(nursery)
        assert parts.poller.state == "paused"
        assert all(lease.is_over for lease in parts.poller.leases)
        assert parts.intake.seen == []
        await settle()
        assert parts.poller.state == ("watched" if has_room else "paused")
        parts.intake.room.set()
    parts.intake.has_room = True
    assert parts.poller.state == "watched"
    assert parts.intake.seen == ([b"trailing"] if has_room else [b"trailing", "finished"])
    parts.read(b"next")
    assert parts.intake.seen[-1] == b"next"


# reading


async def test_each_read_is_handed_on(autojump_clock: MockClock) -> None:
    """Nothing is, if it was woken for nothing; the end of the stream is no bytes."""
    async with trio.open_nursery() as nursery:
        parts = Parts()
        parts.reader.start(nursery)
        parts.read(b"a", None, b"b", b"")
        parts.intake.target = "target"
        parts.read(5, None, 0)
    assert parts.intake.seen == [b"a", b"b", b"", 5, b""]


@pytest.mark.parametrize("target", [None, "target"])
async def test_without_room_it_pauses_until_there_is_some(target: str | None) -> None:
    """Nothing is read meanwhile, though the poller calls for a hang-up."""
    async with trio.open_nursery() as nursery:
        parts = Parts()
        parts.reader.start(nursery)
        parts.intake.has_room = False
        parts.intake.target = target
        parts.read(5 if target else b"a")
        assert parts.poller.state == "paused"
        parts.reader.read()
        await settle()
        assert parts.poller.state == "paused"
        parts.intake.room.set()
        await parts.reader.wait_ended()
        assert parts.poller.state == "watched"
        assert parts.intake.seen == [5 if target else b"a", "finished"]
        parts.intake.has_room, parts.intake.target = True, None
        parts.read(b"b")
    assert parts.intake.seen[-1] == b"b"


async def test_there_is_no_pause_when_the_conversation_is_over() -> None:
    """What has no room then is nobody's."""
    async with trio.open_nursery() as nursery:
        parts = Parts()
        parts.reader.start(nursery)
        parts.intake.has_room = False
        parts.closing.lose()
        parts.read(b"a")
        assert not nursery.child_tasks


async def test_an_end_during_the_pause_leaves_the_socket_alone() -> None:
    """It is not read again."""
    async with trio.open_nursery() as nursery:
        parts = Parts()
        parts.reader.start(nursery)
        parts.intake.has_room = False
        parts.read(b"a")
        parts.closing.lose()
        parts.intake.room.set()
    assert parts.poller.state == "paused"


@pytest.mark.parametrize("error", [trio.BrokenResourceError("lost"), KeyError("a fault")])
@pytest.mark.parametrize("where", ["read", "finish"])
async def test_nothing_is_raised_in_the_task_that_reads_all(error: Exception, where: str) -> None:
    """The intake is told, and ends this connection."""
    async with trio.open_nursery() as nursery:
        parts = Parts(trailing=b"trailing" if where == "finish" else b"")
        if where == "finish":
            parts.intake.error = error
        parts.reader.start(nursery)
        if where == "read":
            parts.read(error)
    assert parts.intake.seen == [error]


# the end


@pytest.mark.parametrize("state", ["watched", "lent", "paused"])
async def test_stopped_it_is_read_no_more(state: str, autojump_clock: MockClock) -> None:
    """In the same step; whoever waits for that waits for the task that hands on, too."""
    async with trio.open_nursery() as nursery:
        parts = Parts(lends=state == "lent")
        parts.reader.start(nursery)
        if state == "paused":
            parts.intake.has_room = False
            parts.read(b"a")
            await settle()
        parts.closing.lose()
        parts.reader.stop()
        assert parts.poller.state == "removed"
        assert parts.inbox.takers.lease is None
        with trio.fail_after(1):
            await parts.reader.wait_ended()
        assert not nursery.child_tasks
    assert "finished" not in parts.intake.seen


async def test_a_cancellation_from_outside_does_not_end_the_pause(autojump_clock: MockClock) -> None:
    """What was read is not lost; but the deadline that all shields share ends it."""
    parts = Parts()
    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:
            parts.reader.start(nursery)
            parts.intake.has_room = False
            parts.read(b"a")
            parts.shields.stop_by(trio.current_time() + 3)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(3)


# lending


async def test_a_socket_that_is_found_alone_often_enough_is_lent(autojump_clock: MockClock) -> None:
    """Each time anew; and the poller watches it no more."""
    async with trio.open_nursery() as nursery:
        parts = Parts()
        parts.reader.start(nursery)
        parts.poller.lends = True
        for number in (1, 2):
            for _ in range(OFTEN - 1):
                parts.reader.note_alone()
            assert parts.poller.state == "watched"
            parts.reader.note_alone()
            assert parts.poller.state == "known"
            assert len(parts.poller.leases) == number
            parts.reader.take_back()
            assert parts.poller.state == "watched"


@pytest.mark.parametrize(
    "why", ["batch", "channel", "taker", "pause", "no place", "Ping", "Close", "write", "queue", "part"]
)
async def test_it_is_not_lent_where_that_is_of_no_use(why: str, autojump_clock: MockClock) -> None:
    """And after a batch it begins to count anew."""
    async with trio.open_nursery() as nursery:
        parts = Parts()
        parts.reader.start(nursery)
        parts.poller.lends = why != "no place"
        for _ in range(OFTEN - 1):
            parts.reader.note_alone()
        if why == "batch":
            parts.inbox.is_batch = True
        elif why == "channel":
            parts.inbox.end(0)
        elif why == "taker":
            nursery.start_soon(parts.inbox.receive)
            await settle()
        elif why == "Ping":
            parts.conversation.control.begin_ping(b"?", "token")
        elif why == "write":
            parts.wire.is_clear = False
        elif why == "queue":
            assert parts.inbox.offer(Frame.Text("not taken"))
        elif why == "part":
            assert list(parts.conversation.receive(client_bytes(Frame.Text("not all"))[:-1])) == []
        elif why == "Close":
            parts.closing.close(CloseReason(1000))
        elif why == "pause":
            parts.intake.has_room = False
            parts.read(b"a")
        for _ in range(10):
            parts.reader.note_alone()
        assert parts.poller.leases == []
        if why == "batch":
            parts.inbox.is_batch = False
            for _ in range(OFTEN - 1):
                parts.reader.note_alone()
            assert parts.poller.leases == []
            parts.reader.note_alone()
            assert len(parts.poller.leases) == 1
        parts.intake.room.set()
        nursery.cancel_scope.cancel()


async def test_who_reads_by_the_lease_gets_the_first_message() -> None:
    """None, if the read brought none; what came with it waits in the queue, and a batch ends the lease."""
    async with trio.open_nursery() as nursery:
        parts = Parts(lends=True)
        parts.reader.start(nursery)
        parts.transport.coming += [b"a", b"b", b"c"]
        (lease,) = parts.poller.leases
        lease.is_waiting = True
        parts.reader.read_lent()
        assert lease.message is None
        for is_batch in (False, True):
            parts.inbox.is_batch = is_batch
            parts.intake.brings = [Frame.Text("first"), Frame.Text("second")]
            parts.reader.read_lent()
            assert lease.message == Frame.Text("first")
            assert parts.inbox.take() == Frame.Text("second")
            assert lease.is_over is is_batch
            assert parts.poller.state == ("watched" if is_batch else "known")
            lease.message = None
    assert parts.intake.seen == [b"a", b"b", b"c"]


async def test_the_end_that_is_read_by_the_lease_is_no_message() -> None:
    """Whoever reads looks again, and hears of the end there."""
    async with trio.open_nursery() as nursery:
        parts = Parts(lends=True)
        parts.reader.start(nursery)
        parts.transport.coming += [b"the end"]
        parts.inbox.end(0)
        parts.reader.read_lent()
        assert parts.poller.leases[0].message is None


async def test_a_socket_that_was_lent_is_taken_back_once() -> None:
    """Without a lease there is nothing to do; a poller that can't watch it ends the connection."""
    async with trio.open_nursery() as nursery:
        parts = Parts(lends=True)
        parts.reader.start(nursery)
        parts.poller.error = OSError("no space left")
        parts.reader.take_back()
        parts.reader.take_back()
        assert parts.poller.leases[0].is_over
    assert parts.intake.seen == [parts.poller.error]


async def test_a_lent_socket_without_room_goes_back_and_pauses() -> None:
    """Whoever reads by the lease does not wait."""
    async with trio.open_nursery() as nursery:
        parts = Parts(lends=True)
        parts.reader.start(nursery)
        parts.intake.has_room = False
        parts.transport.coming += [b"a"]
        parts.reader.read_lent()
        assert (parts.poller.leases[0].is_over, parts.poller.state) == (True, "paused")
        parts.intake.room.set()
    assert parts.poller.state == "watched"
