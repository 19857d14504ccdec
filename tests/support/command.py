"""The `trioktor` command as a program that runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, final

import pytest
import trio

from tests.support.helpers import RawClient
from trioktor.cli import main

HERE: Final = "127.0.0.1"
PATIENCE: Final = 10
"""Seconds to wait for a line or an end that has to come; far more than it takes."""

COMMAND: Final = [sys.executable, "-m", "trioktor"]
LISTENING: Final = re.compile(r"listening on (wss?)://127\.0\.0\.1:(\d+), at most [\d,]+ connections")


@final
class Program:
    """A running `trioktor`; `has_page` is whether it says where its page is, too."""

    def __init__(self, process: trio.Process, *, has_page: bool = False) -> None:
        self._process = process
        self._has_page = has_page
        self._output = b""
        self._ended = False

    @property
    def errors(self) -> trio.abc.ReceiveStream:
        """Its standard error."""
        assert self._process.stderr is not None
        return self._process.stderr

    async def line(self) -> str:
        """The next line of its standard output; "" at the end."""
        assert self._process.stdout is not None
        with trio.fail_after(PATIENCE):
            while b"\n" not in self._output and not self._ended:
                data = await self._process.stdout.receive_some()
                self._ended = not data
                self._output += data
        line, _, self._output = self._output.partition(b"\n")
        return line.decode()

    async def port(self) -> int:
        """The port it says that it listens on."""
        line = await self.line()
        found = LISTENING.fullmatch(line)
        assert found is not None, line
        if self._has_page:
            assert await self.line() == f"a page to try it: http://{HERE}:{found[2]}/"
        return int(found[2])

    async def write(self, text: str | bytes) -> None:
        """Give it input."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(text.encode() if isinstance(text, str) else text)

    async def close_input(self) -> None:
        """There is no more input."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def wait(self) -> tuple[int, list[str], list[str]]:
        """Exit status, and what is left of output and errors."""
        lines = []
        with trio.fail_after(PATIENCE):
            while line := await self.line():
                lines.append(line)
            errors = b""
            while data := await self.errors.receive_some():
                errors += data
            return await self._process.wait(), lines, errors.decode().splitlines()


@asynccontextmanager
async def program(
    *arguments: str | Path, cwd: Path | None = None, command: Sequence[str] = COMMAND, **environment: str
) -> AsyncIterator[Program]:
    """Run `trioktor`; killed at the end of the block if it still runs."""
    process = await trio.lowlevel.open_process(
        [*command, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env={**os.environ, **environment},
    )
    try:
        yield Program(process, has_page=arguments[0] == "echo")
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                assert pipe is not None
                await pipe.aclose()


def fails(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 1) -> str:
    """Run the command here; the one line that it says on standard error."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    output, errors = capsys.readouterr()
    assert end.value.code == status
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.endswith("\n")
    return errors


@asynccontextmanager
async def connected(port: int, path: bytes = b"/") -> AsyncIterator[RawClient]:
    """A client on a port, after its handshake."""
    async with await trio.open_tcp_stream(HERE, port) as stream:
        client = RawClient(stream)
        head = await client.upgrade(path)
        assert head.startswith(b"HTTP/1.1 101 ")
        yield client
