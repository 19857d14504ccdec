"""What a client does in few steps: each short way is taken where it may be, and left where it may not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.support.helpers import RawServer
from trioktor import CannotConnect, ClientWebSocketSession, CloseReason, Frame, connect

HERE = "127.0.0.1"


@asynccontextmanager
async def talking(**options: int) -> AsyncIterator[tuple[ClientWebSocketSession, RawServer]]:
    """A client in conversation with a server, byte by byte, on a real socket."""
    [listener] = await trio.open_tcp_listeners(0, host=HERE)
    async with listener, trio.open_nursery() as nursery:
        servers: list[RawServer] = []
        accepted, done = trio.Event(), trio.Event()

        async def serve() -> None:
            async with await listener.accept() as stream:
                servers.append(RawServer(stream))
                await servers[0].accept()
                accepted.set()
                await done.wait()
                while (frame := await servers[0].receive()) is not None:
                    if isinstance(frame, Frame.Close):
                        await servers[0].send(frame)
                        return

        nursery.start_soon(serve)
        port = listener.socket.getsockname()[1]
        async with connect(f"ws://{HERE}:{port}/", **options) as session:  # type: ignore[arg-type]
            await accepted.wait()
            yield session, servers[0]
            done.set()


def writer_of(session: ClientWebSocketSession) -> object:
    """The task that writes, if there is one."""
    return session._connection.writing.writer


async def test_the_first_message_goes_straight_out(writes: list[int]) -> None:
    """Nobody waits for it to have company, and no task is started for it."""
    async with talking() as (session, server):
        del writes[:]
        session.send_nowait("x")
        assert writes == [7]
        assert writer_of(session) is None
        assert await server.receive() == Frame.Text("x")


async def test_what_follows_leaves_together(writes: list[int]) -> None:
    """In one write, two passes later, without traffic, and still without a writer."""
    async with talking() as (session, server):
        del writes[:]
        for number in range(10):
            await session.send(str(number))
        with trio.fail_after(5):
            assert [await server.receive() for _ in range(10)] == [Frame.Text(str(number)) for number in range(10)]
        assert writes == [7, 63]
        assert writer_of(session) is None
        del writes[:]
        await session.send("later")
        with trio.fail_after(5):
            assert await server.receive() == Frame.Text("later")


async def test_a_close_does_not_overtake_it(writes: list[int]) -> None:
    """Nor does a Ping, nor what is put into the channel."""
    async with talking() as (session, server):
        session.send_nowait("first")
        session.send_nowait("aside")
        session.send_nowait(Frame.Ping(b"ping"))
        session.outgoing.send_nowait("channel")
        session.close(4000)
        with trio.fail_after(5):
            frames = [await server.receive() for _ in range(5)]
        assert frames[0] == Frame.Text("first")
        assert frames[-1] == Frame.Close(CloseReason(4000))
        await server.send(frames[-1])
    texts = [frame.text for frame in frames if isinstance(frame, Frame.Text)]
    assert texts == ["first", "aside", "channel"]


async def test_what_does_not_fit_is_left_to_a_writer(writes: list[int]) -> None:
    """A server that takes nothing for a while: nothing is torn."""
    big = b"x" * 30_000_000
    async with talking(outgoing=100) as (session, server):
        await session.send(big)
        await session.send("behind")
        assert writer_of(session) is not None
        with trio.fail_after(10):
            assert await server.receive() == Frame.Binary(big)
            assert await server.receive() == Frame.Text("behind")


async def test_nothing_put_aside_is_lost_by_a_cancellation() -> None:
    """It stands before the Close."""
    [listener] = await trio.open_tcp_listeners(0, host=HERE)
    got: list[Frame] = []

    async def serve() -> None:
        async with await listener.accept() as stream:
            server = RawServer(stream)
            await server.accept()
            while not got or not isinstance(got[-1], Frame.Close):
                frame = await server.receive()
                assert frame is not None
                got.append(frame)
            await server.send(got[-1])

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with trio.CancelScope() as scope:
            async with connect(f"ws://{HERE}:{listener.socket.getsockname()[1]}/") as session:
                for number in range(5):
                    session.send_nowait(str(number))
                scope.cancel()
                await trio.lowlevel.checkpoint()
    assert got == [*(Frame.Text(str(number)) for number in range(5)), Frame.Close(CloseReason(1001))]


async def test_a_literal_address_is_looked_up_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is raced; a name goes Trio's way."""

    async def trios_way(host: str, port: int, **_: object) -> trio.SocketStream:
        raise OSError("Trio's way")

    async with talking():
        monkeypatch.setattr("trio.open_tcp_stream", trios_way)
    async with talking():
        pass
    with pytest.raises(CannotConnect, match="Trio's way"):
        async with connect("ws://localhost:1/"):
            pass
