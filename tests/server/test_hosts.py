"""Which hosts are answered to, and what a stranger can have logged."""

from __future__ import annotations

import os
import re
import resource
import socket
import stat
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import RawClient, application, records_above_info
from tests.support.listening import serving
from trioktor import LOOPBACK, Application, Call, Server, WebSockets, WebSocketSession as Session, serve
from trioktor.http.handshake import Hosts
from trioktor.http.headers import Headers
from trioktor.http.requests import HeadReader, RequestHead

HERE = "127.0.0.1"


async def stay(session: Session) -> None:
    """Take what comes."""
    async for _ in session:
        pass


def request(host: str, path: str = "/", *, origin: str = "", upgrade: bool = True) -> bytes:
    """A request for a host."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}"]
    if upgrade:
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    if origin:
        lines.append(f"Origin: {origin}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def status(app: Application, data: bytes) -> int:
    """What a request is answered with."""
    async with serving(app) as (_, connect):
        client = await connect()
        await client.send_bytes(data)
        answer = bytes(await client.stream.receive_some())
        await client.aclose()
    return int(answer.split()[1])


def with_page(hosts: Hosts) -> Application:
    """WebSockets and a page, for some hosts."""
    app = Application()
    app.install(WebSockets(hosts=hosts))
    app.websocket("/", stay)

    @app.get("/page")
    async def page(call: Call) -> str:
        return "here you are\n"

    return app


HOSTS: list[tuple[Hosts, str, bool]] = [
    (None, "anything.example", True),
    (LOOPBACK, "localhost", True),
    (LOOPBACK, "localhost:8080", True),
    (LOOPBACK, "LocalHost.", True),
    (LOOPBACK, "app.localhost:1", True),
    (LOOPBACK, "127.0.0.1:8080", True),
    (LOOPBACK, "127.1.2.3", True),
    (LOOPBACK, "[::1]:8080", True),
    (LOOPBACK, "evil.example:8080", False),
    (LOOPBACK, "localhost.evil.example", False),
    (LOOPBACK, "127.0.0.1.evil.example", False),
    (LOOPBACK, "evillocalhost", False),
    (LOOPBACK, "10.0.0.1", False),
    (LOOPBACK, "[2001:db8::1]", False),
    (LOOPBACK, "0.0.0.0", False),
    (["example.com"], "example.com:443", True),
    (["example.com"], "EXAMPLE.com", True),
    (["example.com"], "www.example.com", False),
    (["example.com"], "example.com.evil.example", False),
    (["*.example.com", "10.0.0.7"], "www.example.com", True),
    (["*.example.com", "10.0.0.7"], "10.0.0.7", True),
    (["*.example.com", "10.0.0.7"], "example.com", False),
    (["[2001:db8::1]"], "[2001:db8::1]:80", True),
    (["2001:db8::1"], "[2001:DB8::1]", True),
    ([re.compile(r"node\d+")], "node17", True),
    ([re.compile(r"node\d+")], "node17.evil.example", False),
    ([], "example.com", False),
]


@pytest.mark.parametrize(("hosts", "host", "is_served"), HOSTS)
async def test_only_hosts_that_are_served_are_answered_to(
    hosts: Hosts, host: str, is_served: bool, autojump_clock: MockClock
) -> None:
    """421 to the others, whatever their origin says; pages as WebSockets."""
    wanted = [101, 200] if is_served else [421, 421]
    app = with_page(hosts)
    origin = f"http://{host}"
    assert [
        await status(app, request(host, origin=origin)),
        await status(app, request(host, "/page", upgrade=False)),
    ] == wanted


async def test_a_name_that_was_made_to_point_here_does_not_get_in(autojump_clock: MockClock) -> None:
    """DNS rebinding: same origin by the book, and yet a stranger's page. A whole address as target counts."""
    assert await status(with_page(None), request("evil.example:8080", origin="http://evil.example:8080")) == 101
    assert await status(with_page(LOOPBACK), request("evil.example:8080", origin="http://evil.example:8080")) == 421
    whole = request("localhost", "http://evil.example/", origin="http://evil.example")
    assert await status(with_page(LOOPBACK), whole) == 421


async def test_who_names_no_host_is_no_page(autojump_clock: MockClock) -> None:
    """HTTP/1.0, as health checks speak it."""
    assert await status(with_page(LOOPBACK), b"GET /page HTTP/1.0\r\n\r\n") == 200


async def test_a_route_may_serve_other_hosts(autojump_clock: MockClock) -> None:
    """As with every setting."""
    app = with_page(LOOPBACK)
    app.websocket("/open", stay, hosts=None)
    assert await status(app, request("evil.example")) == 421
    assert await status(app, request("evil.example", "/open")) == 101


# what is logged


async def test_a_refused_origin_is_logged_once_a_minute(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each; and strangers who make up new ones get no more than a few lines."""
    async with serving(application(stay)) as (_, connect):

        async def ask(origin: str) -> None:
            client = await connect()
            await client.send_bytes(request("localhost", origin=origin))
            assert bytes(await client.stream.receive_some()).startswith(b"HTTP/1.1 403 ")
            await client.aclose()
            await trio.testing.wait_all_tasks_blocked()

        for _ in range(5):
            await ask("http://a.example")
            await ask("http://b.example")
        assert len(records_above_info(caplog)) == 2
        await trio.sleep(59)
        await ask("http://a.example")
        assert len(records_above_info(caplog)) == 2
        await trio.sleep(2)
        await ask("http://a.example")
        assert len(records_above_info(caplog)) == 3
        for number in range(100):
            await ask(f"http://{number}.example")
        assert len(records_above_info(caplog)) <= 23


async def test_a_bad_choice_of_subprotocol_shows_nothing_that_was_offered(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Some send their tokens there."""
    app = Application()
    app.install(WebSockets(subprotocols=lambda call: "another"))
    app.websocket("/", stay)
    data = request("localhost")[:-2] + b"Sec-WebSocket-Protocol: " + b"secret" * 2000 + b"\r\n\r\n"
    assert await status(app, data) == 500
    [record] = records_above_info(caplog)
    assert "secret" not in caplog.text
    assert "another" in caplog.text
    assert record.name == "trioktor.server"


def test_the_repr_of_a_request_keeps_its_secrets() -> None:
    """Of headers the names, of the target the path."""
    lines = [b"GET /path?token=secret HTTP/1.1", b"Host: x", b"Authorization: Bearer secret", b"Cookie: secret=1"]
    read = HeadReader(1 << 14, 100).feed(b"\r\n".join(lines) + b"\r\n\r\n")
    assert read is not None
    head = read[0]
    call = Call(head, path_parameters={}, client=None, scheme="ws")
    for thing in (head, head.headers, call):
        assert "secret" not in repr(thing)
    assert repr(head) == "<RequestHead GET /path>"
    assert repr(head.headers) == "<Headers host, authorization, cookie>"
    many = Headers(tuple((b"n%d" % number, b"") for number in range(99)))
    assert len(repr(many)) < 500
    assert len(repr(RequestHead("GET", "/" + "x" * 9999, "1.1", many))) < 500


# files


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777, 0])
async def test_a_unix_socket_has_the_mode_that_is_asked_for(mode: int, tmp_path: Path) -> None:
    """Before anybody can connect."""
    path = tmp_path / "socket"
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, application(stay), path=path, mode=mode))
        assert stat.S_IMODE(path.stat().st_mode) == mode
        nursery.cancel_scope.cancel()
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o1777, -1, True, "660"])
async def test_a_mode_that_is_none_is_refused(mode: Any) -> None:
    """Before anything is opened."""
    with pytest.raises(ValueError, match="mode must be permissions such as 0o660"):
        await serve(application(stay), path="x", mode=mode)
    with pytest.raises(ValueError, match="mode goes with path"):
        await serve(application(stay), 0, mode=0o660)


# descriptors


async def test_out_of_descriptors_is_said_once_and_is_over_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Those who are in go on, those who come wait, and get in when there is room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, application(stay), 0, host=HERE))
        first = RawClient(await trio.open_tcp_stream(HERE, server.port))
        await first.upgrade()
        waiting = [socket.socket() for _ in range(5)]
        used = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
        held: list[int] = []
        try:
            with suppress(OSError):
                held.extend(os.dup(waiting[0].fileno()) for _ in range(1000))
            for sock in waiting:
                sock.connect((HERE, server.port))
            await trio.sleep(5)
            assert len(server.sessions) == 1
            assert [record.levelname for record in records_above_info(caplog)] == ["ERROR"]
            await first.send_bytes(b"\x89\x80abcd")
            assert await first.receive() is not None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for number in held:
                os.close(number)
        for sock in waiting:
            sock.setblocking(False)
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            client = RawClient(stream)
            await client.upgrade()
        await trio.sleep(2)
        assert len(list(server.sessions)) == 6
        nursery.cancel_scope.cancel()
    for sock in waiting:
        sock.close()
    await first.aclose()
    assert [record.levelname for record in records_above_info(caplog)] == ["ERROR", "WARNING"]
    assert all(record.exc_info is None for record in caplog.records)
