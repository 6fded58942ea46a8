"""What a person has let pass: halts overridden by `iterate --accept`, read from the events that keep them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from selfreward.collapse import Finding
from selfreward.errors import BadInput
from selfreward.records import Alarm
from selfreward.stages.work import Work

EVENT = "accept"
# What nobody can let pass: without pairs there is nothing to train on.
NOTHING_TO_GO_ON_WITH = frozenset({"pairs"})
Sign = tuple[str, str, str]  # policy, stage, signal


def overrides(work: Work) -> list[dict[str, Any]]:
    """Every override of the run, the oldest first: `policy`, `reason`, and the `halts` it lets pass."""
    return [json.loads(e.detail) for e in work.store.events(work.run.id, EVENT)]


def reasons(work: Work) -> dict[Sign, str]:
    """Why each accepted sign was let pass."""
    return {
        (halt["policy"], halt["stage"], halt["signal"]): found["reason"]
        for found in overrides(work)
        for halt in found["halts"]
    }


def reason_for(work: Work, policy: str) -> str | None:
    """Why the halts on the way to a policy were let pass; None where none was."""
    told = [found["reason"] for found in overrides(work) if found["policy"] == policy]
    return told[-1] if told else None


def standing_halts(work: Work, policy: str) -> list[Alarm]:
    """The halts on the way to `policy` that nobody has let pass: those of its parent's data and its own."""
    parent = f"M{int(policy[1:]) - 1}"
    known = reasons(work)
    return [
        a
        for a in work.store.alarms(work.run.id)
        if a.level == "halt"
        and ((a.policy == parent and a.stage in ("judge", "pairs")) or a.policy == policy)
        and (a.policy, a.stage, a.signal) not in known
    ]


def check(work: Work, policy: str, halts: Sequence[Alarm]) -> None:
    """Raises `BadInput` where there is nothing that could be let pass."""
    if not halts:
        raise BadInput(
            f"no gate halted on the way to {policy}: there is nothing to accept. "
            f"`selfreward status --run {work.run.name}` shows where the run stands"
        )
    for halt in halts:
        if halt.signal in NOTHING_TO_GO_ON_WITH or halt.value is None:
            raise BadInput(f"{halt.message}. This cannot be accepted: there is nothing to go on with")


def softened(finding: Finding, reason: str | None) -> Finding:
    """A halt that was let pass is a warning that says so."""
    if finding.level != "halt" or reason is None or finding.signal in NOTHING_TO_GO_ON_WITH:
        return finding
    return replace(finding, level="warn", message=f"{finding.message}; accepted: {reason}")
