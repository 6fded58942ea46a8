"""Saved gradings of MT-Bench in FastChat's format, as means by model, turn and category. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfreward import stats
from selfreward.errors import BadInput
from selfreward.evaluation.saved import Numbers, numbers_of
from selfreward.evaluation.suites import Numbered, identity

LOW, HIGH, UNREAD = 1.0, 10.0, -1  # the scale of MT-Bench; FastChat writes -1 for a rating it could not read


@dataclass(frozen=True, slots=True)
class Grading:
    """One grading: `score` is None where the rating could not be read."""

    model: str
    question: str
    turn: int
    score: float | None
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gradings:
    """What counts: the last grading of a question, model and turn; `duplicates` were replaced, by model."""

    counted: list[Grading]
    duplicates: dict[str, int]
    judge: str | None


def gradings(rows: Numbered, questions: dict[str, str], path: str) -> Gradings:
    """Reads a file of gradings by one judge. Raises `BadInput` naming file and line."""
    last: dict[tuple[str, str, int], Grading] = {}
    duplicates: dict[str, int] = {}
    judge: str | None = None
    for line, row in rows:
        where = f"{path}, line {line}"
        one = _grading(row, questions, where)
        by = _judge(row, where)
        if judge is not None and by is not None and by != judge:
            raise BadInput(f"{where}: graded by {by!r}, earlier lines by {judge!r}; take one judge a file")
        judge = by if judge is None else judge
        key = one.model, one.question, one.turn
        duplicates[one.model] = duplicates.get(one.model, 0) + (key in last)
        last.pop(key, None)
        last[key] = one
    return Gradings(list(last.values()), duplicates, judge)


def _judge(row: dict[str, Any], where: str) -> str | None:
    """The judging model's name: FastChat writes [name, template]."""
    given = row.get("judge")
    given = given[0] if isinstance(given, list) and given else given
    if not isinstance(given, str | None):
        raise BadInput(f"{where}: 'judge' should be a name, or a name and a template")
    return given


def _grading(row: dict[str, Any], questions: dict[str, str], where: str) -> Grading:
    for key in ("question_id", "model", "turn", "score"):
        if key not in row:
            raise BadInput(f"{where}: {key!r} is missing")
    question, model, turn, score = (row[k] for k in ("question_id", "model", "turn", "score"))
    if identity(question, where) not in questions:
        raise BadInput(f"{where}: the questions have no question_id {question!r}")
    if not isinstance(model, str) or not model:
        raise BadInput(f"{where}: 'model' should be a name")
    if turn not in (1, 2) or isinstance(turn, bool):
        raise BadInput(f"{where}: 'turn' should be 1 or 2")
    number = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    if score is not None and not (number and (score == UNREAD or LOW <= score <= HIGH)):
        raise BadInput(
            f"{where}: 'score' should be from {LOW:g} to {HIGH:g}, or {UNREAD} where it was unread"
        )
    read = None if score is None or score == UNREAD else float(score)
    return Grading(model, identity(question, where), int(turn), read, row)


def summary(found: Gradings, questions: dict[str, str]) -> dict[str, Any]:
    """Means by model, in the order models first stand in the file; faults enter no mean."""
    return {model: _of_model(found, model, questions) for model in found.duplicates}


def _of_model(found: Gradings, model: str, questions: dict[str, str]) -> dict[str, Any]:
    mine = [g for g in found.counted if g.model == model]
    names = dict.fromkeys(questions.values())
    return {
        "overall": mean(mine),
        "turn_1": mean([g for g in mine if g.turn == 1]),
        "turn_2": mean([g for g in mine if g.turn == 2]),
        "categories": {c: mean([g for g in mine if questions[g.question] == c]) for c in names},
        "n": sum(g.score is not None for g in mine),
        "faults": sum(g.score is None for g in mine),
        "duplicates": found.duplicates[model],
    }


def mean(graded: Sequence[Grading]) -> Numbers:
    """The mean of all scores that were read, its interval over questions: two turns are no two draws."""
    by_question: dict[str, list[float]] = {}
    for g in graded:
        if g.score is not None:
            by_question.setdefault(g.question, []).append(g.score)
    if not by_question:
        return numbers_of(None)
    sums, counts = [math.fsum(v) for v in by_question.values()], [len(v) for v in by_question.values()]
    return numbers_of(stats.bounded(sums, counts, LOW, HIGH))


def fastchat_judgments(found: Gradings) -> list[dict[str, Any]]:
    """The gradings that count as rows of FastChat's `model_judgment/JUDGE_single.jsonl`."""
    return [g.row | {"score": UNREAD if g.score is None else g.row["score"]} for g in found.counted]
