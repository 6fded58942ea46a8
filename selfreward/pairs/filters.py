"""Filters that look at an iteration as a whole: a spread others have, a share of pairs about form alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from selfreward.pairs.mining import EQUAL, Contender, Mined

FORM = "format only"


def spread_of(contenders: Sequence[Contender]) -> float:
    """Standard deviation of the means of a prompt's candidates."""
    means = [c.mean for c in contenders]
    centre = math.fsum(means) / len(means)
    return math.sqrt(math.fsum((m - centre) ** 2 for m in means) / len(means))


def moving_spreads(spreads: Sequence[float | None], decay: float) -> list[float]:
    """For each prompt in order, the exponential moving average of the spreads before it; 0 for the first.

    RLPR (arXiv 2506.18254) drops prompts whose rewards spread less than that average. A prompt without a
    spread (None) moves nothing.
    """
    found: list[float] = []
    average: float | None = None
    for spread in spreads:
        found.append(average or 0.0)
        if spread is not None:
            average = spread if average is None else decay * average + (1 - decay) * spread
    return found


def cap_form(mined: Sequence[Mined], right_at: float, cap: float) -> list[Mined]:
    """At most the share `cap` of all pairs has a chosen side that is not right either: the widest margins.

    Such a pair, 0.1 over 0 by ReFT's rule, teaches to look like an answer. What is kept says so in `detail`.
    """
    form = sorted(
        (worst.mean - best.mean, place, k)
        for place, m in enumerate(mined)
        for k, (best, worst) in enumerate(m.pairs)
        if best.mean < right_at - EQUAL
    )
    others = sum(len(m.pairs) for m in mined) - len(form)
    room = len(form) if cap >= 1 else int(cap / (1 - cap) * others + EQUAL)
    kept, dropped = {(p, k) for _, p, k in form[:room]}, {(p, k) for _, p, k in form[room:]}
    found = []
    for place, m in enumerate(mined):
        pairs = [pair for k, pair in enumerate(m.pairs) if (place, k) not in dropped]
        if m.pairs and not pairs:
            found.append(Mined("filtered", m.margin, detail=f"{FORM}, beyond {cap:g} of all pairs"))
        elif m.pairs:
            best, worst = pairs[0]
            detail = FORM if any((place, k) in kept for k in range(len(m.pairs))) else m.detail
            margin = best.mean - worst.mean
            found.append(
                replace(m, margin=margin, best=best, worst=worst, detail=detail, more=tuple(pairs[1:]))
            )
        else:
            found.append(m)
    return found
