"""What the pairs of an iteration prefer besides a better answer: length, a phrase, a style. Pure.

The comparison is inside each pair, so that these signs may stop a first iteration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from selfreward import stats
from selfreward.collapse.limits import Reading
from selfreward.diversity import across
from selfreward.diversity.phrases import words


def chosen_longer(lengths: Sequence[tuple[int, int]]) -> list[Reading]:
    """Pairs whose chosen text has more tokens, of those whose texts differ in length."""
    longer = [float(c > r) for c, r in lengths if c != r]
    return [Reading("chosen_longer", stats.share_of(stats.estimate(longer)))] if longer else []


def chosen_word(pairs: Sequence[tuple[str, str]]) -> list[Reading]:
    """By how many pairs more than the other way round a word stands in the chosen text alone.

    `pairs` are (chosen, rejected). The word is chosen on every other pair and counted on the rest, so that
    choosing the most telling of many does not make it more telling; n is all pairs.
    """
    sides = [(set(words(c)[: across.LIMIT]), set(words(r)[: across.LIMIT])) for c, r in pairs]
    lead: Counter[str] = Counter()
    for chosen, rejected in sides[::2]:
        lead.update(chosen - rejected)
        lead.subtract(rejected - chosen)
    if len(sides) < 2 or not lead:
        return []
    word = min(lead.items(), key=lambda c: (-c[1], c[0]))[0]
    counted = [float(word in c) - float(word in r) for c, r in sides[1::2]]
    around = stats.interval_of(stats.estimate(counted))
    now = stats.Interval(around.value, around.low, around.high, len(sides))
    return [Reading("chosen_word", now, 0.0, detail=f"it is {word!r}")]
