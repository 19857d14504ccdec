"""The two halves of a conversation, and the table of what to wait for (RFC 6455 §7).

*Ours* is what we may still say, *theirs* is what may still come. For each pair of them `WAITS` says what whoever
carries the bytes has to wait for next, and which one timer runs meanwhile. It is complete, so there is nothing to
decide. The table in `docs/architecture.md` is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias, final


@final
class Ours(Enum):
    """What we may still say."""

    OPEN = "the application may send"
    CLOSING = "what was accepted goes out, and the Close behind it"
    CLOSED = "all of that is with the system"
    GONE = "nothing more can be said"

    if not TYPE_CHECKING:
        __hash__ = object.__hash__  # each is one object: an enum's own would hash its name, in Python


@final
class Theirs(Enum):
    """What may still come from the peer."""

    OPEN = "frames may come"
    CLOSED = "its Close has come: the end is clean"
    FAILED = "a rule was broken, or no Pong came: nothing more is read"
    GONE = "the end of the stream, a reset, a limit"

    if not TYPE_CHECKING:
        __hash__ = object.__hash__


@final
class Wait(Enum):
    """What whoever carries the bytes has to wait for."""

    INPUT = "more from the peer"
    ANSWERS = "what the handler still says to what came before the end"
    FLUSH = "what was accepted, and the Close, to be with the system"
    EOF = "the peer's end of the stream: ours is said, and input is thrown away meanwhile"
    NOTHING = "the stream may be closed"


@final
class Timer(Enum):
    """What bounds a wait; the seconds are the configuration's."""

    CLOSE_TIMEOUT = "for the peer's Close, or a raw handler's own"
    ANSWER_GRACE = "for the handler's last answers"
    LAST_INPUT = "for what the peer said before it stopped reading"
    LINGER = "for the peer to read our Close: a reset would overtake it"


Step: TypeAlias = "tuple[Wait, Timer | None]"

_INPUT: Final = (Wait.INPUT, None)
_ANSWERS: Final = (Wait.ANSWERS, Timer.ANSWER_GRACE)
_FLUSH: Final = (Wait.FLUSH, None)
_EOF: Final = (Wait.EOF, Timer.LINGER)
_NOTHING: Final = (Wait.NOTHING, None)

WAITS: Final[Mapping[tuple[Ours, Theirs], Step]] = {
    (Ours.OPEN, Theirs.OPEN): _INPUT,
    (Ours.OPEN, Theirs.CLOSED): _ANSWERS,
    (Ours.OPEN, Theirs.FAILED): _ANSWERS,
    (Ours.OPEN, Theirs.GONE): _NOTHING,  # ours goes with theirs
    (Ours.CLOSING, Theirs.OPEN): _INPUT,  # and the writer writes
    (Ours.CLOSING, Theirs.CLOSED): _FLUSH,
    (Ours.CLOSING, Theirs.FAILED): _FLUSH,
    (Ours.CLOSING, Theirs.GONE): _NOTHING,
    (Ours.CLOSED, Theirs.OPEN): (Wait.INPUT, Timer.CLOSE_TIMEOUT),
    (Ours.CLOSED, Theirs.CLOSED): _NOTHING,
    (Ours.CLOSED, Theirs.FAILED): _EOF,
    (Ours.CLOSED, Theirs.GONE): _NOTHING,
    (Ours.GONE, Theirs.OPEN): (Wait.INPUT, Timer.LAST_INPUT),
    (Ours.GONE, Theirs.CLOSED): _NOTHING,
    (Ours.GONE, Theirs.FAILED): _NOTHING,
    (Ours.GONE, Theirs.GONE): _NOTHING,
}
"""For each pair of halves: what to wait for, and the timer that runs."""

CLIENT_WAITS: Final[Mapping[tuple[Ours, Theirs], Step]] = {
    **WAITS,
    (Ours.CLOSED, Theirs.CLOSED): _EOF,  # RFC 6455 §7.1.1: the server closes the stream
}
"""The same for a client."""

RAW_WAITS: Final[Mapping[tuple[Ours, Theirs], Step]] = {
    **WAITS,
    (Ours.OPEN, Theirs.CLOSED): (Wait.ANSWERS, Timer.CLOSE_TIMEOUT),
    (Ours.OPEN, Theirs.GONE): (Wait.ANSWERS, Timer.CLOSE_TIMEOUT),  # the peer may have ended its half alone
    (Ours.CLOSING, Theirs.GONE): _FLUSH,
    (Ours.CLOSED, Theirs.GONE): _EOF,
}
"""The same for a raw session, whose handler answers by itself."""

WORDS: Final[Mapping[tuple[Ours, Theirs], str]] = {
    (Ours.OPEN, Theirs.OPEN): "OPEN",
    (Ours.GONE, Theirs.OPEN): "OPEN",
    (Ours.CLOSING, Theirs.OPEN): "CLOSING",
    (Ours.CLOSED, Theirs.OPEN): "CLOSING",
    (Ours.OPEN, Theirs.CLOSED): "ANSWERING",
    (Ours.OPEN, Theirs.FAILED): "FAILING",
    (Ours.CLOSING, Theirs.FAILED): "FAILING",
    (Ours.CLOSED, Theirs.FAILED): "FAILING",
}
"""One word for each pair; those that are not here are CLOSED if the peer said goodbye, else BROKEN."""
