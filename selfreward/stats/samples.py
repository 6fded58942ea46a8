"""What several samples of one prompt amount to: pass@k, majority, attempts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence


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
