"""`connect`: a block in the handler's place. How it is entered, how it is left, and what comes out of it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import RawServer, application, scripted
from tests.support.listening import running
from trioktor import (
    CannotConnect,
    ClientRawWebSocketSession,
    ClientWebSocketSession,
    CloseReason,
    CloseTimeout,
    ConnectionBroken,
    ConnectionClosed,
    Extension,
    ExtensionFactory,
    Frame,
    JsonConverter,
    PerMessageDeflate,
    ProtocolError,
    WebSocketSession,
    broadcast,
    connect,
    connect_raw,
)
from trioktor.protocol.serializer import head

URL = "ws://example.org/"


class Bug(Exception):
    """Something went wrong in a block."""


async def obliging(server: RawServer) -> None:
    """Accept, echo messages, answer Pings and the Close."""
    await server.accept()
    while (frame := await server.receive()) is not None:
        if isinstance(frame, Frame.Close):
            await server.send(frame)
            return
        await server.send(Frame.Pong(frame.data) if isinstance(frame, Frame.Ping) else frame)


def remembering(seen: list[Frame]) -> Callable[[RawServer], Awaitable[None]]:
    """As `obliging`, but it keeps what came and echoes nothing."""

    async def script(server: RawServer) -> None:
        await server.accept()
        while (frame := await server.receive()) is not None:
            seen.append(frame)
            if isinstance(frame, Frame.Close):
                await server.send(frame)
                return

    return script


async def test_it_is_the_session_of_a_handler(autojump_clock: MockClock) -> None:
    """Every way to send and receive, with the names that a handler has."""
    async with (
        scripted(obliging) as dial,
        connect(URL, stream=dial, content_converter=JsonConverter()) as session,
    ):
        assert isinstance(session, ClientWebSocketSession)
        assert isinstance(session, WebSocketSession)
        await session.send("text")
        assert await session.receive_text() == "text"
        await session.outgoing.send(b"bytes")
        assert (await session.incoming.receive()).data == b"bytes"
        await session.send_serialized({"a": 1})
        assert await session.receive_deserialized(dict) == {"a": 1}
        assert await session.ping() >= 0
        assert session.latency is not None
        async with session.message(Frame.Text("").type) as message:
            await message.send("in ")
            await message.send("pieces")
        assert await session.receive_text() == "in pieces"
        await broadcast([session], "to all")
        assert await session.receive_text() == "to all"
        await session.flush()
        assert session.statistics().frames_received == 6
        assert session.call.path == "/"
        assert session.call.scheme == "ws"
        assert session.call.headers["host"] == "example.org"
        assert session.application is None
        assert session.response.status == 101
        assert session.response.headers["upgrade"] == "websocket"
        assert session.protocol is None
    assert session.close_reason == CloseReason(1000)
    assert session.close_sent == session.close_received == CloseReason(1000)


async def test_every_frame_is_masked_with_a_key_of_its_own(autojump_clock: MockClock) -> None:
    """RFC 6455 §5.3; control frames and the Close, too."""
    keys: list[bytes] = []
    ours: list[RawServer] = []

    async def script(server: RawServer) -> None:
        ours.append(server)
        await obliging(server)

    async with scripted(script) as dial, connect(URL, stream=dial) as session:
        for _ in range(50):
            await session.send("x")
            assert await session.receive_text() == "x"
        await session.ping(b"y")
    data = bytes(ours[0].raw)
    while data:
        assert data[1] & 0x80
        keys.append(data[2:6])
        data = data[6 + (data[1] & 0x7F) :]
    assert len(keys) == 52
    assert len(set(keys)) == 52


@pytest.mark.parametrize(
    ("leave", "code"),
    [(None, 1000), (Bug("mine"), 1011), (ExceptionGroup("two", [Bug(), Bug()]), 1011)],
    ids=["normally", "an exception", "a group"],
)
async def test_leaving_the_block_closes(leave: Exception | None, code: int, autojump_clock: MockClock) -> None:
    """Behind what was sent; what the block raised comes out as itself."""
    seen: list[Frame] = []
    raised: Exception | None = None
    async with scripted(remembering(seen)) as dial:
        try:
            async with connect(URL, stream=dial) as session:
                await session.send("last words")
                if leave is not None:
                    raise leave
        except Exception as error:
            raised = error
    assert raised is leave
    assert seen == [Frame.Text("last words"), Frame.Close(CloseReason(code))]
    assert session.close_reason == CloseReason(code)


async def test_a_cancellation_says_1001(autojump_clock: MockClock) -> None:
    """At once, behind what was sent."""
    seen: list[Frame] = []
    async with scripted(remembering(seen)) as dial:
        with trio.move_on_after(5) as scope:
            async with connect(URL, stream=dial) as session:
                await session.send("last words")
                await trio.sleep_forever()
    assert scope.cancelled_caught
    assert seen == [Frame.Text("last words"), Frame.Close(CloseReason(1001))]
    assert session.close_reason == CloseReason(1001)


@pytest.mark.parametrize("opener", [connect, connect_raw])
@pytest.mark.parametrize("tasks", ["none", "the waker", "the pinger", "one of its own"])
async def test_a_cancellation_comes_out_bare(tasks: str, opener: Any) -> None:
    """However many tasks the connection has: it can be caught by name."""

    async def silent(session: WebSocketSession) -> None:
        async for _ in session:
            pass

    ping_period = 1000 if tasks == "the pinger" and opener is connect else None
    caught: list[type[BaseException]] = []
    async with running(application(silent)) as server:
        with trio.CancelScope() as scope:
            try:
                async with opener(f"ws://127.0.0.1:{server.port}/", ping_period=ping_period) as session:
                    for number in range(2 * (tasks == "the waker")):
                        await session.send(Frame.Text(str(number)))
                    if tasks == "one of its own":
                        session.start_soon(trio.sleep_forever)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
                    await trio.sleep_forever()
            except BaseException as error:
                caught.append(type(error))
                raise
    assert caught == [trio.Cancelled]


async def test_an_interrupt_comes_out_bare(autojump_clock: MockClock) -> None:
    """No group round it, and the server gets a Close."""
    seen: list[Frame] = []
    async with scripted(remembering(seen)) as dial:
        with pytest.raises(KeyboardInterrupt):
            async with connect(URL, stream=dial):
                raise KeyboardInterrupt
    assert seen == [Frame.Close(CloseReason(1001))]


async def test_an_interrupt_hides_no_failure(autojump_clock: MockClock) -> None:
    """Both come out."""
    async with scripted(obliging) as dial:
        with pytest.RaisesGroup(Bug, KeyboardInterrupt, flatten_subgroups=True):
            async with connect(URL, stream=dial):
                raise BaseExceptionGroup("both", [Bug(), KeyboardInterrupt()])


async def test_a_cancellation_hides_no_failure(autojump_clock: MockClock) -> None:
    """Raised in the step in which the scope was cancelled, or while the Close is awaited."""

    async def silent(server: RawServer) -> None:
        await server.accept()
        await trio.sleep_forever()

    for wait in (0, 3):
        async with scripted(silent) as dial:
            with pytest.raises(Bug), trio.CancelScope() as scope:
                async with connect(URL, stream=dial) as session:
                    scope.deadline = trio.current_time() + wait
                    raise Bug
        assert session.close_reason == CloseReason(1011)


async def test_a_task_of_the_session_fails_for_the_block(autojump_clock: MockClock) -> None:
    """The block is cancelled; the failure comes out of it as itself; the others are cancelled, too."""
    ended: list[str] = []

    async def fail() -> None:
        await trio.sleep(1)
        raise Bug

    async def stay(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)

    seen: list[Frame] = []
    async with scripted(remembering(seen)) as dial:
        with pytest.raises(Bug):
            async with connect(URL, stream=dial) as session:
                session.start_soon(stay, "child")
                session.start_soon(fail)
                await stay("block")
    assert sorted(ended) == ["block", "child"]
    assert seen == [Frame.Close(CloseReason(1011))]


async def test_two_failures_come_out_as_a_group(autojump_clock: MockClock) -> None:
    """One of the block, one of a task."""

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Bug("the task")

    async with scripted(obliging) as dial:
        with pytest.RaisesGroup(pytest.RaisesExc(Bug, match="the block"), pytest.RaisesExc(Bug, match="the task")):
            async with connect(URL, stream=dial) as session:
                session.start_soon(fail)
                await trio.lowlevel.checkpoint()
                raise Bug("the block")


@pytest.mark.parametrize("message", [Frame.Binary(b"x"), Frame.Text("{")])
async def test_what_the_server_should_not_have_sent(message: Frame, autojump_clock: MockClock) -> None:
    """A frame of another kind, or no value: an exception as every other."""
    seen: list[Frame] = []

    async def script(server: RawServer) -> None:
        await server.accept()
        await server.send(message)
        while (frame := await server.receive()) is not None:
            seen.append(frame)

    async with scripted(script) as dial:
        with pytest.raises(Exception, match=r"TEXT|BINARY|Expecting"):
            async with connect(URL, stream=dial, close_timeout=1, content_converter=JsonConverter()) as session:
                if isinstance(message, Frame.Binary):
                    await session.receive_text()
                await session.receive_deserialized(dict)
    assert seen == [Frame.Close(CloseReason(1011))]


async def test_the_servers_close_ends_the_loop(autojump_clock: MockClock) -> None:
    """Its reason is there, its code is echoed, and code behind the loop still runs."""
    seen: list[Frame] = []

    async def script(server: RawServer) -> None:
        await server.accept()
        await server.send(Frame.Text("one"), Frame.Close(CloseReason(4001, "enough")))
        while (frame := await server.receive()) is not None:
            seen.append(frame)

    async with scripted(script) as dial, connect(URL, stream=dial) as session:
        assert [frame.text async for frame in session] == ["one"]
        assert session.close_reason == CloseReason(4001, "enough")
        with pytest.raises(ConnectionClosed):
            await session.send("too late")
            await trio.sleep(1)
            await session.send("too late")
    assert seen[-1] == Frame.Close(CloseReason(4001))


async def test_a_broken_end_comes_out_of_the_block(autojump_clock: MockClock) -> None:
    """It is the block's to judge: nothing is quiet here."""

    async def script(server: RawServer) -> None:
        await server.accept()

    async with scripted(script) as dial:
        with pytest.raises(ConnectionBroken) as caught:
            async with connect(URL, stream=dial) as session:
                await session.receive()
    assert caught.value.session is session
    assert session.close_reason == CloseReason(1006)


async def test_a_block_that_does_something_else_is_left_alone(autojump_clock: MockClock) -> None:
    """The conversation is over for long: a handler would be cancelled, a block is its owner's."""

    async def script(server: RawServer) -> None:
        await server.accept()
        await server.send(Frame.Close(CloseReason(1001)))

    async with scripted(script) as dial, connect(URL, stream=dial) as session:
        await trio.sleep(1000)
    assert session.close_reason == CloseReason(1001)


async def test_terminate_cancels_the_block(autojump_clock: MockClock) -> None:
    """As it cancels a handler; no Close is sent, and the code behind the block goes on."""
    seen: list[Frame] = []
    async with scripted(remembering(seen)) as dial:
        async with connect(URL, stream=dial) as session:
            session.terminate()
            await trio.sleep(math.inf)
        await trio.testing.wait_all_tasks_blocked()
    assert seen == []
    assert session.close_reason == CloseReason(1006)


@pytest.mark.parametrize("close_timeout", [1, 7])
async def test_a_server_that_never_answers_a_close(close_timeout: float, autojump_clock: MockClock) -> None:
    """Leaving takes `close_timeout`, and no longer."""

    async def script(server: RawServer) -> None:
        await server.accept()
        await trio.sleep_forever()

    async with scripted(script) as dial:
        async with connect(URL, stream=dial, close_timeout=close_timeout) as session:
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(close_timeout)
    with pytest.raises(ConnectionBroken) as caught:
        await session.receive()
    assert isinstance(caught.value.__cause__, CloseTimeout)


async def test_a_server_that_does_not_hang_up(autojump_clock: MockClock) -> None:
    """It has answered the Close, but leaves the stream open: RFC 6455 §7.1.1 has us wait for a while."""

    async def script(server: RawServer) -> None:
        await obliging(server)
        await trio.sleep_forever()

    async with scripted(script) as dial:
        async with connect(URL, stream=dial) as session:
            began = trio.current_time()
        assert 0 < trio.current_time() - began <= 1
    assert session.close_received == CloseReason(1000)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bytes.fromhex("818537fa213d7f9f4d5158"), 1002),  # "Hello", masked
        (b"\x83\x00", 1002),
        (b"\xc1\x01x", 1002),  # compressed, which was not agreed on
        (b"\x81\x02\xc3\x28", 1007),
        (b"\x82\x7f" + (1 << 40).to_bytes(8, "big"), 1009),
        (b"\x01\x00" + b"\x00\x00" * 5000, 1008),
        (b"\x88\x02\x03\xed", 1002),  # 1005
    ],
    ids=["masked", "no opcode", "compressed", "no UTF-8", "too big", "fragments", "close code"],
)
@pytest.mark.parametrize("is_early", [True, False], ids=["with the 101", "later"])
async def test_what_breaks_a_rule_is_a_violation(
    data: bytes, code: int, is_early: bool, autojump_clock: MockClock
) -> None:
    """The block is told, and the server, too."""
    seen: list[Frame] = []

    async def script(server: RawServer) -> None:
        server.head = await server.read_head()
        if is_early:
            await server.send_bytes(server.accepting() + data)
        else:
            await server.send_bytes(server.accepting())
            await trio.testing.wait_all_tasks_blocked()
            await server.send_bytes(data)
        while (frame := await server.receive()) is not None:
            seen.append(frame)

    async with scripted(script) as dial:
        with pytest.raises(ConnectionBroken) as caught:
            async with connect(URL, stream=dial) as session:
                await session.receive()
    assert isinstance(caught.value.__cause__, ProtocolError)
    assert session.close_reason == CloseReason(code)
    assert [frame for frame in seen if isinstance(frame, Frame.Close)] == [Frame.Close(CloseReason(code))]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\xff\xff no deflate at all", 1007),
        (zlib.compress(b"x" * 100_000, wbits=-15)[:-4], 1009),
        (zlib.compress(b"\xc3\x28", wbits=-15), 1007),
    ],
    ids=["garbage", "a bomb", "no UTF-8 inside"],
)
async def test_bad_compression(payload: bytes, code: int, autojump_clock: MockClock) -> None:
    """A violation as every other, though compression was agreed on."""
    seen: list[Frame] = []

    async def script(server: RawServer) -> None:
        await server.accept(b"Sec-WebSocket-Extensions: permessage-deflate")
        await server.send_bytes(bytes([0xC1]) + head(0, len(payload))[1:] + payload)
        while (frame := await server.receive()) is not None:
            seen.append(frame)

    async with scripted(script) as dial:
        with pytest.raises(ConnectionBroken):
            async with connect(URL, stream=dial, extensions=[PerMessageDeflate()], max_frame_size=10_000) as session:
                await session.receive()
    assert session.close_reason == CloseReason(code)
    assert seen[-1] == Frame.Close(CloseReason(code))


async def test_compression_both_ways(autojump_clock: MockClock) -> None:
    """With a server of ours, over many messages, with every flag; what is sent is smaller than what is said."""
    for flags in ({}, {"server_no_context_takeover": True}, {"client_no_context_takeover": True}, {"window_bits": 9}):
        factory = PerMessageDeflate(**flags)

        async def echo(session: WebSocketSession) -> None:
            async for frame in session:
                await session.send(frame)

        ours, theirs = trio.testing.memory_stream_pair()
        app = application(echo, extensions=[factory])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.handle_stream, theirs)
            async with connect(URL, stream=ours, extensions=[factory]) as session:
                assert len(session.extensions) == 1
                for number in range(50):
                    text = f"the same again and again, {number} " * 20
                    await session.send(text)
                    assert await session.receive_text() == text
                assert session.statistics().bytes_sent < 50 * 200


@pytest.mark.parametrize("opener", [connect, connect_raw])
async def test_masking_cannot_be_turned_off(opener: Any, autojump_clock: MockClock) -> None:
    """RFC 6455 §5.1; to turn it on changes nothing."""
    async with scripted(obliging) as dial, opener(URL, stream=dial) as session:
        with pytest.raises(ValueError, match="always masks"):
            session.masking = False
        session.masking = True
        assert session.masking
        session.close()


async def test_a_cancellation_keeps_what_the_error_came_from(autojump_clock: MockClock) -> None:
    """While the Close is awaited."""

    async def silent(server: RawServer) -> None:
        await server.accept()
        await trio.sleep_forever()

    async with scripted(silent) as dial:
        with pytest.raises(Bug) as caught, trio.move_on_after(3):
            async with connect(URL, stream=dial):
                raise Bug from LookupError("the cause")
    assert isinstance(caught.value.__cause__, LookupError)


async def test_raw(autojump_clock: MockClock) -> None:
    """Every frame is seen, nothing is answered, no Close is added."""
    seen: list[Frame] = []

    async def script(server: RawServer) -> None:
        await server.accept()
        await server.send(Frame.Ping(b"p"), Frame.Text("a", fin=False), Frame.Text("b"))
        while (frame := await server.receive()) is not None:
            seen.append(frame)

    async with scripted(script) as dial, connect_raw(URL, stream=dial) as session:
        assert isinstance(session, ClientRawWebSocketSession)
        assert session.protocol is None
        assert session.response.status == 101
        assert [await session.receive() for _ in range(3)] == [
            Frame.Ping(b"p"),
            Frame.Text("a", fin=False),
            Frame.Text("b"),
        ]
        await session.send(Frame.Pong(b"p"))
    assert seen == [Frame.Pong(b"p")]


async def test_pings_find_out_that_nobody_is_there(autojump_clock: MockClock) -> None:
    """The settings of a server work here, too."""

    async def script(server: RawServer) -> None:
        await server.accept()
        await trio.sleep_forever()

    async with scripted(script) as dial:
        with pytest.raises(ConnectionBroken):
            async with connect(URL, stream=dial, ping_period=20, timeout=5) as session:
                await session.receive()
    assert session.close_reason == CloseReason(1011, "Ping timeout")


async def test_it_is_as_safe_to_cancel_as_a_server(autojump_clock: MockClock) -> None:
    """Sends and receives that are cut short lose, repeat and tear nothing, however slow the server is."""
    got: list[str] = []

    async def script(server: RawServer) -> None:
        await server.accept()
        while (frame := await server.receive()) is not None:
            await trio.sleep(0.01)
            if isinstance(frame, Frame.Close):
                await server.send(frame)
                return
            got.append(frame.text)

    accepted: list[str] = []
    async with (
        scripted(script, pair=trio.testing.lockstep_stream_pair) as dial,
        connect(URL, stream=dial, outgoing=2) as session,
    ):
        for number in range(300):
            text = str(number) * 100
            with trio.move_on_after(0.003):
                await session.send(text)
                accepted.append(text)
    assert 0 < len(accepted) < 300
    assert got == accepted


async def test_cancelled_at_every_step(autojump_clock: MockClock) -> None:
    """Wherever a cancellation finds it, the stream is closed, and only the cancellation comes out."""
    steps = 0
    is_whole = False
    while not is_whole:
        closed: list[bool] = []

        async def script(server: RawServer, closed: list[bool] = closed) -> None:
            try:
                await obliging(server)
            except AssertionError:
                pass  # it hung up before its request
            finally:
                await server.receive_rest()
                closed.append(True)

        async with scripted(script) as dial:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_after, steps, scope)
                    async with connect(URL, stream=dial) as session:
                        await session.send("x")
                        await session.receive()
                    is_whole = not scope.cancel_called
                    nursery.cancel_scope.cancel()
            with trio.fail_after(2):
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(1)
        assert closed in ([True], []), steps
        steps += 1
    assert steps > 10


async def cancel_after(steps: int, scope: trio.CancelScope) -> None:
    """Cancel after so many passes of the loop."""
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def test_cut_at_every_byte(autojump_clock: MockClock) -> None:
    """Of what the server says: before the end of its 101 it is `CannotConnect`, behind it a broken end."""
    whole = b""
    sizes: list[int] = []

    def cutting(size: int) -> Callable[[RawServer], Awaitable[None]]:
        async def script(server: RawServer) -> None:
            nonlocal whole
            server.head = await server.read_head()
            whole = server.accepting() + b"\x81\x05hello\x88\x02\x03\xe8"
            await server.send_bytes(whole[:size])
            if size >= len(whole):
                await server.receive_rest()

        return script

    size = 0
    while not whole or size <= len(whole):
        outcome = "clean"
        async with scripted(cutting(size)) as dial:
            try:
                async with connect(URL, stream=dial) as session:
                    assert await session.receive_text() == "hello"
                    with pytest.raises(trio.EndOfChannel):
                        await session.receive()
            except ConnectionBroken:
                outcome = "broken"
            except CannotConnect:
                outcome = "none"
        head = whole.index(b"\r\n\r\n") + 4
        assert outcome == ("none" if size < head else "broken" if size < len(whole) else "clean"), size
        sizes.append(size)
        size += 1
    assert len(sizes) > 100


async def test_the_session_is_over_behind_the_block(autojump_clock: MockClock) -> None:
    """Nothing hangs."""
    async with scripted(obliging) as dial:
        async with connect(URL, stream=dial) as session:
            pass
        with pytest.raises(ConnectionClosed):
            await session.send("x")
        with pytest.raises(trio.EndOfChannel):
            await session.receive()
        with pytest.raises(ConnectionClosed):
            session.start_soon(trio.sleep_forever)
        assert await session.wait_closed() == CloseReason(1000)


class Buggy(Extension):
    """An extension with a bug."""

    def decode(self, message: Frame, max_size: int | None) -> Frame:
        """Fail."""
        raise KeyError("a bug")


class BuggyFactory(ExtensionFactory):
    """Always on."""

    name = None

    def negotiate(self, offer: Any) -> Any:
        """Agree."""
        return offer, Buggy(self)


async def test_what_fails_between_the_handshake_and_the_block_closes_the_stream(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of trioktor's own leaves nothing open."""
    ended = trio.Event()

    async def script(server: RawServer) -> None:
        await server.accept()
        assert [] == await server.receive_rest()
        ended.set()

    def fail(*args: Any) -> Any:
        raise RuntimeError("a fault")

    monkeypatch.setattr("trioktor.client.connect.wire", fail)
    async with scripted(script) as dial:
        with pytest.raises(RuntimeError, match="a fault"):
            async with connect("ws://localhost/", stream=dial):
                pass
        with trio.fail_after(1):
            await ended.wait()


async def test_an_extension_that_fails_is_told_by_the_next_call(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The server hears 1011; the block is not cancelled, and learns the cause."""
    seen: list[Frame] = []

    async def script(server: RawServer) -> None:
        await server.accept()
        await server.send(Frame.Text("x"))
        while (frame := await server.receive()) is not None:
            seen.append(frame)

    went_on = False
    async with scripted(script) as dial, connect(URL, stream=dial, extensions=[BuggyFactory()]) as session:
        with pytest.raises(ConnectionBroken) as caught:
            await session.receive()
        await trio.sleep(1)
        went_on = True
    assert went_on
    assert isinstance(caught.value.__cause__, KeyError)
    assert seen == [Frame.Close(CloseReason(1011))]
