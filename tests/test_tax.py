"""Suites of the recipe: a tax beyond two standard errors is an alarm, what they cost is known before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfreward import records as r
from selfreward.collapse import Finding
from selfreward.plan.gather import _suites
from selfreward.recipe_file import parse
from selfreward.stages import recipe_suites
from selfreward.stages.prompts import asked_in
from selfreward.store import Store
from tests.test_store import policy

RECIPE = {"model": "base", "evaluate": {"suites": [{"suite": "gsm8k", "role": "tax"}, {"suite": "aime24"}]}}


def findings(
    folder: Path, before: list[float | None], after: list[float | None], idx: int = 2
) -> list[Finding]:
    store = Store(folder / "selfreward.db", write=True)
    store.save(r.Run(id=1, name="mine", recipe="{}", fingerprint="f", seed=0, created_at="now"))
    store.save(*[policy(i) for i in range(3)])
    for name, scores in (("M1", before), (f"M{idx}", after)):
        for i, score in enumerate(scores):
            of = {"run_id": 1, "policy": name, "suite": "gsm8k"}
            answer = 1000 * int(name[1:]) + i + 1
            store.add([r.AnswerRow(id=answer, **of, item=f"{i}?", text="…", finish="stop", seed=i)])
            fault = "no_answer" if score is None else None
            store.add([r.Evaluation(**of, answer_id=answer, grader="number", score=score, fault=fault)])
    work: Any = SimpleNamespace(store=store, run=SimpleNamespace(id=1), recipe=parse(RECIPE, "mine.yaml"))
    try:
        return recipe_suites.findings(work, policy(idx))
    finally:
        store.close()


def test_a_drop_beyond_two_standard_errors_is_an_alarm(tmp_path: Path) -> None:
    """6 of 20 lost: mean −0.3, sd √(20/19 · 0.3 · 0.7) = 0.4702, error 0.1051: −0.3 + 0.2103 < 0."""
    (found,) = findings(tmp_path, [1.0] * 20, [0.0] * 6 + [1.0] * 14)
    assert (found.signal, found.level, found.n) == ("tax/gsm8k", "warn", 20)
    assert found.value == pytest.approx(-0.3) and found.high == pytest.approx(-0.0897, abs=1e-4)
    assert "-0.3" in found.message and "M1" in found.message


def test_a_drop_within_two_standard_errors_is_none(tmp_path: Path) -> None:
    """3 of 20 lost: −0.15 + 2 · 0.0819 > 0."""
    (found,) = findings(tmp_path, [1.0] * 20, [0.0] * 3 + [1.0] * 17)
    assert found.level == "ok" and found.high is not None and found.high > 0


def test_a_gain_is_no_alarm(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, [0.0] * 20, [1.0] * 20)
    assert (found.level, found.value) == ("ok", 1.0)


def test_nothing_is_said_of_m1_itself(tmp_path: Path) -> None:
    assert findings(tmp_path, [], [1.0] * 5, idx=1) == []


def test_an_answer_that_was_not_read_on_one_side_is_in_no_mean(tmp_path: Path) -> None:
    """Of 4 questions two are read on both sides: 0 and −1."""
    (found,) = findings(tmp_path, [1.0, 1.0, None, 1.0], [1.0, 0.0, 0.0, None])
    assert (found.n, found.value, found.level) == (2, -0.5, "ok")


def test_every_form_of_a_question_is_kept_out_of_training() -> None:
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "d"}]
    rows = [{"prompt": "a"}, {"problem": "b"}, {"question": "c"}, {"messages": chat}, {"turns": ["e", "f"]}]
    assert [text for row in rows for text in asked_in(row)] == ["a", "b", "c", "d", "e", "f"]
    assert asked_in({"answer": "not a question"}) == []


@pytest.mark.parametrize(
    ("suites", "budget", "tokens"),
    [
        ([{"suite": "aime24", "first": 15, "samples": 8}], None, 15 * 8 * 4096),
        ([{"suite": "mt-bench", "max_new_tokens": 100}], None, 80 * 2 * 100),
        (
            [{"suite": "gsm8k", "data": "mine.jsonl", "max_new_tokens": 10}, {"suite": "mine.jsonl"}],
            None,
            30 + 1536,
        ),
        ([{"suite": "gsm8k"}], 5000, 5000),
        (None, 5000, 0),
    ],
)
def test_what_suites_cost_at_most_is_known_before(
    suites: list[dict[str, Any]] | None, budget: int | None, tokens: int, tmp_path: Path
) -> None:
    """Questions x samples x turns x new tokens; three lines of an own file at 512 are 1,536."""
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a"}\n' * 3)
    recipe = parse({"model": "base", "evaluate": {"suites": suites, "budget": budget}}, "mine.yaml")
    assert _suites(recipe, tmp_path / "mine.yaml").n == tokens
