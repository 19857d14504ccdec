"""The pause of a reader that is ahead of its handler: until there is room, or nobody cares any more.

Nothing is read meanwhile, so a peer that has gone is seen by looking for it, from time to time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

import trio

from .inbox import Inbox
from .patience import Patience
from .transport import HangUp

_FIRST_LOOK: Final = 0.001
"""Seconds to the first look at the bytes, for handlers that take from the channel itself; each takes twice as long."""
_HANG_UP_PERIOD: Final = 1.0
"""Seconds between looks for a hang-up while nothing is read."""
_LONG: Final = 10.0
"""Seconds after which a handler that lets the reader wait is named in a warning."""

logger: logging.Logger = logging.getLogger("trioktor.session")


async def wait_for_room(inbox: Inbox, hang_up: Callable[[], HangUp], grace: float | None, who: object) -> None:
    """Wait until the handler has made room, or nobody cares any more.

    Args:
      hang_up: whether the peer is still there.
      grace: seconds in which the handler must take something once the peer has said all that it will.
      who: named in the warning.

    Raises:
      trio.BrokenResourceError: the connection hung up meanwhile, or there is no sense in waiting longer.
      ChannelOverflow: there is no room, and that is configured to be the end.
    """
    inbox.check_overflow()
    with trio.CancelScope() as inbox.pause:
        try:
            await _wait(inbox, hang_up, grace, who)
        finally:
            inbox.end_pause()


async def _wait(inbox: Inbox, hang_up: Callable[[], HangUp], grace: float | None, who: object) -> None:
    warn_at = trio.current_time() + _LONG
    hang_up_at = trio.current_time() + _HANG_UP_PERIOD
    look = _FIRST_LOOK
    leaving: Patience | None = None  # the peer has ended its half
    while inbox.is_full:
        asked = hang_up_at if leaving is None else min(hang_up_at, leaving.next_look())
        await inbox.make_room(asked, look)
        look *= 2
        if trio.current_time() < asked or not inbox.is_full:
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
            inbox.has_lost_patience = leaving.is_over
        if found is HangUp.FULL or inbox.has_lost_patience:
            raise trio.BrokenResourceError("the peer hung up")
