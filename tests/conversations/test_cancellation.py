"""Random cancellations over real sockets: no frame torn, lost after it was accepted, repeated or swapped."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.support.helpers import RawClient, application
from trioktor import ConnectionClosed, Frame, WebSocketSession

SMALL = 4096


@asynccontextmanager
async def small_pipes(
    handler: Callable[[WebSocketSession], Awaitable[object]], **settings: Any
) -> AsyncIterator[RawClient]:
    """A raw client on a real connection whose buffers hold next to nothing."""
    app = application(handler, **settings)
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    async with trio.open_nursery() as nursery, listener:
        await sock.connect(listener.socket.getsockname())
        nursery.start_soon(app.handle_stream, await listener.accept())
        client = RawClient(trio.SocketStream(sock))
        await client.upgrade()
        yield client
        await client.aclose()


class Canceller:
    """Cancels whatever `scope` is current, after a random number of passes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.scope: trio.CancelScope | None = None
        self.count = 0

    async def run(self) -> None:
        """Cancel until the surrounding nursery ends."""
        while True:
            for _ in range(self.random.randrange(4)):
                await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            if self.scope is not None and not self.scope.cancel_called:
                self.scope.cancel()
                self.count += 1

    async def attempt(self, function: Callable[[], Awaitable[object]]) -> bool:
        """Call the function where it may be cancelled; whether it got through."""
        with trio.CancelScope() as self.scope:
            await function()
            return True
        return False


def payload(number: int) -> bytes:
    """Bytes that show which frame they belong to wherever a frame is torn."""
    return number.to_bytes(4, "big") * (1 + number * 7919 % 1500)


@pytest.mark.parametrize("form", ["session", "channel", "mixed"])
async def test_cancelled_sends_tear_lose_repeat_and_swap_nothing(form: str) -> None:
    """What the peer gets is exactly what was accepted, in that order, under 2,000 cancellations."""
    canceller = Canceller(1)
    accepted: list[int] = []

    async def handler(session: WebSocketSession) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(canceller.run)
            number = 0
            while canceller.count < 2000:
                frame = Frame.Binary(payload(number))
                through_channel = form == "channel" or (form == "mixed" and canceller.random.random() < 0.5)
                send = session.outgoing.send if through_channel else session.send
                if await canceller.attempt(lambda send=send, frame=frame: send(frame)):  # type: ignore[misc]
                    accepted.append(number)
                elif canceller.random.random() < 0.1:
                    await session.flush()
                number += 1
            nursery.cancel_scope.cancel()

    async with small_pipes(handler) as client:
        received = [frame for frame in await read_until_close(client) if isinstance(frame, Frame.Binary)]

    assert [payload(number) for number in accepted] == [frame.data for frame in received]
    assert len(accepted) > 100


async def read_until_close(client: RawClient, *, answer: bool = True) -> list[Frame]:
    """All messages up to the server's Close, which is answered unless another task is writing."""
    frames: list[Frame] = []
    while (frame := await client.receive()) is not None:
        if isinstance(frame, Frame.Close):
            if answer:
                await client.send(frame)
            return frames
        frames.append(frame)
    return frames


async def test_cancelled_echoes_answer_each_message_at_most_once_and_in_order() -> None:
    """Answers that go straight to a full socket are never torn either: 1,500 cancellations."""
    canceller = Canceller(2)
    accepted: list[bytes] = []

    async def handler(session: WebSocketSession) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(canceller.run)
            async for frame in session:
                if await canceller.attempt(lambda frame=frame: session.send(frame)):  # type: ignore[misc]
                    accepted.append(frame.data)
                if canceller.count >= 1500:
                    break
            nursery.cancel_scope.cancel()

    async def ask(client: RawClient) -> None:
        number = 0
        try:
            while True:
                await client.send(Frame.Binary(payload(number)))
                number += 1
                if number % 3 == 0:
                    await trio.lowlevel.checkpoint()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with small_pipes(handler) as client, trio.open_nursery() as nursery:
        nursery.start_soon(ask, client)
        received = [frame.data for frame in await read_until_close(client, answer=False)]
        nursery.cancel_scope.cancel()

    assert accepted == received


@pytest.mark.parametrize("form", ["session", "channel", "mixed"])
async def test_cancelled_receives_lose_repeat_and_swap_nothing(form: str) -> None:
    """A message is returned, or it is still there: 2,000 cancellations."""
    canceller = Canceller(3)
    received: list[bytes] = []
    sent: list[bytes] = []

    async def handler(session: WebSocketSession) -> None:
        async def take() -> None:
            through_channel = form == "channel" or (form == "mixed" and canceller.random.random() < 0.5)
            frame = await (session.incoming.receive() if through_channel else session.receive())
            received.append(frame.data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(canceller.run)
            while canceller.count < 2000:
                await canceller.attempt(take)
            nursery.cancel_scope.cancel()
        session.close()
        async for frame in session:
            received.append(frame.data)

    async with small_pipes(handler) as client, trio.open_nursery() as nursery:
        stop = trio.Event()

        async def speak() -> None:
            number = 0
            while not stop.is_set():
                sent.append(number.to_bytes(4, "big") * (number % 50))
                await client.send(Frame.Binary(sent[-1]))
                for _ in range(number % 3):
                    await trio.lowlevel.checkpoint()
                number += 1
            await client.send(Frame.Close())

        nursery.start_soon(speak)
        assert isinstance(await client.receive(), Frame.Close)
        stop.set()

    assert sent == received
    assert len(sent) > 100


async def test_cancelled_flushes_harm_nothing() -> None:
    """Flushing may be given up at any time: 1,000 cancellations."""
    canceller = Canceller(4)

    async def handler(session: WebSocketSession) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(canceller.run)
            number = 0
            while canceller.count < 1000:
                await session.send(payload(number))
                await canceller.attempt(session.flush)
                number += 1
            nursery.cancel_scope.cancel()
        await session.send(number.to_bytes(4, "big"))

    async with small_pipes(handler) as client:
        *frames, last = [frame.data for frame in await read_until_close(client)]

    assert [payload(number) for number in range(int.from_bytes(last, "big"))] == frames


async def test_cancelled_acloses_drop_the_connection_between_two_frames() -> None:
    """A peer never sees half a frame from a connection whose closing was given up: 500 cancellations."""
    canceller = Canceller(5)
    cancelled = 0

    async def handler(session: WebSocketSession) -> None:
        nonlocal cancelled
        for number in range(3):
            await session.send(payload(number))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(canceller.run)
            if not await canceller.attempt(session.aclose):
                cancelled += 1
            nursery.cancel_scope.cancel()
        with pytest.raises(ConnectionClosed):
            await session.send("after the end")

    while canceller.count < 500:
        async with small_pipes(handler) as client:
            frames = await client.receive_rest()
        messages = [frame.data for frame in frames if isinstance(frame, Frame.Binary)]
        assert [payload(number) for number in range(len(messages))] == messages
    assert cancelled > 100
