"""Words, runs of words, and texts that loop. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# Chinese and Japanese write no spaces: there each character counts as a word.
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
_STUTTER = re.compile(r"(.{1,12}?)\1{7}")
LOOP_REPEATS = 4
LONG_WORD = 24  # letters; a longer "word" may be one syllable over and over


def words(text: str) -> list[str]:
    """Lower-case word tokens: runs of letters and digits."""
    return _WORD.findall(text.lower())


def has_words(text: str) -> bool:
    """Whether there is at least one letter or digit."""
    return _WORD.search(text) is not None


def grams(found: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    """Every run of `size` words, in order."""
    return zip(*(found[i:] for i in range(size)), strict=False)


def loops(text: str) -> bool:
    """Whether a phrase of 1 to 12 words follows itself at least `LOOP_REPEATS` times in a row.

    Or, inside one very long word, a run of 1 to 12 letters eight times.
    """
    w = words(text)
    for size in range(1, min(12, len(w) // LOOP_REPEATS) + 1):
        run = 0
        for i in range(len(w) - size):
            run = run + 1 if w[i] == w[i + size] else 0
            if run >= size * (LOOP_REPEATS - 1):
                return True
    return any(_STUTTER.search(x[:400]) for x in w if len(x) > LONG_WORD)
