"""The arguments of `serve`, each by itself: what is taken, what is refused, and what the refusal says."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.support.listening import MemoryListener, tls
from trioktor.server.arguments import Arguments

NO_SERVER = ssl.create_default_context()
GOOD: dict[str, Any] = {
    "port": 0,
    "host": None,
    "path": None,
    "mode": None,
    "listeners": None,
    "backlog": None,
    "ssl_context": None,
    "open_timeout": 10,
    "response_timeout": 30,
    "shutdown_grace": 5,
    "max_head_size": 16384,
    "max_headers": 100,
    "max_connections": None,
    "max_connections_per_address": None,
    "max_opening": None,
    "handler_nursery": None,
}


@pytest.mark.parametrize(
    ("options", "kind", "remedy"),
    [
        (
            {"ssl_context": "chain.pem"},
            TypeError,
            r"ssl_context .*SSLContext\(ssl.PROTOCOL_TLS_SERVER\).*load_cert_chain",
        ),
        (
            {"ssl_context": NO_SERVER},
            ValueError,
            r"ssl_context .*SSLContext\(ssl.PROTOCOL_TLS_SERVER\).*load_cert_chain",
        ),
        ({"port": 65536}, ValueError, "port must be a whole number from 0 to 65535, not 65536"),
        ({"port": 99999}, ValueError, "port must be"),
        ({"port": -1}, ValueError, "port must be"),
        ({"port": True}, ValueError, "port must be"),
        ({"port": "8080"}, ValueError, "port must be .* not '8080'"),
        ({"port": 80.0}, ValueError, "port must be"),
        ({"host": 5}, ValueError, "host must be a name or an address"),
        ({"path": 5}, ValueError, "path must be"),
        ({"path": ""}, ValueError, "path must be"),
        ({"listeners": MemoryListener()}, ValueError, r"listeners must be a list.*write \[listener\]"),
        ({"listeners": []}, ValueError, "listeners must be"),
        ({"listeners": [8080]}, ValueError, "listeners must be"),
        ({"backlog": 0}, ValueError, "backlog must be"),
        ({"backlog": "5"}, ValueError, "backlog must be"),
        ({"open_timeout": 0}, ValueError, "open_timeout must be more than 0 seconds"),
        ({"open_timeout": -1}, ValueError, "open_timeout must be"),
        ({"open_timeout": float("nan")}, ValueError, "open_timeout must be"),
        ({"path": b""}, ValueError, "path must be"),
        ({"path": "socket", "mode": "660"}, ValueError, "mode must be permissions such as 0o660, not '660'"),
        ({"path": "socket", "mode": True}, ValueError, "mode must be"),
        ({"path": "socket", "mode": -1}, ValueError, "mode must be"),
        ({"path": "socket", "mode": 0o1000}, ValueError, "mode must be"),
        ({"mode": 0o660}, ValueError, "mode goes with path"),
        ({"listeners": iter([])}, ValueError, "listeners must be"),
        ({"backlog": 1.0}, ValueError, "backlog must be"),
        ({"response_timeout": 0}, ValueError, "response_timeout must be more than 0 seconds"),
        ({"response_timeout": "30"}, ValueError, "response_timeout must be .* or None"),
        ({"shutdown_grace": None}, ValueError, "shutdown_grace must be"),
        ({"max_head_size": None}, ValueError, "max_head_size must be"),
        ({"max_headers": 0}, ValueError, "max_headers must be"),
        ({"max_opening": 0}, ValueError, "max_opening must be a whole number of at least 1 or None"),
        ({"open_timeout": None}, ValueError, "open_timeout must be"),
        ({"shutdown_grace": -1}, ValueError, "shutdown_grace must be at least 0 seconds"),
        ({"shutdown_grace": float("nan")}, ValueError, "shutdown_grace must be"),
        ({"shutdown_grace": "5"}, ValueError, "shutdown_grace must be"),
        ({"max_head_size": 0}, ValueError, "max_head_size must be"),
        ({"max_head_size": 1e6}, ValueError, "max_head_size must be"),
        ({"max_headers": None}, ValueError, "max_headers must be"),
        ({"max_connections": -1}, ValueError, "max_connections must be a whole number of at least 0 or None"),
        ({"max_connections": True}, ValueError, "max_connections must be"),
        ({"max_connections_per_address": -1}, ValueError, "max_connections_per_address must be"),
        ({"handler_nursery": trio.open_nursery}, ValueError, "handler_nursery must be"),
    ],
    ids=repr,
)
def test_what_makes_no_sense_is_refused_by_name(options: dict[str, Any], kind: type[Exception], remedy: str) -> None:
    """The text begins with the argument, and says what would do."""
    with pytest.raises(kind, match=f"^{remedy}"):
        Arguments(**{**GOOD, **options})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"port": None},
        {"port": 65535},
        {"host": "localhost"},
        {"host": ""},
        {"host": b"127.0.0.1"},
        {"path": "socket"},
        {"path": b"socket"},
        {"path": Path("socket")},
        {"path": "socket", "mode": 0},
        {"path": "socket", "mode": 0o777},
        {"listeners": [MemoryListener()]},
        {"listeners": (MemoryListener(), MemoryListener())},
        {"backlog": 1},
        {"open_timeout": 0.001},
        {"open_timeout": float("inf")},
        {"response_timeout": None},
        {"shutdown_grace": 0},
        {"shutdown_grace": float("inf")},
        {"max_head_size": 1, "max_headers": 1},
        {"max_connections": 0, "max_connections_per_address": 0, "max_opening": 1},
    ],
    ids=repr,
)
def test_the_least_and_the_most_of_each_are_taken(options: dict[str, Any]) -> None:
    """As they are: nothing is made of them."""
    wanted = {**GOOD, **options}
    arguments = Arguments(**wanted)
    assert {name: getattr(arguments, name) for name in wanted} == wanted


def test_a_servers_context_is_taken() -> None:
    """Whether it has a certificate shows with the first connection only."""
    for context in (tls()[0], ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)):
        assert Arguments(**{**GOOD, "ssl_context": context}).ssl_context is context


async def test_a_nursery_that_is_open_is_taken() -> None:
    """To run connections in."""
    async with trio.open_nursery() as nursery:
        assert Arguments(**{**GOOD, "handler_nursery": nursery}).handler_nursery is nursery


@pytest.mark.parametrize("name", GOOD)
def test_every_argument_has_to_be_given(name: str) -> None:
    """The defaults are those of `serve`, and stand there alone."""
    with pytest.raises(TypeError, match=name):
        Arguments(**{key: value for key, value in GOOD.items() if key != name})


def test_they_do_not_change() -> None:
    """What was checked is what is used."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Arguments(**GOOD).port = 1  # type: ignore[misc]
