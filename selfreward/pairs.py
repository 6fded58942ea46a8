"""Pair mining: from the judgements of one prompt's candidates to a pair, or to the reason why there is none.

Pure: rows in, rows out. A candidate without a score never competes, an unfinished one never trains, and the
order in which candidates or judgements arrive decides nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

EQUAL = 1e-9  # means closer than this are a tie: sums of equal scores may differ by rounding


@dataclass(frozen=True, slots=True)
class Contender:
    """One candidate with the scores that could be read, in the order of the judge's samples."""

    candidate_id: int
    sample: int
    text: str | None
    finish: str | None
    n_tokens: int
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean of the scores there are; faults are not averaged in."""
        return math.fsum(sorted(self.scores)) / len(self.scores)


@dataclass(frozen=True, slots=True)
class Mined:
    """What became of a prompt; `best` and `worst` are set when the outcome is `pair`."""

    outcome: str
    margin: float | None = None
    best: Contender | None = None
    worst: Contender | None = None
    detail: str | None = None


def best_vs_worst(
    contenders: Sequence[Contender], *, prompt_tokens: int, max_length: int, min_margin: float
) -> Mined:
    """The candidate with the highest mean against the one with the lowest (Self-Rewarding LMs, section 2.3).

    `max_length` bounds prompt and answer together, in tokens; a longer one is left out, never cut.
    """
    finished = [c for c in contenders if c.text is not None and c.finish == "stop"]
    scored = [c for c in finished if c.scores]
    usable = [c for c in scored if prompt_tokens + c.n_tokens <= max_length]
    if len(usable) < 2:
        return Mined(
            _shortage(contenders, finished, scored), detail=f"{len(usable)} of {len(contenders)} usable"
        )
    top, bottom = max(c.mean for c in usable), min(c.mean for c in usable)
    if len({_key(c) for c in usable}) == 1:
        return Mined("identical_text", margin=top - bottom)
    if top - bottom < EQUAL:
        return Mined("tie", margin=0.0)
    tops = sorted((c for c in usable if top - c.mean < EQUAL), key=_rank)
    bottoms = sorted((c for c in usable if c.mean - bottom < EQUAL), key=_rank)
    different = [(b, w) for b in tops for w in bottoms if _key(b) != _key(w)]
    if not different:
        return Mined("identical_text", margin=top - bottom)
    best, worst = different[0]
    margin = best.mean - worst.mean
    if margin < min_margin - EQUAL:
        return Mined("below_margin", margin=margin)
    return Mined("pair", margin, best, worst)


def _shortage(
    contenders: Sequence[Contender], finished: Sequence[Contender], scored: Sequence[Contender]
) -> str:
    """Why fewer than two candidates can be used: the first sieve that left too few names the reason."""
    answered = [c for c in contenders if c.text is not None]
    if len(answered) >= 2 and len(finished) < 2:
        return "truncated"
    return "too_few_scores" if len(scored) < 2 else "too_long"


def _rank(contender: Contender) -> tuple[str, int]:
    return _key(contender), contender.sample


def _key(contender: Contender) -> str:
    """Decides between equals by what was written, not by when: the hash of the trimmed text."""
    return hashlib.sha256((contender.text or "").strip().encode("utf-8")).hexdigest()
