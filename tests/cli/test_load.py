"""`trioktor serve MODULE:NAME`: how the application is found, and what is said if it is not."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.command import fails, program
from trioktor import Application, run
from trioktor.cli.load import LoadError, load_application

APPLICATION: Final = "from trioktor import Application\napp = Application()\n"
_numbers = itertools.count()


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that nobody has imported; it is to be written into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = f"loaded_for_a_test_{next(_numbers)}"
    yield found
    for module in [module for module in sys.modules if module.partition(".")[0] == found]:
        del sys.modules[module]


def test_a_module_in_the_working_directory(name: str) -> None:
    """Before all others, and wherever it goes afterwards: the directory itself is on the path."""
    Path(f"{name}.py").write_text(APPLICATION)
    app = load_application(f"{name}:app")
    assert isinstance(app, Application)
    assert app is sys.modules[name].app
    assert sys.path[0] == str(Path.cwd())


def test_a_module_in_a_package(name: str) -> None:
    """As deep as it is."""
    folder = Path(name, "rooms")
    folder.mkdir(parents=True)
    (folder / "chat.py").write_text(APPLICATION)
    assert isinstance(load_application(f"{name}.rooms.chat:app"), Application)


def test_a_module_is_imported_once(name: str) -> None:
    """It is the same application."""
    Path(f"{name}.py").write_text(APPLICATION)
    assert load_application(f"{name}:app") is load_application(f"{name}:app")


@pytest.mark.parametrize(
    ("source", "found"),
    [("", "nothing"), ("app = None\n", "nothing"), ("app = 5\n", "a int"), ("def app(): ...\n", "a function")],
)
def test_what_is_no_application(source: str, found: str, name: str) -> None:
    """It says what is there."""
    Path(f"{name}.py").write_text(source)
    with pytest.raises(LoadError, match=f"^{name}:app: expected an Application, found {found}$"):
        load_application(f"{name}:app")


@pytest.mark.parametrize("missing", ["{name}", "{name}.rooms", "{name}.rooms.chat"])
def test_a_module_that_is_not_there(missing: str, name: str) -> None:
    """The first part that is missing is named: here the package itself."""
    with pytest.raises(LoadError, match=f"^there is no module '{name}' here$"):
        load_application(missing.format(name=name) + ":app")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_module_here", ModuleNotFoundError),
        ("import trioktor.no_such_module_here", ModuleNotFoundError),
        ("from trioktor import no_such_name_here", ImportError),
        ("1 / 0", ZeroDivisionError),
        ("raise KeyboardInterrupt", KeyboardInterrupt),
        ("raise SystemExit(3)", SystemExit),
        ("(", SyntaxError),
    ],
)
def test_what_a_module_raises_is_its_own(source: str, error: type[BaseException], name: str) -> None:
    """It comes out as it is: whoever wrote it wants the line."""
    Path(f"{name}.py").write_text(source + "\n")
    with pytest.raises(error) as caught:
        load_application(f"{name}:app")
    assert not isinstance(caught.value, LoadError)


@pytest.mark.parametrize("source", ["run(app, 0)", "try:\n    run(app, 0)\nexcept Exception:\n    pass"])
def test_a_module_that_starts_a_server(source: str, name: str) -> None:
    """It is refused, whatever it makes of that; later servers are none of its business."""
    Path(f"{name}.py").write_text(f"from trioktor import run\n{APPLICATION}{source}\n")
    with pytest.raises(LoadError, match=f"^importing '{name}' starts a server: ") as caught:
        load_application(f"{name}:app")
    assert caught.value.__cause__ is None
    with pytest.raises(ValueError, match="port must be"):  # and not that a server is started
        run(Application(), -1)


SERVES_ITSELF: Final = {
    "run": "run(app, 0)\n",
    "run, and more": "try:\n    run(app, 0)\nexcept Exception:\n    pass\n",
    "serve": "import trio\nfrom functools import partial\ntrio.run(partial(serve, app, 0, host='127.0.0.1'))\n",
    "serve in a nursery": (
        "import trio\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        await nursery.start(serve, app, 0)\n"
        "trio.run(main)\n"
    ),
    "another module": "import inner\n",
}


@pytest.mark.parametrize("how", SERVES_ITSELF)
async def test_a_module_that_serves_when_it_is_imported_is_refused(how: str, tmp_path: Path) -> None:
    """One line that says what to do about it; nothing ever listens."""
    (tmp_path / "inner.py").write_text("from trioktor import Application, run\nrun(Application(), 0)\n")
    (tmp_path / "server.py").write_text(
        "from trioktor import Application, WebSockets, run, serve\n"
        "app = Application()\n"
        "app.install(WebSockets())\n"
        f"{SERVES_ITSELF[how]}"
    )
    async with program("serve", "server:app", "--port", "0", cwd=tmp_path) as server:
        status, output, errors = await server.wait()
    assert (status, output) == (1, [])
    (error,) = errors
    assert error.startswith("trioktor serve: importing 'server' starts a server: put that under `if __name__ ==")


@pytest.mark.parametrize("error", ["ValueError('a bug')", "OSError('a bug')", "RuntimeError('a bug')"])
async def test_a_module_that_cannot_be_imported_shows_where(error: str, tmp_path: Path) -> None:
    """Its traceback: whoever wrote it wants the line."""
    (tmp_path / "broken.py").write_text(f"raise {error}\n")
    async with program("serve", "broken:app", cwd=tmp_path) as server:
        status, output, errors = await server.wait()
    assert (status, output, errors[-1]) == (1, [], f"{error.partition('(')[0]}: a bug")
    assert any(re.search(r"broken\.py\", line 1", line) for line in errors)


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("no_such_module_here:app", "'no_such_module_here'"),
        ("trioktor.no_such_module_here:app", "'trioktor.no_such_module_here'"),
        ("trioktor:no_such_name", "trioktor:no_such_name: expected an Application, found nothing"),
        ("trioktor:__version__", "expected an Application, found a str"),
        ("trioktor:Application", "expected an Application, found a type"),
        ("trioktor", "MODULE:NAME"),
        ("trioktor:", "MODULE:NAME"),
        (":app", "MODULE:NAME"),
        ("chat.py:app", "write chat:app, the module and not its file"),
        ("./rooms/chat.py:app", "write rooms.chat:app, the module and not its file"),
        ("rooms/chat:app", "write rooms.chat:app, the module and not its file"),
        (".chat:app", "MODULE:NAME"),
        ("my chat:app", "MODULE:NAME"),
        ("/:app", "MODULE:NAME"),
    ],
)
def test_an_application_that_is_not_there_is_one_line(
    reference: str, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what was looked for, and what was found."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert text in fails(capsys, "serve", reference)


async def test_a_module_that_fails_shows_where(tmp_path: Path) -> None:
    """A mistake of the user's own is theirs to see: the traceback names their line."""
    (tmp_path / "broken.py").write_text("import no_such_module_here\n")
    async with program("serve", "broken:app", cwd=tmp_path) as server:
        status, _, errors = await server.wait()
    assert status == 1
    assert any("broken.py" in line for line in errors)
    assert "no_such_module_here" in errors[-1]
