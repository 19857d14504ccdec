"""Work in one step of the loop is bounded, whatever a stranger sends: everybody else waits no longer than that.

Compared is the processor's time of the longest step, the least of several runs, with that of a piece of work which
took 20 ms where these limits were measured. Nothing is compared with a clock on the wall.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final, final

import pytest
import trio
import trio.lowlevel

from tests.support.helpers import REQUEST, masked
from trioktor import Application, Call, PerMessageDeflate, Server, WebSockets, WebSocketSession as Session, serve
from trioktor.auth import basic, bearer

HERE: Final = "127.0.0.1"
RUNS: Final = 4
OFFER: Final = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


def unit() -> float:
    """Processor time of work that took 20 ms on the machine where the limit was measured."""
    began = time.process_time()
    total = 0
    for number in range(430_000):
        total += number & 7
    assert total
    return time.process_time() - began


@final
class Steps(trio.abc.Instrument):
    """The longest step of the server's tasks."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._began = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task goes on."""
        self._began = time.process_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """It has its pause."""
        took = time.process_time() - self._began
        if "_attack" not in task.name and "_read_all" not in task.name:
            self.longest = max(self.longest, took)


async def _read_all(stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some(1 << 16):
            pass
    except trio.BrokenResourceError:
        pass


async def _attack(app: Application, head: bytes, data: bytes) -> float:
    steps = Steps()
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, app, 0, host=HERE))
        async with await trio.open_tcp_stream(HERE, server.port) as stream:
            trio.lowlevel.add_instrument(steps)
            async with trio.open_nursery() as reading:
                reading.start_soon(_read_all, stream)
                try:
                    await stream.send_all(head)
                    await stream.send_all(data)
                except trio.BrokenResourceError:
                    pass
            trio.lowlevel.remove_instrument(steps)
        nursery.cancel_scope.cancel()
    return steps.longest


def application() -> Application:
    """An echo that asks everybody for credentials, and believes a proxy."""
    app = Application()
    app.install(WebSockets(extensions=[PerMessageDeflate()]))
    app.trust_proxies(HERE)

    async def echo(session: Session) -> None:
        async for frame in session:
            await session.send(frame)

    app.websocket("/", echo)
    app.websocket("/bearer", echo, before=bearer({f"token {number}": "Ada" for number in range(10_000)}))
    app.websocket("/basic", echo, before=basic({f"name {number}": "password" for number in range(10_000)}))

    @app.websocket("/cookies")
    async def cookies(session: Session) -> None:
        call = session.call
        assert isinstance(call, Call)
        call.cookies, call.query, call.offered_protocols  # noqa: B018

    return app


def upgrade(lines: bytes = b"", path: bytes = b"/") -> bytes:
    """A request with more lines."""
    return (REQUEST % path)[:-2] + lines + b"\r\n"


def compressed(data: bytes) -> bytes:
    """The payload of a message that inflates to this."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


MANY: Final = 15_000
CLOSE: Final = masked(0x88, b"")
ATTACKS: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "blanks in a head": lambda: (upgrade(b"X:" + b" " * MANY + b"\0\r\n"), b""),
    "cookies": lambda: (upgrade(b"Cookie: " + b"a=b;" * (MANY // 4) + b"\r\n", b"/cookies"), CLOSE),
    "one long cookie": lambda: (upgrade(b'Cookie: a="' + b"\\" * MANY + b"\r\n", b"/cookies"), CLOSE),
    "a query": lambda: (upgrade(path=b"/cookies?" + b"a&" * (MANY // 2)), CLOSE),
    "escapes in a path": lambda: (upgrade(path=b"/" + b"%61" * (MANY // 3)), b""),
    "slashes": lambda: (upgrade(path=b"/" * MANY), b""),
    "offers of extensions": lambda: (upgrade(b"Sec-WebSocket-Extensions: " + b"a," * (MANY // 2) + b"b\r\n"), CLOSE),
    "offers of subprotocols": lambda: (
        upgrade(b"Sec-WebSocket-Protocol: " + b"a," * (MANY // 2) + b"b\r\n", b"/cookies"),
        CLOSE,
    ),
    "forwarded nodes": lambda: (upgrade(b"X-Forwarded-For: " + b"127.0.0.1," * (MANY // 10) + b"x\r\n"), CLOSE),
    "a long token": lambda: (upgrade(b"Authorization: Bearer " + b"\xe9" * MANY + b"\r\n", b"/bearer"), b""),
    "a long password": lambda: (upgrade(b"Authorization: Basic " + b"AAAA" * (MANY // 4) + b"\r\n", b"/basic"), b""),
    "last blocks": lambda: (upgrade(OFFER), masked(0xC2, b"\3\0" * 524_280 + b"\0")),
    "bombs": lambda: (upgrade(OFFER), masked(0xC2, compressed(bytes(1 << 20))) * 3 + CLOSE),
    "text bombs": lambda: (upgrade(OFFER), masked(0xC1, compressed("é".encode() * (1 << 19))) * 3 + CLOSE),
    "empty frames": lambda: (upgrade(), masked(0x82, b"") * 50_000 + CLOSE),
    "Pings": lambda: (upgrade(), masked(0x89, bytes(125)) * 10_000 + CLOSE),
    "fragments": lambda: (upgrade(), (masked(0x02, b"x") + masked(0x00, b"x") * 4000 + masked(0x80, b"")) * 3 + CLOSE),
    "long texts": lambda: (upgrade(), masked(0x81, "🌍".encode() * (1 << 18)) * 3 + CLOSE),
    "long messages": lambda: (upgrade(), masked(0x82, bytes(1 << 20)) * 3 + CLOSE),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_step_holds_the_others(name: str) -> None:
    """Of no task of the server."""
    head, data = ATTACKS[name]()
    app = application()
    longest: Any = min(trio.run(_attack, app, head, data) for _ in range(RUNS))
    assert longest <= min(unit() for _ in range(RUNS))
