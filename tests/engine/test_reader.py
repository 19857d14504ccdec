"""The task that reads one stream: what it hands on, when it reads no more, and what ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, final

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trioktor import CloseReason
from trioktor.engine.reader import Reader
from trioktor.engine.shields import Shields
from trioktor.protocol.closing import ClosingHandshake


@final
class Fakes:
    """The neighbours of a reader in one: the stream, which gives `coming`, and the intake, which notes in `seen`."""

    def __init__(self, *coming: bytes | Exception) -> None:
        self.coming = list(coming)
        self.full: list[bytes] = []  # what there is no room for at first
        self.failing: dict[str, Exception] = {}
        self.seen: list[object] = []
        self.closing = ClosingHandshake()
        self.shields = Shields()

    def reader(self, trailing_data: bytes = b"") -> Reader:
        """A reader between them."""
        fakes: Any = self
        return Reader(fakes, fakes, self.closing, self.shields, trailing_data)

    async def receive(self) -> bytes:
        """What comes next; nothing more waits for ever."""
        self.seen.append("receive")
        await trio.lowlevel.checkpoint()
        if not self.coming:
            await trio.sleep_forever()
        data = self.coming.pop(0)
        if isinstance(data, Exception):
            raise data
        return data

    def take(self, data: bytes) -> bool:
        """Take what was read, as an intake does."""
        if "take" in self.failing:
            raise self.failing["take"]
        self.seen.append(data)
        if not data:
            self.closing.receive_eof()
        if data == b"close":
            self.closing.receive_close(CloseReason(1000))
        return data not in self.full

    async def finish(self) -> None:
        """There is room only later."""
        self.seen.append("waits")
        await trio.sleep(1)
        if "finish" in self.failing:
            raise self.failing["finish"]
        self.seen.append("goes on")

    def lose(self, error: Exception) -> None:
        """Reading failed."""
        self.seen.append(("lost", error))

    def fail(self, error: Exception) -> None:
        """Handing on failed."""
        self.seen.append(("failed", error))


@asynccontextmanager
async def started(reader: Reader) -> AsyncIterator[trio.CancelScope]:
    """Its task, as far as it comes by itself; whoever leaves waits for it."""
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            reader.start(nursery)
            await trio.testing.wait_all_tasks_blocked()
            yield nursery.cancel_scope


async def read(fakes: Fakes, trailing_data: bytes = b"") -> list[object]:
    """All that happens until its end."""
    async with started(fakes.reader(trailing_data)):
        pass
    return fakes.seen


async def test_what_comes_is_handed_on_in_order_until_the_end(autojump_clock: MockClock) -> None:
    """The end of the stream is no bytes."""
    seen = await read(Fakes(b"1", b"2", b""))
    assert seen == ["receive", b"1", "receive", b"2", "receive", b""]


async def test_what_came_with_the_handshake_comes_first(autojump_clock: MockClock) -> None:
    """Before anything is read."""
    assert await read(Fakes(b""), b"with it") == [b"with it", "receive", b""]


@pytest.mark.parametrize("trailing_data", [b"", b"close"])
async def test_behind_the_peers_last_word_nothing_is_read(trailing_data: bytes, autojump_clock: MockClock) -> None:
    """Though more may be there."""
    fakes = Fakes(b"close", b"more")
    seen = await read(fakes, trailing_data)
    assert seen == ([b"close"] if trailing_data else ["receive", b"close"])


async def test_a_conversation_that_is_over_is_not_read(autojump_clock: MockClock) -> None:
    """By the time that the task begins."""
    fakes = Fakes(b"1")
    fakes.closing.lose()
    assert await read(fakes) == []


async def test_what_has_no_room_is_waited_for(autojump_clock: MockClock) -> None:
    """Nothing is read meanwhile."""
    fakes = Fakes(b"2", b"")
    fakes.full = [b"1", b"2"]
    seen = await read(fakes, b"1")
    assert seen == [b"1", "waits", "goes on", "receive", b"2", "waits", "goes on", "receive", b""]


@pytest.mark.parametrize("where", ["receive", "take", "finish"])
@pytest.mark.parametrize(
    ("error", "name"),
    [
        (trio.BrokenResourceError("reset"), "lost"),
        (trio.ClosedResourceError("closed"), "failed"),
        (ZeroDivisionError(), "failed"),
        (ExceptionGroup("several", [ValueError()]), "failed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_an_error_is_this_connections_alone(
    where: str, error: Exception, name: str, autojump_clock: MockClock
) -> None:
    """A stream that broke is a loss, everything else a fault; either ends the task, and is raised no further."""
    fakes = Fakes(error if where == "receive" else b"1")
    fakes.full = [b"1"]
    fakes.failing = {where: error}
    seen = await read(fakes)
    assert seen[-1] == (name, error)
    assert seen.count("receive") == 1


# start and end


async def test_its_first_step_comes_after_the_present_tasks(autojump_clock: MockClock) -> None:
    """Whoever starts it may still prepare something."""
    fakes = Fakes(b"")
    async with trio.open_nursery() as nursery:
        fakes.reader(b"early").start(nursery)
        assert fakes.seen == []
    assert fakes.seen[0] == b"early"


@pytest.mark.parametrize("state", ["reading", "waiting for room"])
async def test_stopped_it_reads_no_more(state: str, autojump_clock: MockClock) -> None:
    """Wherever it waits; that is no loss and no fault."""
    fakes = Fakes()
    reader = fakes.reader(b"1")
    fakes.full = [b"1"] if state == "waiting for room" else []
    async with started(reader):
        before = fakes.seen[:]
        reader.stop()
    assert fakes.seen == before


async def test_stopped_before_its_first_step_it_takes_what_is_there_and_reads_nothing(
    autojump_clock: MockClock,
) -> None:
    """What came with the handshake needs no wait."""
    fakes = Fakes(b"more")
    reader = fakes.reader(b"with it")
    reader.stop()
    async with started(reader):
        pass
    assert fakes.seen == [b"with it", "receive"]


@pytest.mark.parametrize("way", ["the peer", "stop", "an error"])
async def test_its_end_can_be_waited_for(way: str, autojump_clock: MockClock) -> None:
    """By several, and not before it is there."""
    coming: dict[str, list[bytes | Exception]] = {"the peer": [b""], "an error": [ZeroDivisionError()]}
    fakes = Fakes(*coming.get(way, []))
    reader = fakes.reader()
    ended: list[int] = []

    async def wait(number: int) -> None:
        await reader.wait_ended()
        ended.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(wait, number)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == []
        async with started(reader):
            if way == "stop":
                assert ended == []
                reader.stop()
    assert sorted(ended) == [0, 1]
    await reader.wait_ended()


async def test_a_cancellation_from_outside_does_not_end_it(autojump_clock: MockClock) -> None:
    """The deadline of the connection does, which may be told of later."""
    fakes = Fakes(b"1")
    began = trio.current_time()
    async with started(fakes.reader()) as scope:
        scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
            fakes.coming.append(b"2")
            fakes.shields.stop_by(trio.current_time() + 2)
    assert trio.current_time() - began == pytest.approx(7)
    assert fakes.seen == ["receive", b"1", "receive"]
