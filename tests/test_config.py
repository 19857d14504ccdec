"""What `WebSockets` and `ChannelConfig` take, and that each refusal names the argument."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import attrs
import pytest

from trioktor import (
    CLOSE,
    LOOPBACK,
    SAME_ORIGIN,
    SKIP,
    SUSPEND,
    Call,
    CattrsConverter,
    ChannelConfig,
    JsonConverter,
    MsgspecConverter,
    PerMessageDeflate,
    WebSockets,
)
from trioktor.config import EVERYTHING, SessionSettings, Supports, channel_config

DEFAULTS: dict[str, object] = {
    "ping_period": None,
    "timeout": 15,
    "max_frame_size": 1 << 20,
    "masking": False,
    "extensions": (),
    "origins": SAME_ORIGIN,
    "hosts": None,
    "subprotocols": (),
    "max_fragments": 4096,
    "incoming": 64,
    "outgoing": 64,
    "close_timeout": 10,
    "write_timeout": 30,
    "answer_grace": 0.5,
    "handler_grace": 3,
    "content_converter": None,
    "max_queued_bytes": 1 << 20,
}

SECONDS = ["ping_period", "timeout", "close_timeout", "write_timeout", "answer_grace", "handler_grace"]
COUNTS = ["max_frame_size", "max_fragments", "incoming", "outgoing", "max_queued_bytes"]
MAY_BE_OFF = ["ping_period", "max_frame_size", "max_fragments", "write_timeout", "handler_grace"]


def test_the_defaults_are_those_of_the_contract() -> None:
    """Every setting there is, with the value it has when nobody says anything."""
    assert attrs.asdict(WebSockets(), recurse=False) == DEFAULTS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in SECONDS for value in (-1, -0.001, math.nan, "5", True, 10**400)),
        *((name, 0) for name in SECONDS if name != "answer_grace"),
        *((name, value) for name in COUNTS for value in (0, -1, 1.5, "64", True)),
        *((name, None) for name in [*SECONDS, *COUNTS] if name not in MAY_BE_OFF),
        ("masking", None),
        ("masking", 1),
        ("extensions", ["permessage-deflate"]),
        ("extensions", None),
        ("extensions", "permessage-deflate"),
        ("extensions", [PerMessageDeflate]),
        ("extensions", [PerMessageDeflate(), PerMessageDeflate()]),
        ("origins", "https://example.com"),
        ("origins", ["https://example.com", 5]),
        ("origins", 5),
        ("subprotocols", "two words"),
        ("subprotocols", None),
        ("subprotocols", [""]),
        ("subprotocols", ["two words"]),
        ("subprotocols", ["a,b"]),
        ("subprotocols", ["chat\r\nX-Evil: 1"]),
        ("subprotocols", [5]),
    ],
    ids=lambda value: repr(value) if not isinstance(value, str) else value.encode("unicode_escape").decode(),
)
def test_a_value_that_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    """F01: a ValueError whose text begins with the argument's name."""
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        WebSockets(**settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, None) for name in MAY_BE_OFF),
        *((name, 0.001) for name in SECONDS),
        *((name, 7) for name in SECONDS),
        *((name, 1) for name in COUNTS),
        ("answer_grace", 0),
        ("masking", True),
        ("origins", None),
        ("origins", SAME_ORIGIN),
        ("origins", ()),
        ("hosts", None),
        ("hosts", LOOPBACK),
        ("hosts", ()),
        ("subprotocols", ("v2", "v1")),
        ("incoming", ChannelConfig(1, CLOSE)),
        ("outgoing", ChannelConfig(1, CLOSE)),
    ],
)
def test_a_value_that_makes_sense_is_kept(name: str, value: object) -> None:
    """None is off where something can be off; the least values are allowed."""
    settings: dict[str, Any] = {name: value}
    assert getattr(WebSockets(**settings), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subprotocols", ["chat", "superchat"]),
        ("origins", ["https://example.com", re.compile("https://.*")]),
        ("hosts", ["example.com", re.compile(".*")]),
        ("extensions", [PerMessageDeflate()]),
    ],
)
def test_lists_are_copied(name: str, value: list[Any]) -> None:
    """A list that changes later does not change the settings."""
    settings: dict[str, Any] = {name: value}
    config = WebSockets(**settings)
    before = tuple(value)
    value.append("later")
    assert getattr(config, name) == before


def test_settings_are_frozen() -> None:
    """A running server cannot be half of one configuration and half of another."""
    config = WebSockets()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.timeout = 1  # type: ignore[misc]


def test_settings_are_given_by_name() -> None:
    """Nobody remembers the order of fifteen numbers."""
    with pytest.raises(TypeError, match="positional"):
        WebSockets(60)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("origin", "hint"),
    [
        ("*", "None lets anyone in"),
        ("example.com", "write 'https://example.com'"),
        ("*.example.com", r"write 'https://\*.example.com'"),
        ("//example.com/", "write 'https://example.com'"),
        ("https://example.com/", "write 'https://example.com'"),
        ("https://example.com/path", "scheme and a host without a path"),
        ("", "origins"),
    ],
)
def test_an_origin_that_no_page_has_is_refused(origin: str, hint: str) -> None:
    """It would let nobody in, and nobody would know why."""
    with pytest.raises(ValueError, match=hint):
        WebSockets(origins=["https://good.com", origin])


def test_origins_that_pages_have_are_taken() -> None:
    """With stars in their hosts, ports, and the one of files."""
    origins = [
        "https://example.com",
        "http://localhost:3000",
        "https://*.example.com",
        "null",
        "app://x",
        "http://[::1]:80",
    ]
    assert tuple(origins) == WebSockets(origins=origins).origins


@pytest.mark.parametrize(
    "host",
    ["example.com", "*.example.com", "a", "127.0.0.1", "::1", "[::1]", "*", "under_score.example", re.compile("x")],
)
def test_hosts_that_there_are_are_taken(host: Any) -> None:
    """Names, addresses, stars and patterns."""
    assert WebSockets(hosts=[host]).hosts == (host,)


def test_one_subprotocol_is_a_list_of_one() -> None:
    """So that it is no list of its letters."""
    assert WebSockets(subprotocols="v1").subprotocols == ("v1",)


def test_a_function_may_choose_the_subprotocol() -> None:
    """A plain one: nothing waits for it."""

    def choose(call: Call) -> str | None:
        return None

    async def choose_later(call: Call) -> str | None:
        return None

    assert WebSockets(subprotocols=choose).subprotocols is choose
    with pytest.raises(ValueError, match="leave the async out"):
        WebSockets(subprotocols=choose_later)


def test_two_that_say_the_same_are_equal() -> None:
    """And one that is derived from another is checked, too."""
    assert WebSockets(timeout=5) == WebSockets(timeout=5) != WebSockets()
    assert attrs.evolve(WebSockets(), timeout=5) == WebSockets(timeout=5)
    with pytest.raises(ValueError, match=r"^timeout "):
        attrs.evolve(WebSockets(), timeout=0)


def test_what_both_ends_have_is_given_by_keywords_of_the_same_names() -> None:
    """All settings but those that mean something to a server alone, or that a client takes otherwise."""
    servers = {"masking", "extensions", "origins", "hosts", "subprotocols", "handler_grace"}
    assert set(SessionSettings.__annotations__) == set(DEFAULTS) - servers


# queues


def test_a_queue_waits_unless_it_is_told_to_close() -> None:
    """64 places, like those of the settings."""
    assert ChannelConfig() == ChannelConfig(64, SUSPEND)
    assert ChannelConfig(5, on_overflow=CLOSE).on_overflow is CLOSE


@pytest.mark.parametrize("capacity", [0, -1, 1.5, "5", True, None])
def test_a_queue_has_a_place_at_least(capacity: Any) -> None:
    """A whole number of them."""
    with pytest.raises(ValueError, match=r"^capacity must be a whole number of at least 1, not "):
        ChannelConfig(capacity)


@pytest.mark.parametrize("what", [SKIP, "close", None, True])
def test_a_queue_leaves_no_message_out(what: Any) -> None:
    """That is for those who send to many."""
    with pytest.raises(ValueError, match=r"^on_overflow must be SUSPEND or CLOSE, not "):
        ChannelConfig(on_overflow=what)


@pytest.mark.parametrize("number", [1, 64, 1000])
def test_a_queue_may_be_given_as_its_size(number: int) -> None:
    """It waits then; a configuration stays what it is."""
    assert channel_config(number) == ChannelConfig(number, SUSPEND)
    whole = ChannelConfig(number, CLOSE)
    assert channel_config(whole) == whole


# carriers


def test_a_stream_of_bytes_can_do_everything() -> None:
    """Whoever cannot says so by name."""
    assert EVERYTHING == Supports()
    assert attrs.asdict(EVERYTHING) == {"name": "trioktor", "frames": True, "pings": True, "extensions": True}
    with pytest.raises(TypeError, match="positional"):
        Supports("somebody")  # type: ignore[call-arg]


@pytest.mark.parametrize("host", ["https://example.com", "example.com:80", "example.com/", "", "a b", "user@x", "a/b"])
def test_what_is_no_host_is_a_value_error(host: str) -> None:
    """It would match nothing."""
    with pytest.raises(ValueError, match="hosts"):
        WebSockets(hosts=["good.example", host])


@pytest.mark.parametrize("hosts", [5, [5], b"example.com", {"a": 1}])
def test_what_is_no_list_of_hosts_is_a_value_error(hosts: Any) -> None:
    """As said."""
    with pytest.raises(ValueError, match="hosts must be None"):
        WebSockets(hosts=hosts)


@pytest.mark.parametrize(
    "converter", [JsonConverter, MsgspecConverter, CattrsConverter], ids=lambda kind: kind.__name__
)
def test_the_class_instead_of_an_instance_is_a_value_error(converter: Any) -> None:
    """The text says to write the parentheses."""
    with pytest.raises(ValueError, match=rf"^content_converter must be .*{converter.__name__}\(\)"):
        WebSockets(content_converter=converter)


@pytest.mark.parametrize("converter", [object(), "json", json, int, {}, lambda value: value, True], ids=str)
def test_what_has_not_the_methods_is_a_value_error(converter: Any) -> None:
    """The text names the argument and one that would do."""
    with pytest.raises(ValueError, match=r"^content_converter must be a ContentConverter such as JsonConverter\(\)"):
        WebSockets(content_converter=converter)
