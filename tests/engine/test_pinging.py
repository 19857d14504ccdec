"""The Pings of one connection: sent by the application or the pinger, answered, and given up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, final

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import client_bytes
from tests.support.reading import FrameReader
from trioktor.config import ChannelConfig
from trioktor.engine.inbox import Inbox
from trioktor.engine.pinging import Keepalive, Ping, Pinging
from trioktor.protocol.close import CloseReason
from trioktor.protocol.conversation import Conversation
from trioktor.protocol.frames import Frame


@final
class Connection:
    """What pinging sees of one; its Pings are answered when the test says so."""

    def __init__(self, nursery: trio.Nursery | None = None) -> None:
        self.nursery: trio.Nursery | None = nursery
        self.conversation: Conversation = Conversation()
        self.inbox: Inbox = Inbox(ChannelConfig(1), 100)
        self.transport: Any = SimpleNamespace(on_progress=None)
        self.ends: Any = self
        self.intake: Any = SimpleNamespace(on_input=None)
        self._reader = FrameReader(client=True)
        self.sent: list[tuple[float, Frame | None]] = []
        self.timeouts: list[tuple[float, float]] = []

    def look_up(self) -> None:
        """Write what waits in the lane."""
        pieces: list[bytes] = []
        self.conversation.control.take(self.conversation.serializer, pieces)
        self.sent += [(trio.current_time(), frame) for frame in self._reader.feed(b"".join(pieces))]

    def ping_timed_out(self, timeout: float) -> None:
        """No Pong came."""
        self.timeouts.append((trio.current_time(), timeout))

    def receive_pong(self, payload: bytes) -> None:
        """The peer's."""
        assert [] == list(self.conversation.receive(client_bytes(Frame.Pong(payload))))

    @property
    def times(self) -> list[float]:
        """When Pings were sent."""
        return [at for at, _ in self.sent]


async def test_a_ping_is_sent_at_once_and_waits_for_its_pong(autojump_clock: MockClock) -> None:
    """Its event is set when that has been noted, and the time that it took is known."""
    connection = Connection()
    pinging = Pinging(connection, connection.intake, 5)
    ping = pinging.ping(b"hello")
    assert connection.sent == [(trio.current_time(), Frame.Ping(b"hello"))]
    await trio.sleep(2)
    assert not ping.answered.is_set()
    connection.receive_pong(b"hello")
    pinging.note_answers()
    assert ping.answered.is_set()
    assert (ping.round_trip, pinging.latency) == (2, 2)


async def test_a_ping_without_bytes_has_some_of_its_own() -> None:
    """So that several can be out."""
    connection = Connection()
    pinging = Pinging(connection, connection.intake, 5)
    payloads = {pinging.ping().frame.data for _ in range(10)}
    assert len(payloads) == 10


async def test_a_pong_answers_its_ping_and_all_before_it(autojump_clock: MockClock) -> None:
    """RFC 6455 §5.5.3: a peer may answer only the latest of several. What was answered may be sent again."""
    connection = Connection()
    pinging = Pinging(connection, connection.intake, 5)

    def receive_pong(payload: bytes) -> None:
        connection.receive_pong(payload)
        pinging.note_answers()

    first, second, third = (pinging.ping(payload) for payload in (b"1", b"2", b"3"))
    with pytest.raises(ValueError, match="has not been answered"):
        pinging.ping(b"2")
    receive_pong(b"nobody's")
    autojump_clock.jump(3)
    receive_pong(b"2")
    assert [True, True, False] == [ping.answered.is_set() for ping in (first, second, third)]
    assert (3, 3, None, 3) == (first.round_trip, second.round_trip, third.round_trip, pinging.latency)
    for payload in (b"1", b"2"):
        assert not pinging.ping(payload).answered.is_set()
    pinging.forget(third)
    pinging.ping(b"3")


async def test_who_was_answered_does_not_forget_another_ping_of_the_same_bytes(autojump_clock: MockClock) -> None:
    """The other may have been sent before the task that was answered has its turn."""
    connection = Connection()
    pinging = Pinging(connection, connection.intake, 5)
    first = pinging.ping(b"x")
    connection.receive_pong(b"x")
    pinging.note_answers()
    second = pinging.ping(b"x")
    pinging.forget(first)
    connection.receive_pong(b"x")
    pinging.note_answers()
    assert second.answered.is_set()


async def test_at_the_end_nobody_waits_for_a_pong(autojump_clock: MockClock) -> None:
    """And there was no round trip."""
    connection = Connection()
    pinging = Pinging(connection, connection.intake, 5)
    ping = pinging.ping()
    assert 8 == len(ping.frame.data)
    pinging.end()
    assert ping.answered.is_set()
    assert (None, None) == (ping.round_trip, pinging.latency)
    connection.receive_pong(ping.frame.data)
    assert not connection.conversation.control.answered
    assert ping.round_trip is None


@pytest.mark.parametrize("payload", [bytes(126), b"twice"])
async def test_a_ping_that_may_not_be_sent_is_refused(payload: bytes) -> None:
    """Nothing goes out for it."""
    connection = Connection()
    pinging = Pinging(connection, connection.intake, 5)
    pinging.ping(b"twice")
    with pytest.raises(ValueError):
        pinging.ping(payload)
    assert len(connection.sent) == 1


# the pinger


async def test_there_is_no_pinger_until_it_is_set(autojump_clock: MockClock) -> None:
    """An end is no error then."""
    async with trio.open_nursery() as nursery:
        connection = Connection(nursery)
        pinging = Pinging(connection, connection.intake, 5)
        pinging.stop()
        await trio.sleep(100)
        assert (pinging.period, pinging.timeout, connection.sent) == (None, 5, [])


async def test_set_it_pings_every_period_and_gives_up_a_silent_peer(autojump_clock: MockClock) -> None:
    """With the seconds that were waited for."""
    async with trio.open_nursery() as nursery:
        connection = Connection(nursery)
        pinging = Pinging(connection, connection.intake, 15)
        pinging.set(10, 4)
        assert (pinging.period, pinging.timeout) == (10, 4)
        for _ in range(3):
            await trio.sleep(10.5)
            ping = connection.sent[-1][1]
            assert isinstance(ping, Frame.Ping)
            connection.receive_pong(ping.data)
            pinging.note_answers()
        await trio.sleep(100)
        assert connection.times == [10, 20.5, 31, 41.5]
        assert connection.timeouts == [(45.5, 4)]
        pinging.stop()


async def test_set_anew_it_begins_anew(autojump_clock: MockClock) -> None:
    """There is one pinger at a time; the Ping of the one before is nobody's deadline any more."""
    async with trio.open_nursery() as nursery:
        connection = Connection(nursery)
        pinging = Pinging(connection, connection.intake, 15)
        pinging.set(10, 4)
        await trio.sleep(9)
        pinging.set(10, 4)
        await trio.sleep(9)
        assert connection.sent == []
        pinging.set(2, 3)
        await trio.sleep(2.5)
        pinging.set(100, 5)
        assert (pinging.period, pinging.timeout) == (100, 5)
        await trio.sleep(90)
        assert (connection.times, connection.timeouts) == ([20], [])
        pinging.stop()


@pytest.mark.parametrize("way", ["stop", "None"])
async def test_it_can_be_turned_off_and_on_again(way: str, autojump_clock: MockClock) -> None:
    """Also while a Ping is out."""
    async with trio.open_nursery() as nursery:
        connection = Connection(nursery)
        pinging = Pinging(connection, connection.intake, 15)
        pinging.set(10, 4)
        await trio.sleep(11)
        if way == "stop":
            pinging.stop()
        else:
            pinging.set(None, 7)
            assert pinging.timeout == 7
        assert pinging.period is None
        await trio.sleep(100)
        assert (connection.times, connection.timeouts) == ([10], [])
        pinging.set(1, 4)
        await trio.sleep(1.5)
        assert connection.times == [10, 112]
        pinging.stop()


@pytest.mark.parametrize("why", ["ending", "not running"])
async def test_none_is_started_where_it_would_be_of_no_use(why: str, autojump_clock: MockClock) -> None:
    """The conversation is ending, or has nowhere to run a task; the time-out is kept for single Pings."""
    async with trio.open_nursery() as nursery:
        connection = Connection(nursery if why == "ending" else None)
        if why == "ending":
            connection.conversation.closing.close(CloseReason(1000))
        pinging = Pinging(connection, connection.intake, 15)
        pinging.set(10, 4)
        assert (pinging.period, pinging.timeout) == (None, 4)
        await trio.sleep(100)
        assert connection.sent == []


@pytest.mark.parametrize("way", ["input", "progress"])
async def test_signs_of_life_put_the_time_back(way: str, autojump_clock: MockClock) -> None:
    """Something came, or a write that had to wait got on."""
    async with trio.open_nursery() as nursery:
        connection = Connection(nursery)
        pinging = Pinging(connection, connection.intake, 15)
        pinging.set(10, 4)
        for _ in range(10):
            await trio.sleep(3)
            if way == "input":
                connection.intake.on_input()
            else:
                connection.transport.on_progress()
        await trio.sleep(100)
        assert connection.timeouts == [(34, 4)]
        pinging.stop()
        assert (connection.intake.on_input, connection.transport.on_progress) == (None, None)


async def test_the_time_stands_while_the_reader_waits_for_the_handler(autojump_clock: MockClock) -> None:
    """The Pong may be there, behind what the handler has not taken."""
    async with trio.open_nursery() as nursery:
        connection = Connection(nursery)
        pinging = Pinging(connection, connection.intake, 15)
        pinging.set(10, 4)
        states = [pinging.is_stalled]
        connection.inbox.pause = trio.CancelScope()
        states.append(pinging.is_stalled)
        await trio.sleep(50)
        assert connection.timeouts == []
        connection.inbox.end_pause()
        assert [*states, pinging.is_stalled] == [False, True, False]
        await trio.sleep(50)
        assert len(connection.timeouts) == 1
        pinging.stop()


# the pinger and its watchdog


PERIOD = 10
TIMEOUT = 4


@final
class Owner:
    """A connection, and what happened when; the times count from the beginning."""

    def __init__(self) -> None:
        self._began = trio.current_time()
        self.is_stalled: bool = False
        self.pings: list[Ping] = []
        self.forgotten: list[Ping] = []
        self.sent: list[float] = []
        self.timeouts: list[float] = []

    def now(self) -> float:
        """Seconds since the beginning."""
        return round(trio.current_time() - self._began, 6)

    async def sleep_until(self, seconds: float) -> None:
        """Wait until so many have gone by."""
        await trio.sleep_until(self._began + seconds)

    def ping(self) -> Ping:
        """Note it."""
        self.sent.append(self.now())
        self.pings.append(Ping(trio.current_time()))
        return self.pings[-1]

    def forget(self, ping: Ping) -> None:
        """Note it."""
        self.forgotten.append(ping)

    def answer(self) -> None:
        """The Pong of the last one comes."""
        self.pings[-1].answered.set()

    def timed_out(self) -> None:
        """No Pong came."""
        self.timeouts.append(self.now())


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Owner, Keepalive]]:
    """A pinger, stopped at the end of the block."""
    owner: Any = Owner()
    keepalive = Keepalive(owner, PERIOD, TIMEOUT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keepalive.run_pinger)
        yield owner, keepalive
        keepalive.stop()


async def test_a_ping_goes_out_a_period_after_the_pong_of_the_one_before(autojump_clock: MockClock) -> None:
    """None is behind another one's Pong; and the first waits for its period, too."""
    async with running() as (owner, _):
        for answered in (11, 21, 34.5):
            await owner.sleep_until(answered)
            await trio.testing.wait_all_tasks_blocked()
            owner.answer()
        await owner.sleep_until(200)
        assert owner.sent == [10, 21, 31, 44.5]
        assert owner.timeouts == [44.5 + TIMEOUT]


async def test_who_answers_in_time_is_not_given_up(autojump_clock: MockClock) -> None:
    """However often it is asked, and however near to the limit it answers."""
    async with running() as (owner, _):
        for _ in range(50):
            await trio.sleep(PERIOD + TIMEOUT - 0.01)
            owner.answer()
        assert len(owner.sent) == 50
        assert owner.timeouts == []


async def test_silence_is_told_once_when_the_time_is_up(autojump_clock: MockClock) -> None:
    """And nothing more is sent meanwhile."""
    async with running() as (owner, _):
        await owner.sleep_until(1000)
        assert (owner.sent, owner.timeouts) == ([PERIOD], [PERIOD + TIMEOUT])


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        ([9.5], 14),  # before the Ping it says nothing
        ([10.5], 14.5),
        ([13.9], 17.9),
        ([13.9, 17.8, 21.7], 25.7),
        ([14.5], 14),  # too late
    ],
)
async def test_a_sign_of_life_begins_the_time_anew(
    signs: Sequence[float], expected: float, autojump_clock: MockClock
) -> None:
    """The last one counts."""
    async with running() as (owner, keepalive):
        for at in signs:
            await owner.sleep_until(at)
            keepalive.sign_of_life()
        await owner.sleep_until(100)
        assert owner.timeouts == [expected]


async def test_the_time_stands_while_our_own_reader_waits(autojump_clock: MockClock) -> None:
    """The Pong may be there, unread; afterwards it has its time again."""
    async with running() as (owner, _):
        await owner.sleep_until(12)
        owner.is_stalled = True
        await owner.sleep_until(500)
        assert owner.timeouts == []
        owner.is_stalled = False
        await owner.sleep_until(1000)
        (at,) = owner.timeouts
        assert 500 + TIMEOUT * 3 / 4 <= at <= 500 + TIMEOUT


@pytest.mark.parametrize("comes", [True, False])
async def test_a_pause_of_the_whole_process_is_not_counted(comes: bool, autojump_clock: MockClock) -> None:
    """The Pong lies unread, or it does not come, and the time-out is put off by the pause."""
    async with running() as (owner, _):
        await owner.sleep_until(12.5)
        autojump_clock.jump(60)
        await trio.sleep(0.1)
        assert owner.timeouts == []
        if comes:
            owner.answer()
        await owner.sleep_until(80)
        if comes:
            assert owner.timeouts == []
        else:
            (at,) = owner.timeouts
            assert PERIOD + TIMEOUT + 60 - TIMEOUT / 4 <= at <= PERIOD + TIMEOUT + 60 + TIMEOUT / 4


@pytest.mark.parametrize("at", [0, 5, 12])
async def test_stopped_it_ends_in_the_same_step(at: float, autojump_clock: MockClock) -> None:
    """Both tasks, whether a Ping is out or not; and there is no time-out any more."""
    owner: Any = Owner()
    keepalive = Keepalive(owner, PERIOD, TIMEOUT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keepalive.run_pinger)
        if at:
            await owner.sleep_until(at)
        keepalive.stop()
        keepalive.stop()
    assert owner.now() == at
    assert owner.sent == ([PERIOD] if at > PERIOD else [])
    assert owner.forgotten == owner.pings
    await owner.sleep_until(100)
    assert owner.timeouts == []


async def test_a_cancellation_from_outside_passes_through(autojump_clock: MockClock) -> None:
    """It ends both tasks, and is not swallowed."""
    owner: Any = Owner()
    keepalive = Keepalive(owner, PERIOD, TIMEOUT)
    with trio.move_on_after(12) as scope:
        await keepalive.run_pinger()
    assert scope.cancelled_caught
    assert (owner.sent, owner.timeouts) == ([PERIOD], [])


async def test_it_says_its_period(autojump_clock: MockClock) -> None:
    """To be shown, and to be kept when only the timeout changes."""
    owner: Any = Owner()
    assert Keepalive(owner, 7, 3).period == 7
