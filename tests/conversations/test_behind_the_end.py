"""What is read in the moment of the end: nothing of it comes behind the end, and nothing is logged."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import REQUEST, RawClient, application, client_bytes
from trioktor import Frame, WebSocketSession as Session
from trioktor.server.host import Host

PASSES = 40
"""So many passes of the loop later somebody ends it: over some of them the reader has something in its hands."""


async def run(handler: Any, client_says: Any) -> None:
    """One conversation over a stream that a task reads."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Host(application(handler)).handle, theirs)
        client = RawClient(ours)
        await client.upgrade()
        nursery.start_soon(client_says, ours)
        await client.receive_rest()


async def talk_on(stream: Any) -> None:
    """Say something in every pass."""
    data = client_bytes(Frame.Text("more"))
    try:
        for _ in range(2 * PASSES):
            await stream.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


@pytest.mark.parametrize("way", ["terminate", "aclose"])
@pytest.mark.parametrize("form", ["session", "channel"])
@pytest.mark.parametrize("passes", range(3, PASSES, 3))
async def test_nothing_comes_behind_the_end(
    way: str, form: str, passes: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the reader has in its hands when the session is ended by another task."""
    left: list[int] = []

    async def end(session: Session) -> None:
        for _ in range(passes):
            await trio.lowlevel.checkpoint()
        if way == "terminate":
            session.terminate()
        else:
            with trio.CancelScope() as scope:
                scope.cancel()
                await session.aclose()

    async def handler(session: Session) -> None:
        session.start_soon(end, session)
        try:
            async for _ in session.incoming if form == "channel" else session:
                pass
        finally:
            with trio.CancelScope(shield=True):
                before = session._inbox.waiting
                for _ in range(20):
                    await trio.lowlevel.checkpoint()
                left.append(session._inbox.waiting - before)

    caplog.set_level(logging.WARNING)
    await run(handler, talk_on)
    assert caplog.records == []
    assert left == [0]


async def test_what_came_with_the_request_is_not_handed_on_behind_the_end(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The handler has ended it in its first step, before anything was read."""
    sessions: list[Session] = []

    async def handler(session: Session) -> None:
        sessions.append(session)
        session.incoming  # noqa: B018
        session.terminate()
        with trio.CancelScope(shield=True):
            await trio.sleep(1)

    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        await ours.send_all(REQUEST % b"/" + client_bytes(Frame.Text("early")) * 3)
        nursery.start_soon(Host(application(handler)).handle, theirs)
    assert caplog.records == []
    assert sessions[0].statistics().frames_received == 0
