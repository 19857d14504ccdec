"""The pause of a reader that is ahead of its handler: until there is room, or nobody cares any more.

Nothing is read meanwhile, so a peer that has gone is seen by looking for it, from time to time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final, Protocol

import trio

from .patience import Patience
from .transport import HangUp

_FIRST_LOOK: Final = 0.001
"""Seconds to the first look at the bytes, for handlers that take from the channel itself; each takes twice as long."""
_HANG_UP_PERIOD: Final = 1.0
"""Seconds between looks for a hang-up while nothing is read."""
_LONG: Final = 10.0
"""Seconds after which a handler that lets the reader wait is named in a warning."""

logger: logging.Logger = logging.getLogger("trioktor.session")


class Queue(Protocol):
    """What the reader waits for."""

    has_lost_patience: bool
    pause: trio.CancelScope | None
    """Round the wait: cancelled when nobody cares any more."""

    @property
    def is_full(self) -> bool:
        """Whether it has to wait."""

    async def make_room(self, until: float, look: float) -> None:
        """Wait until there may be room, or until that time."""

    def check_overflow(self) -> None:
        """Raise `ChannelOverflow`, where a full queue is the end."""

    def end_pause(self) -> None:
        """The reader goes on."""


async def wait_for_room(queue: Queue, hang_up: Callable[[], HangUp], grace: float | None, who: object) -> None:
    """Wait until the handler has made room, or nobody cares any more.

    Args:
      hang_up: whether the peer is still there.
      grace: seconds in which the handler must take something once the peer has said all that it will.
      who: named in the warning.

    Raises:
      trio.BrokenResourceError: the connection hung up meanwhile, or there is no sense in waiting longer.
      ChannelOverflow: there is no room, and that is configured to be the end.
    """
    queue.check_overflow()
    with trio.CancelScope() as queue.pause:
        try:
            await _wait(queue, hang_up, grace, who)
        finally:
            queue.end_pause()


async def _wait(queue: Queue, hang_up: Callable[[], HangUp], grace: float | None, who: object) -> None:
    warn_at = trio.current_time() + _LONG
    hang_up_at = trio.current_time() + _HANG_UP_PERIOD
    look = _FIRST_LOOK
    leaving: Patience | None = None  # the peer has ended its half
    while queue.is_full:
        asked = hang_up_at if leaving is None else min(hang_up_at, leaving.next_look())
        await queue.make_room(asked, look)
        look *= 2
        if trio.current_time() < asked or not queue.is_full:
            continue
        hang_up_at = trio.current_time() + _HANG_UP_PERIOD
        if trio.current_time() >= warn_at:
            logger.warning("%s: the handler lets its input wait, and the peer's Pings and Close behind it", who)
            warn_at = math.inf
        found = hang_up()
        if found is HangUp.HALF and leaving is None:
            leaving = Patience(grace)
        elif leaving is not None:
            leaving.woke(asked)
            queue.has_lost_patience = leaving.is_over
        if found is HangUp.FULL or queue.has_lost_patience:
            raise trio.BrokenResourceError("the peer hung up")
