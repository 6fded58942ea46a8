"""Two policies on the same prompts, judged side by side in both orders: who wins, and how surely. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfreward import stats
from selfreward.evaluation.saved import Numbers, numbers_of
from selfreward.rubric.contest import both_orders, soft_preference, winner
from selfreward.stats import Interval

STEPS = 50
HELD = 1e-3  # weight that holds the length's slope near 0 where the prompts do not tell it


@dataclass(frozen=True, slots=True)
class Bout:
    """One prompt, answered by both; `lengths` are tokens.

    `first` and `second` are the share of a win, 0 to 1, that went to the left policy when its answer was
    shown first and when it was shown second; None where no verdict could be read.
    """

    item: str
    category: str
    first: float | None
    second: float | None
    lengths: tuple[int, int]
    identical: bool = False

    @property
    def preference(self) -> float | None:
        """1 a win of the left policy, 0.5 a tie, 0 a loss; stated verdicts that disagree are a tie.

        Probabilities (neither 0, 0.5 nor 1) are averaged over both orders (RLAIF, arXiv 2309.00267).
        """
        if self.identical:
            return 0.5
        if self.first is None or self.second is None:
            return None
        if {self.first, self.second} <= {0.0, 0.5, 1.0}:
            return both_orders(self.first, 1 - self.second).preference
        return soft_preference(self.first, 1 - self.second)

    @property
    def consistent(self) -> bool | None:
        """Whether both orders named the same one; None where that was not asked or not read."""
        if self.identical or self.first is None or self.second is None:
            return None
        return winner(self.first) == winner(self.second)


def summary(bouts: Sequence[Bout]) -> dict[str, Any]:
    """Wins, ties and losses of the left policy, its win rate with interval, and how steady the judge was."""
    said = [(b, p) for b in bouts if (p := b.preference) is not None]
    preferences = [p for _, p in said]
    consistent = [b.consistent for b in bouts if b.consistent is not None]
    shown_first = [x for b in bouts for x in _to_the_first(b)]
    names = dict.fromkeys(b.category for b in bouts)
    return {
        "n": len(said),
        "win": sum(p > 0.5 for p in preferences),
        "tie": sum(p == 0.5 for p in preferences),
        "lose": sum(p < 0.5 for p in preferences),
        "faults": len(bouts) - len(said),
        "identical": sum(b.identical for b in bouts),
        "win_rate": _rate(preferences),
        "length_controlled": numbers_of(length_controlled(said) if said else None),
        "categories": {c: _rate([p for b, p in said if b.category == c]) for c in names},
        "consistency": numbers_of(stats.share(sum(consistent), len(consistent)) if consistent else None),
        "first_shown": _rate(shown_first),
    }


def _rate(preferences: Sequence[float]) -> Numbers:
    if not preferences:
        return numbers_of(None)
    return numbers_of(stats.bounded(preferences, [1.0] * len(preferences)))


def _to_the_first(b: Bout) -> list[float]:
    """What went to the answer that was shown first, a mean over both orders: 0.5 is no liking of a place."""
    if b.identical or b.first is None or b.second is None:
        return []
    return [(b.first + 1 - b.second) / 2]


def length_controlled(said: Sequence[tuple[Bout, float]]) -> Interval:
    """The win rate at equal lengths: σ(a) of logit P(win) = a + b · tanh(Δ / sd), Δ tokens left less right.

    The form is that of length-controlled AlpacaEval (Dubois et al. 2024, arXiv 2404.04475). One drawn game at
    Δ = 0 keeps a finite. The interval is Wald's on the logit: wide where length alone tells the winner.
    """
    differences = [float(b.lengths[0] - b.lengths[1]) for b, _ in said]
    centre = math.fsum(differences) / len(differences)
    spread = math.sqrt(math.fsum((d - centre) ** 2 for d in differences) / max(1, len(differences) - 1))
    lean = [math.tanh(d / spread) if spread else 0.0 for d in differences]
    a, deviation = _intercept(list(zip(lean, [p for _, p in said], strict=True)))
    low, high = a - stats.Z95 * deviation, a + stats.Z95 * deviation
    return Interval(_sigmoid(a), _sigmoid(low), _sigmoid(high), len(said))


def _intercept(games: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """`a` and its standard deviation, by Newton's steps on the logistic likelihood with part-wins."""
    a = b = 0.0
    for _ in range(STEPS):
        residuals = [(x, y - _sigmoid(a + b * x)) for x, y in (*games, (0.0, 0.5))]
        weights = [(x, p * (1 - p)) for x, _ in (*games, (0.0, 0.5)) for p in [_sigmoid(a + b * x)]]
        g_a, g_b = math.fsum(r for _, r in residuals), math.fsum(x * r for x, r in residuals) - HELD * b
        h_aa = math.fsum(w for _, w in weights) + 1e-12
        h_ab = math.fsum(x * w for x, w in weights)
        h_bb = math.fsum(x * x * w for x, w in weights) + HELD
        determinant = h_aa * h_bb - h_ab * h_ab
        step_a, step_b = (h_bb * g_a - h_ab * g_b) / determinant, (h_aa * g_b - h_ab * g_a) / determinant
        size = max(abs(step_a), abs(step_b))
        shrink = min(1.0, 2.0 / size) if size else 1.0
        a, b = a + shrink * step_a, b + shrink * step_b
        if size < 1e-10:
            break
    return a, math.sqrt(h_bb / determinant)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
