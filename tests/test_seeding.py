"""Seed examples from human rankings: scores are people's, contradictions go, held-out prompts stay out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from selfreward import seeding
from selfreward.calibration import items_of
from selfreward.cli import app
from selfreward.seeding import Reply
from selfreward.stages.seeds import required_rows


def many(n: int) -> seeding.Groups:
    """Qualities 1, 0.5 and 0.5: scores 5, 3, 3."""
    return {
        f"q{i}": [Reply(f"a{i}", 0, 1.0), Reply(f"b{i}", 1, 0.5), Reply(f"c{i}", 2, 0.5)] for i in range(n)
    }


def test_a_score_is_the_quality_on_the_scale_with_halves_up() -> None:
    """1 + 4q: 0 → 1, 0.12 → 1.48, 0.125 → 1.5, 0.5 → 3, 0.9 → 4.6, 1 → 5."""
    assert [seeding.score_of(q, 1, 5) for q in (0, 0.12, 0.125, 0.5, 0.9, 1)] == [1, 1, 2, 3, 5, 5]


def test_one_contradiction_takes_all_judge_lines_of_its_prompt_and_a_tie_takes_none() -> None:
    wrong = [Reply("a", 0, 0.2), Reply("b", 1, 0.9), Reply("c", 2, 0.1)]
    tied = [Reply("d", 1, 0.5), Reply("e", 0, 0.5)]
    found = seeding.build({"x": wrong, "y": tied}, 0, 0.0)
    assert [(j["prompt"], j["answer"], j["score"]) for j in found.judge] == [("y", "d", 3), ("y", "e", 3)]
    assert found.left_out["answers whose ratings contradict the ranking"] == 3
    assert [i["answer"] for i in found.instructions] == ["a", "e"]  # rank 0, wherever it stands


def test_ranks_alone_make_no_score() -> None:
    found = seeding.build({"x": [Reply("a", 0), Reply("b", 1)]}, 0, 0.0)
    assert found.judge == [] and found.instructions == [{"prompt": "x", "answer": "a"}]


def test_two_best_answers_are_no_best_answer() -> None:
    assert seeding.build({"x": [Reply("a", None, 0.9), Reply("b", None, 0.9)]}, 0, 0.0).instructions == []


def test_the_commonest_score_is_cut_to_the_second() -> None:
    """Ten prompts give ten scores of 5 and twenty of 3; ten of the twenty stay."""
    found = seeding.build(many(10), 0, 0.0)
    assert Counter(j["score"] for j in found.judge) == {5: 10, 3: 10}
    assert found.left_out["answers of the commonest score"] == 10


def test_held_out_prompts_are_in_no_training_file_and_order_as_people_did() -> None:
    found = seeding.build(many(20), 3, 0.25)
    held = {c["prompt"] for c in found.calibration}
    assert len(held) == 5
    assert not held & {line["prompt"] for line in found.instructions + found.judge}
    assert len(found.instructions) == 15
    items, _ = items_of(list(enumerate(found.calibration, 1)))
    assert all(item.worth == (0, -1, -2) for item in items)
    assert seeding.build(many(20), 3, 0.25) == found
    assert {c["prompt"] for c in seeding.build(many(20), 4, 0.25).calibration} != held


def test_trees_and_messages_of_the_hub_are_one_data() -> None:
    ask = {"message_id": "m", "text": "Hi?", "lang": "en", "role": "prompter", "parent_id": None}
    one = {"message_id": "r", "text": "Yes.", "lang": "en", "role": "assistant", "parent_id": "m", "rank": 0}
    bad = {**one, "message_id": "s", "text": "Gone", "deleted": True}
    flat = {**one, "labels": {"name": ["spam", "quality"], "value": [0.0, 0.75]}}
    tree = {"prompt": {**ask, "replies": [{**one, "labels": {"quality": {"value": 0.75}}}, bad]}}
    expected = {"Hi?": [Reply("Yes.", 0, 0.75)]}
    assert seeding.groups_of([ask, flat, bad], "en") == seeding.groups_of([tree], "en") == expected
    assert seeding.groups_of([tree], "de") == {}


@pytest.mark.parametrize(
    "line", ["[]", "{}", '{"prompt_text": "a", "response_text": "b", "quality_score": 7}']
)
def test_nonsense_is_one_line_with_code_3_or_bad_input(line: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(line)
    done = CliRunner().invoke(
        app, ["seed", "build", "--from", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "o")]
    )
    assert getattr(done.exception, "exit_code", 0) == 3 and not (tmp_path / "o").exists()


def test_the_door_writes_what_sft_reads_and_never_writes_over_it(tmp_path: Path) -> None:
    rows = [
        {"prompt_text": f"q{i}", "response_text": f"{q}", "quality_score": q}
        for i in range(8)
        for q in (0.1, 0.9)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ["seed", "build", "--from", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "o"), "--json"]
    done = CliRunner().invoke(app, command)
    assert json.loads(done.stdout) == {"instructions": 6, "judge": 12, "calibration": 2, "left_out": {}}
    assert len(required_rows(tmp_path / "o/instructions.jsonl", ("prompt", "answer"))) == 6
    lines = required_rows(tmp_path / "o/judge.jsonl", ("prompt", "answer", "score", "judgement"))
    assert {line["score"] for _, line in lines} == {1, 5}
    assert getattr(CliRunner().invoke(app, command).exception, "exit_code", 0) == 3
