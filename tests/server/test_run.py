"""`run`: what it prints of a server, and the signals that end it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trio.testing

from tests.support.helpers import REQUEST, RawClient, application, close, records_above_info
from tests.support.listening import (
    MemoryListener,
    has_ipv6,
    running,
    tls,
)
from trioktor import Application, Call, CloseReason, WebSocketSession, run
from trioktor.server.run import describe

Clock = trio.testing.MockClock
HERE = "127.0.0.1"
ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")


async def echo(session: WebSocketSession) -> None:
    """Send back what comes."""
    async for frame in session:
        await session.send(frame)


def test_run_refuses_what_serve_refuses() -> None:
    """Bare, as it is."""
    with pytest.raises(ValueError, match="port must be"):
        run(application(echo), 99999)
    with pytest.raises(TypeError, match="ssl_context must be"):
        run(application(echo), 0, ssl_context="chain.pem")


def with_page() -> Application:
    """An echo, and a page for browsers beside it."""
    app = application(echo)

    @app.get("/")
    async def page(call: Call) -> str:
        return "<!doctype html>"

    return app


async def test_run_is_for_the_main_thread() -> None:
    """Others get no signals; what to do there is in the text."""
    with pytest.raises(RuntimeError, match=r"main thread.*serve"):
        await trio.to_thread.run_sync(run, application(echo), 0)


async def test_an_application_with_a_page_says_where_to_open_it() -> None:
    """One at "/" answers browsers; one somewhere else may be anything."""
    async with running(with_page()) as server:
        assert describe(server) == [
            f"listening on ws://{HERE}:{server.port}, at most {server.max_connections:,} connections",
            f"a page to try it: http://{HERE}:{server.port}/",
        ]
    elsewhere = application(echo)

    @elsewhere.get("/health")
    async def health(call: Call) -> str:
        return "ok"

    for app in (application(echo), elsewhere):
        async with running(app) as server:
            [line] = describe(server)
            assert line == f"listening on ws://{HERE}:{server.port}, at most {server.max_connections:,} connections"


@pytest.mark.parametrize(
    ("host", "listening", "page"),
    [
        ("0.0.0.0", "0.0.0.0", "127.0.0.1"),
        pytest.param("::", "[::]", "[::1]", marks=ipv6),
        pytest.param("::1", "[::1]", "[::1]", marks=ipv6),
    ],
)
async def test_the_page_has_an_address_that_opens(host: str, listening: str, page: str) -> None:
    """Every interface is where it listens, and nowhere to go."""
    async with running(with_page(), host=host) as server:
        assert describe(server) == [
            f"listening on ws://{listening}:{server.port}, at most {server.max_connections:,} connections",
            f"a page to try it: http://{page}:{server.port}/",
        ]


async def test_each_address_is_named_and_one_page() -> None:
    """With TLS where there is TLS, and no page where no browser gets to."""
    memory = MemoryListener()
    [plain] = await trio.open_tcp_listeners(0, host=HERE)
    [inner] = await trio.open_tcp_listeners(0, host=HERE)
    secure = trio.SSLListener(inner, tls()[0])
    ports = [listener.socket.getsockname()[1] for listener in (plain, inner)]
    async with running(with_page(), listeners=[memory, secure, plain]) as server:
        assert describe(server) == [
            "listening on a MemoryListener",
            f"listening on wss://{HERE}:{ports[1]}",
            f"listening on ws://{HERE}:{ports[0]}, at most {server.max_connections:,} connections",
            f"a page to try it: https://{HERE}:{ports[1]}/",
        ]
    async with running(with_page(), ssl_context=tls()[0]) as server:
        assert describe(server) == [
            f"listening on wss://{HERE}:{server.port}, at most {server.max_connections:,} connections",
            f"a page to try it: https://{HERE}:{server.port}/",
        ]


async def test_a_unix_socket_has_no_page_to_open(tmp_path: Path) -> None:
    """Browsers cannot go there."""
    path = tmp_path / "socket"
    async with running(with_page(), path=path) as server:
        assert describe(server) == [f"listening on {path}, at most {server.max_connections:,} connections"]


# signals


class Signalling(trio.abc.Listener[trio.abc.Stream]):
    """A listener that does something when it is asked for a connection, and has none."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self.is_closed = False

    async def accept(self) -> trio.abc.Stream:
        """Act, and wait for ever."""
        self._act()
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        """Accept no more."""
        self.is_closed = True
        await trio.lowlevel.checkpoint()


SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"]


@pytest.mark.parametrize("name", SIGNALS)
def test_the_first_signal_has_run_return(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The listeners are closed, every signal does what it did before, and the address was printed."""
    before = [signal.getsignal(getattr(signal, each)) for each in SIGNALS]
    listener = Signalling(partial(signal.raise_signal, getattr(signal, name)))
    run(application(echo), listeners=[listener], max_connections=1234)
    assert listener.is_closed
    assert before == [signal.getsignal(getattr(signal, each)) for each in SIGNALS]
    assert capsys.readouterr().out == "listening on a Signalling, at most 1,234 connections\n"


@pytest.mark.parametrize("name", SIGNALS)
def test_behind_the_first_signal_every_signal_is_the_systems(name: str) -> None:
    """From the very step in which the first came: a loop that is blocked runs no task."""
    seen: list[object] = []

    def act() -> None:
        seen.extend(signal.getsignal(getattr(signal, each)) for each in SIGNALS)
        signal.raise_signal(getattr(signal, name))
        seen.extend(signal.getsignal(getattr(signal, each)) for each in SIGNALS)

    run(application(echo), listeners=[Signalling(act)])
    assert not {signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler}.intersection(seen[:3])
    assert seen[3:] == [signal.SIG_DFL] * 3


def test_a_hang_up_that_was_ignored_stays_so_and_the_others_do_not() -> None:
    """`nohup` says so; of the other signals nobody does."""
    before = {name: signal.signal(getattr(signal, name), signal.SIG_IGN) for name in SIGNALS}
    seen: list[object] = []

    def act() -> None:
        signal.raise_signal(signal.SIGHUP)
        seen.extend(signal.getsignal(getattr(signal, each)) is signal.SIG_IGN for each in SIGNALS)
        signal.raise_signal(signal.SIGTERM)
        seen.append(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)

    try:
        run(application(echo), listeners=[Signalling(act)])
        after = [signal.getsignal(getattr(signal, name)) for name in SIGNALS]
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
    assert seen == [False, False, True, True]
    assert after == [signal.SIG_IGN] * 3


class WithClient(Signalling):
    """Has one connection first, from a client that has asked for a WebSocket."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.client: RawClient | None = None

    async def accept(self) -> trio.abc.Stream:
        """The connection, and then none."""
        if self.client is not None:
            return await super().accept()
        ours, theirs = trio.testing.memory_stream_pair()
        self.client = RawClient(ours)
        await self.client.send_bytes(REQUEST % b"/")
        return theirs


def test_sessions_are_closed_before_run_returns() -> None:
    """The first signal stops as `Server.aclose` does: 1001, and the handler may end by itself."""
    ends: list[object] = []
    listener = WithClient()

    async def answer() -> None:
        assert listener.client is not None
        await listener.client.read_head()
        assert await listener.client.receive() == close(1001)
        await listener.client.send(close(1001))

    async def handler(session: WebSocketSession) -> None:
        session.start_soon(answer)
        signal.raise_signal(signal.SIGTERM)
        async for _ in session:
            pass
        ends.append(session.close_reason)

    run(application(handler), listeners=[listener])
    assert ends == [CloseReason(1001)]


def on_a_clock_that_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `trio.run` waste no time."""
    monkeypatch.setattr(trio, "run", partial(trio.run, clock=trio.testing.MockClock(autojump_threshold=0)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_handler_that_does_not_end_is_left_behind(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The process ends by the signal that came; here that is only noted, and the handler let go."""
    on_a_clock_that_jumps(monkeypatch)
    raised: list[tuple[int, float]] = []
    began: list[float] = []
    release: list[trio.Event] = []
    raise_signal = signal.raise_signal

    async def stubborn(session: WebSocketSession) -> None:
        release.append(trio.Event())
        began.append(trio.current_time())
        raise_signal(number)
        with trio.CancelScope(shield=True):
            await release[0].wait()

    def note(number: int) -> None:
        raised.append((number, trio.current_time() - began[0]))
        release[0].set()

    monkeypatch.setattr(signal, "raise_signal", note)
    run(application(stubborn), listeners=[WithClient()], shutdown_grace=3)
    [(which, after)] = raised
    assert which == number
    assert after == pytest.approx(3 + 1.5 + 1)
    assert records_above_info(caplog)[-1].getMessage() == (
        "handlers go on that can't be stopped: the process ends without them"
    )


def test_a_handler_that_ends_in_time_has_no_signal_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It heeds its cancellation behind the grace, and `run` returns."""
    on_a_clock_that_jumps(monkeypatch)
    raise_signal = signal.raise_signal

    async def handler(session: WebSocketSession) -> None:
        raise_signal(signal.SIGTERM)
        await trio.sleep_forever()

    monkeypatch.setattr(signal, "raise_signal", pytest.fail)
    run(application(handler), listeners=[WithClient()], shutdown_grace=3)
    assert records_above_info(caplog) == []


def test_an_error_of_a_listener_leaves_run_bare() -> None:
    """No group round it, and the signals are restored."""
    before = [signal.getsignal(getattr(signal, each)) for each in SIGNALS]

    def fail() -> NoReturn:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(application(echo), listeners=[Signalling(fail)])
    assert before == [signal.getsignal(getattr(signal, each)) for each in SIGNALS]
