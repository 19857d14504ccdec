"""Logging: one tree, frames on request, and nothing that a peer could write there."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing

import trioktor
from tests.support.helpers import close, connected, masked, records_above_info
from trioktor import Frame, WebSocketSession
from trioktor.protocol.serializer import Serializer

Clock = trio.testing.MockClock


async def echo(session: WebSocketSession) -> None:
    """Send everything back."""
    async for frame in session:
        await session.send(frame)


def test_there_is_one_tree() -> None:
    """Every logger of the package stands below `trioktor`."""
    names = [
        name
        for path in Path(trioktor.__file__).parent.rglob("*.py")
        for name in re.findall(r'getLogger\("([^"]*)"\)', path.read_text())
    ]
    assert len(names) > 5
    assert all(name == "trioktor" or name.startswith("trioktor.") for name in names)


async def test_frames_are_logged_on_request(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Each way, payloads cut, every control character escaped."""
    caplog.set_level(logging.DEBUG, "trioktor.frames")
    async with connected(echo) as (client, _):
        await client.send(Frame.Text("\x1b[31mred\r\n" + "x" * 200), close(1000))
        await client.receive_rest()
    lines = [record.getMessage() for record in caplog.records if record.name == "trioktor.frames"]
    assert [" < " in line for line in lines].count(True) == [" > " in line for line in lines].count(True) == 2
    assert all("\x1b" not in line and "\n" not in line and len(line) < 300 for line in lines)
    assert r"\x1b[31mred\r\nxxx" in lines[0]


async def test_frames_are_not_logged_by_themselves(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """At INFO nothing of them is even looked at."""
    caplog.set_level(logging.INFO)
    async with connected(echo) as (client, sessions):
        await client.send(Frame.Text("hello"), close(1000))
        await client.receive_rest()
        assert type(sessions[0]._connection.conversation.serializer) is Serializer
    assert not [record for record in caplog.records if record.name == "trioktor.frames"]


@pytest.mark.parametrize("how", ["hang-up", "goodbye", "violation", "text", "silence", "too big"])
async def test_normal_disconnects_are_no_news(
    how: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """W-07: nothing above INFO, and no traceback, whatever the peer does."""
    caplog.set_level(logging.DEBUG)
    async with connected(echo, ping_period=5, timeout=5, max_frame_size=10) as (client, _):
        if how == "hang-up":
            await client.aclose()
        elif how == "goodbye":
            await client.send(close(1001, "\x1b[31m\r\nforged line"))
        elif how == "violation":
            await client.send_bytes(b"\xff\xff")
        elif how == "text":
            await client.send_bytes(masked(0x81, b"\xff"))
        elif how == "too big":
            await client.send(Frame.Text("x" * 11))
        if how != "hang-up":
            await client.receive_rest()
    assert not records_above_info(caplog)
    assert not [record for record in caplog.records if record.exc_info]
    assert all("\x1b" not in record.getMessage() and "\n" not in record.getMessage() for record in caplog.records)


async def test_a_failure_is_logged_once_with_its_traceback(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """W-26: here, and not at the peer's."""

    async def handler(session: WebSocketSession) -> None:
        raise ValueError("a secret")

    async with connected(handler, expect_failure=True) as (client, _):
        assert await client.receive() == close(1011)
    (record,) = records_above_info(caplog)
    assert record.exc_info
    assert isinstance(record.exc_info[1], ValueError)


async def test_structlog_shows_it_as_its_own(autojump_clock: Clock) -> None:
    """Through the bridge of its standard-library side."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
        foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.add_log_level],
    )
    handler.setFormatter(formatter)
    logger = logging.getLogger("trioktor")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        async with connected(echo) as (client, _):
            await client.send(close(1000))
            await client.receive_rest()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert '"logger": "trioktor.session", "level": "info"' in stream.getvalue()
