"""The life of a connection round a handler, and round a block: what it ends with, and what is raised behind it."""

from __future__ import annotations

import sys
import types
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import close, converse
from tests.support.interrupts import ctrl_c_at, ctrl_c_felt
from tests.support.plain_transport import PlainTransport
from trioktor import Frame, WebSockets
from trioktor.engine.connection import Connection
from trioktor.engine.lifetime import FirstWait, Lifetime, hold
from trioktor.engine.outcome import first_leaf

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


def server(transport: PlainTransport, failures: list[Exception] | None = None, **options: Any) -> Connection:
    """A connection of a server's."""
    kept: list[Exception] = [] if failures is None else failures
    return Connection(transport, WebSockets(close_timeout=10), on_failure=kept.append, **options)


def client(transport: PlainTransport, failures: list[Exception]) -> Connection:
    """A connection of a client's."""
    return Connection(transport, WebSockets(), client=True, on_failure=failures.append)


async def outcome(work: Callable[[], Awaitable[object]]) -> BaseException | None:
    """What something raises."""
    try:
        await work()
    except BaseException as error:
        return error
    return None


def assert_over(connection: Connection, transport: PlainTransport, code: int) -> None:
    """Nothing is left, and the peer was told."""
    assert transport.is_closed
    assert connection.ending.is_closed
    assert connection.nursery is None
    assert connection.closing.sent is not None
    assert connection.closing.sent.code == code
    assert transport.frames[-1] == close(code)
    assert connection.owner is connection


# round a handler


async def forever(_: object) -> None:
    """A handler that does not return."""
    await trio.sleep_forever()


async def nothing(_: object) -> None:
    """A handler that returns."""


async def test_what_begins_and_fails_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Neither a scope, which the next one outside would find, nor the stream."""
    transport, error = PlainTransport(), ZeroDivisionError()
    connection = server(transport)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(connection.reader.__class__, "start", fail)
    before = trio.lowlevel.current_task().child_nurseries
    with trio.CancelScope():
        raised = await outcome(lambda: converse(connection, nothing))
    assert raised is not None
    assert first_leaf(raised) is error
    assert transport.is_closed
    assert trio.lowlevel.current_task().child_nurseries == before


@pytest.mark.parametrize("is_failing", [True, False])
@pytest.mark.parametrize("place", range(1, 30))
def test_ctrl_c_is_not_felt_half_way_in_or_out(place: int, is_failing: bool) -> None:
    """Whichever line it comes at: all is closed, and the interrupt comes out behind that."""
    failures, transport, came = list[Exception](), PlainTransport(), list[int]()

    async def main() -> None:
        connection = server(transport, failures)
        with ctrl_c_at(place, Lifetime.__aenter__, Lifetime.__aexit__, Lifetime._leave) as found:
            try:
                async with Lifetime(connection):
                    if is_failing:
                        raise MINE
            finally:
                came.extend(found)
                assert connection.ending.is_closed
                assert trio.lowlevel.current_task().child_nurseries == []
        await trio.lowlevel.checkpoint()

    raised: BaseException | None = None
    with ctrl_c_felt():
        try:
            trio.run(main)
        except BaseException as error:
            raised = error
    assert (raised is None) == (came == [])
    assert raised is None or isinstance(first_leaf(raised), KeyboardInterrupt)
    assert failures == [MINE] * is_failing
    assert transport.is_closed


async def test_a_handler_that_returns_is_seen_out(autojump_clock: MockClock) -> None:
    """It is given the owner; the end waits for the peer's answer, and the owner is let go."""
    transport = PlainTransport(answers=False)
    connection = server(transport)
    connection.owner = session = object()
    seen: list[object] = []

    async def handler(owner: object) -> None:
        seen.append(owner)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse, connection, handler)
        await trio.sleep(3)
        assert (transport.frames, transport.is_closed) == ([close(1000)], False)
        transport.say(close(1000))
    assert trio.current_time() == pytest.approx(3, abs=0.1)
    assert seen == [session]
    assert_over(connection, transport, 1000)


async def test_the_conversation_goes_on_behind_the_peers_goodbye_until_the_handler_returns(
    autojump_clock: MockClock,
) -> None:
    """Both have to be over; the stream is closed before that."""
    transport = PlainTransport(answers=False)
    connection = server(transport)

    async def handler(_: object) -> None:
        await connection.ending.wait_closed()
        assert transport.is_closed
        await trio.sleep(2)

    transport.say(close(4000))
    await converse(connection, handler)
    assert trio.current_time() == pytest.approx(2, abs=0.1)
    assert_over(connection, transport, 4000)


async def test_what_a_handler_raises_is_told_and_not_raised(autojump_clock: MockClock) -> None:
    """It goes to `on_failure`."""
    transport, failures, error = PlainTransport(), list[Exception](), KeyError("mine")
    connection = server(transport, failures)

    async def handler(_: object) -> None:
        await trio.sleep(1)
        raise error

    await converse(connection, handler)
    assert failures == [error]
    assert_over(connection, transport, 1011)


@pytest.mark.parametrize("error", [KeyboardInterrupt("mine"), SystemExit(3)])
async def test_what_is_no_exception_is_raised_behind_the_goodbye(
    error: BaseException, autojump_clock: MockClock
) -> None:
    """That is short, and the stream is closed."""
    transport, failures = PlainTransport(answers=False), list[Exception]()
    connection = server(transport, failures)

    async def handler(_: object) -> None:
        raise error

    raised = await outcome(lambda: converse(connection, handler))
    assert raised is not None
    assert first_leaf(raised) is error
    assert failures == []
    assert trio.current_time() <= 1.1
    assert_over(connection, transport, 1001)


async def test_a_cancellation_is_a_short_goodbye(autojump_clock: MockClock) -> None:
    """Though the peer does not answer; it passes through."""
    transport = PlainTransport(answers=False)
    connection = server(transport)
    with trio.move_on_after(5) as scope:
        await converse(connection, forever)
    assert scope.cancelled_caught
    assert 5 <= trio.current_time() <= 6.1
    assert_over(connection, transport, 1001)


async def test_a_cancellation_while_it_is_seen_out_makes_that_short(autojump_clock: MockClock) -> None:
    """What was said is said."""
    transport = PlainTransport(answers=False)
    connection = server(transport)
    with trio.move_on_after(2) as scope:
        await converse(connection, nothing)
    assert scope.cancelled_caught
    assert 2 <= trio.current_time() <= 3.1
    assert_over(connection, transport, 1000)


@pytest.mark.parametrize("way", ["returns", "raises", "waits", "leaves a task"])
async def test_the_answer_to_the_handshake_goes_out_first(way: str, autojump_clock: MockClock) -> None:
    """When the handler waits for the first time, or ends without that; whatever its tasks still do."""
    transport = PlainTransport()
    connection = server(transport, response=lambda: ANSWER)
    seen: list[bytes] = []

    async def look() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
            seen.append(transport.written)

    async def handler(_: object) -> None:
        assert transport.written == b""
        if way == "raises":
            raise KeyError("mine")
        if way == "waits":
            await look()
        if way == "leaves a task":
            connection.start_soon(look, ())

    await converse(connection, handler)
    assert seen == ([ANSWER] if way in ("waits", "leaves a task") else [])
    assert transport.written.startswith(ANSWER)
    assert_over(connection, transport, 1011 if way == "raises" else 1000)


# round a block


async def test_the_conversation_goes_on_while_the_block_does(autojump_clock: MockClock) -> None:
    """And is over when it has been left."""
    transport, failures = PlainTransport(client=True), list[Exception]()
    connection = client(transport, failures)
    connection.owner = object()
    async with hold(connection, failures):
        transport.say(Frame.Text("hello"))
        assert await connection.inbox.receive() == Frame.Text("hello")
        assert not transport.is_closed
    assert_over(connection, transport, 1000)


Error = BaseException
MINE, TASKS = ValueError("mine"), KeyError("a task's")


@pytest.mark.parametrize(
    ("block", "task", "expected"),
    [
        (MINE, None, MINE),
        (None, TASKS, TASKS),
        (SystemExit(3), None, SystemExit),
        (None, SystemExit(3), SystemExit),
        (MINE, TASKS, ExceptionGroup),
        (SystemExit(3), TASKS, BaseExceptionGroup),
    ],
)
async def test_what_is_raised_in_the_block_or_a_task_comes_out(
    block: Error | None, task: Error | None, expected: Any, autojump_clock: MockClock
) -> None:
    """As itself, if it came alone; a group of several hides none of them."""
    transport, failures = PlainTransport(client=True), list[Exception]()
    connection = client(transport, failures)

    async def fails(error: BaseException) -> None:
        raise error

    async def holds() -> None:
        async with hold(connection, failures):
            if task is not None:
                connection.start_soon(fails, (task,))
            if block is None:
                await trio.sleep_forever()
            try:
                await trio.sleep(1)
            finally:
                raise block

    raised = await outcome(holds)
    if isinstance(expected, type):
        assert type(raised) is expected
    else:
        assert raised is expected
    if isinstance(raised, BaseExceptionGroup):
        assert set(raised.exceptions) == {block, task}
    assert transport.is_closed
    assert isinstance(transport.frames[-1], Frame.Close)
    assert connection.owner is connection


@pytest.mark.parametrize("is_block", [True, False])
async def test_an_interrupt_behind_a_failure_makes_the_end_short(is_block: bool, autojump_clock: MockClock) -> None:
    """The handler, or the block, was cancelled for a task's failure by then; the peer does not answer."""
    transport, failures = PlainTransport(answers=False, client=is_block), list[Exception]()
    connection = client(transport, failures) if is_block else server(transport, failures)

    async def fails() -> None:
        raise TASKS

    async def exits(_: object = None) -> None:
        connection.start_soon(fails, ())
        try:
            await trio.sleep_forever()
        finally:
            raise SystemExit(3)

    async def holds() -> None:
        async with hold(connection, failures):
            await exits()

    raised = await outcome(holds if is_block else lambda: converse(connection, exits))
    assert isinstance(raised, BaseExceptionGroup)
    assert raised.split(SystemExit)[0] is not None
    assert failures == [TASKS]
    assert trio.current_time() <= 1.1
    assert_over(connection, transport, 1011)


@pytest.mark.parametrize("way", ["block", "task", "interrupt"])
async def test_what_an_exception_came_of_stands_behind_it(way: str, autojump_clock: MockClock) -> None:
    """Not the cancellation of the block by it."""
    transport, failures = PlainTransport(client=True), list[Exception]()
    connection = client(transport, failures)
    context = LookupError("before")

    async def fails() -> None:
        try:
            raise context
        except LookupError:
            raise KeyboardInterrupt if way == "interrupt" else ValueError("mine")  # noqa: B904

    async def holds() -> None:
        async with hold(connection, failures):
            if way == "task":
                connection.start_soon(fails, ())
                await trio.sleep_forever()
            await fails()

    raised = await outcome(holds)
    assert raised is not None
    assert raised.__context__ is context
    assert not raised.__suppress_context__


async def test_a_cancellation_of_the_block_passes_through(autojump_clock: MockClock) -> None:
    """Behind a short goodbye."""
    transport, failures = PlainTransport(answers=False, client=True), list[Exception]()
    connection = client(transport, failures)
    with trio.move_on_after(5) as scope:
        async with hold(connection, failures):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert 5 <= trio.current_time() <= 6.1
    assert_over(connection, transport, 1001)


@pytest.mark.parametrize("is_block", [True, False])
async def test_a_failure_is_not_hidden_by_a_cancellation(is_block: bool, autojump_clock: MockClock) -> None:
    """Of the block while it cleans up, nor of a task."""
    transport, failures = PlainTransport(client=True), list[Exception]()
    connection = client(transport, failures)

    async def cleans_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise MINE

    async def holds() -> None:
        with trio.move_on_after(1):
            async with hold(connection, failures):
                if is_block:
                    await cleans_up()
                connection.start_soon(cleans_up, ())
                await trio.sleep_forever()

    assert await outcome(holds) is MINE
    assert transport.is_closed


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
async def test_a_cause_is_kept(kind: type[BaseException], autojump_clock: MockClock) -> None:
    """Of whatever is raised."""
    cause = KeyError("the cause")
    failures: list[Exception] = []
    connection = client(PlainTransport(client=True), failures)

    async def holds() -> None:
        async with hold(connection, failures):
            raise kind from cause

    raised = await outcome(holds)
    assert type(raised) is kind
    assert raised.__cause__ is cause


# the first wait


@types.coroutine
def trap(value: object) -> Any:
    """Give a value to whoever steps the coroutine; returns what is sent back."""
    return (yield value)


async def test_then_is_called_in_the_step_of_the_first_wait() -> None:
    """Before any other task runs, and once."""
    seen: list[str] = []

    async def waits() -> None:
        nursery.start_soon(other)
        seen.append("runs")
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        seen.append("returns")

    async def other() -> None:
        seen.append("other")

    async with trio.open_nursery() as nursery:
        await FirstWait(waits(), lambda: seen.append("then"))
    assert seen == ["runs", "then", "other", "returns"]


@pytest.mark.parametrize("error", [None, KeyError("mine")])
async def test_who_never_waits_calls_nothing(error: Exception | None) -> None:
    """Whether it returns or raises."""
    called: list[str] = []

    async def ends() -> None:
        if error is not None:
            raise error

    if error is None:
        await FirstWait(ends(), lambda: called.append("then"))
    else:
        with pytest.raises(KeyError, match="mine"):
            await FirstWait(ends(), lambda: called.append("then"))
    assert called == []


def test_what_is_yielded_and_sent_passes_as_it_is() -> None:
    """Also None, which a generator is sent by another way; and `then` is not called again."""
    calls: list[str] = []
    got: list[object] = []

    async def inner() -> None:
        for number in range(3):
            got.append(await trap(number))

    async def outer() -> str:
        await FirstWait(inner(), lambda: calls.append("then"))
        return "done"

    coroutine = outer()
    assert coroutine.send(None) == 0
    assert calls == ["then"]
    assert coroutine.send(None) == 1
    assert coroutine.send("value") == 2
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    assert stop.value.value == "done"
    assert got == [None, "value", None]
    assert calls == ["then"]


def test_an_error_is_thrown_in_where_it_waits() -> None:
    """It may be caught there, and the coroutine goes on."""
    seen: list[str] = []

    async def inner() -> None:
        try:
            await trap("first")
        except KeyError:
            seen.append("caught")
        await trap("second")

    waiting = FirstWait(inner(), lambda: seen.append("then"))
    assert next(waiting) == "first"
    assert waiting.throw(KeyError("mine")) == "second"
    with pytest.raises(ValueError, match="not mine"):
        waiting.throw(ValueError("not mine"))
    assert seen == ["then", "caught"]


def test_closed_it_goes_on_no_more() -> None:
    """What has to be cleaned up is."""
    seen: list[str] = []

    async def inner() -> None:
        try:
            await trap("first")
            seen.append("went on")
        finally:
            seen.append("cleaned up")

    waiting = FirstWait(inner(), lambda: None)
    next(waiting)
    waiting.close()
    assert seen == ["cleaned up"]
    with pytest.raises(RuntimeError, match="reuse"):
        waiting.send(None)


class Waits:
    """No coroutine."""

    def __await__(self) -> Any:
        """Wait once."""
        yield from trio.lowlevel.checkpoint().__await__()  # noqa: ASYNC105


@types.coroutine
def generator() -> Any:
    """A coroutine of the old kind."""
    yield from trio.lowlevel.checkpoint().__await__()  # noqa: ASYNC105


@pytest.mark.parametrize("make", [Waits, generator, trio.lowlevel.checkpoint])
async def test_whatever_can_be_awaited_will_do(make: Callable[[], Awaitable[object]]) -> None:
    """And its first wait is seen."""
    called: list[str] = []
    await FirstWait(make(), lambda: called.append("then"))
    assert called == ["then"]


# what walks along the stack


async def test_the_stack_of_a_task_can_be_seen_through_it() -> None:
    """By whoever walks along it, as for a dump of one that hangs."""
    names: list[str] = []

    async def inner() -> None:
        nursery.start_soon(look, trio.lowlevel.current_task())
        await trio.testing.wait_all_tasks_blocked()

    async def outer() -> None:
        await inner()

    async def look(task: trio.lowlevel.Task) -> None:
        names.extend(frame.f_code.co_name for frame, _ in task.iter_await_frames())

    async with trio.open_nursery() as nursery:
        await FirstWait(outer(), lambda: None)
    where = names.index("outer")
    assert names[where : where + 2] == ["outer", "inner"]


def test_the_frame_and_what_is_awaited_are_the_coroutines_own() -> None:
    """Until it has ended: then there is none."""

    async def inner() -> None:
        await trap("first")

    coroutine: Any = inner()
    waiting: Any = FirstWait(coroutine, lambda: None)
    seen = [(waiting.cr_frame is coroutine.cr_frame, waiting.cr_await)]
    next(waiting)
    seen.append((waiting.cr_frame is coroutine.cr_frame, waiting.cr_await))
    assert seen == [(True, None), (True, coroutine.cr_await)]
    assert seen[1][1] is not None
    with pytest.raises(StopIteration):
        waiting.send(None)
    assert (waiting.cr_frame, waiting.cr_await) == (None, None)


async def test_nothing_stands_between_trio_and_the_coroutine_later() -> None:
    """No frame of ours, in which Ctrl-C could end its steps half-way."""
    callers: list[str] = []

    async def waits() -> None:
        for _ in range(3):
            frame = sys._getframe().f_back
            assert frame is not None
            callers.append(frame.f_code.co_name)
            await trio.lowlevel.checkpoint()

    async def runs() -> None:
        await FirstWait(waits(), lambda: None)

    await runs()
    assert callers == ["__next__", "runs", "runs"]
