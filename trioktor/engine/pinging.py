"""The Pings of one connection: those that somebody waits for, and the pinger's. Made when there is one to be sent.

The pinger sends a Ping every `period` and waits for its Pong. The watchdog sleeps until the time by which
the Pong is due and looks again: nothing on the hot path touches a deadline. What puts the time back is

- any byte from the peer, stamped once a read;
- progress of a write that had to wait, because the Ping is behind it;
- our own reader waiting for a slow handler: the Pong may well be there, unread. The clock stands then;
- a pause of the whole process, for the same reason.

So only a peer that is silent while we listen is given up. Source: Ktor's pinger.
"""

from __future__ import annotations

import weakref
from typing import Protocol, final

import attrs
import trio

from ..protocol.conversation import Conversation
from ..protocol.frames import PingFrame
from .ends import Ends
from .inbox import Inbox
from .intake import Intake
from .patience import Patience
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


@final
@attrs.define(eq=False)
class Ping:
    """A Ping that is out. `answered` is set when its Pong has come, or never will: then there is no round trip."""

    sent_at: float
    frame: PingFrame = attrs.field(init=False)
    answered: trio.Event = attrs.field(factory=trio.Event)
    round_trip: float | None = None


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
            self._keepalive = Keepalive(self, period, timeout)
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
        self._connection.conversation.control.forget_ping(ping.frame.data, ping)

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

    def timed_out(self) -> None:
        """No Pong came."""
        self._connection.ends.ping_timed_out(self.timeout)


class Keepalive:
    """The pinger and watchdog of one connection.

    Args:
      period: seconds between Pings.
      timeout: seconds in which a Ping must go out and its Pong come in.
    """

    __slots__ = ("_owner", "_patience", "_scope", "period")

    def __init__(self, owner: Pinging, period: float, timeout: float) -> None:
        self._owner = owner
        self.period: float = period
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
                self._owner.timed_out()
                return
            asked = self._patience.next_look()
            with trio.move_on_at(asked):
                await ping.answered.wait()
            self._patience.woke(asked)
