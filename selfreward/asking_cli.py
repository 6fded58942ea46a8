"""`evaluate` with a policy: opens the run as its one writer, asks the suite, grades and counts."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward.errors import BadInput

if TYPE_CHECKING:
    from selfreward.records import Policy
    from selfreward.stages.graders import GraderOptions
    from selfreward.stages.suites import Plan
    from selfreward.stages.work import Work

ALONE = Path("evaluations")  # answers of models without a run
POLICY = r"M(0|[1-9]\d*)"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command was asked for; None is the suite's own."""

    suite: str
    policy: str
    run: str | None = None
    data: Path | None = None
    references: Path | None = None
    first: int | None = None
    samples: int = 1
    ks: tuple[int, ...] = (1,)
    temperature: float | None = None
    max_new_tokens: int | None = None
    name: str | None = None
    grader: str = "M0"
    grade_by: str = "sampled"
    grader_model: str | None = None
    grader_key_env: str = "OPENAI_API_KEY"
    against: str | None = None
    worked: bool = False
    model: str | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The numbers as JSON has them, the files to export by name, and what is to be said besides."""

    data: dict[str, Any]
    files: dict[str, list[dict[str, Any]]]
    notes: Sequence[str]
    faults: dict[str, int]


def ask(asked: Asked, *, quiet: bool) -> Result:
    """Answers and grades what is missing and counts; the same command goes on where it was interrupted."""
    from selfreward import loop
    from selfreward.runs import open_work
    from selfreward.show.progress import quiet_progress, terminal_progress
    from selfreward.stages.leaks import leaks

    _check(asked)
    file = _recipe_of(asked)
    shown = quiet_progress() if quiet else terminal_progress()
    with shown as progress, open_work(file, list(asked.overrides), progress) as work:
        if asked.model is not None:
            loop.begin(work)
        policy = _policy(work, asked.policy)
        plan = _plan(work, asked)
        plan = replace(plan, notes=(*plan.notes, *leaks(work, policy, plan)))
        progress.say(_told(work, policy, plan))
        try:
            found = _result(work, policy, plan, asked)
            work.close_engine()
        except BaseException:
            work.abandon_engine()
            raise
    return found


def _check(asked: Asked) -> None:
    from selfreward.stages import questions

    if not re.fullmatch(POLICY, asked.policy):
        raise BadInput(f"{asked.policy!r} is no policy: M0, M1, …")
    if asked.grade_by not in ("sampled", "expected"):
        raise BadInput(f"--grade-by {asked.grade_by} is neither sampled nor expected")
    if asked.samples > 256:
        raise BadInput(f"--samples {asked.samples} is more than 256")
    if max(asked.ks) > asked.samples:
        raise BadInput(f"--k {max(asked.ks)} needs as many answers a question: --samples {max(asked.ks)}")
    if asked.against is not None and (
        not re.fullmatch(POLICY, asked.against) or asked.against == asked.policy
    ):
        raise BadInput(f"--against {asked.against} should be another policy than {asked.policy}")
    questions.known(asked.suite, asked.data)


def _recipe_of(asked: Asked) -> Path:
    """The recipe of the run, which asking never begins; of a model alone one in a folder of its own."""
    from selfreward.runs import database_of, recipe_file

    if asked.model is not None:
        return _recipe_of_model(asked.model)
    if not database_of(asked.run).exists():
        raise BadInput(
            f"run {recipe_file(asked.run).stem} has no policies yet: `selfreward iterate` makes them"
        )
    return recipe_file(asked.run)


def _recipe_of_model(model: str) -> Path:
    """`evaluations/NAME.yaml`, written where it is not there: the model is M0, and nothing is trained."""
    from selfreward.files import write_text

    name = re.sub(r"[^a-z0-9._~-]+", "-", Path(model).name.lower() if Path(model).is_dir() else model.lower())
    file = ALONE / f"{name.strip('-._~') or 'model'}.yaml"
    given = str(Path(model).resolve()) if Path(model).is_dir() else model
    text = f"model: {json.dumps(given)}\nstart: {{sft: null}}\n"
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise BadInput(f"{file} holds another model: move it, or name a run of your own with --run")
    if not file.exists():
        ALONE.mkdir(exist_ok=True)
        write_text(file, text)
    return file


def _policy(work: Work, name: str) -> Policy:
    known = work.store.policies(work.run.id)
    made = [p for p in known.values() if p.status != "training"]
    if name not in {p.name for p in made}:
        told = ", ".join(p.name for p in made) or "none yet"
        raise BadInput(f"there is no policy {name} in run {work.run.name}: it has {told}")
    return known[name]


def _plan(work: Work, asked: Asked) -> Plan:
    from selfreward.evaluation import tasks
    from selfreward.jsonl import numbered_rows
    from selfreward.stages import questions, suites

    suite = questions.known(asked.suite, asked.data)
    rows, path = questions.rows_of(suite, asked.data, work.folder)
    protocol = tasks.protocol(suite, asked.samples, asked.temperature, asked.max_new_tokens)
    name = suites.name_of(suite, asked.suite, asked.name)
    given = asked.references
    references = (numbered_rows(given), str(given)) if given else None
    return suites.plan(name, suite, protocol, rows, path, asked.first, references)


def _told(work: Work, policy: Policy, plan: Plan) -> str:
    p = plan.protocol
    heat = "a temperature by category" if p.temperature is None else f"temperature {p.temperature:g}"
    return (
        f"{policy.name} of run {work.run.name}: {plan.name}, {len(plan.tasks)} questions x "
        f"{p.samples} samples, {heat}, at most {p.max_new_tokens} new tokens; {work.destination}"
    )


def _result(work: Work, policy: Policy, plan: Plan, asked: Asked) -> Result:
    from selfreward.stages import suites

    if plan.kind == "compared" and asked.against is None:
        raise BadInput(
            f"{asked.suite} brings neither answers nor a rubric: nothing can be counted. Add `answer` or "
            "`rubric` to each line, or compare with another policy: --against M1"
        )
    made = suites.remember(work, policy, plan)
    done = sum(
        a.sample < plan.protocol.samples for a in work.store.answers(work.run.id, policy.name, plan.name)
    )
    work.progress.begin(policy.name, plan.name, min(done, plan.n_answers), plan.n_answers)
    commit = _committer(work, min(done, plan.n_answers), plan.n_answers)
    if asked.against is not None:
        return _fought(work, policy, plan, asked, made)
    suites.answer(work, policy, plan, commit)
    if plan.kind == "checked":
        return _checked(work, policy, plan, asked, made)
    return _graded(work, policy, plan, asked, made)


def _committer(work: Work, done: int, total: int) -> Any:
    counted = {"done": done, "tokens": 0}

    def commit(rows: Sequence[Any], n: int, tokens: int, seconds: float) -> None:
        work.store.save(rows=rows)
        counted["done"] += n
        counted["tokens"] += tokens
        work.progress.advance(min(counted["done"], total), total, counted["tokens"])

    return commit


def _checked(work: Work, policy: Policy, plan: Plan, asked: Asked, made: dict[str, Any]) -> Result:
    from selfreward.evaluation import asked as counted
    from selfreward.evaluation import saved
    from selfreward.stages import suites

    commit = _committer(work, 0, 0)
    rule, graded = suites.check_answers(work, policy, plan, commit, worked=asked.worked)
    rows = work.store.answers(work.run.id, policy.name, plan.name)
    numbers = saved.summary(plan.name, graded, list(asked.ks))
    _measure(work, policy, plan.name, {"accuracy": numbers["avg"]}, len(graded))
    work.progress.end(f"{len(graded)} questions checked")
    model = f"{work.run.name}-{policy.name}"
    files = {
        f"samples_{plan.name}.jsonl": saved.harness_samples(graded),
        f"model_answer/{model}.jsonl": counted.conversations(plan.tasks, rows, model, time.time()),
    }
    data = _head(work, policy, plan, rule, made) | numbers
    return Result(data, files, plan.notes, saved.faults(graded))


def _graded(work: Work, policy: Policy, plan: Plan, asked: Asked, made: dict[str, Any]) -> Result:
    from selfreward.evaluation import asked as counted
    from selfreward.evaluation import gradings
    from selfreward.stages import suites
    from selfreward.stages.graders import open_grader
    from selfreward.store import answers as stored

    with open_grader(work, policy, grader_options(asked)) as grader:
        work.progress.say(f"graded by {grader.name}; {grader.told}")
        suites.grade(work, policy, plan, grader, _committer(work, 0, plan.n_answers))
        name = grader.name
    rows = stored.graded_by(work.store, work.run.id, policy.name, plan.name, name)
    rows = [row for row in rows if row.sample < plan.protocol.samples]
    model = f"{work.run.name}-{policy.name}"
    found = counted.scores(plan.tasks, rows, model, name)
    numbers = counted.numbers(plan.tasks, found, model)
    _measure(work, policy, plan.name, {f"score ({name})": numbers["overall"]}, len(plan.tasks))
    work.progress.end(f"{len(plan.tasks)} questions graded")
    judge = re.sub(r"[^\w.-]", "_", name)
    files = {
        f"model_answer/{model}.jsonl": counted.conversations(plan.tasks, rows, model, time.time()),
        f"model_judgment/{judge}_single.jsonl": gradings.fastchat_judgments(found),
    }
    return Result(_head(work, policy, plan, name, made) | numbers, files, plan.notes, {})


def _fought(work: Work, policy: Policy, plan: Plan, asked: Asked, made: dict[str, Any]) -> Result:
    """Head-to-head: both policies answer, the grader sees every pair of answers in both orders."""
    from selfreward.evaluation import head_to_head
    from selfreward.evaluation.versus import is_self
    from selfreward.stages import contest, suites
    from selfreward.stages.graders import open_grader

    other = _policy(work, asked.against or "")
    suites.remember(work, other, plan)
    for one in (policy, other):
        suites.answer(work, one, plan, _committer(work, 0, 2 * len(plan.tasks)), turns=1)
    with open_grader(work, policy, grader_options(asked)) as grader:
        work.progress.say(f"compared by {grader.name}; {grader.told}")
        bouts = contest.fight(work, policy, other, plan, grader, _committer(work, 0, 2 * len(plan.tasks)))
    numbers = head_to_head.summary(bouts)
    work.progress.end(f"{numbers['n']} questions judged in both orders")
    head = _head(work, policy, plan, grader.name, made)
    own = is_self(policy.name, grader.name) or is_self(other.name, grader.name)
    return Result(head | {"against": other.name, "self_graded": own} | numbers, {}, plan.notes, {})


def grader_options(asked: Asked) -> GraderOptions:
    """The grader as the stages take it."""
    from selfreward.stages.graders import GraderOptions

    return GraderOptions(asked.grader, asked.grade_by, asked.grader_model, asked.grader_key_env)


def _head(work: Work, policy: Policy, plan: Plan, grader: str, made: dict[str, Any]) -> dict[str, Any]:
    from importlib.metadata import version

    from selfreward.evaluation.versus import is_self

    return {
        "suite": plan.name,
        "run": work.run.name,
        "policy": policy.name,
        "grader": grader,
        "self_graded": is_self(policy.name, grader),
        "protocol": made | {"samples": plan.protocol.samples, "selfreward": version("selfreward")},
    }


def _measure(work: Work, policy: Policy, suite: str, found: dict[str, Any], n: int) -> None:
    """Keeps the suite's numbers with the run's others."""
    from selfreward.records import Metric

    work.store.put_metrics(
        [
            Metric(
                run_id=work.run.id, policy=policy.name, stage="evaluate", name=f"{suite}/{name}",
                value=value["value"], n=n, low=value["low"], high=value["high"],
            )
            for name, value in found.items()
            if value["value"] is not None
        ]
    )  # fmt: skip
