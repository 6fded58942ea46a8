"""`selfreward report`: the run in one file to send, or in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfreward.errors import BadInput
from selfreward.wording import plain_json


def report(
    run: Annotated[str | None, typer.Option("--run", help="Which run: NAME of iterations/NAME.yaml.")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="One self-contained file with figures, at most 1 MB.")
    ] = None,
    md: Annotated[
        Path | None, typer.Option("--md", help="The same facts in Markdown, without figures.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Sum a run up: policies, signals, evaluation, data, examples, cost, recipe, versions, hashes."""
    from selfreward.report.facts import gather
    from selfreward.report.text import markdown
    from selfreward.runs import database_of

    facts = gather(database_of(run))
    if html is not None:
        from selfreward.report.page import page

        _write(html, page(facts))
    if md is not None:
        _write(md, markdown(facts))
    if as_json:
        typer.echo(plain_json(facts))
    elif html is None and md is None:
        typer.echo(markdown(facts), nl=False)


def _write(to: Path, text: str) -> None:
    from selfreward.files import check_place, write_text

    check_place(to)
    try:
        write_text(to, text)
    except OSError as error:
        raise BadInput(f"{to} cannot be written: {error.strerror or error}") from None
    typer.echo(f"{to} is written ({len(text.encode()) / 1000:,.0f} kB)", err=True)
