"""The two transports tell the same story: plain sockets, memory streams and TLS."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import pytest
import trio
import trio.testing
import trustme

from trioktor import WriteTimeout
from trioktor.engine.sockets import SocketTransport
from trioktor.engine.streams import StreamTransport, open_transport
from trioktor.engine.transport import CHUNK, HangUp, Transport

Clock = trio.testing.MockClock
KINDS = ["socket", "memory", "tls"]


async def pair(kind: str) -> tuple[Transport, Any]:
    """A transport, and the stream at its other end."""
    if kind == "socket":
        first, second = trio.socket.socketpair()
        return open_transport(trio.SocketStream(first)), trio.SocketStream(second)
    ours, theirs = trio.testing.memory_stream_pair()
    if kind == "memory":
        return open_transport(ours), theirs
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    secure = trio.SSLStream(ours, server, server_side=True, https_compatible=True)
    peer = trio.SSLStream(theirs, client, server_hostname="localhost", https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure.do_handshake)
        nursery.start_soon(peer.do_handshake)
    return open_transport(secure), peer


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """The accepted and the connecting end of a TCP connection."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        ours = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return await listener.accept(), ours


async def read(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """So many bytes of a stream."""
    data = b""
    while len(data) < count:
        chunk = await stream.receive_some()
        assert chunk
        data += chunk
    return data


async def finish(transport: Transport, peer: trio.abc.AsyncResource) -> None:
    """Close both ends."""
    await transport.aclose()
    await trio.aclose_forcefully(peer)


@pytest.mark.parametrize(("kind", "expected"), [("socket", SocketTransport), ("memory", StreamTransport),
                                                ("tls", StreamTransport)])  # fmt: skip
async def test_a_stream_gets_the_transport_that_fits(kind: str, expected: type[Transport]) -> None:
    """Plain sockets are taken out of Trio's hands, everything else stays a stream."""
    transport, peer = await pair(kind)
    assert type(transport) is expected
    assert transport.takes_nowait == (kind == "socket")
    assert transport.is_secure == (kind == "tls")
    await finish(transport, peer)


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
async def test_one_read_gives_at_most_a_chunk(kind: str) -> None:
    """64 KiB, however much is there; nothing is lost between reads."""
    transport, peer = await pair(kind)
    data = bytes(range(256)) * 1024
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send_all, data)
        while len(received) < len(data):
            chunk = await transport.receive()
            assert isinstance(chunk, bytes)
            assert 0 < len(chunk) <= CHUNK
            received += chunk
    assert received == data
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


@pytest.mark.parametrize("operation", ["receive", "send", "send_nowait"])
async def test_a_reset_is_a_broken_resource(operation: str) -> None:
    """The operating system's error is its cause."""
    ours, theirs = await tcp_pair()
    transport = open_transport(ours)
    theirs.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError) as broken:
        if operation == "receive":
            await transport.receive()
        elif operation == "send":
            await transport.send(b"x")
        else:
            transport.send_nowait(b"x")
    assert isinstance(broken.value.__cause__, OSError)
    assert transport.hang_up() is HangUp.FULL
    assert transport.receive_nowait() == b""
    await transport.aclose()


@final
class Failing(trio.abc.HalfCloseableStream):
    """A stream of the user's own that raises what it is told to."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.is_closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise self._error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise self._error

    async def wait_send_all_might_not_block(self) -> None:
        raise self._error

    async def send_eof(self) -> None:
        raise self._error

    async def aclose(self) -> None:
        self.is_closed = True
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    "error",
    [
        OSError("unplugged"),
        ssl.SSLError("nonsense"),
        trio.ClosedResourceError("closed"),
        trio.BrokenResourceError("broken"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_the_errors_of_other_streams_are_a_broken_resource(error: Exception) -> None:
    """Reading and writing; half-closing raises nothing at all."""
    stream = Failing(error)
    transport = open_transport(stream)
    with pytest.raises(trio.BrokenResourceError, match=str(error.args[0])):
        await transport.receive()
    with pytest.raises(trio.BrokenResourceError, match=str(error.args[0])):
        await transport.send(b"x")
    if not isinstance(error, ssl.SSLError):
        await transport.send_eof()
    await transport.aclose()
    assert stream.is_closed


# without waiting


async def test_a_socket_takes_what_fits_without_waiting() -> None:
    """As many bytes as it says, until it takes none."""
    transport, peer = await pair("socket")
    data = bytes(range(256)) * 256
    sent = b""
    while count := transport.send_nowait(data):
        sent += data[:count]
    assert len(sent) > 0
    assert await read(peer, len(sent)) == sent
    assert transport.send_nowait(memoryview(b"again")) == 5
    await finish(transport, peer)


@pytest.mark.parametrize("kind", ["memory", "tls"])
async def test_other_streams_take_nothing_without_waiting(kind: str) -> None:
    """They cannot say what they would take."""
    transport, peer = await pair(kind)
    await peer.send_all(b"here")
    assert transport.send_nowait(b"x") == 0
    assert transport.receive_nowait() == b""
    assert transport.hang_up() is HangUp.NO
    await finish(transport, peer)


async def test_a_socket_gives_what_is_there_without_waiting() -> None:
    """Or nothing."""
    transport, peer = await pair("socket")
    assert transport.receive_nowait() == b""
    await peer.send_all(b"here")
    assert transport.receive_nowait() == b"here"
    assert transport.receive_nowait() == b""
    await finish(transport, peer)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_socket_tells_that_the_peer_has_hung_up(kind: str) -> None:
    """Without a read, and though there is still something to read."""
    if kind == "tcp":
        ours, theirs = await tcp_pair()
        transport, peer = open_transport(ours), theirs
    else:
        transport, peer = await pair("socket")
    await peer.send_all(b"last words")
    assert transport.hang_up() is HangUp.NO
    await peer.aclose()
    assert transport.hang_up() is HangUp.HALF
    assert await transport.receive() == b"last words"
    await transport.aclose()


async def test_a_stream_that_is_no_socket_tells_nothing() -> None:
    """Only a read would."""
    transport, peer = await pair("memory")
    await peer.aclose()
    assert transport.hang_up() is HangUp.NO
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


@pytest.mark.parametrize(
    "make", [lambda: trio.testing.memory_stream_pair()[0], lambda: Failing(OSError())], ids=["memory", "own"]
)
def test_another_stream_has_no_address(make: Callable[[], trio.abc.Stream]) -> None:
    """None, not a guess."""
    assert open_transport(make()).client is None


async def test_a_peer_that_is_gone_before_it_is_asked_has_no_address() -> None:
    """A reset between `accept` and the first look is no error."""
    ours, theirs = await tcp_pair()
    theirs.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await theirs.aclose()
    transport = open_transport(ours)
    assert transport.client is None
    await transport.aclose()


async def test_a_socket_that_is_writable_and_takes_nothing_is_waited_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system's word that there is room is no promise that there is enough."""
    transport, peer = await pair("socket")
    transport.write_timeout = 30
    takes = [0, 0, 0]
    real = SocketTransport.send_nowait

    def send_nowait(self: SocketTransport, data: bytes | memoryview) -> int:
        return takes.pop() if takes else real(self, data)

    monkeypatch.setattr(SocketTransport, "send_nowait", send_nowait)
    await transport.send(b"in the end")
    assert await read(peer, 10) == b"in the end"
    assert takes == []
    await finish(transport, peer)


@pytest.mark.parametrize(
    ("name", "expected"), [("client", "client"), (b"\0abstract\x1b", "@abstract\x1b"), (b"\0", None), (None, None)]
)
async def test_a_unix_peer_is_known_by_its_name(name: str | bytes | None, expected: str | None, tmp_path: Path) -> None:
    """If it has one: a path, or a name of Linux' own."""
    if isinstance(name, bytes) and sys.platform != "linux":
        pytest.skip("only Linux has abstract names")
    listener = trio.socket.socket(socket.AF_UNIX)
    await listener.bind(str(tmp_path / "server"))
    listener.listen(1)
    client = trio.socket.socket(socket.AF_UNIX)
    if isinstance(name, str):
        await client.bind(str(tmp_path / name))
        expected = str(tmp_path / name)
    elif name is not None:
        await client.bind(name)
    await client.connect(str(tmp_path / "server"))
    accepted, _ = await listener.accept()
    transport = open_transport(trio.SocketStream(accepted))
    assert (transport.client, transport.is_local) == (expected, True)
    await transport.aclose()
    client.close()
    listener.close()


async def test_a_tcp_peer_that_is_gone_has_no_name_and_is_nobody() -> None:
    """It is not taken for a UNIX peer."""
    ours, theirs = await tcp_pair()
    theirs.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await theirs.aclose()
    await trio.sleep(0.05)
    transport = open_transport(ours)
    assert (transport.client, transport.is_local) == (None, False)
    await transport.aclose()


@pytest.mark.parametrize("kind", ["socket", "memory", "tls"])
async def test_closing_is_a_checkpoint(kind: str) -> None:
    """Each time."""
    transport, peer = await pair(kind)
    for _ in range(2):
        with trio.testing.assert_checkpoints():
            await transport.aclose()
    await peer.aclose()
