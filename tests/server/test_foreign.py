"""`ForeignHost`: an application behind a door of somebody else's, who lets clients in and carries their messages."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.calls import head_of
from tests.support.doors import LITTLE, PEER, Door, Wire, asking
from tests.support.helpers import application, records_above_info
from trioktor import Application, Call, CloseReason, Frame, Response, WebSockets, WebSocketSession
from trioktor.http.requests import RequestHead
from trioktor.server.foreign import ForeignHost


async def echo(session: WebSocketSession) -> None:
    """Send back what comes."""
    async for frame in session:
        await session.send(frame)


async def never(session: WebSocketSession) -> None:
    """Not to be reached."""
    raise AssertionError("it was let in")


def hosting(app: Application) -> ForeignHost:
    """A host on a server that can do little."""
    return ForeignHost(app, LITTLE)


# a conversation


async def test_a_client_that_is_let_in_talks_to_the_handler() -> None:
    """With the parameters that it wants, and what the server knows of the client; the door is told what it needs."""
    seen: list[object] = []
    app = Application()
    app.install(WebSockets(close_timeout=7, subprotocols=["v2", "v1"], max_frame_size=99))

    @app.websocket("/rooms/{room}/{place?}")
    async def handler(session: WebSocketSession, place: str | None, room: str) -> None:
        call = session.call
        seen.extend([room, place, call.client, call.scheme, call.route, session.application is app])
        await echo(session)

    door = Door(Wire(Frame.Text("a"), Frame.Binary(b"b")))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hosting(app).converse, asking("/rooms/big", (b"sec-websocket-protocol", b"v1")), PEER, door)
        await trio.testing.wait_all_tasks_blocked()
        door.wire.say(Frame.Close(CloseReason(1000, "bye")))
    assert seen == ["big", None, ("192.0.2.1", 5), "wss", "/rooms/{room}/{place?}", True]
    [(call, close_timeout)] = door.accepted
    assert (call.protocol, close_timeout) == ("v1", 7)
    assert door.wire.heard == [Frame.Text("a"), Frame.Binary(b"b")]
    assert door.wire.is_dropped
    assert door.refused == []


async def test_what_stands_between_is_not_joined_beyond_the_limit() -> None:
    """`max_frame_size` is the handler's, and holds for what comes over messages, too."""
    door = Door(Wire(Frame.Binary(bytes(100)), None))
    await hosting(application(echo, max_frame_size=99)).converse(asking(), PEER, door)
    assert door.wire.heard == [Frame.Close(CloseReason(1009))]


async def test_a_handler_that_fails_is_logged_and_the_client_told(caplog: pytest.LogCaptureFixture) -> None:
    """1011, and the end of this conversation alone."""

    async def handler(session: WebSocketSession) -> None:
        raise ValueError("a bug")

    host = hosting(application(handler))
    for _ in range(2):
        door = Door()
        await host.converse(asking(), PEER, door)
        assert door.wire.heard == [Frame.Close(CloseReason(1011))]
    assert len(records_above_info(caplog)) == 2


async def test_a_conversation_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """As on our own server."""
    caplog.set_level(logging.DEBUG, "trioktor.session")
    await hosting(application(echo)).converse(asking("/?secret"), PEER, Door(Wire(Frame.Close(CloseReason(1000)))))
    first, *_, last = [record.getMessage() for record in caplog.records]
    assert first == "opened / for ('192.0.2.1', 5)"
    assert last.startswith("closed / for ('192.0.2.1', 5) after ")


async def test_one_that_is_cancelled_is_not_the_servers_end(autojump_clock: MockClock) -> None:
    """Another goes on; who asks later is let in."""
    host = hosting(application(echo))
    first, second = Door(), Door()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.converse, asking(), PEER, second)
        with trio.move_on_after(1):
            await host.converse(asking(), PEER, first)
        assert first.wire.heard == [Frame.Close(CloseReason(1001))]
        assert first.wire.is_dropped
        second.wire.say(Frame.Text("still there?"))
        await trio.testing.wait_all_tasks_blocked()
        second.wire.say(None)
    assert second.wire.heard == [Frame.Text("still there?")]
    third = Door(Wire(None))
    await host.converse(asking(), PEER, third)
    assert third.accepted


# who is not let in


async def no(call: Call) -> Response:
    """Refuse, with a header."""
    call.response_headers.append("X-Hook", "yes")
    return Response("no\n", status=403)


async def fails(call: Call) -> None:
    """Raise."""
    raise ValueError("a bug")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (asking("/nothing"), Response("there is nothing at this path\n", status=404)),
        (asking("/page"), Response("there is no WebSocket at this path\n", status=404)),
        (asking("/no"), Response("no\n", status=403, headers=[("X-Hook", "yes")])),
        (asking("/fails"), Response("the server failed\n", status=500)),
    ],
    ids=["no path", "a page", "a hook", "a hook that fails"],
)
async def test_a_refusal_is_handed_to_the_door(
    head: RequestHead, expected: Response, caplog: pytest.LogCaptureFixture
) -> None:
    """As a whole answer; nobody is let in."""
    app = application(never)
    app.websocket("/no", never, before=no)
    app.websocket("/fails", never, before=fails)

    @app.get("/page")
    async def page(call: Call) -> str:
        return "a page"

    door = Door()
    await hosting(app).converse(head, PEER, door)
    assert door.refused == [expected]
    assert door.accepted == []


@pytest.mark.parametrize(
    ("settings", "header", "status"),
    [
        ({"hosts": ["example.com"]}, (b"x", b"y"), 421),
        ({}, (b"origin", b"http://evil.example"), 403),
        ({"subprotocols": lambda call: "never offered"}, (b"x", b"y"), 500),
    ],
    ids=["host", "origin", "subprotocol"],
)
async def test_host_origin_and_subprotocol_are_checked(
    settings: dict[str, Any], header: tuple[bytes, bytes], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """As on our own server."""
    door = Door()
    await hosting(application(never, **settings)).converse(asking("/", header), PEER, door)
    assert [response.status for response in door.refused] == [status]
    assert door.accepted == []


async def test_hooks_have_ten_seconds(autojump_clock: MockClock) -> None:
    """All together; then the client is refused."""

    async def slow(call: Call) -> None:
        await trio.sleep(6)

    app = Application()
    app.install(WebSockets())
    app.websocket("/", never, before=[slow, slow])
    door = Door()
    await hosting(app).converse(asking(), PEER, door)
    assert [response.status for response in door.refused] == [503]
    assert trio.current_time() == pytest.approx(10)


# a server that is slow, or a client that has gone


async def test_a_client_that_is_gone_is_no_event(caplog: pytest.LogCaptureFixture) -> None:
    """The door says so; the handler never hears of it."""
    door = Door()
    door.is_gone = True
    await hosting(application(never)).converse(asking(), PEER, door)
    assert door.refused == []
    assert records_above_info(caplog) == []


@pytest.mark.parametrize(("delay", "is_late"), [(29, False), (31, True)])
async def test_a_server_has_half_a_minute_to_let_a_client_in(
    delay: float, is_late: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Then it is left, which is noted, and no more than that."""
    caplog.set_level(logging.INFO, "trioktor.server")
    ran: list[WebSocketSession] = []

    async def handler(session: WebSocketSession) -> None:
        ran.append(session)

    door = Door()
    door.delay = delay
    await hosting(application(handler)).converse(asking(), PEER, door)
    assert len(ran) == (not is_late)
    assert [record.getMessage() for record in caplog.records if record.name == "trioktor.server"] == [
        "the server did not let / in within 30 g s".replace(" g", "")
    ] * is_late


@pytest.mark.parametrize("how", ["converse", "respond", "refuse"])
@pytest.mark.parametrize(("delay", "taken"), [(29, 1), (31, 0)])
async def test_a_server_has_half_a_minute_to_take_a_refusal(
    how: str, delay: float, taken: int, autojump_clock: MockClock
) -> None:
    """Then it is left."""
    host, door = hosting(application(never)), Door()
    door.delay = delay
    if how == "converse":
        await host.converse(asking("/nothing"), PEER, door)
    elif how == "respond":
        await host.respond(head_of("/nothing"), PEER, door.refuse)
    else:
        await host.refuse(door, Response("no", status=403))
    assert len(door.refused) == taken
    assert trio.current_time() == pytest.approx(min(delay, 30))


# plain requests


def with_page(body: float = 0, **settings: Any) -> Application:
    """An application with a page that takes its time."""
    app = application(never, **settings)

    @app.get("/page/{name}")
    async def page(call: Call, name: str) -> str:
        call.response_headers.append("X-Page", call.scheme)
        await trio.sleep(body)
        return name

    @app.get("/no", before=no)
    async def guarded(call: Call) -> str:
        raise AssertionError("the hook was passed by")

    return app


@pytest.mark.parametrize(
    ("head", "settings", "expected"),
    [
        (head_of("/page/one"), {}, Response("one", headers=[("X-Page", "https")])),
        (head_of("/page/one", method="HEAD"), {}, Response("one", headers=[("X-Page", "https")])),
        (head_of("/no"), {}, Response("no\n", status=403, headers=[("X-Hook", "yes")])),
        (head_of("/nothing"), {}, Response("there is nothing at this path\n", status=404)),
        (
            head_of("/"),
            {},
            Response("this path speaks WebSocket only\n", status=426, headers=[("Upgrade", "websocket")]),
        ),
    ],
    ids=["page", "head", "hook", "no path", "WebSocket"],
)
async def test_a_plain_request_is_answered_once(
    head: RequestHead, settings: dict[str, Any], expected: Response
) -> None:
    """By the page, its hook, or a refusal."""
    sent: list[Response] = []

    async def send(response: Response) -> None:
        sent.append(response)

    await hosting(with_page(**settings)).respond(head, PEER, send)
    assert sent == [expected]


async def test_a_page_is_for_the_hosts_that_are_served() -> None:
    """As a WebSocket is."""
    door = Door()
    await hosting(with_page(hosts=["example.com"])).respond(head_of("/page/one"), PEER, door.refuse)
    assert [response.status for response in door.refused] == [421]


@pytest.mark.parametrize(("seconds", "status"), [(29, 200), (31, 503)])
async def test_a_page_has_half_a_minute(
    seconds: float, status: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Then the client is told."""
    door = Door()
    await hosting(with_page(seconds)).respond(head_of("/page/one"), PEER, door.refuse)
    assert [response.status for response in door.refused] == [status]


# the end


async def test_a_stop_says_1001_and_waits_for_the_handlers(autojump_clock: MockClock) -> None:
    """Within the grace; nobody is let in from then on, and no page is served."""
    ended: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        async for _ in session:
            pass
        await trio.sleep(2)
        ended.append(session.close_reason)

    host, door = hosting(application(handler)), Door()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.converse, asking(), PEER, door)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await host.stop(5)
        assert trio.current_time() - began == 2
    assert ended == [CloseReason(1001)]
    assert door.wire.heard == [Frame.Close(CloseReason(1001))]
    late = Door()
    await host.converse(asking(), PEER, late)
    await host.respond(head_of("/page"), PEER, late.refuse)
    assert late.refused == [Response("the server is shutting down\n", status=503)] * 2


async def test_a_stop_cuts_hooks_short(autojump_clock: MockClock) -> None:
    """Their clients are refused at once."""

    async def slow(call: Call) -> None:
        await trio.sleep_forever()

    app = Application()
    app.install(WebSockets())
    app.websocket("/", never, before=slow)
    host, door = hosting(app), Door()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.converse, asking(), PEER, door)
        await trio.testing.wait_all_tasks_blocked()
        await host.stop(5)
    assert door.refused == [Response("the server is shutting down\n", status=503)]
    assert trio.current_time() == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("grace", [0, 5])
async def test_behind_the_grace_what_runs_is_cancelled(grace: float, answers: bool, autojump_clock: MockClock) -> None:
    """Sessions, and pages, whose clients are told; a client that does not answer our Close has a second."""
    cancelled: list[float] = []

    async def handler(session: WebSocketSession) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(trio.current_time())

    app = application(handler, handler_grace=None, close_timeout=60)

    @app.get("/page")
    async def page(call: Call) -> str:
        await trio.sleep_forever()
        raise AssertionError

    host, door = hosting(app), Door()
    door.wire.answers_close = answers
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.converse, asking(), PEER, door)
        nursery.start_soon(host.respond, head_of("/page"), PEER, door.refuse)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await host.stop(grace)
        assert cancelled == [began + grace]
        assert trio.current_time() - began == pytest.approx(grace if answers else grace + 1)
    assert door.wire.heard == [Frame.Close(CloseReason(1001))]
    assert [response.status for response in door.refused] == [503]


async def test_who_heeds_nothing_is_named_and_left(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A second and a half behind its cancellation."""
    release = trio.Event()

    async def stubborn(session: WebSocketSession) -> None:
        with trio.CancelScope(shield=True):
            await release.wait()

    host, door = hosting(application(stubborn)), Door()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.converse, asking(), PEER, door)
        await trio.testing.wait_all_tasks_blocked()
        await host.stop(2)
        assert trio.current_time() == pytest.approx(2 + 1.5)
        [record] = records_above_info(caplog)
        assert record.getMessage().startswith("the server ends, but a handler does not heed its cancellation: ")
        release.set()


@pytest.mark.parametrize("who", ["session", "page"])
async def test_a_stop_inside_a_handler_does_not_wait_for_that_handler(who: str, autojump_clock: MockClock) -> None:
    """It would wait for itself; what it does behind that still counts."""
    done: list[str] = []

    async def handler(session: WebSocketSession) -> None:
        await host.stop(5)
        done.append("session")

    app = application(handler)

    @app.get("/page")
    async def page(call: Call) -> str:
        await host.stop(5)
        done.append("page")
        return "a page"

    host, door = hosting(app), Door()
    if who == "session":
        await host.converse(asking(), PEER, door)
    else:
        await host.respond(head_of("/page"), PEER, door.refuse)
        assert door.refused == [Response("a page")]
    assert done == [who]
    assert trio.current_time() == pytest.approx(0, abs=0.1)


async def test_who_is_let_in_while_it_stops_hears_1001(autojump_clock: MockClock) -> None:
    """The door was open already."""
    host, door = hosting(application(echo)), Door()
    door.delay = 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.converse, asking(), PEER, door)
        await trio.testing.wait_all_tasks_blocked()
        await host.stop(5)
        assert door.accepted == []
    assert door.wire.heard == [Frame.Close(CloseReason(1001))]


# before anything is served


async def test_what_the_server_cannot_do_is_refused_before_anything_is_served() -> None:
    """By name; an application that it can serve takes no more routes."""
    with pytest.raises(ValueError, match=r"somebody cannot do .*: ping_period of '/'"):
        hosting(application(echo, ping_period=5))
    app = application(echo)
    hosting(app)
    with pytest.raises(RuntimeError):
        app.websocket("/late", echo)
