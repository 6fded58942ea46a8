"""After a halt: the iteration again from M_t, as a branch with a calmer recipe, followed from then on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfreward.collapse.calmer import values
from selfreward.recipe_file import parse, with_changes
from tests.runner import command, iterate, query, write_recipe

SHORT: dict[str, Any] = {"start": {"sft": None}, "evaluate": None}


def test_a_recipe_takes_the_changes_of_a_try_and_keeps_all_else() -> None:
    """Only the named keys come from the stored recipe: what a user changed since stays changed."""
    before = parse({"model": "base", "seed": 3, "training": {"beta": 0.3}}, "test")
    after = with_changes(before, {"training.beta": 0.6, "pairs.length_control": "auto"})
    assert (after.training.beta, after.pairs.length_control, after.seed) == (0.6, "auto", 3)
    assert with_changes(before, values(before.model_dump_json(by_alias=True))) == before
    taken = with_changes(
        parse({"model": "base", "seed": 9}, "test"), values(after.model_dump_json(by_alias=True))
    )
    assert (taken.training.beta, taken.seed) == (0.6, 9)


@pytest.fixture(scope="module")
def rolled(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run whose greedy candidates are all alike, so that no pair is made, and what it printed."""
    folder = tmp_path_factory.mktemp("rolled")
    greedy = {"sampling": {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 32}}
    gate = {"on_collapse": "rollback", "retries": 2}
    write_recipe(folder, tiny_policy, **SHORT, candidates=greedy, gate=gate)
    return folder, iterate(folder, "--to", "M2")


def test_an_iteration_that_collapsed_is_tried_again_with_changed_keys(rolled: tuple[Path, Any]) -> None:
    """A temperature of 0 counts as 0.5, and the first try is a quarter hotter: 0.625."""
    folder, done = rolled
    assert done.returncode == 0, done.stdout + done.stderr
    assert "back to M1: try 1 of 2 is t~1, with candidates.sampling.temperature: 0.625" in done.stdout
    runs = query(folder, "SELECT name, made_by, parent_id, parent_policy FROM run ORDER BY id")
    assert runs == [("t", "user", None, None), ("t~1", "rollback", 1, "M1")]
    assert query(folder, "SELECT run_id, status FROM policy WHERE name = 'M2'") == [(2, "promoted")]


def test_only_what_the_changed_keys_touch_is_made_again(rolled: tuple[Path, Any]) -> None:
    made = dict(query(rolled[0], "SELECT name, made_in FROM stage WHERE run_id = 2 AND policy = 'M1'"))
    assert made | {"probe": 1, "prompts": 1, "candidates": 2, "judge": 2, "pairs": 2} == made
    assert query(rolled[0], "SELECT DISTINCT run_id FROM prompt WHERE policy = 'M1'") == [(1,)]


def test_the_next_iterate_follows_the_try_and_status_says_so(rolled: tuple[Path, Any]) -> None:
    folder = rolled[0]
    again = iterate(folder, "--to", "M2")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "going on with t~1" in again.stdout
    assert query(folder, "SELECT count(*) FROM run") == [(2,)]
    told = " ".join(command(folder, "status").stdout.split())
    assert "It goes on in t~1, tried from M1 after the halt" in told and "M2 is the policy now" in told


def test_tries_end_and_the_last_halt_is_told(tiny_policy: Path, tmp_path: Path) -> None:
    """No temperature reaches a margin of 50: one try is allowed, then exit 5."""
    gate = {"on_collapse": "rollback", "retries": 1}
    write_recipe(tmp_path, tiny_policy, **SHORT, pairs={"min_margin": 50}, gate=gate)
    done = iterate(tmp_path, "--to", "M2")
    assert done.returncode == 5 and "M1 has no pairs" in done.stderr
    assert query(tmp_path, "SELECT name FROM run ORDER BY id") == [("t",), ("t~1",)]
    assert query(tmp_path, "SELECT name FROM policy WHERE name = 'M2'") == []
