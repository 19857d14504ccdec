"""What `connect` takes: each argument is checked at the call, and kept ready to be used any number of times."""

from __future__ import annotations

import math
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trioktor import JsonConverter, PerMessageDeflate, WebSockets, connect
from trioktor.client.options import ConnectOptions, Options, client_options, client_settings
from trioktor.client.proxies import Proxy
from trioktor.config import SessionSettings
from trioktor.http.address import parse_address

URL = "ws://example.org/"


def options(**given: Any) -> Options:
    """What becomes of these arguments."""
    return client_options(URL, given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"headers": {"X": "1\r\nY: 2"}}, "control character"),
        ({"headers": {"Sec-WebSocket-Key": "x"}}, "Sec-WebSocket-Key"),
        ({"headers": [("Upgrade", "h2c")]}, "Upgrade"),
        ({"headers": {"X": " x"}}, "blank"),
        ({"headers": {"X": "x\t"}}, "blank"),
        ({"headers": [("Host", "a"), ("host", "b")]}, "Host"),
        ({"origin": " x"}, "blank"),
        ({"origin": "http://a", "headers": {"Origin": "http://b"}}, "one Origin"),
        ({"headers": [("Origin", "http://a"), ("origin", "http://b")]}, "one Origin"),
        ({"headers": 5}, "headers are"),
        ({"headers": [5]}, "headers are"),
        ({"headers": b"ab"}, "headers are"),
        ({"headers": {("a", "b", "c")}}, "headers are"),
        ({"subprotocols": 5}, "subprotocols"),
        ({"subprotocols": [5]}, "subprotocols"),
        ({"subprotocols": b"v1"}, "subprotocols"),
        ({"subprotocols": ""}, "subprotocols"),
        ({"headers": 0}, "headers are"),
        ({"origin": "", "headers": {"Origin": "http://b"}}, "one Origin"),
        ({"server_hostname": "a\0b"}, "server_hostname"),
        ({"server_hostname": ""}, "server_hostname"),
        ({"local_address": "a..b"}, "local_address"),
        ({"origin": 5}, "origin"),
        ({"proxy": 5}, "proxy"),
        ({"path": 5}, "path"),
        ({"ssl_context": 5}, "ssl_context"),
        ({"server_hostname": 5}, "server_hostname"),
        ({"local_address": 5}, "local_address"),
        ({"headers": {"Sec-WebSocket-Protocol": "v1"}}, "Sec-WebSocket-Protocol"),
        ({"origin": "a\r\nb"}, "origin has a control character"),
        ({"headers": "abc"}, "headers are"),
        ({"headers": [("X", 1)]}, "headers are .* not .'X', 1.$"),
        ({"extensions": PerMessageDeflate()}, "extensions must be a list"),
        ({"subprotocols": ["a b"]}, "subprotocols"),
        ({"subprotocols": ["a", "a"]}, "twice"),
        ({"extensions": [PerMessageDeflate]}, "PerMessageDeflate"),
        ({"open_timeout": 0}, "open_timeout"),
        ({"max_redirects": -1}, "max_redirects"),
        ({"max_redirects": True}, "max_redirects"),
        ({"stream": "x"}, "stream"),
        ({"path": "/x", "proxy": "http://a:1"}, "one of path, proxy"),
        ({"path": "/x", "local_address": "::1"}, "local_address"),
        ({"proxy": "ftp://a"}, "proxy"),
        ({"proxy": "http://a:0"}, "proxy"),
        ({"proxy": "http://a:x"}, "proxy"),
        ({"ping_period": 0}, "ping_period"),
        ({"websockets": 1}, "websockets"),
        ({"masking": False}, "masking"),
        ({"nothing": 1}, "nothing"),
        ({"handler_grace": 1}, "handler_grace"),
    ],
)
def test_arguments_that_make_no_sense(options: dict[str, Any], text: str) -> None:
    """They are found at the call, and named."""
    with pytest.raises((ValueError, TypeError), match=text):
        connect(URL, **options)


@pytest.mark.parametrize(
    "given",
    [
        {"open_timeout": -1},
        {"open_timeout": math.nan},
        {"open_timeout": 10**400},
        {"open_timeout": "5"},
        {"open_timeout": True},
        {"max_redirects": 1.0},
        {"max_redirects": None},
        {"stream": "x", "path": "/x"},
        {"stream": 5},
        {"path": "/x", "proxy": True},
        {"stream": connect, "proxy": True},
        {"stream": connect, "local_address": "::1"},
        {"proxy": b"http://a"},
        {"extensions": [PerMessageDeflate(), PerMessageDeflate()]},
        {"origins": None},
        {"hosts": None},
        {"address": "x"},
        {"settings": WebSockets()},
    ],
    ids=repr,
)
def test_more_arguments_that_make_no_sense(given: dict[str, Any]) -> None:
    """Each is named."""
    with pytest.raises((ValueError, TypeError), match="|".join(given)):
        options(**given)


def test_what_nobody_says() -> None:
    """Straight to the address, ten seconds for it, and no redirect."""
    assert options() == Options(
        address=parse_address(URL),
        settings=WebSockets(handler_grace=None),
        subprotocols=(),
        extensions=(),
        origin=None,
        headers=(),
        ssl_context=None,
        server_hostname=None,
        proxy=None,
        open_timeout=10,
        max_redirects=0,
        stream=None,
        path=None,
        local_address=None,
    )


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"open_timeout": None}, "open_timeout", math.inf),
        ({"open_timeout": 0.001}, "open_timeout", 0.001),
        ({"open_timeout": math.inf}, "open_timeout", math.inf),
        ({"max_redirects": 7}, "max_redirects", 7),
        ({"subprotocols": "v1"}, "subprotocols", ("v1",)),
        ({"subprotocols": ["v2", "v1"]}, "subprotocols", ("v2", "v1")),
        ({"subprotocols": None}, "subprotocols", ()),
        ({"origin": "https://a.example"}, "origin", "https://a.example"),
        ({"headers": {"X": "1", "Y": "2"}}, "headers", (("X", "1"), ("Y", "2"))),
        ({"headers": [("X", "1"), ("X", "2")]}, "headers", (("X", "1"), ("X", "2"))),
        ({"headers": None}, "headers", ()),
        ({"proxy": "http://a"}, "proxy", Proxy("http", "a", 80)),
        ({"proxy": True}, "proxy", True),
        ({"proxy": False}, "proxy", False),
        ({"proxy": False, "path": "/x"}, "path", "/x"),
        ({"path": Path("/x")}, "path", Path("/x")),
        ({"local_address": "::1", "proxy": "http://a"}, "local_address", "::1"),
        ({"server_hostname": "a"}, "server_hostname", "a"),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_what_is_kept(given: Mapping[str, Any], name: str, expected: object) -> None:
    """Of each argument, in the one form that it is used in."""
    assert getattr(options(**given), name) == expected


async def test_streams_and_contexts_are_kept_as_they_are() -> None:
    """An open stream, or what opens one."""
    context = ssl.create_default_context()
    assert options(ssl_context=context).ssl_context is context
    stream, _ = trio.testing.memory_stream_pair()
    assert options(stream=stream).stream is stream

    async def open_one() -> trio.abc.Stream:
        return stream

    assert options(stream=open_one).stream is open_one


def test_lists_are_copied() -> None:
    """What changes later does not change the options."""
    lists: dict[str, list[Any]] = {"subprotocols": ["v1"], "headers": [("X", "1")], "extensions": [PerMessageDeflate()]}
    kept = options(**lists)
    before = attrs.asdict(kept, recurse=False)
    for value in lists.values():
        value.clear()
    assert attrs.asdict(kept, recurse=False) == before
    assert len(kept.subprotocols) == len(kept.headers) == len(kept.extensions) == 1


def test_headers_are_not_shown() -> None:
    """They may be secret."""
    assert "secret" not in repr(options(headers={"Authorization": "secret"}))


# settings


def test_what_settings_offer_is_offered() -> None:
    """Unless something else is said; a function that chooses offers nothing."""
    deflate, other = PerMessageDeflate(), PerMessageDeflate(window_bits=9)
    shared = WebSockets(subprotocols=["v1"], extensions=[deflate])
    kept = options(websockets=shared)
    assert (kept.subprotocols, kept.extensions) == (("v1",), (deflate,))
    kept = options(websockets=shared, subprotocols=[], extensions=[])
    assert (kept.subprotocols, kept.extensions) == ((), ())
    kept = options(websockets=shared, subprotocols=["v2"], extensions=[other])
    assert (kept.subprotocols, kept.extensions) == (("v2",), (other,))
    assert options(websockets=WebSockets(subprotocols=lambda call: None)).subprotocols == ()


SETTINGS: dict[str, Any] = {
    "ping_period": 5,
    "timeout": 6,
    "max_frame_size": 7,
    "max_fragments": 8,
    "incoming": 9,
    "outgoing": 10,
    "close_timeout": 11,
    "write_timeout": 12,
    "answer_grace": 13,
    "content_converter": JsonConverter(),
    "max_queued_bytes": 14,
}


def test_every_setting_of_both_ends_is_a_keyword() -> None:
    """The table above holds all of them."""
    assert set(SETTINGS) == set(SessionSettings.__annotations__)
    assert options(**SETTINGS).settings == WebSockets(**SETTINGS, handler_grace=None)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_keyword_goes_before_the_settings(name: str) -> None:
    """The rest stays as it was given; the settings themselves are not changed."""
    shared = WebSockets(timeout=99, close_timeout=98)
    given: Any = {name: SETTINGS[name]}
    assert client_settings(shared, given) == attrs.evolve(shared, **given, handler_grace=None)
    assert shared == WebSockets(timeout=99, close_timeout=98)


@pytest.mark.parametrize("websockets", [None, WebSockets(), WebSockets(handler_grace=5)], ids=repr)
def test_nobody_ends_the_block_of_a_client(websockets: WebSockets | None) -> None:
    """The grace of handlers is for handlers."""
    assert client_settings(websockets, {}).handler_grace is None


def test_all_that_is_no_argument_is_named() -> None:
    """What a server alone has included."""
    given: Any = {"timeout": 5, "zeta": 1, "masking": True, "alpha": 2}
    with pytest.raises(TypeError, match=r"^connect has no argument alpha, masking, zeta$"):
        client_settings(None, given)


def test_the_arguments_that_type_checkers_know_are_those_that_are_taken() -> None:
    """All options, but that the address stands in front, and settings have a name of their own."""
    names = {field.name for field in attrs.fields(Options)} - {"address", "settings"} | {"websockets"}
    assert set(ConnectOptions.__annotations__) | set(SETTINGS) == names | set(SETTINGS)
