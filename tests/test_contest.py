"""Two orders as one preference, and preferences as one number a candidate: worked by hand."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.rubric.contest import BothOrders, both_orders, bradley_terry, copeland, soft_preference

universal = settings(deadline=None, derandomize=True, max_examples=100)
shares = st.lists(st.sampled_from([0.0, 0.5, 1.0, None]), min_size=6, max_size=6)
PAIRS = list(combinations(range(4), 2))


@pytest.mark.parametrize(
    ("x_first", "y_first", "preference", "consistent"),
    [
        (1, 0, 1, True),  # A, then B: x both times
        (0, 1, 0, True),
        (1, 1, 0.5, False),  # whoever comes first: disagreement is a tie
        (0, 0, 0.5, False),
        (0.5, 0.5, 0.5, True),
        (1, 0.5, 0.5, False),
        (None, 0, None, None),  # a fault is no tie and says nothing of consistency
        (1, None, None, None),
    ],
)
def test_a_preference_is_what_both_orders_say(
    x_first: float | None, y_first: float | None, preference: float | None, consistent: bool | None
) -> None:
    """Guards: order decides; an unreadable reply becomes a tie."""
    assert both_orders(x_first, y_first) == BothOrders(preference, consistent)


def test_a_soft_preference_is_the_mean_of_both_orders() -> None:
    """P(x) is 0.9 shown first and 1 − 0.4 = 0.6 shown second: 0.75. A judge of positions gets 0.5."""
    assert soft_preference(0.9, 0.4) == pytest.approx(0.75)
    assert soft_preference(0.8, 0.8) == pytest.approx(0.5)


def test_copeland_counts_wins_and_half_the_ties_of_what_could_be_read() -> None:
    """0 beats 1, ties 2; 1 beats 2; 3 was only in a comparison that could not be read."""
    found = copeland(4, {(0, 1): 1.0, (0, 2): 0.5, (1, 2): 0.9, (0, 3): None})
    assert found == [0.75, 0.5, 0.25, None]


def test_bradley_terry_finds_the_odds() -> None:
    """Three wins of four are odds of 3 to 1: b_0 − b_1 = ln 3, when the prior hardly counts."""
    a, b = bradley_terry(2, {(0, 1): 0.75}, prior=1e-9)
    assert a is not None and b is not None and a - b == pytest.approx(math.log(3), abs=1e-4)


def test_bradley_terry_keeps_one_who_always_won_finite() -> None:
    """With one drawn game each against 1: wins 1.5 = s/(s + 1/s) + s/(s + 1), which s = 2.1304 solves."""
    a, b = bradley_terry(2, {(0, 1): 1.0})
    assert a == pytest.approx(-(b or 0)) and a is not None
    s = math.exp(a)
    assert s / (s + 1 / s) + s / (s + 1) == pytest.approx(1.5) and s == pytest.approx(2.1304, abs=1e-3)


def test_one_who_met_nobody_has_no_strength() -> None:
    assert bradley_terry(3, {(0, 1): 0.5, (1, 2): None}) == [0.0, 0.0, None]
    assert copeland(0, {}) == [] and bradley_terry(0, {}) == []


@given(said=shares)
@universal
def test_strengths_expect_as_many_wins_as_there_were(said: list[float | None]) -> None:
    """The likelihood's own equation, the drawn game against strength 1 included."""
    games = dict(zip(PAIRS, said, strict=True))
    found = bradley_terry(4, games)
    for i, b in enumerate(found):
        mine = {p: s for p, s in games.items() if i in p and s is not None}
        assert (b is None) == (not mine)
        if b is None:
            continue
        won = 0.5 + sum(s if p[0] == i else 1 - s for p, s in mine.items())
        others = [0.0, *(found[p[1] if p[0] == i else p[0]] or 0.0 for p in mine)]
        assert sum(1 / (1 + math.exp(o - b)) for o in others) == pytest.approx(won, abs=1e-6)


@given(said=shares)
@universal
def test_neither_the_order_of_games_nor_the_side_named_first_decides(said: list[float | None]) -> None:
    games = dict(zip(PAIRS, said, strict=True))
    turned = {(j, i): None if s is None else 1 - s for (i, j), s in reversed(games.items())}
    assert copeland(4, games) == copeland(4, turned)
    for a, b in zip(bradley_terry(4, games), bradley_terry(4, turned), strict=True):
        assert a == b or a == pytest.approx(b, abs=1e-9)


@pytest.mark.parametrize(
    "games", [{(0, 0): 1.0}, {(0, 2): 1.0}, {(-1, 1): 1.0}, {(0, 1): 1.5}, {(0, 1): math.nan}]
)
def test_what_is_no_preference_between_two_is_refused(games: dict[tuple[int, int], float]) -> None:
    with pytest.raises(ValueError, match="no preference between two of 2"):
        copeland(2, games)
    with pytest.raises(ValueError):
        bradley_terry(2, {(0, 1): 1.0}, prior=0)
