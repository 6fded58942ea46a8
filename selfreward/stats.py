"""Numbers with their n and their 95 % interval.

Pure, numpy only. Means cluster by prompt; shares use Wilson, which does not collapse near 0 and 1;
differences are paired by prompt. Every resampling is seeded by its arguments, so a number is the same
whenever it is computed. Then what a comparison needs (sign-flip test, Holm, how many prompts) and what
several samples of one prompt amount to (pass@k, majority, attempts).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

Z95 = 1.959963984540054
Z80 = 0.8416212335729143  # the 80 % quantile of a standard normal distribution
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
    low, high = _wilson(p, n, Z95)
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
    down, up = _wilson(p, _independent_draws(parts, b, p, total), student(n - 1))
    return Interval(value, min(value, low + (high - low) * down), max(value, low + (high - low) * up), n)


def _wilson(p: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval of a share p of n draws, n any positive number."""
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _independent_draws(parts: FloatArray, counts: FloatArray, p: float, total: float) -> float:
    """How many independent draws of a share have the variance that the prompts' sums show."""
    n = len(parts)
    variance = math.fsum((parts - p * counts) ** 2) / total**2
    off_edge = min(int((parts > 1e-12).sum()), int((parts < counts - 1e-12).sum()))
    weight = off_edge**4 / (off_edge**4 + 100)
    if p * (1 - p) < 1e-12 or variance < 1e-18:
        return n / max(1 - weight, 1e-6)
    return 1 / (weight * variance / (p * (1 - p)) + (1 - weight) / n)


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: exact for 1 and 2 degrees, else its series in 1/degrees."""
    if freedom < 3:
        return (math.inf, math.tan(0.475 * math.pi), 0.95 * math.sqrt(2 / (1 - 0.95**2)))[max(freedom, 0)]
    z, v = Z95, float(freedom)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / v + second / v**2 + third / v**3


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
    draws = _draws(n)
    low, high = np.quantile(sums[draws].sum(1) / counts[draws].sum(1), [tail, 1 - tail])
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


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that k of n samples, drawn without replacement, hold a right one.

    Chen et al. 2021 (arXiv 2107.03374), equation 1: 1 − C(n − right, k) / C(n, k), here as a product.
    Needs 1 ≤ k ≤ n.
    """
    if not 1 <= k <= n or not 0 <= right <= n:
        raise ValueError(f"pass@{k} of {right} right among {n}")
    if n - right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - right + 1, n + 1))


def majority(votes: Sequence[Hashable], right: Hashable) -> float:
    """1 if `right` has the most votes, 0 if not; among m answers with equally many it counts 1/m.

    So the order of samples decides nothing. Raises ValueError without votes.
    """
    if not votes:
        raise ValueError("a majority of nothing")
    counted = Counter(votes)
    most = max(counted.values())
    return (counted[right] == most) / sum(c == most for c in counted.values())


def attempts(marks: Sequence[bool | None]) -> int:
    """How many samples, in order, were spent until one was right; all of them if none was (None: unread)."""
    return next((i for i, mark in enumerate(marks, 1) if mark), len(marks))


def _draws(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, n, size=(RESAMPLES, n))
