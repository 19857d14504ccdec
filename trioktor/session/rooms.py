"""Send one message to many sessions; a slow one delays nobody.

A message is serialized, and compressed, once for all sessions that are alike (`protocol.prepared`), offered to each
one's queue and never waited for. A session that is closed or full is skipped, or closed if asked. Every so many
sessions others get their turn, so that thousands of them do not stop the rest of the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, final

import trio

from ..config import CLOSE, SKIP, Overflow
from ..engine.items import Message, as_frame
from ..errors import ConnectionClosed
from ..protocol.errors import ProtocolError
from ..protocol.first_byte import CONTROL, RESERVED
from ..protocol.frames import TextFrame, check_utf8
from ..protocol.prepared import PreparedMessage
from .base import BaseSession

_TURN: Final = 64
"""Sessions between checkpoints."""
_TURN_BYTES: Final = 1 << 20
"""Bytes between checkpoints: the system copies what it takes of a long message, for each session."""


async def broadcast(sessions: Iterable[BaseSession], message: Message, *, on_full: Overflow = SKIP) -> int:
    """Send a message to many sessions; returns how many took it.

    Works on a copy of `sessions`, so they may come and go meanwhile. Never raises for a session that is
    over, nor for one whose extension fails, and never waits for one whose queue is full: SKIP leaves it out, CLOSE
    ends it with 1013. A session in the middle of fragments of its own counts as full; one that has them in `outgoing`
    still takes the message, and leaves it out when they have come. Always a checkpoint. Cancelled, some have taken the
    message and the rest have not.

    Raises:
      TypeError, ValueError, ProtocolError: this is no message, or no policy; nobody has got anything.
    """
    if on_full not in (SKIP, CLOSE):
        raise ValueError(f"on_full must be SKIP or CLOSE, not {on_full!r}")
    frame = as_frame(message)
    if not frame.fin:
        raise ValueError(f"only whole messages can be broadcast, not {frame!r}")
    if frame.first_byte & CONTROL:
        raise ValueError(f"only messages can be broadcast, not {frame!r}")
    if frame.first_byte & RESERVED:
        raise ProtocolError(f"{frame!r}: a reserved bit is an extension's, and each session has its own")
    if isinstance(frame, TextFrame):
        check_utf8(frame)
    prepared = PreparedMessage(frame)
    taken = 0
    turn = max(1, min(_TURN, _TURN_BYTES // (len(frame.data) + 1)))
    everyone = list(sessions)
    await trio.lowlevel.checkpoint()
    for number, session in enumerate(everyone, 1):
        if number % turn == 0:
            await trio.lowlevel.checkpoint()
        try:
            for _ in session.preparing(prepared) or ():
                await trio.lowlevel.checkpoint()
            if session.offer(prepared):
                taken += 1
            elif on_full is CLOSE:
                session.overflow()
        except ConnectionClosed:
            pass
    return taken


@final
class Room:
    """Sessions that hear what is said to all of them.

    A session is in the room while the block of `join` runs; it may be in several, and several times in one.
    """

    def __init__(self) -> None:
        self._members: dict[BaseSession, int] = {}

    @contextmanager
    def join(self, session: BaseSession) -> Iterator[None]:
        """Be in the room: `with room.join(session):`."""
        self._members[session] = self._members.get(session, 0) + 1
        try:
            yield
        finally:
            self._members[session] -= 1
            if not self._members[session]:
                del self._members[session]

    async def broadcast(self, message: Message, *, on_full: Overflow = SKIP) -> int:
        """Send a message to everyone who is in the room now; as `trioktor.broadcast`."""
        return await broadcast(self._members, message, on_full=on_full)

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[BaseSession]:
        return iter(tuple(self._members))

    def __contains__(self, session: object) -> bool:
        return session in self._members

    def __repr__(self) -> str:
        return f"<Room of {len(self)}>"
