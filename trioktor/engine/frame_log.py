"""Frames at DEBUG, for connections that are opened while the logger `trioktor.frames` is on.

The log level is read once for each connection.
"""

from __future__ import annotations

import logging
from typing import Final

from ..protocol.frames import Frame

_SHOWN: Final = 80
"""Bytes of a payload that are shown."""

logger: logging.Logger = logging.getLogger("trioktor.frames")


def is_logging() -> bool:
    """Whether frames are to be logged."""
    return logger.isEnabledFor(logging.DEBUG)


def log_frame(direction: str, who: object, frame: Frame) -> None:
    """Log a frame that came (`<`) or goes (`>`)."""
    # What bytes look like in Python shows every control character escaped.
    logger.debug("%s %s %r %r", who, direction, frame, bytes(frame.data[:_SHOWN]))
