"""`reconnecting`: the same conversation again and again, with pauses that grow and differ from client to client.

Theory of operation. The iterator gives attempts, and does nothing else. Entering an attempt waits, connects, and waits
again until a connection is there or there is no sense in trying; so nothing at all is open between one attempt and the
next, and what is open belongs to the block of the attempt.

The pauses are those of exponential back-off with full jitter: anything between nothing and a limit that doubles, so
that the clients of a server which has restarted do not all come at once.
"""

from __future__ import annotations

import logging
import math
import random
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final, Unpack, final

import attrs
import trio

from ..engine.outcome import was_raised_by
from ..errors import CannotConnect, ConnectionClosed, HandshakeInvalid, HandshakeRefused
from .connect import converse
from .options import ConnectOptions, Options, client_options
from .session import ClientWebSocketSession

_LONG: Final = 30.0
"""Seconds after which a conversation counts as one that went well: the pauses begin anew."""
_MOST_ASKED: Final = 3600.0
"""Seconds of a Retry-After that are heeded."""
_WORTH_RETRYING: Final = (408, 421, 425, 429)
"""Of the 4xx those that say: not now, or not here."""
_LASTING: Final = (501, 505)
"""Of the 5xx those that say: never."""

logger: logging.Logger = logging.getLogger("trioktor.client")


def is_lasting(error: CannotConnect | HandshakeRefused) -> bool:
    """Whether trying again would bring the same: the default of `give_up`.

    So it is for a certificate that is not trusted, for answers that are no handshake, and for refusals but 408, 421,
    425, 429 and 5xx (without 501 and 505).
    """
    if isinstance(error, HandshakeInvalid):
        return True
    if isinstance(error, HandshakeRefused):
        return error.status in _LASTING or (error.status < 500 and error.status not in _WORTH_RETRYING)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        if isinstance(cause, HandshakeRefused):  # a proxy's
            return is_lasting(cause)
        cause = cause.__cause__
    return False


def retry_after(refusal: BaseException) -> float:
    """The seconds that a refusal asks to wait (RFC 9110 §10.2.3), at most an hour; 0 if it does not say."""
    while refusal.__cause__ is not None and not isinstance(refusal, HandshakeRefused):  # a proxy's
        refusal = refusal.__cause__
    said = refusal.headers.get("retry-after", "") if isinstance(refusal, HandshakeRefused) else ""
    if said.isascii() and said.isdigit():
        return min(float(said), _MOST_ASKED)
    try:
        moment = parsedate_to_datetime(said).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0
    return min(max(moment - time.time(), 0), _MOST_ASKED)


def reconnecting(
    url: str,
    /,
    *,
    first: float = 0.1,
    most: float = 60,
    give_up: Callable[[CannotConnect | HandshakeRefused], bool] = is_lasting,
    **options: Unpack[ConnectOptions],
) -> Reconnecting:
    """Hold conversations with a server, one after the other, until the loop is left.

    ::

        async for attempt in reconnecting("wss://example.org/feed"):
            async with attempt as session:
                ...

    Entering an attempt connects, as often as it takes. Between two tries there is a pause of a random length: up to
    `first` seconds, then twice as much, and so on up to `most`; behind what a `Retry-After` asks for, at most an
    hour. A conversation of 30 s has it begin anew. When the block ends, by itself or with the end of its
    conversation as the session tells it, the next attempt follows; any other exception of the block goes on, and ends
    the loop, as `break` does.

    Args:
      give_up: asked for every try that failed whether to raise the error instead of trying again.
      options: what `connect` takes; `stream` as a function, for each try needs its own.

    Raises:
      ValueError, TypeError, ImportError: at the call, as `connect`; the text names the argument.
      CannotConnect, HandshakeRefused: on entering an attempt, if `give_up` says so.
    """
    seconds: dict[str, Any] = {"first": first, "most": most}
    for name, value in seconds.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ValueError(f"{name} must be more than 0 seconds, not {value!r}")
    if not callable(give_up):
        raise TypeError(f"give_up must be a function of the error, not {give_up!r}")
    if isinstance(options.get("stream"), trio.abc.Stream):
        raise ValueError("stream must be a function that opens one: each try needs its own")
    return Reconnecting(_Plan(client_options(url, options), _Pauses(first, most), give_up))


@final
class _Pauses:
    """How long to wait before the next try."""

    def __init__(self, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self._failures = 0  # since things went well
        self._is_first = True

    def went_well(self) -> None:
        self._failures = 0

    def next(self, asked: float) -> float:
        """The next pause; none before the first try."""
        if self._is_first:
            self._is_first = False
            return 0
        limit = min(self._most, self._first * 2.0 ** min(self._failures, 64))
        self._failures += 1
        return asked + random.uniform(0, limit)


@final
@attrs.frozen
class _Plan:
    """What all attempts of a row have in common."""

    options: Options
    pauses: _Pauses
    give_up: Callable[[CannotConnect | HandshakeRefused], bool]


@final
class Reconnecting:
    """An endless row of attempts; made by `reconnecting`."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan

    def __aiter__(self) -> Reconnecting:
        return self

    async def __anext__(self) -> Attempt:
        await trio.lowlevel.checkpoint()
        return Attempt(self._plan)


@final
class Attempt:
    """One conversation of several: ``async with attempt as session``."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._held: AbstractAsyncContextManager[ClientWebSocketSession] | None = None
        self._session: ClientWebSocketSession | None = None
        self._since = 0.0

    async def __aenter__(self) -> ClientWebSocketSession:
        if self._held is not None:
            raise RuntimeError("an attempt is entered once: take the next one of the loop")
        asked = 0.0
        while True:
            await trio.sleep(self._plan.pauses.next(asked))
            self._held = converse(self._plan.options, ClientWebSocketSession)
            try:
                self._session = await self._held.__aenter__()
            except (CannotConnect, HandshakeRefused) as error:
                if self._plan.give_up(error):
                    raise
                logger.info("trying again: %.200s", error)
                asked = retry_after(error)
            else:
                self._since = trio.current_time()
                return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._held is not None
        session = self._session
        is_over = (
            session is not None and session.close_reason is not None
        )  # before it is closed for what left the block
        try:
            return await self._held.__aexit__(kind, error, traceback) or (is_over and self._is_its_end(error))
        except Exception as failure:  # of a task of the session
            if not (is_over and self._is_its_end(failure)):
                raise
            return True
        finally:
            if trio.current_time() - self._since >= _LONG:
                self._plan.pauses.went_well()

    def _is_its_end(self, error: BaseException | None) -> bool:
        """Whether this is how the session told of the end of its conversation; what others raise is not."""
        if isinstance(error, BaseExceptionGroup):
            return all(map(self._is_its_end, error.exceptions))
        if isinstance(error, trio.EndOfChannel):
            return was_raised_by(self._session, error)
        return isinstance(error, ConnectionClosed) and error.session is self._session
