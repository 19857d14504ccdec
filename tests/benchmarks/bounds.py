"""What one connection may hold, with the defaults, of peers that send as much as they can and read nothing.

python -m tests.benchmarks.bounds
"""

from __future__ import annotations

import gc
import socket
import tracemalloc
from collections.abc import Awaitable, Callable

import trio
import trio.testing

from tests.support.helpers import REQUEST, application, masked, raw_application
from trioktor import Application, RawWebSocketSession, WebSocketSession as Session

MIB = 1 << 20


async def push_only(session: Session) -> None:
    """Takes nothing."""
    await trio.sleep_forever()


async def echo_frames(session: Session) -> None:
    """Sends back what comes."""
    async for frame in session:
        await session.send(frame)


async def echo_texts(session: Session) -> None:
    """Sends back the text that comes."""
    while True:
        await session.send(await session.receive_text())


async def take_pieces(session: Session) -> None:
    """Takes a piece of a message, and no more."""
    async for _ in await session.receive_message():
        await trio.sleep_forever()


async def echo_raw(session: RawWebSocketSession) -> None:
    """Sends back each frame."""
    async for frame in session:
        await session.send(frame)


def apps() -> dict[str, Application]:
    """One for each kind of handler."""
    named: dict[str, Callable[[Session], Awaitable[object]]] = {
        "takes nothing": push_only,
        "`send(frame)` for each": echo_frames,
        "`send(await receive_text())`": echo_texts,
        "`receive_message()`, and stops": take_pieces,
    }
    return {name: application(handler) for name, handler in named.items()} | {
        "raw, `send(frame)` for each": raw_application(echo_raw)
    }


HANDLERS = tuple(apps())


def texts(size: int) -> bytes:
    """Texts of so many bytes, in which one character makes four bytes of each of the others."""
    return masked(0x81, b"x" * (size - 4) + "🌍".encode())


def fragmented(size: int) -> bytes:
    """A text in fragments of so many bytes, each with such a character; as long as a message may be."""
    piece = b"x" * (size - 4) + "🌍".encode()
    count = MIB // size
    return masked(0x01, piece) + masked(0x00, piece) * (count - 2) + masked(0x80, piece)


ATTACKS: dict[str, bytes] = {
    "texts of 1 MiB": texts(MIB),
    "texts of 600 KiB": texts(600 << 10),
    "texts of 4 KiB": texts(4 << 10),
    "texts in fragments of 64 B": fragmented(64),
    "texts in fragments of 512 KiB": fragmented(MIB // 2),
}


async def _attack(app: Application, attack: bytes) -> int:
    """Serve one connection, send it 12 MiB and read nothing; returns the bytes that the server's side holds then."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    ours = trio.socket.socket()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    held = 0
    client = trio.SocketStream(ours)
    async with trio.open_nursery() as nursery, listener, client:
        await ours.connect(listener.socket.getsockname())
        nursery.start_soon(app.handle_stream, await listener.accept())
        await client.send_all(REQUEST % b"/")
        await client.receive_some()
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        tracemalloc.start()
        try:
            with trio.move_on_after(5):
                for _ in range(12 * MIB // len(attack) + 1):
                    await client.send_all(attack)
            gc.collect()
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            nursery.cancel_scope.cancel()
    return held


def measure(handler: str, attack: str) -> int:
    """Bytes that a connection holds when nothing goes on any more, above those when it has just been opened."""
    clock = trio.testing.MockClock(autojump_threshold=0.05)
    return trio.run(_attack, apps()[handler], ATTACKS[attack], clock=clock)


def main() -> None:
    """Print the table of the docs."""
    for handler in HANDLERS:
        held = {attack: measure(handler, attack) / MIB for attack in ATTACKS}
        worst = max(held, key=lambda attack: held[attack])
        print(f"{handler:34} {held[worst]:5.1f} MiB, of {worst}", flush=True)


if __name__ == "__main__":
    main()
