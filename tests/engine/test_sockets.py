"""A plain socket, read and written without Trio's streams: what it takes and gives, who is there, and its end."""

from __future__ import annotations

import errno
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, final

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.listening import has_ipv6, no_descriptor_left
from tests.support.transports import finish, pair, read, reset, tcp_pair
from trioktor.engine.sockets import SocketTransport, is_unix, look_at, set_options
from trioktor.engine.streams import open_transport
from trioktor.engine.transport import LONG_WRITE, TARGET_READ, HangUp

TCP_NOTSENT_LOWAT = 25


def transport_pair() -> tuple[SocketTransport, socket.socket]:
    """A transport, and the socket at its other end."""
    ours, theirs = socket.socketpair()
    return SocketTransport(ours), theirs


# what the system says of the other end


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_when_both_directions_are_over_only_tcp_says_that_the_peer_is_gone(kind: str) -> None:
    """A UNIX socket hangs up though there may be something to read."""
    if kind == "tcp":
        ours, theirs = await tcp_pair()
        mine, his = ours.socket, theirs.socket
    else:
        mine, his = trio.socket.socketpair()
    await his.send(b"unread")
    his.shutdown(socket.SHUT_WR)
    assert look_at(mine) is HangUp.HALF
    mine.shutdown(socket.SHUT_WR)
    assert look_at(mine) is (HangUp.FULL if kind == "tcp" else HangUp.HALF)
    mine.close()
    his.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say so")
async def test_a_unix_peer_that_left_something_unread_is_gone() -> None:
    """Which is an error, as a reset is."""
    ours, theirs = socket.socketpair()
    ours.send(b"unread")
    theirs.close()
    assert look_at(ours) is HangUp.FULL
    ours.close()


async def test_our_own_half_close_is_no_hang_up() -> None:
    """The peer may say more."""
    ours, theirs = await tcp_pair()
    transport = SocketTransport.of(ours)
    await transport.send_eof()
    assert transport.hang_up() is HangUp.NO
    await finish(transport, theirs)


def test_a_unix_socket_is_known_by_its_family() -> None:
    """Whatever it is connected to."""
    pairs = [(socket.AF_INET, False), (socket.AF_UNIX, True)]
    for family, expected in [*pairs, (socket.AF_INET6, False)] if has_ipv6() else pairs:
        with socket.socket(family) as one:
            assert is_unix(one) == expected


# who is there


async def test_a_socket_that_is_connected_to_nobody_has_no_peer() -> None:
    """That is no error."""
    transport = SocketTransport(socket.socket())
    assert transport.client is None
    await transport.aclose()


@pytest.mark.parametrize("client", [None, ("192.0.2.1", 1)])
async def test_who_is_known_already_is_not_asked_for(client: tuple[str, int] | None) -> None:
    """He was told of by a proxy, so he is not on this machine for certain."""
    ours, theirs = socket.socketpair()
    transport = SocketTransport(ours, client)
    assert (transport.client, transport.is_local, transport.is_secure) == (client, client is None, False)
    await transport.aclose()
    theirs.close()


# taking and connecting


async def test_a_stream_that_is_taken_over_is_trios_no_more() -> None:
    """The descriptor is the transport's, and its family is kept."""
    ours, theirs = await tcp_pair()
    fd = ours.socket.fileno()
    name = theirs.socket.getsockname()
    transport = SocketTransport.of(ours)
    assert (ours.socket.fileno(), transport.fileno()) == (-1, fd)
    assert (transport.client, transport.is_local) == (name, False)
    await finish(transport, theirs)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_it_connects_to_an_address(host: str) -> None:
    """Over either kind of IP; short messages are not held back."""
    if host == "::1" and not has_ipv6():
        pytest.skip("there is no IPv6 here")
    [listener] = await trio.open_tcp_listeners(0, host=host)
    async with listener:
        port = listener.socket.getsockname()[1]
        with trio.testing.assert_checkpoints():
            transport = await SocketTransport.connect(host, port)
        assert (transport.client, transport.is_local) == ((host, port), False)
        with socket.fromfd(transport.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same:
            assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert unsent_limit(same) == 1 << 14
        peer = await listener.accept()
        await transport.send(b"hello")
        assert await read(peer, 5) == b"hello"
        await finish(transport, peer)


async def test_where_nobody_listens_is_an_error_of_the_systems() -> None:
    """And nothing is left open."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with no_descriptor_left(), pytest.raises(ConnectionRefusedError) as refused:
            await SocketTransport.connect("127.0.0.1", bound.getsockname()[1])
    assert refused.value.errno == errno.ECONNREFUSED


async def test_a_connect_that_is_cancelled_leaves_nothing_open() -> None:
    """Though somebody listens."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        with no_descriptor_left(), trio.CancelScope() as scope:
            scope.cancel()
            await SocketTransport.connect("127.0.0.1", listener.socket.getsockname()[1])
    assert scope.cancelled_caught


# reading


async def test_a_read_without_waiting_tells_nothing_from_the_end() -> None:
    """None and no bytes; it takes what `read_size` allows."""
    transport, peer = transport_pair()
    transport.read_size = 3
    assert transport.read_nowait() is None
    peer.send(b"abcde")
    assert [transport.read_nowait(), transport.read_nowait(), transport.read_nowait()] == [b"abc", b"de", None]
    peer.close()
    assert [transport.read_nowait(), transport.read_nowait()] == [b"", b""]
    await transport.aclose()


async def test_it_reads_into_what_it_is_given() -> None:
    """The beginning of it, as far as there is something; nothing is not the end."""
    transport, peer = transport_pair()
    target: Any = bytearray(b"........")
    assert transport.read_into(target) is None
    peer.send(b"abc")
    assert transport.read_into(target) == 3
    assert target == b"abc....."
    peer.send(b"much too long")
    assert transport.read_into(target) == 8
    assert target == b"much too"
    peer.close()
    assert [transport.read_into(target), transport.read_into(target)] == [5, 0]
    await transport.aclose()


async def test_a_read_into_a_long_target_is_bounded() -> None:
    """Others get a turn."""
    transport, peer = transport_pair()
    target: Any = bytearray(TARGET_READ + 1000)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
    peer.setblocking(False)
    sent = 0
    with peer:
        try:
            while sent < len(target):
                sent += peer.send(bytes(4096))
        except BlockingIOError:
            pass
        if sent <= TARGET_READ:
            pytest.skip("the system's buffers are too small")
        assert transport.read_into(target) == TARGET_READ
    await transport.aclose()


async def test_who_is_woken_for_nothing_waits_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another may have read it meanwhile; no bytes would be the end."""
    transport, peer = transport_pair()
    gives: list[bytes | None] = [b"in the end", None, None]
    monkeypatch.setattr(SocketTransport, "read_nowait", lambda _transport: gives.pop())
    peer.send(b"x")
    assert await transport.receive() == b"in the end"
    await transport.aclose()
    peer.close()


# writing


async def test_what_fits_is_sent_without_a_checkpoint() -> None:
    """There is nothing to wait for."""
    transport, peer = transport_pair()
    with trio.testing.assert_no_checkpoints():
        await transport.send(b"at once")
        await transport.send(b"")
    assert peer.recv(100) == b"at once"
    await transport.aclose()
    peer.close()


async def test_several_pieces_go_together_as_far_as_they_fit() -> None:
    """In one write; then none."""
    transport, peer = transport_pair()
    peer.setblocking(False)
    assert transport.send_parts_nowait([b"ab", b"", b"cde"]) == 5
    assert peer.recv(100) == b"abcde"
    sent = 0
    while count := transport.send_parts_nowait([bytes(3), bytes(50_000)]):
        sent += count
    assert sent > 0
    assert transport.send_parts_nowait([b"x", b"y"]) == 0
    peer.close()
    with pytest.raises(trio.BrokenResourceError) as broken:
        transport.send_parts_nowait([b"x", b"y"])
    assert isinstance(broken.value.__cause__, BrokenPipeError)
    await transport.aclose()


@final
class Watched(socket.socket):
    """A socket that notes how much may wait unsent when something is written."""

    def __init__(self, of: trio.SocketStream) -> None:
        super().__init__(fileno=of.socket.detach())
        self.limits: list[int] = []

    def send(self, data: Any, flags: int = 0) -> int:
        """Note it."""
        self.limits.append(unsent_limit(self))
        return super().send(data, flags)

    def sendmsg(self, parts: Any, *rest: Any) -> int:
        """Note it."""
        self.limits.append(unsent_limit(self))
        return super().sendmsg(parts, *rest)


def unsent_limit(sock: socket.socket) -> int:
    """Bytes that may wait unsent in the system."""
    return sock.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT)


@pytest.mark.skipif(sys.platform != "linux", reason="the option has no number there that we know")
@pytest.mark.parametrize("way", ["at once", "parts", "waiting"])
@pytest.mark.parametrize("size", [LONG_WRITE - 1, LONG_WRITE, 1 << 22])
async def test_more_may_wait_unsent_while_a_long_message_is_written_and_only_then(way: str, size: int) -> None:
    """So it takes few writes; what is said behind it waits for little all the same."""
    ours, peer = await tcp_pair()
    set_options(ours.socket)  # type: ignore[arg-type]  # as it is accepted
    sock = Watched(ours)
    transport = SocketTransport(sock, ("127.0.0.1", 0))
    async with trio.open_nursery() as nursery:
        if way == "parts":
            sent = transport.send_parts_nowait([b"head", bytes(size)])
            assert unsent_limit(sock) == 1 << 14
            nursery.start_soon(transport.send, bytes(4 + size - sent))
        else:
            nursery.start_soon(transport.send, bytes(size))
        if way == "waiting":
            await trio.testing.wait_all_tasks_blocked()
        await read(peer, size + 4 * (way == "parts"))
    assert sock.limits[0] == (1 << 20 if size >= LONG_WRITE else 1 << 14)
    assert unsent_limit(sock) == 1 << 14
    await finish(transport, peer)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other limits")
async def test_what_is_said_behind_a_long_message_waits_for_little() -> None:
    """Of a peer that reads nothing the system takes a long message further than short ones."""
    taken = []
    for size in (1 << 12, 1 << 22):
        ours, peer = await tcp_pair()
        set_options(ours.socket)  # type: ignore[arg-type]
        transport = SocketTransport.of(ours)
        taken.append(0)
        while sent := transport.send_parts_nowait([b"head", bytes(size)]):
            taken[-1] += sent
        assert transport.send_nowait(b"short") == 0
        await finish(transport, peer)
    assert taken[0] + (1 << 19) < taken[1]


async def test_progress_is_told_when_a_write_that_waited_got_on() -> None:
    """Not of one that needed no wait."""
    transport, peer = transport_pair()
    progress: list[None] = []
    transport.on_progress = lambda: progress.append(None)
    await transport.send(b"at once")
    assert progress == []
    data = bytes(1 << 20)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(peer))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.send, data)
        await trio.testing.wait_all_tasks_blocked()
        assert await read(stream, 7 + len(data)) == b"at once" + data
    assert len(progress) > 0
    await finish(transport, stream)


# the end


async def test_it_closes_without_waiting() -> None:
    """As often as one likes; the peer sees the end."""
    transport, peer = transport_pair()
    assert [transport.close_nowait(), transport.close_nowait()] == [True, True]
    assert transport.fileno() == -1
    assert peer.recv(1) == b""
    peer.close()


@pytest.mark.parametrize(
    ("operation", "error"), [("receive", trio.ClosedResourceError), ("send", trio.BrokenResourceError)]
)
async def test_closed_meanwhile_it_wakes_whoever_waits(
    operation: str, error: type[Exception], autojump_clock: MockClock
) -> None:
    """A writer finds at its next write that the connection is lost."""
    transport, peer = transport_pair()
    ends: list[str] = []

    async def wait() -> None:
        with pytest.raises(error):
            await (transport.receive() if operation == "receive" else transport.send(bytes(1 << 24)))
        ends.append("woken")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert [transport.close_nowait(), transport.close_nowait()] == [True, True]
    assert ends == ["woken"]
    peer.close()


# without waiting, and what the system does not promise


@pytest.mark.parametrize("operation", ["receive", "send", "send_nowait"])
async def test_a_reset_is_a_broken_resource(operation: str) -> None:
    """The operating system's error is its cause."""
    ours, theirs = await tcp_pair()
    transport = open_transport(ours)
    await reset(theirs)
    with pytest.raises(trio.BrokenResourceError) as broken:
        if operation == "receive":
            await transport.receive()
        elif operation == "send":
            await transport.send(b"x")
        else:
            transport.send_nowait(b"x")
    assert isinstance(broken.value.__cause__, OSError)
    assert transport.hang_up() is HangUp.FULL
    await transport.aclose()


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


async def test_a_socket_gives_what_is_there_without_waiting() -> None:
    """Or nothing."""
    transport, peer = await pair("socket")
    assert transport.read_nowait() is None
    await peer.send_all(b"here")
    assert [transport.read_nowait(), transport.read_nowait()] == [b"here", None]
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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing says so")
def test_an_end_needs_no_name_in_this_python() -> None:
    """PyPy has none for what Linux says when the peer has ended its half."""
    code = (
        "import select\n"
        "value = select.POLLRDHUP\n"
        "assert value == select.EPOLLRDHUP\n"
        "del select.POLLRDHUP, select.EPOLLRDHUP\n"
        "from trioktor.engine import poller, sockets\n"
        "assert sockets.ENDED == value and poller._READ & value and poller._HANG_UP_ONCE & value\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)


async def test_where_nothing_can_be_said_without_a_read_nobody_has_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, which has no `poll`."""
    ours, theirs = await tcp_pair()
    transport = open_transport(ours)
    await theirs.aclose()
    monkeypatch.delattr(select, "poll")
    assert transport.hang_up() is HangUp.NO
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
    """A reset between `accept` and the first look is no error, and it is not taken for a UNIX peer."""
    ours, theirs = await tcp_pair()
    await reset(theirs)
    await trio.lowlevel.wait_readable(ours.socket)
    transport = open_transport(ours)
    assert (transport.client, transport.is_local) == (None, False)
    await transport.aclose()
