"""Writes for one connection: at once, where nothing is in the way, else by the writer's task.

An answer that others will follow is put aside, as a frame where only its head is missing. It leaves with the next that
is not, with a chunk of it, or when the waker calls, whichever is first. It goes in front of everything else.

The task is started when something first has to wait, and lives to the end. The `ClosingHandshake` is told the outcome.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import trio

from ..errors import WriteTimeout
from ..protocol.close import CloseCode, CloseReason
from ..protocol.conversation import Conversation
from ..protocol.first_byte import WHOLE_BINARY, WHOLE_TEXT
from ..protocol.frames import Frame
from ..protocol.halves import Ours
from ..protocol.prepared import PreparedMessage
from .ends import Ends
from .inbox import Inbox
from .later import Later
from .outbox import Outbox
from .shields import TIME_IS_UP, Shields
from .transport import CHUNK, Transport
from .writer import Writer

_HEAD: Final = 2  # bytes, at least: so that empty messages count, too
T = TypeVar("T")


class Owner(Protocol):
    """What writing sees of its connection."""

    conversation: Conversation
    inbox: Inbox
    outbox: Outbox
    ends: Ends
    shields: Shields
    transport: Transport

    @property
    def nursery(self) -> trio.Nursery | None:
        """Where tasks are started; None before and after."""


class Writing:
    """What is written on one connection, by whom.

    Args:
      response: makes the answer to the handshake, if there is one to write.
      later: the waker of what is put aside; without one the connection has its own once it needs one.

    Attributes:
      writer: the task, once there is one.
    """

    __slots__ = (
        "_connection",
        "_conversation",
        "_is_direct",
        "_kept",
        "_kept_bytes",
        "_later",
        "_outbox",
        "_outgoing",
        "_own_later",
        "_response",
        "_watching",
        "_wire",
        "writer",
    )

    def __init__(self, connection: Owner, response: Callable[[], bytes] | None, later: Later | None) -> None:
        self._connection: Owner = weakref.proxy(connection)
        self._outbox = connection.outbox
        self._conversation = connection.conversation
        self._outgoing = connection.conversation.outgoing
        self._wire = connection.outbox.wire
        self._is_direct = connection.transport.takes_nowait
        self._response = response  # until it was called
        self._later = later
        self._own_later: Later | None = None
        self._kept: list[Frame | bytes] | None = None  # what was put aside, item by item
        self._kept_bytes = 0
        self.writer: Writer | None = None
        self._watching: trio.CancelScope | None = None  # of the write timeout

    def wake(self) -> None:
        """There is something to write: start the writer, or have it look."""
        if self._response is not None:  # with it everything else will follow
            return
        connection = self._connection
        nursery = connection.nursery
        if self.writer is not None:
            self.writer.wake()
        elif nursery is not None:  # else `Connection.begin` looks
            connection.outbox.open()
            kept = self._take_kept()
            self.writer = Writer(connection.outbox, connection.inbox, connection.shields, connection.ends, kept)
            nursery.start_soon(self._write, self.writer, name="trioktor writer")
            if not connection.transport.takes_nowait:
                self._watching = trio.CancelScope(shield=True)  # here: it may be cancelled before its first turn
                nursery.start_soon(self._watch_writer, self._watching, name="trioktor write timeout")

    @trio.lowlevel.enable_ki_protection  # between the change of the extensions' state and the writing
    def write_through(self, item: Frame | PreparedMessage, *, keep: bool) -> bool:
        """Write a data frame straight to the socket, if nothing at all is in its way; False if it has to be queued.

        With `keep` it is put aside, for others will follow. What the system does not take is left to the writer.
        """
        pieces: list[bytes] = []
        if not self._is_road_free(keep=keep) or not self._pass(self._outgoing.add_now, item, pieces):
            return False
        kept = self._keep() if keep else self._kept
        if kept is None:
            self._write_straight(pieces)
            return True
        self._kept_bytes += len(pieces[-1])
        if keep and self._kept_bytes < CHUNK:
            kept.append(b"".join(pieces))
        else:
            self._kept = None
            self._write_straight(self._outgoing.serializer.joined(kept) + pieces, len(kept) + 1)
        return True

    @trio.lowlevel.enable_ki_protection
    def write_message(self, message: Frame, *, keep: bool) -> bool | None:
        """As `write_through`, of a whole message; None, and nothing is done, if it has to be judged before."""
        outgoing, first_byte, kept = self._outgoing, message.first_byte, self._kept
        is_unknown = first_byte != WHOLE_BINARY and (first_byte != WHOLE_TEXT or message.decoded is None)
        if is_unknown or outgoing.opened is not None:
            return None
        if (kept is None or not self._outbox.is_direct) and not self._is_road_free(keep=keep):
            return False
        item: Frame | bytes = message
        size = len(message.data)
        if not outgoing.is_transparent:
            if outgoing.serializer.is_in_message:
                return None
            encoded = self._pass(outgoing.encode_now, message)
            if encoded is None:
                return False
            item, size = encoded, len(encoded if isinstance(encoded, bytes) else encoded.data)
        outgoing.frames_sent += 1
        if kept is None:
            if not keep:
                self._write_straight(outgoing.serializer.pieces_of(item))
                return True
            kept = self._keep()
        kept.append(item)
        self._kept_bytes = size = self._kept_bytes + size + _HEAD
        if size >= CHUNK or not keep:
            self.uncork()
        return True

    def _pass(self, encode: Callable[..., T], *args: object) -> T:
        """Encode an item. If that fails whoever sends it is told; and if an extension has seen it, it is the end."""
        try:
            return encode(*args)
        except Exception as error:
            if self._outgoing.is_torn:
                cause = RuntimeError(f"an extension failed: {error!r:.200}")  # not itself: its traceback holds all
                self._connection.ends.fail(CloseReason(CloseCode.INTERNAL_ERROR), cause)
            raise

    def _keep(self) -> list[Frame | bytes]:
        """Where items are put aside; somebody will call."""
        if self._kept is None:
            self._kept, self._kept_bytes = [], 0
            assert self._later is not None
            self._later.call(self.uncork)
        return self._kept

    def _is_road_free(self, *, keep: bool) -> bool:
        """Whether nothing at all is in the way of a frame, and, to `keep` it, somebody would call."""
        outbox = self._outbox
        if outbox.is_direct:
            if self._response is not None:
                self.respond()
            if self._wire.pending or not self._is_direct:
                return False
            if keep and not self._has_waker():
                return False
        elif keep or not self._is_direct or outbox.is_sealed or not outbox.is_wire_free:
            return False
        lane = self._conversation.lane
        return lane is None or not lane.is_waiting

    def _has_waker(self) -> bool:
        """Whether somebody calls; where connections do not share a waker, one's own is started."""
        if self._later is None:
            nursery = self._connection.nursery
            if nursery is None:
                return False
            self._later = self._own_later = Later()
            nursery.start_soon(self._own_later.run, name="trioktor waker")
        return self._later.is_running

    @trio.lowlevel.enable_ki_protection
    def uncork(self) -> None:
        """Write what was put aside."""
        kept, self._kept = self._kept, None
        if kept is not None:
            self._write_straight(self._outgoing.serializer.joined(kept), len(kept))

    def _write_straight(self, pieces: list[bytes], frames: int = 1) -> None:
        """Write what was accepted; if that fails, it is lost with the connection."""
        try:
            if not self._wire.write(pieces):
                self._leave(pieces, frames)
        except trio.BrokenResourceError as error:
            self._connection.ends.write_failed(error)

    def _take_kept(self) -> list[bytes]:
        """What was put aside: whoever calls writes it, in front of everything else."""
        kept, self._kept = self._kept, None
        if kept is None:
            return []
        self._outbox.note_taken(len(kept), self._kept_bytes)
        return self._outgoing.serializer.joined(kept)

    def _leave(self, pieces: list[bytes], frames: int) -> None:
        """Leave to the writer what the system did not take."""
        self.wake()
        self._outbox.note_taken(frames, sum(map(len, pieces)))

    def write_rest(self) -> None:
        """Write what goes out by itself: control frames, and what is left in an outbox that is sealed."""
        try:
            self._write_rest()
        except trio.BrokenResourceError as error:
            self._connection.ends.write_failed(error)

    @trio.lowlevel.enable_ki_protection
    def _write_rest(self) -> None:
        """Write all of that in one step, or wake the writer for it."""
        outbox, size = self._outbox, CHUNK
        while size >= CHUNK and outbox.pending.queue is None and not self._wire.pending:
            pieces = self._take_kept()
            size = outbox.gather(pieces)  # more may be left behind a chunk
            if pieces and not self._wire.write(pieces):
                self._leave(pieces, 0)  # it was counted when it was gathered
        if outbox.pending.queue is None and not self._wire.pending:
            outbox.note_written()
            self._conversation.closing.written()
        else:
            self.wake()

    @trio.lowlevel.enable_ki_protection
    def respond(self) -> None:
        """Write the answer to the handshake, if that was not done yet; what was queued meanwhile follows it.

        It wakes nobody who waits for something of the conversation's: the task that calls may be about to.
        """
        response, self._response = self._response, None
        if response is None:
            return
        try:
            if self._wire.answer(response()):
                self._outbox.note_written()
            if not self._outbox.is_idle or self._conversation.closing.ours is Ours.CLOSING:  # be it without a Close
                self._write_rest()
        except trio.BrokenResourceError as error:
            nursery = self._connection.nursery
            assert nursery is not None
            nursery.start_soon(self._fail, error, name="trioktor failure")

    async def _fail(self, error: Exception) -> None:
        self._connection.ends.write_failed(error)

    def end(self) -> None:
        """Nothing is written any more."""
        self._kept = None
        if self._own_later is not None:
            self._own_later.close()
        if self._watching is not None:
            self._watching.cancel("nothing is written any more")

    async def _write(self, writer: Writer) -> None:
        ends = self._connection.ends
        try:
            if await writer.run():
                ends.written()
            else:
                ends.write_failed(WriteTimeout(TIME_IS_UP))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            ends.write_failed(error)
        except WriteTimeout as error:
            ends.lose(error)
        except Exception as error:
            ends.crashed(error, is_writing=True)

    async def _watch_writer(self, scope: trio.CancelScope) -> None:
        with scope:
            await self._connection.transport.watch()
