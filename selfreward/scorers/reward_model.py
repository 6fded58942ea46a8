"""A reward model: a sequence classifier with one output that reads the chat and the answer.

What it measures: what its makers' annotators preferred. How it fails: far from the texts it was trained on,
and it loves length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfreward.protocols import Message, Question, Verdict

Ask = Callable[[Sequence[Sequence[Message]]], list[float | None]]


@dataclass(frozen=True)
class RewardModelScorer:
    """The classifier's one number for each chat that ends in the candidate; `ask` gives None if too long."""

    ask: Ask
    name: str = "reward-model"
    needs: frozenset[str] = frozenset({"reward_model"})

    def score(self, questions: Sequence[Question]) -> list[list[list[Verdict]]]:
        """One verdict a candidate."""
        chats = [
            [*q.messages, {"role": "assistant", "content": a.text}] for q in questions for a in q.answers
        ]
        verdicts = map(_verdict, self.ask(chats))
        return [[[next(verdicts)] for _ in q.answers] for q in questions]


def _verdict(value: float | None) -> Verdict:
    if value is None:
        return Verdict(None, "too_long")
    return Verdict(value) if math.isfinite(value) else Verdict(None, "not_finite")
