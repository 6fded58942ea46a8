"""Where a run stands, in words: what it is doing, how fast, whether it is healthy.

Pure: rows of `policy`, `stage` and `alarm` in, sentences out; the clock is an argument.
"""

from __future__ import annotations

import math
import re
from calendar import timegm
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STAGE_ORDER = ("sft", "prompts", "candidates", "judge", "pairs", "train", "probe", "evaluate")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
# What `stage.n_done` counts.
UNITS = {
    "sft": "steps", "prompts": "prompts", "candidates": "answers", "judge": "answers", "pairs": "prompts",
    "train": "steps", "probe": "answers", "evaluate": "answers",
}  # fmt: skip
# Measures in a few words, where the name alone does not say it.
MEANINGS = {
    "cut_share": "probe answers that were cut off",
    "distinct_2": "different among all pairs of neighbouring words",
    "kl_m0": "distance from the base, nats a token",
    "kl_previous": "distance from its parent, nats a token",
    "length_mean": "tokens a probe answer",
    "loop_share": "probe answers that repeat themselves",
    "moved": "proof: difference from its parent, nats a token",
    "noise": "proof: what batching alone changes, nats a token",
    "proof_gap": "proof: engine against trainer, nats a token",
}


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a stage goes; None where nothing was timed or the total is not known."""

    per_second: float | None
    tokens_per_second: float | None
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """`level` is ok, warn or halt; `now` says what happens, `health` what to think of it."""

    level: str
    now: str
    health: str


def counted(outcome: str, n: int) -> str:
    """How many prompts had an outcome, in words: `23 pairs`, `1 tie`, `5 too few scores`."""
    several = "s" if outcome in ("pair", "tie") and n != 1 else ""
    return f"{n:,} {outcome.replace('_', ' ')}{several}"


def duration(seconds: float) -> str:
    """Whole seconds, minutes or hours."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def pace(stage: Any, at: str) -> Pace:
    """A stage's speed from its own counters.

    A training counts its seconds at its end: until then they are those since its start, if it had only one.
    `at` is the present as the store writes it.
    """
    seconds = _so_far(stage, at)
    if not seconds or not stage.n_done:
        return Pace(None, None, None)
    speed = stage.n_done / seconds
    left = max(0, stage.n_total - stage.n_done) / speed if stage.n_total else None
    return Pace(speed, stage.n_tokens / seconds if stage.n_tokens else None, left)


def _so_far(stage: Any, at: str) -> float:
    if not stage.seconds and stage.status == "running" and stage.attempt == 1 and stage.started_at:
        return _since(stage.started_at, at)
    return float(stage.seconds)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run has taken: seconds of work, generated tokens, hours of GPUs (None: no stage had one)."""

    seconds: float
    tokens: int
    gpu_hours: float | None

    @property
    def told(self) -> str:
        """In a few words."""
        gpus = "no GPU" if self.gpu_hours is None else f"{self.gpu_hours:.2f} GPU-hours"
        return f"{duration(self.seconds)} of work, {self.tokens:,} tokens generated, {gpus} so far"


def spent(stages: Sequence[Any], gpus: Mapping[tuple[str, str], int], at: str) -> Spent:
    """The sum over stages; `gpus` says how many each (policy, stage) kept busy, where it did."""
    taken = {(s.policy, s.name): _so_far(s, at) for s in stages}
    hours = math.fsum(taken.get(key, 0.0) * n for key, n in gpus.items()) / 3600
    return Spent(math.fsum(taken.values()), sum(s.n_tokens for s in stages), hours if gpus else None)


def gates(alarms: Sequence[Any]) -> list[str]:
    """A line for each gate that looked at these alarms' policy: after which stage, what it found."""
    found = []
    for stage in dict.fromkeys(a.stage for a in alarms):
        levels = [a.level for a in alarms if a.stage == stage]
        bad = [f"{levels.count(level)} {level}" for level in ("halt", "warn") if level in levels]
        some = f"{len(levels)} signal{'s' if len(levels) > 1 else ''}"
        found.append(f"gate after {stage}: {some}, {', '.join(bad) or 'all fine'}")
    return found


def _since(start: str, end: str) -> float:
    """Seconds between two times as the store writes them, 0 where one is something else."""
    times = [[int(n) for n in re.findall(r"\d+", t)] for t in (start, end) if re.fullmatch(TIME, t)]
    return max(0.0, float(timegm(tuple(times[1])) - timegm(tuple(times[0])))) if len(times) == 2 else 0.0


def progress(stage: Any, at: str) -> str:
    """Counts, speed and what is left of a stage, in a line."""
    found = pace(stage, at)
    parts = [f"{stage.n_done:,} of {stage.n_total:,}" if stage.n_total else f"{stage.n_done:,} so far"]
    if found.per_second is not None:
        slow = found.per_second < 1
        parts.append(f"{1 / found.per_second:.1f} s each" if slow else f"{found.per_second:.1f} a second")
    if stage.n_tokens:
        speed = f" ({found.tokens_per_second:.0f} a second)" if found.tokens_per_second else ""
        parts.append(f"{stage.n_tokens:,} tokens{speed}")
    if found.seconds_left and stage.status == "running":
        parts.append(f"about {duration(found.seconds_left)} left")
    return ", ".join(parts)


def outlook(
    policies: Sequence[Any], stages: Sequence[Any], alarms: Sequence[Any], *, held: bool | None, at: str
) -> Outlook:
    """The run in two sentences. `held`: does a process hold the run's lock; None where nobody knows."""
    if not policies:
        return Outlook("ok", "Nothing has been made yet.", "")
    standing = max((p for p in policies if p.status == "promoted"), key=lambda p: p.idx, default=policies[0])
    halted = _halted(policies, stages, alarms)
    if halted:
        return Outlook("halt", f"{standing.name} is the policy; the run has stopped.", halted)
    return Outlook(
        "warn" if any(a.level == "warn" for a in alarms) else "ok",
        f"{_doing(stages, held, at)} {standing.name} is the policy now.",
        _health(policies, alarms),
    )


def _doing(stages: Sequence[Any], held: bool | None, at: str) -> str:
    running = next((s for s in stages if s.status == "running"), None)
    if running is None:
        return "Between two stages." if held else "Nothing is running."
    name = f"{running.policy} {running.name}"
    match held:
        case True:
            return f"Now {name}: {progress(running, at)}."
        case False:
            done = f"{running.n_done:,} of {running.n_total or '?'}"
            return f"Interrupted in {name} at {done}: the same command goes on from there."
        case None:
            return f"{name} is running or was interrupted: {progress(running, at)}."


def _halted(policies: Sequence[Any], stages: Sequence[Any], alarms: Sequence[Any]) -> str:
    """Why the run can't go on, or nothing. A gate that only warned, or was overridden, has been passed."""
    for policy in policies:
        if policy.status == "rejected":
            return f"{policy.name} was rejected: {policy.decision}."
    for stage in stages:
        if stage.status == "failed":
            return f"{stage.policy} {stage.name} failed: {stage.error}"
    trained = {s.policy for s in stages if s.name == "train"}
    for alarm in alarms:
        passed = f"M{int(alarm.policy[1:]) + 1}" in trained
        if alarm.level == "halt" and alarm.stage == "pairs" and not passed:
            return f"{alarm.message}."
    return ""


def _health(policies: Sequence[Any], alarms: Sequence[Any]) -> str:
    bad = [a for a in alarms if a.level != "ok"]
    if bad:
        return f"{len(bad)} of {len(alarms)} signals raised an alarm: {'; '.join(a.message for a in bad)}."
    if not alarms:
        return "No gate has looked at it yet."
    return f"All {len(alarms)} signals of {len({(a.policy, a.stage) for a in alarms})} gates are fine."


def signals(found: Mapping[str, Sequence[Any]]) -> dict[str, list[dict[str, Any]]]:
    """What the probe measured and the gates found, by signal and in the order of policies.

    A threshold and a level only where a gate looked.
    """
    alarms = {(a.policy, a.stage, a.signal): a for a in found["alarms"]}
    signals: dict[str, list[dict[str, Any]]] = {}
    for m in found["metrics"]:
        if m.stage == "probe":
            point = _point(m, alarms.pop((m.policy, m.stage, m.name), None))
            signals.setdefault(f"probe/{m.name}", []).append(point | {"n": m.n})
    for a in alarms.values():
        signals.setdefault(f"{a.stage}/{a.signal}", []).append(_point(a, a) | {"n": None})
    order = {p.name: p.idx for p in found["policies"]}
    return {n: sorted(signals[n], key=lambda p: order[p["policy"]]) for n in sorted(signals)}


def _point(row: Any, alarm: Any) -> dict[str, Any]:
    return {
        "policy": row.policy, "value": row.value, "low": row.low, "high": row.high,
        "level": alarm.level if alarm else None, "threshold": alarm.threshold if alarm else None,
    }  # fmt: skip
