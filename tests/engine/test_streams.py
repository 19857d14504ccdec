"""Any stream that is no plain socket: its errors, its slices, how long each may take, and the end of TLS."""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Callable
from typing import Any, final

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.listening import tls
from tests.support.transports import finish, pair, tcp_pair
from trioktor import WriteTimeout
from trioktor.engine.sockets import SocketTransport
from trioktor.engine.streams import StreamTransport, open_transport
from trioktor.engine.transport import CHUNK, READ, HangUp, Transport


@pytest.mark.parametrize(("kind", "expected"), [("socket", SocketTransport), ("memory", StreamTransport),
                                                ("tls", StreamTransport)])  # fmt: skip
async def test_a_stream_gets_the_transport_that_fits(kind: str, expected: type[Transport]) -> None:
    """Plain sockets are taken out of Trio's hands, everything else stays a stream."""
    transport, peer = await pair(kind)
    assert type(transport) is expected
    assert transport.takes_nowait == (kind == "socket")
    assert transport.is_secure == (kind == "tls")
    await finish(transport, peer)


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
@pytest.mark.parametrize("is_wrapped", [True, False])
async def test_the_errors_of_other_streams_are_a_broken_resource(error: Exception, is_wrapped: bool) -> None:
    """Reading and writing; half-closing raises nothing at all. What TLS says stands in Trio's error, which is mute."""
    raised: Exception = error
    if is_wrapped:
        raised = trio.BrokenResourceError()
        raised.__cause__ = error
    stream = Failing(raised)
    transport = open_transport(stream)
    for work in (transport.receive, functools.partial(transport.send, b"x")):
        with pytest.raises(trio.BrokenResourceError, match=str(error.args[0])) as caught:
            await work()
        assert caught.value.__cause__ is error
    if not isinstance(raised, ssl.SSLError):
        await transport.send_eof()
    await transport.aclose()
    assert stream.is_closed


@pytest.mark.parametrize("kind", ["memory", "tls"])
async def test_other_streams_take_nothing_without_waiting(kind: str) -> None:
    """They cannot say what they would take."""
    transport, peer = await pair(kind)
    await peer.send_all(b"here")
    assert transport.send_nowait(b"x") == 0
    assert transport.read_nowait() is None
    assert transport.hang_up() is HangUp.NO
    await finish(transport, peer)


async def test_a_stream_that_is_no_socket_tells_nothing() -> None:
    """Only a read would."""
    transport, peer = await pair("memory")
    await peer.aclose()
    assert transport.hang_up() is HangUp.NO
    await transport.aclose()


@pytest.mark.parametrize(
    "make", [lambda: trio.testing.memory_stream_pair()[0], lambda: Failing(OSError())], ids=["memory", "own"]
)
def test_another_stream_has_no_address(make: Callable[[], trio.abc.Stream]) -> None:
    """None, not a guess."""
    assert open_transport(make()).client is None


async def test_a_stream_that_is_closed_below_has_not_hung_up() -> None:
    """There is nothing to ask any more, and that is no error."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        inner = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        transport = open_transport(trio.SSLStream(inner, ssl.create_default_context(), server_hostname="x"))
        assert transport.hang_up() is HangUp.NO
        await inner.aclose()
        assert transport.hang_up() is HangUp.NO


@final
class Whole(trio.abc.Stream):
    """A stream that ends as a whole only, and notes what is asked of it; each slice takes `delay`."""

    def __init__(self) -> None:
        self.slices: list[bytes] = []
        self.asked: list[int | None] = []
        self.delay = 0.0

    async def receive_some(self, max_bytes: int | None = None) -> bytearray:
        await trio.lowlevel.checkpoint()
        self.asked.append(max_bytes)
        return bytearray(b"data")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep(self.delay)
        self.slices.append(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_stream_without_a_half_close_is_left_as_it_is() -> None:
    """It is a checkpoint all the same."""
    with trio.testing.assert_checkpoints():
        await open_transport(Whole()).send_eof()


async def test_a_half_close_beside_a_write_raises_nothing() -> None:
    """The stream is busy; it ends all the same when it is closed."""
    await open_transport(Failing(trio.BusyResourceError("busy"))).send_eof()


async def test_what_is_received_is_bytes() -> None:
    """Whatever the stream gives, and as much as the connection asks for."""
    stream = Whole()
    transport = open_transport(stream)
    data = await transport.receive()
    transport.read_size = 7
    await transport.receive()
    assert type(data) is bytes
    assert (data, stream.asked) == (b"data", [READ, 7])


# who is there


@pytest.mark.parametrize("below", ["memory", "tcp", "unix"])
@pytest.mark.parametrize("layers", [1, 2])
async def test_behind_tls_the_socket_below_says_who_is_there(below: str, layers: int) -> None:
    """Through as many layers as there are; a stream that is no socket is on this machine."""
    ours: Any
    theirs: Any
    if below == "memory":
        ours, theirs = trio.testing.memory_stream_pair()
    elif below == "tcp":
        ours, theirs = await tcp_pair()
    else:
        ours, theirs = map(trio.SocketStream, trio.socket.socketpair())
    client = theirs.socket.getsockname() if below == "tcp" else None
    for _ in range(layers):
        ours = trio.SSLStream(ours, tls()[0], server_side=True)
    transport = open_transport(ours)
    assert (transport.is_secure, transport.client, transport.is_local) == (True, client, below != "tcp")
    await theirs.aclose()
    assert transport.hang_up() is (HangUp.NO if below == "memory" else HangUp.HALF)
    await transport.aclose()


# slices, and how long each may take


@pytest.mark.parametrize(
    ("size", "slices"),
    [(0, []), (1, [1]), (CHUNK, [CHUNK]), (CHUNK + 1, [CHUNK, 1]), (3 * CHUNK, [CHUNK, CHUNK, CHUNK])],
)
async def test_it_is_written_in_slices(size: int, slices: list[int]) -> None:
    """Each that is taken is progress."""
    stream = Whole()
    transport = open_transport(stream)
    progress: list[int] = []
    transport.on_progress = lambda: progress.append(len(stream.slices))
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    await transport.send(data)
    assert [len(one) for one in stream.slices] == slices
    assert b"".join(stream.slices) == data
    assert progress == list(range(1, len(slices) + 1))


@pytest.mark.parametrize("delay", [0.0, 9.9, 10.1])
async def test_each_slice_has_the_write_timeout(delay: float, autojump_clock: MockClock) -> None:
    """It counts from the slice's own beginning, however long nothing was sent before."""
    stream = Whole()
    stream.delay = delay
    transport = open_transport(stream)
    transport.write_timeout = 10
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.watch)
        for pause in (0, 5, 100):
            await trio.sleep(pause)
            began = trio.current_time()
            if delay > 10:
                with pytest.raises(WriteTimeout, match="10 s"):
                    await transport.send(bytes(3 * CHUNK))
                assert trio.current_time() - began == pytest.approx(10)
                break  # it is good for closing only
            await transport.send(bytes(3 * CHUNK))
            assert trio.current_time() - began == pytest.approx(3 * delay)
        nursery.cancel_scope.cancel()


async def test_without_a_write_timeout_there_is_nothing_to_watch(autojump_clock: MockClock) -> None:
    """It returns at once."""
    with trio.fail_after(1):
        await open_transport(Whole()).watch()


async def test_a_send_that_is_cancelled_from_outside_is_no_timeout(autojump_clock: MockClock) -> None:
    """Whoever cancelled it is told so."""
    stream = Whole()
    stream.delay = 100
    transport = open_transport(stream)
    transport.write_timeout = 10
    with trio.move_on_after(5) as scope:
        await transport.send(b"x")
    assert scope.cancelled_caught


# the end of TLS


async def strict_pair(
    make: Callable[[], tuple[Any, Any]] = trio.testing.memory_stream_pair,
) -> tuple[StreamTransport, trio.SSLStream[Any]]:
    """A transport over TLS, and a peer that insists on hearing of its end."""
    server, client = tls()
    ours, theirs = make()
    secure = trio.SSLStream(ours, server, server_side=True)
    peer = trio.SSLStream(theirs, client, server_hostname="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure.do_handshake)
        nursery.start_soon(peer.do_handshake)
    return StreamTransport(secure), peer


async def hear(transport: StreamTransport, peer: trio.SSLStream[Any]) -> None:
    """Have something received."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send_all, b"hello")
        assert await transport.receive() == b"hello"


async def test_an_end_of_tls_that_is_not_said_is_the_end_of_the_stream() -> None:
    """We know by ourselves whether more should have come."""
    transport, peer = await strict_pair()
    await hear(transport, peer)
    await trio.aclose_forcefully(peer)
    assert await transport.receive() == b""
    await transport.aclose()


@pytest.mark.parametrize("is_up", [True, False])
async def test_the_end_of_tls_is_said_where_something_was_received(is_up: bool) -> None:
    """Before that the handshake may not be done, and nobody waits for it."""
    transport, peer = await strict_pair()
    await transport.send(b"hello")
    assert await peer.receive_some() == b"hello"
    if is_up:
        await hear(transport, peer)
    await transport.aclose()
    if is_up:
        assert await peer.receive_some() == b""
    else:
        with pytest.raises(trio.BrokenResourceError):
            await peer.receive_some()
    await trio.aclose_forcefully(peer)


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_behind_half_a_record_the_end_of_tls_is_not_said(is_cancelled: bool, autojump_clock: MockClock) -> None:
    """It would stand in the middle of it; nobody waits, either."""
    transport, peer = await strict_pair(trio.testing.lockstep_stream_pair)
    await hear(transport, peer)
    scope = trio.CancelScope()
    ends: list[str] = []

    async def send() -> None:
        with scope:
            with pytest.raises(trio.BrokenResourceError):
                await transport.send(b"half")
            ends.append("broken")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        if is_cancelled:
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await transport.aclose()
        assert trio.current_time() == began
    assert ends == ([] if is_cancelled else ["broken"])
    await trio.aclose_forcefully(peer)


async def test_a_peer_that_does_not_take_the_end_of_tls_is_not_waited_for(autojump_clock: MockClock) -> None:
    """Not for longer than half a second, and only once."""
    transport, peer = await strict_pair(trio.testing.lockstep_stream_pair)
    await hear(transport, peer)
    began = trio.current_time()
    for _ in range(2):
        await transport.aclose()
        assert trio.current_time() - began == pytest.approx(0.5)
    await trio.aclose_forcefully(peer)


@pytest.mark.parametrize("error", [OSError("unplugged"), ssl.SSLError("nonsense"), trio.BrokenResourceError("gone")])
async def test_an_end_of_tls_that_fails_closes_all_the_same(error: Exception) -> None:
    """Whatever the stream below says."""
    ours, theirs = trio.testing.memory_stream_pair()
    transport, peer = await strict_pair(lambda: (ours, theirs))
    await hear(transport, peer)

    async def fail() -> None:
        raise error

    ours.send_stream.send_all_hook = fail
    await transport.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")
    await trio.aclose_forcefully(peer)
