"""`trioktor connect`: a client for people and pipes, on trio-websocket.

Another implementation than the server's, on purpose: what works here works with somebody else's code.
Lines of standard input are sent as text; what comes is printed, with control characters escaped. After the
end of the input it waits until as many answers have come as lines were sent, or nothing has come for a
while, and closes.
"""

from __future__ import annotations

import argparse
import io
import math
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from typing import TextIO, final
from urllib.parse import urlsplit

import trio
import trio_websocket

from ..engine.outcome import first_leaf
from ..protocol.close import CloseCode

_SILENCE = 1.0
_PATIENCE = 10.0
"""Seconds for connecting, and for saying goodbye."""
_GOOD_CODES = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS)


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
    _speak_to_any_terminal()
    try:
        parts = urlsplit(arguments.url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:
        return _fail(f"not a WebSocket address: {arguments.url!r}; write ws://host:port/path")
    try:
        context = ssl.create_default_context(cafile=arguments.ca)
    except OSError as error:
        return _fail(f"cannot use {arguments.ca}: {error.strerror or error}")
    return trio.run(_Client(arguments, context).run)


def _speak_to_any_terminal() -> None:
    """Escape what a terminal has no characters for, and take whatever bytes it gives."""
    for stream, errors in (
        (sys.stdin, "surrogateescape"),
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _fail(text: str) -> int:
    print(f"trioktor connect: {text}", file=sys.stderr)
    return 1


def printable(text: str) -> str:
    """The text without what could steer a terminal."""
    return "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in text)


@final
class _Watched(trio.abc.Stream):
    """A stream that tells when it is over.

    trio-websocket waits for the rest of a handshake even when it cannot come any more.
    """

    def __init__(self, stream: trio.abc.Stream, on_end: Callable[[], object]) -> None:
        self._stream = stream
        self._on_end = on_end

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self._on_end()
            raise
        if not data:
            self._on_end()
        return data

    async def aclose(self) -> None:
        self._on_end()
        await self._stream.aclose()


class _NoHandshake(Exception):
    """What is at the other end does not speak WebSocket, or not in time."""


@final
class _Client:
    def __init__(self, arguments: argparse.Namespace, context: ssl.SSLContext) -> None:
        self._arguments = arguments
        self._context = context
        self._url = urlsplit(arguments.url)
        self._sent = 0
        self._received = 0
        self._status = 0
        self._is_connected = False
        self._deadline = trio.CancelScope()  # round the wait for the last answers

    async def run(self) -> int:
        try:
            async with trio.open_nursery() as nursery:
                websocket = await self._open(nursery)
                self._is_connected = True
                print(f"connected to {self._arguments.url}", file=sys.stderr, flush=True)
                await self._converse(websocket)
                with trio.move_on_after(_PATIENCE):
                    await websocket.aclose()
                nursery.cancel_scope.cancel("the conversation is over")
        except BaseExceptionGroup as group:
            return self._fail(first_leaf(group))
        return self._status

    async def _open(self, nursery: trio.Nursery) -> trio_websocket.WebSocketConnection:
        url, host = self._url, self._url.hostname or ""
        secure = url.scheme == "wss"
        with trio.move_on_after(_PATIENCE) as scope:
            stream: trio.abc.Stream = await trio.open_tcp_stream(host, url.port or (443 if secure else 80))
            nursery.start_soon(_close_at_the_end, stream)
            if secure:
                tls = trio.SSLStream(stream, self._context, server_hostname=host, https_compatible=True)
                await tls.do_handshake()
                stream = tls
            return await trio_websocket.wrap_client_stream(
                nursery,
                _Watched(stream, scope.cancel),  # type: ignore[arg-type]  # any stream will do
                url.netloc.rpartition("@")[2],
                (url.path or "/") + (f"?{url.query}" if url.query else ""),
                subprotocols=self._arguments.subprotocol,
                max_message_size=1 << 26,
            )
        raise _NoHandshake

    def _fail(self, error: BaseException) -> int:
        """Say what went wrong in one line; returns the exit status."""
        url = self._arguments.url
        if isinstance(error, KeyboardInterrupt):
            return 130
        if isinstance(error, trio_websocket.ConnectionRejected):
            return _fail(f"{url} answered {error.status_code}: {printable(_first_line(error.body))}")
        if isinstance(error, (ssl.SSLError, trio.BrokenResourceError)):
            return _fail(f"{url}: TLS failed: {printable(str(error.__cause__ or error))}")
        if isinstance(error, OSError):
            while isinstance(error.__cause__, (OSError, BaseExceptionGroup)):
                error = first_leaf(error.__cause__)
            return _fail(f"cannot connect to {url}: {getattr(error, 'strerror', None) or error}")
        if self._is_connected:
            raise error
        return _fail(f"{url} does not speak WebSocket")  # trio-websocket has many ways to say so

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
                # Bytes that the terminal's encoding does not know are UTF-8, if anything.
                text = line.rstrip("\n").encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                await websocket.send_message(text)
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
            code = reason.code if reason is not None else CloseCode.CLOSED_ABNORMALLY
            text = printable(reason.reason or "") if reason is not None else ""
            words = ["closed:", f"{code:d}", _name(code), text]
            print(" ".join(word for word in words if word), file=sys.stderr)
            self._status = 0 if code in _GOOD_CODES else 1


async def _close_at_the_end(stream: trio.abc.Stream) -> None:
    try:
        await trio.sleep_forever()
    finally:
        await trio.aclose_forcefully(stream)


def _name(code: int) -> str:
    """What a close code is called; "" if it is not registered."""
    return next((known.name for known in CloseCode if known == code), "")


def _first_line(body: bytes | None) -> str:
    return (body or b"").decode("utf-8", "replace").strip().partition("\n")[0][:200]
