"""Connections that are cut: the stream that is gone at a byte, and what a handler sees of it."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from tests.support.helpers import (
    application,
    assert_all_over,
    client_bytes,
    close,
    masked,
    raw_application,
    records_above_info,
)
from trioktor import CloseReason, ConnectionBroken, ConnectionClosed, Frame, WebSocketSession
from trioktor.session.base import BaseSession
from trioktor.testing import open_test_host
from trioktor.testing.cutting import CutStream

Clock = trio.testing.MockClock

HELLO = bytes.fromhex("818537fa213d7f9f4d5158")


async def echo(session: WebSocketSession) -> None:
    """Send back what comes."""
    async for frame in session:
        await session.send(frame)


# the stream


async def arrived(stream: trio.abc.ReceiveStream) -> bytes:
    """All that comes to the end."""
    data = b""
    while chunk := await stream.receive_some():
        data += chunk
    return data


@given(
    pieces=st.lists(st.binary(max_size=9), max_size=6),
    after=st.integers(0, 40),
    kind=st.sampled_from([bytes, bytearray, memoryview]),
)
@settings(max_examples=200, deadline=None)
def test_so_many_bytes_come_out_and_no_more(pieces: list[bytes], after: int, kind: type) -> None:
    """However they are written; with the last of them it is gone, and with it both directions."""

    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        cut = CutStream(ours, after)
        said = 0
        is_cut = False
        for piece in pieces:
            said += len(piece)
            try:
                await cut.send_all(kind(piece))
            except trio.BrokenResourceError:
                is_cut = True
                break
        assert is_cut == (bool(pieces) and (said >= after))
        if is_cut:
            with pytest.raises(trio.ClosedResourceError):
                await ours.send_all(b"x")
        else:
            await cut.send_eof()
        assert await arrived(theirs) == b"".join(pieces)[:after]

    trio.run(main)


async def test_it_is_the_stream_below_otherwise() -> None:
    """What is heard, and both ends."""
    ours, theirs = trio.testing.memory_stream_pair()
    cut = CutStream(ours, 10)
    await theirs.send_all(b"hello")
    assert bytes(await cut.receive_some(2)) == b"he"
    assert bytes(await cut.receive_some()) == b"llo"
    await cut.wait_send_all_might_not_block()
    await cut.send_eof()
    assert await arrived(theirs) == b""
    await cut.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()


# conversations that are cut


WORDS: list[Frame] = [Frame.Text("Grüße"), Frame.Ping(b"p"), Frame.Binary(b"\x00\xff"), Frame.Text("")]


SAID = len(client_bytes(*WORDS, close(1000)))
"""Bytes of the conversation below, its Close included."""


class Witness:
    """A handler that notes how it ended."""

    def __init__(self) -> None:
        self.sessions: list[BaseSession] = []
        self.errors: list[BaseException | None] = []

    async def __call__(self, session: BaseSession) -> None:
        """Echo, and keep what it was that ended it."""
        self.sessions.append(session)
        try:
            async for frame in session:
                await session.send(frame)
        except ConnectionClosed as error:
            self.errors.append(error)
            raise
        else:
            self.errors.append(None)

    def assert_broken(self) -> None:
        """It saw the one broken end of the one conversation, and nothing is left."""
        [session], [error] = self.sessions, self.errors
        assert isinstance(error, ConnectionBroken)
        assert error.session is session
        assert CloseReason(1006) == error.close_reason == session.close_reason
        assert session.close_received is None
        assert_all_over(session)


@pytest.mark.parametrize("after", range(SAID))
async def test_a_conversation_cut_at_any_byte_is_a_broken_end(
    after: int, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """W-07, W-21: 1006 for the handler, nothing left, nothing above INFO."""
    caplog.set_level(logging.INFO)
    witness = Witness()
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with open_test_host(application(witness)) as host:
        async with host.websocket("/", cut_after=after) as conversation:
            for frame in WORDS:
                conversation.outgoing.send_nowait(frame)
        assert () == host.sessions
        assert conversation.close_reason is not None
        assert conversation.session.close_received is None
    witness.assert_broken()
    assert [] == records_above_info(caplog)
    assert tasks == trio.lowlevel.current_statistics().tasks_living


@pytest.mark.parametrize("raw", [False, True], ids=["messages", "frames"])
@pytest.mark.parametrize("after", range(SAID))
async def test_bytes_cut_anywhere_are_a_broken_end(
    after: int, raw: bool, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """W-07, W-21: the same, byte by byte, for either kind of route; the client hears nothing more."""
    caplog.set_level(logging.INFO)
    witness = Witness()
    app = raw_application(witness) if raw else application(witness)
    async with open_test_host(app) as host:
        assert b"" == await host.websocket_bytes("/", client_bytes(*WORDS, close(1000)), cut_after=after)
        assert () == host.sessions
    witness.assert_broken()
    assert [] == records_above_info(caplog)


@pytest.mark.parametrize("after", [SAID, SAID + 1, 1 << 20])
async def test_a_conversation_cut_behind_its_close_has_ended_cleanly(after: int, autojump_clock: Clock) -> None:
    """All that was to be said was said; so nothing is cut that is longer than the conversation."""
    witness = Witness()
    async with open_test_host(application(witness)) as host, host.websocket("/", cut_after=after) as conversation:
        for frame in WORDS:
            conversation.outgoing.send_nowait(frame)
    assert [None] == witness.errors
    assert [CloseReason(1000)] == [session.close_received for session in witness.sessions]


async def test_a_raw_conversation_can_be_cut_in_a_frame(autojump_clock: Clock) -> None:
    """Half a fragmented message is no message."""
    witness = Witness()
    cut_after = len(masked(0x01, b"half")) + 3
    async with (
        open_test_host(application(witness)) as host,
        host.websocket_raw("/", cut_after=cut_after) as conversation,
    ):
        await conversation.outgoing.send(Frame.Text("half", fin=False))
        await conversation.outgoing.send(Frame.Text("gone"))
        with pytest.raises(trio.EndOfChannel):
            await conversation.incoming.receive()
    witness.assert_broken()
    assert 0 == witness.sessions[0].statistics().frames_sent


async def test_a_cut_that_would_cut_nothing_is_an_error_of_the_test(autojump_clock: Clock) -> None:
    """Or the test would prove nothing."""
    async with open_test_host(application(echo)) as host:
        with pytest.raises(ValueError, match=r"cut_after is 12, but there are only 11 bytes"):
            await host.websocket_bytes("/", HELLO, cut_after=12)
        assert () == host.sessions


async def test_one_client_that_is_cut_off_does_not_touch_another(autojump_clock: Clock) -> None:
    """W-27: the others talk on."""
    async with open_test_host(application(echo)) as host, host.websocket("/") as (incoming, outgoing):
        async with host.websocket("/") as other:
            other.cut()
        await outgoing.send("still here")
        assert "still here" == (await incoming.receive()).text
