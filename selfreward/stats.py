"""Numbers with their n and their 95 % interval.

Pure, numpy only. Means cluster by prompt; shares use Wilson, which does not collapse near 0 and 1;
differences are paired by prompt. Every resampling is seeded by its arguments, so a number is the same
whenever it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import ArrayLike

Z95 = 1.959963984540054
RESAMPLES = 2000
MANY = 4000  # units from which the normal interval serves: resampling them would need gigabytes


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval and the number of independent units behind it."""

    value: float
    low: float
    high: float
    n: int


def share(hits: float, n: int) -> Interval:
    """A proportion with Wilson's interval. Raises ValueError for n = 0."""
    if n < 1:
        raise ValueError("a share of nothing")
    p = hits / n
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    return Interval(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), n)


def mean(values: Sequence[float]) -> Interval:
    """Mean of independent values, one a prompt, with a bootstrap interval; one value alone has width 0."""
    return ratio(values, np.ones(len(values)))


def ratio(numerators: ArrayLike, denominators: ArrayLike) -> Interval:
    """Σ numerators / Σ denominators, resampled by prompt: a mean per token whose tokens come in answers."""
    a, b = np.asarray(numerators, float), np.asarray(denominators, float)
    if len(a) < 1:
        raise ValueError("a mean of nothing")
    value = math.fsum(a) / math.fsum(b)
    if len(a) > MANY:
        return _spread(value, (a - value * b) / b.mean())
    draws = _draws(len(a))
    found = a[draws].sum(1) / b[draws].sum(1)
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(value, min(value, float(low)), max(value, float(high)), len(a))


def paired_difference(left: Sequence[float], right: Sequence[float]) -> Interval:
    """mean(right) − mean(left) of values paired by prompt, bootstrapped over prompts."""
    if len(left) != len(right):
        raise ValueError(f"{len(left)} and {len(right)} values cannot be paired")
    return mean([r - a for a, r in zip(left, right, strict=True)])


def jackknife(value: float, without: Sequence[float]) -> Interval:
    """An interval for a statistic that is no mean, from its values with each prompt left out."""
    n = len(without)
    if n < 2:
        return Interval(value, value, value, max(n, 1))
    centre = math.fsum(without) / n
    se = math.sqrt((n - 1) / n * math.fsum((w - centre) ** 2 for w in without))
    return Interval(value, value - Z95 * se, value + Z95 * se, n)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic as the mean of its parts, so that two of them can be compared part by part.

    A part belongs to a prompt or to a block of prompts: its own mean, or the jackknife's pseudo-value. `n`
    is the number of prompts behind all of them.
    """

    value: float
    parts: tuple[float, ...]
    n: int


def estimate(parts: Sequence[float]) -> Estimate:
    """The mean of one value a prompt. Raises ValueError without any."""
    if not parts:
        raise ValueError("a mean of nothing")
    return Estimate(math.fsum(parts) / len(parts), tuple(parts), len(parts))


def pseudo(value: float, without: Sequence[float], n: int) -> Estimate:
    """A statistic that is no mean, by the pseudo-values m·θ − (m − 1)·θ₋ᵢ of its m blocks of n prompts."""
    m = len(without)
    return Estimate(value, tuple(m * value - (m - 1) * w for w in without), n)


def linearised(numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
    """Σ numerators / Σ denominators with the delta method's parts: for parts that are few and skewed.

    At 64 answers its interval of a KL covers 94.5 % where the bootstrap of `ratio` covers 93.5 %.
    """
    a, b = np.asarray(numerators, float), np.asarray(denominators, float)
    if len(a) < 1:
        raise ValueError("a mean of nothing")
    value = math.fsum(a) / math.fsum(b)
    return Estimate(value, tuple((value + (a - value * b) / b.mean()).tolist()), len(a))


def interval_of(found: Estimate) -> Interval:
    """Student's interval from the spread of the parts."""
    parts = np.asarray(found.parts)
    around = _spread(found.value, parts)
    return Interval(around.value, around.low, around.high, found.n)


def share_of(found: Estimate) -> Interval:
    """Wilson's interval for a share that each prompt has a part in, prompts as the units."""
    at = min(1.0, max(0.0, found.value))  # a sum of parts may pass 1 by rounding
    return share(at * len(found.parts), len(found.parts))


def difference(left: Estimate, right: Estimate, paired: bool) -> Interval:
    """How far `right` is above `left`; `paired`: the parts of both belong to the same prompts, in order."""
    return _contrast(right.value - left.value, left, right, 1.0, paired)


def quotient(left: Estimate, right: Estimate, paired: bool) -> Interval:
    """The quotient right / left with its interval (delta method). Raises ValueError where `left` is 0."""
    if left.value == 0:
        raise ValueError("a ratio to nothing")
    ratio = right.value / left.value
    found = _contrast(0.0, left, right, ratio, paired)
    low, high = sorted((ratio + found.low / left.value, ratio + found.high / left.value))
    return Interval(ratio, low, high, found.n)


def _contrast(value: float, left: Estimate, right: Estimate, scale: float, paired: bool) -> Interval:
    """The spread of right − scale · left, around `value`."""
    a, b = np.asarray(left.parts), np.asarray(right.parts)
    n = min(left.n, right.n)
    if paired:
        if len(a) != len(b):
            raise ValueError(f"{len(a)} and {len(b)} parts cannot be paired")
        return _with_n(_spread(value, b - scale * a), n)
    sides = (_spread(0.0, scale * a), _spread(0.0, b))
    half = math.hypot(*(s.high for s in sides))
    return Interval(value, value - half, value + half, n)


def _with_n(found: Interval, n: int) -> Interval:
    return Interval(found.value, found.low, found.high, n)


def _spread(value: float, parts: np.ndarray) -> Interval:
    """Student: value ± t · sd(parts) / √m; one part alone has no width."""
    m = len(parts)
    if m < 2:
        return Interval(value, value, value, m)
    half = _t95(m - 1) * float(parts.std(ddof=1)) / math.sqrt(m)
    return Interval(value, value - half, value + half, m)


def _t95(df: int) -> float:
    """Student's 97.5 % point: a table below 6 degrees of freedom, its expansion in 1/df from there."""
    few = (12.706, 4.303, 3.182, 2.776, 2.571)
    return few[df - 1] if df <= len(few) else Z95 * (1 + (Z95**2 + 1) / (4 * df))


def pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Linear correlation; None where one side does not vary. In plain Python: most calls have four values."""
    n = len(x)
    if n < 2 or min(x) == max(x) or min(y) == max(y):
        return None
    mx, my = math.fsum(x) / n, math.fsum(y) / n
    dx, dy = [v - mx for v in x], [v - my for v in y]
    product = math.fsum(p * q for p, q in zip(dx, dy, strict=True))
    scale = math.sqrt(math.fsum(p * p for p in dx)) * math.sqrt(math.fsum(q * q for q in dy))
    return max(-1.0, min(1.0, product / scale)) if scale else None


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Correlation of ranks, equal values sharing their mean rank; None where one side does not vary."""
    return pearson(_ranks(x), _ranks(y))


def kendall(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Kendall's τ-b: concordant less discordant pairs over √(pairs untied in x · pairs untied in y).

    None where one side is all ties. Quadratic in the number of values (Kendall 1945, Biometrika 33).
    """
    a, b = np.asarray(x, float), np.asarray(y, float)
    upper = np.triu_indices(len(a), 1)
    signs = [np.sign(v[:, None] - v[None, :])[upper] for v in (a, b)]
    untied = math.sqrt(float(np.count_nonzero(signs[0])) * float(np.count_nonzero(signs[1])))
    return float((signs[0] * signs[1]).sum()) / untied if untied else None


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    at = 0
    for _, equal in groupby(order, key=values.__getitem__):
        places = list(equal)
        for place in places:
            found[place] = at + (len(places) + 1) / 2
        at += len(places)
    return found


def _draws(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, n, size=(RESAMPLES, n))
