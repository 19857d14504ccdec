"""The loads: clients in one process, on plain sockets, with everything they say made before.

What comes back is compared byte by byte, or inflated where it is compressed. The figure to trust is the server's CPU
time: it does not depend on how fast these clients are.
"""

from __future__ import annotations

import os
import select
import socket
import time
import zlib
from typing import Final

import attrs

from tests.support.helpers import REQUEST, masked
from trioktor.protocol.serializer import head

OFFER: Final = (
    b"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n\r\n"
)
_TICK: Final = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Result:
    """What one run gave.

    Attributes:
      cpu: seconds of the server's CPU time for a message, or a connection.
      rate: messages, or connections, a second.
      p50, p99: seconds that an answer took.
    """

    cpu: float
    rate: float
    p50: float
    p99: float


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used, of the user and of the system."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def connect(port: int, *, deflate: bool = False) -> socket.socket:
    """A client that has shaken hands."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall((REQUEST % b"/")[:-2] + (OFFER if deflate else b"\r\n"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = sock.recv(4096)
        assert data, answer
        answer += data
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    assert (b"permessage-deflate" in answer) == deflate, answer
    return sock


class _Client:
    """One connection that sends so many messages together, and again when all are echoed."""

    def __init__(self, port: int, window: int, payload: bytes, first_byte: int, *, deflate: bool) -> None:
        self._payload = payload
        self._deflate = deflate
        self._window = window
        if deflate:
            compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
            packed = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
            self._wire = masked(first_byte | 0x40, packed) * window
        else:
            self._wire = masked(first_byte, payload) * window
        self._expected = memoryview((head(first_byte, len(payload)) + payload) * window)
        self._sent = self._received = 0
        self._answer = bytearray()
        self.began = 0.0
        self.sock = connect(port, deflate=deflate)
        self.sock.setblocking(False)

    def begin(self) -> None:
        """Send all of it, as far as the system takes it now."""
        self._sent = self._received = 0
        self.began = time.perf_counter()
        self.write()

    def write(self) -> None:
        """Send more."""
        try:
            self._sent += self.sock.send(memoryview(self._wire)[self._sent :])
        except BlockingIOError:
            pass

    @property
    def wants(self) -> int:
        """The events to wait for."""
        return select.EPOLLIN | (select.EPOLLOUT if self._sent < len(self._wire) else 0)

    def read(self) -> bool:
        """Take what has come; True if everything is echoed."""
        data = self.sock.recv(1 << 18)
        if self._deflate:
            return self._read_compressed(data)
        end = self._received + len(data)
        assert data, "the server hung up"
        assert self._expected[self._received : end] == data, "the echo is not what was sent"
        self._received = end
        return end == len(self._expected)

    def _read_compressed(self, data: bytes) -> bool:
        self._answer += data
        while len(self._answer) >= 2:
            length, start = self._answer[1], 2
            if length == 126:
                if len(self._answer) < 4:
                    break
                length, start = int.from_bytes(self._answer[2:4], "big"), 4
            if len(self._answer) < start + length:
                break
            found = bytes(self._answer[start : start + length])
            if self._answer[0] & 0x40:
                found = zlib.decompressobj(-15).decompress(found + b"\x00\x00\xff\xff")
            assert found == self._payload, "the echo is not what was sent"
            del self._answer[: start + length]
            self._received += 1
        return self._received == self._window


def echoes(
    port: int,
    pid: int,
    seconds: float,
    *,
    connections: int,
    window: int = 1,
    size: int,
    text: bool = False,
    deflate: bool = False,
) -> Result:
    """Messages on so many connections at once, so many in flight on each, for a time and a round at least."""
    payload = (b'{"name": "value", "on": true, "id": %d}, ' % size * (size // 30 + 1))[:size]
    if not deflate and not text:
        payload = os.urandom(min(size, 1 << 16)) * (size // (1 << 16) + 1)
        payload = payload[:size]
    first_byte = 0x81 if text else 0x82
    clients = [_Client(port, window, payload, first_byte, deflate=deflate) for _ in range(connections)]
    by_number = {client.sock.fileno(): client for client in clients}
    latencies: list[float] = []
    rounds = 0
    with select.epoll() as epoll:
        for number in by_number:
            epoll.register(number, select.EPOLLIN)
        for warming in (True, False):
            open_rounds = len(clients)
            rounds, latencies = 0, []
            cpu, start = cpu_seconds(pid), time.perf_counter()
            end = start + (seconds / 5 if warming else seconds)
            for client in clients:
                client.begin()
                epoll.modify(client.sock.fileno(), client.wants)
            while open_rounds:
                for number, event in epoll.poll(30):
                    client = by_number[number]
                    if event & select.EPOLLOUT:
                        client.write()
                        epoll.modify(number, client.wants)
                    if event & ~select.EPOLLOUT and client.read():
                        now = time.perf_counter()
                        rounds += 1
                        latencies.append(now - client.began)
                        if now < end:
                            client.begin()
                            epoll.modify(number, client.wants)
                        else:
                            open_rounds -= 1
            cpu, elapsed = cpu_seconds(pid) - cpu, time.perf_counter() - start
    for client in clients:
        client.sock.close()
    latencies.sort()
    messages = rounds * window
    return Result(
        cpu / messages, messages / elapsed, latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
    )


def connections(port: int, pid: int, seconds: float) -> Result:
    """Connect, one echo, the closing handshake, over and over."""
    frame, close = masked(0x81, b"hello"), masked(0x88, b"\x03\xe8")
    latencies: list[float] = []
    cpu = start = time.perf_counter()
    for warming in (True, False):
        latencies = []
        cpu, start = cpu_seconds(pid), time.perf_counter()
        end = start + (seconds / 5 if warming else seconds)
        while not latencies or time.perf_counter() < end:
            began = time.perf_counter()
            with connect(port) as sock:
                sock.sendall(frame)
                assert sock.recv(100) == b"\x81\x05hello"
                sock.sendall(close)
                answer = b""
                while data := sock.recv(100):
                    answer += data
                assert answer.startswith(b"\x88\x02\x03\xe8"), answer
            latencies.append(time.perf_counter() - began)
    cpu, elapsed = cpu_seconds(pid) - cpu, time.perf_counter() - start
    count = len(latencies)
    latencies.sort()
    return Result(cpu / count, count / elapsed, latencies[count // 2], latencies[count * 99 // 100])


def memory(port: int, pid: int, count: int) -> float:
    """KiB of memory that each of so many idle connections holds."""
    first = [connect(port) for _ in range(50)]  # what every process needs once
    time.sleep(0.3)
    before = resident(pid)
    more = [connect(port) for _ in range(count)]
    time.sleep(0.5)
    held = resident(pid) - before
    for sock in first + more:
        sock.close()
    return held / count / 1024
