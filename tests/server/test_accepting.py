"""Accepting plain sockets: many at a wake-up, and what goes wrong with one is that one's."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from trioktor.server import accepting
from trioktor.server.accepting import accept_all

Clock = trio.testing.MockClock


@pytest.fixture
def accepts(monkeypatch: pytest.MonkeyPatch) -> list[OSError]:
    """Errors that the next calls of `accept` raise."""
    errors: list[OSError] = []
    real = socket.socket.accept

    def accept(self: socket.socket) -> tuple[socket.socket, Any]:
        if errors:
            raise errors.pop(0)
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    return errors


def failed(number: int) -> OSError:
    """An error of the system's."""
    return OSError(number, os.strerror(number))


async def serve(nursery: trio.Nursery, handle: Callable[[socket.socket, Any], Any]) -> int:
    """Accept on a port of this machine; which one."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def not_wanted(stream: trio.abc.Stream) -> None:
        raise AssertionError(stream)

    nursery.start_soon(accept_all, [listener], not_wanted, handle, nursery)
    await trio.testing.wait_all_tasks_blocked()
    port: int = listener.socket.getsockname()[1]
    return port


async def test_many_that_wait_are_accepted_in_few_steps(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """One, two, four and so on at a wake-up; and the options are those of Trio's own streams."""
    steps: list[int] = []
    real = accepting._accept_waiting

    def counting(*arguments: Any) -> int:
        steps.append(real(*arguments))
        return steps[-1]

    monkeypatch.setattr(accepting, "_accept_waiting", counting)
    options: set[tuple[int, int]] = set()

    async def handle(sock: socket.socket, client: object) -> None:
        with sock:
            no_delay = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getpeername() == client
            options.add((no_delay, sock.getsockopt(socket.IPPROTO_TCP, 25)))  # TCP_NOTSENT_LOWAT
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        port = await serve(nursery, handle)
        clients = []
        for _ in range(100):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            clients.append(client)
        await trio.testing.wait_all_tasks_blocked()
        for client in clients:
            client.close()
        nursery.cancel_scope.cancel()
    assert 100 == sum(steps)
    assert len(steps) <= 10
    assert max(steps) <= 64
    assert {(1, 16384)} == options


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPERM, errno.EPROTO])
async def test_a_connection_that_is_gone_is_passed_over(
    number: int, accepts: list[OSError], autojump_clock: Clock
) -> None:
    """The next one may be well."""
    seen: list[bytes] = []

    async def handle(sock: socket.socket, client: object) -> None:
        with sock:
            sock.setblocking(False)
            await trio.lowlevel.wait_readable(sock)
            seen.append(sock.recv(10))

    async with trio.open_nursery() as nursery:
        port = await serve(nursery, handle)
        accepts.append(failed(number))
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"hello")
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [b"hello"] == seen


async def test_a_want_of_room_is_waited_for(
    accepts: list[OSError], autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """With a line when it begins and one when it is over, and then who waits is let in."""
    times: list[float] = []

    async def handle(sock: socket.socket, client: object) -> None:
        times.append(trio.current_time())
        sock.close()
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        port = await serve(nursery, handle)
        accepts.extend(failed(errno.EMFILE) for _ in range(5))
        began = trio.current_time()
        async with await trio.open_tcp_stream("127.0.0.1", port):
            await trio.sleep(3)
        nursery.cancel_scope.cancel()
    assert pytest.approx(0.5) == times[0] - began
    assert 2 == len(caplog.records)


async def test_another_error_ends_it(accepts: list[OSError], autojump_clock: Clock) -> None:
    """The listener is of no more use; no descriptor is left."""
    before = len(os.listdir("/proc/self/fd"))

    async def handle(_: socket.socket, client: object) -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            port = await serve(nursery, handle)
            accepts.append(failed(errno.EBADF))
            async with await trio.open_tcp_stream("127.0.0.1", port):
                await trio.sleep(1)
    assert caught.group_contains(OSError, match="Bad file descriptor")
    assert before == len(os.listdir("/proc/self/fd"))


async def test_a_listener_that_is_closed_elsewhere_ends_it(autojump_clock: Clock) -> None:
    """As with Trio's own."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:

            async def handle(_: Any, client: object = None) -> None:
                await trio.lowlevel.checkpoint()

            nursery.start_soon(accept_all, [listener], handle, handle, nursery)
            await trio.testing.wait_all_tasks_blocked()
            await listener.aclose()
    assert caught.group_contains(trio.ClosedResourceError)
