"""Intervals near the edges, paired differences, tests and sampled answers: by hand, then by simulation."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward import stats
from selfreward.stats import Interval

universal = settings(deadline=None, derandomize=True, max_examples=100)


@pytest.mark.parametrize(("freedom", "table"), [(1, 12.706), (2, 4.303), (5, 2.571), (9, 2.262), (29, 2.045)])
def test_the_quantile_of_student_is_that_of_the_tables(freedom: int, table: float) -> None:
    assert stats.student(freedom) == pytest.approx(table, abs=0.006)


def test_half_of_ten_prompts_has_wilsons_interval_with_students_quantile() -> None:
    """Q = 2.2622: 0.5 ± 2.2622 / (1 + 0.51174) · √(0.025 + 0.51174 / 40) = 0.5 ± 0.2909."""
    found = stats.bounded([1] * 5 + [0] * 5, [1] * 10)
    assert (found.value, found.n) == (0.5, 10)
    assert (found.low, found.high) == (pytest.approx(0.2091, abs=2e-4), pytest.approx(0.7909, abs=2e-4))


def test_nothing_right_in_ten_prompts_reaches_above_zero_however_many_samples_each_has() -> None:
    """(q²/10) / (1 + q²/10) = 0.51174 / 1.51174 = 0.3385: eight samples of a prompt are not eight prompts."""
    for samples in (1, 8):
        found = stats.bounded([0] * 10, [samples] * 10)
        assert (found.value, found.low) == (0.0, 0.0) and found.high == pytest.approx(0.3385, abs=2e-4)


def test_a_scale_moves_the_interval_along() -> None:
    """A mean of 1..10 grades is 1 + 9 times that of the same grades between 0 and 1."""
    grades = [9.0, 10.0, 4.0, 7.5, 10.0, 1.0]
    unit, found = stats.bounded([(g - 1) / 9 for g in grades], [1] * 6), stats.bounded(grades, [1] * 6, 1, 10)
    for a, b in ((unit.value, found.value), (unit.low, found.low), (unit.high, found.high)):
        assert 1 + 9 * a == pytest.approx(b)


def test_a_mean_of_answers_weighs_each_answer_and_clusters_by_prompt() -> None:
    """(2 + 1) / (2 + 4) = 0.5; eight equal answers of a prompt tell no more than one."""
    assert stats.bounded([2, 1], [2, 4]).value == 0.5
    one, eight = stats.bounded([1, 0] * 10, [1] * 20), stats.bounded([8, 0] * 10, [8] * 20)
    assert eight.high - eight.low == pytest.approx(one.high - one.low)


@given(rows=st.lists(st.tuples(st.integers(1, 8), st.floats(0, 1)), min_size=1, max_size=40))
@universal
def test_an_interval_holds_its_value_stays_in_range_and_is_never_of_width_zero(
    rows: list[tuple[int, float]],
) -> None:
    found = stats.bounded([round(n * part) for n, part in rows], [n for n, _ in rows])
    assert 0 <= found.low <= found.value <= found.high <= 1 and found.high - found.low > 1e-3


def coverage(p: float, n: int, samples: int, alike: float, repeats: int) -> float:
    """How often `bounded` holds p: prompts differ in difficulty by a beta law with correlation `alike`."""
    rng = np.random.default_rng(n + samples)
    size = 1 / alike - 1
    rates = rng.beta(p * size, (1 - p) * size, (repeats, n))
    hits = rng.binomial(samples, rates)
    found = [stats.bounded(row, [samples] * n) for row in hits.tolist()]
    return sum(f.low <= p <= f.high for f in found) / repeats


@pytest.mark.parametrize(("p", "least", "most"), [(0.5, 0.93, 0.97), (0.2, 0.93, 0.97), (0.05, 0.93, 1.0)])
def test_intervals_of_clustered_answers_hold_the_truth_as_often_as_they_say(
    p: float, least: float, most: float
) -> None:
    """1500 repeats: a standard error of 0.6 points; the bounds are those of the suites' promise."""
    assert least <= coverage(p, 30, 4, 0.3, 1500) <= most


def test_a_paired_difference_takes_the_spread_of_prompts_out() -> None:
    left = [[0.0, 1.0], [5.0, 6.0], [9.0, 8.0]]
    right = [[x + 1 for x in values] for values in left]
    assert stats.clustered_difference(left, right, 10.0) == Interval(1.0, 1.0, 1.0, 3)


def test_no_difference_seen_is_not_no_difference() -> None:
    """Eight prompts alike: two pseudo-prompts of ±1 weigh ½ each, √((0 + 1) / 10) / √10 = 0.1; 0 ± 0.196."""
    found = stats.clustered_difference([[1.0]] * 8, [[1.0]] * 8, 1.0)
    assert found == Interval(0.0, pytest.approx(-0.196, abs=1e-3), pytest.approx(0.196, abs=1e-3), 8)
    assert stats.clustered_difference([[1.0]], [[0.0]], 1.0) == Interval(-1.0, -1.0, 1.0, 1)


def test_samples_of_a_prompt_do_not_make_a_difference_surer() -> None:
    left, right = [[0.0]] * 20, [[1.0], [0.0]] * 10
    once = stats.clustered_difference(left, right, 1.0)
    often = stats.clustered_difference([v * 4 for v in left], [v * 4 for v in right], 1.0)
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))


def test_sides_of_unequal_size_are_refused() -> None:
    for left, right in (([[1.0]], [[1.0, 2.0]]), ([[]], [[]]), ([[1.0]], [])):
        with pytest.raises(ValueError):
            stats.clustered_difference(left, right, 1.0)


def test_signs_alone_are_counted_exactly() -> None:
    """Five 1: both all-equal flips of 32. 3, 1, -1: |3| or more in 3 of 4. Zeros flip to themselves."""
    assert stats.sign_flip([1.0] * 5) == 2 / 32
    assert stats.sign_flip([3.0, 1.0, -1.0]) == 0.75
    assert stats.sign_flip([1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]) == 2 / 32
    assert stats.sign_flip([0.0, 0.0]) == 1.0 and stats.sign_flip([1.0, -1.0]) == 1.0


def test_drawn_signs_agree_with_counted_ones_and_never_give_zero() -> None:
    """Of 16 equal signs and 4 others: P(|B - 10| ≥ 6), B ~ Bin(20, ½) = 2 · 6196 / 2²⁰ = 0.01182."""
    assert stats.sign_flip([1.0] * 16 + [-1.0] * 4) == pytest.approx(0.01182, abs=0.004)
    assert stats.sign_flip([1.0] * 40) == 1 / 10_001


def test_several_suites_are_corrected_for_in_the_order_of_their_p() -> None:
    """3 · 0.01, then 2 · 0.03, then the larger of 0.04 and 0.06."""
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0] and stats.holm([0.02]) == [0.02] and stats.holm([]) == []


def test_what_can_be_detected_and_what_would_be_needed() -> None:
    """±1 around 0.1, sd √(100/99) = 1.005: 2.8016 · 1.005 / 10 = 0.2816; (2.8016 · 10.05)² = 792.8."""
    differences = [1.1, -0.9] * 50
    assert stats.detectable(differences) == pytest.approx(0.2816, abs=1e-4)
    assert stats.prompts_needed(differences) == 793
    assert stats.prompts_needed([1.0, -1.0]) is None
    with pytest.raises(ValueError, match="fewer than two"):
        stats.detectable([1.0])


@pytest.mark.parametrize("effect", [0.0, 0.2])
def test_differences_are_held_and_no_better_is_seen_where_there_is_none(effect: float) -> None:
    """300 repeats of 40 clustered prompts: coverage within 3 standard errors, false alarms at most 5 %."""
    rng = np.random.default_rng(7)
    held = better = 0
    for _ in range(300):
        rates = rng.beta(1, 1.5, 40)
        left = rng.binomial(1, rates[:, None], (40, 2)).astype(float)
        right = rng.binomial(1, (rates * (1 - effect) + effect)[:, None], (40, 2)).astype(float)
        truth = effect * (1 - 0.4)
        found = stats.clustered_difference(left.tolist(), right.tolist(), 1.0)
        held += found.low <= truth <= found.high
        better += found.low > 0 and stats.sign_flip((right - left).mean(1).tolist(), 500) <= 0.05
    assert held / 300 >= 0.912
    assert better / 300 <= 0.05 if effect == 0 else better / 300 > 0.1


def test_pass_at_k_by_hand() -> None:
    """2 of 4 right, 2 drawn: 1 − 1/6. One of 8 right, 8 drawn: certain. None right: never."""
    assert stats.pass_at_k(4, 2, 2) == pytest.approx(5 / 6)
    assert stats.pass_at_k(8, 1, 8) == 1.0 and stats.pass_at_k(8, 0, 8) == 0.0
    assert stats.pass_at_k(8, 3, 1) == pytest.approx(3 / 8)


def test_pass_at_k_is_its_closed_form_everywhere() -> None:
    for n in range(1, 25):
        for right in range(n + 1):
            for k in range(1, n + 1):
                closed = 1 - math.comb(n - right, k) / math.comb(n, k)
                assert stats.pass_at_k(n, right, k) == pytest.approx(closed, abs=1e-12)


def test_pass_at_k_is_what_a_million_draws_give() -> None:
    draws = np.random.default_rng(1).hypergeometric(3, 7, 4, 1_000_000)
    assert stats.pass_at_k(10, 3, 4) == pytest.approx(float((draws > 0).mean()), abs=0.002)


@pytest.mark.parametrize(("n", "right", "k"), [(4, 2, 5), (4, 5, 1), (4, 2, 0), (4, -1, 1)])
def test_pass_at_k_of_too_few_samples_is_refused(n: int, right: int, k: int) -> None:
    with pytest.raises(ValueError):
        stats.pass_at_k(n, right, k)


def test_a_majority_is_most_votes_and_a_tie_is_shared_whatever_the_order() -> None:
    assert stats.majority(["a", "a", "b"], "a") == 1.0 and stats.majority(["b", "b", "a"], "a") == 0.0
    for order in permutations(["a", "a", "b", "b", "c"]):
        assert stats.majority(order, "a") == 0.5
    assert stats.majority(["a", "b", "c"], "z") == 0.0
    with pytest.raises(ValueError):
        stats.majority([], "a")


def test_attempts_are_counted_to_the_first_right_one_and_an_unread_one_is_spent() -> None:
    assert stats.attempts([False, None, True, True]) == 3
    assert stats.attempts([True]) == 1 and stats.attempts([False, None]) == 2
