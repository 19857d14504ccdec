"""An extension that fails at a message: it is the end, and nothing stands where the message is missing."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from tests.support.extensions import Failing
from trioktor import (
    Application,
    CloseReason,
    ConnectionBroken,
    ExtensionFactory,
    PerMessageDeflate,
    ProtocolError,
    WebSockets,
    WebSocketSession,
    connect,
    serve,
)

Session = WebSocketSession

FIRST, BAD, LAST = b"this is said" * 20, b"bad" + b"this is missing" * 20, b"this is missing" * 20
LONG = bytes(40_000)


WAYS = ["error", "rule", "nothing", "bit"]


@asynccontextmanager
async def talking(
    handler: Callable[[Session], Awaitable[object]], *extensions: ExtensionFactory
) -> AsyncIterator[Session]:
    """A client in conversation with a handler over a real socket; both compress."""
    app = Application()
    app.install(WebSockets(extensions=[*extensions, PerMessageDeflate()]))
    app.websocket("/", handler)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(functools.partial(serve, app, host="127.0.0.1", port=0))
        async with connect(f"ws://127.0.0.1:{server.port}/", extensions=[PerMessageDeflate()]) as session:
            yield session
        await server.aclose()


async def heard(session: Session) -> list[bytes]:
    """What a client gets, to the end."""
    messages = []
    try:
        async for message in session:
            messages.append(message.data)
    except ConnectionBroken:
        pass
    return messages


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("rest", [b"", LONG])
@pytest.mark.parametrize("has_channel", [False, True])
async def test_the_peer_is_told(how: str, rest: bytes, has_channel: bool, caplog: pytest.LogCaptureFixture) -> None:
    """1011 in place of the message, though the handler goes on: short or long, straight out or queued."""

    async def handler(session: Session) -> None:
        if has_channel:
            _ = session.outgoing
        await session.send(FIRST)
        try:
            await session.send(BAD + rest)
            await session.flush()
        except (RuntimeError, ProtocolError, AttributeError):
            pass
        try:
            await session.send(LAST)
        except ConnectionBroken:
            pass
        await session.wait_closed()

    async with talking(handler, Failing(how)) as session:
        assert await heard(session) == [FIRST]
        assert session.close_received == CloseReason(1011)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("rest", [b"", LONG])
async def test_nothing_follows_where_the_end_has_begun(how: str, rest: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The handler has returned, and what it queued goes out up to there: the peer sees that something is missing."""

    async def handler(session: Session) -> None:
        for message in (FIRST, BAD + rest, LAST):
            session.outgoing.send_nowait(message)

    async with talking(handler, Failing(how)) as session:
        assert await heard(session) == [FIRST]
        assert session.close_reason == CloseReason(1006)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
