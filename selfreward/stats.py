"""Numbers with their n and their 95 % interval.

Pure, numpy only. Means cluster by prompt; shares use Wilson, which does not collapse near 0 and 1;
differences are paired by prompt. Every resampling is seeded by its arguments, so a number is the same
whenever it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

Z95 = 1.959963984540054
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval and the number of independent units behind it."""

    value: float
    low: float
    high: float
    n: int


def share(hits: int, n: int) -> Interval:
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


def _draws(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, n, size=(RESAMPLES, n))
