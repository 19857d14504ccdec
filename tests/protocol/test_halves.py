"""The table of what to wait for: it is complete, and says what the RFC asks of each side."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pytest

from trioktor.protocol.halves import CLIENT_WAITS, RAW_WAITS, WAITS, WORDS, Ours, Step, Theirs, Timer, Wait

TABLES = {"server": WAITS, "client": CLIENT_WAITS, "raw": RAW_WAITS}
PAIRS = set(product(Ours, Theirs))

each_table = pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))


def wait(table: Mapping[tuple[Ours, Theirs], Step], ours: Ours, theirs: Theirs) -> Wait:
    """What is waited for."""
    return table[ours, theirs][0]


@each_table
def test_there_is_a_step_for_each_pair(table: Mapping[tuple[Ours, Theirs], Step]) -> None:
    """And for nothing else."""
    assert set(table) == PAIRS


@each_table
def test_input_is_read_just_while_it_may_come(table: Mapping[tuple[Ours, Theirs], Step]) -> None:
    """RFC 6455 §1.4: behind the peer's Close, or a broken rule, nothing is read."""
    assert {pair for pair in PAIRS if wait(table, *pair) is Wait.INPUT} == {(ours, Theirs.OPEN) for ours in Ours}


@each_table
def test_the_handler_answers_only_while_it_may_send(table: Mapping[tuple[Ours, Theirs], Step]) -> None:
    """To what came before the end; it has a time for that."""
    for pair in PAIRS:
        if wait(table, *pair) is Wait.ANSWERS:
            assert pair[0] is Ours.OPEN
            assert table[pair][1] in (Timer.ANSWER_GRACE, Timer.CLOSE_TIMEOUT)
    for theirs in (Theirs.CLOSED, Theirs.FAILED):
        assert wait(table, Ours.OPEN, theirs) is Wait.ANSWERS


@each_table
def test_what_was_accepted_goes_out_to_a_peer_that_is_there(table: Mapping[tuple[Ours, Theirs], Step]) -> None:
    """Before the stream is closed; only while we are closing."""
    assert {pair[0] for pair in PAIRS if wait(table, *pair) is Wait.FLUSH} == {Ours.CLOSING}
    for theirs in (Theirs.CLOSED, Theirs.FAILED):
        assert wait(table, Ours.CLOSING, theirs) is Wait.FLUSH


@each_table
def test_the_end_of_the_stream_is_waited_for_once_all_is_said(table: Mapping[tuple[Ours, Theirs], Step]) -> None:
    """With a time; a reset would overtake our Close."""
    for pair in PAIRS:
        if wait(table, *pair) is Wait.EOF:
            assert pair[0] is Ours.CLOSED
            assert table[pair][1] is Timer.LINGER
    assert wait(table, Ours.CLOSED, Theirs.FAILED) is Wait.EOF


@each_table
def test_only_an_open_conversation_waits_without_a_time(table: Mapping[tuple[Ours, Theirs], Step]) -> None:
    """Where the writer writes it has times of its own, and where nothing is waited for none is needed."""
    for pair in PAIRS:
        step, timer = table[pair]
        is_free = step in (Wait.FLUSH, Wait.NOTHING) or pair in (
            (Ours.OPEN, Theirs.OPEN),
            (Ours.CLOSING, Theirs.OPEN),
        )
        assert (timer is None) is is_free


@each_table
def test_nothing_is_waited_for_when_both_are_gone(table: Mapping[tuple[Ours, Theirs], Step]) -> None:
    """Nor when we can say nothing more and the peer has ended."""
    for theirs in (Theirs.CLOSED, Theirs.FAILED, Theirs.GONE):
        assert wait(table, Ours.GONE, theirs) is Wait.NOTHING


@pytest.mark.parametrize("table", [WAITS, CLIENT_WAITS], ids=["server", "client"])
def test_a_peer_that_is_gone_is_nothing_to_wait_for(table: Mapping[tuple[Ours, Theirs], Step]) -> None:
    """Ours goes with theirs, but for a raw handler."""
    assert {table[ours, Theirs.GONE] for ours in Ours} == {(Wait.NOTHING, None)}


def test_each_open_end_has_its_timer() -> None:
    """The peer's Close, and what it said before it stopped reading."""
    for table in TABLES.values():
        assert table[Ours.CLOSED, Theirs.OPEN] == (Wait.INPUT, Timer.CLOSE_TIMEOUT)
        assert table[Ours.GONE, Theirs.OPEN] == (Wait.INPUT, Timer.LAST_INPUT)


def test_the_server_closes_the_stream_and_the_client_waits_for_it() -> None:
    """RFC 6455 §7.1.1; there they differ, and nowhere else."""
    assert {pair for pair in PAIRS if WAITS[pair] != CLIENT_WAITS[pair]} == {(Ours.CLOSED, Theirs.CLOSED)}
    assert wait(WAITS, Ours.CLOSED, Theirs.CLOSED) is Wait.NOTHING
    assert wait(CLIENT_WAITS, Ours.CLOSED, Theirs.CLOSED) is Wait.EOF


def test_a_raw_handler_may_answer_a_peer_that_ended_its_half() -> None:
    """It answers by itself, within the time of a Close, and what it said goes out."""
    ended = {(Ours.OPEN, Theirs.CLOSED), *((ours, Theirs.GONE) for ours in (Ours.OPEN, Ours.CLOSING, Ours.CLOSED))}
    assert {pair for pair in PAIRS if WAITS[pair] != RAW_WAITS[pair]} == ended
    for theirs in (Theirs.CLOSED, Theirs.GONE):
        assert RAW_WAITS[Ours.OPEN, theirs] == (Wait.ANSWERS, Timer.CLOSE_TIMEOUT)
    assert RAW_WAITS[Ours.CLOSING, Theirs.GONE] == (Wait.FLUSH, None)
    assert RAW_WAITS[Ours.CLOSED, Theirs.GONE] == (Wait.EOF, Timer.LINGER)


def test_each_pair_that_is_not_over_has_a_word() -> None:
    """What has none is over: something else says whether it was broken."""
    assert set(WORDS) <= PAIRS
    over = PAIRS - set(WORDS)
    assert {pair for pair in PAIRS if pair[1] is Theirs.OPEN} <= set(WORDS)
    assert {pair for pair in PAIRS if pair[1] is Theirs.GONE} <= over
    assert {pair for pair in PAIRS if pair[0] is Ours.GONE and pair[1] is not Theirs.OPEN} <= over


@pytest.mark.parametrize(
    ("ours", "theirs", "word"),
    [
        (Ours.OPEN, Theirs.OPEN, "OPEN"),
        (Ours.GONE, Theirs.OPEN, "OPEN"),
        (Ours.CLOSING, Theirs.OPEN, "CLOSING"),
        (Ours.CLOSED, Theirs.OPEN, "CLOSING"),
        (Ours.OPEN, Theirs.CLOSED, "ANSWERING"),
        (Ours.OPEN, Theirs.FAILED, "FAILING"),
        (Ours.CLOSING, Theirs.FAILED, "FAILING"),
        (Ours.CLOSED, Theirs.FAILED, "FAILING"),
        (Ours.CLOSED, Theirs.CLOSED, None),
        (Ours.CLOSING, Theirs.CLOSED, None),
    ],
)
def test_the_word_says_who_may_still_speak(ours: Ours, theirs: Theirs, word: str | None) -> None:
    """Ours first, then theirs."""
    assert WORDS.get((ours, theirs)) == word


def test_every_member_explains_itself() -> None:
    """By a text of its own: the page of the architecture is made of these."""
    for kind in (Ours, Theirs, Wait, Timer):
        texts = [member.value for member in kind]
        assert all(texts)
        assert len(set(texts)) == len(texts)
