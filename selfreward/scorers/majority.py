"""The answer most candidates of a prompt give, taken for the right one (TTRL, arXiv 2504.16084).

What it measures: agreement. How it fails: a policy that is sure of the same mistake agrees with itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from selfreward.protocols import Question, Verdict
from selfreward.scorers.reading import stated


@dataclass(frozen=True)
class MajorityScorer:
    """1 for a candidate that states the plurality's answer, 0 for another answer or none."""

    answer: str = "number"
    name: str = "majority"
    needs: frozenset[str] = frozenset({"group"})

    def score(self, questions: Sequence[Question]) -> list[list[list[Verdict]]]:
        """A group without one most frequent answer, given at least twice, has faults: nobody knows."""
        return [[[v] for v in self._group(q)] for q in questions]

    def _group(self, question: Question) -> list[Verdict]:
        values = [stated(self.answer, a.text, a.finish).value for a in question.answers]
        counted = Counter(v for v in values if v is not None)
        ranked = counted.most_common(2)
        if not ranked or ranked[0][1] < 2 or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
            return [Verdict(None, "no_majority") for _ in values]
        most, votes = ranked[0]
        detail: dict[str, object] = {"majority": str(most), "votes": votes}
        return [Verdict(float(v == most), detail=detail) for v in values]
