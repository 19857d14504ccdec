"""The house stays as it is drawn: what is pure stays pure, and imports point one way."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import trioktor

PACKAGE = Path(trioktor.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))
IMPURE = {"trio", "ssl", "socket", "select", "selectors", "signal", "logging", "time", "random", "threading", "asyncio"}

LAYERS = [
    {"protocol"},
    {"call", "response_headers", "errors", "config", "converters"},
    {"engine"},
    {"routing", "handlers", "endpoints", "registry", "routes", "proxies", "seldom", "places"},
    {"statistics", "iteration", "base_session", "streaming", "session", "raw_session", "broadcasting"},
    {"auth", "upgrade", "arguments"},
    {"answering", "connection_log", "host", "application"},
    {"server", "program"},
    {"testing", "pytest_plugin", "pytest_fixtures", "cli", "__init__", "__main__"},
]


class _Imports(ast.NodeVisitor):
    """What a module imports when it runs: names of other packages, and our own modules."""

    def __init__(self, module: str) -> None:
        self.foreign: set[str] = set()
        self.ours: set[str] = set()
        self._package = module.split("/")[:-1]
        self.visit(ast.parse((PACKAGE / f"{module}.py").read_text()))

    def visit_If(self, node: ast.If) -> None:
        """Imports for type checkers alone do not count."""
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Nor do imports inside functions, which happen later."""

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_Import(self, node: ast.Import) -> None:
        """`import x.y` is x."""
        self.foreign |= {name.name.split(".")[0] for name in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """`from x import y` is x, `from .x import y` a module of ours."""
        if not node.level:
            self.foreign.add((node.module or "").split(".")[0])
            return
        base = self._package[: len(self._package) + 1 - node.level]
        names = [node.module] if node.module else [name.name for name in node.names]
        for name in names:
            self.ours.add("/".join([*base, *name.split(".")]))


def layer(module: str) -> int:
    """The number of the layer that a module belongs to."""
    top = module.split("/")[0]
    return next(number for number, names in enumerate(LAYERS) if top in names)


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("protocol/")])
def test_the_protocol_core_is_pure(module: str) -> None:
    """It imports nothing that can wait, log or tell the time."""
    assert set() == _Imports(module).foreign & (IMPURE | {"trio_websocket"})


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    """A module imports from its own layer or from those below it."""
    if module == "__init__":
        return
    wrong = {name for name in _Imports(module).ours if name and name != "__version__" and layer(name) > layer(module)}
    assert set() == wrong


@pytest.mark.parametrize("module", [module for module in MODULES if module != "cli/connect"])
def test_trio_websocket_is_the_clients_alone(module: str) -> None:
    """The other implementation is the other side, and no part of this one."""
    assert "trio_websocket" not in _Imports(module).foreign


@pytest.mark.parametrize("module", MODULES)
def test_modules_say_what_they_are_for(module: str) -> None:
    """Every module opens with a docstring, and none reaches into Trio's private parts."""
    source = (PACKAGE / f"{module}.py").read_text()
    assert ast.get_docstring(ast.parse(source))
    assert "trio._" not in source


def test_every_public_name_is_found_where_it_stands() -> None:
    """Though it is imported only when it is asked for; and nothing else is there."""
    assert sorted(name for names in trioktor._HOMES.values() for name in names) == sorted(trioktor.__all__)
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


# A ratchet: what is not yet as it should be, and may only become less.

LONG = {
    "engine/outbox": 525,
    "engine/connection": 501,
    "base_session": 466,
    "host": 417,
    "engine/inbox": 371,
    "protocol/frames": 353,
    "session": 330,
}
"""Files of more than 300 lines, and how many those may have."""
WIDE = {"Connection": 26}
"""Classes of more than 20 attributes."""
REACHING = {"broadcasting": 3, "server": 1}
"""How often a module touches an underscored member of a class that is not its own."""


def imported(module: str) -> set[str]:
    """Our modules that a module imports, for type checkers alone included."""
    base = module.split("/")[:-1]
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = base[: len(base) + 1 - node.level]
            for name in [node.module] if node.module else [name.name for name in node.names]:
                found.add("/".join([*above, *name.split(".")]))
    return (found & set(MODULES)) - {module}


def test_there_is_no_circle() -> None:
    """Imports for types included."""
    graph = {module: imported(module) for module in MODULES if not module.endswith("__init__")}
    reach = {module: set(ours) for module, ours in graph.items()}
    for through in reach:
        for ours in reach.values():
            if through in ours:
                ours |= reach[through]
    circles = {frozenset(other for other in reach[module] if module in reach[other]) for module in reach}
    assert [set(circle) for circle in circles if circle] == []


@pytest.mark.parametrize("module", MODULES)
def test_files_fit_on_a_few_screens(module: str) -> None:
    """300 lines, or what the longer ones had when this was written."""
    assert len((PACKAGE / f"{module}.py").read_text().splitlines()) <= LONG.get(module, 300)


@pytest.mark.parametrize("module", MODULES)
def test_classes_are_not_wide_and_keep_to_themselves(module: str) -> None:
    """At most 20 attributes; and an underscored member is touched by its own class."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    for kind in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        own = {
            target.attr
            for node in ast.walk(kind)
            if isinstance(node, (ast.Assign, ast.AnnAssign))
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self"
        }
        assert len(own) <= WIDE.get(kind.name, 20), kind.name
    foreign = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.match(r"_[a-z]", node.attr)
        and ast.unparse(node.value) not in ("self", "cls")
    ]
    assert len(foreign) <= REACHING.get(module, 0), foreign


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_speak_to_users(module: str) -> None:
    """The numbers of Ktor's rows and of the wishes belong to "From Ktor"."""
    source = (PACKAGE / f"{module}.py").read_text().replace("noqa: F401", "")
    assert not re.search(r"\bF\d{2,3}\b|\bW-\d+", source)
