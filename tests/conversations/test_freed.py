"""A connection that is over is freed at once: no cycle keeps it, or its parts, for the garbage collector."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.extensions import Failing
from tests.support.helpers import application, close, masked
from tests.support.listening import talking
from tests.support.transports import reset
from trioktor import (
    CLOSE,
    ChannelConfig,
    ConnectionClosed,
    Frame,
    PerMessageDeflate,
    Server,
    WebSocketSession,
    broadcast,
    connect,
    serve,
)
from trioktor.engine.connection import Connection

Handler = Callable[[Any], Awaitable[object]]


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    """Nothing but references counts."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> weakref.WeakSet[Any]:
    """The connections, and the parts that have one."""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    init = Connection.__init__

    def note(self: Connection, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        alive.add(self)

    monkeypatch.setattr(Connection, "__init__", note)
    return alive


async def echo(session: Any) -> None:
    """Say everything again."""
    async for frame in session:
        await session.send(frame)


async def uses_channels(session: Any) -> None:
    """Both, and so a writer."""
    async for frame in session.incoming:
        await session.outgoing.send(frame)


async def starts_tasks(session: Any) -> None:
    """Beside itself."""
    session.start_soon(trio.sleep_forever)
    await echo(session)


async def pings(session: Any) -> None:
    """And has Pings going."""
    await session.ping()
    await echo(session)


async def all_gone(server: Server) -> None:
    """Wait until no session runs, and what they woke has had its turn."""
    with trio.fail_after(5):
        while server.sessions:
            await trio.lowlevel.checkpoint()
    for _ in range(5):
        await trio.testing.wait_all_tasks_blocked()


async def takes_pieces(session: Any) -> None:
    """Messages in pieces, not to the end of the last."""
    try:
        while True:
            message = await session.receive_message()
            await session.send(await message.receive())
    except trio.EndOfChannel:
        pass


@pytest.mark.parametrize(
    "handler", [echo, uses_channels, starts_tasks, pings, takes_pieces], ids=lambda one: one.__name__
)
@pytest.mark.parametrize("deflate", [False, True])
async def test_it_is_freed(handler: Handler, deflate: bool, alive: weakref.WeakSet[Any]) -> None:
    """On either end."""
    extensions = [PerMessageDeflate()] if deflate else []
    app = application(handler, extensions=extensions, ping_period=10 if handler is pings else None)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, app, 0, host="127.0.0.1"))
        for _ in range(2):
            async with connect(f"ws://127.0.0.1:{server.port}/", extensions=extensions) as session:
                await session.send("hello")
                await session.receive()
            del session
        await all_gone(server)
        left = list(alive)
        nursery.cancel_scope.cancel()
    assert left == []


@pytest.mark.parametrize("handler", [echo, uses_channels, starts_tasks], ids=lambda one: one.__name__)
async def test_it_is_freed_when_the_peer_is_gone(handler: Handler, alive: weakref.WeakSet[Any]) -> None:
    """Though the broken end has left the handler as an exception, whose traceback holds it."""
    async with talking(handler) as (client, server):
        await client.send(Frame.Text("hello"))
        await client.receive()
        await client.aclose()
        await all_gone(server)
        assert list(alive) == []


async def sends_on(session: WebSocketSession) -> None:
    """Until that fails."""
    await session.receive()
    while True:
        await session.send(b"x" * 1000)


async def notices(session: WebSocketSession) -> None:
    """That it is over, and makes nothing of it."""
    try:
        await echo(session)
    except ConnectionClosed:
        pass


@pytest.mark.parametrize("handler", [notices, uses_channels, sends_on], ids=lambda one: one.__name__)
@pytest.mark.parametrize("way", ["reset", "a violation", "an overflow"])
async def test_it_is_freed_whatever_broke_it(handler: Handler, way: str, alive: weakref.WeakSet[Any]) -> None:
    """The cause is kept, without the frames that it went through: they hold the connection."""
    incoming = ChannelConfig(1, CLOSE) if way == "an overflow" else ChannelConfig(64)
    async with talking(handler, incoming=incoming) as (client, server):
        await client.send(Frame.Text("hello"))
        await trio.testing.wait_all_tasks_blocked()
        if way == "reset":
            assert isinstance(client.stream, trio.SocketStream)
            await reset(client.stream)
        else:
            await client.stream.send_all(masked(0x83) if way == "a violation" else masked(0x81, b"x") * 100)
            with trio.fail_after(5):
                await client.receive_rest()
            await client.aclose()
        await all_gone(server)
        assert list(alive) == []


@pytest.mark.parametrize("way", ["send", "broadcast", "outgoing"])
async def test_it_is_freed_when_an_extension_has_failed(
    way: str, alive: weakref.WeakSet[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it raised has a traceback, too."""
    monkeypatch.setattr(logging.getLogger("trioktor.session"), "disabled", True)  # a record would keep it

    async def handler(session: WebSocketSession) -> None:
        try:
            if way == "send":
                await session.send("bad")
            elif way == "broadcast":
                await broadcast([session], "bad")
            else:
                await session.outgoing.send("bad")
        except RuntimeError:
            pass
        await notices(session)

    async with talking(handler, extensions=[Failing("error")]) as (client, server):
        with trio.fail_after(5):
            assert [close(1011)] == await client.receive_rest()
        await client.aclose()
        await all_gone(server)
        assert list(alive) == []


async def test_a_session_that_is_kept_keeps_it(alive: weakref.WeakSet[Any]) -> None:
    """And can be asked about it."""
    kept: list[WebSocketSession] = []

    async def handler(session: WebSocketSession) -> None:
        kept.append(session)
        await echo(session)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, application(handler), 0, host="127.0.0.1"))
        async with connect(f"ws://127.0.0.1:{server.port}/") as session:
            await session.send("hello")
        await trio.testing.wait_all_tasks_blocked()
        del session
        assert len(alive) == 1
        assert kept[0].close_reason is not None
        assert kept[0].statistics().frames_received == 2
        kept[0].close()
        kept[0].terminate()
        assert "CLOSED" in repr(kept[0])
        kept.clear()
        assert len(alive) == 0
        nursery.cancel_scope.cancel()
