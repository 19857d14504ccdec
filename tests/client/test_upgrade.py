"""From an address to a conversation: what is asked, which answers are taken, what hostile ones cost, and redirects."""

from __future__ import annotations

import base64
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, final

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from tests.client.test_connect import obliging
from tests.support.helpers import RawServer, scripted
from trioktor import (
    CannotConnect,
    Extension,
    ExtensionFactory,
    ExtensionHeader,
    HandshakeInvalid,
    HandshakeRefused,
    PerMessageDeflate,
    WebSockets,
    connect,
    connect_raw,
)
from trioktor.client.options import client_options
from trioktor.client.upgrade import shake_hands
from trioktor.engine.streams import StreamTransport

URL = "ws://example.org/"


async def head_of(url: str = URL, **options: Any) -> list[str]:
    """The lines of the request that `connect` writes."""
    heads: list[bytes] = []

    async def script(server: RawServer) -> None:
        await server.accept()
        heads.append(server.head)

    async with scripted(script) as dial, connect_raw(url, stream=dial, **options):
        pass
    return heads[0].decode("latin-1").split("\r\n")


def answering(answer: bytes) -> Callable[[RawServer], Awaitable[None]]:
    """A server that says this, and hangs up."""

    async def script(server: RawServer) -> None:
        server.head = await server.read_head()
        await server.send_bytes(answer)

    return script


def accepting(change: Callable[[bytes], bytes]) -> Callable[[RawServer], Awaitable[None]]:
    """A server whose good 101 is changed."""

    async def script(server: RawServer) -> None:
        server.head = await server.read_head()
        await server.send_bytes(change(server.accepting()))
        await server.receive_rest()

    return script


# what is asked


async def test_the_request(autojump_clock: MockClock) -> None:
    """RFC 6455 §4.1."""
    lines = await head_of("ws://example.org:8080/chat%20room?a=b&c=ü")
    assert lines[0] == "GET /chat%20room?a=b&c=%C3%BC HTTP/1.1"
    headers = dict(line.split(": ", 1) for line in lines[1:])
    key = headers.pop("Sec-WebSocket-Key")
    assert len(base64.b64decode(key)) == 16
    assert headers.pop("User-Agent").startswith("trioktor/")
    assert headers == {
        "Host": "example.org:8080",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
    }


async def test_no_two_keys_are_the_same(autojump_clock: MockClock) -> None:
    """Each handshake has one of its own."""
    keys = {line for _ in range(20) for line in await head_of() if line.startswith("Sec-WebSocket-Key")}
    assert len(keys) == 20


async def test_what_is_offered_and_said(autojump_clock: MockClock) -> None:
    """Subprotocols, extensions, origin, headers of one's own."""
    lines = await head_of(
        subprotocols=["v2", "v1"],
        extensions=[PerMessageDeflate()],
        origin="https://example.org",
        headers={"Cookie": "a=b", "User-Agent": "mine"},
    )
    assert "Sec-WebSocket-Protocol: v2, v1" in lines
    assert "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12" in lines
    assert "Origin: https://example.org" in lines
    assert "Cookie: a=b" in lines
    assert [line for line in lines if line.startswith("User-Agent")] == ["User-Agent: mine"]


async def test_one_subprotocol_is_a_name(autojump_clock: MockClock) -> None:
    """It need not be a list."""
    assert "Sec-WebSocket-Protocol: v1" in await head_of(subprotocols="v1")


async def test_settings_offer_too(autojump_clock: MockClock) -> None:
    """`websockets=` may hold what a server's would, and a server's settings do no harm."""
    shared = WebSockets(subprotocols=["v1"], extensions=[PerMessageDeflate(window_bits=15)], masking=False)
    lines = await head_of(websockets=shared)
    assert "Sec-WebSocket-Protocol: v1" in lines
    assert "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits" in lines


async def test_a_user_without_a_password(autojump_clock: MockClock) -> None:
    """It is one."""
    assert "Authorization: Basic " + base64.b64encode(b"ada:").decode() in await head_of("ws://ada@example.org/")


async def test_user_information_is_basic_authentication(autojump_clock: MockClock) -> None:
    """Percent-decoded; a header of one's own goes first."""
    expected = "Authorization: Basic " + base64.b64encode("ada:päss:word".encode()).decode()
    url = "ws://ada:p%C3%A4ss%3Aword@example.org/"
    assert expected in await head_of(url)
    lines = await head_of(url, headers={"authorization": "Bearer x"})
    assert [line for line in lines if line.lower().startswith("authorization")] == ["authorization: Bearer x"]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("ws://example.org/", "example.org"),
        ("ws://example.org:80/", "example.org"),
        ("ws://EXAMPLE.org:443", "example.org:443"),
        ("ws://[::1]:99/", "[::1]:99"),
        ("ws://bücher.example/", "xn--bcher-kva.example"),
        ("ws://BÜCHER.example/", "xn--bcher-kva.example"),
        ("ws://[fe80::1%25eth0]:99/", "[fe80::1]:99"),
        ("ws://example.org./", "example.org."),
        ("ws://@example.org/", "example.org"),
    ],
)
async def test_the_host(url: str, host: str, autojump_clock: MockClock) -> None:
    """The port only where it is not the scheme's own."""
    assert f"Host: {host}" in await head_of(url)


@pytest.mark.parametrize(
    "url",
    [
        "", "example.org", "http://example.org", "ws:", "ws://", "ws:///x", "ws://a:0/", "ws://a:x/", "ws://a:99999/",
        "ws://[::1/", "ws://a/#x", "ws://a/ b", "ws://a\n/", "ws://a b/", "ws://a<b/", "ws://a%3Ab@c:d@e:1/\x00",
        "ws://[::1]8080/", "ws://[::1].evil.example:5/", "ws://foo[::1]/", "ws://[::1][::2]/", "ws://h/\ud800",
        "ws://a..ü/", "ws://a%3Ab:c@e/", "ws://a..b/", "ws://" + "a" * 64 + "/", "ws://" + "a." * 127 + "a/", "ws://./",
    ],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    """It is said at the call."""
    with pytest.raises(ValueError, match=r"address|host's name|user's name"):
        connect(url)


@pytest.mark.parametrize(
    "url",
    ["ada:secret@host/", "http://ada:secret@host/", "ws://ada:secret@host:99999/", "ws://ada:sec/ret@host/",
     "ws://ada:secret@host/#x", "ws://ada:secret@ho st/", "ws://ada:secret@a..ü/", "ws://ada:secret@[::1/"],
)  # fmt: skip
def test_an_error_shows_no_password(url: str) -> None:
    """Whatever else is wrong with the address."""
    with pytest.raises(ValueError, match=r"WebSocket address|host's name") as caught:
        connect(url)
    assert "sec" not in str(caught.value)
    assert "ret" not in str(caught.value).replace("write", "")


def test_an_address_is_a_str() -> None:
    """And nothing else."""
    with pytest.raises(TypeError, match="bytes"):
        connect(b"ws://a/")  # type: ignore[arg-type]


# what is answered


CHANGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no Upgrade": (lambda head: head.replace(b"Upgrade: websocket\r\n", b""), "Upgrade"),
    "another Upgrade": (lambda head: head.replace(b": websocket", b": h2c"), "Upgrade"),
    "more than one Upgrade": (lambda head: head.replace(b": websocket", b": websocket, h2c"), "Upgrade"),
    "no Connection": (lambda head: head.replace(b"Connection: Upgrade\r\n", b""), "Connection"),
    "another Connection": (lambda head: head.replace(b"Connection: Upgrade", b"Connection: close"), "Connection"),
    "no token": (lambda head: head.replace(b"Sec-WebSocket-Accept", b"X-Accept"), "Accept"),
    "a wrong token": (lambda head: head.replace(b"Accept: ", b"Accept: x"), "Accept"),
    "two tokens": (lambda head: head.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Accept: x\r\n\r\n"), "Accept"),
    "a subprotocol": (lambda head: head.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: v9\r\n\r\n"), "v9"),
    "two subprotocols": (
        lambda head: head.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: v1\r\nSec-WebSocket-Protocol: v2\r\n\r\n"),
        "v1, v2",
    ),
    "a list of subprotocols": (
        lambda head: head.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: v1, v2\r\n\r\n"),
        "v1, v2",
    ),
    "HTTP/1.0": (lambda head: head.replace(b"HTTP/1.1", b"HTTP/1.0"), "HTTP"),
    "no HTTP": (lambda head: b"220 mail.example ESMTP\r\n\r\n" + head, "HTTP"),
    "a line without a colon": (lambda head: head.replace(b"\r\n\r\n", b"\r\nnothing\r\n\r\n"), "HTTP"),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_an_answer_that_is_none(name: str, autojump_clock: MockClock) -> None:
    """Each rule by itself; it says which, and that is no refusal of the server's."""
    change, text = CHANGES[name]
    async with scripted(accepting(change)) as dial:
        with pytest.raises(HandshakeInvalid, match=text) as caught:
            async with connect(URL, stream=dial, subprotocols=["v1", "v2"]):
                pass
    assert caught.value.status in (0, 101)


@pytest.mark.parametrize(
    "line",
    [
        "x-other",
        "permessage-deflate; unknown",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=08",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate, permessage-deflate",
        "permessage-deflate;",
        "\xff",
    ],
)
async def test_extensions_are_answered_as_offered(line: str, autojump_clock: MockClock) -> None:
    """Nothing else, nothing twice, no parameter that makes no sense (RFC 7692 §7.1)."""
    header = b"\r\nSec-WebSocket-Extensions: " + line.encode("latin-1") + b"\r\n\r\n"
    async with scripted(accepting(lambda head: head.replace(b"\r\n\r\n", header))) as dial:
        with pytest.raises(HandshakeInvalid):
            async with connect(URL, stream=dial, extensions=[PerMessageDeflate()]):
                pass


async def test_a_window_that_is_not_forgotten(autojump_clock: MockClock) -> None:
    """RFC 7692 §7.1.1.1: a server that accepts the offer says that it does."""
    header = b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    async with scripted(accepting(lambda head: head.replace(b"\r\n\r\n", header))) as dial:
        with pytest.raises(HandshakeInvalid, match="forget"):
            async with connect(URL, stream=dial, extensions=[PerMessageDeflate(server_no_context_takeover=True)]):
                pass


@final
class Unwilling(ExtensionFactory):
    """Is always on, but for this connection it is not."""

    name = None

    def negotiate(self, offer: ExtensionHeader) -> None:
        """Decline."""
        return


@final
class Plain(Extension):
    """Does nothing."""


@final
class Named(ExtensionFactory):
    """An extension of one's own, without a word for clients."""

    def __init__(self, name: str | None) -> None:
        self.name = name

    def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension] | None:
        """Take an offer without parameters."""
        return None if offer.parameters else (ExtensionHeader(self.name or ""), Plain(self))


async def test_extensions_work_in_the_order_of_the_answer(autojump_clock: MockClock) -> None:
    """RFC 6455 §9.1; one without a name stays where it is installed, one that is not answered is left out."""
    header = b"\r\nSec-WebSocket-Extensions: b, a\r\n\r\n"
    factories = [Named("a"), Named(None), Unwilling(), Named("b"), Named("c")]
    async with (
        scripted(accepting(lambda head: head.replace(b"\r\n\r\n", header))) as dial,
        connect_raw(URL, stream=dial, extensions=factories) as session,
    ):
        assert [extension.factory.name for extension in session.extensions] == ["b", None, "a"]


async def test_an_extension_of_ones_own_takes_what_it_offered(autojump_clock: MockClock) -> None:
    """Unless it says more, that is its name without parameters."""
    header = b"\r\nSec-WebSocket-Extensions: a; x=1\r\n\r\n"
    async with scripted(accepting(lambda head: head.replace(b"\r\n\r\n", header))) as dial:
        with pytest.raises(HandshakeInvalid, match="a; x=1"):
            async with connect(URL, stream=dial, extensions=[Named("a")]):
                pass


async def test_a_good_answer_in_any_pieces(autojump_clock: MockClock) -> None:
    """Cut at every byte, in other letters, behind answers of 1xx, with a message behind it."""

    def cut_at(number: int) -> Callable[[RawServer], Awaitable[None]]:
        async def script(server: RawServer) -> None:
            server.head = await server.read_head()
            accepted = server.accepting(b"Sec-WebSocket-Protocol: v1").replace(
                b"Upgrade: websocket", b"UPGRADE: WebSocket"
            )
            data = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + accepted + b"\x81\x02hi"
            await server.send_bytes(data[:number])
            await trio.testing.wait_all_tasks_blocked()
            await server.send_bytes(data[number:])
            await server.receive_rest()

        return script

    for number in range(0, 220, 3):
        async with (
            scripted(cut_at(number)) as dial,
            connect(URL, stream=dial, subprotocols=["v1"], close_timeout=0.1) as session,
        ):
            assert session.protocol == "v1"
            assert await session.receive_text() == "hi"


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello and more", 404, b"hello"),
        (b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 401, b"abcde"),
        (b"HTTP/1.0 503 Busy\r\n\r\nto the end", 503, b"to the end"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", 200, b"half"),
        (b"HTTP/1.1 302 Found\r\nLocation: ws://a/\r\nContent-Length: 0\r\n\r\n", 302, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000000, 500, b"x" * 65536),
    ],
    ids=["length", "chunked", "to the end", "half", "redirect", "nothing", "huge"],
)
async def test_a_refusal(answer: bytes, status: int, body: bytes, autojump_clock: MockClock) -> None:
    """Status, headers and the first 64 KiB of the body, as far as it comes."""
    async with scripted(answering(answer)) as dial:
        with pytest.raises(HandshakeRefused, match=str(status)) as caught:
            async with connect(URL, stream=dial):
                pass
    assert type(caught.value) is HandshakeRefused
    assert (caught.value.status, caught.value.body) == (status, body)
    if status == 302:
        assert caught.value.headers["location"] == "ws://a/"


@pytest.mark.parametrize(("count", "is_taken"), [(16, True), (17, False)])
async def test_so_many_answers_of_1xx(count: int, is_taken: bool, autojump_clock: MockClock) -> None:
    """To the one."""

    async def script(server: RawServer) -> None:
        server.head = await server.read_head()
        await server.send_bytes(b"HTTP/1.1 103 Hints\r\n\r\n" * count + server.accepting())
        await server.receive_rest()

    async with scripted(script) as dial:
        try:
            async with connect(URL, stream=dial, close_timeout=0.1):
                assert is_taken
        except HandshakeInvalid:
            assert not is_taken


@pytest.mark.parametrize("line", [b"Sec-WebSocket-Extensions: \x1b", b"no header: \x1b"])
async def test_what_a_server_says_wrongly_is_not_shown_at_length(line: bytes, autojump_clock: MockClock) -> None:
    """Nor raw."""
    header = b"\r\n" + line + b"x" * 5000 + b"\r\n\r\n"
    async with scripted(accepting(lambda head: head.replace(b"\r\n\r\n", header))) as dial:
        with pytest.raises(HandshakeInvalid) as caught:
            async with connect(URL, stream=dial):
                pass
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


async def endless(server: RawServer, data: bytes) -> None:
    """Send and send."""
    await server.read_head()
    await server.send_bytes(b"HTTP/1.1 ")
    for _ in range(100_000):
        await server.send_bytes(data)
    raise AssertionError("the client took 100,000 pieces")


@pytest.mark.parametrize(
    "data", [b"x" * 100, b"101 Y\r\nX: " + b"y" * 100, b"103 Hints\r\n\r\nHTTP/1.1 "], ids=["line", "head", "1xx"]
)
async def test_an_endless_head(data: bytes, autojump_clock: MockClock) -> None:
    """It is bounded in bytes and in answers."""

    async def script(server: RawServer) -> None:
        await endless(server, data)

    async with scripted(script, pair=trio.testing.lockstep_stream_pair) as dial:
        with pytest.raises(HandshakeInvalid):
            async with connect(URL, stream=dial):
                pass


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Sw", b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n"])
async def test_a_server_that_hangs_up(answer: bytes, autojump_clock: MockClock) -> None:
    """Before it has answered: nobody is there."""
    async with scripted(answering(answer)) as dial:
        with pytest.raises(CannotConnect) as caught:
            async with connect(URL, stream=dial):
                pass
    assert isinstance(caught.value, OSError)


async def test_a_server_that_does_not_answer(autojump_clock: MockClock) -> None:
    """`open_timeout` is for all of it; the stream is closed."""
    closed = []

    async def script(server: RawServer) -> None:
        await server.read_head()
        await server.receive_rest()
        closed.append(trio.current_time())

    async with scripted(script) as dial:
        began = trio.current_time()
        with pytest.raises(CannotConnect, match="7 s") as caught:
            async with connect("ws://127.0.0.1/", stream=dial, open_timeout=7):
                pass
        assert caught.value.addresses == ()  # whoever opened the stream knows them
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CannotConnect) as caught:
            async with connect("ws://localhost/", stream=dial):
                pass
        assert caught.value.addresses == ()
        await trio.testing.wait_all_tasks_blocked()
    assert closed == [pytest.approx(began + 7), pytest.approx(began + 17)]


@given(answer=st.binary(max_size=300), pieces=st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_any_bytes_for_an_answer(answer: bytes, pieces: int) -> None:
    """One of three errors, whatever comes."""

    async def script(server: RawServer) -> None:
        await server.read_head()
        for start in range(0, len(answer), pieces):
            await server.send_bytes(answer[start : start + pieces])

    async def main() -> None:
        async with scripted(script) as dial:
            with pytest.raises((CannotConnect, HandshakeRefused)):
                async with connect(URL, stream=dial):
                    pass

    trio.run(main, clock=MockClock(autojump_threshold=0))


# redirects


def redirecting(locations: Sequence[str | bytes], heads: list[bytes]) -> Callable[[RawServer], Awaitable[None]]:
    """Servers that send on, one after the other, and one that accepts."""
    left = list(locations)

    async def script(server: RawServer) -> None:
        if not left:
            await obliging(server)
            heads.append(server.head)
            return
        heads.append(await server.read_head())
        location = left.pop(0)
        location = location.encode() if isinstance(location, str) else location
        await server.send_bytes(b"HTTP/1.1 307 Over there\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % location)

    return script


async def test_redirects_only_when_asked_for(autojump_clock: MockClock) -> None:
    """Otherwise they are refusals; and so is one too many."""
    for allowed, there in ((0, 1), (1, 2)):
        async with scripted(redirecting(["/b"] * there, [])) as dial:
            with pytest.raises(HandshakeRefused, match="307"):
                async with connect(URL, stream=dial, max_redirects=allowed):
                    pass


async def test_redirects_have_one_limit_together(autojump_clock: MockClock) -> None:
    """`open_timeout` is for everything before the conversation."""
    script = redirecting(["/b", "/c"], [])

    async def slow(server: RawServer) -> None:
        await trio.sleep(6)
        await script(server)

    async with scripted(slow) as dial:
        began = trio.current_time()
        with pytest.raises(CannotConnect):
            async with connect(URL, stream=dial, max_redirects=5, open_timeout=10):
                pass
        assert trio.current_time() - began == pytest.approx(10)


async def test_the_one_who_does_not_answer_is_named(autojump_clock: MockClock) -> None:
    """Not the one who sent us there."""
    script, asked = redirecting(["ws://other.org/there"], []), iter([1, 2])

    async def silent_at_last(server: RawServer) -> None:
        if next(asked) == 1:
            await script(server)
        else:
            await trio.sleep_forever()

    async with scripted(silent_at_last) as dial:
        with pytest.raises(CannotConnect, match=r"^ws://other\.org/there did not answer within 10 s$"):
            async with connect(URL, stream=dial, max_redirects=5, open_timeout=10):
                pass


async def test_a_refusal_whose_body_does_not_come_is_heard_in_time(autojump_clock: MockClock) -> None:
    """The time for it is a part of `open_timeout`."""

    async def script(server: RawServer) -> None:
        await server.read_head()
        await server.send_bytes(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nno")
        await trio.sleep_forever()

    async with scripted(script) as dial:
        began = trio.current_time()
        with pytest.raises(HandshakeRefused, match="403") as caught:
            async with connect(URL, stream=dial, open_timeout=1):
                pass
        assert trio.current_time() - began == pytest.approx(0.5)
    assert caught.value.body == b"no"


@pytest.mark.parametrize("url", ["ws://ada:secret@[fe80::1%25lo]/", "ws://ada:secret@[fe80::1%25lo]:8080/a"])
@pytest.mark.parametrize("location", ["/there", "there", "//[fe80::1]:{}/there"])
async def test_a_redirect_keeps_the_interface(url: str, location: str, autojump_clock: MockClock) -> None:
    """Of which the server knows nothing; so it is the same origin."""
    heads: list[bytes] = []
    location = location.format("8080" if "8080" in url else "80")
    async with (
        scripted(redirecting([location], heads)) as dial,
        connect(url, stream=dial, max_redirects=5, headers={"Cookie": "c=1"}) as session,
    ):
        assert session.call.path == "/there"
    assert all(b"\r\nCookie: c=1" in head and b"\r\nAuthorization: Basic " in head for head in heads)


async def test_a_location_may_be_utf_8(autojump_clock: MockClock) -> None:
    """Though it should be escaped."""
    heads: list[bytes] = []
    for location, target in (
        ("/\u00e4", b"/%C3%A4"),
        ("/%C3%A4", b"/%C3%A4"),
        ("/\u00e4".encode("latin-1"), b"/%C3%A4"),
    ):
        heads.clear()
        async with (
            scripted(redirecting([location], heads)) as dial,
            connect(URL, stream=dial, max_redirects=1),
        ):
            pass
        assert heads[1].split(b" ")[1] == target


async def test_a_location_is_not_shown_at_length(autojump_clock: MockClock) -> None:
    """When it leads nowhere."""
    async with scripted(redirecting(["ftp://" + "x" * 9000], [])) as dial:
        with pytest.raises(HandshakeRefused, match="307") as caught:
            async with connect(URL, stream=dial, max_redirects=2):
                pass
    assert len(str(caught.value)) < 500


async def test_a_refusal_with_a_location_is_no_redirect(autojump_clock: MockClock) -> None:
    """Only a redirect's status is; and a redirect without a location leads nowhere."""
    for answer in (b"404 No\r\nLocation: /b", b"201 Made\r\nLocation: /b", b"307 Where"):
        async with scripted(answering(b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\n\r\n")) as dial:
            with pytest.raises(HandshakeRefused, match=answer[:3].decode()) as caught:
                async with connect(URL, stream=dial, max_redirects=5):
                    pass
        assert "leads" not in str(caught.value)


async def test_redirects_are_followed(autojump_clock: MockClock) -> None:
    """Relative ones, and those to http; on the same origin everything is said again."""
    heads: list[bytes] = []
    url = "ws://ada:secret@example.org/a?x"
    async with (
        scripted(redirecting(["/b", "c?d#e", "http://example.org/f"], heads)) as dial,
        connect(url, stream=dial, max_redirects=3, headers={"Cookie": "c=1", "X": "y"}) as session,
    ):
        assert session.call.path == "/f"
    assert [head.split(b" ")[1] for head in heads] == [b"/a?x", b"/b", b"/c?d", b"/f"]
    assert all(b"\r\nCookie: c=1" in head and b"\r\nX: y" in head for head in heads)
    assert all(b"\r\nAuthorization: Basic " in head for head in heads)


@pytest.mark.parametrize("location", ["ws://other.org/", "ws://example.org:81/", "//other.org/"])
async def test_secrets_stay_with_their_origin(location: str, autojump_clock: MockClock) -> None:
    """Credentials and cookies are not for others; nor are they said again on the way back."""
    heads: list[bytes] = []
    secrets = {"Cookie": "c=1", "authorization": "Bearer x", "Proxy-Authorization": "y", "X": "y", "Host": "inner"}
    async with (
        scripted(redirecting([location, "ws://example.org/back"], heads)) as dial,
        connect(URL, stream=dial, max_redirects=5, headers=secrets),
    ):
        pass
    assert b"Cookie" in heads[0]
    for head in heads[1:]:
        assert not any(word in head.lower() for word in (b"cookie", b"authorization", b"inner"))
        assert b"\r\nX: y" in head


async def test_user_information_is_for_its_origin(autojump_clock: MockClock) -> None:
    """It is a credential, too."""
    heads: list[bytes] = []
    async with (
        scripted(redirecting(["ws://other.org/"], heads)) as dial,
        connect("ws://ada:secret@example.org/", stream=dial, max_redirects=5),
    ):
        pass
    assert b"Authorization" in heads[0]
    assert b"Authorization" not in heads[1]


async def test_user_information_of_a_redirect_is_the_servers_to_give(autojump_clock: MockClock) -> None:
    """For where it leads."""
    heads: list[bytes] = []
    async with (
        scripted(redirecting(["ws://bob:key@other.org/"], heads)) as dial,
        connect("ws://ada:secret@example.org/", stream=dial, max_redirects=5),
    ):
        pass
    assert b"Authorization: Basic " + base64.b64encode(b"bob:key") in heads[1]


@pytest.mark.parametrize(
    "location", ["ftp://example.org/", "ws://", "ws://a:0/", "http://[::1/", "", "http://a..b/", "ws://" + "a" * 64]
)
async def test_a_redirect_to_nowhere(location: str, autojump_clock: MockClock) -> None:
    """A refusal that says so; an empty one leads to the same place."""
    async with scripted(redirecting([location] * 3, [])) as dial:
        with pytest.raises(HandshakeRefused, match="307"):
            async with connect(URL, stream=dial, max_redirects=2):
                pass


async def test_a_stream_is_used_once(autojump_clock: MockClock) -> None:
    """A redirect needs another."""
    async with scripted(redirecting(["/b"], [])) as dial:
        stream = await dial()
        with pytest.raises(HandshakeRefused, match="another stream"):
            async with connect(URL, stream=stream, max_redirects=2):
                pass


@pytest.mark.parametrize(
    ("status", "is_followed"),
    [(300, False), (301, True), (302, True), (303, True), (304, False), (305, False), (307, True), (308, True)],
)
async def test_which_answers_are_redirects(status: int, is_followed: bool, autojump_clock: MockClock) -> None:
    """Those that lead elsewhere by themselves (RFC 9110 §15.4)."""
    answers = [b"HTTP/1.1 %d Over there\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n" % status]

    async def script(server: RawServer) -> None:
        if answers:
            await server.read_head()
            await server.send_bytes(answers.pop())
        else:
            await obliging(server)

    async with scripted(script) as dial:
        try:
            async with connect(URL, stream=dial, max_redirects=1) as session:
                assert is_followed
                assert session.call.path == "/b"
        except HandshakeRefused:
            assert not is_followed


# what is lost


async def test_a_connection_that_is_lost_meanwhile(autojump_clock: MockClock) -> None:
    """Nobody is there any more; what the stream said of it is shown."""
    ours, _ = trio.testing.memory_stream_pair()
    ours.receive_stream.close()
    with pytest.raises(CannotConnect, match=r"^the connection to ws://example\.org/ was lost: ") as caught:
        async with connect(URL, stream=ours):
            pass
    assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


async def test_nobody_is_looked_up_behind_a_unix_socket(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is up, too; but the name in the address is not what was tried."""

    async def look_up(host: str, port: int) -> tuple[str, ...]:
        raise AssertionError

    monkeypatch.setattr("trioktor.client.upgrade.look_up", look_up)
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        with pytest.raises(CannotConnect, match=r"^ws://localhost/ did not answer within 10 s$") as caught:
            async with connect("ws://localhost/", path=path):
                pass
    assert caught.value.addresses == ()


async def test_nobody_is_looked_up_behind_a_proxy(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor was the name in the address tried there."""

    async def look_up(host: str, port: int) -> tuple[str, ...]:
        raise AssertionError

    monkeypatch.setattr("trioktor.client.upgrade.look_up", look_up)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(CannotConnect, match=r"^ws://example\.org/ did not answer within 10 s$") as caught:
            async with connect(URL, proxy=proxy):
                pass
    assert caught.value.addresses == ()


# by hand


async def test_who_offers_extensions_by_hand_judges_the_answer(autojump_clock: MockClock) -> None:
    """As a test may: then nothing is agreed on, and nothing is wrong."""
    ours, theirs = trio.testing.memory_stream_pair()
    options = client_options(URL, {})

    async def serve() -> None:
        await RawServer(theirs).accept(b"Sec-WebSocket-Extensions: anything; at=all")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        opened = await shake_hands(
            StreamTransport(ours), options, options.address, (("Sec-WebSocket-Extensions", "x"),)
        )
    assert opened.extensions == ()
    assert opened.response.headers["sec-websocket-extensions"] == "anything; at=all"
    assert opened.head.headers.get_all("sec-websocket-extensions") == ["x"]
