"""The answers to plain requests, and what is answered when there is none in time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.calls import call_of
from tests.support.helpers import records_above_info
from tests.support.listening import (
    MemoryListener,
    get,
    serving,
)
from trioktor import Application, Call, Response
from trioktor.http.headers import Refusal
from trioktor.routing.endpoints import Before, GetRoute
from trioktor.server.hooks import Hooks
from trioktor.server.plain import serve_get
from trioktor.server.running import Answering, Running

Clock = trio.testing.MockClock


class Desk:
    """Serves one plain request, and keeps what was sent."""

    def __init__(self, *before: Before, limit: float | None = 7) -> None:
        self.before = before
        self.limit = limit
        self.running = Running()
        self.sent: list[Response] = []
        self.call = call_of("/page?a=1", scheme="http")

    async def send(self, response: Response) -> None:
        """Take an answer."""
        await trio.lowlevel.checkpoint()
        self.sent.append(response)

    async def serve(self, handler: Callable[..., Awaitable[object]]) -> Response | None:
        """What `serve_get` returns."""
        route = GetRoute(handler, (), before=self.before)
        return await serve_get(route, self.call, self.send, hooks=Hooks(10), running=self.running, limit=self.limit)


async def answers(call: Call) -> str:
    """Answer at once."""
    call.response_headers.append("X-Handler", "yes")
    return "a page"


async def test_what_the_handler_returns_is_sent_with_the_headers_of_its_call() -> None:
    """And nothing is left to be answered, or running."""
    desk = Desk()
    assert await desk.serve(answers) is None
    assert desk.sent == [Response("a page", headers=[("X-Handler", "yes")])]
    assert desk.running.others() == set()


async def test_a_hook_is_asked_first_and_its_answer_is_handed_back() -> None:
    """With the headers that it added; the handler is not asked, and nothing is sent here."""

    async def no(call: Call) -> Response:
        call.response_headers.append("X-Hook", "yes")
        return Response("no\n", status=403)

    desk = Desk(no)
    assert await desk.serve(answers) == Response("no\n", status=403, headers=[("X-Hook", "yes")])
    assert desk.sent == []


async def test_hooks_that_say_nothing_let_the_handler_answer() -> None:
    """All of them, in order, each before the handler."""
    order: list[str] = []

    def noting(name: str) -> Callable[[Call], Awaitable[Any]]:
        async def hook(call: Call) -> None:
            order.append(name)

        return hook

    async def page(call: Call) -> bytes:
        order.append("handler")
        return b"\x00"

    desk = Desk(noting("first"), noting("second"))
    assert await desk.serve(page) is None
    assert order == ["first", "second", "handler"]
    assert desk.sent == [Response(b"\x00")]


async def fails(call: Call) -> str:
    """Raise."""
    raise ValueError("a secret")


async def returns_nonsense(call: Call) -> object:
    """Return no answer."""
    return 5


@pytest.mark.parametrize("handler", [fails, returns_nonsense])
async def test_a_handler_that_fails_is_a_500_that_tells_nothing(
    handler: Callable[[Call], Awaitable[object]], caplog: pytest.LogCaptureFixture
) -> None:
    """The log has its traceback, and the page, but not what was asked behind it."""
    desk = Desk()
    assert await desk.serve(handler) is None
    assert desk.sent == [Response("the server failed\n", status=500)]
    [record] = records_above_info(caplog)
    assert record.getMessage() == "the handler of GET /page failed"
    assert record.exc_info
    assert desk.running.others() == set()


@pytest.mark.parametrize(("seconds", "is_late"), [(6.9, False), (7.1, True)])
async def test_a_handler_has_its_limit_and_no_more(
    seconds: float, is_late: bool, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond it a refusal is raised, and nothing sent."""

    async def page(call: Call) -> str:
        await trio.sleep(seconds)
        return "a page"

    desk = Desk()
    if not is_late:
        assert await desk.serve(page) is None
        assert desk.sent == [Response("a page")]
        return
    with pytest.raises(Refusal, match="the server took too long") as refusal:
        await desk.serve(page)
    assert refusal.value.status == 503
    assert desk.sent == []
    assert desk.running.others() == set()
    assert len(records_above_info(caplog)) == 1


async def test_without_a_limit_a_handler_may_take_for_ever(autojump_clock: Clock) -> None:
    """A day, for example."""

    async def page(call: Call) -> str:
        await trio.sleep(86400)
        return "a page"

    desk = Desk(limit=None)
    assert await desk.serve(page) is None
    assert desk.sent == [Response("a page")]


@pytest.mark.parametrize("where", ["handler", "send"])
async def test_a_server_that_ends_ends_handlers_with_a_refusal(where: str, caplog: pytest.LogCaptureFixture) -> None:
    """But not behind an answer that is under way; the handler is named while it runs."""

    async def page(call: Call) -> str:
        if where == "handler":
            await trio.sleep_forever()
        return "a page"

    class Slow(Desk):
        """Its client takes nothing."""

        async def send(self, response: Response) -> None:
            """Wait for ever."""
            await trio.sleep_forever()

    desk = Slow()
    desk.call = call_of("/" + "x" * 200, scheme="http")
    refused: list[Refusal] = []

    async def serve() -> None:
        try:
            assert await desk.serve(page) is None
        except Refusal as refusal:
            refused.append(refusal)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        [answering] = desk.running.others()
        assert isinstance(answering, Answering)
        assert answering.path == "/" + "x" * 99
        desk.running.cancel_answering()
    assert [refusal.status for refusal in refused] == [503] * (where == "handler")
    assert desk.running.others() == set()
    assert records_above_info(caplog) == []


async def test_a_cancellation_from_outside_is_no_refusal() -> None:
    """It goes on."""

    async def page(call: Call) -> str:
        await trio.sleep(86400)
        return "a page"

    desk = Desk()
    with trio.CancelScope() as scope:
        scope.cancel()
        await desk.serve(page)
    assert scope.cancelled_caught
    assert desk.sent == []


# through a server


async def test_a_get_handler_has_a_deadline(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond it the client is told, and the log names the page."""
    app = Application()

    @app.get("/page")
    async def page(call: Call) -> str:
        await trio.sleep_forever()
        raise AssertionError

    listener = MemoryListener()
    async with serving(app, listener, response_timeout=7):
        stream = await listener.connect()
        answer = await get(stream)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"the server took too long\n")
        assert trio.current_time() == pytest.approx(7, abs=1)
    assert ["the handler of GET /page took longer than 7 s"] == [
        record.getMessage() for record in records_above_info(caplog)
    ]
