"""Pairwise verdicts: two orders of presentation as one, and many comparisons as one number a candidate.

A preference is the share of a win that goes to the first named: 1 a win, 0.5 a tie, 0 a loss. One that
could not be read is None and is left out of everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

Preferences = Mapping[tuple[int, int], float | None]  # (i, j), i != j, each pair once: the share of i

_STEPS = 10_000
_SETTLED = 1e-12


@dataclass(frozen=True, slots=True)
class BothOrders:
    """The preference for x over y, and whether the two orders said the same of it."""

    preference: float | None
    consistent: bool | None


def both_orders(x_first: float | None, y_first: float | None) -> BothOrders:
    """Verdicts on A with x shown as A, and on A with y shown as A.

    Where the orders disagree it is a tie (MT-Bench, arXiv 2306.05685, section 3.4); where one could not be
    read there is no preference and nothing is said of consistency.
    """
    if x_first is None or y_first is None:
        return BothOrders(None, None)
    swapped = 1 - y_first
    return BothOrders(x_first if x_first == swapped else 0.5, x_first == swapped)


def winner(share: float) -> int:
    """1 where the first named wins, -1 where the other does, 0 for a tie."""
    return (share > 0.5) - (share < 0.5)


def soft_preference(x_first: float, y_first: float) -> float:
    """The mean over both orders of the probability of x, given that of A (RLAIF, arXiv 2309.00267)."""
    return (x_first + 1 - y_first) / 2


def copeland(n: int, preferences: Preferences) -> list[float | None]:
    """Wins and half the ties of each of n, as a share in 0..1 of its comparisons; None if it had none.

    A preference above 0.5 is a win, however far above.
    """
    points: list[list[float]] = [[] for _ in range(n)]
    for (i, j), share in _said(n, preferences):
        win = 0.5 if share == 0.5 else float(share > 0.5)
        points[i].append(win)
        points[j].append(1 - win)
    return [math.fsum(p) / len(p) if p else None for p in points]


def bradley_terry(n: int, preferences: Preferences, *, prior: float = 1.0) -> list[float | None]:
    """Log-strengths of n by Bradley and Terry (1952), so that P(i over j) = σ(b_i − b_j); None if uncompared.

    Found by the minorise-maximise steps of Hunter (Annals of Statistics 32, 2004); shares count as part-wins.
    `prior` drawn games of each against an opponent of strength 1 keep one who always won finite and fix the
    origin at 0 (the Gamma prior's part in Caron and Doucet, JCGS 2012, played by games).
    """
    if not 0 < prior < math.inf:
        raise ValueError(f"prior {prior} is not above 0")
    games = _said(n, preferences)
    wins, met = [prior / 2] * n, [False] * n
    for (i, j), share in games:
        wins[i], wins[j] = wins[i] + share, wins[j] + 1 - share
        met[i] = met[j] = True
    strength = [1.0] * n
    for _ in range(_STEPS):
        played = [prior / (s + 1) for s in strength]
        for (i, j), _share in games:
            played[i] += 1 / (strength[i] + strength[j])
            played[j] += 1 / (strength[i] + strength[j])
        new = [w / p for w, p in zip(wins, played, strict=True)]
        moved = max((abs(math.log(a / b)) for a, b in zip(new, strength, strict=True)), default=0.0)
        strength = new
        if moved < _SETTLED:
            break
    return [math.log(s) if m else None for s, m in zip(strength, met, strict=True)]


def _said(n: int, preferences: Preferences) -> list[tuple[tuple[int, int], float]]:
    """The comparisons that could be read, sorted, so that the order they came in decides no bit."""
    for (i, j), share in preferences.items():
        if i == j or not 0 <= min(i, j) <= max(i, j) < n or (share is not None and not 0 <= share <= 1):
            raise ValueError(f"no preference between two of {n}: {(i, j)}: {share}")
    return sorted((pair, share) for pair, share in preferences.items() if share is not None)
