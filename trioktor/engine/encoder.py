"""Makes bytes of what comes out of the outbox, and tells what may not be sent.

A long message passes its extensions in steps, and nothing may go out before they are done.
"""

from __future__ import annotations

from typing import Protocol

from ..protocol.conversation import Conversation
from ..protocol.errors import ProtocolError
from ..protocol.extensions import Steps
from ..protocol.first_byte import CONTROL
from ..protocol.frames import CloseFrame, Frame
from ..protocol.prepared import PreparedMessage
from .items import Message, as_frame


class ChannelEnds(Protocol):
    """How what comes out of the channel may end the conversation."""

    def close_frame_sent(self, frame: CloseFrame) -> None:
        """A Close came out of the channel."""

    def misused(self, error: ProtocolError, *, is_writing: bool) -> None:
        """Something came out of the channel that may not be sent."""

    def crashed(self, error: Exception, *, is_writing: bool) -> None:
        """An extension failed at a message."""

    def overflowed(self) -> None:
        """More was put in than there is room for, and that is to be the end."""


class Encoder:
    """The way from items to bytes, for one connection.

    Attributes:
      steps: those of a long message that is in the middle of its extensions; call `step` until there are none.
    """

    __slots__ = ("_conversation", "_ends", "steps")

    def __init__(self, ends: ChannelEnds, conversation: Conversation) -> None:
        self._ends = ends
        self._conversation = conversation
        self.steps: Steps | None = None

    def add(self, item: Message | PreparedMessage, pieces: list[bytes], ahead: int, *, is_sealed: bool) -> int:
        """Append the bytes of an item, or begin with its steps.

        Control frames go ahead, to that place in `pieces`, until the outbox is sealed; returns where the next one goes.
        """
        outgoing = self._conversation.outgoing
        try:
            frame = item if isinstance(item, (Frame, PreparedMessage)) else as_frame(item)
            if type(frame) is PreparedMessage and outgoing.serializer.is_in_message:
                pass  # it was queued behind fragments in `outgoing`: nobody expects it inside of their message
            elif type(frame) is CloseFrame and not is_sealed:
                self._ends.close_frame_sent(frame)  # the same as session.close
            elif isinstance(frame, Frame) and frame.first_byte & CONTROL and self._goes_ahead(is_sealed):
                control: list[bytes] = []
                outgoing.add(frame, control)
                pieces[ahead:ahead] = control
                ahead += len(control)
            else:
                self.steps = outgoing.add(frame, pieces)
        except Exception as error:
            self._fail(error, item, is_sealed)
        return ahead

    def step(self, pieces: list[bytes], *, is_sealed: bool) -> None:
        """Do a slice of the work on a long message; the last appends its bytes."""
        assert self.steps is not None
        try:
            try:
                next(self.steps)
            except StopIteration as stop:
                self.steps = None
                self._conversation.outgoing.finish(stop.value, pieces)
        except Exception as error:
            self.steps = None
            self._fail(error, "a message", is_sealed)

    def _goes_ahead(self, is_sealed: bool) -> bool:
        """Whether control frames overtake what was gathered with them."""
        return not is_sealed and not self._conversation.closing.is_raw

    def _fail(self, error: Exception, item: object, is_sealed: bool) -> None:
        """An item does not go out, which ends the conversation; at once, if an extension counts on it."""
        is_end = is_sealed and self._conversation.outgoing.is_torn
        if isinstance(error, (TypeError, ValueError)) and not isinstance(error, ProtocolError):
            error = ProtocolError(f"{item!r:.100}: {error}")
        if isinstance(error, ProtocolError):
            self._ends.misused(error, is_writing=is_end)
        else:
            self._ends.crashed(error, is_writing=is_end)
