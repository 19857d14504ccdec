"""The README and the documentation are true: their code runs, their drawings are the program's."""

from __future__ import annotations

import functools
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from trioktor import WebSockets, serve
from trioktor.cli import main
from trioktor.protocol.halves import CLIENT_WAITS, RAW_WAITS, WAITS, Ours, Step, Theirs
from trioktor.testing import handle_websocket_conversation

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_every_python_block_of_the_readme_has_its_test_here() -> None:
    """There are three: the echo, its client, and the test of a handler."""
    assert len(blocks(README, "python")) == 3


async def test_the_echo_of_the_readme_echoes(autojump_clock: trio.testing.MockClock) -> None:
    """The first block is ten lines of code, and what is sent to it comes back."""
    code = blocks(README, "python")[0]
    assert code.endswith('\nif __name__ == "__main__":\n    run(app, 8080)\n')
    assert len([line for line in code.splitlines() if line]) <= 10
    names: dict[str, Any] = {}
    exec(code, names)
    async with handle_websocket_conversation(names["app"], "/echo") as (incoming, outgoing):
        await outgoing.send("hello")
        assert (await incoming.receive()).text == "hello"


async def test_the_client_of_the_readme_talks_to_the_echo(capsys: pytest.CaptureFixture[str]) -> None:
    """The second block is ten lines of code, too, and what comes back is printed."""
    code = blocks(README, "python")[1]
    assert len([line for line in code.splitlines() if line]) <= 10
    names: dict[str, Any] = {}
    exec(blocks(README, "python")[0], names)
    exec(code, names)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(functools.partial(serve, names["app"], 0, host="127.0.0.1"))
        await names["main"](f"ws://127.0.0.1:{server.port}/echo")
        nursery.cancel_scope.cancel()
    assert capsys.readouterr().out == "hello\n"


async def test_the_test_of_the_readme_passes(autojump_clock: trio.testing.MockClock) -> None:
    """The third block is a test that passes."""
    names: dict[str, Any] = {}
    exec(blocks(README, "python")[2], names)
    await names["test_shouting"](autojump_clock)


def test_the_commands_of_the_readme_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Each `trioktor` command that the README shows is one; so is the test command."""
    commands = re.findall(r"\btrioktor (echo|serve|connect)\b", README)
    assert {"echo", "serve", "connect"} <= set(commands)
    for command in set(commands):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
    assert "python -m pytest\n" in blocks(README, "sh")


def test_the_install_command_of_the_readme_names_an_extra_that_exists() -> None:
    """`.[test]` is an extra of the project."""
    words = shlex.split(blocks(README, "sh")[0])
    assert ".[test]" in words
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "test" in project["optional-dependencies"]


def waits_as_markdown() -> str:
    """The table of waits: one row for each of our halves, one column for each of theirs."""

    def shown(step: Step) -> str:
        return ", ".join(part.name.lower().replace("_", " ") for part in step if part is not None)

    def cell(ours: Ours, theirs: Theirs) -> str:
        parts = [shown(WAITS[ours, theirs])]
        for name, table in (("client", CLIENT_WAITS), ("raw", RAW_WAITS)):
            if table[ours, theirs] != WAITS[ours, theirs]:
                parts.append(f"{name}: {shown(table[ours, theirs])}")
        return "; ".join(parts)

    rows = [["ours ↓ theirs →", *(theirs.name for theirs in Theirs)], ["---"] * 5]
    rows += [[ours.name, *(cell(ours, theirs) for theirs in Theirs)] for ours in Ours]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


@pytest.mark.parametrize("text", [README, ARCHITECTURE], ids=["README", "architecture"])
def test_the_drawing_of_the_end_is_the_table(text: str) -> None:
    """What is waited for, in each pair of halves."""
    assert waits_as_markdown() in text


def test_the_settings_that_the_readme_states_are_the_defaults() -> None:
    """The bounds named as departures from Ktor are the ones in force."""
    settings = WebSockets()
    assert "(64 frames and 1 MiB each way)" in README
    assert (settings.incoming, settings.outgoing, settings.max_queued_bytes) == (64, 64, 1 << 20)
    assert "`max_frame_size` is 1 MiB" in README
    assert settings.max_frame_size == 1 << 20


def test_links_of_the_readme_lead_somewhere() -> None:
    """Relative links name files that exist."""
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
