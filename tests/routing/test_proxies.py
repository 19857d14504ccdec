"""What a proxy says of the client, of whom it is believed, and how many connections an address may have."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio.testing

from tests.support.helpers import REQUEST, RawClient, client_bytes, close, records_above_info
from tests.support.listening import serving
from trioktor import Application, Call, Frame, Headers, Response, Server, WebSockets, WebSocketSession, serve
from trioktor.routing.proxies import Forwarded, Proxies
from trioktor.testing import handle_websocket_conversation, open_test_host

Clock = trio.testing.MockClock
HERE: Final = "127.0.0.1"
PROXY: Final = ("10.0.0.1", 4711)
TRUSTED: Final = ("10.0.0.0/8", "2001:db8:ffff::/48")


def read(*lines: tuple[str, str], peer: Any = PROXY, trusted: Sequence[str] = TRUSTED) -> Forwarded | None:
    """What a proxy that sends these headers is understood to say."""
    headers = Headers(tuple((name.lower().encode(), value.encode("latin-1")) for name, value in lines))
    header = "Forwarded" if "forwarded" in headers else "X-Forwarded-For"
    return Proxies().with_more(trusted, header).read(peer, headers, is_local=not isinstance(peer, tuple))


def client_of(*lines: tuple[str, str]) -> tuple[str, int] | None:
    """The client that a trusted proxy names."""
    forwarded = read(*lines)
    assert forwarded is not None
    return forwarded.client


# who is trusted


@pytest.mark.parametrize(
    ("peer", "trusted", "expected"),
    [
        (("10.0.0.1", 1), ["10.0.0.1"], True),
        (("10.0.0.2", 1), ["10.0.0.1"], False),
        (("10.255.0.1", 1), ["10.0.0.0/8"], True),
        (("11.0.0.1", 1), ["10.0.0.0/8"], False),
        (("11.0.0.1", 1), ["10.0.0.0/8", "11.0.0.1"], True),
        (("::1", 1), ["::1"], True),
        (("::1", 1), ["127.0.0.1"], False),
        (("2001:db8::7", 1), ["2001:db8::/32"], True),
        (("2001:DB8:0:0::7", 1), ["2001:db8::7"], True),
        (("::ffff:10.0.0.1", 1), ["10.0.0.0/8"], True),
        (("::ffff:11.0.0.1", 1), ["10.0.0.0/8"], False),
        (("::ffff:10.0.0.1", 1), ["::ffff:10.0.0.1"], True),
        (("::ffff:10.0.0.1", 1), ["::ffff:10.0.0.0/104"], True),
        (("10.0.0.1", 1), ["::ffff:10.0.0.1"], True),
        (("fe80::1%eth0", 1), ["fe80::/10"], True),
        (("fe80::1%eth0", 1), ["10.0.0.0/8"], False),
        (("10.0.0.1", 1), ["0.0.0.0/0"], True),
        (("::1", 1), ["0.0.0.0/0"], False),
        (("10.0.0.1", 1), [], False),
        (("10.0.0.1", 1), ["unix"], False),
        (("unix", 1), ["unix"], False),
        ("/run/proxy.sock", ["unix"], True),
        (None, ["unix"], True),
        ("/run/proxy.sock", ["10.0.0.0/8"], False),
        (None, ["0.0.0.0/0", "::/0"], False),
        (None, [], False),
    ],
    ids=str,
)
def test_only_named_proxies_are_trusted(peer: Any, trusted: Sequence[str], expected: bool) -> None:
    """Addresses, networks, mapped addresses on a socket for both families, and UNIX sockets."""
    assert (
        Proxies().with_more(trusted, "X-Forwarded-For").is_trusted(peer, is_local=not isinstance(peer, tuple))
        == expected
    )
    lines = [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https")]
    assert read(*lines, peer=peer, trusted=trusted) == (Forwarded(("192.0.2.1", 0), True) if expected else None)


@pytest.mark.parametrize(
    "network",
    ["", "*", "all", "localhost", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "010.0.0.1", " 10.0.0.1", "10.0.0.1:80",
     "[::1]", "::1/64", "UNIX", "unix:/run/x", "10.0.0.0/8, 11.0.0.0/8", "/run/proxy.sock", None, ["10.0.0.1"]],
    ids=repr,
)  # fmt: skip
def test_what_is_no_network_is_a_value_error(network: Any) -> None:
    """At the line where it is written; the text says what it was, and nothing is half registered."""
    app = Application()
    with pytest.raises(ValueError, match="not a proxy's address, network, or 'unix'") as caught:
        app.trust_proxies("10.0.0.1", network)
    assert repr(network) in str(caught.value)
    assert not app.registry.proxies.is_trusted(("10.0.0.1", 1), is_local=False)


def test_proxies_may_be_named_one_after_another() -> None:
    """Each call adds to those before."""
    app = Application()
    app.trust_proxies("10.0.0.1")
    app.trust_proxies()
    app.trust_proxies("10.0.0.2", "unix")
    peers = [("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 1), None]
    assert [app.registry.proxies.is_trusted(peer, is_local=peer is None) for peer in peers] == [True, True, False, True]


async def test_proxies_are_frozen_with_the_application(autojump_clock: Clock) -> None:
    """Whom to trust does not change under a running server."""
    app = telling()
    async with handle_websocket_conversation(app, "/"):
        pass
    with pytest.raises(RuntimeError, match="has been served: install and register before that"):
        app.trust_proxies("10.0.0.1")


# X-Forwarded-For


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["192.0.2.1"], ("192.0.2.1", 0)),
        (["192.0.2.1:80"], ("192.0.2.1", 80)),
        (["2001:db8::1"], ("2001:db8::1", 0)),
        (["[2001:db8::1]"], ("2001:db8::1", 0)),
        (["[2001:db8::1]:80"], ("2001:db8::1", 80)),
        (["2001:DB8:0::1"], ("2001:db8::1", 0)),
        # from the right: what stands left of the first that is not trusted may be made up
        (["6.6.6.6, 192.0.2.1"], ("192.0.2.1", 0)),
        (["6.6.6.6", "192.0.2.1"], ("192.0.2.1", 0)),
        (["6.6.6.6, 192.0.2.1, 10.0.0.2, 10.0.0.3"], ("192.0.2.1", 0)),
        (["6.6.6.6", "192.0.2.1,10.0.0.2", "10.0.0.3"], ("192.0.2.1", 0)),
        (["10.0.0.9, 192.0.2.1"], ("192.0.2.1", 0)),
        (["127.0.0.1, 192.0.2.1"], ("192.0.2.1", 0)),
        (["192.0.2.1, ::ffff:10.0.0.2"], ("192.0.2.1", 0)),
        (["192.0.2.1, 2001:db8:ffff::2"], ("192.0.2.1", 0)),
        (["6.6.6.6, 192.0.2.1, [2001:db8:ffff::2]:443"], ("192.0.2.1", 0)),
        (["10.0.0.3, 10.0.0.2"], ("10.0.0.3", 0)),
        ([" ,192.0.2.1,, "], ("192.0.2.1", 0)),
        (["192.0.2.1\t"], ("192.0.2.1", 0)),
        # what is no address ends the search
        (["garbage"], None),
        (["192.0.2.1, garbage"], None),
        (["192.0.2.1, unknown, 10.0.0.2"], ("10.0.0.2", 0)),
        (["6.6.6.6, garbage, 192.0.2.1"], ("192.0.2.1", 0)),
        (["unix"], None),
        (["localhost"], None),
        (["192.0.2"], None),
        (["192.0.2.256"], None),
        (["010.1.1.1"], None),
        (["3221225985"], None),
        (["0x7f000001"], None),
        (["192.0.2.1/32"], None),
        (["192.0.2.1 10.0.0.2"], None),
        (['"192.0.2.1"'], None),
        (["for=192.0.2.1"], None),
        (["\xb9\xb9.1.1.1"], None),
        (["[2001:db8::1"], None),
        (["2001:db8::1]"], None),
        (["[2001:db8::1]junk"], None),
        (["[2001:db8::1]80"], None),
        ([":80"], None),
        (["[]:80"], None),
        ([":::"], None),
        (["1" * 8000], None),
        ([""], None),
        ([], None),
    ],
    ids=ascii,
)
def test_x_forwarded_for_is_read_from_the_right(lines: Sequence[str], expected: tuple[str, int] | None) -> None:
    """The first that is no trusted proxy's is the client, whatever the client put in front of it."""
    assert client_of(*(("X-Forwarded-For", line) for line in lines)) == expected


@pytest.mark.parametrize(
    "port", ["0", "65535", "65536", "99999", "-1", "+80", "8_0", "80x", "", "_x", "\xb2", "9" * 5000]
)
@pytest.mark.parametrize("host", ["192.0.2.1", "[2001:db8::1]"])
def test_a_port_is_a_port_or_zero(host: str, port: str) -> None:
    """What no TCP port can be never gets to the application."""
    client = client_of(("X-Forwarded-For", f"{host}:{port}"))
    assert client is None or client[1] == (65535 if port == "65535" else 0)


def test_a_long_chain_is_read_in_reasonable_time() -> None:
    """A head full of addresses, trusted and not."""
    assert client_of(("X-Forwarded-For", ", ".join(["10.0.0.2"] * 1500))) == ("10.0.0.2", 0)
    assert client_of(("X-Forwarded-For", ", ".join(["6.6.6.6"] * 1500))) == ("6.6.6.6", 0)


# X-Forwarded-Proto


@pytest.mark.parametrize(
    ("addresses", "schemes", "expected"),
    [
        ([], ["https"], True),
        ([], ["wss"], True),
        ([], ["HTTPS"], True),
        ([], ["http"], False),
        ([], ["ws"], False),
        ([], ["gopher"], False),
        ([], [], None),
        (["192.0.2.1"], ["https"], True),
        (["192.0.2.1"], ["wss"], True),
        (["192.0.2.1"], ["http"], False),
        (["192.0.2.1"], [], None),
        # one for each address: the client's own
        (["192.0.2.1, 10.0.0.2"], ["https, http"], True),
        (["192.0.2.1, 10.0.0.2"], ["http, https"], False),
        (["6.6.6.6, 192.0.2.1, 10.0.0.2"], ["https, http, https"], False),
        (["6.6.6.6, 192.0.2.1"], ["https", "http"], False),
        # one for all, or of another number: the last
        (["192.0.2.1, 10.0.0.2"], ["https"], True),
        (["192.0.2.1"], ["https, http"], False),
        # nothing but commas
        ([], [","], None),
        ([], [""], None),
        ([], [" , ,"], None),
        (["192.0.2.1"], [","], None),
    ],
    ids=str,
)
def test_x_forwarded_proto_says_whether_the_client_speaks_tls(
    addresses: Sequence[str], schemes: Sequence[str], expected: bool | None
) -> None:
    """T506: `https` and `wss` are the same; without it, it is as this server sees it."""
    lines = [("X-Forwarded-For", line) for line in addresses] + [("X-Forwarded-Proto", line) for line in schemes]
    forwarded = read(*lines)
    assert forwarded is not None
    assert forwarded.is_secure is expected


# Forwarded


@pytest.mark.parametrize(
    ("lines", "client", "is_secure"),
    [
        (["for=192.0.2.1"], ("192.0.2.1", 0), None),
        (['for="192.0.2.1:4711"'], ("192.0.2.1", 4711), None),
        (['for="[2001:db8::1]"'], ("2001:db8::1", 0), None),
        (['for="[2001:db8::1]:4711"'], ("2001:db8::1", 4711), None),
        (["For=192.0.2.1; Proto=HTTPS"], ("192.0.2.1", 0), True),
        (["for=192.0.2.1;proto=http;by=203.0.113.43"], ("192.0.2.1", 0), False),
        (["by=203.0.113.43;proto=wss;for=192.0.2.1;host=x"], ("192.0.2.1", 0), True),
        (["for=6.6.6.6, for=192.0.2.1"], ("192.0.2.1", 0), None),
        (["for=6.6.6.6", "for=192.0.2.1"], ("192.0.2.1", 0), None),
        (["for=192.0.2.1;proto=https, for=10.0.0.2;proto=http"], ("192.0.2.1", 0), True),
        (["for=6.6.6.6;proto=https, for=192.0.2.1;proto=http, for=10.0.0.2"], ("192.0.2.1", 0), False),
        (['for=192.0.2.1, for="[2001:db8:ffff::2]:443"'], ("192.0.2.1", 0), None),
        (['for="_gazonk"'], None, None),
        (["for=unknown"], None, None),
        (["for=unknown;proto=https"], None, True),
        (["for=192.0.2.1, for=unknown"], None, None),
        (["for=192.0.2.1, for=_hidden, for=10.0.0.2"], ("10.0.0.2", 0), None),
        (['for="192.0.2.1:_port"'], ("192.0.2.1", 0), None),
        (["for="], None, None),
        (["for"], None, None),
        (["="], None, None),
        ([";;;"], None, None),
        (["proto=https"], None, True),
        (["forx=192.0.2.1"], None, None),
        (["\xff=\xfe"], None, None),
    ],
    ids=ascii,
)
def test_forwarded_is_read_from_the_right(
    lines: Sequence[str], client: tuple[str, int] | None, is_secure: bool | None
) -> None:
    """RFC 7239: names without case, quoted strings, hidden and unknown nodes, chains."""
    assert read(*(("Forwarded", line) for line in lines)) == Forwarded(client, is_secure)


@pytest.mark.parametrize(
    "line",
    [
        'for=192.0.2.1;proto=http;host="a,for=6.6.6.6;proto=https"',
        'for=192.0.2.1;proto=http;host="a;for=6.6.6.6;proto=https"',
        'for=192.0.2.1;proto=http;host="a\\",for=6.6.6.6;proto=https;x=\\""',
        'host="x;for=6.6.6.6";for=192.0.2.1;proto=http',
        'for="6.6.6.6, for=192.0.2.1;proto=http',
        'for=6.6.6.6;x=", for=192.0.2.1;proto=http',
        'for=6.6.6.6;x="\\, for=192.0.2.1;proto=http',
        'for=6.6.6.6;x="a"", for=192.0.2.1;proto=http;host="b"',
        "for=6.6.6.6;x=\\, for=192.0.2.1;proto=http",
    ],
    ids=[
        "comma in the host", "semicolon in the host", "escaped quote in the host", "host in front", "open quote",
        "open quote in another", "backslash at the end", "odd quotes", "bare backslash",
    ],
)  # fmt: skip
def test_nobody_forges_an_element_of_forwarded_by_quoting(line: str) -> None:
    """The proxy's own element is the last: neither a Host that it quotes nor a quote left open before it counts."""
    assert read(("Forwarded", line)) == Forwarded(("192.0.2.1", 0), False)


@pytest.mark.parametrize("second", ["for=6.6.6.6", "FOR=6.6.6.6", 'for="6.6.6.6"'])
def test_an_element_that_names_two_clients_names_none(second: str) -> None:
    """RFC 7239 §4: a parameter stands once; nobody can say which of them is meant."""
    forwarded = read(("Forwarded", f"for=192.0.2.1;{second}"))
    assert forwarded is not None
    assert forwarded.client in (None, ("192.0.2.1", 0))


def test_only_the_header_that_was_named_is_read() -> None:
    """A proxy passes on what it does not know: the other header may be the client's own words."""
    lines = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=192.0.2.1")]
    headers = Headers(tuple((name.lower().encode(), value.encode()) for name, value in lines))
    older = Proxies().with_more(TRUSTED, "X-Forwarded-For").read(PROXY, headers, is_local=False)
    assert older == Forwarded(("192.0.2.7", 0), True)
    newer = Proxies().with_more(TRUSTED, "forwarded").read(PROXY, headers, is_local=False)
    assert newer == Forwarded(("192.0.2.1", 0), None)
    assert read() == Forwarded(None, None)
    with pytest.raises(ValueError, match="X-Forwarded-For or Forwarded, not 'X-Real-IP'"):
        Application().trust_proxies("10.0.0.1", header="X-Real-IP")
    app = Application()
    app.trust_proxies("10.0.0.1")
    with pytest.raises(ValueError, match="choose one"):
        app.trust_proxies("10.0.0.2", header="Forwarded")


# what the application sees


def telling(*trusted: str, header: str = "X-Forwarded-For") -> Application:
    """An application that tells a client who it is taken for."""
    app = Application()
    app.install(WebSockets())
    app.trust_proxies(*trusted, header=header)

    @app.websocket("/")
    async def tell(session: WebSocketSession) -> None:
        await session.send(f"{session.call.client} {session.call.scheme}")

    @app.get("/page")
    async def page(call: Call) -> str:
        return f"{call.client} {call.scheme}"

    return app


async def told(app: Application, headers: Sequence[tuple[str, str]]) -> str:
    """What a client in memory, which has no address, is taken for."""
    async with handle_websocket_conversation(app, "/", headers=headers) as (incoming, _):
        return (await incoming.receive()).text


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], "None ws"),
        ([("X-Forwarded-For", "192.0.2.1")], "('192.0.2.1', 0) ws"),
        ([("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https")], "('192.0.2.1', 0) wss"),
        ([("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "wss")], "('192.0.2.1', 0) wss"),
        ([("X-Forwarded-Proto", "https")], "None wss"),
        ([("X-Forwarded-Proto", "wss")], "None wss"),
        ([("X-Forwarded-Proto", "http")], "None ws"),
        ([("X-Forwarded-Proto", ",")], "None ws"),
        ([("Forwarded", 'for="[2001:db8::1]:4711";proto=https')], "('2001:db8::1', 4711) wss"),
        ([("Forwarded", "for=garbage")], "None ws"),
    ],
    ids=[
        "nothing", "address", "https", "wss", "https alone", "wss alone", "http", "a comma", "Forwarded", "garbage"
    ],
)  # fmt: skip
async def test_call_shows_the_client_behind_a_trusted_proxy(
    headers: Sequence[tuple[str, str]], expected: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """T506: `call.client` and `call.scheme`, in a conversation and on a page; untrusted, nothing of it is looked at."""
    header = headers[0][0] if headers and headers[0][0] == "Forwarded" else "X-Forwarded-For"
    assert await told(telling("unix", header=header), headers) == expected
    async with open_test_host(telling("unix", header=header)) as host:
        assert (await host.get("/page", headers=headers)).body.decode() == expected.replace(" ws", " http")
    assert await told(telling("10.0.0.0/8"), headers) == "None ws"
    assert await told(telling(), headers) == "None ws"
    assert records_above_info(caplog) == []


async def test_a_hook_sees_the_client_too(autojump_clock: Clock) -> None:
    """Before the upgrade, so that it can refuse by address."""
    app = telling("unix")
    seen: list[object] = []

    @app.before_upgrade
    async def hook(call: Call) -> None:
        seen.append((call.client, call.scheme))

    await told(app, [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https")])
    assert seen == [(("192.0.2.1", 0), "wss")]


# over real sockets


@asynccontextmanager
async def listening(app: Application, **options: Any) -> AsyncIterator[Server]:
    """A server on 127.0.0.1, or a UNIX socket; cancelled at the end of the block."""
    if "path" not in options:
        options |= {"port": 0, "host": HERE}
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(serve, app, **options))
        nursery.cancel_scope.cancel()


def upgrade(*lines: str, path: str = "/") -> bytes:
    """An upgrade request with more header lines."""
    more = "".join(line + "\r\n" for line in lines)
    return (REQUEST % path.encode()).removesuffix(b"\r\n") + more.encode("latin-1") + b"\r\n"


async def head(client: RawClient, *lines: str, path: str = "/") -> bytes:
    """The first line of the answer to an upgrade request."""
    await client.send_bytes(upgrade(*lines, path=path))
    return bytes(await client.stream.receive_some()).partition(b"\r\n")[0]


async def connected(server: Server, *lines: str) -> tuple[RawClient, bytes]:
    """A client on a server's port, and the first line of the answer that it got."""
    client = RawClient(await trio.open_tcp_stream(HERE, server.port))
    return client, await head(client, *lines)


async def read_all(client: RawClient) -> bytes:
    """Everything until the end of the stream."""
    data = b""
    while chunk := await client.stream.receive_some():
        data += chunk
    return data


@pytest.mark.parametrize(
    ("trusted", "is_believed"), [([], False), (["10.0.0.0/8"], False), ([HERE], True), (["127.0.0.0/8"], True)], ids=str
)
async def test_a_peer_is_known_by_its_own_address(trusted: Sequence[str], is_believed: bool) -> None:
    """It is believed if that was named; else the client is the peer itself."""
    async with listening(telling(*trusted)) as server:
        stream = await trio.open_tcp_stream(HERE, server.port)
        name = stream.socket.getsockname()
        await stream.send_all(
            upgrade("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: wss") + client_bytes(close(1000))
        )
        received = await read_all(RawClient(stream))
        expected = "('192.0.2.1', 0) wss" if is_believed else f"{name} ws"
        assert expected.encode() in received
        await stream.aclose()


async def test_a_unix_socket_may_be_a_proxy(tmp_path: Path) -> None:
    """Whoever connects to it is "unix": file permissions say who can."""
    path = tmp_path / "socket"
    async with listening(telling("unix"), path=path):
        stream = await trio.open_unix_socket(path)
        await stream.send_all(upgrade("X-Forwarded-For: 192.0.2.1") + client_bytes(close(1000)))
        assert b"('192.0.2.1', 0) ws" in await read_all(RawClient(stream))
        await stream.aclose()


# connections per address


def staying(*trusted: str) -> Application:
    """An application with an echo, a handler that fails, a hook that refuses, and a page."""
    app = Application()
    app.install(WebSockets())
    app.trust_proxies(*trusted)

    @app.websocket("/")
    async def echo(session: WebSocketSession) -> None:
        async for frame in session:
            await session.send(frame)

    @app.websocket("/fail")
    async def fail(session: WebSocketSession) -> None:
        raise RuntimeError("on purpose")

    async def no(call: Call) -> Response:
        return Response("no", status=403)

    async def broken(call: Call) -> Response:
        raise RuntimeError("on purpose")

    app.websocket("/no", echo, before=no)
    app.websocket("/broken", echo, before=broken)

    @app.get("/page")
    async def page(call: Call) -> str:
        return "a page\n"

    return app


async def test_an_address_has_so_many_connections_and_no_more() -> None:
    """503 beyond; room again once one of them has ended."""
    async with listening(staying(), max_connections_per_address=2) as server:
        first, second, third = [await connected(server) for _ in range(3)]
        assert [line.split()[1] for _, line in (first, second, third)] == [b"101", b"101", b"503"]
        assert len(server.sessions) == 2
        await third[0].aclose()
        await first[0].send(close(1000))
        await first[0].receive_rest()
        await first[0].aclose()
        await trio.testing.wait_all_tasks_blocked()
        fourth = await connected(server)
        assert fourth[1].startswith(b"HTTP/1.1 101 ")
        fifth = await connected(server)
        assert fifth[1].startswith(b"HTTP/1.1 503 ")
        for client, _ in (second, fourth, fifth):
            await client.aclose()


async def test_what_an_untrusted_peer_says_does_not_get_around_the_limit() -> None:
    """Its own address counts, whomever it claims to speak for."""
    async with listening(staying("10.0.0.0/8"), max_connections_per_address=1) as server:
        first, line = await connected(server, "X-Forwarded-For: 192.0.2.1")
        assert line.startswith(b"HTTP/1.1 101 ")
        second, line = await connected(server, "X-Forwarded-For: 192.0.2.2", "Forwarded: for=192.0.2.3")
        assert line.startswith(b"HTTP/1.1 503 ")
        await first.aclose()
        await second.aclose()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="127.0.0.2 is an address on Linux only")
async def test_addresses_are_counted_one_by_one() -> None:
    """A full one is no concern of the next."""
    async with listening(staying(), max_connections_per_address=1) as server:
        clients = []
        for address, status in [(HERE, b"101"), (HERE, b"503"), ("127.0.0.2", b"101"), ("127.0.0.2", b"503")]:
            client = RawClient(await trio.open_tcp_stream(HERE, server.port, local_address=address))
            assert (await head(client)).split()[1] == status
            clients.append(client)
        for client in clients:
            await client.aclose()


async def test_behind_a_trusted_proxy_its_clients_are_counted() -> None:
    """Over sockets: the proxy itself has no limit, a client of it has, and made-up addresses are no way around."""
    async with listening(staying(HERE), max_connections_per_address=1) as server:
        clients = []
        for line, status in [
            ("X-Forwarded-For: 192.0.2.1", b"101"),
            ("X-Forwarded-For: 192.0.2.2", b"101"),
            ("X-Forwarded-For: 192.0.2.1", b"503"),
            ("X-Forwarded-For: 6.6.6.6, 192.0.2.1", b"503"),
            ("X-Forwarded-For: 192.0.2.2:4711", b"503"),
            ("X-Forwarded-For: 2001:db8::1", b"101"),
            ("X-Forwarded-For: [2001:DB8:0::1]:80", b"503"),
        ]:
            client, answer = await connected(server, line)
            assert answer.split()[1] == status, line
            clients.append(client)
        assert len(server.sessions) == 3
        for client in clients:
            await client.aclose()


async def test_one_client_has_one_address_however_a_proxy_writes_it(autojump_clock: Clock) -> None:
    """An IPv4 address and the same one mapped into IPv6 are counted together."""
    async with serving(staying("unix"), max_connections_per_address=1) as (_, connect):
        first, second = await connect(), await connect()
        assert (await head(first, "X-Forwarded-For: 192.0.2.1")).startswith(b"HTTP/1.1 101 ")
        assert (await head(second, "X-Forwarded-For: ::ffff:192.0.2.1")).startswith(b"HTTP/1.1 503 ")
        await first.aclose()
        await second.aclose()


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8",)], ids=["nobody trusted", "others trusted"])
async def test_clients_without_an_address_are_not_told_apart(trusted: tuple[str, ...], autojump_clock: Clock) -> None:
    """UNIX sockets and streams in memory have none: no limit for them."""
    async with serving(staying(*trusted), max_connections_per_address=1) as (server, connect):
        clients = [await connect() for _ in range(5)]
        for client in clients:
            assert (await head(client, "X-Forwarded-For: 192.0.2.1")).startswith(b"HTTP/1.1 101 ")
        assert len(server.sessions) == 5
        for client in clients:
            await client.aclose()


ENDS: Final = {
    "hang-up": (upgrade("X-Forwarded-For: 192.0.2.1"), b"101"),
    "a goodbye": (upgrade("X-Forwarded-For: 192.0.2.1") + client_bytes(close(1000)), b"101"),
    "a violation": (upgrade("X-Forwarded-For: 192.0.2.1") + b"\xff" * 20, b"101"),
    "a failing handler": (upgrade("X-Forwarded-For: 192.0.2.1", path="/fail"), b"101"),
    "a page": (b"GET /page HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n", b"200"),
    "404": (upgrade("X-Forwarded-For: 192.0.2.1", path="/nothing"), b"404"),
    "426": (upgrade("X-Forwarded-For: 192.0.2.1").replace(b"Version: 13", b"Version: 8"), b"426"),
    "403": (upgrade("X-Forwarded-For: 192.0.2.1", "Origin: http://evil.example"), b"403"),
    "a hook that refuses": (upgrade("X-Forwarded-For: 192.0.2.1", path="/no"), b"403"),
    "a hook that fails": (upgrade("X-Forwarded-For: 192.0.2.1", path="/broken"), b"500"),
    "garbage": (b"\x00\r\n\r\n", b"400"),
}


@pytest.mark.parametrize(("data", "status"), ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("is_proxied", [True, False], ids=["proxied", "direct"])
async def test_the_place_is_free_again_however_the_connection_ends(
    data: bytes, status: bytes, is_proxied: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten times over, with a limit of one: nothing is left in the count, nor does it go below zero."""
    async with listening(staying(*[HERE] * is_proxied), max_connections_per_address=1) as server:
        for _ in range(10):
            client = RawClient(await trio.open_tcp_stream(HERE, server.port))
            await client.send_bytes(data)
            assert bytes(await client.stream.receive_some()).split()[1] == status
            await client.aclose()
            await trio.testing.wait_all_tasks_blocked(0.01)
        first, line = await connected(server, "X-Forwarded-For: 192.0.2.1")
        assert line.startswith(b"HTTP/1.1 101 ")
        second, line = await connected(server, "X-Forwarded-For: 192.0.2.1")
        assert line.startswith(b"HTTP/1.1 503 ")
        await first.aclose()
        await second.aclose()
    logged = [ENDS[name][0] for name in ("a failing handler", "a hook that fails")]
    times = 10 if data in logged else int(data == ENDS["403"][0])  # once a minute
    assert len(records_above_info(caplog)) == times


async def test_who_is_refused_takes_no_place_for_long(autojump_clock: Clock) -> None:
    """A hundred that got 503 are forgotten; the one conversation goes on, and makes room when it ends."""
    line = "X-Forwarded-For: 192.0.2.1"
    async with serving(staying("unix"), max_connections_per_address=1) as (server, connect):
        good = await connect()
        assert (await head(good, line)).startswith(b"HTTP/1.1 101 ")
        for _ in range(100):
            bad = await connect()
            assert (await head(bad, line)).startswith(b"HTTP/1.1 503 ")
            await bad.aclose()
        await good.send(Frame.Text("still here?"), close(1000))
        assert await good.receive_rest() == [Frame.Text("still here?"), close(1000)]
        await good.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert server.sessions == ()
        again = await connect()
        assert (await head(again, line)).startswith(b"HTTP/1.1 101 ")
        await again.aclose()


async def test_the_answer_beyond_the_limit_is_a_proper_one(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A line of text, its length, the end of the connection; nobody is alarmed, no hook is asked."""
    app = staying("unix")
    asked: list[Call] = []

    @app.before_upgrade
    async def hook(call: Call) -> None:
        asked.append(call)

    async with serving(app, max_connections_per_address=1) as (_, connect):
        first, second = await connect(), await connect()
        assert (await head(first, "X-Forwarded-For: 192.0.2.1")).startswith(b"HTTP/1.1 101 ")
        await second.send_bytes(upgrade("X-Forwarded-For: 192.0.2.1"))
        answer, _, body = (await read_all(second)).partition(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        assert f"\r\nContent-Length: {len(body)}".encode() in answer
        assert body == b"the server has all the connections it can take\n"
        await first.aclose()
        await second.aclose()
    assert len(asked) == 1
    assert records_above_info(caplog) == []


def test_who_has_no_name_is_nobody() -> None:
    """A TCP client that was gone before it was looked at is no UNIX peer."""
    proxies = Proxies().with_more(["unix", "10.0.0.0/8"], "X-Forwarded-For")
    headers = Headers(((b"x-forwarded-for", b"192.0.2.1"),))
    assert not proxies.is_trusted(None, is_local=False)
    assert proxies.read(None, headers, is_local=False) is None
    assert proxies.is_trusted(None, is_local=True)
