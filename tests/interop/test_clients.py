"""Foreign clients on real sockets: what they say is echoed, and both sides agree how it ended."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio_websocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_sync

from tests.interop.programs import PATIENCE, node_command
from trioktor import Application, CloseReason, Frame, PerMessageDeflate, Server, WebSockets, WebSocketSession, serve

SCRIPT: Final = Path(__file__).parent / "client.js"

MESSAGES: Final[list[str | bytes]] = [
    "Grüße, 世界 🌍",
    "",
    bytes(range(256)),
    bytes(range(256)) * 4096,
    "x" * (1 << 20),
]
OURS: Final = CloseReason(4000, "so long")
THEIRS: Final = CloseReason(4001, "that is all")


@asynccontextmanager
async def server(deflate: bool, *, offers: bool = True) -> AsyncIterator[tuple[str, list[WebSocketSession]]]:
    """An echo that pings first, and a route that says goodbye; the address, and the sessions there were.

    `offers` is whether the client is known to offer compression: then it has to be used.
    """
    sessions: list[WebSocketSession] = []
    app = Application()
    app.install(WebSockets(max_frame_size=1 << 20, extensions=[PerMessageDeflate()] if deflate else []))

    @app.websocket("/echo")
    async def echo(session: WebSocketSession) -> None:
        sessions.append(session)
        await session.send(Frame.Ping(b"are you there?"))
        async for frame in session:
            await session.send(frame)

    @app.websocket("/close")
    async def leave(session: WebSocketSession) -> None:
        sessions.append(session)
        await session.aclose(THEIRS)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            running: Server = await nursery.start(partial(serve, app, 0, host="127.0.0.1"))
            yield f"ws://127.0.0.1:{running.port}", sessions
            for session in sessions:
                await session.wait_closed()
            assert bool(sessions[0].extensions) == (deflate and offers)
            if deflate and offers:  # a megabyte of one letter, and one of a pattern
                assert sessions[0].statistics().bytes_sent < 100_000
            nursery.cancel_scope.cancel()


def assert_both_ended(sessions: list[WebSocketSession], *, answer: int = THEIRS.code) -> None:
    """The server knows what the client said, and how it answered."""
    echo, leave = sessions
    assert echo.close_reason == echo.close_received == OURS
    assert leave.close_reason == leave.close_sent == THEIRS
    assert leave.close_received is not None
    assert leave.close_received.code == answer


@asynccontextmanager
async def trio_client(url: str, path: str) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    """A trio-websocket client on a stream of ours: it leaves its own open after the peer's Close."""
    host, port = url.removeprefix("ws://").split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
        yield await trio_websocket.wrap_client_stream(nursery, stream, host, path, max_message_size=1 << 21)


async def test_trio_websocket(deflate: bool) -> None:
    """Another implementation on Trio: text, binary, 1 MiB, ping, close codes both ways."""
    async with server(deflate, offers=False) as (url, sessions):
        async with trio_client(url, "/echo") as websocket:
            for message in MESSAGES:
                await websocket.send_message(message)
                assert await websocket.get_message() == message
            await websocket.ping(b"payload")  # returns with the Pong
            await websocket.aclose(OURS.code, OURS.message)
        async with trio_client(url, "/close") as websocket:
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await websocket.get_message()
            assert closed.value.reason is not None
            assert (closed.value.reason.code, closed.value.reason.reason) == (THEIRS.code, THEIRS.message)
    assert_both_ended(sessions)


def converse_sync(url: str) -> tuple[int, str]:
    """The whole conversation with the threaded client of `websockets`; how the second one was closed."""
    with connect_sync(f"{url}/echo", max_size=1 << 21, proxy=None) as websocket:
        for message in MESSAGES:
            websocket.send(message)
            assert websocket.recv() == message
        websocket.send(["frag", "men", "", "ted"])
        assert websocket.recv() == "fragmented"
        websocket.send([b"\x00", b"\xff"])
        assert websocket.recv() == b"\x00\xff"
        assert websocket.ping(b"payload").wait(PATIENCE)
        websocket.close(OURS.code, OURS.message)
    with connect_sync(f"{url}/close", proxy=None) as websocket:
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv()
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code, closed.value.rcvd.reason


async def test_websockets_in_a_thread(deflate: bool) -> None:
    """It offers compression; fragments, too."""
    async with server(deflate) as (url, sessions):
        assert await trio.to_thread.run_sync(converse_sync, url) == (THEIRS.code, THEIRS.message)
    assert_both_ended(sessions)


async def test_websockets_on_trio(deflate: bool) -> None:
    """The same with its client for Trio, where this version has one."""
    client: Any = pytest.importorskip("websockets.trio.client", reason="this version of websockets has no Trio client")
    async with server(deflate) as (url, sessions):
        async with client.connect(f"{url}/echo", max_size=1 << 21, proxy=None) as websocket:
            for message in MESSAGES:
                await websocket.send(message)
                assert await websocket.recv() == message
            await websocket.send(["frag", "men", "", "ted"])
            assert await websocket.recv() == "fragmented"
            await (await websocket.ping(b"payload")).wait()
            await websocket.aclose(OURS.code, OURS.message)
        async with client.connect(f"{url}/close", proxy=None) as websocket:
            with pytest.raises(ConnectionClosed) as closed:
                await websocket.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (THEIRS.code, THEIRS.message)
    assert_both_ended(sessions)


async def converse_aiohttp(aiohttp: Any, url: str) -> tuple[int, str]:
    """The whole conversation with aiohttp's client; how the second one was closed."""
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{url}/echo", max_msg_size=1 << 21, compress=15) as websocket:
            for message in MESSAGES:
                await (websocket.send_str(message) if isinstance(message, str) else websocket.send_bytes(message))
                assert (await websocket.receive()).data == message
            await websocket.ping(b"payload")
            await websocket.close(code=OURS.code, message=OURS.message.encode())
        async with session.ws_connect(f"{url}/close") as websocket:
            closed = await websocket.receive()
            return closed.data, closed.extra


async def test_aiohttp_in_a_thread(deflate: bool) -> None:
    """Its client, in an event loop of its own, where it is installed."""
    aiohttp: Any = pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    async with server(deflate) as (url, sessions):
        closed = await trio.to_thread.run_sync(lambda: asyncio.run(converse_aiohttp(aiohttp, url)))
    assert closed == (THEIRS.code, THEIRS.message)
    assert_both_ended(sessions, answer=1000)  # it answers every Close so


async def test_the_client_of_the_jdk(deflate: bool) -> None:
    """It knows no compression; text, fragments, close codes both ways, where a JDK is installed."""
    java, compiler = shutil.which("java"), shutil.which("javac")
    if java is None or compiler is None:
        pytest.skip("there is no JDK here")
    output = b""
    async with server(deflate, offers=False) as (url, sessions), trio.open_nursery() as nursery:
        command = [java, str(SCRIPT.with_name("Client.java")), url]
        run = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process: trio.Process = await nursery.start(run)
        assert process.stdin is not None
        assert process.stdout is not None
        while output.count(b"\n") < 6 and (data := await process.stdout.receive_some()):
            output += data
        for session in sessions:
            await session.wait_closed()
        await process.stdin.aclose()  # it may leave: both of its conversations are over
    lines = output.decode().split("\n")
    assert lines == ["true", "true", "true", "fragmented", "4000 ", "4001 that is all", ""]
    assert_both_ended(sessions)


@pytest.fixture(scope="module")
def built_in() -> list[str]:
    """A Node with a WebSocket of its own: from version 22 on, and behind an option before."""
    return node_command("a WebSocket of its own", "WebSocket", [], ["--experimental-websocket"])


async def run_node(command: list[str], kind: str, url: str) -> dict[str, Any]:
    """What the script found."""
    done = await trio.run_process(
        [*command, str(SCRIPT), kind, url],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env={**os.environ, "NODE_NO_WARNINGS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


async def test_npm_ws(npm_ws: list[str], deflate: bool) -> None:
    """Fragments and a ping as well; it offers compression."""
    async with server(deflate) as (url, sessions):
        result = await run_node(npm_ws, "ws", url)
    assert result == {
        "echoed": [True] * 5,
        "fragments": "fragmented",
        "pong": "are you there?",
        "ours": {"code": 4000, "reason": "", "wasClean": True},
        "theirs": {"code": 4001, "reason": "that is all", "wasClean": True},
    }
    assert_both_ended(sessions)


async def test_the_websocket_of_node(built_in: list[str], deflate: bool) -> None:
    """The interface that browsers have."""
    async with server(deflate) as (url, sessions):
        result = await run_node(built_in, "built-in", url)
    assert result["echoed"] == [True] * 5
    assert result["ours"]["code"] == 4000
    assert result["theirs"] == {"code": 4001, "reason": "that is all", "wasClean": True}
    assert_both_ended(sessions)
