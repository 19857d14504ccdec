"""`run`: an application as the whole program, from its first line to the signal that ends it.

The first signal stops gracefully. From then on the system's own action is in force again, so that the next one
ends the process at once, whatever its code is doing. And the first is not in vain either: what neither returns
nor heeds its cancellation within `shutdown_grace` and two and a half seconds more is left behind, and the process
ends by that signal.
"""

from __future__ import annotations

import functools
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final, final

import trio

from ..engine.shields import STOP_LIMIT
from .application import Application
from .serve import Server, listening_on, raise_single, serve

logger: logging.Logger = logging.getLogger("trioktor.server")

_SIGNALS: Final = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_TO_OPEN: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to find what listens on every interface: only some systems open those addresses themselves."""


def run(app: Application, port: int | None = 8080, *, host: str | None = "127.0.0.1", **options: Any) -> None:
    """Serve an application as the whole program, until a signal.

    Prints the address, how many connections are let in at once, and where to open the page if there is one at "/"
    (`Application.get`). For the main thread, which gets the signals. The first SIGINT,
    SIGTERM or SIGHUP stops gracefully, and `run` returns. A second ends the process at once, by that signal: for a
    shell with status 130, 143 or 129. So does the first, if some handler has neither returned nor heeded its
    cancellation by the end. Where SIGHUP is ignored (`nohup`) it stays so. The options are those of `serve`.

    Raises:
      ValueError, TypeError, OSError: as `serve`.
      RuntimeError: this is not the main thread; `serve` runs in any.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("run is for the main thread, which gets the signals; in another, trio.run(serve, app, ...)")
    trio.run(functools.partial(_run, app, port, host=host, **options))


async def _run(app: Application, port: int | None, *, host: str | None, **options: Any) -> None:
    if options.get("path") is not None or options.get("listeners") is not None:
        port = host = None
    try:
        with _first_signal() as first:
            async with trio.open_nursery() as nursery:
                ended = trio.Event()
                start = functools.partial(_serve, ended, app, port, host=host, **options)
                server: Server = await nursery.start(start)
                with suppress(OSError):  # nobody reads it, or there is no room: it serves all the same
                    for line in describe(server):
                        print(line, flush=True)
                number = await first.wait()
                await server.aclose()
                with trio.move_on_after(STOP_LIMIT):
                    await ended.wait()
                if not ended.is_set():
                    logger.error("handlers go on that can't be stopped: the process ends without them")
                    signal.raise_signal(number)
    except BaseExceptionGroup as group:
        raise_single(group)


async def _serve(
    ended: trio.Event,
    app: Application,
    port: int | None,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Any,
) -> None:
    await serve(app, port, **options, task_status=task_status)
    ended.set()


@final
class _FirstSignal:
    """The first signal; all behind it have the system's own action."""

    def __init__(self) -> None:
        self._came = trio.Event()
        self._number: int | None = None
        self._token = trio.lowlevel.current_trio_token()
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def listen(self) -> None:
        """Listen from now on."""
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN or number != getattr(signal, "SIGHUP", None):
                self._before[number] = signal.signal(number, self._hear)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        # Here and not in a task: a loop that is blocked runs no task.
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        self._number = number
        self._token.run_sync_soon(self._came.set)

    async def wait(self) -> int:
        """Wait for it; returns its number."""
        await self._came.wait()
        assert self._number is not None
        return self._number

    def restore(self) -> None:
        """Have every signal do what it did before."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _first_signal() -> Iterator[_FirstSignal]:
    first = _FirstSignal()
    first.listen()
    try:
        yield first
    finally:
        first.restore()


def describe(server: Server) -> list[str]:
    """One line for each address that a server listens on, and one for the page at "/", if there is one.

    The last address has beside it how many connections are let in at once.
    """
    lines, pages = [], []
    for listener in server.listeners:
        name, is_secure = listening_on(listener), isinstance(listener, trio.SSLListener)
        if isinstance(name, tuple):
            lines.append(f"listening on {'wss' if is_secure else 'ws'}://{_authority(name[0], name[1])}")
            here = _authority(_TO_OPEN.get(name[0]) or name[0], name[1])
            pages.append(f"a page to try it: {'https' if is_secure else 'http'}://{here}/")
        else:
            lines.append(f"listening on {name or f'a {type(listener).__name__}'}")
    lines[-1] += f", at most {server.max_connections:,} connections"
    if server.has_page:
        lines.extend(pages[:1])
    return lines


def _authority(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
