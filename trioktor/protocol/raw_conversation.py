"""A conversation whose application sees every frame, and answers by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from .conversation import Conversation
from .errors import ProtocolError
from .frames import CloseFrame, Frame, check_close


@final
class RawConversation(Conversation):
    """As `Conversation`, but for what comes in: frames as they are, control frames among them."""

    __slots__ = ()
    frames_received: int
    is_raw = True

    def receive(self, data: bytes) -> Iterator[Frame | None]:
        """Give the frames that `data` completes; to be exhausted before the next call."""
        try:
            for frame in self.parser.feed(data):
                if isinstance(frame, CloseFrame):
                    check_close(frame)
                self.frames_received += 1
                yield frame
                if isinstance(frame, CloseFrame):
                    self.receive_close(frame)
                    return
        except ProtocolError as error:
            self.violate(error)
