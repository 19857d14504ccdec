"""Who waits for a place, a turn or a piece: accepted in order, or told why not."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import RawClient, close, connected, connected_raw, masked
from trioktor import (
    Application,
    CloseReason,
    ConnectionClosed,
    Extension,
    ExtensionFactory,
    ExtensionHeader,
    Frame,
    FrameType,
    IncomingMessage,
    PerMessageDeflate,
    ProtocolError,
    RawWebSocketSession,
    WebSockets,
    WebSocketSession as Session,
    serve,
)


async def outcome_of(name: str, outcomes: dict[str, str], function: Any, *args: Any) -> None:
    """Call a function, and note how it ended."""
    try:
        await function(*args)
        outcomes[name] = "accepted"
    except (ConnectionClosed, ProtocolError, trio.BrokenResourceError) as error:
        outcomes[name] = type(error).__name__


# sending


@pytest.mark.parametrize("end", ["room", "close"])
async def test_what_waits_is_judged_when_it_is_accepted(autojump_clock: MockClock, end: str) -> None:
    """Behind another's fragment that waits, too, it may not stand; and what waits behind it may."""
    outcomes: dict[str, str] = {}

    async def handler(session: Session) -> None:
        session.send_nowait(bytes(2000))
        async with trio.open_nursery() as nursery:
            for name, frame in (
                ("first", Frame.Binary(b"frag", fin=False)),
                ("between", Frame.Text("whole")),
                ("last", Frame.Binary(b"ment")),
                ("behind", Frame.Text("whole")),
            ):
                nursery.start_soon(outcome_of, name, outcomes, session.send, frame)
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
            if end == "close":
                session.close()

    async with connected(handler, max_queued_bytes=1000) as (client, _):
        frames = [frame for frame in await client.receive_rest() if not frame.type.is_control]
    kinds = {name: outcome for name, outcome in outcomes.items() if outcome != "accepted"}
    assert {"between": "ProtocolError"} == kinds
    assert {"first", "between", "last", "behind"} == set(outcomes)
    assert Frame.Binary(bytes(2000)) == frames[0]
    assert Frame.Binary(b"fragment") in frames


async def test_a_message_in_pieces_that_waits_for_its_place_is_refused_at_the_end(autojump_clock: MockClock) -> None:
    """Nothing of it could go out any more."""
    outcomes: dict[str, str] = {}

    async def handler(session: Session) -> None:
        async def stream(*pieces: str) -> None:
            async with session.message(FrameType.TEXT) as message:
                for piece in pieces:
                    await message.send(piece)
                    await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome_of, "going out", outcomes, stream, *"abcdef")
            await trio.sleep(0.5)
            session.send_nowait(bytes(2000))
            nursery.start_soon(outcome_of, "waits", outcomes, stream, "never")
            await trio.sleep(1)
            session.close()

    async with connected(handler, max_queued_bytes=1000, show_fragments=True) as (client, _):
        expected = [Frame.Text("a", fin=False), Frame.Text("b", fin=False), close(1000)]
        assert expected == [await client.receive() for _ in range(3)]
        await client.send(close(1000))
        await client.receive_rest()
    assert {"going out": "ConnectionClosedHere", "waits": "ConnectionClosedHere"} == outcomes


async def test_a_handle_that_is_closed_refuses_those_who_wait_behind_it(autojump_clock: MockClock) -> None:
    """A clone lives, so the conversation goes on; `session.send` has no handle any more."""
    outcomes: dict[str, str] = {}

    async def handler(session: Session) -> None:
        clone = session.outgoing.clone()
        async with trio.open_nursery() as nursery, session.message(FrameType.TEXT) as message:
            await message.send("piece")
            session.send_nowait(bytes(2000))
            nursery.start_soon(outcome_of, "waits", outcomes, session.send, "x")
            await trio.sleep(1)
            session.outgoing.close()
        await clone.send("still here")
        await session.flush()

    async with connected(handler, max_queued_bytes=1000) as (client, _):
        expected = [Frame.Text("piece"), Frame.Binary(bytes(2000)), Frame.Text("still here"), close(1000)]
        assert expected == [await client.receive() for _ in range(4)]
        await client.send(close(1000))
    assert {"waits": "ConnectionClosedHere"} == outcomes


class Refusing(ExtensionFactory):
    """An extension that can't say long messages."""

    name = None

    def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension]:
        """Always on."""
        return offer, RefusingOne(self)


class RefusingOne(Extension):
    """At work."""

    def encode_in_steps(self, message: Frame) -> Any:
        """Fail in the middle."""
        yield
        raise ValueError("too long for me")


async def test_an_extension_that_fails_in_the_middle_ends_its_conversation_alone(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """As what may not be sent does: 1011, and one line in the log."""

    async def handler(session: Session) -> None:
        await session.send("short")
        await session.send(bytes(100_000))
        await session.send("behind")
        async for _ in session:
            pass

    async with connected(handler, extensions=[Refusing()]) as (client, sessions):
        assert [Frame.Text("short"), close(1011)] == await client.receive_rest()
    assert CloseReason(1011) == sessions[0].close_reason
    assert 1 == sum("too long for me" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("last", "code"), [(close(4000), 4000), (Frame.Close(), 1005)])
async def test_a_raw_handler_that_returns_behind_a_close_of_its_own(
    autojump_clock: MockClock, last: Frame, code: int
) -> None:
    """It was put into `outgoing` a moment ago, behind something else, and counts."""

    async def handler(session: Any) -> None:
        session.outgoing.send_nowait("first")
        session.outgoing.send_nowait(last)

    async with connected_raw(handler) as (client, sessions):
        assert [Frame.Text("first"), last] == [await client.receive() for _ in range(2)]
        await client.send(last)
        await client.receive_rest()
    assert CloseReason(code) == sessions[0].close_reason == sessions[0].close_sent


@pytest.mark.parametrize("does", ["nothing", "a send that fails"])
async def test_a_raw_handler_that_returns_without_having_waited_is_seen_out(does: str) -> None:
    """The 101 is written behind that; there is no Close to write."""

    async def handler(session: RawWebSocketSession) -> None:
        if does == "a send that fails":
            with pytest.raises(TypeError):
                await session.send(5)  # type: ignore[arg-type]

    app = Application()
    app.install(WebSockets())
    app.websocket_raw("/", handler)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(functools.partial(serve, app, 0, host="127.0.0.1"))
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            client = RawClient(stream, raw=True)
            with trio.fail_after(5):
                assert (await client.upgrade()).startswith(b"HTTP/1.1 101 ")
                assert [] == await client.receive_rest()
        nursery.cancel_scope.cancel()


# receiving


@pytest.mark.parametrize("way", ["many", "compressed"])
async def test_an_end_while_others_have_their_turn_ends_the_reading(autojump_clock: MockClock, way: str) -> None:
    """The reader pauses behind so many frames, and in the middle of a long message; then it looks."""

    async def handler(session: Session) -> None:
        await session.receive()
        session.terminate()
        await trio.sleep(1)

    settings: dict[str, Any] = {"incoming": 2000}
    if way == "compressed":
        settings["extensions"] = [PerMessageDeflate()]
    async with connected(handler, **settings) as (client, sessions):
        await client.send(*[Frame.Text("x")] * 1000, close(1000))
        assert [] == await client.receive_rest()
    assert sessions[0].close_received is None
    assert 1006 == getattr(sessions[0].close_reason, "code", None)


async def test_who_waits_for_a_message_gets_it_whole_before_others_take_pieces(autojump_clock: MockClock) -> None:
    """Two wait in `receive` when the third asks for pieces."""
    received: dict[str, Any] = {}

    async def handler(session: Session) -> None:
        async def whole(name: str) -> None:
            received[name] = (await session.receive()).text

        async def pieces(name: str) -> None:
            message = await session.receive_message()
            received[name] = "".join([str(piece) async for piece in message])

        async with trio.open_nursery() as nursery:
            for name, function in (("1", whole), ("2", whole), ("3", pieces)):
                nursery.start_soon(function, name)
                await trio.testing.wait_all_tasks_blocked()
        await pieces("4")

    async with connected(handler) as (client, _):
        for number in range(4):
            await client.send(Frame.Text(f"<{number}", fin=False), Frame.Text(f"{number}>", fin=True))
            await trio.sleep(1)
    assert ["<00>", "<11>"] == sorted([received["1"], received["2"]])
    assert ("<22>", "<33>") == (received["3"], received["4"])


async def test_one_message_may_be_taken_by_several_tasks(autojump_clock: MockClock) -> None:
    """Each piece once, and the end for everybody; the next message is left alone."""
    pieces: list[str] = []

    async def handler(session: Session) -> None:
        message = await session.receive_message()

        async def take(message: IncomingMessage) -> None:
            async for piece in message:
                pieces.append(str(piece))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(take, message)
        assert "next" == await session.receive_text()
        with pytest.raises(trio.WouldBlock):
            session.receive_nowait()

    async with connected(handler) as (client, _):
        fragments = [Frame.Text(f"<{number}>", fin=False) for number in range(20)]
        await client.send(*fragments, Frame.Text("<end>", fin=True), Frame.Text("next"))
        await trio.sleep(1)
    assert sorted([*(f"<{number}>" for number in range(20)), "<end>"]) == sorted(pieces)


async def test_receive_nowait_does_not_take_somebody_elses_pieces(autojump_clock: MockClock) -> None:
    """While a task waits for the rest of a message."""

    async def handler(session: Session) -> None:
        message = await session.receive_message()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(message.skip)
            await trio.sleep(1)
            with pytest.raises(trio.WouldBlock):
                session.receive_nowait()
        assert "next" == session.receive_nowait().text

    async with connected(handler) as (client, _):
        await client.send_bytes(masked(0x01, b"half"))
        await trio.sleep(2)
        await client.send_bytes(masked(0x80, b"whole") + masked(0x81, b"next"))
        await trio.sleep(1)


async def test_a_message_that_was_skipped_is_no_whole_one(autojump_clock: MockClock) -> None:
    """Who still takes pieces of it when another asks for the next one is told."""
    outcomes: list[str] = []

    async def handler(session: Session) -> None:
        first = await session.receive_message()
        assert "half" == await first.receive()
        second = await session.receive_message()
        with pytest.raises(trio.ClosedResourceError):
            await first.receive()
        assert ["next"] == [piece async for piece in second]
        outcomes.append("seen")

    async with connected(handler) as (client, _):
        await client.send_bytes(masked(0x01, b"half"))
        await trio.sleep(1)
        await client.send_bytes(masked(0x80, b"whole") + masked(0x81, b"next"))
        await client.receive()
    assert ["seen"] == outcomes


async def test_a_message_taken_in_part_is_skipped_by_the_next_call(autojump_clock: MockClock) -> None:
    """Whatever that is, and however much of it is still to come."""

    async def handler(session: Session) -> None:
        await session.receive_message()
        second = await session.receive_message()
        assert "second" == await second.receive()
        await session.receive_message()
        assert "fourth" == await session.receive_text()
        await session.receive_message()
        await trio.sleep(10)
        assert "sixth" == session.receive_nowait().text

    async with connected(handler) as (client, _):
        for text in ("first", "second", "third", "fourth", "fifth", "sixth"):
            await client.send_bytes(masked(0x01, text.encode()))
            await trio.sleep(1)
            await client.send_bytes(masked(0x80))
        await trio.sleep(20)
