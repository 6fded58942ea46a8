"""The commands `evaluate` and `compare`: from saved answers to numbers, from two policies to a verdict.

`evaluate` needs no run and no model; `compare` reads a finished run. Both only look.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfreward.errors import BadInput

if TYPE_CHECKING:
    from selfreward.evaluation.saved import Graded
    from selfreward.evaluation.versus import Comparison, Grade

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def evaluate(
    suite: Annotated[str, typer.Option("--suite", help="aime24, aime25, gsm8k, mt-bench, or a JSONL FILE.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="The questions; a FILE suite is its own.")
    ] = None,
    responses: Annotated[
        Path | None, typer.Option("--responses", help='Saved answers: {"id", "sample", "response"} a line.')
    ] = None,
    judgments: Annotated[
        Path | None, typer.Option("--judgments", help="Saved gradings of mt-bench in FastChat's format.")
    ] = None,
    first: Annotated[int | None, typer.Option("--first", min=1, help="Only the first N questions.")] = None,
    k: Annotated[str, typer.Option("--k", help="For pass@k and maj@k: numbers with commas between.")] = "1",
    export: Annotated[
        Path | None, typer.Option("--export", help="Write FastChat's and lm-evaluation-harness's files here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Grade saved answers, or sum up saved gradings: no run and no model needed."""
    if suite == "mt-bench":
        if data is None or judgments is None or responses is not None:
            raise typer.BadParameter(
                "takes --judgments FILE and --data question.jsonl", param_hint="--suite mt-bench"
            )
        if first is not None:
            raise typer.BadParameter("is for suites of answers, not for mt-bench", param_hint="--first")
        _sum_up(data, judgments, export, as_json)
        return
    if responses is None or judgments is not None:
        raise typer.BadParameter(f"takes --responses FILE, not --judgments ({suite})", param_hint="--suite")
    _grade(suite, data, responses, first, _ks(k), export, as_json)


def compare(
    left: Annotated[str, typer.Argument(help="A policy, e.g. M1.")],
    right: Annotated[str, typer.Argument(help="The policy to compare with it, e.g. M3.")],
    run: Annotated[str | None, typer.Option("--run", help="Which run: NAME of iterations/NAME.yaml.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a policy beats another on the suites of a finished run, or that it can't be told."""
    from selfreward.evaluation import versus
    from selfreward.runs import database_of
    from selfreward.show import grades as show
    from selfreward.store import Views

    views = Views(database_of(run), write=False)
    sides = [_grades(views, name) for name in (left, right)]
    both = {s: (sides[0].get(s, []), sides[1].get(s, [])) for s in sides[0] | sides[1]}
    found, left_out = versus.compare(both)
    if not found:
        why = "; ".join(f"{s}: {reason}" for s, reason in left_out.items()) or "no suite was evaluated"
        raise BadInput(f"{left} and {right} cannot be compared: {why}")
    if as_json:
        suites = {c.suite: _as_data(c) for c in found}
        typer.echo(_plain_json({"left": left, "right": right, "suites": suites, "not_compared": left_out}))
    else:
        show.comparison(left, right, found, left_out)


def _ks(given: str) -> list[int]:
    if not re.fullmatch(r"\s*[1-9]\d{0,5}\s*(,\s*[1-9]\d{0,5}\s*)*", given):
        raise typer.BadParameter(f"{given!r} should be numbers from 1, such as 1,8", param_hint="--k")
    return list(dict.fromkeys(int(k) for k in given.split(",")))


def _grade(
    name: str,
    data: Path | None,
    answers: Path,
    first: int | None,
    ks: list[int],
    export: Path | None,
    as_json: bool,
) -> None:
    from selfreward.evaluation import saved, suites
    from selfreward.jsonl import numbered_rows
    from selfreward.show import grades as show

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
    numbers, faults = saved.summary(name, graded, ks), saved.faults(graded)
    if faults.get("missing"):
        notes.append(
            f"{answers} lacks {faults['missing']} of {len(graded) * numbers['n_samples']} answers: faults"
        )
    if export is not None:
        _write(export, _answer_files(graded, Path(name).stem, answers))
    _note(notes)
    if as_json:
        typer.echo(_plain_json(numbers))
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


def _sum_up(data: Path, judgments: Path, export: Path | None, as_json: bool) -> None:
    from selfreward.evaluation import gradings, suites
    from selfreward.jsonl import numbered_rows
    from selfreward.show import grades as show

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
        typer.echo(_plain_json(numbers))
    else:
        show.gradings(numbers, found.judge)


def _grades(views: Any, policy: str) -> dict[str, list[Grade]]:
    """The grades of an evaluated policy by suite. Raises `BadInput` with what there is instead."""
    from selfreward.evaluation.versus import Grade

    known = views.evaluated()
    if policy not in known:
        raise BadInput(f"there is no policy {policy} in this run: it has {', '.join(known) or 'none yet'}")
    if known[policy] != "done":
        raise BadInput(f"{policy} is not evaluated yet: `selfreward iterate --to {policy}` does it")
    rows = views.grades(policy)
    found: dict[str, list[Grade]] = {}
    for suite in dict.fromkeys(row.suite for row in rows):
        mine = [Grade(r.item, r.turn, r.sample, r.seed, r.grader, r.score) for r in rows if r.suite == suite]
        graders: list[str | None] = [*sorted({g.grader for g in mine if g.grader})] or [None]
        for by in graders:  # an answer that failed has no grader and is every grader's
            name = suite if len(graders) == 1 else f"{suite} ({by})"
            found[name] = [g for g in mine if g.grader in (by, None)]
    return found


def _as_data(found: Comparison) -> dict[str, Any]:
    from dataclasses import asdict

    return {key: value for key, value in asdict(found).items() if key != "suite"}


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


def _plain_json(data: Any) -> str:
    """JSON in ASCII, so that no control or direction mark in a text reaches a terminal."""
    return json.dumps(data).replace("\x7f", "\\u007f")
