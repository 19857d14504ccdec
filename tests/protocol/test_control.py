"""The control lane by itself: what waits in it, what is dropped, and which Pings a Pong answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from trioktor.protocol.control import MAX_PONGS, ControlLane
from trioktor.protocol.frames import Frame, PingFrame
from trioktor.protocol.serializer import Serializer


def taken(lane: ControlLane) -> tuple[int, bytes]:
    """How many frames a server takes out of it, and their bytes."""
    pieces: list[bytes] = []
    return lane.take(Serializer(masking=False), pieces), b"".join(pieces)


def test_nothing_waits_at_first() -> None:
    """And nothing is out."""
    lane = ControlLane()
    assert (lane.is_waiting, lane.waiting, lane.answered) == (False, 0, [])
    assert taken(lane) == (0, b"")
    assert lane.end_pings() == lane.take_answered() == []


def test_what_was_sent_goes_out_before_the_answers() -> None:
    """Each in its order, once; only what was sent is counted as waiting."""
    lane = ControlLane()
    lane.owe_pong(PingFrame(b"1"))
    assert (lane.is_waiting, lane.waiting) == (True, 0)
    lane.send(Frame.Ping(b"2"))
    lane.send(Frame.Pong(b"3"))
    lane.owe_pong(PingFrame(b"4"))
    assert (lane.is_waiting, lane.waiting) == (True, 2)
    assert taken(lane) == (4, b"\x89\x012" + b"\x8a\x013" + b"\x8a\x011" + b"\x8a\x014")
    assert (lane.is_waiting, lane.waiting) == (False, 0)
    assert taken(lane) == (0, b"")


def test_a_pong_repeats_all_bytes_of_its_ping() -> None:
    """Up to 125 (RFC 6455 §5.5.3)."""
    lane = ControlLane()
    lane.owe_pong(PingFrame(bytes(125)))
    lane.owe_pong(PingFrame())
    assert taken(lane) == (2, b"\x8a\x7d" + bytes(125) + b"\x8a\x00")


@pytest.mark.parametrize("count", [0, 1, MAX_PONGS, MAX_PONGS + 1, 3 * MAX_PONGS])
def test_of_many_answers_the_last_sixteen_wait(count: int) -> None:
    """The oldest are dropped; what was sent is not."""
    lane = ControlLane()
    for _ in range(2 * MAX_PONGS):
        lane.send(Frame.Ping(b"!"))
    for number in range(count):
        lane.owe_pong(PingFrame(bytes([number])))
    answers = b"".join(b"\x8a\x01" + bytes([number]) for number in range(count)[-16:])
    assert taken(lane) == (32 + min(count, 16), b"\x89\x01!" * 32 + answers)


def test_what_is_dropped_is_not_written() -> None:
    """Neither what was sent nor the answers."""
    lane = ControlLane()
    lane.send(Frame.Ping(b"x"))
    lane.owe_pong(PingFrame(b"y"))
    lane.drop()
    assert (lane.is_waiting, lane.waiting) == (False, 0)
    assert taken(lane) == (0, b"")


def test_the_bytes_are_masked_by_a_client() -> None:
    """They go through the serializer as everything else."""
    lane = ControlLane()
    lane.send(Frame.Ping(b"x"))
    pieces = [b"before"]
    assert lane.take(Serializer(masking=True), pieces) == 1
    assert b"".join(pieces).startswith(b"before\x89\x81")


# Pings that are out


def test_a_ping_has_bytes_of_its_own() -> None:
    """Eight, and no two the same; or those that it is given, which may be none."""
    lane = ControlLane()
    made = {lane.begin_ping(None, number).data for number in range(100)}
    assert len(made) == 100
    assert {len(data) for data in made} == {8}
    assert lane.begin_ping(b"", 100) == Frame.Ping()
    assert lane.end_pings() == list(range(101))


def test_a_ping_is_out_once() -> None:
    """Until it is answered, or forgotten; an error changes nothing."""
    lane = ControlLane()
    lane.begin_ping(b"x", "first")
    with pytest.raises(ValueError, match="has not been answered yet"):
        lane.begin_ping(b"x", "second")
    lane.forget_ping(b"x", "second")  # it is not out
    with pytest.raises(ValueError, match="has not been answered yet"):
        lane.begin_ping(b"x", "second")
    lane.forget_ping(b"x", "first")
    lane.begin_ping(b"x", "third")
    lane.receive_pong(b"x")
    lane.begin_ping(b"x", "fourth")
    assert lane.take_answered() == ["third"]
    assert lane.end_pings() == ["fourth"]


@pytest.mark.parametrize("end", ["forget_ping", "receive_pong", "end_pings"])
def test_somebody_waits_while_a_ping_is_out(end: str) -> None:
    """Until its Pong has come, or never will, or nobody wants it any more."""
    lane = ControlLane()
    lane.send(Frame.Ping(b"x"))  # for nobody
    seen = [lane.is_ping_out]
    lane.begin_ping(b"x", "token")
    seen.append(lane.is_ping_out)
    arguments: dict[str, list[Any]] = {"receive_pong": [b"x"], "forget_ping": [b"x", "token"], "end_pings": []}
    getattr(lane, end)(*arguments[end])
    seen.append(lane.is_ping_out)
    assert seen == [False, True, False]


def test_a_ping_of_126_bytes_is_none() -> None:
    """And is not out."""
    lane = ControlLane()
    with pytest.raises(ValueError, match="at most 125"):
        lane.begin_ping(bytes(126), "token")
    assert lane.end_pings() == []


def test_at_the_end_nobody_waits() -> None:
    """Each token is given once; a Pong that comes then answers nothing."""
    lane = ControlLane()
    lane.begin_ping(b"a", 1)
    lane.begin_ping(b"b", 2)
    assert lane.end_pings() == [1, 2]
    lane.receive_pong(b"b")
    assert lane.take_answered() == lane.end_pings() == []


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "forget", "forget first", "pong", "take"]), st.sampled_from([b"", b"a", b"b", b"c"])
    ),
    max_size=40,
)


@given(STEPS)
def test_a_pong_answers_its_ping_and_all_before_it(steps: list[tuple[str, bytes]]) -> None:
    """RFC 6455 §5.5.3, as a list of Pings would have it; the one that is repeated stands last."""
    lane = ControlLane()
    out: list[tuple[bytes, int]] = []
    begun: dict[bytes, list[int]] = {}
    answered: list[Any] = []
    for token, (step, payload) in enumerate(steps):
        known = [data for data, _ in out]
        if step == "begin" and payload not in known:
            lane.begin_ping(payload, token)
            out.append((payload, token))
            begun.setdefault(payload, []).append(token)
        elif step in ("forget", "forget first") and payload in begun:  # it may be answered, or forgotten, by then
            forgotten = payload, begun[payload][-1 if step == "forget" else 0]
            lane.forget_ping(*forgotten)
            out = [ping for ping in out if ping != forgotten]
        elif step == "pong":
            lane.receive_pong(payload)
            if payload in known:
                answered += [token for _, token in out[: known.index(payload) + 1]]
                del out[: known.index(payload) + 1]
        elif step == "take":
            assert lane.take_answered() == answered
            answered = []
    assert lane.answered == answered
    assert lane.end_pings() == [token for _, token in out]
