"""Options that many commands share, and what all do with them; nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from selfreward.wording import plain_json

RunName = Annotated[str | None, typer.Option("--run", help="Which run: NAME of iterations/NAME.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Of = Annotated[str | None, typer.Option("--of", help="Only the iteration of this policy, e.g. M1.")]
Review = Annotated[str | None, typer.Option("--review", help="auto (nobody looked), keep or drop.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Rows at most.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a recipe key: training.lr=1e-4.")]


def show_or_json(data: Any, as_json: bool, show: Callable[[], None]) -> None:
    """Prints the data as JSON, or shows it."""
    if as_json:
        typer.echo(plain_json(data))
    else:
        show()


def check_choice(option: str, value: str | None, known: Sequence[str]) -> None:
    """Raises a usage error for a value that is none of the known ones."""
    if value is not None and value not in known:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(known)}", param_hint=option)
