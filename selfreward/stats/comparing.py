"""What a comparison of two policies needs: bounded means, paired differences, tests, how many prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selfreward.stats.intervals import Z95, Interval, draws, student, wilson

FloatArray = NDArray[np.float64]
Z80 = 0.8416212335729143  # the 80 % quantile of a standard normal distribution


def bounded(numerators: ArrayLike, denominators: ArrayLike, low: float = 0.0, high: float = 1.0) -> Interval:
    """Σ numerators / Σ denominators of values between `low` and `high`, one pair of sums a prompt.

    Wilson's interval at the number of independent draws that the spread between prompts amounts to (the
    effective sample size of Korn and Graubard 1998), with Student's quantile for few prompts; it is never of
    width 0. Few prompts off the edge tell little of that spread, so the count of prompts stands in for it
    there: with k such prompts it keeps a weight of 100 / (k⁴ + 100), ours, found by simulation
    (docs/evaluation.md).
    """
    a, b = np.asarray(numerators, float), np.asarray(denominators, float)
    n = len(a)
    if n < 1:
        raise ValueError("a mean of nothing")
    value, total = math.fsum(a) / math.fsum(b), math.fsum(b)
    if n == 1 or low == high:
        return Interval(value, low, high, n)
    p = min(1.0, max(0.0, (value - low) / (high - low)))
    parts = (a - low * b) / (high - low)
    down, up = wilson(p, _independent_draws(parts, b, p, total), student(n - 1))
    return Interval(value, min(value, low + (high - low) * down), max(value, low + (high - low) * up), n)


def _independent_draws(parts: FloatArray, counts: FloatArray, p: float, total: float) -> float:
    """How many independent draws of a share have the variance that the prompts' sums show."""
    n = len(parts)
    variance = math.fsum((parts - p * counts) ** 2) / total**2
    off_edge = min(int((parts > 1e-12).sum()), int((parts < counts - 1e-12).sum()))
    weight = off_edge**4 / (off_edge**4 + 100)
    if p * (1 - p) < 1e-12 or variance < 1e-18:
        return n / max(1 - weight, 1e-6)
    return 1 / (weight * variance / (p * (1 - p)) + (1 - weight) / n)


def clustered_difference(
    left: Sequence[Sequence[float]], right: Sequence[Sequence[float]], scale: float
) -> Interval:
    """mean(right) − mean(left) of values paired by prompt and seed, several a prompt, bootstrapped by prompt.

    `scale` is the largest difference two values can have. The percentiles are widened for few prompts
    (Hesterberg 2015, section 5.3: a plain percentile interval is too short by √((n − 1)/n) and ignores
    Student's t). Where most prompts are alike and fewer than 10 differ a bootstrap knows too little: the
    interval then also spans that of Agresti and Min (2005), who add half an observation to each of the four
    cells. One prompt alone says nothing: its interval is all there is.
    """
    sums = np.array([math.fsum(r) - math.fsum(a) for a, r in zip(left, right, strict=True)])
    if any(len(a) != len(r) or not a for a, r in zip(left, right, strict=True)):
        raise ValueError("values cannot be paired: each prompt needs as many on the left as on the right")
    n = len(sums)
    if n < 1:
        raise ValueError("a mean of nothing")
    counts = np.array([len(a) for a in left], float)
    value = math.fsum(sums) / math.fsum(counts)
    if n == 1:
        return Interval(value, -scale, scale, 1)
    tail = _below(-math.sqrt(n / (n - 1)) * student(n - 1))
    drawn = draws(n)
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [tail, 1 - tail])
    if np.count_nonzero(sums) < min(10, n):
        means = sums / counts
        centre = math.fsum(means) / (n + 2)
        spread = math.sqrt((math.fsum(means**2) + scale**2) / (n + 2) - centre**2) / math.sqrt(n + 2)
        low, high = min(low, centre - Z95 * spread), max(high, centre + Z95 * spread)
    return Interval(value, max(-scale, min(value, float(low))), min(scale, max(value, float(high))), n)


def _below(z: float) -> float:
    """The share of a standard normal distribution below z."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def sign_flip(differences: Sequence[float], draws: int = 10_000) -> float:
    """Two-sided p that a mean difference this far from 0 comes from signs alone (Fisher's randomization).

    One difference a prompt. Exact where at most 14 are not 0, else `draws` random flips, counted with the
    one that was seen. No difference at all gives 1.
    """
    given = np.asarray([d for d in differences if d != 0], float)
    if not len(given):
        return 1.0
    seen = abs(math.fsum(given)) * (1 - 1e-12)
    if len(given) <= 14:
        signs = 1 - 2 * ((np.arange(2 ** len(given))[:, None] >> np.arange(len(given))) & 1)
        return float((np.abs(signs @ given) >= seen).mean())
    flips = np.random.default_rng(len(given)).choice([-1.0, 1.0], size=(draws, len(given)))
    return float(((np.abs(flips @ given) >= seen).sum() + 1) / (draws + 1))


def holm(ps: Sequence[float]) -> list[float]:
    """The p values of several tests, adjusted in their order (Holm 1979).

    Taking those at most 0.05 as clear is wrong about any test in at most 5 % of cases.
    """
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted


def detectable(differences: Sequence[float]) -> float:
    """The smallest true mean difference that a 5 % test of this many prompts finds four times in five.

    (z.975 + z.80) · sd / √n from the spread of the differences, one a prompt; at least two are needed.
    """
    return (Z95 + Z80) * _deviation(differences) / math.sqrt(len(differences))


def prompts_needed(differences: Sequence[float]) -> int | None:
    """How many prompts in all would show the mean difference seen, four times in five; None if it is 0."""
    value = math.fsum(differences) / len(differences)
    if value == 0:
        return None
    return math.ceil(((Z95 + Z80) * _deviation(differences) / value) ** 2)


def _deviation(values: Sequence[float]) -> float:
    if len(values) < 2:
        raise ValueError("the spread of fewer than two values")
    centre = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1))
