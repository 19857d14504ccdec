"""Foreign servers on real sockets, and the client before them: what it says is echoed, and both agree how it ended."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio_websocket

from tests.interop.foreign_servers import GOODBYE, HERE, PROTOCOL, asgi
from tests.interop.programs import PATIENCE, announcing, program, through
from trioktor import (
    Application,
    Call,
    CloseReason,
    FrameType,
    PerMessageDeflate,
    Server,
    WebSockets,
    WebSocketSession,
    connect,
    serve,
)

FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parents[1]
JARS: Final = Path("/usr/share/java")
"""Where Debian's packages libtomcat9-java and libtomcat10-java have theirs."""

TEXT: Final = "ü世🌍" * 5000
BYTES: Final = bytes(range(250)) * 1200
THEIRS: Final = CloseReason(*GOODBYE)


def needs(module: str, reason: str = "") -> pytest.MarkDecorator:
    """Skip a test where a Python module is not installed."""
    try:
        is_here = find_spec(module) is not None
    except ModuleNotFoundError:  # nor the package that it would be in
        is_here = False
    return pytest.mark.skipif(not is_here, reason=reason or f"{module} is not installed")


@pytest.fixture
def bun() -> str:
    """Where Bun is."""
    return program("bun")


@pytest.fixture(params=[9, 10])
def tomcat(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The command of a server with Tomcat; the older one knows the same interfaces by their older names."""
    java, _ = program("java"), program("javac")
    jars = [str(jar) for jar in JARS.glob(f"tomcat{request.param}-*.jar")]
    if not any(jar.endswith("-websocket.jar") for jar in jars):
        pytest.skip(f"there is no Tomcat {request.param} in {JARS}")
    text = (FOLDER / "Server.java").read_text()
    file = tmp_path / "Server.java"
    file.write_text(text.replace("jakarta.", "javax.") if request.param < 10 else text)
    return [java, "-cp", ":".join(jars), str(file), str(tmp_path)]


async def converse(port: int, deflate: bool, *, compresses: bool = True) -> None:
    """Two conversations: one that we end, and one that the server does.

    `compresses` is whether the server agrees on compression: then it has to be used.
    """
    url = f"ws://{HERE}:{port}"
    extensions = [PerMessageDeflate()] if deflate else []
    with trio.fail_after(PATIENCE):
        async with connect(f"{url}/echo", extensions=extensions, subprotocols=["echo.v2", PROTOCOL]) as session:
            assert session.protocol == PROTOCOL
            assert bool(session.extensions) == (deflate and compresses)
            await session.send(TEXT)
            assert await session.receive_text() == TEXT
            await session.send(BYTES)
            assert await session.receive_bytes() == BYTES
            assert (session.statistics().bytes_sent < 50_000) == (deflate and compresses)
            assert (session.statistics().bytes_received < 50_000) == (deflate and compresses)
            async with session.message(FrameType.TEXT) as message:
                for piece in ("frag", "men", "", "ted"):
                    await message.send(piece)
            assert await session.receive_text() == "fragmented"
            assert isinstance(await session.ping(), float)
        assert session.close_reason is not None
        assert session.close_reason.code == 1000
        assert session.close_received is not None
        async with connect(f"{url}/close", extensions=extensions, subprotocols=[PROTOCOL]) as session:
            assert session.protocol == PROTOCOL
            assert [frame async for frame in session] == []
        assert session.close_reason == session.close_received == THEIRS


def foreign(name: str, *arguments: str) -> AbstractAsyncContextManager[int]:
    """One of the servers on asyncio; its port."""
    return announcing(sys.executable, "-m", "tests.interop.foreign_servers", name, *arguments, cwd=ROOT)


@needs("websockets")
async def test_websockets_on_asyncio(deflate: bool) -> None:
    """The most used one."""
    async with foreign("websockets") as port:
        await converse(port, deflate)


@needs("websockets.trio.server", "this version of websockets has no Trio server")
async def test_websockets_on_trio(deflate: bool) -> None:
    """The same with its server for Trio, where this version has one."""
    library: Any = import_module("websockets.trio.server")

    async def talk(websocket: Any) -> None:
        if websocket.request.path == "/close":
            await websocket.aclose(*GOODBYE)
        async for message in websocket:
            await websocket.send(message)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(library.serve, talk, 0, host=HERE, subprotocols=[PROTOCOL]))
        await converse(server.listeners[0].socket.getsockname()[1], deflate)
        nursery.cancel_scope.cancel()


async def test_trio_websocket(deflate: bool) -> None:
    """Another one on Trio; it knows no compression."""

    async def talk(request: trio_websocket.WebSocketRequest) -> None:
        websocket = await request.accept(subprotocol=PROTOCOL if PROTOCOL in request.proposed_subprotocols else None)
        if request.path == "/close":
            await websocket.aclose(*GOODBYE)
        try:
            while True:
                await websocket.send_message(await websocket.get_message())
        except trio_websocket.ConnectionClosed:
            pass

    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, talk, HERE, 0, None)
        await converse(server.port, deflate, compresses=False)
        nursery.cancel_scope.cancel()


@needs("aiohttp")
async def test_aiohttp(deflate: bool) -> None:
    """Its server."""
    async with foreign("aiohttp") as port:
        await converse(port, deflate)


@needs("uvicorn")
@pytest.mark.parametrize(
    "implementation",
    [pytest.param("websockets-sansio", marks=needs("websockets")), pytest.param("wsproto", marks=needs("wsproto"))],
)
async def test_uvicorn(implementation: str, deflate: bool) -> None:
    """An application in ASGI, with each of its protocols."""
    async with foreign("uvicorn", implementation) as port:
        await converse(port, deflate)


@needs("hypercorn")
async def test_hypercorn_on_asyncio(deflate: bool) -> None:
    """The same application."""
    async with foreign("hypercorn") as port:
        await converse(port, deflate)


@needs("hypercorn")
async def test_hypercorn_on_trio(deflate: bool) -> None:
    """The same application once more."""
    library: Any = import_module("hypercorn.trio")
    config: Any = import_module("hypercorn.config").Config()
    config.bind = [f"{HERE}:0"]
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(library.serve, asgi, config)
        await converse(int(address.rpartition(":")[2]), deflate)
        nursery.cancel_scope.cancel()


async def test_npm_ws(npm_ws: list[str], deflate: bool) -> None:
    """The one of Node."""
    async with announcing(*npm_ws, str(FOLDER / "server.js"), "ws") as port:
        await converse(port, deflate)


async def test_bun(bun: str, deflate: bool) -> None:
    """It has one of its own, made of uWebSockets."""
    async with announcing(bun, str(FOLDER / "server.js"), "bun") as port:
        await converse(port, deflate)


async def test_tomcat(tomcat: list[str], deflate: bool) -> None:
    """The server of Java's that Debian has."""
    async with announcing(*tomcat) as port:
        await converse(port, deflate)


@asynccontextmanager
async def ours() -> AsyncIterator[int]:
    """Our own server, for what stands in between; its port."""
    app = Application()
    app.install(WebSockets(subprotocols=PROTOCOL, extensions=[PerMessageDeflate()]))

    @app.websocket("/echo")
    async def echo(session: WebSocketSession) -> None:
        async for frame in session:
            await session.send(frame)

    @app.websocket("/close")
    async def leave(session: WebSocketSession) -> None:
        await session.aclose(THEIRS)

    @app.get("/")
    async def page(call: Call) -> str:
        return "in good health\n"

    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, app, 0, host=HERE))
        yield server.port
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("behind", ["trioktor", pytest.param("websockets", marks=needs("websockets"))])
async def test_behind_a_proxy(proxy: str, behind: str, tmp_path: Path, deflate: bool) -> None:
    """It changes nothing, whoever is behind it."""
    server = ours() if behind == "trioktor" else foreign(behind)
    async with server as last, through(proxy, tmp_path, last) as port:
        await converse(port, deflate)
