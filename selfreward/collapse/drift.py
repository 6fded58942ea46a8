"""How far a policy has moved: KL[π ‖ π_ref] from log-probabilities of the policy's own samples. Pure.

Samples at temperature 1 and top-p 1, both policies scored on the same tokens. k1 = −log r and
k3 = (r − 1) − log r with r = π_ref / π, for each token (Schulman 2020, "Approximating KL divergence"): both
have the KL as mean; k3 is never negative and varies less where the policies are near.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from selfreward import stats
from selfreward.stats import Interval

MOST = 80.0  # nats: exp of more than this says nothing but "far", and overflows soon


def k1(own: Sequence[float], reference: Sequence[float]) -> float:
    """Σ (log π − log π_ref) over an answer's tokens, in nats; may be negative."""
    return math.fsum(a - b for a, b in zip(own, reference, strict=True))


def k3(own: Sequence[float], reference: Sequence[float]) -> float:
    """Σ ((r − 1) − log r) over an answer's tokens, in nats; never negative."""
    return math.fsum(math.expm1(min(b - a, MOST)) - (b - a) for a, b in zip(own, reference, strict=True))


def per_token(sums: Sequence[float], lengths: Sequence[int]) -> Interval:
    """Nats a token: answers are the units, a token in a long answer counts as much as one in a short."""
    return stats.interval_of(stats.linearised(sums, lengths))


def per_answer(sums: Sequence[float]) -> Interval:
    """Nats an answer."""
    return stats.interval_of(stats.estimate(sums))


def root(found: Interval) -> Interval:
    """√KL, the scale on which proxy rewards bend (Gao et al. 2023); what is below 0 counts as 0."""
    low, value, high = (math.sqrt(max(0.0, x)) for x in (found.low, found.value, found.high))
    return Interval(value, low, high, found.n)
