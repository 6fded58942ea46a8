"""Intervals of shares, means and ratios; resampling, Wilson's score, Student's quantile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
    low, high = wilson(p, n, Z95)
    return Interval(p, min(p, low), max(p, high), n)


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
        return spread(value, (a - value * b) / b.mean())
    drawn = draws(len(a))
    found = a[drawn].sum(1) / b[drawn].sum(1)
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


def draws(n: int) -> np.ndarray:
    """`RESAMPLES` resamplings of n units, the same for every call."""
    return np.random.default_rng(n).integers(0, n, size=(RESAMPLES, n))


def wilson(p: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval of a share p of n draws, n any positive number."""
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: exact for 1 and 2 degrees, else its series in 1/degrees."""
    if freedom < 3:
        return (math.inf, math.tan(0.475 * math.pi), 0.95 * math.sqrt(2 / (1 - 0.95**2)))[max(freedom, 0)]
    z, v = Z95, float(freedom)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / v + second / v**2 + third / v**3


def spread(value: float, parts: np.ndarray) -> Interval:
    """Student: value ± t · sd(parts) / √m; one part alone has no width."""
    m = len(parts)
    if m < 2:
        return Interval(value, value, value, m)
    half = student(m - 1) * float(parts.std(ddof=1)) / math.sqrt(m)
    return Interval(value, value - half, value + half, m)
