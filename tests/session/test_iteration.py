"""Iterating over the messages of one kind."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trioktor import (
    Frame,
)
from trioktor.session.iteration import FramesOf

Clock = MockClock


class Fake(trio.abc.Channel[Frame]):
    """A channel that is received from as a memory channel is."""

    def __init__(self, *frames: Frame, end: type[Exception] | None = trio.EndOfChannel) -> None:
        self.frames = list(frames)
        self._end = end

    async def receive(self) -> Frame:
        """The next, or the end; without one, wait for ever."""
        await trio.lowlevel.checkpoint()
        if self.frames:
            return self.frames.pop(0)
        if self._end is None:
            await trio.sleep_forever()
        assert self._end is not None
        raise self._end

    async def send(self, value: Frame) -> None:
        """Not asked for."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Not asked for."""
        raise NotImplementedError


T1, T2, B1, B2 = Frame.Text("1"), Frame.Text("2"), Frame.Binary(b"1"), Frame.Binary(b"2")
PING = Frame.Ping(b"")


@pytest.mark.parametrize(
    ("kind", "frames", "expected"),
    [
        (Frame.Text, [], []),
        (Frame.Text, [B1, PING], []),
        (Frame.Text, [T1], [T1]),
        (Frame.Text, [B1, T1, PING, B2, T2, B1], [T1, T2]),
        (Frame.Binary, [B1, T1, PING, B2], [B1, B2]),
        (Frame.Ping, [B1, PING, T1], [PING]),
        (Frame, [B1, PING, T1], [B1, PING, T1]),
    ],
)
async def test_the_messages_of_a_kind_come_in_order_and_others_are_skipped(
    kind: type[Frame], frames: list[Frame], expected: list[Frame]
) -> None:
    """To the end, at which nothing is left; and again it is the end."""
    session = Fake(*frames)
    messages = FramesOf(session, kind)
    assert [frame async for frame in messages] == expected
    assert session.frames == []
    assert [frame async for frame in messages] == []


async def test_nothing_is_taken_before_it_is_asked_for() -> None:
    """What a loop leaves behind is there for the next, or for `receive`."""
    session = Fake(B1, T1, B2, T2)
    messages = FramesOf(session, Frame.Text)
    assert aiter(messages) is messages
    assert session.frames == [B1, T1, B2, T2]
    async for frame in messages:
        assert frame == T1
        break
    assert session.frames == [B2, T2]
    assert await session.receive() == B2
    assert [frame async for frame in messages] == [T2]


async def test_an_error_of_the_session_comes_out_as_itself() -> None:
    """Behind what came before it."""
    seen = []
    with pytest.raises(trio.BrokenResourceError):
        async for frame in FramesOf(Fake(T1, B1, end=trio.BrokenResourceError), Frame.Text):
            seen.append(frame)
    assert seen == [T1]


async def test_a_cancelled_wait_loses_no_message_of_its_kind(autojump_clock: Clock) -> None:
    """Only what is skipped is gone."""
    session = Fake(B1, end=None)
    messages = FramesOf(session, Frame.Text)
    with trio.move_on_after(1) as scope:
        await anext(messages)
    assert scope.cancelled_caught
    session.frames.append(T1)
    assert await anext(messages) == T1
