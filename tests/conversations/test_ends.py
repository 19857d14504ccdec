"""Ends that do not seal, counts that hang, and what stands between accepted and seen: each fault as it was found."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from trio.testing import MockClock

from tests.support.helpers import RawClient, application, client_bytes, close, connected, connected_raw, masked
from tests.support.listening import talking
from tests.support.slow import on_a_socket
from trioktor import (
    CLOSE,
    ChannelConfig,
    CloseReason,
    ConnectionBroken,
    ConnectionClosed,
    Frame,
    FrameType,
    PerMessageDeflate,
    WebSocketSession as Session,
    broadcast,
)
from trioktor.server.host import Host

# the wire


async def test_a_short_answer_behind_a_long_one_to_a_slow_reader_does_not_tear_it() -> None:
    """The system took the long frame in part, and the writer waits for it: the short one waits, too."""
    long, short = b"a" * 300_000, b"b" * 300

    async def handler(session: Session) -> None:
        await session.receive()
        await session.send(long)
        await session.receive()
        await session.send(short)
        await broadcast([session], short)
        await session.receive()

    async with on_a_socket(handler) as client:
        await client.send(Frame.Text("first"))
        await trio.testing.wait_all_tasks_blocked()
        await client.send(Frame.Text("second"))
        await trio.testing.wait_all_tasks_blocked()
        assert [Frame.Binary(long), Frame.Binary(short), Frame.Binary(short)] == [
            await client.receive() for _ in range(3)
        ]


@pytest.mark.parametrize("frame", [Frame.Ping(b"x"), Frame.Pong(b"x")])
async def test_what_is_put_into_outgoing_at_once_does_not_overtake_the_101(
    autojump_clock: MockClock, frame: Frame
) -> None:
    """On a stream that is no plain socket the answer to the handshake is still on its way then."""

    async def handler(session: Session) -> None:
        session.outgoing.send_nowait(frame)
        await session.receive()

    async with connected(handler) as (client, _):
        assert frame == await client.receive()
        await client.send(Frame.Text("enough"))


async def test_a_server_that_stops_while_a_hook_runs_closes_behind_the_101(autojump_clock: MockClock) -> None:
    """The hook does not see its cancellation, so the upgrade happens; its first frame is the Close."""

    async def handler(session: Session) -> None:
        async for _ in session:
            pass

    hosts: list[Host] = []
    app = application(handler)

    @app.before_upgrade
    async def hook(call: object) -> None:
        hosts[0].is_stopping = True

    hosts.append(Host(app))
    ours, theirs = trio.testing.memory_stream_pair()
    client = RawClient(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hosts[0].handle, theirs)
        assert (await client.upgrade()).startswith(b"HTTP/1.1 101 ")
        frame = await client.receive()
        assert isinstance(frame, Frame.Close)
        await client.send(frame)
        await client.aclose()


# an end that does not seal


@pytest.mark.parametrize("last", [client_bytes(Frame.Close()), masked(0x83)], ids=["close", "violation"])
async def test_the_last_handle_closed_after_the_peers_end_does_not_spin(autojump_clock: MockClock, last: bytes) -> None:
    """Trio's own idiom: leaving the block closes the channel while the writer is parked on it."""

    async def handler(session: Session) -> None:
        async with session.outgoing as out:
            async for frame in session.incoming:
                await out.send(frame)

    with trio.fail_after(5):
        async with connected(handler) as (client, _):
            await client.send(Frame.Text("x"))
            assert Frame.Text("x") == await client.receive()
            await client.send_bytes(last)
            assert isinstance(await client.receive(), Frame.Close)


async def test_close_after_the_peers_close_has_sending_raise_at_once(autojump_clock: MockClock) -> None:
    """Whatever the state, nothing more is accepted."""
    outcome: list[str] = []

    async def handler(session: Session) -> None:
        with pytest.raises(trio.EndOfChannel):
            await session.receive()
        await session.send("answer")
        session.close()
        with pytest.raises(ConnectionClosed):
            await session.send("too late")
        with pytest.raises(trio.BrokenResourceError):
            session.outgoing.send_nowait("too late")
        outcome.append("seen")

    async with connected(handler) as (client, _):
        await client.send(close(1000))
        assert [Frame.Text("answer"), close(1000)] == await client.receive_rest()
    assert ["seen"] == outcome


async def test_a_message_too_long_to_be_joined_loses_no_answer(autojump_clock: MockClock) -> None:
    """What was accepted before `receive` found it too long goes out before the 1009."""

    async def handler(session: Session) -> None:
        message = await session.receive_message()
        await message.skip()
        for number in range(5):
            session.outgoing.send_nowait(str(number))
        with pytest.raises(ConnectionBroken):
            await session.receive()

    async with connected(handler, max_frame_size=100) as (client, _):
        await client.send(Frame.Text("first"))
        for _ in range(3):
            await client.send_bytes(masked(0x02 if _ == 0 else 0x00, bytes(60)))
        assert [*(Frame.Text(str(number)) for number in range(5)), close(1009)] == await client.receive_rest()


# counts


async def test_messages_longer_than_the_limit_in_bytes_go_out_one_after_the_other() -> None:
    """`send` waits for room, and there is room again when the writer has taken what waited."""
    size = 1_200_000

    async def handler(session: Session) -> None:
        for number in range(12):
            await session.send(bytes([number]) * size)

    with trio.fail_after(30):
        async with on_a_socket(handler) as client:
            received = [await client.receive() for _ in range(12)]
            assert [Frame.Binary(bytes([number]) * size) for number in range(12)] == received
            await client.send(close(1000))


async def test_the_limit_in_bytes_holds_behind_a_message_in_pieces(autojump_clock: MockClock) -> None:
    """While pieces go out, what waits behind them is still counted."""
    accepted: list[int] = []

    async def handler(session: Session) -> None:
        async with session.message(FrameType.BINARY) as message:
            await message.send(b"piece")
            await session.flush()
            for number in range(60):
                try:
                    session.send_nowait(bytes(400))
                except trio.WouldBlock:
                    break
                accepted.append(number)
                await message.send(b"piece")
                await session.flush()

    async with connected(handler, max_queued_bytes=1000, outgoing=64) as (client, _):
        await client.send(close(1000))
        await client.receive_rest()
    assert [0, 1] == accepted


async def test_a_reset_while_a_long_message_is_compressed_leaks_nothing() -> None:
    """The peer says goodbye, and is gone: the rest of the message is nobody's any more."""
    request = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
    done = trio.Event()

    async def handler(session: Session) -> None:
        await session.receive()
        session.outgoing.send_nowait(bytes(range(256)) * 40_000)
        with pytest.raises(trio.EndOfChannel):
            await session.receive()

    app = application(handler, extensions=[PerMessageDeflate()], max_frame_size=None)
    with trio.fail_after(20):
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        ours = trio.socket.socket()
        async with trio.open_nursery() as nursery, listener:
            await ours.connect(listener.socket.getsockname())

            async def serve() -> None:
                await app.handle_stream(await listener.accept())
                done.set()

            nursery.start_soon(serve)
            client = RawClient(trio.SocketStream(ours))
            await client.stream.send_all(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + request + b"\r\n"
            )
            await client.read_head()
            await client.send(Frame.Text("go"), close(1000))
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            ours.close()  # a reset
            await done.wait()


async def test_flush_does_not_wait_for_a_send_that_was_cancelled(autojump_clock: MockClock) -> None:
    """What a cancelled sender takes away is not waited for."""

    async def handler(session: Session) -> None:
        session.outgoing.send_nowait("0")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.outgoing.send, "never")
            nursery.start_soon(session.send, "never")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(flush, session)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await session.flush()

    async def flush(session: Session) -> None:
        with trio.CancelScope(shield=True), trio.fail_after(5):
            await session.flush()

    async with connected(handler, outgoing=1, write_timeout=None) as (client, _):
        await client.receive()


async def test_flush_waits_for_what_stands_behind_somebody_elses_pieces(autojump_clock: MockClock) -> None:
    """A message that is queued behind a message in pieces is written when that is."""
    order: list[str] = []

    async def handler(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other, session)
            async with session.message(FrameType.TEXT) as message:
                for _ in range(5):
                    await message.send("piece")
                    await trio.sleep(1)
                order.append("message")

    async def other(session: Session) -> None:
        await trio.sleep(1.5)
        await session.send("behind")
        await session.flush()
        order.append("flushed")

    async with connected(handler) as (client, _):
        await client.receive_rest()
    assert ["message", "flushed"] == order


async def test_flush_after_the_end_returns(autojump_clock: MockClock) -> None:
    """Also where a message in pieces was never finished."""

    async def handler(session: Session) -> None:
        await trio.sleep(1)
        async with session.message(FrameType.TEXT) as message:
            await message.send("piece")
            session.terminate()
            with trio.CancelScope(shield=True), trio.fail_after(5):
                await session.flush()

    async with connected(handler) as (client, _):
        await client.receive_rest()


# between accepted and seen


async def test_a_message_in_pieces_that_begins_in_the_pass_of_the_end_does_not_hang(
    autojump_clock: MockClock,
) -> None:
    """It is handed to the parked writer, and the conversation is closed before that has its turn."""

    async def handler(session: Session) -> None:
        session.outgoing.send_nowait("opens the channel")
        await session.flush()
        with pytest.raises(ConnectionClosed):
            async with session.message(FrameType.TEXT) as message:
                session.close()
                for _ in range(3):
                    await message.send("piece")

    with trio.fail_after(30):
        async with connected(handler) as (client, _):
            await client.receive_rest()


@pytest.mark.parametrize("way", ["close", "return", "handle"])
async def test_a_close_through_outgoing_is_the_only_one(autojump_clock: MockClock, way: str) -> None:
    """It was put there first, so its reason stands, whatever else ends the conversation in the same pass."""

    async def handler(session: Session) -> None:
        session.outgoing.send_nowait("opens the channel")
        await session.flush()
        session.outgoing.send_nowait(close(4000))
        if way == "close":
            session.close(4001)
        elif way == "handle":
            session.outgoing.close()

    async with connected(handler) as (client, sessions):
        assert [Frame.Text("opens the channel"), close(4000)] == [await client.receive() for _ in range(2)]
        await client.send(close(4000))
        assert [] == await client.receive_rest()
    assert CloseReason(4000) == sessions[0].close_reason == sessions[0].close_sent


async def test_close_keeps_what_stands_behind_a_message_that_is_just_finished(autojump_clock: MockClock) -> None:
    """The last piece is accepted, and with it all that was queued behind."""

    async def handler(session: Session) -> None:
        async with trio.open_nursery() as nursery, session.message(FrameType.TEXT) as message:
            await message.send("piece")
            nursery.start_soon(session.send, "behind")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(end, session)
        assert session.close_reason is not None

    async def end(session: Session) -> None:
        session.close()

    async with connected(handler) as (client, _):
        assert [Frame.Text("piece"), Frame.Text("behind"), close(1000)] == [await client.receive() for _ in range(3)]


async def test_a_send_that_waits_behind_a_close_through_outgoing_raises(autojump_clock: MockClock) -> None:
    """It does not return as accepted: nothing goes out behind a Close."""
    outcome: list[str] = []

    async def handler(session: Session) -> None:
        session.send_nowait(bytes(2000))
        session.outgoing.send_nowait(close(4000))
        try:
            await session.send("waits for bytes")
            outcome.append("accepted")
        except ConnectionClosed:
            outcome.append("refused")

    async with connected(handler, max_queued_bytes=1000) as (client, _):
        await client.receive_rest()
    assert ["refused"] == outcome


async def test_a_cancelled_send_leaves_anothers_fragments_alone() -> None:
    """Which message is open is what was accepted, not what somebody saw when he began to wait."""
    cancelled = trio.Event()

    async def handler(session: Session) -> None:
        session.send_nowait(bytes(300_000))
        await trio.testing.wait_all_tasks_blocked()
        session.send_nowait("0")
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def given_up() -> None:
                with scope:
                    await session.send("never")

            nursery.start_soon(session.send, Frame.Text("frag", fin=False))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(given_up)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            cancelled.set()
        await session.send(Frame.Text("ment", fin=True))
        await session.send(Frame.Binary(b"another"))

    async with on_a_socket(handler, outgoing=1) as client:
        expected = [Frame.Text("0"), Frame.Text("fragment"), Frame.Binary(b"another"), close(1000)]
        await cancelled.wait()
        assert [Frame.Binary(bytes(300_000)), *expected] == [await client.receive() for _ in range(5)]


# the closing table


async def test_misuse_before_close_and_a_peer_that_answers(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The Close is on its way already, so what may not be sent is left out and told in the log."""

    async def handler(session: Session) -> None:
        session.outgoing.send_nowait(42)  # type: ignore[arg-type]
        session.close()

    async with connected(handler) as (client, sessions):
        assert close(1000) == await client.receive()
        await client.send(close(1000))
    assert CloseReason(1000) == sessions[0].close_received
    assert 1 == len([record for record in caplog.records if "may not be sent" in record.getMessage()])


async def test_a_broadcast_that_is_to_close_meets_a_session_that_does(autojump_clock: MockClock) -> None:
    """In the middle of its own fragments, which count as full."""

    async def handler(session: Session) -> None:
        await session.send(Frame.Text("frag", fin=False))
        session.close()
        assert 0 == await broadcast([session], "x", on_full=CLOSE)

    async with connected(handler, show_fragments=True) as (client, sessions):
        assert [Frame.Text("frag", fin=False), close(1000)] == [await client.receive() for _ in range(2)]
        await client.send(close(1000))
    assert CloseReason(1000) == sessions[0].close_received


@pytest.mark.parametrize("way", ["terminate", "message", "overflow"])
async def test_an_end_in_the_step_that_lets_the_reader_go_on(autojump_clock: MockClock, way: str) -> None:
    """The reader has a message and the peer's Close in its hands when the conversation ends."""

    async def handler(session: Session) -> None:
        await trio.sleep(1)
        session.receive_nowait()
        if way == "terminate":
            session.terminate()
            await trio.lowlevel.checkpoint()
        elif way == "overflow":
            with pytest.raises((ConnectionClosed, trio.WouldBlock)):
                for _ in range(9):
                    session.send_nowait("x")
        else:
            raise ZeroDivisionError

    async def in_message(session: Session) -> None:
        await trio.sleep(1)
        with pytest.raises(ZeroDivisionError):
            async with session.message(FrameType.TEXT):
                session.receive_nowait()
                raise ZeroDivisionError

    served = in_message if way == "message" else handler
    async with connected(served, incoming=1, outgoing=ChannelConfig(1, on_overflow=CLOSE)) as (client, sessions):
        await client.send(Frame.Text("1"), Frame.Text("2"), close(1000))
        await client.receive_rest()
    assert sessions[0].close_reason is not None


# pieces


async def test_a_broken_off_upload_does_not_look_complete(autojump_clock: MockClock) -> None:
    """A goodbye in the middle of a message is no end of the message."""
    pieces: list[str | bytes] = []

    async def handler(session: Session) -> None:
        message = await session.receive_message()
        with pytest.raises(ConnectionBroken):
            async for piece in message:
                pieces.append(piece)
        with pytest.raises(trio.EndOfChannel):
            await session.receive_message()

    async with connected(handler) as (client, _):
        await client.send(Frame.Binary(b"half", fin=False), close(1000))
        assert close(1000) == await client.receive()
    assert [b"half"] == pieces


@pytest.mark.parametrize("extensions", [[], [PerMessageDeflate()]], ids=["plain", "deflate"])
async def test_receiving_in_pieces_may_begin_in_the_middle_of_what_was_read(
    autojump_clock: MockClock, extensions: list[Any]
) -> None:
    """The reader stands in a chunk of many messages then; none of their bytes is lost."""
    received: list[str | bytes] = []

    async def handler(session: Session) -> None:
        received.append((await session.receive()).data)
        while True:
            try:
                message = await session.receive_message()
            except trio.EndOfChannel:
                return
            received.extend([piece async for piece in message])

    async with connected(handler, incoming=1, extensions=extensions) as (client, _):
        data = b"".join(client_bytes(Frame.Binary(bytes([number]) * 100)) for number in range(20))
        data += client_bytes(Frame.Binary(b"f" * 100, fin=False), Frame.Binary(b"g" * 100))
        half = client_bytes(Frame.Binary(b"h" * 100))
        await client.send_bytes(data + half[:50])
        await client.send_bytes(half[50:] + client_bytes(close(1000)))
        await client.receive_rest()
    expected = b"".join(bytes([number]) * 100 for number in range(20)) + b"f" * 100 + b"g" * 100 + b"h" * 100
    assert expected == b"".join(piece if isinstance(piece, bytes) else piece.encode() for piece in received)


async def test_two_tasks_that_receive_after_receive_message_shuffle_no_pieces(autojump_clock: MockClock) -> None:
    """Each joins a message of its own, whoever runs first."""
    received: list[str] = []

    async def handler(session: Session) -> None:
        message = await session.receive_message()
        await message.skip()

        async def receive() -> None:
            async for frame in session:
                received.append(frame.text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(receive)

    expected = [f"<{number}>" * 3 for number in range(50)]
    async with connected(handler) as (client, _):
        await client.send(Frame.Text("first"))
        for text in expected:
            pieces = [text[start : start + 3] for start in range(0, len(text), 3)]
            frames = [Frame.Text(piece, fin=False) for piece in pieces]
            await client.send(*frames, Frame.Text("", fin=True))
        await client.send(close(1000))
        await client.receive_rest()
    assert sorted(expected) == sorted(received)


async def test_half_a_message_is_not_ended_by_another(autojump_clock: MockClock) -> None:
    """A message left unfinished after the peer's Close: nothing stands behind it but our Close."""

    async def handler(session: Session) -> None:
        with pytest.raises(ZeroDivisionError):
            async with session.message(FrameType.TEXT) as message:
                await message.send("half")
                await session.send("another")
                with pytest.raises(trio.EndOfChannel):
                    await session.receive()
                raise ZeroDivisionError

    async with connected(handler, show_fragments=True) as (client, _):
        await client.send(close(1000))
        assert [Frame.Text("half", fin=False), close(1000)] == await client.receive_rest()


async def test_a_send_that_waits_behind_an_unfinished_message_raises(autojump_clock: MockClock) -> None:
    """It waits for bytes, and what stands before it can't be finished."""
    outcome: list[str] = []

    async def handler(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            with pytest.raises(ZeroDivisionError):
                async with session.message(FrameType.TEXT) as message:
                    await message.send("half")
                    await session.send(bytes(2000))
                    nursery.start_soon(waiting, session)
                    await trio.testing.wait_all_tasks_blocked()
                    raise ZeroDivisionError

    async def waiting(session: Session) -> None:
        try:
            await session.send("another")
            outcome.append("accepted")
        except ConnectionClosed:
            outcome.append("refused")

    async with connected(handler, show_fragments=True, max_queued_bytes=1000) as (client, _):
        assert [Frame.Text("half", fin=False), close(1011)] == [await client.receive() for _ in range(2)]
        await client.send(close(1011))
    assert ["refused"] == outcome


async def test_a_raw_close_through_outgoing_answers_the_peers(autojump_clock: MockClock) -> None:
    """In a raw session it is the handler's own, and the last."""

    async def handler(session: Any) -> None:
        async for frame in session.incoming:
            session.outgoing.send_nowait(frame)
            session.close(4001)

    async with connected_raw(handler) as (client, _):
        await client.send(close(4000))
        assert [close(4000)] == await client.receive_rest()


# an end that the handler does not return at, where one task reads all sockets


@pytest.mark.parametrize("who", ["we", "peer"])
async def test_an_end_is_seen_out_soon_though_the_handler_goes_on(who: str, autojump_clock: MockClock) -> None:
    """Within the milliseconds in which most handlers have returned, and see it out themselves."""

    async def handler(session: Session) -> None:
        if who == "peer":
            async for _ in session:
                pass
        session.close()
        await trio.sleep(100)

    async with talking(handler) as (client, _):
        if who == "we":
            assert close(1000) == await client.receive()
        await client.send(close(1000))
        began = trio.current_time()
        if who == "peer":
            assert close(1000) == await client.receive()
        assert await client.receive_rest() == []
        assert trio.current_time() - began < 0.05


async def test_where_nobody_may_answer_the_peers_close_is_answered_at_once(autojump_clock: MockClock) -> None:
    """Not some milliseconds later, though the handler does something else."""

    async def handler(session: Session) -> None:
        session.incoming  # noqa: B018  # the poller reads from now on
        await trio.sleep(100)

    async with talking(handler, answer_grace=0) as (client, _):
        began = trio.current_time()
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()
        assert trio.current_time() == began


async def test_an_end_is_seen_out_once(autojump_clock: MockClock) -> None:
    """Though a wait for it began it before the milliseconds were over: nobody waits for a handler that has returned."""

    async def handler(session: Session) -> None:
        await session.incoming.receive()
        await trio.sleep(1.005)
        with trio.move_on_after(1):
            await session.wait_closed()
        await trio.sleep(1)

    async with talking(handler, answer_grace=0.02, handler_grace=50) as (client, server):
        await client.send(Frame.Text("question"))
        await trio.sleep(1)
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()
        await trio.sleep(1.5)
        assert server.sessions == ()


async def test_who_waits_for_the_end_waits_for_the_answer_and_no_moment_longer(autojump_clock: MockClock) -> None:
    """The handler may still answer what came before the Close."""

    async def handler(session: Session) -> None:
        await session.incoming.receive()
        await session.wait_closed()

    async with talking(handler, answer_grace=1) as (client, _):
        await client.send(Frame.Text("question"))
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await client.send(close(1000))
        assert [close(1000)] == await client.receive_rest()
        assert trio.current_time() - began == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize("way", ["wait", "aclose", "wait behind the Close", "aclose behind the Close", "peer first"])
async def test_who_waits_for_the_end_waits_no_moment_longer(way: str, autojump_clock: MockClock) -> None:
    """Whether the wait or the Close of the peer was first."""
    ended: list[float] = []

    async def handler(session: Session) -> None:
        session.incoming  # noqa: B018  # the poller reads from now on
        if way not in {"peer first", "aclose"}:
            session.close()
        if way.endswith("behind the Close"):
            async for _ in session:
                pass
        await (session.aclose() if way.startswith("aclose") else session.wait_closed())
        ended.append(trio.current_time())
        await trio.sleep(100)

    async with talking(handler) as (client, _):
        said = trio.current_time()
        if way != "peer first":
            assert close(1000) == await client.receive()
        await client.send(close(1000))
        assert await client.receive_rest() == [close(1000)] * (way == "peer first")
        await trio.testing.wait_all_tasks_blocked()
        assert ended == [said]
