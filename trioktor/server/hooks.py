"""Asks the hooks whether a request is let in, and how they may be cut short."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, final

import trio

from ..engine.patience import Patience
from ..engine.transport import HangUp
from ..http.call import Call
from ..http.headers import Refusal
from ..http.responses import Response
from ..routing.endpoints import Before

logger: logging.Logger = logging.getLogger("trioktor.server")

_LOOK: Final = 0.25
"""Seconds between looks whether a client for whom hooks are being asked is still there."""


@final
class Hooks:
    """The hooks that one server is asking.

    Args:
      limit: seconds for all hooks of a request.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._scopes: set[trio.CancelScope] = set()

    def cancel(self) -> None:
        """The server is shutting down."""
        for scope in self._scopes:
            scope.cancel("the server is shutting down")

    async def ask(
        self, hooks: Sequence[Before], call: Call, hang_up: Callable[[], HangUp] | None = None
    ) -> Response | None:
        """Ask hooks, within the limit, and not beyond the server's end, nor the client's, where `hang_up` tells it.

        Raises:
          Refusal: 500 if one failed, 503 if it took too long, or the server is shutting down.
        """
        answers: list[Response | None] = []

        async def ask() -> None:
            answers.append(await _ask_in_order(hooks, call))

        async def client_gone() -> None:
            if hang_up is None:
                await trio.sleep_forever()
            # Behind a plain request a client may end its half, and still read the answer.
            gone = (HangUp.FULL,) if call.scheme.startswith("http") else (HangUp.FULL, HangUp.HALF)
            while hang_up() not in gone:  # noqa: ASYNC110  # the system wakes nobody for it
                await trio.sleep(_LOOK)

        scope = trio.CancelScope()
        try:
            with scope:
                self._scopes.add(scope)
                try:
                    if await Patience(self._limit).finish(ask, unless=client_gone):
                        return answers[0]
                finally:
                    self._scopes.discard(scope)
        except ExceptionGroup as failure:  # what is left of a group when its cancellations are taken out
            logger.error("a hook failed while it was cancelled, for %.200s", call.path, exc_info=failure)
        raise Refusal(503, "the server is shutting down" if scope.cancel_called else "the server took too long")


async def _ask_in_order(hooks: Sequence[Before], call: Call) -> Response | None:
    """Ask hooks in their order, until one has an answer.

    Raises:
      Refusal: 500 if one failed; logged.
    """
    for hook in hooks:
        try:
            response = await hook(call)
            if response is not None and not isinstance(response, Response):
                raise TypeError(f"a hook returns None or a Response, not {type(response).__name__}")
        except Exception:
            logger.exception("a hook failed before the upgrade of %.200s", call.path)
            raise Refusal(500, "the server failed") from None
        if response is not None:
            return response
    return None
