"""What a user reads when a run has halted: what died, since when, what shows it, what to type next. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfreward.collapse import calmer
from selfreward.collapse.limits import LIMITS
from selfreward.collapse.verdict import KINDS, WHAT

GATE_1 = ("judge", "pairs")
ORDER = ("sft", "train", "probe", "evaluate", "judge", "pairs")  # as they come for one policy
LOOK = {
    "ties": "pairs list --outcome tie",
    "faults": "pairs list --outcome too_few_scores",
    "identical": "pairs list --outcome identical_text",
    "pairs": "pairs stats",
}


@dataclass(frozen=True, slots=True)
class Screen:
    """Two sentences, at most three numbers, at most two texts, and commands with what each does."""

    what: str
    since: str
    numbers: tuple[str, ...]
    examples: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]


def screen(
    run: str,
    alarms: Sequence[Any],
    recipe: Mapping[str, Any],
    margins: Sequence[float],
    examples: Sequence[str],
) -> Screen | None:
    """The newest halt as a screen; None where no gate halted. `alarms` are rows of `alarm`."""
    halts = [a for a in alarms if a.level == "halt"]
    if not halts:
        return None
    policy, stage = newest(halts)
    here = sorted((a for a in alarms if (a.policy, a.stage) == (policy, stage)), key=_weight)
    worst = [a for a in here if a.level == "halt"]
    shown = [*worst, *(a for a in here if a.level == "warn")][:3]
    first = "; ".join(WHAT.get(a.signal, a.signal) for a in worst[:2])
    return Screen(
        first[:1].upper() + first[1:] + ".",
        _since(policy, stage, worst[0].signal, alarms),
        tuple(a.message for a in shown),
        tuple(" ".join(t.split())[:200] for t in examples[:2]),
        _commands(run, policy, stage, [a.signal for a in worst], recipe, margins),
    )


def newest(halts: Sequence[Any]) -> tuple[str, str]:
    """Policy and stage of the last gate that halted."""
    return max(((a.policy, a.stage) for a in halts), key=lambda at: (int(at[0][1:]), ORDER.index(at[1])))


def _weight(alarm: Any) -> int:
    """Absolute signs first, comparisons last: the order in which they convince."""
    limit = LIMITS.get(alarm.signal)
    return KINDS.index(limit.kind) if limit else -1


def made(policy: str, stage: str) -> str:
    """The policy that a halt keeps from being made, or from being promoted."""
    return f"M{int(policy[1:]) + 1}" if stage in GATE_1 else policy


def data_of(policy: str, stage: str) -> str:
    """The policy whose iteration the halt is of: what it was made from, or would be."""
    return policy if stage in GATE_1 else f"M{int(policy[1:]) - 1}"


def _since(policy: str, stage: str, signal: str, alarms: Sequence[Any]) -> str:
    parent = f"M{max(0, int(policy[1:]) - 1)}"
    before = [a for a in alarms if (a.policy, a.stage, a.signal) == (parent, stage, signal)]
    match stage:
        case "judge":
            return f"Inside stage judge of {policy}, at the prompt named below. Nothing was trained."
        case "train":
            return f"Since the training of {policy} from {parent}; {parent} stays the policy."
        case "probe":
            return f"Since the training of {policy}; {parent} stays the policy."
    if before and before[0].level == "ok":
        return f"Since the data of {policy}: that of {parent} passed. Nothing was trained on it."
    return f"In the data of {policy}. Nothing was trained on it; {policy} stays the policy."


def _commands(
    run: str,
    policy: str,
    stage: str,
    signals: Sequence[str],
    recipe: Mapping[str, Any],
    margins: Sequence[float],
) -> tuple[tuple[str, str], ...]:
    data = data_of(policy, stage)
    look = next((LOOK[s] for s in signals if s in LOOK), "pairs list --sort -margin --limit 5")
    found = [(f"selfreward {look} --run {run} --of {data}", "what it was made of")]
    changed = calmer.changes(recipe, stage, signals, margins, 1)
    if changed:
        sets = " ".join(f"--set {k}={v}" for k, v in changed.items())
        found.append(
            (f"selfreward iterate --run {run} --from {data} --branch calmer {sets}", "try again, calmer")
        )
    reason = f'selfreward iterate --run {run} --accept {made(policy, stage)} --reason "…"'
    return (*found, (reason, "go on all the same; the reason is kept for ever"))
