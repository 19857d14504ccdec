"""Peers that are gone when they are written to, over real sockets: what was said before still counts."""

from __future__ import annotations

import logging
import socket

import pytest
import trio

from tests.support.helpers import REQUEST, RawClient, application, assert_all_over, client_bytes, records_above_info
from trioktor import ConnectionBroken, Frame, WebSocketSession

HELLO = client_bytes(Frame.Text("hello"))


async def serve_one(handler: object, said: bytes, *, upgraded: bool = True) -> None:
    """Serve a client that says something and closes its socket before the server looks at it."""
    app = application(handler)  # type: ignore[arg-type]
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    mine = trio.socket.from_stdlib_socket(ours)
    client = RawClient(trio.SocketStream(mine))
    async with trio.open_nursery() as nursery:
        if upgraded:
            nursery.start_soon(app.handle_stream, stream)
            await client.upgrade()
            await trio.testing.wait_all_tasks_blocked()
            mine.shutdown(socket.SHUT_RD)  # from now on it takes nothing; it hangs up a little later
            await client.send_bytes(said)
            await trio.testing.wait_all_tasks_blocked()
            await client.aclose()
        else:
            await client.send_bytes(said)
            await client.aclose()
            nursery.start_soon(app.handle_stream, stream)


async def test_an_answer_to_a_peer_that_is_gone_is_accepted_and_the_end_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first send goes straight to the socket and fails there; only reading on shows the broken end."""
    caplog.set_level(logging.DEBUG)
    seen: list[object] = []
    sessions: list[WebSocketSession] = []

    async def handler(session: WebSocketSession) -> None:
        sessions.append(session)
        try:
            async for frame in session:
                seen.append(frame.text)
                await session.send(frame)
        except ConnectionBroken as error:
            seen.append((error.close_reason and error.close_reason.code, type(error.__cause__)))

    await serve_one(handler, HELLO)
    assert ["hello", (1006, BrokenPipeError)] == seen
    assert_all_over(sessions[0])
    assert not records_above_info(caplog)


async def test_what_a_peer_said_before_it_went_is_still_read() -> None:
    """A failed write does not take away the messages that had arrived."""
    seen: list[str] = []

    async def handler(session: WebSocketSession) -> None:
        await session.send("for nobody")
        async for frame in session:
            seen.append(frame.text)

    await serve_one(handler, REQUEST % b"/" + HELLO * 3, upgraded=False)
    assert ["hello"] * 3 == seen


async def test_a_goodbye_to_a_peer_that_is_gone_ends_the_connection() -> None:
    """The handler returns, and nobody takes the Close."""
    sessions: list[WebSocketSession] = []

    async def handler(session: WebSocketSession) -> None:
        sessions.append(session)
        await session.receive()

    await serve_one(handler, HELLO)
    assert_all_over(sessions[0])
    assert sessions[0].close_sent is None


async def test_an_upgrade_whose_answer_nobody_takes_ends_by_itself() -> None:
    """The 101 cannot be written; the handler finds a broken end."""
    ends: list[BaseException] = []

    async def handler(session: WebSocketSession) -> None:
        try:
            await session.receive()
        except ConnectionBroken as error:
            ends.append(error)

    await serve_one(handler, REQUEST % b"/", upgraded=False)
    assert 1 == len(ends)


async def test_input_that_is_refused_while_the_reader_waits_is_dropped() -> None:
    """Closing `incoming` lets a reader go on that waited to put a message there."""
    ours, theirs = socket.socketpair()
    client = RawClient(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))

    async def handler(session: WebSocketSession) -> None:
        await trio.testing.wait_all_tasks_blocked()
        session.incoming.close()
        await session.wait_closed()

    app = application(handler, incoming=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.handle_stream, trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
        await client.send_bytes(REQUEST % b"/" + HELLO * 5 + client_bytes(Frame.Ping(b"there?"), Frame.Close()))
        data = b""
        while chunk := await client.stream.receive_some():
            data += chunk
        assert data.endswith(b"\x8a\x06there?\x88\x00")
        await client.aclose()
