"""Grading answers that were saved before. Pure: rows of files in, marks and numbers out; no model, no run."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from selfreward import stats
from selfreward.errors import BadInput
from selfreward.evaluation import reading
from selfreward.evaluation.reading import Reading
from selfreward.evaluation.suites import Item, Numbered, identity
from selfreward.files import sha256_of_text
from selfreward.stats import Interval

Numbers = dict[str, float | None]
FINISHES = ("stop", "length", None)


@dataclass(frozen=True, slots=True)
class Graded:
    """An item with what was said and read, by sample: `marks` are None where nothing could be read."""

    item: Item
    responses: tuple[str | None, ...]
    readings: tuple[Reading, ...]
    marks: tuple[bool | None, ...]

    @property
    def read(self) -> list[bool]:
        """The marks of the answers that could be read, in order."""
        return [m for m in self.marks if m is not None]


def responses(rows: Numbered, known: Sequence[Item], path: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Saved answers by id and sample. Raises `BadInput` naming the line of one that cannot be placed."""
    ids = {item.id for item in known}
    found: dict[tuple[str, int], dict[str, Any]] = {}
    lines: dict[tuple[str, int], int] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        if "id" not in row or "response" not in row:
            raise BadInput(f"{where}: {'id' if 'id' not in row else 'response'!r} is missing")
        key = identity(row["id"], where), _sample(row, len(rows), where)
        if key[0] not in ids:
            raise BadInput(f"{where}: the data has no item {key[0]!r}")
        if key in found:
            raise BadInput(f"{where}: sample {key[1]} of {key[0]!r} stands in line {lines[key]} already")
        if not isinstance(row["response"], str | None):
            raise BadInput(f"{where}: 'response' should be text, or null for an answer that failed")
        if row.get("finish") not in FINISHES:
            raise BadInput(f"{where}: 'finish' should be stop or length")
        found[key], lines[key] = row, line
    return found


def _sample(row: dict[str, Any], most: int, where: str) -> int:
    sample = row.get("sample", 0)
    if isinstance(sample, bool) or not isinstance(sample, int) or not 0 <= sample < most:
        raise BadInput(f"{where}: 'sample' should count from 0, below the {most} answers of the file")
    return sample


def grade(known: Sequence[Item], said: dict[tuple[str, int], dict[str, Any]]) -> list[Graded]:
    """Every item with as many samples as the most answered one has; a missing answer is unread."""
    ids = {item.id for item in known}
    n = max((sample + 1 for name, sample in said if name in ids), default=0)
    if n == 0:
        raise BadInput("none of the saved answers is to these items")
    return [_graded(item, [said.get((item.id, s)) for s in range(n)]) for item in known]


def _graded(item: Item, rows: Sequence[dict[str, Any] | None]) -> Graded:
    found = [check(item, row) for row in rows]
    marks = tuple(None if r.fault else r.value == item.answer for r in found)
    return Graded(item, tuple(row["response"] if row else None for row in rows), tuple(found), marks)


def check(item: Item, row: dict[str, Any] | None) -> Reading:
    """What a saved answer states under its item's rule."""
    if row is None:
        return Reading(fault="missing")
    if row["response"] is None:
        return Reading(fault="failed")
    text, finish = row["response"], row.get("finish") or "stop"
    match item.rule:
        case "integer":
            return reading.integer(text, finish)
        case "number":
            return reading.number(text, finish)
        case _:
            return reading.phrase(text, finish)


def summary(suite: str, graded: Sequence[Graded], ks: Sequence[int]) -> dict[str, Any]:
    """The suite's numbers, each with its 95 % interval over items, and every mark.

    Unread answers are faults: they enter no mean. `avg` is the mean over items of the share right among the
    answers that were read, so it is pass@1; an item with none read is left out.
    """
    n = len(graded[0].marks)
    answered = [g for g in graded if g.read]
    share = [sum(g.read) / len(g.read) for g in answered]
    spent = [float(stats.attempts(g.marks)) for g in answered]
    return {
        "suite": suite,
        "n_items": len(graded),
        "n_samples": n,
        "avg": numbers_of(_mean(share)),
        "pass_at_k": {str(k): numbers_of(_pass_at(graded, k)) for k in ks},
        "maj_at_k": {str(k): numbers_of(_majority_at(graded, k)) for k in ks},
        "mean_attempts": numbers_of(_mean(spent, 1.0, float(n))),
        "faults": sum(m is None for g in graded for m in g.marks),
        "items": {g.item.id: list(g.marks) for g in graded},
    }


def numbers_of(found: Interval | None) -> Numbers:
    """An interval as JSON has it; all null where nothing could be measured."""
    if found is None:
        return {"value": None, "low": None, "high": None}
    return {"value": found.value, "low": found.low, "high": found.high}


def _mean(values: Sequence[float], low: float = 0.0, high: float = 1.0) -> Interval | None:
    return stats.bounded(values, [1.0] * len(values), low, high) if values else None


def _pass_at(graded: Sequence[Graded], k: int) -> Interval | None:
    """Over the items of which an answer was read; one with fewer than k read counts with all it has.

    So a fault makes pass@k of its item too low at most, and takes no item out: those whose answers are cut
    off are the hard ones.
    """
    if k > len(graded[0].marks):
        raise BadInput(
            f"pass@{k} needs {k} answers of an item; the most saved of one is {len(graded[0].marks)}"
        )
    read = [g.read for g in graded if g.read]
    return _mean([stats.pass_at_k(len(r), sum(r), min(k, len(r))) for r in read])


def _majority_at(graded: Sequence[Graded], k: int) -> Interval | None:
    """The mean over the whole groups of k samples in a row; within an item first."""
    shares = []
    for g in graded:
        groups = [_votes(g, start, k) for start in range(0, len(g.marks) - k + 1, k)]
        won = [stats.majority(votes, "right") for votes in groups if votes]
        if won:
            shares.append(sum(won) / len(won))
    return _mean(shares)


def _votes(g: Graded, start: int, k: int) -> list[Hashable]:
    """What each read sample of a group votes for; one that names no single answer votes for itself alone."""
    votes: list[Hashable] = []
    for i in range(start, start + k):
        if g.marks[i] is not None:
            value = g.readings[i].value
            votes.append("right" if g.marks[i] else ("other", i if value is None else str(value)))
    return votes


def faults(graded: Sequence[Graded]) -> dict[str, int]:
    """How many answers could not be read, by reason; and how many stated no single answer (`no_single`)."""
    found: dict[str, int] = {}
    for g in graded:
        for r in g.readings:
            name = r.fault or ("no_single" if r.value is None else None)
            if name:
                found[name] = found.get(name, 0) + 1
    return found


def harness_samples(graded: Sequence[Graded]) -> list[dict[str, Any]]:
    """Rows as lm-evaluation-harness 0.4 logs them (`samples_TASK_DATE.jsonl`), one an item."""
    rows = []
    for place, g in enumerate(graded):
        said = [r for r in g.responses if r is not None]
        stated = [str(r.value) if r.value is not None else "" for r in g.readings if r.fault != "missing"]
        read = g.read
        rows.append(
            {
                "doc_id": place,
                "doc": g.item.row,
                "target": str(g.item.answer),
                "arguments": {"gen_args_0": {"arg_0": g.item.problem, "arg_1": {}}},
                "resps": [said],
                "filtered_resps": stated if len(stated) == 1 else [stated],
                "filter": g.item.rule,
                "metrics": ["exact_match"],
                "doc_hash": hashed(json.dumps(g.item.row, indent=2)),
                "prompt_hash": hashed(g.item.problem),
                "target_hash": hashed(str(g.item.answer)),
                "exact_match": sum(read) / len(read) if read else None,
            }
        )
    return rows


def fastchat_answers(graded: Sequence[Graded], model: str, at: float) -> list[dict[str, Any]]:
    """Rows of FastChat's `model_answer/MODEL.jsonl`, a choice a sample; `at` is seconds since 1970."""
    return [
        {
            "question_id": g.item.id,
            "answer_id": hashed(f"{model}/{g.item.id}")[:22],
            "model_id": model,
            "choices": [{"index": i, "turns": [r]} for i, r in enumerate(g.responses) if r is not None],
            "tstamp": at,
        }
        for g in graded
    ]


def hashed(text: str) -> str:
    """sha256 of a text; halves of a surrogate pair count as question marks."""
    return sha256_of_text(text.encode("utf-8", "replace").decode("utf-8"))
