"""What a training mixes in: judgements with a known score against a wrong one, and older pairs, capped."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfreward.errors import RecipeError
from selfreward.recipe_file import locate, parse
from selfreward.records import Policy
from selfreward.stages import mixing
from tests.test_scorers import ScriptedEngine

JUDGED = [
    {"prompt": f"Name planet {k}.", "answer": "Mars.", "score": 1 + k % 5, "judgement": f"Words {k}."}
    for k in range(10)
]


def work(folder: Path, **training: Any) -> Any:
    """A run of the recipe at its first training, with ten pairs of each iteration before."""
    (folder / "judge.jsonl").write_text("".join(json.dumps(row) + "\n" for row in JUDGED))
    here = folder / "recipe.yaml"
    data = {"model": "m", "evaluate": None, "training": {"judge_file": "judge.jsonl"} | training}
    policies = {f"M{k}": SimpleNamespace(name=f"M{k}", idx=k) for k in range(4)}
    pairs = {f"M{k}": [SimpleNamespace(id=100 * k + i) for i in range(10)] for k in (1, 2)}
    store = SimpleNamespace(
        policies=lambda run: policies, pairs_to_train=lambda run, name: pairs.get(name, []), trained_on=None
    )
    return SimpleNamespace(
        recipe=parse(data, "recipe"), file=lambda name: locate(here, name), run=SimpleNamespace(id=1),
        store=store, engine=ScriptedEngine(lambda chat: {}),
    )  # fmt: skip


def policy(idx: int) -> Policy:
    return Policy(
        run_id=1, name=f"M{idx}", idx=idx, model="m", made_in=1, status="training", created_at="now"
    )


def text(ids: list[int]) -> str:
    return "".join(map(chr, ids[:-1]))


@pytest.mark.parametrize(
    ("pairs", "replay", "judge", "rows"),
    [(17, 0.0, 0.15, 3), (16, 0, 0.15, 2), (85, 0.05, 0.1, 10), (9, 0, 0, 0)],
)
def test_a_share_is_of_all_rows_and_never_more(
    tmp_path: Path, pairs: int, replay: float, judge: float, rows: int
) -> None:
    """17 pairs are 85 % of 20 rows, 3 of them judgements; 16 are of 18.8, and 2.8 is 2; 85 of 100: 10."""
    one = work(tmp_path, replay=replay, judge_share=judge)
    assert mixing.count(one, judge, pairs) == rows
    made = mixing.judgements(one, policy(2), pairs)
    assert len(made) == min(rows, len(JUDGED))


def test_a_judgement_with_the_known_score_is_chosen_over_one_with_another(tmp_path: Path) -> None:
    made = mixing.judgements(work(tmp_path, judge_share=0.15), policy(2), 50)
    assert len(made) == 8 and len({record.source for record, _ in made}) == 8
    for record, row in made:
        line = JUDGED[int(record.source.rpartition(":")[2]) - 1]
        assert record.kind == "judge" and record.pair_id is None and row["weight"] == 1
        assert text(row["chosen_ids"]) == f"{line['judgement']}\nScore: {line['score']}"
        wrong = text(row["rejected_ids"])
        assert not wrong.endswith(f": {line['score']}") and wrong.startswith("Words ")
        assert line["prompt"] in text(row["prompt_ids"])


def test_a_started_training_gets_the_same_rows_again(tmp_path: Path) -> None:
    """From what is stored alone: kind and source."""
    one = work(tmp_path, judge_share=0.15)
    made = mixing.judgements(one, policy(2), 30)
    one.store.trained_on = lambda run, name: [record for record, _ in made]
    again = mixing.frozen_judgements(one, policy(2))
    assert [row for _, row in again] == [row for _, row in made] and len(made) == 5


def test_every_training_draws_other_examples(tmp_path: Path) -> None:
    one = work(tmp_path, judge_share=0.15)
    first, second = ([record.source for record, _ in mixing.judgements(one, policy(k), 17)] for k in (2, 3))
    assert first != second
    assert first == [record.source for record, _ in mixing.judgements(one, policy(2), 17)]


def test_a_judgement_longer_than_a_training_row_may_be_is_left_out(tmp_path: Path) -> None:
    assert mixing.judgements(work(tmp_path, judge_share=0.15, max_length=40), policy(2), 50) == []


def test_only_pairs_of_earlier_iterations_are_replayed(tmp_path: Path) -> None:
    """M3 is trained on the pairs of M2: those of M1 are old. M2 has nothing to replay."""
    one = work(tmp_path, replay=0.15)
    old = [p.id for p in mixing.replayed(one, policy(3), 34)]
    assert len(old) == 6 and set(old) <= set(range(100, 110)) and old == sorted(old)
    assert mixing.replayed(one, policy(2), 34) == []
    assert mixing.replayed(work(tmp_path), policy(3), 34) == []


def test_both_shares_together_are_capped(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"more than mixed_at_most 0\.15"):
        work(tmp_path, replay=0.1, judge_share=0.1)
    assert work(tmp_path, replay=0.1, judge_share=0.1, mixed_at_most=0.2)


def test_nothing_mixed_leaves_what_a_training_was_made_from_as_it_was(tmp_path: Path) -> None:
    assert mixing.made_from(work(tmp_path)) == {}
    assert mixing.made_from(work(tmp_path, judge_share=0.1)).keys() == {
        "training.judge_share", "training.judge_file", "judge.rubric",
    }  # fmt: skip
