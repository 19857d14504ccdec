"""One conversation, from one side, pure: bytes in, messages out, and what has to be said by itself.

Theory of operation. `receive` is the loop over the frames of what was read. It gives the messages (in a raw session
every frame), and does the rest by itself: Pings are noted to be answered, Pongs let go of the Pings they answer, a
Close or a broken rule goes to the `ClosingHandshake`. It never raises for what the peer sent. It parses no
further than it is asked, so a suspended iterator is the back-pressure: whoever finds no room keeps it and goes on
later. Short messages at the front of a read are given in one step, as many as there is room for (`receive_run`).

What goes out by itself waits in the control lane (Pings, and the Pongs we owe) until the carrier takes it, and
the Close waits until everything else was taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import ClassVar, Final

from .assembler import MessageAssembler, check_text, check_text_in_steps
from .close import CloseReason
from .closing import ClosingHandshake
from .control import ControlLane
from .errors import ProtocolError
from .extensions import Extension, Steps, begin_decode, reserved_bits
from .first_byte import CONTROL, FIN, RESERVED, WHOLE_BINARY, WHOLE_TEXT
from .frames import CloseFrame, Frame, PingFrame, TextFrame, check_close
from .halves import Ours
from .outgoing import Outgoing
from .parser import FrameParser
from .serializer import Serializer
from .watched import OnFrame, WatchedParser, WatchedSerializer

_INFLATED: Final = 1 << 18  # bytes of messages as extensions read them, after which others get a turn
TURN: Final = 0xFF
"""Frames after which others get a turn, less one: a chunk can hold 10,922 empty ones."""


class Conversation:
    """Both directions of one connection, as far as they can be told without waiting.

    Args:
      client: whether ours is the client's side, which masks.
      max_frame_size: bytes of a frame and of a message; None is no limit.
      max_fragments: fragments of a message beyond one for every 64 bytes; None is no limit.
      extensions: those at work, in the order in which messages pass them on their way out.
      masking: whether to mask as a server, too; `on_frame` is shown each frame that comes and goes.

    Attributes:
      closing: where the conversation stands, and how it ends.
      parser, serializer: make frames of what comes in, and bytes of what goes out.
      outgoing: the way of messages to the serializer.
      frames_received: messages and control frames that have come.
      has_news: whether there is something to write, to wake or to end since somebody looked.
    """

    __slots__ = (
        "_assembler",
        "_decoders",
        "_is_goodbye_taken",
        "_max_fragments",
        "_wants_pieces",
        "closing",
        "frames_received",
        "has_news",
        "lane",
        "outgoing",
        "parser",
        "serializer",
    )
    is_raw: ClassVar[bool] = False

    def __init__(
        self,
        *,
        client: bool = False,
        max_frame_size: int | None = None,
        max_fragments: int | None = None,
        extensions: tuple[Extension, ...] = (),
        masking: bool = False,
        on_frame: OnFrame | None = None,
    ) -> None:
        reserved = reserved_bits(extensions) if extensions else 0
        self.closing: ClosingHandshake = ClosingHandshake(client=client, raw=self.is_raw)
        new_parser = FrameParser if on_frame is None else partial(WatchedParser, on_frame)
        self.parser: FrameParser = new_parser(
            masked=not client, max_frame_size=max_frame_size, whole_messages=not self.is_raw, reserved=reserved
        )
        new_serializer = Serializer if on_frame is None else partial(WatchedSerializer, on_frame)
        self.serializer: Serializer = new_serializer(masking=client or masking, reserved=reserved)
        self.outgoing: Outgoing = Outgoing(self.serializer, () if self.is_raw else extensions)
        self._max_fragments = max_fragments
        self._assembler: MessageAssembler | None = None  # once there is a fragment
        self._decoders: tuple[Extension, ...] = () if self.is_raw else extensions[::-1]
        self._wants_pieces = False
        self.frames_received: int = 0
        self.lane: ControlLane | None = None  # once there is a Ping or Pong
        self._is_goodbye_taken = False
        self.has_news: bool = False

    @property
    def kept(self) -> int:
        """Bytes that are kept of a message that is not complete."""
        return self.parser.kept + (0 if self._assembler is None else self._assembler.kept)

    # what comes in

    def receive(self, data: bytes) -> Iterator[Frame | None]:
        """Give the messages that `data` completes, or None where others should have a turn; to be exhausted."""
        assembler, inflated = self._assembler, 0
        try:
            if self._wants_pieces:
                yield from self._receive_pieces(data)
                return
            for frame in self.parser.feed(data):
                first_byte = frame.first_byte
                if first_byte == WHOLE_BINARY:
                    pass
                elif first_byte == WHOLE_TEXT and (assembler is None or not assembler.is_judging):
                    if frame.decoded is None:
                        check_text(frame)
                elif first_byte & CONTROL:
                    if self.answer(frame):
                        return
                    if not self.frames_received & TURN:
                        yield None
                    continue
                elif first_byte < FIN or not first_byte & RESERVED:  # no continuation has one
                    if assembler is None:
                        assembler = self._get_assembler()
                    message = assembler.add(frame)
                    if message is None:
                        if assembler.is_turn:
                            yield None
                        continue
                    frame = message  # it stands for its fragments from here on
                if self._decoders:
                    decoded = begin_decode(self._decoders, frame, self.parser)
                    if not isinstance(decoded, Frame):
                        yield from self._decode(decoded)
                        continue
                    frame = decoded
                    if frame.decoded is None and type(frame) is TextFrame:
                        check_text(frame)
                    inflated += len(frame.data)
                self.frames_received += 1
                yield frame
                if inflated > _INFLATED:
                    inflated = 0
                    yield None
            begun = self.parser.take_partial()
            if type(begun) is TextFrame:
                self._get_assembler().add_partial(begun)
        except ProtocolError as error:
            self.violate(error)

    def receive_single(self, data: bytes) -> Frame | None:
        """The message, if `data` is a short one and nothing else: `receive` in one step. If not, nothing is done."""
        frame = None if self._decoders or self._wants_pieces else self.parser.single(data)
        self.frames_received += frame is not None
        return frame

    def may_run(self, data: bytes) -> bool:
        """Whether it is worth while to ask for a run; if not, `receive` has all of it."""
        return not self._decoders and not self._wants_pieces and bool(data) and not data[0] & CONTROL

    def receive_run(self, data: bytes, most: int, size: int) -> tuple[list[Frame], bytes]:
        """The short messages at the front of `data`, until there are so many or so many bytes of them; and the rest."""
        is_judged = self._decoders or self._wants_pieces
        messages, rest = ([], data) if is_judged else self.parser.run(data, most, size)
        self.frames_received += len(messages)
        return messages, rest

    def _get_assembler(self) -> MessageAssembler:
        if self._assembler is None:
            self._assembler = MessageAssembler(self.parser, self._max_fragments)
        return self._assembler

    def _decode(self, decoded: Frame | Steps) -> Iterator[Frame | None]:
        """Give a message as the extensions read it, with pauses."""
        while not isinstance(decoded, Frame):
            try:
                next(decoded)
            except StopIteration as stop:
                decoded = stop.value
            else:
                yield None
        if type(decoded) is TextFrame and decoded.decoded is None:
            yield from check_text_in_steps(decoded)
        self.frames_received += 1
        yield decoded

    def answer(self, frame: Frame) -> bool:
        """Do what a control frame asks for; True if it was a Close, behind which nothing is read.

        Raises:
          ProtocolError: a Close that may not be sent.
        """
        self.frames_received += 1
        self.has_news = True
        if type(frame) is CloseFrame:
            self.receive_close(frame)
            return True
        if type(frame) is PingFrame:
            if self.closing.may_accept:
                self.control.owe_pong(frame)
        elif self.lane is not None:
            self.lane.receive_pong(frame.data)
        return False

    def receive_close(self, frame: CloseFrame) -> None:
        """The peer's Close has come; a `ProtocolError` if it may not be sent."""
        self.closing.receive_close(check_close(frame))
        self.has_news = True

    def violate(self, error: ProtocolError) -> None:
        """The peer broke a rule."""
        self.has_news = True
        self.closing.violate(CloseReason(error.close_code), error)

    def stream(self) -> None:
        """From the next `receive` on give messages piece by piece, the one under way included.

        `max_frame_size` bounds only those that an extension reads. Not at once: what is being received may have
        stopped between two messages, and is judged by one rule to its end.
        """
        self._wants_pieces = all(extension.factory.reserved for extension in self._decoders)  # else all are read whole

    def _receive_pieces(self, data: bytes) -> Iterator[Frame | None]:
        assembler = self._get_assembler()
        if not self.parser.is_streaming:
            self.parser.stream()
            assembler.begin_pieces()
        yield from self._give(assembler.take_joined())
        for frame in self.parser.feed(data):
            if frame.first_byte & CONTROL:
                if self.answer(frame):
                    return
                if not self.frames_received & TURN:
                    yield None
            else:
                yield from self._give(assembler.add_piece(frame))
        begun = self.parser.take_partial()
        if begun is not None and not begun.first_byte & CONTROL:
            yield from self._give(assembler.add_partial_piece(begun))

    def _give(self, pieces: Iterator[Frame]) -> Iterator[Frame | None]:
        for piece in pieces:
            if self._decoders and piece.first_byte >= FIN:
                yield from self._decode(begin_decode(self._decoders, piece, self.parser))
            else:
                self.frames_received += 1
                yield piece

    # what goes out by itself

    @property
    def control(self) -> ControlLane:
        """The Pings and Pongs; there is none before it is first asked for."""
        if self.lane is None:
            self.lane = ControlLane()
        return self.lane

    @property
    def has_control(self) -> bool:
        """Whether Pings or Pongs wait to be written."""
        return self.lane is not None and self.lane.is_waiting

    @property
    def is_goodbye_due(self) -> bool:
        """Whether our Close waits for everything else to be written."""
        closing = self.closing
        return closing.ours is Ours.CLOSING and closing.goodbye is not None and not self._is_goodbye_taken

    @property
    def awaits_answer(self) -> bool:
        """Whether the peer has to answer something: a Ping that is out, or our Close, said or about to be."""
        return self.closing.ours is not Ours.OPEN or (self.lane is not None and self.lane.is_ping_out)

    def send_control(self, frame: Frame) -> None:
        """Send a Ping or Pong ahead of what is queued; dropped when our half has ended."""
        if self.closing.may_accept:
            self.control.send(frame)

    def add_goodbye(self, pieces: list[bytes]) -> bool:
        """Append our Close, once, behind all that is to be said; False if none is due."""
        goodbye = self.closing.goodbye
        if goodbye is None or not self.is_goodbye_due:
            return False
        self._is_goodbye_taken = True
        self.serializer.add_control(goodbye, pieces)
        self.outgoing.frames_sent += 1
        return True
