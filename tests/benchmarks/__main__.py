"""What this server costs, beside others, and how that grows.

    python -m tests.benchmarks [--loads rtt,pipelined,…] [--servers …] [--rounds 3] [--json FILE] [--plots FOLDER]

Each server runs in a process of its own, once in each round, so that a drift of the machine touches all alike;
medians are shown. CPU time is the server's, of the user and of the system. Servers that are not installed are named,
and left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from tests.benchmarks import broadcasts, clients, load
from tests.benchmarks.load import Result
from tests.benchmarks.servers import COMPRESSING, SERVERS, missing, raise_file_limit

Run = Callable[[int, int, float], Result]

LOADS: Final[dict[str, tuple[str, Run]]] = {
    "rtt": (
        "1 connection, 1 message of 32 B in flight",
        lambda port, pid, seconds: load.echoes(port, pid, seconds, connections=1, size=32, text=True),
    ),
    "pipelined": (
        "1 connection, 64 messages of 32 B in flight",
        lambda port, pid, seconds: load.echoes(port, pid, seconds, connections=1, window=64, size=32, text=True),
    ),
    "conns": (
        "100 connections, 1 message of 128 B in flight on each",
        lambda port, pid, seconds: load.echoes(port, pid, seconds, connections=100, size=128, text=True),
    ),
    "big": (
        "4 connections, 2 messages of 1 MiB in flight on each",
        lambda port, pid, seconds: load.echoes(port, pid, seconds, connections=4, window=2, size=1 << 20),
    ),
    "deflate": (
        "20 connections, 4 compressed texts of 1 KiB in flight on each",
        lambda port, pid, seconds: load.echoes(
            port, pid, seconds, connections=20, window=4, size=1024, text=True, deflate=True
        ),
    ),
    "connect": ("open, one echo, closing handshake", load.connections),
}
GROWTH: Final = ("connections", "sizes", "broadcasts")
ALL: Final = (*LOADS, "memory", *clients.LOADS, *GROWTH)


@contextmanager
def running(name: str, *, deflate: bool = False) -> Iterator[tuple[int, int]]:
    """A server; its port, and its process."""
    command = [sys.executable, "-m", "tests.benchmarks.servers", name, *["--deflate"] * deflate]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline()), server.pid
    finally:
        server.kill()
        server.wait()


def medians(results: Sequence[Result]) -> dict[str, float]:
    """The median of each figure, in microseconds and messages a second."""
    rows = [attrs.asdict(result) for result in results]
    of = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    return {
        "cpu_us": of["cpu"] * 1e6,
        "per_second": of["rate"],
        "p50_us": of["p50"] * 1e6,
        "p99_us": of["p99"] * 1e6,
    }


def measure(name: str, servers: Sequence[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """One load on each server."""
    if name == "memory":
        found: dict[str, list[float]] = {server: [] for server in servers}
        for _ in range(arguments.rounds):
            for server in servers:
                with running(server) as (port, pid):
                    found[server].append(load.memory(port, pid, arguments.idle))
        return {server: {"kib": statistics.median(values)} for server, values in found.items()}
    run = LOADS[name][1]
    able = [server for server in servers if name != "deflate" or server in COMPRESSING]
    results: dict[str, list[Result]] = {server: [] for server in able}
    for _ in range(arguments.rounds):
        for server in able:
            with running(server, deflate=name == "deflate") as (port, pid):
                results[server].append(run(port, pid, arguments.seconds))
    return {server: medians(values) for server, values in results.items()}


def measure_clients(name: str, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """One load of each client that is installed."""
    able = [client for client in clients.CLIENTS if not clients.missing(client)]
    for client in clients.CLIENTS:
        if client not in able:
            print(f"left out: the client {client}, since {', '.join(clients.missing(client))} is not installed")
    if not able:
        return {}
    with running(clients.SERVER) as (port, _):
        return clients.measure(name, able, port, arguments.rounds, arguments.seconds)


def grow(kind: str, servers: Sequence[str], arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Microseconds of each server at each size of a work that grows."""
    if kind == "broadcasts":
        names = {"trioktor": "trioktor", "websockets.trio": "websockets"}
        return {
            server: {
                str(count): broadcasts.run(names[server], count, max(5, 20_000 // count), False)
                for count in arguments.sessions
            }
            for server in servers
            if server in names
        }
    found: dict[str, dict[str, float]] = {}
    for server in servers:
        points = found[server] = {}
        for x in arguments.connections if kind == "connections" else arguments.sizes:
            with running(server) as (port, pid):
                count, size = (x, 128) if kind == "connections" else (4 if x < 1 << 22 else 1, x)
                points[str(x)] = load.echoes(port, pid, arguments.seconds, connections=count, size=size).cpu * 1e6
    return found


def table(name: str, rows: dict[str, dict[str, float]]) -> str:
    """The figures of one load, or of one kind of growth."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [f"{name}", f"  {'':20}" + "".join(f"{column:>12}" for column in columns)]
    for server, row in rows.items():
        cells = "".join(f"{row[column]:12,.1f}" if column in row else f"{'-':>12}" for column in columns)
        lines.append(f"  {server:20}{cells}")
    return "\n".join(lines) + "\n"


def numbers(text: str) -> list[int]:
    """Whole numbers, divided by commas."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loads", default=",".join(ALL), help=f"of: {', '.join(ALL)}")
    parser.add_argument("--servers", default=",".join(SERVERS), help=f"of: {', '.join(SERVERS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each run")
    parser.add_argument("--idle", type=int, default=2000, help="connections of the load memory")
    parser.add_argument("--connections", type=numbers, default=[10, 100, 1000, 10_000])
    parser.add_argument("--sizes", type=numbers, default=[1 << bits for bits in range(4, 26, 4)])
    parser.add_argument("--sessions", type=numbers, default=[10, 100, 1000, 5000], help="that broadcasts reach")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--plots", type=Path, help="draw the growth into this folder")
    arguments = parser.parse_args()
    loads, wanted = arguments.loads.split(","), arguments.servers.split(",")
    for name, known in ((loads, ALL), (wanted, SERVERS)):
        unknown = [one for one in name if one not in known]
        if unknown:
            parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    most = raise_file_limit() - 100
    if max(arguments.connections) > most and "connections" in loads:
        print(f"no more than {most} connections: the system allows no more open files (ulimit -n)")
        arguments.connections = [count for count in arguments.connections if count <= most]
    servers = [server for server in wanted if not missing(server)]
    for server in wanted:
        if missing(server):
            print(f"left out: {server}, since {', '.join(missing(server))} is not installed")
    figures: dict[str, Any] = {"python": platform.python_version(), "loads": {}, "growth": {}}
    for name in loads:
        if name in GROWTH:
            figures["growth"][name] = grow(name, servers, arguments)
            print(table(f"{name}: server CPU time of a message (us)", figures["growth"][name]), flush=True)
        elif name in clients.LOADS:
            figures["loads"][name] = measure_clients(name, arguments)
            print(table(f"{name}: {clients.LOADS[name][0]}", figures["loads"][name]), flush=True)
        else:
            figures["loads"][name] = measure(name, servers, arguments)
            what = LOADS[name][0] if name in LOADS else f"{arguments.idle} idle connections, KiB each"
            print(table(f"{name}: {what}", figures["loads"][name]), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if arguments.plots is not None:
        from tests.benchmarks.plots import draw

        for file in draw(figures["growth"], arguments.plots):
            print(file)


if __name__ == "__main__":
    main()
