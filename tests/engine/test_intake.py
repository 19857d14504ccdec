"""What was read, on its way into the inbox: in order, as far as there is room, and what is read next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, final

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st
from trio.testing import MockClock

from tests.support.extensions import Marking
from tests.support.helpers import client_bytes, close, masked
from trioktor import CLOSE, ChannelConfig, ChannelOverflow, CloseReason, Extension, Frame, WebSockets
from trioktor.engine.inbox import Inbox
from trioktor.engine.intake import Intake
from trioktor.engine.transport import CHUNK, LONG_READ, READ, HangUp
from trioktor.protocol import native
from trioktor.protocol.conversation import Conversation
from trioktor.protocol.errors import ProtocolError
from trioktor.protocol.halves import Theirs


@final
class Connection:
    """What an intake sees of one, and what it was told."""

    def __init__(self, config: ChannelConfig | None = None, max_bytes: int = 1 << 24) -> None:
        self.owner: Any = "somebody"
        self.ends: Any = self
        self.settings: WebSockets = WebSockets(handler_grace=2)
        self.hang_up: HangUp = HangUp.NO
        self.transport: Any = SimpleNamespace(read_size=READ, hang_up=lambda: self.hang_up)
        self.inbox: Inbox = Inbox(config or ChannelConfig(1000), max_bytes)
        self.conversation: Conversation = Conversation()
        self.intake = Intake(self)
        self.intake.on_input = self._count_signs
        self.said: list[str] = []
        self.signs = 0
        self.failures: list[Exception] = []

    def look_up(self) -> None:
        """Note what is to be seen."""
        conversation = self.conversation
        conversation.has_news = False
        self.said.append("control" if conversation.has_control else conversation.closing.word)

    def _count_signs(self) -> None:
        self.signs += 1

    def lose(self, cause: BaseException) -> None:
        """The stream is gone."""
        self.conversation.closing.lose(cause)
        self.look_up()

    def crashed(self, error: Exception) -> None:
        """Note what was ours."""
        self.failures.append(error)

    def received(self) -> list[Frame]:
        """Take all that waits."""
        frames = []
        while (frame := self.inbox.take()) is not None:
            frames.append(frame)
        return frames


def small(capacity: int = 2, max_bytes: int = 1 << 24) -> Connection:
    """One with little room."""
    return Connection(ChannelConfig(capacity), max_bytes)


def texts(*words: object) -> list[Frame]:
    """A message of each."""
    return [Frame.Text(str(word)) for word in words]


async def watching(work: Callable[[], Awaitable[object]]) -> bool:
    """Whether something ends by itself, within a long time."""
    with trio.move_on_after(1000) as scope:
        await work()
    return not scope.cancelled_caught


# with room


@given(
    messages=st.lists(st.binary(max_size=300), max_size=30),
    cuts=st.lists(st.integers(1, 1000), min_size=1, max_size=30),
)
def test_messages_come_in_order_wherever_reads_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    """All bytes are counted, each read is a sign of life, and nothing waits where there is room."""

    async def main() -> None:
        connection = Connection()
        frames: list[Frame] = [Frame.Binary(data) for data in messages]
        data, reads = client_bytes(*frames), 0
        rest = data
        while rest:
            size = cuts[reads % len(cuts)]
            assert connection.intake.take(rest[:size])
            rest, reads = rest[size:], reads + 1
        assert connection.received() == frames
        assert (connection.intake.bytes_read, connection.signs) == (len(data), reads)
        assert connection.said == []

    trio.run(main)


async def test_the_end_of_the_stream_is_told() -> None:
    """It is no sign of life."""
    connection = Connection()
    assert connection.intake.take(b"")
    assert connection.conversation.closing.theirs is Theirs.GONE
    assert (connection.said, connection.signs, connection.intake.bytes_read) == (["BROKEN"], 0, 0)


@pytest.mark.parametrize(
    ("behind", "said"),
    [
        (client_bytes(Frame.Ping(b"?")), "control"),
        (client_bytes(close(1000)), "ANSWERING"),
        (masked(0x83), "FAILING"),  # an opcode that nobody knows
    ],
)
async def test_what_is_no_message_is_looked_at_behind_the_messages_before_it(behind: bytes, said: str) -> None:
    """Once for each read, and only if there is such a thing."""
    connection = Connection()
    assert connection.intake.take(client_bytes(*texts("a", "b")) + behind)
    assert connection.received() == texts("a", "b")
    assert connection.said == [said]


async def test_several_messages_of_one_read_are_a_batch() -> None:
    """One alone is none; the peak of what waited is kept."""
    connection = Connection()
    for count, is_batch in ((2, True), (1, False), (5, True)):
        assert connection.intake.take(client_bytes(*texts(*range(count))))
        assert connection.inbox.is_batch is is_batch
        assert len(connection.received()) == count
    assert connection.inbox.peak == 5


async def test_one_that_had_to_wait_for_room_is_no_batch_either(autojump_clock: MockClock) -> None:
    """Whatever was read before it: the answer to it is not put aside for others to come."""
    connection = small()
    assert connection.intake.take(client_bytes(*texts("a", "b")))
    assert connection.received() == texts("a", "b")
    with trio.fail_after(1):
        while connection.intake.take(client_bytes(*texts("one alone"))):
            await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.intake.finish)
            await trio.testing.wait_all_tasks_blocked()
            assert set(connection.received()) == set(texts("one alone"))
    assert not connection.inbox.is_batch


# without room


async def test_what_has_no_room_waits_for_the_handler(autojump_clock: MockClock) -> None:
    """Nothing is lost or swapped, and nobody has to wait longer than it takes."""
    connection = small()
    frames = texts(*range(10))
    assert not connection.intake.take(client_bytes(*frames))
    assert connection.inbox.waiting == 2
    got: list[Frame] = []
    ended: list[int] = []
    async with trio.open_nursery() as nursery:

        async def finish() -> None:
            await connection.intake.finish()
            ended.append(len(got))

        nursery.start_soon(finish)
        while len(got) < 10:
            await trio.sleep(5)
            assert connection.inbox.waiting <= 2
            frame = connection.inbox.take()
            assert frame is not None
            got.append(frame)
    assert got == frames
    assert ended in ([8], [9])
    assert connection.intake.take(client_bytes(*texts("next")))
    assert connection.received() == texts("next")


async def test_the_messages_of_a_full_inbox_are_those_that_fit_exactly(autojump_clock: MockClock) -> None:
    """The one that had no place is what has to be waited for."""
    for count, is_done in ((1, True), (2, True), (3, False)):
        connection = small()
        assert connection.intake.take(client_bytes(*texts(*range(count)))) is is_done
        assert connection.inbox.waiting == min(count, 2)


async def test_messages_that_come_one_by_one_wait_as_well(autojump_clock: MockClock) -> None:
    """One alone in its read is handed on by a shorter way."""
    connection = small(1)
    assert connection.intake.take(client_bytes(*texts("a")))
    assert not connection.intake.take(client_bytes(*texts("b")))
    with trio.move_on_after(5) as scope:
        await connection.intake.finish()
    assert scope.cancelled_caught
    assert connection.inbox.take() == Frame.Text("a")
    assert await watching(connection.intake.finish)
    assert connection.received() == texts("b")


async def test_the_message_that_passes_the_limit_of_bytes_is_the_last(autojump_clock: MockClock) -> None:
    """It has its place; the next one has to wait."""
    connection = small(10, max_bytes=100)
    frames: list[Frame] = [Frame.Binary(bytes([number] * 60)) for number in range(5)]
    assert not connection.intake.take(client_bytes(*frames))
    assert connection.received() == frames[:2]
    for start in (2, 4):
        with trio.move_on_after(5):
            await connection.intake.finish()
        assert connection.received() == frames[start : start + 2]


async def test_a_ping_in_front_of_a_full_queue_is_answered_first(autojump_clock: MockClock) -> None:
    """Also one behind it that comes to light while the rest is handed on; a wait that ends is a sign of life."""
    connection = small(1)
    frames = [Frame.Ping(b"1"), *texts("a", "b"), Frame.Ping(b"2"), *texts("c", "d")]
    assert not connection.intake.take(client_bytes(*frames))
    assert (connection.said, connection.signs) == (["control"], 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.intake.finish)
        await trio.testing.wait_all_tasks_blocked()
        assert connection.inbox.take() == Frame.Text("a")
        await trio.testing.wait_all_tasks_blocked()
        assert connection.said == ["control", "control"]
        assert connection.signs == 2
        for expected in texts("b", "c", "d"):
            assert connection.inbox.take() == expected
            await trio.testing.wait_all_tasks_blocked()


async def test_half_a_message_needs_room_beside_what_waits(autojump_clock: MockClock) -> None:
    """Or it would come on top of that; the exact number of bytes has it."""
    for size, is_done in ((40, True), (41, False)):
        connection = small(10, max_bytes=100)
        assert connection.intake.take(client_bytes(Frame.Binary(bytes(60))))
        long = client_bytes(Frame.Binary(bytes(90)))
        head = len(long) - 90
        assert connection.intake.take(long[: head + size]) is is_done
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.intake.finish)
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == (not is_done)
            connection.inbox.take()
        assert connection.intake.take(long[head + size :])
        assert connection.received() == [Frame.Binary(bytes(90))]


async def test_nothing_is_handed_on_when_the_conversation_is_over(autojump_clock: MockClock) -> None:
    """Whoever waits for room is let go."""
    connection = small(1)
    assert not connection.intake.take(client_bytes(*texts("a", "b", "c", "d")))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.intake.finish)
        await trio.testing.wait_all_tasks_blocked()
        connection.conversation.closing.lose()
        assert connection.inbox.take() == Frame.Text("a")
    assert connection.received() == texts("b")  # it had its place already


async def test_an_overflow_that_is_to_be_the_end_is_a_violation(autojump_clock: MockClock) -> None:
    """With 1008; what had room is not lost."""
    connection = Connection(ChannelConfig(2, on_overflow=CLOSE))
    assert not connection.intake.take(client_bytes(*texts(*range(5))))
    await connection.intake.finish()
    closing = connection.conversation.closing
    assert (closing.reason, closing.theirs) == (CloseReason(1008), Theirs.FAILED)
    assert isinstance(closing.cause, ChannelOverflow)
    assert connection.said == ["FAILING"]
    assert connection.received() == texts(0, 1)


@pytest.mark.parametrize(("found", "seconds"), [(HangUp.FULL, 1), (HangUp.HALF, 3)])
async def test_a_peer_that_goes_while_there_is_no_room_is_noticed(
    found: HangUp, seconds: float, autojump_clock: MockClock
) -> None:
    """Within a second; one that ended its half leaves the handler its grace."""
    connection = small(1)
    assert not connection.intake.take(client_bytes(*texts("a", "b")))
    connection.hang_up = found
    assert await watching(connection.intake.finish)
    assert trio.current_time() == pytest.approx(seconds)
    closing = connection.conversation.closing
    assert closing.theirs is Theirs.GONE
    assert isinstance(closing.cause, trio.BrokenResourceError)
    assert connection.said[0] == "BROKEN"


# turns


async def test_a_read_of_many_messages_leaves_others_their_turn(autojump_clock: MockClock) -> None:
    """Though there is room for all of them."""
    connection = Connection(ChannelConfig(5000))
    assert connection.intake.take(client_bytes(*texts(*[""] * 100)))
    assert len(connection.received()) == 100
    assert not connection.intake.take(client_bytes(*texts(*[""] * 3000)))
    counts = [connection.inbox.waiting]
    assert counts[0] <= 256
    async with trio.open_nursery() as nursery:

        async def other() -> None:
            while connection.inbox.waiting < 3000:
                counts.append(connection.inbox.waiting)
                await trio.lowlevel.checkpoint()

        nursery.start_soon(other)
        await connection.intake.finish()
    counts.append(connection.inbox.waiting)
    steps = [after - before for before, after in pairwise(counts)]
    assert counts[-1] == 3000
    assert max(steps) <= 512  # the other task may be passed once
    assert connection.inbox.is_batch


async def test_behind_a_wait_for_room_others_have_their_turn_as_before() -> None:
    """Control frames need no room."""
    connection = small(1)
    assert not connection.intake.take(client_bytes(*texts("a", "b"), *[Frame.Ping(b"?")] * 3000))
    conversation = connection.conversation
    counts = [conversation.frames_received]
    assert connection.inbox.take() == Frame.Text("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.intake.finish)
        while conversation.frames_received < 3002:
            await trio.lowlevel.checkpoint()
            counts.append(conversation.frames_received)
    assert max(after - before for before, after in pairwise(counts)) <= 512  # this task may be passed once


async def test_finishing_is_a_checkpoint_though_there_is_nothing_to_do() -> None:
    """As every wait is."""
    connection = Connection()
    assert connection.intake.take(client_bytes(*texts("a")))
    with trio.testing.assert_checkpoints():
        await connection.intake.finish()


# what is read next


@pytest.mark.parametrize(
    ("size", "here", "expected"),
    [
        (LONG_READ, 0, LONG_READ),
        (LONG_READ, 1, READ),
        (LONG_READ + 1, 1, LONG_READ),
        (LONG_READ + CHUNK, CHUNK, LONG_READ),
        (LONG_READ + CHUNK, CHUNK + 1, READ),
        (1000, 10, READ),
    ],
)
async def test_more_is_read_at_once_in_the_middle_of_a_long_frame(size: int, here: int, expected: int) -> None:
    """Of which so much is missing; behind it as before."""
    connection = Connection()
    data = client_bytes(Frame.Text("x" * size))
    start = len(data) - size + here
    assert connection.intake.take(data[:start])
    assert connection.transport.read_size == expected
    assert connection.intake.take(data[start:])
    assert connection.transport.read_size == READ
    assert connection.received() == [Frame.Text("x" * size)]


@pytest.mark.parametrize("kind", [Frame.Text, Frame.Binary])
@pytest.mark.parametrize(
    ("here", "missing", "is_worth_it"),
    [
        (CHUNK // 2, CHUNK, True),
        (CHUNK // 2 - 1, CHUNK, False),
        (CHUNK // 2, CHUNK - 1, False),
        (10 * CHUNK, 10 * CHUNK, True),
    ],
)
async def test_a_long_binary_frame_is_read_to_where_it_will_stand(
    kind: Any, here: int, missing: int, is_worth_it: bool
) -> None:
    """By the native part, and where enough of it is there and enough to come; the bytes count as others do."""
    connection = Connection()
    message = kind(b"0123456789abcdef" * ((here + missing) // 16) + bytes((here + missing) % 16))
    data = client_bytes(message)
    start = len(data) - missing
    assert connection.intake.take(data[:start])
    target = connection.intake.target
    assert (target is not None) is (is_worth_it and native.is_native and kind is Frame.Binary)
    if target is None:
        assert connection.intake.take(data[start:])
    else:
        with memoryview(target) as view:
            view[:missing] = data[start:]
        assert connection.intake.take_filled(missing)
    assert connection.received() == [message]
    assert connection.intake.target is None
    assert (connection.intake.bytes_read, connection.signs) == (len(data), 2)


# what goes wrong


class Refusing(Extension):
    """Finds a fault in every message."""

    def decode(self, message: Frame, max_size: int | None) -> Frame:
        """Refuse it."""
        raise ProtocolError("a fault")

    def encode(self, message: Frame) -> Frame:
        """Not asked for."""
        raise NotImplementedError


@pytest.mark.skipif(not native.is_native, reason="there is no place to read to")
async def test_a_fault_of_a_message_that_was_read_to_its_place_is_told() -> None:
    """At once; one that is no fault is not."""
    for extensions, said in ((), []), ((Refusing(Marking("refusing", 0)),), ["FAILING"]):
        connection = Connection()
        connection.conversation = Conversation(extensions=extensions)
        connection.intake = Intake(connection)
        data = client_bytes(Frame.Binary(bytes(10 * CHUNK)))
        assert connection.intake.take(data[: 5 * CHUNK])
        target, missing = connection.intake.target, len(data) - 5 * CHUNK
        assert target is not None
        with memoryview(target) as view:
            view[:missing] = data[-missing:]
        connection.intake.take_filled(missing)
        assert connection.said == said


@pytest.mark.parametrize("cause", [None, ConnectionResetError("reset")])
async def test_a_reading_that_fails_is_the_end(cause: Exception | None) -> None:
    """What the system said is its cause, where it is known."""
    connection = Connection()
    error = trio.BrokenResourceError("broken")
    error.__cause__ = cause
    connection.intake.lose(error)
    closing = connection.conversation.closing
    assert closing.theirs is Theirs.GONE
    assert closing.cause is (cause or error)
    assert connection.said == ["BROKEN"]


async def test_a_fault_is_told_and_not_raised() -> None:
    """It ends this connection, and no other."""
    connection = Connection()
    error = ProtocolError("ours")
    connection.intake.fail(error)
    assert connection.failures == [error]
