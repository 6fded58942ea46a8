"""Several scorers as one number: normalised within the prompt, gated, weighed, added up.

A candidate that a scorer or a gate could not read has no sum: a failure is not a score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

TIE = 1e-6  # what a whole tie-break is worth: more than rounding, less than any difference that was meant


@dataclass(frozen=True, slots=True)
class Part:
    """One scorer's means for the candidates of a prompt, None where it read nothing.

    `role` is `score`, `gate`, `tie_break` or `diagnostic`; `weight` is a score's.
    """

    role: str
    weight: float
    means: Sequence[float | None]


def mixed(parts: Sequence[Part]) -> list[float | None]:
    """One number a candidate.

    One score without a gate stays as it is. Else each score becomes 1 + (x − min)/(max − min) of those that
    compete, 1 where all are equal, is multiplied by the gates (0..1), and weighs by its share of the weights:
    whoever passes scores 1 to 2, whoever fails 0, so that a gate is never outweighed.
    """
    scores = [p for p in parts if p.role == "score"]
    gates = [p for p in parts if p.role == "gate"]
    ties = [p for p in parts if p.role == "tie_break"]
    n = len(parts[0].means)
    able = [i for i in range(n) if all(p.means[i] is not None for p in [*scores, *gates])]
    if len(scores) == 1 and not gates:
        sums = {i: _at(scores[0], i) for i in able}
    else:
        whole = math.fsum(p.weight for p in scores)
        normal = [(p.weight / whole, _normal(p, able)) for p in scores]
        gate = {i: math.prod(_at(g, i) for g in gates) for i in able}
        sums = {i: gate[i] * math.fsum(w * (1 + x[i]) for w, x in normal) for i in able}
    for tie in ties:
        read = [i for i in able if tie.means[i] is not None]
        for i, x in _normal(tie, read).items():
            sums[i] += TIE * x
    return [sums.get(i) for i in range(n)]


def _at(part: Part, place: int) -> float:
    value = part.means[place]
    assert value is not None
    return value


def _normal(part: Part, places: Sequence[int]) -> dict[int, float]:
    """0 for the lowest, 1 for the highest, linear between; 0 for all where they are equal."""
    values = [_at(part, i) for i in places]
    low, width = min(values, default=0.0), max(values, default=0.0) - min(values, default=0.0)
    return {i: (v - low) / width if width > 0 else 0.0 for i, v in zip(places, values, strict=True)}
