"""Numbers with their n and interval: worked out by hand, the same whenever they are computed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.stats import (
    Z95,
    Estimate,
    Interval,
    difference,
    estimate,
    interval_of,
    jackknife,
    kendall,
    linearised,
    mean,
    paired_difference,
    pearson,
    pseudo,
    quotient,
    ratio,
    share,
    share_of,
    spearman,
)  # fmt: skip

universal = settings(deadline=None, derandomize=True, max_examples=50)
numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12)


def test_a_share_of_none_reaches_above_zero() -> None:
    """Wilson for 0 of 10: high = (z²/10) / (1 + z²/10) = 0.38415 / 1.38415 = 0.27753."""
    found = share(0, 10)
    assert (found.value, found.low, found.n) == (0.0, 0.0, 10)
    assert found.high == pytest.approx(0.27753, abs=1e-5)


def test_a_share_of_half() -> None:
    """Wilson for 5 of 10: 0.5 ± 1.95996 / 1.38415 · √(0.025 + 3.84146 / 400) = 0.5 ± 0.26341."""
    found = share(5, 10)
    assert (found.low, found.high) == (pytest.approx(0.23659, abs=1e-5), pytest.approx(0.76341, abs=1e-5))


@given(n=st.integers(1, 5000), part=st.floats(0, 1))
@universal
def test_a_share_lies_in_its_interval_and_mirrors(n: int, part: float) -> None:
    hits = int(part * n)
    found, mirrored = share(hits, n), share(n - hits, n)
    assert 0 <= found.low <= found.value <= found.high <= 1 and found.low < found.high
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-9)


def test_a_mean_lies_in_its_interval_and_counts_its_prompts() -> None:
    found = mean([1.0, 2.0, 6.0])
    assert (found.value, found.n) == (3.0, 3) and 1.0 <= found.low < 3.0 < found.high <= 6.0


def test_a_bootstrap_interval_is_about_two_standard_errors_each_way() -> None:
    """100 values, half 0 and half 1: standard error √(0.25 / 100) = 0.05, so 0.5 ± 0.098."""
    found = mean([0.0, 1.0] * 50)
    assert found.low == pytest.approx(0.402, abs=0.02) and found.high == pytest.approx(0.598, abs=0.02)


def test_a_number_is_the_same_whenever_it_is_computed() -> None:
    values = [i * i % 37 / 7 for i in range(25)]
    first = mean(values)
    mean([1.0, 2.0, 3.0])
    assert mean(values) == first


def test_equal_values_have_no_width() -> None:
    assert mean([2.0, 2.0, 2.0]) == Interval(2.0, 2.0, 2.0, 3)
    assert mean([7.0]) == Interval(7.0, 7.0, 7.0, 1)


def test_a_ratio_is_of_sums_and_not_a_mean_of_ratios() -> None:
    """(1 + 9) / (10 + 10) = 0.5 and (1 + 9) / (1 + 19) = 0.5, where the mean of ratios is 0.74."""
    assert ratio([1, 9], [10, 10]).value == 0.5
    assert ratio([1, 9], [1, 19]).value == 0.5


def test_tokens_of_one_answer_are_no_independent_values() -> None:
    """Two answers of 50 equal tokens are two units; as 100 tokens they would look surer than they are."""
    clustered, flat = ratio([0.0, 50.0], [50.0, 50.0]), mean([0.0] * 50 + [1.0] * 50)
    assert clustered.value == flat.value == 0.5 and clustered.n == 2
    assert clustered.high - clustered.low > 3 * (flat.high - flat.low)


def test_a_difference_is_right_minus_left_by_prompt() -> None:
    """Each prompt gains exactly 1 though prompts differ by 100: the pairing takes that spread out."""
    assert paired_difference([0.0, 100.0, 50.0], [1.0, 101.0, 51.0]) == Interval(1.0, 1.0, 1.0, 3)


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1 values"):
        paired_difference([1.0, 2.0], [1.0])


def test_a_number_of_nothing_is_refused() -> None:
    for nothing in (lambda: share(0, 0), lambda: mean([]), lambda: ratio([], [])):
        with pytest.raises(ValueError, match="of nothing"):
            nothing()


@given(values=numbers)
@universal
def test_a_mean_always_lies_in_its_interval_and_its_interval_among_the_values(values: list[float]) -> None:
    found = mean(values)
    slack = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - slack <= found.low <= found.value <= found.high <= max(values) + slack


def test_the_jackknife_of_a_mean_has_the_standard_error_of_a_mean() -> None:
    """Of 1, 2, 3: leave-one-out means 2.5, 2, 1.5; √(2/3 · 0.5) = 1/√3, the standard error of the mean."""
    found = jackknife(2.0, [2.5, 2.0, 1.5])
    assert (found.value, found.n) == (2.0, 3)
    assert found.high - 2.0 == pytest.approx(Z95 / math.sqrt(3)) == 2.0 - found.low


def test_one_text_alone_has_no_width() -> None:
    assert jackknife(0.4, [0.0]) == Interval(0.4, 0.4, 0.4, 1)


def test_ranks_of_equal_values_are_shared_and_correlate_as_ranks() -> None:
    """1 2 2 9 has ranks 1, 2½, 2½, 4; against 10 20 30 40: covariance 4.5, variances 4.5 and 5: √0.9."""
    assert spearman([1, 2, 2, 9], [10, 20, 30, 40]) == pytest.approx(math.sqrt(0.9))
    assert spearman([1, 2, 3], [900, 20, 1]) == pytest.approx(-1.0)
    assert spearman([1, 1], [1, 2]) is None and pearson([1.0], [1.0]) is None


def test_kendalls_tau_b_by_hand() -> None:
    """1 2 2 against 1 3 2: pairs (1,2) and (1,3) agree, (2,3) is tied on the left: 2 / √(2 · 3)."""
    assert kendall([1, 2, 2], [1, 3, 2]) == pytest.approx(2 / math.sqrt(6))
    assert kendall([1, 2, 3], [3, 2, 1]) == -1.0 and kendall([1, 1], [1, 2]) is None


def test_an_interval_of_parts_is_students() -> None:
    """1, 2, 3: sd 1, t of 2 degrees 4.303: 2 ± 4.303 / √3. 41 parts: t of 40 degrees is 2.021."""
    found = interval_of(estimate([1.0, 2.0, 3.0]))
    assert found.high - 2 == pytest.approx(4.303 / math.sqrt(3), abs=1e-3) and found.n == 3
    wide = interval_of(estimate([0.0, 1.0] * 20 + [0.5]))
    sd = math.sqrt(40 * 0.25 / 40)
    assert wide.high - 0.5 == pytest.approx(2.021 * sd / math.sqrt(41), rel=1e-3)


def test_pseudo_values_of_a_mean_are_the_values() -> None:
    """Of 1, 2, 6: 3·3 − 2·4 = 1, 3·3 − 2·3.5 = 2, 3·3 − 2·1.5 = 6."""
    assert pseudo(3.0, [4.0, 3.5, 1.5], 3) == Estimate(3.0, (1.0, 2.0, 6.0), 3)


def test_a_paired_difference_of_parts_is_surer_than_an_unpaired_one() -> None:
    left, right = estimate([0.0, 100.0, 50.0]), estimate([1.0, 102.0, 53.0])
    paired, apart = difference(left, right, True), difference(left, right, False)
    assert paired.value == apart.value == pytest.approx(2.0)
    assert paired.high - paired.low < 6 < 100 < apart.high - apart.low
    with pytest.raises(ValueError, match="cannot be paired"):
        difference(left, estimate([1.0]), True)


def test_a_quotient_of_proportional_parts_is_sure() -> None:
    """Each right part is 1.5 of the left one: 1.5 with no width, though both sides spread."""
    found = quotient(estimate([2.0, 4.0, 8.0]), estimate([3.0, 6.0, 12.0]), True)
    assert (found.value, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))
    apart = quotient(estimate([2.0, 4.0, 8.0]), estimate([3.0, 6.0, 12.0]), False)
    assert apart.low < 1.5 < apart.high
    with pytest.raises(ValueError, match="nothing"):
        quotient(estimate([0.0]), estimate([1.0]), False)


def test_a_share_of_parts_has_prompts_as_units() -> None:
    """Four prompts of a half each: Wilson for 2 of 4, not for 8 texts."""
    assert share_of(estimate([0.5] * 4)) == share(2, 4)


def test_linearised_parts_have_the_ratio_as_mean() -> None:
    """10 / 20: parts ½ + (1 − 5) / 10 and ½ + (9 − 5) / 10."""
    found = linearised([1, 9], [10, 10])
    assert found.value == 0.5 and found.parts == pytest.approx((0.1, 0.9))


def test_many_units_need_no_resampling_and_little_memory() -> None:
    """5,000 values of 0 and 1: 0.5 ± 1.96 · 0.5 / √5000 = 0.5 ± 0.01386."""
    found = mean([0.0, 1.0] * 2500)
    assert found.high - 0.5 == pytest.approx(0.01386, abs=2e-5) == 0.5 - found.low
