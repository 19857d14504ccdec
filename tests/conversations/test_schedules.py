"""Any order of what can happen to a conversation: nothing is torn, lost, repeated or swapped, and nobody hangs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.support.schedules import Op, PeerOp, Schedule, judge, play

EXAMPLES = int(os.environ.get("TRIOKTOR_SCHEDULES", "150"))
"""Schedules for each test; more by the environment."""

sizes = st.one_of(
    st.integers(0, 40), st.integers(100, 5000), st.sampled_from([1 << 15, (1 << 15) + 1, 1 << 16, 70_000, 200_000])
)
cancels = st.one_of(st.none(), st.integers(0, 6))


def ops(*names: str) -> st.SearchStrategy[Op]:
    """One of these things, of any size, perhaps cancelled."""
    return st.builds(Op, st.sampled_from(names), sizes, cancels)


PLAIN = ("send", "send", "send", "send_nowait", "spread", "ping", "pong", "flush", "rest", "nap", "stuck")
CHANNEL = ("channel", "channel_nowait", "clone", "channel_ping", "channel_pong_nowait")
ENDS = ("close", "channel_close_nowait", "aclose", "terminate", "drop_handle", "junk")
RECEIVING = ("receive", "take_nowait", "echo")


def tasks(*names: str) -> st.SearchStrategy[tuple[tuple[Op, ...], ...]]:
    """One to four tasks."""
    return st.lists(st.lists(ops(*names), max_size=8).map(tuple), min_size=1, max_size=4).map(tuple)


def peers(*names: str) -> st.SearchStrategy[tuple[PeerOp, ...]]:
    """What the peer does."""
    return st.lists(
        st.builds(PeerOp, st.sampled_from(names), st.integers(0, 12), st.integers(0, 3000)), max_size=8
    ).map(tuple)


configurations = st.fixed_dictionaries(
    {},
    optional={
        "outgoing": st.integers(1, 3),
        "incoming": st.integers(1, 3),
        "max_queued_bytes": st.sampled_from([1, 1000, 100_000]),
        "masking": st.booleans(),
    },
).map(lambda values: tuple(sorted(values.items())))


def schedules(names: tuple[str, ...], peer: tuple[str, ...], **fixed: Any) -> st.SearchStrategy[Schedule]:
    """Schedules of these things."""
    return st.builds(
        Schedule,
        tasks=tasks(*names),
        peer=peers(*peer) if peer else st.just(()),
        seed=st.integers(0, 1 << 16),
        end=st.sampled_from(["return", "raise", "stay"]) if peer else st.just("return"),
        is_socket=st.booleans(),
        corks=st.booleans(),
        settings=configurations,
        **{name: st.just(value) for name, value in fixed.items()},
    )


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    """Puts the stream under the engine."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


examples = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
fewer = settings(examples, max_examples=max(1, EXAMPLES // 3))
"""Of what differs in its first steps alone."""
QUIET_PEER = ("message", "ping", "pong")
ANY_PEER = (*QUIET_PEER, "message", "fragment", "close", "violate", "hang_up", "reset")


@pytest.mark.timeout(600)
@examples
@given(schedule=schedules((*PLAIN, *CHANNEL, "echo"), QUIET_PEER))
def test_what_is_sent_goes_out_whole_and_in_order(patch: pytest.MonkeyPatch, schedule: Schedule) -> None:
    """Session and channel, control frames and broadcasts, on a stream that takes what it likes."""
    judge(schedule, play(schedule, patch))


@pytest.mark.timeout(600)
@examples
@given(schedule=schedules((*PLAIN, *CHANNEL), QUIET_PEER, deflate=True))
def test_the_same_compressed(patch: pytest.MonkeyPatch, schedule: Schedule) -> None:
    """Each message inflates to itself, whatever was sent between, and however it was cut."""
    judge(schedule, play(schedule, patch))


@pytest.mark.timeout(600)
@examples
@given(schedule=schedules(("send_text", "message", "message", "fragments", "flush", "ping", "rest"), ()))
def test_the_same_in_pieces(patch: pytest.MonkeyPatch, schedule: Schedule) -> None:
    """Nobody's bytes end or extend somebody else's message."""
    judge(schedule, play(schedule, patch))


@pytest.mark.timeout(600)
@examples
@given(schedule=schedules((*PLAIN, *CHANNEL, *ENDS, *RECEIVING, "message"), ANY_PEER))
def test_every_end_is_an_end(patch: pytest.MonkeyPatch, schedule: Schedule) -> None:
    """Whoever ends it, and whenever: one Close at most, nothing behind it, and nobody waits for ever."""
    judge(schedule, play(schedule, patch))


@pytest.mark.timeout(600)
@examples
@given(schedule=schedules((*PLAIN, *CHANNEL, *ENDS, *RECEIVING, "message"), ANY_PEER, deflate=True))
def test_every_end_is_an_end_compressed(patch: pytest.MonkeyPatch, schedule: Schedule) -> None:
    """The same while long messages are being compressed."""
    judge(schedule, play(schedule, patch))


@pytest.mark.timeout(600)
@examples
@given(
    schedule=schedules(
        ("send", "send_nowait", "channel", "channel_nowait", "flush", "rest", "close", "terminate", *RECEIVING),
        ANY_PEER,
        raw=True,
    )
)
def test_every_end_is_an_end_raw(patch: pytest.MonkeyPatch, schedule: Schedule) -> None:
    """The same frame by frame."""
    judge(schedule, play(schedule, patch))


# the same of a client


@pytest.mark.timeout(600)
@fewer
@given(schedule=schedules((*PLAIN, *CHANNEL, "echo"), QUIET_PEER, is_client=True))
def test_a_clients_frames_go_out_whole_and_in_order(patch: pytest.MonkeyPatch, schedule: Schedule) -> None:
    """Masked, each with its own key."""
    judge(schedule, play(schedule, patch))


@pytest.mark.timeout(600)
@fewer
@given(schedule=schedules((*PLAIN, *CHANNEL), QUIET_PEER, is_client=True, deflate=True))
def test_a_clients_frames_compressed(patch: pytest.MonkeyPatch, schedule: Schedule) -> None:
    """As a server's."""
    judge(schedule, play(schedule, patch))


@pytest.mark.timeout(600)
@fewer
@given(schedule=schedules((*PLAIN, *CHANNEL, *ENDS, *RECEIVING, "message"), ANY_PEER, is_client=True))
def test_every_end_of_a_client_is_an_end(patch: pytest.MonkeyPatch, schedule: Schedule) -> None:
    """Whoever ends it, and whenever."""
    judge(schedule, play(schedule, patch))
