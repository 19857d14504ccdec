"""The hooks that one server asks: their order, their limit, and what cuts them short."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.calls import call_of
from tests.support.helpers import REQUEST, records_above_info
from tests.support.listening import serving
from trioktor import (
    Application,
    Call,
    Response,
    Server,
    WebSockets,
    WebSocketSession as Session,
    serve,
)
from trioktor.engine.transport import HangUp
from trioktor.http.headers import Refusal
from trioktor.server.hooks import Hooks

HERE = "127.0.0.1"
NO = Response("no\n", status=403)


def noting(order: list[str], name: str, answer: Any = None) -> Callable[[Call], Awaitable[Any]]:
    """A hook that says that it was asked."""

    async def hook(call: Call) -> object:
        order.append(name)
        await trio.lowlevel.checkpoint()
        return answer

    return hook


def taking(seconds: float, answer: Response | None = None) -> Callable[[Call], Awaitable[Response | None]]:
    """A hook that takes its time."""

    async def hook(call: Call) -> Response | None:
        await trio.sleep(seconds)
        return answer

    return hook


@pytest.mark.parametrize(
    ("answers", "asked", "expected"),
    [
        ([], "", None),
        ([None], "0", None),
        ([None, None, None], "012", None),
        ([None, NO, None], "01", NO),
        ([NO, Response("later")], "0", NO),
        ([None, Response("")], "01", Response("")),
    ],
)
async def test_hooks_are_asked_in_order_until_one_has_an_answer(
    answers: list[Response | None], asked: str, expected: Response | None
) -> None:
    """Of none, or none that has one, there is none."""
    order: list[str] = []
    hooks = [noting(order, str(number), answer) for number, answer in enumerate(answers)]
    assert await Hooks(10).ask(hooks, call_of()) == expected
    assert "".join(order) == asked


async def test_every_hook_is_given_the_call() -> None:
    """The same one."""
    calls: list[Call] = []

    async def hook(call: Call) -> None:
        calls.append(call)

    call = call_of()
    await Hooks(10).ask([hook, hook], call)
    assert calls == [call, call]


@pytest.mark.parametrize("value", [False, True, 403, "no", (), Response], ids=repr)
async def test_what_is_neither_none_nor_a_response_is_a_failure(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It lets nobody in, and nobody behind it is asked."""
    order: list[str] = []
    with pytest.raises(Refusal, match=r"^the server failed$") as refusal:
        await Hooks(10).ask([noting(order, "first", value), noting(order, "second")], call_of("/path?secret"))
    assert refusal.value.status == 500
    assert order == ["first"]
    [record] = records_above_info(caplog)
    assert record.getMessage() == "a hook failed before the upgrade of /path"
    assert record.exc_info
    assert "returns None or a Response" in str(record.exc_info[1])


@pytest.mark.parametrize("error", [ValueError("a secret"), ExceptionGroup("two", [OSError(), KeyError()])], ids=repr)
async def test_a_hook_that_fails_is_logged_and_refuses(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """500, without a word of what went wrong; and without a chain that others would log."""

    async def hook(call: Call) -> None:
        raise error

    with pytest.raises(Refusal, match=r"^the server failed$") as refusal:
        await Hooks(10).ask([hook], call_of())
    assert refusal.value.status == 500
    assert refusal.value.__suppress_context__
    [record] = records_above_info(caplog)
    assert record.exc_info
    assert record.exc_info[1] is error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_is_no_exception_comes_out_as_itself(error: type[BaseException]) -> None:
    """No group round it."""

    async def hook(call: Call) -> None:
        raise error

    with pytest.raises(error):
        await Hooks(10).ask([hook], call_of())


@pytest.mark.parametrize(
    ("seconds", "is_late"), [([9.9], False), ([3, 3, 3.9], False), ([10.1], True), ([6, 6], True)], ids=repr
)
async def test_all_hooks_together_have_the_limit(
    seconds: list[float], is_late: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond it the client is told that it took too long, and nobody is alarmed."""
    hooks = [taking(each) for each in seconds]
    began = trio.current_time()
    if is_late:
        with pytest.raises(Refusal, match="the server took too long") as refusal:
            await Hooks(10).ask(hooks, call_of())
        assert refusal.value.status == 503
        assert trio.current_time() - began == 10
    else:
        assert await Hooks(10).ask(hooks, call_of()) is None
    assert records_above_info(caplog) == []


async def test_the_end_of_the_server_cuts_short_all_that_are_asked(autojump_clock: MockClock) -> None:
    """At once; who asks later is another matter, and so is who has been asked before."""
    hooks = Hooks(10)
    refused: list[str] = []

    async def ask() -> None:
        with pytest.raises(Refusal) as refusal:
            await hooks.ask([taking(5)], call_of())
        assert refusal.value.status == 503
        refused.append(refusal.value.text)

    assert await hooks.ask([taking(5)], call_of()) is None
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        hooks.cancel()
    assert refused == ["the server is shutting down"] * 3
    assert trio.current_time() == began
    assert await hooks.ask([taking(5, NO)], call_of()) == NO


async def test_a_cancellation_from_outside_goes_on() -> None:
    """It is no refusal."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await Hooks(10).ask([taking(5)], call_of())
    assert scope.cancelled_caught


async def test_a_hook_that_fails_when_its_time_is_over_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error comes in a group with the cancellation; the client hears of the end all the same."""

    async def hook(call: Call) -> None:
        async def clean_up() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("on the way out")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(clean_up)
            await trio.sleep_forever()

    with pytest.raises(Refusal, match="the server took too long") as refusal:
        await Hooks(10).ask([hook], call_of("/path"))
    assert refusal.value.status == 503
    [record] = records_above_info(caplog)
    assert record.getMessage() == "a hook failed while it was cancelled, for /path"
    assert record.exc_info
    assert "on the way out" in repr(record.exc_info[1])


@pytest.mark.parametrize(
    ("scheme", "hang_up", "is_cut"),
    [
        ("ws", HangUp.NO, False),
        ("ws", HangUp.HALF, True),
        ("ws", HangUp.FULL, True),
        ("wss", HangUp.HALF, True),
        ("http", HangUp.NO, False),
        ("http", HangUp.HALF, False),
        ("http", HangUp.FULL, True),
        ("https", HangUp.HALF, False),
    ],
)
async def test_nobody_is_asked_for_a_client_that_is_gone(
    scheme: str, hang_up: HangUp, is_cut: bool, autojump_clock: MockClock
) -> None:
    """Within a second; behind a plain request a client that has said all may still read the answer."""
    began = trio.current_time()

    def look() -> HangUp:
        return hang_up if trio.current_time() - began > 3 else HangUp.NO

    if is_cut:
        with pytest.raises(Refusal):
            await Hooks(10).ask([taking(8, NO)], call_of(scheme=scheme), look)
        assert 3 < trio.current_time() - began < 4
    else:
        assert await Hooks(10).ask([taking(8, NO)], call_of(scheme=scheme), look) == NO
        assert trio.current_time() - began == 8


# through a server


async def stay(session: Session) -> None:
    """Take what comes."""
    async for _ in session:
        pass


@pytest.mark.parametrize("way", ["close", "half", "reset"])
async def test_hooks_are_cancelled_when_their_client_is_gone(way: str, autojump_clock: MockClock) -> None:
    """Within a second, and nobody is let in."""
    ended: list[object] = []
    asked = trio.Event()
    app = Application()
    app.install(WebSockets())

    @app.before_upgrade
    async def slow(call: Call) -> None:
        began = trio.current_time()
        asked.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            ended.append(trio.current_time() - began < 1)
            raise

    app.websocket("/", stay)
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, app, 0, host=HERE))
        stream = await trio.open_tcp_stream(HERE, server.port)
        await stream.send_all(REQUEST % b"/")
        await asked.wait()
        if way == "half":
            await stream.send_eof()
        elif way == "reset":
            stream.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: 0 seconds
            await stream.aclose()
        else:
            await stream.aclose()
        await trio.sleep(2)
        assert ended == [True]
        assert server.sessions == ()
        await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_a_client_that_ends_its_half_behind_a_plain_request_is_answered(autojump_clock: MockClock) -> None:
    """As `nc -N` does; the hooks of the page are asked as for WebSockets."""
    app = Application()
    asked: list[str] = []

    async def hook(call: Call) -> Response | None:
        await trio.sleep(3)
        asked.append(call.route)
        return None if call.path == "/page" else Response("no\n", status=403)

    @app.get("/page", before=hook)
    @app.get("/other", before=[hook, hook])
    async def page(call: Call) -> str:
        return "here you are\n"

    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, app, 0, host=HERE))
        for path, wanted in ((b"/page", b"here you are\n"), (b"/other", b"no\n")):
            stream = await trio.open_tcp_stream(HERE, server.port)
            await stream.send_all(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
            await stream.send_eof()
            data = b""
            while chunk := await stream.receive_some():
                data += chunk
            assert data.endswith(b"\r\n\r\n" + wanted)
            await stream.aclose()
        nursery.cancel_scope.cancel()
    assert asked == ["/page", "/other"]


async def test_a_hook_of_a_page_that_fails_is_a_500(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """And one that is none is refused where it is written."""
    app = Application()

    async def broken(call: Call) -> None:
        raise RuntimeError("broken")

    with pytest.raises(TypeError):
        app.get("/", before=lambda call: None)  # type: ignore[arg-type, return-value]

    @app.get("/", before=broken)
    async def page(call: Call) -> str:
        return "here you are\n"

    async with serving(app) as (_, connect):
        client = await connect()
        await client.send_bytes(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert bytes(await client.stream.receive_some()).startswith(b"HTTP/1.1 500 ")
        await client.aclose()
