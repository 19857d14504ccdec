"""Who may come in: the places of a server, and those who ask for one.

A connection asks from its acceptance on: while TLS and its request are awaited, and while it is told no. Of those
there may be so many; one more, and the one that has been asking for longest is cut: whoever sends its request is
heard long before. When the request is found good, the connection takes a place, in all and of its client's address,
and has it to its end. So whoever is silent, or refused, takes no place from anybody.
"""

from __future__ import annotations

import ipaddress
import math
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, final

import attrs
import trio

from ..http.headers import Refusal
from ..routing.proxies import normal_address

if sys.platform != "win32":
    import resource

_MANY: Final = 1 << 20
"""Files that a process may have open where the system does not say."""
_MOST_ASKING: Final = 1000
_RESERVED: Final = 64
"""Files that are left to the application, its logs, its listeners and the interpreter."""


def places_for(open_files: float) -> tuple[int, int]:
    """How many connections fit among so many open files, and how many more may ask."""
    files = int(min(open_files, _MANY))
    asking = max(1, min(_MOST_ASKING, files // 8))
    return max(1, files - asking - min(_RESERVED, files // 8)), asking


def default_places() -> tuple[int, int]:
    """As `places_for`, for the open files that this process may have (RLIMIT_NOFILE) now."""
    files: float = math.inf
    if sys.platform != "win32":
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        files = math.inf if allowed == resource.RLIM_INFINITY else allowed
    return places_for(files)


@final
@attrs.frozen(kw_only=True)
class Limits:
    """What a server grants to a connection before its conversation."""

    open_timeout: float = 10
    response_timeout: float | None = 30
    max_head_size: int = 16384
    max_headers: int = 100
    max_connections: int | None = None
    max_connections_per_address: int | None = None
    max_opening: int | None = None


@final
class Places:
    """The places of one server.

    Args:
      most: connections in all; None is no bound.
      most_per_address: connections of one client: an IPv4 address, or the /64 of an IPv6 one, which is what a
        customer gets.
      most_asking: connections that ask.
    """

    def __init__(
        self, most: int | None = None, most_per_address: int | None = None, most_asking: int | None = None
    ) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._most_asking = most_asking
        self._taken = 0
        self._of_address: Counter[str] = Counter()
        self._asking: dict[trio.CancelScope, None] = {}  # the longest first

    @contextmanager
    def asking(self) -> Iterator[trio.CancelScope]:
        """A scope for somebody who asks, cancelled when too many do, and by `turn_away`."""
        with trio.CancelScope() as scope:
            self._asking[scope] = None
            if self._most_asking is not None and len(self._asking) > self._most_asking:
                longest = next(iter(self._asking))
                del self._asking[longest]
                longest.cancel("too many connections without a request")
            try:
                yield scope
            finally:
                self._asking.pop(scope, None)

    def turn_away(self) -> None:
        """Cancel everybody who asks."""
        for scope in self._asking:
            scope.cancel("the server is shutting down")

    def take(self, client: tuple[str, int] | str | None) -> str:
        """Take a place for a client; returns what `leave` is to be given.

        Raises:
          Refusal: 503, there is none.
        """
        address = "" if self._most_per_address is None else self._address_of(client)
        is_full = self._most is not None and self._taken >= self._most
        if is_full or (address and self._of_address[address] >= (self._most_per_address or 0)):
            raise Refusal(503, "the server has all the connections it can take")
        self._taken += 1
        if address:
            self._of_address[address] += 1
        return address

    def leave(self, address: str) -> None:
        """Give a place back."""
        self._taken -= 1
        if address:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    def _address_of(self, client: tuple[str, int] | str | None) -> str:
        """What a client is counted by; empty if it is not: at UNIX sockets they are not told apart."""
        if not isinstance(client, tuple):
            return ""
        text = normal_address(client[0])
        if ":" not in text:
            return text
        prefix = int(ipaddress.IPv6Address(text)) >> 64 << 64
        return str(ipaddress.IPv6Network((prefix, 64)))
