"""The judge that compares: both orders always, disagreement is a tie, and nothing but the answers decides."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfreward.pairs import Contender, Mined
from selfreward.protocols import Choice
from selfreward.records import Judgement
from selfreward.rubric import Rubric
from selfreward.scorers.pairwise import Compared, PairwiseJudge
from selfreward.stages import comparing
from selfreward.stages.pairs import judged_alike
from tests.conftest import make_tiny_policy
from tests.runner import iterate, query, write_recipe
from tests.test_scorers import ScriptedEngine, question

TWO = Rubric("two", "pairwise", 0, 1, "{{request}}<a>{{answer_a}}</a><b>{{answer_b}}</b>{{reference}}")


def shown(chat: str) -> tuple[str, str]:
    found = re.search(r"<a>(.*)</a><b>(.*)</b>", chat, re.DOTALL)
    assert found
    return found[1], found[2]


def says(a: float, b: float, tie: float = 0.0) -> dict[str, float]:
    return {"Winner: A": a, "Winner: B": b, "Winner: tie": tie}


def by_strength(**strength: float) -> Callable[[str], dict[str, float]]:
    """A judge that goes by the answers alone: P(A) = strength of A / sum of both."""

    def reply(chat: str) -> dict[str, float]:
        a, b = (strength[text] for text in shown(chat))
        return says(a / (a + b), b / (a + b))

    return reply


def judge(replies: Callable[[str], dict[str, float]], scalar: str = "copeland") -> PairwiseJudge:
    return PairwiseJudge(ScriptedEngine(replies), TWO, "M1/adapter", scalar)


def test_every_two_answers_are_asked_once_in_each_order_by_the_given_weights() -> None:
    """3 answers are 3 pairs are 6 questions, 2 are 2, 1 is none."""
    one = judge(by_strength(a=1, b=2, c=3, d=4, e=5, f=6))
    one.score([question("a", "b", "c"), question("d", "e"), question("f")])
    asked = [a for a in one.engine.asked if isinstance(a, Choice)]  # type: ignore[attr-defined]
    pairs = [shown(a.messages[-1]["content"]) for a in asked]
    assert sorted(map("".join, pairs)) == ["ab", "ac", "ba", "bc", "ca", "cb", "de", "ed"]
    assert {a.adapter for a in asked} == {"M1/adapter"} and {a.opening for a in asked} == {"Winner:"}


def test_the_preference_is_the_mean_of_both_orders() -> None:
    """P(A) is 0.9 with x first and 0.4 with y first: x's share is (0.9 + 1 − 0.4)/2 = 0.75."""
    ((found,),) = judge(lambda c: says(0.9, 0.1) if shown(c)[0] == "x" else says(0.4, 0.6)).compare(
        [question("x", "y")]
    )
    assert found.consistent and found.preference == pytest.approx(0.75)


def test_a_judge_that_prefers_a_place_prefers_no_answer() -> None:
    """Guards: order decides. Always A, however sure: both orders disagree, and everybody ties."""
    found = judge(lambda c: says(0.99, 0.01)).compare([question("x", "y", "z")])[0]
    assert [c.preference for c in found] == [0.5] * 3 and [c.consistent for c in found] == [False] * 3
    scores = judge(lambda c: says(0.99, 0.01)).score([question("x", "y", "z")])
    assert [[v.score for v in row] for row in scores[0]] == [[0.5]] * 3


def test_a_stated_tie_counts_half_to_each() -> None:
    """0.2 + 0.7/2 = 0.55 and in the other order 0.1 + 0.7/2 = 0.45: x's share is 0.55."""
    ((found,),) = judge(lambda c: says(0.2, 0.1, 0.7) if shown(c)[0] == "x" else says(0.1, 0.2, 0.7)).compare(
        [question("x", "y")]
    )
    assert found.preference == pytest.approx(0.55)


@pytest.mark.parametrize("scalar", ["copeland", "bradley_terry"])
def test_the_place_of_a_candidate_does_not_change_its_score(scalar: str) -> None:
    strengths = by_strength(a=1, b=3, c=2, d=5)
    (forward,) = judge(strengths, scalar).score([question(*"abcd")])
    (backward,) = judge(strengths, scalar).score([question(*"dcba")])
    assert [v.score for (v,) in forward] == pytest.approx([v.score for (v,) in reversed(backward)])
    order = sorted("abcd", key=lambda x: forward["abcd".index(x)][0].score or 0.0)
    assert order == ["a", "c", "b", "d"]


def test_copeland_by_hand() -> None:
    """D beats all three: 1; b two: 2/3; c one: 1/3; a none: 0."""
    (found,) = judge(by_strength(a=1, b=3, c=2, d=5)).score([question(*"abcd")])
    assert [v.score for (v,) in found] == pytest.approx([0, 2 / 3, 1 / 3, 1])


def test_a_comparison_that_cannot_be_read_is_a_fault_and_no_tie() -> None:
    """X against y was refused in one order: no preference. z beat both: 1; x and y lost to z alone: 0."""

    def reply(chat: str) -> dict[str, float]:
        a, b = shown(chat)
        if (a, b) == ("x", "y"):
            return {f"Winner: {k}": 0.001 for k in "AB"} | {"Winner: neither": 0.998}
        return says(float(a == "z") or 0.3, float(b == "z") or 0.3)

    one = judge(reply)
    (found,) = one.compare([question("x", "y", "z")])
    assert (found[0].preference, found[0].consistent, found[0].faults) == (None, None, ("no_score", None))
    assert [v.score for v in one.standings(3, found)] == [0, 0, 1]


def test_nothing_to_compare_is_a_fault() -> None:
    """One answer alone has no rank: a failure is not a score."""
    (((verdict,),),) = judge(by_strength(a=1)).score([question("a")])
    assert (verdict.score, verdict.fault) == (None, "nothing_to_compare")


def test_a_chat_longer_than_the_context_is_a_fault() -> None:
    engine = ScriptedEngine(lambda c: says(0.9, 0.1), context=50)
    ((found,),) = PairwiseJudge(engine, TWO, None).compare([question("x" * 99, "y")])
    assert found.faults == ("too_long", "too_long") and found.preference is None


def test_both_orders_calling_it_a_tie_agree() -> None:
    assert Compared(0, 1, 0.5, 0.5).consistent and Compared(0, 1, 0.5, 0.5).preference == 0.5
    assert Compared(0, 1, 0.9, 0.5).consistent is False and Compared(0, 1, 0.9, 0.5).preference == 0.5


def stored(work: Any, one: PairwiseJudge, *answers: str) -> list[Judgement]:
    """The rows of a prompt's candidates, with ids from 10."""
    group = [SimpleNamespace(id=10 + k) for k in range(len(answers))]
    return comparing.rows(work, one, [group], [question(*answers)])


def work_with(rows: list[Judgement]) -> Any:
    """A run that holds these comparisons, in the order the store gives them."""
    compared = sorted((r for r in rows if r.other_id), key=lambda r: (r.candidate_id, r.other_id, r.position))
    told = [SimpleNamespace(prompt_id=1, **r.model_dump()) for r in compared]
    return SimpleNamespace(
        run=SimpleNamespace(id=1), store=SimpleNamespace(comparisons=lambda run, policy, scorer: told)
    )


def test_a_pair_weighs_what_both_orders_say_of_its_two_answers() -> None:
    """Here x beats y by 0.9 shown first and by 1 − 0.4 shown second: 0.75. y and z disagree: no label.

    z beats x by 0.8 in both orders. The rows: three pairs in two orders, and three scalars.
    """

    def reply(chat: str) -> dict[str, float]:
        a = {"xy": 0.9, "yx": 0.4, "yz": 0.9, "zy": 0.9, "zx": 0.8, "xz": 0.2}["".join(shown(chat))]
        return says(a, 1 - a)

    rows = stored(work_with([]), judge(reply), "x", "y", "z")
    assert [(r.candidate_id, r.other_id, r.position) for r in rows] == [
        (10, 11, 1), (10, 11, 2), (10, 12, 1), (10, 12, 2), (11, 12, 1), (11, 12, 2),
        (10, 0, 1), (11, 0, 1), (12, 0, 1),
    ]  # fmt: skip
    assert [r.score for r in rows] == pytest.approx([0.9, 0.6, 0.2, 0.2, 0.9, 0.1, 0.5, 0.25, 0.75])
    found = comparing.labels(work_with(rows), "M1", "judge")
    assert found == {(10, 11): pytest.approx(0.75), (12, 10): pytest.approx(0.8)}


def test_a_pair_that_both_orders_do_not_say_is_no_pair() -> None:
    """Guards: best and worst by their scalars, though compared directly the judge ties them or turns them."""
    x, y, z = (Contender(i, i, f"text {i}", "stop", 3, (s,)) for i, s in ((1, 1.0), (2, 0.5), (3, 0.0)))
    mined = Mined("pair", 1.0, x, z, more=((x, y),))
    assert judged_alike(mined, {(1, 3): 0.9, (1, 2): 0.6}).pairs == ((x, z), (x, y))
    left = judged_alike(mined, {(1, 2): 0.6, (3, 1): 0.7})
    assert left.pairs == ((x, y),) and left.margin == 0.5 and left.outcome == "pair"
    assert judged_alike(mined, {(3, 1): 0.7}).outcome == "tie"


def test_a_run_with_a_pairwise_judge_compares_every_two_in_both_orders(tmp_path: Path) -> None:
    """3 answers are 6 comparisons and 3 scores, by the weights that the recipe names.

    This policy likes the first place: what the store says of its consistency is counted here again.
    """
    policy = make_tiny_policy(tmp_path / "policy", words="AB", loud=10)
    write_recipe(
        tmp_path, policy, judge={"mode": "pairwise", "policy": "M0"}, start={"sft": None}, evaluate=None,
        candidates={"n": 3}, gate={"on_collapse": "warn"},
    )  # fmt: skip
    done = iterate(tmp_path, "--to", "M2", "--pause-before", "train")
    assert done.returncode in (0, 5), done.stderr
    answered = query(tmp_path, "SELECT count(*) FROM candidate WHERE fault IS NULL")[0][0]
    scalars, first, second = (
        query(tmp_path, f"SELECT count(*) FROM judgement WHERE {where}")[0][0]
        for where in ("other_id = 0", "other_id <> 0 AND position = 1", "other_id <> 0 AND position = 2")
    )
    assert scalars == answered == 24 and first == second == 24
    ((value, n),) = query(tmp_path, "SELECT value, n FROM metric WHERE name = 'judge/position_consistency'")
    ((agree, read),) = query(
        tmp_path,
        "SELECT avg((a.score > 0.5) = (b.score > 0.5)), count(*) FROM judgement a JOIN judgement b"
        " ON b.candidate_id = a.candidate_id AND b.other_id = a.other_id AND a.position < b.position"
        " WHERE a.score IS NOT NULL AND b.score IS NOT NULL",
    )
    assert 0 < n == read and value == pytest.approx(agree)
    assert query(tmp_path, "SELECT judge, mode FROM scorer") == [("M0", "pairwise")]
