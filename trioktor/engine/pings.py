"""Pings that somebody waits for, and how long they took."""

from __future__ import annotations

from typing import final

import attrs
import trio

from ..protocol.conversation import Conversation
from ..protocol.frames import PingFrame


@final
@attrs.define(eq=False)
class Ping:
    """A Ping that is out. `answered` is set when its Pong has come, or never will: then there is no round trip."""

    sent_at: float
    frame: PingFrame = attrs.field(init=False)
    answered: trio.Event = attrs.field(factory=trio.Event)
    round_trip: float | None = None


@final
class Pings:
    """The Pings of one connection, and how long the last answered one took, in seconds."""

    __slots__ = ("_conversation", "latency")

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self.latency: float | None = None

    def begin(self, payload: bytes | None = None) -> Ping:
        """Send a Ping.

        Raises:
          ValueError: too many bytes, or a Ping with the same is out.
        """
        ping = Ping(trio.current_time())
        ping.frame = self._conversation.control.begin_ping(payload, ping)
        self._conversation.send_control(ping.frame)
        return ping

    def forget(self, ping: Ping) -> None:
        """Nobody waits for this one any more."""
        self._conversation.control.forget_ping(ping.frame.data)

    def note_answers(self) -> None:
        """Let go of those that were answered."""
        now = trio.current_time()
        for ping in self._conversation.control.take_answered():
            ping.round_trip = now - ping.sent_at
            ping.answered.set()
            self.latency = ping.round_trip

    def end(self) -> None:
        """No more Pongs will come."""
        for ping in self._conversation.control.end_pings():
            ping.answered.set()
