"""Listeners: one number for every address, UNIX sockets and their files, TLS round either."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.listening import Addresses, MemoryListener, has_ipv6, no_descriptor_left
from trioktor.server.listeners import (
    PatientListener,
    Want,
    inherited_listeners,
    open_tcp,
    open_unix,
    remove_unix,
    unix_identity,
    wrap_tls,
)

HERE = "127.0.0.1"


@pytest.fixture
def left_behind(tmp_path: Path) -> Iterator[Path]:
    """A socket file that nobody listens on."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(path))
    yield path
    path.unlink(missing_ok=True)


async def close_all(listeners: list[Any]) -> None:
    """Close them."""
    for listener in listeners:
        await listener.aclose()


async def test_one_address_has_one_listener() -> None:
    """With a free port where 0 is asked for, and with that one where it is asked for."""
    [listener] = await open_tcp(0, host=HERE, backlog=None)
    port = listener.socket.getsockname()[1]
    assert port > 0
    await listener.aclose()
    [listener] = await open_tcp(port, host=HERE, backlog=5)
    assert listener.socket.getsockname() == (HERE, port)
    await listener.aclose()


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
async def test_port_0_is_one_number_for_all_addresses() -> None:
    """And nothing is left of the attempts."""
    with no_descriptor_left():
        trio.socket.set_custom_hostname_resolver(Addresses(HERE, "::1"))
        for _ in range(20):
            listeners = await open_tcp(0, host="both.example", backlog=None)
            first, second = (listener.socket.getsockname() for listener in listeners)
            assert (first[0], second[0]) == (HERE, "::1")
            assert first[1] == second[1] > 0
            await close_all(listeners)


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
@pytest.mark.parametrize("checkpoints", range(12))
async def test_cancelled_it_leaves_nothing_open(checkpoints: int) -> None:
    """Wherever it waits, one address closed and the other not."""
    with no_descriptor_left():
        trio.socket.set_custom_hostname_resolver(Addresses(HERE, "::1"))
        listeners: list[trio.SocketListener] = []

        async def listen() -> None:
            with scope:
                listeners.extend(await open_tcp(0, host="both.example", backlog=None))

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            scope.cancel()
        await close_all(listeners)


async def test_addresses_that_cannot_have_the_same_number_are_an_error_in_the_end() -> None:
    """The same address twice: after some attempts the system's error, and nothing is left of them."""
    with no_descriptor_left():
        trio.socket.set_custom_hostname_resolver(Addresses(HERE, HERE))
        with pytest.raises(OSError) as refusal:
            await open_tcp(0, host="twice.example", backlog=None)
        assert refusal.value.errno == errno.EADDRINUSE
        assert re.fullmatch(r"twice\.example port [1-9]\d*", refusal.value.filename)


async def test_a_port_in_use_is_the_systems_error() -> None:
    """Nothing is tried again."""
    [first] = await open_tcp(0, host=HERE, backlog=None)
    with no_descriptor_left():
        with pytest.raises(OSError) as refusal:
            await open_tcp(first.socket.getsockname()[1], host=HERE, backlog=None)
        assert refusal.value.errno == errno.EADDRINUSE
    await first.aclose()


@pytest.mark.parametrize("backlog", [None, 1, 50])
async def test_a_unix_listener_accepts(backlog: int | None, tmp_path: Path) -> None:
    """As a TCP one does."""
    path = tmp_path / "socket"
    listener = await open_unix(path, backlog=backlog)
    assert stat.S_ISSOCK(path.stat().st_mode)
    client = await trio.open_unix_socket(path)
    server = await listener.accept()
    await server.send_all(b"hello")
    assert await client.receive_some() == b"hello"
    await close_all([client, server, listener])


async def test_a_socket_that_nobody_listens_on_is_replaced(left_behind: Path) -> None:
    """A server that crashed left it."""
    listener = await open_unix(left_behind, backlog=None)
    client = await trio.open_unix_socket(left_behind)
    server = await listener.accept()
    await server.send_all(b"hello")
    assert await client.receive_some() == b"hello"
    await close_all([client, server, listener])


async def test_a_socket_in_use_is_refused(tmp_path: Path) -> None:
    """The one who listens there keeps the file, and nothing is left open of the attempt."""
    path = tmp_path / "socket"
    listener = await open_unix(path, backlog=None)
    with no_descriptor_left():
        with pytest.raises(OSError) as refusal:
            await open_unix(path, backlog=None)
        assert refusal.value.errno == errno.EADDRINUSE
    assert stat.S_ISSOCK(path.stat().st_mode)
    await listener.aclose()


@pytest.mark.parametrize("kind", ["file", "folder"])
async def test_what_is_no_socket_is_left_alone(kind: str, tmp_path: Path) -> None:
    """Whatever it is, it is not ours to remove."""
    path = tmp_path / "precious"
    if kind == "file":
        path.write_text("data")
    else:
        path.mkdir()
    with no_descriptor_left(), pytest.raises(OSError) as refusal:
        await open_unix(path, backlog=None)
    assert refusal.value.errno == errno.EADDRINUSE
    assert path.exists()


async def test_an_error_of_a_unix_listener_names_the_path(tmp_path: Path) -> None:
    """The system's own text does not."""
    path = tmp_path / "nowhere" / "socket"
    with pytest.raises(FileNotFoundError, match="nowhere/socket"):
        await open_unix(path, backlog=None)


async def test_an_error_that_is_text_alone_keeps_it(tmp_path: Path) -> None:
    """As that of a path which is too long for the system."""
    with no_descriptor_left(), pytest.raises(OSError, match="path too long"):
        await open_unix(tmp_path / ("x" * 200), backlog=None)


@pytest.mark.parametrize("backlog", [1 << 31, 1 << 64])
async def test_any_backlog_is_taken_as_for_tcp(backlog: int, tmp_path: Path) -> None:
    """The system has a bound of its own."""
    await close_all([await open_unix(tmp_path / "socket", backlog=backlog)])
    await close_all(await open_tcp(0, host=HERE, backlog=backlog))


async def test_a_listener_that_can_not_be_opened_leaves_no_file(tmp_path: Path) -> None:
    """It would look like that of a server."""
    path = tmp_path / "socket"
    with no_descriptor_left(), pytest.raises(OverflowError):
        await open_unix(path, backlog=None, mode=1 << 64)
    assert not path.exists()


async def test_the_file_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    """Though it has the number of the one before, as it often happens."""
    path = tmp_path / "socket"
    first = await open_unix(path, backlog=None)
    identity = unix_identity(path)
    await first.aclose()
    second = await open_unix(path, backlog=None)
    os.utime(path, ns=(0, 1))  # the system's clock may be slower than this test
    successor = unix_identity(path)
    assert identity is not None
    assert successor is not None
    assert identity[2:] != successor[2:]
    remove_unix(path, identity)
    assert path.exists()
    await second.aclose()


async def test_the_file_of_a_unix_listener_is_removed(tmp_path: Path) -> None:
    """By name; that it is gone already is no error."""
    path = tmp_path / "socket"
    listener = await open_unix(path, backlog=None)
    remove_unix(path, unix_identity(path))
    assert not path.exists()
    remove_unix(path, unix_identity(path))
    await listener.aclose()


async def test_tls_goes_round_every_listener() -> None:
    """What it accepts is an `SSLStream` of the server's side that forgives a missing goodbye."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inner = MemoryListener()
    [listener] = wrap_tls([inner], context)
    assert isinstance(listener, trio.SSLListener)
    client = await inner.connect()
    stream = await listener.accept()
    assert isinstance(stream, trio.SSLStream)
    assert stream.server_side
    await listener.aclose()
    assert inner.is_closed
    await trio.aclose_forcefully(stream)
    await client.aclose()


@pytest.mark.parametrize("count", [None, "", "x", "-1", "0", "1.5"])
@pytest.mark.parametrize("pid", ["mine", "another", None])
def test_without_sockets_from_a_supervisor_there_is_an_error(
    count: str | None, pid: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the environment says; and it is cleared, so that no child takes them for its own."""
    monkeypatch.setenv("LISTEN_FDNAMES", "a:b")
    for name, value in (("LISTEN_FDS", count), ("LISTEN_PID", str(os.getpid()) if pid == "mine" else pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match="no listening sockets were handed over"):
        inherited_listeners()
    assert not {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} & set(os.environ)


def test_sockets_for_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were handed over to a parent."""
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    with pytest.raises(RuntimeError):
        inherited_listeners()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_what_was_handed_over_and_does_not_listen_is_an_error(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the descriptor, and none stays open."""
    listening, other = socket.socket(), socket.socket(socket.AF_INET, kind)
    listening.bind((HERE, 0))
    listening.listen()
    first = fcntl.fcntl(listening, fcntl.F_DUPFD_CLOEXEC, 500)  # where all are free
    second = fcntl.fcntl(other, fcntl.F_DUPFD_CLOEXEC, first + 1)
    assert second == first + 1
    listening.close()
    other.close()
    monkeypatch.setattr("trioktor.server.listeners._FIRST_FD", first)
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    with pytest.raises(OSError, match=f"the file descriptor {second} is no listening socket"):
        inherited_listeners()
    for number in (first, second):
        with pytest.raises(OSError):
            os.fstat(number)


async def test_what_was_handed_over_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of ours would keep it open."""
    listening = socket.socket()
    listening.bind((HERE, 0))
    listening.listen()
    listening.set_inheritable(True)
    number = listening.detach()
    monkeypatch.setattr("trioktor.server.listeners._FIRST_FD", number)
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    (listener,) = inherited_listeners()
    assert listener.socket.fileno() == number
    assert not os.get_inheritable(number)
    listener.socket.close()


# a want of room


@final
class Scripted(trio.abc.Listener[trio.abc.Stream]):
    """A listener that does one thing after the other: an errno to raise, or None for a connection."""

    def __init__(self, *script: int | None) -> None:
        self.script = list(script)
        self.times: list[float] = []

    async def accept(self) -> trio.abc.Stream:
        """As the script says; at its end nobody connects any more."""
        await trio.lowlevel.checkpoint()
        self.times.append(trio.current_time())
        if not self.script:
            await trio.sleep_forever()
        number = self.script.pop(0)
        if number is not None:
            raise OSError(number, os.strerror(number))
        return trio.testing.memory_stream_pair()[0]

    async def aclose(self) -> None:
        """Close."""
        await trio.lowlevel.checkpoint()
        self.script = [errno.EBADF]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged."""
    return [record.getMessage() for record in caplog.records]


def patient(inner: list[Any]) -> list[PatientListener]:
    """Listeners that wait together."""
    want = Want()
    return [PatientListener(listener, want) for listener in inner]


async def accept_all(listener: PatientListener, seconds: float) -> int:
    """Accept for so long; how many came."""
    count = 0
    with trio.move_on_after(seconds):
        while True:
            await listener.accept()
            count += 1
    return count


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
async def test_a_want_of_room_is_waited_for(
    number: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten times a second, with one line; a second behind the last it is over, though nobody connects."""
    inner = Scripted(None, *[number] * 25, None)
    [listener] = patient([inner])
    assert await accept_all(listener, 10) == 2
    assert lines(caplog) == [
        f"no more connections can be accepted: {os.strerror(number)}; those that come wait",
        "connections are accepted again",
    ]
    assert inner.times[26] == pytest.approx(2.5)


async def test_room_for_one_now_and_then_is_no_room(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A line when it begins and one at its end, however often it seems over between."""
    [listener] = patient([Scripted(*[errno.EMFILE, None] * 50)])
    assert await accept_all(listener, 20) == 50
    assert len(lines(caplog)) == 2
    [listener] = patient([Scripted(*[errno.EMFILE] * 3)])
    assert await accept_all(listener, 20) == 0
    assert len(lines(caplog)) == 4


async def test_listeners_of_one_server_want_room_together(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Two lines in all."""
    listeners = patient([Scripted(*[errno.EMFILE] * 5), Scripted(*[errno.EMFILE] * 8)])
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(accept_all, listener, 10)
    assert len(lines(caplog)) == 2


async def test_other_errors_are_errors(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """And closing is passed on."""
    inner = Scripted(errno.EPERM)
    [listener] = patient([inner])
    with pytest.raises(OSError, match="not permitted"):
        await listener.accept()
    await listener.aclose()
    assert inner.script == [errno.EBADF]
    assert lines(caplog) == []


@pytest.mark.parametrize("first", [errno.EADDRINUSE, errno.EACCES])
async def test_a_port_that_another_address_has_not_is_tried_again(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """But only where it is in use there; anything else is said at once."""
    opened: list[int] = []
    real = trio.open_tcp_listeners

    async def open_some(port: int, **options: Any) -> list[trio.SocketListener]:
        opened.append(port)
        if port:
            raise OSError(first, os.strerror(first))
        return [*await real(0, **options), *(await real(0, **options) if len(opened) < 4 else [])]

    monkeypatch.setattr(trio, "open_tcp_listeners", open_some)
    if first == errno.EADDRINUSE:
        await close_all(await open_tcp(0, host=HERE, backlog=None))
        assert [bool(port) for port in opened] == [False, True, False, True, False]
    else:
        with pytest.raises(OSError, match="denied"):
            await open_tcp(0, host=HERE, backlog=None)
        assert [bool(port) for port in opened] == [False, True]


async def test_a_free_port_for_all_addresses_is_tried_twenty_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is an error."""
    opened: list[int] = []
    real = trio.open_tcp_listeners

    async def open_some(port: int, **options: Any) -> list[trio.SocketListener]:
        opened.append(port)
        if port:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return [*await real(0, **options), *await real(0, **options)]

    monkeypatch.setattr(trio, "open_tcp_listeners", open_some)
    with pytest.raises(OSError, match="in use"):
        await open_tcp(0, host=HERE, backlog=None)
    assert [bool(port) for port in opened] == [False, True] * 20
