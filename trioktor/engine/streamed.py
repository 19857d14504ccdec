"""One message that is sent piece by piece, as it stands in the outgoing queue.

The queue holds a `StreamedMessage` where it holds a frame otherwise. When the writer comes to it, it takes
from the message's own small queue until that is finished, and lets what is queued behind it wait: so the
order of sends holds, and nobody else's message gets between the fragments. Control frames do.
"""

from __future__ import annotations

from typing import TypeVar, final

import trio

from ..protocol.frames import Frame

T = TypeVar("T")


@final
class StreamedMessage:
    """The fragments of one message, one at a time.

    Attributes:
      send_channel: takes fragments; waits while the writer has not taken the one before.
      queue: gives them to the writer.
      is_finished: whether the last fragment was accepted; without it the message must not end.
    """

    __slots__ = ("is_finished", "queue", "send_channel")

    def __init__(self) -> None:
        send, receive = trio.open_memory_channel[Frame](1)
        self.send_channel: trio.MemorySendChannel[Frame] = send
        self.queue: trio.MemoryReceiveChannel[Frame] = receive
        self.is_finished: bool = False

    @property
    def waiting(self) -> int:
        """Fragments that the writer has not taken yet, those of blocked senders included."""
        statistics = self.queue.statistics()
        return statistics.current_buffer_used + statistics.tasks_waiting_send

    def seal(self) -> list[Frame]:
        """Accept no more fragments; returns those that were accepted and not taken."""
        frames = drain(self.queue)
        self.queue.close()
        return frames


def drain(queue: trio.MemoryReceiveChannel[T]) -> list[T]:
    """Take everything out of a channel, what blocked senders wait to put there included."""
    items: list[T] = []
    try:
        while True:
            items.append(queue.receive_nowait())
    except (trio.WouldBlock, trio.EndOfChannel):
        return items
