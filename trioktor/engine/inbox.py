"""What has arrived and waits for the handler: `session.incoming`, seen from the reader's side.

Most handlers receive through their session. For them a message goes straight to the task that waits, or into a
list; no channel is needed, and what is taken is seen. The channel comes into being when somebody asks for
`incoming`, and from then on everything goes through it. It bounds the number of messages; their bytes are bounded
here as well, and "full" is something the reader can wait for. The handler may take messages from the channel
unseen, so the bytes are not counted down then: the sizes of what was put in are kept, and when their sum passes the
limit the channel is asked how many of the newest are still there.

`offer` is the hot path: no await, no cancel scope. It says False when the reader has to pause; `wait` is
that pause, and the back-pressure; or, where the channel is configured so, it is the end. `let_overflow` ends
both: what does not fit is dropped from then on. The reader also asks in the middle of a message (`has_room_beside`),
or what is half there would come on top of all that waits.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

import trio
from outcome import Value

from ..config import ChannelConfig, Overflow
from ..errors import ChannelOverflow
from ..protocol.frames import Frame
from .patience import Patience
from .transport import HangUp

_FIRST_LOOK: Final = 0.001
"""Seconds to the first look at the bytes, for handlers that take from the channel itself; each takes twice as long."""
_HANG_UP_PERIOD: Final = 1.0
"""Seconds between looks for a hang-up while nothing is read."""
_LONG: Final = 10.0
"""Seconds after which a handler that lets the reader wait is named in a warning."""

logger: logging.Logger = logging.getLogger("trioktor.session")
_NONE: Final[list[int]] = []
"""What all inboxes without a channel have; nothing is ever put there."""


class Inbox:
    """The incoming queue of one connection.

    Args:
      config: messages that may wait, and what happens beyond them.
      max_bytes: payload bytes that may wait before the reader stops, those of the message that is arriving
        included; one message always passes.
    """

    __slots__ = (
        "_beside",
        "_bytes",
        "_channel",
        "_config",
        "_first_offer",
        "_held",
        "_is_ended",
        "_max_bytes",
        "_offered",
        "_overflows",
        "_queue",
        "_room",
        "_send",
        "_sizes",
        "_stall",
        "_takers",
        "has_lost_patience",
        "is_burst",
        "peak",
    )

    def __init__(self, config: ChannelConfig, max_bytes: int) -> None:
        self._queue: list[Frame] = []  # while there is no channel
        self._takers: list[trio.lowlevel.Task] = []  # that wait for a message; the queue is empty then
        self._send: trio.MemorySendChannel[Frame] | None = None
        self._channel: trio.MemoryReceiveChannel[Frame] | None = None
        self._is_ended = False
        self._config = config
        self._max_bytes = max_bytes
        self._sizes: list[int] = _NONE  # of what was put into the channel
        self._bytes = 0
        self._beside = 0  # those of the message that is arriving, while the reader waits in the middle of it
        self._held: Frame | None = None  # a message that there was no place for
        self._overflows = False
        self._stall: trio.CancelScope | None = None  # round the reader's pause
        self.is_burst: bool = False  # whether the last read brought several frames
        self._room: trio.Event | None = None  # set when a message is taken, while the reader waits for that
        self._offered = 0
        self._first_offer = 0.0  # when that was
        self.has_lost_patience: bool = False
        self.peak: int = 0  # of `waiting`, as far as somebody looked

    @property
    def is_stalled(self) -> bool:
        """Whether the reader waits for the handler."""
        return self._stall is not None

    @property
    def waiting(self) -> int:
        """Messages that the handler has not taken yet."""
        waiting = len(self._queue) if self._send is None else self._send.statistics().current_buffer_used
        if waiting > self.peak:
            self.peak = waiting
        return waiting

    @property
    def has_more(self) -> bool:
        """Whether more messages wait for the handler, so that more answers will follow; seen from the last read."""
        return bool(self._queue) if self._send is None else self.is_burst

    # the handler's side

    @property
    def channel(self) -> trio.MemoryReceiveChannel[Frame]:
        """The channel: `session.incoming`; opened when it is first asked for."""
        if self._channel is None:
            self._sizes = []
            self._send, self._channel = trio.open_memory_channel[Frame](self._config.capacity)
            for message in self._queue:
                self._send.send_nowait(message)
                self._sizes.append(len(message.data))
            self._queue.clear()
            if self._is_ended:
                self._send.close()
            self._wake_takers()  # to wait there
            if self._room is not None:
                self._room.set()
        return self._channel

    def take(self) -> Frame | None:
        """Take a message; None if there is none yet.

        Raises:
          trio.EndOfChannel: there will be none.
          trio.ClosedResourceError: the channel was closed here.
        """
        if self._channel is not None:
            try:
                message = self._channel.receive_nowait()
            except trio.WouldBlock:
                return None
        elif self._queue:
            message = self._queue.pop(0)
            self._bytes -= len(message.data)
            if self._held is not None:  # or whoever waits for a message could be given a later one first
                self._put_held_nowait()
        elif self._is_ended:
            raise trio.EndOfChannel
        else:
            return None
        if self._room is not None:
            self._room.set()
        return message

    async def receive(self) -> Frame:
        """Take a message once there is one; to be called when `take` found none. Cancelled, it took none.

        Raises:
          trio.EndOfChannel, trio.ClosedResourceError: as `take`.
        """
        if self._channel is None and not self._queue and not self._is_ended:
            task = trio.lowlevel.current_task()
            self._takers.append(task)

            def leave(_raise_cancel: object) -> trio.lowlevel.Abort:
                self._takers.remove(task)
                return trio.lowlevel.Abort.SUCCEEDED

            handed: Frame | None = await trio.lowlevel.wait_task_rescheduled(leave)
            if handed is not None:
                return handed
        if self._channel is None:
            message = self.take()
            assert message is not None
            return message
        message = await self._channel.receive()
        if self._room is not None:
            self._room.set()
        return message

    def _wake_takers(self) -> None:
        """Have those who wait look again."""
        for task in self._takers:
            trio.lowlevel.reschedule(task)
        self._takers.clear()

    # the reader's side

    def offer(self, message: Frame) -> bool:
        """Queue a message without waiting; False means: call `wait` before the next one."""
        if self._send is not None:
            return self._offer_to(self._send, message)
        if self._takers:
            self._offered += 1
            trio.lowlevel.reschedule(self._takers.pop(0), Value(message))
            return True
        if self._overflows:
            if len(self._queue) < self._config.capacity and self._has_room():
                self._put(message)
            return True
        if len(self._queue) >= self._config.capacity:
            self._held = message
            return False
        self._put(message)
        return self._bytes <= self._max_bytes

    def _offer_to(self, channel: trio.MemorySendChannel[Frame], message: Frame) -> bool:
        """As `offer`, through the channel."""
        if self._overflows and self._bytes > self._max_bytes and not self._has_room():
            return True
        try:
            channel.send_nowait(message)
        except trio.WouldBlock:
            if not self._overflows:
                self._held = message
                return False
            return True
        except trio.BrokenResourceError:  # the handler closed `incoming`: it wants no input
            return True
        if not self._offered:
            self._first_offer = trio.current_time()
        self._offered += 1
        size = len(message.data)
        self._bytes += size
        self._sizes.append(size)
        if self._bytes > self._max_bytes or len(self._sizes) > 2 * self._config.capacity:
            return self._has_room() or self._overflows
        return True

    def _put(self, message: Frame) -> None:
        if not self._offered:
            self._first_offer = trio.current_time()
        self._offered += 1
        self._queue.append(message)
        self._bytes += len(message.data)

    def answer_grace(self, seconds: float) -> float:
        """How long the handler may still go on answering when nothing more comes, at most `seconds`.

        There is nothing to answer if the handler closed `incoming`, or never took a message nor waits for one,
        though the first has been there for so long. To be asked before `end`.
        """
        if self._send is None:
            is_receiving = bool(self._takers)
        else:
            statistics = self._send.statistics()
            if not statistics.open_receive_channels:
                return 0
            is_receiving = statistics.tasks_waiting_receive > 0
        if is_receiving or self.waiting < self._offered:
            return seconds
        if not self._offered:
            return 0
        return max(0.0, min(seconds, self._first_offer + seconds - trio.current_time()))

    def has_room_beside(self, size: int) -> bool:
        """Whether more of a message may be read of which so many bytes are there; if not, call `wait` first."""
        if self._bytes + size <= self._max_bytes or self._overflows or self._config.on_overflow is Overflow.CLOSE:
            return True
        self._beside = size
        if self._has_room():
            self._beside = 0
            return True
        return False

    def _has_room(self) -> bool:
        """Count the bytes that still wait; whether they leave room for more."""
        still_there = self.waiting
        if self._send is not None and still_there < len(self._sizes):
            del self._sizes[: len(self._sizes) - still_there]
            self._bytes = sum(self._sizes)
        return not still_there or self._bytes + self._beside <= self._max_bytes

    async def wait(self, hang_up: Callable[[], HangUp], grace: float | None, who: object) -> None:
        """Wait until the handler has made room, or nobody cares any more.

        Args:
          hang_up: whether the peer is still there.
          grace: seconds in which the handler must take something once the peer has said all that it will.
          who: named in the warning.

        Raises:
          trio.BrokenResourceError: the connection hung up meanwhile, or there is no sense in waiting longer.
          ChannelOverflow: there is no room, and that is configured to be the end.
        """
        if self._config.on_overflow is Overflow.CLOSE:
            self._held = None
            raise ChannelOverflow(f"incoming was full with {self.waiting} messages of {self._bytes} bytes")
        with trio.CancelScope() as self._stall:
            try:
                await self._wait_for_room(hang_up, grace, who)
            finally:
                self._stall = None
                self._beside = 0

    async def _wait_for_room(self, hang_up: Callable[[], HangUp], grace: float | None, who: object) -> None:
        warn_at = trio.current_time() + _LONG
        hang_up_at = trio.current_time() + _HANG_UP_PERIOD
        look = _FIRST_LOOK
        leaving: Patience | None = None  # the peer has ended its half
        while self._held is not None or not self._has_room():
            asked = hang_up_at if leaving is None else min(hang_up_at, leaving.next_look())
            if self._send is None:
                await self._wait_for_taking(asked)
                self._put_held_nowait()
            elif self._held is None:
                await self._wait_for_taking(min(asked, trio.current_time() + look))
                look *= 2
            else:
                with trio.move_on_at(asked):
                    await self._put_held()
                    continue
            if trio.current_time() < asked:
                continue
            hang_up_at = trio.current_time() + _HANG_UP_PERIOD
            if trio.current_time() >= warn_at:
                logger.warning("%s: the handler lets its input wait, and the peer's Pings and Close behind it", who)
                warn_at = math.inf
            found = hang_up()
            if found is HangUp.HALF and leaving is None:
                leaving = Patience(grace)
            elif leaving is not None:
                leaving.woke(asked)
                self.has_lost_patience = leaving.is_over
            if found is HangUp.FULL or self.has_lost_patience:
                raise trio.BrokenResourceError("the peer hung up")

    def _put_held_nowait(self) -> None:
        """Queue the message that had no place, if it has one now, and still no channel."""
        if self._held is not None and self._send is None and len(self._queue) < self._config.capacity:
            held, self._held = self._held, None
            self._put(held)

    async def _put_held(self) -> None:
        assert self._held is not None
        assert self._send is not None
        size = len(self._held.data)  # now: it may be dropped in the step in which it is taken
        try:
            await self._send.send(self._held)
        except trio.BrokenResourceError:  # the handler closed `incoming`: it wants no input
            self._held = None
            return
        self._held = None
        self._offered += 1  # and not the first
        self._bytes += size
        self._sizes.append(size)

    async def _wait_for_taking(self, until: float) -> None:
        """Wait until the session takes a message, or until it is time to look whether somebody else did."""
        self._room = trio.Event()
        with trio.move_on_at(until):
            await self._room.wait()
        self._room = None

    def let_overflow(self) -> None:
        """From now on drop what does not fit instead of waiting."""
        self._overflows = True
        self._held = None
        if self._stall is not None:
            self._stall.cancel("input is not wanted any more")

    def end(self) -> None:
        """No more messages: after those that wait comes `trio.EndOfChannel`."""
        self._is_ended = True
        self._held = None
        if self._send is not None:
            self._send.close()
        self._wake_takers()
