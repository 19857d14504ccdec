"""What several modules here share: an echo that runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.command import COMMAND, LISTENING


@pytest.fixture(scope="module")
def echo_port() -> Iterator[int]:
    """The port of an echo server that several tests share."""
    with subprocess.Popen(
        [*COMMAND, "echo", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = LISTENING.fullmatch(process.stdout.readline().rstrip("\n"))
            assert found is not None
            yield int(found[2])
        finally:
            process.kill()
            process.wait()
