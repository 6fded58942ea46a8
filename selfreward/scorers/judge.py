"""The language-model judge: a rubric, an engine, and the weights that judge.

It knows rubrics and answers; it knows nothing of tables. A judge text longer than the context is a fault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from selfreward import rubric as rubrics
from selfreward.ids import derive_seed
from selfreward.protocols import Answer, Choice, Engine, Fault, Question, Request, Sampling, Verdict
from selfreward.rubric import Rubric


@dataclass(frozen=True)
class JudgeScorer:
    """Judges by `sampled` replies or by the `expected` score over the scale's numbers."""

    engine: Engine
    rubric: Rubric
    mode: str
    samples: int
    sampling: Sampling
    adapter: str | None
    name: str = "judge"
    needs: frozenset[str] = frozenset({"engine"})

    def score(self, questions: Sequence[Question]) -> list[list[list[Verdict]]]:
        """Verdicts by question, candidate and judge sample; one engine call for the whole block."""
        chats = [
            [rubrics.render(self.rubric, list(q.messages), a.text, q.reference) for a in q.answers]
            for q in questions
        ]
        flat = [chat for row in chats for chat in row]
        answers = [a for q in questions for a in q.answers]
        verdicts = iter(self._expected(flat) if self.mode == "expected" else self._sampled(flat, answers))
        return [[next(verdicts) for _ in q.answers] for q in questions]

    def _sampled(self, chats: list[list[dict[str, str]]], answers: list[Answer]) -> list[list[Verdict]]:
        seeds = [[derive_seed(a.seed, "judge", i) for i in range(self.samples)] for a in answers]
        requests = [
            Request(chat, seed, self.sampling, self.adapter)
            for chat, row in zip(chats, seeds, strict=True)
            for seed in row
        ]
        replies = self.engine.generate(requests)
        verdicts = []
        for request, reply in zip(requests, replies, strict=True):
            if reply.text is None:
                verdicts.append(Verdict(None, reply.fault, seed=request.seed))
                continue
            found = rubrics.verdict(self.rubric, reply.text, reply.finish or "length")
            verdicts.append(replace(found, seed=request.seed))
        return [verdicts[i : i + self.samples] for i in range(0, len(verdicts), self.samples)]

    def _expected(self, chats: list[list[dict[str, str]]]) -> list[list[Verdict]]:
        choices = tuple(f" {s}" for s in self.rubric.scores)
        found = self.engine.choice_logprobs(
            [Choice(chat, self.rubric.opening, choices, self.adapter) for chat in chats]
        )
        verdicts = []
        for row in found:
            if row is None or isinstance(row, Fault):
                verdicts.append([Verdict(None, "too_long" if row is None else row.kind)])
                continue
            probabilities = [math.exp(x) for x in row]
            score, fault = rubrics.expectation(self.rubric, probabilities)
            detail: dict[str, object] = {
                str(s): p for s, p in zip(self.rubric.scores, probabilities, strict=True)
            }
            verdicts.append([Verdict(score, fault, detail=detail)])
        return verdicts
