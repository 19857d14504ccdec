"""One message that is sent piece by piece, as it stands in the outgoing queue.

The queue holds a `StreamedMessage` where it holds a frame otherwise. When the writer comes to it, it takes
from the message itself until that is finished, and lets what is queued behind it wait: so the order of sends
holds, and nobody else's message gets between the fragments. Control frames do.

One fragment waits here at a time, in sight: a channel would hand it to the writer's task one pass before that
runs, and whoever ends the conversation in that pass could not tell whether the message is finished.
"""

from __future__ import annotations

from typing import final

import trio

from ..protocol.first_byte import FIN
from ..protocol.frames import Frame
from .flushes import Flushes
from .waiting_room import WaitingRoom


@final
class StreamedMessage:
    """The fragments of one message, one at a time.

    Attributes:
      flushes: which of them are written.
      has_begun: whether the first fragment was accepted.
      is_finished: whether the last fragment was accepted; without it the message must not end.
      is_shut: whether the end came before the writer had all of it.
    """

    __slots__ = (
        "_arrival",
        "_before",
        "_next",
        "_outside",
        "_reached",
        "_senders",
        "_task",
        "flushes",
        "has_begun",
        "is_finished",
        "is_shut",
    )

    def __repr__(self) -> str:
        return "<a message in pieces>"

    def __init__(self) -> None:
        self._next: Frame | None = None
        self._senders: WaitingRoom[Frame] = WaitingRoom()
        self._arrival = trio.Event()
        self.is_shut: bool = False
        self.flushes: Flushes = Flushes()
        self.has_begun: bool = False
        self.is_finished: bool = False
        self._reached = trio.Event()  # the writer has come to it, or never will
        self._before = 0  # items that were taken to be written before it
        self._task: trio.lowlevel.Task | None = None  # that sends it
        self._outside: tuple[trio.Nursery, ...] = ()  # its nurseries that are older than the message

    @property
    def waiting(self) -> int:
        """Fragments that the writer has not taken yet, those of blocked senders included."""
        return (self._next is not None) + len(self._senders.waiters)

    @property
    def is_over(self) -> bool:
        """Whether the writer has all of it."""
        return self.is_finished and self._next is None

    @property
    def is_awaited(self) -> bool:
        """Whether the writer waits for the next fragment, and there is none."""
        return self._arrival.statistics().tasks_waiting > 0

    # the sending side

    async def put(self, frame: Frame) -> None:
        """Accept a fragment, once the one before was taken. A checkpoint. Cancelled, it was not accepted.

        Raises:
          trio.BrokenResourceError: nothing more is accepted.
        """
        if self.is_shut or self.is_finished:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("the message is over")
        if self._next is None and not self._senders.waiters:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._accept(frame)
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self._senders.wait(frame)

    def _accept(self, frame: Frame) -> None:
        self._next = frame
        self.has_begun = True
        self.is_finished = frame.first_byte >= FIN
        self._arrival.set()

    def begin(self) -> None:
        """The current task is about to send it."""
        self._task = trio.lowlevel.current_task()
        self._outside = tuple(self._task.child_nurseries)

    def is_sent_by(self, task: trio.lowlevel.Task | None) -> bool:
        """Whether a task sends this message, or was started, in a nursery of its own, by the one that does."""
        while task is not None and task is not self._task:
            nursery = task.parent_nursery
            task = None if nursery is None or nursery in self._outside else nursery.parent_task
        return task is not None

    async def flush(self, outbox: Flushes, controls: int) -> None:
        """Wait until its fragments, what was sent before it, and so many control frames are with the system.

        Or until it is shut. A checkpoint.
        """
        await self._reached.wait()
        await outbox.wait(self._before, controls)
        await self.flushes.wait(self.flushes.taken + self.waiting, 0)

    # the writing side

    def reach(self, taken: int) -> None:
        """The writer has come to it, which is the last of so many items that were taken."""
        self._before = taken - 1
        self._reached.set()

    def take(self) -> Frame | None:
        """The next fragment, or None if there is none yet."""
        frame, self._next = self._next, None
        if frame is not None:
            self.flushes.taken += 1
            if self._senders.waiters:
                self._accept(self._senders.accept())
            if self.is_finished:
                self._senders.refuse_all()
        return frame

    async def wait(self) -> None:
        """Wait until there is something to take, or nothing more will come. A checkpoint."""
        self.flushes.release()
        if self._next is None and not self.is_shut:
            self._arrival = trio.Event()
        await self._arrival.wait()

    def seal(self) -> list[Frame]:
        """Accept no more fragments; returns those that were accepted and not taken, blocked ones included."""
        frames = [] if self._next is None else [self._next]
        while self._senders.waiters and not self.is_finished:
            frames.append(self._senders.accept())
            self.has_begun = True
            self.is_finished = frames[-1].first_byte >= FIN
        self._senders.refuse_all()
        self._next = None
        self.is_shut = True
        self._reached.set()
        self._arrival.set()
        self.flushes.release()
        return frames
