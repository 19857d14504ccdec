"""A conversation as a reader of frames: control frames are shown in their place, and violations raised."""

from __future__ import annotations

from collections.abc import Iterator

from trioktor.protocol.conversation import Conversation
from trioktor.protocol.extensions import Extension
from trioktor.protocol.frames import CloseFrame, Frame, check_close
from trioktor.protocol.parser import FrameParser


class _Shown(Conversation):
    """A conversation that answers nothing, and goes on behind a Close."""

    shown: list[Frame]

    def answer(self, frame: Frame) -> bool:
        """Show a control frame."""
        if isinstance(frame, CloseFrame):
            check_close(frame)
        self.shown.append(frame)
        self.frames_received += 1
        return False


class FrameReader:
    """Read the bytes of one direction.

    Args:
      client: whether they are a server's.
      raw: show fragments as they are.
      pieces: show messages piece by piece.
    """

    def __init__(
        self,
        *,
        client: bool = False,
        raw: bool = False,
        pieces: bool = False,
        max_frame_size: int | None = None,
        max_fragments: int | None = None,
        reserved: int = 0,
        extensions: tuple[Extension, ...] = (),
    ) -> None:
        self.conversation = _Shown(
            client=client, max_frame_size=max_frame_size, max_fragments=max_fragments, extensions=extensions
        )
        self.conversation.shown = []
        if pieces:
            self.stream()
        self.is_raw = raw
        self.parser.reserved |= reserved
        self.parser.whole_messages = not raw

    @property
    def parser(self) -> FrameParser:
        """What reads the frames."""
        return self.conversation.parser

    def stream(self) -> None:
        """Show messages piece by piece from now on."""
        self.conversation.stream()

    @property
    def kept(self) -> int:
        """Bytes that are kept of what is not complete."""
        return self.conversation.kept

    def feed(self, data: bytes) -> Iterator[Frame | None]:
        """The frames that `data` completes, and None at each pause.

        Raises:
          ProtocolError: what came before has been given.
        """
        if self.is_raw:
            for frame in self.parser.feed(data):
                if isinstance(frame, CloseFrame):
                    check_close(frame)
                yield frame
            return
        shown = self.conversation.shown
        for message in self.conversation.receive(data):
            while shown:
                yield shown.pop(0)
            yield message
        yield from shown
        shown.clear()
        error = self.conversation.closing.cause
        if error is not None:
            raise error
