"""The house stays as it is drawn: what is pure stays pure, imports point down, and all of it is small."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import trioktor
from tests.support.plan import FLOORS, MODULES, PACKAGE, PAGE, floor, imported, lines, members, page, room, tree

UNTESTED = {"__main__", "version", *(module for module in MODULES if module.endswith("__init__"))}
"""Where nothing is done but to call, or to name, what stands elsewhere."""
IMPURE = {"trio", "ssl", "socket", "select", "selectors", "signal", "logging", "time", "random", "threading", "asyncio"}


def foreign(module: str) -> set[str]:
    """The packages of others that a module imports, for type checkers alone included."""
    nodes = list(ast.walk(tree(module)))
    return {
        name.split(".")[0]
        for node in nodes
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }


def classes(module: str) -> list[ast.ClassDef]:
    """The classes of a module."""
    return [node for node in ast.walk(tree(module)) if isinstance(node, ast.ClassDef)]


def attributes(kind: ast.ClassDef) -> set[str]:
    """What an object of a class holds: what is assigned to `self`, or declared in the body."""
    targets = [
        target
        for node in ast.walk(kind)
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    own = {
        target.attr for target in targets if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self"
    }
    return own | {
        node.target.id for node in kind.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


# rooms and floors


def test_there_are_few_floors_and_every_module_stands_on_one() -> None:
    """At most eight; no room is empty, and none is drawn twice."""
    rooms = [name for floor in FLOORS for name in floor]
    assert len(FLOORS) <= 8
    assert len(rooms) == len(set(rooms))
    assert {room(module) for module in MODULES} == set(rooms)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """A module imports from its own room, or from floors below: for types, and inside functions, too."""
    wrong = {other for other in imported(module) if room(other) != room(module) and floor(other) >= floor(module)}
    assert set() == wrong


def test_there_is_no_circle() -> None:
    """Nor in a room; imports for types included."""
    reach = {module: set(imported(module)) for module in MODULES}
    for through in reach:
        for ours in reach.values():
            if through in ours:
                ours |= reach[through]
    assert [module for module in MODULES if module in reach[module]] == []


def test_the_plan_in_the_docs_is_this_one() -> None:
    """`python -m tests.support.plan` draws it."""
    assert PAGE.read_text() == page()


@pytest.mark.parametrize("module", [*members("protocol"), *members("http")])
def test_what_is_pure_stays_pure(module: str) -> None:
    """It imports nothing that can wait, log or tell the time."""
    assert set() == foreign(module) & (IMPURE | {"trio_websocket"})


@pytest.mark.parametrize("module", [module for module in MODULES if module != "carriers/trio_websocket"])
def test_trio_websocket_has_its_own_carrier(module: str) -> None:
    """The other implementation is the other side, and no part of this one."""
    assert "trio_websocket" not in foreign(module)


# sizes


@pytest.mark.parametrize("module", MODULES)
def test_files_fit_on_a_few_screens(module: str) -> None:
    """At most 300 lines."""
    assert lines(module) <= 300


@pytest.mark.parametrize("module", MODULES)
def test_classes_are_not_wide(module: str) -> None:
    """At most 20 attributes; configuration is as wide as what can be configured."""
    wide = {kind.name: len(attributes(kind)) for kind in classes(module) if len(attributes(kind)) > 20}
    assert {name for name in wide if name not in ("WebSockets", "Arguments")} == set()


@pytest.mark.parametrize("module", MODULES)
def test_classes_keep_to_themselves(module: str) -> None:
    """An underscored member is touched by its own class alone."""
    reaching = [
        ast.unparse(node)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute)
        and re.match(r"_[a-z]", node.attr)
        and ast.unparse(node.value) not in ("self", "cls", "super()")
    ]
    assert reaching == []


@pytest.mark.parametrize("module", [module for module in MODULES if module not in UNTESTED])
def test_every_module_has_its_tests(module: str) -> None:
    """In the same place below `tests`."""
    mirror = PACKAGE.parent / "tests" / Path(module).parent / f"test_{Path(module).name}.py"
    nodes = list(ast.walk(ast.parse(mirror.read_text())))
    assert any(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name[:5] == "test_" for node in nodes)


# what modules say


@pytest.mark.parametrize("module", MODULES)
def test_modules_say_what_they_are_for(module: str) -> None:
    """Every module opens with a docstring, and none reaches into Trio's private parts."""
    assert ast.get_docstring(tree(module))
    assert "trio._" not in (PACKAGE / f"{module}.py").read_text()


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_speak_to_users(module: str) -> None:
    """The numbers of Ktor's rows and of the wishes belong to "From Ktor"."""
    source = (PACKAGE / f"{module}.py").read_text().replace("noqa: F401", "")
    assert not re.search(r"\bF\d{2,3}\b|\bW-\d+", source)


def test_every_public_name_is_found_where_it_stands() -> None:
    """Though it is imported only when it is asked for; and nothing else is there."""
    assert sorted(name for names in trioktor._HOMES.values() for name in names) == sorted(
        [*trioktor.__all__, "__version__"]
    )
    for name in trioktor.__all__:
        assert getattr(trioktor, name) is getattr(trioktor, name)
    assert set(trioktor.__all__) <= set(dir(trioktor))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        trioktor.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_actions_are_pinned_by_commit() -> None:
    """A tag may be moved by whoever takes over its repository."""
    workflows = sorted((PACKAGE.parent / ".github" / "workflows").glob("*.yml"))
    assert workflows
    for line in "\n".join(path.read_text() for path in workflows).splitlines():
        if "uses:" in line:
            assert re.search(r"uses: [\w/-]+@[0-9a-f]{40} # v[\d.]+$", line), line
