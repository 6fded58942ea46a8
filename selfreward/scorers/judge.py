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
    """Judges by `sampled` replies or by the `expected` score over the scale's numbers.

    `reask` forces a score after a reply that could not be read: the likeliest number behind the opening,
    asked afresh and marked. `calibrate` removes the digit's prior from `expected`: `content_free` takes what
    the judge says of an empty answer to the request, `within_prompt` the mean of what it says of all answers.
    """

    engine: Engine
    rubric: Rubric
    mode: str
    samples: int
    sampling: Sampling
    adapter: str | None
    name: str = "judge"
    needs: frozenset[str] = frozenset({"engine"})
    reask: bool = False
    calibrate: str | None = None

    def score(self, questions: Sequence[Question]) -> list[list[list[Verdict]]]:
        """Verdicts by question, candidate and judge sample; one engine call for the whole block."""
        chats = [
            [rubrics.render(self.rubric, list(q.messages), a.text, q.reference) for a in q.answers]
            for q in questions
        ]
        flat = [chat for row in chats for chat in row]
        answers = [a for q in questions for a in q.answers]
        if self.mode == "expected":
            return self._expected(chats, questions)
        verdicts = iter(self._sampled(flat, answers))
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
        if self.reask:
            self._ask_again(requests, verdicts)
        return [verdicts[i : i + self.samples] for i in range(0, len(verdicts), self.samples)]

    def _ask_again(self, requests: list[Request], verdicts: list[Verdict]) -> None:
        """Puts a forced score in the place of each reply that was written and could not be read."""
        where = [i for i, v in enumerate(verdicts) if v.fault is not None and v.raw is not None]
        told = self._distributions([list(requests[i].messages) for i in where])
        for i, row in zip(where, told, strict=True):
            if isinstance(row, Fault) or rubrics.expectation(self.rubric, row)[1] is not None:
                continue
            best = max(range(len(row)), key=row.__getitem__)
            said = {"fault": verdicts[i].fault} | self._detail(row)
            verdicts[i] = Verdict(
                float(self.rubric.scores[best]), None, verdicts[i].raw, said, verdicts[i].seed, reasked=True
            )

    def _expected(
        self, chats: list[list[list[dict[str, str]]]], questions: Sequence[Question]
    ) -> list[list[list[Verdict]]]:
        told = iter(self._distributions([chat for row in chats for chat in row]))
        found = [[next(told) for _ in row] for row in chats]
        priors = self._priors(found, questions)
        return [
            [[self._weighed(row, prior)] for row in rows] for rows, prior in zip(found, priors, strict=True)
        ]

    def _distributions(self, chats: list[list[dict[str, str]]]) -> list[list[float] | Fault]:
        """The probability of each number of the scale after the opening, or why there is none."""
        choices = tuple(f" {s}" for s in self.rubric.scores)
        told = self.engine.choice_logprobs(
            [Choice(chat, self.rubric.opening, choices, self.adapter) for chat in chats]
        )
        known = [Fault("too_long") if row is None else row for row in told]
        return [row if isinstance(row, Fault) else [math.exp(x) for x in row] for row in known]

    def _priors(
        self, found: list[list[list[float] | Fault]], questions: Sequence[Question]
    ) -> Sequence[list[float] | Fault | None]:
        """What the scores of each question's answers are freed of; None of nothing."""
        if self.calibrate == "content_free":
            empty = [rubrics.render(self.rubric, list(q.messages), "", q.reference) for q in questions]
            return self._distributions(empty)
        if self.calibrate == "within_prompt":
            known = [[row for row in rows if not isinstance(row, Fault)] for rows in found]
            return [[math.fsum(column) for column in zip(*rows, strict=True)] or None for rows in known]
        return [None] * len(questions)

    def _weighed(self, row: list[float] | Fault, prior: list[float] | Fault | None) -> Verdict:
        if isinstance(row, Fault):
            return Verdict(None, row.kind)
        if isinstance(prior, Fault):
            return Verdict(None, prior.kind)
        score, fault = rubrics.expectation(self.rubric, row)
        detail = self._detail(row)
        if prior is not None and fault is None:
            score, fault = rubrics.expectation(self.rubric, rubrics.without_prior(row, prior))
            detail["prior"] = self._detail(prior)
        return Verdict(score, fault, detail=detail)

    def _detail(self, row: list[float]) -> dict[str, object]:
        return {str(s): p for s, p in zip(self.rubric.scores, row, strict=True)}
