"""The implicit reward of a trained policy: how much likelier it finds an answer than the base does.

CREAM (arXiv 2410.12735): the reward is log π_t(y|x) − log π_0(y|x), and a label is trusted as far as the
policy before ranks the candidates alike. What it measures: what training has made likelier. How it fails: it
is familiarity, and grows with length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from selfreward import stats
from selfreward.protocols import Engine, Question, Scored, Verdict


@dataclass(frozen=True)
class ImplicitScorer:
    """Log-ratio in nats of a whole answer, of `adapter` to the bare base.

    `previous` is the adapter of the policy before; None where that is the base itself, which ranks nothing.
    Its log-ratio is kept in `detail`.
    """

    engine: Engine
    adapter: str | None
    previous: str | None = None
    name: str = "implicit"
    needs: frozenset[str] = frozenset({"engine", "two_policies"})

    def score(self, questions: Sequence[Question]) -> list[list[list[Verdict]]]:
        """One verdict a candidate; a log-probability that is no number is a fault."""
        prompts = self.engine.chat_ids([q.messages for q in questions])
        asked = [(p, a.token_ids) for p, q in zip(prompts, questions, strict=True) for a in q.answers]
        own, base = self._of(asked, self.adapter), self._of(asked, None)
        before = self._of(asked, self.previous) if self.previous else None
        verdicts = iter(
            [
                _verdict(o - b, before[i] - b if before else None)
                for i, (o, b) in enumerate(zip(own, base, strict=True))
            ]
        )
        return [[[next(verdicts)] for _ in q.answers] for q in questions]

    def _of(self, asked: Sequence[tuple[Sequence[int], Sequence[int]]], adapter: str | None) -> list[float]:
        """Log π of each whole answer."""
        rows = self.engine.token_logprobs([Scored(p, a, adapter) for p, a in asked])
        return [math.fsum(row) for row in rows]


def _verdict(ratio: float, before: float | None) -> Verdict:
    if not math.isfinite(ratio):
        return Verdict(None, "not_finite")
    known = before is not None and math.isfinite(before)
    return Verdict(ratio, detail={"previous": before} if known else None)


def consistency(groups: Sequence[Sequence[tuple[float, float]]]) -> stats.Interval | None:
    """CREAM's C: the mean over prompts of (τ + 1)/2, τ-b between the two rankings of a prompt's candidates.

    Each group is (reward now, reward before) of one prompt's candidates; one that either side ranks not at
    all counts for nothing. None where none is left.
    """
    found = [stats.kendall([a for a, _ in g], [b for _, b in g]) for g in groups if len(g) > 1]
    parts = [(tau + 1) / 2 for tau in found if tau is not None]
    if not parts:
        return None
    mean = stats.mean(parts)
    return stats.Interval(mean.value, max(0.0, mean.low), min(1.0, mean.high), mean.n)
