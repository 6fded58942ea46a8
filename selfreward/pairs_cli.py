"""`selfreward pairs` and `prompts`: what a run made, listed, shown, summed up, reviewed, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selfreward import no_model
from selfreward.errors import BadInput
from selfreward.options import AsJson, Limit, Of, Review, RunName, Set, check_choice, show_or_json

pairs_app = typer.Typer(no_args_is_help=True, help="Look at the preference pairs of a run.")
prompts_app = typer.Typer(no_args_is_help=True, help="Look at the prompts of a run.")

OUTCOMES = (
    "tie", "below_margin", "too_few_scores", "identical_text", "truncated", "too_long", "dropped_by_review",
    "filtered",
)  # fmt: skip
SORTS = ("id", "margin", "-margin")
REVIEWS = ("auto", "keep", "drop")


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
    check_choice("--sort", sort, SORTS)
    check_choice("--outcome", outcome, OUTCOMES)
    check_choice("--review", review, REVIEWS)
    views = _views(run)
    asked = {"of": of, "min_margin": min_margin, "search": search, "fault": fault, "scorer": scorer}
    if outcome:
        if review:
            raise typer.BadParameter("is of pairs; prompts without one have none", param_hint="--review")
        rows = [dict(r._mapping) for r in views.outcomes(outcome=outcome, limit=limit, **asked)]
        show_or_json(rows, as_json, lambda: show.outcomes(rows))
    else:
        rows = [dict(r._mapping) for r in views.pairs(limit=limit, sort=sort, review=review, **asked)]
        show_or_json(rows, as_json, lambda: show.pairs(rows))


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
    show_or_json(show.pair_data(found), as_json, lambda: one.pair(found))


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

    check_choice("--sort", sort, SORTS)
    check_choice("--review", review, REVIEWS)
    walk(database_of(run), PairFilter(of=of, review=review, sort=sort))


@pairs_app.command("stats")
def pairs_stats(run: RunName = None, of: Of = None, as_json: AsJson = False) -> None:
    """Summarise margins, lengths and outcomes by policy."""
    from selfreward.show import pairs as show

    data = show.stats_data(_views(run), of)
    show_or_json(data, as_json, lambda: show.pair_stats(data))


@pairs_app.command("export")
def pairs_export(
    to: Annotated[Path, typer.Argument(help="A .jsonl or .parquet file, or a folder for datasets.")],
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

    check_choice("--status", state, ("accepted", "rejected"))
    check_choice("--source", source, ("seed", "self-instruct", "user"))
    rows = [dict(r._mapping) for r in _views(run).prompts(of=of, status=state, source=source, limit=limit)]
    show_or_json(rows, as_json, lambda: show.prompts(rows))


def _views(run: str | None) -> Any:
    from selfreward.runs import database_of
    from selfreward.store import Views

    return Views(database_of(run), write=False)
