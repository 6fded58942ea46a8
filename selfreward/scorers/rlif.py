"""How sure a policy is of its own words: a diagnostic, or a tie-break; alone it teaches being sure.

Self-certainty is the mean of KL(uniform ‖ p_t) over the answer's tokens (arXiv 2502.18581), token entropy the
mean of −H(p_t), trajectory entropy the mean of log p(y_t). How they fail: gains for some twenty steps, then
below the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfreward.protocols import Message, Question, Scored, TokenStat, Verdict


@dataclass(frozen=True)
class RlifScorer:
    """The mean over an answer's tokens, in nats; higher is surer."""

    chat_ids: Callable[[Sequence[Sequence[Message]]], list[list[int]]]
    token_stats: Callable[[Sequence[Scored]], list[list[TokenStat]]]
    adapter: str | None
    measure: str
    name: str = "rlif"
    needs: frozenset[str] = frozenset({"engine", "token_stats"})

    def score(self, questions: Sequence[Question]) -> list[list[list[Verdict]]]:
        """One verdict a candidate; the other two measures are in `detail`."""
        prompts = self.chat_ids([q.messages for q in questions])
        asked = [
            Scored(p, a.token_ids, self.adapter)
            for p, q in zip(prompts, questions, strict=True)
            for a in q.answers
        ]
        verdicts = map(self._verdict, self.token_stats(asked))
        return [[[next(verdicts)] for _ in q.answers] for q in questions]

    def _verdict(self, told: Sequence[TokenStat]) -> Verdict:
        if not told:
            return Verdict(None, "no_tokens")
        found: dict[str, object] = {
            "self_certainty": _mean([t.certainty for t in told]),
            "token_entropy": _mean([-t.entropy for t in told]),
            "trajectory_entropy": _mean([t.logprob for t in told]),
        }
        value = found[self.measure]
        assert isinstance(value, float)
        return Verdict(value, detail=found) if math.isfinite(value) else Verdict(None, "not_finite")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
