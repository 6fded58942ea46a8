"""Judge health by hand: a fault is counted as one and enters nothing else."""

from __future__ import annotations

import pytest

from selfreward.collapse.judging import Score, agreement, at_top, by_prompt, readings, since, top_of
from selfreward.collapse.limits import Reading


def rows(*groups: str, lengths: str = "") -> list[list[Score]]:
    """`"5 4 -"`: a prompt with three verdicts, the last unread."""
    return [
        [
            Score(f"p{i}", None if s == "-" else float(s), float(n))
            for s, n in zip(g.split(), lengths.split() or [10] * 9, strict=False)
        ]
        for i, g in enumerate(groups)
    ]


def health(groups: list[list[Score]], top: float = 5.0) -> dict[str, Reading]:
    return {r.signal: r for r in readings(groups, top)}


def test_faults_are_a_share_of_verdicts_and_enter_no_mean() -> None:
    """Prompt one: 1 of 2 unread; prompt two none: 25 %. Mean of 4 and of (2 + 4) / 2: 3.5."""
    found = health(rows("4 -", "2 4"))
    assert found["faults"].now.value == 0.25 and found["judge_mean"].now.value == 3.5


def test_a_prompt_without_a_readable_verdict_counts_in_faults_alone() -> None:
    found = health(rows("- -", "5 4"))
    assert found["faults"].now.value == 0.5
    assert (found["judge_mean"].now.n, found["ties"].now.n) == (1, 1)


def test_ties_are_prompts_whose_readable_scores_are_all_equal() -> None:
    """5 5 and 3 - 3 tie, 4 5 does not, a lone 4 cannot: 2 of 3."""
    found = health(rows("5 5", "3 - 3", "4 5", "4 -"))["ties"].now
    assert (found.value, found.n) == (pytest.approx(2 / 3), 3)


def test_top_scores_count_what_is_within_five_percent_of_the_scale() -> None:
    """4.8 of 5 is at the top, 4.7 is not: (1 + ½) / 2."""
    assert at_top(4.75, 5.0) and not at_top(4.7, 5.0)
    assert health(rows("5 4.8", "4.7 5"))["top_score"].now.value == 0.75


def test_spread_is_the_standard_deviation_within_a_prompt_over_the_scale() -> None:
    """2 and 4: 1 / 5; 3 and 3: 0. Between prompts nothing is counted."""
    assert health(rows("2 4", "3 3"))["spread"].now.value == pytest.approx(0.1)


def test_the_commonest_score_is_named() -> None:
    found = health(rows("4 4", "4 5"))["same_score"]
    assert found.now.value == 0.75 and found.detail == "it is 4"


def test_length_correlation_is_by_rank_within_a_prompt() -> None:
    """Scores 1 2 3 at lengths 10 20 900: 1. The same the other way round: −1."""
    assert health(rows("1 2 3", lengths="10 20 900"))["length_correlation"].now.value == pytest.approx(1.0)
    both = rows("1 2 3", "3 2 1", lengths="10 20 900")
    assert health(both)["length_correlation"].now.value == pytest.approx(0.0)


def test_verdicts_without_prompts_are_correlated_over_all() -> None:
    alone = [[Score(None, float(i % 5), float(i % 5 + 10))] for i in range(60)]
    found = health(alone)["length_correlation"].now
    assert found.value == pytest.approx(1.0) and found.n == 60


def test_agreement_is_tau_b_prompt_by_prompt() -> None:
    """1 2 3 and 1 3 2: two pairs agree, one does not: 1/3. A prompt of ties is left out."""
    found = agreement({"a": [1, 2, 3], "b": [1, 2]}, {"a": [1, 3, 2], "b": [4, 4]})
    assert found is not None and (found.now.value, found.now.n) == (pytest.approx(1 / 3), 1)
    assert agreement({"a": [1, 2]}, {"b": [1, 2]}) is None


def test_rows_of_a_prompt_stand_together_and_rows_without_one_alone() -> None:
    given = [Score("a", 1.0), Score("a", 2.0), Score(None, 3.0), Score(None, 3.0), Score("a", 4.0)]
    assert [len(g) for g in by_prompt(given)] == [2, 1, 1, 1]


@pytest.mark.parametrize(
    ("scores", "top"), [([0.2, 1], 1), ([4], 5), ([7, 2], 10), ([99], 100), ([250], 250)]
)
def test_the_scale_ends_at_the_least_usual_end(scores: list[float], top: float) -> None:
    assert top_of([Score(None, float(s)) for s in scores]) == top


def test_a_shift_is_in_standard_deviations_of_before() -> None:
    """Means 1 and 3 (sd √2 around 2) before, 4 and 6 after: 3 / √2. Spread: 1 before, 1 after."""
    found = {r.signal: r for r in since(rows("1", "3"), rows("4", "6"), 10.0)}
    assert found["score_shift"].now.value == pytest.approx(3 / 2**0.5)
    assert found["spread_ratio"].now.value == pytest.approx(1.0)


def test_a_fall_is_a_shift_too() -> None:
    found = {r.signal: r.now for r in since(rows("4", "6"), rows("1", "3"), 10.0)}["score_shift"]
    assert found.value == pytest.approx(3 / 2**0.5) and found.low <= found.value <= found.high


def test_beside_a_baseline_each_signal_is_compared_with_it() -> None:
    found = {r.signal: r for r in readings(rows("5 5", "5 5"), 5.0, rows("5 4", "4 3"))}
    assert found["top_score"].against == 0.25
    change = found["top_score"].change
    assert change is not None and change.value == 0.75
