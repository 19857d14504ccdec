"""A pause of our own is held against nobody: the clock jumps while nothing of us runs, as when a process is stopped."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import REQUEST, RawClient, application, close, connected
from trioktor import Application, CloseReason, ConnectionBroken, Frame, WebSocketSession as Session, WriteTimeout
from trioktor.engine.patience import Patience
from trioktor.engine.streams import open_transport
from trioktor.server.admission import Limits
from trioktor.server.host import Host


async def idle(session: Session) -> None:
    """Take what comes."""
    async for _ in session:
        pass


async def test_a_limit_without_pauses_is_exact(autojump_clock: MockClock) -> None:
    """Whatever it is."""
    for seconds in (0.0, 0.5, 10.0, 3.0):
        began = trio.current_time()
        assert await Patience(seconds).outlast(trio.sleep_forever)
        assert pytest.approx(seconds) == trio.current_time() - began


@pytest.mark.parametrize("step", [0.7, 2.4, 9.9])
async def test_what_is_waited_for_may_renew_the_limit(step: float, autojump_clock: MockClock) -> None:
    """As often as it gets on; the limit counts from the last time."""
    patience, began, steps = Patience(10), trio.current_time(), 0

    async def work() -> None:
        nonlocal steps
        while steps < 20:
            await trio.sleep_until(began + (steps + 1) * step)
            patience.renew()
            steps += 1
        await trio.sleep_forever()

    assert await patience.outlast(work)
    assert steps == 20
    assert abs(trio.current_time() - began - 20 * step - 10) < 0.001


async def test_a_pause_before_it_was_renewed_does_not_make_it_longer(autojump_clock: MockClock) -> None:
    """What the pause kept from us was taken behind it, in the same slice."""
    patience, began = Patience(10), trio.current_time()

    async def work() -> None:
        if trio.current_time() == began:
            autojump_clock.jump(100)
            patience.renew()
        await trio.sleep_forever()

    assert await patience.outlast(work)
    assert abs(trio.current_time() - began - 110) < 0.001


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
async def test_what_work_raises_on_its_way_out_is_not_lost(
    error: type[BaseException], autojump_clock: MockClock
) -> None:
    """When a cancellation from outside has it go: a nursery that is cancelled would say no more than that."""

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    with trio.CancelScope(deadline=1) as scope, pytest.raises(error):
        await Patience(10).finish(work)
    assert not scope.cancelled_caught


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
async def test_what_the_watch_raises_is_not_hidden_by_what_work_does(error: type[BaseException]) -> None:
    """Ctrl-C may land there: it has work cancelled, which may fail on its way out."""

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on its way out")

    async def unless() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    with pytest.raises(BaseExceptionGroup) as raised:
        await Patience(10).finish(work, unless=unless)
    assert raised.value.subgroup(error) is not None


async def test_what_comes_in_time_is_waited_for(autojump_clock: MockClock) -> None:
    """Shortly before the limit, in several slices."""

    async def wait() -> None:
        await trio.sleep_until(9.5)

    assert not await Patience(10).outlast(wait)
    assert pytest.approx(9.5) == trio.current_time()


async def test_a_limit_that_is_over_is_a_checkpoint_all_the_same(autojump_clock: MockClock) -> None:
    """Nothing is begun."""
    with trio.testing.assert_checkpoints():
        assert await Patience(0).outlast(trio.sleep_forever)


async def test_no_limit_is_none(autojump_clock: MockClock) -> None:
    """None waits for ever."""
    with trio.move_on_after(1e6) as scope:
        await Patience(None).outlast(trio.sleep_forever)
    assert scope.cancelled_caught


@pytest.mark.parametrize("at", [0.0, 1.0, 4.0, 9.0, 9.9])
@pytest.mark.parametrize("paused", [5.0, 10.0, 100.0])
async def test_a_pause_is_not_counted(autojump_clock: MockClock, at: float, paused: float) -> None:
    """Wherever it falls, and however long it is: nine tenths of the limit and more are left to the other side."""
    began = trio.current_time()

    async def pause() -> None:
        await trio.sleep(at)
        autojump_clock.jump(paused)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pause)
        assert await Patience(10).outlast(trio.sleep_forever)
    listened = trio.current_time() - began - paused
    assert 10 - 10 / 4 - 1e-6 <= listened <= 10 + 10 / 4 + 1e-6


async def test_what_can_not_be_begun_again_is_cancelled_at_the_limit(autojump_clock: MockClock) -> None:
    """And its errors come out as themselves."""
    assert not await Patience(3).finish(trio.sleep_forever)
    assert pytest.approx(3) == trio.current_time()
    assert await Patience(3).finish(partial(trio.sleep, 2))

    async def fail(error: BaseException) -> None:
        raise error

    for error in (ZeroDivisionError(), SystemExit(3)):
        with pytest.raises(type(error)) as raised:
            await Patience(3).finish(lambda error=error: fail(error))  # type: ignore[misc]
        assert error is raised.value
    with trio.move_on_after(1) as scope:
        await Patience(3).finish(trio.sleep_forever)
    assert scope.cancelled_caught


async def test_pings_do_not_hold_it_against_peers_that_answer(autojump_clock: MockClock) -> None:
    """Their Pongs lie unread, or come a moment later."""
    clients: list[RawClient] = []
    sessions: list[Session] = []
    app = Application()

    async def handler(session: Session) -> None:
        sessions.append(session)
        await idle(session)

    app = application(handler, ping_period=0.2, timeout=0.5)

    async def answer(client: RawClient, delay: float) -> None:
        while (frame := await client.receive()) is not None:
            if isinstance(frame, Frame.Ping):
                await trio.sleep(delay)
                await client.send(Frame.Pong(frame.data))

    async with trio.open_nursery() as nursery:
        for number in range(6):
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(app.handle_stream, theirs)
            clients.append(RawClient(ours))
            await clients[-1].upgrade()
            nursery.start_soon(answer, clients[-1], 0.01 * number)
        for number in range(60):
            await trio.sleep(0.137 + number / 1000)
            autojump_clock.jump(0.8)
        assert [None] * 6 == [session.close_reason for session in sessions]
        nursery.cancel_scope.cancel()


async def test_a_pause_while_a_ping_is_out_is_not_counted(autojump_clock: MockClock) -> None:
    """The client has it, and answers as soon as there is somebody to hear."""
    async with connected(idle, ping_period=10, timeout=5) as (client, sessions):
        for _ in range(5):
            frame = await client.receive()
            assert isinstance(frame, Frame.Ping)
            await trio.sleep(2)
            autojump_clock.jump(20)
            await trio.sleep(2)
            await client.send(Frame.Pong(frame.data))
        assert sessions[0].close_reason is None
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()


async def test_pings_do_hold_silence_against_a_peer(autojump_clock: MockClock) -> None:
    """A pause puts the time-out off, and no more."""
    async with connected(idle, ping_period=10, timeout=5) as (client, sessions):
        await trio.sleep(12)
        autojump_clock.jump(100)
        assert [Frame.Ping, Frame.Close] == [type(frame) for frame in await client.receive_rest()]
        assert CloseReason(1011, "Ping timeout") == sessions[0].close_reason
        assert trio.current_time() < 125


async def test_the_write_timeout_does_not_hold_it_against_a_slow_reader(autojump_clock: MockClock) -> None:
    """Over a socket that takes nothing, and over a stream that can't say."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    transport = open_transport(ours)
    transport.write_timeout = 30
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.watch)
        nursery.start_soon(_pause_after, autojump_clock, 3.0, 60.0)
        with pytest.raises(WriteTimeout):
            await transport.send(b"x")
        nursery.cancel_scope.cancel()
    assert 80 <= trio.current_time() - began <= 100
    await theirs.aclose()


async def _pause_after(clock: MockClock, seconds: float, paused: float) -> None:
    await trio.sleep(seconds)
    clock.jump(paused)


async def test_the_close_timeout_does_not_hold_it_against_the_answer(autojump_clock: MockClock) -> None:
    """The peer's Close has come while we did not look."""

    async def handler(session: Session) -> None:
        session.close(4000)
        await session.wait_closed()

    async with connected(handler, close_timeout=10) as (client, sessions):
        assert close(4000) == await client.receive()
        await trio.sleep(1)
        autojump_clock.jump(30)
        await trio.sleep(1)
        await client.send(close(4000))
        await client.receive_rest()
    assert CloseReason(4000) == sessions[0].close_received


async def test_the_close_timeout_comes(autojump_clock: MockClock) -> None:
    """Without an answer, and without a pause, exactly then."""
    outcome: list[float] = []

    async def handler(session: Session) -> None:
        session.close(4000)
        with pytest.raises(ConnectionBroken):
            await session.receive()
        outcome.append(trio.current_time())

    async with connected(handler, close_timeout=10) as (client, _):
        await client.receive_rest()
    assert [pytest.approx(10)] == outcome


async def test_the_handler_grace_does_not_hold_it_against_a_handler(autojump_clock: MockClock) -> None:
    """It had no time to return."""
    outcome: list[str] = []

    async def handler(session: Session) -> None:
        try:
            await trio.sleep(2)
            outcome.append("returned")
        except trio.Cancelled:
            outcome.append("cancelled")
            raise

    async with connected(handler, handler_grace=3) as (client, _):
        await trio.sleep(0.5)
        await client.send(close(1000))
        await client.receive_rest()
        autojump_clock.jump(1)  # it should have returned meanwhile, and so it does now
        await trio.sleep(1)
    assert ["returned"] == outcome


@pytest.mark.parametrize("paused", [9.0, 30.0])
async def test_the_open_timeout_does_not_hold_it_against_a_client(autojump_clock: MockClock, paused: float) -> None:
    """Half a request before a pause, the other half behind it."""
    ours, theirs = trio.testing.memory_stream_pair()
    host = Host(application(idle), Limits(open_timeout=10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.handle, theirs)
        await ours.send_all((REQUEST % b"/")[:50])
        await trio.sleep(1)
        autojump_clock.jump(paused)
        await trio.sleep(3)
        await ours.send_all((REQUEST % b"/")[50:])
        assert (await ours.receive_some()).startswith(b"HTTP/1.1 101 ")
        await ours.aclose()


async def test_the_open_timeout_comes(autojump_clock: MockClock) -> None:
    """For who is slow by himself; the bytes that he did send change nothing."""
    ours, theirs = trio.testing.memory_stream_pair()
    host = Host(application(idle), Limits(open_timeout=10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_drip, ours)
        nursery.start_soon(host.handle, theirs)
        assert (await ours.receive_some()).startswith(b"HTTP/1.1 408 ")
        assert pytest.approx(10) == trio.current_time()
        nursery.cancel_scope.cancel()


async def _drip(stream: Any) -> None:
    for byte in REQUEST % b"/":
        await trio.sleep(0.7)
        await stream.send_all(bytes([byte]))


async def test_a_little_late_is_not_a_pause(autojump_clock: MockClock) -> None:
    """Loops are: up to an eighth of the limit is counted."""
    began = trio.current_time()

    async def delay() -> None:
        await trio.sleep(2.4)
        autojump_clock.jump(0.9)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(delay)
        assert await Patience(10).outlast(trio.sleep_forever)
    assert pytest.approx(10) == trio.current_time() - began


@pytest.mark.parametrize(("late", "is_pause"), [(0.0, False), (0.95, False), (1.05, True), (5.0, True)])
async def test_an_eighth_of_the_limit_is_much_later(late: float, is_pause: bool, autojump_clock: MockClock) -> None:
    """What comes later than that was a pause of ours, and moves the limit by as much."""
    patience = Patience(8)
    await trio.sleep(4)
    patience.woke(trio.current_time() - late)
    await trio.sleep(3.99)
    assert not patience.is_over
    await trio.sleep(0.02)
    assert patience.is_over == (not is_pause)
    await trio.sleep(late)
    assert patience.is_over
