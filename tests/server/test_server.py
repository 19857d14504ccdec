"""`serve`: where it listens, how it ends, and that nothing of it is left."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.helpers import REQUEST, RawClient, application, assert_all_over, close, records_above_info
from tests.support.listening import Addresses, MemoryListener, has_ipv6, no_descriptor_left, serving, tls
from trioktor import Application, Call, CloseReason, Frame, Server, WebSocketSession, run, serve
from trioktor.engine import streams
from trioktor.server.run import describe

Clock = trio.testing.MockClock
HERE = "127.0.0.1"
ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")


async def echo(session: WebSocketSession) -> None:
    """Send back what comes."""
    async for frame in session:
        await session.send(frame)


async def endless(session: WebSocketSession) -> None:
    """Take no notice of anything but cancellation."""
    await trio.sleep_forever()


async def assert_echoes(client: RawClient, path: bytes = b"/") -> None:
    """A whole conversation."""
    await client.upgrade(path)
    await client.send(Frame.Text("hello"), close(1000))
    assert await client.receive_rest() == [Frame.Text("hello"), close(1000)]
    await client.aclose()


@asynccontextmanager
async def running(app: Application, port: int | None = None, **options: Any) -> AsyncIterator[Server]:
    """A server, cancelled at the end of the block."""
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(serve, app, port, **options))
        nursery.cancel_scope.cancel()


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


NO_SERVER = ssl.create_default_context()


@pytest.mark.parametrize(
    ("options", "kind", "remedy"),
    [
        (
            {"ssl_context": "chain.pem"},
            TypeError,
            r"ssl_context .*SSLContext\(ssl.PROTOCOL_TLS_SERVER\).*load_cert_chain",
        ),
        (
            {"ssl_context": NO_SERVER},
            ValueError,
            r"ssl_context .*SSLContext\(ssl.PROTOCOL_TLS_SERVER\).*load_cert_chain",
        ),
        ({"port": 65536}, ValueError, "port must be a whole number from 0 to 65535, not 65536"),
        ({"port": 99999}, ValueError, "port must be"),
        ({"port": -1}, ValueError, "port must be"),
        ({"port": True}, ValueError, "port must be"),
        ({"port": "8080"}, ValueError, "port must be .* not '8080'"),
        ({"port": 80.0}, ValueError, "port must be"),
        ({"host": 5}, ValueError, "host must be a name or an address"),
        ({"port": None, "path": 5}, ValueError, "path must be"),
        ({"port": None, "path": ""}, ValueError, "path must be"),
        ({"port": None, "listeners": MemoryListener()}, ValueError, r"listeners must be a list.*write \[listener\]"),
        ({"port": None, "listeners": []}, ValueError, "listeners must be"),
        ({"port": None, "listeners": [8080]}, ValueError, "listeners must be"),
        ({"backlog": 0}, ValueError, "backlog must be"),
        ({"backlog": "5"}, ValueError, "backlog must be"),
        ({"open_timeout": 0}, ValueError, "open_timeout must be more than 0 seconds"),
        ({"open_timeout": -1}, ValueError, "open_timeout must be"),
        ({"open_timeout": float("nan")}, ValueError, "open_timeout must be"),
        ({"open_timeout": None}, ValueError, "open_timeout must be"),
        ({"shutdown_grace": -1}, ValueError, "shutdown_grace must be at least 0 seconds"),
        ({"shutdown_grace": float("nan")}, ValueError, "shutdown_grace must be"),
        ({"shutdown_grace": "5"}, ValueError, "shutdown_grace must be"),
        ({"max_head_size": 0}, ValueError, "max_head_size must be"),
        ({"max_head_size": 1e6}, ValueError, "max_head_size must be"),
        ({"max_headers": None}, ValueError, "max_headers must be"),
        ({"max_connections": -1}, ValueError, "max_connections must be a whole number of at least 0 or None"),
        ({"max_connections": True}, ValueError, "max_connections must be"),
        ({"max_connections_per_address": -1}, ValueError, "max_connections_per_address must be"),
        ({"handler_nursery": trio.open_nursery}, ValueError, "handler_nursery must be"),
    ],
    ids=repr,
)
async def test_an_argument_that_makes_no_sense_is_refused_before_anything_is_opened(
    options: dict[str, Any], kind: type[Exception], remedy: str
) -> None:
    """The text names it, and what would do; no connection is needed to find out."""
    with trio.CancelScope() as scope, no_descriptor_left():
        scope.cancel()  # to be refused, nothing may be waited for
        with pytest.raises(kind, match=remedy):
            await serve(application(echo), **{"port": 0, **options})
    assert not scope.cancelled_caught


@pytest.mark.parametrize("thing", [application, "server:app", None], ids=["function", "str", "None"])
async def test_only_an_application_is_served(thing: Any) -> None:
    """Not what makes one, nor its name."""
    with pytest.raises(TypeError, match=r"serve wants an Application, not"):
        await serve(thing, 0)


def test_run_refuses_what_serve_refuses() -> None:
    """Bare, as it is."""
    with pytest.raises(ValueError, match="port must be"):
        run(application(echo), 99999)
    with pytest.raises(TypeError, match="ssl_context must be"):
        run(application(echo), 0, ssl_context="chain.pem")


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
    async with running(application(echo), 0, host=HERE, **options) as server:
        assert server.port


async def test_port_0_is_a_free_port_that_the_server_names() -> None:
    """`nursery.start` returns the server, and it accepts connections by then."""
    async with running(application(echo), 0, host=HERE) as server:
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
        async with running(application(echo), 0, host="both.example") as server:
            names = [
                listener.socket.getsockname()[:2]
                for listener in server.listeners
                if isinstance(listener, trio.SocketListener)
            ]
            assert names == [(HERE, server.port), ("::1", server.port)]


async def test_a_port_in_use_is_a_bare_oserror() -> None:
    """From `await serve(…)` and from `nursery.start`: no exception group round it."""
    async with running(application(echo), 0, host=HERE) as server:
        with pytest.raises(OSError) as first:
            await serve(application(echo), server.port, host=HERE)
        assert first.value.errno == errno.EADDRINUSE
        async with trio.open_nursery() as nursery:
            with pytest.raises(OSError) as second:
                await nursery.start(partial(serve, application(echo), server.port, host=HERE))
            assert second.value.errno == errno.EADDRINUSE
        await assert_echoes(await connect(server))


async def test_a_host_that_is_not_here_is_a_bare_oserror() -> None:
    """An address of the documentation network is nobody's."""
    with pytest.raises(OSError):
        await serve(application(echo), 0, host="192.0.2.1")


async def test_one_application_may_be_served_several_times_at_once() -> None:
    """On two ports, each with its own sessions."""
    app = application(echo)
    async with running(app, 0, host=HERE) as first, running(app, 0, host=HERE) as second:
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


# what it says of itself


def with_page() -> Application:
    """An echo, and a page for browsers beside it."""
    app = application(echo)

    @app.get("/")
    async def page(call: Call) -> str:
        return "<!doctype html>"

    return app


async def test_an_application_with_a_page_says_where_to_open_it() -> None:
    """One at "/" answers browsers; one somewhere else may be anything."""
    async with running(with_page(), 0, host=HERE) as server:
        assert describe(server) == [
            f"listening on ws://{HERE}:{server.port}, at most {server.max_connections:,} connections",
            f"a page to try it: http://{HERE}:{server.port}/",
        ]
    elsewhere = application(echo)

    @elsewhere.get("/health")
    async def health(call: Call) -> str:
        return "ok"

    for app in (application(echo), elsewhere):
        async with running(app, 0, host=HERE) as server:
            [line] = describe(server)
            assert line == f"listening on ws://{HERE}:{server.port}, at most {server.max_connections:,} connections"


@pytest.mark.parametrize(
    ("host", "listening", "page"),
    [
        ("0.0.0.0", "0.0.0.0", "127.0.0.1"),
        pytest.param("::", "[::]", "[::1]", marks=ipv6),
        pytest.param("::1", "[::1]", "[::1]", marks=ipv6),
    ],
)
async def test_the_page_has_an_address_that_opens(host: str, listening: str, page: str) -> None:
    """Every interface is where it listens, and nowhere to go."""
    async with running(with_page(), 0, host=host) as server:
        assert describe(server) == [
            f"listening on ws://{listening}:{server.port}, at most {server.max_connections:,} connections",
            f"a page to try it: http://{page}:{server.port}/",
        ]


async def test_each_address_is_named_and_one_page() -> None:
    """With TLS where there is TLS, and no page where no browser gets to."""
    memory = MemoryListener()
    [plain] = await trio.open_tcp_listeners(0, host=HERE)
    [inner] = await trio.open_tcp_listeners(0, host=HERE)
    secure = trio.SSLListener(inner, tls()[0])
    ports = [listener.socket.getsockname()[1] for listener in (plain, inner)]
    async with running(with_page(), listeners=[memory, secure, plain]) as server:
        assert describe(server) == [
            "listening on a MemoryListener",
            f"listening on wss://{HERE}:{ports[1]}",
            f"listening on ws://{HERE}:{ports[0]}, at most {server.max_connections:,} connections",
            f"a page to try it: https://{HERE}:{ports[1]}/",
        ]
    async with running(with_page(), 0, host=HERE, ssl_context=tls()[0]) as server:
        assert describe(server) == [
            f"listening on wss://{HERE}:{server.port}, at most {server.max_connections:,} connections",
            f"a page to try it: https://{HERE}:{server.port}/",
        ]


async def test_a_unix_socket_has_no_page_to_open(tmp_path: Path) -> None:
    """Browsers cannot go there."""
    path = tmp_path / "socket"
    async with running(with_page(), path=path) as server:
        assert describe(server) == [f"listening on {path}, at most {server.max_connections:,} connections"]


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


class SecureClient(RawClient):
    """A raw client behind TLS."""

    def __init__(self, stream: trio.SSLStream[Any]) -> None:
        super().__init__(stream)  # type: ignore[arg-type]


async def test_a_server_speaks_tls() -> None:
    """The scheme is wss, the client's address is known, the close is clean on both sides."""
    schemes: list[object] = []
    ours, theirs = tls()

    async def handler(session: WebSocketSession) -> None:
        schemes.append(session.call.scheme)
        assert isinstance(session.call.client, tuple)
        schemes.append(session.call.client[0])
        await echo(session)

    async with running(application(handler), 0, host=HERE, ssl_context=ours) as server:
        stream = trio.SSLStream(
            await trio.open_tcp_stream(HERE, server.port), theirs, server_hostname="localhost", https_compatible=True
        )
        await assert_echoes(SecureClient(stream))
    assert schemes == ["wss", HERE]


async def test_a_big_message_passes_through_tls() -> None:
    """1 MiB there and back, in records of 16 KiB."""
    ours, theirs = tls()
    message = Frame.Binary(os.urandom(1 << 20))
    async with running(application(echo), 0, host=HERE, ssl_context=ours) as server:
        client = SecureClient(
            trio.SSLStream(await trio.open_tcp_stream(HERE, server.port), theirs, server_hostname="localhost")
        )
        await client.upgrade()
        await client.send(message)
        assert await client.receive() == message
        await client.aclose()


@pytest.mark.parametrize("first", [REQUEST % b"/", b"\x00" * 50, b""], ids=["HTTP", "zeroes", "nothing"])
async def test_a_plain_client_of_a_tls_server_is_turned_away(first: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It gets no HTTP, nobody is alarmed, and the next client is served."""
    ours, theirs = tls()
    async with running(application(echo), 0, host=HERE, ssl_context=ours) as server:
        plain = await trio.open_tcp_stream(HERE, server.port)
        if first:
            await plain.send_all(first)
        else:
            await plain.send_eof()
        data = b""
        with trio.fail_after(5):
            try:
                while chunk := await plain.receive_some():
                    data += chunk
            except trio.BrokenResourceError:
                pass
        assert b"HTTP" not in data
        await plain.aclose()
        stream = trio.SSLStream(await trio.open_tcp_stream(HERE, server.port), theirs, server_hostname="localhost")
        await assert_echoes(SecureClient(stream))
    assert records_above_info(caplog) == []


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["silent", "half a hello"])
async def test_a_tls_handshake_that_gets_stuck_ends_with_open_timeout(sent: bytes, autojump_clock: Clock) -> None:
    """One deadline for TLS and head together."""
    async with serving(application(echo), ssl_context=tls()[0], open_timeout=7) as (_, connect):
        client = await connect()
        began = trio.current_time()
        if sent:
            await client.send_bytes(sent)
        assert await client.stream.receive_some() == b""
        assert trio.current_time() - began == 7
        await client.aclose()


async def test_tls_and_head_share_one_deadline(autojump_clock: Clock) -> None:
    """A handshake that takes long leaves less for the head."""
    ours, theirs = tls()
    async with serving(application(echo), ssl_context=ours, open_timeout=7) as (_, connect):
        client = await connect()
        began = trio.current_time()
        await trio.sleep(5)
        stream = trio.SSLStream(client.stream, theirs, server_hostname="localhost", https_compatible=True)
        await stream.do_handshake()
        assert await stream.receive_some() == b""
        assert trio.current_time() - began == 7
        await trio.aclose_forcefully(stream)


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


async def test_aclose_inside_a_handler_does_not_wait_for_that_handler(autojump_clock: Clock) -> None:
    """It would wait for itself. The others are gone when it returns."""
    servers: list[Server] = []
    after: list[int] = []

    async def handler(session: WebSocketSession) -> None:
        if session.call.query:
            await servers[0].aclose()
            after.append(len(servers[0].sessions))
        else:
            await echo(session)

    async with serving(application(handler)) as (server, connect):
        servers.append(server)
        other, client = await connect(), await connect()
        await other.upgrade()
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                assert await other.receive() == close(1001)
                await other.send(close(1001))

            nursery.start_soon(answer)
            await client.upgrade(b"/?stop")
            began = trio.current_time()
            assert await client.receive() in (close(1001), close(1000))
            await client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert after == [1]
        assert trio.current_time() - began < 1
        assert server.sessions == ()
        await other.aclose()


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


async def test_what_handlers_raise_never_leaves_serve(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """An exception, a group of them, the end of somebody else's conversation: all are logged, the server goes on."""
    errors: list[Exception] = [ValueError("a"), ExceptionGroup("b", [ValueError("c"), OSError("d")]), OSError("e")]

    async def handler(session: WebSocketSession) -> None:
        raise errors[int(session.call.parameters["n"])]

    async with serving(application(handler)) as (server, connect):
        for number in range(len(errors)):
            client = await connect()
            await client.upgrade(b"/?n=%d" % number)
            assert await client.receive() == close(1011)
            await client.aclose()
            await trio.testing.wait_all_tasks_blocked()
        assert server.sessions == ()
    assert len(records_above_info(caplog)) == len(errors)


# one stream


@pytest.mark.parametrize("kind", ["memory", "lockstep", "socket"])
async def test_handle_stream_is_one_connection_and_closes_its_stream(kind: str) -> None:
    """Any `trio.abc.Stream`: its own end is closed when it returns."""
    ours: Any
    theirs: Any
    if kind == "socket":
        first, second = trio.socket.socketpair()
        ours, theirs = trio.SocketStream(first), trio.SocketStream(second)
    else:
        ours, theirs = getattr(trio.testing, f"{kind}_stream_pair")()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application(echo).handle_stream, theirs)
        await assert_echoes(RawClient(ours))
    with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError)):
        await theirs.send_all(b"x")


async def test_handle_stream_speaks_tls_where_the_stream_does(autojump_clock: Clock) -> None:
    """The handshake of an `SSLStream` is done there."""
    server, client = tls()
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            application(echo).handle_stream,
            trio.SSLStream(theirs, server, server_side=True, https_compatible=True),
        )
        stream = trio.SSLStream(ours, client, server_hostname="localhost", https_compatible=True)
        await assert_echoes(SecureClient(stream))


async def test_handle_stream_cancelled_says_1001_within_a_second(autojump_clock: Clock) -> None:
    """As one connection of a cancelled `serve`."""
    ours, theirs = trio.testing.memory_stream_pair()
    client = RawClient(ours)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(application(endless).handle_stream, theirs)
            await client.upgrade()
            began = trio.current_time()
            scope.cancel()
    assert trio.current_time() - began <= 1
    assert (await client.receive_rest())[0] == close(1001)
    await client.aclose()


# GET handlers


def slow_page(body: Callable[[], Awaitable[object]]) -> Application:
    """An application with a page that takes its time."""
    app = application(echo)

    @app.get("/page")
    async def page(call: Call) -> str:
        await body()
        return "a page"

    return app


async def get(stream: Any) -> bytes:
    """Ask for the page; the whole answer."""
    await stream.send_all(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while data := await stream.receive_some():
        answer += data
    return answer


async def test_a_get_handler_has_a_deadline(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond it the client is told, and the log names the page."""
    listener = MemoryListener()
    async with serving(slow_page(trio.sleep_forever), listener, response_timeout=7):
        stream = await listener.connect()
        answer = await get(stream)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"the server took too long\n")
        assert trio.current_time() == pytest.approx(7, abs=1)
    assert ["the handler of GET /page took longer than 7 s"] == [
        record.getMessage() for record in records_above_info(caplog)
    ]


async def test_aclose_waits_for_get_handlers(autojump_clock: Clock) -> None:
    """Within `shutdown_grace`; their answer goes out."""
    listener = MemoryListener()
    async with serving(slow_page(partial(trio.sleep, 3)), listener, shutdown_grace=5) as (server, _):
        stream = await listener.connect()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert (await get(stream)).endswith(b"a page")

            nursery.start_soon(ask)
            await trio.sleep(1)
            await server.aclose()
            assert 3 <= trio.current_time() < 5


async def test_aclose_cancels_get_handlers_that_take_longer(autojump_clock: Clock) -> None:
    """Their clients are told that the server is shutting down."""
    listener = MemoryListener()
    async with serving(slow_page(trio.sleep_forever), listener, shutdown_grace=5) as (server, _):
        stream = await listener.connect()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                answer = await get(stream)
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert answer.endswith(b"the server is shutting down\n")

            nursery.start_soon(ask)
            await trio.sleep(1)
            await server.aclose()
            assert 6 <= trio.current_time() < 7


async def test_aclose_inside_a_get_handler_does_not_wait_for_itself(autojump_clock: Clock) -> None:
    """It would wait for ever; its own answer still goes out."""
    listener = MemoryListener()
    servers: list[Server] = []

    async def close() -> None:
        await servers[0].aclose()

    async with serving(slow_page(close), listener) as (server, _):
        servers.append(server)
        assert (await get(await listener.connect())).endswith(b"a page")


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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract names")
@pytest.mark.parametrize("name", [b"\0", b"\0abstract", b"\0\xff\xfe"])
async def test_no_name_of_a_client_ends_the_server(name: bytes, tmp_path: Path) -> None:
    """One in the abstract namespace comes as bytes."""
    path = tmp_path / "server"
    async with running(application(echo), path=path):
        for bound in (name, None):
            client = trio.socket.socket(socket.AF_UNIX)
            if bound is not None:
                await client.bind(bound)
            await client.connect(str(path))
            await assert_echoes(RawClient(trio.SocketStream(client)))


class _Unreadable(trio.abc.Stream):
    """A stream that fails as soon as it is looked at."""

    closed = False

    @property
    def transport_stream(self) -> object:
        raise ZeroDivisionError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise ZeroDivisionError

    async def wait_send_all_might_not_block(self) -> None:
        raise ZeroDivisionError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise ZeroDivisionError

    async def aclose(self) -> None:
        self.closed = True


async def test_whatever_goes_wrong_behind_accept_ends_that_connection_alone(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, its stream is closed, and the next one is served."""
    real = streams.open_transport

    def open_transport(stream: trio.abc.Stream) -> Any:
        if isinstance(stream, _Unreadable):
            raise ZeroDivisionError
        return real(stream)

    monkeypatch.setattr("trioktor.server.host.open_transport", open_transport)
    listener = MemoryListener()
    bad = _Unreadable()
    async with serving(application(echo), listener) as (_, connect):
        await listener._send.send(bad)
        await assert_echoes(await connect())
    assert bad.closed
    assert len(records_above_info(caplog)) == 1


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
