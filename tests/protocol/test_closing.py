"""How a conversation ends: the table of waits, and any order of what may happen to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from trioktor.protocol.close import CloseReason
from trioktor.protocol.closing import ClosingHandshake
from trioktor.protocol.frames import CloseFrame, Frame
from trioktor.protocol.halves import Ours, Theirs, Timer, Wait

ERROR = ValueError("first")
LATER = ValueError("later")
NORMAL, AWAY, MINE = CloseReason(1000, "bye"), CloseReason(1001), CloseReason(4000, "mine")

Input = Callable[[ClosingHandshake], Any]
INPUTS: dict[str, Input] = {
    "close": lambda it: it.close(NORMAL),
    "close without a code": lambda it: it.close(None),
    "answered": lambda it: it.answered(),
    "answered with a Close": lambda it: it.answered(CloseFrame(MINE)),
    "leave": lambda it: it.leave(),
    "leave with a Close": lambda it: it.leave(CloseFrame(MINE)),
    "precede": lambda it: it.precede(CloseFrame(MINE)),
    "fail": lambda it: it.fail(CloseReason(1011, "no Pong"), ERROR),
    "fail by the peer": lambda it: it.fail(CloseReason(1009), ERROR, by_peer=True),
    "peer's Close": lambda it: it.receive_close(AWAY),
    "peer's empty Close": lambda it: it.receive_close(None),
    "violation": lambda it: it.violate(CloseReason(1002), ERROR),
    "EOF": lambda it: it.receive_eof(),
    "written": lambda it: it.written(),
    "write failed": lambda it: it.write_failed(ERROR),
    "lose": lambda it: it.lose(LATER),
    **{f"expire {timer.name}": partial(ClosingHandshake.expire, timer=timer, cause=LATER) for timer in Timer},
}
KINDS: dict[str, dict[str, bool]] = {"server": {}, "client": {"client": True}, "raw": {"raw": True}}

ENDS: list[tuple[str, str, str, str, str | None]] = [
    # who, what happens, the wait and timer in the end, the goodbye
    ("server", "", "INPUT -", "OPEN", None),
    ("server", "close", "INPUT -", "CLOSING", "NORMAL, 'bye'"),
    ("server", "close, written", "INPUT CLOSE_TIMEOUT", "CLOSING", "NORMAL, 'bye'"),
    ("server", "close, written, peer's Close", "NOTHING -", "CLOSED", "NORMAL, 'bye'"),
    ("client", "close, written, peer's Close", "EOF LINGER", "CLOSED", "NORMAL, 'bye'"),
    ("client", "close, written, peer's Close, expire LINGER", "NOTHING -", "CLOSED", "NORMAL, 'bye'"),
    ("server", "close, peer's Close", "FLUSH -", "CLOSED", "NORMAL, 'bye'"),
    ("server", "close without a code, written", "INPUT CLOSE_TIMEOUT", "CLOSING", "None"),
    ("server", "close, written, expire CLOSE_TIMEOUT", "NOTHING -", "BROKEN", "NORMAL, 'bye'"),
    ("server", "close, expire CLOSE_TIMEOUT", "INPUT -", "CLOSING", "NORMAL, 'bye'"),
    ("server", "close, EOF", "NOTHING -", "BROKEN", "NORMAL, 'bye'"),
    ("server", "close, violation", "FLUSH -", "FAILING", "NORMAL, 'bye'"),
    ("server", "close, violation, written", "EOF LINGER", "FAILING", "NORMAL, 'bye'"),
    ("server", "close, fail", "INPUT -", "CLOSING", "NORMAL, 'bye'"),
    ("server", "close, fail by the peer", "FLUSH -", "FAILING", "NORMAL, 'bye'"),
    ("server", "precede", "INPUT -", "OPEN", None),
    ("server", "close, precede", "INPUT -", "CLOSING", "4000, 'mine'"),
    ("server", "close, peer's Close, precede", "FLUSH -", "CLOSED", "NORMAL, 'bye'"),
    ("server", "peer's Close", "ANSWERS ANSWER_GRACE", "ANSWERING", None),
    ("server", "peer's Close, close", "FLUSH -", "CLOSED", "GOING_AWAY, ''"),
    ("server", "peer's Close, answered with a Close", "FLUSH -", "CLOSED", "GOING_AWAY, ''"),
    ("server", "peer's Close, expire ANSWER_GRACE", "FLUSH -", "CLOSED", "GOING_AWAY, ''"),
    ("server", "peer's Close, expire ANSWER_GRACE, written", "NOTHING -", "CLOSED", "GOING_AWAY, ''"),
    ("server", "peer's empty Close, answered", "FLUSH -", "CLOSED", "None"),
    ("server", "peer's Close, violation, EOF, fail", "ANSWERS ANSWER_GRACE", "ANSWERING", None),
    ("server", "peer's Close, lose", "NOTHING -", "CLOSED", None),
    ("server", "peer's Close, write failed", "NOTHING -", "CLOSED", None),
    ("server", "violation", "ANSWERS ANSWER_GRACE", "FAILING", None),
    ("server", "violation, answered", "FLUSH -", "FAILING", "PROTOCOL_ERROR, ''"),
    ("server", "violation, close, written", "EOF LINGER", "FAILING", "PROTOCOL_ERROR, ''"),
    ("server", "violation, write failed", "NOTHING -", "BROKEN", None),
    ("server", "fail", "FLUSH -", "FAILING", "INTERNAL_ERROR, 'no Pong'"),
    ("server", "fail, peer's Close, written", "EOF LINGER", "FAILING", "INTERNAL_ERROR, 'no Pong'"),
    ("server", "fail by the peer, written, expire LINGER", "NOTHING -", "BROKEN", "TOO_BIG, ''"),
    ("server", "EOF", "NOTHING -", "BROKEN", None),
    ("server", "lose", "NOTHING -", "BROKEN", None),
    ("server", "write failed", "INPUT LAST_INPUT", "OPEN", None),
    ("server", "write failed, peer's Close", "NOTHING -", "CLOSED", None),
    ("server", "write failed, expire LAST_INPUT", "NOTHING -", "BROKEN", None),
    ("server", "write failed, close", "INPUT LAST_INPUT", "OPEN", None),
    ("server", "write failed, fail", "NOTHING -", "BROKEN", None),
    ("raw", "peer's Close", "ANSWERS CLOSE_TIMEOUT", "ANSWERING", None),
    ("raw", "peer's Close, close", "FLUSH -", "CLOSED", "NORMAL, 'bye'"),
    ("raw", "peer's Close, expire CLOSE_TIMEOUT", "FLUSH -", "CLOSED", None),
    ("raw", "peer's Close, leave", "FLUSH -", "CLOSED", None),
    ("raw", "peer's Close, leave with a Close", "FLUSH -", "CLOSED", "4000, 'mine'"),
    ("raw", "peer's Close, close, precede", "FLUSH -", "CLOSED", "4000, 'mine'"),
    ("raw", "violation, answered with a Close", "FLUSH -", "FAILING", "PROTOCOL_ERROR, ''"),
    ("raw", "leave", "FLUSH -", "BROKEN", None),
    ("raw", "leave, written", "EOF LINGER", "BROKEN", None),
    ("raw", "leave with a Close", "INPUT -", "CLOSING", "4000, 'mine'"),
    ("raw", "write failed, leave", "NOTHING -", "BROKEN", None),
    ("raw", "EOF", "ANSWERS CLOSE_TIMEOUT", "BROKEN", None),
    ("raw", "EOF, close", "FLUSH -", "BROKEN", "NORMAL, 'bye'"),
    ("raw", "EOF, close, written", "EOF LINGER", "BROKEN", "NORMAL, 'bye'"),
    ("raw", "EOF, close, written, lose", "NOTHING -", "BROKEN", "NORMAL, 'bye'"),
]


def played(kind: str, names: list[str]) -> ClosingHandshake:
    """A handshake after these inputs."""
    handshake = ClosingHandshake(**KINDS[kind])
    for name in names:
        INPUTS[name](handshake)
    return handshake


def shown(close: CloseFrame | None) -> str | None:
    """What a Close says."""
    return None if close is None else repr(close.reason).removeprefix("CloseReason(").removesuffix(")")


@pytest.mark.parametrize(("kind", "happens", "step", "word", "goodbye"), ENDS)
def test_what_happens_leads_where_the_table_says(
    kind: str, happens: str, step: str, word: str, goodbye: str | None
) -> None:
    """What is waited for and for how long, the word for it, and the Close that we owe."""
    handshake = played(kind, [name for name in happens.split(", ") if name])
    wait, timer = handshake.step
    assert (step, word, goodbye) == (
        f"{wait.name} {'-' if timer is None else timer.name}",
        handshake.word,
        shown(handshake.goodbye),
    )
    assert word in repr(handshake)


def test_every_cell_of_the_table_is_reached() -> None:
    """By what the tests above do, in sixteen pairs of halves."""
    reached = set()
    for kind, happens, *_ in ENDS:
        handshake = played(kind, [name for name in happens.split(", ") if name])
        reached.add((handshake.ours, handshake.theirs))
    assert reached == {(ours, theirs) for ours in Ours for theirs in Theirs}


ORDER_OURS, ORDER_THEIRS = list(Ours), list(Theirs)


@settings(max_examples=500)
@given(kind=st.sampled_from(sorted(KINDS)), names=st.lists(st.sampled_from(sorted(INPUTS)), max_size=12))
def test_any_order_of_inputs_comes_to_one_end(kind: str, names: list[str]) -> None:
    """No input is refused; no half returns, and what was settled stays; whoever goes on expiring is through."""
    handshake = ClosingHandshake(**KINDS[kind])
    for name in names:
        ours, theirs, reason = handshake.ours, handshake.theirs, handshake.reason
        cause, was_clean, sent = handshake.cause, handshake.is_clean, handshake.sent
        INPUTS[name](handshake)
        assert ORDER_OURS.index(handshake.ours) >= ORDER_OURS.index(ours)
        assert theirs is Theirs.OPEN or handshake.theirs is theirs
        assert reason in (None, handshake.reason) or name == "precede"
        assert cause in (None, handshake.cause)
        assert not was_clean or handshake.is_clean
        assert sent in (None, handshake.sent)
        assert handshake.may_accept or handshake.reason is not None
        assert handshake.is_clean == (handshake.received is not None)
        assert (handshake.sent is not None) <= (handshake.goodbye is not None)
        assert handshake.is_over == (handshake.theirs is not Theirs.OPEN)
        assert handshake.is_open == (handshake.reason is None)
        if handshake.ours is not Ours.OPEN and handshake.theirs is not Theirs.OPEN:
            assert handshake.reason is not None
    if not names:
        return
    handshake.close(NORMAL)
    for _ in range(6):
        wait, timer = handshake.step
        if timer is not None:
            handshake.expire(timer, LATER)
        elif wait is not Wait.NOTHING:
            handshake.written()
    assert handshake.step == (Wait.NOTHING, None)


def test_the_first_cause_stands_also_if_it_came_behind_the_reason() -> None:
    """It is that of the end which may come to be a broken one."""
    handshake = played("server", ["close", "fail", "lose"])
    assert (CloseReason(1000, "bye"), ERROR) == (handshake.reason, handshake.cause)
    assert played("server", ["write failed", "lose"]).cause is ERROR
    assert played("server", ["write failed", "EOF"]).cause is ERROR
    assert played("server", ["lose", "write failed"]).cause is LATER
    handshake = played("server", ["EOF", "write failed"])
    handshake.lose()
    assert handshake.cause is None  # what failed afterwards did not end it


def test_who_was_first_is_kept() -> None:
    """A Close of ours behind the peer's is no beginning."""
    assert played("server", ["close", "peer's Close"]).closed_here
    assert not played("server", ["peer's Close", "close"]).closed_here
    assert not played("server", ["fail", "close"]).closed_here
    assert played("raw", ["leave with a Close"]).closed_here
    assert played("server", ["write failed", "close"]).closed_here


def test_what_the_closes_said() -> None:
    """Ours once it is with the system, the peer's once it has come; without a code it is 1005."""
    handshake = played("server", ["close without a code", "peer's empty Close"])
    assert (None, CloseReason(1005)) == (handshake.sent, handshake.received)
    handshake.written()
    assert CloseReason(1005) == handshake.sent
    assert CloseReason(1005) == handshake.reason
    assert Frame.Close() == handshake.goodbye
    assert played("raw", ["leave", "written"]).sent is None


def test_sending_is_told_of_the_end_only_when_the_reason_is_known() -> None:
    """A write that failed is not yet the end: the peer may have said why."""
    assert played("server", ["write failed"]).may_accept
    assert played("server", ["write failed"]).is_open
    assert not played("server", ["write failed", "peer's Close"]).may_accept
    assert played("server", ["peer's Close"]).may_accept
    assert not played("server", ["peer's Close", "answered"]).may_accept
    assert not played("server", ["close"]).may_accept
