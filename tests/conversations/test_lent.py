"""Waits for the peer while the socket is lent: whoever waits hears of it at once, whatever the handler does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.helpers import RawClient, close
from tests.support.lent import ask, connected, echo, lending_of
from tests.support.listening import talking
from trioktor import CLOSE, ChannelConfig, Frame, FrameType, Server, WebSocketSession as Session
from trioktor.engine import lending as lending_module, polled_reader as reader_module
from trioktor.engine.poller import Poller

Clock = trio.testing.MockClock

pytestmark = pytest.mark.skipif(not Poller.is_possible(), reason="the system has no epoll")

AT_ONCE = lending_module._LOOK / 2
"""Seconds: before any look."""


async def chat(client: RawClient) -> None:
    """Talk for so long that the next look is far away, and came just now."""
    for _ in range(40):
        await ask(client, "hello")
        await trio.sleep(0.03)


@asynccontextmanager
async def after_a_chat(
    then: Callable[[Session], Awaitable[object]], **settings: Any
) -> AsyncIterator[tuple[RawClient, Server, float]]:
    """A handler that does this at the word "now", which was just said, and when that was."""

    async def handler(session: Session) -> None:
        async for frame in session:
            if frame == Frame.Text("now"):
                await then(session)
                return
            await session.send(frame)

    async with talking(handler, **settings) as (client, server):
        await chat(client)
        (lease,) = lending_of(server).leases
        assert lease.is_waiting
        await client.send(Frame.Text("now"))
        await trio.testing.wait_all_tasks_blocked()
        yield client, server, trio.current_time()


async def test_the_answer_to_our_close_is_read_at_once(autojump_clock: Clock) -> None:
    """The handler has returned, and nobody is in `receive`."""

    async def leave(session: Session) -> None:
        await trio.lowlevel.checkpoint()

    async with after_a_chat(leave) as (client, _, began):
        assert close(1000) == await client.receive()
        await client.send(close(1000))
        assert [] == await client.receive_rest()
        assert trio.current_time() - began < AT_ONCE


@pytest.mark.parametrize("other_receives", [False, True])
async def test_a_pong_is_read_at_once(other_receives: bool, autojump_clock: Clock) -> None:
    """Also where a task is in `receive` when the Ping is sent, and takes a message before the Pong."""

    async def receive_one(session: Session) -> None:
        await session.receive()
        await trio.sleep(100)

    async def ping(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            if other_receives:
                nursery.start_soon(receive_one, session)
                await trio.testing.wait_all_tasks_blocked()
                assert session._connection.inbox.takers.lease is not None
            assert await session.ping(b"?") < AT_ONCE
            await session.send("done")
            nursery.cancel_scope.cancel()

    async with after_a_chat(ping) as (client, _, began):
        assert Frame.Ping(b"?") == await client.receive()
        await client.send(Frame.Text("in between"))
        await trio.testing.wait_all_tasks_blocked()
        await client.send(Frame.Pong(b"?"))
        assert Frame.Text("done") == await client.receive()
        assert trio.current_time() - began < AT_ONCE


@pytest.mark.parametrize("way", ["send", "flush", "message"])
async def test_a_peer_that_writes_before_it_reads_is_read_at_once(way: str, autojump_clock: Clock) -> None:
    """It goes on only when we read, and we only when it reads."""
    long = bytes(10_000_000)

    async def say(session: Session) -> None:
        if way == "message":
            async with session.message(FrameType.BINARY) as message:
                await message.send(long)
                await message.send(long)
            return
        await session.send(long)
        if way == "flush":
            await session.flush()
        else:
            await session.send(long)

    async with after_a_chat(say, max_queued_bytes=1 << 20) as (client, server, began):
        assert lending_of(server).leases == []
        await client.send(Frame.Ping(b"?"))
        await trio.testing.wait_all_tasks_blocked()
        (session,) = server.sessions
        assert session._connection.conversation.has_control  # the Pong, which was owed when the Ping was read
        assert trio.current_time() - began < AT_ONCE


async def test_while_a_ping_is_out_nothing_is_lent(autojump_clock: Clock) -> None:
    """Or its Pong might wait for the handler; and behind the Pong it is again."""

    async def handler(session: Session) -> None:
        session.start_soon(session.ping, b"?")
        await echo(session)

    async with talking(handler) as (client, server):
        assert Frame.Ping(b"?") == await client.receive()
        for _ in range(3 * reader_module._OFTEN):
            assert lending_of(server).leases == []
            await ask(client, "alone")
        await client.send(Frame.Pong(b"?"))
        for _ in range(3 * reader_module._OFTEN):
            await ask(client, "alone")
        assert len(lending_of(server).leases) == 1


async def test_a_peer_that_answers_is_not_given_up(autojump_clock: Clock) -> None:
    """Whatever the handler does meanwhile, and however short the time for a Pong is."""

    async def work(session: Session) -> None:
        session.ping_interval, session.timeout = 0.02, 0.01
        await trio.sleep(3)
        await session.send("done")

    async with after_a_chat(work) as (client, _, _):
        pings = 0
        while isinstance(frame := await client.receive(), Frame.Ping):
            await client.send(Frame.Pong(frame.data))
            pings += 1
        assert frame == Frame.Text("done")
        assert pings > 100


async def test_who_waits_for_the_end_hears_of_it_at_once(autojump_clock: Clock) -> None:
    """The peer's Close is read, and its Ping answered."""
    ends: list[float] = []

    async def wait(session: Session) -> None:
        await session.wait_closed()
        ends.append(trio.current_time())

    async with after_a_chat(wait, answer_grace=0) as (client, _, began):
        await client.send(Frame.Ping(b"?"))
        assert Frame.Pong(b"?") == await client.receive()
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()
        await trio.testing.wait_all_tasks_blocked()
        assert ends[0] - began < AT_ONCE


async def test_each_who_waits_for_the_end_hears_of_it_at_once(autojump_clock: Clock) -> None:
    """Also one who waited before, and was cancelled; a wait that is over holds nothing."""

    async def wait(session: Session) -> None:
        with trio.move_on_after(1):
            await session.wait_closed()
        for _ in range(80):
            await session.send(await session.receive())
        await session.wait_closed()

    async with after_a_chat(wait) as (client, server, _):
        await trio.sleep(2)
        await chat(client)
        assert len(lending_of(server).leases) == 1
        await chat(client)
        began = trio.current_time()
        assert lending_of(server).leases == []  # it waits again
        await client.send(Frame.Ping(b"?"))
        assert Frame.Pong(b"?") == await client.receive()
        assert trio.current_time() - began < AT_ONCE


async def test_a_pinger_that_was_stopped_waits_for_nothing(autojump_clock: Clock) -> None:
    """Though its last Ping was not answered."""

    async def handler(session: Session) -> None:
        session.ping_interval = 1
        await trio.sleep(1.5)
        session.ping_interval = None
        await echo(session)

    async with talking(handler) as (client, server):
        assert isinstance(await client.receive(), Frame.Ping)
        await trio.sleep(1)
        await chat(client)
        assert len(lending_of(server).leases) == 1


async def test_those_who_have_become_silent_make_room(autojump_clock: Clock) -> None:
    """As soon as another asks, and somebody has looked."""

    async with talking(echo) as (first, server), AsyncExitStack() as stack:
        clients = [first, *[await connected(server, stack) for _ in range(8)]]
        for client in clients[:8]:
            await ask(client, "and nothing more")
        await trio.sleep(10)
        held = list(lending_of(server).leases)
        assert len(held) == 8
        await chat(clients[8])
        assert len(lending_of(server).leases) == 8
        assert lending_of(server).leases[:7] == held[1:]


async def test_a_new_connection_is_looked_at_soon_though_others_are_not(autojump_clock: Clock) -> None:
    """How its handler does it is not known yet."""

    async def handler(session: Session) -> None:
        if session.call.query:
            await trio.sleep(100)
        await echo(session)

    async with talking(handler) as (first, server), AsyncExitStack() as stack:
        await chat(first)
        await ask(first, "and the look is expected")
        second = await connected(server, stack, b"/?receive=never")
        began = trio.current_time()
        await second.send(Frame.Ping(b"?"))
        assert Frame.Pong(b"?") == await second.receive()
        assert 0 < trio.current_time() - began < 2 * lending_module._LOOK


@pytest.mark.parametrize("is_lent", [True, False])
async def test_one_message_for_who_waits_always_passes(
    is_lent: bool, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it is, where too much is the end; what comes with it is counted."""
    if not is_lent:
        monkeypatch.setattr(lending_module, "_MOST", 0)
    sizes: list[int] = []

    async def handler(session: Session) -> None:
        async for frame in session:
            sizes.append(len(frame.data))
            await trio.sleep(1)

    for more, code in (([90], 1000), ([90, 20], 1008)):
        sizes.clear()
        async with talking(handler, incoming=ChannelConfig(5, CLOSE), max_queued_bytes=100) as (client, server):
            assert len(lending_of(server).leases) == is_lent
            messages = [Frame.Binary(bytes(size)) for size in (150, *more)]
            await client.send(*messages, *([close(1000)] if code == 1000 else []))
            rest = await client.receive_rest()
            assert isinstance(rest[-1], Frame.Close)
            assert code == int.from_bytes(rest[-1].data[:2])
            await trio.sleep(3)
        assert sizes == [150, *more]
