"""The documentation is true: it builds, its code runs, and the reference leaves out nothing.

The Python blocks of a page continue each other, in one namespace a page. What stands under the guard of a
program does not run there; the tutorial is followed as a reader would, too.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import pytest
import trio
import trio.testing

import trioktor
import trioktor.auth
import trioktor.testing
from trioktor import Application, CloseReason, Frame
from trioktor.testing import open_test_host

Clock = trio.testing.MockClock
DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))


def blocks(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)


def names_of(page: str) -> dict[str, Any]:
    """What the blocks of a page define, all of them run; the tutorial's modules are one."""
    names: dict[str, Any] = {}
    for block in blocks(page):
        exec(compile(block.replace("from server import app\n", ""), f"{page}.md", "exec"), names)
    return names


@pytest.mark.parametrize("page", PAGES)
async def test_the_code_of_a_page_runs(page: str, autojump_clock: Clock) -> None:
    """Every block, and every test among them."""
    names = names_of(page)
    for name, value in names.items():
        if name.startswith("test_"):
            await value(autojump_clock)


async def test_the_tutorial_does_what_it_says(autojump_clock: Clock) -> None:
    """Each of its handlers, in a conversation."""
    names = names_of("tutorial")
    app: Application = names["app"]
    async with open_test_host(app) as host:
        async with host.websocket("/echo") as (incoming, outgoing):
            await outgoing.send("hello")
            assert (await incoming.receive()).text == "hello"
        async with host.websocket("/actor") as conversation:
            await conversation.outgoing.send("hi")
            await conversation.outgoing.send(b"123")
            await conversation.outgoing.send("bye")
            assert [frame.text async for frame in conversation.incoming] == ["you said hi", "3 bytes"]
            assert conversation.close_reason == CloseReason(1000, "you said bye")
        async with host.websocket("/loud/Ada") as conversation:
            await conversation.outgoing.send("hello")
            assert (await conversation.incoming.receive()).text == "Ada: HELLO!"
            await conversation.outgoing.send(b"binary")
            assert (await conversation.session.wait_closed()).code == 1003
        async with host.websocket("/sum") as conversation:
            await conversation.outgoing.send("[1, 2.5]")
            assert (await conversation.incoming.receive()).text == '{"sum":3.5}'
            await conversation.outgoing.send('["one"]')
            assert (await conversation.session.wait_closed()).code == 1007


async def test_the_tutorial_tells_how_it_ends(autojump_clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """A goodbye, and a cut."""
    async with open_test_host(names_of("tutorial")["app"]) as host:
        async with host.websocket("/events"):
            pass
        async with host.websocket("/events") as conversation:
            conversation.cut()
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["goodbye CloseReason(NORMAL, '')", "gone CloseReason(CLOSED_ABNORMALLY, '') None"]


async def test_the_program_of_the_tutorial_listens(capsys: pytest.CaptureFixture[str]) -> None:
    """On a free port, until it is closed."""
    await names_of("tutorial")["main"]()
    assert re.fullmatch(r"listening on port \d+\n", capsys.readouterr().out)


@final
class Reader:
    """Somebody who follows the tutorial: in a folder of his own, with what it has him install, and nothing else.

    Fenced blocks in their order: a text "as `name`" before one says which file it is; Python without such a name
    goes into `server.py`, above its last two lines. A command that listens is ended by Ctrl-C before the next
    one but `trioktor connect`.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder / "mine"
        self.folder.mkdir()
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        hidden = ("PYTHON", "COVERAGE", "PYTEST", "VIRTUAL_ENV")
        self._env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        self._env["PATH"] = f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self._port = port
        self._server: subprocess.Popen[str] | None = None

    def run(self, command: str, *, cwd: Path | None = None, typed: str = "") -> str:
        """Run a command to its end; what it prints."""
        done = subprocess.run(
            command,
            shell=True,
            cwd=cwd or self.folder,
            env=self._env,
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout)
        return done.stdout

    def serve(self, command: str) -> None:
        """Run a command that listens, until `stop`."""
        self._server = subprocess.Popen(
            shlex.split(command),
            cwd=self.folder,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline().startswith(f"listening on ws://127.0.0.1:{self._port}, at most ")

    def stop(self) -> None:
        """Ctrl-C, if something listens."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            output, _ = self._server.communicate()
            assert (self._server.returncode, "Traceback" in output) == (0, False), output
            self._server = None

    def save(self, name: str | None, code: str) -> None:
        """A file of its own, or more of `server.py`."""
        if name is not None:
            (self.folder / name).write_text(code)
            return
        server = self.folder / "server.py"
        lines = server.read_text().splitlines(keepends=True)
        server.write_text("".join([*lines[:-2], code, "\n\n", *lines[-2:]]))


@pytest.fixture
def reader(tmp_path: Path, unused_port: int) -> Iterator[Reader]:
    """Before the first step; where pip gets at what the tutorial installs."""
    reader = Reader(tmp_path, unused_port)
    try:
        reader.run("python -m pip download --no-deps --dest ../downloaded hatchling")
    except AssertionError:
        pytest.skip("pip finds no index here")
    yield reader
    reader.stop()


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.timeout(300)
def test_the_tutorial_can_be_followed(reader: Reader, unused_port: int) -> None:
    """Its files, its commands, in its order; only the port is another one, which may be free."""
    text = (DOCS / "tutorial.md").read_text().replace("8080", str(unused_port))
    commands = []
    for before, language, block in re.findall(r"([^\n]*)\n+^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language != "sh":
            name = re.search(r"\bas `([\w.]+)`", before)
            reader.save(name and name[1], block)
            continue
        for command in block.splitlines():
            commands.append(command)
            if command.startswith("trioktor connect"):
                assert reader.run(command, typed="hello\n").splitlines()[1] == "hello"
                continue
            reader.stop()
            if command == "python server.py":
                reader.serve(command)
            elif command.startswith("trioktor serve"):
                reader.serve(f"{command} --port {unused_port}")
                loud = reader.run(f"trioktor connect ws://127.0.0.1:{unused_port}/loud/Ada", typed="hello\n")
                assert "Ada: HELLO!" in loud
            elif command == "python -m pytest":
                assert re.search(r"\b1 passed\b", reader.run(command))
            elif command == "python program.py":
                assert re.fullmatch(r"listening on port \d+\n", reader.run(command))
            else:
                assert command.startswith("python -m pip install ")
                reader.run(command, cwd=DOCS.parent if command.endswith(" .") else None)
    assert commands == [
        "python -m pip install .",
        "python server.py",
        f"trioktor connect ws://127.0.0.1:{unused_port}/echo",
        "python -m pip install pytest pytest-trio",
        "python -m pytest",
        "trioktor serve server:app",
        "python program.py",
    ]


async def test_the_recipes_do_what_they_say(autojump_clock: Clock) -> None:
    """Those that a client can see."""
    names = names_of("recipes")
    async with open_test_host(names["app"]) as host:
        for path, headers, subprotocols, expected in [
            ("/members", {"Authorization": "Bearer a-secret-token"}, [], "hello, Alice"),
            ("/v1-or-v2", {}, ["v1", "v2"], "v2"),
            ("/split", {}, ["csv"], ","),
            ("/split", {}, ["json"], "{}"),
            ("/chosen", {}, ["anything"], "anything"),
        ]:
            async with host.websocket(path, headers=headers, subprotocols=subprotocols) as (incoming, _):
                assert (await incoming.receive()).text == expected
        async with host.websocket("/upload") as conversation:
            await conversation.session.send(bytes(3 << 20))
            assert (await conversation.session.receive()).text == f"{3 << 20} bytes"
        async with host.websocket("/download") as conversation:
            assert (await conversation.session.receive()).data == bytes(100_000)
        async with host.websocket("/feed") as (incoming, outgoing):
            assert (await incoming.receive()).text == "tick"
            await outgoing.send("hello")
            assert (await incoming.receive()).text == "hello"
        async with host.websocket("/strict") as conversation:
            for _ in range(40):
                conversation.session.send_nowait("more")
            assert (await conversation.session.wait_closed()).code == 1008
        async with host.websocket("/feed"), host.websocket("/feed"):
            await trio.testing.wait_all_tasks_blocked()
            assert await names["tell"](host.sessions) == 2
            assert [path for path, _ in names["report"](host)] == ["/feed", "/feed"]


async def test_the_compression_of_the_page_is_negotiated(autojump_clock: Clock) -> None:
    """The application of its first block."""
    app: Application = names_of("compression")["app"]
    offered: list[object] = []

    @app.websocket("/")
    async def handler(session: trioktor.WebSocketSession) -> None:
        offered.extend(session.extensions)

    headers = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    async with open_test_host(app) as host, host.websocket_raw("/", headers=headers) as conversation:
        assert conversation.response.headers["sec-websocket-extensions"] == "permessage-deflate"
        assert isinstance(await conversation.session.receive(), Frame.Close)
    assert len(offered) == 1


def test_the_reference_leaves_out_nothing() -> None:
    """Every public name has its place there."""
    text = (DOCS / "reference.md").read_text()
    for name in trioktor.__all__:
        assert re.search(rf"\b{name}\b", text), name
    for name in trioktor.testing.__all__:
        assert f"trioktor.testing.{name}" in text
    assert ":members: bearer, basic" in text


def test_every_page_is_in_the_index() -> None:
    """No page is an orphan."""
    index = (DOCS / "index.md").read_text()
    assert set(PAGES) - {"index"} == set(re.findall(r"^([a-z-]+)$", index.partition(":maxdepth: 2")[2], re.MULTILINE))


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("sphinx", "myst_parser", "sphinxcontrib_trio"))),
    reason="the extra `docs` is not installed",
)
def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    """Warnings are errors."""
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "reference.html").exists()
