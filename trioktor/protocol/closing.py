"""The closing handshake (RFC 6455 §7) as a table: what happened, and what may happen next.

The table is the whole of it. Nothing else in the package decides whether a conversation is still open,
who began to end it, or whether it ended cleanly. The drawing in `docs/architecture.md` is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, final


@final
class State(Enum):
    """Where a conversation stands."""

    OPEN = auto()
    """Both sides may send."""
    CLOSING = auto()
    """We began: our Close is queued or sent, and the peer's has not come."""
    ANSWERING = auto()
    """The peer began: nothing more is read, and our Close follows the handler's last answers."""
    FAILING = auto()
    """The peer broke a rule or fell silent, or we failed: nothing more is read, and a Close that says so follows."""
    CLOSED = auto()
    """Both Closes are known: the stream may go."""
    BROKEN = auto()
    """It ended without a closing handshake."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is read."""
        return self is not State.OPEN and self is not State.CLOSING

    @property
    def is_clean(self) -> bool:
        """Whether the peer said goodbye."""
        return self is State.ANSWERING or self is State.CLOSED


@final
class Signal(Enum):
    """What moves a conversation from one state to the next."""

    BEGIN_CLOSE = auto()
    """`close()`, the end of the handler, the end of the server."""
    PEER_CLOSE = auto()
    """A Close frame arrived."""
    VIOLATE = auto()
    """The peer broke a rule: bad frames, bad data, too big, too much."""
    FAIL = auto()
    """Our side can't go on: no Pong in time, what may not be sent, a full queue that is to be the end."""
    LOSE = auto()
    """End of stream, reset, a write or closing handshake that took too long, `terminate()`."""


TRANSITIONS: Final[Mapping[State, Mapping[Signal, State]]] = {
    State.OPEN: {
        Signal.BEGIN_CLOSE: State.CLOSING,
        Signal.PEER_CLOSE: State.ANSWERING,
        Signal.VIOLATE: State.FAILING,
        Signal.FAIL: State.FAILING,
        Signal.LOSE: State.BROKEN,
    },
    State.CLOSING: {
        Signal.BEGIN_CLOSE: State.CLOSING,  # the first reason stands
        Signal.PEER_CLOSE: State.CLOSED,  # the answer, or a Close that crossed ours
        Signal.VIOLATE: State.BROKEN,  # our Close is on its way already: a second one would break a rule
        Signal.FAIL: State.CLOSING,  # what is ours to say is said: the peer may still answer
        Signal.LOSE: State.BROKEN,
    },
    State.ANSWERING: {
        Signal.BEGIN_CLOSE: State.ANSWERING,  # nothing more to say: the answer need not wait longer
        Signal.PEER_CLOSE: State.ANSWERING,
        Signal.VIOLATE: State.ANSWERING,
        Signal.FAIL: State.ANSWERING,
        Signal.LOSE: State.CLOSED,
    },
    State.FAILING: {
        Signal.BEGIN_CLOSE: State.FAILING,
        Signal.PEER_CLOSE: State.FAILING,
        Signal.VIOLATE: State.FAILING,
        Signal.FAIL: State.FAILING,
        Signal.LOSE: State.BROKEN,
    },
    State.CLOSED: dict.fromkeys(Signal, State.CLOSED),
    State.BROKEN: dict.fromkeys(Signal, State.BROKEN),
}
"""State by state, where each signal leads.

The table is complete: once a conversation is over nothing is read any more, but somebody may end it while the
reader waits with a frame in its hands.
"""
