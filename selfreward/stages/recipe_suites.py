"""The suites of a recipe, asked of every policy within a budget; an alarm where one pays a tax."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from selfreward import stats
from selfreward.collapse import Finding
from selfreward.evaluation import asked as counted
from selfreward.evaluation import saved, tasks
from selfreward.evaluation.suites import KNOWN
from selfreward.files import sha256_of
from selfreward.recipe import AskedSuite
from selfreward.records import Metric, Policy, Stage
from selfreward.stages import questions, suites
from selfreward.stages.graders import GraderOptions, open_grader
from selfreward.stages.suites import Plan
from selfreward.stages.work import Work
from selfreward.store import answers as stored

BASELINE = "M1"  # what a tax is measured against
ALARM = 2.0  # standard errors


def files(work: Work) -> list[Path]:
    """The questions of every suite of the recipe; those from the hub are fetched once."""
    return [_file(work, one) for one in _wanted(work)]


def made_from(work: Work) -> dict[str, Any]:
    """Contents of the files, where there are suites."""
    return {f"evaluate.suites.{i}.sha256": sha256_of(_file(work, one)) for i, one in enumerate(_wanted(work))}


def _wanted(work: Work) -> list[AskedSuite]:
    options = work.recipe.evaluate
    return list(options.suites or ()) if options else []


def _data(work: Work, one: AskedSuite) -> Path | None:
    if one.data is not None:
        return work.file(one.data)
    return None if one.suite in KNOWN else work.file(one.suite)


def _file(work: Work, one: AskedSuite) -> Path:
    data = _data(work, one)
    return questions.file_of(questions.known(one.suite, data), data, work.folder)


def plans(work: Work) -> list[tuple[AskedSuite, Plan]]:
    """Every suite as it is asked, cut so that all answers at their longest fit the budget, in order.

    The cut goes by the recipe and not by what was generated: every policy is asked the same.
    """
    options = work.recipe.evaluate
    left = options.budget if options else None
    found = []
    for one in _wanted(work):
        whole = _plan(work, one, one.first)
        if left is not None:
            cost = whole.protocol.max_new_tokens * whole.protocol.samples * whole.tasks[0].turns
            fits = min(len(whole.tasks), left // cost)
            left -= fits * cost
            if fits < len(whole.tasks):
                work.progress.say(
                    f"evaluate.budget: {whole.name} is asked {fits} of {len(whole.tasks)} questions"
                )
            if fits == 0:
                continue
            whole = _plan(work, one, fits)
        found.append((one, whole))
    return found


def _plan(work: Work, one: AskedSuite, first: int | None) -> Plan:
    data = _data(work, one)
    suite = questions.known(one.suite, data)
    rows, path = questions.rows_of(suite, data, work.folder)
    protocol = tasks.protocol(suite, one.samples, one.temperature, one.max_new_tokens)
    return suites.plan(suites.name_of(suite, one.suite, one.name), suite, protocol, rows, path, first)


def run(work: Work, stage: Stage, policy: Policy) -> list[Metric]:
    """Answers and grades what is missing of every suite; returns their measures."""
    ready = plans(work)
    stage.n_total = (stage.n_total or 0) + sum(plan.n_answers for _, plan in ready)

    def commit(rows: Any, done: int, tokens: int, seconds: float) -> None:
        work.store.commit_block(stage, rows, done, tokens, seconds)
        work.advance(stage)

    def grades(rows: Any, done: int, tokens: int, seconds: float) -> None:
        work.store.commit_block(stage, rows, 0, tokens, seconds)

    found = []
    for _, plan in ready:
        for note in plan.notes:
            work.progress.say(note)
        suites.remember(work, policy, plan)
        suites.answer(work, policy, plan, commit)
        if plan.kind == "checked":
            _, graded = suites.check_answers(work, policy, plan, grades)
            avg = saved.summary(plan.name, graded, [1])["avg"]
            found += _metric(work, policy, f"{plan.name}/accuracy", avg, len(graded))
        elif plan.kind == "graded":
            assert work.recipe.evaluate is not None
            mode = work.recipe.judge.mode  # one that compares candidates cannot grade one answer
            options = GraderOptions(work.recipe.evaluate.grader, "expected" if mode == "pairwise" else mode)
            with open_grader(work, policy, options) as grader:
                suites.grade(work, policy, plan, grader, grades)
            found += _score(work, policy, plan, grader.name)
    return found


def _score(work: Work, policy: Policy, plan: Plan, grader: str) -> list[Metric]:
    rows = stored.graded_by(work.store, work.run.id, policy.name, plan.name, grader)
    found = counted.numbers(plan.tasks, counted.scores(plan.tasks, rows, policy.name, grader), policy.name)
    return _metric(work, policy, f"{plan.name}/score ({grader})", found["overall"], len(plan.tasks))


def _metric(work: Work, policy: Policy, name: str, found: saved.Numbers, n: int) -> list[Metric]:
    if found["value"] is None:
        return []
    return [
        Metric(
            run_id=work.run.id, policy=policy.name, stage="evaluate", name=name, value=found["value"], n=n,
            low=found["low"], high=found["high"],
        )
    ]  # fmt: skip


def findings(work: Work, policy: Policy) -> list[Finding]:
    """An alarm for each suite of role `tax` that lies below M1 by more than two standard errors.

    Paired by question; both sides' answers are of the same seeds. Nothing is said of M0 and M1 themselves.
    """
    if policy.idx <= int(BASELINE[1:]):
        return []
    wanted = [one for one in _wanted(work) if one.role == "tax"]
    names = [
        suites.name_of(questions.known(one.suite, _data(work, one)), one.suite, one.name) for one in wanted
    ]
    return [f for name in names if (f := _tax(work, policy, name)) is not None]


def _tax(work: Work, policy: Policy, name: str) -> Finding | None:
    sides = [_by_item(work, p, name) for p in (BASELINE, policy.name)]
    differences = [
        stats.estimate(sides[1][item]).value - stats.estimate(sides[0][item]).value
        for item in sides[0]
        if item in sides[1]
    ]
    if len(differences) < 2:
        return None
    n = len(differences)
    value = math.fsum(differences) / n
    error = math.sqrt(math.fsum((d - value) ** 2 for d in differences) / (n - 1) / n)
    low, high = value - ALARM * error, value + ALARM * error
    level = "warn" if high < 0 else "ok"
    span = f"{value:+.3g} [{low:+.3g}, {high:+.3g}]"
    told = f"{name} of {policy.name} is {span} against {BASELINE} on {n} questions"
    message = f"{told}: a drop beyond two standard errors" if level == "warn" else told
    return Finding(f"tax/{name}", level, value, 0.0, message, low, high, n=n)


def _by_item(work: Work, policy: str, name: str) -> dict[str, list[float]]:
    """The readable scores of each question."""
    found: dict[str, list[float]] = {}
    for row in work.store.grades(work.run.id, policy, name):
        if row.score is not None:
            found.setdefault(row.item, []).append(row.score)
    return found
