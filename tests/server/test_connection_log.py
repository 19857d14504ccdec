"""What is logged of each connection, and that nothing is made that nobody hears."""

from __future__ import annotations

import logging
import os
import re
import socket
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.calls import call_of
from tests.support.helpers import RawClient, application, close, connected
from trioktor import (
    CloseReason,
    Frame,
    WebSocketSession,
    WebSocketSession as Session,
    serve,
)
from trioktor.server.connection_log import log_begin, log_bug, log_end

Clock = MockClock


def ended(reason: CloseReason | None = None) -> Any:
    """A connection, as far as it is looked at."""
    return SimpleNamespace(
        opened_at=trio.current_time() - 1.5,
        closing=SimpleNamespace(reason=reason),
        conversation=SimpleNamespace(frames_received=1, outgoing=SimpleNamespace(frames_sent=3)),
        intake=SimpleNamespace(bytes_read=2),
        outbox=SimpleNamespace(wire=SimpleNamespace(bytes_written=4)),
    )


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int, str]]:
    """What was logged."""
    return [(record.name, record.levelno, record.getMessage()) for record in caplog.records]


async def test_the_end_says_how_long_why_and_how_much(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Each number in its place."""
    caplog.set_level(logging.INFO, "trioktor.session")
    log_end(ended(CloseReason(1001, "away")), call_of("/path?secret", client=("192.0.2.1", 5)))
    text = (
        "closed /path for ('192.0.2.1', 5) after 1.500 s: CloseReason(GOING_AWAY, 'away'),"
        " in 1 frames 2 bytes, out 3 frames 4 bytes"
    )
    assert lines(caplog) == [("trioktor.session", logging.INFO, text)]


def test_the_beginning_is_for_those_who_look_closely(caplog: pytest.LogCaptureFixture) -> None:
    """It says who, and where; but no query."""
    caplog.set_level(logging.DEBUG, "trioktor.session")
    log_begin(call_of("/path?secret", client="/run/socket"))
    assert lines(caplog) == [("trioktor.session", logging.DEBUG, "opened /path for '/run/socket'")]


@pytest.mark.parametrize(("level", "logged"), [(logging.DEBUG, "be"), (logging.INFO, "e"), (logging.WARNING, "")])
async def test_nothing_is_made_that_nobody_hears(level: int, logged: str, caplog: pytest.LogCaptureFixture) -> None:
    """Below its level a line is not even looked for."""
    caplog.set_level(level, "trioktor.session")
    nothing: Any = None
    log_begin(call_of() if "b" in logged else nothing)
    log_end(ended() if "e" in logged else nothing, call_of() if "e" in logged else nothing)
    assert len(caplog.records) == len(logged)


@pytest.mark.parametrize("client", ["\x1b[31m\r\nforged", "\udcff", "x" * 5000, None, ("::1", 1)], ids=ascii)
async def test_nothing_that_a_client_chose_stands_bare_in_a_line(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither its name, which may be any bytes, nor its path, which may be long."""
    caplog.set_level(logging.DEBUG, "trioktor.session")
    call = call_of("/" + "y" * 5000, client=client)
    log_begin(call)
    log_end(ended(), call)
    for _, _, text in lines(caplog):
        assert text.isascii()
        assert text.isprintable()
        assert f"/{'y' * 199} for {ascii(client)[:200]}" in text
        assert "y" * 200 not in text
        assert "x" * 200 not in text


def test_a_fault_of_ours_is_an_error_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """In the log of the server, not of a session."""
    error = ValueError("a bug")
    log_bug(error)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("trioktor.server", logging.ERROR)
    assert record.getMessage() == "a connection ended with an error of trioktor's own"
    assert record.exc_info
    assert record.exc_info[1] is error


# through a connection


async def stay(session: Session) -> None:
    """Take what comes."""
    async for _ in session:
        pass


async def echo(session: WebSocketSession) -> None:
    """Send everything back."""
    async for frame in session:
        await session.send(frame)


async def test_a_session_is_one_line_at_info(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """With path, client, time, reason, and what went each way; its beginning is at DEBUG."""
    caplog.set_level(logging.INFO)
    async with connected(echo) as (client, _):
        await client.send(Frame.Text("hello"), close(1000, "bye"))
        await client.receive_rest()
    (record,) = [record for record in caplog.records if record.name.startswith("trioktor")]
    assert (record.name, record.levelno) == ("trioktor.session", logging.INFO)
    assert re.fullmatch(
        r"closed / for None after \d+\.\d{3} s: CloseReason\(NORMAL, 'bye'\),"
        r" in 2 frames 22 bytes, out 2 frames 11 bytes",
        record.getMessage(),
    )


async def test_a_unix_clients_own_path_is_shown_escaped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It may be any bytes."""
    caplog.set_level(logging.DEBUG, "trioktor")
    path = tmp_path / "server"
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, application(stay), path=path))
        ours = trio.socket.socket(socket.AF_UNIX)
        await ours.bind(os.fspath(tmp_path / "\x1b[31m\nforged line \xff".encode("latin-1").decode("latin-1")))
        await ours.connect(os.fspath(path))
        client = RawClient(trio.SocketStream(ours))
        await client.upgrade()
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()
    lines = [record.getMessage() for record in caplog.records if record.name == "trioktor.session"]
    assert len(lines) == 3  # opened, how the handler ended, closed
    assert all(line.isprintable() and line.isascii() and len(line) < 500 for line in lines)
    assert "forged line" in lines[0]
