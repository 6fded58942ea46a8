"""Statistics as means of their parts, so that any two can be compared, paired by prompt or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from selfreward.stats.intervals import Interval, share, spread


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
    around = spread(found.value, parts)
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
        return _with_n(spread(value, b - scale * a), n)
    sides = (spread(0.0, scale * a), spread(0.0, b))
    half = math.hypot(*(s.high for s in sides))
    return Interval(value, value - half, value + half, n)


def _with_n(found: Interval, n: int) -> Interval:
    return Interval(found.value, found.low, found.high, n)
