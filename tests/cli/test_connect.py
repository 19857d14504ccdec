"""`trioktor connect`: what it says to the server, how it shows what comes, and how it sits at a terminal."""

from __future__ import annotations

import importlib.util
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import pytest
import trio
import trustme

from tests.support.command import COMMAND, HERE, PATIENCE, fails, program

APPLICATION: Final = """
import trio
from trioktor import Application, PerMessageDeflate, WebSockets
app = Application()
app.install(WebSockets(subprotocols=["v1"], extensions=[PerMessageDeflate()], origins=None))

@app.websocket("/request")
async def request(session):
    call = session.call
    await session.send(f"{call.headers.get('x-name')} {call.headers.get('origin')} {call.protocol} "
                       f"{len(session.extensions)}")

@app.websocket("/kinds")
async def kinds(session):
    async for frame in session:
        await session.send(f"{frame.type.name} {frame.data.decode()}")

@app.websocket("/silent")
async def silent(session):
    async for frame in session:
        pass

@app.websocket("/once")
async def once(session):
    await session.send(await session.receive())
    session.terminate()
"""


@asynccontextmanager
async def served(folder: Path, *arguments: str) -> AsyncIterator[int]:
    """The port of a server with this application."""
    (folder / "served.py").write_text(APPLICATION)
    async with program("serve", "served:app", "--port", "0", *arguments, cwd=folder) as server:
        yield await server.port()


async def run(url: str, *arguments: str, typed: str = "") -> tuple[int, list[str], list[str]]:
    """Run it with this input; status, output and errors."""
    async with program("connect", url, *arguments) as client:
        await client.write(typed)
        await client.close_input()
        return await client.wait()


async def test_what_it_says_of_itself(tmp_path: Path) -> None:
    """Headers, origin, subprotocol, compression; what was chosen is shown."""
    async with served(tmp_path) as port:
        url = f"ws://{HERE}:{port}/request"
        said = ["--header", "X-Name: Ada", "--origin", "https://a.example", "--subprotocol", "v1", "--deflate"]
        status, output, errors = await run(url, *said, "--wait", "5")
        assert (status, output) == (0, ["Ada https://a.example v1 1"])
        assert errors == [f"connected to {url} as v1", "closed: 1000 NORMAL"]
        _, output, _ = await run(url, "--wait", "5")
        assert output == ["None None None 0"]


async def test_lines_as_binary(tmp_path: Path) -> None:
    """As UTF-8."""
    async with served(tmp_path) as port:
        _, output, _ = await run(f"ws://{HERE}:{port}/kinds", "--binary", typed="grün\n")
    assert output == ["BINARY grün"]


async def test_it_waits_as_long_as_it_is_told(tmp_path: Path) -> None:
    """`--wait` is for servers that speak in their own time."""
    async with served(tmp_path) as port:
        began = time.monotonic()
        status, output, _ = await run(f"ws://{HERE}:{port}/silent", "--wait", "0.5", typed="x\n")
    assert (status, output) == (0, [])
    assert time.monotonic() - began >= 0.5


async def test_pings(tmp_path: Path) -> None:
    """Each with the time it took."""
    async with served(tmp_path) as port, program("connect", f"ws://{HERE}:{port}/silent", "--ping", "0.01") as client:
        errors = b""
        with trio.fail_after(PATIENCE):
            while errors.count(b"pong: ") < 2:
                errors += await client.errors.receive_some()
        await client.close_input()
        status, _, _ = await client.wait()
    assert status == 0
    assert re.search(rb"^pong: \d+\.\d\d ms$", errors, re.MULTILINE)


async def test_it_connects_again(tmp_path: Path) -> None:
    """Lines that come meanwhile go to the next connection; it ends when all is said."""
    async with served(tmp_path) as port, program("connect", f"ws://{HERE}:{port}/once", "--reconnect") as client:
        errors = b""
        for number in range(3):
            await client.write(f"{number}\n")
            assert await client.line() == str(number)
            with trio.fail_after(PATIENCE):
                while errors.count(b"closed: 1006 CLOSED_ABNORMALLY") <= number:
                    errors += await client.errors.receive_some()
        await client.close_input()
        status, output, _ = await client.wait()
    assert (status, output) == (0, [])


async def test_a_certificate_that_nobody_knows(tmp_path: Path) -> None:
    """`--insecure` takes it; otherwise it says why not."""
    certificate = trustme.CA().issue_cert("other.example")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    async with served(tmp_path, "--certificate", str(tmp_path / "server.pem")) as port:
        url = f"wss://{HERE}:{port}/kinds"
        assert await run(url, "--insecure", typed="x\n") == (0, ["TEXT x"], [f"connected to {url}"])
        status, _, errors = await run(url)
    assert status == 1
    assert "TLS" in errors[0]
    assert "certificate" in errors[0]


async def test_ctrl_c_while_it_connects() -> None:
    """Status 130, and nothing else."""
    [listener] = await trio.open_tcp_listeners(0, host=HERE)
    url = f"ws://{HERE}:{listener.socket.getsockname()[1]}/"
    async with listener, program("connect", url) as client, await listener.accept():
        client.signal(signal.SIGINT)
        assert await client.wait() == (130, [], [])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--header", "nothing"], "NAME: VALUE"),
        (["--header", "Upgrade: x"], "Upgrade"),
        (["--header", "X: \x1b[31m"], "control character"),
        (["--subprotocol", "a b"], "subprotocols"),
        (["--origin", "a\nb"], "control character"),
        (["--proxy", "ftp://x"], "proxy"),
        (["--ping", "-1"], "--ping"),
        (["--wait", "nan"], "--wait"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anybody is called; with nothing in it that could steer a terminal."""
    line = fails(capsys, "connect", "ws://localhost:1/", *arguments)
    assert text in line
    assert line.rstrip("\n").isprintable()


def test_passwords_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the server's nor the proxy's."""
    assert "secret" not in fails(capsys, "connect", "ws://ada:secret@127.0.0.1:1/")
    assert "secret" not in fails(capsys, "connect", "ws://a:1/", "--proxy", "http://ada:secret@127.0.0.1:1")


# at a terminal


@contextmanager
def terminal(folder: Path, *arguments: str) -> Iterator[tuple[int, int]]:
    """The command at a terminal; its process and our end of the terminal."""
    process, ours = pty.fork()
    if not process:
        os.environ |= {"XDG_STATE_HOME": str(folder), "TERM": "xterm", "INPUTRC": os.devnull}
        os.execv(sys.executable, [*COMMAND, "connect", *arguments])
    try:
        yield process, ours
    finally:
        os.close(ours)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def read_until(ours: int, *wanted: bytes) -> bytes:
    """What the terminal shows, until it has shown these, one behind the other."""
    shown = b""
    end = time.monotonic() + PATIENCE
    pattern = re.compile(b".*?".join(map(re.escape, wanted)), re.DOTALL)
    while pattern.search(shown) is None:
        assert select.select([ours], [], [], end - time.monotonic())[0], shown
        try:
            shown += os.read(ours, 4096)
        except OSError:  # it has ended
            raise AssertionError(shown) from None
    return shown


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of an echo."""
    command = [*COMMAND, "echo", "--port", "0", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r":(\d+),", server.stdout.readline())
        assert found is not None
        yield int(found[1])
        server.kill()


@pytest.mark.skipif(importlib.util.find_spec("readline") is None, reason="this Python has no readline")
def test_a_person_at_a_terminal(echo: int, tmp_path: Path) -> None:
    """A prompt, marks, lines of before, and what is half typed stays when something comes."""
    url = f"ws://{HERE}:{echo}/"
    with terminal(tmp_path, url) as (_, ours):
        assert b"connected to" in read_until(ours, b"> ")
        os.write(ours, b"hello\r")
        read_until(ours, b"< hello\r\n", b"> ")
        os.write(ours, b"\x1b[A\r")  # the line before
        read_until(ours, b"< hello\r\n")
    with terminal(tmp_path, url, "--ping", "0.1") as (_, ours):
        read_until(ours, b"> ")
        os.write(ours, b"half")
        read_until(ours, b"ms\r\n> half")
    with terminal(tmp_path, url) as (process, ours):
        read_until(ours, b"> ")
        os.write(ours, b"kept\r")
        read_until(ours, b"< kept\r\n", b"> ")
        os.write(ours, b"\x04")  # the end of the input
        read_until(ours, b"\r\n")
        while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            select.select([], [], [], 0.01)
    assert "kept" in (tmp_path / "trioktor" / "history").read_text()


def test_the_terminal_is_left_as_it_was(echo: int, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a line."""
    import termios

    with terminal(tmp_path, f"ws://{HERE}:{echo}/") as (process, ours):
        before = termios.tcgetattr(ours)
        read_until(ours, b"> ")
        os.write(ours, b"half")
        read_until(ours, b"half")
        os.kill(process, signal.SIGINT)
        found = None
        while found is None:
            found = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            select.select([], [], [], 0.01)
        assert found.si_status == 130
        assert termios.tcgetattr(ours)[:4] == before[:4]
