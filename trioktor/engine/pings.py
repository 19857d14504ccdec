"""Pings that are out, and the Pongs that answer them.

A Pong answers the Ping whose bytes it repeats, and all that went out before it: a peer may answer only the
latest of several (RFC 6455 §5.5.3). A Pong that repeats nothing of ours is a sign of life and nothing more.
"""

from __future__ import annotations

import os
from typing import final

import attrs
import trio

from ..protocol.frames import PingFrame


@final
@attrs.define(eq=False)
class Ping:
    """A Ping that is out. `answered` is set when its Pong has come, or never will: then there is no round trip."""

    frame: PingFrame
    sent_at: float
    answered: trio.Event = attrs.field(factory=trio.Event)
    round_trip: float | None = None


class Pings:
    """The Pings of one connection, and how long the last answered one took."""

    __slots__ = ("_out", "latency")

    def __init__(self) -> None:
        self._out: dict[bytes, Ping] | None = None  # few connections ever send one
        self.latency: float | None = None

    def begin(self, payload: bytes | None = None) -> Ping:
        """Note a Ping that is about to be sent.

        Raises:
          ValueError: too many bytes, or a Ping with the same is out.
        """
        if self._out is None:
            self._out = {}
        frame = PingFrame(os.urandom(8) if payload is None else payload)
        if frame.data in self._out:
            raise ValueError(f"a Ping with the bytes {payload!r:.100} has not been answered yet: give others, or none")
        ping = Ping(frame, trio.current_time())
        self._out[frame.data] = ping
        return ping

    def forget(self, ping: Ping) -> None:
        """Nobody waits for this one any more."""
        if self._out is not None:
            self._out.pop(ping.frame.data, None)

    def pong_received(self, payload: bytes) -> None:
        """Let go of the Ping that a Pong answers, and of all before it."""
        if self._out is None or payload not in self._out:
            return
        now = trio.current_time()
        for ping in list(self._out.values()):
            del self._out[ping.frame.data]
            ping.round_trip = now - ping.sent_at
            ping.answered.set()
            if ping.frame.data == payload:
                self.latency = ping.round_trip
                return

    def end(self) -> None:
        """No more Pongs will come."""
        for ping in (self._out or {}).values():
            ping.answered.set()
        self._out = None
