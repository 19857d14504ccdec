"""Every example works, and none of them needs a `try` to stay quiet."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
import trio.testing

from tests.client.test_dial import HttpProxy, listening
from tests.interop.programs import HERE
from tests.interop.test_asgi_servers import serving as serving_asgi
from tests.support.helpers import RawClient, RawServer, client_bytes, close, records_above_info, scripted
from trioktor import Application, CloseReason, Frame, HandshakeRefused, serve
from trioktor.testing import handle_websocket_conversation, open_test_host

EXAMPLES = Path(__file__).parents[2] / "examples"
ROUTES = [
    ("echo", "/echo"),
    ("actor", "/"),
    ("page", "/channel"),
    ("page", "/events"),
    ("push", "/time"),
    ("chat", "/chat/lobby"),
    ("json_api", "/calculator"),
    ("upload", "/upload"),
    ("authentication", "/members?token=wonderland"),
    ("raw_frames", "/frames"),
    ("progress", "/job"),
    ("own_extension", "/saved"),
]

OTHERS = {"client", "feed", "lent_stream", "mounted", "on_trio_websocket"}
"""Those that are no server of ours."""


def load(name: str) -> ModuleType:
    """Import an example anew, so that each test has an application of its own."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def serving(app: Application) -> AsyncIterator[int]:
    """The port of a server while the block lasts."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(functools.partial(serve, app, 0, host=HERE))
        yield server.port
        nursery.cancel_scope.cancel()


def test_every_example_is_tested_here() -> None:
    """No example is forgotten."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {name for name, _ in ROUTES} | {"conversation"} | OTHERS


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_fits_on_a_screen(name: str) -> None:
    """Examples are for reading: under 60 lines each."""
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60


async def test_the_echo_comes_back(autojump_clock: trio.testing.MockClock) -> None:
    """What is sent to the echo comes back."""
    async with handle_websocket_conversation(load("echo").app, "/echo") as (incoming, outgoing):
        await outgoing.send("hello")
        assert (await incoming.receive()).text == "hello"


async def test_the_actor_answers_and_says_goodbye(autojump_clock: trio.testing.MockClock) -> None:
    """The actor repeats what it hears and closes on "bye"."""
    async with handle_websocket_conversation(load("actor").app, "/") as conversation:
        incoming, outgoing = conversation
        await outgoing.send("hello")
        assert (await incoming.receive()).text == "YOU SAID: hello"
        await outgoing.send("Bye")
        assert (await incoming.receive()).text == "YOU SAID: Bye"
        with pytest.raises(trio.EndOfChannel):
            await incoming.receive()
        assert conversation.close_reason == CloseReason(1000, "Client said BYE")


async def test_the_channel_skips_binary_frames(autojump_clock: trio.testing.MockClock) -> None:
    """The channel sample answers text and nothing else."""
    async with handle_websocket_conversation(load("page").app, "/channel") as (incoming, outgoing):
        await outgoing.send(b"skipped")
        await outgoing.send("hello")
        assert (await incoming.receive()).text == "YOU SAID: hello"


async def test_the_events_are_told_in_order(
    capsys: pytest.CaptureFixture[str], autojump_clock: trio.testing.MockClock
) -> None:
    """onConnect, onMessage and onClose all come, and onClose says why."""
    async with handle_websocket_conversation(load("page").app, "/events") as conversation:
        await conversation.session.send("hello")
        await conversation.session.receive()
    assert capsys.readouterr().out.splitlines() == ["onConnect", "onMessage", "onClose CloseReason(NORMAL, '')"]


async def test_a_lost_connection_is_an_error_event(
    capsys: pytest.CaptureFixture[str], autojump_clock: trio.testing.MockClock
) -> None:
    """onError comes when there was no Close frame."""
    async with handle_websocket_conversation(load("page").app, "/events") as conversation:
        await conversation.session.send("hello")
        await conversation.session.receive()
        conversation.session.terminate()
    assert capsys.readouterr().out.splitlines()[-1] == "onError CloseReason(CLOSED_ABNORMALLY, '') None"


async def test_the_time_is_pushed_every_second(autojump_clock: trio.testing.MockClock) -> None:
    """The push example sends without being asked."""
    async with handle_websocket_conversation(load("push").app, "/time") as (incoming, _):
        start = trio.current_time()
        for _ in range(3):
            assert "T" in (await incoming.receive()).text
        assert trio.current_time() - start == pytest.approx(2)


async def drain(incoming: trio.MemoryReceiveChannel[Frame]) -> list[Frame]:
    """What has come by now."""
    await trio.testing.wait_all_tasks_blocked()
    frames = []
    try:
        while True:
            frames.append(incoming.receive_nowait())
    except trio.WouldBlock:
        return frames


async def test_a_chat_message_reaches_everybody_in_its_room(autojump_clock: trio.testing.MockClock) -> None:
    """Two members hear each other; a third in another room hears nothing."""
    app = load("chat").app
    async with (
        handle_websocket_conversation(app, "/chat/a") as (incoming_1, outgoing_1),
        handle_websocket_conversation(app, "/chat/a") as (incoming_2, _),
        handle_websocket_conversation(app, "/chat/b") as (incoming_3, _),
    ):
        await trio.sleep(1.5)
        await outgoing_1.send("hello")
        assert [frame.text for frame in await drain(incoming_1)][-2:] == ["2 here", "hello"]
        assert [frame.text for frame in await drain(incoming_2)][-2:] == ["2 here", "hello"]
        assert [frame.text for frame in await drain(incoming_3)] == ["1 here"]


async def test_the_calculator_calculates(autojump_clock: trio.testing.MockClock) -> None:
    """Requests are answered by value; what is no request ends the conversation with 1007."""
    async with handle_websocket_conversation(load("json_api").app, "/calculator") as conversation:
        incoming, outgoing = conversation
        await outgoing.send('{"id":1,"operation":"sum","numbers":[1,2.5]}')
        assert (await incoming.receive()).text == '{"id":1,"result":3.5,"error":null}'
        await outgoing.send('{"id":2,"operation":"median","numbers":[1]}')
        assert "there is no median of 1 numbers" in (await incoming.receive()).text
        await outgoing.send('{"id":"three"}')
        with pytest.raises(trio.EndOfChannel):
            await incoming.receive()
        assert conversation.close_reason == CloseReason(1007)


async def test_an_upload_tells_its_progress(autojump_clock: trio.testing.MockClock) -> None:
    """A message of 3 MiB, against a limit of 1 MiB for whole ones, arrives; so does one of text."""
    data = bytes(range(256)) * 4096 * 3
    async with handle_websocket_conversation(load("upload").app, "/upload") as (incoming, outgoing):
        await outgoing.send(data)
        texts = [(await incoming.receive()).text for _ in range(3)]
        assert texts[0].endswith("bytes so far")
        while texts[-1].endswith("so far"):
            texts.append((await incoming.receive()).text)
        assert texts[-1] == f"{len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}"
        await outgoing.send("Grüße")
        assert (await incoming.receive()).text.startswith("7 bytes, SHA-256 ")


async def test_only_those_get_in_who_may(autojump_clock: trio.testing.MockClock) -> None:
    """Tokens, a ban, and a password."""
    app = load("authentication").app
    async with open_test_host(app) as host:
        async with host.websocket("/members", headers={"Authorization": "Bearer wonderland"}) as (incoming, _):
            assert (await incoming.receive()).text == "hello, Alice"
        for path, status in [("/members", 401), ("/members?token=guess", 401), ("/members?token=looking-glass", 403)]:
            with pytest.raises(HandshakeRefused) as refused:
                async with host.websocket(path):
                    pass
            assert refused.value.status == status
        secret = base64.b64encode(b"admin:correct horse battery staple").decode()
        async with host.websocket("/admin", headers={"Authorization": f"Basic {secret}"}) as (incoming, _):
            assert (await incoming.receive()).text == "admin, from None"


async def test_raw_frames_are_told(autojump_clock: trio.testing.MockClock) -> None:
    """Fragments, a Ping between them, and the Close."""
    async with open_test_host(load("raw_frames").app) as host, host.websocket_raw("/frames") as conversation:
        session = conversation.session
        for frame in (Frame.Text("ab", fin=False), Frame.Ping(b"?"), Frame.Text("c"), close(1000, "bye")):
            await session.send(frame)
        received = [frame async for frame in session]
    assert received == [
        Frame.Text("a piece of a TEXT message: 2 bytes"),
        Frame.Pong(b"?"),
        Frame.Text("the end of a TEXT message: 1 bytes"),
        close(1000, "bye"),
    ]


async def test_progress_is_told_with_the_latency(autojump_clock: trio.testing.MockClock) -> None:
    """Percent by percent up to the end, and the last with a round trip."""
    async with handle_websocket_conversation(load("progress").app, "/job", pings=True) as (incoming, _):
        steps = [json.loads(frame.text) async for frame in incoming]
    assert [step["percent"] for step in steps] == sorted(step["percent"] for step in steps)
    assert steps[-1]["percent"] == 100
    assert steps[-1]["latency"] >= 0


async def test_an_extension_of_ones_own_counts(autojump_clock: trio.testing.MockClock) -> None:
    """With a client that offers no compression nothing is saved; it counts all the same."""
    async with handle_websocket_conversation(load("own_extension").app, "/saved") as (incoming, outgoing):
        await outgoing.send("x" * 100)
        assert (await incoming.receive()).text == "x" * 100
        assert (await incoming.receive()).text == "100 bytes said, 102 bytes sent"


async def test_the_conversation_example_passes(autojump_clock: trio.testing.MockClock) -> None:
    """The sample test of the documentation is a test that passes."""
    await load("conversation").test_conversation(autojump_clock)


async def vanish(client: RawClient) -> None:
    """The peer is gone without a word."""


async def send_binary(client: RawClient) -> None:
    """The peer sends what the handler may not expect."""
    await client.send(Frame.Binary(b"\x00\xff"), close(1000))
    await client.receive_rest()


async def flood(client: RawClient) -> None:
    """The peer sends a lot, reads nothing, and goes."""
    await client.send_bytes(client_bytes(Frame.Text("hello")) * 3000)
    await trio.testing.wait_all_tasks_blocked()


async def close_at_once(client: RawClient) -> None:
    """The peer says goodbye as its first word."""
    await client.send(close(1001))
    await client.receive_rest()


@pytest.mark.parametrize("behave", [vanish, send_binary, flood, close_at_once])
@pytest.mark.parametrize(("name", "path"), ROUTES)
async def test_examples_are_quiet_by_construction(
    name: str,
    path: str,
    behave: Callable[[RawClient], Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whatever the peer does, no example logs anything above INFO, and each ends."""
    caplog.set_level(logging.DEBUG)
    ours, theirs = trio.testing.memory_stream_pair()
    client = RawClient(ours)
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load(name).app.handle_stream, theirs)
            assert b" 101 " in await client.upgrade(path.encode())
            await behave(client)
            await client.aclose()
    assert records_above_info(caplog) == []


# clients, and servers of other people


async def test_the_client_asks() -> None:
    """What comes back is the answer."""
    async with serving(load("echo").app) as port:
        assert await load("client").ask(f"ws://{HERE}:{port}/echo", "hello") == "hello"


async def test_the_feed_goes_on(autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]) -> None:
    """Over the ends of connections, and over a server that refuses for a while."""
    answers = iter(["503", "one", "two", "503", "three"])

    async def script(server: RawServer) -> None:
        answer = next(answers, "")
        if answer == "503":
            await server.read_head()
            await server.send_bytes(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        else:
            await server.accept()
            await server.send(Frame.Text(answer), Frame.Close())
            await server.receive_rest()

    feed = load("feed")
    async with scripted(script) as dial, trio.open_nursery() as nursery:
        vars(feed)["reconnecting"] = functools.partial(vars(feed)["reconnecting"], stream=dial)
        items, heard = trio.open_memory_channel[str](0)
        nursery.start_soon(feed.follow, "ws://localhost/", items)
        assert [await heard.receive() for _ in range(3)] == ["one", "two", "three"]
        nursery.cancel_scope.cancel()
    assert "503" in capsys.readouterr().err


async def test_a_stream_is_lent() -> None:
    """By httpx2, through a proxy."""
    pytest.importorskip("httpx2")
    proxy = HttpProxy(b"HTTP/1.0 200 Connection established\r\n\r\n")
    async with listening(proxy.handle) as port, serving(load("actor").app) as behind:
        ask = load("lent_stream").ask
        assert await ask(f"http://{HERE}:{port}", HERE, behind, "hello") == "YOU SAID: hello"
    assert proxy.heads[0].startswith(f"CONNECT {HERE}:{behind} ")


async def test_it_runs_on_trio_websocket() -> None:
    """Its own server, our routes, our client."""
    example = load("on_trio_websocket")
    async with trio.open_nursery() as nursery:
        server = await nursery.start(example.main, 0)
        assert await load("client").ask(f"ws://{HERE}:{server.port}/echo", "hello") == "hello"
        nursery.cancel_scope.cancel()


async def test_it_is_mounted() -> None:
    """Below a path of Starlette's, under Hypercorn."""
    pytest.importorskip("starlette")
    pytest.importorskip("hypercorn")
    async with serving_asgi("hypercorn", load("mounted").app) as (url, _):
        assert await load("client").ask(f"{url}/ws/echo", "hello") == "hello"


async def test_the_parts_of_a_page_fit_together() -> None:
    """ "Where it runs": old and new handlers on one server."""
    page = (EXAMPLES.parent / "docs" / "where.md").read_text()
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(block, names)
    ask = load("client").ask
    async with trio.open_nursery() as nursery:
        names["handler"] = lambda _app: names["both"]
        server = await nursery.start(lambda task_status: names["serve_them"](0, task_status))
        assert await ask(f"ws://{HERE}:{server.port}/old", "x") == "from the old one"
        assert await ask(f"ws://{HERE}:{server.port}/rooms/hall", "x") == "hall: x"
        nursery.cancel_scope.cancel()
