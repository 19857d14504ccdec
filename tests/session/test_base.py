"""What every session has beside its channel: its end, its tasks, its settings, and what it shows of itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.carriers import over_bytes
from tests.support.doors import LITTLE, PEER, Door, asking
from tests.support.helpers import application, close, connected, connected_raw
from tests.support.slow import stuck
from trioktor import (
    CloseReason,
    ConnectionBroken,
    ConnectionClosed,
    Extension,
    Frame,
    NotSupported,
    PerMessageDeflate,
    RawWebSocketSession,
    WebSocketSession,
)
from trioktor.server.foreign import ForeignHost
from trioktor.testing import handle_websocket_conversation

Clock = MockClock


async def stay(session: WebSocketSession) -> None:
    """Take what comes."""
    async for _ in session:
        pass


# the end


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), close(1000)),
        ((1001,), close(1001)),
        ((4000, "mine"), close(4000, "mine")),
        ((CloseReason(1012, "back soon"),), close(1012, "back soon")),
        ((CloseReason.Codes.GOING_AWAY, "x" * 123), close(1001, "x" * 123)),
    ],
)
@pytest.mark.parametrize("way", ["close", "aclose"])
async def test_a_close_says_what_it_was_given(
    way: str, arguments: tuple[Any, ...], expected: Frame, autojump_clock: Clock
) -> None:
    """A code, with a message or without, or a whole reason; behind what is queued."""

    async def handler(session: WebSocketSession) -> None:
        await session.send("first")
        if way == "close":
            session.close(*arguments)
        else:
            await session.aclose(*arguments)

    async with connected(handler) as (client, _):
        assert [await client.receive() for _ in range(2)] == [Frame.Text("first"), expected]
        await client.send(close(1000))
        assert await client.receive() is None


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ((1005,), ValueError),
        ((1006,), ValueError),
        ((1015,), ValueError),
        ((1004,), ValueError),
        ((999,), ValueError),
        ((2999,), ValueError),
        ((5000,), ValueError),
        ((CloseReason(1006),), ValueError),
        ((1000, "x" * 124), ValueError),
        ((CloseReason(1000), "twice"), TypeError),
        (("bye",), TypeError),
    ],
    ids=repr,
)
@pytest.mark.parametrize("way", ["close", "aclose"])
async def test_a_close_that_may_not_be_sent_is_refused_and_changes_nothing(
    way: str, arguments: tuple[Any, ...], kind: type[Exception], autojump_clock: Clock
) -> None:
    """The conversation goes on."""

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises(kind):
            await session.aclose(*arguments) if way == "aclose" else session.close(*arguments)
        await session.send("as before")

    async with connected(handler) as (client, _):
        assert [await client.receive() for _ in range(2)] == [Frame.Text("as before"), close(1000)]


async def test_of_several_closes_the_first_counts(autojump_clock: Clock) -> None:
    """The others are no errors."""

    async def handler(session: WebSocketSession) -> None:
        session.close(4000)
        session.close(4001)
        await session.send(Frame.Close(CloseReason(4002)))

    async with connected(handler) as (client, _):
        assert await client.receive() == close(4000)
        await client.send(close(4000))
        assert await client.receive() is None


async def test_awaiting_close_says_what_to_write(autojump_clock: Clock) -> None:
    """As Ktor's users would; what it returns is as good as None otherwise."""

    async def handler(session: WebSocketSession) -> None:
        returned: Any = session.close()  # type: ignore[func-returns-value]
        assert not returned
        with pytest.raises(TypeError, match=r"await session\.aclose\(\)"):
            await returned

    async with connected(handler) as (client, _):
        assert await client.receive() == close(1000)


async def test_only_a_function_can_be_started(autojump_clock: Clock) -> None:
    """What was called already is refused where it was written, and nothing warns of it later."""

    async def handler(session: WebSocketSession) -> None:
        given: Any
        for given in (session.send("called already"), 5, None):
            with pytest.raises(TypeError, match="start_soon takes an async function"):
                session.start_soon(given)

    async with connected(handler) as (client, _):
        assert await client.receive() == close(1000)


async def test_aclose_waits_for_the_peer_and_its_stream(autojump_clock: Clock) -> None:
    """As long as `close_timeout`, counted from our Close."""
    waited: list[float] = []

    async def handler(session: WebSocketSession) -> None:
        began = trio.current_time()
        await session.aclose()
        waited.append(trio.current_time() - began)

    for answers, expected in ((True, 2), (False, 7)):
        async with connected(handler, close_timeout=7, handler_grace=None) as (client, _):
            assert await client.receive() == close(1000)
            await trio.sleep(2)
            if answers:
                await client.send(close(1000))
            await client.receive_rest()
        assert waited.pop() == pytest.approx(expected)


async def test_aclose_is_a_checkpoint_when_all_is_over(autojump_clock: Clock) -> None:
    """So is waiting for the end, and a flush."""

    async def handler(session: WebSocketSession) -> None:
        await session.aclose(4000)
        for call in (session.aclose, session.wait_closed, session.flush):
            with trio.testing.assert_checkpoints():
                await call()

    async with connected(handler, handler_grace=None) as (client, _):
        await client.send(close(1000))
        await client.receive_rest()


async def test_what_ended_the_conversation_is_what_is_waited_for(autojump_clock: Clock) -> None:
    """And stays to be seen: who said what, before and behind the end."""
    seen: list[object] = []

    def note(session: WebSocketSession) -> None:
        seen.append((session.close_reason, session.close_sent, session.close_received))

    async def handler(session: WebSocketSession) -> None:
        note(session)
        session.close(4000, "ours")
        note(session)
        await session.flush()
        note(session)
        assert await session.wait_closed() == CloseReason(4000, "ours")
        note(session)

    async with connected(handler, handler_grace=None) as (client, sessions):
        await client.receive()
        await client.send(close(4000, "theirs"))
        await client.receive_rest()
    ours, theirs = CloseReason(4000, "ours"), CloseReason(4000, "theirs")
    assert seen[:1] == [(None, None, None)]
    assert seen[2:] == [(ours, ours, None), (ours, ours, theirs)]
    assert sessions[0].close_reason == ours


@pytest.mark.parametrize(
    ("says", "reason", "received"),
    [
        (Frame.Close(None), CloseReason(1005), CloseReason(1005)),
        (close(1001, "away"), CloseReason(1001, "away"), CloseReason(1001, "away")),
        (None, CloseReason(1006), None),
    ],
    ids=["empty", "with a code", "none"],
)
async def test_a_peer_that_ends_it_is_told_from_one_that_is_gone(
    says: Frame | None, reason: CloseReason, received: CloseReason | None, autojump_clock: Clock
) -> None:
    """No Close at all is 1006, and was not received."""
    seen: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        seen.append(await session.wait_closed())

    async with connected(handler, handler_grace=None) as (client, sessions):
        if says is None:
            await client.aclose()
            await trio.sleep(1)
        else:
            await client.send(says)
            await client.receive_rest()
    assert seen == [reason]
    assert sessions[0].close_received == received


async def test_terminate_says_nothing_and_cancels(autojump_clock: Clock) -> None:
    """The handler at its next checkpoint, and its tasks; what was queued is dropped with the connection."""
    cancelled: list[str] = []

    async def sleep(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(name)

    async def handler(session: WebSocketSession) -> None:
        session.start_soon(sleep, "task")
        await trio.testing.wait_all_tasks_blocked()
        with trio.testing.assert_no_checkpoints():
            session.terminate()
        await sleep("handler")

    async with connected(handler) as (client, _):
        assert await client.receive_rest() == []
    assert sorted(cancelled) == ["handler", "task"]


async def receive(session: WebSocketSession) -> None:
    """Wait for what does not come."""
    await session.receive()


async def take(session: WebSocketSession) -> None:
    """The same, by the channel."""
    await session.incoming.receive()


async def send(session: WebSocketSession) -> None:
    """Wait for room that does not come."""
    while True:
        await session.send(bytes(500_000))


async def put(session: WebSocketSession) -> None:
    """The same, by the channel."""
    while True:
        await session.outgoing.send(bytes(500_000))


async def flush(session: WebSocketSession) -> None:
    """Wait for what is not taken."""
    for _ in range(8):
        await session.send(bytes(500_000))
    await session.flush()


async def ping(session: WebSocketSession) -> None:
    """Wait for a Pong that does not come."""
    await session.ping()


async def wait_closed(session: WebSocketSession) -> None:
    """Wait for an end that does not come, and then for another."""
    await session.wait_closed()
    await trio.sleep_forever()


@pytest.mark.parametrize("in_task", [True, False])
@pytest.mark.parametrize("wait", [receive, take, send, put, flush, ping, wait_closed])
async def test_who_waits_is_cancelled_by_terminate(
    wait: Callable[[WebSocketSession], Awaitable[None]], in_task: bool, autojump_clock: Clock
) -> None:
    """The handler and its tasks do not see the end that comes with it."""
    seen: list[type[BaseException]] = []

    async def waits(session: WebSocketSession) -> None:
        try:
            await wait(session)
        except BaseException as error:
            seen.append(type(error))
            raise

    async def handler(session: WebSocketSession) -> None:
        first, second = (waits, end) if in_task else (end, waits)
        session.start_soon(first, session)
        await second(session)

    async def end(session: WebSocketSession) -> None:
        await trio.testing.wait_all_tasks_blocked()
        session.terminate()
        await trio.sleep_forever()

    async with stuck(handler, write_timeout=None, ping_period=None):
        pass  # until the handler has returned
    assert seen == [trio.Cancelled]


@pytest.mark.parametrize("way", ["aclose", "wait_closed"])
async def test_who_gives_up_waiting_drops_the_connection_if_it_closed_it(way: str, autojump_clock: Clock) -> None:
    """At once, and the handler goes on; who only waited leaves everything as it is."""
    went_on: list[float] = []

    async def handler(session: WebSocketSession) -> None:
        with trio.move_on_after(2) as scope:
            await (session.aclose() if way == "aclose" else session.wait_closed())
        assert scope.cancelled_caught
        await trio.sleep(3)
        went_on.append(trio.current_time())

    began = trio.current_time()
    async with connected(handler, handler_grace=None, close_timeout=60) as (client, _):
        frames = [await client.receive()]
        if way == "aclose":
            assert await client.receive() is None
            assert trio.current_time() - began == pytest.approx(2)
        await trio.sleep(10)
    assert frames == [close(1000)]
    assert went_on == [pytest.approx(began + 5)]


# flush


async def test_flush_waits_until_all_is_with_the_system(autojump_clock: Clock) -> None:
    """However it was sent."""
    before: list[int] = []

    async def handler(session: WebSocketSession) -> None:
        for number in range(5):
            await session.send(str(number))
        session.outgoing.send_nowait("through the channel")
        await session.flush()
        before.append(session.statistics().outgoing)
        await trio.sleep(5)

    async with connected(handler) as (client, _):
        frames = [await client.receive() for _ in range(6)]
    assert frames[-1] == Frame.Text("through the channel")
    assert before == [0]


async def test_a_raw_session_sends_control_frames_in_their_order(autojump_clock: Clock) -> None:
    """A Close among them is the last."""

    async def handler(session: RawWebSocketSession) -> None:
        sent = [Frame.Text("a", fin=False), Frame.Ping(b"b"), Frame.Pong(b"c"), Frame.Close(CloseReason(4000))]
        for frame in sent:
            await session.send(frame)
        with pytest.raises(ConnectionClosed):
            await session.send(Frame.Ping(b"late"))

    async with connected_raw(handler) as (client, _):
        frames = [await client.receive() for _ in range(4)]
        await client.send(close(4000))
    assert frames == [Frame.Text("a", fin=False), Frame.Ping(b"b"), Frame.Pong(b"c"), close(4000)]


# tasks


async def test_a_task_is_given_its_arguments_and_ends_with_the_handler(autojump_clock: Clock) -> None:
    """It runs beside it until then."""
    seen: list[object] = []

    async def task(*arguments: int) -> None:
        seen.append(arguments)
        try:
            await trio.sleep_forever()
        finally:
            seen.append("ended")

    async def handler(session: WebSocketSession) -> None:
        session.start_soon(task, 1, 2)
        session.start_soon(task)
        await trio.sleep(1)
        assert seen == [(1, 2), ()] or seen == [(), (1, 2)]

    async with connected(handler) as (client, _):
        await client.receive_rest()
    assert seen[2:] == ["ended"] * 2


@pytest.mark.parametrize("end", ["peer", "returned"])
async def test_behind_the_end_there_are_no_more_tasks(end: str, autojump_clock: Clock) -> None:
    """The end of the conversation, or of the handler."""

    async def task() -> None:
        raise AssertionError("it ran")

    async def handler(session: WebSocketSession) -> None:
        if end == "peer":
            await session.wait_closed()
            with pytest.raises(ConnectionClosed):
                session.start_soon(task)

    async with connected(handler, handler_grace=None) as (client, sessions):
        await client.send(close(1000))
        await client.receive_rest()
        if end == "returned":
            with pytest.raises(ConnectionClosed):
                sessions[0].start_soon(task)


# settings


async def test_extensions_are_found_by_either_class(autojump_clock: Clock) -> None:
    """The factory's, or the extension's own; of another kind there is none."""

    class Other(Extension):
        """Never agreed on."""

    found: list[Extension] = []

    async def handler(session: WebSocketSession) -> None:
        extension = session.extension(PerMessageDeflate)
        assert session.extension(type(extension)) is extension
        assert session.extensions == (extension,)
        with pytest.raises(LookupError, match=r"^Other was not agreed on; look at session\.extensions$"):
            session.extension(Other)
        found.append(extension)

    app = application(handler, extensions=[PerMessageDeflate()])
    async with over_bytes(app) as dial, dial("/", extensions=[PerMessageDeflate()]):
        pass
    assert isinstance(found[0].factory, PerMessageDeflate)


async def test_a_client_always_masks(autojump_clock: Clock) -> None:
    """RFC 6455 §5.1; to say so again is no error."""
    async with handle_websocket_conversation(application(stay), "/") as conversation:
        session = conversation.session
        session.masking = True
        with pytest.raises(ValueError, match="a client always masks"):
            session.masking = False
        assert session.masking


async def test_the_size_limit_may_be_set_and_is_checked(autojump_clock: Clock) -> None:
    """As in `WebSockets`; what makes no sense leaves it as it was."""

    async def handler(session: WebSocketSession) -> None:
        assert session.max_frame_size == 10
        for wrong in (0, -1, True, "5", 1.5):
            with pytest.raises(ValueError, match="max_frame_size"):
                session.max_frame_size = wrong  # type: ignore[assignment]
        assert session.max_frame_size == 10
        session.max_frame_size = 20
        assert len(await session.receive_bytes()) == 20
        session.max_frame_size = None
        assert session.max_frame_size is None
        await session.send("more")
        assert len(await session.receive_bytes()) == 5000
        session.max_frame_size = 10
        with pytest.raises(ConnectionBroken):
            await session.receive()

    async with connected(handler, max_frame_size=10) as (client, _):
        await client.send(Frame.Binary(bytes(20)))
        assert await client.receive() == Frame.Text("more")
        await client.send(Frame.Binary(bytes(5000)))
        await trio.sleep(1)
        await client.send(Frame.Binary(bytes(11)))
        assert await client.receive() == close(1009)


async def test_masking_may_be_set_and_is_checked(autojump_clock: Clock) -> None:
    """On the wire it shows as the bit of RFC 6455 §5.2."""

    async def handler(session: WebSocketSession) -> None:
        assert not session.masking
        for wrong in (1, None, "yes"):
            with pytest.raises(ValueError, match="masking"):
                session.masking = wrong  # type: ignore[assignment]
        await session.send("a")
        await session.flush()
        session.masking = True
        assert session.masking
        await session.send("b")
        await session.flush()
        session.masking = False
        await session.send("c")

    async with connected(handler) as (client, _):
        wire = b""
        while len(wire) < 13:
            wire += bytes(await client.stream.receive_some())
    assert [wire[1], wire[4], wire[11]] == [0x01, 0x81, 0x01]


async def test_what_the_carrier_cannot_do_is_refused_at_once(autojump_clock: Clock) -> None:
    """By name; to leave it off is nothing to be done."""
    seen: list[str] = []

    async def handler(session: WebSocketSession) -> None:
        session.masking = False
        with pytest.raises(NotSupported) as refused:
            session.masking = True
        seen.append(str(refused.value))
        assert not session.masking

    await ForeignHost(application(handler), LITTLE).converse(asking(), PEER, Door())
    assert seen == ["there is no masking here: somebody does not show it"]


# what it shows


async def test_a_session_knows_its_call_and_its_application(autojump_clock: Clock) -> None:
    """And names its path, no longer than fits a line."""
    seen: list[str] = []

    async def handler(session: WebSocketSession) -> None:
        assert session.application is app
        assert session.call.path == "/" + "x" * 150
        seen.append(repr(session))

    app = application(handler, "/{path}")
    await ForeignHost(app, LITTLE).converse(asking("/" + "x" * 150), PEER, Door())
    assert seen == [f"<WebSocketSession /{'x' * 99} OPEN in 0 out 0>"]


async def test_frames_of_a_kind_are_those_of_the_session(autojump_clock: Clock) -> None:
    """The others are skipped, and the end is the session's."""
    seen: list[Frame] = []

    async def handler(session: WebSocketSession) -> None:
        async for frame in session.frames(Frame.Binary):
            seen.append(frame)

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("a"), Frame.Binary(b"b"), Frame.Text("c"), Frame.Binary(b"d"), close(1000))
        await client.receive_rest()
    assert seen == [Frame.Binary(b"b"), Frame.Binary(b"d")]
