"""The tests' own helpers: an assertion in a handler fails its test, and so does a failure nobody expects."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.helpers import close, connected, connected_raw, records_above_info
from trioktor import Frame
from trioktor.session.base import BaseSession

Clock = trio.testing.MockClock


async def failing(session: BaseSession) -> None:
    """Assert what is not so."""
    frame = await session.receive()
    assert frame == Frame.Text("right"), "wrong"


@pytest.mark.parametrize("connect", [connected, connected_raw])
async def test_what_a_handler_raises_is_raised_after_the_block(
    connect: Callable[..., object], autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """As itself, and not logged."""
    reached = False
    with pytest.raises(AssertionError, match="wrong"):
        async with connect(failing) as (client, _):  # type: ignore[attr-defined]
            await client.send(Frame.Text("left"))
            assert await client.receive() == close(1011)
            reached = True
    assert reached
    assert records_above_info(caplog) == []


async def test_a_task_of_the_session_counts_as_its_handler(autojump_clock: Clock) -> None:
    """One that asserts beside it, too."""

    async def handler(session: BaseSession) -> None:
        session.start_soon(failing, session)
        await trio.sleep_forever()

    with pytest.raises(AssertionError, match="wrong"):
        async with connected(handler) as (client, _):
            await client.send(Frame.Text("left"))
            assert await client.receive() == close(1011)


async def test_a_failing_handler_is_named_before_a_failing_block(autojump_clock: Clock) -> None:
    """The one is most often why the other failed."""
    with pytest.raises(AssertionError, match="wrong") as raised:
        async with connected(failing) as (client, _):
            await client.send(Frame.Text("left"))
            raise ValueError(await client.receive())
    assert isinstance(raised.value.__cause__, ValueError)


async def test_a_failing_block_is_raised_as_itself(autojump_clock: Clock) -> None:
    """Without waiting for a handler that would never end."""

    async def handler(session: BaseSession) -> None:
        await trio.sleep_forever()

    with pytest.raises(ValueError, match="the block"):
        async with connected(handler, handler_grace=None):
            raise ValueError("the block")


async def test_a_cancellation_hides_neither(autojump_clock: Clock) -> None:
    """Neither the handler's failure nor the block's, if a scope around it ends both."""
    with pytest.raises(AssertionError, match="wrong"), trio.move_on_after(5):
        async with connected(failing) as (client, _):
            await client.send(Frame.Text("left"))
            await trio.sleep_forever()
    with pytest.raises(ValueError, match="the block"), trio.CancelScope() as scope:
        async with connected(failing):
            scope.cancel()
            raise ValueError("the block")


LOGGED = """
import pytest
import trio
import trio.testing
from trioktor import Application

async def crash(error):
    app = Application()

    @app.get("/")
    async def page(call):
        raise error

    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.handle_stream, theirs)
        assert b" 500 " in await ours.receive_some()
        await ours.aclose()

ERRORS = [AssertionError("in vain"), ExceptionGroup("several", [KeyError(), AssertionError("in vain")]), KeyError("x")]

@pytest.mark.parametrize("error", ERRORS, ids=["assertion", "group", "other"])
async def test_without(error):
    await crash(error)

@pytest.mark.parametrize("error", ERRORS, ids=["assertion", "group", "other"])
async def test_with(error, caplog):
    await crash(error)
"""


def test_what_is_only_logged_fails_its_test(tmp_path: Path) -> None:
    """Unless it takes `caplog`; a failed assertion does even then."""
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    (tmp_path / "test_logged.py").write_text(LOGGED)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-o", "trio_mode=true"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path)
    outcomes = re.findall(r"^(PASSED|FAILED) test_logged\.py::(\S+)", done.stdout, re.MULTILINE)
    assert {name: outcome for outcome, name in outcomes} == {
        "test_without[assertion]": "FAILED",
        "test_without[group]": "FAILED",
        "test_without[other]": "FAILED",
        "test_with[assertion]": "FAILED",
        "test_with[group]": "FAILED",
        "test_with[other]": "PASSED",
    }
