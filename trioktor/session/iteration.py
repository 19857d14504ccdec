"""Iterates over the messages of one kind."""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

from ..protocol.frames import Frame

F = TypeVar("F", bound=Frame)


class FramesOf(Generic[F]):
    """The messages of one kind."""

    __slots__ = ("_kind", "_session")

    def __init__(self, session: trio.abc.Channel[Frame], kind: type[F]) -> None:
        self._session = session
        self._kind = kind

    def __aiter__(self) -> FramesOf[F]:
        return self

    async def __anext__(self) -> F:
        while True:
            frame = await self._session.__anext__()
            if isinstance(frame, self._kind):
                return frame
