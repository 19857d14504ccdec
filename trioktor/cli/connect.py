"""`trioktor connect`: a client for people and pipes, on trio-websocket.

Another implementation than the server's, on purpose: what works here works with somebody else's code.
Lines of standard input are sent as text; what comes is printed, with control characters escaped. After the
end of the input it waits until as many answers have come as lines were sent, or nothing has come for a
while, and closes.
"""

from __future__ import annotations

import argparse
import math
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from typing import TextIO, final
from urllib.parse import urlsplit

import trio
import trio_websocket

_SILENCE = 1.0
_GOOD_CODES = (1000, 1001, 1005)


def add_connect_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `trioktor connect`."""
    parser.add_argument("url", metavar="URL", help="ws://… or wss://…")
    parser.add_argument("--ca", metavar="FILE", help="PEM file with the certificates to trust for wss")
    parser.add_argument("--subprotocol", action="append", metavar="NAME", help="offer a subprotocol; may be repeated")
    parser.add_argument(
        "--silence",
        type=float,
        default=_SILENCE,
        metavar="SECONDS",
        help="after the end of input, how long nothing may come before it closes (default: %(default)s)",
    )


def connect(arguments: argparse.Namespace) -> int:
    """Run the client; returns its exit status."""
    try:
        parts = urlsplit(arguments.url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:
        return _fail(f"not a WebSocket address: {arguments.url!r}; write ws://host:port/path")
    try:
        return trio.run(_Client(arguments).run)
    except KeyboardInterrupt:
        return 130
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is not None:
            return 130
        raise


def _fail(text: str) -> int:
    print(f"trioktor connect: {text}", file=sys.stderr)
    return 1


def printable(text: str) -> str:
    """The text without what could steer a terminal."""
    return "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in text)


@final
class _Client:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._sent = 0
        self._received = 0
        self._status = 0
        self._deadline = trio.CancelScope()  # round the wait for the last answers

    async def run(self) -> int:
        arguments = self._arguments
        try:
            context = ssl.create_default_context(cafile=arguments.ca) if arguments.url.startswith("wss") else None
            async with trio_websocket.open_websocket_url(
                arguments.url, context, subprotocols=arguments.subprotocol, max_message_size=1 << 26
            ) as websocket:
                print(f"connected to {arguments.url}", file=sys.stderr)
                await self._converse(websocket)
        except trio_websocket.ConnectionRejected as error:
            return _fail(f"{arguments.url} answered {error.status_code}: {printable(_first_line(error.body))}")
        except trio_websocket.HandshakeError as error:
            if isinstance(error.__cause__, OSError):
                return self._fail_to_connect(error.__cause__)
            return _fail(f"{arguments.url} does not speak WebSocket: {type(error).__name__}")
        except ssl.SSLError as error:
            return _fail(f"{arguments.url}: TLS failed: {error.reason or error}")
        except trio.BrokenResourceError as error:
            return _fail(f"{arguments.url}: TLS failed: {error.__cause__ or error}")
        except OSError as error:
            return self._fail_to_connect(error)
        return self._status

    def _fail_to_connect(self, error: OSError) -> int:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        return _fail(f"cannot connect to {self._arguments.url}: {cause.strerror or cause}")

    async def _converse(self, websocket: trio_websocket.WebSocketConnection) -> None:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_on, signals, nursery.cancel_scope)
                nursery.start_soon(self._send_lines, websocket, sys.stdin, nursery.cancel_scope)
                await self._print_messages(websocket)
                nursery.cancel_scope.cancel("the conversation is over")

    async def _stop_on(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        await anext(signals)
        self._status = 130
        scope.cancel("Ctrl-C")

    async def _send_lines(
        self, websocket: trio_websocket.WebSocketConnection, source: TextIO, scope: trio.CancelScope
    ) -> None:
        while line := await trio.to_thread.run_sync(source.readline, abandon_on_cancel=True):
            try:
                await websocket.send_message(line.rstrip("\n"))
            except trio_websocket.ConnectionClosed:
                return
            self._sent += 1
        with self._deadline:
            self._listen_on()
            await trio.sleep_forever()
        scope.cancel("all is said")

    def _listen_on(self) -> None:
        """Something came, or nothing more will be sent: when to stop waiting for answers."""
        enough = self._received >= self._sent
        self._deadline.deadline = trio.current_time() + (0 if enough else self._arguments.silence)

    async def _print_messages(self, websocket: trio_websocket.WebSocketConnection) -> None:
        try:
            while True:
                message = await websocket.get_message()
                if isinstance(message, bytes):
                    print(f"<{len(message)} bytes> {message[:64].hex(' ')}", flush=True)
                else:
                    print(printable(message), flush=True)
                self._received += 1
                if self._deadline.deadline != math.inf:
                    self._listen_on()
        except trio_websocket.ConnectionClosed as closed:
            reason = closed.reason
            code = reason.code if reason is not None else 1006
            text = printable(reason.reason or "") if reason is not None else ""
            print(f"closed: {code} {text}".rstrip(), file=sys.stderr)
            self._status = 0 if code in _GOOD_CODES else 1


def _first_line(body: bytes | None) -> str:
    return (body or b"").decode("utf-8", "replace").strip().partition("\n")[0][:200]
