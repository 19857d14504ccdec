"""Peers that leave: one that has gone is noticed, one that is leaving is let go, and TLS is told of its end."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import RawClient, application, client_bytes, close, connected
from tests.support.listening import running, talking, tls
from trioktor import Application, CloseReason, ConnectionClosed, Frame, WebSockets, WebSocketSession

HERE = "127.0.0.1"
TIMEOUT = 20


# one that has gone


@pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
@pytest.mark.parametrize("what", ["pushes", "sleeps"])
async def test_a_peer_that_has_gone_behind_a_full_queue_is_noticed(transport: str, what: str, tmp_path: Any) -> None:
    """The handler takes nothing, so nobody reads; the system knows of the end all the same."""
    ended = trio.Event()

    async def handler(session: WebSocketSession) -> None:
        try:
            while what == "pushes":
                await session.send("x")
                await trio.sleep(0.05)
            await trio.sleep_forever()
        finally:
            ended.set()

    app = application(handler, incoming=4, handler_grace=0.2)
    ours, theirs = tls()
    options: dict[str, Any] = {"ssl_context": ours} if transport == "tls" else {}
    if transport == "unix":
        options["path"] = str(tmp_path / "socket")
    with trio.fail_after(TIMEOUT):
        async with running(app, **options) as server:
            stream: Any
            if transport == "unix":
                stream = await trio.open_unix_socket(options["path"])
            else:
                stream = await trio.open_tcp_stream(HERE, server.port)
            if transport == "tls":
                stream = trio.SSLStream(stream, theirs, server_hostname="localhost")
            client = RawClient(stream)
            await client.upgrade()
            await stream.send_all(client_bytes(*[Frame.Text("x")] * 70))
            await trio.sleep(0.1)
            await trio.aclose_forcefully(stream)
            await ended.wait()


async def test_what_stands_before_a_half_close_is_not_lost() -> None:
    """A handler that is slow, and takes: it gets everything, the Close included."""
    received: list[str] = []

    async def handler(session: WebSocketSession) -> None:
        async for frame in session:
            received.append(frame.text)
            await trio.sleep(0.05)

    sessions: list[WebSocketSession] = []

    async def recording(session: WebSocketSession) -> None:
        sessions.append(session)
        await handler(session)

    with trio.fail_after(TIMEOUT):
        async with running(application(recording, incoming=2, handler_grace=0.2)) as server:
            stream = await trio.open_tcp_stream(HERE, server.port)
            client = RawClient(stream)
            await client.upgrade()
            await client.send(*(Frame.Text(str(number)) for number in range(20)), close(4000))
            await stream.send_eof()
            assert isinstance((await client.receive_rest())[-1], Frame.Close)
            await client.aclose()
    assert [str(number) for number in range(20)] == received
    assert CloseReason(4000) == sessions[0].close_reason


# one that is leaving


async def test_a_handler_that_never_received_has_nothing_to_answer(autojump_clock: MockClock) -> None:
    """Our Close follows what was queued, at once, and sending raises."""
    outcome: list[float] = []

    async def handler(session: WebSocketSession) -> None:
        await trio.sleep(1)
        with pytest.raises(ConnectionClosed):
            while True:
                await session.send("tick")
                await trio.sleep(0.1)
        outcome.append(trio.current_time())

    async with connected(handler, answer_grace=5) as (client, _):
        await trio.sleep(1.45)
        await client.send(close(1000))
        frames = await client.receive_rest()
    assert [*[Frame.Text("tick")] * 5, close(1000)] == frames
    assert [pytest.approx(1.5)] == outcome


async def test_a_handler_that_let_messages_lie_has_nothing_to_answer(autojump_clock: MockClock) -> None:
    """The first of them has waited for longer than the grace."""

    async def handler(session: WebSocketSession) -> None:
        with pytest.raises(ConnectionClosed):
            while True:
                await session.send("tick")
                await trio.sleep(1)

    async with connected(handler, answer_grace=5) as (client, _):
        await client.send(Frame.Text("nobody reads this"))
        await trio.sleep(10.5)
        await client.send(close(1000))
        assert [*[Frame.Text("tick")] * 11, close(1000)] == await client.receive_rest()


async def test_a_handler_that_closed_incoming_has_nothing_to_answer(autojump_clock: MockClock) -> None:
    """Though it had received something before."""

    async def handler(session: WebSocketSession) -> None:
        await session.receive()
        session.incoming.close()
        with pytest.raises(ConnectionClosed):
            while True:
                await session.send("tick")
                await trio.sleep(1)

    async with connected(handler, answer_grace=5) as (client, _):
        await client.send(Frame.Text("go"))
        await trio.sleep(2.5)
        await client.send(close(1000))
        assert [*[Frame.Text("tick")] * 3, close(1000)] == await client.receive_rest()


async def test_where_there_is_nothing_to_answer_the_close_does_not_wait_for_a_look(autojump_clock: MockClock) -> None:
    """Nor for the handler, on a socket that the poller reads."""

    async def handler(session: WebSocketSession) -> None:
        session.incoming.close()
        await trio.sleep(100)

    async with talking(handler) as (client, _):
        before = trio.current_time()
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()
        assert trio.current_time() == before


async def test_a_handler_that_has_not_come_to_its_first_message_yet_may_answer_it(autojump_clock: MockClock) -> None:
    """It came a moment ago, with the Close behind it."""

    async def handler(session: WebSocketSession) -> None:
        await trio.sleep(0.3)
        async for frame in session:
            await session.send(frame)
            await trio.sleep(0.1)

    async with connected(handler, answer_grace=0.5) as (client, _):
        await client.send(Frame.Text("1"), Frame.Text("2"), close(1000))
        assert [Frame.Text("1"), Frame.Text("2"), close(1000)] == await client.receive_rest()


@pytest.fixture
def pushing() -> Application:
    """`examples/push.py`, a thousand times a second."""
    app = Application()
    app.install(WebSockets(ping_period=20))

    @app.websocket("/closed")
    async def closed(session: WebSocketSession) -> None:
        session.incoming.close()
        await push(session)

    @app.websocket("/never")
    async def push(session: WebSocketSession) -> None:
        while True:
            await session.send("tick")
            await trio.sleep(0.001)

    return app


async def _leave_asyncio(url: str) -> tuple[int, float]:
    from websockets.asyncio.client import connect

    async with connect(url, proxy=None) as websocket:
        for _ in range(20):
            await websocket.recv()
        began = asyncio.get_running_loop().time()
        await websocket.close()
        took = asyncio.get_running_loop().time() - began
        assert websocket.protocol.close_code is not None
        return websocket.protocol.close_code, took


def _leave_sync(url: str) -> tuple[int, float]:
    import time

    from websockets.sync.client import connect

    with connect(url, proxy=None) as websocket:
        for _ in range(20):
            websocket.recv()
        began = time.monotonic()
        websocket.close()
        assert websocket.protocol.close_code is not None
        return websocket.protocol.close_code, time.monotonic() - began


async def _leave_trio(url: str) -> tuple[int, float]:
    client: Any = pytest.importorskip("websockets.trio.client")
    async with client.connect(url, proxy=None) as websocket:
        for _ in range(20):
            await websocket.recv()
        began = trio.current_time()
        await websocket.aclose()
        return websocket.protocol.close_code, trio.current_time() - began


@pytest.mark.parametrize("route", ["closed", "never"])
@pytest.mark.parametrize("client", ["asyncio", "sync", "trio"])
async def test_a_client_leaves_a_handler_that_only_sends(pushing: Application, client: str, route: str) -> None:
    """With 1000, and far from the ten seconds after which it would give up."""
    with trio.fail_after(TIMEOUT):
        async with running(pushing) as server:
            url = f"ws://{HERE}:{server.port}/{route}"
            if client == "asyncio":
                code, took = await trio.to_thread.run_sync(lambda: asyncio.run(_leave_asyncio(url)))
            elif client == "sync":
                code, took = await trio.to_thread.run_sync(_leave_sync, url)
            else:
                code, took = await _leave_trio(url)
    assert code == 1000
    assert took < 5  # that it did not give up


# TLS


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("end", ["websocket", "close", "get", "refusal", "failure"])
async def test_a_tls_stream_is_ended_by_close_notify(
    version: ssl.TLSVersion, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A strict client sees an end, and not a truncation: RFC 8446 §6.1, RFC 9112 §9.8."""
    ours, theirs = tls()
    theirs.minimum_version = theirs.maximum_version = version

    async def handler(session: WebSocketSession) -> None:
        if end == "failure":
            raise NotImplementedError
        if end == "close":
            await session.aclose(4000)
        async for _ in session:
            pass

    app = application(handler)

    @app.get("/page")
    async def page(call: object) -> str:
        return "a page"

    with trio.fail_after(TIMEOUT):
        async with running(app, ssl_context=ours) as server:
            inner = await trio.open_tcp_stream(HERE, server.port)
            stream = trio.SSLStream(inner, theirs, server_hostname="localhost")  # strict: as suppress_ragged_eofs=False
            client = RawClient(stream)  # type: ignore[arg-type]
            if end in ("get", "refusal"):
                path = b"/page" if end == "get" else b"/nothing"
                await stream.send_all(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
            else:
                await client.upgrade()
                if end == "websocket":
                    await client.send(close(1000))
                else:
                    assert isinstance(await client.receive(), Frame.Close)
                    await client.send(close(1000))
            while await stream.receive_some():
                pass
            await trio.aclose_forcefully(stream)


async def test_the_end_of_tls_does_not_wait_for_a_peer_that_takes_nothing() -> None:
    """It is said within half a second, or not at all."""
    ours, theirs = tls()
    ended = trio.Event()

    async def handler(session: WebSocketSession) -> None:
        try:
            await session.send(bytes(1 << 24))
            await session.aclose()
        finally:
            ended.set()

    with trio.fail_after(TIMEOUT):
        async with running(application(handler, write_timeout=0.2), ssl_context=ours) as server:
            inner = await trio.open_tcp_stream(HERE, server.port)
            stream = trio.SSLStream(inner, theirs, server_hostname="localhost")
            await RawClient(stream).upgrade()  # type: ignore[arg-type]
            await ended.wait()
            while server.sessions:  # noqa: ASYNC110
                await trio.sleep(0.01)
            await trio.aclose_forcefully(stream)


async def over_tls_in_memory(app: Application) -> tuple[trio.SSLStream[Any], Any, Any]:
    """A client and a server's stream, over one that passes on nothing that is not being read."""
    ours, theirs = tls()
    near, far = trio.testing.lockstep_stream_pair()
    client = trio.SSLStream(near, theirs, server_hostname="localhost")
    return client, near, trio.SSLStream(far, ours, server_side=True)


@pytest.mark.parametrize("end", ["nothing is read of its end", "a record is half out"])
async def test_the_end_of_tls_takes_so_long_and_no_longer(end: str, autojump_clock: MockClock) -> None:
    """Half a second for who does not take it; none at all where it would stand in the middle of a record."""
    is_half_out = end == "a record is half out"
    times: list[float] = []

    async def handler(session: WebSocketSession) -> None:
        await session.receive()
        if is_half_out:
            await session.outgoing.send(bytes(1 << 20))
            await trio.sleep(5)
            times.append(trio.current_time())
            session.terminate()

    app = application(handler)
    client, _, server = await over_tls_in_memory(app)
    async with trio.open_nursery() as nursery:

        async def serve_one() -> None:
            await app.handle_stream(server)
            times.append(trio.current_time())

        nursery.start_soon(serve_one)
        raw = RawClient(client)  # type: ignore[arg-type]
        await raw.upgrade()
        await raw.send(Frame.Text("go"))
        if not is_half_out:
            await raw.send(close(1000))
            assert await raw.receive() == close(1000)
            times.append(trio.current_time())
        await trio.sleep(20)
        await trio.aclose_forcefully(client)
    began, ended = times
    assert ended - began == pytest.approx(0 if is_half_out else 0.5, abs=0.01)
