"""Every way to the end of a connection: its reason, what is said, by when, and who is cancelled."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import records_above_info
from tests.support.plain_transport import PlainTransport
from trioktor import ChannelOverflow, DeserializationError, PingTimeout, WebSockets
from trioktor.engine.connection import Connection
from trioktor.engine.ends import Ends
from trioktor.engine.shields import STOP_LIMIT, Stop
from trioktor.protocol.close import CloseReason
from trioktor.protocol.errors import ProtocolError, UnexpectedFrame
from trioktor.protocol.frames import Frame
from trioktor.protocol.halves import Ours, Theirs

OURS = KeyError("ours")
MISUSE = ProtocolError("may not be sent")
LAST_WORDS = 0.5


def connect(**options: Any) -> Connection:
    """A connection that does not run: its ends are told, and looked at."""
    return Connection(PlainTransport(), WebSockets(outgoing=4), **options)


async def test_an_overflow_says_what_there_was_no_room_beside() -> None:
    """The writer may hold all of it."""
    connection = connect()
    assert connection.outbox.accept(Frame.Binary(bytes(700)))
    queue = connection.outbox.pending.queue
    assert queue is not None
    queue.unwritten = 50
    connection.ends.overflowed()
    assert str(connection.closing.cause) == "outgoing was full with 1 frames, 750 bytes of it not written"


@pytest.mark.parametrize(
    ("end", "reason", "theirs", "cause"),
    [
        (lambda ends: ends.close(CloseReason(4000)), CloseReason(4000), Theirs.OPEN, None),
        (lambda ends: ends.close(None), CloseReason(1005), Theirs.OPEN, None),
        (lambda ends: ends.close_frame_sent(Frame.Close()), CloseReason(1005), Theirs.OPEN, None),
        (lambda ends: ends.last_handle_closed(), CloseReason(1000), Theirs.OPEN, None),
        (lambda ends: ends.fail(CloseReason(1011), OURS), CloseReason(1011), Theirs.FAILED, KeyError),
        (lambda ends: ends.misused(MISUSE), CloseReason(1011), Theirs.FAILED, ProtocolError),
        (lambda ends: ends.crashed(OURS), CloseReason(1011), Theirs.FAILED, KeyError),
        (lambda ends: ends.overflowed(), CloseReason(1013), Theirs.FAILED, ChannelOverflow),
        (lambda ends: ends.message_given_up(), CloseReason(1011), Theirs.FAILED, ProtocolError),
        (lambda ends: ends.ping_timed_out(5), CloseReason(1011, "Ping timeout"), Theirs.FAILED, PingTimeout),
        (lambda ends: ends.stop_by(100), CloseReason(1001), Theirs.OPEN, None),
        (lambda ends: ends.interrupted(), CloseReason(1001), Theirs.OPEN, None),
        (lambda ends: ends.drop(), CloseReason(1006), Theirs.GONE, None),
        (lambda ends: ends.terminate(), CloseReason(1006), Theirs.GONE, None),
        (lambda ends: ends.handler_ended(None), CloseReason(1000), Theirs.OPEN, None),
        (lambda ends: ends.handler_ended(OURS), CloseReason(1011), Theirs.OPEN, None),
    ],
)
async def test_each_end_has_its_reason(
    end: Callable[[Ends], object],
    reason: CloseReason,
    theirs: Theirs,
    cause: type | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Our Close says it, unless it is dropped; nothing more is accepted, and a second end changes nothing."""
    connection = connect()
    end(connection.ends)
    closing = connection.closing
    assert (closing.reason, closing.theirs) == (reason, theirs)
    assert type(closing.cause) is (type(None) if cause is None else cause)
    if theirs is Theirs.GONE:
        assert closing.ours is Ours.GONE
    else:
        assert closing.goodbye == Frame.Close(None if reason.code == 1005 else reason)
    with pytest.raises(trio.BrokenResourceError):
        connection.outbox.accept(Frame.Text("too late"))
    connection.ends.close(CloseReason(4001))
    assert closing.reason == reason


# what was accepted before


async def queued(*items: Any, **options: Any) -> Connection:
    """A connection in whose channel these wait."""
    connection = connect(**options)
    for item in items:
        connection.outbox.channel.send_nowait(item)
    return connection


@pytest.mark.parametrize(
    ("end", "waiting"),
    [
        (lambda ends: ends.close(CloseReason(4000)), 3),
        (lambda ends: ends.close(CloseReason(4000), drop_queued=True), 1),
        (lambda ends: ends.close_frame_sent(Frame.Close()), 1),
        (lambda ends: ends.last_handle_closed(), 3),
        (lambda ends: ends.fail(CloseReason(1011), OURS), 1),
        (lambda ends: ends.fail(CloseReason(1011), OURS, drop_queued=False), 3),
        (lambda ends: ends.overflowed(), 3),
        (lambda ends: ends.ping_timed_out(5), 1),
        (lambda ends: ends.stop_by(100), 3),
        (lambda ends: ends.drop(), 0),
    ],
)
async def test_what_was_accepted_goes_out_before_the_close_or_is_dropped(
    end: Callable[[Ends], object], waiting: int
) -> None:
    """Of two messages and the Close."""
    connection = await queued("a", "b")
    end(connection.ends)
    assert connection.outbox.waiting == waiting


async def test_a_close_that_was_put_into_the_channel_before_counts() -> None:
    """It is the reason, and nothing behind it goes out."""
    connection = await queued("a", Frame.Close(CloseReason(4002)), "b")
    connection.ends.close(CloseReason(4000))
    assert connection.closing.reason == CloseReason(4002)
    assert connection.outbox.waiting == 2


async def test_a_close_that_may_not_be_said_ends_nothing() -> None:
    """Whoever put it in is told."""
    connection = connect()
    with pytest.raises(ProtocolError):
        connection.ends.close_frame_sent(Frame.Close(CloseReason(1006)))
    assert connection.closing.is_open


async def test_an_answer_to_the_peers_close_says_its_code() -> None:
    """Once there is nothing more to answer, nothing is accepted; before the peer closed that ends nothing."""
    for end in (Ends.end_sending, Ends.message_given_up, lambda ends: ends.close(CloseReason(4000))):
        connection = await queued("a")
        connection.closing.receive_close(CloseReason(4003, "bye"))
        end(connection.ends)
        assert connection.closing.reason == CloseReason(4003, "bye")
        assert connection.closing.ours is Ours.CLOSING
        assert connection.closing.goodbye == Frame.Close(CloseReason(4003))
        with pytest.raises(trio.BrokenResourceError):
            connection.outbox.accept(Frame.Text("too late"))


# by when


@pytest.mark.parametrize(
    ("end", "deadline"),
    [
        (lambda ends: ends.close(CloseReason(1000)), math.inf),
        (lambda ends: ends.fail(CloseReason(1011), OURS), math.inf),
        (lambda ends: ends.ping_timed_out(5), 10 + LAST_WORDS),
        (lambda ends: ends.stop_by(12.5), 12.5),
        (lambda ends: ends.interrupted(), 10 + STOP_LIMIT),
        (lambda ends: ends.drop(), -math.inf),
        (lambda ends: ends.terminate(), -math.inf),
    ],
)
async def test_every_way_out_gives_all_shields_a_deadline(
    end: Callable[[Ends], object], deadline: float, autojump_clock: MockClock
) -> None:
    """Those that finish the closing handshake have the limits of that."""
    await trio.sleep(10)
    connection = connect()
    end(connection.ends)
    assert connection.shields.deadline == deadline


async def test_those_who_are_cancelled_from_outside_have_one_deadline(autojump_clock: MockClock) -> None:
    """All connections of a server; but not one of which a task failed: it has its own."""
    stop = Stop()
    first, second, other = (connect(stop=stop) for _ in range(3))
    await trio.sleep(10)
    async with trio.open_nursery() as nursery:
        other.begin(nursery)
        nursery.cancel_scope.cancel()
        other.ends.interrupted()
        assert stop.deadline == math.inf
        first.ends.interrupted()
        with trio.CancelScope(shield=True):
            await trio.sleep(0.5)
        second.ends.interrupted()
        await other.ending.finish()
    assert stop.deadline == 10 + STOP_LIMIT
    assert [one.shields.deadline for one in (first, second)] == [10 + STOP_LIMIT] * 2


# who is cancelled, and who is told


async def is_handler_cancelled(connection: Connection, end: Callable[[Ends], object]) -> bool:
    """Whether an end cancels the handler."""
    seen: list[bool] = []

    async def handler(_: object) -> None:
        end(connection.ends)
        try:
            await trio.lowlevel.checkpoint()
        finally:
            seen.append(trio.current_effective_deadline() == -math.inf)

    with connection.tasks:
        await handler(None)
    return seen[0]


@pytest.mark.parametrize(
    ("end", "server", "client"),
    [
        (Ends.terminate, True, True),
        (lambda ends: ends.crashed(OURS), True, False),  # a block is told by what it calls
        (Ends.drop, False, False),
        (lambda ends: ends.misused(MISUSE), False, False),
        (lambda ends: ends.ping_timed_out(5), False, False),
        (lambda ends: ends.close(CloseReason(1000)), False, False),
    ],
)
async def test_the_handler_is_cancelled_where_nothing_else_would_tell_it(
    end: Callable[[Ends], object], server: bool, client: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Else it sees the end by itself, and may clean up."""
    assert await is_handler_cancelled(connect(), end) is server
    assert await is_handler_cancelled(connect(client=True), end) is client


@pytest.mark.parametrize(
    ("error", "code", "is_failure"),
    [
        (None, 1000, False),
        (UnexpectedFrame(Frame.Text("x"), Frame.Binary), 1003, False),
        (DeserializationError("no", Frame.Text("x")), 1007, False),
        (OURS, 1011, True),
        (trio.EndOfChannel(), 1011, True),  # nobody had ended the conversation
    ],
)
async def test_what_the_handler_raised_says_how_it_ends(
    error: Exception | None, code: int, is_failure: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure is told once; what the peer did is one line at INFO."""
    caplog.set_level(logging.INFO, "trioktor")
    failures: list[Exception] = []
    connection = connect(on_failure=failures.append)
    connection.ends.handler_ended(error)
    assert connection.closing.reason == CloseReason(code)
    assert failures == ([error] if is_failure else [])
    assert len(caplog.records) == (error is not None and not is_failure)
    assert records_above_info(caplog) == []


async def test_whatever_leaves_a_block_is_told() -> None:
    """Also what would be the end of a handler: the block raises it."""
    failures: list[Exception] = []
    connection = connect(client=True, on_failure=failures.append)
    error = trio.EndOfChannel()
    connection.closing.receive_close(None)
    connection.ends.handler_ended(error)
    assert failures == [error]


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (lambda ends: ends.crashed(OURS), "an extension, or trioktor itself, failed"),
        (lambda ends: ends.misused(MISUSE), "what may not be sent was put into outgoing: may not be sent"),
        (lambda ends: ends.handler_ended(OURS), "the handler failed"),
    ],
)
async def test_what_somebody_should_mend_is_logged_once(
    end: Callable[[Ends], object], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the name of the session."""
    connection = connect()
    connection.owner = "the session"
    end(connection.ends)
    (record,) = records_above_info(caplog)
    assert (record.levelno, record.getMessage()) == (logging.ERROR, f"the session: {text}")


@pytest.mark.parametrize("is_writing", [False, True])
async def test_a_fault_is_logged_with_the_lines_that_it_went_through(
    is_writing: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is kept without them; a writer's leaves nothing to be said."""
    connection = connect()
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        connection.ends.crashed(error, is_writing=is_writing)
    (record,) = records_above_info(caplog)
    assert record.exc_info is not None
    assert record.exc_info[2] is not None
    closing = connection.closing
    assert (type(closing.cause), closing.ours is Ours.GONE) == (ZeroDivisionError, is_writing)


async def test_a_handler_that_has_ended_lets_no_reader_wait(autojump_clock: MockClock) -> None:
    """What does not fit then is dropped."""
    connection = connect()
    connection.ends.handler_ended(None)
    for _ in range(1000):
        assert connection.inbox.offer(Frame.Text("x"))
    assert not connection.inbox.is_full


# raw sessions


@pytest.mark.parametrize("own", [None, Frame.Close(CloseReason(4004))])
async def test_a_raw_handler_that_returns_says_no_close_but_its_own(own: Any) -> None:
    """Without one the peer hears none."""
    connection = await queued("a", *([own] if own is not None else []), raw=True)
    connection.ends.handler_ended(None)
    assert connection.closing.goodbye == own
    assert connection.closing.reason == CloseReason(1006 if own is None else 4004)


async def test_a_raw_handler_that_fails_says_so() -> None:
    """As any other."""
    connection = connect(raw=True, on_failure=lambda _: None)
    connection.ends.handler_ended(OURS)
    assert connection.closing.goodbye == Frame.Close(CloseReason(1011))
