"""The pytest plugin: what it offers, what it costs, and what it says when something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trioktor import pytest_fixtures, pytest_plugin


def run_pytest(folder: Path, source: str, *options: str, path: str = "") -> tuple[int, str]:
    """Run a user's test file; the status and what was printed."""
    (folder / "test_users.py").write_text(source)
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    return done.returncode, done.stdout


def test_without_an_application_it_says_so(tmp_path: Path) -> None:
    """And how to give one."""
    source = "async def test_it(websocket_host): pass\n\ndef test_other(): pass\n"
    status, output = run_pytest(tmp_path, source, "-o", "trio_mode=true")
    assert status == 1
    assert "define a fixture `app` that returns your trioktor.Application" in output
    assert "Error:" not in output
    assert "1 passed, 1 error" in output


def test_without_pytest_trio_it_says_so_and_disturbs_nobody(tmp_path: Path) -> None:
    """Others' tests run; the fixture fails with what to install."""
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "pytest_trio.py").write_text("raise ImportError\n")
    source = "def test_it(websocket_server): pass\n\ndef test_other(): pass\n"
    status, output = run_pytest(tmp_path, source, "-p", "no:trio", path=str(stub))
    assert status == 1
    assert "this fixture needs pytest-trio: pip install pytest-trio" in output
    assert "1 passed, 1 error" in output


def test_who_does_not_use_it_pays_nothing(tmp_path: Path) -> None:
    """Where pytest reads it at every start, nothing else of this package comes with it."""
    source = (
        "import sys\n"
        "def test_it():\n"
        "    ours = {name for name in sys.modules if name.partition('.')[0] == 'trioktor'}\n"
        "    assert ours == {'trioktor', 'trioktor.pytest_plugin'}, ours\n"
        "    assert not {'trio', 'h11', 'trio_websocket', 'pytest_trio'} & set(sys.modules)\n"
    )
    status, output = run_pytest(tmp_path, source, "-p", "no:trio", "-p", "no:anyio", "-p", "no:hypothesispytest")
    assert status == 0, output


def test_a_fixture_of_the_same_name_is_the_tests_own(tmp_path: Path) -> None:
    """`app` is a common name."""
    source = (
        "import pytest\n@pytest.fixture\ndef app(): return 5\n@pytest.fixture\ndef websocket_host(): return 6\n"
        "def test_it(app, websocket_host): assert (app, websocket_host) == (5, 6)\n"
    )
    status, output = run_pytest(tmp_path, source)
    assert status == 0, output


class Plugins:
    """What pytest knows of its plugins."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self.registered: list[tuple[object, str]] = []

    @property
    def pluginmanager(self) -> Plugins:
        """It is the configuration, too."""
        return self

    def has_plugin(self, name: str) -> bool:
        """Whether it is there."""
        return name in self._names

    def register(self, plugin: object, name: str) -> None:
        """Another one."""
        self.registered.append((plugin, name))


@pytest.mark.parametrize(("names", "is_whole"), [((), False), (("xdist", "asyncio"), False), (("trio",), True)])
def test_the_fixtures_are_those_of_the_environment(names: tuple[str, ...], is_whole: bool) -> None:
    """Under one name, and with the same fixtures; those that work only where pytest-trio does."""
    plugins = Plugins(*names)
    pytest_plugin.pytest_configure(plugins)  # type: ignore[arg-type]
    [(plugin, name)] = plugins.registered
    assert name == "trioktor fixtures"
    assert (plugin is pytest_fixtures) == is_whole
    assert hasattr(plugin, "websocket_host")
    assert hasattr(plugin, "websocket_server")
