"""The commands `evaluate` and `compare`: from answers to numbers, from two policies to a verdict.

`evaluate` of saved answers needs no run and no model, and only looks; with a policy it goes to `asking_cli`.
`compare` reads a finished run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfreward.errors import BadInput
from selfreward.wording import plain_json

if TYPE_CHECKING:
    from selfreward.asking_cli import Asked
    from selfreward.evaluation.saved import Graded
    from selfreward.evaluation.versus import Comparison, Grade

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RunName = Annotated[str | None, typer.Option("--run", help="Which run: NAME of iterations/NAME.yaml.")]
Suite = Annotated[str, typer.Option("--suite", help="aime24, aime25, gsm8k, mt-bench, or a JSONL FILE.")]
Policy = Annotated[str | None, typer.Argument(metavar="[POLICY]", help="Ask this policy of a run, e.g. M2.")]
AlsoPolicy = Annotated[str | None, typer.Option("--policy", help="The same as the argument.")]
Model = Annotated[str | None, typer.Option("--model", help="Instead of a run: ask this model.")]
Data = Annotated[
    Path | None, typer.Option("--data", help="The questions; else from the hub. A FILE is its own.")
]
Responses = Annotated[
    Path | None, typer.Option("--responses", help='Saved answers: {"id", "sample", "response"} a line.')
]
Judgments = Annotated[
    Path | None, typer.Option("--judgments", help="Saved gradings of mt-bench in FastChat's format.")
]
References = Annotated[
    Path | None, typer.Option("--references", help="Reference answers of mt-bench in FastChat's format.")
]
First = Annotated[int | None, typer.Option("--first", min=1, help="Only the first N questions.")]
Ks = Annotated[str, typer.Option("--k", help="For pass@k and maj@k: numbers with commas between.")]
Samples = Annotated[
    int | None, typer.Option("--samples", min=1, help="Answers a question; else the largest k.")
]
Heat = Annotated[float | None, typer.Option("--temperature", min=0, help="Instead of the suite's own.")]
NewTokens = Annotated[int | None, typer.Option("--max-new-tokens", min=1, help="Instead of the suite's own.")]
StoredAs = Annotated[str | None, typer.Option("--name", help="Keep these answers apart under this name.")]
Grader = Annotated[
    str, typer.Option("--grader", help="self, M0, M1, …, a model, or an address that ends in /v1.")
]
GradeBy = Annotated[str, typer.Option("--grade-by", help="sampled (replies are read) or expected.")]
GraderModel = Annotated[str | None, typer.Option("--grader-model", help="What the address serves.")]
Against = Annotated[
    str | None, typer.Option("--against", help="Head-to-head with this policy, judged in both orders.")
]
Worked = Annotated[
    bool, typer.Option("--math-verify", help="Work out expressions that the rules do not read as right.")
]
Export = Annotated[
    Path | None, typer.Option("--export", help="Write FastChat's and lm-evaluation-harness's files here.")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a recipe key: engine.batch=32.")]


def evaluate(
    suite: Suite,
    of: Policy = None,
    policy: AlsoPolicy = None,
    run: RunName = None,
    model: Model = None,
    data: Data = None,
    responses: Responses = None,
    judgments: Judgments = None,
    references: References = None,
    first: First = None,
    k: Ks = "1",
    samples: Samples = None,
    temperature: Heat = None,
    max_new_tokens: NewTokens = None,
    name: StoredAs = None,
    grader: Grader = "M0",
    grade_by: GradeBy = "sampled",
    grader_model: GraderModel = None,
    against: Against = None,
    math_verify: Worked = False,
    overrides: Set = None,
    export: Export = None,
    as_json: AsJson = False,
) -> None:
    """Ask a policy of a run and grade its answers; or grade saved answers, or sum up saved gradings."""
    ks = _ks(k)
    if (name_of := of or policy or ("M0" if model else None)) is not None:
        from selfreward.asking_cli import Asked

        if responses or judgments or (of and policy and of != policy) or (model and (run or name_of != "M0")):
            told = "names one policy of a run, or --model alone; no saved answers or gradings beside it"
            raise typer.BadParameter(told, param_hint="--policy")
        asked = Asked(
            suite, name_of, run, data, references, first, samples or max(ks), tuple(ks), temperature,
            max_new_tokens, name, grader, grade_by, grader_model, against=against, worked=math_verify,
            overrides=tuple(overrides or ()), model=model,
        )  # fmt: skip
        _ask(asked, export, as_json)
    elif suite == "mt-bench":
        _sum_up(data, judgments if responses is None and first is None else None, export, as_json)
    else:
        _grade(suite, data, responses if judgments is None else None, first, ks, math_verify, export, as_json)


def _ask(asked: Asked, export: Path | None, as_json: bool) -> None:
    from selfreward.asking_cli import ask
    from selfreward.show import grades as show

    found = ask(asked, quiet=as_json)
    if export is not None:
        _write(export, found.files)
    _note(list(found.notes))
    if as_json:
        typer.echo(plain_json(found.data))
    else:
        show.asked(found.data, found.faults)


def compare(
    left: Annotated[str, typer.Argument(help="A policy, e.g. M1.")],
    right: Annotated[str, typer.Argument(help="The policy to compare with it, e.g. M3.")],
    run: RunName = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a policy beats another on the suites of a finished run, or that it can't be told."""
    from selfreward.evaluation import versus
    from selfreward.runs import database_of
    from selfreward.show import grades as show
    from selfreward.store import Views

    views = Views(database_of(run), write=False)
    sides = [_grades(views, name) for name in (left, right)]
    both, left_out = versus.by_grader(left, sides[0], right, sides[1])
    left_out |= versus.apart(both, views.protocols(left), views.protocols(right))
    found, more = versus.compare({s: grades for s, grades in both.items() if s not in left_out})
    left_out |= more
    if not found:
        why = "; ".join(f"{s}: {reason}" for s, reason in left_out.items()) or "no suite was evaluated"
        raise BadInput(f"{left} and {right} cannot be compared: {why}")
    if as_json:
        suites = {c.suite: _as_data(c, (left, right)) for c in found}
        typer.echo(plain_json({"left": left, "right": right, "suites": suites, "not_compared": left_out}))
    else:
        show.comparison(left, right, found, left_out)


def _ks(given: str) -> list[int]:
    if not re.fullmatch(r"\s*[1-9]\d{0,5}\s*(,\s*[1-9]\d{0,5}\s*)*", given):
        raise typer.BadParameter(f"{given!r} should be numbers from 1, such as 1,8", param_hint="--k")
    return list(dict.fromkeys(int(k) for k in given.split(",")))


def _grade(
    name: str,
    data: Path | None,
    answers: Path | None,
    first: int | None,
    ks: list[int],
    worked: bool,
    export: Path | None,
    as_json: bool,
) -> None:
    from selfreward.evaluation import expressions, saved, suites
    from selfreward.jsonl import numbered_rows
    from selfreward.show import grades as show

    if answers is None:
        told = f"takes --policy M2, or --responses FILE, not --judgments ({name})"
        raise typer.BadParameter(told, param_hint="--suite")
    known = suites.KNOWN.get(name) or suites.Suite(name, "own")
    if known.rule == "own" and data is None and not Path(name).is_file():
        told = ", ".join(suites.KNOWN)
        raise BadInput(f"{name!r} is no suite and no file: --suite takes {told} or a JSONL file")
    path = data or (Path(name) if known.rule == "own" else None)
    if path is None:
        raise typer.BadParameter(f"{name} needs its questions: --data PATH", param_hint="--data")
    every = suites.items(numbered_rows(path), known, str(path))
    notes = suites.differences(known, len(every), suites.items_hash(every), str(path))
    said = saved.responses(numbered_rows(answers), every, str(answers))
    graded = saved.grade(every[:first], said)
    if worked:
        graded = expressions.worked_out(graded)
        notes.append(f"expressions were worked out by {expressions.installed()}")
    numbers, faults = saved.summary(name, graded, ks), saved.faults(graded)
    if faults.get("missing"):
        notes.append(
            f"{answers} lacks {faults['missing']} of {len(graded) * numbers['n_samples']} answers: faults"
        )
    if export is not None:
        _write(export, _answer_files(graded, Path(name).stem, answers))
    _note(notes)
    if as_json:
        typer.echo(plain_json(numbers))
    else:
        show.suite(numbers, known.rule, faults)


def _answer_files(graded: list[Graded], suite: str, answers: Path) -> dict[str, list[dict[str, Any]]]:
    """What `--export` writes of saved answers, by file name; the file's own time stands for theirs."""
    from selfreward.evaluation import saved

    model = answers.stem
    return {
        f"samples_{suite}.jsonl": saved.harness_samples(graded),
        f"model_answer/{model}.jsonl": saved.fastchat_answers(graded, model, answers.stat().st_mtime),
    }


def _sum_up(data: Path | None, judgments: Path | None, export: Path | None, as_json: bool) -> None:
    from selfreward.evaluation import gradings, suites
    from selfreward.jsonl import numbered_rows
    from selfreward.show import grades as show

    if data is None or judgments is None:
        told = "takes --policy M2, or --judgments FILE and --data question.jsonl, and no --first"
        raise typer.BadParameter(told, param_hint="--suite mt-bench")
    rows = numbered_rows(data)
    questions = suites.categories(rows, str(data))
    notes = suites.differences(
        suites.KNOWN["mt-bench"], len(questions), suites.questions_hash(rows), str(data)
    )
    found = gradings.gradings(numbered_rows(judgments), questions, str(judgments))
    numbers = gradings.summary(found, questions)
    whole = 2 * len(questions)
    for model, of in numbers.items():
        missing = whole - of["n"] - of["faults"]
        notes += [f"{judgments} lacks {missing} of the {whole} gradings of {model}"] if missing else []
    if export is not None:
        judge = re.sub(r"[^\w.-]", "_", found.judge or "unnamed")
        _write(export, {f"model_judgment/{judge}_single.jsonl": gradings.fastchat_judgments(found)})
    _note(notes)
    if as_json:
        typer.echo(plain_json(numbers))
    else:
        show.gradings(numbers, found.judge)


def _grades(views: Any, policy: str) -> dict[str, list[Grade]]:
    """The grades of an evaluated policy by suite. Raises `BadInput` with what there is instead."""
    from selfreward.evaluation.versus import Grade

    run_id, name = views.addressed(policy)
    rows = views.grades(name, run_id)
    if views.evaluated(run_id)[name] != "done" and not rows:
        branch = f" --branch {policy.rpartition('/')[0]}" if "/" in policy else ""
        raise BadInput(f"{policy} is not evaluated yet: `selfreward iterate{branch} --to {name}` does it")
    found: dict[str, list[Grade]] = {}
    for r in rows:
        found.setdefault(r.suite, []).append(Grade(r.item, r.turn, r.sample, r.seed, r.grader, r.score))
    return found


def _as_data(found: Comparison, policies: tuple[str, str]) -> dict[str, Any]:
    from dataclasses import asdict

    from selfreward.evaluation.versus import is_self

    by_itself = [policy for policy in policies if is_self(policy, found.grader)]
    return {key: value for key, value in asdict(found).items() if key != "suite"} | {"self_graded": by_itself}


def _write(folder: Path, files: dict[str, list[dict[str, Any]]]) -> None:
    """JSONL files under a folder, in ASCII so that any text can be written; each appears whole."""
    from selfreward.files import write_text

    for name, rows in files.items():
        to = folder / name
        try:
            to.parent.mkdir(parents=True, exist_ok=True)
            write_text(to, "".join(json.dumps(row) + "\n" for row in rows))
        except OSError as error:
            raise BadInput(f"{to} cannot be written: {error.strerror or error}") from None


def _note(told: list[str]) -> None:
    """Said last, so that an error stays one line."""
    for line in told:
        typer.echo(f"selfreward: note: {line}", err=True)
