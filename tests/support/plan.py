"""The plan of the house: its rooms, what stands in each, and on which floor.

`ROOMS` is the drawing; `tests/project/test_architecture.py` holds the code to it. `python -m tests.support.plan` draws
it anew in `docs/architecture.md`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import trioktor

PACKAGE: Final = Path(trioktor.__file__).parent
PAGE: Final = PACKAGE.parent / "docs" / "architecture.md"
MODULES: Final = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))

FLOORS: Final = [
    ("protocol", "http"),
    ("errors",),
    ("config",),
    ("engine", "routing"),
    ("session", "auth"),
    ("server", "client"),
    ("names", "testing", "carriers"),
    ("cli", "pytest"),
]
"""The rooms, from the ground up: one imports only from those on lower floors."""

SINGLE: Final = {
    "converters": "config",
    "version": "config",
    "__init__": "names",
    "__main__": "cli",
    "pytest_plugin": "pytest",
    "pytest_fixtures": "pytest",
}
"""Rooms of modules that stand at the top of the package, where the name does not say it."""

SAYS: Final = {
    "protocol": "RFC 6455 and 7692, pure: bytes in, messages out, and how a conversation ends",
    "http": "pure: the request, its answers, the upgrade",
    "errors": "what sessions raise",
    "config": "settings, converters, the version",
    "engine": "one connection on Trio: who reads, writes and waits",
    "routing": "routes, handlers and hooks, checked as they are registered",
    "session": "what a handler sees",
    "auth": "hooks that ask who it is",
    "server": "listeners, hosts, from a connection's first byte to its last",
    "client": "the other end: from an address to a session",
    "names": "what `import trioktor` shows",
    "carriers": "an application on servers of other people",
    "testing": "clients and hosts for tests",
    "cli": "the command line",
    "pytest": "fixtures",
}
BEGIN, END = "<!-- drawn by tests/support/plan.py -->\n", "<!-- the end of the drawing -->"


def room(module: str) -> str:
    """The room that a module stands in."""
    top = module.split("/")[0]
    return SINGLE.get(top, top)


def floor(module: str) -> int:
    """The number of its floor; 1 is the ground."""
    return next(number for number, rooms in enumerate(FLOORS, 1) if room(module) in rooms)


@cache
def tree(module: str) -> ast.Module:
    """What a module's source says."""
    return ast.parse((PACKAGE / f"{module}.py").read_text())


def lines(module: str) -> int:
    """How long it is."""
    return len((PACKAGE / f"{module}.py").read_text().splitlines())


@cache
def imported(module: str) -> frozenset[str]:
    """Our modules that a module imports, for type checkers alone included."""
    base = module.split("/")[:-1]
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = base[: len(base) + 1 - node.level]
            where = [*above, *(node.module.split(".") if node.module else ())]
            found |= {"/".join(where), "/".join([*where, "__init__"])}
            found |= {"/".join([*where, name.name]) for name in node.names}
    return frozenset(found & set(MODULES)) - {module}


def members(name: str) -> list[str]:
    """The modules of a room."""
    return [module for module in MODULES if room(module) == name]


def arrows() -> set[tuple[str, str]]:
    """From which room to which there are imports."""
    return {(room(module), room(other)) for module in MODULES for other in imported(module)} - {
        (name, name) for rooms in FLOORS for name in rooms
    }


def drawing() -> str:
    """The plan as text: the floors, the top one first, then what each room holds."""
    return "\n".join([*_floors(), *_rooms()]) + "\n"


def _floors() -> Iterator[str]:
    yield "```text"
    for number, rooms in reversed(list(enumerate(FLOORS, 1))):
        yield f"{number}  " + "".join(f"[ {name} ]".ljust(16) for name in rooms).rstrip()
    yield "```"
    yield ""


def _rooms() -> Iterator[str]:
    yield "| room | what it is for | modules | imports from |"
    yield "|---|---|---|---|"
    below = arrows()
    for rooms in reversed(FLOORS):
        for name in rooms:
            modules = [module for module in members(name) if not module.endswith("/__init__") or lines(module) > 20]
            held = ", ".join(f"`{module.removeprefix(name + '/')}`" for module in modules)
            known = ", ".join(other for rooms in FLOORS for other in rooms if (name, other) in below)
            yield f"| **{name}** | {SAYS[name]} | {held} | {known or 'nothing'} |"


def page() -> str:
    """`docs/architecture.md` with the plan as it is now."""
    text = PAGE.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[:start] + "\n" + drawing() + "\n" + text[end:]


if __name__ == "__main__":
    PAGE.write_text(page())
