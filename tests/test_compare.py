"""Comparing two policies: the same prompts and seeds, one grader, no verdict that the numbers don't bear."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from selfreward import records as r
from selfreward.evaluation import versus
from selfreward.evaluation.versus import Grade, sentence
from selfreward.store import Store
from tests.test_cli import Said, command
from tests.test_store import policy

__all__ = ["command"]
Command = Callable[..., Said]
Scores = Sequence[float | None]


def grades(scores: Scores, grader: str | None = "g", seed: int = 0, turn: int = 1) -> list[Grade]:
    """One prompt a score."""
    return [Grade(f"item {i}", turn, 0, seed + i, grader, s) for i, s in enumerate(scores)]


def compared(left: Scores, right: Scores, suite: str = "integers") -> versus.Comparison:
    (found,), left_out = versus.compare({suite: (grades(left), grades(right))})
    assert left_out == {}
    return found


def test_a_clear_gain_is_better_and_its_mirror_worse() -> None:
    """0 of 20 against 15 of 20: 15 signs alike, p = 2/2¹⁵; difference 0.75."""
    found, mirror = compared([0.0] * 20, [1.0] * 15 + [0.0] * 5), compared([1.0] * 15 + [0.0] * 5, [0.0] * 20)
    assert (found.verdict, mirror.verdict) == ("better", "worse")
    assert found.difference.value == 0.75 == -mirror.difference.value and found.needed is None
    assert (found.left.value, found.right.value, found.difference.n) == (0.0, 0.75, 20)
    assert found.p < 0.001 and found.difference.low > 0 and mirror.difference.high < 0


def test_a_small_gain_says_how_many_prompts_would_tell() -> None:
    """3 of 20 gained: sd √(20/19 · 0.15 · 0.85) = 0.3663; (2.8016 · 0.3663 / 0.15)² = 46.8: 27 more."""
    found = compared([0.0] * 20, [1.0] * 3 + [0.0] * 17)
    assert (found.verdict, found.needed, found.p) == ("can't tell", 27, 0.25)
    assert sentence(found) == "can't tell (needs about 27 more prompts)"
    assert found.detectable == pytest.approx(2.8016 * 0.3663 / 20**0.5, abs=1e-3)


def test_policies_that_answer_alike_are_not_told_apart_and_no_number_is_made_up() -> None:
    found = compared([1.0, 0.0] * 5, [1.0, 0.0] * 5)
    assert sentence(found) == "can't tell (all prompts came out alike)" and found.detectable is None
    assert found.difference.low < 0 < found.difference.high
    assert sentence(compared([0.0], [1.0])) == "can't tell (one prompt is too few)"


def test_only_the_same_prompt_turn_and_seed_is_compared_and_the_rest_is_counted() -> None:
    """Left has items 0-3; of right, item 1 is unread, 2 has another seed, 3 is missing and 4 is extra."""
    right = [Grade("item 0", 1, 0, 0, "g", 1.0), Grade("item 1", 1, 0, 1, "g", None)]
    right += [Grade("item 2", 1, 0, 99, "g", 1.0), Grade("item 4", 1, 0, 4, "g", 1.0)]
    (found,), _ = versus.compare({"integers": (grades([0.0] * 4), right)})
    assert (found.difference.n, found.difference.value) == (1, 1.0)
    assert (found.unread, found.unpaired) == (1, 3)


def test_two_turns_of_a_question_are_one_prompt() -> None:
    left = grades([5.0] * 4) + grades([5.0] * 4, turn=2)
    right = grades([6.0] * 4) + grades([7.0] * 4, turn=2)
    (found,), _ = versus.compare({"two-turn": (left, right)})
    assert (found.difference.n, found.difference.value) == (4, 1.5)


def test_graders_are_never_mixed_and_faults_alone_compare_nothing() -> None:
    both = {
        "two-turn": (grades([5.0, 6.0], "self:M1"), grades([7.0, 8.0], "self:M3")),
        "integers": (grades([None, 1.0]), grades([1.0, None])),
    }
    found, left_out = versus.compare(both)
    assert found == [] and list(left_out) == ["two-turn", "integers"]
    assert "self:M1" in left_out["two-turn"] and "self:M3" in left_out["two-turn"]


def test_several_suites_have_to_show_more() -> None:
    """6 of 6 gained: p = 2/64 = 0.031 alone; beside a suite that shows nothing Holm doubles it."""
    clear = (grades([0.0] * 6), grades([1.0] * 6))
    (alone,), _ = versus.compare({"integers": clear})
    (first, _), _ = versus.compare({"integers": clear, "other": (grades([0.0, 1.0]), grades([1.0, 0.0]))})
    assert (alone.p, alone.verdict) == (0.03125, "better")
    assert (
        (first.p, first.verdict) == (0.0625, "can't tell") and first.needed is not None and first.needed >= 1
    )


@pytest.fixture
def run(command: Command, tmp_path: Path) -> Command:
    """`command` beside a run: M1 fails 20 problems of which M2 solves 12; M3 is not evaluated yet."""
    store = Store(tmp_path / "iterations/mine/selfreward.db", write=True)
    store.save(r.Run(id=1, name="mine", recipe="{}", fingerprint="f", seed=0, created_at="now"))
    store.save(*[policy(i) for i in range(4)])
    made = {"run_id": 1, "name": "evaluate", "made_in": 1, "made_from": "{}", "fingerprint": "f"}
    for name in ("M1", "M2"):
        store.save(r.Stage(policy=name, status="done", **made))
        fill(store, name)
    store.close()
    return command


def fill(store: Store, name: str) -> None:
    rows, marks = [], []
    for i in range(20):
        of = {"run_id": 1, "policy": name}
        answer = len(rows) + 1 + 1000 * int(name[1:])
        rows.append(
            r.AnswerRow(id=answer, **of, suite="integers", item=f"{i}?", text="…", finish="stop", seed=i)
        )
        solved = float(name == "M2" and i < 12)
        marks.append(r.Evaluation(**of, suite="integers", answer_id=answer, grader="integer", score=solved))
        rows.append(
            r.AnswerRow(id=answer + 1, **of, suite="probe", item=f"{i}?", text="…", finish="stop", seed=i)
        )
    failed = {
        "run_id": 1,
        "policy": name,
        "suite": "integers",
        "item": "failed?",
        "fault": "engine",
        "seed": 77,
    }
    store.add([*rows, r.AnswerRow(**failed), *marks])


def test_the_command_tells_both_values_the_difference_and_the_verdict(run: Command) -> None:
    start = time.process_time()
    found = json.loads(run("compare", "M1", "M2", "--json").out)
    assert time.process_time() - start < 2
    suite = found["suites"]["integers"]
    assert (found["left"], found["right"], found["not_compared"]) == ("M1", "M2", {})
    assert (suite["left"]["value"], suite["right"]["value"], suite["difference"]["value"]) == (0.0, 0.6, 0.6)
    assert (suite["verdict"], suite["grader"], suite["unread"], suite["unpaired"]) == (
        "better",
        "integer",
        1,
        0,
    )
    assert suite["difference"]["n"] == 20 and suite["p"] < 0.01
    table = run("compare", "M2", "M1", "--run", "mine").out
    assert "integers: M1 is worse" in table and "-0.6" in table


@pytest.mark.parametrize(
    ("arguments", "told"),
    [("M1 M9", "there is no policy M9 in this run: it has M0, M1, M2, M3"),
     ("M3 M1", "M3 is not evaluated yet: `selfreward iterate --to M3`"),
     ("M1 M2 --run nope", "selfreward init nope")],
)  # fmt: skip
def test_a_policy_that_cannot_be_compared_is_one_line(run: Command, arguments: str, told: str) -> None:
    assert run("compare", *arguments.split()).refuses(told)
    assert run("compare", "M1").code == 2
