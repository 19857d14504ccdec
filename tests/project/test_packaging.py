"""What is installed, and from what: a wheel for the stable ABI, where this Python has one."""

from __future__ import annotations

import runpy
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SETUP = Path(__file__).parents[2] / "setup.py"


@pytest.mark.parametrize(
    ("is_free_threaded", "options"),
    [
        (None, {"bdist_wheel": {"py_limited_api": "cp311"}}),  # as where nobody knows of it
        (0, {"bdist_wheel": {"py_limited_api": "cp311"}}),
        (1, {}),  # setuptools refuses, and the installation would fail
    ],
)
def test_a_wheel_is_for_the_stable_abi_where_there_is_one(
    is_free_threaded: int | None, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it can be made everywhere."""
    asked: list[dict[str, Any]] = []
    setuptools: Any = ModuleType("setuptools")
    setuptools.setup = lambda **how: asked.append(how)
    monkeypatch.setitem(sys.modules, "setuptools", setuptools)
    real = sysconfig.get_config_var
    monkeypatch.setattr(
        sysconfig, "get_config_var", lambda name: is_free_threaded if name == "Py_GIL_DISABLED" else real(name)
    )
    runpy.run_path(str(SETUP))
    assert asked == [{"options": options}]
