"""Fifty connections that talk and listen at once, over links that are slow in every way: each echo is what was said.

Ten seconds of it; `TRIOKTOR_STRESS=60` makes it a minute.
"""

from __future__ import annotations

import os
import random
import socket
from collections import deque

import pytest
import trio

from tests.support.helpers import REQUEST, RawClient, client_bytes
from tests.support.listening import running
from trioktor import Application, Frame, WebSockets, WebSocketSession, broadcast

SECONDS = float(os.environ.get("TRIOKTOR_STRESS", "10"))
CONNECTIONS = 50
SEGMENT = 1400
"""Bytes of a packet, as on a network; the loopback's own are 64 KiB."""
SIZES = (0, 1, 125, 126, 1000, 5000, 30_000, 65_535, 65_536, 200_000, 1 << 20)
WEIGHTS = (4, 8, 8, 8, 20, 20, 10, 4, 4, 3, 1)
IN_FLIGHT = (0, 1000, 300_000, 300_000, 4 << 20)
"""Bytes that a client lets be on their way before it waits for their echoes; 0 is one message at a time."""
NEWS = b"news"


def answer(size: int) -> bytes:
    """Bytes that show where one is missing."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


def application() -> Application:
    """An echo in every form of sending, answers that are longer than their questions, and news for everybody."""
    app = Application()
    app.install(WebSockets(write_timeout=None))
    dice = random.Random(1)
    sessions: set[WebSocketSession] = set()

    @app.websocket("/")
    async def echo(session: WebSocketSession) -> None:
        form = dice.choice(("session", "session", "session", "channel", "pieces", "mixed"))
        sessions.add(session)
        try:
            async for message in session:
                frame = Frame.Binary(answer(int(message.text))) if isinstance(message, Frame.Text) else message
                how = dice.choice(("session", "channel", "pieces")) if form == "mixed" else form
                if how == "channel":
                    await session.outgoing.send(frame)
                elif how == "pieces" and len(frame.data) > 10:
                    async with session.message(frame.type) as pieces:
                        await pieces.send(frame.data[:7])
                        await pieces.send(frame.data[7:])
                else:
                    await session.send(frame)
                if dice.random() < 0.05:
                    await broadcast(sessions, NEWS)
        finally:
            sessions.discard(session)

    return app


class Client:
    """One of them: a writer and a reader, which pauses now and then."""

    def __init__(self, number: int, end: float) -> None:
        self.dice = random.Random(number)
        self.end = end
        self.expected: deque[bytes] = deque()
        self.pings: deque[bytes] = deque()
        self.in_flight = 0
        self.most_in_flight = self.dice.choice(IN_FLIGHT)
        self.how_often_it_pings = self.dice.choice((0, 0, 0.3))
        self.room = trio.Event()
        self.echoes = 0

    async def run(self, port: int) -> None:
        """Talk until the time is up, on one connection after the other."""
        while trio.current_time() < self.end:
            self.expected.clear()
            self.pings.clear()
            self.in_flight = 0
            await self.converse(port, is_cut=self.dice.random() < 0.3)

    async def converse(self, port: int, *, is_cut: bool) -> None:
        """Hold one conversation; cut off in the middle, or ended well."""
        sock = trio.socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.dice.choice((2048, 8192, 65536)))
        await sock.connect(("127.0.0.1", port))
        async with trio.SocketStream(sock) as stream:
            client = RawClient(stream)
            await stream.send_all(REQUEST % b"/")
            await client.read_head()
            until = min(self.end, trio.current_time() + self.dice.uniform(0.2, SECONDS / 2))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.talk, client, until, is_cut, nursery.cancel_scope)
                await self.listen(client)
                nursery.cancel_scope.cancel()

    async def talk(self, client: RawClient, until: float, is_cut: bool, scope: trio.CancelScope) -> None:
        """Say messages of all sizes, and Pings between them."""
        while trio.current_time() < until:
            size = self.dice.choices(SIZES, WEIGHTS)[0]
            payload = self.dice.randbytes(min(size, 64)) * (size // 64 + 1)
            payload = payload[:size]
            is_question = self.dice.random() < 0.5
            self.expected.append(answer(size) if is_question else payload)
            self.in_flight += size
            await client.send(Frame.Text(str(size)) if is_question else Frame.Binary(payload))
            if self.dice.random() < self.how_often_it_pings:
                self.pings.append(self.dice.randbytes(8))
                await client.send(Frame.Ping(self.pings[-1]))
            if self.dice.random() < 0.05:
                await trio.sleep(self.dice.uniform(0, 0.05))
            while self.in_flight > self.most_in_flight:
                await self.wait_for_echo()
        if is_cut:
            scope.cancel()
        else:
            while self.expected:
                await self.wait_for_echo()
            await client.stream.send_all(client_bytes(Frame.Close()))

    async def wait_for_echo(self) -> None:
        """Wait until the next message has come."""
        self.room = trio.Event()
        await self.room.wait()

    async def listen(self, client: RawClient) -> None:
        """Hear everything, now and then slowly."""
        while True:
            while not client._frames:
                data = await client.stream.receive_some(self.dice.choice((700, 4096, 65536)))
                assert data, "the server hung up"
                client.feed(bytes(data))
                if self.dice.random() < 0.02:
                    await trio.sleep(self.dice.uniform(0, 0.1))
            frame = client._frames.pop(0)
            if isinstance(frame, Frame.Close):
                assert not self.expected
                return
            if isinstance(frame, Frame.Pong):
                while self.pings.popleft() != frame.data:  # it answers those before it, too
                    assert self.pings
                continue
            if frame.data == NEWS and (not self.expected or self.expected[0] != NEWS):
                continue
            expected = self.expected.popleft()
            assert (len(expected), expected) == (len(frame.data), frame.data)
            self.echoes += 1
            self.in_flight -= len(expected)
            self.room.set()


@pytest.mark.timeout(SECONDS * 10 + 60)
@pytest.mark.skipif(not hasattr(socket, "TCP_MAXSEG"), reason="segments have no size to be set here")
async def test_everybody_hears_what_he_said() -> None:
    """Sizes from nothing to 1 MiB, small buffers and segments, readers that pause, Pings, news, cuts."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listeners[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 30_000)
    async with running(application(), listeners=listeners) as server:
        end = trio.current_time() + SECONDS
        clients = [Client(number, end) for number in range(CONNECTIONS)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.run, server.port)
    assert min(client.echoes for client in clients) > 0
