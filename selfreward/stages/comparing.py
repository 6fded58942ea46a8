"""A pairwise judge in the loop: its comparisons as rows, how steady they are, and the weight of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from selfreward import stats
from selfreward.protocols import Question, Verdict
from selfreward.records import Judgement, Metric, Stage
from selfreward.scorers.pairwise import Compared, PairwiseJudge
from selfreward.stages.work import Work

CONSISTENCY = "judge/position_consistency"


def rows(
    work: Work, judge: PairwiseJudge, groups: Sequence[Sequence[Any]], questions: Sequence[Question]
) -> list[Judgement]:
    """Of every two candidates a row an order, then of each candidate the scalar of its comparisons.

    A comparison's score is the share of a win that goes to the candidate whose row it is, over `other_id`;
    `position` is where it was shown.
    """
    found = []
    for group, compared in zip(groups, judge.compare(questions), strict=True):
        ids = [c.id for c in group]
        for c in compared:
            sides = ((1, c.as_a, c.faults[0]), (2, None if c.as_b is None else 1 - c.as_b, c.faults[1]))
            for position, share, fault in sides:
                found.append(_row(work, judge, ids[c.first], Verdict(share, fault), ids[c.second], position))
        standings = judge.standings(len(ids), compared)
        found += [_row(work, judge, i, v, 0, 1) for i, v in zip(ids, standings, strict=True)]
    return found


def _row(
    work: Work, judge: PairwiseJudge, candidate: int, verdict: Verdict, other: int, position: int
) -> Judgement:
    return Judgement(
        run_id=work.run.id, candidate_id=candidate, other_id=other, position=position, scorer=judge.name,
        sample=0, score=verdict.score, fault=verdict.fault,
    )  # fmt: skip


def compared(work: Work, policy: str, scorer: str) -> dict[int, list[tuple[int, int, Compared]]]:
    """The stored comparisons of an iteration by prompt, with the ids of both candidates."""
    found: dict[int, list[tuple[int, int, Compared]]] = {}
    stored = work.store.comparisons(work.run.id, policy, scorer)
    for (first, second), both in groupby(stored, key=lambda r: (r.candidate_id, r.other_id)):
        one, two = both
        as_b = None if two.score is None else 1 - two.score
        pair = Compared(0, 1, one.score, as_b, (one.fault, two.fault))
        found.setdefault(one.prompt_id, []).append((first, second, pair))
    return found


def labels(work: Work, policy: str, scorer: str) -> dict[tuple[int, int], float]:
    """How sure the judge is that the first of two candidates is the better one, where both orders say so.

    The soft label of RLAIF (arXiv 2309.00267): above 0.5, and the weight of a pair. Two that the judge ties,
    or of which a comparison could not be read, are not in it.
    """
    found = {}
    for first, second, pair in (c for group in compared(work, policy, scorer).values() for c in group):
        if pair.preference is not None and pair.preference != 0.5:
            sure = pair.preference
            found[(first, second) if sure > 0.5 else (second, first)] = max(sure, 1 - sure)
    return found


def measure(work: Work, stage: Stage, scorer: str) -> str:
    """Stores the share of comparisons in which both orders agree, and says it."""
    parts = []
    for group in compared(work, stage.policy, scorer).values():
        known = [pair.consistent for _, _, pair in group if pair.consistent is not None]
        if known:
            parts.append((float(sum(known)), float(len(known))))
    if not parts:
        return "no comparison could be read"
    sums, counts = zip(*parts, strict=True)
    found = stats.bounded(sums, counts)
    n = round(sum(counts))
    work.store.put_metrics(
        [
            Metric(
                run_id=work.run.id, policy=stage.policy, stage=stage.name, name=CONSISTENCY,
                value=found.value, n=n, low=found.low, high=found.high,
            )
        ]
    )  # fmt: skip
    return f"both orders agree in {found.value:.0%} of {n} comparisons"
