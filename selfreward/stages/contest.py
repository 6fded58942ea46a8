"""Head-to-head: answers of two policies to the same questions, judged side by side in both orders."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from selfreward import rubric as rubrics
from selfreward.evaluation.head_to_head import Bout
from selfreward.files import packaged
from selfreward.protocols import Choice, Fault, Request
from selfreward.records import Evaluation, Policy, RubricRow
from selfreward.rubric import LOW_MASS, Rubric
from selfreward.stages.graders import Grader
from selfreward.stages.suites import GRADE, Commit, Plan
from selfreward.stages.work import Work, blocks
from selfreward.store import answers as stored

RUBRIC = "rubrics/pairwise.md"
SIDES = (" A", " B")

Verdict = tuple[float | None, str | None, str | None]  # share of a win of the one shown as A, fault, reply


def fight(work: Work, left: Policy, right: Policy, asked: Plan, grader: Grader, commit: Commit) -> list[Bout]:
    """Judges what is not judged of the first answers to turn 1, and returns every question's bout."""
    path = packaged(RUBRIC)
    rubric = rubrics.parse(path.read_text(encoding="utf-8"), str(path))
    work.store.save(
        RubricRow(
            sha256=rubric.sha256, name=rubric.name, kind=rubric.kind, low=rubric.low, high=rubric.high,
            text=rubric.text,
        )
    )  # fmt: skip
    sides = [_answers(work, policy, asked) for policy in (left, right)]
    tasks = {task.item: task for task in asked.tasks}
    both = [(tasks[i], sides[0][i], sides[1][i]) for i in tasks if i in sides[0] and i in sides[1]]
    had = _had(work, left, asked, grader)
    due = [
        (task, mine, theirs, position)
        for task, mine, theirs in both
        for position in (1, 2)
        if None not in (mine.text, theirs.text) and mine.text.strip() != theirs.text.strip()
        and (mine.id, theirs.id, position) not in had
    ]  # fmt: skip
    for block in blocks(due, 2 * work.recipe.engine.block):
        start = time.monotonic()
        found = _judged(rubric, grader, block)
        rows = [
            Evaluation(
                run_id=work.run.id, policy=left.name, suite=asked.name, answer_id=mine.id,
                against_id=theirs.id, position=position, grader=grader.name, fault=fault, raw=raw,
                score=share if share is None or position == 1 else 1 - share,
            )
            for (_, mine, theirs, position), (share, fault, raw) in zip(block, found, strict=True)
        ]  # fmt: skip
        commit(rows, len(rows), 0, time.monotonic() - start)
    had = _had(work, left, asked, grader)
    return [_bout(task, mine, theirs, had) for task, mine, theirs in both]


def _answers(work: Work, policy: Policy, asked: Plan) -> dict[str, Any]:
    rows = work.store.answers(work.run.id, policy.name, asked.name)
    return {row.item: row for row in rows if row.sample == 0 and row.turn == 1}


def _had(work: Work, left: Policy, asked: Plan, grader: Grader) -> dict[tuple[int, int, int], float | None]:
    rows = stored.contests(work.store, work.run.id, left.name, asked.name, grader.name)
    return {(row.answer_id, row.against_id, row.position): row.score for row in rows}


def _bout(task: Any, mine: Any, theirs: Any, had: dict[tuple[int, int, int], float | None]) -> Bout:
    same = None not in (mine.text, theirs.text) and mine.text.strip() == theirs.text.strip()
    first, second = (had.get((mine.id, theirs.id, position)) for position in (1, 2))
    lengths = mine.n_tokens or 0, theirs.n_tokens or 0
    return Bout(task.item, task.category, first, second, lengths, same)


def _judged(rubric: Rubric, grader: Grader, block: Sequence[Any]) -> list[Verdict]:
    """The share that went to the answer shown as A, which is the left one in position 1."""
    chats = []
    for task, mine, theirs, position in block:
        shown = (mine.text, theirs.text) if position == 1 else (theirs.text, mine.text)
        chats.append(rubrics.render_pair(rubric, list(task.chat), *shown))
    if grader.mode == "expected":
        asked = [Choice(chat, "Winner:", SIDES, grader.adapter) for chat in chats]
        return [_expected(row) for row in grader.engine.choice_logprobs(asked)]
    replies = grader.engine.generate([Request(chat, 0, GRADE, grader.adapter) for chat in chats])
    found: list[Verdict] = []
    for reply in replies:
        if reply.text is None:
            found.append((None, reply.fault, None))
        else:
            v = rubrics.verdict(rubric, reply.text, reply.finish or "length")
            found.append((v.score, v.fault, v.raw))
    return found


def _expected(row: list[float] | Fault | None) -> Verdict:
    """The probability of A among A and B; a fault where the judge was about to say neither."""
    if row is None or isinstance(row, Fault):
        return None, "too_long" if row is None else row.kind, None
    a, b = (math.exp(x) for x in row)
    if not LOW_MASS <= a + b < math.inf:
        return None, "no_score", None
    return a / (a + b), None, None
