"""Several scorers as one number, and the filters that look at an iteration as a whole."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.errors import RecipeError
from selfreward.pairs import Contender, Mined, Rule
from selfreward.pairs.filters import FORM, cap_form, moving_spreads, spread_of
from selfreward.pairs.mixing import Part, mixed
from selfreward.recipe import Pairs
from selfreward.recipe_file import parse
from selfreward.stages.pairs import Group, mine_all
from tests.test_pair_rules import by, sides
from tests.test_pairs import contender

universal = settings(deadline=None, derandomize=True, max_examples=200)


def score(*means: float | None, weight: float = 1.0) -> Part:
    return Part("score", weight, means)


def gate(*means: float | None) -> Part:
    return Part("gate", 1.0, means)


def test_scores_are_normalised_then_gated_then_weighed() -> None:
    """Weights 2 and 1, gate 1, 1, ½, 0. Judge 2, 5, 4, 5 → 0, 1, ⅔, 1; length 1, 0, ½, 1 → the same.

    ⅔·(1 + 0) + ⅓·(1 + 1) = 4/3; ⅔·2 + ⅓·1 = 5/3; ½·(⅔·5/3 + ⅓·3/2) = 29/36; 0.
    """
    found = mixed([score(2, 5, 4, 5, weight=2), score(1, 0, 0.5, 1), gate(1, 1, 0.5, 0)])
    assert found == [pytest.approx(x) for x in (4 / 3, 5 / 3, 29 / 36, 0)]


def test_who_fails_a_gate_is_below_everyone_who_passes_it() -> None:
    """Guards: a gate that scores may outweigh, and negative scores that a gate of 0 would lift."""
    found = mixed([score(-9, -1, 3), gate(1, 0, 1)])
    assert found == [1, 0, 2]


def test_one_score_alone_keeps_its_scale_and_a_tie_break_changes_no_order() -> None:
    """3, 3, 4: the first two are a tie, which the surer of them wins by a millionth."""
    assert mixed([score(3, 3, 4)]) == [3, 3, 4]
    tie = Part("tie_break", 1.0, [0.0, 8.0, -5.0])
    found = mixed([score(3, 3, 4), tie])
    assert found == [pytest.approx(x, abs=1e-12) for x in (3 + 5e-6 / 13, 3 + 1e-6, 4)]


def test_what_a_scorer_could_not_read_has_no_sum() -> None:
    """Guards: a fault that counts as 0; a diagnostic decides nothing, not even by its faults."""
    parts = [score(1, None, 3), score(2, 2, 4), Part("diagnostic", 1.0, [None, 5.0, 0.0])]
    assert mixed(parts) == [1, None, 2]
    assert mixed([score(1, 2, 3), gate(None, 1, 1)]) == [None, 1, 2]
    assert mixed([score(3, 3, 3), Part("tie_break", 1.0, [None, None, None])]) == [3, 3, 3]


means = st.lists(st.one_of(st.none(), st.floats(-9, 9)), min_size=4, max_size=4)
units = st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=4, max_size=4)


@given(scores=st.lists(means, min_size=1, max_size=3), gates=st.lists(units, max_size=2), order=st.randoms())
@universal
def test_a_sum_belongs_to_its_candidate_and_is_there_where_all_could_read(
    scores: list[list[float | None]], gates: list[list[float | None]], order: random.Random
) -> None:
    parts = [score(*m) for m in scores] + [gate(*g) for g in gates]
    found = mixed(parts)
    assert [f is None for f in found] == [any(p.means[i] is None for p in parts) for i in range(4)]
    if len(scores) > 1 or gates:
        assert all(0 <= f <= 2 + 1e-9 for f in found if f is not None)
    places = sorted(range(4), key=lambda _: order.random())
    again = mixed([Part(p.role, p.weight, [p.means[i] for i in places]) for p in parts])
    assert again == [found[i] if found[i] is None else pytest.approx(found[i]) for i in places]


def anchor(sample: int, text: str, *scores: float) -> Contender:
    return Contender(100 + sample, sample, text, "stop", 10, scores, anchor=True)


def test_the_own_best_meets_the_worst_of_an_earlier_policy() -> None:
    """Own 5 and 2, anchors 3 and 1: 5 over 1; the own 2 is nobody's, and other rules see no anchor."""
    four = [contender(0, "best", 5), contender(1, "bad", 2), anchor(2, "old", 3), anchor(3, "old bad", 1)]
    mined = by(Rule("anchored"), *four)
    assert sides(mined) == [("best", "old bad")] and mined.margin == 4
    assert sides(by(Rule(), *four)) == [("best", "bad")]
    assert by(Rule("anchored", min_margin=4.5), *four).outcome == "below_margin"


def test_an_anchor_is_never_chosen() -> None:
    """Guards: the policy taught to go back to where it came from."""
    higher = [contender(0, "a", 2), anchor(1, "b", 4), anchor(2, "c", 5)]
    assert by(Rule("anchored"), *higher) == Mined(
        "below_margin", margin=0.0, detail="every answer of the anchor scored higher"
    )
    assert by(Rule("anchored"), contender(0, "a", 2), anchor(1, "b", 2)).outcome == "tie"
    assert by(Rule("anchored"), contender(0, "a", 2), contender(1, "b", 1)).outcome == "too_few_scores"
    assert by(Rule("anchored"), contender(0, "a", 5), anchor(1, "a ", 1)).outcome == "identical_text"


def pair(best: float, worst: float) -> Mined:
    return Mined("pair", best - worst, contender(0, "a", best), contender(1, "b", worst))


def test_pairs_about_form_alone_are_held_to_their_share() -> None:
    """Three right pairs and a cap of ¼ leave room for one: 0.25·n = 1 of 4. The wider margin stays."""
    mined = [pair(1, 0), pair(0.1, 0), pair(1, 0.1), pair(0.1, 0.05), pair(1, 0), Mined("tie", margin=0.0)]
    found = cap_form(mined, 1.0, 0.25)
    assert [m.outcome for m in found] == ["pair", "pair", "pair", "filtered", "pair", "tie"]
    assert [m.detail for m in found] == [None, FORM, None, f"{FORM}, beyond 0.25 of all pairs", None, None]
    assert [m.outcome for m in cap_form(mined, 1.0, 1.0)].count("pair") == 5
    assert [m.outcome for m in cap_form(mined, 1.0, 0.0)].count("pair") == 3


@given(
    margins=st.lists(st.sampled_from([1.0, 0.5, 0.1, 0.0]), max_size=30),
    cap=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]),
)
@universal
def test_no_more_pairs_are_about_form_than_the_cap_allows(margins: list[float], cap: float) -> None:
    mined = [pair(m, -0.5) for m in margins]
    found = cap_form(mined, 1.0, cap)
    kept = [m for m in found if m.outcome == "pair"]
    form = [m for m in kept if m.best and m.best.mean < 1]
    assert len(form) <= cap * len(kept) + 1e-9
    assert sum(m.best.mean >= 1 for m in kept if m.best) == margins.count(1.0)
    assert all(m.detail == FORM for m in form) and len(found) == len(mined)


def test_of_several_pairs_of_a_prompt_each_is_counted() -> None:
    """1 over 0.1, 1 over 0 and 0.1 over 0: with no room the third goes, and the other two stay."""
    three = [contender(0, "r", 1.0), contender(1, "w", 0.1), contender(2, "n", 0.0)]
    options = Pairs(rule="above_margin", format_cap=0.0)
    ((mined,), _) = mine_all(options, [Group(1, 0, 5, 0, three)], 100)
    assert {(b.text, w.text) for b, w in mined.pairs} == {("r", "w"), ("r", "n")} and mined.detail is None


def test_a_prompt_must_spread_as_far_as_those_before_it_did() -> None:
    """Decay ½: averages before each are 0, 2, ½·2 + ½·0 = 1, 1 (no spread), ½·1 + ½·4 = 2.5."""
    assert moving_spreads([2.0, 0.0, None, 4.0, 9.0], 0.5) == [0, 2, 1, 1, 2.5]
    assert spread_of([contender(0, "a", 1), contender(1, "b", 5)]) == 2
    groups = [
        Group(i, i, 5, 0, [contender(0, "a", 0.0), contender(1, "b", 2 * spread)])
        for i, spread in enumerate((2.0, 0.5, 4.0, 1.0))
    ]
    mined, _ = mine_all(Pairs(spread_ema=0.5), groups, 100)
    assert [m.outcome for m in mined] == ["pair", "filtered", "pair", "filtered"]
    assert mined[1].detail == "spread 0.500 under 2"


def test_an_anchored_rule_without_an_anchor_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"set candidates\.anchor"):
        parse({"model": "m", "pairs": {"rule": "anchored"}}, "r.yaml")
    with pytest.raises(RecipeError, match="more than the 256"):
        parse({"model": "m", "candidates": {"n": 256, "anchor": {"n": 1}}}, "r.yaml")
