"""The transport over somebody else's WebSocket: messages come as a client's frames, and frames leave as messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import final

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from tests.support.reading import FrameReader
from trioktor import CloseReason, Frame, WriteTimeout
from trioktor.config import Supports
from trioktor.engine.messages import MessageTransport, close_frame
from trioktor.engine.transport import HangUp
from trioktor.protocol.serializer import Serializer


@final
class Other:
    """Somebody else's WebSocket: gives what it is told to, and keeps what it gets."""

    close_timeout = 0.0

    def __init__(self, *coming: Frame | None) -> None:
        self.coming: Iterator[Frame | None] = iter(coming)
        self.sent: list[Frame] = []
        self.delay = 0.0
        self.error: Exception | None = None
        self.times_closed = 0

    async def receive(self) -> Frame | None:
        """The next one; there has to be one."""
        await trio.lowlevel.checkpoint()
        return next(self.coming)

    async def send(self, message: Frame) -> None:
        """Take it, after a while."""
        await trio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        self.sent.append(message)

    async def aclose(self) -> None:
        """Note it."""
        self.times_closed += 1
        await trio.lowlevel.checkpoint()


def over(other: Other, max_size: int | None = None) -> MessageTransport:
    """A transport over it."""
    return MessageTransport(other, Supports(name="other"), client=("192.0.2.1", 1), is_secure=True, max_size=max_size)


def written(*frames: Frame) -> bytes:
    """Frames as a server writes them."""
    serializer = Serializer(masking=False)
    pieces: list[bytes] = []
    for frame in frames:
        serializer.add(frame, pieces)
    return b"".join(pieces)


# the Close that is told of


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (1000, None, CloseReason(1000)),
        (1000, "", CloseReason(1000)),
        (1001, "bye", CloseReason(1001, "bye")),
        (3000, "x" * 123, CloseReason(3000, "x" * 123)),
        (4999, "x" * 124, CloseReason(4999)),
        (4000, "é" * 62, CloseReason(4000)),
        (4000, "\ud800", CloseReason(4000)),
        (1005, "", None),
        (1006, "lost", None),
        (1015, "", None),
        (0, "", None),
        (2999, "", None),
        (5000, "", None),
        (-1, "", None),
        (1 << 16, "", None),
    ],
)
def test_a_close_is_one_that_a_peer_can_have_said(code: int, text: str | None, expected: CloseReason | None) -> None:
    """Without a text that is too long, and empty if its code is none for the wire."""
    assert close_frame(code, text) == Frame.Close(expected)


# what comes


@pytest.mark.parametrize(
    "make", [lambda size: Frame.Text("x" * size), lambda size: Frame.Binary(b"\0" * size)], ids=["text", "binary"]
)
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
async def test_a_message_comes_as_a_clients_frame(make: Callable[[int], Frame], size: int) -> None:
    """One for each read, of any length."""
    messages = [make(size), make(size)]
    transport = over(Other(*messages))
    reader = FrameReader(raw=True)  # refuses what is not masked
    for message in messages:
        assert list(reader.feed(await transport.receive())) == [message]
    assert transport.hang_up() is HangUp.NO


@pytest.mark.parametrize("reason", [None, CloseReason(1001, "bye")])
async def test_behind_a_close_is_the_end_of_the_stream(reason: CloseReason | None) -> None:
    """He is not asked again, and was answered: so nothing can be said, either."""
    other = Other(Frame.Close(reason))
    transport = over(other)
    reader = FrameReader(raw=True)
    assert list(reader.feed(await transport.receive())) == [Frame.Close(reason)]
    assert transport.hang_up() is HangUp.FULL
    for _ in range(2):
        with trio.testing.assert_checkpoints():
            assert await transport.receive() == b""
    with pytest.raises(trio.BrokenResourceError, match="was answered"):
        await transport.send(written(Frame.Text("late")))
    assert other.sent == []


async def test_who_has_gone_without_a_close_is_the_end_of_the_stream() -> None:
    """As often as one asks."""
    transport = over(Other(None))
    assert [await transport.receive(), await transport.receive()] == [b"", b""]
    assert transport.hang_up() is HangUp.FULL


async def test_nothing_is_read_without_waiting() -> None:
    """He can't say what there is."""
    transport = over(Other(Frame.Text("here")))
    assert transport.read_nowait() is None
    assert transport.send_nowait(written(Frame.Text("x"))) == 0


# what goes


MESSAGES = [
    [Frame.Text("whole")],
    [Frame.Binary(b"joi", fin=False), Frame.Binary(b"n", fin=False), Frame.Binary(b"ed")],
    [Frame.Text("", fin=False), Frame.Text("")],
    [Frame.Binary(b"\xff" * 70_000)],
]


@settings(max_examples=50, deadline=None)
@given(order=st.lists(st.sampled_from(MESSAGES), max_size=5), cuts=st.lists(st.integers(0, 300), max_size=6))
def test_however_the_bytes_are_cut_whole_messages_are_handed_over(order: list[list[Frame]], cuts: list[int]) -> None:
    """In their order, with their fragments joined."""
    data = written(*[frame for message in order for frame in message])
    other = Other()

    async def main() -> None:
        transport = over(other)
        start = 0
        for cut in sorted(cuts):
            await transport.send(data[start:cut])
            start = max(start, cut)
        await transport.send(memoryview(data)[start:])

    trio.run(main)
    assert [(frame.type, frame.data) for frame in other.sent] == [
        (message[0].type, b"".join(frame.data for frame in message)) for message in order
    ]
    assert all(frame.fin for frame in other.sent)


async def test_pings_and_pongs_are_not_handed_over() -> None:
    """The real ones are the other's."""
    other = Other()
    await over(other).send(written(Frame.Ping(b"1"), Frame.Text("text"), Frame.Pong(b"2")))
    assert other.sent == [Frame.Text("text")]


@pytest.mark.parametrize("reason", [None, CloseReason(1000), CloseReason(4000, "bye")])
async def test_our_close_is_handed_over_behind_the_messages(reason: CloseReason | None) -> None:
    """With its code, or without one."""
    other = Other()
    await over(other).send(written(Frame.Text("last"), Frame.Close(reason)))
    assert other.sent == [Frame.Text("last"), Frame.Close(reason)]


async def test_that_the_peer_has_gone_comes_out_as_it_is() -> None:
    """What was handed over before is not called back."""
    other = Other()
    transport = over(other)
    await transport.send(written(Frame.Text("1")))
    other.error = trio.BrokenResourceError("gone")
    with pytest.raises(trio.BrokenResourceError, match="gone"):
        await transport.send(written(Frame.Text("2"), Frame.Text("3")))
    assert other.sent == [Frame.Text("1")]


async def test_each_message_has_the_write_timeout(autojump_clock: MockClock) -> None:
    """One that was taken is progress, and reported; together they may take longer."""
    other = Other()
    other.delay = 20
    transport = over(other)
    transport.write_timeout = 30
    progress: list[float] = []
    transport.on_progress = lambda: progress.append(trio.current_time())
    began = trio.current_time()
    await transport.send(written(*[Frame.Text("x")] * 3, Frame.Close(CloseReason(1000))))
    assert [at - began for at in progress] == pytest.approx([20, 40, 60, 80])
    other.delay = 31
    late = over(other)
    late.write_timeout = 30
    began = trio.current_time()
    with pytest.raises(WriteTimeout, match="30 s"):
        await late.send(written(Frame.Text("x")))
    assert trio.current_time() - began == pytest.approx(30)


@pytest.mark.parametrize(("frame", "seconds"), [(Frame.Text("x"), 30), (Frame.Close(CloseReason(1000)), 37)])
async def test_a_close_has_the_time_for_its_answer_beside(
    frame: Frame, seconds: float, autojump_clock: MockClock
) -> None:
    """The other waits for it where it is said."""
    other = Other()
    other.delay, other.close_timeout = 100, 7
    transport = over(other)
    transport.write_timeout = 30
    began = trio.current_time()
    with pytest.raises(WriteTimeout):
        await transport.send(written(frame))
    assert trio.current_time() - began == pytest.approx(seconds)


async def test_without_a_write_timeout_it_waits(autojump_clock: MockClock) -> None:
    """And a cancellation from outside is none of its own."""
    other = Other()
    other.delay = 1e6
    with trio.move_on_after(1e5) as scope:
        await over(other).send(written(Frame.Text("x")))
    assert scope.cancelled_caught
    assert other.sent == []


@pytest.mark.parametrize(("limit", "size", "is_sent"), [(10, 10, True), (10, 11, False), (None, 100_000, True)])
async def test_what_is_joined_is_bounded(
    limit: int | None, size: int, is_sent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """By the fragments that wait for the last one; a frame that is half here does not count. The log says it."""
    other = Other()
    transport = over(other, limit)
    fragment = written(Frame.Binary(bytes(size), fin=False))
    await transport.send(fragment[:-1])
    if not is_sent:
        with pytest.raises(trio.BrokenResourceError, match="longer than max_frame_size, "):
            await transport.send(fragment[-1:])
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        return
    await transport.send(fragment[-1:])
    assert other.sent == []
    await transport.send(bytes([0x80, 0]))
    assert other.sent == [Frame.Binary(bytes(size))]


async def test_a_whole_message_is_not_bounded() -> None:
    """Nothing of it has to be kept to be joined."""
    other = Other()
    transport = over(other, 10)
    data = written(Frame.Binary(bytes(1000)))
    for start in range(0, len(data), 100):
        await transport.send(data[start : start + 100])
    assert other.sent == [Frame.Binary(bytes(1000))]


# who it is, and the end


async def test_it_says_who_is_there_and_what_can_be_done() -> None:
    """As it was told; that a peer is on this machine is never certain."""
    transport = over(Other())
    assert (transport.client, transport.is_secure, transport.is_local) == (("192.0.2.1", 1), True, False)
    assert transport.supports == Supports(name="other")
    assert not transport.takes_nowait


async def test_it_cannot_be_half_closed() -> None:
    """That is a checkpoint, and both directions go on."""
    other = Other(Frame.Text("question"))
    transport = over(other)
    with trio.testing.assert_checkpoints():
        await transport.send_eof()
    assert await transport.receive() != b""
    await transport.send(written(Frame.Text("answer")))
    assert other.sent == [Frame.Text("answer")]


async def test_closed_it_is_at_its_end() -> None:
    """The connection is dropped; that may be repeated."""
    other = Other(Frame.Text("unread"))
    transport = over(other)
    for times in (1, 2):
        await transport.aclose()
        assert other.times_closed == times
    assert await transport.receive() == b""
    assert transport.hang_up() is HangUp.FULL
    with pytest.raises(trio.BrokenResourceError):
        await transport.send(written(Frame.Text("late")))
