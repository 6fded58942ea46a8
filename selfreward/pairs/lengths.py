"""`length_control: auto`: what a token should cost so that chosen answers are as long as rejected ones.

DICE (arXiv 2406.09760) takes α a token off its reward and searches α for a mean difference of lengths near 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfreward.pairs.mining import Mined

_FIRST = 1e-6  # score a token; doubled until chosen answers are no longer the longer ones
_DOUBLINGS, _HALVINGS = 60, 40


@dataclass(frozen=True, slots=True)
class LengthCost:
    """Score a token, and the mean of chosen minus rejected tokens over the `n` pairs it leaves."""

    cost: float
    difference: float
    n: int


def balancing_cost(mined_at: Callable[[float], Sequence[Mined]]) -> LengthCost:
    """The cost whose pairs have a mean difference of lengths nearest to 0, the lower one of equals.

    `mined_at` mines every prompt at a cost. A cost of 0 stands where chosen answers are not longer: longer
    ones are never wanted. Pairs are few and change one by one, so that 0 itself may not be reached.
    """
    start = _at(0.0, mined_at)
    if start.n == 0 or start.difference <= 0:
        return start
    low, high = start, _at(_FIRST, mined_at)
    for _ in range(_DOUBLINGS):
        if high.difference <= 0 or high.n == 0:
            break
        low, high = high, _at(2 * high.cost, mined_at)
    for _ in range(_HALVINGS):
        middle = _at((low.cost + high.cost) / 2, mined_at)
        low, high = (middle, high) if middle.n and middle.difference > 0 else (low, middle)
    return min((c for c in (low, high) if c.n), key=lambda c: (abs(c.difference), c.cost))


def _at(cost: float, mined_at: Callable[[float], Sequence[Mined]]) -> LengthCost:
    pairs = [pair for mined in mined_at(cost) for pair in mined.pairs]
    differences = [best.n_tokens - worst.n_tokens for best, worst in pairs]
    return LengthCost(cost, math.fsum(differences) / len(pairs) if pairs else 0.0, len(pairs))
