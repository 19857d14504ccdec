"""The fixtures of the pytest plugin, where pytest-trio is at work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from pytest_trio import trio_fixture

if TYPE_CHECKING:
    from .server.application import Application
    from .server.serve import Server
    from .testing import ApplicationHost


@trio_fixture  # type: ignore[untyped-decorator]
async def websocket_host(app: Application) -> AsyncIterator[ApplicationHost]:
    """The application, served in memory: see `trioktor.testing.ApplicationHost`."""
    from .testing import open_test_host

    async with open_test_host(app) as host:
        yield host


@trio_fixture  # type: ignore[untyped-decorator]
async def websocket_server(app: Application) -> AsyncIterator[Server]:
    """The application, served on a free port of 127.0.0.1: `websocket_server.port`."""
    from functools import partial

    import trio

    from .server.serve import serve

    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, app, 0, host="127.0.0.1"))
        yield server
        await server.aclose()
