"""The watch over a training: the trainer's own numbers, step by step, and what they are held against. Pure.

Nothing is generated to know this: margins and log-probabilities fall out of the loss, and the drift is that
of fixed texts, teacher-forced (`selfreward.training.fixed`).
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selfreward import stats
from selfreward.collapse import limits
from selfreward.collapse.limits import LIMITS, Finding, Limit, Reading
from selfreward.stats import Interval

PAIRS = 64  # that a window holds: a whole step more where they do not divide
SURE = 0.99  # of the pairs of a window are won: only then is a falling chosen side a sign
EARLY = 10  # steps whose gradients say what is usual


@dataclass
class TrainingWatch:
    """What a training has logged so far. `batch` is pairs a step, `beta` turns rewards back into nats."""

    batch: int
    beta: float
    levels: Mapping[str, Limit] = field(default_factory=lambda: LIMITS)
    seen: int = 0  # the last step it was shown
    _window: deque[Mapping[str, Any]] = field(default_factory=deque)
    _drift: Mapping[str, Any] | None = None
    _first: list[float] = field(default_factory=list)
    _norms: deque[float] = field(default_factory=lambda: deque(maxlen=EARLY))

    def add(self, line: Mapping[str, Any]) -> list[Finding]:
        """Takes a line of `train.jsonl`; every sign there is, with its level."""
        self.seen = int(line["step"])
        self._drift = line.get("drift") or self._drift
        if "margin" in line:
            self._window.append(line)
        while len(self._window) > math.ceil(PAIRS / self.batch):
            self._window.popleft()
        if "grad_norm" in line:
            (self._first if len(self._first) < EARLY else self._norms).append(line["grad_norm"])
        found = self._drifted() + self._fallen() + self._margin() + self._gradient()
        findings = [limits.judged(r, self.levels) for r in found]
        return findings + limits.several(findings, self.levels)

    def _drifted(self) -> list[Reading]:
        """The newest measure of the fixed texts, in nats a token."""
        d = self._drift
        return [Reading("train_drift", Interval(d["value"], d["low"], d["high"], d["n"]), 0.0)] if d else []

    def _fallen(self) -> list[Reading]:
        """Nats a token that chosen answers have lost while every pair is won: both sides are unlearnt.

        The reference is the parent, so that a fall is one since this training began.
        """
        window = [x for x in self._window if x.get("chosen_tokens")]
        if not window or math.fsum(x["accuracy"] for x in window) / len(window) < SURE:
            return []
        lost = [-x["reward_chosen"] / self.beta / x["chosen_tokens"] for x in window]
        return [Reading("chosen_fall", self._of_pairs(lost), 0.0)]

    def _margin(self) -> list[Reading]:
        margins = [x["margin"] for x in self._window]
        return [Reading("train_margin", self._of_pairs(margins))] if margins else []

    def _gradient(self) -> list[Reading]:
        """The largest norm of the last ten steps over the median of the first ten."""
        usual = statistics.median(self._first) if self._first else 0.0
        if not self._norms or usual <= 0.0:
            return []
        ratio = max(self._norms) / usual
        return [Reading("gradient_ratio", Interval(ratio, ratio, ratio, EARLY + len(self._norms)), 1.0)]

    def _of_pairs(self, steps: Sequence[float]) -> Interval:
        """A mean of steps with the interval of steps and the number of pairs."""
        around = stats.interval_of(stats.estimate(steps))
        return Interval(around.value, around.low, around.high, len(steps) * self.batch)
