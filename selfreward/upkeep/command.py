"""The commands `verify`, `gc` and `restore`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from selfreward.errors import BadInput, GateHalted

RunName = Annotated[str | None, typer.Option("--run", help="Which run: NAME of iterations/NAME.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")]


def verify(run: RunName = None, as_json: AsJson = False) -> None:
    """Check every hash, key and promise of a run's store; print what is broken, and end with 5 then."""
    from selfreward.runs import database_of
    from selfreward.store import Views
    from selfreward.upkeep.verify import check

    path = database_of(run)
    views = Views(path, write=False)
    asked = list(check(path, views))
    found = [broken for _, broken in asked if broken is not None]
    views.close()
    if as_json:
        typer.echo(json.dumps({"checked": len(asked), "broken": [asdict(b) for b in found]}))
    else:
        for one in found:
            rows = "; ".join(", ".join(map(str, keys)) for keys in one.examples)
            typer.echo(f"BROKEN: {one.promise}: {one.n} time{'s' * (one.n != 1)} ({_plain(rows)})")
        typer.echo(f"{len(asked) - len(found)} of {len(asked)} promises hold in {path}")
    if found:
        raise typer.Exit(GateHalted.exit_code)


def gc(
    run: RunName = None,
    branch: Annotated[
        str | None, typer.Option("--branch", help="Instead: this branch, with all it made itself.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without, it is only shown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what no lineage needs, with its bytes; with --yes remove it. What is shared always stays."""
    from selfreward.runs import database_of
    from selfreward.store import Lock, Views
    from selfreward.upkeep import clean

    path = database_of(run)
    views = Views(path, write=False)
    if yes:
        with Lock(path.parent):
            if branch is not None:
                _remove_branch(path, views, branch)
            found = clean.items(path, views)
            views.close()
            clean.remove(path, found)
    else:
        found = clean.items(path, views)
        branch_rows = _branch_rows(views, branch) if branch is not None else None
        views.close()
    _tell(path, found, None if yes else branch, None if yes else branch_rows, yes, as_json)


def _branch_rows(views: Any, branch: str) -> dict[str, int]:
    from selfreward.store import space
    from selfreward.upkeep import clean

    return space.row_counts(views, clean.check_branch(views, branch))


def _remove_branch(path: Path, views: Any, branch: str) -> None:
    """Its rows first: a crash between leaves a folder that no branch has, which the next `gc` sees."""
    from selfreward.store import Store, space
    from selfreward.upkeep import clean

    run_id = clean.check_branch(views, branch)
    store = Store(path, write=True)
    try:
        store.backup("restart", f"without-{branch}")
        space.remove_branch(store, run_id)
    finally:
        store.close()


def _tell(
    path: Path, found: list[Any], branch: str | None, rows: dict[str, int] | None, done: bool, as_json: bool
) -> None:
    if as_json:
        items = [{"why": i.why, "path": str(i.path) if i.path else None, "bytes": i.size} for i in found]
        total = sum(i.size for i in found)
        typer.echo(json.dumps({"removed": done, "bytes": total, "items": items, "branch_rows": rows}))
        return
    for item in found:
        where = item.path.relative_to(path.parent) if item.path else path.name
        typer.echo(f"{item.size:>15,} bytes  {where}  ({item.why})")
    if rows is not None:
        typer.echo(f"branch {branch}: {', '.join(f'{n:,} {t}' for t, n in rows.items())}, and its folder")
    total = sum(i.size for i in found)
    if done:
        typer.echo(f"{total:,} bytes removed")
    elif found or rows:
        typer.echo(f"{total:,} bytes; nothing is removed yet: add --yes")
    else:
        typer.echo("nothing to remove")


def restore(
    backup: Annotated[
        Path | None, typer.Argument(help="A file of iterations/NAME/backups; without, they are listed.")
    ] = None,
    run: RunName = None,
) -> None:
    """Put a backup in the place of a run's store; the store as it is now is kept beside it."""
    from selfreward.runs import DATABASE, recipe_file
    from selfreward.store import Lock
    from selfreward.store import backup as backups

    file = recipe_file(run)
    path = file.parent / file.stem / DATABASE
    there = backups.backups(path)
    if backup is None:
        for one in there:
            typer.echo(f"{one}  {one.stat().st_size:,} bytes")
        if not there:
            typer.echo(f"no backups in {path.parent / backups.FOLDER}")
        return
    if not backup.is_file():
        raise BadInput(f"{backup} is no file: `selfreward restore --run {file.stem}` lists the backups")
    with Lock(path.parent):
        aside = backups.put_back(backup, path)
    typer.echo(f"{path} is {backup.name} again; what was there is {aside.name}")


def _plain(text: str) -> str:
    """Text for any terminal: what a model wrote may stand in a key."""
    from selfreward.wording import visible

    return visible(text)
