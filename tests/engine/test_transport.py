"""The two transports tell the same story: plain sockets, memory streams and TLS."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.helpers import masked
from tests.support.transports import finish, pair, read, tcp_pair
from trioktor import WriteTimeout
from trioktor.engine.streams import open_transport
from trioktor.engine.transport import CHUNK, READ, Transport

Clock = trio.testing.MockClock
KINDS = ["socket", "memory", "tls"]


@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_go_both_ways(kind: str) -> None:
    """Small and larger than any buffer."""
    transport, peer = await pair(kind)
    await peer.send_all(b"question")
    assert await transport.receive() == b"question"
    for data in (b"answer", bytes(range(256)) * 4000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.send, data)
            assert await read(peer, len(data)) == data
    await finish(transport, peer)


@pytest.mark.parametrize("kind", KINDS)
async def test_one_read_gives_at_most_a_chunk_and_a_head(kind: str) -> None:
    """64 KiB and a little, however much is there; nothing is lost between reads."""
    transport, peer = await pair(kind)
    data = bytes(range(256)) * 1024
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send_all, data)
        while len(received) < len(data):
            chunk = await transport.receive()
            assert isinstance(chunk, bytes)
            assert 0 < len(chunk) <= READ
            received += chunk
    assert received == data
    await finish(transport, peer)


async def test_a_message_of_a_chunk_comes_in_one_read() -> None:
    """With its head, also where that is masked: so it is copied once."""
    transport, peer = await pair("memory")
    frame = masked(0x82, bytes(CHUNK))
    await peer.send_all(frame)
    assert await transport.receive() == frame
    await finish(transport, peer)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_end_of_the_stream_is_no_bytes(kind: str) -> None:
    """Also where TLS was not ended by the book."""
    transport, peer = await pair(kind)
    await peer.send_all(b"last words")
    await trio.aclose_forcefully(peer)
    assert [await transport.receive(), await transport.receive()] == [b"last words", b""]
    await transport.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_sending_to_a_peer_that_is_gone_is_a_broken_resource(kind: str) -> None:
    """At the second write at the latest."""
    transport, peer = await pair(kind)
    await trio.aclose_forcefully(peer)
    with pytest.raises(trio.BrokenResourceError):
        for _ in range(2):
            await transport.send(b"x")
    await transport.aclose()


# progress


async def stuck(kind: str) -> tuple[Transport, Any]:
    """A transport whose peer reads nothing, and that peer."""
    if kind == "socket":
        return await pair("socket")
    ours, theirs = trio.testing.lockstep_stream_pair()
    return open_transport(ours), theirs


@pytest.mark.parametrize("kind", ["socket", "stream"])
async def test_a_write_that_makes_no_progress_times_out(kind: str, autojump_clock: Clock) -> None:
    """`write_timeout` bounds each wait."""
    transport, peer = await stuck(kind)
    transport.write_timeout = 30
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.watch)
        with pytest.raises(WriteTimeout, match="30 s"):
            await transport.send(bytes(1 << 24))
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == 30
    await finish(transport, peer)


@pytest.mark.parametrize("kind", ["socket", "stream"])
async def test_a_write_without_a_timeout_waits(kind: str, autojump_clock: Clock) -> None:
    """None is off."""
    transport, peer = await stuck(kind)
    with trio.move_on_after(3600) as scope:
        await transport.send(bytes(1 << 24))
    assert scope.cancelled_caught
    await finish(transport, peer)


@pytest.mark.parametrize("kind", ["socket", "stream"])
async def test_a_peer_that_takes_a_little_now_and_then_is_waited_for(kind: str, autojump_clock: Clock) -> None:
    """A slice taken is progress, and reported; the whole takes many timeouts."""
    transport, peer = await stuck(kind)
    transport.write_timeout = 30
    progress: list[float] = []
    transport.on_progress = lambda: progress.append(trio.current_time())
    data = bytes(range(256)) * 8192
    received = b""
    began = trio.current_time()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.watch)
            nursery.start_soon(transport.send, data)
            while len(received) < len(data):
                await trio.sleep(20)
                received += await read(peer, min(CHUNK, len(data) - len(received)))
            nursery.cancel_scope.cancel()
    finally:
        await finish(transport, peer)
    assert received == data
    assert trio.current_time() - began > 120
    assert len(progress) > 4


# the end


@pytest.mark.parametrize("kind", ["socket", "memory"])
async def test_a_half_close_is_the_end_for_the_peer_and_leaves_reading(kind: str) -> None:
    """What the peer still says is read."""
    transport, peer = await pair(kind)
    await transport.send_eof()
    assert await peer.receive_some() == b""
    await peer.send_all(b"last words")
    assert await transport.receive() == b"last words"
    await finish(transport, peer)


async def test_a_half_close_where_there_is_none_does_nothing() -> None:
    """TLS cannot; both directions go on."""
    transport, peer = await pair("tls")
    await transport.send_eof()
    await transport.send(b"still here")
    assert await read(peer, 10) == b"still here"
    await finish(transport, peer)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_half_close_after_the_peer_is_gone_raises_nothing(kind: str) -> None:
    """There is nobody to tell, before and after it is closed here, too."""
    transport, peer = await pair(kind)
    await trio.aclose_forcefully(peer)
    await transport.send_eof()
    await transport.aclose()
    await transport.send_eof()
    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        await transport.send(b"x")


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_may_be_repeated(kind: str) -> None:
    """The peer sees the end; afterwards nothing can be sent or received."""
    transport, peer = await pair(kind)
    await transport.aclose()
    await transport.aclose()
    try:
        assert await peer.receive_some() == b""
    except trio.BrokenResourceError:
        pass
    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        await transport.send(b"x")
    await peer.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_wakes_the_reader(kind: str) -> None:
    """A `receive` that waits ends with an error, not never."""
    transport, peer = await pair(kind)
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                await transport.receive()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await transport.aclose()
    await trio.aclose_forcefully(peer)


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_closes_even_if_cancelled(kind: str) -> None:
    """It is a checkpoint all the same."""
    transport, peer = await pair(kind)
    with trio.CancelScope() as scope:
        scope.cancel()
        await transport.aclose()
    assert scope.cancelled_caught
    try:
        assert await peer.receive_some() == b""
    except trio.BrokenResourceError:
        pass
    await peer.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_receive_takes_nothing(kind: str) -> None:
    """What comes later is still there."""
    transport, peer = await pair(kind)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await peer.send_all(b"here")
    assert await transport.receive() == b"here"
    await finish(transport, peer)


# who is there


async def test_a_tcp_peer_has_host_and_port() -> None:
    """Also behind TLS."""
    ours, theirs = await tcp_pair()
    name = theirs.socket.getsockname()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure = open_transport(trio.SSLStream(ours, context, server_side=True))
    assert secure.client == name
    plain = open_transport(ours)
    assert plain.client == name
    await finish(plain, theirs)


@pytest.mark.parametrize("kind", ["socket", "memory", "tls"])
async def test_closing_is_a_checkpoint(kind: str) -> None:
    """Each time."""
    transport, peer = await pair(kind)
    for _ in range(2):
        with trio.testing.assert_checkpoints():
            await transport.aclose()
    await peer.aclose()
