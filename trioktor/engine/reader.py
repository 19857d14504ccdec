"""The reader: the connection's thread of life.

It reads until the conversation is over (`_receive`), sees the last answers and our Close out (`_conclude`),
closes the stream, and watches a handler that stays on. The first two run shielded, one after the other,
each in a scope whose deadline the connection may bring forward.
"""

from __future__ import annotations

import math
from typing import Any, Final, Protocol

import trio

from ..config import WebSockets
from ..errors import ChannelOverflow, CloseTimeout
from ..protocol.assembler import MessageAssembler, RawFrames
from ..protocol.close import CloseCode, CloseReason
from ..protocol.closing import Signal, State
from ..protocol.errors import ProtocolError
from ..protocol.frames import CONTROL, CloseFrame, Frame, PingFrame
from .frame_log import Feed
from .inbox import Inbox
from .outbox import Outbox
from .patience import Patience
from .pings import Pings
from .tasks import HandlerTasks
from .transport import CHUNK, LONG_READ, Transport

DRAIN_LIMIT: Final = 0.5
"""Seconds for which input is thrown away after our Close, so that a reset does not overtake it."""

_TURN: Final = 0xFF
"""Frames after which the reader gives others a turn, less one: a chunk can hold 10,922 empty ones."""


class Owner(Protocol):
    """What the reader sees of its connection, and tells it."""

    owner: Any
    settings: WebSockets
    client: bool
    is_raw: bool
    transport: Transport
    assembler: MessageAssembler | RawFrames
    feed: Feed
    inbox: Inbox
    outbox: Outbox
    pings: Pings
    tasks: HandlerTasks
    state: State
    answered: trio.Event
    close_received: CloseReason | None
    write_error: BaseException | None

    def signal(self, signal: Signal, reason: CloseReason, cause: BaseException | None = None) -> bool:
        """Something happened that may end the conversation."""

    def lose(self, cause: BaseException | None = None, *, may_answer: bool = False) -> None:
        """The stream is gone."""

    def end_sending(self) -> None:
        """Nothing more is accepted; our Close follows, where one is due."""

    def sign_of_life(self) -> None:
        """The peer sent something, or was not listened to."""

    def owe_pong(self, ping: Frame) -> None:
        """A Ping is to be answered."""

    async def finish(self) -> None:
        """Close the stream."""


class Reader:
    """Read one connection to its end.

    Args:
      trailing: bytes that came with the handshake.
    """

    __slots__ = (
        "_answer_grace",
        "_connection",
        "_deadline",
        "_is_input_unread",
        "_reading_deadline",
        "_scope",
        "_trailing",
        "bytes_read",
        "done",
        "frames_read",
        "is_reading",
    )

    def __init__(self, connection: Owner, trailing: bytes) -> None:
        self._connection = connection
        self._trailing = trailing
        self._scope: trio.CancelScope | None = None
        self._deadline = math.inf
        self._reading_deadline = math.inf
        self._is_input_unread = False
        self._answer_grace = 0.0
        self.done: trio.Event | None = None  # set when reading has ended, if somebody put it here
        self.is_reading: bool = True
        self.frames_read: int = 0
        self.bytes_read: int = 0

    async def run(self) -> None:
        """Read to the end, conclude, and close the stream; then wait for the handler."""
        connection = self._connection
        deadline = min(self._deadline, self._reading_deadline)
        with trio.CancelScope(shield=True, deadline=deadline) as self._scope:
            await self._receive()
        self.is_reading = False
        if not connection.state.is_over:  # its time is up
            connection.lose(connection.write_error or CloseTimeout("the peer did not answer our Close in time"))
        if self.done is not None:
            self.done.set()
        self._answer_grace = connection.inbox.answer_grace(connection.settings.answer_grace)
        connection.inbox.end()
        connection.pings.end()
        with trio.CancelScope(shield=True, deadline=self._deadline) as self._scope:
            await self._conclude()
        await connection.finish()
        await self._watch_handler()

    def stop_by(self, deadline: float) -> None:
        """Be through with reading and concluding by `deadline`, an absolute time."""
        self._deadline = min(self._deadline, deadline)
        self.limit(deadline)

    def limit(self, deadline: float) -> None:
        """Be through with what it does now by `deadline`."""
        if self._scope is not None:
            self._scope.deadline = min(self._scope.deadline, deadline)
        else:  # it has not had its first turn yet
            self._reading_deadline = min(self._reading_deadline, deadline)

    def end_reading(self) -> None:
        """Read nothing more, and conclude."""
        if self.is_reading:
            self.limit(-math.inf)

    async def _receive(self) -> None:
        """Read until nothing more is to be read, and signal why.

        Others may end the conversation while this waits, so it is looked at after each wait.
        """
        connection, transport, inbox = self._connection, self._connection.transport, self._connection.inbox
        data, self._trailing = self._trailing, b""
        try:
            while True:
                frames_before = self.frames_read
                for frame in connection.feed(data):
                    if frame is None:  # in the middle of a long message
                        await trio.lowlevel.checkpoint()
                        if connection.state.is_over:
                            return
                        continue
                    self.frames_read += 1
                    is_control = frame.first_byte & CONTROL
                    if (not is_control or connection.is_raw) and not inbox.offer(frame):
                        await inbox.wait(transport.hang_up, connection.settings.handler_grace, connection.owner)
                        if connection.state.is_over:
                            return
                        connection.sign_of_life()
                    if is_control and self._is_last(frame):
                        return
                    if not self.frames_read & _TURN:
                        await trio.lowlevel.checkpoint()
                        if connection.state.is_over:
                            return
                completed = self.frames_read - frames_before
                inbox.is_burst = completed > 1
                if completed:
                    transport.read_size = CHUNK
                    if inbox.is_burst:
                        inbox.look()
                else:  # in the middle of a long message, or at the beginning
                    if not inbox.has_room_beside(connection.assembler.kept):
                        await inbox.wait(transport.hang_up, connection.settings.handler_grace, connection.owner)
                        if connection.state.is_over:
                            return
                        connection.sign_of_life()
                    transport.read_size = LONG_READ if connection.assembler.parser.missing >= LONG_READ else CHUNK
                data = await transport.receive()
                if connection.state.is_over:
                    return
                if not data:
                    connection.lose(connection.write_error, may_answer=connection.is_raw)
                    return
                self.bytes_read += len(data)
                connection.sign_of_life()
        except ProtocolError as error:
            self._is_input_unread = True
            connection.signal(Signal.VIOLATE, CloseReason(error.close_code), error)
        except ChannelOverflow as error:
            self._is_input_unread = True
            connection.signal(Signal.VIOLATE, CloseReason(CloseCode.VIOLATED_POLICY), error)
        except trio.BrokenResourceError as error:
            connection.write_error = connection.write_error or error.__cause__ or error
            connection.lose(connection.write_error)

    def _is_last(self, frame: Frame) -> bool:
        """Answer a control frame; True if it was a Close, behind which nothing is read."""
        connection = self._connection
        if type(frame) is CloseFrame:
            connection.close_received = frame.reason or CloseReason(CloseCode.NO_STATUS)
            connection.signal(Signal.PEER_CLOSE, connection.close_received)
            return True
        if not connection.is_raw:
            if type(frame) is PingFrame:
                connection.owe_pong(frame)
            else:
                connection.pings.pong_received(frame.data)
        return False

    async def _conclude(self) -> None:
        """See the last answers and our Close out."""
        connection = self._connection
        state = connection.state
        is_gone = state is State.BROKEN and not self._is_input_unread and not connection.is_raw
        if is_gone or connection.write_error is not None:
            return
        if not connection.outbox.is_sealed:
            await self._await_answers()
        await connection.outbox.flush()
        if state.is_clean and not connection.client:
            self._is_input_unread = bool(connection.transport.receive_nowait())
        if self._is_input_unread or not state.is_clean or connection.client:
            await self._drain()

    async def _await_answers(self) -> None:
        """Give the handler time for its last answers; the Close behind them is ours, but a raw session's own."""
        connection = self._connection
        is_own_business = connection.is_raw and connection.state is not State.FAILING
        grace = connection.settings.close_timeout if is_own_business else self._answer_grace
        await Patience(grace).outlast(connection.answered.wait)
        connection.end_sending()

    async def _drain(self) -> None:
        """Let the peer read our Close: closing with unread input would reset the connection."""
        transport = self._connection.transport
        with trio.move_on_after(DRAIN_LIMIT):
            await transport.send_eof()
            try:
                while await transport.receive():
                    pass
            except trio.BrokenResourceError:
                pass

    async def _watch_handler(self) -> None:
        """Cancel a handler that stays on after the end and does nothing with what is left."""
        connection = self._connection
        connection.tasks.cancel_children("the connection has ended")
        grace = connection.settings.handler_grace
        while not connection.tasks.are_done and grace is not None:
            left = connection.inbox.waiting
            if connection.inbox.has_lost_patience or (
                await Patience(grace).outlast(connection.tasks.wait_done) and connection.inbox.waiting >= left
            ):
                connection.tasks.cancel("the conversation is over")
                return
