"""A session as a channel of frames: when a call waits, what a cancelled one has done, and how either way ends."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st
from trio.testing import MockClock

from tests.support.helpers import close, connected
from tests.support.listening import talking
from tests.support.plain_transport import PlainSocket, PlainTransport, running
from trioktor import (
    CLOSE,
    ChannelConfig,
    ChannelOverflow,
    CloseReason,
    ConnectionBroken,
    ConnectionClosed,
    Frame,
    ProtocolError,
    WebSockets,
    WebSocketSession,
)
from trioktor.engine.connection import Connection
from trioktor.errors import ConnectionClosedHere
from trioktor.protocol.outgoing import Outgoing
from trioktor.protocol.prepared import PreparedMessage
from trioktor.session.channel import FrameChannel

Clock = MockClock


class Plain(FrameChannel):
    """A session's channel alone."""

    def _is_sent_as_control(self, frame: Frame) -> bool:
        return False

    async def aclose(self) -> None:
        raise NotImplementedError


# receiving


@pytest.mark.parametrize("way", ["receive", "anext", "receive_nowait"])
async def test_messages_come_in_order(way: str, autojump_clock: Clock) -> None:
    """By whichever call; at a clean end each says so in its own words."""
    seen: list[Frame] = []

    async def handler(session: WebSocketSession) -> None:
        await trio.sleep(1)
        for _ in range(3):
            if way == "receive":
                seen.append(await session.receive())
            else:
                seen.append(session.receive_nowait() if way == "receive_nowait" else await anext(session))
        with pytest.raises(StopAsyncIteration if way == "anext" else trio.EndOfChannel):
            if way == "receive":
                await session.receive()
            else:
                session.receive_nowait() if way == "receive_nowait" else await anext(session)

    sent = [Frame.Text("one"), Frame.Binary(b"two"), Frame.Text("")]
    async with connected(handler, answer_grace=5) as (client, _):
        await client.send(*sent, close(1000))
        await client.receive_rest()
    assert seen == sent


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_cancelled_receive_has_taken_nothing(is_there: bool, autojump_clock: Clock) -> None:
    """Though a message was there, or came in the step in which it was cancelled."""
    seen: list[Frame] = []

    async def handler(session: WebSocketSession) -> None:
        await trio.sleep(1)
        with trio.CancelScope() as scope:
            if is_there:
                scope.cancel()
            else:
                scope.deadline = trio.current_time() + 1
            await session.receive()
        assert scope.cancelled_caught
        seen.append(await session.receive())

    async with connected(handler) as (client, _):
        if not is_there:
            await trio.sleep(5)
        await client.send(Frame.Text("one"))
        await client.receive()
    assert seen == [Frame.Text("one")]


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One item for each full checkpoint of a session."""
    seen: list[None] = []

    async def checkpoint() -> None:
        seen.append(None)
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr("trioktor.session.channel._checkpoint", checkpoint)
    return seen


@pytest.mark.parametrize("way", ["receive", "send", "answer"])
async def test_others_have_their_turn_at_every_32nd_call(
    way: str, checkpoints: list[None], autojump_clock: Clock
) -> None:
    """However much there is to take, or room for more; a turn at one kind of call is enough for the other."""
    turns: list[int] = []

    async def handler(session: WebSocketSession) -> None:
        await trio.sleep(1)
        count = 0

        async def other() -> None:
            while True:
                turns.append(count)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(320):
                if way != "send":
                    await session.receive()
                if way != "receive":
                    await session.send("x")
                count += 1
            nursery.cancel_scope.cancel()

    async with connected(handler, incoming=400, outgoing=400) as (client, _):
        await client.send(*[Frame.Text("x")] * 320)
        await client.receive_rest()
    # Who is ready at one such call has had its turn before the next, in whatever order Trio takes them.
    assert max(later - earlier for earlier, later in zip([0, *turns], [*turns, 320], strict=True)) <= 64
    assert len(checkpoints) == 320 // 32


async def test_who_waits_needs_no_full_checkpoint(checkpoints: list[None], autojump_clock: Clock) -> None:
    """Others have had their turn then."""

    async def handler(session: WebSocketSession) -> None:
        async for frame in session:
            await session.send(frame)

    async with connected(handler) as (client, _):
        for _ in range(100):
            await client.send(Frame.Text("x"))
            assert await client.receive() == Frame.Text("x")
    assert checkpoints == []


async def test_receive_nowait_does_it_or_has_done_nothing(autojump_clock: Clock) -> None:
    """Without a checkpoint either way."""

    async def handler(session: WebSocketSession) -> None:
        with trio.testing.assert_no_checkpoints(), pytest.raises(trio.WouldBlock):
            session.receive_nowait()
        await trio.sleep(1)
        with trio.testing.assert_no_checkpoints():
            assert session.receive_nowait() == Frame.Text("one")

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("one"))
        await client.receive_rest()


@pytest.mark.parametrize("is_clean", [True, False])
async def test_what_was_buffered_comes_before_the_end(is_clean: bool, autojump_clock: Clock) -> None:
    """And a broken end is told from a clean one, each time that it is asked for, with its session and reason."""
    errors: list[BaseException] = []

    async def handler(session: WebSocketSession) -> None:
        await trio.sleep(1)
        assert await session.receive() == Frame.Text("one")
        for _ in range(2):
            for call in (session.receive, session.__anext__):
                try:
                    await call()
                except (trio.EndOfChannel, StopAsyncIteration, ConnectionBroken) as error:
                    errors.append(error)
        with pytest.raises(trio.EndOfChannel if is_clean else ConnectionBroken):
            session.receive_nowait()

    async with connected(handler, answer_grace=5) as (client, sessions):
        await client.send(Frame.Text("one"))
        if is_clean:
            await client.send(close(1000))
            await client.receive_rest()
        else:
            await client.aclose()
            await trio.sleep(5)
        session = sessions[0]
    if is_clean:
        assert [type(error) for error in errors] == [trio.EndOfChannel, StopAsyncIteration] * 2
    else:
        assert [type(error) for error in errors] == [ConnectionBroken] * 4
        for error in errors:
            assert isinstance(error, ConnectionBroken)
            assert (error.session, error.close_reason) == (session, CloseReason(1006))


async def test_a_broken_end_says_what_broke_it(autojump_clock: Clock) -> None:
    """Here the peer, against the protocol."""
    causes: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        for call in (session.receive, session.__anext__):
            try:
                await call()
            except ConnectionBroken as error:
                causes.append(error.__cause__)

    async with connected(handler) as (client, _):
        await client.send_bytes(b"\xff\xff")
        await client.receive_rest()
    assert [type(cause) for cause in causes] == [ProtocolError] * 2


async def test_input_that_is_not_wanted_any_more_is_a_closed_resource(autojump_clock: Clock) -> None:
    """The handler said so itself."""

    async def handler(session: WebSocketSession) -> None:
        session.incoming.close()
        with pytest.raises(trio.ClosedResourceError):
            await session.receive()
        with pytest.raises(trio.ClosedResourceError):
            session.receive_nowait()

    async with connected(handler) as (client, _):
        await client.receive_rest()


async def test_those_who_wait_are_served_in_their_order(autojump_clock: Clock) -> None:
    """Each gets one; who was cancelled meanwhile takes none."""
    seen: list[tuple[str, str]] = []

    async def handler(session: WebSocketSession) -> None:
        async def take(name: str, scope: trio.CancelScope) -> None:
            with scope:
                seen.append((name, (await session.receive()).text))

        scopes = [trio.CancelScope() for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for name, scope in zip("abc", scopes, strict=True):
                nursery.start_soon(take, name, scope)
                await trio.testing.wait_all_tasks_blocked()
            scopes[1].cancel()

    async with connected(handler) as (client, _):
        await trio.sleep(1)
        await client.send(Frame.Text("1"), Frame.Text("2"))
        await client.receive_rest()
    assert sorted(seen) == [("a", "1"), ("c", "2")]


# sending


@pytest.mark.parametrize("way", ["send", "send_nowait"])
async def test_frames_strings_and_bytes_are_sent(way: str, autojump_clock: Clock) -> None:
    """Text, Binary, or what the frame is."""

    async def handler(session: WebSocketSession) -> None:
        values = ["text", b"bytes", bytearray(b"array"), memoryview(b"view"), Frame.Text(b"frame"), Frame.Binary(b"")]
        for value in values:
            if way == "send":
                await session.send(value)  # type: ignore[arg-type]
            else:
                session.send_nowait(value)  # type: ignore[arg-type]

    async with connected(handler) as (client, _):
        frames = [await client.receive() for _ in range(7)]
    assert frames == [
        *(Frame.Text("text"), Frame.Binary(b"bytes"), Frame.Binary(b"array"), Frame.Binary(b"view")),
        *(Frame.Text("frame"), Frame.Binary(b""), close(1000)),
    ]


@pytest.mark.parametrize("value", [None, 5, ["text"], CloseReason(1000)], ids=repr)
async def test_what_is_no_message_is_a_type_error_and_changes_nothing(value: Any, autojump_clock: Clock) -> None:
    """At the call, by either."""

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises(TypeError):
            await session.send(value)
        with pytest.raises(TypeError):
            session.send_nowait(value)
        await session.send("as before")

    async with connected(handler) as (client, _):
        assert [await client.receive() for _ in range(2)] == [Frame.Text("as before"), close(1000)]


async def test_a_cancelled_send_has_sent_nothing(autojump_clock: Clock) -> None:
    """Though there was room."""

    async def handler(session: WebSocketSession) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await session.send("not this")
        assert scope.cancelled_caught
        await session.send("this")

    async with connected(handler) as (client, _):
        assert [await client.receive() for _ in range(2)] == [Frame.Text("this"), close(1000)]


async def test_where_there_is_no_room_send_waits_and_send_nowait_does_not(autojump_clock: Clock) -> None:
    """What `send_nowait` refused was not sent; what waited goes out in its order."""
    accepted: list[int] = []

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises(trio.WouldBlock):
            while True:
                session.send_nowait(str(len(accepted)))
                accepted.append(len(accepted))
        with trio.testing.assert_checkpoints():
            await session.send("waited")

    async with connected(handler, outgoing=2) as (client, _):
        frames = await client.receive_rest()
    assert 2 <= len(accepted) <= 4
    assert frames == [*(Frame.Text(str(number)) for number in accepted), Frame.Text("waited"), close(1000)]


@pytest.mark.parametrize("way", ["send", "send_nowait"])
async def test_where_full_is_the_end_the_sender_hears_of_it(way: str, autojump_clock: Clock) -> None:
    """1013 behind what was accepted."""
    errors: list[ConnectionBroken] = []

    async def handler(session: WebSocketSession) -> None:
        try:
            for number in range(10):
                session.send_nowait(str(number)) if way == "send_nowait" else await session.send(str(number))
        except ConnectionBroken as error:
            errors.append(error)

    async with connected(handler, outgoing=ChannelConfig(2, on_overflow=CLOSE)) as (client, _):
        frames = await client.receive_rest()
    [error] = errors
    assert isinstance(error.__cause__, ChannelOverflow)
    assert frames[-1] == close(1013)
    assert frames[:-1] == [Frame.Text(str(number)) for number in range(len(frames) - 1)]
    assert len(frames) >= 3


@pytest.mark.parametrize("way", ["send", "send_nowait", "offer"])
@pytest.mark.parametrize(
    ("end", "kind"),
    [("closed here", ConnectionClosedHere), ("closed by the peer", ConnectionClosed), ("broken", ConnectionBroken)],
)
async def test_sending_behind_the_end_says_whose_it_was(
    way: str, end: str, kind: type[ConnectionClosed], autojump_clock: Clock
) -> None:
    """Ours is a closed resource, too; each has the session."""
    errors: list[ConnectionClosed] = []

    async def handler(session: WebSocketSession) -> None:
        if end == "closed here":
            session.close()
        else:
            with pytest.raises((trio.EndOfChannel, ConnectionBroken)):
                await session.receive()
            await session.wait_closed()
        try:
            if way == "offer":
                session.offer(PreparedMessage(Frame.Text("late")))
            else:
                session.send_nowait("late") if way == "send_nowait" else await session.send("late")
        except ConnectionClosed as error:
            errors.append(error)

    async with connected(handler, handler_grace=None, answer_grace=0) as (client, sessions):
        if end == "closed by the peer":
            await client.send(close(1000))
        if end == "broken":
            await client.aclose()
        await client.receive_rest() if end != "broken" else await trio.sleep(1)
        session = sessions[0]
    [error] = errors
    assert type(error) is kind
    assert isinstance(error, trio.BrokenResourceError)
    assert isinstance(error, trio.ClosedResourceError) == (end == "closed here")
    assert error.session is session


@pytest.mark.parametrize("way", ["send", "send_nowait"])
async def test_what_may_not_be_sent_here_is_refused_at_the_call(way: str, autojump_clock: Clock) -> None:
    """Text that is none, and reserved bits that nobody asked for; the conversation goes on."""

    async def handler(session: WebSocketSession) -> None:
        for frame, kind in [
            (Frame.Text(b"\xff"), UnicodeDecodeError),
            (Frame.Text("x", rsv1=True), ProtocolError),
            (Frame.Binary(b"x", rsv3=True), ProtocolError),
        ]:
            with pytest.raises(kind):
                await session.send(frame) if way == "send" else session.send_nowait(frame)
        await session.send("as before")

    async with connected(handler) as (client, _):
        assert [await client.receive() for _ in range(2)] == [Frame.Text("as before"), close(1000)]


# what others get, too


async def test_an_offer_is_taken_if_there_is_room(autojump_clock: Clock) -> None:
    """In the order of what was sent; and it waits for nobody."""
    taken: list[bool] = []

    async def handler(session: WebSocketSession) -> None:
        await session.send("first")
        with trio.testing.assert_no_checkpoints():
            for number in range(10):
                taken.append(session.offer(PreparedMessage(Frame.Text(str(number)))))

    async with connected(handler, outgoing=4) as (client, _):
        frames = await client.receive_rest()
    count = taken.count(True)
    assert 3 <= count <= 5
    assert taken == [True] * count + [False] * (10 - count)
    assert frames == [Frame.Text("first"), *(Frame.Text(str(number)) for number in range(count)), close(1000)]


async def test_an_offer_with_nothing_in_its_way_goes_straight_out() -> None:
    """To the system, in the step of the call; the answers of a handler may have company, this has none."""
    sizes: list[int] = []

    async def handler(session: WebSocketSession) -> None:
        await session.receive()
        before = session.statistics().bytes_sent
        for _ in range(3):
            assert session.offer(PreparedMessage(Frame.Binary(b"12345678")))
            sizes.append(session.statistics().bytes_sent - before)

    async with talking(handler) as (client, _):
        await client.send(Frame.Text("go"), Frame.Text("more"))
        assert [await client.receive() for _ in range(3)] == [Frame.Binary(b"12345678")] * 3
    assert sizes == [10, 20, 30]


async def test_an_offer_is_not_taken_in_the_middle_of_fragments(autojump_clock: Clock) -> None:
    """It would stand among them; behind the last it is."""
    taken: list[bool] = []

    async def handler(session: WebSocketSession) -> None:
        message = PreparedMessage(Frame.Binary(b"offered"))
        for fin in (False, True):
            await session.send(Frame.Text("part", fin=fin))
            taken.append(session.offer(message))

    async with connected(handler) as (client, _):
        frames = await client.receive_rest()
    assert taken == [False, True]
    assert frames == [Frame.Text("partpart"), Frame.Binary(b"offered"), close(1000)]


async def test_the_bytes_of_an_offer_count(autojump_clock: Clock) -> None:
    """One always passes; the next finds no room."""
    taken: list[bool] = []

    async def handler(session: WebSocketSession) -> None:
        await session.receive()
        session.send_nowait("there is a queue")
        session.send_nowait("there is a queue")
        for _ in range(3):
            taken.append(session.offer(PreparedMessage(Frame.Binary(bytes(90)))))

    async with connected(handler, max_queued_bytes=100) as (client, _):
        await client.send(Frame.Text("go"))
        await client.receive_rest()
    assert taken[-1] is False


async def test_overflow_ends_the_conversation_behind_what_was_accepted(autojump_clock: Clock) -> None:
    """1013; the handler hears of it where it sends."""

    async def handler(session: WebSocketSession) -> None:
        await session.send("accepted")
        session.overflow()
        with pytest.raises(ConnectionBroken) as broken:
            await session.send("late")
        assert isinstance(broken.value.__cause__, ChannelOverflow)

    async with connected(handler) as (client, _):
        assert await client.receive_rest() == [Frame.Text("accepted"), close(1013)]


async def test_a_long_message_is_prepared_once_for_all_that_are_alike(autojump_clock: Clock) -> None:
    """Behind the steps there is nothing more to do; of a short one there never is."""
    seen: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        message = PreparedMessage(Frame.Binary(bytes(1 << 20)))
        steps = session.preparing(message)
        assert steps is not None
        for _ in steps:
            pass
        seen.extend([session.preparing(message), session.preparing(PreparedMessage(Frame.Text("short")))])

    async with connected(handler) as (client, _):
        await client.receive_rest()
    assert seen == [None, None]


# the channels themselves


async def test_the_channels_are_made_once_and_are_the_sessions_own(autojump_clock: Clock) -> None:
    """What goes through one shows at the other."""

    async def handler(session: WebSocketSession) -> None:
        assert session.incoming is session.incoming
        assert session.outgoing is session.outgoing
        assert await session.incoming.receive() == Frame.Text("one")
        assert await session.receive() == Frame.Text("two")
        await session.outgoing.send("three")
        await session.send("four")

    async with connected(handler) as (client, _):
        await client.send(Frame.Text("one"), Frame.Text("two"))
        assert [await client.receive() for _ in range(2)] == [Frame.Text("three"), Frame.Text("four")]


async def test_a_message_is_refused_inside_fragments_that_went_through_the_channel(autojump_clock: Clock) -> None:
    """They are known when they are written; what is sent behind that goes straight, and is judged there."""
    refused: list[str] = []

    async def handler(session: WebSocketSession) -> None:
        async for _ in session:
            await session.outgoing.send(Frame.Text("a", fin=False))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ProtocolError, match="inside the fragments") as caught:
                await session.send(b"x")
            refused.append(str(caught.value))
            await session.outgoing.send(Frame.Text("b"))

    async with talking(handler) as (client, _):
        await client.send(Frame.Text("go"), close(1000))
        assert [Frame.Text("ab"), close(1000)] == await client.receive_rest()
    assert len(refused) == 1


@pytest.mark.parametrize("kind", [PlainSocket, PlainTransport])
@given(
    items=st.lists(
        st.tuples(st.sampled_from([Frame.Text, Frame.Binary]), st.booleans(), st.sampled_from([b"", b"x", bytes(2000)]))
    )
)
def test_a_message_is_refused_inside_another_ones_fragments_and_only_there(
    kind: type[PlainTransport], items: list[tuple[type[Frame.Text | Frame.Binary], bool, bytes]]
) -> None:
    """Whatever way the fragments and messages before it went: straight, put aside, or queued."""

    async def main() -> None:
        transport = kind()
        connection = Connection(transport, WebSockets())
        async with running(connection):
            channel = Plain(connection)
            opened: type[Frame] | None = None
            accepted: list[Frame] = []
            for make, fin, data in items:
                frame = Frame.Text(data.decode(), fin=fin) if make is Frame.Text else Frame.Binary(data, fin=fin)
                if opened not in (None, make):
                    with pytest.raises(ProtocolError, match="finish the fragmented"):
                        channel.send_nowait(frame)
                else:
                    channel.send_nowait(frame)
                    accepted.append(frame)
                    opened = None if fin else make
            await connection.flush(())
            assert transport.frames == accepted

    trio.run(main)


@pytest.mark.parametrize("kind", [PlainSocket, PlainTransport])
async def test_a_message_that_was_judged_when_it_was_made_is_not_judged_again(
    kind: type[PlainTransport], autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever way it goes, queued as well; all others are, once."""
    judged: list[object] = []
    check = Outgoing.check

    def spy(self: Outgoing, item: object) -> None:
        judged.append(item)
        check(self, item)

    monkeypatch.setattr(Outgoing, "check", spy)
    transport = kind()
    connection = Connection(transport, WebSockets())
    plain = [Frame.Text("x"), Frame.Binary(b"y")]
    others = [Frame.Text(b"z"), Frame.Binary(b"x", fin=False), Frame.Binary(b"y")]
    async with running(connection):
        channel = Plain(connection)
        for frame in [*plain, *others, *plain]:
            channel.send_nowait(frame)
        for frame in [*plain, *others, *plain]:
            await channel.send(frame)
        await connection.flush(())
    assert transport.frames == [*plain, *others, *plain] * 2
    assert judged == others + others[1:]  # the text is known by then


@pytest.mark.parametrize("kind", [PlainSocket, PlainTransport])
@given(text=st.text(max_size=8), cuts=st.lists(st.integers(0, 30), max_size=4), spoilt=st.integers(0, 30))
def test_a_fragment_with_which_a_text_is_none_is_refused_at_once(
    kind: type[PlainTransport], text: str, cuts: list[int], spoilt: int
) -> None:
    """Whatever way it would go; what was accepted before may still be brought to a good end."""

    async def main() -> None:
        data = ("é" + text + "日").encode()
        bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        transport = kind()
        connection = Connection(transport, WebSockets())
        async with running(connection):
            channel = Plain(connection)
            frames = [Frame.Text(data[a:b], fin=b == len(data)) for a, b in pairwise(bounds)]
            for frame in frames:
                with pytest.raises((ProtocolError, UnicodeDecodeError)):
                    channel.send_nowait(Frame.Text(b"\xff" + frame.data[spoilt:], fin=frame.fin))
                if not frame.fin and len(frames) > 1:
                    with pytest.raises((ProtocolError, UnicodeDecodeError)):
                        channel.send_nowait(Frame.Text(frame.data + b"\xc3", fin=True))
                channel.send_nowait(frame)
            await connection.flush(())
            assert b"".join(frame.data for frame in transport.frames) == data
            assert connection.conversation.closing.is_open

    trio.run(main)
