"""The benchmark runs, on small loads, and says what it left out. No figure is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import clients, servers
from tests.benchmarks.__main__ import ALL, LOADS

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The benchmark as a program."""
    command = [sys.executable, "-m", "tests.benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)


def test_every_load_gives_figures(tmp_path: Path) -> None:
    """For each server that can do it, in the table and in the JSON."""
    file = tmp_path / "figures.json"
    loads = ",".join(name for name in ALL if name not in ("broadcasts", *clients.LOADS))
    done = run(
        *("--servers", "trioktor,trioktor channels,bare Trio", "--seconds", "0.05", "--rounds", "1", "--idle", "20"),
        *("--connections", "1,5", "--sizes", "16,70000", "--loads", loads, "--json", str(file)),
    )
    assert 0 == done.returncode, done.stderr
    figures = json.loads(file.read_text())
    assert [*LOADS, "memory"] == list(figures["loads"])
    for name, rows in figures["loads"].items():
        assert ["trioktor", "trioktor channels", "bare Trio"][: 2 if name == "deflate" else 3] == list(rows)
        for row in rows.values():
            assert name == "memory" or (row["per_second"] > 0 and row["p99_us"] >= row["p50_us"] > 0)
        assert f"\n{name}: " in "\n" + done.stdout
    assert {"1", "5"} == set(figures["growth"]["connections"]["trioktor"])
    assert {"16", "70000"} == set(figures["growth"]["sizes"]["bare Trio"])


@pytest.mark.skipif(bool(clients.missing("trioktor")), reason="picows, the server of these loads, is not installed")
def test_every_load_of_a_client_gives_figures(tmp_path: Path) -> None:
    """For each client that is installed."""
    file = tmp_path / "figures.json"
    loads = ",".join(clients.LOADS)
    done = run("--seconds", "0.05", "--rounds", "1", "--loads", loads, "--json", str(file))
    assert 0 == done.returncode, done.stderr
    figures = json.loads(file.read_text())["loads"]
    assert [*clients.LOADS] == list(figures)
    for rows in figures.values():
        assert [name for name in clients.CLIENTS if not clients.missing(name)] == list(rows)
        assert all(row["per_second"] > 0 and row["cpu_us"] > 0 for row in rows.values())


def test_what_it_does_not_know_is_named() -> None:
    """With what there is."""
    done = run("--loads", "rtt,speed")
    assert 2 == done.returncode
    assert "unknown: speed; there are rtt," in done.stderr


def test_a_server_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it would need."""
    monkeypatch.setitem(servers.SERVERS, "another", ("json", "no_such_module"))
    assert ["no_such_module"] == servers.missing("another")
    assert [] == servers.missing("trioktor")


def test_growth_is_drawn(tmp_path: Path) -> None:
    """As PNG and SVG, a picture for each kind."""
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra dev")
    from tests.benchmarks.plots import draw

    points = {"trioktor": {"16": 20.0, "1048576": 900.0}, "bare Trio": {"16": 25.0, "1048576": 1100.0}}
    files = draw({"sizes": points, "connections": points, "broadcasts": points}, tmp_path)
    assert ["connections.png", "connections.svg", "broadcasts.png"] == [file.name for file in files[2:5]]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert "1 MiB" in files[1].read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["fairness", "--size", "1", "--seconds", "0.2"],
        ["broadcasts", "--sessions", "3", "--rounds", "2"],
        ["memory", "--connections", "5"],
    ],
    ids=lambda arguments: str(arguments[0]),
)
def test_the_smaller_ones_run(arguments: list[str]) -> None:
    """They start servers as a user would, and read what these say."""
    name, *options = arguments
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (0, "") == (done.returncode, done.stderr)  # no server of theirs that failed on its own
    assert done.stdout.strip()
