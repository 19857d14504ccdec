"""One request, and the wait for its answer: over any stream, however it comes, and however it breaks off."""

from __future__ import annotations

import math
import socket
import struct

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from trioktor import HandshakeRefused, connect
from trioktor.client.exchange import exchange
from trioktor.engine.streams import StreamTransport
from trioktor.engine.transport import READ
from trioktor.http.asking import BadAnswer, Exchange, Handshake

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
REFUSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello"


def question(method: str = "GET") -> Exchange:
    """A request to be sent."""
    headers = [("Connection", "Upgrade"), ("Upgrade", "websocket")] if method == "GET" else []
    return Exchange(method, "/", "example.org", headers)


async def asked(*pieces: bytes, method: str = "GET", pause: float = 0) -> tuple[Handshake, bytes]:
    """What comes of these pieces, each after a pause, and then the end of the stream."""
    ours, theirs = trio.testing.memory_stream_pair()
    request = question(method)

    async def answer() -> None:
        read = b""
        while len(read) < len(request.request):
            read += await theirs.receive_some()
        assert read == request.request
        for piece in pieces:
            await trio.sleep(pause)
            await theirs.send_all(piece)
        await trio.sleep(pause)
        await theirs.send_eof()

    found: tuple[Handshake, bytes] | BadAnswer
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        try:
            found = await exchange(StreamTransport(ours), request)
        except BadAnswer as error:  # raised below, without the nursery's group
            found = error
        nursery.cancel_scope.cancel()
    if isinstance(found, BadAnswer):
        raise found
    return found


@pytest.mark.parametrize("behind", [b"", b"\x81\x02hi", b"HTTP/1.1 404 No\r\n\r\n"])
async def test_what_comes_behind_a_101_is_passed_on(behind: bytes, autojump_clock: MockClock) -> None:
    """As it is: it is no HTTP any more."""
    answer, trailing = await asked(SWITCHING + behind)
    assert (answer.status, answer.headers["upgrade"], trailing) == (101, "websocket", behind)


async def test_a_tunnel_is_no_http_any_more_either(autojump_clock: MockClock) -> None:
    """Behind a 200 to CONNECT."""
    answer, trailing = await asked(b"HTTP/1.1 200 Yes\r\n\r\nanything", method="CONNECT")
    assert (answer.status, trailing) == (200, b"anything")


@pytest.mark.parametrize("whole", [SWITCHING, REFUSING], ids=["101", "404"])
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_an_answer_in_any_pieces(whole: bytes, data: st.DataObject) -> None:
    """Is the same answer."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True) if start < end]

    async def main() -> None:
        answer, trailing = await asked(*pieces)
        assert (answer, trailing) == await asked(whole)
        assert answer.status in (101, 404)

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("size", [*range(0, len(SWITCHING), 7), len(SWITCHING) - 1])
async def test_an_answer_that_breaks_off_in_its_head_is_none(size: int, autojump_clock: MockClock) -> None:
    """It says that the stream has ended."""
    with pytest.raises(BadAnswer) as caught:
        await asked(SWITCHING[:size])
    assert caught.value.is_end


async def test_what_is_no_http_is_no_answer(autojump_clock: MockClock) -> None:
    """Whatever else is to come."""
    with pytest.raises(BadAnswer) as caught:
        await asked(b"220 mail.example ESMTP\r\n\r\n", b"more", pause=1)
    assert not caught.value.is_end


@pytest.mark.parametrize("size", range(6))
async def test_a_body_that_breaks_off_is_as_long_as_it_is(size: int, autojump_clock: MockClock) -> None:
    """The head is what counts."""
    answer, trailing = await asked(REFUSING[: len(REFUSING) - 5 + size])
    assert (answer.status, answer.body, trailing) == (404, b"hello"[:size], b"")


@pytest.mark.parametrize(("pause", "body"), [(0.9, b"hello"), (1.1, b"he"), (100, b"")])
async def test_a_body_has_two_seconds(pause: float, body: bytes, autojump_clock: MockClock) -> None:
    """From when its head came, however long that took, and however many pieces come."""
    began = trio.current_time()
    answer, trailing = await asked(REFUSING[:-5], b"he", b"llo", pause=pause)
    assert (answer.status, answer.body, trailing) == (404, body, b"")
    assert trio.current_time() - began == pytest.approx(pause + min(2 * pause, 2))


@pytest.mark.parametrize(("until", "waits"), [(1, 0.5), (3, 1.5), (100, 2), (math.inf, 2)])
async def test_a_body_has_half_of_the_time_that_is_left(until: float, waits: float, autojump_clock: MockClock) -> None:
    """So that whoever asked hears of the refusal."""
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(REFUSING[:-3])
    began = trio.current_time()
    answer, _ = await exchange(StreamTransport(ours), question(), began + until)
    assert (answer.status, answer.body) == (404, b"he")
    assert trio.current_time() - began == pytest.approx(waits)


async def test_a_body_in_small_chunks_is_read_in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte of it may be much work; what comes behind an answer is read as ever."""
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(REFUSING[:-5].replace(b"Content-Length: 5", b"Transfer-Encoding: chunked"))
    await theirs.send_all(b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n")
    sizes: list[int] = []
    receive = StreamTransport.receive

    async def noting(transport: StreamTransport) -> bytes:
        data = await receive(transport)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(StreamTransport, "receive", noting)
    transport = StreamTransport(ours)
    answer, _ = await exchange(transport, question())
    assert answer.body == b"x" * 5000
    assert max(sizes) <= 4096
    assert transport.read_size == READ


async def test_a_head_has_all_the_time_there_is(autojump_clock: MockClock) -> None:
    """Its limit is the caller's; answers of 1xx are no heads."""
    began = trio.current_time()
    answer, _ = await asked(b"HTTP/1.1 103 Hints\r\n\r\n", SWITCHING[:10], SWITCHING[10:], pause=50)
    assert (answer.status, trio.current_time() - began) == (101, 150)


@pytest.mark.parametrize("when", [1, 51, 101])
async def test_it_can_be_cancelled(when: float, autojump_clock: MockClock) -> None:
    """Before the head, in it, and in the body: that is not mistaken for the limit of the body."""
    with trio.move_on_after(when) as scope:
        await asked(REFUSING[:10], REFUSING[10:-5], REFUSING[-5:], pause=50)
        raise AssertionError
    assert scope.cancelled_caught


class Lossy(trio.abc.Stream):
    """A stream that says something once, and is lost then."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Take it."""
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """It never blocks."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What it says, or the loss."""
        await trio.lowlevel.checkpoint()
        said, self._said = self._said, b""
        if not said:
            raise trio.BrokenResourceError("reset")
        return said

    async def aclose(self) -> None:
        """Nothing is left."""
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("said", [b"", REFUSING[:20], SWITCHING[:-1]])
async def test_a_connection_that_is_lost_before_the_head(said: bytes) -> None:
    """Is an error of the stream."""
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await exchange(StreamTransport(Lossy(said)), question())


async def test_a_connection_that_is_lost_in_the_body() -> None:
    """The refusal counts all the same."""
    answer, trailing = await exchange(StreamTransport(Lossy(REFUSING[:-3])), question())
    assert (answer.status, answer.body, trailing) == (404, b"he", b"")


async def test_a_body_that_is_cut_by_a_reset() -> None:
    """The refusal counts all the same; or it would be tried again for ever."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def refuse() -> None:
        stream = await listener.accept()
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\nwho")
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with pytest.raises(HandshakeRefused, match="401") as caught:
            async with connect(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/"):
                pass
    assert b"who".startswith(caught.value.body)


async def test_a_refusal_that_comes_before_the_request_is_read(autojump_clock: MockClock) -> None:
    """Such as a 431: it is read though nothing more can be sent."""
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"HTTP/1.1 431 Too long\r\nContent-Length: 0\r\n\r\n")
    theirs.receive_stream.close()
    with pytest.raises(HandshakeRefused, match="431"):
        async with connect("ws://example.org/", stream=ours):
            pass
