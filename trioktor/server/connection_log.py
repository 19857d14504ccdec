"""What is logged of each connection: that it began, and what went over it. Nothing is made that nobody hears."""

from __future__ import annotations

import logging

import trio

from ..engine.connection import Connection
from ..http.call import Call

logger: logging.Logger = logging.getLogger("trioktor.server")
session_logger: logging.Logger = logging.getLogger("trioktor.session")


def _shown(client: tuple[str, int] | str | None) -> str:
    """A client as it may stand in a log: a UNIX socket's path is whatever a client bound its own to."""
    return ascii(client)[:200]


def log_begin(call: Call) -> None:
    """A conversation begins."""
    if session_logger.isEnabledFor(logging.DEBUG):
        session_logger.debug("opened %.200s for %s", call.path, _shown(call.client))


def log_end(connection: Connection, call: Call) -> None:
    """A conversation has ended."""
    if not session_logger.isEnabledFor(logging.INFO):
        return
    session_logger.info(
        "closed %.200s for %s after %.3f s: %r, in %d frames %d bytes, out %d frames %d bytes",
        call.path,
        _shown(call.client),
        trio.current_time() - connection.opened_at,
        connection.closing.reason,
        connection.conversation.frames_received,
        connection.intake.bytes_read,
        connection.conversation.outgoing.frames_sent,
        connection.outbox.wire.bytes_written,
    )


def log_bug(error: Exception) -> None:
    """A fault of ours came to light."""
    logger.error("a connection ended with an error of trioktor's own", exc_info=error)
