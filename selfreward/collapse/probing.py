"""Gate 2, what a policy says to the probe's fixed prompts, beside its parent and the start policy. Pure.

The same prompts and seeds serve every policy, so that all comparisons are paired by prompt. What a step of
the loop may do is held against the parent; what no policy should be is held against the start policy, so that
a slow slide counts as much as a fall.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from selfreward import stats
from selfreward.collapse import limits, texts
from selfreward.collapse.limits import LIMITS, Finding, Limit, Reading
from selfreward.collapse.texts import Answers
from selfreward.stats import Interval


@dataclass(frozen=True, slots=True)
class Probed:
    """A policy on the probe: its text to each prompt, and by prompt whether the token limit cut it (0 or 1).

    `rewards` is what a rule gives each text, where the reward is a rule: it costs nothing to ask again.
    """

    answers: Sequence[Answers]
    cut: Mapping[str, float] = field(default_factory=dict)
    rewards: Mapping[str, float] = field(default_factory=dict)


def of_policy(
    now: Probed,
    parent: Probed | None,
    start: Probed | None,
    kl: Interval | None = None,
    levels: Mapping[str, Limit] = LIMITS,
) -> list[Finding]:
    """Every signal of the probe held against its limit.

    `parent` is None for a start policy: SFT may change lengths, words and distances as it likes. `kl` is
    nats a token to the parent.
    """
    found = _texts(now, parent, start, levels) + _cut(now, parent and start, levels)
    if parent is not None:
        found += _reward(now, parent)
        found += [Reading("kl_previous", kl)] if kl is not None else []
    findings = [limits.judged(r, levels) for r in found]
    return findings + limits.several(findings, levels)


def _texts(
    now: Probed, parent: Probed | None, start: Probed | None, levels: Mapping[str, Limit]
) -> list[Reading]:
    """Relative signs beside the parent, all others beside the start policy."""
    slow = texts.readings(now.answers, start.answers if start else ())
    kept = [r for r in slow if r.signal not in levels or levels[r.signal].kind != "relative"]
    if parent is None:
        return kept
    fast = slow if parent is start else texts.readings(now.answers, parent.answers)
    return kept + [r for r in fast if r.signal in levels and levels[r.signal].kind == "relative"]


def _cut(now: Probed, start: Probed | None, levels: Mapping[str, Limit]) -> list[Reading]:
    """Answers at the token limit; where it was too short for the start policy already it says nothing."""
    if start is None or not now.cut or not start.cut:
        return []
    both = [p for p in now.cut if p in start.cut]
    before, after = ([side.cut[p] for p in both] for side in (start, now))
    if not both or math.fsum(before) / len(before) > levels["cut_share"].warn:
        return []
    left, right = stats.estimate(before), stats.estimate(after)
    return [
        Reading("cut_share", stats.share_of(right), left.value, stats.difference(left, right, paired=True))
    ]


def _reward(now: Probed, parent: Probed) -> list[Reading]:
    """How far the rule's mean score fell, in standard deviations of the parent's scores.

    What a training was told to raise should not fall on prompts nobody trained on: the sign of swapped sides.
    """
    both = [p for p in now.rewards if p in parent.rewards]
    before, after = ([side.rewards[p] for p in both] for side in (parent, now))
    sd = float(np.std(before, ddof=1)) if len(before) > 1 else 0.0
    if sd == 0.0:
        return []
    fall = stats.difference(stats.estimate(after), stats.estimate(before), paired=True)
    return [Reading("reward_fall", Interval(fall.value / sd, fall.low / sd, fall.high / sd, fall.n), 0.0)]
