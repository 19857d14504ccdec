"""Programs that the tests here run: where they are, and what starts them; a test without its own is skipped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio

HERE: Final = "127.0.0.1"
PATIENCE: Final = 30
"""Seconds for a program to start, or to come to its end; far more than it takes."""

PROXIES: Final = Path(__file__).parents[2] / "examples" / "proxies"


def program(name: str) -> str:
    """Where a program is; skips the test without it. For fixtures: of what an async test says, the reason is lost."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"there is no {name} here")
    return found


def node_command(what: str, name: str, *attempts: list[str]) -> list[str]:
    """The command of a Node that knows `name`, with the first options that help; skips the test without one."""
    node = program("node")
    check = f"process.exit(typeof ({name}) === 'function' ? 0 : 1)"
    for options in attempts:
        command = [node, *options]
        if subprocess.run([*command, "-e", check], capture_output=True, check=False, timeout=PATIENCE).returncode == 0:
            return command
    pytest.skip(f"the Node here lacks {what}")


@asynccontextmanager
async def announcing(*command: str, cwd: Path | None = None) -> AsyncIterator[int]:
    """A server in a process of its own, which prints its port; it is ended with the block."""
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdout=subprocess.PIPE, cwd=cwd)
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        said = b""
        with trio.fail_after(PATIENCE):
            while b"\n" not in said:
                data = await process.stdout.receive_some()
                assert data, f"the server ended behind {said!r}"
                said += data
        yield int(said)
        nursery.cancel_scope.cancel()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind((HERE, 0))
        return int(sock.getsockname()[1])


def proxy_command(found: str, folder: Path, port: int, behind: int) -> list[str]:
    """The command that runs a proxy with the very file that the docs name, at a port, before another."""
    name = Path(found).name
    [file] = PROXIES.glob(f"{name}.*")
    text = file.read_text().replace("8080", str(behind))
    for there, here in (("listen 80;", f"listen {HERE}:{port};"), ("bind :80", f"bind {HERE}:{port}")):
        text = text.replace(there, here)
    config = folder / file.name
    config.write_text(text)
    if name == "haproxy":
        return [found, "-db", "-f", os.fspath(config)]
    settings = f"daemon off; pid {folder}/pid; error_log {folder}/errors;"
    return [found, "-p", os.fspath(folder), "-e", f"{folder}/errors", "-c", os.fspath(config), "-g", settings]


@asynccontextmanager
async def through(found: str, folder: Path, behind: int) -> AsyncIterator[int]:
    """A proxy before a server's port; its own, once it listens."""
    port = free_port()
    start = proxy_command(found, folder, port, behind)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.run_process, start, capture_stdout=True, capture_stderr=True, check=False))
        with trio.fail_after(PATIENCE):
            await _wait_for(port)
        yield port
        nursery.cancel_scope.cancel()


async def _wait_for(port: int) -> None:
    """Until somebody listens there."""
    while True:
        try:
            stream = await trio.open_tcp_stream(HERE, port)
        except OSError:
            await trio.sleep(0.05)
        else:
            await stream.aclose()
            return
