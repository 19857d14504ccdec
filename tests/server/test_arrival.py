"""From a stream that was accepted to the head of its request: what is read, and how long that may take."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.support.helpers import REQUEST, application, records_above_info
from tests.support.listening import (
    SecureClient,
    assert_echoes,
    running,
    serving,
    tls,
)
from trioktor import WebSocketSession
from trioktor.engine.sockets import SocketTransport
from trioktor.engine.streams import StreamTransport
from trioktor.http.headers import Refusal
from trioktor.server.admission import Limits, Places
from trioktor.server.arrival import Request, read_request

Clock = trio.testing.MockClock
HERE = "127.0.0.1"


async def echo(session: WebSocketSession) -> None:
    """Send back what comes."""
    async for frame in session:
        await session.send(frame)


# through a server, with TLS


@pytest.mark.parametrize("first", [REQUEST % b"/", b"\x00" * 50, b""], ids=["HTTP", "zeroes", "nothing"])
async def test_a_plain_client_of_a_tls_server_is_turned_away(first: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It gets no HTTP, nobody is alarmed, and the next client is served."""
    ours, theirs = tls()
    async with running(application(echo), ssl_context=ours) as server:
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


# by itself


LIMITS = Limits(open_timeout=7)
TRAILING = b"\x81\x00"


def never() -> bool:
    """The server goes on."""
    return False


def always() -> bool:
    """The server is stopping."""
    return True


class Asked:
    """A client's end, and what came of its request."""

    def __init__(self) -> None:
        ours, self._theirs = socket.socketpair()
        self.client = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self.places = Places(most_asking=1)
        self.limits = LIMITS

    async def read(self, is_stopping: Callable[[], bool] = never) -> Request | None:
        """Read it."""
        transport = SocketTransport(self._theirs, None)
        try:
            return await read_request(transport, None, self.limits, self.places, is_stopping)
        finally:
            await self.client.aclose()
            transport.close_nowait()


async def test_a_request_that_is_there_is_read_without_a_checkpoint() -> None:
    """With all that came behind it; nobody who asks has to give way to it."""
    asked = Asked()
    await asked.client.send_all(REQUEST % b"/here?a=1" + TRAILING)
    transport = SocketTransport(asked._theirs, None)
    with trio.testing.assert_no_checkpoints(), asked.places.asking() as longest:
        request = await read_request(transport, None, LIMITS, asked.places, never)
    assert request is not None
    assert not longest.cancel_called
    head, trailing = request
    assert (head.target, trailing) == ("/here?a=1", TRAILING)
    transport.close_nowait()
    await asked.client.aclose()


@pytest.mark.parametrize("cut", [1, 10, len(REQUEST % b"/") - 1])
@pytest.mark.parametrize("is_first_there", [True, False])
async def test_a_request_may_come_in_pieces(cut: int, is_first_there: bool, autojump_clock: Clock) -> None:
    """Also where the first piece is there before anybody looks."""
    asked = Asked()
    data = REQUEST % b"/" + TRAILING

    async def send() -> None:
        if not is_first_there:
            await trio.sleep(1)
            await asked.client.send_all(data[:cut])
        await trio.sleep(1)
        await asked.client.send_all(data[cut:])

    if is_first_there:
        await asked.client.send_all(data[:cut])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        request = await asked.read()
    assert request is not None
    assert (request[0].target, request[1]) == ("/", TRAILING)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n"], ids=["nothing", "half"])
@pytest.mark.parametrize("is_late", [True, False])
async def test_a_client_that_hangs_up_asks_nothing(sent: bytes, is_late: bool, autojump_clock: Clock) -> None:
    """Whatever it had said, and whenever: there is nobody to answer."""
    asked = Asked()
    await asked.client.send_all(sent)

    async def hang_up() -> None:
        await asked.client.send_eof()

    if not is_late:
        await hang_up()
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        request: list[Request | None] = []

        async def read() -> None:
            request.append(await asked.read())

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        if is_late:
            await hang_up()
    assert request == [None]
    assert trio.current_time() == began


async def test_a_client_that_says_nothing_has_open_timeout(autojump_clock: Clock) -> None:
    """Then it is let go without a word."""
    asked = Asked()
    began = trio.current_time()
    assert await asked.read() is None
    assert trio.current_time() - began == 7


async def test_a_client_that_says_half_is_told(autojump_clock: Clock) -> None:
    """Each byte gives it no more time."""
    asked = Asked()
    began = trio.current_time()

    async def drip() -> None:
        for byte in b"GET /":
            await asked.client.send_all(bytes([byte]))
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with pytest.raises(Refusal, match="the request took too long") as refusal:
            await asked.read()
    assert refusal.value.status == 408
    assert trio.current_time() - began == 7


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        (Limits(max_head_size=len(REQUEST % b"/")), None),
        (Limits(max_head_size=len(REQUEST % b"/") - 1), 431),
        (Limits(max_headers=5), None),
        (Limits(max_headers=4), 431),
    ],
)
async def test_the_head_has_the_limits_of_the_server(limits: Limits, status: int | None) -> None:
    """In bytes and in lines."""
    asked = Asked()
    asked.limits = limits
    await asked.client.send_all(REQUEST % b"/")
    if status is None:
        assert await asked.read() is not None
    else:
        with pytest.raises(Refusal) as refusal:
            await asked.read()
        assert refusal.value.status == status


async def test_a_connection_that_broke_is_an_error() -> None:
    """Told from one that was ended."""
    ours, theirs = trio.testing.memory_stream_pair()
    assert theirs.send_stream is not None
    await trio.aclose_forcefully(theirs)
    with pytest.raises(trio.BrokenResourceError):
        await read_request(StreamTransport(theirs), None, LIMITS, Places(), never)
    await ours.aclose()


async def test_a_request_at_a_server_that_stops_is_refused() -> None:
    """503, and not silence: the request is there."""
    asked = Asked()
    await asked.client.send_all(REQUEST % b"/")
    with pytest.raises(Refusal, match="the server is shutting down") as refusal:
        await asked.read(always)
    assert refusal.value.status == 503


@pytest.mark.parametrize("sent", [b"", b"GET"], ids=["nothing", "half"])
async def test_a_server_that_stops_waits_for_no_request(sent: bytes, autojump_clock: Clock) -> None:
    """Not even for the rest of one."""
    asked = Asked()
    await asked.client.send_all(sent)
    began = trio.current_time()
    assert await asked.read(always) is None
    assert trio.current_time() == began


async def test_who_waits_asks_for_a_place_and_may_be_turned_away(autojump_clock: Clock) -> None:
    """By one who comes later, or by the server's end; what was said until then is dropped."""
    for turn_away in (False, True):
        asked = Asked()
        await asked.client.send_all(b"GET")
        async with trio.open_nursery() as nursery:
            request: list[Request | None] = []

            async def read(asked: Asked = asked, request: list[Request | None] = request) -> None:
                request.append(await asked.read())

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            assert request == []
            if turn_away:
                asked.places.turn_away()
            else:
                with asked.places.asking() as later:
                    assert not later.cancel_called
        assert request == [None]
        with asked.places.asking() as later:
            assert not later.cancel_called
