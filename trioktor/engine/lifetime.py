"""The life of a connection round what uses it: a handler on the server's side, a block on the client's.

Both are the body of the connection's nursery. When the body is left, the conversation is seen out, and the stream is
closed, whatever left it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from types import CoroutineType, FrameType, TracebackType
from typing import Any, final

import trio

from .connection import Connection
from .outcome import first_leaf, is_cancellation, reraise, unwrapped


@final
class Lifetime:
    """The body of an `async with` is the handler; the block is left when all is over and the stream is closed.

    Entering is no checkpoint. It raises only what is no `Exception`: `Cancelled`, `KeyboardInterrupt`, `SystemExit`.
    """

    __slots__ = ("_connection", "_nursery")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._nursery = trio.open_nursery()

    @trio.lowlevel.enable_ki_protection  # all of it is entered, or nothing
    async def __aenter__(self) -> None:
        nursery = await self._nursery.__aenter__()
        try:
            self._connection.begin(nursery)
            self._connection.tasks.__enter__()
        except BaseException as error:
            await self._leave(error)
            raise

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        connection = self._connection
        try:
            try:
                try:
                    connection.tasks.__exit__(kind, error, traceback)
                finally:
                    del error, traceback  # or the traceback would keep both
                    connection.writing.respond()  # of a handler that never waited
            except BaseException:
                connection.ends.interrupted()
                await connection.ending.see_out(shield=True)
                raise
            await connection.ending.see_out(shield=False)
        except BaseException as rest:
            if not await self._leave(rest):
                raise
        else:
            await self._leave(None)
        return True

    async def _leave(self, error: BaseException | None) -> bool | None:
        """Wait for all other tasks; true if what left the body was theirs to keep."""
        connection, kind = self._connection, None if error is None else type(error)
        try:
            return await self._nursery.__aexit__(kind, error, None)
        finally:
            del error
            connection.owner = None  # or they would keep each other alive
            if not connection.ending.is_closed and not connection.transport.close_nowait():
                await connection.transport.aclose()


@asynccontextmanager
async def hold(connection: Connection, failures: list[Exception]) -> AsyncIterator[None]:
    """The conversation goes on while the block does; it is over, and the stream closed, when the block has been left.

    Args:
      failures: where the connection puts what left the block or its tasks; it is raised behind the end.

    Raises:
      Exception: what left the block or one of its tasks, as itself; a group only of several.
      BaseException: what is no `Exception`, and came alone.
    """
    try:
        async with Lifetime(connection):
            yield
    except BaseException as error:
        reraise(_together(error, failures))
    for failure in failures:
        reraise(failure)


def _together(rest: BaseException, failures: list[Exception]) -> BaseException:
    """What is raised of what was not judged, such as a cancellation, and what was; a failure is never hidden."""
    rest = unwrapped(rest)
    if is_cancellation(rest):
        return failures[0] if failures else first_leaf(rest)  # one Cancelled says what several do
    if not failures:
        return rest
    interrupts = rest.split(trio.Cancelled)[1] if isinstance(rest, BaseExceptionGroup) else rest
    assert interrupts is not None
    return BaseExceptionGroup("a block failed, and was interrupted", [*failures, interrupts])


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
