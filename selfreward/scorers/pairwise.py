"""The judge that compares two answers, always in both orders, by the probability of each verdict.

It knows rubrics and answers; it knows nothing of tables. In each order one pass gives the probabilities of
the verdicts the rubric allows after its `Winner:`; a tie counts half to each side (RLAIF, arXiv 2309.00267,
takes the two winners alone).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from selfreward import rubric as rubrics
from selfreward.protocols import Answer, Choice, Engine, Fault, Question, Verdict
from selfreward.rubric import Rubric
from selfreward.rubric.contest import bradley_terry, copeland, soft_preference, winner

OPENING = "Winner:"
VERDICTS = (" A", " B", " tie")
Told = list[float] | Fault | None


@dataclass(frozen=True, slots=True)
class Compared:
    """Two answers of a question by their places, and what the judge says of A with either as A.

    `as_a` and `as_b` are the share of a win that goes to A, in 0..1, with `first` shown as A and as B; None
    with its fault.
    """

    first: int
    second: int
    as_a: float | None
    as_b: float | None
    faults: tuple[str | None, str | None] = (None, None)

    @property
    def consistent(self) -> bool | None:
        """Whether both orders name the same winner; None where one could not be read."""
        if self.as_a is None or self.as_b is None:
            return None
        return winner(self.as_a) == -winner(self.as_b)

    @property
    def preference(self) -> float | None:
        """The soft share of `first`; 0.5, a tie, where the orders disagree; None where one was not read."""
        if self.as_a is None or self.as_b is None:
            return None
        return soft_preference(self.as_a, self.as_b) if self.consistent and winner(self.as_a) else 0.5


@dataclass(frozen=True)
class PairwiseJudge:
    """Compares every two answers of a question in both orders; `scalar` makes one score of it.

    `copeland`: wins and half the ties as a share of comparisons, 0..1. `bradley_terry`: log-strength.
    """

    engine: Engine
    rubric: Rubric
    adapter: str | None
    scalar: str = "copeland"
    name: str = "judge"
    needs: frozenset[str] = frozenset({"engine"})

    def score(self, questions: Sequence[Question]) -> list[list[list[Verdict]]]:
        """One verdict a candidate, from all its comparisons."""
        return [
            [[v] for v in self.standings(len(q.answers), found)]
            for q, found in zip(questions, self.compare(questions), strict=True)
        ]

    def compare(self, questions: Sequence[Question]) -> list[list[Compared]]:
        """Every two answers of each question, by place; one engine call for the whole block."""
        pairs = [list(combinations(range(len(q.answers)), 2)) for q in questions]
        asked = [
            self._choice(q, q.answers[x], q.answers[y])
            for q, found in zip(questions, pairs, strict=True)
            for i, j in found
            for x, y in ((i, j), (j, i))
        ]
        told = iter(self.engine.choice_logprobs(asked))
        return [[_compared(i, j, next(told), next(told)) for i, j in found] for found in pairs]

    def _choice(self, question: Question, first: Answer, second: Answer) -> Choice:
        chat = rubrics.render_pair(
            self.rubric, list(question.messages), first.text, second.text, question.reference
        )
        return Choice(chat, OPENING, VERDICTS, self.adapter)

    def standings(self, n: int, found: Sequence[Compared]) -> list[Verdict]:
        """The scalar of each of n answers; a fault for one whose comparisons could all not be read."""
        shares: Mapping[tuple[int, int], float | None] = {(c.first, c.second): c.preference for c in found}
        scores = copeland(n, shares) if self.scalar == "copeland" else bradley_terry(n, shares)
        faults = [[f for c in found if i in (c.first, c.second) for f in c.faults if f] for i in range(n)]
        return [
            Verdict(score) if score is not None else Verdict(None, (fault or ["nothing_to_compare"])[0])
            for score, fault in zip(scores, faults, strict=True)
        ]


def _compared(i: int, j: int, x_first: Told, y_first: Told) -> Compared:
    (as_a, one), (as_b, two) = _share(x_first), _share(y_first)
    return Compared(i, j, as_a, as_b, (one, two))


def _share(logprobs: Told) -> tuple[float | None, str | None]:
    """The share of a win that goes to A, or why there is none."""
    if logprobs is None or isinstance(logprobs, Fault):
        return None, "too_long" if logprobs is None else logprobs.kind
    a, b, tie = (math.exp(x) for x in logprobs)
    mass = a + b + tie
    if not rubrics.LOW_MASS <= mass < math.inf:  # also when it is not a number
        return None, "no_score"
    return (a + tie / 2) / mass, None
