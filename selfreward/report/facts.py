"""Everything a report tells, from one store, as plain data."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selfreward.agreement import agreement
from selfreward.evaluation.versus import Grade, compare, sentence
from selfreward.outlook import STAGE_ORDER, outlook, signals, spent
from selfreward.report.results import categories_of, parts
from selfreward.store import PairFilter, is_held
from selfreward.store.accounts import BINS, Accounts

EXAMPLES = 3  # pairs at each end
LONGEST = 1500  # characters of a text in an example
LEFT_OUT = ("token_ids", "messages")


def gather(database: Path) -> dict[str, Any]:
    """The facts of the run whose store lies there; raises `StoreError` where there is none.

    Times are those of the store: nothing in it depends on when it is asked.
    """
    views = Accounts(database, write=False)
    try:
        return _facts(views)
    finally:
        views.close()


def _facts(views: Accounts) -> dict[str, Any]:
    found, run = views.status(), views.run()
    names = {p.idx: p.name for p in found["policies"]}
    stages = sorted(found["stages"], key=lambda s: STAGE_ORDER.index(s.name))
    latest = views.events(1)
    at = latest[0].at if latest else (run.created_at if run else "")
    stands = outlook(found["policies"], stages, found["alarms"], held=is_held(views.path.parent), at=at)
    policies = _policies(views, found, names)
    return {
        "run": None if run is None else {
            "name": run.name, "seed": run.seed, "begun": run.created_at, "last_event": at,
            "fingerprint": run.fingerprint, "recipe": json.loads(run.recipe),
        },
        "outlook": asdict(stands),
        "policies": policies,
        "signals": signals(found),
        "alarms": [_row(a) for a in found["alarms"] if a.level != "ok"],
        "suites": _results(views, policies, found),
        "comparison": _comparison(views, policies),
        "drift": _drift(found, policies),
        "scores": _histograms(views.score_bins(), names),
        "lengths": _histograms(views.length_bins(), names),
        "examples": _examples(views, policies),
        "faults": [_row(f) for f in views.faults()],
        "answer_faults": [{"policy": names.get(f.idx), "fault": f.fault, "n": f.n}
                          for f in views.answer_faults()],
        "reviews": [asdict(a) for a in agreement(views.reviewed())],
        "scorers": [_row(s) for s in views.scorers()],
        "rubrics": [_row(r) for r in views.rubrics()],
        "cost": _cost(views, stages),
        "versions": _versions(stages),
    }  # fmt: skip


def _row(row: Any, *without: str) -> dict[str, Any]:
    return {k: v for k, v in row._mapping.items() if k not in (*LEFT_OUT, *without)}


def _policies(views: Accounts, found: dict[str, list[Any]], names: dict[int, str]) -> list[dict[str, Any]]:
    """Each policy with its verdict, its stages, and the numbers of its iteration."""
    answered = {names.get(a.idx): _row(a, "idx") for a in views.answered()}
    pairs = {names.get(p.idx): _row(p, "idx") for p in views.pair_means()}
    judged: dict[str | None, list[dict[str, Any]]] = {}
    for j in views.judged():
        judged.setdefault(names.get(j.idx), []).append(_row(j, "idx"))
    trained: dict[str, dict[str, int]] = {}
    for t in views.trained_rows():
        trained.setdefault(t.policy, {})[t.kind] = t.n
    outcomes = views.outcomes_by_policy()
    return [
        _row(p, "run_id")
        | {
            "outcomes": outcomes.get(p.name, {}),
            "candidates": answered.get(p.name),
            "judgements": judged.get(p.name, []),
            "pairs": pairs.get(p.name),
            "trained_on": trained.get(p.name, {}),
            "stages": _stages(found, p.name),
        }
        for p in found["policies"]
    ]


def _stages(found: dict[str, list[Any]], policy: str) -> list[dict[str, Any]]:
    mine = [s for s in found["stages"] if s.policy == policy]
    mine.sort(key=lambda s: STAGE_ORDER.index(s.name))
    return [_row(s, "run_id", "policy", "made_from", "made_in") for s in mine]


def _suites(found: dict[str, list[Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Evaluation measures by suite and part: `two_turn/score` is part `score` of `two_turn`."""
    order = {p.name: p.idx for p in found["policies"]}
    suites: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for m in sorted((m for m in found["metrics"] if m.stage == "evaluate"), key=lambda m: order[m.policy]):
        suite, _, part = m.name.partition("/")
        point = {"policy": m.policy, "value": m.value, "low": m.low, "high": m.high, "n": m.n}
        suites.setdefault(suite, {}).setdefault(part or "value", []).append(point)
    return suites


def _results(
    views: Accounts, policies: Sequence[dict[str, Any]], found: dict[str, list[Any]]
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Evaluation measures by suite, with pass@k and categories where the stored grades have them."""
    run = views.run()
    known = categories_of(views.path.parent, json.loads(run.recipe) if run else {})
    suites = _suites(found)
    done = [n for n, status in views.evaluated().items() if status == "done"]
    for policy in (p["name"] for p in policies if p["name"] in done):
        for suite, grades in _grades(views, policy).items():
            for part, i in parts(grades, known):
                point = {"policy": policy, "value": i.value, "low": i.low, "high": i.high, "n": i.n}
                suites.setdefault(suite, {}).setdefault(part, []).append(point)
    return suites


def _comparison(views: Accounts, policies: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest promoted policy against M1 (M1 against M0) on what both answered; None without two."""
    evaluated = {n for n, status in views.evaluated().items() if status == "done"}
    made = [p["name"] for p in policies if p["status"] == "promoted" and p["name"] in evaluated]
    if len(made) < 2:
        return None
    newest = made[-1]
    before = "M1" if newest != "M1" and "M1" in made else made[0]
    sides = [_grades(views, name) for name in (before, newest)]
    done, left_out = compare({n: (sides[0][n], sides[1][n]) for n in sides[0] if n in sides[1]})
    suites = [asdict(c) | {"sentence": sentence(c)} for c in done]
    return {"before": before, "after": newest, "suites": suites, "left_out": left_out}


def _grades(views: Accounts, policy: str) -> dict[str, list[Grade]]:
    """By suite, and by grader where it has several; a faulted answer has none and is every grader's."""
    by: dict[str, list[Grade]] = {}
    for r in views.grades(policy):
        by.setdefault(r.suite, []).append(Grade(r.item, r.turn, r.sample, r.seed, r.grader, r.score))
    found = {}
    for suite, grades in by.items():
        graders: list[str | None] = [*sorted({g.grader for g in grades if g.grader})]
        for grader in graders or [None]:
            name = suite if len(graders) < 2 else f"{suite} ({grader})"
            found[name] = [g for g in grades if g.grader in (grader, None)]
    return found


def _drift(found: dict[str, list[Any]], policies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By policy: the root of its KL to M0 (nats a token), and the mean score its candidates were given."""
    kl = {m.policy: m for m in found["metrics"] if m.stage == "probe" and m.name == "kl_m0"}
    rows = []
    for p in policies:
        m = kl.get(p["name"])
        distance = 0.0 if p["name"] == "M0" else m.value if m else None
        proxies = {j["scorer"]: {"mean": j["mean"], "n": j["n"] - j["faults"]} for j in p["judgements"]}
        rows.append({
            "policy": p["name"], "kl": distance, "proxy": proxies,
            "sqrt_kl": None if distance is None else math.sqrt(max(0.0, distance)),
        })  # fmt: skip
    return rows


def _histograms(rows: list[Any], names: dict[int, str]) -> list[dict[str, Any]]:
    """Counts by policy (and scorer) in equal parts from `low` to `high`."""
    found: dict[Any, dict[str, Any]] = {}
    for r in rows:
        scorer = getattr(r, "scorer", None)
        key = r.idx, scorer
        if key not in found:
            span = {"low": float(getattr(r, "low", 0.0)), "high": float(r.high)}
            found[key] = {"policy": names.get(r.idx), "scorer": scorer} | span | {"counts": [0] * BINS}
        found[key]["counts"][r.bin] = r.n
    return list(found.values())


def _examples(views: Accounts, policies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pairs with the largest and the smallest margins of the newest iteration that has any."""
    of = next((p["name"] for p in reversed(policies) if p["pairs"]), None)
    if of is None:
        return {"of": None, "largest": [], "smallest": []}
    largest = [int(r.id) for r in views.page(PairFilter(of=of, sort="-margin"), EXAMPLES).rows]
    smallest = [int(r.id) for r in views.page(PairFilter(of=of, sort="margin"), 2 * EXAMPLES).rows]
    smallest = [i for i in smallest if i not in largest][:EXAMPLES]
    ends = {"largest": largest, "smallest": smallest}
    return {"of": of} | {k: [e for i in ids if (e := _example(views, i))] for k, ids in ends.items()}


def _example(views: Accounts, pair_id: int) -> dict[str, Any] | None:
    found = views.pair(pair_id)
    if found is None:
        return None
    p = found["pair"]
    replies = {s: next((j.raw for j in found[f"{s}_judgements"] if j.raw), None) for s in SIDES}
    return {
        "id": p.id, "policy": p.policy, "margin": p.margin, "rule": p.rule, "review": p.review,
        "prompt": cut(p.prompt), "chosen": cut(found["chosen"].text), "rejected": cut(found["rejected"].text),
        "chosen_score": p.chosen_score, "rejected_score": p.rejected_score,
        "chosen_reply": cut(replies["chosen"]), "rejected_reply": cut(replies["rejected"]),
    }  # fmt: skip


SIDES = ("chosen", "rejected")


def cut(text: str | None) -> str | None:
    """A text of at most `LONGEST` characters, with how many more there were."""
    if text is None or len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]} … ({len(text) - LONGEST:,} more characters)"


def _cost(views: Accounts, stages: Sequence[Any]) -> dict[str, Any]:
    """Seconds and tokens by stage, and of the commands that worked on the run."""
    by: dict[str, dict[str, float]] = {}
    for s in stages:
        one = by.setdefault(s.name, {"seconds": 0.0, "tokens": 0})
        one["seconds"] += s.seconds
        one["tokens"] += s.n_tokens
    sessions = [json.loads(e.detail) for e in views.events_of("session")]
    wall = math.fsum(float(s.get("seconds", {}).get("wall", 0.0)) for s in sessions)
    taken = asdict(spent(stages, views.gpus(), ""))
    return taken | {"by_stage": by, "commands": len(sessions), "wall_seconds": wall}


def _versions(stages: Sequence[Any]) -> dict[str, str]:
    """Library versions the rows were made with; several where a run went on with others."""
    seen: dict[str, set[str]] = {}
    for s in stages:
        for key, value in json.loads(s.made_from or "{}").items():
            if key.startswith("version.") or key in ("model.dtype", "engine.type"):
                seen.setdefault(key.removeprefix("version."), set()).add(str(value))
    return {name: ", ".join(sorted(values)) for name, values in sorted(seen.items())}
