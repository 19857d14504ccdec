"""The Pings of one connection: those that somebody waits for, and the pinger's. Made when there is one to be sent."""

from __future__ import annotations

import weakref
from typing import Protocol

import trio

from ..protocol.conversation import Conversation
from .ends import Ends
from .inbox import Inbox
from .intake import Intake
from .keepalive import Keepalive, Ping
from .transport import Transport


class Owner(Protocol):
    """What pinging sees of its connection."""

    conversation: Conversation
    ends: Ends
    inbox: Inbox
    transport: Transport

    @property
    def nursery(self) -> trio.Nursery | None:
        """Where tasks are started; None before and after."""

    def look_up(self) -> None:
        """The conversation was told something."""


class Pinging:
    """Pings out and Pongs in.

    Attributes:
      timeout: seconds for a Ping and its Pong.
      latency: seconds that the last answered one took.
    """

    __slots__ = ("_connection", "_intake", "_keepalive", "latency", "timeout")

    def __init__(self, connection: Owner, intake: Intake, timeout: float) -> None:
        self._connection: Owner = weakref.proxy(connection)
        self._intake = intake
        self._keepalive: Keepalive | None = None  # while it runs
        self.timeout: float = timeout
        self.latency: float | None = None

    @property
    def period(self) -> float | None:
        """Seconds between the pinger's Pings, or None while there are none."""
        return self._keepalive.period if self._keepalive is not None else None

    @property
    def is_stalled(self) -> bool:
        """Whether our own reader waits for the handler, so that a Pong may be there unread."""
        return self._connection.inbox.pause is not None

    def set(self, period: float | None, timeout: float) -> None:
        """Start, stop or re-arm the pinger."""
        self.timeout = timeout
        connection = self._connection
        self.stop()
        if period is not None and connection.conversation.closing.is_open and connection.nursery is not None:
            self._keepalive = Keepalive(self, period, timeout, self._timed_out)
            connection.transport.on_progress = self._intake.on_input = self._keepalive.sign_of_life
            connection.nursery.start_soon(self._keepalive.run_pinger, name="trioktor pinger")

    def stop(self) -> None:
        """Stop the pinger."""
        if self._keepalive is not None:
            self._keepalive.stop()
            self._keepalive = None
            self._connection.transport.on_progress = self._intake.on_input = None

    def ping(self, payload: bytes | None = None) -> Ping:
        """Send a Ping; its event is set when the Pong has come, or the conversation is over.

        Raises:
          ValueError: too many bytes, or one with the same is out.
        """
        conversation = self._connection.conversation
        ping = Ping(trio.current_time())
        ping.frame = conversation.control.begin_ping(payload, ping)
        conversation.send_control(ping.frame)
        self._connection.look_up()
        return ping

    def forget(self, ping: Ping) -> None:
        """Nobody waits for this Ping any more."""
        self._connection.conversation.control.forget_ping(ping.frame.data)

    def note_answers(self) -> None:
        """Let go of those that were answered."""
        now = trio.current_time()
        for ping in self._connection.conversation.control.take_answered():
            ping.round_trip = self.latency = now - ping.sent_at
            ping.answered.set()

    def end(self) -> None:
        """No more Pongs will come."""
        for ping in self._connection.conversation.control.end_pings():
            ping.answered.set()

    def _timed_out(self) -> None:
        self._connection.ends.ping_timed_out(self.timeout)
