"""How much a candidate's words help towards the reference answer (RLPR, arXiv 2506.18254).

The reward is the mean probability of the reference's tokens after the candidate's reasoning, less the same
without any, clipped to 0..1. What it measures: whether the reasoning makes the right answer likelier. How it
fails: references that are short can be guessed, and a candidate may state the answer without a reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from selfreward.protocols import Engine, Message, Question, Scored, Verdict


@dataclass(frozen=True)
class RlprScorer:
    """Verdicts in 0..1; `opening` is what answers are stated behind, and stands before the reference."""

    engine: Engine
    adapter: str | None
    opening: str
    name: str = "rlpr"
    needs: frozenset[str] = frozenset({"engine", "reference"})

    def score(self, questions: Sequence[Question]) -> list[list[list[Verdict]]]:
        """One verdict a candidate; a prompt without a reference gives faults."""
        asked: list[tuple[Sequence[Message], str, str]] = []
        for q in questions:
            if q.reference:
                asked.append((q.messages, self.opening, q.reference))
                asked += [(q.messages, reasoning(a.text, self.opening), q.reference) for a in q.answers]
        means = iter(self._probabilities(asked))
        found = []
        for q in questions:
            if not q.reference:
                found.append([[Verdict(None, "no_reference")] for _ in q.answers])
                continue
            bare = next(means)
            found.append([[_verdict(next(means), bare)] for _ in q.answers])
        return found

    def _probabilities(self, asked: Sequence[tuple[Sequence[Message], str, str]]) -> list[float]:
        """Mean probability of each reference's tokens behind the words before it."""
        prompts = self.engine.chat_ids([chat for chat, _, _ in asked])
        before = self.engine.answer_ids([words for _, words, _ in asked])
        whole = self.engine.answer_ids([f"{words} {reference}" for _, words, reference in asked])
        rows = []
        for prompt, said, told in zip(prompts, before, whole, strict=True):
            shared = _shared(said[:-1], told[:-1])  # the last id ends a turn: none ends here
            rows.append(Scored([*prompt, *told[:shared]], told[shared:-1], self.adapter))
        found = self.engine.token_logprobs(rows)
        return [math.fsum(map(math.exp, row)) / len(row) if row else math.nan for row in found]


def reasoning(text: str, opening: str) -> str:
    """The candidate's words up to and with its last `opening`; where it has none, all and the opening."""
    at = text.rfind(opening)
    return text[: at + len(opening)] if at >= 0 else f"{text.rstrip()}\n{opening}"


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids both begin with: those of the words, where the reference does not join their last one."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _verdict(helped: float, bare: float) -> Verdict:
    if not (math.isfinite(helped) and math.isfinite(bare)):
        return Verdict(None, "not_finite")
    return Verdict(min(1.0, max(0.0, helped - bare)), detail={"with": helped, "without": bare})
