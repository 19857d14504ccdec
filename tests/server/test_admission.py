"""Places are for those who were let in: who is silent, or refused, takes none from anybody."""

from __future__ import annotations

import math
import resource
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import REQUEST, RawClient, application, close
from tests.support.listening import serving
from trioktor import Application, Call, Response, Server, WebSockets, WebSocketSession as Session, serve
from trioktor.http.headers import Refusal
from trioktor.server.admission import Places, default_places, places_for

HERE = "127.0.0.1"
Connect = Callable[[], Awaitable[RawClient]]


async def stay(session: Session) -> None:
    """Take what comes."""
    async for _ in session:
        pass


async def status(client: RawClient) -> int:
    """Send a request, and return the status of the answer."""
    await client.send_bytes(REQUEST % b"/")
    return int(bytes(await client.stream.receive_some()).split()[1])


# how many


@pytest.mark.parametrize("files", [1, 2, 10, 64, 256, 1024, 4096, 20_000, 1 << 20, 1 << 40, math.inf])
def test_what_is_let_in_and_what_asks_leaves_files_to_others(files: float) -> None:
    """Never none, and together fewer than there may be, by so much that a program can live."""
    most, asking = places_for(files)
    assert most >= 1
    assert 1 <= asking <= 1000
    if files >= 10:
        assert most + asking <= min(files, 1 << 20) - min(64, files // 8)
        assert most >= 0.7 * min(files, 1 << 20)


async def test_by_default_a_server_stays_below_its_open_files() -> None:
    """What the process may have now, not when the library was imported."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        assert default_places() == places_for(512)
        async with serving(application(stay)) as (server, _):
            assert server.max_connections == places_for(512)[0] < 512
        async with serving(application(stay), max_connections=7) as (server, _):
            assert server.max_connections == 7
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# by whom they are taken


def test_a_place_that_is_taken_is_given_back() -> None:
    """In all, and of an address."""
    places = Places(most=2, most_per_address=1)
    first = places.take((HERE, 1))
    with pytest.raises(Refusal) as refusal:
        places.take((HERE, 2))
    assert refusal.value.status == 503
    second = places.take(None)
    with pytest.raises(Refusal):
        places.take(("10.0.0.1", 1))
    places.leave(first)
    third = places.take((HERE, 3))
    places.leave(second)
    places.leave(third)
    assert [places.take((f"10.0.0.{number}", 1)) for number in range(2)] == ["10.0.0.0", "10.0.0.1"]


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:0:ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
    ],
)
def test_a_client_is_an_address_or_its_64(one: str, other: str, is_same: bool) -> None:
    """A customer has 2^64 IPv6 addresses, and one IPv4 address."""
    places = Places(most_per_address=1)
    places.take((one, 1))
    if is_same:
        with pytest.raises(Refusal):
            places.take((other, 1))
    else:
        places.take((other, 1))


def test_no_address_may_be_let_in() -> None:
    """Nought is a number."""
    for places in (Places(most=0), Places(most_per_address=0)):
        with pytest.raises(Refusal):
            places.take((HERE, 1))
    assert Places(most_per_address=0).take("/run/socket") == ""


LIMITS: dict[str, dict[str, Any]] = {"in all": {"max_connections": 1}, "an address": {"max_connections_per_address": 1}}


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS.keys())
@pytest.mark.parametrize("sent", [b"", b"GET", (REQUEST % b"/")[:-2]], ids=["silent", "begun", "but for a line end"])
async def test_who_is_silent_takes_no_place(limit: dict[str, Any], sent: bytes) -> None:
    """Fifty are there before, and the one that asks gets in."""
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, application(stay), 0, host=HERE, **limit))
        streams = [await trio.open_tcp_stream(HERE, server.port) for _ in range(51)]
        for stream in streams[:50]:
            if sent:
                await stream.send_all(sent)
        assert await status(RawClient(streams[50])) == 101
        for stream in streams:
            await stream.aclose()
        nursery.cancel_scope.cancel()


REFUSED = {
    "a bad request": b"\x00\r\n\r\n",
    "no such path": REQUEST % b"/nothing",
    "a hook": REQUEST % b"/no",
    "a foreign page": (REQUEST % b"/")[:-2] + b"Origin: http://evil.example\r\n\r\n",
    "a hook of a page": b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


def guarded() -> Application:
    """Some of its paths refuse everybody."""
    app = application(stay)

    async def no(call: Call) -> Response:
        return Response("no\n", status=403)

    app.websocket("/no", stay, before=no)

    @app.get("/page", before=[no])
    async def page(call: Call) -> str:
        raise AssertionError("the hook was passed by")

    return app


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
async def test_who_is_refused_takes_no_place(
    data: bytes, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Though it neither reads its answer nor hangs up."""
    limits: dict[str, Any] = {"max_connections": 1, "max_connections_per_address": 1}
    async with serving(guarded(), **limits) as (_, connect):
        refused = [await connect() for _ in range(20)]
        for client in refused:
            await client.send_bytes(data)
        await trio.testing.wait_all_tasks_blocked()
        good = await connect()
        assert await status(good) == 101
        for client in [*refused, good]:
            await client.aclose()


async def test_a_client_has_its_place_while_hooks_are_asked(autojump_clock: MockClock) -> None:
    """And gives it back with the answer."""
    app = Application()
    app.install(WebSockets())

    async def slow(call: Call) -> Response:
        await trio.sleep(5)
        return Response("no\n", status=401)

    app.websocket("/", stay, before=slow)
    async with serving(app, max_connections=1) as (_, connect):
        first, second, third = [await connect() for _ in range(3)]
        await first.send_bytes(REQUEST % b"/")
        await trio.sleep(1)
        assert await status(second) == 503
        await trio.sleep(4.1)
        assert await status(third) == 401
        for client in (first, second, third):
            await client.aclose()


# those who ask


async def test_of_those_who_ask_the_longest_is_cut(autojump_clock: MockClock) -> None:
    """Not the one that comes last: silent clients keep nobody out."""
    async with serving(application(stay), max_opening=3) as (server, connect):
        silent = [await connect() for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        good = []
        for _ in range(3):
            good.append(await connect())
            assert await status(good[-1]) == 101
        assert await silent[0].stream.receive_some() == b""
        assert len(server.sessions) == 3
        assert await status(silent[1]) == 101  # who was let in does not ask any more
        for client in [*silent, *good]:
            await client.aclose()


async def test_those_who_are_refused_ask_too(autojump_clock: MockClock) -> None:
    """They are drained for half a second, and do not pile up meanwhile."""
    async with serving(application(stay), max_opening=2) as (_, connect):
        clients = []
        for _ in range(5):
            clients.append(await connect())
            await clients[-1].send_bytes(REQUEST % b"/nothing")
            await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        for client in clients[:3]:
            data = b""
            while chunk := await client.stream.receive_some():
                data += chunk
            assert data.startswith(b"HTTP/1.1 404 ")

        async def talk_on(client: RawClient) -> None:
            for _ in range(3):
                await client.send_bytes(b"x")
                await trio.testing.wait_all_tasks_blocked()

        for client in clients[:3]:  # cut: nobody reads what they still say
            with pytest.raises(trio.BrokenResourceError):
                await talk_on(client)
        for client in clients[3:]:
            await talk_on(client)
        assert trio.current_time() == began
        for client in clients:
            await client.aclose()


async def test_good_clients_stay(autojump_clock: MockClock) -> None:
    """Whoever was let in is cut by nobody who asks."""
    async with serving(application(stay), max_opening=1) as (server, connect):
        good = await connect()
        assert await status(good) == 101
        silent = [await connect() for _ in range(5)]
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.sessions) == 1
        await good.send(close(1000))
        assert [close(1000)] == await good.receive_rest()
        for client in [*silent, good]:
            await client.aclose()
