"""The other pair rules and the filters: worked by hand, and what holds for every rule on any candidates."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward import ids
from selfreward import records as r
from selfreward.errors import RecipeError
from selfreward.pairs import EQUAL, RULES, Contender, Mined, Rule, Terms, best_vs_worst, mine
from selfreward.pairs.lengths import balancing_cost
from selfreward.recipe import Pairs
from selfreward.recipe_file import parse
from selfreward.stages import pairs as stage
from selfreward.stages.pairs import Group, mine_all
from selfreward.store import Store
from tests.test_pairs import contender, groups
from tests.test_store import candidate, judgement, policy, prompt

universal = settings(deadline=None, derandomize=True, max_examples=150)


def by(rule: Rule, *contenders: Contender, seed: int = 0, max_length: int = 100) -> Mined:
    return mine(rule, contenders, prompt_tokens=5, max_length=max_length, seed=seed)


def sides(mined: Mined) -> list[tuple[str | None, str | None]]:
    return [(b.text, w.text) for b, w in mined.pairs]


FOUR = [contender(0, "a", 1), contender(1, "b", 2), contender(2, "c", 4), contender(3, "d", 5)]

rules = st.builds(
    Rule,
    name=st.sampled_from(RULES),
    min_margin=st.sampled_from([0.0, 1.0, 2.5]),
    max_similarity=st.sampled_from([None, 0.5, 1.0]),
    rho=st.sampled_from([0.0, 0.1, 0.49]),
    steady=st.sampled_from([0.0, 0.5]),
    length_cost=st.sampled_from([0.0, 0.01, 1.0]),
    p_hat=st.sampled_from([None, (0.3, 0.8)]),
    right_at=st.just(3.0),
    min_spread=st.sampled_from([0.0, 0.5]),
)


@given(group=groups, rule=rules, seed=st.integers(0, 2**48))
@universal
def test_no_rule_ever_makes_a_pair_of_what_must_not_train(
    group: list[Contender], rule: Rule, seed: int
) -> None:
    """Guards: chosen equal to rejected, ties, faults and cut answers that compete, the worse one chosen."""
    mined = by(rule, *group, seed=seed)
    assert (mined.outcome == "pair") == bool(mined.pairs)
    assert mined.margin is None or mined.margin >= 0
    said = set()
    for best, worst in mined.pairs:
        texts = (best.text or "").strip(), (worst.text or "").strip()
        assert texts[0] != texts[1] and texts[::-1] not in said and texts not in said
        said.add(texts)
        assert best.mean - worst.mean >= max(EQUAL, rule.min_margin - EQUAL)
        for c in (best, worst):
            assert c.text is not None and c.finish == "stop" and c.scores and 5 + c.n_tokens <= 100


@given(group=groups, rule=rules, seed=st.integers(0, 2**48), order=st.randoms())
@universal
def test_the_order_of_candidates_decides_nothing_by_any_rule(
    group: list[Contender], rule: Rule, seed: int, order: random.Random
) -> None:
    shuffled = sorted(group, key=lambda _: order.random())
    assert by(rule, *group, seed=seed) == by(rule, *shuffled, seed=seed)


@given(group=groups, min_margin=st.sampled_from([0.0, 1.0]), seed=st.integers(0, 9))
@universal
def test_the_defaults_are_the_papers_rule(group: list[Contender], min_margin: float, seed: int) -> None:
    assert by(Rule(min_margin=min_margin), *group, seed=seed) == best_vs_worst(
        group, Terms(5, 100, min_margin)
    )


def test_equal_texts_scored_differently_are_no_pair_by_any_rule() -> None:
    """Guards: chosen equal to rejected. `x` at 5 and 1, `y` at 3: x over y and y over x contradict."""
    twins = [contender(0, "x", 5), contender(1, "x ", 1)]
    for name in RULES:
        assert by(Rule(name), *twins, contender(2, "x\n", 3)).outcome == "identical_text"
        three = by(Rule(name), *twins, contender(2, "y", 3))
        assert all((b or "").strip() != (w or "").strip() for b, w in sides(three)), name


def test_the_best_meets_any_that_is_worse_by_the_margin() -> None:
    """With a margin of 2 `c` at 4 is too near to `d` at 5: seeds choose between `a` and `b`."""
    rule = Rule("best_vs_random", min_margin=2)
    drawn = [sides(by(rule, *FOUR, seed=s))[0] for s in range(8)]
    assert set(drawn) == {("d", "a"), ("d", "b")}
    assert drawn == [sides(by(rule, *reversed(FOUR), seed=s))[0] for s in range(8)]
    assert by(Rule("best_vs_random", min_margin=4.5), *FOUR).outcome == "below_margin"


def test_every_pair_above_the_margin_is_made_the_widest_first() -> None:
    """Margins of 2 and more among 1, 2, 4, 5: 4, 3 (d−b), 3 (c−a), 2; not 1."""
    mined = by(Rule("above_margin", min_margin=2), *FOUR)
    assert mined.margin == 4 and sides(mined)[0] == ("d", "a") and sides(mined)[3] == ("c", "b")
    assert set(sides(mined)) == {("d", "a"), ("d", "b"), ("c", "a"), ("c", "b")}
    assert by(Rule("above_margin", min_margin=9), *FOUR).outcome == "below_margin"


def test_two_pairs_that_contradict_each_other_are_both_left_out() -> None:
    """`x` stands twice, at 4 and 2, around `y` at 3: x over y and y over x; z below all is left."""
    mined = by(
        Rule("above_margin"),
        contender(0, "x", 4),
        contender(1, "y", 3),
        contender(2, "x ", 2),
        contender(3, "z", 1),
    )
    assert {(b.strip(), w.strip()) for b, w in sides(mined) if b and w} == {("x", "z"), ("y", "z")}
    twice = by(Rule("above_margin"), contender(0, "x", 4), contender(1, "y", 3), contender(2, "x", 2))
    assert twice.outcome == "identical_text"


def test_the_shortest_of_the_good_meets_the_longest_of_the_bad() -> None:
    """Means 1..5, ρ = 0.25: good from 4 (5 − 0.25·4), bad up to 2; of these 4 is short, 2 is long."""
    five = [
        contender(0, "top", 5, n_tokens=30), contender(1, "good", 4, n_tokens=10),
        contender(2, "fair", 3, n_tokens=1), contender(3, "bad", 2, n_tokens=40), 
        contender(4, "worst", 1, n_tokens=20),
    ]  # fmt: skip
    assert sides(by(Rule("length_band", rho=0.25), *five)) == [("good", "bad")]
    assert sides(by(Rule("length_band", rho=0.0), *five)) == [("top", "worst")]
    assert by(Rule("length_band", rho=0.25, min_margin=3), *five).outcome == "below_margin"


def test_of_equal_means_the_steadier_one_is_chosen() -> None:
    """3, 5, 4 and 4, 4, 4 both have mean 4; deviations 0.816 and 0. Rejected: 2, 2 rather than 1, 3."""
    four = [
        contender(0, "shaky", 3, 5, 4), contender(1, "steady", 4, 4, 4),
        contender(2, "shaky bad", 1, 3), contender(3, "steady bad", 2, 2),
    ]  # fmt: skip
    assert sides(by(Rule(steady=0.1), *four)) == [("steady", "steady bad")]
    assert sides(by(Rule(steady=0.1), *reversed(four))) == [("steady", "steady bad")]


def test_nearly_equal_texts_are_no_pair_and_the_next_different_ones_are() -> None:
    """`one two three four five` and the same with `six` for `five` share 4 of 5 words: F1 0.8."""
    one, six = "one two three four five", "one two three four six"
    twins = [contender(0, one, 5), contender(1, six, 1)]
    assert by(Rule(), *twins).outcome == "pair"
    assert by(Rule(max_similarity=0.8), *twins) == Mined("identical_text", margin=4.0)
    assert by(Rule(max_similarity=0.81), *twins).outcome == "pair"
    third = contender(2, "something else", 1)
    assert sides(by(Rule(max_similarity=0.8), *twins, third)) == [(one, "something else")]


@pytest.mark.parametrize(
    ("right", "outcome"), [(0, "filtered"), (1, "filtered"), (2, "pair"), (3, "pair"), (4, "filtered")]
)
def test_only_prompts_whose_candidates_disagree_are_mined(right: int, outcome: str) -> None:
    """Shares of right ones 0, 0.25, 0.5, 0.75, 1 against 0.3..0.8; right is 1.0 and more."""
    four = [contender(i, f"t{i}", i / 10 + (1.0 if i < right else 0.0)) for i in range(4)]
    assert by(Rule(p_hat=(0.3, 0.8)), *four).outcome == outcome


def test_a_prompt_whose_candidates_are_all_alike_is_filtered() -> None:
    """1, 2, 4, 5: deviations 2, 1, 1, 2 from 3, spread √(10/4) = 1.581."""
    assert by(Rule(min_spread=1.58), *FOUR).outcome == "pair"
    assert by(Rule(min_spread=1.59), *FOUR) == Mined("filtered", detail="spread 1.581 under 1.59")


def long_winded(n: int) -> list[list[Contender]]:
    """Prompts whose best is long by 10 tokens for one point, and whose second is short and nearly as good."""
    return [
        [contender(0, "long", 4.0, n_tokens=40), contender(1, "short", 3.9, n_tokens=20 + i % 3),
         contender(2, "bad", 1.0, n_tokens=30)]
        for i in range(n)
    ]  # fmt: skip


def test_the_length_cost_brings_the_difference_of_lengths_near_nought() -> None:
    """Long over bad is +10 tokens, short over bad −10, −9, −8: above 0.1/20 a token all turn to short."""
    prompts = long_winded(9)
    rule = Rule()

    def at(cost: float) -> list[Mined]:
        return [by(replace(rule, length_cost=cost), *group) for group in prompts]

    found = balancing_cost(at)
    assert sum(b.n_tokens - w.n_tokens for m in at(0.0) for b, w in m.pairs) == 90
    differences = [b.n_tokens - w.n_tokens for m in at(found.cost) for b, w in m.pairs]
    assert found.difference == pytest.approx(sum(differences) / len(differences)) and found.n == 9
    assert 0.1 / 20 <= found.cost <= 0.1 / 18 + 1e-6 and abs(found.difference) < 4


def test_no_cost_is_put_on_length_where_chosen_answers_are_not_longer() -> None:
    found = balancing_cost(lambda cost: [by(Rule(length_cost=cost), *FOUR)])
    assert (found.cost, found.difference, found.n) == (0.0, 0.0, 1)
    assert balancing_cost(lambda cost: []).n == 0


def test_a_length_cost_never_makes_the_worse_answer_the_chosen_one() -> None:
    two = [contender(0, "long", 4, n_tokens=50), contender(1, "short", 3, n_tokens=10)]
    assert by(Rule(length_cost=1.0), *two).outcome == "below_margin"


def test_the_recipes_settings_reach_the_rule() -> None:
    group = Group(1, 0, 5, 0, FOUR)
    mined, cost = mine_all(Pairs(rule="above_margin", min_margin=2), [group], 100)
    assert len(mined[0].pairs) == 4 and cost is None
    options = Pairs(p_hat=(0.5, 0.5), right_at=4, max_similarity=0.5, min_spread=1, steady=0.5)
    assert mine_all(options, [group], 100)[0][0].outcome == "pair"
    assert mine_all(options.model_copy(update={"right_at": 5.0}), [group], 100)[0][0].outcome == "filtered"
    groups = [Group(i, i, 5, 0, members) for i, members in enumerate(long_winded(3))]
    _, found = mine_all(Pairs(length_control="auto"), groups, 100)
    assert found is not None and found.cost > 0


@pytest.mark.parametrize(
    "settings",
    [{"rule": "worst_vs_best"}, {"rho": 0.5}, {"rule": "length_band", "steady": 1}, {"p_hat": [0.8, 0.3]},
     {"rule": "above_margin", "length_control": "auto"}, {"max_similarity": 0}, {"min_spread": -1}],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        parse({"model": "m", "pairs": settings}, "r.yaml")


def work_of(settings: dict[str, Any], **others: Any) -> Any:
    """As much of the loop's hands as the stage asks of them, with a scorer that needs no engine."""
    recipe = parse({"model": "m", "rewards": [{"type": "length"}], "pairs": settings}, "r.yaml")
    return SimpleNamespace(recipe=recipe, **others)


def test_a_setting_that_is_as_it_always_was_changes_no_older_run() -> None:
    """Guards: every run that was made before refuses to go on, because a new key is in its `made_from`."""
    assert stage.made_from(work_of({}), policy(1)) == {
        "pairs.rule": "best_vs_worst", "pairs.min_margin": 0.0, "training.max_length": 2048
    }  # fmt: skip
    changed = stage.made_from(work_of({"rho": 0.2, "p_hat": [0.3, 0.8]}), policy(1))
    assert changed["pairs.rho"] == 0.2 and list(changed["pairs.p_hat"]) == [0.3, 0.8]


@pytest.mark.parametrize(
    ("dropped", "n", "outcome"), [(0, 3, "pair"), (1, 2, "pair"), (3, 0, "dropped_by_review")]
)
def test_several_pairs_of_a_prompt_are_stored_and_reviews_count(
    tmp_path: Path, dropped: int, n: int, outcome: str
) -> None:
    """Scores 1, 0.5 and 0 make three pairs; what a person dropped stays and does not count."""
    store = Store(tmp_path / "selfreward.db", write=True)
    run = r.Run(id=1, name="a", recipe="{}", fingerprint="f", seed=0, created_at="now")
    store.save(run)
    store.save(policy(0), policy(1))
    of = r.Stage(run_id=1, policy="M1", name="pairs", made_in=1, status="pending")
    store.save(of)
    store.add([prompt(0), *(candidate(0, s, f"answer {s}") for s in range(3))])
    store.add([judgement(0, s, 0, score, "length") for s, score in enumerate((1.0, 0.5, 0.0))])
    own = [ids.candidate_id(1, 1, 0, s) for s in range(3)]
    for chosen, rejected in [(0, 1), (0, 2), (1, 2)][:dropped]:
        said = {"chosen_id": own[chosen], "rejected_id": own[rejected]}
        store.add([r.Review(run_id=1, **said, review="drop", at="now")])
    engine = SimpleNamespace(chat_ids=lambda chats: [[1] * 5 for _ in chats])
    hands = {"store": store, "run": run, "engine": engine, "policy": lambda name: policy(1)}
    told = stage.run(work_of({"rule": "above_margin"}, **hands), of)
    assert told == f"{n} pairs from 1 prompts"
    (row,) = store.rows("SELECT outcome, margin, n_pairs FROM mining")
    assert tuple(row) == (outcome, 1.0, 3 if n else 0)  # it counts its rows, as long as one may train
    pairs = store.rows("SELECT chosen_id, rejected_id, margin FROM pair ORDER BY margin DESC, chosen_id")
    assert [tuple(p) for p in pairs] == [(own[0], own[2], 1.0), (own[0], own[1], 0.5), (own[1], own[2], 0.5)]
    store.close()
