"""An application on trio-websocket: what it makes of a request. Its conversations are those of every carrier."""

from __future__ import annotations

import functools
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
import trio_websocket
from trio.testing import MockClock

from tests.support.carriers import over_trio_websocket
from tests.support.helpers import REQUEST, RawClient, application, close
from tests.support.listening import tls
from trioktor import (
    Application,
    Call,
    CloseReason,
    ConnectionBroken,
    Frame,
    HandshakeRefused,
    Response,
    WebSockets,
    WebSocketSession,
    connect,
)
from trioktor.carriers.trio_websocket import handler


async def silent(session: WebSocketSession) -> None:
    """Say nothing."""


async def test_the_call(autojump_clock: MockClock) -> None:
    """Path parameters, query, headers, offers; what hooks add stands in the 101."""
    calls: list[Call] = []
    app = Application()
    app.install(WebSockets(subprotocols=["v2", "v1"]))

    @app.before_upgrade
    async def hook(call: Call) -> None:
        call.response_headers.append("X-Hook", "yes")

    @app.websocket("/rooms/{room}")
    async def serve(session: WebSocketSession, room: str) -> None:
        calls.append(session.call)
        assert room == "a b"

    async with over_trio_websocket(app) as dial:
        async with dial("/rooms/a%20b?x=1", subprotocols=["v1"], headers={"Cookie": "a=b"}) as session:
            await session.wait_closed()
        assert session.protocol == "v1"
        assert session.response.headers["x-hook"] == "yes"
    [call] = calls
    assert (call.query, call.cookies, call.client) == ({"x": ["1"]}, {"a": "b"}, None)
    assert call.headers["host"] == "localhost"


@pytest.mark.parametrize(
    ("path", "origin", "status", "body"),
    [
        ("/", "http://localhost", 101, b""),
        ("/", "https://evil.example", 403, b"evil.example"),
        ("/hosts", None, 421, b"host"),
        ("/nothing", None, 404, b"nothing"),
        ("/page", None, 404, b"no WebSocket"),
        ("/members", None, 401, b"who?"),
        ("/%ff", None, 400, b"UTF-8"),
    ],
)
async def test_who_is_let_in(
    path: str, origin: str | None, status: int, body: bytes, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Origins, hosts, routes and hooks decide, with the same answers as under `serve`."""
    app = application(silent)
    app.websocket("/hosts", silent, hosts=["other.example"])

    @app.get("/page")
    async def page(call: Call) -> str:
        raise AssertionError

    async def no(call: Call) -> Response:
        return Response("who?", status=401, headers={"X-More": "1"})

    app.websocket("/members", silent, before=no)
    async with over_trio_websocket(app) as dial:
        if status == 101:
            async with dial(path, origin=origin) as session:
                await session.wait_closed()
            assert session.close_reason == CloseReason(1000)
            return
        with pytest.raises(HandshakeRefused) as caught:
            async with dial(path, origin=origin):
                raise AssertionError
    assert caught.value.status == status
    assert body in caught.value.body
    if status == 401:
        assert caught.value.headers["x-more"] == "1"


@asynccontextmanager
async def byte_by_byte(app: Application, ended: list[float], target: bytes = b"/") -> AsyncIterator[RawClient]:
    """A client that answers nothing by itself, after its handshake; when the server's side has ended is noted."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def serve() -> None:
        async with trio.open_nursery() as below:
            await handler(app)(await trio_websocket.wrap_server_stream(below, theirs))
            ended.append(trio.current_time())
            below.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        client = RawClient(ours)
        await client.upgrade(target)
        yield client
        await ours.aclose()


async def test_a_target_may_be_a_whole_address(autojump_clock: MockClock) -> None:
    """Its host is the one that is asked for (RFC 9112 §3.2.2)."""
    app = Application()
    app.install(WebSockets(hosts=["asked.example"]))

    @app.websocket("/there")
    async def serve(session: WebSocketSession) -> None:
        await session.send(session.call.path)

    async with byte_by_byte(app, [], b"http://asked.example/there?x") as client:
        assert await client.receive() == Frame.Text("/there")


async def test_a_client_that_never_answers_a_close(autojump_clock: MockClock) -> None:
    """It has `close_timeout` for that: trio-websocket would wait for ever."""

    async def leave(session: WebSocketSession) -> None:
        session.close(4000, "enough")

    ended: list[float] = []
    async with byte_by_byte(application(leave, close_timeout=7), ended) as client:
        assert await client.receive() == close(4000, "enough")
        began = trio.current_time()
        await trio.sleep(20)
        assert ended == [pytest.approx(began + 7, abs=1.1)]


@pytest.mark.parametrize(("answers_after", "write_timeout"), [(None, 30), (3, 30), (3, 1)])
async def test_our_close_is_not_mistaken_for_the_clients(
    answers_after: float | None, write_timeout: float, autojump_clock: MockClock
) -> None:
    """trio-websocket tells of it at once. Who does not answer has a broken end; how one did is not known."""
    seen: list[object] = []

    async def leave(session: WebSocketSession) -> None:
        session.close(4000, "enough")
        try:
            async for _ in session:
                pass
            seen.append("clean")
        except ConnectionBroken:
            seen.append("broken")
        seen.extend([session.close_reason, session.close_received])

    app = application(leave, close_timeout=7, write_timeout=write_timeout)
    async with byte_by_byte(app, []) as client:
        assert await client.receive() == close(4000, "enough")
        if answers_after is not None:
            await trio.sleep(answers_after)
            assert seen == []
            await client.send(close(4001, "mine"))
        await trio.sleep(20)
    ends = ["broken", None] if answers_after is None else ["clean", CloseReason(1005)]
    assert seen == [ends[0], CloseReason(4000, "enough"), ends[1]]


async def test_a_client_that_is_cut_off_is_a_broken_end(autojump_clock: MockClock) -> None:
    """It said no goodbye: 1006 is not a code that it sent."""
    reasons: list[object] = []

    async def witness(session: WebSocketSession) -> None:
        with pytest.raises(ConnectionBroken):
            await session.receive()
        reasons.extend([session.close_reason, session.close_received])

    async with byte_by_byte(application(witness), []):
        pass
    assert reasons == [CloseReason(1006), None]


async def test_a_handler_that_has_to_end_drops_the_connection(autojump_clock: MockClock) -> None:
    """`terminate` waits for nobody, and says nothing."""

    async def leave(session: WebSocketSession) -> None:
        session.terminate()
        await trio.sleep_forever()

    ended: list[float] = []
    began = trio.current_time()
    async with byte_by_byte(application(leave), ended) as client:
        assert await client.receive_rest() == []
        await trio.testing.wait_all_tasks_blocked()
        assert ended == [began]


@pytest.mark.parametrize(("trusted", "client"), [("unix", ("192.0.2.1", 0)), ("10.0.0.0/8", None)])
async def test_a_stream_that_is_no_socket_is_on_this_machine(
    trusted: str, client: object, autojump_clock: MockClock
) -> None:
    """So it may be a proxy that is trusted, as one at a UNIX socket."""
    clients: list[object] = []

    async def note(session: WebSocketSession) -> None:
        clients.append(session.call.client)

    app = application(note)
    app.trust_proxies(trusted)
    async with over_trio_websocket(app) as dial, dial(headers={"X-Forwarded-For": "192.0.2.1"}) as session:
        await session.wait_closed()
    assert clients == [client]


async def test_a_client_that_is_gone_meanwhile(autojump_clock: MockClock) -> None:
    """While a hook is asked: the handler does not run, and nothing is raised."""

    async def never(session: WebSocketSession) -> None:
        raise AssertionError

    async def slow(call: Call) -> Response | None:
        await trio.sleep(5)
        return Response("no", status=401) if call.path == "/no" else None

    app = application(never, "/other")
    for path in ("/", "/no"):
        app.websocket(path, never, before=slow)
    async with over_trio_websocket(app) as dial:
        for path in ("/", "/no"):
            with trio.move_on_after(1):
                async with dial(path):
                    raise AssertionError
        await trio.sleep(10)


async def test_a_client_that_does_not_read_its_refusal(autojump_clock: MockClock) -> None:
    """Its task ends, however long the answer is."""

    async def hook(call: Call) -> Response:
        return Response("no " * 100_000, status=401)

    app = application(silent, "/other")
    app.websocket("/", silent, before=hook)
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, REQUEST % b"/")
        request = await trio_websocket.wrap_server_stream(nursery, theirs)
        with trio.fail_after(100):
            await handler(app)(request)
        nursery.cancel_scope.cancel()


async def test_nothing_that_one_client_does_ends_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """Clients that are gone at once, hooks that answer without a body, faults of ours: the next is served."""

    async def no(call: Call) -> Response:
        return Response("left out", status=204)

    async def echo(session: WebSocketSession) -> None:
        async for frame in session:
            await session.send(frame)

    app = application(echo)
    app.websocket("/no", echo, before=no)

    @app.websocket("/fault", subprotocols=lambda call: fault())
    async def fault_route(session: WebSocketSession) -> None:
        raise AssertionError

    def fault() -> str:
        raise SystemError

    async with trio.open_nursery() as nursery:
        serve = functools.partial(trio_websocket.serve_websocket, handler(app), "127.0.0.1", 0, ssl_context=None)
        server = await nursery.start(serve)
        for _ in range(30):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.send_all(REQUEST % b"/")
            await stream.aclose()
        for path, status in (("no", 204), ("fault", 500)):
            with pytest.raises(HandshakeRefused, match=str(status)):
                async with connect(f"ws://127.0.0.1:{server.port}/{path}"):
                    pass
        async with connect(f"ws://127.0.0.1:{server.port}/") as session:
            await session.send("still there")
            assert await session.receive_text() == "still there"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_on_a_real_server(scheme: str) -> None:
    """Over TCP, and TLS, the call has the client's address; text and bytes come as they were sent."""
    clients: list[object] = []

    async def echo(session: WebSocketSession) -> None:
        clients.extend([session.call.client, session.call.scheme])
        async for frame in session:
            await session.send(frame)

    context, trusting = tls() if scheme == "wss" else (None, None)
    async with trio.open_nursery() as nursery:
        serve = functools.partial(
            trio_websocket.serve_websocket, handler(application(echo)), "127.0.0.1", 0, ssl_context=context
        )
        server = await nursery.start(serve)
        async with connect(f"{scheme}://localhost:{server.port}/", ssl_context=trusting) as session:
            await session.send(b"\x00\xff")
            assert await session.receive_bytes() == b"\x00\xff"
            await session.send("grün")
            assert await session.receive_text() == "grün"
        nursery.cancel_scope.cancel()
    [client, seen] = clients
    assert isinstance(client, tuple)
    assert (client[0], seen) == ("127.0.0.1", scheme)
