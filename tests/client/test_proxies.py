"""Ways through a proxy: addresses of proxies, those that the environment names, the tunnel, and SOCKS."""

from __future__ import annotations

import base64
import math

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trioktor import CannotConnect, HandshakeRefused, connect
from trioktor.client.proxies import Proxy, parse_proxy, proxy_from_environment, through_socks, tunnel
from trioktor.http.address import parse_address
from trioktor.http.asking import BadAnswer

# addresses


@pytest.mark.parametrize(
    ("url", "proxy", "text"),
    [
        ("http://a", Proxy("http", "a", 80), "http://a:80"),
        ("https://a", Proxy("https", "a", 443), "https://a:443"),
        ("socks4://a", Proxy("socks4", "a", 1080), "socks4://a:1080"),
        ("socks4a://a", Proxy("socks4a", "a", 1080), "socks4a://a:1080"),
        ("socks5://a", Proxy("socks5", "a", 1080), "socks5://a:1080"),
        ("socks5h://a", Proxy("socks5h", "a", 1080), "socks5h://a:1080"),
        ("HTTP://A.example:8080/", Proxy("http", "a.example", 8080), "http://a.example:8080"),
        ("http://[::1]:1", Proxy("http", "::1", 1), "http://[::1]:1"),
        ("http://ada@a", Proxy("http", "a", 80, ("ada", "")), "http://a:80"),
        ("http://ada:@a", Proxy("http", "a", 80, ("ada", "")), "http://a:80"),
        ("http://@a", Proxy("http", "a", 80), "http://a:80"),
        ("http://[fe80::1%25lo]:1", Proxy("http", "fe80::1%lo", 1), "http://[fe80::1%lo]:1"),
        ("http://b\u00fccher.example", Proxy("http", "xn--bcher-kva.example", 80), "http://xn--bcher-kva.example:80"),
        (
            "socks5://" + "u" * 255 + ":" + "p" * 255 + "@a",
            Proxy("socks5", "a", 1080, ("u" * 255, "p" * 255)),
            "socks5://a:1080",
        ),
        ("http://" + "u" * 256 + "@a", Proxy("http", "a", 80, ("u" * 256, "")), "http://a:80"),
        ("http://a%40b:c%3Ad@a:65535", Proxy("http", "a", 65535, ("a@b", "c:d")), "http://a:65535"),
    ],
)
def test_the_address_of_a_proxy(url: str, proxy: Proxy, text: str) -> None:
    """Taken apart, and said without what may be secret."""
    assert parse_proxy(url) == proxy
    assert str(proxy) == text
    assert proxy.is_socks == url.startswith("socks")


@pytest.mark.parametrize(
    "url",
    ["", "a", "a:1", "//a", "ftp://a", "socks://a", "http://", "http://:1", "http://a:0", "http://a:65536",
     "http://a:-1", "http://a:x", "http://[::1", "http://a/path", "http://a?query", "http://a/?query", "http://a#f",
     "http://[::1]x:5", "http://x[::1]:5", "http://a b", "http://a\n:1", "http://a..b", "http://\ud800"],
)  # fmt: skip
def test_what_is_no_address_of_a_proxy(url: str) -> None:
    """It is shown."""
    with pytest.raises(ValueError, match=r"^not a proxy's address") as caught:
        parse_proxy(url)
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://us%3Aer:pw@a", "socks5://u:" + "p" * 256 + "@a", "socks5://" + "é" * 128 + "@a"]
)
def test_credentials_that_a_proxy_can_not_be_told(url: str) -> None:
    """RFC 7617 §2, RFC 1929; they are not shown."""
    with pytest.raises(ValueError, match=r"^not a proxy's address: 'a': ") as caught:
        parse_proxy(url)
    assert "pw" not in str(caught.value)
    assert "ppp" not in str(caught.value)


def test_socks_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how to get it, at the call."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ImportError, match=r"trioktor\[proxy\]"):
        connect("ws://a/", proxy="socks5://b")


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "ws://a/", None),
        ({"http_proxy": "http://p:1"}, "ws://a/", "http://p:1"),
        ({"http_proxy": "http://p:1"}, "wss://a/", None),
        ({"https_proxy": "p:1"}, "wss://a/", "http://p:1"),
        ({"HTTPS_PROXY": "http://P"}, "wss://a/", "http://p:80"),
        ({"all_proxy": "https://p"}, "ws://a/", "https://p:443"),
        ({"wss_proxy": "http://w:1", "https_proxy": "http://p:1"}, "wss://a/", "http://w:1"),
        ({"all_proxy": "http://p:1", "no_proxy": "b,.example.org"}, "ws://a/", "http://p:1"),
        ({"all_proxy": "http://p:1", "no_proxy": "b,a"}, "ws://a/", None),
        ({"all_proxy": "http://p:1", "no_proxy": ".example.org"}, "ws://x.example.org/", None),
        ({"all_proxy": "http://p:1", "no_proxy": "a:81"}, "ws://a/", "http://p:1"),
        ({"all_proxy": "http://p:1", "no_proxy": "a:81"}, "ws://a:81/", None),
        ({"all_proxy": "http://p:1", "no_proxy": "*"}, "ws://a/", None),
        ({"all_proxy": "http://p:1", "no_proxy": "::1"}, "ws://[::1]/", None),
        ({"all_proxy": "http://p:1", "no_proxy": "[::1]"}, "ws://[::1]/", None),
        ({"all_proxy": "http://[::1]:1"}, "ws://a/", "http://[::1]:1"),
    ],
)
def test_proxies_of_the_environment(
    environment: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names that other programs use."""
    for name in ("ws", "wss", "http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = proxy_from_environment(parse_address(url))
    assert (None if found is None else str(found)) == proxy


def test_a_proxy_shows_no_secrets() -> None:
    """Nor does what says that it is none."""
    assert "secret" not in repr(parse_proxy("http://ada:secret@a:1"))
    for url in ("http://ada:secret@a:1/path", "http://ada:sec/secret@a:1", "http://ada:secret#x@a:1"):
        with pytest.raises(ValueError, match="not a proxy") as caught:
            parse_proxy(url)
        assert "sec" not in str(caught.value)
    assert "secret" not in repr(parse_address("ws://ada:secret@a:1/")) + str(parse_address("ws://ada:secret@a:1/"))


def test_a_proxy_of_the_environment_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said when it is needed."""
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"http": "ftp://a"})
    monkeypatch.setattr("urllib.request.proxy_bypass", lambda host: False)
    with pytest.raises(ValueError, match="not a proxy"):
        proxy_from_environment(parse_address("ws://a/"))
    assert proxy_from_environment(parse_address("wss://a/")) is None


@pytest.mark.parametrize(("scheme", "names"), [("ws", ["ws", "http", "all"]), ("wss", ["wss", "https", "all"])])
def test_the_nearest_name_comes_first(scheme: str, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And an empty one is none."""
    proxies = {name: f"http://{name}" for name in ("ws", "wss", "http", "https", "all")}
    monkeypatch.setattr("urllib.request.getproxies", lambda: proxies)
    monkeypatch.setattr("urllib.request.proxy_bypass", lambda host: False)
    for name in names:
        assert proxy_from_environment(parse_address(f"{scheme}://a/")) == Proxy("http", name, 80)
        proxies[name] = ""
    assert proxy_from_environment(parse_address(f"{scheme}://a/")) is None


# tunnels


async def tunnelled(answer: bytes, url: str = "ws://example.org/", proxy: str = "http://proxy") -> bytes:
    """Ask for a tunnel, and be answered so; the request."""
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(answer)
    await theirs.send_eof()
    await tunnel(ours, parse_proxy(proxy), parse_address(url))
    return bytes(await theirs.receive_some())


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("ws://example.org/", b"example.org:80"),
        ("wss://example.org/a?b", b"example.org:443"),
        ("ws://example.org:8080/", b"example.org:8080"),
        ("wss://[::1]/", b"[::1]:443"),
        ("ws://[fe80::1%25lo]/", b"[fe80::1]:80"),
    ],
)
async def test_what_a_proxy_is_asked_for(url: str, target: bytes) -> None:
    """The host and its port, always both (RFC 9110 §9.3.6); nothing of the request that is to come."""
    assert await tunnelled(b"HTTP/1.1 200 Yes\r\n\r\n", url) == (
        b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n\r\n"
    )


async def test_a_proxy_is_told_who_asks() -> None:
    """As basic authentication, in UTF-8; what the server is told is not for it."""
    request = await tunnelled(b"HTTP/1.1 200 Yes\r\n\r\n", "ws://eve:other@example.org/", "http://ada:%C3%BC:x@proxy")
    secret = base64.b64encode("ada:ü:x".encode())
    assert request.endswith(b"\r\nProxy-Authorization: Basic " + secret + b"\r\n\r\n")
    assert request.count(b"Basic") == 1


@pytest.mark.parametrize("status", [200, 204, 299])
async def test_any_success_is_a_tunnel(status: int) -> None:
    """In whatever version of HTTP; headers mean nothing."""
    for head in (b"HTTP/1.0 %d Yes\r\n\r\n", b"HTTP/1.1 %d Yes\r\nX: y\r\n\r\n"):
        assert (await tunnelled(head % status)).startswith(b"CONNECT ")


@pytest.mark.parametrize("status", [300, 400, 403, 407, 502, 600])
async def test_anything_else_is_none(status: int) -> None:
    """The whole answer stands behind the error."""
    with pytest.raises(CannotConnect, match=rf"^the proxy http://proxy:80 answered {status}$") as caught:
        await tunnelled(b"HTTP/1.1 %d No\r\nX: y\r\nContent-Length: 2\r\n\r\nno" % status)
    refusal = caught.value.__cause__
    assert isinstance(refusal, HandshakeRefused)
    assert (refusal.status, refusal.headers["x"], refusal.body) == (status, "y", b"no")


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 Y", b"SSH-2.0" + b"x" * 9000 + b"\r\n\r\n"], ids=["nothing", "half", "no HTTP"]
)
async def test_a_proxy_that_does_not_answer(answer: bytes) -> None:
    """It says which, and not who asked; nor all that it said."""
    how = "answered wrongly" if answer.startswith(b"SSH") else "did not answer"
    with pytest.raises(CannotConnect, match=rf"^the proxy http://proxy:80 {how}: .{{,200}}$") as caught:
        await tunnelled(answer, proxy="http://ada:secret@proxy")
    assert isinstance(caught.value.__cause__, BadAnswer)
    assert "secret" not in str(caught.value)


async def test_a_proxy_that_is_lost() -> None:
    """The stream's error stands behind it."""
    ours, theirs = trio.testing.memory_stream_pair()
    await trio.aclose_forcefully(theirs)
    ours.receive_stream.close()
    with pytest.raises(CannotConnect, match="did not answer") as caught:
        await tunnel(ours, parse_proxy("http://proxy"), parse_address("ws://a/"))
    assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


async def test_a_proxy_that_says_something_of_its_own() -> None:
    """A server speaks second: what stands there is not the server's."""
    with pytest.raises(CannotConnect, match="something of its own"):
        await tunnelled(b"HTTP/1.1 200 Yes\r\n\r\nx")


async def test_a_tunnel_can_be_cancelled(autojump_clock: MockClock) -> None:
    """While the proxy thinks; the stream is the caller's."""
    ours, theirs = trio.testing.memory_stream_pair()
    with trio.move_on_after(5) as scope:
        await tunnel(ours, parse_proxy("http://proxy"), parse_address("ws://a/"))
    assert scope.cancelled_caught
    await ours.send_all(b"it is open")
    assert bytes(await theirs.receive_some()).endswith(b"it is open")


# SOCKS


@pytest.mark.parametrize("local_address", [None, "127.0.0.9"])
@pytest.mark.parametrize(
    ("scheme", "user", "kind", "looks_up"),
    [
        ("socks4", "ada:", "SOCKS4", False),
        ("socks4a", "ada:", "SOCKS4", True),
        ("socks5", "ada:secret", "SOCKS5", False),
        ("socks5h", "ada:secret", "SOCKS5", True),
        ("socks5", None, "SOCKS5", False),
    ],
)
async def test_what_python_socks_is_told(
    scheme: str,
    user: str | None,
    kind: str,
    looks_up: bool,
    local_address: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kind, the proxy, who asks, and who looks names up."""
    pytest.importorskip("python_socks")
    said: list[object] = []
    sock = trio.socket.socket()

    class Fake:
        """In the place of its proxy."""

        def __init__(self, kind: object, *rest: object, **more: object) -> None:
            said.extend([getattr(kind, "name", None), *rest, more])

        async def connect(self, *where: object, **more: object) -> trio.socket.SocketType:
            """It is connected."""
            said.extend([*where, more])
            return sock

    monkeypatch.setattr("python_socks.async_.trio.Proxy", Fake)
    proxy = parse_proxy(f"{scheme}://{user}@proxy:1" if user is not None else f"{scheme}://proxy:1")
    stream = await through_socks(proxy, parse_address("ws://example.org:81/"), local_address)
    assert isinstance(stream, trio.SocketStream)
    assert stream.socket is sock
    name, password = (None, None) if user is None else tuple(user.split(":"))
    where = None if local_address is None else (local_address, 0)
    assert said == [
        *(kind, "proxy", 1, name, password, {"rdns": looks_up}),
        *("example.org", 81, {"local_addr": where, "timeout": math.inf}),
    ]
    await stream.aclose()


@pytest.mark.parametrize(
    "error", ["ProxyError", "ProxyConnectionError", "ProxyTimeoutError", "OSError", "ValueError", "KeyError"]
)
async def test_what_python_socks_raises(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a proxy does not do is `CannotConnect`; a fault of its own is not hidden."""
    python_socks = pytest.importorskip("python_socks")
    own = {"OSError": OSError, "ValueError": ValueError, "KeyError": KeyError}
    kind: type[Exception] = own.get(error) or getattr(python_socks, error)

    async def fail(*_: object, **__: object) -> None:
        raise kind("no")

    monkeypatch.setattr("python_socks.async_.trio.Proxy.connect", fail)
    proxy = parse_proxy("socks5://ada:secret@proxy:1")
    with pytest.raises(KeyError if error == "KeyError" else CannotConnect) as caught:
        await through_socks(proxy, parse_address("ws://example.org/"), None)
    if error != "KeyError":
        assert isinstance(caught.value.__cause__, kind)
        assert str(caught.value) == "the proxy socks5://proxy:1 did not connect: no"
