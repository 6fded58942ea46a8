"""Stage `evaluate`: two-turn questions graded 1-10 and integer problems checked by rule, every reply kept.

Small and offline: it shows whether a policy still answers, with intervals as wide as they are. The same
prompts and seeds serve every policy.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from selfreward import rubric as rubrics
from selfreward import stats
from selfreward.evaluation import integers
from selfreward.files import sha256_of
from selfreward.protocols import Answer, Question, Sampling
from selfreward.recipe import Evaluate
from selfreward.records import Evaluation, Metric, Policy, Stage
from selfreward.rubric import Rubric
from selfreward.scorers.judge import JudgeScorer
from selfreward.stages import probe, recipe_suites
from selfreward.stages.seeds import read_lines, unique
from selfreward.stages.work import Work, flat, sampling

QUESTIONS, PROBLEMS = "two-turn", "integers"


def made_from(work: Work, policy: Policy) -> dict[str, Any]:
    """What decides answers and grades."""
    options = work.recipe.evaluate
    if options is None:
        return {"evaluate": None}
    files = {
        f"evaluate.sha256.{n}": sha256_of(work.file(n)) for n in (options.questions, options.problems) if n
    }
    judge: dict[str, Any] = {"judge.mode": _mode(work)}
    if _mode(work) == "sampled":
        judge |= flat(work.recipe.judge.sampling, "judge.sampling")
    return (
        flat(options, "evaluate")
        | files
        | judge
        | {"evaluate.rubric": _rubric(work, options).sha256}
        | recipe_suites.made_from(work)
        | work.decided_by_engine(policy)
    )


def run(work: Work, stage: Stage) -> str:
    """Answers and grades what is missing, then measures anew."""
    options, policy = work.recipe.evaluate, work.policy(stage.policy)
    if options is None:
        return "not asked for"
    questions = read_lines(work.file(options.questions), ("turns", "category")) if options.questions else []
    problems = read_lines(work.file(options.problems), ("problem", "answer")) if options.problems else []
    unique([q["turns"][0] for q in questions], Path(options.questions or ""))
    unique([p["problem"] for p in problems], Path(options.problems or ""))
    stage.n_total = 2 * len(questions) + len(problems)
    metrics: list[Metric] = []
    if questions:
        _answer_questions(work, stage, policy, options, questions)
        _grade_questions(work, stage, policy, options, questions)
        metrics += _question_metrics(work, policy)
    if problems:
        _answer_problems(work, stage, policy, options, problems)
        metrics += _problem_metrics(work, policy)
    metrics += recipe_suites.run(work, stage, policy)
    work.store.put_metrics(metrics)
    told = [f"{m.name} {m.value:.2f}" for m in metrics if m.value is not None and "faults" not in m.name]
    return ", ".join(told) or "no answer could be read"


def _sampling(options: Evaluate) -> Sampling:
    return Sampling(options.temperature, 1.0, 0, options.max_new_tokens)


def _rubric(work: Work, options: Evaluate) -> Rubric:
    path = work.file(options.rubric)
    return rubrics.parse(path.read_text(encoding="utf-8"), str(path))


def _answer_questions(
    work: Work, stage: Stage, policy: Policy, options: Evaluate, questions: list[dict[str, Any]]
) -> None:
    """Turn 1 of all questions is one block, turn 2 the next; a faulted first turn leaves its second out."""
    for turn in (1, 2):
        had = work.store.answers(work.run.id, policy.name, QUESTIONS)
        if any(a.turn == turn for a in had):
            continue
        first = {a.item: a.text for a in had}
        asked = [q for q in questions if turn == 1 or first.get(q["turns"][0]) is not None]
        chats = [_chat(q, turn, first.get(q["turns"][0])) for q in asked]
        start = time.monotonic()
        rows, tokens = probe.ask(
            work, policy, QUESTIONS, chats, [q["turns"][0] for q in asked], _sampling(options), turn
        )
        work.store.commit_block(stage, rows, len(rows), tokens, time.monotonic() - start)
        work.advance(stage)


def _chat(question: dict[str, Any], turn: int, answer: str | None) -> list[dict[str, str]]:
    chat = [{"role": "user", "content": question["turns"][0]}]
    if turn == 2:
        chat += [
            {"role": "assistant", "content": answer or ""},
            {"role": "user", "content": question["turns"][1]},
        ]
    return chat


def _grade_questions(
    work: Work, stage: Stage, policy: Policy, options: Evaluate, questions: list[dict[str, Any]]
) -> None:
    """Grades by the weights `evaluate.grader` names, in the judge's mode; its name says who graded whom."""
    todo = work.store.ungraded(work.run.id, policy.name, QUESTIONS)
    if not todo:
        return
    judge = work.recipe.judge
    grader = policy if options.grader == "self" else work.policy("M0")
    scorer = JudgeScorer(
        work.engine,
        _rubric(work, options),
        _mode(work),
        1,
        sampling(judge.sampling),
        work.adapter(grader),
        name=_name(grader, options, _mode(work)),
    )
    by_item = {q["turns"][0]: q for q in questions}
    first = {a.item: a.text for a in work.store.answers(work.run.id, policy.name, QUESTIONS) if a.turn == 1}
    start = time.monotonic()
    asked = [
        Question(
            _chat(by_item[a.item], a.turn, first[a.item]),
            [Answer(a.text, a.finish, a.seed)],
            (by_item[a.item].get("reference") or [None, None])[a.turn - 1],
        )
        for a in todo
    ]
    rows = []
    for answer, verdicts in zip(todo, scorer.score(asked), strict=True):
        v = verdicts[0][0]
        rows.append(
            Evaluation(
                run_id=work.run.id, policy=policy.name, suite=QUESTIONS, answer_id=answer.id,
                grader=scorer.name, score=v.score, fault=v.fault, raw=v.raw,
            )
        )  # fmt: skip
    work.store.commit_block(stage, rows, 0, 0, time.monotonic() - start)


def _mode(work: Work) -> str:
    """The judge's mode; one that compares candidates grades each answer by its expected grade."""
    mode = work.recipe.judge.mode
    return "expected" if mode == "pairwise" else mode


def _name(grader: Policy, options: Evaluate, mode: str) -> str:
    """Who graded, so that no two graders share a column; a self-graded score says so."""
    who = f"self:{grader.name}" if options.grader == "self" else grader.name
    return f"{who}/{mode}"


def _answer_problems(
    work: Work, stage: Stage, policy: Policy, options: Evaluate, problems: list[dict[str, Any]]
) -> None:
    """Answers and checks in one block: the rule costs nothing."""
    if not work.store.answers(work.run.id, policy.name, PROBLEMS):
        start = time.monotonic()
        chats = [[{"role": "user", "content": p["problem"]}] for p in problems]
        greedy = Sampling(0.0, 1.0, 0, options.max_new_tokens)
        rows, tokens = probe.ask(work, policy, PROBLEMS, chats, [p["problem"] for p in problems], greedy)
        work.store.commit_block(stage, rows, len(rows), tokens, time.monotonic() - start)
        work.advance(stage)
    right = {p["problem"]: int(p["answer"]) for p in problems}
    graded = []
    for answer in work.store.ungraded(work.run.id, policy.name, PROBLEMS):
        score, fault = integers.check(answer.text, right[answer.item], answer.finish)
        graded.append(
            Evaluation(
                run_id=work.run.id, policy=policy.name, suite=PROBLEMS, answer_id=answer.id, grader="integer",
                score=score, fault=fault,
            )
        )  # fmt: skip
    work.store.commit_block(stage, graded, 0)


def _question_metrics(work: Work, policy: Policy) -> list[Metric]:
    """Mean grade, clustered by question, faults left out; and the share of faults."""
    grades = work.store.grades(work.run.id, policy.name, QUESTIONS)
    by_item: dict[str, list[float]] = {}
    for g in grades:
        if g.score is not None:
            by_item.setdefault(g.item, []).append(g.score)
    found = {"two_turn/faults": stats.share(sum(g.score is None for g in grades), len(grades))}
    if by_item:
        own = work.recipe.evaluate is not None and work.recipe.evaluate.grader == "self"
        found["two_turn/score" + (" (self-graded)" if own else "")] = stats.ratio(
            [sum(v) for v in by_item.values()], [float(len(v)) for v in by_item.values()]
        )
    return [probe.metric(work, policy, "evaluate", n, v) for n, v in found.items()]


def _problem_metrics(work: Work, policy: Policy) -> list[Metric]:
    """Share right of the answers that could be read, and the share that could not."""
    grades = work.store.grades(work.run.id, policy.name, PROBLEMS)
    read = [g.score for g in grades if g.score is not None]
    found = {"integers/faults": stats.share(len(grades) - len(read), len(grades))}
    if read:
        found["integers/accuracy"] = stats.share(sum(s == 1.0 for s in read), len(read))
    return [probe.metric(work, policy, "evaluate", n, v) for n, v in found.items()]
