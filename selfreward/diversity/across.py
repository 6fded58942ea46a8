"""Variety across prompts: one text a prompt, all of them together. Pure, numpy only.

Every measure depends on how much text there is. Two sets are compared at equal numbers of texts and of words
(`equal_words`), or the longer one seems the poorer.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from selfreward import stats
from selfreward.diversity.phrases import grams, words
from selfreward.stats import Estimate, Interval

LIMIT = 100  # words of a text that count, lest long texts rule
CHUNK = 2048  # bytes that are compressed together: far inside the window of 32 KiB
VOCABULARY = 30_000  # words a text could draw from; a fixed ruler for `adjusted_distinct`
AT_MOST = 200  # texts in the measures that compare each with each


def cut(texts: Sequence[str], limit: int = LIMIT) -> list[list[str]]:
    """The first `limit` words of every text."""
    return [words(t)[:limit] for t in texts]


def equal_words(
    left: Sequence[list[str]], right: Sequence[list[str]]
) -> tuple[list[list[str]], list[list[str]]]:
    """Both sets cut to the same number of texts, and text by text to the same number of words."""
    sizes = [min(len(a), len(b)) for a, b in zip(left, right, strict=False)]
    return tuple([w[:size] for w, size in zip(side, sizes, strict=False)] for side in (left, right))  # type: ignore[return-value]


def distinct(texts: Sequence[list[str]], size: int) -> Estimate | None:
    """Distinct runs of `size` words over all of them (Li et al. 2016); None where there is no run.

    The parts are the jackknife's, by text: resampling would count doubled texts as repetition.
    """
    return _of_types(texts, size, lambda kinds, total: kinds / total)


def adjusted_distinct(texts: Sequence[list[str]], vocabulary: int = VOCABULARY) -> Estimate | None:
    """Distinct words over those expected of that many draws from `vocabulary` (Liu et al. 2022).

    kinds / (V · (1 − ((V − 1) / V)^total)): unlike distinct-1 it does not fall with length alone.
    """
    v = float(vocabulary)
    return _of_types(texts, 1, lambda kinds, total: kinds / (v * -math.expm1(total * math.log1p(-1 / v))))


def _of_types(texts: Sequence[list[str]], size: int, value: Any) -> Estimate | None:
    """A function of (kinds, total) of the runs, with its value when each text is left out."""
    counts = [Counter(grams(t, size)) for t in texts]
    total = Counter[tuple[str, ...]]()
    for c in counts:
        total.update(c)
    n = total.total()
    if n == 0:
        return None
    without = []
    for c in counts:
        left = n - c.total()
        lost = sum(1 for k, times in c.items() if total[k] == times)
        without.append(value(len(total) - lost, left) if left else 0.0)
    return stats.pseudo(value(len(total), n), without, len(texts))


def distinct_2(texts: Sequence[str], limit: int = LIMIT) -> Interval:
    """Distinct word pairs over all word pairs, each text cut to `limit` words; 0 where there is none."""
    found = distinct(cut(texts, limit), 2)
    if found is None:
        return Interval(0.0, 0.0, 0.0, max(1, len(texts)))
    n = len(found.parts)  # back from pseudo-values to the values with each text left out
    without = [(n * found.value - p) / (n - 1) for p in found.parts] if n > 1 else [0.0]
    around = stats.jackknife(found.value, without)
    return Interval(around.value, max(0.0, around.low), min(1.0, around.high), around.n)


def compression(texts: Sequence[list[str]]) -> Estimate | None:
    """Bytes over bytes after zlib, in chunks of at least `CHUNK` bytes of consecutive texts (Shaib 2024).

    A chunk is the same size whatever the number of texts, so the value depends on neither their number nor
    their length. Words are joined by one space. None below two chunks of text; the parts are chunks.
    """
    raw, packed, used = [], [], 0
    chunk: list[bytes] = []
    size = 0
    for at, text in enumerate(texts):
        line = (" ".join(text) + "\n").encode("utf-8", "replace")
        chunk.append(line)
        size += len(line)
        if size >= CHUNK:
            body = b"".join(chunk)[:CHUNK]
            raw.append(float(len(body)))
            packed.append(float(len(zlib.compress(body, 9))))
            chunk, size, used = [], 0, at + 1
    if len(raw) < 2:
        return None
    found = stats.linearised(raw, packed)
    return Estimate(found.value, found.parts, used)


def self_repetition(texts: Sequence[list[str]], size: int = 4) -> Estimate | None:
    """Mean share of a text's distinct runs of four words that another text holds too.

    After Salkar et al. 2022, who count such runs on a logarithmic scale; a share has bounds and no unit.
    """
    kinds = [set(grams(t, size)) for t in texts]
    held = Counter(k for ks in kinds for k in ks)
    shares = [sum(held[k] > 1 for k in ks) / len(ks) for ks in kinds if ks]
    return stats.estimate(shares) if shares else None


def self_bleu(texts: Sequence[list[str]], top: int = 4) -> Estimate | None:
    """Mean BLEU-4 of each text against all others (Zhu et al. 2018), on at most `AT_MOST` texts.

    Precisions are smoothed by one in numerator and denominator beyond single words (Lin and Och 2004); the
    brevity penalty takes the nearest length. Texts of fewer than four words are left out.
    """
    used = [t for t in texts if len(t) >= top][:AT_MOST]
    if len(used) < 2:
        return None
    lengths = [len(t) for t in used]
    logs = np.zeros(len(used))
    for size in range(1, top + 1):
        counts = [Counter(grams(t, size)) for t in used]
        most, second = _two_most(counts)
        smooth = 0 if size == 1 else 1
        for i, c in enumerate(counts):
            hits = sum(min(n, second[k] if most[k] == n else most[k]) for k, n in c.items())
            logs[i] += math.log(max(hits + smooth, 1e-9) / (c.total() + smooth)) / top
    scores = []
    for i, own in enumerate(lengths):
        nearest = min((n for j, n in enumerate(lengths) if j != i), key=lambda n: (abs(n - own), n))
        scores.append(math.exp(logs[i]) * (math.exp(1 - nearest / own) if own < nearest else 1.0))
    return stats.estimate(scores)


def _two_most(counts: Sequence[Counter[Any]]) -> tuple[dict[Any, int], dict[Any, int]]:
    """For every run the highest and the second-highest number of times it stands in one text."""
    most: dict[Any, int] = {}
    second: dict[Any, int] = {}
    for c in counts:
        for k, n in c.items():
            before = most.get(k, 0)
            if n > before:
                most[k], second[k] = n, before
            else:
                second[k] = max(second.get(k, 0), n)
    return most, second


def vendi(texts: Sequence[list[str]], blocks: int = 20) -> Estimate | None:
    """The effective number of different texts among at most `AT_MOST` (Friedman and Dieng 2023).

    exp of the entropy of the eigenvalues of K / n, K the cosines of counts of words and pairs of words.
    The parts are the jackknife's over blocks of texts.
    """
    used = [t for t in texts if t][:AT_MOST]
    if len(used) < 2:
        return None
    cosines = _cosines([Counter([*grams(t, 1), *grams(t, 2)]) for t in used])
    value = effective_number(cosines)
    groups = np.array_split(np.arange(len(used)), min(blocks, len(used)))
    without = []
    for group in groups:
        kept = np.setdiff1d(np.arange(len(used)), group)
        without.append(effective_number(cosines[np.ix_(kept, kept)]))
    return stats.pseudo(value, without, len(used))


def effective_number(similarity: np.ndarray) -> float:
    """exp(−Σ λ log λ) over the eigenvalues λ of a similarity matrix with unit diagonal, over its size."""
    values = np.linalg.eigvalsh(similarity / len(similarity))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def _cosines(counts: Sequence[Counter[Any]]) -> np.ndarray:
    column = {k: i for i, k in enumerate(dict.fromkeys(k for c in counts for k in c))}
    rows = np.zeros((len(counts), len(column)), np.float32)
    for i, c in enumerate(counts):
        for k, n in c.items():
            rows[i, column[k]] = n
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows @ rows.T, np.float64)
