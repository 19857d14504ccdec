"""`WebSocketSession`: what a handler sees of its connection, in messages."""

from __future__ import annotations

from typing import Any, TypeVar, overload

import trio

from ..config import WebSockets
from ..converters import ContentConverter
from ..engine.streamed import StreamedMessage
from ..errors import ConnectionBroken, ConverterNotFound, DeserializationError
from ..protocol.close import CloseCode, CloseReason
from ..protocol.control import MAX_CONTROLS
from ..protocol.errors import FrameTooBig, UnexpectedFrame
from ..protocol.first_byte import CONTROL, FrameType
from ..protocol.frames import BinaryFrame, CloseFrame, Frame
from .base import BaseSession
from .pieces import Pieces
from .streaming import IncomingMessage, OutgoingMessage

T = TypeVar("T")


class WebSocketSession(BaseSession):
    """One WebSocket conversation (Ktor's `DefaultWebSocketServerSession`).

    Handed to handlers, not to be constructed. `incoming` holds whole Text and Binary messages; Pings are
    answered, the closing handshake is done. Sent, a Ping or Pong goes ahead of what is queued; 32 may be unwritten.
    """

    __slots__ = ()

    async def receive_text(self) -> str:
        """Receive a message that has to be Text, and return its text.

        Raises:
          UnexpectedFrame: it was Binary; it is consumed. Otherwise as `receive`.
        """
        return (await self.receive()).text

    async def receive_bytes(self) -> bytes:
        """Receive a message that has to be Binary, and return its bytes.

        Raises:
          UnexpectedFrame: it was Text; it is consumed. Otherwise as `receive`.
        """
        frame = await self.receive()
        if not isinstance(frame, BinaryFrame):
            raise UnexpectedFrame(f"expected a BINARY frame, got {frame.type.name}")
        return frame.data

    async def receive_message(self) -> IncomingMessage:
        """Receive the next message piece by piece, without holding it whole.

        From the first call on messages are not joined as they arrive: `max_frame_size` bounds none of them any more but
        those that `receive` joins or an extension reads, and `incoming` holds pieces, as frames whose `fin` says which
        is the last. Called first, it takes messages of any size. Always a checkpoint. Cancelled, it has taken nothing.

        Raises:
          trio.EndOfChannel, ConnectionBroken, trio.ClosedResourceError: as `receive`.
        """
        self._check_thread("receive_message")
        if self._pieces is None:
            self._pieces = Pieces()
        pieces = self._pieces
        if self._parked:  # they wait for messages, so the next one is theirs, and whole
            if self._unparked is None:
                self._unparked = trio.Event()
            await self._unparked.wait()
        self._connection.conversation.stream()
        async with pieces.taking:
            first = pieces.joined(fin=0)  # `receive` was cancelled in the middle of this message
            if first is None:
                while pieces.is_partway:
                    pieces.skip(await self._receive_piece())
                first = await self._receive_piece()
            return pieces.begin(first, self._receive_piece_of)

    async def _receive_piece(self) -> Frame:
        """Take a piece; for whoever has the right to (`Pieces.taking`)."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            frame = self._inbox.take()
            if frame is None:
                frame = await self._inbox.receive()
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
        except trio.EndOfChannel:
            self._raise_end()
        self._may_write_through = True
        return frame

    async def _receive_piece_of(self, message: IncomingMessage) -> Frame | None:
        """Take the next piece of a message that is received in pieces; None if there is none left.

        Raises:
          ConnectionBroken: the conversation ended in the middle of the message, be it with a goodbye.
          trio.ClosedResourceError: the rest was skipped by whoever asked for the next message.
        """
        pieces = self._pieces
        assert pieces is not None
        async with pieces.taking:
            if message.is_complete:  # somebody else took the last one
                return None
            if not pieces.is_of(message):
                raise trio.ClosedResourceError("the rest of this message was skipped")
            try:
                frame = await self._receive_piece()
            except trio.EndOfChannel:
                raise self._error(ConnectionBroken) from None
            message.is_complete = pieces.note(frame)
            return frame

    def receive_nowait(self) -> Frame:
        """Receive as `receive` does, or not at all: no checkpoint.

        Raises:
          trio.WouldBlock: nothing is there, or not all of it.
          trio.EndOfChannel, ConnectionBroken, trio.ClosedResourceError: as `receive`.
        """
        if self._pieces is None:
            return super().receive_nowait()
        if self._pieces.taking.locked():
            raise trio.WouldBlock
        while True:
            whole = self._add_piece(self._pieces, super().receive_nowait())
            if whole is not None:
                return whole

    async def _receive_joined(self, end: type[Exception]) -> Frame:
        """Join a message that comes in pieces; skip what is left of one that was taken in part."""
        pieces = self._pieces
        assert pieces is not None
        async with pieces.taking:
            try:
                while (whole := self._add_piece(pieces, await self._receive_piece())) is None:
                    pass
            except trio.EndOfChannel:
                self._raise_end(end)
            return whole

    def _add_piece(self, pieces: Pieces, frame: Frame) -> Frame | None:
        """The whole message that a piece completes, or None."""
        try:
            return pieces.add(frame, self.max_frame_size)
        except FrameTooBig as error:
            self._connection.ends.fail(CloseReason(CloseCode.TOO_BIG), error, by_peer=True, drop_queued=False)
            raise self._error(ConnectionBroken) from error

    def message(self, kind: FrameType) -> OutgoingMessage:
        """Send one message piece by piece: `async with session.message(FrameType.TEXT) as message`.

        It takes its place in the queue on entering; what others send meanwhile goes out after it.

        Raises:
          ValueError: there are no messages of that kind.
          ConnectionClosed: on entering, if the conversation is over.
        """
        return OutgoingMessage(kind, self._send_stream, self._end_stream, self._raise_over)

    async def _send_stream(self, stream: StreamedMessage) -> None:
        """Queue a message that is sent in pieces. A checkpoint."""
        self._check_thread("message")
        await trio.lowlevel.checkpoint()
        self._outgoing.check(stream)
        try:
            is_queued = self._outbox.accept(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._raise_over()
        if not is_queued:
            await self._put(stream)
        self._streams += (stream,)

    def _end_stream(self, stream: StreamedMessage) -> None:
        """The block that sends a message in pieces was left."""
        self._streams = tuple(other for other in self._streams if other is not stream)
        if not stream.is_finished:
            self._connection.ends.message_given_up()

    def _put_nowait(self, frame: Frame) -> bool:
        is_control = frame.first_byte & CONTROL and type(frame) is not CloseFrame
        if is_control and not self._outbox.is_sealed and self._outbox.pending.controls_unwritten >= MAX_CONTROLS:
            return False
        return super()._put_nowait(frame)

    async def _put(self, item: Frame | StreamedMessage) -> None:
        if isinstance(item, Frame) and item.first_byte & CONTROL:
            self._close_if_full()
            while not self._put_nowait(item):  # behind those before it, and not behind what is queued
                await self._outbox.pending.wait_for_controls(MAX_CONTROLS - 1)
        else:
            await super()._put(item)

    def _is_sent_as_control(self, frame: Frame) -> bool:
        if not frame.first_byte & CONTROL:
            return False
        if isinstance(frame, CloseFrame):
            self._close(frame.reason)
        elif self._outbox.is_sealed:
            self._raise_over()
        else:
            self._check_supported(self._connection.transport.supports.pings, "Ping or Pong")
            self._connection.conversation.send_control(frame)
            self._connection.look_up()
        return True

    # values

    async def send_serialized(self, value: object) -> None:
        """Send a value as the configured converter says it.

        Raises:
          ConverterNotFound: none is configured.
          TypeError, ValueError: the converter cannot say it. Otherwise as `send`.
        """
        try:
            message = self._converter.serialize(value)
        except RecursionError as error:
            raise ValueError("a value is nested too deep, or holds itself") from error
        await self.send(message)

    @overload
    async def receive_deserialized(self, kind: type[T]) -> T: ...
    @overload
    async def receive_deserialized(self, kind: Any) -> Any: ...
    async def receive_deserialized(self, kind: Any) -> Any:
        """Receive a message that has to be a value of a type, as the configured converter reads it.

        Raises:
          ConverterNotFound: none is configured.
          DeserializationError: the message is not such a value; it is consumed. Otherwise as `receive`.
        """
        converter = self._converter
        frame = await self.receive()
        if not converter.is_applicable(frame):
            raise DeserializationError(f"the converter does not read {frame.type.name} frames", frame)
        return converter.deserialize(frame, kind)

    @property
    def _converter(self) -> ContentConverter:
        converter = self._connection.settings.content_converter
        if converter is None:
            raise ConverterNotFound("install one: WebSockets(content_converter=JsonConverter())")
        return converter

    # keepalive

    async def ping(self, data: bytes | None = None) -> float:
        """Send a Ping ahead of what is queued, and wait for its Pong; returns the round trip in seconds.

        A Pong that answers a later Ping counts, too. Always a checkpoint; there is no timeout but the caller's.

        Raises:
          ConnectionClosed: the conversation is over, or ends meanwhile.
          ValueError: more than 125 bytes, or a Ping with the same bytes is out.
          NotSupported: whoever carries the conversation shows no Pings.
        """
        self._check_thread("ping")
        connection = self._connection
        self._check_supported(connection.transport.supports.pings, "Ping")
        if self._outbox.is_sealed or connection.closing.is_over:
            await trio.lowlevel.checkpoint()
            self._raise_over()
        ping = connection.pinging.ping(data)
        try:
            await ping.answered.wait()
        finally:
            connection.pinging.forget(ping)
        if ping.round_trip is None:
            self._raise_over()
        return ping.round_trip

    @property
    def latency(self) -> float | None:
        """Seconds that the last answered Ping took, ours or the pinger's; None before the first."""
        return self._connection.latency

    @property
    def ping_interval(self) -> float | None:
        """Seconds between Pings, or None; setting it starts, stops or re-arms the pinger."""
        return self._connection.pinging.period

    @ping_interval.setter
    def ping_interval(self, seconds: float | None) -> None:
        self._check_thread("ping_interval")
        WebSockets(ping_period=seconds)
        self._check_supported(seconds is None or self._connection.transport.supports.pings, "Ping")
        self._connection.pinging.set(seconds, self._connection.pinging.timeout)

    @property
    def timeout(self) -> float:
        """Seconds for a Ping and its Pong; setting it re-arms the pinger."""
        return self._connection.pinging.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._check_thread("timeout")
        WebSockets(timeout=seconds)
        self._connection.pinging.set(self._connection.pinging.period, seconds)
