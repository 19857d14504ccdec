"""An application as an ASGI application: its scopes, event by event."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import application
from trioktor import (
    Application,
    Call,
    CloseReason,
    FrameType,
    PerMessageDeflate,
    Response,
    WebSockets,
    WebSocketSession,
)

Event = dict[str, Any]


class Server:
    """An ASGI server's side of one scope: what it tells, and what it was told."""

    def __init__(self, *events: Event) -> None:
        self.events = list(events)
        self.sent: list[Event] = []
        self.gone = False
        self._more = trio.Event()

    async def receive(self) -> Event:
        """The next event; waits when there is none."""
        await trio.lowlevel.checkpoint()
        while not self.events:
            self._more = trio.Event()
            await self._more.wait()
        return self.events.pop(0)

    def tell(self, **event: Any) -> None:
        """Something happens."""
        self.events.append(event)
        self._more.set()

    async def send(self, event: Any) -> None:
        """The application says something."""
        await trio.lowlevel.checkpoint()
        if self.gone:
            raise OSError("the client is gone")
        self.sent.append(dict(event))


CONNECT: Event = {"type": "websocket.connect"}
GONE: Event = {"type": "websocket.disconnect", "code": 1006}


def scope(kind: str = "websocket", path: str = "/", **more: Any) -> Event:
    """A scope as a server makes it."""
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws" if kind == "websocket" else "http",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"example.org")],
        "client": ("192.0.2.1", 1234),
        "method": "GET",
        **more,
    }


async def ask(app: Application, asked: Event, *events: Event) -> list[Event]:
    """One scope to its end."""
    server = Server(*events)
    await app(asked, server.receive, server.send)
    return server.sent


async def silent(session: WebSocketSession) -> None:
    """Say nothing."""


async def echo(session: WebSocketSession) -> None:
    """Send back what comes."""
    async for frame in session:
        await session.send(frame)


# conversations


async def test_a_conversation(autojump_clock: MockClock) -> None:
    """Accepted, messages both ways, closed."""

    async def handler(session: WebSocketSession) -> None:
        async for frame in session:
            await session.send(frame)
            if frame.data == b"bye":
                session.close(4001, "why")

    server = Server(
        CONNECT,
        {"type": "websocket.receive", "text": "hello"},
        {"type": "websocket.receive", "bytes": b"raw", "text": None},
        {"type": "websocket.receive", "text": "bye"},
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application(handler), scope(), server.receive, server.send)
        await trio.testing.wait_all_tasks_blocked()
        server.tell(type="websocket.disconnect", code=4001)
    assert server.sent == [
        {"type": "websocket.accept", "subprotocol": None, "headers": []},
        {"type": "websocket.send", "text": "hello"},
        {"type": "websocket.send", "bytes": b"raw"},
        {"type": "websocket.send", "text": "bye"},
        {"type": "websocket.close", "code": 4001, "reason": "why"},
    ]


@pytest.mark.parametrize(
    ("event", "code", "is_clean"),
    [
        ({"code": 1000, "reason": "text"}, 1000, True),
        ({"code": 4001}, 4001, True),
        ({"code": 1005}, 1005, True),
        ({}, 1005, True),
        ({"code": 1006}, 1006, False),
        ({"code": 99}, 1005, True),
        ({"code": 1000, "reason": "x" * 1000}, 1000, True),
        ({"code": 1001, "reason": None}, 1001, True),
        ({"code": None}, 1005, True),
    ],
)
async def test_the_ends_that_a_server_tells_of(
    event: Event, code: int, is_clean: bool, autojump_clock: MockClock
) -> None:
    """What it cannot mean is a Close without a code."""
    ends: list[tuple[bool, CloseReason | None]] = []

    async def handler(session: WebSocketSession) -> None:
        try:
            await session.receive()
        except trio.EndOfChannel:
            ends.append((True, session.close_reason))
        except Exception:
            ends.append((False, session.close_reason))
            raise

    await ask(application(handler), scope(), CONNECT, {"type": "websocket.disconnect", **event})
    [(was_clean, reason)] = ends
    assert was_clean is is_clean
    assert reason is not None
    assert reason.code == code


async def test_the_call(autojump_clock: MockClock) -> None:
    """Path parameters, query, headers, cookies, client, scheme; what hooks add goes out with the accept."""
    calls: list[Call] = []
    app = Application()
    app.install(WebSockets(subprotocols=["v2", "v1"]))

    @app.before_upgrade
    async def hook(call: Call) -> None:
        call.response_headers.append("X-Hook", "yes")

    @app.websocket("/rooms/{room}")
    async def handler(session: WebSocketSession, room: str) -> None:
        calls.append(session.call)
        assert room == "a b/c"

    headers = [(b"host", b"example.org"), (b"cookie", b"a=1"), (b"origin", b"https://example.org")]
    asked = scope(
        path="/rooms/a b/c",
        raw_path=b"/rooms/a%20b%2fc",
        query_string=b"x=1&x=2",
        headers=headers,
        scheme="wss",
        subprotocols=["v1", "v9"],
    )
    sent = await ask(app, asked, CONNECT, GONE)
    assert sent[0] == {"type": "websocket.accept", "subprotocol": "v1", "headers": [(b"x-hook", b"yes")]}
    [call] = calls
    assert call.query == {"x": ["1", "2"]}
    assert call.cookies == {"a": "1"}
    assert (call.client, call.scheme, call.protocol, call.method) == (("192.0.2.1", 1234), "wss", "v1", "GET")
    assert call.offered_protocols == ["v1", "v9"]
    assert call.route == "/rooms/{room}"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (scope(path="/nothing"), 404),
        (scope(path="/page"), 404),
        (scope(headers=[(b"host", b"example.org"), (b"origin", b"https://evil.example")]), 403),
        (scope(path="/hosts"), 421),
        (scope(path="/hook"), 401),
        (scope(path="/broken"), 500),
        (scope(path="/v1"), 400),
        (scope(raw_path=b"/%ff"), 400),
    ],
)
@pytest.mark.parametrize("can_say", [True, False])
async def test_refusals(
    asked: Event, status: int, can_say: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """With the answer, where the server can send it; else the 403 that ASGI has for it."""
    app = application(silent)
    app.websocket("/hosts", silent, hosts=["other.example"])
    app.websocket("/v1", silent, protocol="v1")

    @app.get("/page")
    async def page(call: Call) -> str:
        return "a page"

    async def no(call: Call) -> Response:
        return Response("who?", status=401, headers={"WWW-Authenticate": "Basic"})

    async def broken(call: Call) -> Response:
        raise LookupError

    app.websocket("/hook", silent, before=no)
    app.websocket("/broken", silent, before=broken)
    asked = {**asked, "extensions": {"websocket.http.response": {}} if can_say else {}}
    sent = await ask(app, asked, CONNECT)
    if not can_say:
        assert sent == [{"type": "websocket.close"}]
        return
    start, body = sent
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    assert body["type"] == "websocket.http.response.body"
    if status == 401:
        assert body["body"] == b"who?"
        assert (b"www-authenticate", b"Basic") in start["headers"]


async def test_a_client_that_is_gone_before_it_is_let_in(autojump_clock: MockClock) -> None:
    """Told or not, the handler does not run, and nothing is raised."""

    async def never(session: WebSocketSession) -> None:
        raise AssertionError

    app = application(never)
    assert await ask(app, scope(), {"type": "websocket.disconnect", "code": 1006}) == []
    for path in ("/", "/nothing"):
        server = Server(CONNECT)
        server.gone = True
        await app(scope(path=path), server.receive, server.send)
        assert server.sent == []


async def test_a_server_that_cannot_say_more(autojump_clock: MockClock) -> None:
    """An `OSError` of its is the end of the client."""
    ends: list[CloseReason | None] = []

    async def handler(session: WebSocketSession) -> None:
        try:
            await session.receive()
        finally:
            ends.append(session.close_reason)

    server = Server(CONNECT)

    async def receive() -> Event:
        if not server.events:
            raise OSError("gone")
        return await server.receive()

    await application(handler)(scope(), receive, server.send)
    assert ends == [CloseReason(1006)]


async def test_one_call_that_is_cancelled_is_not_the_end(autojump_clock: MockClock) -> None:
    """Whoever bounds one conversation ends that one; others go on, and new ones are let in."""
    app = application(echo)
    other = Server(CONNECT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, scope(), other.receive, other.send)
        one = Server(CONNECT)
        with trio.move_on_after(5):
            await app(scope(), one.receive, one.send)
        assert one.sent[-1] == {"type": "websocket.close", "code": 1001, "reason": ""}
        other.tell(type="websocket.receive", text="still there")
        await trio.testing.wait_all_tasks_blocked()
        assert other.sent[-1] == {"type": "websocket.send", "text": "still there"}
        late = await ask(app, scope(), CONNECT, GONE)
        assert late[0]["type"] == "websocket.accept"
        other.tell(**GONE)


async def test_a_server_that_takes_nothing(autojump_clock: MockClock) -> None:
    """`write_timeout` holds here, too."""
    ends: list[BaseException | None] = []

    async def handler(session: WebSocketSession) -> None:
        await session.send("x")
        try:
            await session.receive()
        except Exception as error:
            ends.append(error.__cause__)

    server = Server(CONNECT)

    async def send(event: Any) -> None:
        if event["type"] == "websocket.send":
            await trio.sleep_forever()

    await application(handler, write_timeout=5)(scope(), server.receive, send)
    assert [type(end).__name__ for end in ends] == ["WriteTimeout"]


async def test_a_flush_waits_for_the_server(autojump_clock: MockClock) -> None:
    """It returns when the server has taken what was sent, not before."""
    flushed: list[float] = []

    async def handler(session: WebSocketSession) -> None:
        await session.send("x")
        await session.send("y")
        await session.flush()
        flushed.append(trio.current_time())

    server = Server(CONNECT)

    async def send(event: Any) -> None:
        if event["type"] == "websocket.send":
            await trio.sleep(2)
        await server.send(event)

    began = trio.current_time()
    await application(handler)(scope(), server.receive, send)
    assert flushed == [pytest.approx(began + 4)]


@pytest.mark.parametrize("path", ["/", "/nothing", "/%ff"])
async def test_a_server_that_does_not_take_the_answer_to_a_request(path: str, autojump_clock: MockClock) -> None:
    """Let in or not: it is waited for, and not for ever."""
    app = application(silent)

    async def send(event: Any) -> None:
        await trio.sleep_forever()

    denials: list[Event] = [{}, {"websocket.http.response": {}}]
    for extensions in denials:
        server = Server(CONNECT)
        with trio.fail_after(100):
            await app(scope(path=path, raw_path=path.encode(), extensions=extensions), server.receive, send)
        assert 10 <= trio.current_time() % 1000
        await trio.sleep(1000 - trio.current_time() % 1000)


async def test_a_message_in_pieces_that_is_too_long(autojump_clock: MockClock) -> None:
    """The server takes whole messages, so it is joined, within `max_frame_size`."""

    async def handler(session: WebSocketSession) -> None:
        async with session.message(FrameType.TEXT) as message:
            for _ in range(200):
                await message.send("x" * 10)

    sent = await ask(application(handler, max_frame_size=1000), scope(), CONNECT, GONE)
    assert [event["type"] for event in sent] == ["websocket.accept"]


async def test_a_message_that_is_sent_whole_may_be_of_any_length(autojump_clock: MockClock) -> None:
    """`max_frame_size` is for what comes."""

    async def handler(session: WebSocketSession) -> None:
        await session.send("x" * 100_001)

    sent = await ask(application(handler, max_frame_size=1000), scope(), CONNECT)
    assert [event["type"] for event in sent] == ["websocket.accept", "websocket.send", "websocket.close"]


@pytest.mark.parametrize(
    ("path", "raw", "root", "found"),
    [
        ("/ws/room", None, "/ws", "/room"),
        ("/ws/room", b"/ws/room", "/ws", "/room"),
        ("/ws", None, "/ws", "/"),
        ("/ws/", None, "/ws/", "/"),
        ("/room", None, "/ws", "/room"),
        ("/wsx/room", None, "/ws", "/wsx/room"),
        ("/a b/x", b"/a%20b/x", "/a b", "/x"),
        ("/x%y", None, "", "/x%25y"),
    ],
)
async def test_where_it_is_mounted(
    path: str, raw: bytes | None, root: str, found: str, autojump_clock: MockClock
) -> None:
    """Routes are below `root_path`, whether the server leaves that in the path or not."""
    paths: list[str] = []
    app = Application()
    app.install(WebSockets())

    @app.websocket("/{path...}")
    async def handler(session: WebSocketSession) -> None:
        paths.append(session.call.path)

    more: dict[str, Any] = {} if raw is None else {"raw_path": raw}
    await ask(app, scope(path=path, root_path=root, **more), CONNECT, GONE)
    assert paths == [found]


# plain requests


async def test_plain_requests(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """GET and HEAD; what is not served is said as under `serve`."""
    app = application(silent, "/socket")

    @app.get("/page/{name}")
    async def page(call: Call, name: str) -> Response:
        call.response_headers.append("X-More", "yes")
        return Response(f"hello {name}", headers={"X-Own": "1"})

    @app.get("/nothing/here")
    async def nothing(call: Call) -> Response:
        return Response("left out", status=204)

    @app.get("/fails")
    async def fails(call: Call) -> str:
        raise LookupError

    async def status(path: str, **more: Any) -> tuple[int, bytes, dict[bytes, bytes]]:
        start, body = await ask(app, scope("http", path, **more))
        return start["status"], body["body"], dict(start["headers"])

    found, body, headers = await status("/page/Ada")
    assert (found, body) == (200, b"hello Ada")
    assert headers[b"content-length"] == b"9"
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"
    assert (headers[b"x-own"], headers[b"x-more"]) == (b"1", b"yes")
    found, body, headers = await status("/page/Ada", method="HEAD")
    assert (found, body, headers[b"content-length"]) == (200, b"", b"9")
    assert (await status("/nothing"))[0] == 404
    assert (await status("/socket"))[0] == 426
    assert (await status("/page/Ada", method="POST"))[0] == 405
    assert (await status("/fails"))[0] == 500
    assert (await status("/x", raw_path=b"/%ff"))[0] == 400
    assert headers[b"x-content-type-options"] == b"nosniff"
    found, body, headers = await status("/nothing/here")
    assert (found, body) == (204, b"")
    assert not {b"content-length", b"content-type"} & set(headers)
    server = Server()
    server.gone = True
    await app(scope("http", "/page/Ada"), server.receive, server.send)


# the beginning and the end


@pytest.mark.parametrize(("seconds", "is_left"), [(4.9, True), (5.1, False)])
async def test_the_end_of_the_lifespan_gives_handlers_five_seconds(
    seconds: float, is_left: bool, autojump_clock: MockClock
) -> None:
    """Then they are cancelled."""
    left: list[bool] = []

    async def handler(session: WebSocketSession) -> None:
        try:
            async for _ in session:
                pass
        finally:
            await trio.sleep(seconds)
            left.append(True)

    app = application(handler, handler_grace=60)
    life, peer = Server({"type": "lifespan.startup"}), Server(CONNECT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, {"type": "lifespan"}, life.receive, life.send)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(app, scope(), peer.receive, peer.send)
        await trio.testing.wait_all_tasks_blocked()
        life.tell(type="lifespan.shutdown")
        await trio.testing.wait_all_tasks_blocked()
        peer.tell(type="websocket.disconnect", code=1001)
    assert left == [True] * is_left


async def test_an_application_on_two_servers(autojump_clock: MockClock) -> None:
    """The end of one lifespan is the end of its own sessions; each server keeps which those are in its state."""

    async def handler(session: WebSocketSession) -> None:
        async for _ in session:
            pass

    app = application(handler)
    states: list[dict[str, Any]] = [{"mine": 1}, {}]
    lives = [Server({"type": "lifespan.startup"}) for _ in states]
    peers = [Server(CONNECT) for _ in states]
    async with trio.open_nursery() as nursery:
        for life, state in zip(lives, states, strict=True):
            nursery.start_soon(app, {"type": "lifespan", "state": state}, life.receive, life.send)
            await trio.testing.wait_all_tasks_blocked()
        for peer, state in zip(peers, states, strict=True):
            nursery.start_soon(app, scope(state=dict(state)), peer.receive, peer.send)
        await trio.testing.wait_all_tasks_blocked()
        for number in (1, 0):
            lives[number].tell(type="lifespan.shutdown")
            await trio.testing.wait_all_tasks_blocked()
            closed = [[event.get("code") for event in peer.sent[1:]] for peer in peers]
            assert closed == ([[], [1001]] if number == 1 else [[1001], [1001]])
            peers[number].tell(**GONE)
            await trio.testing.wait_all_tasks_blocked()
            assert lives[number].sent[-1] == {"type": "lifespan.shutdown.complete"}


async def test_two_applications_on_one_server(autojump_clock: MockClock) -> None:
    """Each has what is its own in the state that they share."""
    state: dict[str, Any] = {}
    said: list[str] = []

    def saying(word: str) -> Any:
        async def handler(session: WebSocketSession) -> None:
            said.append(word)

        return application(handler)

    apps = [saying("one"), saying("two")]
    lives = [Server({"type": "lifespan.startup"}) for _ in apps]
    async with trio.open_nursery() as nursery:
        for app, life in zip(apps, lives, strict=True):
            nursery.start_soon(app, {"type": "lifespan", "state": state}, life.receive, life.send)
            await trio.testing.wait_all_tasks_blocked()
        for app in apps:
            peer = Server(CONNECT, GONE)
            await app(scope(state=state), peer.receive, peer.send)
        for life in lives:
            life.tell(type="lifespan.shutdown")
    assert said == ["one", "two"]


@pytest.mark.parametrize("is_stubborn", [False, True])
async def test_the_lifespan(is_stubborn: bool, autojump_clock: MockClock) -> None:
    """Its end says 1001 to sessions, waits for their handlers, and lets nobody in any more."""
    started: list[WebSocketSession] = []

    async def handler(session: WebSocketSession) -> None:
        started.append(session)
        if is_stubborn:
            await trio.sleep_forever()
        async for _ in session:
            pass

    app = application(handler)
    life, peer = Server({"type": "lifespan.startup"}), Server(CONNECT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, {"type": "lifespan"}, life.receive, life.send)
        await trio.testing.wait_all_tasks_blocked()
        assert life.sent == [{"type": "lifespan.startup.complete"}]
        nursery.start_soon(app, scope(), peer.receive, peer.send)
        await trio.testing.wait_all_tasks_blocked()
        assert len(started) == 1
        began = trio.current_time()
        life.tell(type="lifespan.shutdown")
        await trio.testing.wait_all_tasks_blocked()
        assert peer.sent[-1] == {"type": "websocket.close", "code": 1001, "reason": ""}
        late = await ask(app, scope(extensions={"websocket.http.response": {}}), CONNECT)
        assert late[0]["status"] == 503
        if not is_stubborn:
            peer.tell(type="websocket.disconnect", code=1001)
    assert life.sent[-1] == {"type": "lifespan.shutdown.complete"}
    assert started[0].close_reason == CloseReason(1001)
    assert trio.current_time() - began <= (16 if is_stubborn else 1)


async def test_a_handler_that_does_not_heed_its_end(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named, and the end of the lifespan does not wait for it."""

    async def handler(session: WebSocketSession) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1000)

    app = application(handler)
    life, peer = Server({"type": "lifespan.startup"}), Server(CONNECT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, {"type": "lifespan"}, life.receive, life.send)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(app, scope(), peer.receive, peer.send)
        await trio.testing.wait_all_tasks_blocked()
        life.tell(type="lifespan.shutdown")
        await trio.sleep(10)
        assert life.sent[-1] == {"type": "lifespan.shutdown.complete"}
        assert "does not heed its cancellation" in caplog.text


async def test_it_may_live_several_times(autojump_clock: MockClock) -> None:
    """As test clients have it."""
    app = application(silent)
    for _ in range(2):
        life = Server({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
        await app({"type": "lifespan"}, life.receive, life.send)
        assert [event["type"] for event in life.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert (await ask(app, scope(), CONNECT, GONE))[0]["type"] == "websocket.accept"  # served without one, too
    life = Server({"type": "lifespan.startup"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, {"type": "lifespan"}, life.receive, life.send)
        await trio.testing.wait_all_tasks_blocked()
        sent = await ask(app, scope(), CONNECT, GONE)
        assert sent[0]["type"] == "websocket.accept"
        nursery.cancel_scope.cancel()


async def test_what_cannot_be_kept_is_said_at_the_start(autojump_clock: MockClock) -> None:
    """The server's start fails with it; and without a lifespan the first request does."""
    app = application(silent, extensions=[PerMessageDeflate()])
    life = Server({"type": "lifespan.startup"})
    await app({"type": "lifespan"}, life.receive, life.send)
    [failed] = life.sent
    assert failed["type"] == "lifespan.startup.failed"
    assert "extensions of '/'" in failed["message"]
    with pytest.raises(ValueError, match="extensions of '/'"):
        await ask(app, scope(), CONNECT)


def test_another_loop_is_one_clear_error() -> None:
    """It says what to do."""

    told: list[Any] = []

    async def receive() -> Event:
        return {"type": "lifespan.startup"}

    async def send(event: Any) -> None:
        told.append(event)

    async def main() -> None:
        for asked in (scope(), scope("http")):
            with pytest.raises(RuntimeError, match="hypercorn --worker-class trio"):
                await application(silent)(asked, receive, send)
        await application(silent)({"type": "lifespan"}, receive, send)

    asyncio.run(main())
    [failed] = told
    assert failed["type"] == "lifespan.startup.failed"
    assert "hypercorn --worker-class trio" in failed["message"]


async def test_an_unknown_scope(autojump_clock: MockClock) -> None:
    """ASGI has servers raise then."""
    with pytest.raises(RuntimeError, match="telegraph"):
        await ask(application(silent), {"type": "telegraph"})


async def test_a_cancelled_server(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Sessions say 1001 at once, within a second, though the server's scope is cancelled; nothing is logged as bad."""

    async def handler(session: WebSocketSession) -> None:
        async for _ in session:
            pass

    servers = [Server(CONNECT) for _ in range(3)]
    app = application(handler)
    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:
            for server in servers:
                nursery.start_soon(app, scope(), server.receive, server.send)
    for server in servers:
        assert server.sent[-1] == {"type": "websocket.close", "code": 1001, "reason": ""}
    assert trio.current_time() < 100
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
