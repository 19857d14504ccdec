"""One connection over a transport in memory: what it says of itself, what it starts, and how it is finished."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import close
from tests.support.plain_transport import PlainSocket, PlainTransport, running, settle
from trioktor import Frame, WebSockets
from trioktor.engine.connection import Connection
from trioktor.protocol.close import CloseReason
from trioktor.protocol.halves import Theirs
from trioktor.protocol.raw_conversation import RawConversation


def connect(transport: PlainTransport, *, raw: bool = False, trailing_data: bytes = b"", **settings: Any) -> Connection:
    """A connection that does not run yet."""
    return Connection(transport, WebSockets(**settings), raw=raw, trailing_data=trailing_data)


async def test_it_is_named_by_its_owner() -> None:
    """The session, as long as there is one."""
    connection = connect(PlainTransport())
    assert connection.owner is connection
    assert repr(connection).startswith("<trioktor.engine.connection.Connection object at ")
    connection.owner = "the session"
    assert (connection.owner, repr(connection)) == ("the session", "'the session'")
    connection.owner = None
    assert connection.owner is connection


async def test_its_settings_hold_from_the_beginning(autojump_clock: MockClock) -> None:
    """Of the stream, and of the conversation; it knows when it was opened, and whose task it is."""
    await trio.sleep(3)
    transport = PlainTransport()
    connection = connect(transport, write_timeout=7, max_frame_size=123, answer_grace=2)
    assert transport.write_timeout == 7
    assert connection.conversation.parser.max_frame_size == 123
    assert (connection.opened_at, connection.ending.answer_grace) == (3, 2)
    assert connection.task is trio.lowlevel.current_task()
    assert not connection.closing.is_raw
    assert isinstance(connect(transport, raw=True).conversation, RawConversation)


async def test_it_has_a_nursery_while_it_runs(autojump_clock: MockClock) -> None:
    """None before, and none when it is closed."""
    connection = connect(PlainTransport())
    nurseries = [connection.nursery]
    async with running(connection) as nursery:
        nurseries.append(connection.nursery)
    assert [*nurseries, connection.nursery] == [None, nursery, None]
    with trio.testing.assert_checkpoints():
        await connection.ending.wait_closed()


# what comes


async def test_what_came_with_the_handshake_is_read_first(autojump_clock: MockClock) -> None:
    """Then what comes from the stream, in order."""
    transport = PlainTransport()
    transport.say(Frame.Text("first"))
    transport.say(Frame.Text("second"))
    trailing = transport.read_nowait()
    assert trailing is not None
    connection = connect(transport, trailing_data=trailing[:10])
    transport.say(trailing[10:], Frame.Text("third"))
    async with running(connection):
        got = [await connection.inbox.receive() for _ in range(3)]
        assert got == [Frame.Text("first"), Frame.Text("second"), Frame.Text("third")]


async def test_behind_the_peers_goodbye_the_input_ends(autojump_clock: MockClock) -> None:
    """Behind what waits; and nobody reads the stream any more."""
    transport = PlainTransport()
    connection = connect(transport)
    transport.say(Frame.Text("last"), close(1000))
    async with running(connection):
        await settle()
        assert connection.inbox.take() == Frame.Text("last")
        with pytest.raises(trio.EndOfChannel):
            connection.inbox.take()
        with trio.fail_after(1):
            await connection.reader.wait_ended()


@pytest.mark.parametrize("kind", [PlainTransport, PlainSocket])
async def test_a_ping_is_answered_while_the_handler_does_nothing(
    kind: type[PlainTransport], autojump_clock: MockClock
) -> None:
    """Whatever kind of stream it is; in a raw session the handler sees it instead."""
    for raw in (False, True):
        transport = kind()
        connection = connect(transport, raw=raw)
        async with running(connection):
            transport.say(Frame.Ping(b"?"))
            await settle()
            assert transport.frames == ([] if raw else [Frame.Pong(b"?")])
            assert connection.inbox.take() == (Frame.Ping(b"?") if raw else None)


async def test_frames_are_logged_under_the_owners_name(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """If somebody wants that; those that come, and those that go."""
    caplog.set_level(logging.DEBUG, "trioktor.frames")
    transport = PlainTransport()
    connection = connect(transport)
    connection.owner = "the session"
    async with running(connection):
        transport.say(Frame.Ping(b"?"))
        await settle()
    lines = [record.getMessage() for record in caplog.records if record.name == "trioktor.frames"]
    assert [line.split("<")[0] for line in lines if line.startswith("the session")] == [
        "the session ",
        "the session > ",
    ]


# the pinger


@pytest.mark.parametrize(("raw", "expected"), [(False, [Frame.Ping]), (True, [])])
async def test_the_pinger_runs_from_the_beginning(raw: bool, expected: list[type], autojump_clock: MockClock) -> None:
    """Where it is configured; a raw session's handler sees the Pongs, so there is none."""
    transport = PlainTransport()
    connection = connect(transport, raw=raw, ping_period=10)
    async with running(connection):
        await trio.sleep(11)
        assert [type(frame) for frame in transport.frames] == expected


async def test_the_latency_is_that_of_the_last_ping(autojump_clock: MockClock) -> None:
    """None before."""
    transport = PlainTransport()
    connection = connect(transport)
    assert connection.latency is None
    async with running(connection):
        ping = connection.pinging.ping(b"!")
        await trio.sleep(3)
        assert connection.latency is None
        transport.say(Frame.Pong(b"!"))
        await ping.answered.wait()
        assert connection.latency == pytest.approx(3)
        unanswered = connection.pinging.ping()
    assert unanswered.answered.is_set()
    assert unanswered.round_trip is None


async def test_whatever_the_peer_says_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    """The time for the Pong begins anew."""
    transport = PlainTransport(answers=False)
    connection = connect(transport, ping_period=10, timeout=5)
    async with running(connection):
        await trio.sleep(14)
        transport.say(Frame.Text("no Pong, but something"))
        await trio.sleep(4.5)
        assert connection.closing.is_open
        await connection.ending.wait_closed()
        assert connection.closing.reason == CloseReason(1011, "Ping timeout")
        assert 19 <= trio.current_time() <= 19.6


async def test_a_ping_that_is_out_does_not_cut_an_end_short(autojump_clock: MockClock) -> None:
    """The peer has its time to answer our Close."""
    transport = PlainTransport(answers=False)
    connection = connect(transport, ping_period=10, timeout=5, close_timeout=20)
    async with running(connection):
        await trio.sleep(11)
        connection.ends.close(CloseReason(1000))
        await connection.ending.wait_closed()
        assert trio.current_time() == pytest.approx(31)


# the end


async def test_when_it_fails_here_nobody_reads_the_stream_any_more(autojump_clock: MockClock) -> None:
    """Though nothing comes."""
    connection = connect(PlainTransport(answers=False))
    async with running(connection):
        await settle()
        connection.ends.fail(CloseReason(1011), KeyError("ours"))
        with trio.fail_after(1):
            await connection.reader.wait_ended()


async def test_what_was_closed_before_it_ran_ends_at_once(autojump_clock: MockClock) -> None:
    """With the Close that it was closed with."""
    transport = PlainTransport()
    connection = connect(transport)
    connection.ends.close(CloseReason(4000))
    assert transport.frames == []
    async with trio.open_nursery() as nursery:
        connection.begin(nursery)
        await connection.ending.wait_closed()
        nursery.cancel_scope.cancel()
    assert transport.frames == [close(4000)]
    assert transport.is_closed


@pytest.mark.parametrize("shield", [True, False])
async def test_whoever_sees_it_out_waits_until_it_is_closed(shield: bool, autojump_clock: MockClock) -> None:
    """Though another task does that already; unshielded a cancellation makes it short, and passes."""
    transport = PlainTransport(answers=False)
    connection = connect(transport, close_timeout=5)
    async with trio.open_nursery() as nursery:
        connection.begin(nursery)
        connection.ends.close(CloseReason(1000))
        await settle()
        with trio.move_on_after(2) as scope:
            await connection.ending.see_out(shield=shield)
        assert scope.cancelled_caught is (not shield)
        await connection.ending.wait_closed()
        nursery.cancel_scope.cancel()
    assert trio.current_time() == pytest.approx(5 if shield else 3)


async def test_finished_it_lets_go_of_everybody(autojump_clock: MockClock) -> None:
    """Who waits for the end, who sends, and who asks later; finished twice is no error."""
    transport = PlainTransport()
    connection = connect(transport)
    connection.pinging.ping()
    async with trio.open_nursery() as nursery:
        connection.begin(nursery)
        nursery.start_soon(connection.ending.wait_closed)
        transport.allow(0)
        connection.outbox.channel.send_nowait("never written")
        connection.conversation.send_control(Frame.Ping(b"nor this"))
        nursery.start_soon(connection.flush, ())
        await settle()
        await connection.ending.finish()
        await connection.ending.finish()
        with trio.fail_after(1):
            await connection.flush(())
    assert transport.is_closed
    assert connection.ending.is_closed
    assert not connection.conversation.has_control
    assert connection.closing.theirs is Theirs.GONE
    with trio.testing.assert_checkpoints():
        await connection.ending.wait_closed()
    assert transport.written == b""


# tasks, and flush


async def test_tasks_run_beside_the_handler_and_fail_as_it_does(autojump_clock: MockClock) -> None:
    """The peer hears of it."""
    transport = PlainTransport()
    failures: list[Exception] = []
    error = KeyError("mine")
    connection = Connection(transport, WebSockets(), on_failure=failures.append)

    async def fails(raised: Exception) -> None:
        await trio.sleep(1)
        raise raised

    async def handler(_: object) -> None:
        connection.start_soon(fails, (error,))
        await trio.sleep_forever()

    async with running(connection):
        with connection.tasks:
            await handler(None)
        await connection.ending.see_out(shield=False)
    assert failures == [error]
    assert transport.frames == [close(1011)]


async def flush_into(flushed: list[float], connection: Connection) -> None:
    """Flush, and note when that was done."""
    await connection.flush(())
    flushed.append(trio.current_time())


@pytest.mark.parametrize("kind", [PlainTransport, PlainSocket])
async def test_flush_waits_until_all_is_with_the_system(kind: type[PlainTransport], autojump_clock: MockClock) -> None:
    """Not for what is sent later; if there is nothing, it is a checkpoint."""
    transport = kind()
    connection = connect(transport)
    async with running(connection):
        with trio.testing.assert_checkpoints():
            await connection.flush(())
        transport.allow(0)
        connection.outbox.accept(Frame.Text("first"))
        flushed: list[float] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush_into, flushed, connection)
            await trio.sleep(5)
            transport.allow(6)
            await trio.sleep(2)
            assert flushed == []
            transport.allow(1)
        assert flushed == [pytest.approx(7)]
        assert transport.frames == [Frame.Text("first")]


@pytest.mark.parametrize("kind", [PlainTransport, PlainSocket])
async def test_from_the_end_on_a_flush_waits_for_all(kind: type[PlainTransport], autojump_clock: MockClock) -> None:
    """Also one that began before, and what it waits for is written."""
    transport = kind()
    connection = connect(transport)
    async with running(connection):
        transport.allow(0)
        connection.outbox.accept(Frame.Text("first"))
        flushed: list[float] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush_into, flushed, connection)
            await settle()
            connection.ends.close(CloseReason(1000))
            nursery.start_soon(flush_into, flushed, connection)
            await trio.sleep(5)
            transport.allow(7)
            await trio.sleep(2)
            assert transport.frames == [Frame.Text("first")]
            assert flushed == []
            transport.allow(None)
        assert flushed == [pytest.approx(7)] * 2
        assert transport.frames == [Frame.Text("first"), close(1000)]
