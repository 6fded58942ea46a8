"""The commands `judge calibrate` and `pairs audit`: how far a judge and its labels can be trusted.

Each looks at a run and writes none of its rows. What a judge said of a file is kept beside it, so that the
same command goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfreward.errors import BadInput, GateHalted

if TYPE_CHECKING:
    from selfreward.calibration import Item
    from selfreward.recipe import Judge as JudgeOptions
    from selfreward.rubric import Rubric
    from selfreward.stages.calibrate import Calibration, Judge, Told

MODES = ("sampled", "expected", "pairwise")
EVERY = 10.0  # seconds between two lines of progress


@dataclass(frozen=True, slots=True)
class Opened:
    """A judge with its name, all that decides its verdicts, where these are kept, and items a block."""

    judge: Judge
    name: str
    mode: str
    decided: dict[str, Any]
    folder: Path
    block: int


def calibrate(
    data: Annotated[
        Path, typer.Option("--data", help="Answers that people rated: a JSON array or JSON lines.")
    ],
    policy: Annotated[str | None, typer.Option("--policy", help="A policy of the run, e.g. M2.")] = None,
    run: Annotated[str | None, typer.Option("--run", help="Which run: NAME of iterations/NAME.yaml.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Without a run: hub id, folder, or a model in the cache.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option("--mode", help="sampled, expected or pairwise; else the recipe's.")
    ] = None,
    rubric: Annotated[
        str | None, typer.Option("--rubric", help="A rubric file, or the name of a packaged one.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only so many items, evenly taken from the file.")
    ] = None,
    attacks: Annotated[
        int, typer.Option("--attacks", min=0, help="Answers with a text that asks for a good score.")
    ] = 40,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a recipe key: judge.samples=1.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Hold a judge against people: accuracy, ranks, order, length, attacks, each with its interval."""
    from selfreward.calibration import as_data
    from selfreward.show import calibration as show
    from selfreward.stages import calibrate as stage

    if (policy is None) == (model is None):
        raise typer.BadParameter("needs --policy of a run, or --model without one", param_hint="--policy")
    if mode is not None and mode not in MODES:
        raise typer.BadParameter(f"{mode!r} is none of {', '.join(MODES)}", param_hint="--mode")
    items, unrated = stage.read_items(data, limit)
    changes = [*(overrides or []), *([f"judge.mode={mode}"] if mode else [])]
    opening = _of_run(run, policy, rubric, changes) if policy else _of_model(model or "", rubric, changes)
    with opening as opened:
        found = _measured(opened, items, attacks)
    told = {"judge": opened.name, "mode": opened.mode, "data": str(data), "items": found.items}
    told |= {"asked": found.asked}
    if as_json:
        numbers = as_data(found.numbers) | {"score_histogram": as_data(found.histogram)}
        typer.echo(json.dumps(told | numbers))
    else:
        show.calibration(told, found.numbers, found.histogram)
    if unrated:
        typer.echo(f"selfreward: note: {unrated} rows of {data} that nobody rated are left out", err=True)


def _measured(opened: Opened, items: list[Item], attacks: int) -> Calibration:
    from selfreward.stages import calibrate as stage

    kept = stage.kept_in(opened.folder, opened.decided | {"attacks": attacks}, items)
    return stage.calibrate(
        opened.judge, items, kept, block=opened.block, most_attacks=attacks, tell=_told(opened.name)
    )


def _told(name: str) -> Told:
    """A line on standard error now and then."""
    last = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            typer.echo(f"{name}: {done} of {of} asked", err=True)

    return tell


@contextmanager
def _of_run(run: str | None, policy: str, rubric: str | None, changes: list[str]) -> Iterator[Opened]:
    """A policy of a run as a judge, by the run's recipe; the run may go on meanwhile."""
    from selfreward.runs import look_into, recipe_file
    from selfreward.stages.judges import open_judge

    with look_into(recipe_file(run), changes) as work:
        known = work.store.policies(work.run.id)
        if policy not in known or (known[policy].status == "training"):
            there = ", ".join(p.name for p in known.values() if p.status != "training") or "none yet"
            raise BadInput(f"{policy} is not made yet: this run has {there}")
        options, row = work.recipe.judge, known[policy]
        text = _rubric(rubric, work.file(options.rubric), options.mode)
        judge = open_judge(work.engine, text, options, work.adapter(row))
        decided = work.decided_by_engine(row) | _decided(options, text)
        name = f"{work.run.name}/{policy}"
        yield Opened(
            judge, name, options.mode, decided, work.folder / "calibration", work.recipe.engine.block
        )


@contextmanager
def _of_model(model: str, rubric: str | None, changes: list[str]) -> Iterator[Opened]:
    """Any model as a judge, with the defaults of a recipe that names nothing else."""
    from selfreward import recipe_file
    from selfreward.engines import model as models
    from selfreward.engines.client import EngineClient
    from selfreward.files import models_folder
    from selfreward.stages.judges import open_judge
    from selfreward.stages.work import gpus_in_use, versions

    recipe = recipe_file.changed({"model": model}, changes, f"--model {model}")
    base, identity = models.resolve(model, recipe.model.revision, Path.cwd())
    if recipe.engine.type != "transformers":
        raise BadInput(f"--model is asked with the transformers engine; for {recipe.engine.type} make a run")
    wanted, folder = recipe.model.dtype, models_folder().parent / "calibration"
    settings: dict[str, Any] = {
        "model": str(base),
        "chat_template": recipe.model.chat_template,
        "system": recipe.model.system,
        "dtype": wanted if wanted != "auto" else "bfloat16" if gpus_in_use() else "float32",
        "batch": recipe.engine.batch,
        "threads": recipe.engine.threads,
    }
    folder.mkdir(parents=True, exist_ok=True)
    engine = EngineClient("transformers", settings, folder / "engine.log")
    options = recipe.judge
    text = _rubric(rubric, recipe_file.locate(Path.cwd() / "recipe", options.rubric), options.mode)
    decided = {"model.id": identity, "engine": settings} | versions() | _decided(options, text)
    try:
        judge = open_judge(engine, text, options, None)
        yield Opened(judge, model, options.mode, decided, folder, recipe.engine.block)
        engine.close()
    except BaseException:
        engine.abandon()
        raise


def _rubric(name: str | None, usual: Path, mode: str) -> Rubric:
    """The named rubric, else the usual one, else, where that is for another mode, the packaged one."""
    from selfreward.files import packaged
    from selfreward.no_model import rubric_path
    from selfreward.rubric import parse
    from selfreward.stages.judges import read_rubric

    if name is None and (parse(usual.read_text(encoding="utf-8"), str(usual)).kind == "pairwise") != (
        mode == "pairwise"
    ):
        usual = packaged(f"rubrics/{'pairwise' if mode == 'pairwise' else 'additive'}.md")
    return read_rubric(rubric_path(name) if name else usual, mode)


def _decided(options: JudgeOptions, rubric: Rubric) -> dict[str, Any]:
    return {"judge": options.model_dump(exclude={"rubric"}), "rubric": rubric.sha256}


def pairs_audit(
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help='Instead of a run: JSONL of {"prompt", "chosen", "rejected"}, made anywhere.'
        ),
    ] = None,
    run: Annotated[str | None, typer.Option("--run", help="Which run: NAME of iterations/NAME.yaml.")] = None,
    of: Annotated[
        str | None, typer.Option("--of", help="Only the iteration of this policy, e.g. M1.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", min=0, help="Pairs judged again; 0 asks no model.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a recipe key: audit.attack_success=0.5.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Look for doubtful labels, in a run or in a file; ends with 5 where there are some, or too many."""
    from selfreward.no_model import audit_file

    if file is not None:
        if run or of or sample is not None or overrides:
            raise typer.BadParameter("takes no --run, --of, --sample or --set", param_hint="--file")
        audit_file(file, as_json)
        return
    _audit_run(run, of, sample, overrides or [], as_json)


def _audit_run(
    run: str | None, of: str | None, sample: int | None, overrides: list[str], as_json: bool
) -> None:
    from selfreward.calibration import as_data
    from selfreward.runs import look_into, recipe_file
    from selfreward.show import calibration as show
    from selfreward.stages.auditing import examine

    with look_into(recipe_file(run), overrides) as work:
        wanted = work.recipe.audit.sample if sample is None else sample
        found = examine(work, of, wanted, lambda text: typer.echo(text, err=True))
        name = work.run.name
    if not found.n:
        raise BadInput(f"{name} has no pairs{f' of {of}' if of else ''}: `selfreward iterate` makes them")
    if as_json:
        told = {"n": found.n, "problems": found.problems, "above": found.above}
        told |= as_data(found.numbers) | {"scorer_agreement": as_data(found.agreement)}
        typer.echo(json.dumps(told))
    else:
        show.audit(found)
    if found.above:
        raise typer.Exit(GateHalted.exit_code)
