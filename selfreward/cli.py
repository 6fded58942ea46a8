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
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from selfreward import grading_cli, judge_cli, no_model, pairs_cli, seed_cli
from selfreward.errors import BadInput, GateHalted, Interrupted, RecipeChanged, SelfRewardError
from selfreward.options import AsJson, RunName, Set, check_choice, show_or_json
from selfreward.plan.command import plan
from selfreward.policy_export import export
from selfreward.probe import probe
from selfreward.report.command import report
from selfreward.upkeep import command as upkeep

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
app.add_typer(pairs_cli.pairs_app, name="pairs")
app.add_typer(pairs_cli.prompts_app, name="prompts")
rubric_app = typer.Typer(no_args_is_help=True, help="Try a rubric before it costs anything.")
app.add_typer(rubric_app, name="rubric")
rubric_app.command("test")(no_model.rubric_test)
judge_app = typer.Typer(no_args_is_help=True, help="Hold a judge against people.")
app.add_typer(judge_app, name="judge")
judge_app.command("calibrate")(judge_cli.calibrate)
seed_app = typer.Typer(no_args_is_help=True, help="Make seed examples from human rankings.")
app.add_typer(seed_app, name="seed")
seed_app.command("build")(seed_cli.build)
pairs_cli.pairs_app.command("audit")(judge_cli.pairs_audit)
pairs_cli.prompts_app.command("dedupe")(no_model.prompts_dedupe)
app.command()(plan)
app.command()(export)
app.command()(probe)
app.command()(report)
app.command()(upkeep.verify)
app.command()(upkeep.gc)
app.command()(upkeep.restore)

STAGES = ("sft", "prompts", "candidates", "judge", "pairs", "train", "probe", "evaluate")
STORED = "What was stored is whole: mend it and run the same command again"


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
        check_choice("--pause-before", pause_before.rpartition("/")[2], STAGES)
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
        show_or_json(found, as_json, lambda: watched.run(found))
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
