"""The log of frames: when it is on, and what one line shows."""

from __future__ import annotations

import logging

import pytest
from trio.testing import MockClock

from tests.support.helpers import RawClient
from tests.support.listening import talking
from trioktor import CloseReason, Frame, FrameType, WebSocketSession, broadcast
from trioktor.engine.frame_log import is_logging, log_frame

NAME = "trioktor.frames"


@pytest.mark.parametrize("logger", [NAME, "trioktor"])
@pytest.mark.parametrize(
    ("level", "is_on"), [(logging.DEBUG - 1, True), (logging.DEBUG, True), (logging.DEBUG + 1, False)]
)
def test_it_is_on_at_debug(logger: str, level: int, is_on: bool, caplog: pytest.LogCaptureFixture) -> None:
    """By its own level, or by that of all of trioktor."""
    caplog.set_level(level, logger)
    assert is_logging() == is_on
    log_frame("<", "somebody", Frame.Text("hello"))
    assert [record.name for record in caplog.records] == [NAME] * is_on


def test_its_own_level_counts_before_that_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """So it can be off alone."""
    caplog.set_level(logging.DEBUG, "trioktor")
    caplog.set_level(logging.INFO, NAME)
    assert not is_logging()


@pytest.mark.parametrize(
    ("direction", "frame", "shown"),
    [
        ("<", Frame.Text("hello"), "<Frame TEXT fin=True, 5 bytes> b'hello'"),
        (">", Frame.Binary(b"", fin=False), "<Frame BINARY fin=False, 0 bytes> b''"),
        (">", Frame.Ping(b"\x1b[31m\r\n"), r"<Frame PING fin=True, 7 bytes> b'\x1b[31m\r\n'"),
        ("<", Frame.Close(CloseReason(1000)), r"<Frame CLOSE fin=True, 2 bytes> b'\x03\xe8'"),
        ("<", Frame.Text("é"), r"<Frame TEXT fin=True, 2 bytes> b'\xc3\xa9'"),
    ],
)
def test_a_line_has_who_the_direction_the_frame_and_its_payload(
    direction: str, frame: Frame, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG, and each control character escaped."""
    caplog.set_level(logging.DEBUG, NAME)
    log_frame(direction, ("a", 1), frame)
    [record] = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.getMessage() == f"('a', 1) {direction} {shown}"


@pytest.mark.parametrize(("size", "shown"), [(79, 79), (80, 80), (81, 80), (100_000, 80)])
def test_a_long_payload_is_cut(size: int, shown: int, caplog: pytest.LogCaptureFixture) -> None:
    """At 80 bytes; how many there are is said all the same."""
    caplog.set_level(logging.DEBUG, NAME)
    log_frame(">", "somebody", Frame.Binary(b"x" * size))
    [record] = caplog.records
    assert record.getMessage() == f"somebody > <Frame BINARY fin=True, {size} bytes> b'{'x' * shown}'"


async def test_every_frame_is_logged_once_in_its_order(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """By whatever way it goes: put aside, straight, queued, in pieces, to many, by itself."""
    caplog.set_level(logging.DEBUG, NAME)
    rest = [Frame.Text("last"), Frame.Text("frag", fin=False), Frame.Text(b"ment"), Frame.Ping(b"!")]

    async def handler(session: WebSocketSession) -> None:
        for _ in range(5):
            await session.send((await session.receive()).data)
        for frame in rest:
            session.send_nowait(frame)
        await broadcast([session], "to all")
        async with session.message(FrameType.BINARY) as message:
            await message.send(b"pi")
            await message.send(b"ece")
        session.outgoing.send_nowait("queued")
        await session.flush()

    seen: list[Frame] = []
    async with talking(handler) as (client, _):
        client = RawClient(client.stream, raw=True)
        sent = [Frame.Text(str(number)) for number in range(5)]
        await client.send(*sent)
        while frame := await client.receive():
            seen.append(frame)
    logged = [record.getMessage().partition("> ")[2] for record in caplog.records if record.name == NAME]
    for way, frames in ((">", seen), ("<", sent)):
        lines = [line for line in logged if line.startswith(way)]
        assert lines == [f"{way} {frame!r} {frame.data!r}" for frame in frames]
    assert len(seen) == 15
