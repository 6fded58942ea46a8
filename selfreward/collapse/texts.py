"""What generated texts show, alone or against others: readings of every text signal. Pure.

A prompt with its texts is the unit. Measures over prompts take one text of each: the first that can be read.
Two sets are compared on the prompts they share when those are enough (paired), else on as many prompts of
each; measures that depend on the amount of text are compared at equal texts and equal words.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfreward import stats
from selfreward.collapse.limits import LEAST, Reading
from selfreward.diversity import across, within
from selfreward.diversity.phrases import has_words, loops, words
from selfreward.stats import Estimate, Interval

MOST = 1000  # prompts, evenly taken, in the measures over prompts: more change nothing but the time
LONG = 7  # letters: such words say what a text is about in most languages


@dataclass(frozen=True, slots=True)
class Answers:
    """The texts of one prompt; None where none came."""

    prompt: str | None
    texts: tuple[str | None, ...]

    @property
    def readable(self) -> list[str]:
        """Texts with at least one letter or digit."""
        return [t for t in self.texts if t is not None and has_words(t)]


Parts = Callable[[Answers], float | None]
Sides = tuple[Sequence[Answers], Sequence[Answers], Sequence[Answers]]  # all, those compared, what with
Corpus = Callable[[Sequence[list[str]]], Estimate | None]


def _words(a: Answers) -> float:
    return math.fsum(len(words(t or "")) for t in a.texts) / len(a.texts)


# One value a prompt, None where it has none.
BY_PROMPT: dict[str, Parts] = {
    "no_text": lambda a: 1 - len(a.readable) / len(a.texts),
    "words": _words,
    "loop_share": lambda a: sum(map(loops, a.readable)) / len(a.readable) if a.readable else None,
    "identical": lambda a: within.identical(a.readable),
    "within_distance": lambda a: within.distance(a.readable),
}
# One value of all texts together.
OF_ALL: dict[str, Corpus] = {
    "distinct_1": lambda t: across.distinct(t, 1),
    "distinct_2": lambda t: across.distinct(t, 2),
    "distinct_3": lambda t: across.distinct(t, 3),
    "adjusted_distinct": across.adjusted_distinct,
    "compression": across.compression,
    "self_repetition": across.self_repetition,
    "self_bleu": across.self_bleu,
    "vendi": across.vendi,
}
SHARES = frozenset({"no_text", "loop_share", "identical", "same_text", "relevance", "one_word", "cut_share"})
RATIOS = {"distinct_2": "distinct_2_ratio", "vendi": "vendi_ratio"}


def readings(answers: Sequence[Answers], against: Sequence[Answers] = ()) -> list[Reading]:
    """Every signal of `answers`; with `against`, how each compares."""
    whole, base, paired = matched(answers, against) if against else ([], [], False)
    found = []
    sides = (answers, whole, base)
    for name, part in BY_PROMPT.items():
        found += _by_prompt(name, part, sides, paired)
    found += _one_text(answers, against) + _relevance(sides, paired) + _one_word(answers)
    found += _across(_spread_out(answers))
    if against:
        found = _compared_across(found, whole, base, paired) + _new_word(whole, base)
    return found


def matched(
    answers: Sequence[Answers], against: Sequence[Answers]
) -> tuple[list[Answers], list[Answers], bool]:
    """The prompts both have, in order, when they are enough to pair by; else as many of each as there are."""
    theirs = {a.prompt: a for a in against if a.prompt is not None}
    both = [(a, theirs[a.prompt]) for a in answers if a.prompt is not None and a.prompt in theirs]
    if len(both) >= min(LEAST, len(answers), len(against)):
        return [a for a, _ in both], [b for _, b in both], True
    n = min(len(answers), len(against))
    return _evenly(answers, n), _evenly(against, n), False


def _evenly(items: Sequence[Answers], n: int) -> list[Answers]:
    return [items[i * len(items) // n] for i in range(n)]


def _spread_out(answers: Sequence[Answers]) -> list[Answers]:
    return _evenly(answers, min(MOST, len(answers)))


def _by_prompt(name: str, part: Parts, sides: Sides, paired: bool) -> list[Reading]:
    every, whole, base = ([part(a) for a in side] for side in sides)
    return _compared(name, every, whole, base, paired)


def _compared(
    name: str,
    every: Sequence[float | None],
    whole: Sequence[float | None],
    base: Sequence[float | None],
    paired: bool,
) -> list[Reading]:
    """A signal with one value a prompt: of all prompts, and beside the others on those that are compared."""
    values = [v for v in every if v is not None]
    if not values:
        return []
    now = stats.estimate(values)
    around = stats.share_of(now) if name in SHARES else stats.interval_of(now)
    new, old = _both(whole, base, paired)
    if not new or not old:
        return [Reading(name, around)]
    left, right = stats.estimate(old), stats.estimate(new)
    found = [Reading(name, around, left.value, stats.difference(left, right, paired))]
    if name == "words" and left.value > 0:
        found.append(Reading("length_ratio", stats.quotient(left, right, paired), 1.0))
        if right.value > 0:
            found.append(Reading("shrink_ratio", stats.quotient(right, left, paired), 1.0))
    if name == "within_distance" and left.value > 0:
        found.append(Reading("distance_ratio", stats.quotient(left, right, paired), 1.0))
    return found


def _both(
    new: Sequence[float | None], old: Sequence[float | None], paired: bool
) -> tuple[list[float], list[float]]:
    """The values that exist; paired: where both do."""
    if not paired:
        return [v for v in new if v is not None], [v for v in old if v is not None]
    pairs = [(a, b) for a, b in zip(new, old, strict=True) if a is not None and b is not None]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _one_text(answers: Sequence[Answers], against: Sequence[Answers]) -> list[Reading]:
    """The share of texts that are the commonest one, prompts as units; one prompt alone has only one text."""
    found = []
    for side in (answers, against):
        groups = [[within.plain(t) for t in a.readable] for a in side]
        groups = [g for g in groups if g]
        if len(groups) < 2:
            break
        text = min(Counter(t for g in groups for t in set(g)).items(), key=lambda c: (-c[1], c[0]))[0]
        found.append((stats.estimate([g.count(text) / len(g) for g in groups]), text))
    if not found:
        return []
    now, text = found[0]
    if len(found) < 2:
        return [Reading("same_text", stats.share_of(now), detail=repr(text[:60]))]
    before = found[1][0]
    change = stats.difference(before, now, paired=False)
    return [Reading("same_text", stats.share_of(now), before.value, change, repr(text[:60]))]


def _relevance(sides: Sides, paired: bool) -> list[Reading]:
    every, whole, base = (_relevances(side) for side in sides)
    return _compared("relevance", every, whole, base, paired)


def _relevances(answers: Sequence[Answers]) -> list[float | None]:
    known = [a for a in answers if a.prompt is not None]
    values = iter(within.relevance([a.prompt or "" for a in known], [a.readable for a in known]))
    return [None if a.prompt is None else next(values) for a in answers]


def _first_words(answers: Sequence[Answers]) -> list[list[str]]:
    return [words(a.readable[0])[: across.LIMIT] if a.readable else [] for a in answers]


def _one_word(answers: Sequence[Answers]) -> list[Reading]:
    """The share of prompts whose text holds the commonest long word."""
    kinds = [set(t) for t in _first_words(_spread_out(answers)) if t]
    held = Counter(w for k in kinds for w in k if len(w) >= LONG)
    if not held:
        return []
    word, n = min(held.items(), key=lambda c: (-c[1], c[0]))
    return [Reading("one_word", stats.share(n, len(kinds)), detail=f"it is {word!r}")]


def _across(answers: Sequence[Answers]) -> list[Reading]:
    texts = _first_words(answers)
    found = ((name, measure(texts)) for name, measure in OF_ALL.items())
    return [Reading(name, _not_negative(stats.interval_of(f))) for name, f in found if f is not None]


def _not_negative(found: Interval) -> Interval:
    return Interval(found.value, max(0.0, found.low), found.high, found.n)


def _compared_across(
    found: list[Reading], whole: Sequence[Answers], base: Sequence[Answers], paired: bool
) -> list[Reading]:
    """The measures over prompts again, of both sides at equal texts and words."""
    n = min(MOST, len(whole))
    new, old = across.equal_words(_first_words(_evenly(whole, n)), _first_words(_evenly(base, n)))
    changes: dict[str, Reading] = {}
    for name, measure in OF_ALL.items():
        before, now = measure(old), measure(new)
        if before is None or now is None:
            continue
        same = paired and len(before.parts) == len(now.parts) and name != "compression"
        change = stats.difference(before, now, same)
        changes[name] = Reading(name, stats.interval_of(now), before.value, change)
        if name in RATIOS and before.value > 0:
            ratio = Reading(RATIOS[name], stats.quotient(before, now, same), 1.0)
            changes[ratio.signal] = ratio
    seen = {r.signal for r in found}
    kept = [_with_change(r, changes.get(r.signal)) for r in found]
    return kept + [r for name, r in changes.items() if name not in seen]


def _with_change(own: Reading, compared: Reading | None) -> Reading:
    """The value of all texts, with the comparison at equal texts and words."""
    if compared is None:
        return own
    return Reading(own.signal, own.now, compared.against, compared.change, own.detail)


def _new_word(whole: Sequence[Answers], base: Sequence[Answers]) -> list[Reading]:
    """How much more often a word stands in texts now than before: a language, a topic, a phrase."""
    return _risen("new_word", _first_words(whole), _first_words(base))


def unasked_word(answers: Sequence[Answers], against: Sequence[Answers]) -> list[Reading]:
    """The same between answers to different prompts: words of an answer's own prompt do not count."""
    after, before = ([_unasked(a) for a in side] for side in (answers, against))
    return _risen("unasked_word", after, before)


def _unasked(a: Answers) -> list[str]:
    asked = set(words(a.prompt or ""))
    return [w for w in _first_words([a])[0] if w not in asked]


def _risen(name: str, after: Sequence[list[str]], before: Sequence[list[str]]) -> list[Reading]:
    after, before = [t for t in after if t], [t for t in before if t]
    word, held = within.new_word(before, after)
    if not held:
        return []
    left = stats.estimate([float(word in t) for t in before])
    rise = stats.difference(left, stats.estimate(held), paired=False)
    now = Interval(rise.value, rise.low, rise.high, len(after))
    return [Reading(name, now, 0.0, detail=f"it is {word!r}")]
