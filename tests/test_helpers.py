"""The tests' own helpers: an assertion in a handler fails its test, and so does a failure nobody expects."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.helpers import close, connected, connected_raw, records_above_info
from trioktor import Frame
from trioktor.base_session import BaseSession

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
