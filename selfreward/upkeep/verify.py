"""What is held against the files beside a store: adapters, proofs, the rows trainings read, backups."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfreward.files import sha256_of
from selfreward.store import backup as backups
from selfreward.store.promises import Broken, Row, broken, counted

WEIGHTS, JOB, PROOF = "adapter_model.safetensors", "job.json", "proof.json"


def check(path: Path, views: Any) -> Iterator[tuple[str, Broken | None]]:
    """Every promise of the store at `path` and of the files beside it, with its break or None."""
    yield from broken(path)
    made = _made_here(views)
    for promise, rows in (
        ("an adapter's weights have the hash its policy tells", _weights(path.parent, made)),
        ("a trained adapter brings its proof", _proofs(path.parent, made)),
        ("a training's rows file has the hash its adapter tells", _rows(path.parent, made)),
        ("a backup can be put back", _backups(path)),
    ):
        yield promise, counted(promise, rows)


def _made_here(views: Any) -> list[tuple[Any, dict[tuple[str, str], Any]]]:
    """Every policy with an adapter, where it was made, and the stages of its run by (policy, name)."""
    found = []
    for run in views.runs():
        status = views.status(run.id)
        stages = {(s.policy, s.name): s for s in status["stages"]}
        found += [(p, stages) for p in status["policies"] if p.adapter and p.made_in == p.run_id]
    return found


def _weights(folder: Path, made: list[tuple[Any, Any]]) -> Iterator[Row]:
    for policy, _ in made:
        weights = folder / policy.adapter / WEIGHTS
        if not weights.is_file():
            yield [policy.run_id, policy.name, f"{weights} is missing"]
        elif sha256_of(weights) != policy.sha256:
            yield [policy.run_id, policy.name, f"{weights} is not what was trained"]


def _was_trained(policy: Any, stages: Any) -> bool:
    """Not an adapter that `start.adapter` brought along."""
    return any(
        (policy.name, n) in stages and stages[policy.name, n].status == "done" for n in ("sft", "train")
    )


def _proofs(folder: Path, made: list[tuple[Any, Any]]) -> Iterator[Row]:
    for policy, stages in made:
        if not _was_trained(policy, stages):
            continue
        try:
            proof = json.loads((folder / policy.adapter / PROOF).read_text(encoding="utf-8"))
            if not proof["rows"]:
                yield [policy.run_id, policy.name, "the proof has no rows"]
        except (OSError, ValueError, KeyError) as error:
            yield [policy.run_id, policy.name, f"{PROOF}: {error}"]


def _rows(folder: Path, made: list[tuple[Any, Any]]) -> Iterator[Row]:
    """`job.json` names the rows file's hash and the fingerprint of the stage that made the adapter."""
    for policy, stages in made:
        if not _was_trained(policy, stages):
            continue
        home = folder / policy.adapter
        stage = stages.get((policy.name, "train")) or stages.get((policy.name, "sft"))
        try:
            job = json.loads((home / JOB).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            yield [policy.run_id, policy.name, f"{JOB}: {error}"]
            continue
        if job.get("fingerprint") != stage.fingerprint:
            yield [policy.run_id, policy.name, "the adapter was made by another training"]
        rows = home.parent / "training" / "rows.jsonl"
        if rows.is_file() and sha256_of(rows) != job.get("rows_sha256"):
            yield [policy.run_id, policy.name, f"{rows} is not what was read"]


def _backups(path: Path) -> Iterator[Row]:
    for one in backups.backups(path):
        wrong = backups.fault(one)
        if wrong is not None:
            yield [str(one), wrong]
