"""The documentation is true: it builds, its code runs, and the reference leaves out nothing.

The Python blocks of a page continue each other, in one namespace a page. A last line that would serve for ever
(`run(…)`) is left out.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import trioktor
import trioktor.auth
import trioktor.testing
from trioktor import Application, CloseReason, Frame
from trioktor.testing import open_test_host

Clock = trio.testing.MockClock
DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))


def blocks(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)


def names_of(page: str) -> dict[str, Any]:
    """What the blocks of a page define, all of them run."""
    names: dict[str, Any] = {}
    for block in blocks(page):
        exec(compile(re.sub(r"^run\(.*\)\n\Z", "", block, flags=re.MULTILINE), f"{page}.md", "exec"), names)
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
