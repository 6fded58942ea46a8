"""What every rule shares: who may compete, what makes a pair of two, and the rule of the paper.

A candidate without a score never competes, an unfinished one never trains, and the order in which candidates
or judgements arrive decides nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from selfreward.near import similarity

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
    anchor: bool = False  # an earlier policy's answer, which only rule `anchored` looks at

    @property
    def mean(self) -> float:
        """Mean of the scores there are; faults are not averaged in. The sum is exact, in any order."""
        return math.fsum(self.scores) / len(self.scores)

    @property
    def deviation(self) -> float:
        """Standard deviation of the scores there are; 0 of a single one, which says nothing of steadiness."""
        mean = self.mean
        return math.sqrt(math.fsum((s - mean) ** 2 for s in self.scores) / len(self.scores))


@dataclass(frozen=True, slots=True)
class Mined:
    """What became of a prompt; `best` and `worst` are set when the outcome is `pair`, `more` by one rule."""

    outcome: str
    margin: float | None = None
    best: Contender | None = None
    worst: Contender | None = None
    detail: str | None = None
    more: tuple[tuple[Contender, Contender], ...] = ()

    @property
    def pairs(self) -> tuple[tuple[Contender, Contender], ...]:
        """Every (chosen, rejected), the widest margin first."""
        return ((self.best, self.worst), *self.more) if self.best and self.worst else ()


Value = Callable[[Contender], float]


def _mean(contender: Contender) -> float:
    return contender.mean


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms two contenders are compared and make a pair, whatever the rule.

    `praise` ranks the ones to choose and `blame` the ones to reject, the lowest first; margins are of
    means. `max_length` bounds prompt and answer together, in tokens; a longer one is left out, never cut.
    Texts whose ROUGE-L F1 is `max_similarity` or more are as good as one text; None lets any two that differ
    pass.
    """

    prompt_tokens: int
    max_length: int
    min_margin: float = 0.0
    max_similarity: float | None = None
    praise: Value = field(default=_mean)
    blame: Value = field(default=_mean)

    def differ(self, first: Contender, second: Contender) -> bool:
        """Whether a model could learn anything from choosing between the two texts."""
        if trimmed(first) == trimmed(second):
            return False
        return self.max_similarity is None or (
            similarity(first.text or "", second.text or "") < self.max_similarity
        )


def best_vs_worst(contenders: Sequence[Contender], terms: Terms) -> Mined:
    """The candidate with the highest mean against the one with the lowest (Self-Rewarding LMs, 2.3)."""
    able = usable(contenders, terms)
    if isinstance(able, Mined):
        return able
    praise, blame = [terms.praise(c) for c in able], [terms.blame(c) for c in able]
    top, bottom = max(praise), min(blame)
    tops = in_rank([c for c, value in zip(able, praise, strict=True) if top - value < EQUAL])
    bottoms = in_rank([c for c, value in zip(able, blame, strict=True) if value - bottom < EQUAL])
    return first_pair([(b, w) for b in tops for w in bottoms], terms)


def usable(contenders: Sequence[Contender], terms: Terms) -> list[Contender] | Mined:
    """Finished, scored and short enough contenders whose means are not all one; else why there is no pair."""
    finished = [c for c in contenders if c.text is not None and c.finish == "stop"]
    scored = [c for c in finished if c.scores]
    able = [c for c in scored if terms.prompt_tokens + c.n_tokens <= terms.max_length]
    if len(able) < 2:
        return Mined(
            _shortage(contenders, finished, scored), detail=f"{len(able)} of {len(contenders)} usable"
        )
    means = [c.mean for c in able]
    spread = max(means) - min(means)
    if len({trimmed(c) for c in able}) == 1:
        return Mined("identical_text", margin=spread)
    return Mined("tie", margin=0.0) if spread < EQUAL else able


def first_pair(proposed: Sequence[tuple[Contender, Contender]], terms: Terms) -> Mined:
    """The first proposal whose texts differ, if its margin is enough; at least one must be proposed."""
    different = next(((b, w) for b, w in proposed if terms.differ(b, w)), None)
    best, worst = different or proposed[0]
    margin = best.mean - worst.mean
    if margin < -EQUAL:  # what a token costs outweighs the score: such a pair would teach the worse answer
        return Mined("below_margin", margin=0.0, detail="the shorter or steadier one scored lower")
    if margin < EQUAL:
        return Mined("tie", margin=0.0)
    if different is None:
        return Mined("identical_text", margin=margin)
    if margin < terms.min_margin - EQUAL:
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


def in_rank(contenders: list[Contender]) -> list[Contender]:
    """Equals in an order that what was written decides, not when."""
    return sorted(contenders, key=rank) if len(contenders) > 1 else contenders


def rank(contender: Contender) -> tuple[str, int]:
    """What decides between equals: the hash of the trimmed text, then the sample."""
    return hashlib.sha256(trimmed(contender).encode("utf-8")).hexdigest(), contender.sample


def trimmed(contender: Contender) -> str:
    """The text as it counts when two are held to be the same."""
    return (contender.text or "").strip()
