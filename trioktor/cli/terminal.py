"""Lines from a person or a pipe, and lines to them.

At a terminal there is a prompt, the lines before it can be called up again (readline), and marks tell what was sent
from what was received. A pipe gets the messages and nothing else.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Final, TextIO, final

import trio

_SENT: Final = "> "
_RECEIVED: Final = "< "
_CLEAR: Final = "\r\x1b[K"
"""Back to the beginning of the line, and nothing in it."""
_MOST_LINES: Final = 1000
"""Lines of the history that are kept."""


def printable(text: str) -> str:
    """The text without what could steer a terminal."""
    return "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in text)


def speak_to_any_terminal() -> None:
    """Escape what a terminal has no characters for, take whatever bytes it gives, and do without one that is closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # as long as the process
    for stream, errors in (
        (sys.stdin, "surrogateescape"),
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


@final
class Terminal:
    """Standard input, output and error.

    Attributes:
      is_interactive: whether a person sits there.
    """

    def __init__(self) -> None:
        self.is_interactive: bool = sys.stdin.isatty() and sys.stdout.isatty()
        self._readline = _readline() if self.is_interactive else None
        self._is_asking = False
        self._lock = threading.Lock()

    async def read_line(self) -> bytes | None:
        """The next line without its end; None behind the last. Cancelled, it leaves the reading to itself.

        In UTF-8; bytes that the terminal's encoding does not know are left as they are.
        """
        line = await trio.to_thread.run_sync(self._read_line, abandon_on_cancel=True)
        return None if line is None else line.encode("utf-8", "surrogateescape")

    def _read_line(self) -> str | None:
        if not self.is_interactive:
            line = sys.stdin.readline()
            return line.removesuffix("\n") if line else None
        with self._lock:  # no line is half printed when the prompt comes
            self._is_asking = True
        try:
            return input(_SENT)
        except EOFError:
            print(flush=True)  # the prompt's line is over
            return None
        finally:
            self._is_asking = False

    def show(self, text: str) -> None:
        """Print a message that came."""
        self._print(_RECEIVED + text if self.is_interactive else text, sys.stdout)

    def tell(self, text: str) -> None:
        """Print what is no message."""
        self._print(text, sys.stderr)

    def _print(self, line: str, where: TextIO) -> None:
        with self._lock:
            if self._is_asking:
                typed = self._readline.get_line_buffer() if self._readline is not None else ""
                where, line = sys.stdout, f"{_CLEAR}{line}\n{_SENT}{typed}"
            else:
                line += "\n"
            where.write(line)
            where.flush()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Keep the history, and leave the terminal as it was found: a line that is being read has it changed."""
        if not self.is_interactive:
            yield
            return
        import termios

        found = termios.tcgetattr(sys.stdin)
        history = _history_file()
        if self._readline is not None:
            with suppress(OSError):
                self._readline.read_history_file(history)
            self._readline.set_history_length(_MOST_LINES)
        try:
            yield
        finally:
            if self._is_asking:  # nobody will answer
                print(_CLEAR, end="", flush=True)
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, found)
            if self._readline is not None:
                with suppress(OSError):
                    history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    self._readline.write_history_file(history)


def _readline() -> ModuleType | None:
    """The module, where Python was built with it."""
    try:
        import readline
    except ImportError:
        return None
    return readline


def _history_file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "trioktor" / "history"
