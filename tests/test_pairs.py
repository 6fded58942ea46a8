"""Mining: the scores alone decide who is chosen; a tie, a fault or a cut answer makes no label."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.pairs import EQUAL, Contender, Mined, Terms, best_vs_worst

universal = settings(deadline=None, derandomize=True, max_examples=300)


def contender(
    sample: int, text: str | None, *scores: float, finish: str | None = "stop", n_tokens: int = 10
) -> Contender:
    return Contender(100 + sample, sample, text, finish, n_tokens, scores)


def mine(
    *contenders: Contender, prompt_tokens: int = 5, max_length: int = 100, min_margin: float = 0.0
) -> Mined:
    return best_vs_worst(contenders, Terms(prompt_tokens, max_length, min_margin))


def texts(mined: Mined) -> tuple[str | None, str | None]:
    return (mined.best and mined.best.text, mined.worst and mined.worst.text)


scores = st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0, 2.3, 4.6]), max_size=3).map(tuple)
drawn = st.builds(
    Contender,
    candidate_id=st.just(0),
    sample=st.just(0),
    text=st.sampled_from(["a", "b", "c", "d", "a\n", "", None]),
    finish=st.sampled_from(["stop", "stop", "stop", "length"]),
    n_tokens=st.integers(1, 120),
    scores=scores,
)
groups = st.lists(drawn, max_size=6).map(
    lambda g: [replace(c, candidate_id=100 + i, sample=i) for i, c in enumerate(g)]
)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_verdict_decides_whoever_comes_first(first: int) -> None:
    """Guards: a swap condition that can never be true, so that the first item always wins."""
    three = [contender(0, "bad", 1, 2), contender(1, "good", 5, 4), contender(2, "fair", 3, 3)]
    mined = mine(*three[first:], *three[:first])
    assert (mined.outcome, *texts(mined), mined.margin) == ("pair", "good", "bad", 3.0)


def test_a_tie_makes_no_pair() -> None:
    """Guards: no tie check, so that best and worst are the same answer."""
    assert mine(contender(0, "a", 3), contender(1, "b", 3), contender(2, "c", 3)) == Mined("tie", margin=0.0)


def test_equal_scores_tie_whatever_their_rounding() -> None:
    """3 samples of 4.1 against one: equal means, whose sums need not have equal last bits."""
    mined = mine(contender(0, "a", 4.1, 4.1, 4.1), contender(1, "b", 4.1))
    assert mined.outcome == "tie"
    sums = mine(contender(0, "a", 0.1 + 0.2), contender(1, "b", 0.3))
    assert 0.1 + 0.2 != 0.3 and sums.outcome == "tie"


def test_means_are_not_floored() -> None:
    """Guards: floored means that manufacture ties. 11/3 against 10/3: margin 1/3."""
    mined = mine(contender(0, "a", 3, 3, 4), contender(1, "b", 4, 4, 3))
    assert (mined.outcome, *texts(mined)) == ("pair", "b", "a")
    assert mined.margin == pytest.approx(1 / 3)


def test_a_mean_is_over_the_scores_there_are() -> None:
    """Guards: an unread sample averaged in as 0. One score of 4 is a 4, not 4/3."""
    mined = mine(contender(0, "a", 4), contender(1, "b", 3, 3, 3))
    assert (*texts(mined), mined.margin) == ("a", "b", 1.0)


def test_a_candidate_without_a_score_is_neither_chosen_nor_rejected() -> None:
    """Guards: a parse failure that competes, so that unreadable becomes "rejected"."""
    mined = mine(contender(0, "unread"), contender(1, "a", 2), contender(2, "b", 4))
    assert texts(mined) == ("b", "a")
    assert mine(contender(0, "unread"), contender(1, "a", 2)).outcome == "too_few_scores"


def test_an_unfinished_answer_never_trains() -> None:
    mined = mine(contender(0, "cut", 5, finish="length"), contender(1, "a", 2), contender(2, "b", 4))
    assert texts(mined) == ("b", "a")
    lost = mine(
        contender(0, "cut", 5, finish="length"), contender(1, "too", 1, finish="length"), contender(2, "b", 4)
    )
    assert lost.outcome == "truncated"


def test_a_refused_request_is_no_candidate() -> None:
    refused = contender(0, None, finish=None, n_tokens=0)
    assert texts(mine(refused, contender(1, "a", 2), contender(2, "b", 4))) == ("b", "a")


def test_prompt_and_answer_together_fit_exactly_or_are_left_out() -> None:
    """5 + 95 = 100 fits into 100, 5 + 96 does not and is not cut."""
    fits, beyond = contender(0, "a", 5, n_tokens=95), contender(1, "b", 1, n_tokens=96)
    other = contender(2, "c", 2)
    assert texts(mine(fits, beyond, other)) == ("a", "c")
    assert mine(fits, beyond).outcome == "too_long"


def test_one_text_judged_twice_is_no_pair() -> None:
    """Guards: chosen == rejected."""
    assert mine(contender(0, "a", 5), contender(1, " a\n", 1)).outcome == "identical_text"


def test_no_candidates_are_an_outcome_too() -> None:
    assert mine().outcome == "too_few_scores"


def test_a_margin_below_the_least_makes_no_pair_and_one_of_exactly_the_least_does() -> None:
    """3.2 − 3.0 and 4.6 − 4.4 are both 0.2: means of five whole scores."""
    for low, high in [((3, 3, 3, 3, 3), (3, 3, 3, 3, 4)), ((4, 4, 4, 5, 5), (4, 4, 5, 5, 5))]:
        two = contender(0, "a", *low), contender(1, "b", *high)
        assert mine(*two, min_margin=0.3).outcome == "below_margin"
        assert mine(*two, min_margin=0.2).outcome == "pair"


def test_equal_winners_give_the_same_texts_in_any_order() -> None:
    """Guards: ties that go to the first, so that order decides."""
    four = [contender(0, "a", 5), contender(1, "b", 5), contender(2, "c", 1), contender(3, "d", 1)]
    assert len({texts(mine(*four[i:], *four[:i])) for i in range(4)}) == 1
    assert texts(mine(*four)) == texts(mine(*reversed(four)))


@pytest.mark.parametrize("winner", ["a", "b", "c", "d", "e", "f"])
def test_whether_there_is_a_pair_does_not_hang_on_the_letters(winner: str) -> None:
    """One text was judged 5 and 1, another 5: spelling them the other way round says nothing new."""
    outcomes = {
        mine(contender(0, same, 5), contender(1, other, 5), contender(2, same, 1)).outcome
        for same, other in [("x", winner), (winner, "x")]
    }
    assert len(outcomes) == 1


@given(group=groups, order=st.randoms(use_true_random=False))
@universal
def test_the_order_of_candidates_changes_neither_texts_nor_outcome(
    group: list[Contender], order: object
) -> None:
    shuffled = sorted(group, key=lambda _: order.random())  # type: ignore[attr-defined]
    one, two = mine(*group), mine(*shuffled)
    assert (one.outcome, one.margin) == (two.outcome, two.margin)
    assert tuple(t and t.strip() for t in texts(one)) == tuple(t and t.strip() for t in texts(two))


def test_the_order_of_candidates_does_not_decide_which_of_two_twins_is_taken() -> None:
    """Twins have other tokens and ids: the row that trains must not depend on who arrives first."""
    three = [contender(0, "good", 5), contender(1, "good ", 5), contender(2, "bad", 1)]
    assert mine(*three) == mine(*reversed(three))


@given(group=groups, min_margin=st.sampled_from([0.0, 1.0]))
@universal
def test_a_pair_is_two_finished_scored_different_texts_that_fit_with_the_extreme_means(
    group: list[Contender], min_margin: float
) -> None:
    mined = mine(*group, min_margin=min_margin)
    if mined.outcome != "pair":
        assert mined.best is None and mined.worst is None
        return
    best, worst = mined.best, mined.worst
    assert best is not None and worst is not None and mined.margin is not None
    assert best.candidate_id != worst.candidate_id and (best.text or "").strip() != (worst.text or "").strip()
    assert mined.margin == best.mean - worst.mean > 0 and mined.margin >= min_margin - EQUAL
    for c in (best, worst):
        assert c.text is not None and c.finish == "stop" and c.scores and 5 + c.n_tokens <= 100
    usable = [c for c in group if c.text is not None and c.finish == "stop" and c.scores and c.n_tokens <= 95]
    assert all(worst.mean - EQUAL <= c.mean <= best.mean + EQUAL for c in usable)


@given(values=st.permutations([0.1, 0.2, 0.3, 1e9, 1e-9]))
@universal
def test_the_order_of_judge_samples_does_not_change_a_mean(values: list[float]) -> None:
    assert contender(0, "a", *values).mean == contender(0, "a", 0.1, 0.2, 0.3, 1e9, 1e-9).mean
