"""`serve`: where it listens, how it ends, and that nothing of it is left."""

from __future__ import annotations

import errno
import inspect
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support.helpers import REQUEST, RawClient, application, assert_all_over, close, records_above_info
from tests.support.listening import (
    Addresses,
    MemoryListener,
    SecureClient,
    assert_echoes,
    has_ipv6,
    no_descriptor_left,
    running,
    serving,
    tls,
)
from trioktor import Call, CloseReason, Frame, Server, WebSocketSession, serve
from trioktor.server.admission import Limits
from trioktor.server.serve import Import, current_import, listening_on, raise_single

Clock = trio.testing.MockClock
HERE = "127.0.0.1"
ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")


async def echo(session: WebSocketSession) -> None:
    """Send back what comes."""
    async for frame in session:
        await session.send(frame)


async def sleeps(_: Call) -> str:
    """A page that does not come."""
    await trio.sleep_forever()
    raise AssertionError


async def endless(session: WebSocketSession) -> None:
    """Take no notice of anything but cancellation."""
    await trio.sleep_forever()


async def connect(server: Server) -> RawClient:
    """A client on the TCP port of a server."""
    return RawClient(await trio.open_tcp_stream(HERE, server.port))


# where it listens


@pytest.mark.parametrize(
    "places",
    [
        {},
        {"port": 0, "path": "somewhere"},
        {"port": 0, "listeners": []},
        {"path": "somewhere", "listeners": []},
        {"port": 0, "path": "somewhere", "listeners": []},
    ],
    ids=lambda places: " and ".join(places) or "none",
)
async def test_exactly_one_place_to_listen_is_given(places: dict[str, Any]) -> None:
    """Port, path or listeners: a ValueError before anything is opened."""
    with pytest.raises(ValueError, match="exactly one of port, path and listeners"):
        await serve(application(echo), **places)


@pytest.mark.parametrize(
    "options",
    [
        {"port": 65536},
        {"port": None, "path": ""},
        {"port": None, "listeners": [8080]},
        {"host": 5},
        {"mode": 0o660},
        {"backlog": 0},
        {"open_timeout": 0},
        {"response_timeout": 0},
        {"shutdown_grace": -1},
        {"max_head_size": 0},
        {"max_headers": 0},
        {"max_connections": -1},
        {"max_connections_per_address": -1},
        {"max_opening": 0},
        {"handler_nursery": 5},
    ],
    ids=repr,
)
async def test_an_argument_that_makes_no_sense_is_refused_before_anything_is_opened(options: dict[str, Any]) -> None:
    """Each of them reaches its check: the text names it, and nothing is waited for."""
    *_, name = options
    with trio.CancelScope() as scope, no_descriptor_left():
        scope.cancel()
        with pytest.raises(ValueError, match=f"^{name} "):
            await serve(application(echo), **{"port": 0, **options})
    assert not scope.cancelled_caught


async def test_what_is_no_tls_context_is_refused_before_anything_is_opened() -> None:
    """As any other argument, but for the kind of the error."""
    context: Any = "chain.pem"
    with no_descriptor_left(), pytest.raises(TypeError, match=r"^ssl_context "):
        await serve(application(echo), 0, ssl_context=context)


async def test_a_module_that_is_imported_starts_no_server() -> None:
    """Another program is going to serve it, and learns that it tried by itself."""
    importing = Import()
    token = current_import.set(importing)
    try:
        with no_descriptor_left(), pytest.raises(RuntimeError, match="__main__"):
            await serve(application(echo), 0)
    finally:
        current_import.reset(token)
    assert importing.has_served
    assert not Import().has_served


async def test_a_listener_has_the_name_of_its_socket(tmp_path: Path) -> None:
    """Also behind TLS; one that has no socket has none."""
    [tcp] = await trio.open_tcp_listeners(0, host=HERE)
    name = tcp.socket.getsockname()
    assert listening_on(tcp) == name
    assert listening_on(trio.SSLListener(tcp, tls()[0])) == name
    assert listening_on(MemoryListener()) is None
    await tcp.aclose()


@pytest.mark.parametrize("thing", [application, "server:app", None], ids=["function", "str", "None"])
async def test_only_an_application_is_served(thing: Any) -> None:
    """Not what makes one, nor its name."""
    with pytest.raises(TypeError, match=r"serve wants an Application, not"):
        await serve(thing, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"open_timeout": float("inf"), "shutdown_grace": 0},
        {"shutdown_grace": float("inf"), "max_connections": 0, "max_connections_per_address": 0},
        {"ssl_context": ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)},
        {"backlog": 1, "max_head_size": 1, "max_headers": 1},
    ],
    ids=repr,
)
async def test_extreme_arguments_that_make_sense_are_taken(options: dict[str, Any]) -> None:
    """The least and the most of each."""
    async with running(application(echo), **options) as server:
        assert server.port


async def test_port_0_is_a_free_port_that_the_server_names() -> None:
    """`nursery.start` returns the server, and it accepts connections by then."""
    async with running(application(echo)) as server:
        [listener] = server.listeners
        assert isinstance(listener, trio.SocketListener)
        assert listener.socket.getsockname() == (HERE, server.port)
        assert server.port > 0
        assert server.sessions == ()
        await assert_echoes(await connect(server))


@ipv6
async def test_port_0_is_the_same_number_on_every_address() -> None:
    """Trio alone would take one for each."""
    trio.socket.set_custom_hostname_resolver(Addresses(HERE, "::1"))
    for _ in range(10):
        async with running(application(echo), host="both.example") as server:
            names = [
                listener.socket.getsockname()[:2]
                for listener in server.listeners
                if isinstance(listener, trio.SocketListener)
            ]
            assert names == [(HERE, server.port), ("::1", server.port)]


async def test_a_port_in_use_is_a_bare_oserror() -> None:
    """From `await serve(…)` and from `nursery.start`: no exception group round it, and the place is named."""
    async with running(application(echo)) as server:
        with pytest.raises(OSError) as first:
            await serve(application(echo), server.port, host=HERE)
        assert first.value.errno == errno.EADDRINUSE
        async with trio.open_nursery() as nursery:
            with pytest.raises(OSError) as second:
                await nursery.start(partial(serve, application(echo), server.port, host=HERE))
            assert second.value.errno == errno.EADDRINUSE
        for error in (first.value, second.value):
            assert str(error).endswith(f"'{HERE} port {server.port}'")
            assert not isinstance(error.__context__, BaseExceptionGroup)
        await assert_echoes(await connect(server))


async def test_a_host_that_is_not_here_is_a_bare_oserror() -> None:
    """An address of the documentation network is nobody's."""
    with pytest.raises(OSError):
        await serve(application(echo), 0, host="192.0.2.1")


async def test_one_application_may_be_served_several_times_at_once() -> None:
    """On two ports, each with its own sessions."""
    app = application(echo)
    async with running(app) as first, running(app) as second:
        assert first.port != second.port
        client = await connect(first)
        await client.upgrade()
        assert (len(first.sessions), len(second.sessions)) == (1, 0)
        await assert_echoes(await connect(second))
        await client.aclose()


async def test_ready_made_listeners_are_served_and_closed() -> None:
    """One of a socket, one of the user's own; the port is that of the socket."""
    memory = MemoryListener()
    [tcp] = await trio.open_tcp_listeners(0, host=HERE)
    with no_descriptor_left_but(tcp):
        async with running(application(echo), listeners=[memory, tcp]) as server:
            assert list(server.listeners) == [memory, tcp]
            assert server.port == tcp.socket.getsockname()[1]
            await assert_echoes(RawClient(await memory.connect()))
            await assert_echoes(await connect(server))
    assert memory.is_closed


@contextmanager
def no_descriptor_left_but(listener: trio.SocketListener) -> Iterator[None]:
    """A listener that was open before is closed afterwards."""
    assert listener.socket.fileno() >= 0
    yield
    assert listener.socket.fileno() == -1


@pytest.mark.parametrize("count", [0, 2])
async def test_a_server_without_exactly_one_port_does_not_guess(count: int) -> None:
    """`port` is an error that says where to look."""
    listeners: list[Any] = [MemoryListener()]
    for _ in range(count):
        listeners.extend(await trio.open_tcp_listeners(0, host=HERE))
    async with running(application(echo), listeners=listeners) as server:
        with pytest.raises(RuntimeError, match=f"{count} TCP ports: look at its listeners"):
            _ = server.port
    with pytest.raises(RuntimeError, match="0 TCP ports"):  # they are closed
        _ = server.port


# UNIX sockets


@pytest.mark.parametrize("kind", [str, Path])
async def test_a_unix_socket_is_served_and_removed_at_the_end(kind: type[Any], tmp_path: Path) -> None:
    """The file is there while the server is."""
    path = tmp_path / "socket"
    async with running(application(echo), path=kind(path)):
        assert stat.S_ISSOCK(path.stat().st_mode)
        await assert_echoes(RawClient(await trio.open_unix_socket(path)))
    assert not path.exists()


async def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    """A file that a server left behind which nobody listens on any more."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(os.fspath(path))
    assert path.exists()
    async with running(application(echo), path=path):
        await assert_echoes(RawClient(await trio.open_unix_socket(path)))
    assert not path.exists()


async def test_a_unix_socket_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    """The first server goes on serving under its name."""
    path = tmp_path / "socket"
    async with running(application(echo), path=path):
        with pytest.raises(OSError) as refusal:
            await serve(application(echo), path=path)
        assert refusal.value.errno == errno.EADDRINUSE
        await assert_echoes(RawClient(await trio.open_unix_socket(path)))


async def test_a_file_in_the_place_of_a_unix_socket_is_left_alone(tmp_path: Path) -> None:
    """Only sockets are replaced."""
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError):
        await serve(application(echo), path=path)
    assert path.read_text() == "data"


async def test_a_unix_socket_in_no_folder_is_a_bare_oserror(tmp_path: Path) -> None:
    """Nothing is made up on the way."""
    with pytest.raises(FileNotFoundError):
        await serve(application(echo), path=tmp_path / "missing" / "socket")


async def test_a_unix_socket_is_removed_after_a_graceful_end(tmp_path: Path) -> None:
    """`aclose` as well as cancellation."""
    path = tmp_path / "socket"
    async with running(application(echo), path=path) as server:
        await server.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert not path.exists()


# TLS


async def test_a_server_speaks_tls() -> None:
    """The scheme is wss, the client's address is known, the close is clean on both sides."""
    schemes: list[object] = []
    ours, theirs = tls()

    async def handler(session: WebSocketSession) -> None:
        schemes.append(session.call.scheme)
        assert isinstance(session.call.client, tuple)
        schemes.append(session.call.client[0])
        await echo(session)

    async with running(application(handler), ssl_context=ours) as server:
        stream = trio.SSLStream(
            await trio.open_tcp_stream(HERE, server.port), theirs, server_hostname="localhost", https_compatible=True
        )
        await assert_echoes(SecureClient(stream))
    assert schemes == ["wss", HERE]


async def test_a_big_message_passes_through_tls() -> None:
    """1 MiB there and back, in records of 16 KiB."""
    ours, theirs = tls()
    message = Frame.Binary(os.urandom(1 << 20))
    async with running(application(echo), ssl_context=ours) as server:
        client = SecureClient(
            trio.SSLStream(await trio.open_tcp_stream(HERE, server.port), theirs, server_hostname="localhost")
        )
        await client.upgrade()
        await client.send(message)
        assert await client.receive() == message
        await client.aclose()


# limits


@pytest.mark.parametrize(
    ("options", "data", "status"),
    [
        ({"max_head_size": 100}, REQUEST % b"/", b"431"),
        ({"max_head_size": 1000}, REQUEST % b"/", b"101"),
        ({"max_headers": 4}, REQUEST % b"/", b"431"),
        ({"max_headers": 5}, REQUEST % b"/", b"101"),
        ({"max_head_size": 50_000}, (REQUEST % b"/")[:-2] + b"X: " + b"a" * 40_000 + b"\r\n\r\n", b"101"),
        ({"max_connections": 0}, REQUEST % b"/", b"503"),
        ({"max_connections": 1}, REQUEST % b"/", b"101"),
    ],
)
async def test_the_limits_of_a_request_can_be_set(
    options: dict[str, Any], data: bytes, status: bytes, autojump_clock: Clock
) -> None:
    """Each of the arguments of `serve`."""
    async with serving(application(echo), **options) as (_, connect):
        client = await connect()
        await client.send_bytes(data)
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 " + status)
        await client.aclose()


# the graceful end


async def test_aclose_says_1001_and_serve_returns(autojump_clock: Clock) -> None:
    """Every session, also one whose handler is waiting; no new connections; the sessions are gone afterwards."""
    ends: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        async for _ in session:
            pass
        ends.append(session.close_reason)

    listener = MemoryListener()
    returned = trio.Event()

    async def run(task_status: trio.TaskStatus[Server]) -> None:
        await serve(application(handler), listeners=[listener], task_status=task_status)
        returned.set()

    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(run)
        clients = [RawClient(await listener.connect()) for _ in range(3)]
        for client in clients:
            await client.upgrade()
        sessions = server.sessions
        assert len(sessions) == 3

        async def answer(client: RawClient) -> None:
            assert await client.receive() == close(1001)
            await client.send(close(1001))
            assert await client.receive() is None
            await client.aclose()

        for client in clients:
            nursery.start_soon(answer, client)
        began = trio.current_time()
        await server.aclose()
        assert trio.current_time() - began < 1
        assert server.sessions == ()
        await returned.wait()
        assert listener.is_closed
    assert ends == [CloseReason(1001)] * 3
    for session in sessions:
        assert_all_over(session)


@pytest.mark.parametrize("reason", [CloseReason(1012, "back in a minute"), 1013])
async def test_aclose_may_give_another_reason(reason: CloseReason | int, autojump_clock: Clock) -> None:
    """What it says goes to every peer."""
    expected = reason if isinstance(reason, CloseReason) else CloseReason(reason)
    async with serving(application(echo)) as (server, connect):
        client = await connect()
        await client.upgrade()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose, reason)
            assert await client.receive() == Frame.Close(expected)
            await client.aclose()


async def test_aclose_lets_handlers_finish_within_the_grace(autojump_clock: Clock) -> None:
    """What was received before is still answered, and sent before the Close."""
    done: list[float] = []

    async def handler(session: WebSocketSession) -> None:
        async for _ in session:
            pass
        await trio.sleep(2)
        done.append(trio.current_time())

    async with serving(application(handler), shutdown_grace=5) as (server, connect):
        client = await connect()
        await client.upgrade()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose)
            assert await client.receive() == close(1001)
            await client.send(close(1001))
        assert done == [began + 2]
        await client.aclose()


@pytest.mark.parametrize("grace", [0, 2, 5])
async def test_after_the_grace_handlers_are_cancelled(grace: float, autojump_clock: Clock) -> None:
    """A handler that takes no notice has until then, and not longer; one second for the goodbye at most."""
    cancelled: list[float] = []

    async def handler(session: WebSocketSession) -> None:
        try:
            await endless(session)
        finally:
            cancelled.append(trio.current_time())

    app = application(handler, handler_grace=None, close_timeout=60)
    async with serving(app, shutdown_grace=grace) as (server, connect):
        client = await connect()
        await client.upgrade()
        began = trio.current_time()
        await server.aclose()
        assert cancelled == [began + grace]
        assert trio.current_time() - began <= grace + 1
        assert (await client.receive_rest())[0] == close(1001)
        await client.aclose()


async def test_aclose_twice_is_aclose(autojump_clock: Clock) -> None:
    """At the same time, and again when all is over."""
    async with serving(application(echo)) as (server, connect):
        client = await connect()
        await client.upgrade()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose)
            nursery.start_soon(server.aclose)
            assert await client.receive() == close(1001)
            await client.send(close(1001))
            assert await client.receive() is None
        await server.aclose()
        assert server.sessions == ()
        await client.aclose()


async def test_aclose_cancelled_stops_waiting_and_the_closing_goes_on(autojump_clock: Clock) -> None:
    """The peers have had their Close."""
    async with serving(application(echo)) as (server, connect):
        client = await connect()
        await client.upgrade()
        with trio.move_on_after(1) as scope:
            await server.aclose()
        assert scope.cancelled_caught
        assert await client.receive() == close(1001)
        await client.send(close(1001))
        assert await client.receive() is None
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert server.sessions == ()


@pytest.mark.parametrize("waits", [0, 1, 5.5])
@pytest.mark.parametrize("has_nursery", [True, False])
async def test_aclose_cancelled_keeps_the_grace(waits: float, has_nursery: bool, autojump_clock: Clock) -> None:
    """What takes no notice is cancelled behind it as ever, wherever handlers run; and `serve` returns."""
    cancelled: list[float] = []

    async def handler(session: WebSocketSession) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(trio.current_time())
            with trio.CancelScope(shield=waits > 5):
                await trio.sleep(1)

    app = application(handler, handler_grace=None, close_timeout=60)
    app.get("/slow", sleeps)
    listener = MemoryListener()
    async with trio.open_nursery() as handlers, trio.open_nursery() as nursery:
        server: Server = await nursery.start(
            partial(serve, app, listeners=[listener], shutdown_grace=5, response_timeout=None,
                    handler_nursery=handlers if has_nursery else None)
        )  # fmt: skip
        client, page = RawClient(await listener.connect()), await listener.connect()
        await client.upgrade()
        await page.send_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        with trio.move_on_after(waits) as scope:
            await server.aclose()
        assert scope.cancelled_caught
        assert await client.receive() == close(1001)
        assert (await page.receive_some()).startswith(b"HTTP/1.1 503 ")
        await client.receive_rest()
        await client.aclose()
    assert cancelled == [began + 5]
    assert trio.current_time() - began <= 7


@pytest.mark.parametrize("path", ["/", "/page"])
async def test_aclose_cancelled_in_a_handler_spares_that_handler(
    path: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The closing that goes on knows whose it was; there is no warning of it, either."""
    came: list[WebSocketSession] = []
    ended: list[str] = []

    async def closing() -> None:
        with trio.move_on_after(1):
            await server.aclose()
        await trio.sleep(20)
        ended.append(path)

    async def handler(session: WebSocketSession) -> None:
        came.append(session)
        await (endless(session) if len(came) == 1 else closing())

    app = application(handler, handler_grace=None, close_timeout=60)

    @app.get("/page")
    async def page(call: Call) -> str:
        await closing()
        return "a page"

    async with serving(app, shutdown_grace=5, response_timeout=None) as (server, connect):
        other, client = await connect(), await connect()
        await other.upgrade()
        if path == "/":
            await client.upgrade()
        else:
            await client.send_bytes(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await trio.sleep(30)
        assert ended == [path]
        assert records_above_info(caplog) == []
        await other.aclose()
        await client.aclose()


async def test_aclose_cancelled_behind_the_end_is_cancelled_and_nothing_else() -> None:
    """There is nothing left to see out, nor anywhere to do it."""
    async with serving(application(echo)) as (server, _):
        await server.aclose()
    with trio.CancelScope() as scope:
        scope.cancel()
        await server.aclose()
    assert scope.cancelled_caught


async def test_connections_before_their_request_are_dropped_by_aclose(autojump_clock: Clock) -> None:
    """Nobody waits for a head that may never come."""
    async with serving(application(echo)) as (server, connect):
        client = await connect()
        await client.send_bytes(b"GET / HT")
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await server.aclose()
        assert await client.stream.receive_some() == b""
        assert trio.current_time() == began
        await client.aclose()


@pytest.mark.parametrize("path", ["/", "/page"])
async def test_aclose_leaves_what_heeds_no_cancellation(
    path: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named in a warning; `serve` ends when it does."""
    release = trio.Event()

    async def stubborn(*_: object) -> None:
        with trio.CancelScope(shield=True):
            await release.wait()

    app = application(stubborn)

    @app.get("/page")
    async def page(call: Call) -> str:
        await stubborn()
        return "a page"

    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, app, listeners=[listener], shutdown_grace=2))
        stream = await listener.connect()
        if path == "/":
            await RawClient(stream).upgrade()
        else:
            await stream.send_all(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await trio.sleep(1)
        await server.aclose()
        assert trio.current_time() == pytest.approx(1 + 2 + 1.5)
        (record,) = records_above_info(caplog)
        assert f" {path} " in record.getMessage() or repr(path) in record.getMessage()
        release.set()
        await stream.aclose()


async def test_an_error_of_a_listener_ends_serve_and_comes_out_as_itself(autojump_clock: Clock) -> None:
    """The sessions hear 1001, as when it is cancelled."""

    class Failing(trio.abc.Listener[trio.abc.Stream]):
        """Fails when it is told to."""

        fails = trio.Event()

        async def accept(self) -> trio.abc.Stream:
            """Wait, and fail."""
            await self.fails.wait()
            raise ZeroDivisionError

        async def aclose(self) -> None:
            """Accept no more."""
            await trio.lowlevel.checkpoint()

    memory, failing = MemoryListener(), Failing()
    raised: list[BaseException] = []

    async def run(task_status: trio.TaskStatus[Server]) -> None:
        try:
            await serve(application(endless), listeners=[memory, failing], task_status=task_status)
        except Exception as error:
            raised.append(error)

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        client = RawClient(await memory.connect())
        await client.upgrade()
        failing.fails.set()
        assert (await client.receive_rest())[0] == close(1001)
        await client.aclose()
    assert [type(error) for error in raised] == [ZeroDivisionError]
    assert memory.is_closed


# cancellation


async def test_cancelling_serve_cancels_handlers_at_once_and_says_1001(autojump_clock: Clock) -> None:
    """`Cancelled` in the handler, a Close at the peer, and a second for all together."""
    cancelled: list[float] = []
    reasons: list[object] = []

    async def handler(session: WebSocketSession) -> None:
        try:
            await endless(session)
        except trio.Cancelled:
            cancelled.append(trio.current_time())
            raise
        finally:
            reasons.append(session.close_reason)

    listener = MemoryListener()
    async with trio.open_nursery() as outer:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(serve, application(handler), listeners=[listener]))
                silent, polite = RawClient(await listener.connect()), RawClient(await listener.connect())
                await silent.upgrade()
                await polite.upgrade()

                async def answer() -> None:
                    assert await polite.receive() == close(1001)
                    await polite.send(close(1001))
                    assert await polite.receive() is None

                outer.start_soon(answer)
                began = trio.current_time()
                scope.cancel()
        assert scope.cancelled_caught
        assert trio.current_time() - began <= 1
        assert cancelled == [began, began]
        assert (await silent.receive_rest())[0] == close(1001)
    await silent.aclose()
    await polite.aclose()


async def test_cancelling_serve_waits_a_second_for_a_peer_that_takes_nothing(autojump_clock: Clock) -> None:
    """A frame that is stuck half-way does not hold the server, however many there are."""

    async def handler(session: WebSocketSession) -> None:
        while True:
            await session.send(b"x" * 100_000)

    listener = MemoryListener(trio.testing.lockstep_stream_pair)
    clients: list[Any] = []
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, application(handler), listeners=[listener]))
            for _ in range(5):
                stream = await listener.connect()
                clients.append(stream)
                await RawClient(stream).upgrade()
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            scope.cancel()
    assert trio.current_time() - began == 1
    for stream in clients:
        await stream.aclose()


@pytest.mark.parametrize("end", ["cancelled", "aclose", "cancelled in aclose"])
@pytest.mark.parametrize("place", ["tcp", "unix", "tls"])
async def test_nothing_is_left_of_a_server(end: str, place: str, tmp_path: Path) -> None:
    """No task, no socket, no descriptor: of listeners, sessions, half a request, and one that has just come."""
    ours, theirs = tls()
    options: dict[str, Any] = {"port": 0, "host": HERE}
    if place == "unix":
        options = {"path": tmp_path / "socket"}
    if place == "tls":
        options["ssl_context"] = ours
    tasks = trio.lowlevel.current_statistics().tasks_living

    async def open_client(server: Server) -> RawClient:
        stream: Any
        if place == "unix":
            stream = await trio.open_unix_socket(tmp_path / "socket")
        else:
            stream = await trio.open_tcp_stream(HERE, server.port)
        if place == "tls":
            stream = trio.SSLStream(stream, theirs, server_hostname="localhost", https_compatible=True)
        return RawClient(stream)

    with no_descriptor_left(), trio.fail_after(5):
        clients = []
        async with trio.open_nursery() as answering, trio.open_nursery() as nursery:
            app = application(endless, handler_grace=None)
            server: Server = await nursery.start(partial(serve, app, shutdown_grace=0, **options))
            for number in range(3):
                client = await open_client(server)
                clients.append(client)
                if number == 0:
                    await client.upgrade()
                if number == 1:
                    await client.send_bytes(b"GET / HTTP/1.1\r\n")

            async def answer() -> None:
                assert await clients[0].receive() == close(1001)
                await clients[0].send(close(1001))

            answering.start_soon(answer)
            if end == "cancelled":
                nursery.cancel_scope.cancel()
            elif end == "aclose":
                await server.aclose()
            else:
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await server.aclose()
                nursery.cancel_scope.cancel()
        for client in clients:
            await trio.aclose_forcefully(client.stream)
    assert trio.lowlevel.current_statistics().tasks_living == tasks


# handler_nursery


async def test_with_a_handler_nursery_cancelling_serve_only_stops_listening(autojump_clock: Clock) -> None:
    """Sessions go on, until that nursery is cancelled: then they end with 1001."""
    listener = MemoryListener()
    async with trio.open_nursery() as handlers:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, application(echo), listeners=[listener], handler_nursery=handlers))
            client = RawClient(await listener.connect())
            await client.upgrade()
            nursery.cancel_scope.cancel()
        assert listener.is_closed
        await client.send(Frame.Text("still there?"))
        assert await client.receive() == Frame.Text("still there?")
        handlers.cancel_scope.cancel()
    assert (await client.receive_rest())[0] == close(1001)
    await client.aclose()


async def test_with_a_handler_nursery_aclose_still_closes_the_sessions(autojump_clock: Clock) -> None:
    """Gracefully, and `serve` returns."""
    listener = MemoryListener()
    async with trio.open_nursery() as handlers, trio.open_nursery() as nursery:
        server: Server = await nursery.start(
            partial(serve, application(echo), listeners=[listener], handler_nursery=handlers)
        )
        client = RawClient(await listener.connect())
        await client.upgrade()
        nursery.start_soon(server.aclose)
        assert await client.receive() == close(1001)
        await client.send(close(1001))
        assert await client.receive() is None
        await client.aclose()


# what a handler raises that is no Exception


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(3),
        BaseExceptionGroup("several", [KeyboardInterrupt()]),
        BaseExceptionGroup("several", [ValueError("a bug"), BaseExceptionGroup("more", [SystemExit(3)])]),
        BaseExceptionGroup("several", [SystemExit(3), KeyboardInterrupt()]),
    ],
    ids=["Ctrl-C", "exit", "Ctrl-C in a group", "exit with a bug", "both"],
)
async def test_ctrl_c_and_exit_in_a_handler_leave_serve_bare(
    error: BaseException, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """They end the server as a cancellation does: the other peers see 1001; a bug beside them is logged."""

    async def handler(session: WebSocketSession) -> None:
        if session.call.query:
            raise error
        await endless(session)

    listener = MemoryListener()
    raised: list[BaseException] = []

    async def run(task_status: trio.TaskStatus[Server]) -> None:
        try:
            await serve(application(handler), listeners=[listener], task_status=task_status)
        except BaseException as caught:
            raised.append(caught)

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        other, client = RawClient(await listener.connect()), RawClient(await listener.connect())
        await other.upgrade()
        began = trio.current_time()
        await client.send_bytes(REQUEST % b"/?fail")
        assert (await other.receive_rest())[0] == close(1001)
        assert trio.current_time() - began <= 1
    assert [type(caught) for caught in raised] in ([KeyboardInterrupt], [SystemExit])
    if isinstance(error, SystemExit):
        assert raised == [error]
    assert len(records_above_info(caplog)) == (1 if "ValueError" in repr(error) else 0)
    await other.aclose()
    await client.aclose()


async def test_ctrl_c_in_a_task_beside_the_handler_leaves_serve_bare(autojump_clock: Clock) -> None:
    """A task of `session.start_soon` is judged by the same rules."""

    async def interrupt() -> None:
        raise KeyboardInterrupt

    async def handler(session: WebSocketSession) -> None:
        session.start_soon(interrupt)
        await endless(session)

    listener = MemoryListener()

    async def run(task_status: trio.TaskStatus[Server]) -> None:
        with pytest.raises(KeyboardInterrupt):
            await serve(application(handler), listeners=[listener], task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        client = RawClient(await listener.connect())
        await client.upgrade()
        assert (await client.receive_rest())[0] == close(1001)
    await client.aclose()


async def test_a_server_that_stops_leaves_its_successors_socket_alone(tmp_path: Path) -> None:
    """The file is not the one it made."""
    path = tmp_path / "socket"
    async with trio.open_nursery() as nursery:
        first: Server = await nursery.start(partial(serve, application(echo), path=path))
        path.rename(tmp_path / "old")
        async with running(application(echo), path=path):
            await first.aclose()
            await assert_echoes(RawClient(await trio.open_unix_socket(str(path))))
    assert not path.exists()


# what is raised of a group


def in_group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    """A nursery's."""
    return BaseExceptionGroup("a nursery", errors)


async def cancellation() -> trio.Cancelled:
    """One of Trio's own."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            return error
    raise AssertionError


@pytest.mark.parametrize("beside", ["nothing", "a cancellation", "an error", "an exit"])
@pytest.mark.parametrize("depth", [1, 3])
async def test_ctrl_c_matters_most(beside: str, depth: int) -> None:
    """However deep, whatever else there is, and wherever."""
    others: dict[str, list[BaseException]] = {"nothing": [], "an error": [ValueError()], "an exit": [SystemExit(3)]}
    ctrl_c = KeyboardInterrupt()
    inner: BaseException = ctrl_c
    for _ in range(depth):
        inner = in_group(inner)
    more = others[beside] if beside in others else [await cancellation()]
    for errors in ([inner, *more], [*more, inner]):
        with pytest.raises(KeyboardInterrupt) as raised:
            raise_single(in_group(*errors))
        assert raised.value is ctrl_c


def test_an_exit_matters_more_than_an_error() -> None:
    """It has the status that was asked for."""
    with pytest.raises(SystemExit) as raised:
        raise_single(in_group(ValueError(), in_group(SystemExit(3))))
    assert raised.value.code == 3


async def test_an_error_matters_more_than_the_cancellations_that_it_caused() -> None:
    """It comes alone, and as itself."""
    error = OSError("no such address")
    with pytest.raises(OSError, match="no such address") as raised:
        with suppress(OSError):
            raise error
        try:
            raise in_group(await cancellation(), in_group(in_group(error), await cancellation()))
        except BaseExceptionGroup as group:
            raise_single(group)
    assert raised.value is error
    assert raised.value.__context__ is None


async def test_cancellations_alone_are_one() -> None:
    """So that the scope outside can catch it."""
    errors = [await cancellation(), await cancellation()]
    with pytest.raises(trio.Cancelled) as raised:
        raise_single(in_group(in_group(errors[0]), errors[1]))
    assert raised.value is errors[0]


def test_several_errors_stay_a_group() -> None:
    """None is hidden by another."""
    for group in (
        in_group(ValueError("one"), in_group(OSError("two"))),
        in_group(in_group(ValueError("one"), OSError("two"))),
    ):
        with pytest.raises(ExceptionGroup) as raised:
            raise_single(group)
        assert raised.value is group


def test_the_defaults_are_what_the_docs_say() -> None:
    """Seconds, bytes and lines; they stand in two places."""
    options = {name: one.default for name, one in inspect.signature(serve).parameters.items()}
    expected = {"open_timeout": 10, "response_timeout": 30, "max_head_size": 16384, "max_headers": 100}
    unlimited = dict.fromkeys(["max_connections", "max_connections_per_address", "max_opening"])
    assert attrs.asdict(Limits()) == {**expected, **unlimited}
    assert {name: options[name] for name in [*expected, *unlimited]} == {**expected, **unlimited}
    assert options["shutdown_grace"] == 5
