"""Texts of one prompt against each other, and texts against the prompts they answer. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from rapidfuzz.distance import Indel

from selfreward.diversity.phrases import words

LIMIT = 200  # words of a text that are compared
PAIRS = 45  # pairs of texts of a prompt that are compared: all of ten


def plain(text: str) -> str:
    """A text without the differences nobody reads: case and white space."""
    return " ".join(text.lower().split())


def identical(texts: Sequence[str]) -> float | None:
    """Share of the pairs of texts that are the same but for case and white space; None below two texts."""
    n = len(texts)
    if n < 2:
        return None
    return sum(c * (c - 1) for c in Counter(map(plain, texts)).values()) / (n * (n - 1))


def distance(texts: Sequence[str]) -> float | None:
    """Mean of 1 − 2·LCS / (words of both), over pairs of texts: 0 the same, 1 no word in common.

    LCS is the longest common subsequence of words, so this is 1 − ROUGE-L F1. None below two texts.
    """
    if len(texts) < 2:
        return None
    ids: dict[str, int] = {}
    cut = [[ids.setdefault(w, len(ids)) for w in words(t)[:LIMIT]] for t in texts]
    pairs = list(itertools.combinations(cut, 2))[:PAIRS]
    return sum(Indel.normalized_distance(a, b) for a, b in pairs) / len(pairs)


def relevance(prompts: Sequence[str], texts: Sequence[Sequence[str]]) -> list[float | None]:
    """For each prompt: whether its texts share more of its rare words than of another prompt's.

    1 more, 0 fewer, ½ as many, meaned over its texts; the other prompt is the one half the list away. Rare:
    in at most a tenth of the prompts. None where a prompt has under two rare words (it may be a mere number)
    or its texts under ten words.
    Prompts and answers drawn apart from each other give ½.
    """
    kinds = [set(words(p)) for p in prompts]
    held = Counter(w for k in kinds for w in k)
    rare = [{w for w in k if held[w] <= max(1, len(prompts) // 10)} for k in kinds]
    usable = [i for i, r in enumerate(rare) if len(r) > 1]
    found: list[float | None] = [None] * len(prompts)
    for at, i in enumerate(usable):
        other = rare[usable[(at + len(usable) // 2) % len(usable)]]
        said = [set(w) for w in (words(t) for t in texts[i]) if len(w) >= 10]
        if said and len(usable) > 1:
            found[i] = sum(_nearer(s, rare[i], other) for s in said) / len(said)
    return found


def _nearer(said: set[str], own: set[str], other: set[str]) -> float:
    mine, theirs = len(said & own) / len(own), len(said & other) / len(other)
    return 1.0 if mine > theirs else 0.0 if mine < theirs else 0.5


def new_word(before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]) -> tuple[str, list[float]]:
    """The word whose share of texts rose most from `before` to `after`, and which texts after hold it.

    Chosen on every other text of `after` and looked for in the rest, so that choosing the greatest of many
    rises does not make it greater. Returns the word and a 0 or 1 for each text at an odd place; ("", []) for
    fewer than two texts.
    """
    if len(after) < 2 or not before:
        return "", []
    old = Counter(w for t in before for w in set(t))
    new = Counter(w for t in after[::2] for w in set(t))
    chosen_from = len(after[::2])
    word = max(sorted(new), key=lambda w: new[w] / chosen_from - old[w] / len(before), default="")
    return word, [float(word in t) for t in after[1::2]]
