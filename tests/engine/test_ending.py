"""A conversation is seen out: what each end waits for, how long, and what becomes of the handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import close, converse
from tests.support.plain_transport import PlainTransport
from trioktor import CloseTimeout, Frame, WebSockets
from trioktor.engine.connection import Connection
from trioktor.engine.ending import Ending
from trioktor.protocol.close import CloseReason
from trioktor.protocol.errors import ProtocolError

LINGER = 0.5
LAST_INPUT = 0.5

Handler = Callable[[Connection], Awaitable[object]]


async def ended(
    handler: Handler, transport: PlainTransport, *, client: bool = False, **settings: Any
) -> tuple[Connection, float]:
    """Run it with a handler; the connection, and when its stream was closed."""
    connection = Connection(transport, WebSockets(**{"answer_grace": 0, **settings}), client=client)
    closed: list[float] = []

    async def watch() -> None:
        await connection.ending.wait_closed()
        closed.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await converse(connection, handler)
    return connection, closed[0]


async def take(connection: Connection) -> Frame:
    """The next message, as a session takes it."""
    message = connection.inbox.take()
    return await connection.inbox.receive() if message is None else message


async def returns(_: Connection) -> None:
    """A handler that ends at once."""


async def stays(connection: Connection) -> None:
    """A handler that takes all that comes, and returns a little behind the end."""
    try:
        while True:
            await take(connection)
    except trio.EndOfChannel:
        await connection.ending.wait_closed()


# how long


@pytest.mark.parametrize("handler", [returns, stays])
async def test_a_peer_has_so_long_to_answer_our_close(handler: Handler, autojump_clock: MockClock) -> None:
    """Whoever sees it out, the handler's own task or another."""
    transport = PlainTransport(answers=False)

    async def closes(connection: Connection) -> None:
        connection.ends.close(CloseReason(4000))
        await handler(connection)

    connection, closed_at = await ended(closes, transport, close_timeout=7)
    assert closed_at == pytest.approx(7, abs=0.01)
    assert transport.frames == [close(4000)]
    assert connection.closing.reason == CloseReason(4000)
    assert isinstance(connection.closing.cause, CloseTimeout)
    assert not connection.closing.is_clean


async def test_the_time_for_the_answer_begins_when_our_close_is_out(autojump_clock: MockClock) -> None:
    """And an answer ends it at once."""
    transport = PlainTransport(answers=False)
    transport.allow(0)

    async def peer() -> None:
        await trio.sleep(20)
        transport.allow(None)
        await trio.sleep(6)
        transport.say(close(1000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        connection, closed_at = await ended(returns, transport, close_timeout=7)
    assert closed_at == pytest.approx(26, abs=0.01)
    assert (connection.closing.is_clean, connection.closing.cause) == (True, None)


@pytest.mark.parametrize("grace", [0, 2])
async def test_a_handler_may_answer_what_came_before_the_peers_close(grace: float, autojump_clock: MockClock) -> None:
    """So long, if it took something; then ours goes out, with the peer's code."""
    transport = PlainTransport(answers=False)
    transport.say(Frame.Text("question"), close(4000, "bye"))
    accepted: list[float] = []

    async def answers(connection: Connection) -> None:
        assert await take(connection) == Frame.Text("question")
        for number in range(5):
            try:
                connection.outbox.accept(Frame.Text(str(number)))
            except trio.BrokenResourceError:
                return
            accepted.append(trio.current_time())
            await trio.sleep(0.9)

    _, closed_at = await ended(answers, transport, answer_grace=grace)
    assert closed_at == pytest.approx(grace, abs=0.01)
    expected = [0, 0.9, 1.8] if grace else [0]
    assert accepted == pytest.approx(expected, abs=0.01)
    assert transport.frames[-1] == close(4000)
    assert len(transport.frames) == len(expected) + 1


async def test_a_handler_that_returns_ends_its_grace(autojump_clock: MockClock) -> None:
    """There is nothing more to answer."""
    transport = PlainTransport(answers=False)
    transport.say(Frame.Text("question"), close(1000))

    async def answers(connection: Connection) -> None:
        assert await take(connection) == Frame.Text("question")
        await trio.sleep(1)

    _, closed_at = await ended(answers, transport, answer_grace=50)
    assert closed_at == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("ends", [True, False])
async def test_behind_a_violation_the_peer_may_still_read_our_close(ends: bool, autojump_clock: MockClock) -> None:
    """Our half is ended, and input thrown away, until the peer ends its own, or half a second has gone."""
    transport = PlainTransport(answers=False)
    transport.say(b"\xff\xff not a frame")

    async def peer() -> None:
        await trio.sleep(0.1)
        transport.say(b"more of that")
        await trio.sleep(0.1)
        assert transport.is_ended
        assert not transport.is_closed
        if ends:
            transport.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        connection, closed_at = await ended(stays, transport)
    assert closed_at == pytest.approx(0.2 if ends else LINGER, abs=0.01)
    assert transport.frames == [close(1002)]
    assert connection.closing.reason == CloseReason(1002)
    assert isinstance(connection.closing.cause, ProtocolError)


@pytest.mark.parametrize("comes", [True, False])
async def test_what_the_peer_said_before_it_stopped_reading_is_waited_for(
    comes: bool, autojump_clock: MockClock
) -> None:
    """Half a second; its Close is a good end."""
    transport = PlainTransport(answers=False)
    error = BrokenPipeError("it reads no more")

    async def fails(connection: Connection) -> None:
        connection.ends.write_failed(error)
        if comes:
            transport.say(close(4000))
        await stays(connection)

    connection, closed_at = await ended(fails, transport)
    assert closed_at == pytest.approx(0 if comes else LAST_INPUT, abs=0.01)
    assert connection.closing.is_clean is comes
    assert connection.closing.cause is (None if comes else error)


@pytest.mark.parametrize("returns_first", [True, False])
async def test_a_handler_has_some_time_to_return_before_another_task_does_it(
    returns_first: bool, autojump_clock: MockClock
) -> None:
    """If somebody looks later; what was asked for then does nothing behind a handler that returned."""
    transport = PlainTransport(answers=False)
    transport.say(Frame.Text("question"), close(1000))
    connection = Connection(transport, WebSockets(answer_grace=5))
    due: list[Callable[[], None]] = []
    looks: Any = SimpleNamespace(call=due.append)
    connection.ending = Ending(connection, looks)
    names: list[list[str]] = []

    async def handler(connection: Connection) -> None:
        assert connection.nursery is not None
        await take(connection)
        await trio.sleep(1)
        for _ in range(2):
            names.append([task.name for task in connection.nursery.child_tasks])
            if not returns_first:
                due[0]()

    await converse(connection, handler)
    for call in due:
        call()
    assert names == [[], [] if returns_first else ["trioktor ending"]]
    assert connection.ending.is_closed


# how the stream is left


async def test_unread_input_does_not_overtake_our_last_words(autojump_clock: MockClock) -> None:
    """Behind a clean end a server throws away what still comes, for half a second at most."""
    transport = PlainTransport(answers=False)
    transport.say(close(1000), b"what nobody reads")
    transport.read_size = 8  # it stands behind the first read
    _, closed_at = await ended(stays, transport)
    assert transport.is_ended
    assert closed_at == pytest.approx(LINGER, abs=0.01)


async def test_without_any_a_server_closes_at_once(autojump_clock: MockClock) -> None:
    """It is the one to close (RFC 6455 §7.1.1)."""
    transport = PlainTransport(answers=False)
    transport.say(close(1000))
    _, closed_at = await ended(stays, transport)
    assert closed_at == pytest.approx(0, abs=0.01)
    assert not transport.is_ended


@pytest.mark.parametrize("ends", [True, False])
async def test_a_client_leaves_it_to_the_server_to_close(ends: bool, autojump_clock: MockClock) -> None:
    """For half a second."""
    transport = PlainTransport(answers=False, client=True)
    transport.say(close(1000))

    async def peer() -> None:
        await trio.sleep(0.2)
        if ends:
            transport.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        connection, closed_at = await ended(stays, transport, client=True)
    assert closed_at == pytest.approx(0.2 if ends else LINGER, abs=0.01)
    assert connection.closing.is_clean


# the handler behind the end


@pytest.mark.parametrize(("grace", "seconds"), [(3, 3), (None, 100)])
async def test_a_handler_that_does_not_return_is_cancelled_after_its_grace(
    grace: float | None, seconds: float, autojump_clock: MockClock
) -> None:
    """Without one it may go on; its tasks are cancelled at once."""
    transport = PlainTransport(answers=False)
    transport.say(close(1000))
    ends: list[tuple[str, float]] = []

    async def sleeps(name: str) -> None:
        try:
            await trio.sleep(100)
        finally:
            ends.append((name, trio.current_time()))

    async def handler(connection: Connection) -> None:
        connection.start_soon(sleeps, ("task",))
        await sleeps("handler")

    _, closed_at = await ended(handler, transport, handler_grace=grace)
    assert closed_at == pytest.approx(0, abs=0.01)
    assert [name for name, _ in ends] == ["task", "handler"]
    assert [at for _, at in ends] == pytest.approx([0, seconds], abs=0.01)


async def test_a_handler_that_takes_what_waits_has_its_grace_anew(autojump_clock: MockClock) -> None:
    """Each time that it did."""
    transport = PlainTransport(answers=False)
    transport.say(*[Frame.Text("x")] * 5, close(1000))
    taken = 0

    async def handler(connection: Connection) -> None:
        nonlocal taken
        for _ in range(5):
            await trio.sleep(2)
            assert connection.inbox.take() is not None
            taken += 1
        await trio.sleep(100)

    await ended(handler, transport, handler_grace=3)
    assert taken == 5
    assert 12 <= trio.current_time() <= 16.01


# cut short


@pytest.mark.parametrize("handler", [returns, stays])
@pytest.mark.parametrize("closes", [True, False])
async def test_a_cancellation_makes_it_short(handler: Handler, closes: bool, autojump_clock: MockClock) -> None:
    """The peer has a second instead of its time; the stream is closed all the same, and that is the cause."""
    transport = PlainTransport(answers=False)
    connections: list[Connection] = []

    async def begins(connection: Connection) -> None:
        connections.append(connection)
        if closes:
            connection.ends.close(CloseReason(4000))
        await handler(connection)

    with trio.move_on_after(2) as scope:
        await ended(begins, transport, close_timeout=50)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(3, abs=0.01)
    assert transport.is_closed
    assert len(transport.frames) == 1
    assert isinstance(connections[0].closing.cause, CloseTimeout)
