"""`Host`: one connection from its stream to its end, and that nothing else feels it."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio
import trio.testing

from tests.support.helpers import REQUEST, RawClient, application, close, records_above_info
from tests.support.listening import (
    MemoryListener,
    SecureClient,
    assert_echoes,
    running,
    serving,
    tls,
)
from trioktor import Application, Call, Frame, Response, WebSockets, WebSocketSession
from trioktor.engine import streams
from trioktor.server.admission import Limits
from trioktor.server.host import Host

Clock = trio.testing.MockClock


async def echo(session: WebSocketSession) -> None:
    """Send back what comes."""
    async for frame in session:
        await session.send(frame)


async def endless(session: WebSocketSession) -> None:
    """Take no notice of anything but cancellation."""
    await trio.sleep_forever()


# any stream


async def test_what_handlers_raise_never_leaves_serve(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """An exception, a group of them, the end of somebody else's conversation: all are logged, the server goes on."""
    errors: list[Exception] = [ValueError("a"), ExceptionGroup("b", [ValueError("c"), OSError("d")]), OSError("e")]

    async def handler(session: WebSocketSession) -> None:
        raise errors[int(session.call.parameters["n"])]

    async with serving(application(handler)) as (server, connect):
        for number in range(len(errors)):
            client = await connect()
            await client.upgrade(b"/?n=%d" % number)
            assert await client.receive() == close(1011)
            await client.aclose()
            await trio.testing.wait_all_tasks_blocked()
        assert server.sessions == ()
    assert len(records_above_info(caplog)) == len(errors)


@pytest.mark.parametrize("kind", ["memory", "lockstep", "socket"])
async def test_handle_stream_is_one_connection_and_closes_its_stream(kind: str) -> None:
    """Any `trio.abc.Stream`: its own end is closed when it returns."""
    ours: Any
    theirs: Any
    if kind == "socket":
        first, second = trio.socket.socketpair()
        ours, theirs = trio.SocketStream(first), trio.SocketStream(second)
    else:
        ours, theirs = getattr(trio.testing, f"{kind}_stream_pair")()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application(echo).handle_stream, theirs)
        await assert_echoes(RawClient(ours))
    with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError)):
        await theirs.send_all(b"x")


async def test_handle_stream_speaks_tls_where_the_stream_does(autojump_clock: Clock) -> None:
    """The handshake of an `SSLStream` is done there."""
    server, client = tls()
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            application(echo).handle_stream,
            trio.SSLStream(theirs, server, server_side=True, https_compatible=True),
        )
        stream = trio.SSLStream(ours, client, server_hostname="localhost", https_compatible=True)
        await assert_echoes(SecureClient(stream))


async def test_handle_stream_cancelled_says_1001_within_a_second(autojump_clock: Clock) -> None:
    """As one connection of a cancelled `serve`."""
    ours, theirs = trio.testing.memory_stream_pair()
    client = RawClient(ours)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(application(endless).handle_stream, theirs)
            await client.upgrade()
            began = trio.current_time()
            scope.cancel()
    assert trio.current_time() - began <= 1
    assert (await client.receive_rest())[0] == close(1001)
    await client.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract names")
@pytest.mark.parametrize("name", [b"\0", b"\0abstract", b"\0\xff\xfe"])
async def test_no_name_of_a_client_ends_the_server(name: bytes, tmp_path: Path) -> None:
    """One in the abstract namespace comes as bytes."""
    path = tmp_path / "server"
    async with running(application(echo), path=path):
        for bound in (name, None):
            client = trio.socket.socket(socket.AF_UNIX)
            if bound is not None:
                await client.bind(bound)
            await client.connect(str(path))
            await assert_echoes(RawClient(trio.SocketStream(client)))


class _Unreadable(trio.abc.Stream):
    """A stream that fails as soon as it is looked at."""

    closed = False

    @property
    def transport_stream(self) -> object:
        raise ZeroDivisionError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise ZeroDivisionError

    async def wait_send_all_might_not_block(self) -> None:
        raise ZeroDivisionError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise ZeroDivisionError

    async def aclose(self) -> None:
        self.closed = True


async def test_whatever_goes_wrong_behind_accept_ends_that_connection_alone(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, its stream is closed, and the next one is served."""
    real = streams.open_transport

    def open_transport(stream: trio.abc.Stream) -> Any:
        if isinstance(stream, _Unreadable):
            raise ZeroDivisionError
        return real(stream)

    monkeypatch.setattr("trioktor.server.host.open_transport", open_transport)
    listener = MemoryListener()
    bad = _Unreadable()
    async with serving(application(echo), listener) as (_, connect):
        await listener._send.send(bad)
        await assert_echoes(await connect())
    assert bad.closed
    assert len(records_above_info(caplog)) == 1


# by itself


class Client:
    """A client in memory of a host that serves it in a nursery."""

    def __init__(self, host: Host, nursery: trio.Nursery) -> None:
        ours, self.theirs = trio.testing.memory_stream_pair()
        self.raw = RawClient(ours)
        nursery.start_soon(host.handle, self.theirs)

    async def status(self, path: bytes = b"/") -> int:
        """Ask for a WebSocket; the status of the answer."""
        await self.raw.send_bytes(REQUEST % path)
        return int(bytes(await self.raw.stream.receive_some()).split()[1])


async def test_sessions_are_those_that_run() -> None:
    """From the upgrade to the end of the handler; each the handler's own."""
    seen: list[WebSocketSession] = []

    async def handler(session: WebSocketSession) -> None:
        seen.append(session)
        await echo(session)

    host = Host(application(handler))
    assert host.sessions == ()
    async with trio.open_nursery() as nursery:
        client = Client(host, nursery)
        await client.raw.upgrade()
        await trio.testing.wait_all_tasks_blocked()
        assert host.sessions == tuple(seen)
        await client.raw.send(close(1000))
        await client.raw.receive_rest()
        await trio.testing.wait_all_tasks_blocked()
        assert host.sessions == ()
        await client.raw.aclose()


async def test_a_conversation_has_its_place_to_its_end(autojump_clock: Clock) -> None:
    """And every other answer gives it back, whatever it is."""
    app = application(echo)

    @app.get("/page")
    async def page(call: Call) -> str:
        return "a page"

    async def no(call: Call) -> Response:
        return Response("no", status=403)

    app.websocket("/no", echo, before=no)
    host = Host(app, Limits(max_connections=1))
    async with trio.open_nursery() as nursery:
        for path, status in [(b"/no", 403), (b"/page", 200), (b"/no", 403), (b"/nothing", 404)]:
            client = Client(host, nursery)
            assert await client.status(path) == status
            await client.raw.aclose()
        first, second = Client(host, nursery), Client(host, nursery)
        assert [await first.status(), await second.status()] == [101, 503]
        await first.raw.aclose()
        await second.raw.aclose()
        await trio.testing.wait_all_tasks_blocked()
        third = Client(host, nursery)
        assert await third.status() == 101
        await third.raw.aclose()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (REQUEST % b"/", b"101"),
        (REQUEST % b"/nothing", b"404"),
        ((REQUEST % b"/").replace(b"localhost", b"evil.example"), b"421"),
        (b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
        (b"GET /page HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"421"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"426"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
)
async def test_a_request_gets_what_serves_it_or_a_refusal(data: bytes, status: bytes, autojump_clock: Clock) -> None:
    """By path, kind and host; a refusal names its reason in one line."""
    app = application(echo, hosts=["localhost"])

    @app.get("/page")
    async def page(call: Call) -> str:
        return "a page\n"

    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Host(app).handle, theirs)
        await ours.send_all(data)
        answer = bytes(await ours.receive_some())
        await ours.aclose()
    assert answer.startswith(b"HTTP/1.1 " + status)
    if status != b"101":
        assert b"\r\nDate: " in answer
        assert answer.endswith(b"\n")
        assert len(answer.partition(b"\r\n\r\n")[2].splitlines()) == 1


@pytest.mark.parametrize("path", [b"/page", b"/no", b"/nothing"])
async def test_the_answer_to_a_head_request_has_no_body(path: bytes, autojump_clock: Clock) -> None:
    """Whoever answers: the handler, a hook, or a refusal; its headers are those of a GET."""
    app = application(echo)

    async def no(call: Call) -> Response:
        return Response("no", status=403)

    @app.get("/page")
    @app.get("/no", before=no)
    async def page(call: Call) -> str:
        return "a page"

    answers = []
    for method in (b"GET", b"HEAD"):
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Host(app).handle, theirs)
            await ours.send_all(b"%s %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (method, path))
            answers.append(bytes(await ours.receive_some()).partition(b"\r\n\r\n"))
            await ours.aclose()
    assert answers[0][2]
    assert answers[1][2] == b""
    assert [line for line in answers[0][0].split(b"\r\n") if not line.startswith(b"Date")] == [
        line for line in answers[1][0].split(b"\r\n") if not line.startswith(b"Date")
    ]


async def test_path_parameters_reach_the_handlers_that_want_them() -> None:
    """By name; an optional one that is not there is None."""
    seen: list[object] = []
    app = Application()
    app.install(WebSockets())

    @app.websocket("/rooms/{room}/{place?}")
    async def handler(session: WebSocketSession, place: str | None, room: str) -> None:
        seen.append((room, place))

    host = Host(app)
    for path in (b"/rooms/big", b"/rooms/big/left"):
        async with trio.open_nursery() as nursery:
            client = Client(host, nursery)
            await client.raw.upgrade(path)
            await client.raw.send(close(1000))
            await client.raw.aclose()
    assert seen == [("big", None), ("big", "left")]


@pytest.mark.parametrize(("options", "pings"), [({}, True), ({"pings": True}, True), ({"pings": False}, False)])
async def test_configured_pings_may_be_turned_off(options: dict[str, Any], pings: bool, autojump_clock: Clock) -> None:
    """For tests; all other settings stay."""
    seen: list[tuple[float | None, int | None]] = []

    async def handler(session: WebSocketSession) -> None:
        seen.append((session.ping_interval, session.max_frame_size))

    host = Host(application(handler, ping_period=5, max_frame_size=77), **options)
    async with trio.open_nursery() as nursery:
        client = Client(host, nursery)
        await client.raw.upgrade()
        await client.raw.aclose()
    assert seen == [(5 if pings else None, 77)]


async def test_what_a_handler_raises_may_be_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """Then it is not logged."""
    failures: list[Exception] = []
    error = ValueError("a bug")

    async def handler(session: WebSocketSession) -> None:
        raise error

    host = Host(application(handler), on_failure=failures.append)
    async with trio.open_nursery() as nursery:
        client = Client(host, nursery)
        await client.raw.upgrade()
        assert await client.raw.receive() == close(1011)
        await client.raw.aclose()
    assert failures == [error]
    assert records_above_info(caplog) == []


@pytest.mark.parametrize("is_asked_for", [True, False])
async def test_a_socket_that_cannot_be_used_is_closed_alone(
    is_asked_for: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went wrong is logged, or handed to whoever asked for failures."""
    failures: list[Exception] = []

    def broken(*_: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr("trioktor.server.host.SocketTransport", broken)
    host = Host(application(echo), on_failure=failures.append if is_asked_for else None)
    ours, theirs = socket.socketpair()
    with ours:
        await host.handle_socket(theirs, None)
        assert theirs.fileno() == -1
    assert [type(failure) for failure in failures] == [ZeroDivisionError] * is_asked_for
    assert len(records_above_info(caplog)) == (not is_asked_for)


async def test_a_socket_is_served_for_the_client_that_it_was_accepted_from() -> None:
    """Without a stream of Trio's round it."""
    clients: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        clients.append(session.call.client)
        await echo(session)

    host = Host(application(handler))
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.handle_socket, theirs, ("192.0.2.1", 5))
        await assert_echoes(RawClient(trio.SocketStream(trio.socket.from_stdlib_socket(ours))))
    assert clients == [("192.0.2.1", 5)]
    assert theirs.fileno() == -1


async def test_the_end_begins_for_all_when_one_is_cancelled(autojump_clock: Clock) -> None:
    """Every handler is cancelled at once, every peer hears 1001, and who asks is dropped: by one deadline."""
    ended: list[float] = []

    async def handler(session: WebSocketSession) -> None:
        try:
            await endless(session)
        finally:
            ended.append(trio.current_time())

    host = Host(application(handler, handler_grace=None))
    async with trio.open_nursery() as nursery:
        clients = [Client(host, nursery) for _ in range(2)]
        silent = Client(host, nursery)
        for client in clients:
            await client.raw.upgrade()
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        deadline = host.stop.begin()
        assert host.is_stopping
        for client in clients:
            assert await client.raw.receive() == close(1001)
        assert await silent.raw.receive_rest() == []
        assert trio.current_time() == began
        await trio.testing.wait_all_tasks_blocked()
        assert ended == [began, began]
    assert trio.current_time() == deadline == began + 1
    for client in (*clients, silent):
        await client.raw.aclose()


async def test_a_host_that_stops_lets_nobody_in_any_more(autojump_clock: Clock) -> None:
    """Whoever has said nothing yet is dropped; those who are in stay."""
    host = Host(application(echo))
    async with trio.open_nursery() as nursery:
        before = Client(host, nursery)
        await before.raw.upgrade()
        host.is_stopping = True
        host.cancel_opening()
        after = Client(host, nursery)
        assert await after.raw.receive_rest() == []
        await after.raw.aclose()
        await before.raw.send(Frame.Text("still there?"))
        assert await before.raw.receive() == Frame.Text("still there?")
        await before.raw.aclose()


async def test_whoever_hooks_are_asked_about_is_told_of_the_end(autojump_clock: Clock) -> None:
    """At once, and without a session."""

    async def slow(call: Call) -> None:
        await trio.sleep(9)

    app = Application()
    app.install(WebSockets())
    app.websocket("/", echo, before=slow)
    host = Host(app)
    async with trio.open_nursery() as nursery:
        client = Client(host, nursery)
        await client.raw.send_bytes(REQUEST % b"/")
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        host.cancel_opening()
        answer = bytes(await client.raw.stream.receive_some())
        assert trio.current_time() == began
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"the server is shutting down\n")
        await client.raw.aclose()
    assert host.sessions == ()


async def test_who_is_let_in_while_the_host_stops_is_closed_at_once(autojump_clock: Clock) -> None:
    """Behind its 101; the handler sees a conversation that is being closed."""
    seen: list[object] = []

    async def stops(call: Call) -> None:
        host.is_stopping = True

    async def handler(session: WebSocketSession) -> None:
        seen.append([frame async for frame in session])

    app = Application()
    app.install(WebSockets())
    app.websocket("/", handler, before=stops)
    host = Host(app)
    async with trio.open_nursery() as nursery:
        client = Client(host, nursery)
        await client.raw.upgrade()
        assert await client.raw.receive() == Frame.Close(None)
        await client.raw.send(close(1000))
        await client.raw.aclose()
    assert seen == [[]]


async def test_an_application_that_is_served_takes_no_more_routes() -> None:
    """From the moment that there is a host."""
    app = application(echo)
    Host(app)
    with pytest.raises(RuntimeError):
        app.websocket("/late", echo)
