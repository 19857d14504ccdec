"""How a conversation ends, line by line, and what both sides see of it; over memory streams."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.helpers import RawClient, application, client_bytes, close, connected, records_above_info
from trioktor import (
    CloseReason,
    CloseTimeout,
    ConnectionBroken,
    ConnectionClosed,
    DeserializationError,
    Frame,
    JsonConverter,
    PingTimeout,
    ProtocolError,
    WebSocketSession,
    WriteTimeout,
)

Clock = trio.testing.MockClock
Session = WebSocketSession


async def swallow(session: Session) -> None:
    """Receive until the end, whatever it is."""
    async for _ in session:
        pass


async def echo(session: Session) -> None:
    """Send everything back."""
    async for frame in session:
        await session.send(frame)


async def test_a_return_closes_with_1000_behind_what_is_queued(autojump_clock: Clock) -> None:
    """T320, F85: everything that was sent, then the Close, then the end of the stream."""

    async def handler(session: Session) -> None:
        for number in range(10):
            await session.send(str(number))

    async with connected(handler) as (client, [session]):
        assert [*(Frame.Text(str(number)) for number in range(10)), close(1000)] == [
            await client.receive() for _ in range(11)
        ]
        await client.send(close(1000))
        assert await client.receive() is None
        assert [CloseReason(1000)] * 3 == [session.close_reason, session.close_sent, session.close_received]


async def test_a_failing_handler_closes_with_1011_and_is_logged_once(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """F86, W-10, W-26: no text reaches the peer."""

    async def handler(session: Session) -> None:
        await session.send("before")
        raise ValueError("secret")

    async with connected(handler, expect_failure=True) as (client, [session]):
        assert [Frame.Text("before"), close(1011)] == [await client.receive(), await client.receive()]
        assert CloseReason(1011) == session.close_reason
    [record] = records_above_info(caplog)
    assert record.exc_info is not None


async def test_close_lets_frames_in_until_the_peer_closes(autojump_clock: Clock) -> None:
    """W-06: sending raises from now on; receiving goes on to a clean end."""
    received = []

    async def handler(session: Session) -> None:
        session.close(4000, "enough")
        session.close(1001)  # the first stands
        with pytest.raises(ConnectionClosed) as error:
            await session.send("too late")
        assert isinstance(error.value, trio.ClosedResourceError)
        assert (session, CloseReason(4000, "enough")) == (error.value.session, error.value.close_reason)
        async for frame in session:
            received.append(frame.text)
        with pytest.raises(trio.EndOfChannel):
            await session.receive()
        assert CloseReason(4000, "enough") == await session.wait_closed()

    async with connected(handler) as (client, _):
        assert close(4000, "enough") == await client.receive()
        await client.send(Frame.Text("1"), Frame.Text("2"), close(4000))
        assert await client.receive() is None
    assert ["1", "2"] == received


async def test_a_close_that_is_not_answered_times_out(autojump_clock: Clock) -> None:
    """W-06: the handler sees a broken end, and the reason stays what we said."""
    seen: list[object] = []

    async def handler(session: Session) -> None:
        session.close()
        with pytest.raises(ConnectionBroken) as error:
            await session.receive()
        seen.extend((error.value.close_reason, type(error.value.__cause__)))

    async with connected(handler, close_timeout=7) as (client, _):
        assert close(1000) == await client.receive()
        assert await client.receive() is None
        assert trio.current_time() == pytest.approx(7)
    assert [CloseReason(1000), CloseTimeout] == seen


async def test_a_close_of_the_peer_is_echoed_behind_the_last_answers(autojump_clock: Clock) -> None:
    """The handler may answer for the answer grace; then its code is echoed, without its text."""

    async def handler(session: Session) -> None:
        await echo(session)
        await trio.sleep(0.2)
        await session.send("late")
        await trio.sleep(0.4)
        with pytest.raises(ConnectionClosed) as error:
            await session.send("too late")
        assert not isinstance(error.value, (trio.ClosedResourceError, ConnectionBroken))

    async with connected(handler) as (client, [session]):
        await client.send(Frame.Text("1"), Frame.Text("2"), close(4001, "bye"))
        assert [Frame.Text("1"), Frame.Text("2"), Frame.Text("late"), close(4001)] == await client.receive_rest()
        assert trio.current_time() == pytest.approx(0.5)
        assert CloseReason(4001, "bye") == session.close_reason == session.close_received


async def test_an_empty_close_is_answered_by_an_empty_one(autojump_clock: Clock) -> None:
    """R10, W-05: no status is invented; locally it is 1005."""
    async with connected(swallow) as (client, [session]):
        await client.send(Frame.Close())
        assert [Frame.Close()] == await client.receive_rest()
        assert CloseReason(1005) == session.close_reason == session.close_sent


async def test_close_during_the_answer_grace_ends_it(autojump_clock: Clock) -> None:
    """A handler that has nothing more to say need not be waited for; the peer's reason stands."""

    async def handler(session: Session) -> None:
        await swallow(session)
        session.close(1011)
        await trio.sleep(2)

    async with connected(handler) as (client, [session]):
        await client.send(close(1001))
        assert [close(1001)] == await client.receive_rest()
        assert trio.current_time() == 0
        assert CloseReason(1001) == session.close_reason


async def test_closes_that_cross_answer_each_other(autojump_clock: Clock) -> None:
    """Nobody sends two; the end is clean."""

    async def handler(session: Session) -> None:
        await session.receive()
        session.close(4002)
        await swallow(session)

    async with connected(handler) as (client, [session]):
        await client.send(Frame.Text("go"), close(4003))
        frames = await client.receive_rest()
        assert 1 == len(frames)
        assert session.close_reason in (CloseReason(4002), CloseReason(4003))
        assert session.close_received == CloseReason(4003) or session.close_reason == CloseReason(4002)


async def test_a_lost_connection_is_a_broken_end(autojump_clock: Clock) -> None:
    """T301: what was buffered comes first; the rest of a torn frame is dropped."""
    seen: list[object] = []

    async def handler(session: Session) -> None:
        seen.append(await session.receive())
        with pytest.raises(ConnectionBroken) as error:
            await session.receive()
        seen.append(error.value.close_reason)
        with pytest.raises(ConnectionBroken):
            await session.send("into the void")

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("1"))
        await client.send_bytes(b"\x81")
        await client.aclose()
    assert [Frame.Text("1"), CloseReason(1006)] == seen


async def test_a_handler_that_does_no_io_hears_of_the_end_by_its_grace(autojump_clock: Clock) -> None:
    """T303, W-09: idle for `handler_grace` after the end, it is cancelled; it never received, so none is answered."""
    ended = []

    async def handler(session: Session) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with connected(handler, handler_grace=3) as (client, _):
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()
    assert [pytest.approx(3)] == ended


async def test_a_handler_that_takes_what_is_left_keeps_its_grace(autojump_clock: Clock) -> None:
    """It is cancelled only when it takes no frame for that long."""
    taken = []

    async def handler(session: Session) -> None:
        async for frame in session:
            taken.append(frame.text)
            await trio.sleep(2)

    async with connected(handler, handler_grace=3) as (client, _):
        await client.send(*(Frame.Text(str(number)) for number in range(5)), close(1000))
        await client.receive_rest()
    assert ["0", "1", "2", "3", "4"] == taken


async def test_without_a_grace_a_handler_may_stay(autojump_clock: Clock) -> None:
    """None is never."""

    async def handler(session: Session) -> None:
        await trio.sleep(1000)

    async with connected(handler, handler_grace=None) as (client, _):
        await client.aclose()
    assert trio.current_time() == pytest.approx(1000)


BAD_TEXT = client_bytes(Frame.Binary(b"\xff\xff")).replace(b"\x82", b"\x81", 1)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01a", 1002),
        (BAD_TEXT, 1007),
        (b"\x82\xff" + (1 << 40).to_bytes(8, "big"), 1009),
        (
            client_bytes(Frame.Text("", fin=False)) + client_bytes(Frame.Binary(b"")).replace(b"\x82", b"\x00", 1) * 9,
            1008,
        ),
    ],
)
async def test_a_violation_is_answered_behind_the_last_answers(autojump_clock: Clock, data: bytes, code: int) -> None:
    """T112, T319, W-05: the handler sees a broken end whose cause carries the code."""

    async def handler(session: Session) -> None:
        with pytest.raises(ConnectionBroken) as error:
            await echo(session)
        assert isinstance(error.value.__cause__, ProtocolError)
        assert (code, CloseReason(code)) == (error.value.__cause__.close_code, error.value.close_reason)
        await session.send("last")

    async with connected(handler, max_fragments=5) as (client, _):
        await client.send_bytes(client_bytes(Frame.Text("1")) + data + client_bytes(Frame.Text("never read")))
        assert [Frame.Text("1"), Frame.Text("last"), close(code)] == await client.receive_rest()


async def test_a_violation_after_our_close_ends_it_broken(autojump_clock: Clock) -> None:
    """One Close is enough; the reason stays ours."""

    async def handler(session: Session) -> None:
        session.close(1000)
        with pytest.raises(ConnectionBroken):
            await session.receive()

    async with connected(handler) as (client, [session]):
        assert close(1000) == await client.receive()
        await client.send_bytes(b"\x81\x01a")
        assert await client.receive() is None
        assert CloseReason(1000) == session.close_reason


@pytest.mark.parametrize(
    "what", [1, Frame.Text("x", rsv1=True), Frame.Close(CloseReason(1005)), "\ud800", Frame.Text(b"\xff")], ids=repr
)
async def test_misuse_of_outgoing_closes_with_1011(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, what: object
) -> None:
    """What was queued before it goes out; it is logged once."""

    async def handler(session: Session) -> None:
        await session.outgoing.send("before")
        await session.outgoing.send(what)  # type: ignore[arg-type]
        with pytest.raises(ConnectionBroken) as error:
            await session.receive()
        assert isinstance(error.value.__cause__, ProtocolError)

    async with connected(handler) as (client, [session]):
        assert [Frame.Text("before"), close(1011)] == await client.receive_rest()
        assert CloseReason(1011) == session.close_reason
    assert 1 == len(records_above_info(caplog))


async def test_misuse_of_send_raises_at_the_call_and_harms_nothing(autojump_clock: Clock) -> None:
    """The conversation goes on."""

    async def handler(session: Session) -> None:
        for value, error in [
            (1, TypeError),
            (Frame.Text("x", rsv1=True), ProtocolError),
            (Frame.Close(CloseReason(1005)), ValueError),
            ("\ud800", ValueError),
            (Frame.Text(b"\xff"), ValueError),
        ]:
            with pytest.raises(error):
                await session.send(value)  # type: ignore[arg-type]
        await session.send(Frame.Text("a", fin=False))
        with pytest.raises(ProtocolError, match="finish the fragmented TEXT message first"):
            await session.send(b"x")
        await session.send(Frame.Ping(b"p"))
        await session.send(Frame.Text("b"))
        await session.send(b"x")
        with pytest.raises(ValueError, match="may not be sent"):
            session.close(1006)
        with pytest.raises(TypeError, match="inside the CloseReason"):
            session.close(CloseReason(1000), "twice")

    async with connected(handler) as (client, _):
        frames = await client.receive_rest()
    assert close(1000) == frames.pop()
    frames.remove(Frame.Ping(b"p"))
    assert [Frame.Text("ab"), Frame.Binary(b"x")] == frames


async def test_a_close_frame_is_close_either_way(autojump_clock: Clock) -> None:
    """T607: what is queued behind it is dropped."""

    async def by_send(session: Session) -> None:
        await session.send(Frame.Close(CloseReason(4001)))
        assert CloseReason(4001) == session.close_reason
        await swallow(session)

    async def by_channel(session: Session) -> None:
        outgoing = session.outgoing
        outgoing.send_nowait(Frame.Close(CloseReason(4001)))
        outgoing.send_nowait("Yo")
        await swallow(session)

    for handler in (by_send, by_channel):
        async with connected(handler) as (client, [session]):
            assert close(4001) == await client.receive()
            await client.send(close(4001))
            assert await client.receive() is None
            assert CloseReason(4001) == session.close_reason


async def test_terminate_drops_the_connection_and_cancels(autojump_clock: Clock) -> None:
    """T218, W-11: no Close frame, 1006, and others see a broken end."""
    seen: list[object] = []

    async def other(session: Session) -> None:
        with trio.CancelScope(shield=True), pytest.raises(ConnectionBroken):
            await session.receive()
        seen.append("other")

    async def handler(session: Session) -> None:
        session.start_soon(other, session)
        await trio.testing.wait_all_tasks_blocked()
        session.terminate()
        try:
            await trio.sleep(100)
        finally:
            seen.append(session.close_reason)

    async with connected(handler) as (client, _):
        assert await client.receive() is None
    assert {CloseReason(1006), "other"} == set(seen)


async def test_the_end_of_its_own_conversation_may_escape_a_handler(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """W-07, W-08, quiet by construction: alone or in groups, a line at INFO and no more."""
    caplog.set_level(logging.INFO)

    async def in_a_group(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.receive)
            nursery.start_soon(session.incoming.receive)

    async def by_sending(session: Session) -> None:
        while True:
            await session.send("x")
            await trio.sleep(1)

    for handler in (in_a_group, by_sending):
        async with connected(handler) as (client, _):
            await client.aclose()
    assert [] == records_above_info(caplog)
    lines = [record.getMessage() for record in caplog.records if "the handler ended with" in record.getMessage()]
    assert 2 == len(lines)
    assert lines[0].endswith(" at no line of the application's")  # both tasks were ours
    assert __file__ in lines[1]


async def test_the_end_of_another_conversation_is_a_failure(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """`.session` says whose it was."""
    others: list[Session] = []

    async def first(session: Session) -> None:
        others.append(session)
        await swallow(session)

    async def second(session: Session) -> None:
        await session.receive()
        session.close(1000)
        await others[0].send("x")

    async with connected(first) as (client, _):
        await client.send(close(1000))
        await client.receive_rest()
    async with connected(second, expect_failure=True) as (client, _):
        await client.send(Frame.Text("go"))
        await client.receive_rest()
    assert 1 == len(records_above_info(caplog))


@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize("kind", [trio.ClosedResourceError, trio.EndOfChannel, trio.BrokenResourceError])
async def test_a_resource_of_the_handlers_own_is_no_end(
    kind: type[Exception], is_over: bool, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as the stream of a database, also behind the end of the conversation: a failure, and logged."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def handler(session: Session) -> None:
        if is_over:
            await swallow(session)
        if kind is trio.EndOfChannel:  # by a library that is neither Trio's nor ours
            raise trio.EndOfChannel
        await (theirs if kind is trio.BrokenResourceError else ours).aclose()
        await ours.send_all(b"a question")

    async with connected(handler, expect_failure=True) as (client, _):
        await client.send(close(1000))
        await client.receive_rest()
    (record,) = records_above_info(caplog)
    assert record.exc_info is not None
    assert type(record.exc_info[1]) is kind


class Decoded(trio.abc.ReceiveChannel[str]):
    """A channel of an application's own, round a session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def receive(self) -> str:
        """The next text."""
        async for frame in self._session:
            return frame.text
        raise trio.EndOfChannel

    async def aclose(self) -> None:
        """Nothing to do."""
        await trio.lowlevel.checkpoint()


class OwnConverter:
    """A converter of an application's own, that refuses everything."""

    def is_applicable(self, frame: Frame) -> bool:
        """All of it."""
        return True

    def serialize(self, value: Any) -> Frame:
        """Nothing is sent."""
        raise NotImplementedError

    def deserialize(self, frame: Frame, kind: Any) -> Any:
        """Refuse it."""
        raise DeserializationError("not for me", frame)


@pytest.mark.parametrize("way", ["incoming", "outgoing", "a clone", "a message", "a channel round it"])
async def test_the_end_may_escape_from_where_it_was_met(
    way: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Any channel of a session's, waiting or not."""

    async def handler(session: Session) -> None:
        outgoing = session.outgoing.clone()
        if way == "incoming":
            await session.incoming.receive()
        elif way == "a channel round it":
            await Decoded(session).receive()
        elif way == "a message":
            async for _ in await session.receive_message():
                pass
        else:
            await swallow(session)
            (outgoing if way == "a clone" else session.outgoing).send_nowait("too late")

    async with connected(handler) as (client, _):
        await client.aclose()
    assert [] == records_above_info(caplog)


@pytest.mark.parametrize("converter", [JsonConverter(), OwnConverter()])
@pytest.mark.parametrize(
    ("says", "reads"),
    [(Frame.Binary(b"no text"), Session.receive_text), (Frame.Text("no JSON"), Session.receive_deserialized)],
    ids=["a frame", "a value"],
)
async def test_what_another_peer_said_is_not_this_ones_doing(
    says: Frame, reads: Any, converter: Any, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that is another server's client, or reads from another session: it fails, with 1011."""
    others: list[Session] = []
    arguments = (dict,) if reads is Session.receive_deserialized else ()

    async def other(session: Session) -> None:
        others.append(session)
        await trio.sleep_forever()

    async def handler(session: Session) -> None:
        await reads(others[0], *arguments)

    async with connected(other, content_converter=converter) as (upstream, _):
        await upstream.send(says)
        async with connected(handler, expect_failure=True) as (client, _):
            assert close(1011) == await client.receive()
            await client.send(close(1011))
    assert 1 == len(records_above_info(caplog))


async def test_an_unexpected_frame_is_the_peers_doing(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """It closes with 1003, and one line at INFO that names the handler's own."""
    caplog.set_level(logging.INFO)

    async def text(session: Session) -> None:
        await session.receive_text()

    async def binary(session: Session) -> None:
        await session.receive_bytes()

    cases: list[tuple[Callable[[Session], Awaitable[None]], Frame]] = [
        (text, Frame.Binary(b"x")),
        (binary, Frame.Text("x")),
    ]
    for handler, frame in cases:
        async with connected(handler) as (client, _):
            await client.send(frame)
            assert close(1003) == await client.receive()
    assert [] == records_above_info(caplog)
    lines = [record.getMessage() for record in caplog.records if "the handler ended with" in record.getMessage()]
    places = [handler.__code__.co_firstlineno + 1 for handler, _ in cases]
    assert [f"{__file__}:{place}" for place in places] == [line.rpartition(" at ")[2] for line in lines]


async def test_receiving_text_and_bytes(autojump_clock: Clock) -> None:
    """W-23: the right kind comes out as itself; iterating over a kind skips the other."""

    async def handler(session: Session) -> None:
        assert "a" == await session.receive_text()
        assert b"b" == await session.receive_bytes()
        assert ["d"] == [frame.text async for frame in session.frames(Frame.Text)]

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("a"), Frame.Binary(b"b"), Frame.Binary(b"c"), Frame.Text("d"), close(1000))
        assert [close(1000)] == await client.receive_rest()


async def test_tasks_beside_the_handler_end_with_it(autojump_clock: Clock) -> None:
    """They are cancelled when it returns, even one that was started on the way out."""
    ended = []

    async def beside(session: Session, name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)
            if name == "first":
                session.start_soon(beside, session, "second")

    async def handler(session: Session) -> None:
        session.start_soon(beside, session, "first")
        await trio.sleep(1)

    async with connected(handler) as (client, [session]):
        assert close(1000) == await client.receive()
        await client.send(close(1000))
        assert await client.receive() is None
        with pytest.raises(ConnectionClosed):
            session.start_soon(swallow, session)
    assert ["first", "second"] == ended


async def test_a_failing_task_cancels_the_handler_and_counts_as_its_failure(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Several failures are one group."""

    async def failing() -> None:
        raise KeyError("task")

    async def handler(session: Session) -> None:
        session.start_soon(failing)
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("handler")

    async with connected(handler, expect_failure=True) as (client, _):
        assert close(1011) == await client.receive()
    [record] = records_above_info(caplog)
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ExceptionGroup)


async def test_closing_the_last_handle_is_close(autojump_clock: Clock) -> None:
    """Clones count."""

    async def handler(session: Session) -> None:
        outgoing = session.outgoing
        clone = outgoing.clone()
        await outgoing.send("1")
        outgoing.close()
        with pytest.raises(ConnectionClosed):
            await session.send("by the closed handle")
        await clone.send("2")
        clone.close()
        with pytest.raises(trio.EndOfChannel):
            await session.receive()

    async with connected(handler) as (client, _):
        assert [Frame.Text("1"), Frame.Text("2"), close(1000)] == [await client.receive() for _ in range(3)]
        await client.send(close(1000))


async def test_closing_incoming_drops_messages_and_answers_pings(autojump_clock: Clock) -> None:
    """A handler that only sends starts with it."""

    async def handler(session: Session) -> None:
        session.incoming.close()
        await session.send("1")
        with pytest.raises(trio.ClosedResourceError):
            await session.receive()
        await session.wait_closed()

    async with connected(handler) as (client, _):
        await client.send(*[Frame.Text("x")] * 500, Frame.Ping(b"p"))
        assert [Frame.Text("1"), Frame.Pong(b"p")] == [await client.receive(), await client.receive()]
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()


async def test_aclose_waits_for_the_end_and_discards_what_does_not_fit(autojump_clock: Clock) -> None:
    """W-04: the peer's Close is seen behind more messages than the queue holds."""

    async def handler(session: Session) -> None:
        await session.aclose(1001, "done")
        assert CloseReason(1001) == session.close_received
        with pytest.raises(ConnectionClosed):
            session.start_soon(swallow, session)

    async with connected(handler, incoming=4) as (client, _):
        await client.send(*[Frame.Text("x")] * 300)
        assert close(1001, "done") == await client.receive()
        await client.send(close(1001))
        assert await client.receive() is None


async def test_aclose_cancelled_drops_the_connection(autojump_clock: Clock) -> None:
    """And not the handler."""

    async def handler(session: Session) -> None:
        with trio.move_on_after(1):
            await session.aclose()
        await trio.sleep(1)

    async with connected(handler) as (client, _):
        assert close(1000) == await client.receive()
        assert await client.receive() is None
        assert trio.current_time() == pytest.approx(1)


async def test_a_ping_that_is_not_answered_closes_with_1011(autojump_clock: Clock) -> None:
    """T203: the bytes are Ktor's; the handler sees a broken end."""

    async def handler(session: Session) -> None:
        with pytest.raises(ConnectionBroken) as error:
            await session.receive()
        assert isinstance(error.value.__cause__, PingTimeout)
        assert CloseReason(1011, "Ping timeout") == error.value.close_reason

    async with connected(handler, ping_period=10, timeout=5) as (client, _):
        assert isinstance(await client.receive(), Frame.Ping)
        assert close(1011, "Ping timeout") == await client.receive()
        assert trio.current_time() == pytest.approx(15)
        assert await client.receive() is None


async def test_pongs_and_any_other_byte_keep_a_connection_alive(autojump_clock: Clock) -> None:
    """T308: the clock starts anew with each."""
    async with connected(swallow, ping_period=10, timeout=5) as (client, _):
        for _ in range(3):
            ping = await client.receive()
            assert isinstance(ping, Frame.Ping)
            await client.send(Frame.Pong(b"another"))
            for _ in range(3):
                await trio.sleep(4)
                await client.send(Frame.Text("alive"))
            await client.send(Frame.Pong(ping.data))
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()


async def test_the_clock_stands_while_our_handler_is_slow(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """W-03: Pings still go out; a handler that lets its input wait is named once."""
    go_on = trio.Event()
    count = 0

    async def handler(session: Session) -> None:
        nonlocal count
        await go_on.wait()
        async for _ in session:
            count += 1

    async with connected(handler, ping_period=5, timeout=5) as (client, [session]):
        await client.send(*[Frame.Text("x")] * 300, close(1000))
        await trio.sleep(60)
        assert isinstance(await client.receive(), Frame.Ping)
        assert session.close_reason is None
        go_on.set()
        await client.receive_rest()
    assert 300 == count
    assert 1 == len(records_above_info(caplog))


async def test_keepalive_may_be_set_while_the_session_runs(autojump_clock: Clock) -> None:
    """F42: it is re-armed at once, stopped, and started again."""

    async def handler(session: Session) -> None:
        assert (None, 15) == (session.ping_interval, session.timeout)
        session.ping_interval = 2
        session.timeout = 1
        await trio.sleep(2.5)
        session.ping_interval = None
        await trio.sleep(100)
        with pytest.raises(ValueError, match="ping_period"):
            session.ping_interval = 0
        with pytest.raises(ValueError, match="timeout"):
            session.timeout = -1

    async with connected(handler) as (client, _):
        ping = await client.receive()
        assert isinstance(ping, Frame.Ping)
        assert trio.current_time() == pytest.approx(2)
        await client.send(Frame.Pong(ping.data))
        assert close(1000) == await client.receive()
        assert trio.current_time() == pytest.approx(102.5)


async def test_limits_and_masking_may_be_set_while_the_session_runs(autojump_clock: Clock) -> None:
    """F31, F32: from the next header on."""

    async def handler(session: Session) -> None:
        assert (1 << 20, False, ()) == (session.max_frame_size, session.masking, session.extensions)
        session.max_frame_size = 10
        session.masking = True
        session.masking = False
        await session.send("set")
        with pytest.raises(ConnectionBroken):
            await session.receive()

    async with connected(handler) as (client, _):
        assert Frame.Text("set") == await client.receive()
        await client.send(Frame.Text("x" * 11))
        assert close(1009) == await client.receive()


async def test_pings_are_answered_ahead_of_what_is_queued_and_the_latest_suffice(autojump_clock: Clock) -> None:
    """T202, W-15: of a flood only the last sixteen are owed."""
    async with connected(swallow) as (client, _):
        await client.send(*(Frame.Ping(str(number).encode()) for number in range(5)))
        assert [Frame.Pong(str(number).encode()) for number in range(5)] == [await client.receive() for _ in range(5)]
        await client.send(*(Frame.Ping(str(number).encode()) for number in range(100)), close(1000))
        pongs = (await client.receive_rest())[:-1]
        assert Frame.Pong(b"99") == pongs[-1]
        assert len(pongs) <= 32


async def test_input_is_bounded_in_bytes(autojump_clock: Clock) -> None:
    """The reader stops beyond `max_queued_bytes`, and looks again as messages are taken, either way."""

    async def handler(session: Session) -> None:
        await trio.sleep(5)
        assert 2 == session.incoming.statistics().current_buffer_used
        await session.receive()
        await session.incoming.receive()
        await trio.sleep(5)
        assert 2 == session.incoming.statistics().current_buffer_used
        assert 8 == len([frame async for frame in session])

    async with connected(handler) as (client, _):
        await client.send(*[Frame.Binary(bytes(500_000))] * 10, close(1000))
        assert [close(1000)] == await client.receive_rest()


class Blocked(trio.abc.Stream):
    """A stream whose writes block while its gate is shut."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.gate = trio.Event()
        self.gate.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write once the gate is open."""
        await self.gate.wait()
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Not used here."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Read."""
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close."""
        await self.stream.aclose()


async def test_a_peer_that_takes_nothing_is_dropped(autojump_clock: Clock) -> None:
    """W-13: after `write_timeout`, as 1006."""
    seen: list[object] = []
    ours, theirs = trio.testing.memory_stream_pair()
    blocked = Blocked(theirs)

    async def handler(session: Session) -> None:
        with pytest.raises(ConnectionBroken) as error:
            while True:
                await session.send("x")
        seen.extend((error.value.close_reason, type(error.value.__cause__), trio.current_time()))

    client = RawClient(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application(handler, write_timeout=20).handle_stream, blocked)
        await client.upgrade()
        blocked.gate = trio.Event()
    assert [CloseReason(1006), WriteTimeout, pytest.approx(20)] == seen


async def test_output_of_send_is_bounded_in_bytes_and_everything_accepted_goes_out(autojump_clock: Clock) -> None:
    """Sends that wait when `close` is called are accepted by it; flush waits for all of it (W-12)."""
    ours, theirs = trio.testing.memory_stream_pair()
    blocked = Blocked(theirs)
    log: list[object] = []

    async def send(session: Session, number: int) -> None:
        await session.send(bytes([number]) * 400)
        log.append(number)

    async def handler(session: Session) -> None:
        await trio.sleep(1)  # the gate is shut by now
        await session.send(bytes(400))
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            for number in range(1, 9):
                nursery.start_soon(send, session, number)
                await trio.testing.wait_all_tasks_blocked()
            assert [1] == log
            with trio.move_on_after(1):
                await session.flush()
                log.append("flushed")
            session.close()
        log.append("closed")
        blocked.gate.set()
        await session.flush()
        await swallow(session)

    client = RawClient(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application(handler, max_queued_bytes=1000).handle_stream, blocked)
        await client.upgrade()
        blocked.gate = trio.Event()
        frames = []
        while not isinstance(frame := await client.receive(), Frame.Close):
            assert frame is not None
            frames.append(frame.data[0])
        await client.send(frame)
    assert list(range(9)) == frames
    assert "flushed" not in log
    assert [*range(1, 9), "closed"] == [*sorted(entry for entry in log if isinstance(entry, int)), log[-1]]


async def test_cancelling_from_outside_says_goodbye_for_a_second(autojump_clock: Clock) -> None:
    """T204, T217, W-18: `Cancelled` at once in the handler, Close 1001, and the end within one second."""
    ended = []

    async def handler(session: Session) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    ours, theirs = trio.testing.memory_stream_pair()
    client = RawClient(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application(handler).handle_stream, theirs)
        await client.upgrade()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            assert close(1001) == await client.receive()
            assert await client.receive() is None
            assert trio.current_time() == pytest.approx(1)
    assert [0] == ended


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["handler", "task"])
async def test_what_is_no_exception_goes_on(autojump_clock: Clock, error: type[BaseException], where: str) -> None:
    """Ctrl-C and exits end the connection with 1001 and are not swallowed."""

    async def interrupted() -> None:
        raise error

    async def handler(session: Session) -> None:
        if where == "handler":
            await interrupted()
        session.start_soon(interrupted)
        await trio.sleep_forever()

    ours, theirs = trio.testing.memory_stream_pair()
    client = RawClient(ours)

    async def serve() -> None:
        with pytest.RaisesGroup(error, flatten_subgroups=True):
            await application(handler).handle_stream(theirs)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await client.upgrade()
        assert [close(1001)] == await client.receive_rest()


async def test_a_loop_that_never_blocks_can_be_timed_out(autojump_clock: Clock) -> None:
    """At least every 32nd call is a full checkpoint, so that a deadline fires."""

    async def handler(session: Session) -> None:
        session.incoming.close()
        with trio.move_on_after(1) as scope:
            while True:
                await session.send("x")
                autojump_clock.jump(0.01)
        assert scope.cancelled_caught

    async with connected(handler) as (client, _):
        await client.receive_rest()


async def test_sessions_show_how_they_stand(autojump_clock: Clock) -> None:
    """The repr names path, state and queues."""

    async def handler(session: Session) -> None:
        assert "<WebSocketSession / OPEN in 0 out 0>" == repr(session)
        session.outgoing.send_nowait("x")
        assert "<WebSocketSession / OPEN in 0 out 1>" == repr(session)
        session.close()
        assert "CLOSING" in repr(session)

    async with connected(handler) as (client, _):
        await client.receive_rest()


async def test_flush_waits_for_what_was_just_handed_to_the_writer(autojump_clock: Clock) -> None:
    """A writer that waits for something to do gets it without a queue; `flush` counts that, too."""
    sizes: list[int] = []

    async def handler(session: WebSocketSession) -> None:
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked()  # the writer waits
            before = session.statistics().bytes_sent
            await session.send("hello")
            await session.flush()
            sizes.append(session.statistics().bytes_sent - before)

    async with connected(handler) as (client, _):
        assert [Frame.Text("hello")] * 3 == [await client.receive() for _ in range(3)]
        assert close(1000) == await client.receive()
    assert [7, 7, 7] == sizes


async def test_a_close_in_outgoing_stands_before_the_handlers_return(autojump_clock: Clock) -> None:
    """One Close goes out: the first that was said, with what was queued before it and nothing behind it."""

    async def handler(session: WebSocketSession) -> None:
        await session.outgoing.send("before")
        await session.outgoing.send(close(4000, "mine"))
        await session.outgoing.send("behind")

    async with connected(handler) as (client, sessions):
        assert [Frame.Text("before"), close(4000, "mine")] == [await client.receive() for _ in range(2)]
        await client.send(close(4000))
        assert [] == await client.receive_rest()
    assert CloseReason(4000, "mine") == sessions[0].close_reason == sessions[0].close_sent


async def test_after_terminate_sending_raises_at_once(autojump_clock: Clock) -> None:
    """Nothing is accepted that could not be sent."""

    async def handler(session: WebSocketSession) -> None:
        await trio.testing.wait_all_tasks_blocked()
        session.terminate()
        with pytest.raises(ConnectionBroken):
            session.send_nowait("too late")
        with pytest.raises(trio.BrokenResourceError):
            session.outgoing.send_nowait("too late")

    async with connected(handler) as (client, _):
        assert [] == await client.receive_rest()


async def test_flush_waits_for_control_frames_too(autojump_clock: Clock) -> None:
    """A Ping that was sent before is with the system, though it takes another way than messages."""
    flushed: list[float] = []

    async def handler(session: WebSocketSession) -> None:
        await trio.testing.wait_all_tasks_blocked()
        await session.send(Frame.Ping(b"ping!"))
        await session.flush()
        flushed.append(trio.current_time())

    ours, theirs = trio.testing.lockstep_stream_pair()
    client = RawClient(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application(handler).handle_stream, theirs)
        await client.upgrade()
        start = trio.current_time()
        await trio.sleep(5)
        assert [Frame.Ping(b"ping!"), close(1000)] == [await client.receive() for _ in range(2)]
        await ours.aclose()
    assert 5 == pytest.approx(flushed[0] - start, abs=0.1)
