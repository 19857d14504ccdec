"""`open_test_host`: an application in memory, with as many clients as a test wants, down to the bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.support.helpers import (
    application,
    assert_all_over,
    close,
    raw_application,
    records_above_info,
)
from tests.testing.test_cutting import Witness
from trioktor import (
    Application,
    Call,
    CloseReason,
    ConnectionBroken,
    Frame,
    HandshakeRefused,
    RawWebSocketSession,
    Response,
    Room,
    WebSockets,
    WebSocketSession,
)
from trioktor.session.base import BaseSession
from trioktor.testing import ApplicationHost, Conversation, Handshake, open_test_host

Clock = trio.testing.MockClock

HELLO = bytes.fromhex("818537fa213d7f9f4d5158")
"""T101: "Hello" as the client of RFC 6455 §5.7 masks it."""
HELLO_BACK = bytes.fromhex("810548656c6c6f")
GOODBYE = bytes.fromhex("888237fa213d3412")
"""T108: a masked Close with 1000."""
GOODBYE_BACK = bytes.fromhex("880203e8")


class Bug(Exception):
    """What a handler raises."""


class Failed(Exception):
    """What a test raises."""


async def echo(session: WebSocketSession) -> None:
    """Send back what comes."""
    async for frame in session:
        await session.send(frame)


async def raw_echo(session: RawWebSocketSession) -> None:
    """Send back what comes, frame by frame, the Close included."""
    async for frame in session:
        await session.send(frame)


async def fail(session: WebSocketSession) -> None:
    """Raise once something comes."""
    await session.receive()
    raise Bug("on purpose")


def chat() -> Application:
    """Who comes is told of to all, and what one says, too."""
    app = Application()
    app.install(WebSockets())
    room = Room()

    @app.websocket("/chat/{name}")
    async def join(session: WebSocketSession, name: str) -> None:
        with room.join(session):
            await room.broadcast(f"{name} came")
            async for frame in session.frames(Frame.Text):
                await room.broadcast(f"{name}: {frame.text}")
        await room.broadcast(f"{name} left")

    return app


# several clients


async def test_clients_talk_through_what_the_application_shares(autojump_clock: Clock) -> None:
    """F115, W-25: nested blocks are clients at once, and each hears what the others do."""
    async with open_test_host(chat()) as host, host.websocket("/chat/ada") as (ada, ada_says):
        assert "ada came" == (await ada.receive()).text
        async with host.websocket("/chat/bob") as (bob, bob_says):
            for incoming in (ada, bob):
                assert "bob came" == (await incoming.receive()).text
            await bob_says.send("hello")
            await ada_says.send("welcome")
            for incoming in (ada, bob):
                heard = {(await incoming.receive()).text, (await incoming.receive()).text}
                assert {"bob: hello", "ada: welcome"} == heard
        assert "bob left" == (await ada.receive()).text


async def test_clients_may_run_in_tasks_of_the_test(autojump_clock: Clock) -> None:
    """T507: a hundred of them, each with its own conversation."""
    most = 0

    async def converse(host: ApplicationHost, number: int, all_are_here: trio.Event) -> None:
        nonlocal most
        async with host.websocket(f"/?n={number}") as (incoming, outgoing):
            most = max(most, len(host.sessions))
            if len(host.sessions) == 100:
                all_are_here.set()
            await all_are_here.wait()
            for length in range(5):
                await outgoing.send(f"{number}" + "." * length)
                assert f"{number}" + "." * length == (await incoming.receive()).text

    async with open_test_host(application(echo)) as host:
        everybody = trio.Event()
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(converse, host, number, everybody)
        assert 100 == most
        assert () == host.sessions


async def test_the_host_shows_the_sessions_of_the_server(autojump_clock: Clock) -> None:
    """W-28: as `Server.sessions`: who runs now, of either kind, and nobody afterwards."""
    app = application(echo)
    app.websocket_raw("/raw", raw_echo)
    async with open_test_host(app) as host:
        assert 0 == len(host.sessions)
        async with host.websocket("/"), host.websocket("/raw"), host.websocket_raw("/?frames"):
            sessions: tuple[BaseSession, ...] = host.sessions
            assert ["/", "/", "/raw"] == sorted(session.call.path for session in sessions)
            kinds = sorted(type(session).__name__ for session in sessions)
            assert ["RawWebSocketSession", "WebSocketSession", "WebSocketSession"] == kinds
            assert all(session.application is app for session in sessions)
        assert 0 == len(host.sessions)
        for session in sessions:
            assert_all_over(session)


async def test_one_application_may_have_several_hosts(autojump_clock: Clock) -> None:
    """Each has its own sessions."""
    app = application(echo)
    async with open_test_host(app) as first, open_test_host(app) as second, first.websocket("/"):
        assert (1, 0) == (len(first.sessions), len(second.sessions))


# frame by frame


async def test_fragments_are_sent_as_they_are_and_joined_by_the_server(autojump_clock: Clock) -> None:
    """T111: a Ping between the fragments of ABC123 is answered by itself; the client sees the Pong."""
    async with open_test_host(application(echo)) as host, host.websocket_raw("/") as conversation:
        incoming, outgoing = conversation
        assert isinstance(conversation, Conversation)
        assert isinstance(conversation.session, RawWebSocketSession)
        for frame in (
            Frame.Text("ABC", fin=False),
            Frame.Ping(b"ping"),
            Frame.Text("12", fin=False),
            Frame.Text("3"),
        ):
            await outgoing.send(frame)
        assert [Frame.Pong(b"ping"), Frame.Text("ABC123")] == [await incoming.receive(), await incoming.receive()]
        await outgoing.send(close(1000))
        assert close(1000) == await incoming.receive()


async def test_a_raw_client_answers_nothing_by_itself(autojump_clock: Clock) -> None:
    """W-25: it sees Ping and Close as frames; what it does not answer stays unanswered."""
    trips: list[float] = []

    async def handler(session: WebSocketSession) -> None:
        trips.append(await session.ping(b"are you there?"))
        session.close(3000, "enough")

    async with open_test_host(application(handler)) as host, host.websocket_raw("/") as (incoming, outgoing):
        assert Frame.Ping(b"are you there?") == await incoming.receive()
        await trio.sleep(7)
        assert [] == trips
        await outgoing.send(Frame.Pong(b"are you there?"))
        assert close(3000, "enough") == await incoming.receive()
        assert [7] == pytest.approx(trips)
        await outgoing.send(close(3000))
        with pytest.raises(trio.EndOfChannel):
            await incoming.receive()


async def test_a_server_that_gets_no_close_back_gives_up_after_close_timeout(autojump_clock: Clock) -> None:
    """F57: what a frame-level client can leave out."""
    ended: list[float] = []

    async def handler(session: WebSocketSession) -> None:
        session.close(1000)
        assert CloseReason(1000) == await session.wait_closed()
        ended.append(trio.current_time())

    app = application(handler, close_timeout=7)
    async with open_test_host(app) as host, host.websocket_raw("/") as (incoming, _):
        began = trio.current_time()
        assert close(1000) == await incoming.receive()
        await trio.sleep(20)
    assert [began + 7] == pytest.approx(ended, abs=0.6)  # and half a second in which the peer may read


async def test_both_sides_may_be_raw(autojump_clock: Clock) -> None:
    """F17: fragments, Pings and an empty Close go there and back as they were."""
    frames = [
        Frame.Binary(b"a", fin=False),
        Frame.Ping(b"p"),
        Frame.Binary(b"", fin=False),
        Frame.Binary(b"b"),
        Frame.Pong(),
        Frame.Close(),
    ]
    async with open_test_host(raw_application(raw_echo)) as host, host.websocket_raw("/") as (incoming, outgoing):
        for frame in frames:
            await outgoing.send(frame)
        assert frames == [frame async for frame in incoming]


@pytest.mark.parametrize("raw", [False, True], ids=["messages", "frames"])
async def test_handshakes_have_headers_subprotocols_and_an_origin(raw: bool, autojump_clock: Clock) -> None:
    """F19: as `handle_websocket_conversation`, in both forms."""
    seen: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        seen.extend([session.call.headers["x"], session.call.headers["origin"], session.call.protocol])

    app = application(handler, subprotocols=["v2", "v1"], origins=["https://a.example"])
    async with open_test_host(app) as host:
        open_client = host.websocket_raw if raw else host.websocket
        async with open_client(
            "/", headers={"X": "y"}, subprotocols=["v1", "v2"], origin="https://a.example"
        ) as conversation:
            assert 101 == conversation.response.status
            assert "v2" == conversation.response.headers["Sec-WebSocket-Protocol"]
            assert "v2" == conversation.session.call.protocol
    assert ["y", "https://a.example", "v2"] == seen


# bytes


@pytest.mark.parametrize(
    ("route", "said", "heard"),
    [
        ("/raw", HELLO, HELLO_BACK),
        ("/", HELLO + GOODBYE, HELLO_BACK + GOODBYE_BACK),
        ("/", GOODBYE, GOODBYE_BACK),
        ("/raw", GOODBYE, GOODBYE_BACK),
        ("/", bytes.fromhex("888037fa213d"), bytes.fromhex("8800")),
        ("/", bytes.fromhex("888237fa213ddff9"), bytes.fromhex("880203ea")),
        (
            "/",
            bytes.fromhex("018337fa213d76b862 898437fa213d47934f5a 008237fa213d06c8 808137fa213d04") + GOODBYE,
            bytes.fromhex("8a0470696e67 8106414243313233") + GOODBYE_BACK,
        ),
        ("/", b"", b""),
        ("/", HELLO_BACK, bytes.fromhex("880203ea")),
    ],
    ids=[
        "T101 raw",
        "T101 and a Close",
        "T108",
        "T108 raw",
        "an empty Close",
        "T108 R09 the code 59395",
        "T111",
        "nothing",
        "not masked",
    ],
)
async def test_bytes_in_and_bytes_out(route: str, said: bytes, heard: bytes, autojump_clock: Clock) -> None:
    """F116, W-25: exactly these, and then the end of the stream; nothing is left."""
    app = application(echo)
    app.websocket_raw("/raw", raw_echo)
    async with open_test_host(app) as host:
        with trio.fail_after(5):
            assert heard == await host.websocket_bytes(route, said)
        assert () == host.sessions


@pytest.mark.parametrize("raw", [False, True], ids=["messages", "frames"])
async def test_masked_bytes_are_unmasked_for_the_handler(raw: bool, autojump_clock: Clock) -> None:
    """T107, the inbound half: the handler sees Hello."""
    seen: list[Frame] = []

    async def handler(session: BaseSession) -> None:
        seen.append(await session.receive())

    app = raw_application(handler) if raw else application(handler)
    async with open_test_host(app) as host:
        await host.websocket_bytes("/", HELLO)
    assert [Frame.Text("Hello")] == seen


async def test_what_a_handler_says_first_is_among_the_bytes(autojump_clock: Clock) -> None:
    """Whether it comes with the 101 or later."""

    async def handler(session: RawWebSocketSession) -> None:
        await session.send("at once")
        await trio.sleep(1)
        await session.send("later")
        session.close(4000)

    async with open_test_host(raw_application(handler)) as host:
        assert b"\x81\x07at once\x81\x05later\x88\x02\x0f\xa0" == await host.websocket_bytes("/", b"")


async def test_headers_of_a_byte_level_client_reach_the_handler(autojump_clock: Clock) -> None:
    """As mapping or pairs."""
    seen: list[str] = []

    async def handler(session: WebSocketSession) -> None:
        seen.append(session.call.headers["x"])

    async with open_test_host(application(handler)) as host:
        await host.websocket_bytes("/", GOODBYE, headers={"X": "mapping"})
        await host.websocket_bytes("/", GOODBYE, headers=[("X", "pairs")])
    assert ["mapping", "pairs"] == seen


# cut off


@pytest.mark.parametrize("raw", [False, True], ids=["messages", "frames"])
async def test_a_conversation_can_be_cut_by_hand(
    raw: bool, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """W-07: `conversation.cut()` needs no await: 1006 on both sides, now, and no Close."""
    witness = Witness()
    async with open_test_host(application(witness)) as host:
        async with (host.websocket_raw if raw else host.websocket)("/") as conversation:
            await conversation.outgoing.send("hello")
            assert Frame.Text("hello") == await conversation.incoming.receive()
            began = trio.current_time()
            conversation.cut()
            conversation.cut()
            assert CloseReason(1006) == conversation.close_reason == await conversation.session.wait_closed()
            with pytest.raises(trio.EndOfChannel):
                await conversation.incoming.receive()
            with pytest.raises(trio.BrokenResourceError):
                await conversation.outgoing.send("too late")
        assert () == host.sessions
    assert began == trio.current_time()
    witness.assert_broken()
    assert [] == records_above_info(caplog)


# plain requests, and refusals


async def test_plain_requests_are_answered(autojump_clock: Clock) -> None:
    """F115: status, headers and body, at a GET route, at none, and at one that speaks WebSocket only."""
    app = application(echo, path="/ws")

    @app.get("/health/{part}")
    async def health(call: Call, part: str) -> Response:
        return Response(f"{part} {call.scheme} {call.headers['x']}", status=203, headers={"X": "y"})

    async with open_test_host(app) as host:
        answer = await host.get("/health/disk?q", headers={"X": "z"})
        assert isinstance(answer, Handshake)
        assert (203, b"disk http z", "y") == (answer.status, answer.body, answer.headers["x"])
        missing = await host.get("/nothing", headers=[("X", "z")])
        assert (404, b"there is nothing at this path\n") == (missing.status, missing.body)
        upgrade = await host.get("/ws")
        assert (426, "websocket") == (upgrade.status, upgrade.headers["Upgrade"])


async def test_a_get_handler_that_fails_is_a_500_as_on_the_net(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """W-26: it tells the client nothing, and the log all."""
    app = Application()

    @app.get("/")
    async def handler(call: Call) -> str:
        raise Bug("on purpose")

    async with open_test_host(app) as host:
        answer = await host.get("/")
    assert (500, b"the server failed\n") == (answer.status, answer.body)
    assert ["Bug"] == [record.exc_info[0].__name__ for record in records_above_info(caplog) if record.exc_info]  # type: ignore[union-attr]


def refusing() -> Application:
    """An application that lets nobody in, for several reasons."""
    app = Application()
    app.install(WebSockets(origins=["https://a.example"]))
    app.websocket("/", echo)

    async def no(call: Call) -> Response:
        return Response("not you", status=401, headers={"WWW-Authenticate": "Basic"})

    app.websocket("/private", echo, before=no, origins=None)
    return app


@pytest.mark.parametrize("how", ["websocket", "websocket_raw", "websocket_bytes"])
@pytest.mark.parametrize(
    ("path", "status", "header", "body"),
    [
        ("/nothing", 404, ("Connection", "close"), b"there is nothing at this path\n"),
        ("/private", 401, ("WWW-Authenticate", "Basic"), b"not you"),
        ("/", 403, ("Connection", "close"), b"https://b.example"),
    ],
)
async def test_a_refused_handshake_raises_what_the_server_said(
    how: str, path: str, status: int, header: tuple[str, str], body: bytes, autojump_clock: Clock
) -> None:
    """T507, W-20, W-25: bare, at once, with status, headers and body; the block does not run."""
    headers = {"Origin": "https://b.example"}
    async with open_test_host(refusing()) as host:
        began = trio.current_time()
        with pytest.raises(HandshakeRefused, match=str(status)) as refusal:
            if how == "websocket_bytes":
                await host.websocket_bytes(path, HELLO, headers=headers)
            async with getattr(host, how)(path, headers=headers):
                raise AssertionError("not reached")
        assert began == trio.current_time()
        assert () == host.sessions
    assert status == refusal.value.status
    assert header[1] == refusal.value.headers[header[0]]
    assert body in refusal.value.body


# failures


async def test_a_failure_of_a_handler_surfaces_from_its_own_client(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """W-25, W-27: as itself, not in the log; the clients beside it and after it are served."""
    app = application(echo)
    app.websocket("/fail", fail)
    async with open_test_host(app) as host, host.websocket("/") as (incoming, outgoing):
        with pytest.raises(Bug, match="on purpose") as raised:
            async with host.websocket("/fail") as failing:
                await failing.outgoing.send("hello")
                with pytest.raises(trio.EndOfChannel):
                    await failing.incoming.receive()
                assert CloseReason(1011) == failing.close_reason
        assert raised.value.__cause__ is None
        assert "fail" == raised.traceback[-1].name
        await outgoing.send("still here")
        assert "still here" == (await incoming.receive()).text
        async with host.websocket("/") as (after, says):
            await says.send("and after")
            assert "and after" == (await after.receive()).text
    assert [] == records_above_info(caplog)


@pytest.mark.parametrize("raw", [False, True], ids=["messages", "frames"])
async def test_a_failure_of_a_handler_surfaces_from_frames_and_bytes(raw: bool, autojump_clock: Clock) -> None:
    """W-25: from the block of `websocket_raw`, and from the call of `websocket_bytes`."""
    app = raw_application(fail) if raw else application(fail)
    async with open_test_host(app) as host:
        with pytest.raises(Bug, match="on purpose"):
            async with host.websocket_raw("/") as (_, outgoing):
                await outgoing.send("hello")
        with pytest.raises(Bug, match="on purpose"):
            await host.websocket_bytes("/", HELLO)
        assert () == host.sessions


async def test_failures_in_tasks_of_the_test_stay_apart(autojump_clock: Clock) -> None:
    """Each client of a nursery gets its own handler's, and no other's."""
    app = Application()
    app.install(WebSockets())
    caught: dict[str, str] = {}

    @app.websocket("/{name}")
    async def handler(session: WebSocketSession, name: str) -> None:
        await session.receive()
        raise Bug(name)

    async def client(host: ApplicationHost, name: str) -> None:
        with pytest.raises(Bug) as raised:
            async with host.websocket(f"/{name}") as (_, outgoing):
                await outgoing.send("go")
        caught[name] = str(raised.value)

    async with open_test_host(app) as host, trio.open_nursery() as nursery:
        for name in ("a", "b", "c"):
            nursery.start_soon(client, host, name)
    assert {"a": "a", "b": "b", "c": "c"} == caught


@pytest.mark.parametrize("how", ["websocket", "websocket_raw"])
@pytest.mark.parametrize(
    "error",
    [Failed("in the body"), AssertionError("in the body"), ExceptionGroup("in the body", [Failed()]), SystemExit(3)],
    ids=lambda error: type(error).__name__,
)
async def test_a_failure_of_the_body_comes_out_as_it_is(error: BaseException, how: str, autojump_clock: Clock) -> None:
    """Through the client's block and the host's: the very object, and the handler has ended."""
    witness = Witness()
    with pytest.raises(type(error)) as raised:
        async with open_test_host(application(witness)) as host, getattr(host, how)("/"):
            raise error
    assert error is raised.value
    assert 1 == len(witness.errors)
    assert_all_over(witness.sessions[0])


async def test_a_failure_between_clients_comes_out_of_the_host(autojump_clock: Clock) -> None:
    """The host's own block puts nothing round it."""
    error = Failed("between")
    with pytest.raises(Failed) as raised:
        async with open_test_host(application(echo)) as host:
            async with host.websocket("/"):
                pass
            raise error
    assert error is raised.value


async def test_both_failing_shows_both(autojump_clock: Clock) -> None:
    """The handler's comes out, `from` the body's."""
    with pytest.raises(Bug, match="on purpose") as raised:
        async with open_test_host(application(fail)) as host, host.websocket("/") as conversation:
            await conversation.outgoing.send("hello")
            await conversation.session.wait_closed()
            raise Failed("in the body")
    assert isinstance(raised.value.__cause__, Failed)


@pytest.mark.parametrize("how", ["websocket", "websocket_raw"])
async def test_a_block_can_be_cancelled(how: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """By a timeout round it: the scope catches, nothing is left, and the host serves on."""
    witness = Witness()
    async with open_test_host(application(witness)) as host:
        began = trio.current_time()
        with trio.move_on_after(5) as scope:
            async with getattr(host, how)("/") as (incoming, _):
                await incoming.receive()
        assert scope.cancelled_caught
        assert 5 <= trio.current_time() - began <= 6
        assert () == host.sessions
        assert_all_over(witness.sessions[0])
        async with host.websocket("/") as (incoming, outgoing):
            await outgoing.send("still here")
            assert "still here" == (await incoming.receive()).text
    assert [] == records_above_info(caplog)


@pytest.mark.parametrize("call", ["bytes", "get", "handshake"])
async def test_a_call_can_be_cancelled(call: str, autojump_clock: Clock) -> None:
    """While a handler, a GET handler or a hook takes its time."""

    async def slow(_: object) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    app = application(slow, path="/slow", handler_grace=None)
    app.get("/", slow)
    app.websocket("/hook", echo, before=slow)
    calls: dict[str, Callable[[ApplicationHost], Awaitable[object]]] = {
        "bytes": lambda host: host.websocket_bytes("/slow", HELLO),
        "get": lambda host: host.get("/"),
        "handshake": lambda host: host.websocket_bytes("/hook", HELLO),
    }
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with open_test_host(app) as host:
        began = trio.current_time()
        with trio.move_on_after(5) as scope:
            await calls[call](host)
        assert scope.cancelled_caught
        assert 5 <= trio.current_time() - began <= 6
        assert () == host.sessions
    assert tasks == trio.lowlevel.current_statistics().tasks_living


# pings


@pytest.mark.parametrize(("pings", "expected"), [(False, 0), (True, 3)])
async def test_configured_pings_are_off_unless_asked_for(pings: bool, expected: int, autojump_clock: Clock) -> None:
    """F81: so that the clock can jump; asked for, a client that works frame by frame sees them."""
    async with open_test_host(application(echo, ping_period=5), pings=pings) as host:
        count = 0
        async with host.websocket_raw("/") as (incoming, outgoing):
            with trio.move_on_after(19):
                async for frame in incoming:
                    assert isinstance(frame, Frame.Ping)
                    count += 1
                    await outgoing.send(Frame.Pong(frame.data))
            [session] = host.sessions
            assert isinstance(session, WebSocketSession)
            assert (5 if pings else None) == session.ping_interval
            await outgoing.send(close(1000))
            assert close(1000) == await incoming.receive()
    assert expected == count


async def test_a_client_that_answers_no_ping_is_given_up(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """F82, W-07: Close 1011 "Ping timeout" as a frame, a broken end for the handler, nothing above INFO."""
    witness = Witness()
    app = application(witness, ping_period=5, timeout=2)
    async with open_test_host(app, pings=True) as host, host.websocket_raw("/") as (incoming, _):
        began = trio.current_time()
        assert isinstance(await incoming.receive(), Frame.Ping)
        assert close(1011, "Ping timeout") == await incoming.receive()
        assert began + 7 == pytest.approx(trio.current_time())
    assert [ConnectionBroken] == [type(error) for error in witness.errors]
    assert_all_over(witness.sessions[0])
    assert [] == records_above_info(caplog)


async def test_what_is_hosted_can_be_changed_no_more(autojump_clock: Clock) -> None:
    """From the beginning of the block, before anybody has connected."""
    app = application(echo)
    async with open_test_host(app):
        with pytest.raises(RuntimeError, match="has been served"):
            app.websocket("/late", echo)
