"""What a conversation says by itself, ahead of everything else: Pings, and the Pongs it owes.

A Pong answers the Ping whose bytes it repeats, and all that went out before it: a peer may answer only the
latest of several (RFC 6455 §5.5.3). A Pong that repeats nothing of ours is a sign of life and nothing more.
"""

from __future__ import annotations

import os
from typing import Any, Final, final

from .frames import Frame, PingFrame, PongFrame
from .serializer import Serializer

MAX_CONTROLS: Final = 32
"""Frames of a session's own that may be unwritten."""
MAX_PONGS: Final = 16
"""Pongs that wait; beyond that the oldest is dropped (RFC 6455 §5.5.3 allows answering the latest only)."""


@final
class ControlLane:
    """The control frames of one connection that wait to be written, and its Pings that are out.

    Each Ping has a token: whatever its sender waits on.

    Attributes:
      answered: tokens of Pings that were answered and nobody looked at yet; the one that was repeated last.
    """

    __slots__ = ("_frames", "_out", "_pongs", "answered")

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._pongs: list[Frame] = []
        self._out: dict[bytes, Any] = {}
        self.answered: list[Any] = []

    @property
    def is_waiting(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._frames or self._pongs)

    @property
    def waiting(self) -> int:
        """Frames that were sent and wait to be written: all but the Pongs that are answers."""
        return len(self._frames)

    def send(self, frame: Frame) -> None:
        """Send a Ping or Pong."""
        self._frames.append(frame)

    def owe_pong(self, ping: Frame) -> None:
        """Answer a Ping."""
        self._pongs.append(PongFrame(ping.data))
        if len(self._pongs) > MAX_PONGS:
            del self._pongs[0]

    def take(self, serializer: Serializer, pieces: list[bytes]) -> int:
        """Append the bytes of all that waits; returns how many frames that were."""
        frames = self._frames + self._pongs
        for frame in frames:
            serializer.add_control(frame, pieces)
        self.drop()
        return len(frames)

    def drop(self) -> None:
        """Nothing of it will be written any more."""
        self._frames.clear()
        self._pongs.clear()

    # Pings that are out

    def begin_ping(self, payload: bytes | None, token: object) -> PingFrame:
        """Note a Ping that is about to be sent; without a payload it gets one of its own.

        Raises:
          ValueError: too many bytes, or a Ping with the same is out.
        """
        frame = PingFrame(os.urandom(8) if payload is None else payload)
        if frame.data in self._out:
            raise ValueError(f"a Ping with the bytes {payload!r:.100} has not been answered yet: give others, or none")
        self._out[frame.data] = token
        return frame

    @property
    def is_ping_out(self) -> bool:
        """Whether somebody waits for a Pong."""
        return bool(self._out)

    def forget_ping(self, payload: bytes, token: object) -> None:
        """Nobody waits for the answer to this Ping any more; another with the same bytes may be out by now."""
        if self._out.get(payload) is token:
            del self._out[payload]

    def receive_pong(self, payload: bytes) -> None:
        """Let go of the Ping that a Pong answers, and of all before it."""
        while payload in self._out:
            oldest = next(iter(self._out))
            self.answered.append(self._out.pop(oldest))

    def take_answered(self) -> list[Any]:
        """The tokens of the Pings that were answered."""
        answered, self.answered = self.answered, []
        return answered

    def end_pings(self) -> list[Any]:
        """No more Pongs will come; returns the tokens of all Pings that are out."""
        tokens = list(self._out.values())
        self._out.clear()
        return tokens
