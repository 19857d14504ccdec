"""Does something when a coroutine waits for the first time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterator
from types import CoroutineType, FrameType
from typing import Any, final


@final
class FirstWait:
    """Awaits something, and calls `then` in the step in which that gives up its turn for the first time.

    If it never does, `then` is not called. It must not wake the task that waits: Trio does not know of its wait yet.
    From then on nothing stands between Trio and the coroutine, whose own `send` this has: no frame in which Ctrl-C
    could lose what the coroutine waits for.
    """

    __slots__ = ("_then", "send")

    def __init__(self, awaitable: Awaitable[object], then: Callable[[], None]) -> None:
        coroutine: Any = awaitable if type(awaitable) is CoroutineType else _awaiting(awaitable)
        self.send: Callable[[Any], Any] = coroutine.send
        self._then: Callable[[], None] | None = then

    @property
    def _coroutine(self) -> Any:
        return self.send.__self__  # type: ignore[attr-defined]

    def __await__(self) -> Generator[Any, Any, None]:
        return self  # type: ignore[return-value]  # it is as good as one

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The first step; all others are sent what they waited for."""
        then, self._then = self._then, None
        trap = self.send(None)
        if then is not None:
            then()
        return trap

    def throw(self, *error: Any) -> Any:
        """Go on with an error."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """Go on no more."""
        self._coroutine.close()

    # what walks along the stack of a task looks at

    @property
    def cr_frame(self) -> FrameType | None:
        """The coroutine's own."""
        frame: FrameType | None = self._coroutine.cr_frame
        return frame

    @property
    def cr_await(self) -> Any:
        """What the coroutine awaits."""
        return self._coroutine.cr_await


async def _awaiting(awaitable: Awaitable[object]) -> object:
    return await awaitable
