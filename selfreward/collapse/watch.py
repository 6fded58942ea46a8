"""The watch over a judge inside a stage: fed prompt by prompt, it says when the judge changed and into what.

Pure. Five numbers a prompt are watched in groups of 20 prompts: share of faults, whether all scores tie, mean
score, distance of the scores from each other, rank correlation of score and length. After an alarm everything
since the change is held against the limits; without one the stage as a whole is looked at now and then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from selfreward.collapse.judging import EQUAL, Score, length_correlation, readable, readings, since
from selfreward.collapse.limits import LIMITS, Finding, Limit, judged, rank
from selfreward.collapse.sequential import GROUP, Series

# Prompts since a change that are enough to halt: the alarm has told it from chance already, and Wilson's
# interval of 30 in 30 starts at 88.6 %, above every level.
LEAST_SINCE = 30
BEFORE = 1000  # prompts before a change that it is compared with


@dataclass(frozen=True, slots=True)
class Shift:
    """A change of the judge: the prompt it began at and the one it was seen at, counted from 0."""

    series: str
    began: int
    seen: int


@dataclass
class Watch:
    """What the judge has said so far in a stage, and every change seen in it. `top` ends its scale."""

    top: float
    limits: Mapping[str, Limit] = field(default_factory=lambda: LIMITS)
    groups: list[Sequence[Score]] = field(default_factory=list)
    shifts: list[Shift] = field(default_factory=list)
    _series: dict[str, Series] = field(default_factory=dict)
    _last: float | None = None

    def __post_init__(self) -> None:
        floor = 0.02 * abs(self.top)  # of the scale: a judge that hardly varied may vary a little
        # faults: a standard deviation of 0.1 is that of 1 %, lest a stage's first two are an alarm
        self._series = {
            "faults": Series(0.1, share=True, only_up=True),
            "ties": Series(share=True),
            "spread": Series(floor),
            "scores": Series(floor),
            "length": Series(0.1),
        }

    def add(self, group: Sequence[Score]) -> Shift | None:
        """Takes the verdicts on one prompt's candidates; a change if it is seen just now."""
        place = len(self.groups)
        self.groups.append(group)
        seen = [name for name, v in self._values(group).items() if self._series[name].add(v, place)]
        if not seen:
            return None
        shift = Shift(seen[0], self._series[seen[0]].began(), place)
        self.shifts.append(shift)
        self._series = {name: s.since(shift.began) for name, s in self._series.items()}
        return shift

    def _values(self, group: Sequence[Score]) -> dict[str, float]:
        scores = readable(group)
        values = {"faults": 1 - len(scores) / len(group)}
        if len(scores) > 1:
            values["ties"] = float(max(scores) - min(scores) < EQUAL)
        if scores:
            values["scores"] = math.fsum(scores) / len(scores)
            values |= self._spread(scores)
        rank = length_correlation(group)
        if rank is not None:
            values["length"] = rank
        return values

    def _spread(self, scores: Sequence[float]) -> dict[str, float]:
        """Distance of scores from each other: within the prompt, or, of single ones, in pairs of prompts.

        No score enters two values: they would not be independent, and the detector counts on that.
        """
        if len(scores) > 1:
            return {"spread": math.fsum(abs(a - b) for a, b in pairwise(scores)) / (len(scores) - 1)}
        last, self._last = self._last, scores[0] if self._last is None else None
        return {} if last is None else {"spread": abs(scores[0] - last)}

    def findings(self, shift: Shift, end: int | None = None) -> list[Finding]:
        """The judge from a change to `end`, held against the limits and against what it was before."""
        before = self.groups[max(0, shift.began - BEFORE) : shift.began]
        limits = {k: replace(v, least=min(v.least, LEAST_SINCE)) for k, v in self.limits.items()}
        return [judged(r, limits) for r in since(before, self.groups[shift.began : end], self.top)]

    def whole(self) -> list[Finding]:
        """All of the stage so far, held against the limits."""
        return [judged(r, self.limits) for r in readings(self.groups, self.top)]

    def worst(self) -> tuple[Shift, list[Finding]] | None:
        """The change after which the judge is worst, until the next one or the end; None without a change."""
        if not self.shifts:
            return None
        ends = [s.began for s in self.shifts[1:]] + [len(self.groups)]
        spans = [(s, e) for s, e in zip(self.shifts, ends, strict=True) if e - s.began >= LEAST_SINCE]
        spans += [(s, len(self.groups)) for s in self.shifts]
        found = [(s, self.findings(s, e)) for s, e in spans if e > s.began]
        return max(found, key=lambda f: (rank(f[1]), -f[0].began), default=None)

    def halt(self) -> tuple[int, Finding] | None:
        """The prompt since which the judge is broken, counted from 0, and the finding that says so."""
        found = self.worst()
        spans = [(found[0].began, found[1])] if found else []
        for began, findings in [*spans, (0, self.whole())]:
            for finding in findings:
                if finding.level == "halt":
                    return began, finding
        return None

    def due(self) -> bool:
        """Whether it is time to look: at every group in the 200 prompts after an alarm, else more seldom.

        Looks grow rarer by halves, so that all of them together cost no more than a few passes over the rows.
        """
        n = len(self.groups)
        if n % GROUP:
            return False
        recent = n - self.shifts[-1].began if self.shifts else n
        return recent <= 10 * GROUP or (recent // GROUP).bit_count() <= (2 if self.shifts else 1)
