"""Broadcasts and rooms: nobody is waited for, nobody is hurt by who leaves."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import Any, final

import pytest
import trio
import trio.testing

from tests.support.helpers import RawClient, application, close, connected, records_above_info
from tests.support.lent import connected as joined
from tests.support.listening import talking
from trioktor import (
    CLOSE,
    SKIP,
    SUSPEND,
    Application,
    ChannelConfig,
    ChannelOverflow,
    CloseReason,
    ConnectionBroken,
    Extension,
    ExtensionFactory,
    ExtensionHeader,
    Frame,
    FrameType,
    Overflow,
    PerMessageDeflate,
    ProtocolError,
    Room,
    WebSockets,
    WebSocketSession,
    broadcast,
    serve,
)
from trioktor.engine.lifetime import FirstWait
from trioktor.protocol.prepared import shared_key
from trioktor.testing import Conversation, open_test_host

Clock = trio.testing.MockClock
Session = WebSocketSession


def room_application(room: Room, **settings: object) -> Application:
    """Whoever connects is in the room; what one says all hear."""
    app = Application()
    app.install(WebSockets(**settings))  # type: ignore[arg-type]

    @app.websocket("/")
    async def member(session: Session) -> None:
        with room.join(session):
            async for frame in session:
                await room.broadcast(frame)

    return app


async def test_everybody_in_the_room_hears_it(autojump_clock: Clock) -> None:
    """W-24: the speaker, too; who left does not, and the speaker does not notice."""
    room = Room()
    async with open_test_host(room_application(room)) as host, AsyncExitStack() as stack:
        members: list[Conversation[Session]] = []
        for _ in range(5):
            members.append(await stack.enter_async_context(host.websocket("/")))
        await trio.testing.wait_all_tasks_blocked()
        assert 5 == len(room) == len(list(room))
        await members[0].outgoing.send("hello")
        assert ["hello"] * 5 == [(await member.incoming.receive()).text for member in members]
        members[1].cut()
        members[2].session.close()
        await trio.sleep(1)
        assert 3 == len(room)
        await members[0].outgoing.send("who is there?")
        assert ["who is there?"] * 3 == [(await members[n].incoming.receive()).text for n in (0, 3, 4)]
        assert "<Room of 3>" == repr(room)
    assert 0 == len(room)


async def test_it_returns_how_many_took_it(autojump_clock: Clock) -> None:
    """A copy is worked on; sessions that are over are not counted, and do not raise."""
    sessions: list[Session] = []

    async def handler(session: Session) -> None:
        sessions.append(session)
        async for _ in session:
            pass

    async with open_test_host(application(handler)) as host, AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(host.websocket("/"))
        await trio.testing.wait_all_tasks_blocked()
        assert 4 == await broadcast(sessions, "to all")
        sessions[0].terminate()
        sessions[1].close(1001)
        assert 2 == await broadcast(sessions, b"to two")
        sessions.clear()
        assert 0 == await broadcast(sessions, "to nobody")


async def test_a_session_is_in_as_long_as_it_joined(autojump_clock: Clock) -> None:
    """Twice in, once out: still in, and it hears everything once."""
    room = Room()

    async def handler(session: Session) -> None:
        with room.join(session):
            with room.join(session):
                assert 1 == await room.broadcast("twice in")
            assert session in room
            assert 1 == await room.broadcast("once in")
        assert session not in room
        assert 0 == await room.broadcast("out")

    async with open_test_host(application(handler)) as host, host.websocket("/") as (incoming, _):
        assert ["twice in", "once in"] == [frame.text async for frame in incoming]


@pytest.mark.parametrize("policy", [SKIP, CLOSE])
async def test_one_stalled_reader_of_many_slows_nobody(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, policy: object
) -> None:
    """SKIP leaves him out, CLOSE ends his conversation with 1013; the other 199 get everything at once."""
    caplog.set_level(logging.DEBUG)
    sessions: list[Session] = []
    causes: list[object] = []

    async def handler(session: Session) -> None:
        sessions.append(session)
        try:
            async for _ in session:
                pass
        except ConnectionBroken as error:
            causes.append(error.__cause__)

    rounds = 30
    app = application(handler, outgoing=4)
    async with open_test_host(app) as host, trio.open_nursery() as nursery:
        ours, theirs = trio.testing.lockstep_stream_pair()
        nursery.start_soon(app.handle_stream, theirs)
        await RawClient(ours).upgrade()  # and reads nothing more
        async with AsyncExitStack() as stack:
            members = [await stack.enter_async_context(host.websocket("/")) for _ in range(199)]
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            taken = []
            for number in range(rounds):
                taken.append(await broadcast(sessions, f"{number} " + "x" * 10_000, on_full=policy))  # type: ignore[arg-type]
                for member in members:
                    assert (await member.incoming.receive()).text.startswith(f"{number} ")
            assert start == trio.current_time()
            assert 200 == taken[0]
            assert [199] * 20 == taken[-20:]
            stalled = sessions[0]
            assert (CloseReason(1013) if policy is CLOSE else None) == stalled.close_reason
        await ours.aclose()
    assert ([ChannelOverflow] if policy is CLOSE else []) == [type(cause) for cause in causes if cause is not None]
    assert not records_above_info(caplog)


async def test_the_policy_of_the_call_rules(autojump_clock: Clock) -> None:
    """SKIP spares a session whose own queue is configured to close on overflow."""

    async def handler(session: Session) -> None:
        counts = [await broadcast([session], "x" * 70_000) for _ in range(10)]
        assert counts[0] == 1
        assert counts[-1] == 0
        assert session.close_reason is None

    ours, theirs = trio.testing.lockstep_stream_pair()
    app = application(handler, outgoing=ChannelConfig(2, on_overflow=CLOSE))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.handle_stream, theirs)
        client = RawClient(ours)
        await client.upgrade()
        await trio.testing.wait_all_tasks_blocked()
        frames = [await client.receive() for _ in range(4)]
        assert close(1000) == frames[-1]
        await ours.aclose()


async def test_a_message_in_pieces_is_not_torn(autojump_clock: Clock) -> None:
    """A broadcast waits behind a streamed message, and leaves out who is in fragments of his own."""

    async def handler(session: Session) -> None:
        async with session.message(FrameType.TEXT) as message:
            await message.send("a ")
            assert 1 == await broadcast([session], "to all")
            await message.send("message")
        await session.send(Frame.Text("frag", fin=False))
        assert 0 == await broadcast([session], "to all others")
        await session.send(Frame.Text("ments"))

    async with open_test_host(application(handler)) as host, host.websocket("/") as (incoming, _):
        assert ["a message", "to all", "fragments"] == [frame.text async for frame in incoming]


@pytest.mark.parametrize("policy", [SKIP, CLOSE])
async def test_a_broadcast_waits_behind_a_message_that_has_begun(policy: Overflow, autojump_clock: Clock) -> None:
    """Though a fragment of it is out already; the session is not full."""

    async def handler(session: Session) -> None:
        async with session.message(FrameType.TEXT) as message:
            await message.send("a ")
            await trio.testing.wait_all_tasks_blocked()
            assert 1 == await broadcast([session], "to all", on_full=policy)
            await message.send("message")

    async with connected(handler) as (client, _):
        expected = [Frame.Text("a message"), Frame.Text("to all"), close(1000)]
        assert expected == [await client.receive() for _ in expected]


async def test_what_cannot_be_broadcast_is_refused(autojump_clock: Clock) -> None:
    """A policy that would wait, or a thing that is no message: an error before anything is sent."""
    with pytest.raises(ValueError, match="SKIP or CLOSE"):
        await broadcast([], "x", on_full=SUSPEND)
    with pytest.raises(TypeError, match="Frame, str or bytes"):
        await broadcast([], 5)  # type: ignore[arg-type]


async def test_it_gives_others_their_turn() -> None:
    """A checkpoint every so many sessions, and at least one."""
    with trio.testing.assert_checkpoints():
        await broadcast([], "x")
    with trio.move_on_after(0) as scope:
        await broadcast([], "x")
    assert scope.cancelled_caught


async def test_a_fragment_is_no_message(autojump_clock: Clock) -> None:
    """It would leave every session in the middle of one."""
    with pytest.raises(ValueError, match="whole messages"):
        await broadcast([], Frame.Text("a", fin=False))
    for frame in (Frame.Ping(), close(1000)):
        with pytest.raises(ValueError, match="only messages"):
            await broadcast([], frame)


def test_sessions_without_extensions_are_all_alike() -> None:
    """One message is serialized once for all of them; an extension that says nothing of itself shares nothing."""
    assert shared_key(()) == ()
    agreed = PerMessageDeflate().negotiate(ExtensionHeader("permessage-deflate"))
    assert agreed is not None
    assert shared_key((agreed[1],)) is not None
    assert shared_key((agreed[1], Extension(PerMessageDeflate()))) is None


@pytest.mark.parametrize(
    "frame",
    [Frame.Text("x", rsv1=True), Frame.Binary(b"x", rsv3=True), Frame.Text(b"\xff"), Frame.Text(bytes(5000) + b"\xff")],
)
@pytest.mark.parametrize("way", [connected, talking])
async def test_what_no_session_could_send_is_refused_before_anybody_has_it(
    way: Any, frame: Frame, autojump_clock: Clock
) -> None:
    """A peer would end its connection for it; whichever way it would have gone."""
    sessions: list[Session] = []

    async def handler(session: Session) -> None:
        sessions.append(session)
        async for _ in session:
            pass

    async with way(handler) as (client, _):
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises((ProtocolError, UnicodeDecodeError)):
            await sessions[0].send(frame)
        with pytest.raises((ProtocolError, UnicodeDecodeError)):
            await broadcast(sessions, frame)
        assert 1 == await broadcast(sessions, "still there")
        assert Frame.Text("still there") == await client.receive()


@final
class FailingOnce(ExtensionFactory):
    """Makes extensions of which the second fails at its first message."""

    name = None

    def __init__(self) -> None:
        self.made: list[Extension] = []

    def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension]:
        """Always on."""
        self.made.append(FailingExtension(self))
        return offer, self.made[-1]


class FailingExtension(Extension):
    """At work."""

    def encode(self, message: Frame) -> Frame:
        """Fail, if it is the second."""
        assert isinstance(self.factory, FailingOnce)
        if self.factory.made[1] is self:
            raise RuntimeError("on purpose")
        return message


async def test_an_extension_that_fails_at_a_broadcast_ends_its_conversation_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """All others hear it, and nobody who says something is told."""
    room = Room()
    app = room_application(room, extensions=[FailingOnce()])
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        server = await nursery.start(partial(serve, app, 0, host="127.0.0.1"))
        clients = [await joined(server, stack) for _ in range(3)]
        assert await room.broadcast("all") == 2
        assert [await client.receive() for client in clients] == [Frame.Text("all"), close(1011), Frame.Text("all")]
        nursery.cancel_scope.cancel()
    assert "on purpose" in caplog.text


@pytest.mark.parametrize("message", ["said", b"said"])
@pytest.mark.parametrize("is_written", [True, False])
async def test_a_broadcast_does_not_come_into_a_message_that_goes_through_outgoing(
    message: str | bytes, is_written: bool, autojump_clock: Clock
) -> None:
    """The session counts as full, or the broadcast is left out when it is its turn; the conversation goes on."""

    async def handler(session: Session) -> None:
        session.outgoing.send_nowait(Frame.Text("one ", fin=False))
        if is_written:
            await trio.testing.wait_all_tasks_blocked()
        assert await broadcast([session], message) == (not is_written)
        await session.outgoing.send(Frame.Text("message"))
        await session.flush()
        assert await broadcast([session], message) == 1

    async with connected(handler) as (client, _):
        last = Frame.Text(message) if isinstance(message, str) else Frame.Binary(message)
        assert [Frame.Text("one message"), last] == [await client.receive(), await client.receive()]


async def test_who_joins_behind_the_call_hears_nothing_of_it(autojump_clock: Clock) -> None:
    """The room is copied in the step of the call, before its checkpoint."""
    room = Room()

    async def handler(session: Session) -> None:
        with ExitStack() as stack:
            await FirstWait(room.broadcast("early"), lambda: stack.enter_context(room.join(session)))
            assert await room.broadcast("late") == 1

    async with connected(handler) as (client, _):
        assert await client.receive() == Frame.Text("late")


@final
class FailingAlone(ExtensionFactory):
    """Makes an extension that works once for all connections, and fails at that."""

    name = None

    def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension]:
        """Always on."""
        return offer, FailingAtAll(self)


class FailingAtAll(Extension):
    """At work."""

    shared_key = "the same"

    def encode_alone(self, message: Frame) -> Frame:
        """Fail."""
        raise RuntimeError("on purpose")


@pytest.mark.parametrize("size", [10, 100_000])
async def test_an_extension_that_fails_for_all_ends_those_that_have_it(
    size: int, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A short message, or a long one that is made ready before; those without it hear it."""
    room = Room()
    app = room_application(room)

    @app.websocket("/failing", extensions=[FailingAlone()])
    async def member(session: Session) -> None:
        with room.join(session):
            async for _ in session:
                pass

    async with open_test_host(app) as host, AsyncExitStack() as stack:
        first, hears, last = [
            (await stack.enter_async_context(host.websocket(path))).session for path in ("/failing", "/", "/failing")
        ]
        await trio.testing.wait_all_tasks_blocked()
        taken = await room.broadcast(bytes(size))
        assert taken == (3 if size == 10 else 1)  # a short one is queued here, and fails when it is written
        assert await hears.receive() == Frame.Binary(bytes(size))
        for session in (first, last):
            assert await session.wait_closed() == CloseReason(1011)
    assert "on purpose" in caplog.text
