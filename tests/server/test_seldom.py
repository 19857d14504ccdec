"""Which lines that strangers cause are due to be logged."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trioktor.server.seldom import Seldom


def test_a_line_is_due_when_its_period_is_over() -> None:
    """Lines are forgotten one by one, the oldest first."""
    seldom = Seldom(10)
    assert [seldom.is_due("a", 0), seldom.is_due("b", 5), seldom.is_due("a", 9.9)] == [True, True, False]
    assert [seldom.is_due("a", 10), seldom.is_due("b", 14.9), seldom.is_due("b", 15)] == [True, False, True]
    assert [seldom.is_due(str(number), 16) for number in range(19)] == [True] * 18 + [False]
    assert [seldom.is_due("new", 19.9), seldom.is_due("new", 20)] == [False, True]


@pytest.mark.parametrize(("count", "taken"), [(19, 19), (20, 20), (21, 20), (100, 20)])
def test_there_are_so_many_different_lines_in_a_period(count: int, taken: int) -> None:
    """Whoever makes up new ones fills no log."""
    seldom = Seldom(60)
    assert [seldom.is_due(str(number), 0) for number in range(count)] == [True] * taken + [False] * (count - taken)
    assert [seldom.is_due(str(number), 60) for number in range(count)] == [True] * taken + [False] * (count - taken)


def test_what_is_not_logged_counts_for_nothing() -> None:
    """A line that comes all the time is logged once in each period, not once for all."""
    seldom = Seldom(10)
    assert [now for now in range(35) if seldom.is_due("a", now)] == [0, 10, 20, 30]


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 5)), max_size=200))
def test_it_agrees_with_a_plain_model(asked: list[tuple[int, float]]) -> None:
    """Which looks through all that was ever logged."""
    seldom, logged, now = Seldom(10), list[tuple[str, float]](), 0.0
    for number, later in asked:
        line, now = str(number), now + later
        lately = [name for name, when in logged if now - when < 10]
        is_due = line not in lately and len(lately) < 20
        assert seldom.is_due(line, now) == is_due
        if is_due:
            logged.append((line, now))
