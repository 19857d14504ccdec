"""Pings of the handler's own, the round trip, and settings that change while a session runs."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.support.helpers import application, close, connected
from trioktor import CloseReason, ConnectionBroken, ConnectionClosed, Frame, PingTimeout, WebSocketSession
from trioktor.testing import open_test_host

Clock = trio.testing.MockClock
Session = WebSocketSession


async def test_a_ping_returns_the_round_trip(autojump_clock: Clock) -> None:
    """W-14: from the call to the Pong; kept as `latency`."""
    trips: list[float] = []

    async def handler(session: Session) -> None:
        assert session.latency is None
        trips.append(await session.ping())
        trips.append(await session.ping(b"mine"))
        assert trips[1] == session.latency == session.statistics().latency

    async with connected(handler) as (client, _):
        for seconds in (3, 1):
            ping = await client.receive()
            assert isinstance(ping, Frame.Ping)
            await trio.sleep(seconds)
            await client.send(Frame.Pong(b"not this"), Frame.Pong(ping.data))
        assert ping == Frame.Ping(b"mine")
        assert close(1000) == await client.receive()
    assert [3, 1] == pytest.approx(trips, abs=0.01)


async def test_a_pong_answers_the_pings_before_it(autojump_clock: Clock) -> None:
    """RFC 6455 §5.5.3: a peer may answer the latest only; one that answers the first leaves the second."""
    answered: list[str] = []

    async def handler(session: Session) -> None:
        async def ping(name: str) -> None:
            await session.ping(name.encode())
            answered.append(name)

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(ping, name)
                await trio.testing.wait_all_tasks_blocked()

    async with connected(handler) as (client, _):
        assert [Frame.Ping(b"a"), Frame.Ping(b"b"), Frame.Ping(b"c")] == [await client.receive() for _ in range(3)]
        await client.send(Frame.Pong(b"b"))
        await trio.testing.wait_all_tasks_blocked()
        assert ["a", "b"] == sorted(answered)
        await client.send(Frame.Pong(b"c"))
        assert close(1000) == await client.receive()
    assert ["a", "b", "c"] == sorted(answered)


async def test_a_ping_that_cannot_be_sent_is_refused(autojump_clock: Clock) -> None:
    """Too long, or the same bytes as one that is out; cancelled, the bytes are free again."""

    async def handler(session: Session) -> None:
        with pytest.raises(ValueError, match="125"):
            await session.ping(bytes(126))
        with trio.move_on_after(1):
            await session.ping(b"same")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.ping, b"same")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ValueError, match="has not been answered"):
                await session.ping(b"same")
            nursery.cancel_scope.cancel()

    async with connected(handler) as (client, _):
        assert [Frame.Ping(b"same")] * 2 + [close(1000)] == [await client.receive() for _ in range(3)]


@pytest.mark.parametrize("how", ["closed here", "peer", "lost", "terminated", "violation"])
async def test_a_ping_whose_conversation_ends_raises(autojump_clock: Clock, how: str) -> None:
    """Sending, or pinging, a conversation that is over: ConnectionClosed, and ConnectionBroken for a bad end."""
    ends: list[BaseException] = []

    async def handler(session: Session) -> None:
        async def ping() -> None:
            try:
                await session.ping()
            except ConnectionClosed as error:
                ends.append(error)
            with pytest.raises(ConnectionClosed):
                await session.ping()

        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ping)
                await trio.testing.wait_all_tasks_blocked()
                if how == "closed here":
                    session.close()
                if how == "terminated":
                    session.terminate()

    async with connected(handler, close_timeout=1) as (client, _):
        assert isinstance(await client.receive(), Frame.Ping)
        if how == "peer":
            await client.send(close(1000))
        elif how == "lost":
            await client.aclose()
        elif how == "violation":
            await client.send_bytes(b"\x83\x80" + bytes(4))
        if how != "lost":
            await client.receive_rest()
    assert [how in ("lost", "violation", "terminated")] == [isinstance(error, ConnectionBroken) for error in ends] or (
        how == "closed here" and isinstance(ends[0], ConnectionClosed)
    )


async def test_clients_ping_too(autojump_clock: Clock) -> None:
    """T202: the test host's client has the same session; five Pings, each answered."""

    async def handler(session: Session) -> None:
        await trio.sleep(100)

    async with open_test_host(application(handler)) as host, host.websocket("/") as conversation:
        for number in range(5):
            assert 0 <= await conversation.session.ping(f"ping {number}".encode()) < 1


async def test_the_pinger_keeps_the_latency(autojump_clock: Clock) -> None:
    """Configured Pings measure, too."""
    seen: list[float | None] = []

    async def handler(session: Session) -> None:
        await trio.sleep(15)
        seen.append(session.latency)

    async with connected(handler, ping_period=10, timeout=5) as (client, _):
        ping = await client.receive()
        assert isinstance(ping, Frame.Ping)
        await trio.sleep(2)
        await client.send(Frame.Pong(ping.data))
        assert close(1000) == await client.receive()
    assert [2] == pytest.approx(seen, abs=0.01)


async def test_settings_rearm_at_once(autojump_clock: Clock) -> None:
    """`ping_interval` and `timeout` count from the moment they are set (F42)."""

    async def handler(session: Session) -> None:
        assert session.ping_interval is None
        session.ping_interval = 100
        await trio.sleep(10)
        session.ping_interval = 5  # in five seconds, not in ninety
        session.timeout = 3
        assert (5, 3) == (session.ping_interval, session.timeout)
        with pytest.raises(ConnectionBroken) as raised:
            await session.receive()
        assert isinstance(raised.value.__cause__, PingTimeout)

    async with connected(handler) as (client, sessions):
        start = trio.current_time()
        assert isinstance(await client.receive(), Frame.Ping)
        assert 15 == pytest.approx(trio.current_time() - start, abs=0.1)
        assert close(1011, "Ping timeout") == await client.receive()
        assert 18 == pytest.approx(trio.current_time() - start, abs=0.1)
    assert CloseReason(1011, "Ping timeout") == sessions[0].close_reason


async def test_pings_can_be_turned_off(autojump_clock: Clock) -> None:
    """None stops the pinger, and a Ping that is out is nobody's deadline any more."""

    async def handler(session: Session) -> None:
        await trio.sleep(11)
        session.ping_interval = None
        await trio.sleep(1000)

    async with connected(handler, ping_period=10, timeout=5) as (client, _):
        assert isinstance(await client.receive(), Frame.Ping)
        assert close(1000) == await client.receive()
