"""What holds for every test: no error passes unseen because it is only logged."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import final

import pytest

from trioktor.engine.sockets import SocketTransport


@final
class Unseen(logging.Handler):
    """Keeps what was raised and logged: all of it, or only what asserted something in vain."""

    def __init__(self, *, only_assertions: bool) -> None:
        super().__init__(logging.ERROR)
        self._kind: type[BaseException] = AssertionError if only_assertions else BaseException
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Look at the exception, and into a group."""
        error = record.exc_info[1] if record.exc_info else None
        found = error.subgroup(self._kind) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, (self._kind, BaseExceptionGroup)):
            self.errors.append(found)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Raise what a handler, a hook or a task of an application raised: a server logs it and goes on.

    A test that takes `caplog` expects errors there and looks at them itself; but an assertion that failed is
    never expected.
    """
    logger = logging.getLogger("trioktor")
    unseen = Unseen(only_assertions="caplog" in pyfuncitem.fixturenames)
    logger.addHandler(unseen)
    try:
        result = yield
    finally:
        logger.removeHandler(unseen)
    if unseen.errors:
        raise unseen.errors[0]
    return result


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each write to a socket."""
    sizes: list[int] = []
    send, send_parts = SocketTransport.send_nowait, SocketTransport.send_parts_nowait

    def counting(self: SocketTransport, data: bytes | memoryview) -> int:
        sizes.append(len(data))
        return send(self, data)

    def counting_parts(self: SocketTransport, parts: list[bytes]) -> int:
        sizes.append(sum(map(len, parts)))
        return send_parts(self, parts)

    monkeypatch.setattr(SocketTransport, "send_nowait", counting)
    monkeypatch.setattr(SocketTransport, "send_parts_nowait", counting_parts)
    return sizes
