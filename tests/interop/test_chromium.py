"""A browser at the other end, where Chromium is installed: a page that echoes, with and without compression."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from functools import partial
from typing import Any, Final

import pytest
import trio

from trioktor import (
    Application,
    Call,
    CloseReason,
    PerMessageDeflate,
    Response,
    Server,
    WebSockets,
    WebSocketSession,
    serve,
)
from trioktor.cli.echo import add_echo_arguments, echo_application

PATIENCE: Final = 50
"""Seconds for the browser to start and be through; far more than it takes."""

OPTIONS: Final = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run")

PAGE: Final = """<!doctype html><title>echo</title><script>
const sent = ["Gr\\u00fc\\u00dfe", "", "x".repeat(100000), new Uint8Array(70000).fill(7)];
const socket = new WebSocket("ws://" + location.host + "/echo");
socket.binaryType = "arraybuffer";
const sizes = [];
socket.onopen = () => sent.forEach((message) => socket.send(message));
socket.onmessage = ({ data }) => {
  sizes.push(typeof data === "string" ? data.length : data.byteLength);
  if (sizes.length === sent.length) socket.close(4000, "so long");
};
socket.onclose = ({ code, wasClean }) =>
  fetch("/result?" + new URLSearchParams({ json: JSON.stringify([sizes, socket.extensions, code, wasClean]) }));
</script>"""


def browser() -> str:
    """The browser's command; skips the test without one."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found is not None:
            return found
    pytest.skip("there is no Chromium here")


@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
async def test_a_browser_echoes(deflate: bool) -> None:
    """Text and bytes, as it sends them to the origin that the page came from; what was agreed on is used."""
    command = browser()
    app = Application()
    app.install(WebSockets(extensions=[PerMessageDeflate()] if deflate else []))
    sessions: list[WebSocketSession] = []
    results: list[Any] = []
    done = trio.Event()

    @app.websocket("/echo")
    async def echo(session: WebSocketSession) -> None:
        sessions.append(session)
        async for frame in session:
            await session.send(frame)

    @app.get("/")
    async def page(call: Call) -> Response:
        return Response(PAGE, content_type="text/html; charset=utf-8")

    @app.get("/result")
    async def result(call: Call) -> Response:
        results.append(json.loads(call.parameters["json"]))
        done.set()
        return Response(status=204)

    with trio.fail_after(PATIENCE), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(partial(serve, app, 0, host="127.0.0.1"))
            url = f"http://127.0.0.1:{server.port}/"
            start = [command, *OPTIONS, f"--user-data-dir={profile}", url]
            nursery.start_soon(partial(trio.run_process, start, capture_stdout=True, capture_stderr=True, check=False))
            await done.wait()
            nursery.cancel_scope.cancel()
    assert results == [[[5, 0, 100_000, 70_000], "permessage-deflate" if deflate else "", 4000, True]]
    assert sessions[0].close_reason == CloseReason(4000, "so long")
    assert (sessions[0].statistics().bytes_sent < 10_000) == deflate


async def test_a_browser_runs_the_page_of_the_demo() -> None:
    """Its policy lets its own script in, and that talk to the server it came from."""
    command = browser()
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--unix")
    arguments.add_argument("--listen-fds", action="store_true")
    add_echo_arguments(arguments)
    app = echo_application(arguments.parse_args([]))
    origins: list[str] = []
    connected = trio.Event()

    @app.before_upgrade
    async def note(call: Call) -> None:
        origins.append(call.headers["origin"])
        connected.set()

    with trio.fail_after(PATIENCE), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(partial(serve, app, 0, host="127.0.0.1"))
            url = f"http://127.0.0.1:{server.port}"
            start = [command, *OPTIONS, f"--user-data-dir={profile}", f"{url}/"]
            nursery.start_soon(partial(trio.run_process, start, capture_stdout=True, capture_stderr=True, check=False))
            await connected.wait()
            nursery.cancel_scope.cancel()
    assert origins == [url]
