"""What several modules here need: compression or none, and programs that are found once."""

from __future__ import annotations

import pytest

from tests.interop.programs import node_command, program


@pytest.fixture(params=[False, True], ids=["plain", "deflate"])
def deflate(request: pytest.FixtureRequest) -> bool:
    """Whether our side compresses where the other can."""
    return bool(request.param)


@pytest.fixture(scope="session")
def npm_ws() -> list[str]:
    """A Node that finds the npm package `ws`, in NODE_PATH or in a folder above."""
    return node_command("the npm package ws", 'require("ws")', [])


@pytest.fixture(params=["nginx", "haproxy"])
def proxy(request: pytest.FixtureRequest) -> str:
    """Where a proxy of the recipes is."""
    return program(request.param)
