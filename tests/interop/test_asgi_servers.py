"""The same application on ASGI servers of other people that run on Trio: Hypercorn, Anycorn, below Starlette."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.interop.programs import HERE, PATIENCE
from tests.support.helpers import client_bytes
from tests.support.reading import FrameReader
from trioktor import (
    Application,
    Call,
    CloseReason,
    Frame,
    HandshakeRefused,
    Response,
    WebSockets,
    WebSocketSession,
    connect,
)

SERVERS: Final = [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"))
    for name in ("hypercorn", "anycorn")
]


def echo_application() -> Application:
    """Echo, an end with a reason, a refusal, a page."""
    app = Application()
    app.install(WebSockets(subprotocols=["v1"]))

    @app.websocket("/echo")
    async def echo(session: WebSocketSession) -> None:
        async for frame in session:
            await session.send(frame)

    @app.websocket("/close")
    async def close(session: WebSocketSession) -> None:
        await session.send("last words")
        session.close(4001, "enough")

    async def no(call: Call) -> Response:
        return Response("who are you?", status=401)

    app.websocket("/members", echo, before=no)

    @app.get("/page")
    async def page(call: Call) -> str:
        return f"{call.path} {call.client is not None}"

    return app


@asynccontextmanager
async def serving(name: str, app: Any, *, graceful: float = 1) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """A server in this run; its address, and what has it shut down."""
    config = import_module(f"{name}.config").Config()
    config.bind = [f"{HERE}:0"]
    config.graceful_timeout = graceful
    config.accesslog = config.errorlog = None
    serve = import_module("hypercorn.trio").serve if name == "hypercorn" else import_module("anycorn").serve
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        start = partial(serve, app, config, shutdown_trigger=stop.wait)
        with trio.fail_after(PATIENCE):
            bound = await nursery.start(start)
        yield str(bound[0]).replace("http", "ws"), stop.set
        stop.set()


@pytest.mark.parametrize("name", SERVERS)
async def test_conversations(name: str) -> None:
    """Messages, subprotocols, ends with their codes, refusals with their bodies, and plain requests."""
    async with serving(name, echo_application()) as (url, _):
        async with connect(f"{url}/echo", subprotocols=["v2", "v1"]) as session:
            assert session.protocol == "v1"
            for message in ("grün 世界", "x" * 100_000):
                await session.send(message)
                assert await session.receive_text() == message
            await session.send(b"\x00\xff")
            assert await session.receive_bytes() == b"\x00\xff"
            assert await session.ping() >= 0
        assert session.close_reason == CloseReason(1000)
        async with connect(f"{url}/close") as session:
            assert [frame.text async for frame in session] == ["last words"]
        assert session.close_reason == CloseReason(4001, "enough")
        for path, status, body in (("/nothing", 404, b"there is nothing"), ("/members", 401, b"who are you?")):
            with pytest.raises(HandshakeRefused) as caught:
                async with connect(url + path):
                    pass
            assert caught.value.status == status
            assert caught.value.body.startswith(body)
        async with await trio.open_tcp_stream(HERE, int(url.rpartition(":")[2])) as stream:
            await stream.send_all(b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = b"".join([bytes(chunk) async for chunk in stream])
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"/page True" in answer


@pytest.mark.parametrize("name", SERVERS)
async def test_its_end(name: str) -> None:
    """A server that shuts down: sessions hear 1001."""
    async with serving(name, echo_application(), graceful=0.2) as (url, stop):
        async with connect(f"{url}/echo") as session:
            await session.send("x")
            assert await session.receive_text() == "x"
            stop()
            with trio.fail_after(PATIENCE), pytest.raises(trio.EndOfChannel):
                await session.receive()
        assert session.close_reason == CloseReason(1001)


@pytest.mark.skipif(find_spec("starlette") is None, reason="starlette is not installed")
@pytest.mark.parametrize("name", SERVERS)
async def test_below_another_application(name: str) -> None:
    """Starlette's `Mount`: routes are below its path."""
    applications, routing = import_module("starlette.applications"), import_module("starlette.routing")
    app = applications.Starlette(routes=[routing.Mount("/below", echo_application())])
    async with serving(name, app) as (url, _):
        async with connect(f"{url}/below/echo") as session:
            await session.send("x")
            assert await session.receive_text() == "x"
        with pytest.raises(HandshakeRefused):
            async with connect(f"{url}/echo"):
                pass


@pytest.mark.skipif(find_spec("hypercorn") is None, reason="hypercorn is not installed")
async def test_by_its_command(tmp_path: Path) -> None:
    """As the page says it; on another loop it does not start, and says why."""
    (tmp_path / "module.py").write_text(
        "from tests.interop.test_asgi_servers import echo_application\napp = echo_application()\n"
    )
    command = [sys.executable, "-m", "hypercorn", "--bind", f"{HERE}:0", "module:app"]
    environment = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    run = partial(trio.run_process, env=environment, cwd=tmp_path, check=False)
    with trio.fail_after(PATIENCE):
        done = await run(command, capture_stdout=True, capture_stderr=True)
    assert b"hypercorn --worker-class trio" in done.stderr + done.stdout
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(run, [*command[:3], "--worker-class", "trio", *command[3:]], stderr=subprocess.PIPE)
        )
        assert process.stderr is not None
        said = b""
        with trio.fail_after(PATIENCE):
            while b"Running on http://" not in said:
                said += await process.stderr.receive_some()
            port = said.partition(b"127.0.0.1:")[2].split()[0].decode()
            async with connect(f"ws://{HERE}:{port}/echo") as session:
                await session.send("x")
                assert await session.receive_text() == "x"
        nursery.cancel_scope.cancel()


@pytest.mark.skipif(find_spec("h2") is None, reason="h2 is not installed")
@pytest.mark.parametrize("name", SERVERS)
async def test_websockets_over_http_2(name: str) -> None:
    """RFC 8441: a stream of HTTP/2 is the conversation."""
    config, connection, events = (import_module(f"h2.{module}") for module in ("config", "connection", "events"))
    http = connection.H2Connection(config.H2Configuration(client_side=True, header_encoding="utf-8"))
    frames = FrameReader(client=True)
    got: list[Frame | None] = []
    async with (
        serving(name, echo_application()) as (url, _),
        await trio.open_tcp_stream(HERE, int(url.rpartition(":")[2])) as stream,
    ):
        http.initiate_connection()
        await stream.send_all(http.data_to_send())
        headers = [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/echo"),
            (":authority", "example.org"), ("sec-websocket-version", "13"), ("sec-websocket-protocol", "v1"),
            ("origin", "http://example.org"),
        ]  # fmt: skip
        is_asked = False
        with trio.fail_after(PATIENCE):
            while Frame.Text("over two") not in got:
                for event in http.receive_data(bytes(await stream.receive_some())):
                    if isinstance(event, events.RemoteSettingsChanged) and not is_asked:
                        assert http.remote_settings.enable_connect_protocol
                        http.send_headers(1, headers)
                        is_asked = True
                    elif isinstance(event, events.ResponseReceived):
                        answered = dict(event.headers)
                        assert answered[":status"] == "200"
                        assert answered["sec-websocket-protocol"] == "v1"
                        http.send_data(1, client_bytes(Frame.Text("over two")))
                    elif isinstance(event, events.DataReceived):
                        http.acknowledge_received_data(event.flow_controlled_length, 1)
                        got += frames.feed(event.data)
                await stream.send_all(http.data_to_send())
