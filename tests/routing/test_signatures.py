"""Path parameters and their annotations: what a handler is given is a str, and it may not say otherwise."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, Optional, Protocol, TypeVar, Union

import pytest
import trio
import trio.testing

from trioktor import Application, Call, WebSockets, WebSocketSession
from trioktor.auth import bearer
from trioktor.testing import open_test_host

if TYPE_CHECKING:
    from trioktor import Room as RoomId  # so the name is not there when it is looked for

AnyHandler = Callable[..., Awaitable[object]]
UserId = NewType("UserId", str)
Number = NewType("Number", int)
T = TypeVar("T")


class Name(str):
    """A kind of str, which no path gives."""

    __slots__ = ()


class Named(Protocol):
    """What cannot be asked for at run time."""

    name: str


def application() -> Application:
    """Ready for routes."""
    app = Application()
    app.install(WebSockets())
    return app


def handler_of(annotation: Any) -> AnyHandler:
    """A handler whose path parameter `room` is annotated so."""

    async def handler(session: WebSocketSession, room: Any) -> None:
        await session.send(room)

    handler.__annotations__["room"] = annotation
    return handler


REFUSED = {
    "int": int,
    "float": float,
    "bool": bool,
    "bytes": bytes,
    "UUID": uuid.UUID,
    "Path": Path,
    "a kind of str": Name,
    "list[str]": list[str],
    "int | None": int | None,
    "Optional[int]": Optional[int],  # noqa: UP045  # both are written
    "Annotated[int, …]": Annotated[int, "a number"],
    "a NewType of int": Number,
    "Literal[1, 2]": Literal[1, 2],
    "None": None,
    "'int'": "int",
    "'uuid.UUID'": "uuid.UUID",
    "'int | None'": "int | None",
    "Optional['int']": Optional["int"],
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_path_parameter_that_is_no_str_is_refused(name: str) -> None:
    """When it is registered: the text names the parameter, and what to write."""
    for register in (application().websocket, application().websocket_raw, application().get):
        with pytest.raises(TypeError, match=r"handler .*'room'.*write `room: str`") as refused:
            register("/{room}", handler_of(REFUSED[name]))
        assert "handler_of" in str(refused.value)


TAKEN = {
    "str": str,
    "str | None": str | None,
    "Optional[str]": Optional[str],  # noqa: UP045
    "Union[str, int]": Union[str, int],
    "Any": Any,
    "object": object,
    "Sequence": Sequence,
    "Sequence[str]": Sequence[str],
    "Annotated[str, …]": Annotated[str, "a name"],
    "a NewType of str": UserId,
    "Literal['a', 'b']": Literal["a", "b"],
    "a type variable": T,
    "'str'": "str",
    "'str | None'": "str | None",
    "'Optional[str]'": "Optional[str]",
    "Optional['RoomId']": Optional["RoomId"],
    "a protocol": Named,
    "what cannot be resolved": "RoomId",
    "what is no Python": "a room's name",
    "what is no type": 5,
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_path_parameter_that_may_be_a_str_is_taken(name: str) -> None:
    """Nor does it matter what cannot be found out."""
    application().websocket("/{room}", handler_of(TAKEN[name]))


def test_what_is_no_path_parameter_may_be_anything() -> None:
    """The session, keywords with a default that the path does not name, `**rest`."""

    async def handler(session: RoomId, room: str, limit: int = 5, *rest: int, **others: int) -> None: ...

    async def unannotated(session, room): ...  # type: ignore[no-untyped-def]

    application().websocket("/{room}", handler)
    application().websocket("/{room}", unannotated)


def test_names_are_looked_up_where_the_handler_was_written() -> None:
    """A method, a callable object, a `partial`."""

    class Handlers:
        async def method(self, session: WebSocketSession, room: Number) -> None: ...

        async def __call__(self, session: WebSocketSession, room: uuid.UUID) -> None: ...

    async def function(limit: int, session: WebSocketSession, room: Number) -> None: ...

    for handler in (Handlers().method, Handlers(), functools.partial(function, 5)):
        with pytest.raises(TypeError, match="'room'"):
            application().websocket("/{room}", handler)


async def test_a_decorator_may_convert(autojump_clock: trio.testing.MockClock) -> None:
    """What it hands on is its business: the annotations are those of the function inside."""

    def converting(function: AnyHandler) -> AnyHandler:
        @functools.wraps(function)
        async def wrapper(session: WebSocketSession, room: str) -> None:
            await function(session, int(room))

        return wrapper

    app = application()

    @app.websocket("/{room}")
    @converting
    async def handler(session: WebSocketSession, room: int) -> None:
        await session.send(str(room + 1))

    async with open_test_host(app) as host, host.websocket("/41") as (incoming, _):
        assert (await incoming.receive()).text == "42"


async def test_a_decorator_may_give_what_no_path_does(autojump_clock: trio.testing.MockClock) -> None:
    """If it takes whatever there is; what it names by itself has to come from the path."""

    def giving(function: AnyHandler) -> AnyHandler:
        @functools.wraps(function)
        async def wrapper(session: WebSocketSession, **values: str) -> None:
            await function(session, database="all of it", **values)

        return wrapper

    app = application()

    @app.websocket("/{room}")
    @giving
    async def handler(session: WebSocketSession, database: str, room: str) -> None:
        await session.send(f"{room}: {database}")

    with pytest.raises(ValueError, match="wants 'database'"):

        @app.websocket("/other/{room}")
        async def other(session: WebSocketSession, database: str, room: str) -> None:
            pass

    async with open_test_host(app) as host, host.websocket("/41") as (incoming, _):
        assert (await incoming.receive()).text == "41: all of it"


async def test_a_decorator_may_take_what_the_path_gives_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    """It is not given what it does not name."""

    def fetching(function: AnyHandler) -> AnyHandler:
        @functools.wraps(function)
        async def wrapper(session: WebSocketSession) -> None:
            await function(session, int(session.call.path_parameters["room"]))

        return wrapper

    app = application()

    @app.websocket("/{room}")
    @fetching
    async def handler(session: WebSocketSession, room: int) -> None:
        await session.send(str(room + 1))

    async with open_test_host(app) as host, host.websocket("/41") as (incoming, _):
        assert (await incoming.receive()).text == "42"


async def test_a_decorator_may_make_an_async_function(autojump_clock: trio.testing.MockClock) -> None:
    """Of one that blocks; a hook of one, and a check, too. One that makes it blocking does not."""

    def threaded(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapper(*args: Any) -> Any:
            await trio.lowlevel.checkpoint()
            return function(*args)

        return wrapper

    app = application()
    asked: list[object] = []

    @app.before_upgrade
    @threaded
    def hook(call: Call) -> None:
        asked.append("hook")

    @threaded
    def check(token: str) -> str:
        asked.append(token)
        return "Ada"

    @app.websocket("/", before=bearer(check))
    @threaded
    def handler(session: WebSocketSession) -> None:
        session.send_nowait("hello")

    headers = {"Authorization": "Bearer secret"}
    async with open_test_host(app) as host, host.websocket("/", headers=headers) as (incoming, _):
        assert (await incoming.receive()).text == "hello"
    assert asked == ["hook", "secret"]


async def test_a_decorator_need_not_be_async_itself(autojump_clock: trio.testing.MockClock) -> None:
    """What it calls is; that is awaited."""

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    app = application()

    @app.websocket("/")
    @logged
    async def handler(session: WebSocketSession) -> None:
        await session.send("hello")

    async with open_test_host(app) as host, host.websocket("/") as (incoming, _):
        assert (await incoming.receive()).text == "hello"


async def test_what_may_be_left_out_has_its_default(autojump_clock: trio.testing.MockClock) -> None:
    """That of the handler, or None."""
    app = application()

    @app.websocket("/{room?}")
    async def handler(session: WebSocketSession, room: str = "lobby") -> None:
        await session.send(room)

    @app.websocket("/none/{room?}")
    async def other(session: WebSocketSession, room: str | None) -> None:
        await session.send(repr(room))

    for path, expected in (("/", "lobby"), ("/x", "x"), ("/none", "None"), ("/none/x", "'x'")):
        async with open_test_host(app) as host, host.websocket(path) as (incoming, _):
            assert (await incoming.receive()).text == expected


def test_the_error_says_how_to_convert() -> None:
    """And names the type."""

    async def handler(session: WebSocketSession, number: int) -> None: ...

    async def page(call: Call, number: uuid.UUID) -> str:
        return ""

    with pytest.raises(TypeError, match=r"'number' as int, .* write `number: str` and convert it"):
        application().websocket("/{number}", handler)
    with pytest.raises(TypeError, match=r"'number' as uuid.UUID, .* write `number: str` and convert it"):
        application().get("/{number}", page)
