"""Fixtures for tests of applications, found by pytest where trioktor is installed.

Both need pytest-trio, and a fixture `app` of the test's that returns an `Application`. Nothing is imported
before a test asks for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from .application import Application
    from .server import Server
    from .testing import ApplicationHost

F = TypeVar("F", bound=Callable[..., object])


def _fixture(function: F) -> F:
    """A fixture of pytest-trio, or one that says that it is missing."""
    try:
        from pytest_trio import trio_fixture
    except ImportError:  # somebody else's tests
        return pytest.fixture(name=function.__name__)(_missing)  # type: ignore[return-value]
    fixture: F = trio_fixture(function)
    return fixture


def _missing() -> None:
    pytest.fail("this fixture needs pytest-trio: pip install pytest-trio", pytrace=False)


@pytest.fixture
def app() -> Application:
    """The application under test; to be overridden."""
    pytest.fail("define a fixture `app` that returns your trioktor.Application", pytrace=False)


@_fixture
async def websocket_host(app: Application) -> AsyncIterator[ApplicationHost]:
    """The application, served in memory: see `trioktor.testing.ApplicationHost`."""
    from .testing import open_test_host

    async with open_test_host(app) as host:
        yield host


@_fixture
async def websocket_server(app: Application) -> AsyncIterator[Server]:
    """The application, served on a free port of 127.0.0.1: `websocket_server.port`."""
    from functools import partial

    import trio

    from .server import serve

    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, app, 0, host="127.0.0.1"))
        yield server
        await server.aclose()
