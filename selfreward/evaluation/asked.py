"""What stored answers and grades of a suite amount to, and the files other tools read. Pure.

The numbers are those of saved answers and saved gradings: one way to count, wherever an answer came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from selfreward.evaluation import gradings, saved
from selfreward.evaluation.gradings import Grading, Gradings
from selfreward.evaluation.reading import Reading
from selfreward.evaluation.saved import Graded
from selfreward.evaluation.tasks import Task


def marks(tasks: Sequence[Task], rows: Sequence[Any], samples: int) -> list[Graded]:
    """Every checked question with its first `samples` answers as they are read; one not there is missing.

    An answer that is stored as right is right, also where the rules alone would not say so.
    """
    checks = {task.item: task.check for task in tasks if task.check}
    mine = [(check.id, row) for row in rows if row.sample < samples and (check := checks.get(row.item))]
    said = {(name, row.sample): {"response": row.text, "finish": row.finish} for name, row in mine}
    right = {(name, row.sample) for name, row in mine if row.score == 1}
    found = saved.grade([check for check in checks.values() if check], said)
    return [_as_stored(one, right) for one in found]


def _as_stored(one: Graded, right: set[tuple[str, int]]) -> Graded:
    known = [(one.item.id, i) in right for i in range(len(one.marks))]
    readings = tuple(
        Reading(value=one.item.answer) if r else read for r, read in zip(known, one.readings, strict=True)
    )
    return replace(one, readings=readings, marks=tuple(r or m for r, m in zip(known, one.marks, strict=True)))


def scores(tasks: Sequence[Task], rows: Sequence[Any], model: str, judge: str) -> Gradings:
    """The grades of a judge in the form of saved gradings; an answer or a grade that failed has no score."""
    by_item = {task.item: task for task in tasks}
    found = [
        Grading(model, by_item[row.item].id, row.turn, row.score, _row(by_item[row.item], row, model, judge))
        for row in rows
        if row.item in by_item and (row.score is not None or row.fault is not None)
    ]
    return Gradings(found, {model: 0}, judge)


def _row(task: Task, row: Any, model: str, judge: str) -> dict[str, Any]:
    """A row of FastChat's `model_judgment` file."""
    return {
        "question_id": _number(task.id),
        "model": model,
        "judge": [judge, "criteria" if task.criteria is not None else f"single-turn-{row.turn}"],
        "judgment": row.raw or "",
        "score": row.score,
        "turn": row.turn,
    }


def numbers(tasks: Sequence[Task], found: Gradings, model: str) -> dict[str, Any]:
    """Means by turn and category, each with its interval over questions."""
    questions = {task.id: task.category for task in tasks}
    told: dict[str, Any] = gradings.summary(found, questions)[model]
    return told


def conversations(tasks: Sequence[Task], rows: Sequence[Any], model: str, at: float) -> list[dict[str, Any]]:
    """Rows of FastChat's `model_answer/MODEL.jsonl`: a choice a sample, with all turns that were answered."""
    said: dict[tuple[str, int], list[str]] = {}
    for row in sorted(rows, key=lambda r: (r.sample, r.turn)):
        if row.text is not None:
            said.setdefault((row.item, row.sample), []).append(row.text)
    answered = {item for item, _ in said}
    return [
        {
            "question_id": _number(task.id),
            "answer_id": saved.hashed(f"{model}/{task.id}")[:22],
            "model_id": model,
            "choices": [
                {"index": sample, "turns": turns}
                for (item, sample), turns in said.items()
                if item == task.item
            ],
            "tstamp": at,
        }
        for task in tasks
        if task.item in answered
    ]


def _number(name: str) -> int | str:
    """FastChat's ids are numbers."""
    return int(name) if name.isdecimal() and str(int(name)) == name else name
