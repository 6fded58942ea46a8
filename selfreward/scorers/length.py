"""A rule whose effect anyone can count: finished answers of about so many words.

What it measures: nothing but length. How it fails: a model can please it with any text of that length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfreward.protocols import Answer, Question, Verdict


@dataclass(frozen=True)
class LengthScorer:
    """1 at `best` words, linear to 1/2 at `low` and `high`, 0 outside; an unfinished answer gets 0."""

    low: int
    best: int
    high: int
    name: str = "length"
    needs: frozenset[str] = frozenset()

    def score(self, questions: Sequence[Question]) -> list[list[list[Verdict]]]:
        """One verdict a candidate; never a fault, for every text has a length."""
        return [
            [[Verdict(self.reward(a), detail={"words": len(a.text.split())})] for a in q.answers]
            for q in questions
        ]

    def reward(self, answer: Answer) -> float:
        """In 0..1; whitespace-separated words count."""
        words = len(answer.text.split())
        if answer.finish != "stop" or not self.low <= words <= self.high:
            return 0.0
        side = self.high - self.best if words > self.best else self.best - self.low
        return 1.0 if side == 0 else 1.0 - 0.5 * abs(words - self.best) / side
