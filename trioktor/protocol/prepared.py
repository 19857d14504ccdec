"""One message for many sessions: serialized, and compressed, once for all that are alike.

Sessions are alike whose extensions have equal keys; without extensions all are. What an extension makes of a
shared message must not depend on what its connection said before, and it is told that such a message went
out, so that what it says next does not depend on it either.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeAlias, final

from .extensions import Extension
from .frames import Frame
from .serializer import Serializer

Key: TypeAlias = "tuple[Hashable, ...]"


def shared_key(extensions: Sequence[Extension]) -> Key | None:
    """What the extensions of a connection have in common with others'; None if that is nothing."""
    if not extensions:
        return ()
    keys = tuple(extension.shared_key for extension in extensions)
    return None if None in keys else keys


@final
class PreparedMessage:
    """A whole message on its way to many sessions.

    Attributes:
      frame: the message as it was given.
      data: its payload.
    """

    __slots__ = ("_wires", "data", "frame")

    def __init__(self, frame: Frame) -> None:
        self.frame: Frame = frame
        self.data: bytes = frame.data
        self._wires: dict[Key, bytes] = {}

    def is_prepared(self, key: Key) -> bool:
        """Whether its bytes for connections of this key are there."""
        return key in self._wires

    def prepare(self, key: Key, frame: Frame) -> bytes:
        """Keep the bytes for connections of this key, whose extensions made `frame` of the message."""
        pieces: list[bytes] = []
        Serializer(masking=False, reserved=0xFF).add(frame, pieces)
        wire = self._wires[key] = b"".join(pieces)
        return wire

    def wire(self, key: Key, extensions: Sequence[Extension]) -> bytes:
        """The bytes for a connection of this key, on which these extensions are at work."""
        wire = self._wires.get(key)
        if wire is None:
            frame = self.frame
            for extension in extensions:
                frame = extension.encode_alone(frame)
            wire = self.prepare(key, frame)
        for extension in extensions:
            extension.encoded_elsewhere()
        return wire
