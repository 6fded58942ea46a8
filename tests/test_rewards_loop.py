"""Every reward in the loop, on the tiny policy: real engine, real sandbox, real trainer, real store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.misbehaving import Reply, said, serving
from tests.runner import command, iterate, query, write_recipe
from tests.test_rewards import make_classifier

pytestmark = pytest.mark.slow
PROMPTS = [
    {"prompt": f"What is {a} + {b}?", "reference": str(a + b), "checks": {"tests": "assert True"}}
    for a in range(1, 4)
    for b in range(1, 5)
]
# How each says it decides: several scores, a tie-break, and diagnostics that must decide nothing.
REWARDS: list[dict[str, Any]] = [
    {"type": "judge", "role": "diagnostic"}, {"type": "direct-10", "role": "diagnostic"},
    {"type": "rule", "weight": 2},
    {"type": "rule", "name": "form", "check": "tag_count", "role": "diagnostic"},
    {"type": "majority", "role": "diagnostic"}, {"type": "implicit"}, {"type": "rlif", "role": "tie_break"},
    {"type": "rlpr"}, {"type": "code", "tools": [], "role": "diagnostic"},
    {"type": "length", "role": "diagnostic"},
    {"type": "reward-model", "model": "rm"},
]  # fmt: skip
NAMES = [r.get("name", r["type"]) for r in REWARDS]
OWN = {"from": "p.jsonl", "count": 12}
LOOSE = {"on_collapse": "warn"}


def write(folder: Path, policy: Path, rewards: list[dict[str, Any]], **changes: Any) -> None:
    """A recipe on sums, in blocks of three prompts."""
    (folder / "iterations").mkdir()
    (folder / "iterations" / "p.jsonl").write_text("\n".join(map(json.dumps, PROMPTS)))
    sizes = {"prompts": OWN, "evaluate": None, "gate": LOOSE, "rewards": rewards} | changes
    write_recipe(folder, policy, **sizes)


@pytest.fixture(scope="module")
def whole(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """M0 to M3 with every scorer that needs no server, rejecting what M0 answers."""
    folder = tmp_path_factory.mktemp("whole")
    anchored = {"n": 3, "anchor": {"policy": "M0", "n": 2}}
    write(folder, tiny_policy, REWARDS, candidates=anchored, pairs={"rule": "anchored"})
    make_classifier(folder / "iterations" / "rm", tiny_policy)
    done = iterate(folder, "--to", "M3")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_scorer_says_something_of_every_answer_under_its_own_name(whole: Path) -> None:
    (answered,) = query(whole, "SELECT count(*) FROM candidate WHERE fault IS NULL")
    told = dict(query(whole, "SELECT scorer, count(*) FROM judgement GROUP BY 1"))
    assert told == dict.fromkeys(NAMES, answered[0]) and answered[0] == 2 * 12 * 5
    rows = query(whole, "SELECT name, type FROM scorer WHERE policy = 'M2' ORDER BY 1")
    assert rows == sorted((n, r["type"]) for n, r in zip(NAMES, REWARDS, strict=True))
    read = dict(query(whole, "SELECT scorer, count(score) FROM judgement GROUP BY 1"))
    assert {n for n in NAMES if not read[n]} <= {
        "majority",
        "direct-10",
    }  # bytes drawn at random seldom agree


def test_a_pairs_scores_are_the_weighed_sum_of_what_was_stored(whole: Path) -> None:
    """Worked out again from the judgements: 1 + (x − min)/(max − min), weight 2 for the rule."""
    weights = {"rule": 2, "implicit": 1, "rlpr": 1, "reward-model": 1}
    pairs = query(whole, "SELECT prompt_id, chosen_id, rejected_id, chosen_score, rejected_score FROM pair")
    assert len(pairs) >= 4
    for prompt, chosen, rejected, best, worst in pairs:
        sums: dict[int, float] = {}
        for name, weight in weights.items():
            of_prompt = f"SELECT id FROM candidate WHERE prompt_id = {prompt}"
            told = f"SELECT candidate_id, score FROM judgement WHERE scorer = '{name}' AND candidate_id IN"
            rows = dict(query(whole, f"{told} ({of_prompt})"))
            low, width = min(rows.values()), (max(rows.values()) - min(rows.values())) or 1.0
            for i, score in rows.items():
                sums[i] = sums.get(i, 0.0) + weight / 5 * (1 + (score - low) / width)
        assert best == pytest.approx(sums[chosen], abs=3e-6)
        assert worst == pytest.approx(sums[rejected], abs=3e-6)


def test_only_the_own_answers_are_chosen_and_only_the_anchors_rejected(whole: Path) -> None:
    who = query(
        whole,
        "SELECT DISTINCT p.policy, c.policy, x.policy FROM pair JOIN prompt p ON p.id = pair.prompt_id"
        " JOIN candidate c ON c.id = chosen_id JOIN candidate x ON x.id = rejected_id ORDER BY 1",
    )
    assert who == [("M1", "M1", "M0"), ("M2", "M2", "M0")]


def test_labels_are_trained_as_surely_as_two_policies_agree(whole: Path) -> None:
    """The base ranks nothing, so M1's labels are whole; M2's are trusted to C, and its rows say 1 − C."""
    details = query(whole, "SELECT detail FROM judgement WHERE scorer = 'implicit' ORDER BY candidate_id")
    half = len(details) // 2
    assert all(d is None for (d,) in details[:half]) and all(
        "previous" in json.loads(d) for (d,) in details[half:]
    )
    (told,) = query(whole, "SELECT value, n FROM metric WHERE name = 'consistency' AND policy = 'M2'")
    by = "SELECT DISTINCT p.policy, pair.weight FROM pair JOIN prompt p ON p.id = prompt_id ORDER BY 1"
    assert query(whole, by) == [("M1", 1.0), ("M2", told[0])] and 0 < told[0] < 1
    for policy, smoothing in (("M2", 0.0), ("M3", 1 - told[0])):
        lines = (whole / "iterations/t" / policy / "training/rows.jsonl").read_text().splitlines()
        assert {(r["weight"], r["smoothing"]) for r in map(json.loads, lines)} == {(1.0, smoothing)}


def test_a_dry_run_makes_of_the_stored_judgements_what_the_stage_made(whole: Path) -> None:
    done = command(
        whole, "pairs", "list", "--rule", "anchored", "--rule", "best_vs_worst", "--dry-run", "--json"
    )
    rows = json.loads(done.stdout.splitlines()[0])
    anchored, own = [r for r in rows if r["of"] == "M2"]
    (stored,) = query(
        whole, "SELECT count(*) FROM pair JOIN prompt p ON p.id = prompt_id WHERE p.policy = 'M2'"
    )
    assert anchored["n"] == anchored["stored_now"] == stored[0] and own["stored_now"] == 0


def test_an_external_judge_is_asked_where_it_stands_and_its_key_stays_out(
    tiny_policy: Path, tmp_path: Path
) -> None:
    """It marks by length, 1 to 5; the pairs follow it, and no key is in store, recipe or log."""
    pytest.importorskip("openai")

    def behave(path: str, body: dict[str, Any], n: int) -> Reply:
        return said(f"It is long enough.\nScore: {len(body['messages'][-1]['content']) % 5 + 1}")

    with serving(behave) as server:
        reward = {
            "type": "external",
            "url": server.url,
            "model": "big",
            "api_key_env": "JUDGE_KEY",
            "samples": 2,
        }
        write(tmp_path, tiny_policy, [reward], start={"sft": None})
        done = iterate(tmp_path, "--to", "M2", "--pause-before", "train", JUDGE_KEY="sk-outside")
        assert done.returncode == 0, done.stdout + done.stderr
        assert {a.headers["authorization"] for a in server.asked} == {"Bearer sk-outside"}
    assert query(tmp_path, "SELECT name, type, mode, judge, judge_sha256 FROM scorer") == [
        ("external", "external", "sampled", "big", None)
    ]
    assert query(tmp_path, "SELECT count(*), count(score) FROM judgement") == [(72, 72)]
    assert query(tmp_path, "SELECT count(*) > 0 FROM pair") == [(1,)]
    left = [
        p for p in (tmp_path / "iterations").rglob("*") if p.is_file() and b"sk-outside" in p.read_bytes()
    ]
    assert left == []


def test_a_recipe_whose_scorer_lacks_something_stops_before_any_row(
    tiny_policy: Path, tmp_path: Path
) -> None:
    write(tmp_path, tiny_policy, [{"type": "implicit"}], start={"sft": None})
    done = iterate(tmp_path, "--to", "M2")
    assert done.returncode == 3 and "implicit needs two_policies" in done.stderr
    assert query(tmp_path, "SELECT count(*) FROM policy") == [(0,)]
