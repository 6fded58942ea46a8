"""The command line: a thin door.

It finds the run, calls the loop or a view, and prints; nothing heavy is imported here.

Every error ends in one line on standard error and the exit code of its kind.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from selfreward import grading_cli, judge_cli, no_model, seed_cli
from selfreward.errors import BadInput, GateHalted, Interrupted, RecipeChanged, SelfRewardError
from selfreward.plan.command import plan
from selfreward.policy_export import export
from selfreward.probe import probe
from selfreward.report.command import report
from selfreward.upkeep import command as upkeep
from selfreward.wording import plain_json

# As they are used: a run begins, is looked at, measured, handed on, kept sound.
ORDER = (
    "init", "doctor", "plan", "iterate", "status", "ui", "pairs", "prompts", "evaluate", "compare", "report",
    "export", "judge", "rubric", "seed", "probe", "verify", "gc", "restore",
)  # fmt: skip


class _InOrder(TyperGroup):
    """Lists the commands in the order of their use."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    cls=_InOrder,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A language model that makes, judges and learns from its own answers.",
)
pairs_app = typer.Typer(no_args_is_help=True, help="Look at the preference pairs of a run.")
prompts_app = typer.Typer(no_args_is_help=True, help="Look at the prompts of a run.")
app.add_typer(pairs_app, name="pairs")
app.add_typer(prompts_app, name="prompts")
rubric_app = typer.Typer(no_args_is_help=True, help="Try a rubric before it costs anything.")
app.add_typer(rubric_app, name="rubric")
rubric_app.command("test")(no_model.rubric_test)
judge_app = typer.Typer(no_args_is_help=True, help="Hold a judge against people.")
app.add_typer(judge_app, name="judge")
judge_app.command("calibrate")(judge_cli.calibrate)
seed_app = typer.Typer(no_args_is_help=True, help="Make seed examples from human rankings.")
app.add_typer(seed_app, name="seed")
seed_app.command("build")(seed_cli.build)
pairs_app.command("audit")(judge_cli.pairs_audit)
prompts_app.command("dedupe")(no_model.prompts_dedupe)
app.command()(plan)
app.command()(export)
app.command()(probe)
app.command()(report)
app.command()(upkeep.verify)
app.command()(upkeep.gc)
app.command()(upkeep.restore)

STAGES = ("sft", "prompts", "candidates", "judge", "pairs", "train", "probe", "evaluate")
STORED = "What was stored is whole: mend it and run the same command again"
OUTCOMES = (
    "tie", "below_margin", "too_few_scores", "identical_text", "truncated", "too_long", "dropped_by_review",
    "filtered",
)  # fmt: skip
SORTS = ("id", "margin", "-margin")
REVIEWS = ("auto", "keep", "drop")

RunName = Annotated[str | None, typer.Option("--run", help="Which run: NAME of iterations/NAME.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Of = Annotated[str | None, typer.Option("--of", help="Only the iteration of this policy, e.g. M1.")]
Review = Annotated[str | None, typer.Option("--review", help="auto (nobody looked), keep or drop.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Rows at most.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a recipe key: training.lr=1e-4.")]


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the run.")],
    model: Annotated[str, typer.Option("--model", help="Hub id, folder, or a model in the cache.")],
) -> None:
    """Write iterations/NAME.yaml, commented."""
    from selfreward.recipe_file import load
    from selfreward.runs import FOLDER, NAME, NAME_RULE

    if not re.fullmatch(NAME, name):
        raise BadInput(f"{name!r} cannot name a run: {NAME_RULE}")
    path = FOLDER / f"{name}.yaml"
    if path.exists():
        raise BadInput(f"{path} exists already: edit it, or choose another name")
    template = (Path(__file__).parent / "recipe_template.yaml").read_text(encoding="utf-8")
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(template.format(name=name, model=json.dumps(model)), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None
    load(path)
    typer.echo(
        f"{path} is written. Next: selfreward doctor --run {name}, then selfreward iterate --run {name}"
    )


@app.command()
def doctor(
    run: RunName = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Fetch a hub model now, for offline children.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether this machine can run it: packages, GPUs, model, chat template, disk."""
    from selfreward.doctor import examine
    from selfreward.runs import recipe_file

    found = examine(recipe_file(run), fetch=fetch)
    if as_json:
        typer.echo(json.dumps([{"check": c.name, "ok": c.ok, "found": c.found} for c in found]))
    else:
        for check in found:
            typer.echo(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<14} {check.found}")
    if not all(c.ok for c in found):
        raise typer.Exit(BadInput.exit_code)


@app.command()
def iterate(
    start: Annotated[
        str | None, typer.Option("--from", help="Policy the first wanted iteration starts from.")
    ] = None,
    goal: Annotated[str, typer.Option("--to", help="Policy to stop at.")] = "M3",
    run: RunName = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="transformers, vllm or openai: engine.type.")
    ] = None,
    overrides: Set = None,
    pause_before: Annotated[
        str | None, typer.Option("--pause-before", help="Stop before STAGE or POLICY/STAGE.")
    ] = None,
    accept: Annotated[
        str | None, typer.Option("--accept", help="Let the halt on the way to this policy pass.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", help="With --accept: why; it is kept for ever.")
    ] = None,
    print_launch: Annotated[
        bool, typer.Option("--print-launch", help="Only print what starts a training's processes.")
    ] = False,
    branch: Annotated[
        str | None, typer.Option("--branch", help="Work on this branch; a new one grows from --from.")
    ] = None,
    restart_stage: Annotated[
        list[str] | None, typer.Option("--restart-stage", help="Make POLICY/STAGE and what follows again.")
    ] = None,
) -> None:
    """Run the loop, or go on with it: whatever is done already is not done again."""
    from selfreward import branching, loop, rollback
    from selfreward.report.refresh import refreshed
    from selfreward.runs import DATABASE, open_work, recipe_file
    from selfreward.show.progress import terminal_progress
    from selfreward.stopping import on_signals
    from selfreward.track.follow import followed

    _check_policies(start, goal)
    _check_accept(accept, reason)
    if pause_before is not None:
        _check_choice("--pause-before", pause_before.rpartition("/")[2], STAGES)
    file = recipe_file(run)
    changes = [*(overrides or []), *([f"engine.type={engine}"] if engine else [])]
    with (
        _told(file), terminal_progress() as progress,
        on_signals(lambda text: os.write(2, f"\n{text}\n".encode())) as stop,  # safe inside a handler
        open_work(file, changes, progress, stop) as work,
    ):  # fmt: skip
        if print_launch:
            from selfreward.stages.train import print_launch as launch_lines

            typer.echo(launch_lines(work))
            return
        progress.say(
            f"run {file.stem}: {work.recipe.model.id} to {goal}, {work.dtype}, "
            f"{work.threads} threads; {work.destination}"
        )
        work, start = branching.enter(work, branch, start)
        work = rollback.followed(work)
        branching.restart(work, restart_stage or [])
        if accept is not None and reason is not None:
            loop.accept(work, accept, reason.strip())
        home = work.folder / DATABASE  # for who only reads, wherever it is written
        with (
            followed(home, work.recipe.track, work.recipe.track_texts, progress.say),
            refreshed(home, progress.say, work.recipe.report) as work.on_verdict,
        ):
            work = rollback.iterate(work, start, goal, pause_before)
        here = file.stem + (f" --branch {work.run.name}" if work.run.parent_id else "")
        progress.say(f"{loop.standing(work)} is the policy now; see: selfreward status --run {here}")


@app.command()
def status(
    run: RunName = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every two seconds, until Ctrl-C.")
    ] = False,
    tree: Annotated[bool, typer.Option("--tree", help="Policies and stages as a tree, with counts.")] = False,
    as_json: AsJson = False,
    signals: Annotated[
        bool, typer.Option("--signals", help="Instead: each signal of collapse over the policies.")
    ] = False,
    branch: Annotated[str | None, typer.Option("--branch", help="Of this branch.")] = None,
) -> None:
    """Show policies, stages, gates and measures of a run."""
    from selfreward import outlook
    from selfreward.runs import database_of
    from selfreward.show import run as show
    from selfreward.show import signals as watched
    from selfreward.store import Glances

    views = Glances(database_of(run), write=False)
    if signals:
        found = outlook.signals(views.status())
        _print(found, as_json, lambda: watched.run(found))
    elif as_json:
        typer.echo(json.dumps(show.status_data(views, views.branch_id(branch))))
    elif watch:
        show.watch(views)
    elif tree:
        show.tree(views)
    else:
        show.status(views, views.branch_id(branch))


@app.command()
def ui(
    run: RunName = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 0,
    token: Annotated[
        str | None, typer.Option("--token", help="Secret that readers need; a must beyond loopback.")
    ] = None,
) -> None:
    """Show a run in the browser, and review its pairs there."""
    from selfreward.runs import database_of
    from selfreward.ui.serve import serve

    serve(database_of(run), host, port, token)


app.command()(grading_cli.evaluate)
app.command()(grading_cli.compare)


@pairs_app.command("list")
def pairs_list(
    run: RunName = None,
    of: Of = None,
    min_margin: Annotated[
        float, typer.Option("--min-margin", min=0, help="Only margins of at least this.")
    ] = 0.0,
    outcome: Annotated[
        str | None, typer.Option("--outcome", help="Instead of pairs: prompts mined as tie, truncated, …")
    ] = None,
    fault: Annotated[
        str | None, typer.Option("--fault", help="Only prompts with an answer or judgement of this fault.")
    ] = None,
    scorer: Annotated[str | None, typer.Option("--scorer", help="Only what this scorer judged.")] = None,
    review: Review = None,
    search: Annotated[str | None, typer.Option("--search", help="Only rows whose texts hold this.")] = None,
    sort: Annotated[str, typer.Option("--sort", help="id, margin or -margin.")] = "id",
    limit: Limit = 20,
    rules: Annotated[
        list[str] | None, typer.Option("--rule", help="With --dry-run: a rule; may be repeated.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Compare what rules would make of the stored judgements.")
    ] = False,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """List pairs, or the prompts that made none; or compare rules without making anything."""
    from selfreward.show import pairs as show

    if dry_run or rules or overrides:
        no_model.pairs_dry_run(run, of, rules, dry_run, overrides, as_json)
        return
    _check_choice("--sort", sort, SORTS)
    _check_choice("--outcome", outcome, OUTCOMES)
    _check_choice("--review", review, REVIEWS)
    views = _views(run)
    asked = {"of": of, "min_margin": min_margin, "search": search, "fault": fault, "scorer": scorer}
    if outcome:
        if review:
            raise typer.BadParameter("is of pairs; prompts without one have none", param_hint="--review")
        rows = [dict(r._mapping) for r in views.outcomes(outcome=outcome, limit=limit, **asked)]
        _print(rows, as_json, lambda: show.outcomes(rows))
    else:
        rows = [dict(r._mapping) for r in views.pairs(limit=limit, sort=sort, review=review, **asked)]
        _print(rows, as_json, lambda: show.pairs(rows))


@pairs_app.command("show")
def pairs_show(
    pair: Annotated[int, typer.Argument(help="Id of a pair.")],
    run: RunName = None,
    as_json: AsJson = False,
) -> None:
    """Show one pair with everything it came from."""
    from selfreward.show import pair as one
    from selfreward.show import pairs as show

    found = _views(run).pair(pair)
    if found is None:
        raise BadInput(f"there is no pair {pair}: `selfreward pairs list` shows the ids")
    _print(show.pair_data(found), as_json, lambda: one.pair(found))


@pairs_app.command("review")
def pairs_review(
    run: RunName = None,
    of: Of = None,
    review: Review = "auto",
    sort: Annotated[str, typer.Option("--sort", help="id, margin or -margin.")] = "id",
) -> None:
    """Keep or drop pairs one by one; a dropped one is left out of the next training."""
    from selfreward.runs import database_of
    from selfreward.show.review import review as walk
    from selfreward.store import PairFilter

    _check_choice("--sort", sort, SORTS)
    _check_choice("--review", review, REVIEWS)
    walk(database_of(run), PairFilter(of=of, review=review, sort=sort))


@pairs_app.command("stats")
def pairs_stats(run: RunName = None, of: Of = None, as_json: AsJson = False) -> None:
    """Summarise margins, lengths and outcomes by policy."""
    from selfreward.show import pairs as show

    data = show.stats_data(_views(run), of)
    _print(data, as_json, lambda: show.pair_stats(data))


@pairs_app.command("export")
def pairs_export(
    to: Annotated[Path, typer.Argument(help="A .jsonl or .parquet file.")],
    run: RunName = None,
    of: Of = None,
) -> None:
    """Write pairs in the conversational preference format of TRL and datasets."""
    from selfreward.export import write_pairs

    typer.echo(f"{write_pairs(_views(run), of, to)} pairs written to {to}")


@prompts_app.command("list")
def prompts_list(
    run: RunName = None,
    of: Of = None,
    state: Annotated[str | None, typer.Option("--status", help="accepted or rejected.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="seed, self-instruct or user.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List prompts with what became of them."""
    from selfreward.show import pairs as show

    _check_choice("--status", state, ("accepted", "rejected"))
    _check_choice("--source", source, ("seed", "self-instruct", "user"))
    rows = [dict(r._mapping) for r in _views(run).prompts(of=of, status=state, source=source, limit=limit)]
    _print(rows, as_json, lambda: show.prompts(rows))


def _views(run: str | None) -> Any:
    from selfreward.runs import database_of
    from selfreward.store import Views

    return Views(database_of(run), write=False)


def _print(data: Any, as_json: bool, show: Callable[[], None]) -> None:
    if as_json:
        typer.echo(plain_json(data))
    else:
        show()


def _check_choice(option: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(known)}", param_hint=option)


def _check_policies(start: str | None, goal: str) -> None:
    """`--from` and `--to` are names of policies, in this order; `--from` may name a branch before it."""
    start = start.rpartition("/")[2] if start else start
    for option, value in (("--from", start), ("--to", goal)):
        if value is not None and not (
            value[:1] == "M" and value[1:].isdecimal() and str(int(value[1:])) == value[1:]
        ):
            raise typer.BadParameter(f"{value!r} is no policy: M0, M1, …", param_hint=option)
    if goal == "M0" or (start is not None and int(goal[1:]) <= int(start[1:])):
        later = f"M{int((start or 'M0')[1:]) + 1}"
        raise typer.BadParameter(
            f"{goal} does not come after {start or 'M0'}: name a later policy, such as --to {later}",
            param_hint="--to",
        )


def _check_accept(policy: str | None, reason: str | None) -> None:
    """Nobody overrides a gate without saying why, and only a policy that a training makes can be halted."""
    if policy is None and reason is not None:
        raise typer.BadParameter("goes with --accept", param_hint="--reason")
    if policy is None:
        return
    if not re.fullmatch(r"M[1-9]\d?", policy):
        raise typer.BadParameter(
            f"{policy!r} is no policy that a gate can halt: M2, M3, …", param_hint="--accept"
        )
    if not (reason or "").strip():
        raise typer.BadParameter("--accept needs a reason: it is kept for ever", param_hint="--reason")


@contextlib.contextmanager
def _told(file: Path) -> Iterator[None]:
    """A run that a gate stops shows its screen before the error's one line."""
    try:
        yield
    except GateHalted:
        from selfreward.show import halt

        halt.after(file.parent / file.stem / "selfreward.db", file.stem)
        raise


def main() -> None:
    """The entry point: one line and an exit code per known error; `--debug` anywhere for the traceback."""
    debug = "--debug" in sys.argv
    sys.argv = [a for a in sys.argv if a != "--debug"]
    try:
        app()
    except SelfRewardError as error:
        if debug:
            raise
        if isinstance(error, RecipeChanged):
            from selfreward.show.changes import changes

            changes(error.changes)
        print(f"selfreward: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before a run has begun
        print("selfreward: interrupted", file=sys.stderr)
        sys.exit(Interrupted.exit_code)
    except BrokenPipeError:  # `selfreward pairs list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if debug or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        where = error.filename or "the disk"
        print(f"selfreward: {where}: {error.strerror}. {STORED}", file=sys.stderr)
        sys.exit(BadInput.exit_code)
    except SystemExit as end:  # the same, noticed by typer first
        raise SystemExit(0 if isinstance(end.__context__, BrokenPipeError) else end.code) from None


if __name__ == "__main__":
    main()
