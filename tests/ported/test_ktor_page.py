"""The page for those who come from Ktor is complete, and speaks only of what there is."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import trioktor
import trioktor.auth
import trioktor.pytest_fixtures
import trioktor.testing
from trioktor import (
    Application,
    Call,
    ClientWebSocketSession,
    CloseReason,
    Frame,
    OutgoingMessage,
    RawWebSocketSession,
    Room,
    Routes,
    Server,
    WebSockets,
    WebSocketSession,
)
from trioktor.client.options import ConnectOptions
from trioktor.protocol.frames import BinaryFrame, CloseFrame, TextFrame
from trioktor.routing.routes import Overrides
from trioktor.testing import ApplicationHost, Conversation, open_test_host

PAGE = (Path(__file__).parents[2] / "docs" / "from-ktor.md").read_text()

FEATURES = [
    *range(1, 13),
    *range(15, 27),
    *range(30, 47),
    *range(50, 60),
    *range(60, 66),
    *range(70, 77),
    *range(80, 91),
    *range(100, 109),
    *range(110, 113),
    115,
    116,
    120,
    121,
]
"""The numbers of Ktor's features that were given."""

ROOTS: dict[str, tuple[type[Any], ...]] = {
    "session": (WebSocketSession, RawWebSocketSession, ClientWebSocketSession),
    "session.incoming": (trio.MemoryReceiveChannel,),
    "session.outgoing": (trio.MemorySendChannel,),
    "app": (Application,),
    "routes": (Routes,),
    "call": (Call,),
    "frame": (TextFrame, BinaryFrame, CloseFrame),
    "reason": (CloseReason,),
    "server": (Server,),
    "room": (Room,),
    "message": (OutgoingMessage,),
    "host": (ApplicationHost,),
    "conversation": (Conversation,),
}
"""Which of our classes the page's variables are of."""

PLACEHOLDERS = {"fn", "handler", "hook", "stream", "url", "value"}


def rows(letter: str) -> dict[int, list[str]]:
    """The cells of each row of a table, by the number in its first cell."""
    found: dict[int, list[str]] = {}
    for line in PAGE.splitlines():
        match = re.match(rf"\| {letter}-?(\d+)\b", line)
        if match is not None:
            number = int(match[1])
            assert number not in found, line
            found[number] = [cell.strip() for cell in line.strip("|").split("|")]
    return found


def our_cells() -> Iterator[tuple[str, str]]:
    """The cells that name what is ours, each with its row's name."""
    for number, cells in rows("F").items():
        yield f"F{number:02}", cells[2]
    for letter in "WR":
        for number, cells in rows(letter).items():
            yield f"{letter}{number:02}", cells[1]


def code(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


def parsed(span: str) -> ast.AST:
    """A piece of Python: an expression, a decorator, or the head of a block."""
    for source in (f"async def _():\n {span}", f"async def _():\n {span}: pass", f"{span}\nasync def _(): pass"):
        try:
            return ast.parse(source)
        except SyntaxError:
            continue
    raise AssertionError(f"{span!r} is no Python")


def named(name: str) -> Any:
    """What a bare name of the page is."""
    for place in (trioktor, trioktor.testing, trioktor.auth):
        if name in getattr(place, "__all__", vars(place)):
            return getattr(place, name)
    if name in {"trio", "trioktor"}:
        return globals()[name]
    return getattr(builtins, name, None)


def dotted(node: ast.AST) -> str | None:
    """`a.b.c`, or None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return None if before is None else f"{before}.{node.attr}"
    return None


def resolved(path: str) -> list[Any]:
    """What a dotted name can be; empty if there is no such thing."""
    if path in ROOTS:
        return list(ROOTS[path])
    if path in PLACEHOLDERS:
        return [object]
    before, dot, name = path.rpartition(".")
    if not dot:
        found = named(name)
        return [] if found is None else [found]
    return [getattr(owner, name) for owner in resolved(before) if hasattr(owner, name)]


def keywords(function: Any) -> set[str]:
    """The keyword arguments that something callable takes."""
    if isinstance(function, type) and attrs.has(function):
        return {field.name for field in attrs.fields(function)}
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return set(parameters) | set(Overrides.__annotations__) | set(ConnectOptions.__annotations__)
    return set(parameters)


def mistakes(span: str) -> list[str]:
    """What a piece of code names that is not there."""
    found = []
    for node in ast.walk(parsed(span)):
        if isinstance(node, (ast.Name, ast.Attribute)):
            path = dotted(node)
            if path is not None and not resolved(path):
                found.append(path)
        elif isinstance(node, ast.Call) and node.keywords:
            function = dotted(node.func)
            assert function is not None, span
            known = set().union(*map(keywords, resolved(function)))
            found += [f"{function}({word.arg}=)" for word in node.keywords if word.arg not in known]
    return found


def test_every_feature_has_its_row() -> None:
    """F01 to F121, each once, with its four cells; what is not ours yet, or never, says so."""
    table = rows("F")
    assert FEATURES == list(table)
    for number, cells in table.items():
        assert len(cells) == 4, cells
        assert code(cells[2]) or cells[2].startswith(("the same", "not yet", "left out")), cells
        if cells[2] == "left out":
            assert cells[3], f"F{number} gives no reason"
        assert not (code(cells[2]) and "not yet" in cells[3].lower()), f"F{number} is there"


def test_every_weakness_and_every_looseness_has_its_row() -> None:
    """W-01 to W-28 and R01 to R19, each once, each with a line about us."""
    for letter, count in (("W", 28), ("R", 19)):
        table = rows(letter)
        assert list(range(1, count + 1)) == list(table)
        assert all(len(cells) == 2 and cells[1] for cells in table.values())


@pytest.mark.parametrize(("row", "cell"), [pytest.param(*pair, id=pair[0]) for pair in our_cells()])
def test_what_is_named_is_there(row: str, cell: str) -> None:
    """Names, attributes and keyword arguments in our columns exist."""
    for span in code(cell):
        if span.startswith("__") or span in {field.name for field in attrs.fields(WebSockets)} | {"shutdown_grace"}:
            continue
        assert mistakes(span) == [], (row, span)


@pytest.mark.parametrize(
    "span", ["session.nothing", "Nothing", "WebSockets(nothing=1)", "app.websocket('/', nothing=1)"]
)
def test_what_is_not_there_would_be_noticed(span: str) -> None:
    """The check above finds what it is for."""
    assert mistakes(span)


def test_attributes_are_there_wherever_they_are_named() -> None:
    """In all other text, too."""
    text = PAGE[: PAGE.index("## Feature by feature")] + "".join(cells[3] for cells in rows("F").values())
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = re.findall(rf"`[^`]*?\b({'|'.join(ROOTS)})\.(\w+)", prose)
    assert len(found) > 10
    assert [f"{root}.{name}" for root, name in found if not resolved(f"{root}.{name}")] == []


def test_settings_and_fixtures_of_the_text_are_there() -> None:
    """Lower-case names with an underscore are settings, arguments of `serve`, fixtures, or of the standard library."""
    known = {field.name for field in attrs.fields(WebSockets)} | set(inspect.signature(trioktor.serve).parameters)
    prose = "".join(cells[3] for cells in rows("F").values()) + "".join(cell for _, cell in our_cells())
    names = [name for name in code(prose) if re.fullmatch(r"[a-z]+(_[a-z]+)+", name)]
    assert names
    for name in names:
        assert name in known or hasattr(trioktor.pytest_fixtures, name), name


def test_the_defaults_that_are_stated_are_in_force() -> None:
    """Numbers of the tables are those of `WebSockets`."""
    settings = WebSockets()
    table = {number: " ".join(cells) for number, cells in rows("F").items()}
    weaknesses = {number: " ".join(cells) for number, cells in rows("W").items()}
    assert "`timeout`, 15 s" in table[3]
    assert settings.timeout == 15
    assert settings == WebSockets(timeout=15, write_timeout=30, close_timeout=10)
    assert "1 MiB unless told" in table[4]
    assert settings.max_frame_size == 1 << 20
    assert "64 frames each way, and 1 MiB" in table[8]
    assert settings == WebSockets(incoming=64, outgoing=64, max_queued_bytes=1 << 20)
    assert "`close_timeout`, 10 s" in weaknesses[6]
    assert "`handler_grace` (3 s)" in weaknesses[9]
    assert settings.handler_grace == 3
    assert "`write_timeout`, 30 s" in weaknesses[13]
    assert settings.ping_period is None


def block(language: str) -> str:
    """The only block of a language."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


def test_the_twins_stand_line_by_line() -> None:
    """What both say, they say in the same line."""
    pairs = dict(zip(block("kotlin").splitlines(), block("python").splitlines(), strict=False))
    for kotlin, python in {
        "install(": "install(",
        "webSocket(": "websocket(",
        "send(": "send(",
        "for (frame": "for frame",
        "continue": "continue",
        "member.send": "broadcast(",
        "println": "print",
        "embeddedServer": "run(",
    }.items():
        line = next(line for line in pairs if kotlin in line)
        assert python in pairs[line], line


async def test_the_python_twin_is_a_chat(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everybody in the room hears everybody; a Binary message is skipped; who leaves is named."""
    assert block("python").endswith('\nif __name__ == "__main__":\n    run(app, 8080)\n')
    names: dict[str, Any] = {}
    exec(block("python"), names)
    async with open_test_host(names["app"]) as host, host.websocket("/chat/Ada") as (ada, ada_says):
        assert await ada.receive() == Frame.Text("Welcome, Ada")
        async with host.websocket("/chat/Bob") as (bob, bob_says):
            assert await bob.receive() == Frame.Text("Welcome, Bob")
            await bob_says.send(b"not for all")
            await bob_says.send("hello")
            for hears in (ada, bob):
                assert await hears.receive() == Frame.Text("Bob: hello")
        assert capsys.readouterr().out == "Bob left: CloseReason(NORMAL, '')\n"
        await ada_says.send("alone")
        assert await ada.receive() == Frame.Text("Ada: alone")
