"""Which Pings a Pong answers, how long it took, and what is kept of them: nothing."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from tests.support.helpers import client_bytes
from trioktor.engine.pings import Pings
from trioktor.protocol.conversation import Conversation
from trioktor.protocol.frames import Frame


async def test_a_pong_answers_its_ping_and_all_before_it(autojump_clock: MockClock) -> None:
    """RFC 6455 §5.5.3: a peer may answer only the latest of several. What was answered may be sent again."""
    conversation = Conversation()
    pings = Pings(conversation)

    def receive_pong(payload: bytes) -> None:
        assert [] == list(conversation.receive(client_bytes(Frame.Pong(payload))))
        pings.note_answers()

    first, second, third = (pings.begin(payload) for payload in (b"1", b"2", b"3"))
    with pytest.raises(ValueError, match="has not been answered"):
        pings.begin(b"2")
    receive_pong(b"nobody's")
    autojump_clock.jump(3)
    receive_pong(b"2")
    assert [True, True, False] == [ping.answered.is_set() for ping in (first, second, third)]
    assert (3, 3, None, 3) == (first.round_trip, second.round_trip, third.round_trip, pings.latency)
    for payload in (b"1", b"2"):
        assert not pings.begin(payload).answered.is_set()
    pings.forget(third)
    pings.begin(b"3")


async def test_at_the_end_nobody_waits_for_a_pong(autojump_clock: MockClock) -> None:
    """And there was no round trip."""
    conversation = Conversation()
    pings = Pings(conversation)
    ping = pings.begin(None)
    assert 8 == len(ping.frame.data)
    pings.end()
    assert ping.answered.is_set()
    assert (None, None) == (ping.round_trip, pings.latency)
    assert [] == list(conversation.receive(client_bytes(Frame.Pong(ping.frame.data))))
    assert not conversation.control.answered
    assert ping.round_trip is None
