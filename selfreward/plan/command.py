"""`selfreward plan`: what a run will cost, before it starts and without its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from selfreward.errors import BadInput

Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a recipe key: training.lr=1e-4.")
]
Config = Annotated[Path | None, typer.Option("--config", help="config.json of a model that is not here.")]
Like = Annotated[str | None, typer.Option("--like", help="Take lengths and speeds from that run's store.")]
Throughput = Annotated[
    str | None, typer.Option("--throughput", help="Tokens/s: generate=…,prefill=…,train=…")
]


def plan(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe file; or --run.")] = None,
    run: Annotated[str | None, typer.Option("--run", help="Which run: NAME of iterations/NAME.yaml.")] = None,
    goal: Annotated[str, typer.Option("--to", help="Policy to stop at.")] = "M3",
    overrides: Overrides = None,
    config: Config = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=0, help="How many; 0: the CPU.")] = None,
    gpu_memory: Annotated[
        float | None, typer.Option("--gpu-memory", min=0, help="GiB of one GPU (with --gpus 0: RAM).")
    ] = None,
    gpu_name: Annotated[
        str | None, typer.Option("--gpu-name", help="For guesses of speed: H100, A100, L4, …")
    ] = None,
    like: Like = None,
    throughput: Throughput = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Predict tokens, hours, memory and disk from the recipe and the model's config alone."""
    from selfreward.plan import make
    from selfreward.plan.machine import devices
    from selfreward.recipe_file import load
    from selfreward.runs import recipe_file
    from selfreward.show import plan as show

    if not (goal[:1] == "M" and goal[1:].isdecimal() and 2 <= int(goal[1:]) <= 63):
        raise typer.BadParameter(f"{goal!r} is no policy an iteration makes: M2, M3, …", param_hint="--to")
    file = recipe or recipe_file(run)
    device, count = devices(gpus, gpu_memory, gpu_name)
    data = make.make(
        load(file, overrides or []),
        file,
        make.Asked(
            goal=int(goal[1:]),
            device=device,
            gpus=count,
            config=config,
            throughput=make.throughput(throughput),
            spent=_spent(file, like),
            same_machine=gpus is None and gpu_memory is None,
        ),
    )
    if as_json:
        typer.echo(json.dumps(data))
    else:
        show.plan(data)
    if not show.fits(data):
        raise typer.Exit(BadInput.exit_code)


def _spent(file: Path, like: str | None) -> dict[str, list[Any]] | None:
    """What the store of another run tells, or of this one where it has begun."""
    from selfreward.runs import DATABASE, database_of
    from selfreward.store import Views

    path = database_of(like) if like else file.parent / file.stem / DATABASE
    if like is None and not path.exists():
        return None
    views = Views(path, write=False)
    try:
        spent = views.spent()
    finally:
        views.close()
    if not spent["recipe"] or not spent["candidates"][0].n:
        if like:
            raise BadInput(f"--like {like}: that run has no candidates yet")
        return None
    return spent
