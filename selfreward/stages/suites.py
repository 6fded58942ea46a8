"""A suite asked of a policy: its answers and their grades, made where they are missing, kept with protocol.

The store is asked what is missing: the same command goes on answer by answer and grade by grade. Used by
stage `evaluate` for the suites of the recipe and by the command for any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward import rubric as rubrics
from selfreward.errors import StoreError
from selfreward.evaluation import asked as counted
from selfreward.evaluation import expressions, suites, tasks
from selfreward.evaluation.saved import Graded
from selfreward.evaluation.suites import Suite
from selfreward.evaluation.tasks import Protocol, Task
from selfreward.files import packaged
from selfreward.ids import derive_seed, pack_ids
from selfreward.protocols import Answer, Completion, Message, Question, Request, Sampling
from selfreward.records import AnswerRow, Evaluation, Policy, RubricRow
from selfreward.rubric import Rubric
from selfreward.scorers.judge import JudgeScorer
from selfreward.stages import asking
from selfreward.stages.graders import Grader
from selfreward.stages.work import Work, blocks
from selfreward.store import answers as stored

RUBRICS = {"plain": "answer.md", "reference": "answer_with_reference.md", "criteria": "answer_by_criteria.md"}
GRADE = Sampling(0.0, 1.0, 0, 512)  # a judge's reply: greedy, as in MT-Bench
WORKED = f"+{expressions.PACKAGE}"  # behind a rule's name where expressions were worked out besides
PRIVATE = ("probe", "two-turn", "integers")  # names the stages' own answers have
# Where an engine's keys decide an answer; threads, batches and versions are kept and do not bind.
BINDING = ("model.id", "model.dtype", "model.chat_template", "model.system", "adapter.sha256", "engine.type",
           "seed")  # fmt: skip

Commit = Callable[[Sequence[Any], int, int, float], None]  # rows, answers or grades done, tokens, seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """A suite as it will be asked: `name` is what its rows are stored under, `data` the hash of its file."""

    name: str
    suite: Suite
    protocol: Protocol
    tasks: tuple[Task, ...]
    data: str
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """`checked`, `graded` or `compared`: all questions of a suite are of one kind."""
        return self.tasks[0].kind

    @property
    def n_answers(self) -> int:
        """Answers of the whole suite."""
        return self.protocol.samples * sum(task.turns for task in self.tasks)


@dataclass(frozen=True, slots=True)
class _Due:
    """A question with the chats that are still to be answered, by sample."""

    task: Task
    turn: int
    chats: tuple[tuple[int, list[Message]], ...]


def plan(
    name: str,
    suite: Suite,
    protocol: Protocol,
    rows: suites.Numbered,
    path: str,
    first: int | None = None,
    references: tuple[suites.Numbered, str] | None = None,
) -> Plan:
    """What a file of questions makes of a protocol; notes say how the file differs from the known set."""
    every = tasks.tasks(rows, suite, protocol, path)
    if suite.rule == "graded":
        digest = suites.questions_hash(rows)
    elif suite.rule == "own":
        digest = tasks.content(every)
    else:
        digest = suites.items_hash([t.check for t in every if t.check])
    notes = suites.differences(suite, len(every), digest, path)
    if references is not None:
        every = tasks.with_references(every, *references)
    if suite.rule == "graded" and not any(any(t.references) for t in every):
        notes.append(f"{path} brings no reference answers: all questions are graded without")
    return Plan(name, suite, protocol, tuple(every[:first]), digest, tuple(notes))


def remember(work: Work, policy: Policy, asked: Plan) -> dict[str, Any]:
    """Keeps the protocol of a suite's answers, or checks that it still is the one they were made under.

    Raises `StoreError` with the keys that differ: answers of two protocols are not mixed.
    """
    made = work.decided_by_engine(policy)
    present = asked.protocol.decides | {"data": asked.data} | {k: made[k] for k in BINDING if k in made}
    known = stored.note(work.store, work.run.id, "protocol", policy.name, asked.name)
    if known is None:
        event = work.store.event(
            work.run.id, "protocol", policy=policy.name, suite=asked.name, decides=present,
            engine={k: v for k, v in made.items() if k not in BINDING},
        )  # fmt: skip
        work.store.save(events=[event])
        return present
    if told := tasks.differing(known["decides"], present):
        raise StoreError(
            f"{policy.name} answered {asked.name} under another protocol: {'; '.join(told)}. "
            "Put it back, or keep these answers apart with --name"
        )
    return present


def answer(work: Work, policy: Policy, asked: Plan, commit: Commit, turns: int = 2) -> None:
    """Answers what is missing: turn 1 of all questions, then turn 2 where turn 1 could be read."""
    for turn in range(1, min(turns, max(task.turns for task in asked.tasks)) + 1):
        due = _due(work, policy, asked, turn)
        start = time.monotonic()
        size = max(1, 4 * work.recipe.engine.block // asked.protocol.samples)  # rows at once as in the probe
        for group in asking.answered(work, due, lambda d: _requests(work, policy, asked.name, d), size):
            rows = [
                _row(work, policy, asked.name, one, sample, request, reply)
                for one, requests, replies in group
                for (sample, _), request, reply in zip(one.chats, requests, replies, strict=True)
            ]
            tokens = sum(row.n_tokens or 0 for row in rows)
            commit(rows, len(rows), tokens, time.monotonic() - start)
            start = time.monotonic()


def _due(work: Work, policy: Policy, asked: Plan, turn: int) -> list[_Due]:
    """Questions whose answers of this turn are missing, in the suite's order."""
    had = {
        (a.item, a.sample, a.turn): a.text for a in work.store.answers(work.run.id, policy.name, asked.name)
    }
    found = []
    for task in asked.tasks:
        missing = [s for s in range(asked.protocol.samples) if (task.item, s, turn) not in had]
        if turn == 1:
            chats = tuple((s, list(task.chat)) for s in missing)
        else:
            said = [(s, had.get((task.item, s, 1))) for s in missing if task.follow is not None]
            chats = tuple((s, tasks.second_chat(task, text)) for s, text in said if text is not None)
        if chats:
            found.append(_Due(task, turn, chats))
    return found


def _requests(work: Work, policy: Policy, name: str, due: _Due) -> list[Request]:
    """The seed depends on suite, question, sample and turn: every policy draws with the same."""
    return [
        Request(
            chat,
            derive_seed(work.recipe.seed, "suite", name, due.task.item, sample, due.turn),
            due.task.sampling,
            work.adapter(policy),
        )
        for sample, chat in due.chats
    ]


def _row(
    work: Work, policy: Policy, name: str, due: _Due, sample: int, request: Request, reply: Completion
) -> AnswerRow:
    read = reply.text is not None
    return AnswerRow(
        run_id=work.run.id, policy=policy.name, suite=name, item=due.task.item, sample=sample, turn=due.turn,
        text=reply.text, token_ids=pack_ids(reply.token_ids) if read else None,
        n_tokens=len(reply.token_ids) if read else None, finish=reply.finish, seed=request.seed,
        fault=reply.fault,
    )  # fmt: skip


def check_answers(
    work: Work, policy: Policy, asked: Plan, commit: Commit, *, worked: bool = False
) -> tuple[str, list[Graded]]:
    """Marks by the suite's rule what is not marked; the rule, which is the grader's name, and every mark.

    `worked`: expressions are worked out too, under a grader's name that says so.
    """
    rules = {task.check.rule for task in asked.tasks if task.check}
    name = (rules.pop() if len(rules) == 1 else "own") + (WORKED if worked else "")
    samples = asked.protocol.samples
    found = counted.marks(
        asked.tasks, stored.graded_by(work.store, work.run.id, policy.name, asked.name, name), samples
    )
    due = stored.ungraded_by(work.store, work.run.id, policy.name, asked.name, name, samples)
    if worked and due:
        found = expressions.worked_out(found)
    by_item = {task.item: one for task, one in zip(asked.tasks, found, strict=True)}
    rows = []
    for a in due:
        if (one := by_item.get(a.item)) is not None:
            mark, read = one.marks[a.sample], one.readings[a.sample]
            rows.append(
                Evaluation(
                    run_id=work.run.id, policy=policy.name, suite=asked.name, answer_id=a.id, grader=name,
                    score=None if mark is None else float(mark), fault=read.fault,
                    raw=None if read.value is None else str(read.value),
                )
            )  # fmt: skip
    commit(rows, 0, 0, 0.0)
    return name, found


def grade(work: Work, policy: Policy, asked: Plan, grader: Grader, commit: Commit) -> None:
    """Grades by a judge what it has not graded, in blocks that are committed whole."""
    by_item = {task.item: task for task in asked.tasks}
    first = {
        (a.item, a.sample): a.text
        for a in work.store.answers(work.run.id, policy.name, asked.name)
        if a.turn == 1
    }
    due = [
        a
        for a in stored.ungraded_by(
            work.store, work.run.id, policy.name, asked.name, grader.name, asked.protocol.samples
        )
        if a.item in by_item
    ]
    ready = _rubrics()
    _remember_grader(work, policy, asked, grader, ready)
    for block in blocks(due, work.recipe.engine.block):
        start = time.monotonic()
        rows: list[Evaluation] = []
        for name, rubric in ready.items():
            mine = [a for a in block if _rubric_of(by_item[a.item], a.turn) == name]
            if not mine:
                continue
            scorer = JudgeScorer(grader.engine, rubric, grader.mode, 1, GRADE, grader.adapter, grader.name)
            asked_of = [_question(by_item[a.item], a, first) for a in mine]
            for a, verdicts in zip(mine, scorer.score(asked_of), strict=True):
                v = verdicts[0][0]
                rows.append(
                    Evaluation(
                        run_id=work.run.id, policy=policy.name, suite=asked.name, answer_id=a.id,
                        grader=grader.name, score=v.score, fault=v.fault, raw=v.raw,
                    )
                )  # fmt: skip
        commit(rows, len(rows), 0, time.monotonic() - start)


def _rubrics() -> dict[str, Rubric]:
    paths = {name: packaged(f"mt_bench/{file}") for name, file in RUBRICS.items()}
    return {name: rubrics.parse(p.read_text(encoding="utf-8"), str(p)) for name, p in paths.items()}


def _rubric_of(task: Task, turn: int) -> str:
    if task.criteria is not None:
        return "criteria"
    return "reference" if tasks.solution(task, turn) else "plain"


def _question(task: Task, row: Any, first: dict[tuple[str, int], str]) -> Question:
    chat = list(task.chat) if row.turn == 1 else tasks.second_chat(task, first[row.item, row.sample])
    against = task.criteria if task.criteria is not None else tasks.solution(task, row.turn)
    return Question(chat, [Answer(row.text, row.finish, row.seed)], against)


def _remember_grader(
    work: Work, policy: Policy, asked: Plan, grader: Grader, ready: dict[str, Rubric]
) -> None:
    """Keeps what the grades of one name were made with; raises `StoreError` where it changed."""
    present = {
        "rubrics": {name: rubric.sha256 for name, rubric in ready.items()},
        "max_new_tokens": GRADE.max_new_tokens,
        "adapter.sha256": grader.sha256,
    }
    known = stored.note(work.store, work.run.id, "grading", policy.name, asked.name, grader.name)
    if known is None:
        event = work.store.event(
            work.run.id, "grading", policy=policy.name, suite=asked.name, grader=grader.name, decides=present
        )
        texts = [
            RubricRow(sha256=r.sha256, name=r.name, kind=r.kind, low=r.low, high=r.high, text=r.text)
            for r in ready.values()
        ]
        work.store.save(*texts, events=[event])
    elif told := tasks.differing(known["decides"], present):
        raise StoreError(
            f"{grader.name} graded {asked.name} of {policy.name} by other means: {'; '.join(told)}. "
            "Put it back, or keep the answers apart with --name"
        )


def name_of(suite: Suite, given: str, name: str | None) -> str:
    """What a suite's rows are stored under: its own name, a file's stem, or what is given.

    Raises `StoreError` for one that means something else.
    """
    found = name or (suite.name if suite.rule != "own" else Path(given).stem)
    taken = found in PRIVATE or (suite.rule == "own" and found in suites.KNOWN)
    if taken:
        raise StoreError(f"{found!r} is the name of other answers: give this suite one with --name")
    return found
