"""`judge calibrate` and `pairs audit`: what a user types, what comes out, and that nothing is asked twice."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_tiny_policy
from tests.runner import command, iterate, query, tables, write_recipe

NAMES = {
    "pairwise_accuracy", "five_best", "exact_match", "spearman", "kendall_tau_b", "position_consistency",
    "ties", "faults", "length_correlation", "longer_wins", "attack_success",
}  # fmt: skip


def rated(path: Path, n: int = 6) -> Path:
    """Answers of three lengths to so many requests, ranked by people."""
    made = [
        {"prompt": f"Name {k}.", "responses": [f"Mars {k + r}." for r in range(3)], "ranks": [1, 2, 3]}
        for k in range(n)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout.startswith("{"), done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
    return found


def calibrated(folder: Path, *arguments: str) -> dict[str, Any]:
    done = command(folder, "judge", "calibrate", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return told(done)


@pytest.fixture(scope="module")
def scoring_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy that may well answer with a score, or A or B."""
    return make_tiny_policy(tmp_path_factory.mktemp("scoring"), words="12345AB")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scoring_policy: Path) -> Path:
    """A folder with a run whose M1 is the base, paused before its first DPO."""
    folder = tmp_path_factory.mktemp("run")
    write_recipe(
        folder, scoring_policy, gate={"on_collapse": "warn"}, evaluate=None, start={"sft": None},
        candidates={"sampling": {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 128}},
    )  # fmt: skip
    done = iterate(folder, "--to", "M2", "--pause-before", "train")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_policy_is_held_against_people_and_what_it_said_is_kept(run: Path) -> None:
    """The kept file loses its last lines, as after a crash: the same command ends in the same numbers.

    With nothing missing no engine is started: its log is not even written. The run's rows stay as they were.
    """
    before = tables(run)
    asked = ("--data", str(rated(run / "data.jsonl")), "--policy", "M1", "--attacks", "3")
    found = calibrated(run, *asked)
    assert found.keys() >= NAMES
    assert (found["judge"], found["mode"], found["items"]) == ("t/M1", "expected", 6)
    for name in NAMES:
        number = found[name]
        assert number.keys() == {"value", "n", "low", "high"}
        assert (number["value"] is None) == (number["n"] == 0)
        assert number["value"] is None or number["low"] <= number["value"] <= number["high"]
    assert found["faults"]["n"] == 18 and found["pairwise_accuracy"]["n"] > 0
    assert found["score_histogram"].keys() == set("12345")
    (kept,), log = (run / "iterations/t/calibration").iterdir(), run / "iterations/t/logs/looking.log"
    whole = kept.read_bytes()
    lines = whole.splitlines(keepends=True)
    kept.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    assert calibrated(run, *asked) == found and kept.read_bytes() == whole
    log.unlink()
    assert calibrated(run, *asked) == found and not log.exists()
    assert tables(run) == before


def test_any_model_is_held_against_people_without_a_run(tmp_path: Path, scoring_policy: Path) -> None:
    """The pairwise judge of a model nobody ran: its own rubric is taken, and 3 answers are 6 questions."""
    data, cache = rated(tmp_path / "data.jsonl", 2), str(tmp_path / "cache")
    done = command(
        tmp_path, "judge", "calibrate", "--json", "--data", str(data), "--model", str(scoring_policy),
        "--mode", "pairwise", "--attacks", "0", SELFREWARD_CACHE=cache,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (told(done)["asked"], told(done)["faults"]["n"]) == (12, 12)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--data", "data.jsonl"), 2, "needs --policy of a run, or --model"),
        (("--data", "data.jsonl", "--policy", "M1", "--mode", "loud"), 2, "'loud' is none of"),
        (("--data", "none.jsonl", "--policy", "M1"), 3, "none.jsonl cannot be read"),
        (("--data", "data.jsonl", "--policy", "M7"), 3, "M7 is not made yet: this run has M0, M1"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    run: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    rated(run / "data.jsonl")
    done = command(run, "judge", "calibrate", *arguments)
    assert done.returncode == code and said in " ".join(done.stderr.replace("│", " ").split())


def test_a_run_is_audited_and_what_is_above_its_bounds_ends_with_5(run: Path) -> None:
    """Random answers: whatever the numbers are, bounds of 1 let them pass and a bound of 0 does not."""
    before = tables(run)
    names = (
        "problem_share", "length_only_accuracy", "likelihood_only_accuracy", "swap_unconfirmed",
        "rejudged_flips", "attack_success",
    )  # fmt: skip
    wide = [f"--set=audit.{name}=1" for name in names]
    done = command(run, "pairs", "audit", "--json", "--sample", "3", *wide)
    assert done.returncode == 0, done.stderr
    found = told(done)
    assert found.keys() >= {"n", "problems", "above", "scorer_agreement", *names} and found["above"] == {}
    assert found["n"] > 0 and found["likelihood_only_accuracy"]["n"] == found["n"]
    assert found["rejudged_flips"]["n"] == 0  # nothing is drawn in `expected`
    strict = command(run, "pairs", "audit", "--json", "--sample", "0", "--set=audit.length_only_accuracy=0")
    assert strict.returncode == 5 and "length_only_accuracy" in told(strict)["above"]
    assert tables(run) == before


def test_a_file_and_a_run_are_not_audited_at_once(run: Path) -> None:
    done = command(run, "pairs", "audit", "--file", "a.jsonl", "--run", "t")
    assert done.returncode == 2


def test_a_judge_that_is_a_coin_stops_the_run_and_names_other_ways(
    tmp_path: Path, scoring_policy: Path
) -> None:
    """The same two answers ranked both ways: whatever the judge says is right in 125 of 250.

    The lower bound is then about 0.44. Without SFT the base itself would judge: its probe stops the run.
    """
    made = [
        {"prompt": f"Name {k} planets.", "responses": ["Mars.", "Venus."], "ranks": [1 + turn, 2 - turn]}
        for k in range(125)
        for turn in (0, 1)
    ]
    judge = {"mode": "expected", "calibration": "people.jsonl"}
    write_recipe(tmp_path, scoring_policy, judge=judge, start={"sft": None}, evaluate=None)
    (tmp_path / "iterations" / "people.jsonl").write_text("".join(json.dumps(r) + "\n" for r in made))
    done = iterate(tmp_path, "--to", "M2")
    assert done.returncode == 5
    assert "M0 orders 50.0%" in done.stderr and "no better than a coin" in done.stderr
    assert all(way in done.stderr for way in ("judge.mode: pairwise", "judge.calibrate", "`rewards`"))
    ((value, n, low),) = query(
        tmp_path, "SELECT value, n, low FROM metric WHERE name = 'judge/pairwise_accuracy'"
    )
    assert (value, n) == (0.5, 250) and low < 0.5
    assert query(tmp_path, "SELECT level FROM alarm WHERE signal = 'judge_accuracy'") == [("halt",)]
