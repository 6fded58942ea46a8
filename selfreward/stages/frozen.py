"""What a stage was made from: the keys that decided its rows, kept at its start and held against the next."""

from __future__ import annotations

import json
from typing import Any

from selfreward import stages
from selfreward.errors import StoreError
from selfreward.files import sha256_of_text
from selfreward.records import Stage
from selfreward.stages.work import Work

UPSTREAM = {"candidates": "prompts", "judge": "candidates", "pairs": "judge", "probe": None, "evaluate": None}


def made_from(work: Work, name: str, stage: str) -> dict[str, Any]:
    """The stage's own keys and the fingerprint of the stage whose rows it reads."""
    policy = work.policy(name)
    made = stages.MADE_FROM[stage](work, policy)
    known = work.store.stages(work.run.id)
    if stage == "train":
        read = known[(policy.parent or "M0", "pairs")]
        return made | {"pairs": read.fingerprint}
    upstream = UPSTREAM.get(stage)
    return made | {upstream: known[(name, upstream)].fingerprint} if upstream else made


def check_same(stage: Stage, made_from: dict[str, Any]) -> None:
    """A started stage keeps what it was made from; anything else is refused with the keys that differ.

    The machine's own keys (threads, versions) bind a stage until it is done: its rows are there then.
    """
    if stage.made_from is None:
        return
    stored = json.loads(stage.made_from)
    present = json.loads(json.dumps(made_from))
    done = stage.status == "done"
    keys = sorted(k for k in stored.keys() | present.keys() if stored.get(k) != present.get(k))
    keys = [k for k in keys if not (done and (k == "engine.threads" or k.startswith("version.")))]
    if keys:
        told = "; ".join(f"{k}: {_short(stored.get(k))} then, {_short(present.get(k))} now" for k in keys)
        raise StoreError(
            f"{stage.name} of {stage.policy} was made from another recipe: {told}. "
            "Put the keys back, or start a run under a new name"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "…"


def freeze(stage: Stage, made_from: dict[str, Any]) -> None:
    """From now on the stage is bound to these keys."""
    stage.made_from = json.dumps(made_from, sort_keys=True)
    stage.fingerprint = sha256_of_text(stage.made_from)
