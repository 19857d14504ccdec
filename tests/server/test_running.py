"""What is running on a server, and the end of a server that waits for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.helpers import application, close
from tests.support.listening import (
    MemoryListener,
    get,
    serving,
)
from trioktor import Application, Call, Server, WebSocketSession
from trioktor.server.running import Answering, Running

Clock = trio.testing.MockClock


async def echo(session: WebSocketSession) -> None:
    """Send back what comes."""
    async for frame in session:
        await session.send(frame)


# a server that waits


async def test_aclose_inside_a_handler_does_not_wait_for_that_handler(autojump_clock: Clock) -> None:
    """It would wait for itself. The others are gone when it returns."""
    servers: list[Server] = []
    after: list[int] = []

    async def handler(session: WebSocketSession) -> None:
        if session.call.query:
            await servers[0].aclose()
            after.append(len(servers[0].sessions))
        else:
            await echo(session)

    async with serving(application(handler)) as (server, connect):
        servers.append(server)
        other, client = await connect(), await connect()
        await other.upgrade()
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                assert await other.receive() == close(1001)
                await other.send(close(1001))

            nursery.start_soon(answer)
            await client.upgrade(b"/?stop")
            began = trio.current_time()
            assert await client.receive() == close(1000)  # of the handler's return: it is not closed by itself
            await client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert after == [1]
        assert trio.current_time() - began < 1
        assert server.sessions == ()
        await other.aclose()


def slow_page(body: Callable[[], Awaitable[object]]) -> Application:
    """An application with a page that takes its time."""
    app = application(echo)

    @app.get("/page")
    async def page(call: Call) -> str:
        await body()
        return "a page"

    return app


async def test_aclose_waits_for_get_handlers(autojump_clock: Clock) -> None:
    """Within `shutdown_grace`; their answer goes out."""
    listener = MemoryListener()
    async with serving(slow_page(partial(trio.sleep, 3)), listener, shutdown_grace=5) as (server, _):
        stream = await listener.connect()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert (await get(stream)).endswith(b"a page")

            nursery.start_soon(ask)
            await trio.sleep(1)
            await server.aclose()
            assert 3 <= trio.current_time() < 5


async def test_aclose_cancels_get_handlers_that_take_longer(autojump_clock: Clock) -> None:
    """Their clients are told that the server is shutting down."""
    listener = MemoryListener()
    async with serving(slow_page(trio.sleep_forever), listener, shutdown_grace=5) as (server, _):
        stream = await listener.connect()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                answer = await get(stream)
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert answer.endswith(b"the server is shutting down\n")

            nursery.start_soon(ask)
            await trio.sleep(1)
            await server.aclose()
            assert 6 <= trio.current_time() < 7


async def test_aclose_inside_a_get_handler_does_not_wait_for_itself(autojump_clock: Clock) -> None:
    """It would wait for ever; its own answer still goes out."""
    listener = MemoryListener()
    servers: list[Server] = []

    async def close() -> None:
        await servers[0].aclose()

    async with serving(slow_page(close), listener) as (server, _):
        servers.append(server)
        assert (await get(await listener.connect())).endswith(b"a page")


# by itself


class Fake:
    """All that is asked of a connection here: the task that its handler runs in."""

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()


async def in_a_task(nursery: trio.Nursery, running: Running, path: str | None = None) -> Any:
    """A connection, or a GET handler of a path, that runs in a task of its own, for ever."""

    async def run(task_status: trio.TaskStatus[Any]) -> None:
        if path is None:
            connection: Any = Fake()
            running.add(connection)
            try:
                task_status.started(connection)
                await trio.sleep_forever()
            finally:
                running.discard(connection)
        else:
            with running.answering(path) as scope, scope:
                task_status.started(scope)
                await trio.sleep_forever()

    return await nursery.start(run)


async def test_everything_that_runs_is_among_the_others_of_a_stranger() -> None:
    """Connections and GET handlers; but only connections are connections."""
    running = Running()
    async with trio.open_nursery() as nursery:
        connection = await in_a_task(nursery, running)
        await in_a_task(nursery, running, "/page")
        assert running.conversing == running.connections() == {connection}
        [answering] = running.others() - {connection}
        assert isinstance(answering, Answering)
        assert repr(answering) == "Answering(path='/page')"
        nursery.cancel_scope.cancel()
    assert running.conversing == running.connections() == running.others() == set()


async def test_who_asks_is_not_among_the_others() -> None:
    """Nor are those that it was started below: their end would wait for its own."""
    running = Running()
    mine: Any = Fake()
    running.add(mine)
    seen: list[object] = []

    async def below() -> None:
        seen.append((running.connections(), running.others()))
        await trio.lowlevel.checkpoint()

    with running.answering("/page"):
        async with trio.open_nursery() as nursery:
            other = await in_a_task(nursery, running)
            await below()
            nursery.start_soon(below)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert seen == [({other}, {other})] * 2
    assert running.conversing == {mine}


async def test_a_connection_that_ended_may_be_discarded_again() -> None:
    """It just does not run."""
    running = Running()
    connection: Any = Fake()
    running.add(connection)
    running.discard(connection)
    running.discard(connection)
    assert running.conversing == set()


async def test_get_handlers_are_cancelled_but_for_the_one_that_asks() -> None:
    """Each by its own scope; connections are not."""
    running = Running()
    async with trio.open_nursery() as nursery:
        scopes = [await in_a_task(nursery, running, "/page") for _ in range(2)]
        connection = await in_a_task(nursery, running)
        with running.answering("/stop") as mine, mine:
            running.cancel_answering()
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert [scope.cancelled_caught for scope in scopes] == [True, True]
        assert not mine.cancel_called
        assert running.others() == {connection}
        nursery.cancel_scope.cancel()


async def test_a_get_handler_that_fails_is_gone() -> None:
    """What it raises comes out as itself."""
    running = Running()
    with pytest.raises(ZeroDivisionError), running.answering("/page"):
        raise ZeroDivisionError
    await running.wait_gone(running.others())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.wait_gone, running.others())


async def test_who_waits_for_some_waits_for_all_of_these_and_for_no_others() -> None:
    """Whichever goes first; who comes meanwhile is not waited for."""
    running = Running()
    order: list[str] = []
    connections: list[Any] = [Fake(), Fake(), Fake()]
    for connection in connections[:2]:
        running.add(connection)

    async def wait() -> None:
        await running.wait_gone(connections[:2])
        order.append("gone")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        running.add(connections[2])
        for connection in connections[1::-1]:
            order.append("one less")
            running.discard(connection)
            await trio.testing.wait_all_tasks_blocked()
    assert order == ["one less", "one less", "gone", "gone"]
    assert running.conversing == {connections[2]}


async def test_the_end_of_a_get_handler_is_waited_for_too() -> None:
    """As of a connection."""
    running = Running()
    async with trio.open_nursery() as nursery:
        scope = await in_a_task(nursery, running, "/page")
        waited = trio.Event()

        async def wait() -> None:
            await running.wait_gone(running.others())
            waited.set()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not waited.is_set()
        scope.cancel()
        await waited.wait()


async def test_waiting_for_nobody_is_a_checkpoint() -> None:
    """And a cancelled wait leaves everybody running."""
    running = Running()
    with trio.testing.assert_checkpoints():
        await running.wait_gone([])
    connection: Any = Fake()
    running.add(connection)
    with trio.move_on_after(0) as scope:
        await running.wait_gone([connection])
    assert scope.cancelled_caught
    assert running.conversing == {connection}
