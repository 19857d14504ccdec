"""A parser and a serializer that show each frame to somebody as it passes: for logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias, final

from .first_byte import CONTROL
from .frames import Frame
from .parser import FrameParser
from .serializer import Serializer

OnFrame: TypeAlias = "Callable[[str, Frame], None]"
"""Called with `<` for a frame that came, `>` for one that goes, and the frame."""


@final
class WatchedParser(FrameParser):
    """A parser whose frames are seen."""

    __slots__ = ("_on_frame",)

    def __init__(
        self,
        on_frame: OnFrame,
        *,
        masked: bool,
        max_frame_size: int | None,
        whole_messages: bool = True,
        reserved: int = 0,
    ) -> None:
        super().__init__(masked=masked, max_frame_size=max_frame_size, whole_messages=whole_messages, reserved=reserved)
        self._on_frame = on_frame

    def feed(self, data: bytes) -> Iterator[Frame]:
        """As `FrameParser.feed`."""
        for frame in super().feed(data):
            self._on_frame("<", frame)
            yield frame

    def single(self, data: bytes) -> Frame | None:
        """Nothing passes unseen: it is left to `feed`."""
        return None

    def run(self, data: bytes, most: int, size: int) -> tuple[list[Frame], bytes]:
        """The same."""
        return [], data

    def take_partial(self) -> Frame | None:
        """As `FrameParser.take_partial`; what is given away for good is seen here."""
        partial = super().take_partial()
        if partial is not None and self.is_streaming and not partial.first_byte & CONTROL:
            self._on_frame("<", partial)
        return partial


@final
class WatchedSerializer(Serializer):
    """A serializer whose frames are seen."""

    __slots__ = ("_on_frame",)
    is_watched = True

    def __init__(self, on_frame: OnFrame, *, masking: bool, reserved: int = 0) -> None:
        super().__init__(masking=masking, reserved=reserved)
        self._on_frame = on_frame

    def add(self, frame: Frame, pieces: list[bytes]) -> None:
        """As `Serializer.add`."""
        super().add(frame, pieces)
        self._on_frame(">", frame)

    def add_control(self, frame: Frame, pieces: list[bytes]) -> None:
        """As `Serializer.add_control`."""
        super().add_control(frame, pieces)
        self._on_frame(">", frame)
