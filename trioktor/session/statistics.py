"""What can be seen of a session from outside, as values that do not change."""

from __future__ import annotations

from typing import Self, final

import attrs
import trio

from ..engine.connection import Connection


@final
@attrs.frozen(kw_only=True)
class SessionStatistics:
    """A session at one moment. Sizes are in bytes, times in seconds.

    Attributes:
      frames_received, bytes_received: of the peer; the bytes with everything that frames consist of.
      frames_sent: taken out of the queue to be written.
      bytes_sent: handed to the operating system.
      incoming, outgoing: frames that wait in the queues now.
      incoming_peak, outgoing_peak: the most that waited when the engine looked, which is whenever several
        frames came or went at once.
      latency: the last round trip of a Ping, or None.
      age: since the upgrade.
    """

    frames_received: int
    bytes_received: int
    frames_sent: int
    bytes_sent: int
    incoming: int
    outgoing: int
    incoming_peak: int
    outgoing_peak: int
    latency: float | None
    age: float

    @classmethod
    def of(cls, connection: Connection) -> Self:
        """Look at a connection."""
        inbox, outbox = connection.inbox, connection.outbox
        return cls(
            frames_received=connection.conversation.frames_received,
            bytes_received=connection.intake.bytes_read,
            frames_sent=connection.conversation.outgoing.frames_sent,
            bytes_sent=connection.outbox.wire.bytes_written,
            incoming=inbox.waiting,
            outgoing=outbox.waiting,
            incoming_peak=inbox.peak,
            outgoing_peak=outbox.peak,
            latency=connection.latency,
            age=trio.current_time() - connection.opened_at,
        )
