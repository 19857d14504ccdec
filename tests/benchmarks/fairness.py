"""How long others wait while one session compresses long messages.

    python -m tests.benchmarks.fairness [--size MIB] [--seconds S]

Ten clients send short messages back and forth with `trioktor echo --deflate`, one after the other is measured;
then the same beside an eleventh client that has messages of 16 MiB compressed and inflated without a pause.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import zlib

import trio

from tests.support.helpers import REQUEST, masked

CLIENTS = 10
SHORT = masked(0x81, b"x" * 32)


async def upgrade(port: int, extra: bytes = b"\r\n") -> trio.SocketStream:
    """Connect and perform the opening handshake."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all((REQUEST % b"/")[:-2] + extra)
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some()
    return stream


async def measure(port: int, seconds: float) -> list[float]:
    """Round trips of short messages, of all clients."""
    trips: list[float] = []

    async def talk(stream: trio.SocketStream) -> None:
        while True:
            start = trio.current_time()
            await stream.send_all(SHORT)
            left = 34
            while left:
                left -= len(await stream.receive_some(left))
            trips.append(trio.current_time() - start)
            await trio.sleep(0.002)

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(talk, await upgrade(port))
    return trips


async def compress(port: int, size: int, task_status: trio.TaskStatus[list[int]]) -> None:
    """Send a long compressed message, take its echo, and again."""
    generator = random.Random(1)
    words = [generator.randbytes(generator.randrange(2, 8)).hex().encode() for _ in range(2000)]
    data = b" ".join(generator.choices(words, k=size // 9))[:size]
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    wire = masked(0xC1, packed)
    stream = await upgrade(port, b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
    done = [0]
    task_status.started(done)
    while True:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, wire)
            head = b""
            while len(head) < 10:
                head += await stream.receive_some(10 - len(head))
            assert head[:2] == b"\xc1\x7f"
            left = int.from_bytes(head[2:], "big")
            while left:
                left -= len(await stream.receive_some(min(left, 1 << 20)))
        done[0] += 1


def show(name: str, trips: list[float]) -> None:
    """Print percentiles."""
    percentiles = statistics.quantiles(trips, n=100)
    p50, p99 = percentiles[49] * 1e3, percentiles[98] * 1e3
    print(f"{name:10} {len(trips):6} round trips, p50 {p50:6.2f} ms, p99 {p99:6.2f} ms")


async def compare(port: int, size: int, seconds: float) -> None:
    """Measure without and with the long messages."""
    show("alone", await measure(port, seconds))
    async with trio.open_nursery() as nursery:
        done: list[int] = await nursery.start(lambda **status: compress(port, size, **status))
        show("beside", await measure(port, seconds))
        print(f"{done[0]} messages of {size >> 20} MiB meanwhile")
        nursery.cancel_scope.cancel()


def main() -> None:
    """Run the server and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16, metavar="MIB")
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "trioktor", "echo", "--port", "0", "--quiet", "--deflate"]
    server = subprocess.Popen([*command, "--max-frame-size", str(1 << 26)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline().partition(",")[0].rpartition(":")[2])
        trio.run(compare, port, arguments.size << 20, arguments.seconds)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
