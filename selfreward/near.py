"""Near-duplicates: ROUGE-L F1 on word tokens, exact, without comparing a text with every other.

Pure. An index of words names the texts that can reach the threshold at all; only these are compared, by
rapidfuzz's Indel similarity over token ids, which is the same number: 2·LCS / (m + n).
"""

from __future__ import annotations

import re
from array import array
from typing import Any

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Indel

_WORD = re.compile(r"[a-z0-9]+|[^\W_]")  # rouge-score's default tokens; letters of other scripts one by one
_ROUGE_WORD = re.compile(r"[a-z0-9]+")  # rouge-score's default tokens alone
_SLACK = 1e-6  # far above rounding, far below the step between two similarities of texts


class Neighbours:
    """Texts that a new one must not be too close to.

    Two texts of m and n words are near when `overlap >= threshold·(m + n)/2`, so that a near one shares at
    least `threshold·m/(2 − threshold)` of m words (as multisets; n is then smallest). Of any order of the
    words it therefore shares one of the first `m − that + 1`. Each text is indexed under these alone, rare
    words first: those seen first late (prefix filtering: Chaudhuri, Ganti, Kaushik, ICDE 2006; the bound on
    the rest is PPJoin's: Xiao et al., WWW 2008). What passes the bounds is compared, nothing else could be
    near.

    `rouge_score`: only the tokens a-z and 0-9, and F1 in the order of operations of the rouge-score package,
    so that decisions are its own to the last bit; texts without such tokens are near nothing.
    """

    def __init__(self, threshold: float, *, rouge_score: bool = False) -> None:
        self.threshold = threshold
        self._rouge_score = rouge_score
        self._pattern = _ROUGE_WORD if rouge_score else _WORD
        self._ids: dict[str | tuple[str, int], int] = {}  # of a word, and of its second, third, … occurrence
        self._texts: list[array[int]] = []
        self._names: list[str] = []
        self._sizes = array("i")  # words of each text
        self._lasts = array("i")  # the last word each is indexed under
        self._index: dict[int, array[int]] = {}

    def add(self, text: str, name: str) -> None:
        """Adds a text under the name that a near-duplicate of it will be told."""
        words = self._words(text)
        prefix = self._prefix(words)
        for word in prefix:
            self._index.setdefault(word, array("i")).append(len(self._texts))
        self._texts.append(self._encode(words))
        self._names.append(name)
        self._sizes.append(len(words))
        self._lasts.append(prefix[-1] if prefix else 0)

    def nearest(self, text: str) -> tuple[str, float] | None:
        """Name of the nearest text at or above the threshold, the first of equals, and their F1 in 0..1."""
        words = self._words(text)
        rows = self._possible(words)
        if not rows:
            return None
        found: tuple[str, float] | None = None
        compared = process.extract_iter(
            self._encode(words),
            [self._texts[i] for i in rows],
            scorer=Indel.normalized_similarity,
            processor=None,
            score_cutoff=max(self.threshold - _SLACK, 0),
        )
        for other, similarity, i in compared:
            f1 = self._f1(similarity, len(words), len(other))
            if f1 >= self.threshold and (found is None or f1 > found[1]):
                found = self._names[rows[i]], f1
        return found

    def _f1(self, similarity: float, m: int, n: int) -> float:
        if not self._rouge_score:
            return float(similarity)
        lcs = round(similarity * (m + n) / 2)
        precision, recall = lcs / m, lcs / n
        return 2 * precision * recall / (precision + recall)

    def _possible(self, words: list[str]) -> list[int]:
        """Ascending rows that no bound excludes."""
        prefix, m = self._prefix(words), len(words)
        hits = [np.frombuffer(self._index[w], np.int32) for w in prefix if w in self._index]
        if not hits:
            return []
        shared = np.bincount(np.concatenate(hits))
        rows = np.flatnonzero(shared)
        n = np.frombuffer(self._sizes, np.int32)[rows]
        lasts = np.frombuffer(self._lasts, np.int32)[rows]
        # What both share and the prefixes did not show lies behind the prefix that ends first.
        rest = np.where(prefix[-1] >= lasts, self._least(m) - 1, self._least(n) - 1)
        needed = np.ceil(self.threshold * (m + n) / 2 - _SLACK)
        possible = (np.minimum(m, n) >= needed) & (shared[rows] + rest >= needed)
        return [int(i) for i in rows[possible]]

    def _prefix(self, words: list[str]) -> list[int]:
        """Ids of the words, and of repeated ones by occurrence, that a near text shares at least one of."""
        seen: dict[str, int] = {}
        ids = []
        for word in words:
            seen[word] = k = seen.get(word, 0) + 1
            ids.append(self._ids.setdefault(word if k == 1 else (word, k), len(self._ids)))
        ids.sort(reverse=True)
        return ids[: len(ids) - int(self._least(len(ids))) + 1] if ids else []

    def _least(self, size: Any) -> Any:
        """Words that a near text shares at least, of a text of this size (or of an array of sizes)."""
        return np.maximum(np.ceil(size * self.threshold / (2 - self.threshold) - _SLACK), 1)

    def _words(self, text: str) -> list[str]:
        return self._pattern.findall(text.lower())

    def _encode(self, words: list[str]) -> array[int]:
        return array("i", [self._ids[w] for w in words])


def similarity(first: str, second: str) -> float:
    """ROUGE-L F1 of two texts in 0..1, letters of every script counted; 0 if either has no words."""
    words = [_WORD.findall(text.lower()) for text in (first, second)]
    return float(Indel.normalized_similarity(*words)) if all(words) else 0.0


class HeldOut:
    """Texts that must not train, and those a new prompt must differ from: near ones and shared runs."""

    def __init__(self, threshold: float) -> None:
        self._near, self._runs = Neighbours(threshold), SharedRuns()

    def hold_out(self, text: str) -> None:
        """A text that measures: nothing near it and nothing that quotes it may train."""
        self._near.add(text, "held_out")
        self._runs.add(text, "held_out")

    def add(self, text: str, name: str) -> None:
        """A text that a new one may quote and must not be near."""
        self._near.add(text, name)

    def reason(self, text: str) -> str | None:
        """Why a prompt is refused, `near_NAME` or `shares_held_out`, or None."""
        neighbour = self._near.nearest(text)
        if neighbour:
            return f"near_{neighbour[0]}"
        return "shares_held_out" if self._runs.shared(text) else None


class SharedRuns:
    """Texts of which no run of `length` words may stand in a new one, word for word.

    13 is the length by which Brown et al. (2020, arXiv 2005.14165, appendix C) looked for test sets in
    training data. It finds a long question inside a longer prompt, where ROUGE-L of the whole is low; texts
    of fewer words hold no run and are left to `Neighbours`.
    """

    def __init__(self, length: int = 13) -> None:
        self.length = length
        self._names: dict[tuple[str, ...], str] = {}

    def add(self, text: str, name: str) -> None:
        """Adds a text under the name that a text sharing a run with it will be told."""
        for run in self._runs(text):
            self._names.setdefault(run, name)

    def shared(self, text: str) -> tuple[str, str] | None:
        """Name of a text that holds the first shared run, and the run itself, or None."""
        return next(((self._names[r], " ".join(r)) for r in self._runs(text) if r in self._names), None)

    def _runs(self, text: str) -> list[tuple[str, ...]]:
        words = _WORD.findall(text.lower())
        return [tuple(words[i : i + self.length]) for i in range(len(words) - self.length + 1)]
