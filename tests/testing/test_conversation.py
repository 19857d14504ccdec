"""`handle_websocket_conversation`: the client's end of a conversation in memory, and what comes out of its block."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.helpers import application, assert_all_over, records_above_info
from trioktor import (
    Application,
    Call,
    CloseReason,
    ConnectionClosed,
    Frame,
    HandshakeRefused,
    JsonConverter,
    WebSockets,
    WebSocketSession,
)
from trioktor.testing import Conversation, handle_websocket_conversation, open_test_host

Clock = trio.testing.MockClock


class Bug(Exception):
    """What a handler raises."""


class Failed(Exception):
    """What a test raises."""


async def echo(session: WebSocketSession) -> None:
    """Send back what comes."""
    async for frame in session:
        await session.send(frame)


async def test_a_conversation_unpacks_into_incoming_and_outgoing(autojump_clock: Clock) -> None:
    """The two channels, and the whole with its names."""
    async with handle_websocket_conversation(application(echo), "/") as conversation:
        incoming, outgoing = conversation
        assert isinstance(conversation, Conversation)
        assert incoming is conversation.incoming is conversation.session.incoming
        assert outgoing is conversation.outgoing
        assert isinstance(incoming, trio.MemoryReceiveChannel)
        assert isinstance(outgoing, trio.MemorySendChannel)
        assert isinstance(conversation.session, WebSocketSession)
        reasons = [conversation.close_reason]
        assert conversation.response.status == 101
        assert conversation.response.headers["Upgrade"] == "websocket"
    reasons.append(conversation.close_reason)
    assert reasons == [None, CloseReason(1000)]
    assert_all_over(conversation.session)


@pytest.mark.parametrize(
    "message",
    [
        Frame.Text("Grüße, 世界 🌍"),
        Frame.Text(""),
        Frame.Binary(bytes(range(256))),
        Frame.Binary(bytes(1 << 19)),
    ],
    ids=["text", "empty", "binary", "512 KiB"],
)
async def test_messages_go_both_ways(message: Frame, autojump_clock: Clock) -> None:
    """T507: through the real engine, masked by the client."""
    async with handle_websocket_conversation(application(echo), "/") as (incoming, outgoing):
        await outgoing.send(message)
        assert await incoming.receive() == message


async def test_the_channels_take_str_and_bytes_too(autojump_clock: Clock) -> None:
    """As `session.outgoing` does."""
    async with handle_websocket_conversation(application(echo), "/") as (incoming, outgoing):
        await outgoing.send("text")
        await outgoing.send(b"data")
        assert [await incoming.receive(), await incoming.receive()] == [Frame.Text("text"), Frame.Binary(b"data")]


async def test_many_conversations_run_at_once(autojump_clock: Clock) -> None:
    """T507: a hundred parallel echoes of a hundred growing messages."""
    app = application(echo)

    async def converse(number: int) -> None:
        async with handle_websocket_conversation(app, "/") as (incoming, outgoing):
            for length in range(20):
                text = f"{number}" + "." * length
                await outgoing.send(text)
                assert (await incoming.receive()).text == text

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(converse, number)


async def test_leaving_the_block_closes_with_1000_and_waits_for_the_handler(autojump_clock: Clock) -> None:
    """What the handler does after the end has been done when the block is left."""
    seen: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        async for frame in session:
            seen.append(frame)
        await trio.sleep(2)
        seen.append(session.close_reason)

    async with handle_websocket_conversation(application(handler, answer_grace=60), "/") as (_, outgoing):
        await outgoing.send("last words")
    assert seen == [Frame.Text("last words"), CloseReason(1000)]


async def test_incoming_ends_with_end_of_channel(autojump_clock: Clock) -> None:
    """After the buffered messages; the reason is known by then."""

    async def handler(session: WebSocketSession) -> None:
        await session.send("one")
        await session.send("two")
        session.close(CloseReason(3000, "enough"))

    async with handle_websocket_conversation(application(handler), "/") as conversation:
        assert [frame.text async for frame in conversation.incoming] == ["one", "two"]
        assert conversation.close_reason == CloseReason(3000, "enough")
        with pytest.raises(trio.EndOfChannel):
            await conversation.incoming.receive()
        await conversation.session.wait_closed()
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await conversation.outgoing.send("too late")
        with pytest.raises(ConnectionClosed):
            await conversation.session.send("too late")


async def test_the_clients_session_is_a_session(autojump_clock: Clock) -> None:
    """It receives, sends and closes with any reason."""
    reasons: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        await echo(session)
        reasons.append(session.close_reason)

    async with handle_websocket_conversation(application(handler), "/?q=1") as conversation:
        await conversation.session.send("hello")
        assert await conversation.session.receive_text() == "hello"
        assert conversation.session.call.path == "/"
        await conversation.session.aclose(4001, "my reason")
        assert conversation.session.close_sent == CloseReason(4001, "my reason")
        assert conversation.session.close_received == CloseReason(4001)
    assert reasons == [CloseReason(4001, "my reason")]


async def test_a_client_that_vanishes_is_1006_for_the_server(autojump_clock: Clock) -> None:
    """`terminate` on the client's session is a lost connection."""
    reasons: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        try:
            await echo(session)
        finally:
            reasons.append(session.close_reason)

    async with handle_websocket_conversation(application(handler), "/") as conversation:
        conversation.session.terminate()
        assert (await conversation.session.wait_closed()).code == 1006
    assert reasons == [CloseReason(1006)]


# the handshake


@pytest.mark.parametrize(
    ("path", "origin", "status", "text"),
    [
        ("/nothing", None, 404, "there is nothing"),
        ("/", "https://elsewhere.example", 403, "https://elsewhere.example"),
        ("/page", None, 200, "a page"),
    ],
)
async def test_a_refused_handshake_raises_what_the_server_said(
    path: str, origin: str | None, status: int, text: str, autojump_clock: Clock
) -> None:
    """T507: status, headers and body, bare; the block does not run."""
    app = application(echo)

    @app.get("/page")
    async def page(call: Call) -> str:
        return "a page"

    with pytest.raises(HandshakeRefused, match=str(status)) as refusal:
        async with handle_websocket_conversation(app, path, origin=origin):
            raise AssertionError("not reached")
    error = refusal.value
    assert error.status == status
    assert error.headers["Connection"] == "close"
    assert text in error.body.decode()


async def test_an_origin_that_is_allowed_is_accepted(autojump_clock: Clock) -> None:
    """The same one as the host, and one from a list."""
    async with handle_websocket_conversation(application(echo), "/", origin="http://localhost") as conversation:
        assert conversation.response.status == 101
    app = application(echo, origins=[re.compile("https://.*")])
    async with handle_websocket_conversation(app, "/", origin="https://anything.example") as conversation:
        assert conversation.response.status == 101


@pytest.mark.parametrize(
    ("served", "offered", "chosen"),
    [
        ([], ["v1"], None),
        (["v1"], [], None),
        (["v1"], ["v2"], None),
        (["v2", "v1"], ["v1", "v2"], "v2"),
        (["v1", "v2"], ["v2"], "v2"),
    ],
)
async def test_subprotocols_are_offered_and_chosen(
    served: list[str], offered: list[str], chosen: str | None, autojump_clock: Clock
) -> None:
    """F19: the server's preference; both sides know the same."""
    seen: list[str | None] = []

    async def handler(session: WebSocketSession) -> None:
        seen.append(session.call.protocol)

    app = application(handler, subprotocols=served)
    async with handle_websocket_conversation(app, "/", subprotocols=offered) as conversation:
        assert conversation.session.call.protocol == chosen
        assert conversation.response.headers.get("Sec-WebSocket-Protocol") == chosen
    assert seen == [chosen]


@pytest.mark.parametrize(
    "headers",
    [{"X-Extra": "y", "Cookie": "a=1"}, [("X-Extra", "y"), ("Cookie", "a=1")]],
    ids=["mapping", "pairs"],
)
async def test_headers_reach_the_handler(
    headers: dict[str, str] | list[tuple[str, str]], autojump_clock: Clock
) -> None:
    """A mapping or pairs; the host can be another."""
    seen: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        seen.extend([session.call.headers["x-extra"], session.call.cookies, session.call.headers["host"]])

    async with handle_websocket_conversation(application(handler), "/", headers=headers):
        pass
    async with handle_websocket_conversation(
        application(handler), "/", headers=[*dict(headers).items(), ("Host", "chat.example")]
    ):
        pass
    assert seen == ["y", {"a": "1"}, "localhost", "y", {"a": "1"}, "chat.example"]


async def test_a_header_that_cannot_be_written_is_refused(autojump_clock: Clock) -> None:
    """A line break would be another header."""
    with pytest.raises(ValueError, match="header"):
        async with handle_websocket_conversation(application(echo), "/", headers={"X": "1\r\nY: 2"}):
            raise AssertionError("not reached")


# failures


async def fail_at_once(session: WebSocketSession) -> None:
    """Raise before anything is said."""
    raise Bug("on purpose")


async def fail_on_a_message(session: WebSocketSession) -> None:
    """Raise when something comes."""
    await session.receive()
    raise Bug("on purpose")


async def fail_at_the_end(session: WebSocketSession) -> None:
    """Raise after the peer has gone."""
    async for _ in session:
        pass
    raise Bug("on purpose")


async def fail_in_a_nursery(session: WebSocketSession) -> None:
    """Raise in a task of the handler's."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_at_once, session)


async def fail_beside(session: WebSocketSession) -> None:
    """Raise in a task of the session's."""
    session.start_soon(fail_at_once, session)
    await trio.sleep_forever()


@pytest.mark.parametrize("handler", [fail_at_once, fail_on_a_message, fail_at_the_end, fail_beside])
async def test_a_failure_of_the_handler_surfaces_as_itself(
    handler: Callable[[WebSocketSession], Awaitable[None]], autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a group, not in the log, and with its own traceback."""
    with pytest.raises(Bug, match="on purpose") as raised:
        async with handle_websocket_conversation(application(handler), "/") as (_, outgoing):
            await outgoing.send("hello")
    assert raised.value.__cause__ is None
    assert raised.traceback[-1].name == handler.__name__.replace("fail_beside", "fail_at_once")
    assert records_above_info(caplog) == []


async def test_a_group_that_the_handler_raises_stays_its_group(autojump_clock: Clock) -> None:
    """The handler's own nursery makes it; nothing is put round it."""
    with pytest.raises(ExceptionGroup) as raised:
        async with handle_websocket_conversation(application(fail_in_a_nursery), "/"):
            pass
    assert [type(error) for error in raised.value.exceptions] == [Bug]


async def test_the_peer_of_a_failing_handler_sees_1011(autojump_clock: Clock) -> None:
    """As a real client would, before the exception comes out."""
    reasons: list[object] = []
    with pytest.raises(Bug):
        async with handle_websocket_conversation(application(fail_on_a_message), "/") as conversation:
            await conversation.outgoing.send("hello")
            with pytest.raises(trio.EndOfChannel):
                await conversation.incoming.receive()
            reasons.append(conversation.close_reason)
    assert reasons == [CloseReason(1011)]


async def test_a_failure_of_the_handler_comes_from_that_of_the_body(autojump_clock: Clock) -> None:
    """The body fails because the handler did: the cause is the handler's, the body's stands behind it."""
    with pytest.raises(Bug, match="on purpose") as raised:
        async with handle_websocket_conversation(application(fail_at_once), "/") as (incoming, _):
            await incoming.receive()
    assert isinstance(raised.value.__cause__, trio.EndOfChannel)


async def test_both_failing_on_their_own_shows_both(autojump_clock: Clock) -> None:
    """The handler's comes out, the body's stands behind it."""
    with pytest.raises(Bug, match="on purpose") as raised:
        async with handle_websocket_conversation(application(fail_at_once), "/") as conversation:
            await conversation.session.wait_closed()
            raise Failed("in the body")
    assert isinstance(raised.value.__cause__, Failed)


@pytest.mark.parametrize(
    "error",
    [
        Failed("in the body"),
        AssertionError("in the body"),
        ExceptionGroup("in the body", [Failed()]),
        KeyboardInterrupt(),
        SystemExit(3),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_failure_of_the_body_comes_out_as_it_is(error: BaseException, autojump_clock: Clock) -> None:
    """Bare, the very object; the handler has ended."""
    ended = trio.Event()

    async def handler(session: WebSocketSession) -> None:
        try:
            await echo(session)
        finally:
            ended.set()

    with pytest.raises(type(error)) as raised:
        async with handle_websocket_conversation(application(handler), "/"):
            raise error
    assert raised.value is error
    assert ended.is_set()


async def test_a_conversation_can_be_cancelled(autojump_clock: Clock) -> None:
    """By a timeout round it: the scope catches, nothing else comes out."""
    with trio.move_on_after(5) as scope:
        async with handle_websocket_conversation(application(echo), "/") as (incoming, _):
            await incoming.receive()
    assert scope.cancelled_caught
    assert 5 <= trio.current_time() <= 6


async def test_the_quiet_end_of_a_handler_is_no_failure(autojump_clock: Clock) -> None:
    """`ConnectionClosed` of its own session leaves nothing to raise."""

    async def handler(session: WebSocketSession) -> None:
        while True:
            await session.send("tick")
            await trio.sleep(1)

    async with handle_websocket_conversation(application(handler), "/") as (incoming, _):
        assert (await incoming.receive()).text == "tick"


@pytest.mark.parametrize(("pings", "expected"), [(False, None), (True, 5)])
async def test_configured_pings_are_off_unless_asked_for(
    pings: bool, expected: float | None, autojump_clock: Clock
) -> None:
    """The clock could never rest; asked for, they are those of the configuration."""
    intervals: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        intervals.append(session.ping_interval)
        await echo(session)

    async with handle_websocket_conversation(application(handler, ping_period=5), "/", pings=pings):
        await trio.sleep(60)
    assert intervals == [expected]


async def test_a_conversation_serves_the_routes_of_the_application(autojump_clock: Clock) -> None:
    """Parameters, query, other settings: all as served."""
    app = Application()
    app.install(WebSockets())

    @app.websocket("/rooms/{room}", max_frame_size=3)
    async def handler(session: WebSocketSession, room: str) -> None:
        await session.send(f"{room} {session.call.parameters['who']} {session.max_frame_size}")

    async with handle_websocket_conversation(app, "/rooms/hall?who=ada") as (incoming, _):
        assert (await incoming.receive()).text == "hall ada 3"


async def fails_when_told(session: WebSocketSession) -> None:
    """Raise as soon as something comes."""
    await session.receive()
    raise Bug


async def test_a_cancellation_does_not_hide_what_the_block_raised(autojump_clock: Clock) -> None:
    """Raised in the step in which its scope was cancelled."""
    with pytest.raises(Failed), trio.CancelScope() as scope:
        async with handle_websocket_conversation(application(echo), "/"):
            scope.cancel()
            raise Failed


@pytest.mark.parametrize("outside", [False, True], ids=["the client", "the host"])
async def test_a_cancellation_does_not_hide_what_the_handler_raised(outside: bool, autojump_clock: Clock) -> None:
    """A time-out round the block is no reason to keep it: it is why the time ran out."""
    with pytest.raises(Bug), trio.move_on_after(5 if outside else 1000):
        async with open_test_host(application(fails_when_told)) as host:
            with trio.move_on_after(1000 if outside else 5):
                async with host.websocket("/") as (_, outgoing):
                    await outgoing.send("x")
                    await trio.sleep_forever()


async def test_a_cancellation_alone_is_one(autojump_clock: Clock) -> None:
    """It goes to the scope that it belongs to."""
    with trio.move_on_after(5) as scope:
        async with handle_websocket_conversation(application(echo), "/"):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_the_client_has_a_converter(autojump_clock: Clock) -> None:
    """As a handler has."""

    async def add(session: WebSocketSession) -> None:
        numbers = await session.receive_deserialized(list)
        await session.send_serialized({"sum": sum(numbers)})

    app = application(add, content_converter=JsonConverter())
    async with handle_websocket_conversation(app, "/", content_converter=JsonConverter()) as conversation:
        await conversation.session.send_serialized([1, 2, 3])
        assert await conversation.session.receive_deserialized(dict) == {"sum": 6}
    async with (
        open_test_host(app) as host,
        host.websocket("/", content_converter=JsonConverter()) as conversation,
    ):
        await conversation.session.send_serialized([4])
        assert await conversation.session.receive_deserialized(dict) == {"sum": 4}


@pytest.mark.parametrize("open_one", [open_test_host, lambda app: handle_websocket_conversation(app, "/")])
async def test_what_is_no_application_is_refused_by_name(open_one: Any) -> None:
    """As `serve` does."""
    with pytest.raises(TypeError, match="is an Application, not 3"):
        async with open_one(3):
            pass
