"""Frames at DEBUG, for connections that are opened while the logger `trioktor.frames` is on.

Whether it is on is asked once a connection, so that nobody pays for a log that is off.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final, final

from ..protocol.frames import Frame
from ..protocol.serializer import Serializer

_SHOWN: Final = 80
"""Bytes of a payload that are shown."""

logger: logging.Logger = logging.getLogger("trioktor.frames")

Feed = Callable[[bytes], Iterator[Frame]] | Callable[[bytes], Iterator[Frame | None]]
"""Gives the frames that bytes complete, and None in between where others may have their turn."""


def is_logging() -> bool:
    """Whether frames are to be logged."""
    return logger.isEnabledFor(logging.DEBUG)


def logged(feed: Feed, who: object) -> Feed:
    """The same frames, each logged as it comes."""

    def feed_and_log(data: bytes) -> Iterator[Frame | None]:
        for frame in feed(data):
            if frame is not None:
                _log("<", who, frame)
            yield frame

    return feed_and_log


@final
class LoggingSerializer(Serializer):
    """A serializer that logs each frame as it goes."""

    __slots__ = ("_who",)

    def __init__(self, *, masking: bool, reserved: int, who: object) -> None:
        super().__init__(masking=masking, reserved=reserved)
        self._who = who

    def add(self, frame: Frame, pieces: list[bytes]) -> None:
        """As `Serializer.add`."""
        super().add(frame, pieces)
        _log(">", self._who, frame)


def _log(direction: str, who: object, frame: Frame) -> None:
    # What bytes look like in Python shows every control character escaped.
    logger.debug("%s %s %r %r", who, direction, frame, bytes(frame.data[:_SHOWN]))
