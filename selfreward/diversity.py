"""How varied texts are, and whether they loop. Pure; words are lower-case runs of letters and digits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from selfreward import stats
from selfreward.stats import Interval

_WORD = re.compile(r"[^\W_]+")
LOOP_REPEATS = 4


def words(text: str) -> list[str]:
    """Lower-case word tokens."""
    return _WORD.findall(text.lower())


def distinct_2(texts: Sequence[str], limit: int = 100) -> Interval:
    """Distinct word pairs over all word pairs of the texts, each cut to `limit` words lest long ones rule.

    The interval is the jackknife's over texts (resampling would count doubled texts as repetition). Texts
    with fewer than two words add nothing; with no pair at all the value is 0.
    """
    grams = [Counter(pairwise(w)) for w in (words(t)[:limit] for t in texts)]
    total = Counter[tuple[str, str]]()
    for g in grams:
        total.update(g)
    n = total.total()
    if n == 0:
        return Interval(0.0, 0.0, 0.0, max(1, len(texts)))
    without = []
    for g in grams:
        left = n - g.total()
        lost = sum(1 for k, c in g.items() if total[k] == c)
        without.append((len(total) - lost) / left if left else 0.0)
    found = stats.jackknife(len(total) / n, without)
    return Interval(found.value, max(0.0, found.low), min(1.0, found.high), found.n)


def loops(text: str) -> bool:
    """Whether a phrase of 1 to 12 words follows itself at least `LOOP_REPEATS` times in a row."""
    w = words(text)
    for size in range(1, min(12, len(w) // LOOP_REPEATS) + 1):
        run = 0
        for i in range(len(w) - size):
            run = run + 1 if w[i] == w[i + size] else 0
            if run >= size * (LOOP_REPEATS - 1):
                return True
    return False
