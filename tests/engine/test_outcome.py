"""Where an exception came from: the handler's line, not one of ours."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any, final

import pytest
import trio
import trio.testing

from tests.support.helpers import connected
from trioktor import DeserializationError, Frame, JsonConverter, UnexpectedFrame, WebSocketSession
from trioktor.engine.outcome import first_leaf, is_cancellation, origin, reraise, unwrapped, was_raised_by

Clock = trio.testing.MockClock


def line_of(function: object, text: str) -> str:
    """The line of a function that holds a text, as `origin` has it."""
    assert inspect.isfunction(function)
    lines, first = inspect.getsourcelines(function)
    (number,) = [first + number for number, line in enumerate(lines) if text in line]
    return f"{__file__}:{number}"


def reads_text(frame: Frame) -> str:
    """Takes every frame for text."""
    return frame.text  # here


def deeper(frame: Frame) -> str:
    """Leaves that to another."""
    return reads_text(frame)


def raised_by(function: object, *arguments: object) -> Exception:
    """What a function raises."""
    assert callable(function)
    with pytest.raises(Exception) as caught:  # whatever it is
        function(*arguments)
    return caught.value


@pytest.mark.parametrize("function", [reads_text, deeper])
def test_the_origin_is_the_innermost_line_that_is_not_ours(function: object) -> None:
    """Not that of `Frame.text`, which raises, nor that of whoever called."""
    error = raised_by(function, Frame.Binary(b"no text"))
    assert isinstance(error, UnexpectedFrame)
    assert origin(error) == line_of(reads_text, "# here")


async def test_the_origin_in_a_handler_that_waits(autojump_clock: Clock) -> None:
    """Of `receive_text`, and of a value that it could not be."""
    caught: list[Exception] = []

    async def handler(session: WebSocketSession) -> None:
        try:
            await session.receive_text()
        except UnexpectedFrame as error:
            caught.append(error)
        try:
            await session.receive_deserialized(int)
        except DeserializationError as error:
            caught.append(error)

    async with connected(handler, content_converter=JsonConverter()) as (client, _):
        await client.send(Frame.Binary(b""), Frame.Text("no number"))
        await client.receive()
    assert [origin(error) for error in caught] == [
        line_of(handler, "receive_text"),
        line_of(handler, "receive_deserialized"),
    ]


async def test_the_origin_is_not_in_a_channel_of_trios() -> None:
    """But where the handler called it."""
    send, receive = trio.open_memory_channel[Frame](0)
    await send.aclose()

    async def reads() -> None:
        await receive.receive()  # here

    with pytest.raises(trio.EndOfChannel) as caught:
        await reads()
    assert origin(caught.value) == line_of(reads, "# here")


async def test_the_origin_in_a_group_is_that_of_what_is_judged() -> None:
    """A nursery of the handler's: the peer's doing comes before what else there is."""

    async def reads() -> None:
        await trio.lowlevel.checkpoint()
        reads_text(Frame.Binary(b""))

    async def closed() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on its way out")

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            for function in (closed, reads):
                nursery.start_soon(function)
    assert {type(error) for error in caught.value.exceptions} == {ValueError, UnexpectedFrame}
    assert origin(caught.value) == line_of(reads_text, "# here")
    (other,) = caught.value.subgroup(ValueError).exceptions  # type: ignore[union-attr]
    assert origin(other) == line_of(closed, "raise ValueError")


def test_where_nothing_is_known_the_origin_is_empty() -> None:
    """What was never raised has no traceback."""
    assert origin(UnexpectedFrame("never raised")) == ""
    assert origin(ExceptionGroup("never raised", [ValueError()])) == ""


def test_of_a_group_the_line_is_that_of_what_was_not_expected() -> None:
    """Wherever it stands among the others."""

    def raised(error: Exception) -> Exception:
        try:
            raise error
        except Exception as caught:
            return caught

    other = raised(trio.EndOfChannel())
    try:
        raise UnexpectedFrame("a frame")
    except UnexpectedFrame as error:
        unexpected = error
    assert origin(unexpected) != ""
    for errors in ([other, unexpected], [unexpected, other]):
        assert origin(ExceptionGroup("several", errors)) == origin(unexpected)


async def test_what_is_nothing_but_cancellations() -> None:
    """Alone, or in groups of groups; one error among them makes it something else."""
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(trio.Cancelled) as caught:
            await trio.lowlevel.checkpoint()
    cancelled = caught.value
    in_group = BaseExceptionGroup("inner", [cancelled])
    assert is_cancellation(cancelled)
    assert is_cancellation(BaseExceptionGroup("outer", [in_group, cancelled]))
    assert not is_cancellation(BaseExceptionGroup("outer", [in_group, ValueError()]))
    assert not is_cancellation(ValueError())
    assert not is_cancellation(KeyboardInterrupt())
    assert not is_cancellation(ExceptionGroup("errors", [ValueError()]))


def test_what_stands_alone_is_taken_out_of_its_groups() -> None:
    """Up to the first group of several."""
    error = ValueError("a")
    several = ExceptionGroup("several", [error, ValueError("b")])
    assert unwrapped(error) is error
    assert unwrapped(ExceptionGroup("outer", [ExceptionGroup("inner", [error])])) is error
    assert unwrapped(ExceptionGroup("outer", [ExceptionGroup("inner", [several])])) is several


def test_the_first_leaf_is_the_first() -> None:
    """Of a group in a group, too."""
    errors = [ValueError("a"), ValueError("b"), ValueError("c")]
    group = ExceptionGroup("outer", [ExceptionGroup("inner", errors[:2]), errors[2]])
    assert first_leaf(group) is errors[0]
    assert first_leaf(errors[1]) is errors[1]


# whose it is


@final
class Caller:
    """Calls what it is given, as a session does a converter."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Do so."""
        function(*arguments)


def fails() -> None:
    """Raises by itself what trioktor raises, too."""
    raise trio.EndOfChannel


def test_only_what_it_was_asked_for_and_trioktor_raised_is_a_sessions() -> None:
    """Neither what another was asked for, nor what something that it called raised, nor what nobody has raised."""
    session, other = Caller(), Caller()
    error = raised_by(session.call, reads_text, Frame.Binary(b"no text"))
    assert was_raised_by(session, error)
    assert not was_raised_by(other, error)
    assert not was_raised_by(session, raised_by(session.call, fails))
    assert not was_raised_by(session, trio.EndOfChannel())


def test_what_is_raised_again_is_kept_by_nobody() -> None:
    """Not by the frames that it went through."""

    class Failure(Exception):
        """One that can be watched."""

    error = Failure()
    watched = weakref.ref(error)
    with pytest.raises(Failure):
        reraise(error)
    del error
    assert watched() is None
