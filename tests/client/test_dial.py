"""Ways to a server: TCP, UNIX sockets, TLS, proxies, and streams of others."""

from __future__ import annotations

import base64
import functools
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio.testing
import trustme
from trio.testing import MockClock

from tests.support.helpers import application
from trioktor import (
    Application,
    Call,
    CannotConnect,
    HandshakeRefused,
    Response,
    Server,
    WebSocketSession,
    connect,
    serve,
)
from trioktor.client import dial as dialling

HERE: Final = "127.0.0.1"


def echo_application() -> Application:
    """Echo, and say who asks."""

    async def echo(session: WebSocketSession) -> None:
        async for frame in session:
            await session.send(frame)

    app = application(echo, origins=None)

    @app.websocket("/client")
    async def client(session: WebSocketSession) -> None:
        await session.send(repr(session.call.client))

    return app


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Server]:
    """A server while the block lasts."""
    async with trio.open_nursery() as nursery:
        if "path" not in options:
            options = {"port": 0, "host": HERE, **options}
        server: Server = await nursery.start(lambda **kept: serve(echo_application(), **options, **kept))
        yield server
        nursery.cancel_scope.cancel()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Whom the certificates here are from."""
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts it."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def certified(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """A server's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def says(url: str, **options: Any) -> str:
    """What an echo says."""
    async with connect(url, **options) as session:
        await session.send("hello")
        return await session.receive_text()


async def test_tcp() -> None:
    """A name, an address, and where it connects from."""
    async with serving() as server:
        assert await says(f"ws://localhost:{server.port}/") == "hello"
        async with connect(f"ws://{HERE}:{server.port}/client", local_address="127.0.0.9") as session:
            assert "'127.0.0.9'" in await session.receive_text()


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6")
async def test_ipv6() -> None:
    """An address in brackets."""
    try:
        async with serving(host="::1") as server:
            assert await says(f"ws://[::1]:{server.port}/") == "hello"
    except* OSError:
        pytest.skip("there is no IPv6")


async def test_unix(tmp_path: Path) -> None:
    """The address names host and path; nobody there is said."""
    path = str(tmp_path / "socket")
    async with serving(path=path):
        assert await says("ws://localhost/", path=path) == "hello"
    with pytest.raises(CannotConnect, match=r"No such file|refused") as caught:
        await says("ws://localhost/", path=path + "x")
    assert caught.value.addresses == (path + "x",)


async def test_a_redirect_stays_at_a_unix_socket(tmp_path: Path) -> None:
    """On the same origin it is followed there; away from it it is not."""
    path = str(tmp_path / "socket")
    app = echo_application()

    @app.get("/away")
    async def away(call: Call) -> Response:
        return Response("", status=302, headers={"Location": call.parameters["to"]})

    async with trio.open_nursery() as nursery:
        await nursery.start(functools.partial(serve, app, path=path))
        assert await says("ws://localhost/away?to=/", path=path, max_redirects=1) == "hello"
        with pytest.raises(HandshakeRefused, match="away from the UNIX socket"):
            await says("ws://localhost/away?to=ws://other.example/", path=path, max_redirects=1)
        nursery.cancel_scope.cancel()


async def test_tls(authority: trustme.CA, trusting: ssl.SSLContext, tmp_path: Path) -> None:
    """Over TCP, and over a UNIX socket, where the certificate's name is given."""
    async with serving(ssl_context=certified(authority, "localhost")) as server:
        assert await says(f"wss://localhost:{server.port}/", ssl_context=trusting) == "hello"
        url = f"wss://{HERE}:{server.port}/"
        assert await says(url, ssl_context=trusting, server_hostname="localhost") == "hello"
        with pytest.raises(CannotConnect, match=r"TLS.*failed") as caught:
            await says(url, ssl_context=trusting)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        with pytest.raises(CannotConnect, match="TLS"):  # nobody of whom the system knows
            await says(f"wss://localhost:{server.port}/")
    path = str(tmp_path / "socket")
    async with serving(path=path, ssl_context=certified(authority, "localhost")):
        assert await says("wss://localhost/", path=path, ssl_context=trusting) == "hello"


async def test_a_tls_handshake_that_never_ends(trusting: ssl.SSLContext, autojump_clock: MockClock) -> None:
    """`open_timeout` is for it, too, and the stream is closed then."""
    ended: list[float] = []

    async def silent(stream: trio.abc.HalfCloseableStream) -> None:
        while await stream.receive_some():
            pass
        ended.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(silent, theirs)
        began = trio.current_time()
        with pytest.raises(CannotConnect, match="3 s"):
            async with connect("wss://localhost/", stream=ours, ssl_context=trusting, open_timeout=3):
                pass
        await trio.testing.wait_all_tasks_blocked()
    assert ended == [pytest.approx(began + 3)]


async def test_the_certificate_of_a_redirects_host(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    """`server_hostname` is for the host that was asked for, and for no other."""
    app = echo_application()
    second_port = 0

    @app.get("/away")
    async def away(call: Call) -> Response:
        return Response("", status=307, headers={"Location": f"wss://localhost:{second_port}/"})

    first, second = certified(authority, "first.example"), certified(authority, "localhost")
    async with trio.open_nursery() as nursery:
        start = functools.partial(serve, port=0, host=HERE)
        one: Server = await nursery.start(functools.partial(start, app, ssl_context=first))
        two: Server = await nursery.start(functools.partial(start, echo_application(), ssl_context=second))
        second_port = two.port
        answer = await says(
            f"wss://{HERE}:{one.port}/away", ssl_context=trusting, server_hostname="first.example", max_redirects=1
        )
        assert answer == "hello"
        nursery.cancel_scope.cancel()


async def test_a_name_that_ends_with_a_dot(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    """TLS is told it without (RFC 6066 §3)."""
    app = echo_application()
    async with trio.open_nursery() as nursery:
        start = functools.partial(serve, app, port=0, host=HERE, ssl_context=certified(authority, "localhost"))
        server: Server = await nursery.start(start)
        dial = functools.partial(trio.open_tcp_stream, HERE, server.port)
        assert await says("wss://localhost./", ssl_context=trusting, stream=dial) == "hello"
        named = {"server_hostname": "localhost."}
        assert await says("wss://other/", ssl_context=trusting, stream=dial, **named) == "hello"
        nursery.cancel_scope.cancel()


async def test_tls_where_there_is_none(trusting: ssl.SSLContext) -> None:
    """It is no certificate that is bad."""
    async with serving() as server:
        with pytest.raises(CannotConnect, match="TLS"):
            await says(f"wss://localhost:{server.port}/", ssl_context=trusting)


async def test_an_interface_is_nothing_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked up with the address, and not said to the server (RFC 6874 §4)."""
    asked: list[tuple[str, int]] = []

    async def open_tcp_stream(host: str, port: int, **_: object) -> trio.SocketStream:
        asked.append((host, port))
        raise UnicodeError("no such name")

    monkeypatch.setattr("trio.open_tcp_stream", open_tcp_stream)
    for url in ("ws://[fe80::1%25eth0]:8080/", "ws://[fe80::1%25Eth1]/"):
        with pytest.raises(CannotConnect, match="no such name"):
            await says(url)
    assert asked == [("fe80::1%eth0", 8080), ("fe80::1%Eth1", 80)]


async def test_nobody_is_there() -> None:
    """The error is an `OSError`, and says which addresses were tried, and why it failed."""
    with socket.socket() as nobody:
        nobody.bind((HERE, 0))
        port = nobody.getsockname()[1]
        with pytest.raises(OSError, match="refused") as caught:
            await says(f"ws://localhost:{port}/")
    assert isinstance(caught.value, CannotConnect)
    assert HERE in caught.value.addresses
    with pytest.raises(CannotConnect) as caught_too:
        await says("ws://no-such-host.invalid/")
    assert caught_too.value.addresses == ()


async def test_addresses_that_are_not_told_at_once_are_not_waited_for(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second, beside what the attempt itself took."""

    async def for_ever(*_: object, **__: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("trio.socket.getaddrinfo", for_ever)
    assert await dialling.look_up("somewhere.example", 80) == ()
    assert trio.current_time() == pytest.approx(1)


@pytest.mark.parametrize("host", ["localhost", HERE])
async def test_the_addresses_that_did_not_answer(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are named when the time is up, too."""

    async def for_ever(*_: object, **__: object) -> trio.SocketStream:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr("trio.open_tcp_stream", for_ever)
    monkeypatch.setattr("trioktor.engine.sockets.SocketTransport.connect", for_ever)
    with pytest.raises(CannotConnect, match=r"within 0\.05 s") as caught:
        await says(f"ws://{host}:1/", open_timeout=0.05)
    assert HERE in caught.value.addresses


async def test_a_stream_of_somebody_else(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    """It is taken as it stands; for wss TLS is spoken on it, unless it is there already."""
    async with serving() as server:
        stream = await trio.open_tcp_stream(HERE, server.port)
        assert await says("ws://anything/", stream=stream) == "hello"
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"it is closed")
    async with serving(ssl_context=certified(authority, "localhost")) as server:
        for is_ready in (False, True):
            plain = await trio.open_tcp_stream(HERE, server.port)
            ready = trio.SSLStream(plain, trusting, server_hostname="localhost") if is_ready else plain
            assert await says("wss://localhost/", stream=ready, ssl_context=trusting) == "hello"


# proxies


class HttpProxy:
    """A proxy that tunnels by CONNECT."""

    def __init__(self, answer: bytes = b"HTTP/1.0 200 Connection established\r\n\r\n", more: bytes = b"") -> None:
        self.heads: list[str] = []
        self._answer = answer
        self._more = more

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one client."""
        head = b""
        try:
            while b"\r\n\r\n" not in head:
                chunk = await stream.receive_some()
                if not chunk:
                    return
                head += chunk
            self.heads.append(head.decode())
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            if self._answer.startswith(b"HTTP/1.0 200") and not self._more:
                async with await trio.open_tcp_stream(host.strip("[]"), int(port)) as other:
                    await stream.send_all(self._answer)
                    await pump_both(stream, other)
            else:
                await stream.send_all(self._answer + self._more)
        except (trio.BrokenResourceError, OSError):
            pass  # the client has seen enough
        finally:
            await trio.aclose_forcefully(stream)


async def pump_both(one: trio.abc.Stream, other: trio.abc.Stream) -> None:
    """Carry bytes both ways until one has ended."""

    async def pump(source: trio.abc.Stream, target: trio.abc.Stream, scope: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some():
                await target.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump, one, other, nursery.cancel_scope)
        nursery.start_soon(pump, other, one, nursery.cancel_scope)


@asynccontextmanager
async def listening(handler: Any) -> AsyncIterator[int]:
    """The port of something that listens."""
    [listener] = await trio.open_tcp_listeners(0, host=HERE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handler, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_through_an_http_proxy(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    """For ws as for wss by CONNECT; its user information goes to it alone."""
    proxy = HttpProxy()
    async with listening(proxy.handle) as port:
        url = f"http://ada:se%3Acret@{HERE}:{port}"
        async with serving() as server:
            assert await says(f"ws://{HERE}:{server.port}/", proxy=url) == "hello"
            assert proxy.heads[0].split("\r\n")[0] == f"CONNECT {HERE}:{server.port} HTTP/1.1"
            assert f"Host: {HERE}:{server.port}" in proxy.heads[0]
            assert "Proxy-Authorization: Basic " + base64.b64encode(b"ada:se:cret").decode() in proxy.heads[0]
        async with serving(ssl_context=certified(authority, "localhost")) as server:
            assert await says(f"wss://localhost:{server.port}/", proxy=url, ssl_context=trusting) == "hello"


async def test_through_a_proxy_with_tls(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    """TLS to the proxy, and TLS to the server inside of it."""
    proxy = HttpProxy()

    async def secured(stream: trio.SocketStream) -> None:
        await proxy.handle(trio.SSLStream(stream, certified(authority, "localhost"), server_side=True))

    async with listening(secured) as port, serving(ssl_context=certified(authority, "localhost")) as server:
        url = f"wss://localhost:{server.port}/"
        assert await says(url, proxy=f"https://localhost:{port}", ssl_context=trusting) == "hello"
        with pytest.raises(CannotConnect, match="TLS"):
            await says(url, proxy=f"https://localhost:{port}")
    assert len(proxy.heads) == 1


async def test_a_proxy_that_is_not_there_is_named() -> None:
    """As one, for it may be the environment that asks for it."""
    with socket.socket() as nobody:
        nobody.bind((HERE, 0))
        with pytest.raises(CannotConnect, match=rf"^cannot connect to the proxy {HERE} port .*refused"):
            await says(f"ws://{HERE}:1/", proxy=f"http://{HERE}:{nobody.getsockname()[1]}")


async def test_what_opens_no_stream_is_named() -> None:
    """When it has opened it."""

    async def nothing() -> Any:
        await trio.lowlevel.checkpoint()

    with pytest.raises(TypeError, match=r"stream must open a trio\.abc\.Stream, not None"):
        await says("ws://localhost/", stream=nothing)


async def test_ctrl_c_while_it_connects_comes_out_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though several addresses are tried in a nursery."""

    async def interrupted(*_: object, **__: object) -> trio.SocketStream:
        raise BaseExceptionGroup("ways", [BaseExceptionGroup("nursery", [KeyboardInterrupt()])])

    monkeypatch.setattr("trio.open_tcp_stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        await says("ws://localhost/")


@pytest.mark.parametrize(
    ("proxy", "text"),
    [
        (HttpProxy(b"HTTP/1.1 407 Who are you\r\nContent-Length: 2\r\n\r\nno"), "answered 407"),
        (HttpProxy(b"SSH-2.0\r\n\r\n"), "answered wrongly"),
        (HttpProxy(b""), "did not answer"),
        (HttpProxy(more=b"and more"), "of its own"),
    ],
    ids=["refuses", "no HTTP", "hangs up", "says more"],
)
async def test_a_proxy_that_does_not_do_it(proxy: HttpProxy, text: str) -> None:
    """Nobody was reached; what it answered stands behind it."""
    async with listening(proxy.handle) as port:
        with pytest.raises(CannotConnect, match=text) as caught:
            await says(f"ws://{HERE}:1/", proxy=f"http://user:secret@{HERE}:{port}")
    assert "secret" not in str(caught.value)
    if "407" in text:
        assert isinstance(caught.value.__cause__, HandshakeRefused)
        assert caught.value.__cause__.status == 407


async def socks_server(stream: trio.SocketStream) -> None:
    """A proxy that speaks SOCKS 5 (RFC 1928), for user ada (RFC 1929)."""
    async with stream:
        await stream.receive_some()
        await stream.send_all(b"\x05\x02")
        if await stream.receive_some() != b"\x01\x03ada\x06secret":
            await stream.send_all(b"\x01\x01")
            return
        await stream.send_all(b"\x01\x00")
        request = await stream.receive_some()
        host = request[5:-2].decode() if request[3] == 3 else socket.inet_ntoa(request[4:8])
        async with await trio.open_tcp_stream(host, int.from_bytes(request[-2:], "big")) as other:
            await stream.send_all(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            await pump_both(stream, other)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_through_socks(scheme: str) -> None:
    """By python-socks; a wrong password is said."""
    pytest.importorskip("python_socks")
    async with listening(socks_server) as port, serving() as server:
        url = f"ws://localhost:{server.port}/"
        assert await says(url, proxy=f"{scheme}://ada:secret@{HERE}:{port}") == "hello"
        with pytest.raises(CannotConnect, match="proxy"):
            await says(url, proxy=f"{scheme}://ada:wrong@{HERE}:{port}")
    with pytest.raises(CannotConnect, match="proxy"):
        await says("ws://localhost:1/", proxy=f"{scheme}://ada:secret@{HERE}:1")


async def socks4_server(stream: trio.SocketStream) -> None:
    """A proxy that speaks SOCKS 4 and 4a, for user ada."""
    async with stream:
        request = await stream.receive_some()
        port, address = int.from_bytes(request[2:4], "big"), bytes(request[4:8])
        user, _, name = bytes(request[8:]).partition(b"\0")
        if user != b"ada":
            await stream.send_all(b"\0\x5d" + bytes(6))
            return
        host = name.rstrip(b"\0").decode() if address[:3] == bytes(3) else socket.inet_ntoa(address)
        async with await trio.open_tcp_stream(host, port) as other:
            await stream.send_all(b"\0\x5a" + bytes(6))
            await pump_both(stream, other)


@pytest.mark.parametrize(("scheme", "host"), [("socks4", HERE), ("socks4a", "localhost")])
async def test_through_the_older_socks(scheme: str, host: str) -> None:
    """It has user names, and no passwords."""
    pytest.importorskip("python_socks")
    async with listening(socks4_server) as port, serving() as server:
        url = f"ws://{host}:{server.port}/"
        assert await says(url, proxy=f"{scheme}://ada@{HERE}:{port}") == "hello"
        with pytest.raises(CannotConnect, match="proxy"):
            await says(url, proxy=f"{scheme}://eve@{HERE}:{port}")


async def test_the_environment_is_asked_only_if_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """`proxy=True`; the default goes straight."""
    proxy = HttpProxy()
    async with listening(proxy.handle) as port, serving() as server:
        monkeypatch.setenv("http_proxy", f"http://{HERE}:{port}")
        monkeypatch.setenv("no_proxy", "")
        url = f"ws://{HERE}:{server.port}/"
        assert await says(url) == await says(url, proxy=False) == "hello"
        assert proxy.heads == []
        assert await says(url, proxy=True) == "hello"
        assert len(proxy.heads) == 1
        monkeypatch.setenv("no_proxy", HERE)
        assert await says(url, proxy=True) == "hello"
        assert len(proxy.heads) == 1


def test_the_default_context_is_read_once() -> None:
    """Reading what the system trusts takes long."""
    assert dialling._default_context() is dialling._default_context()
