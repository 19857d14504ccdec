"""Keepalive: the pinger asks for a sign of life, the watchdog acts when none comes.

The pinger sends a Ping every `period` and waits for its Pong. The watchdog sleeps until the time by which
the Pong is due and looks again: nothing on the hot path touches a deadline. What puts the time back is

- any byte from the peer, stamped once a read;
- progress of a write that had to wait, because the Ping is behind it;
- our own reader waiting for a slow handler: the Pong may well be there, unread. The clock stands then;
- a pause of the whole process, for the same reason.

So only a peer that is silent while we listen is given up. Source: Ktor's pinger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, final

import attrs
import trio

from ..protocol.frames import PingFrame
from .patience import Patience


@final
@attrs.define(eq=False)
class Ping:
    """A Ping that is out. `answered` is set when its Pong has come, or never will: then there is no round trip."""

    sent_at: float
    frame: PingFrame = attrs.field(init=False)
    answered: trio.Event = attrs.field(factory=trio.Event)
    round_trip: float | None = None


class Owner(Protocol):
    """What a connection does for its pinger."""

    @property
    def is_stalled(self) -> bool:
        """Whether our own reader waits for the handler, so that a Pong may be there unread."""

    def ping(self) -> Ping:
        """Send a Ping."""

    def forget(self, ping: Ping) -> None:
        """Nobody waits for this one any more."""


class Keepalive:
    """The pinger and watchdog of one connection.

    Args:
      period: seconds between Pings.
      timeout: seconds in which a Ping must go out and its Pong come in.
      on_timeout: called once when neither did.
    """

    __slots__ = ("_on_timeout", "_owner", "_patience", "_scope", "period", "timeout")

    def __init__(self, owner: Owner, period: float, timeout: float, on_timeout: Callable[[], None]) -> None:
        self._owner = owner
        self._on_timeout = on_timeout
        self.period: float = period
        self.timeout: float = timeout
        self._patience = Patience(timeout)
        self._scope = trio.CancelScope()

    def stop(self) -> None:
        """End both tasks."""
        self._scope.cancel("keepalive is off")

    def sign_of_life(self) -> None:
        """The peer sent something, or took something: the time for the Pong starts anew."""
        self._patience.renew()

    async def run_pinger(self) -> None:
        """Send a Ping every period, after the Pong of the one before."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                while True:
                    await trio.sleep(self.period)
                    self.sign_of_life()
                    ping = self._owner.ping()
                    nursery.start_soon(self._watch, ping, name="trioktor watchdog")
                    try:
                        await ping.answered.wait()
                    finally:
                        self._owner.forget(ping)

    async def _watch(self, ping: Ping) -> None:
        """Wait for a Pong, as long as there are signs of life."""
        while not ping.answered.is_set():
            if self._owner.is_stalled:
                self.sign_of_life()
            if self._patience.is_over:
                self._on_timeout()
                return
            asked = self._patience.next_look()
            with trio.move_on_at(asked):
                await ping.answered.wait()
            self._patience.woke(asked)
