"""Whether a judge still judges: its scores as readings. Pure: rows in, readings out.

Prompts are the units: the scores of one prompt are not independent of each other. An unread verdict is
counted as a fault and enters nothing else.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selfreward import stats
from selfreward.collapse.limits import Reading
from selfreward.stats import Estimate, Interval

TOPS = (1.0, 5.0, 10.0, 100.0)  # usual ends of a scale
NEAR = 0.05  # of the scale: an expected score this close to the top is at the top
EQUAL = 1e-9
BLOCKS = 20


@dataclass(frozen=True, slots=True)
class Score:
    """A verdict: `value` None where it could not be read; `length` of what was judged, in any one unit."""

    prompt: str | None
    value: float | None
    length: float | None = None


def by_prompt(rows: Sequence[Score]) -> list[list[Score]]:
    """Rows of the same prompt that follow each other; a row without a prompt stands alone."""
    groups: list[list[Score]] = []
    for _, group in itertools.groupby(enumerate(rows), key=lambda r: r[1].prompt or f"\0{r[0]}"):
        groups.append([row for _, row in group])
    return groups


def top_of(rows: Sequence[Score]) -> float:
    """The end of the scale where nobody says: the least of 1, 5, 10, 100 that no score passes."""
    most = max((r.value for r in rows if r.value is not None), default=1.0)
    return next((top for top in TOPS if most <= top), most)


def readable(group: Sequence[Score]) -> list[float]:
    """The scores of a prompt that could be read."""
    return [r.value for r in group if r.value is not None]


def at_top(value: float, top: float) -> bool:
    """Whether a score is the best there is, or within 5 % of the scale of it."""
    return value >= top - NEAR * abs(top)


def parts(groups: Sequence[Sequence[Score]], top: float) -> dict[str, list[float]]:
    """For each signal one value of every prompt that has one."""
    scores = [readable(g) for g in groups]
    some, several = [s for s in scores if s], [s for s in scores if len(s) > 1]
    correlations = [length_correlation(g) for g in groups]
    return {
        "faults": [1 - len(s) / len(g) for s, g in zip(scores, groups, strict=True)],
        "judge_mean": [math.fsum(s) / len(s) for s in some],
        "top_score": [sum(at_top(v, top) for v in s) / len(s) for s in some],
        "ties": [float(max(s) - min(s) < EQUAL) for s in several],
        "spread": [float(np.std(s)) / abs(top) for s in several],
        "length_correlation": [c for c in correlations if c is not None],
    }


def length_correlation(group: Sequence[Score]) -> float | None:
    """Rank correlation of score and length among a prompt's texts; None below three, or where one is tied."""
    known = [(r.value, r.length) for r in group if r.value is not None and r.length is not None]
    if len(known) < 3:
        return None
    return stats.spearman([v for v, _ in known], [n for _, n in known])


SHARES = frozenset({"faults", "top_score", "ties", "same_score"})


def readings(
    groups: Sequence[Sequence[Score]], top: float, baseline: Sequence[Sequence[Score]] = ()
) -> list[Reading]:
    """The judge's health: mean, spread within a prompt, ties, faults, share at the top, length.

    With a `baseline`, other prompts' scores by another policy, each is compared with it, unpaired.
    """
    now, before = parts(groups, top), parts(baseline, top)
    found = []
    for name, values in now.items():
        if values:
            old = stats.estimate(before[name]) if before[name] else None
            found.append(reading(name, stats.estimate(values), old))
    found += _same_score(groups)
    if not now["length_correlation"]:
        found += _overall_length(groups)
    return found


def reading(name: str, now: Estimate, before: Estimate | None, paired: bool = False) -> Reading:
    """One signal with its interval and, where there is something before, the difference."""
    around = stats.share_of(now) if name in SHARES else stats.interval_of(now)
    if before is None:
        return Reading(name, around)
    return Reading(name, around, before.value, stats.difference(before, now, paired))


def _same_score(groups: Sequence[Sequence[Score]]) -> list[Reading]:
    """The share of the commonest score, to three digits."""
    rounded = [[f"{v:.3g}" for v in s] for s in map(readable, groups) if s]
    if not rounded:
        return []
    commonest = min(Counter(v for s in rounded for v in s).items(), key=lambda c: (-c[1], c[0]))[0]
    now = stats.estimate([s.count(commonest) / len(s) for s in rounded])
    return [Reading("same_score", stats.share_of(now), detail=f"it is {commonest}")]


def _overall_length(groups: Sequence[Sequence[Score]]) -> list[Reading]:
    """Rank correlation over all prompts, where no prompt has three scores; jackknife over 20 blocks."""
    units = [
        (math.fsum(readable(g)) / len(readable(g)), math.fsum(n) / len(n))
        for g in groups
        if readable(g) and (n := [r.length for r in g if r.length is not None])
    ]
    value = _rank(units)
    if value is None or len(units) < BLOCKS:
        return []
    blocks = np.array_split(np.arange(len(units)), BLOCKS)
    without = [_rank([units[i] for i in np.setdiff1d(np.arange(len(units)), b)]) for b in blocks]
    if any(w is None for w in without):
        return []
    known = [w for w in without if w is not None]
    return [Reading("length_correlation", stats.interval_of(stats.pseudo(value, known, len(units))))]


def _rank(units: Sequence[tuple[float, float]]) -> float | None:
    return stats.spearman([v for v, _ in units], [n for _, n in units])


def agreement(now: Mapping[str, Sequence[float]], before: Mapping[str, Sequence[float]]) -> Reading | None:
    """Mean τ-b, over prompts, of two judges' scores of the same candidates in the same order.

    A prompt on which one judge ties everything says nothing about agreement and is left out.
    """
    found = [stats.kendall(now[p], before[p]) for p in now if p in before]
    values = [tau for tau in found if tau is not None]
    return Reading("agreement", stats.interval_of(stats.estimate(values))) if values else None


def since(before: Sequence[Sequence[Score]], after: Sequence[Sequence[Score]], top: float) -> list[Reading]:
    """What a change made of the judge: health after it, the shift in standard deviations, the spread left.

    `score_shift` is |mean after − mean before| over the standard deviation of scores before; `spread_ratio`
    is the mean distance of scores from their own mean, after over before.
    """
    found = readings(after, top, before)
    old, new = ([math.fsum(s) / len(s) for s in map(readable, side) if s] for side in (before, after))
    if len(old) < 2 or len(new) < 2:
        return found
    sd = max(float(np.std(old, ddof=1)), 1e-3 * abs(top))
    gap = stats.difference(stats.estimate(old), stats.estimate(new), paired=False)
    sign = 1 if gap.value >= 0 else -1
    low, high = sorted((sign * gap.low / sd, sign * gap.high / sd))
    found.append(Reading("score_shift", Interval(abs(gap.value) / sd, low, high, gap.n), 0.0))
    spreads = [_distances(side) for side in (before, after)]
    if spreads[0] and spreads[1] and math.fsum(spreads[0]) > 0:
        left, right = map(stats.estimate, spreads)
        ratio = stats.quotient(left, right, paired=False)
        found.append(Reading("spread_ratio", ratio, 1.0))
    return found


def _distances(groups: Sequence[Sequence[Score]]) -> list[float]:
    scores = [s for s in map(readable, groups) if s]
    flat = [v for s in scores for v in s]
    centre = math.fsum(flat) / len(flat) if flat else 0.0
    return [math.fsum(abs(v - centre) for v in s) / len(s) for s in scores]
