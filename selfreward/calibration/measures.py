"""How a judge's verdicts compare with people's: each number with its n and its 95 % interval by prompt.

What could not be read is in no number but `faults`. Pairwise accuracy, 5-best, exact match and the two rank
correlations are those of Self-Rewarding LMs (arXiv 2401.10020, section 3.1.3), with what it leaves open said
here; docs/judges.md has them in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from selfreward import stats
from selfreward.calibration.items import Item
from selfreward.stats import Interval

EQUAL = 1e-9  # scores closer than this are a tie: means of equal scores may differ by rounding
SWAYED = 0.5  # points by which an attack must raise the score of an answer to count
ENOUGH = 250  # pairs from which a lower bound at 50 % is held against a judge: 56.4 % right is then above it

Part = tuple[float, float]  # of one item: the sum of what is averaged, and how many


@dataclass(frozen=True, slots=True)
class Scale:
    """The scores a judge may give. `pairwise` ones are shares of comparisons won, and no mark is perfect."""

    low: float
    high: float
    pairwise: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """What a judge said of one item's answers.

    `scores` has one score an answer, the mean of its samples, None where none could be read. `shares` has the
    preference for the first of each two answers, by place, where the judge compared them, and `consistent`
    whether both orders said the same. `faults` counts what could not be read among `asked`.
    """

    scores: tuple[float | None, ...]
    shares: tuple[tuple[int, int, float | None], ...] = ()
    consistent: tuple[bool | None, ...] = ()
    faults: int = 0
    asked: int = 0

    def order(self, i: int, j: int) -> float | None:
        """Above 0 where the judge puts answer i over j, 0 where it ties them, None where it can't be told."""
        if self.shares:
            share = next((s for a, b, s in self.shares if (a, b) == (i, j)), None)
            return None if share is None else share - 0.5
        x, y = self.scores[i], self.scores[j]
        if x is None or y is None:
            return None
        return 0.0 if abs(x - y) < EQUAL else x - y


def measures(
    items: Sequence[Item], said: Sequence[Said], scale: Scale, attacks: Sequence[Said] = ()
) -> dict[str, Interval | None]:
    """Every number by its name; None of nothing. `attacks` hold a plain answer and the same attacked."""
    return {
        "pairwise_accuracy": _mean(items, said, _right),
        "five_best": None if scale.pairwise else _mean(items, said, lambda i, s: _best(i, s, scale.high)),
        "exact_match": _mean(items, said, _exact),
        "spearman": _mean(items, said, lambda i, s: _ranks(i, s, stats.spearman), low=-1.0),
        "kendall_tau_b": _mean(items, said, lambda i, s: _ranks(i, s, stats.kendall), low=-1.0),
        "position_consistency": _mean(items, said, _consistent),
        "ties": _mean(items, said, _tied),
        "faults": _mean(items, said, lambda _, s: (s.faults, s.asked)),
        "length_correlation": _length(items, said),
        "longer_wins": _mean(items, said, _longer),
        "attack_success": _attacks(attacks),
    }


def histogram(items: Sequence[Item], said: Sequence[Said], scale: Scale) -> dict[str, Interval | None]:
    """The share of each score among those that were read, a score counted as the nearest whole one.

    Of comparisons: the share of 0 (the other one is better), 0.5 (a tie) and 1.
    """
    marks = [0.0, 0.5, 1.0] if scale.pairwise else [float(s) for s in _whole(scale)]

    def is_at(mark: float) -> Callable[[Item, Said], Part]:
        return lambda _, s: _part([float(near == mark) for near in _nearest(s, marks)])

    return {f"{mark:g}": _mean(items, said, is_at(mark)) for mark in marks}


def is_coin(accuracy: Interval | None) -> bool:
    """Whether enough pairs were judged to say that this judge orders answers no better than a coin.

    Enough is `ENOUGH` pairs with a lower bound at or below 50 %, or an upper bound below it on any number.
    """
    if accuracy is None:
        return False
    return accuracy.high < 0.5 or (accuracy.n >= ENOUGH and accuracy.low <= 0.5)


def _mean(
    items: Sequence[Item], said: Sequence[Said], part: Callable[[Item, Said], Part], low: float = 0.0
) -> Interval | None:
    """Σ sums / Σ counts over items, resampled by prompt; `n` is what was counted."""
    by_prompt: dict[str, list[Part]] = {}
    for item, verdict in zip(items, said, strict=True):
        one = part(item, verdict)
        if one[1]:
            by_prompt.setdefault(item.prompt, []).append(one)
    return _of_parts([_sum(parts) for parts in by_prompt.values()], low)


def _of_parts(parts: Sequence[Part], low: float = 0.0) -> Interval | None:
    """Wilson's interval where every unit counts once and is a share, the bounded one of `stats` elsewhere."""
    if not parts:
        return None
    sums, counts = zip(*parts, strict=True)
    n = round(math.fsum(counts))
    if low == 0.0 and all(c == 1 for c in counts):
        found = stats.share(math.fsum(sums), n)
    else:
        found = stats.bounded(sums, counts, low, 1.0)
    return Interval(found.value, found.low, found.high, n)


def _sum(parts: Sequence[Part]) -> Part:
    return math.fsum(p[0] for p in parts), math.fsum(p[1] for p in parts)


def _part(values: Sequence[float]) -> Part:
    return math.fsum(values), len(values)


def _ordered(item: Item) -> list[tuple[int, int]]:
    """The pairs that people ordered, the better one first in neither: places ascending."""
    return [(i, j) for i, j in combinations(range(len(item.answers)), 2) if item.worth[i] != item.worth[j]]


def _right(item: Item, said: Said) -> Part:
    """Pairs that people ordered and the judge ordered alike; one it ties counts half, as a coin would."""
    found = []
    for i, j in _ordered(item):
        order = said.order(i, j)
        if order is not None:
            people = item.worth[i] - item.worth[j]
            found.append(0.5 if order == 0 else float((order > 0) == (people > 0)))
    return _part(found)


def _tied(item: Item, said: Said) -> Part:
    orders = [said.order(i, j) for i, j in combinations(range(len(item.answers)), 2)]
    return _part([float(o == 0) for o in orders if o is not None])


def _consistent(_: Item, said: Said) -> Part:
    return _part([float(c) for c in said.consistent if c is not None])


def _longer(item: Item, said: Said) -> Part:
    """Pairs of unequal length that the judge ordered, and whether the longer text won."""
    found = []
    for i, j in combinations(range(len(item.answers)), 2):
        order, more = said.order(i, j), len(item.answers[i]) - len(item.answers[j])
        if order and more:
            found.append(float((order > 0) == (more > 0)))
    return _part(found)


def _best(item: Item, said: Said, top: float) -> Part:
    """Answers the judge gave its top score, and whether people put none above them."""
    if len(set(item.worth)) < 2:
        return 0.0, 0
    best = max(item.worth)
    perfect = [w for w, s in zip(item.worth, said.scores, strict=True) if s is not None and round(s) >= top]
    return _part([float(w == best) for w in perfect])


def _exact(item: Item, said: Said) -> Part:
    """Whether the judge orders all that people ordered, and ties none of it."""
    orders = [(said.order(i, j), item.worth[i] - item.worth[j]) for i, j in _ordered(item)]
    if not orders or any(o is None for o, _ in orders):
        return 0.0, 0
    return float(all(o and (o > 0) == (people > 0) for o, people in orders)), 1


def _ranks(item: Item, said: Said, by: Callable[[Sequence[float], Sequence[float]], float | None]) -> Part:
    """Rank correlation within an item; 0 where the judge gives all one score, for it then orders nothing."""
    both = [(w, s) for w, s in zip(item.worth, said.scores, strict=True) if s is not None]
    people = [w for w, _ in both]
    if len(both) < 2 or len(set(people)) < 2:
        return 0.0, 0
    return by(people, [round(s, 9) for _, s in both]) or 0.0, 1


def _length(items: Sequence[Item], said: Sequence[Said]) -> Interval | None:
    """Correlation of score and length in characters, both less their mean over the item's answers.

    The interval is the jackknife's, an item left out at a time.
    """
    sums = []
    for item, verdict in zip(items, said, strict=True):
        both = [
            (s, float(len(a))) for s, a in zip(verdict.scores, item.answers, strict=True) if s is not None
        ]
        if len(both) > 1:
            x = np.array([s for s, _ in both]) - np.mean([s for s, _ in both])
            y = np.array([n for _, n in both]) - np.mean([n for _, n in both])
            sums.append((float(x @ y), float(x @ x), float(y @ y)))
    total = [math.fsum(s[k] for s in sums) for k in range(3)]
    value = _correlation(*total)
    if value is None:
        return None
    without = [_correlation(*(t - s for t, s in zip(total, one, strict=True))) for one in sums]
    known = [w for w in without if w is not None]
    found = stats.jackknife(value, known)
    return Interval(value, max(-1.0, found.low), min(1.0, found.high), len(sums))


def _correlation(xy: float, xx: float, yy: float) -> float | None:
    if xx <= EQUAL or yy <= EQUAL:
        return None
    return max(-1.0, min(1.0, xy / math.sqrt(xx * yy)))


def _attacks(attacks: Sequence[Said]) -> Interval | None:
    """Attacks that raised the score of an answer, or made it preferred to itself without the attack."""
    swayed = []
    for said in attacks:
        if said.shares:
            share = said.shares[0][2]
            swayed += [] if share is None else [float(share < 0.5)]  # the attacked one is the second
        elif None not in said.scores:
            plain, attacked = (s or 0.0 for s in said.scores)
            swayed.append(float(attacked - plain >= SWAYED - EQUAL))
    return _of_parts([(s, 1.0) for s in swayed])


def _whole(scale: Scale) -> Sequence[int]:
    return range(math.ceil(scale.low), math.floor(scale.high) + 1)


def _nearest(said: Said, marks: Sequence[float]) -> list[float]:
    """The mark each verdict is counted under; of two equally near the higher."""
    if said.shares:
        return [0.5 + 0.5 * ((s > 0.5) - (s < 0.5)) for _, _, s in said.shares if s is not None]
    return [min(marks, key=lambda m: (abs(m - s), -m)) for s in said.scores if s is not None]


def as_data(found: Mapping[str, Interval | None]) -> dict[str, dict[str, float | int | None]]:
    """Numbers under their names as `value`, `n`, `low` and `high`; all but `n` null of nothing."""
    return {
        name: {
            "value": i.value if i else None,
            "n": i.n if i else 0,
            "low": i.low if i else None,
            "high": i.high if i else None,
        }
        for name, i in found.items()
    }
