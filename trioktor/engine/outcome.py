"""What left a handler, and what it means for the conversation.

A handler may let the end of its own conversation escape: that is a return, not a failure ("quiet by
construction"). An exception group counts as what its leaves are. What is not an `Exception` (`Cancelled`,
`KeyboardInterrupt`, `SystemExit`) is raised again as it is.

Whose an exception is, its type alone does not say: a handler has other resources, and may be the client of another
server. So we look at what the handler called last, down to where it was raised.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from enum import Enum, auto
from types import FrameType
from typing import Final, NoReturn, final

import trio

from ..errors import ConnectionClosed, DeserializationError
from ..protocol.errors import UnexpectedFrame

_OURS: Final = __name__.partition(".")[0]
_LIBRARIES: Final = {_OURS, "trio", "outcome"}
_CHANNELS: Final = (trio.abc.SendChannel, trio.abc.ReceiveChannel)
"""What says by a resource error that a conversation has ended: a session, memory channels, an application's own."""


@final
class Outcome(Enum):
    """How a handler ended."""

    RETURNED = auto()
    """It returned, or the end of its conversation escaped it."""
    REFUSED = auto()
    """It met a frame of a kind that it does not serve: the peer's doing."""
    INCONSISTENT = auto()
    """It met a message that is not the value it has to be: the peer's doing, too."""
    FAILED = auto()
    """It raised something else."""


def split(error: BaseException) -> tuple[Exception | None, BaseException | None]:
    """Divide what was raised into what counts here and what is raised again."""
    if isinstance(error, Exception):
        return error, None
    if isinstance(error, BaseExceptionGroup):
        judged, rest = error.split(Exception)
        return judged, rest
    return None, error


def classify(error: Exception, session: object, *, is_over: bool) -> Outcome:
    """Say what an exception means that left the handler of `session`.

    Args:
      is_over: whether the end of the conversation was settled by then; before that, a closed resource is
        somebody else's and a failure like any other. Later it is the end that escaped if a channel raised it, such
        as a session: which other ones belong to a session, nobody can tell. Without its traceback it is a failure.
    """
    kinds = {_classify_leaf(leaf, session, is_over=is_over) for leaf in _leaves(error)}
    worst_first = (Outcome.FAILED, Outcome.INCONSISTENT, Outcome.REFUSED)
    return next((kind for kind in worst_first if kind in kinds), Outcome.RETURNED)


def _classify_leaf(leaf: BaseException, session: object, *, is_over: bool) -> Outcome:
    if isinstance(leaf, (UnexpectedFrame, DeserializationError)):
        asked = [one for one, is_ours in _callers(leaf) if is_ours and isinstance(one, trio.abc.Channel)]
        if asked and asked[-1] is not session:
            return Outcome.FAILED  # another peer's doing, of which this one knows nothing
        return Outcome.REFUSED if isinstance(leaf, UnexpectedFrame) else Outcome.INCONSISTENT
    if not is_over:
        return Outcome.FAILED
    if isinstance(leaf, ConnectionClosed):
        return Outcome.RETURNED if leaf.session is session else Outcome.FAILED
    if isinstance(leaf, (trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError)):
        for one, is_ours in reversed(_callers(leaf)):
            if isinstance(one, _CHANNELS):
                return Outcome.RETURNED
            if not is_ours:  # what it called last was something else
                break
    return Outcome.FAILED


def _callers(error: BaseException) -> list[tuple[object, bool]]:
    """Whose methods were at work when it was raised, outermost first; and which of them are trioktor's or Trio's."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [(frame.f_locals.get("self"), _is_of_library(frame)) for frame in frames]


def _is_of_library(frame: FrameType) -> bool:
    """Whether this runs code of ours or Trio's."""
    return _package_of(frame) in _LIBRARIES


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def origin(error: BaseException) -> str:
    """Where an exception came from, as file and line: the innermost that is neither ours nor Trio's, so the handler's.

    Of a group it is that of a frame or message which the handler did not expect, if there is one. "" if
    nothing is known.
    """
    leaves = list(_leaves(error))
    judged = [leaf for leaf in leaves if isinstance(leaf, (UnexpectedFrame, DeserializationError))]
    place = ""
    for frame, line in traceback.walk_tb((judged or leaves)[0].__traceback__):
        if not _is_of_library(frame):
            place = f"{frame.f_code.co_filename}:{line}"
    return place


def was_raised_by(session: object, error: BaseException) -> bool:
    """Whether a call of this session's raised it, and nobody else that somebody called."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return (
        bool(frames)
        and _package_of(frames[-1]) == _OURS
        and any(frame.f_locals.get("self") is session for frame in frames)
    )


def merge(errors: list[Exception]) -> Exception | None:
    """The one exception, or a group of several."""
    if len(errors) > 1:
        return ExceptionGroup("several tasks of a session failed", errors)
    return errors[0] if errors else None


def is_cancellation(error: BaseException) -> bool:
    """Whether this is nothing but cancellations, alone or in groups."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def unwrapped(error: BaseException) -> BaseException:
    """What stands alone in groups of one: itself, or the innermost group of several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def reraise(error: BaseException) -> NoReturn:
    """Raise an error with the context it has; one that was never raised gets what is being handled, as ever."""
    is_new = error.__traceback__ is None
    context, is_hidden = error.__context__, error.__suppress_context__
    try:
        raise error
    finally:
        if not is_new:
            error.__context__, error.__suppress_context__ = context, is_hidden
        del error, context  # or the traceback would keep them


def first_leaf(error: BaseException) -> BaseException:
    """The exception itself, or the first that is no group inside of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
