"""A session used from another thread: a clear error, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.helpers import close, connected
from trioktor import Frame, FrameType, WebSocketSession, broadcast

Use = Callable[[WebSocketSession], Any]


async def in_message(session: WebSocketSession) -> None:
    """Begin a message in pieces."""
    async with session.message(FrameType.TEXT):
        pass


USES: dict[str, Use] = {
    "send": lambda session: trio.run(session.send, "x"),
    "send_nowait": lambda session: session.send_nowait("x"),
    "a ping": lambda session: trio.run(session.send, Frame.Ping()),
    "receive": lambda session: trio.run(session.receive),
    "receive_nowait": lambda session: session.receive_nowait(),
    "receive_message": lambda session: trio.run(session.receive_message),
    "message": lambda session: trio.run(in_message, session),
    "incoming": lambda session: session.incoming,
    "outgoing": lambda session: session.outgoing,
    "close": lambda session: session.close(),
    "aclose": lambda session: trio.run(session.aclose),
    "terminate": lambda session: session.terminate(),
    "flush": lambda session: trio.run(session.flush),
    "ping": lambda session: trio.run(session.ping),
    "wait_closed": lambda session: trio.run(session.wait_closed),
    "start_soon": lambda session: session.start_soon(trio.sleep, 0),
    "ping_interval": lambda session: setattr(session, "ping_interval", None),
    "timeout": lambda session: setattr(session, "timeout", 1),
    "max_frame_size": lambda session: setattr(session, "max_frame_size", None),
    "masking": lambda session: setattr(session, "masking", True),
    "broadcast": lambda session: trio.run(broadcast, [session], "x"),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_another_thread_is_told_what_to_write(use: Use, autojump_clock: MockClock) -> None:
    """And the conversation goes on as if nothing had happened."""

    async def handler(session: WebSocketSession) -> None:
        await session.receive()
        with pytest.raises(RuntimeError, match=r"use trio\.from_thread\.run\(session\."):
            await trio.to_thread.run_sync(use, session)
        await session.send("as before")

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("go"), Frame.Text("unread"))
        assert [Frame.Text("as before"), close(1000)] == [await client.receive() for _ in range(2)]
        await client.send(close(1000))
        assert [] == await client.receive_rest()


async def test_through_trios_door_a_thread_may_do_all_of_it(autojump_clock: MockClock) -> None:
    """What the error says works."""

    async def handler(session: WebSocketSession) -> None:
        def work() -> None:
            trio.from_thread.run(session.send, "from a thread")
            trio.from_thread.run_sync(session.close, 4000)

        await trio.to_thread.run_sync(work)

    async with connected(handler) as (client, _):
        assert [Frame.Text("from a thread"), close(4000)] == [await client.receive() for _ in range(2)]
        await client.send(close(4000))
