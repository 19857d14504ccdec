"""Fixtures for tests of applications, found by pytest where trioktor is installed.

Both need pytest-trio, and a fixture `app` of the test's that returns an `Application`. pytest reads this module in
every environment that has trioktor, so nothing is imported here before a test asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .server.application import Application

_TRIO = "trio"
"""The name of pytest-trio among the plugins."""


def pytest_configure(config: pytest.Config) -> None:
    """Offer the fixtures, or what says why there are none."""
    if config.pluginmanager.has_plugin(_TRIO):
        from . import pytest_fixtures

        config.pluginmanager.register(pytest_fixtures, "trioktor fixtures")
    else:
        config.pluginmanager.register(_WithoutTrio(), "trioktor fixtures")


@pytest.fixture
def app() -> Application:
    """The application under test; to be overridden."""
    pytest.fail("define a fixture `app` that returns your trioktor.Application", pytrace=False)


class _WithoutTrio:
    """Somebody else's tests, where pytest-trio is not installed."""

    @pytest.fixture
    def websocket_host(self) -> None:
        """What is missing."""
        _fail_without_trio()

    @pytest.fixture
    def websocket_server(self) -> None:
        """What is missing."""
        _fail_without_trio()


def _fail_without_trio() -> None:
    pytest.fail("this fixture needs pytest-trio: pip install pytest-trio", pytrace=False)
