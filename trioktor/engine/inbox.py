"""What was read and is not taken yet: `session.incoming`, from the reader's side.

While there is no channel, a message goes straight to the task that waits for it, or into a list. The channel comes into
being when somebody asks for `incoming`; from then on everything goes through it. It bounds the number of messages.
Their bytes are bounded as well. The handler may take from the channel unseen, so the sizes of what was put in
are kept, and once their sum passes the limit the channel is asked how many of the newest are still there.

`offer` and `extend` say False when the reader has to pause (`engine.stall`): that is the back-pressure. The reader also
asks in the middle of a message (`has_room_beside`), or what is half there would come on top of all that waits.
"""

from __future__ import annotations

from typing import Final

import trio

from ..config import ChannelConfig, Overflow
from ..errors import ChannelOverflow
from ..protocol.conversation import TURN
from ..protocol.frames import BinaryFrame, Frame
from .lending import Takers

_MUCH: Final = 1 << 20  # bytes: more than one read brings
_NONE: Final[list[int]] = []  # what all inboxes without a channel have
_DROPPED: Final = BinaryFrame(b"")  # stands for a message that was dropped: nothing may be queued behind it


class Inbox:
    """The incoming queue of one connection.

    Args:
      config: messages that may wait, and what happens beyond them.
      max_bytes: bytes that may wait, those of the message that is arriving included; one message always passes.
    """

    __slots__ = (
        "_beside",
        "_bytes",
        "_channel",
        "_config",
        "_first_offer",
        "_held",
        "_max_bytes",
        "_offered",
        "_overflows",
        "_room",
        "_send",
        "_sizes",
        "has_lost_patience",
        "is_batch",
        "is_ended",
        "is_plain",
        "pause",
        "peak",
        "queue",
        "takers",
    )

    def __init__(self, config: ChannelConfig, max_bytes: int) -> None:
        self.queue: list[Frame] = []  # while there is no channel
        self.is_plain: bool = True  # there is no channel, and more may come
        self.takers: Takers = Takers()  # the queue is empty while there are some
        self._send: trio.MemorySendChannel[Frame] | None = None
        self._channel: trio.MemoryReceiveChannel[Frame] | None = None
        self.is_ended: bool = False
        self._config = config
        self._max_bytes = max_bytes
        self._sizes: list[int] = _NONE  # of what was put into the channel
        self._bytes = 0
        self._beside = 0  # those of the message that is arriving, while the reader waits in the middle of it
        self._held: Frame | None = None  # a message that there was no place for, or what stands for it and all behind
        self._overflows = False
        self.pause: trio.CancelScope | None = None  # round the wait of a reader that is ahead
        self.is_batch: bool = False  # whether the last read brought several frames
        self._room: trio.Event | None = None  # set when a message is taken, while the reader waits for that
        self._offered = 0
        self._first_offer = 0.0  # when that was
        self.has_lost_patience: bool = False
        self.peak: int = 0  # of `waiting`, as far as somebody looked

    @property
    def waiting(self) -> int:
        """Messages that the handler has not taken yet."""
        waiting = len(self.queue) if self._send is None else self._send.statistics().current_buffer_used
        self.peak = max(self.peak, waiting)
        return waiting

    @property
    def has_more(self) -> bool:
        """Whether more messages wait for the handler, so that more answers will follow; seen from the last read."""
        return bool(self.queue) if self._send is None else self.is_batch

    @property
    def channel(self) -> trio.MemoryReceiveChannel[Frame]:
        """The channel: `session.incoming`; opened when it is first asked for."""
        if self._channel is None:
            self._sizes = [len(message.data) for message in self.queue]
            self.is_plain = False
            self._send, self._channel = trio.open_memory_channel[Frame](self._config.capacity)
            while self.queue:
                self._send.send_nowait(self.queue.pop(0))
            if self.is_ended:
                self._send.close()
            self.takers.end_lease()
            self.takers.wake()  # to wait there
            if self._room is not None:
                self._room.set()
        return self._channel

    def take(self) -> Frame | None:
        """Take a message; None if there is none yet.

        Raises:
          trio.EndOfChannel, trio.ClosedResourceError: there will be none; the channel was closed here.
        """
        if self._channel is not None:
            try:
                message = self._channel.receive_nowait()
            except trio.WouldBlock:
                return None
        elif self.queue:
            message = self.queue.pop(0)
            self._bytes -= len(message.data)
            if self._held is not None:  # in this step: it is not to be dropped, nor passed by another
                self._put_held_nowait()
        elif self.is_ended:
            raise trio.EndOfChannel
        else:
            return None
        if self._room is not None:
            self._room.set()
        return message

    async def receive(self) -> Frame:
        """Take a message once there is one, as `take`, which found none. Cancelled, it took none."""
        while self.is_plain and not self.queue:
            handed = await self.takers.wait()
            if handed is not None:
                return handed
        message = self.take() if self._channel is None else await self._channel.receive()
        assert message is not None
        if self._room is not None:
            self._room.set()
        return message

    def offer(self, message: Frame) -> bool:
        """Queue a message without waiting; False means: wait before the next one."""
        if self._overflows and self._held is _DROPPED:
            return True
        if not self._offered:
            self._first_offer = trio.current_time()
        if self._send is not None:
            return self._offer_to(self._send, message)
        if self.takers.hand(message):
            self._offered += 1
            return True
        if len(self.queue) >= self._config.capacity or (self._overflows and not self._has_room()):
            return self._refuse(message)
        self._offered += 1
        self.queue.append(message)
        self._bytes += len(message.data)
        return self._bytes <= self._max_bytes or self._overflows

    @property
    def room(self) -> tuple[int, int]:
        """How many messages `extend` may be given, of how many bytes; the last may go beyond."""
        if self._send is not None or self._overflows:
            return 0, 0
        places = self._config.capacity + self.takers.by_lease
        return min(places - len(self.queue), TURN), min(self._max_bytes - self._bytes, _MUCH)

    def extend(self, messages: list[Frame]) -> bool:
        """As `offer`, of several messages."""
        if not self._offered:
            self._first_offer = trio.current_time()
        self._offered += len(messages)
        while messages and self.takers.hand(messages[0]):
            messages.pop(0)
        self.queue += messages
        self._bytes += sum([len(message.data) for message in messages])
        return self._bytes <= self._max_bytes

    def _offer_to(self, channel: trio.MemorySendChannel[Frame], message: Frame) -> bool:
        """As `offer`, through the channel."""
        if self._overflows and self._bytes > self._max_bytes and not self._has_room():
            return self._refuse(message)
        try:
            channel.send_nowait(message)
        except trio.WouldBlock:
            return self._refuse(message)
        except trio.BrokenResourceError:  # the handler closed `incoming`: it wants no input
            return True
        self._offered += 1
        size = len(message.data)
        self._bytes += size
        self._sizes.append(size)
        if self._bytes > self._max_bytes or len(self._sizes) > 2 * self._config.capacity:
            return self._has_room() or self._overflows
        return True

    def _refuse(self, message: Frame) -> bool:
        """There is no place: hold it until there is one, or drop it, and all behind it."""
        self._held = _DROPPED if self._overflows else message
        return self._overflows

    def answer_grace(self, seconds: float) -> float:
        """How long the handler may still answer if nothing more comes, at most `seconds`.

        There is nothing to answer if the handler closed `incoming`, or has let the first message wait for so long.
        """
        statistics = None if self._send is None else self._send.statistics()
        if statistics is not None and not statistics.open_receive_channels:
            return 0
        waits = (self.takers or self.takers.by_lease) if statistics is None else statistics.tasks_waiting_receive
        if waits or self.waiting < self._offered:
            return seconds
        left = self._first_offer + seconds - trio.current_time() if self._offered else 0
        return max(0.0, min(seconds, left))

    def has_room_beside(self, size: int) -> bool:
        """Whether more of a message may be read, of which so many bytes are there."""
        if self._bytes + size <= self._max_bytes or self._overflows or self._config.on_overflow is Overflow.CLOSE:
            return True
        self._beside = size
        has_room = self._has_room()
        self._beside = 0 if has_room else size
        return has_room

    def _has_room(self) -> bool:
        """Count the bytes that still wait; whether they leave room for more."""
        still_there = self.waiting
        if self._send is not None and still_there < len(self._sizes):
            del self._sizes[: len(self._sizes) - still_there]
            self._bytes = sum(self._sizes)
        return not still_there or self._bytes + self._beside <= self._max_bytes

    def check_overflow(self) -> None:
        """The reader has to wait: raise `ChannelOverflow`, where that is configured to be the end."""
        if self._config.on_overflow is Overflow.CLOSE:
            self._held = None
            raise ChannelOverflow(f"incoming was full with {self.waiting} messages of {self._bytes} bytes")

    def end_pause(self) -> None:
        """The reader goes on."""
        self.pause = None
        self._beside = 0

    @property
    def is_full(self) -> bool:
        """Whether the reader has to wait: for a place, or for bytes."""
        return not self._overflows and (self._held is not None or not self._has_room())

    async def make_room(self, until: float, look: float) -> None:
        """Wait until there may be room, or until that time; one who takes from the channel is seen by looking."""
        if self._send is not None and self._held is not None:
            with trio.move_on_at(until):
                await self._put_held(self._send, self._held)
            return
        self._room = trio.Event()
        with trio.move_on_at(until if self._send is None else min(until, trio.current_time() + look)):
            await self._room.wait()
        self._room = None
        self._put_held_nowait()

    def _put_held_nowait(self) -> None:
        """Queue the message that had no place, if it has one now, and still no channel."""
        held = self._held
        if held is not None and not self._overflows and self._send is None and len(self.queue) < self._config.capacity:
            self._held = None
            self.extend([held])

    async def _put_held(self, channel: trio.MemorySendChannel[Frame], held: Frame) -> None:
        size = len(held.data)  # now: it may be dropped in the step in which it is taken
        try:
            await channel.send(held)
            self._offered += 1  # and not the first
            self._bytes += size
            self._sizes.append(size)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the handler closed `incoming`, and wants no input; or it was the end of all input
        self._held = None

    def discard_overflow(self) -> None:
        """From now on drop what does not fit, and all behind it, instead of waiting: what is kept has no gap."""
        self._overflows = True
        self._held = _DROPPED if self._held is not None else None
        if self.pause is not None:
            self.pause.cancel("input is not wanted any more")

    def end(self, seconds: float) -> float:
        """No more messages: after those that wait comes `trio.EndOfChannel`. Returns the `answer_grace`."""
        grace = self.answer_grace(seconds)
        self.is_ended = True
        self.is_plain = False
        self._held = None
        if self._send is not None:
            self._send.close()
        self.takers.wake()
        return grace
