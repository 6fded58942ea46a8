"""Correlation of two lists: linear, of ranks, of orders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np


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
