"""What is written at once, what is put aside to leave with others, and what is left to the writer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st
from trio.testing import MockClock

from tests.support.extensions import Marker, Marking
from tests.support.helpers import close
from tests.support.plain_transport import PlainSocket, PlainTransport, running, settle, texts
from trioktor import Frame, WebSockets
from trioktor.engine.connection import Connection
from trioktor.engine.transport import CHUNK
from trioktor.protocol.close import CloseReason
from trioktor.protocol.errors import ProtocolError
from trioktor.protocol.halves import Ours, Theirs
from trioktor.protocol.outgoing import LONG
from trioktor.protocol.prepared import PreparedMessage

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


@asynccontextmanager
async def writing(
    transport: PlainTransport, settings: WebSockets | None = None, **options: Any
) -> AsyncIterator[Connection]:
    """A connection that runs, over what takes bytes at once or has to be awaited."""
    connection = Connection(transport, settings or WebSockets(), **options)
    async with running(connection):
        yield connection


# straight


@pytest.mark.parametrize("item", [Frame.Text("x"), PreparedMessage(Frame.Text("x")), Frame.Text("x", fin=False)])
async def test_a_frame_goes_straight_out(item: Any, autojump_clock: MockClock) -> None:
    """In the step of the call; there is no writer for it."""
    transport = PlainSocket()
    async with writing(transport) as connection:
        assert connection.writing.write_through(item, keep=False)
        assert transport.frames == [item.frame if isinstance(item, PreparedMessage) else item]
        assert connection.writing.writer is None
        assert connection.conversation.outgoing.frames_sent == 1


async def test_what_has_to_be_awaited_takes_nothing_straight() -> None:
    """It can't say what it takes."""
    transport = PlainTransport()
    async with writing(transport) as connection:
        for keep in (True, False):
            assert not connection.writing.write_through(Frame.Text("x"), keep=keep)
        assert transport.frames == []
        connection.outbox.channel.send_nowait("queued")
        await settle()
        for keep in (True, False):  # though there is a writer, which waits for something to do
            assert not connection.writing.write_through(Frame.Text("x"), keep=keep)
        assert transport.frames == texts("queued")


@pytest.mark.parametrize("room", range(12))
async def test_what_is_not_taken_is_left_to_the_writer(room: int, autojump_clock: MockClock) -> None:
    """It was accepted; until it is out nothing else goes straight, and nothing is torn."""
    transport = PlainSocket()
    async with writing(transport) as connection:
        transport.allow(room)
        assert connection.writing.write_through(Frame.Text("0123456789"), keep=False)
        for keep in (True, False):
            assert not connection.writing.write_through(Frame.Text("x"), keep=keep)
        connection.outbox.accept(Frame.Text("queued"))
        connection.pinging.ping(b"!")
        await settle()
        transport.allow(None)
        await connection.flush(())
        assert transport.frames[0] == Frame.Text("0123456789")
        assert sorted(transport.frames[1:], key=lambda frame: frame.data) == [Frame.Ping(b"!"), Frame.Text("queued")]
        assert connection.writing.write_through(Frame.Text("straight again"), keep=False)
        assert transport.frames[-1] == Frame.Text("straight again")


@pytest.mark.parametrize("way", ["straight", "with a Ping"])
async def test_what_is_not_taken_counts_as_bytes_that_wait(way: str, autojump_clock: MockClock) -> None:
    """Until it is out less may be queued behind it."""
    transport = PlainSocket()
    async with writing(transport, WebSockets(max_queued_bytes=100)) as connection:
        transport.allow(0)
        assert connection.writing.write_through(Frame.Binary(bytes(200)), keep=way != "straight")
        connection.pinging.ping(b"!")
        for _ in range(2):
            assert not connection.outbox.accept(Frame.Binary(bytes(60)))
            await settle()
        transport.allow(None)
        await settle()
        assert connection.outbox.accept(Frame.Binary(bytes(60)))


@pytest.mark.parametrize("room", [0, 1, 5, 11])
async def test_the_writer_needs_nobody_to_call_it_again(room: int, autojump_clock: MockClock) -> None:
    """It is started in the step in which something is left."""
    transport = PlainSocket()
    async with writing(transport) as connection:
        transport.allow(room)
        assert connection.writing.write_through(Frame.Text("0123456789"), keep=False)
        transport.allow(None)
        await settle()
        assert transport.frames == texts("0123456789")


async def test_a_ping_that_waits_is_not_passed() -> None:
    """It is to go ahead of everything."""
    async with writing(PlainSocket()) as connection:
        connection.conversation.send_control(Frame.Ping(b"!"))  # nobody has looked yet
        assert not connection.writing.write_through(Frame.Text("x"), keep=False)
        connection.look_up()
        assert connection.writing.write_through(Frame.Text("x"), keep=False)


async def test_nothing_is_put_aside_once_there_is_a_queue(autojump_clock: MockClock) -> None:
    """Or what is queued behind it would pass it; what is not to be put aside goes straight while nobody writes."""
    transport = PlainSocket()
    async with writing(transport) as connection:
        connection.outbox.channel.send_nowait("first")
        await settle()
        assert not connection.writing.write_through(Frame.Text("x"), keep=True)
        assert connection.writing.write_through(Frame.Text("second"), keep=False)
        assert transport.frames == texts("first", "second")


@pytest.mark.parametrize("why", ["sealed", "queued"])
async def test_a_frame_does_not_pass_what_was_there_before(why: str, autojump_clock: MockClock) -> None:
    """Nor does it go behind the end."""
    transport = PlainSocket()
    async with writing(transport) as connection:
        if why == "sealed":
            connection.ends.close(CloseReason(1000))
        else:
            connection.outbox.channel.send_nowait("before")
        assert not connection.writing.write_through(Frame.Text("x"), keep=False)
        await settle()
        assert Frame.Text("x") not in transport.frames


# put aside


Step = tuple[bool, int]


@given(steps=st.lists(st.tuples(st.booleans(), st.sampled_from([0, 5, 2000, CHUNK])), max_size=12))
def test_what_is_put_aside_leaves_in_order_with_the_next_that_is_not(steps: list[Step]) -> None:
    """Or with a chunk of it, or when the waker calls; nothing of it is lost."""

    async def main() -> None:
        transport = PlainSocket()
        async with writing(transport) as connection:
            frames: list[Frame] = []
            kept, writes = 0, 0
            for keep, size in steps:
                frames.append(Frame.Binary(bytes([len(frames)]) * size))
                assert connection.writing.write_through(frames[-1], keep=keep)
                kept += size
                if not keep or kept >= CHUNK:
                    kept, writes = 0, writes + 1
                    assert transport.frames == frames
                assert len(transport.writes) == writes
            await settle()
            assert transport.frames == frames
            assert len(transport.writes) <= writes + 1

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("way", ["uncork", "flush", "ping", "close", "queue"])
async def test_what_is_put_aside_goes_in_front_of_everything_else(way: str, autojump_clock: MockClock) -> None:
    """Whoever writes it."""
    transport = PlainSocket()
    async with writing(transport) as connection:
        assert connection.writing.write_through(Frame.Text("aside"), keep=True)
        assert transport.writes == []
        if way == "uncork":
            connection.writing.uncork()
            connection.writing.uncork()
        elif way == "flush":
            await connection.flush(())
        elif way == "ping":
            connection.pinging.ping(b"!")
        elif way == "close":
            connection.ends.close(CloseReason(1000))
        else:
            connection.outbox.channel.send_nowait("queued")
        if way != "queue":  # the others write in the step of the call
            assert transport.frames[:1] == texts("aside")
        await settle()
        assert transport.frames[0] == Frame.Text("aside")
        assert len(transport.frames) == (1 if way in ("uncork", "flush") else 2)


@pytest.mark.parametrize("way", ["aside", "a chunk alone", "behind others", "queue"])
async def test_flush_waits_for_what_was_put_aside(way: str, autojump_clock: MockClock) -> None:
    """Also where it was as long as what leaves at once, and where it is in the writer's hands."""
    transport = PlainSocket()
    async with writing(transport) as connection, trio.open_nursery() as nursery:
        flushed: list[int] = []

        async def flush() -> None:
            await connection.flush(())
            flushed.append(len(transport.frames))

        transport.allow(0)
        if way != "a chunk alone":
            assert connection.writing.write_through(Frame.Text("aside"), keep=True)
        if way in ("a chunk alone", "behind others"):
            assert connection.writing.write_through(Frame.Binary(bytes(CHUNK)), keep=True)
        elif way == "queue":
            assert connection.outbox.channel is not None  # its writer has it from now on
        nursery.start_soon(flush)
        await settle()
        assert flushed == []
        transport.allow(None)
        await settle()
        assert flushed == [2 if way == "behind others" else 1]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["keep", "write", "keep message", "write message", "close"]),
            st.sampled_from([0, 5, 2000, CHUNK]),
        )
    )
)
def test_messages_that_were_judged_go_as_all_others(steps: list[tuple[str, int]]) -> None:
    """In the order of the calls, counted as soon as they are accepted, and never more than a chunk of them."""

    async def main() -> None:
        transport = PlainSocket()
        async with writing(transport) as connection:
            kept, is_open = 0, True
            frames: list[Frame] = []
            for way, size in steps:
                frame = Frame.Binary(bytes([len(frames)]) * size)
                if way == "close":
                    connection.ends.close(CloseReason(1000))
                    kept, is_open = 0, False
                    continue
                keep = way.startswith("keep")
                if way.endswith("message"):
                    is_taken = connection.writing.write_message(frame, keep=keep)
                else:
                    is_taken = connection.writing.write_through(frame, keep=keep)
                assert is_taken is is_open
                if is_taken:
                    frames.append(frame)
                    kept += size + 2
                    kept = 0 if not keep or kept >= CHUNK else kept
                if is_open:
                    assert connection.conversation.outgoing.frames_sent == len(frames)
                    assert kept > 0 or transport.frames == frames
            await settle()
            assert transport.frames[: len(frames)] == frames

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("way", ["as it is", "encoded", "made bytes"])
async def test_no_more_than_a_chunk_is_put_aside(
    way: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted as it will be written, not as it was before its extensions."""
    transport = PlainSocket()
    letter = "x" * 3000 if way != "as it is" else ""
    marker = Marker(Marking("marking", 0, letter))
    if way == "made bytes":  # since it is of another kind than it was
        monkeypatch.setattr(Marker, "encode", lambda self, message: Frame.Text(message.data + letter.encode()))
    async with writing(transport, extensions=(marker,) if letter else ()) as connection:
        assert connection.writing.write_through(Frame.Binary(b""), keep=True)
        size = 4000 - len(letter)
        for number in range(1, 2 * CHUNK // 4000):
            assert connection.writing.write_message(Frame.Binary(bytes(size)), keep=True)
            assert bool(transport.writes) is (number * 4000 + len(letter) >= CHUNK)
            if transport.writes:
                break
        assert len(transport.writes) == 1


def test_a_chunk_of_empty_messages_is_not_put_aside_for_ever() -> None:
    """Their heads count."""

    async def main() -> None:
        transport = PlainSocket()
        async with writing(transport) as connection:
            assert connection.writing.write_through(Frame.Binary(b""), keep=True)
            for _ in range(CHUNK // 2):
                if not connection.writing.write_message(Frame.Binary(b""), keep=True):
                    break
            assert len(transport.writes) == 1

    trio.run(main)


async def test_extensions_see_what_is_put_aside_in_its_turn(autojump_clock: MockClock) -> None:
    """As they see all others, but for a long message, which takes several steps: the writer's task does that."""
    transport = PlainSocket()
    async with writing(transport, extensions=(Marker(Marking("marking", 0)),)) as connection:
        assert connection.writing.write_through(Frame.Text("first"), keep=True)
        assert connection.writing.write_message(Frame.Text("second"), keep=True)
        assert connection.writing.write_message(Frame.Binary(bytes(LONG + 1)), keep=True) is False
        assert connection.writing.write_message(Frame.Binary(b"third"), keep=True)
        assert connection.writing.write_through(Frame.Text("fourth"), keep=False)
        assert transport.frames == [*texts("firstx", "secondx"), Frame.Binary(b"thirdx"), *texts("fourthx")]
        assert len(transport.writes) == 1
        assert connection.conversation.outgoing.frames_sent == 4


async def test_what_a_fault_of_an_extension_s_made_is_not_put_aside(autojump_clock: MockClock) -> None:
    """Whoever sends it is told, what was put aside before is whole, and then it is the end."""
    transport = PlainSocket()
    async with writing(transport, extensions=(Marker(Marking("marking", 0, "\N{SNOWMAN}")),)) as connection:
        assert connection.writing.write_through(Frame.Binary(b"first"), keep=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Marker, "encode", lambda self, message: Frame.Text("x", rsv3=True))
            with pytest.raises(ProtocolError, match="reserved bit"):
                connection.writing.write_message(Frame.Text("second"), keep=True)
        assert transport.frames == [Frame.Binary("first\N{SNOWMAN}".encode()), close(1011)]
        assert "reserved bit" in str(connection.closing.cause)


async def test_extensions_do_not_see_what_can_not_be_said_inside_a_message(autojump_clock: MockClock) -> None:
    """A fragment that went through `outgoing`, of which sessions know nothing; the conversation goes on."""
    transport = PlainSocket()
    async with writing(transport, extensions=(Marker(Marking("marking", 0)),)) as connection:
        assert connection.writing.write_through(Frame.Text("first", fin=False), keep=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Marker, "encode", lambda self, message: pytest.fail("it was seen"))
            assert connection.writing.write_message(Frame.Binary(b"second"), keep=False) is None
            with pytest.raises(ProtocolError, match="inside the fragments"):
                connection.writing.write_through(Frame.Binary(b"second"), keep=False)
        assert connection.closing.is_open


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize(
    ("frame", "is_judged"),
    [
        (Frame.Binary(b"x"), True),
        (Frame.Text("x"), True),
        (Frame.Binary(b"x", fin=False), False),
        (Frame.Text("x", fin=False), False),
        (Frame.Binary(b"x", rsv2=True), False),
        (Frame.Ping(b"x"), False),
        (Frame.Text(b"\xff"), False),
    ],
    ids=repr,
)
async def test_what_has_to_be_judged_is_not_put_aside_by_itself(
    frame: Frame, is_judged: bool, is_open: bool, autojump_clock: MockClock
) -> None:
    """Nor does anything inside a message of which a fragment was accepted."""
    transport = PlainSocket()
    async with writing(transport) as connection:
        assert connection.writing.write_through(Frame.Text("first"), keep=True)
        if is_open:
            connection.conversation.outgoing.note_accepted(Frame.Text("of several", fin=False))
        assert connection.writing.write_message(frame, keep=True) is (True if is_judged and not is_open else None)
        assert connection.writing.write_through(Frame.Text("last"), keep=False)
        assert transport.frames == [*texts("first"), *([frame] if is_judged and not is_open else []), *texts("last")]


async def test_nothing_is_put_aside_once_the_connection_is_dropped(autojump_clock: MockClock) -> None:
    """Though something was, and nobody has called yet."""
    async with writing(PlainSocket()) as connection:
        assert connection.writing.write_through(Frame.Text("first"), keep=True)
        connection.ends.drop()
        assert connection.writing.write_message(Frame.Text("second"), keep=True) is False


async def test_nothing_is_put_aside_where_nobody_would_call() -> None:
    """Before it runs: the frame has to be queued."""
    connection = Connection(PlainSocket(), WebSockets())
    assert not connection.writing.write_through(Frame.Text("x"), keep=True)
    assert connection.writing.write_through(Frame.Text("x"), keep=False)


async def test_at_the_end_what_was_put_aside_is_dropped(autojump_clock: MockClock) -> None:
    """The stream may be closed by then."""
    transport = PlainSocket()
    async with writing(transport) as connection:
        assert connection.writing.write_through(Frame.Text("aside"), keep=True)
        connection.writing.end()
        connection.writing.uncork()
        await settle()
        assert transport.writes == []
        assert connection.nursery is not None
        assert "trioktor waker" not in {task.name for task in connection.nursery.child_tasks}


# the answer to the handshake


@pytest.mark.parametrize("kind", [PlainSocket, PlainTransport])
@pytest.mark.parametrize("room", [None, 0, 10])
async def test_the_answer_goes_out_first_and_once(
    kind: type[PlainTransport], room: int | None, autojump_clock: MockClock
) -> None:
    """What was queued meanwhile follows it; before it nothing does."""
    made: list[bytes] = []

    def respond() -> bytes:
        made.append(ANSWER)
        return ANSWER

    transport = kind()
    async with writing(transport, response=respond) as connection:
        connection.outbox.accept(Frame.Text("queued"))
        connection.pinging.ping(b"!")
        await settle()
        assert (transport.writes, made) == ([], [])
        transport.allow(room)
        connection.writing.respond()
        connection.writing.respond()
        await settle()
        transport.allow(None)
        await settle()
        assert made == [ANSWER]
        assert transport.written.startswith(ANSWER)
        assert transport.frames == [Frame.Ping(b"!"), Frame.Text("queued")]


@pytest.mark.parametrize("kind", [PlainSocket, PlainTransport])
async def test_a_flush_before_the_answer_ends_with_what_follows_it(
    kind: type[PlainTransport], autojump_clock: MockClock
) -> None:
    """Control frames among that."""
    transport = kind()
    flushed: list[int] = []
    async with writing(transport, response=lambda: ANSWER) as connection, trio.open_nursery() as nursery:

        async def flush() -> None:
            await connection.outbox.flush()
            flushed.append(len(transport.frames))

        connection.pinging.ping(b"!")
        nursery.start_soon(flush)
        await settle()
        assert flushed == []
        connection.writing.respond()
        await settle()
        assert flushed == [1]


async def test_flush_waits_for_an_answer_that_is_taken_in_part(autojump_clock: MockClock) -> None:
    """It is what was sent first."""
    transport = PlainSocket()
    transport.allow(5)
    flushed: list[bytes] = []
    async with writing(transport, response=lambda: ANSWER) as connection, trio.open_nursery() as nursery:

        async def flush() -> None:
            await connection.flush(())
            flushed.append(transport.written)

        nursery.start_soon(flush)
        await settle()
        assert (transport.written, flushed) == (ANSWER[:5], [])
        transport.allow(None)
        await settle()
        assert flushed == [ANSWER]


async def test_a_frame_that_goes_straight_out_takes_the_answer_along(autojump_clock: MockClock) -> None:
    """In front of it."""
    transport = PlainSocket()
    async with writing(transport, response=lambda: ANSWER) as connection:
        assert connection.writing.write_through(Frame.Text("x"), keep=False)
        assert transport.written == ANSWER + b"\x81\x01x"


async def test_behind_half_an_answer_nothing_goes_straight() -> None:
    """Though there is no writer yet: it does not run."""
    transport = PlainSocket()
    transport.allow(5)
    connection = Connection(transport, WebSockets(), response=lambda: ANSWER)
    for _ in range(2):
        assert not connection.writing.write_through(Frame.Text("x"), keep=False)
    assert transport.written == ANSWER[:5]


# what goes wrong


@pytest.mark.parametrize("way", ["straight", "aside", "ping", "answer", "writer"])
async def test_a_write_that_fails_leaves_what_the_peer_said_to_be_read(way: str, autojump_clock: MockClock) -> None:
    """Nothing more can be said; it is not raised, and what the system said is the cause in the end."""
    transport, error = PlainSocket(answers=False), ConnectionResetError("reset")
    response = (lambda: ANSWER) if way == "answer" else None
    async with writing(transport, response=response) as connection:
        await settle()
        transport.lose(error)
        if way == "straight":
            assert connection.writing.write_through(Frame.Text("x"), keep=False)
        elif way == "aside":
            assert connection.writing.write_through(Frame.Text("x"), keep=True)
            assert connection.closing.ours is Ours.OPEN
        elif way == "ping":
            connection.pinging.ping()
        elif way == "answer":
            connection.writing.respond()
            assert connection.closing.ours is Ours.OPEN  # whoever calls may be about to wait
        else:
            connection.outbox.channel.send_nowait("x")
        if way in ("straight", "ping"):
            assert (connection.closing.ours, connection.closing.theirs) == (Ours.GONE, Theirs.OPEN)
        await connection.ending.wait_closed()
        assert connection.closing.cause is error
        assert connection.closing.reason == CloseReason(1006)


async def test_an_answer_that_can_not_be_written_leaves_what_the_peer_said_to_be_read(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for the end is told, though the peer says nothing more."""
    transport = PlainSocket(answers=False)

    def fail(_data: object) -> int:
        raise trio.BrokenResourceError

    monkeypatch.setattr(transport, "send_nowait", fail)
    async with writing(transport, response=lambda: ANSWER) as connection:
        transport.say(Frame.Text("a"))
        connection.writing.respond()
        await settle()
        assert (connection.closing.ours, connection.closing.theirs) == (Ours.GONE, Theirs.OPEN)
        assert connection.inbox.take() == Frame.Text("a")
        with trio.fail_after(10):
            await connection.ending.wait_closed()


async def test_where_nothing_is_read_a_write_that_fails_is_the_end(autojump_clock: MockClock) -> None:
    """The reader waits for the handler: what the peer said would not be read anyway."""
    transport = PlainSocket(answers=False)
    async with writing(transport, WebSockets(incoming=1)) as connection:
        transport.say(*texts("a", "b", "c"))
        await settle()
        connection.ends.write_failed(KeyError("mine"))
        assert connection.closing.theirs is Theirs.GONE
        assert isinstance(connection.closing.cause, KeyError)
