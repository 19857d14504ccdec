"""What `WebSockets` takes, and that each refusal names the argument."""

from __future__ import annotations

import math
import re
from typing import Any

import attrs
import pytest

from trioktor import SAME_ORIGIN, WebSockets

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
        *((name, value) for name in SECONDS for value in (-1, -0.001, math.nan, "5", True)),
        *((name, 0) for name in SECONDS if name != "answer_grace"),
        *((name, value) for name in COUNTS for value in (0, -1, 1.5, "64", True)),
        *((name, None) for name in [*SECONDS, *COUNTS] if name not in MAY_BE_OFF),
        ("masking", None),
        ("masking", 1),
        ("extensions", ["permessage-deflate"]),
        ("extensions", None),
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
        ("extensions", []),
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
