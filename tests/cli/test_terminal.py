"""Lines from a person or a pipe, and lines to them: the prompt, the marks, the history, and nothing that steers."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from tests.support.command import COMMAND, HERE, PATIENCE, program
from trioktor.cli.terminal import Terminal, printable, speak_to_any_terminal


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict"])
async def test_connect_speaks_to_any_terminal(encoding: str, echo_port: int) -> None:
    """What it has no characters for is escaped, and what it gives is UTF-8 if it is nothing it knows."""
    async with program("connect", f"ws://{HERE}:{echo_port}/echo", PYTHONIOENCODING=encoding) as client:
        await client.write("plain\n世界\n")
        await client.close_input()
        status, output, errors = await client.wait()
    assert (status, output) == (0, ["plain", r"\u4e16\u754c"])
    assert "Traceback" not in "".join(errors)


@contextmanager
def terminal(folder: Path, *arguments: str) -> Iterator[tuple[int, int]]:
    """The command at a terminal; its process and our end of the terminal."""
    ours, theirs = os.openpty()
    environment = os.environ | {"XDG_STATE_HOME": str(folder), "TERM": "xterm", "INPUTRC": os.devnull}
    process = subprocess.Popen(
        [*COMMAND, "connect", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    try:
        yield process.pid, ours
    finally:
        os.close(ours)
        process.kill()
        process.wait()


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


@pytest.mark.skipif(importlib.util.find_spec("readline") is None, reason="this Python has no readline")
def test_a_person_at_a_terminal(echo_port: int, tmp_path: Path) -> None:
    """A prompt, marks, lines of before, and what is half typed stays when something comes."""
    url = f"ws://{HERE}:{echo_port}/"
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


def test_the_terminal_is_left_as_it_was(echo_port: int, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a line."""
    import termios

    with terminal(tmp_path, f"ws://{HERE}:{echo_port}/") as (process, ours):
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


# what is shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain text", "plain text"),
        ("Grüße, 世界 🌍", "Grüße, 世界 🌍"),
        ("a\tb", "a\tb"),
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u202e\u2028\ufeff", r"\u202e\u2028\ufeff"),
        ("\udcff", r"\udcff"),
        ("it's", "it's"),
        ("a\\b", "a\\b"),
    ],
)
def test_what_is_printable(text: str, shown: str) -> None:
    """Letters stay what they are; what could steer a terminal, or turn its text round, is escaped."""
    assert printable(text) == shown


@given(st.text())
def test_nothing_steers_a_terminal(text: str) -> None:
    """Whatever comes, it is one line of what can be printed, and said twice it is the same."""
    shown = printable(text)
    assert shown.replace("\t", "").isprintable()
    assert printable(shown) == shown


def streams(monkeypatch: pytest.MonkeyPatch, typed: bytes = b"", encoding: str = "utf-8") -> list[io.BytesIO]:
    """Pipes for standard input, output and error."""
    below = [io.BytesIO(typed), io.BytesIO(), io.BytesIO()]
    for name, pipe in zip(("stdin", "stdout", "stderr"), below, strict=True):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(pipe, encoding=encoding, newline=""))
    return below


def test_any_terminal_is_spoken_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has no characters for is escaped."""
    _, out, err = streams(monkeypatch, encoding="ascii")
    speak_to_any_terminal()
    terminal = Terminal()
    terminal.show("grün")
    terminal.tell("世")
    assert (out.getvalue(), err.getvalue()) == (b"gr\\xfcn\n", b"\\u4e16\n")


def test_streams_of_another_kind_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as those of a test."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    speak_to_any_terminal()
    Terminal().show("grün")
    assert out.getvalue() == "grün\n"


# at a pipe


@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        (b"", []),
        (b"one\ntwo\n", ["one", "two"]),
        (b"\n\nlast", ["", "", "last"]),
        ("grün\n世".encode(), ["grün", "世"]),
        (b"\xff\n", ["\ufffd"]),
        (b" a \t\n", [" a \t"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
async def test_lines_of_a_pipe(typed: bytes, lines: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without their ends, in UTF-8 whatever the encoding is; None behind the last, and again."""
    streams(monkeypatch, typed, encoding)
    speak_to_any_terminal()
    terminal = Terminal()
    assert not terminal.is_interactive
    with terminal.open():
        read = [await terminal.read_line() for _ in range(len(lines) + 2)]
    assert [line.decode("utf-8", "replace") for line in read if line is not None] == lines
    assert b"\n".join(line for line in read if line is not None) == typed.removesuffix(b"\n")
    assert read[-2:] == [None, None]


def test_a_pipe_gets_the_messages_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once; what is no message goes to standard error."""
    _, out, err = streams(monkeypatch)
    terminal = Terminal()
    terminal.show("a message")
    terminal.tell("a remark")
    assert (out.getvalue(), err.getvalue()) == (b"a message\n", b"a remark\n")


async def test_who_is_cancelled_leaves_the_reading_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can take a read of standard input back, and nobody waits for it."""
    typed, is_read = threading.Event(), threading.Event()

    class Slow(io.StringIO):
        """Nobody types."""

        def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
            """Wait in a thread."""
            typed.wait()
            is_read.set()
            return "late\n"

    monkeypatch.setattr(sys, "stdin", Slow())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Terminal().read_line)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not is_read.is_set()
    typed.set()
    assert is_read.wait(PATIENCE)


# at a terminal


class Screen(io.StringIO):
    """A terminal's standard input or output."""

    def isatty(self) -> bool:
        """A person sits there."""
        return True


def person(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """What a person sees, from now on."""
    shown = Screen()
    monkeypatch.setattr(sys, "stdin", Screen())
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    return shown


@pytest.mark.parametrize(("is_in", "is_out"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_person_sits_at_both_ends(is_in: bool, is_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads from a file, or writes to one, wants no prompt."""
    monkeypatch.setattr(sys, "stdin", Screen() if is_in else io.StringIO())
    monkeypatch.setattr(sys, "stdout", Screen() if is_out else io.StringIO())
    assert Terminal().is_interactive == (is_in and is_out)


def test_marks_tell_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """From what was typed."""
    screen = person(monkeypatch)
    Terminal().show("hello")
    assert screen.getvalue() == "< hello\n"


async def test_what_is_half_typed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes meanwhile stands in front of the prompt, and is shown where the prompt is."""
    screen = person(monkeypatch)
    terminal = Terminal()

    def asked(prompt: str) -> str:
        assert prompt == "> "
        terminal.show("a message")
        terminal.tell("a remark")
        return "typed"

    monkeypatch.setattr("builtins.input", asked)
    monkeypatch.setattr(terminal, "_readline", SimpleNamespace(get_line_buffer=lambda: "half"))
    assert await terminal.read_line() == b"typed"
    assert screen.getvalue() == "\r\x1b[K< a message\n> half\r\x1b[Ka remark\n> half"
    terminal.show("later")
    assert screen.getvalue().endswith("half< later\n")


async def test_the_end_of_the_input_ends_the_prompts_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-D."""
    screen = person(monkeypatch)

    def asked(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", asked)
    assert await Terminal().read_line() is None
    assert screen.getvalue() == "\n"
