"""What can be seen of a session from outside: every number in its place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import client_bytes, close, connected
from trioktor import (
    Frame,
    SessionStatistics,
    WebSocketSession,
)

Clock = MockClock


async def test_every_number_is_the_connections_own(autojump_clock: Clock) -> None:
    """None is mistaken for another."""
    connection: Any = SimpleNamespace(
        conversation=SimpleNamespace(frames_received=1, outgoing=SimpleNamespace(frames_sent=3)),
        intake=SimpleNamespace(bytes_read=2),
        outbox=SimpleNamespace(wire=SimpleNamespace(bytes_written=4), waiting=6, peak=8),
        inbox=SimpleNamespace(waiting=5, peak=7),
        latency=0.25,
        opened_at=trio.current_time() - 9,
    )
    assert SessionStatistics.of(connection) == SessionStatistics(
        frames_received=1,
        bytes_received=2,
        frames_sent=3,
        bytes_sent=4,
        incoming=5,
        outgoing=6,
        incoming_peak=7,
        outgoing_peak=8,
        latency=0.25,
        age=9,
    )


async def test_before_anything_was_said_there_is_only_the_101(autojump_clock: Clock) -> None:
    """Its bytes are none of the conversation's frames."""
    seen: list[SessionStatistics] = []

    async def handler(session: WebSocketSession) -> None:
        seen.append(session.statistics())
        await trio.sleep(3)
        seen.append(session.statistics())

    async with connected(handler) as (client, _):
        await client.receive_rest()
    for statistics, age in zip(seen, (0, 3), strict=True):
        assert attrs.astuple(statistics)[:9] == (0, 0, 0, statistics.bytes_sent, 0, 0, 0, 0, None)
        assert statistics.age == pytest.approx(age)


async def test_statistics_are_exact_and_frozen(autojump_clock: Clock) -> None:
    """W-28: frames and bytes as on the wire, ages and latencies in seconds."""
    seen: list[SessionStatistics] = []

    async def handler(session: WebSocketSession) -> None:
        async for frame in session:
            await session.send(frame)
        await session.flush()
        await trio.sleep(10)
        seen.append(session.statistics())

    async with connected(handler, handler_grace=None) as (client, _):
        await client.send(Frame.Text("hello"), Frame.Binary(bytes(200)))
        await client.receive()
        await client.send(close(1000))
        await client.receive_rest()
    (statistics,) = seen
    sent = client_bytes(Frame.Text("hello"), Frame.Binary(bytes(200)), close(1000))
    assert (statistics.frames_received, statistics.bytes_received) == (3, len(sent))
    assert (statistics.frames_sent, statistics.bytes_sent) == (3, len(sent) - 3 * 4)
    assert (statistics.incoming, statistics.outgoing, statistics.latency) == (0, 0, None)
    assert statistics.incoming_peak >= 1
    assert 10 == pytest.approx(statistics.age, abs=0.1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        statistics.age = 0  # type: ignore[misc]


async def test_queues_show_their_peaks(autojump_clock: Clock) -> None:
    """The most that waited, each way."""
    seen: list[SessionStatistics] = []

    async def handler(session: WebSocketSession) -> None:
        await trio.sleep(1)
        for number in range(30):
            session.send_nowait(str(number))
        await session.flush()
        seen.append(session.statistics())

    async with connected(handler) as (client, _):
        await client.send(*[Frame.Text("x")] * 20)
        assert Frame.Text("0") == await client.receive()
    assert (20, 20) == (seen[0].incoming, seen[0].incoming_peak)
    assert 25 <= seen[0].outgoing_peak <= 30
