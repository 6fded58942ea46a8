"""What a stage was made from: the keys that decided its rows, kept at its start and held against the next."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from selfreward import stages
from selfreward.files import sha256_of_text
from selfreward.records import Stage
from selfreward.stages.work import Work

UPSTREAM = {"candidates": "prompts", "judge": "candidates", "pairs": "judge", "probe": None, "evaluate": None}


@dataclass(frozen=True, slots=True)
class Change:
    """A key that decided a stage's rows, with its value then and now."""

    key: str
    then: Any
    now: Any


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


def changes(stage: Stage, made_from: dict[str, Any]) -> list[Change]:
    """The keys whose present values are not those a started stage was made from, by name.

    The machine's own keys (threads, versions) bind a stage until it is done: its rows are there then.
    """
    if stage.made_from is None:
        return []
    stored = json.loads(stage.made_from)
    present = json.loads(json.dumps(made_from))
    done = stage.status == "done"
    keys = sorted(k for k in stored.keys() | present.keys() if stored.get(k) != present.get(k))
    keys = [k for k in keys if not (done and (k == "engine.threads" or k.startswith("version.")))]
    return [Change(k, stored.get(k), present.get(k)) for k in keys]


def freeze(stage: Stage, made_from: dict[str, Any]) -> None:
    """From now on the stage is bound to these keys."""
    stage.made_from = json.dumps(made_from, sort_keys=True)
    stage.fingerprint = sha256_of_text(stage.made_from)
