"""`trioktor connect`: a client for people and pipes.

Lines of standard input are sent as text; what comes is printed, with control characters escaped. After the end of the
input it waits until as many answers have come as lines were sent, or nothing has come for a while, and closes.
"""

from __future__ import annotations

import argparse
import math
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from typing import Final, final

import trio

from ..client.connect import connect as connect_to
from ..client.options import ConnectOptions, client_options
from ..client.reconnect import is_lasting, reconnecting
from ..client.session import ClientWebSocketSession
from ..engine.outcome import first_leaf
from ..errors import CannotConnect, ConnectionBroken, ConnectionClosed, HandshakeInvalid, HandshakeRefused
from ..http.address import parse_address
from ..protocol.close import CloseCode
from ..protocol.deflate import PerMessageDeflate
from ..protocol.frames import Frame
from .terminal import Terminal, printable

_SILENCE: Final = 1.0
_PONG_LIMIT: Final = 15.0
"""Seconds for the Pong to a Ping of `--ping`."""
_MAX_MESSAGE: Final = 1 << 26
_GOOD_CODES: Final = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS)
_ENVIRONMENT: Final = "env"


def add_connect_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `trioktor connect`."""
    add = parser.add_argument
    add("url", metavar="URL", help="ws://… or wss://…")
    add("--header", action="append", metavar="'NAME: VALUE'", help="a header of the request; may be repeated")
    add("--subprotocol", action="append", metavar="NAME", help="offer a subprotocol; may be repeated")
    add("--origin", metavar="ORIGIN", help="say that a page of this origin connects")
    add("--deflate", action="store_true", help="offer permessage-deflate")
    add("--binary", action="store_true", help="send lines as binary messages")
    add("--ca", metavar="FILE", help="PEM file with the certificates to trust for wss")
    add("--insecure", action="store_true", help="trust any certificate")
    add(
        "--proxy",
        metavar="URL",
        help=f"http, https, socks4, socks4a, socks5 or socks5h://host:port; {_ENVIRONMENT}: what the environment says",
    )
    add("--ping", type=float, metavar="SECONDS", help="send a Ping so often, and print how long each took")
    add("--reconnect", action="store_true", help="connect again whenever the connection ends")
    add(
        "--silence",
        type=float,
        default=_SILENCE,
        metavar="SECONDS",
        help="after the end of input, how long nothing may come before it closes (default: %(default)s)",
    )
    add("--wait", type=float, metavar="SECONDS", help="after the end of input, how long to listen on, whatever comes")


def connect(arguments: argparse.Namespace) -> int:
    """Run the client; returns its exit status."""
    try:
        client = _Client(arguments, _options(arguments))
    except (ValueError, ImportError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"cannot use {arguments.ca}: {error.strerror or error}")
    with client.terminal.open():
        return trio.run(client.run)


def _options(arguments: argparse.Namespace) -> ConnectOptions:
    """What `connect` is to be given.

    Raises:
      ValueError, ImportError: it makes no sense.
      OSError: the certificates cannot be used.
    """
    for name in ("ping", "silence", "wait"):
        seconds = getattr(arguments, name)
        if seconds is not None and not 0 <= seconds < math.inf:
            raise ValueError(f"--{name} is a number of seconds, not {seconds!r}")
    context = ssl.create_default_context(cafile=arguments.ca)
    if arguments.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    options = ConnectOptions(
        ssl_context=context,
        headers=[_header(line) for line in arguments.header or ()],
        subprotocols=arguments.subprotocol or (),
        origin=arguments.origin,
        extensions=[PerMessageDeflate()] if arguments.deflate else (),
        proxy=True if arguments.proxy == _ENVIRONMENT else arguments.proxy,
        max_frame_size=_MAX_MESSAGE,
    )
    client_options(arguments.url, options)
    return options


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise ValueError(f"--header is NAME: VALUE, not {line!r}")
    return name, value.strip()


def _fail(text: str) -> int:
    print(f"trioktor connect: {printable(text)}", file=sys.stderr)
    return 1


@final
class _Client:
    """One run of the command."""

    def __init__(self, arguments: argparse.Namespace, options: ConnectOptions) -> None:
        self.terminal = Terminal()
        self._arguments = arguments
        self._options = options
        self._address = str(parse_address(arguments.url))
        self._sent = 0
        self._received = 0
        self._status = 0
        self._unsent: bytes | None = None  # a line for the next connection
        self._is_all_said = False
        self._is_connected = trio.Event()
        self._deadline = trio.CancelScope()  # round the wait for the last answers

    async def run(self) -> int:
        try:
            with trio.open_signal_receiver(signal.SIGINT) as signals:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._stop_on, signals, nursery.cancel_scope)
                    lines, self._lines = trio.open_memory_channel[bytes](0)
                    nursery.start_soon(self._read_lines, lines)
                    await self._converse()
                    nursery.cancel_scope.cancel("the conversation is over")
        except BaseExceptionGroup as group:
            return self._explain(first_leaf(group))
        return self._status

    async def _stop_on(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        await anext(signals)
        self._status = 130
        scope.cancel("Ctrl-C")

    async def _read_lines(self, lines: trio.MemorySendChannel[bytes]) -> None:
        async with lines:
            await self._is_connected.wait()
            while (line := await self.terminal.read_line()) is not None:
                await lines.send(line)

    def _explain(self, error: BaseException) -> int:
        """Say what went wrong in one line; returns the exit status."""
        if isinstance(error, HandshakeInvalid):
            return _fail(f"{self._address} does not speak WebSocket: {error}")
        if isinstance(error, HandshakeRefused):
            said = error.body.decode("utf-8", "replace").strip().partition("\n")[0][:200]
            return _fail(f"{self._address} answered {error.status}: {said}")
        if isinstance(error, CannotConnect):
            return _fail(f"{self._address}: {error}")
        raise error

    # conversations

    async def _converse(self) -> None:
        if not self._arguments.reconnect:
            async with connect_to(self._arguments.url, **self._options) as session:
                await self._talk(session)
            return
        async for attempt in reconnecting(self._arguments.url, give_up=self._gives_up, **self._options):
            async with attempt as session:
                await self._talk(session)
            if self._is_all_said:
                return

    def _gives_up(self, error: CannotConnect | HandshakeRefused) -> bool:
        """Whether trying again would bring the same; else it is told."""
        if is_lasting(error):
            return True
        self.terminal.tell(f"{error}; trying again")
        return False

    async def _talk(self, session: ClientWebSocketSession) -> None:
        chosen = f" as {session.protocol}" if session.protocol is not None else ""
        self.terminal.tell(f"connected to {self._address}{chosen}")
        self._is_connected.set()
        self._status = 0  # of the last connection
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_lines, session, nursery.cancel_scope)
            if self._arguments.ping:
                nursery.start_soon(self._ping, session)
            await self._show_messages(session)
            nursery.cancel_scope.cancel("the conversation is over")

    async def _send_lines(self, session: ClientWebSocketSession, scope: trio.CancelScope) -> None:
        while True:
            if self._unsent is None:
                self._unsent = await anext(self._lines, None)
            if self._unsent is None:
                break
            try:
                line = self._unsent
                await session.send(line if self._arguments.binary else line.decode("utf-8", "replace"))
            except ConnectionClosed:
                return
            self._unsent = None
            self._sent += 1
        self._is_all_said = True
        with self._deadline:
            self._listen_on()
            await trio.sleep_forever()
        scope.cancel("all is said")

    def _listen_on(self) -> None:
        """Something came, or nothing more will be sent: when to stop waiting for answers."""
        wait = self._arguments.wait
        if wait is not None:
            self._deadline.deadline = min(self._deadline.deadline, trio.current_time() + wait)
            return
        enough = self._received >= self._sent
        self._deadline.deadline = trio.current_time() + (0 if enough else self._arguments.silence)

    async def _ping(self, session: ClientWebSocketSession) -> None:
        try:
            while True:
                await trio.sleep(self._arguments.ping)
                with trio.move_on_after(_PONG_LIMIT) as scope:
                    self.terminal.tell(f"pong: {await session.ping() * 1000:.2f} ms")
                if scope.cancelled_caught:
                    self.terminal.tell(f"no pong within {_PONG_LIMIT:g} s")
        except ConnectionClosed:
            return

    async def _show_messages(self, session: ClientWebSocketSession) -> None:
        try:
            async for frame in session:
                self.terminal.show(_shown(frame))
                self._received += 1
                if self._deadline.deadline != math.inf:
                    self._listen_on()
        except ConnectionBroken:
            pass
        reason = session.close_reason
        assert reason is not None
        words = ["closed:", f"{reason.code:d}", _name(reason.code), printable(reason.message)]
        self.terminal.tell(" ".join(word for word in words if word))
        self._status = 0 if reason.code in _GOOD_CODES else 1


def _shown(frame: Frame) -> str:
    if isinstance(frame, Frame.Binary):
        return f"<{len(frame.data)} bytes> {frame.data[:64].hex(' ')}"
    return printable(frame.text)


def _name(code: int) -> str:
    """What a close code is called; "" if it is not registered."""
    return next((known.name for known in CloseCode if known == code), "")
