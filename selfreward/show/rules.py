"""Pair rules side by side, on judgements that are stored: what each would make, without making it."""

from __future__ import annotations

from typing import Any

from selfreward.show.console import console, safe, table_of
from selfreward.store.lineage import addressed


def compared(recipe: Any, store: Any, rules: list[str], of: str | None) -> list[dict[str, Any]]:
    """For each judged policy and rule: pairs, margins, lengths, outcomes, and pairs that are stored now.

    The recipe's other `pairs` settings hold for every rule. Nothing counts the tokens of prompts here, so
    that a pair can be listed which `training.max_length` would leave out.
    """
    from selfreward.recipe import Pairs
    from selfreward.stages.pairs import grouped, mine_all
    from selfreward.stages.standing import contenders

    found = []
    run_id, wanted = addressed(store, of) if of and "/" in of else (1, of)
    for policy in store.policies(run_id).values():
        if wanted not in (None, policy.name):
            continue
        rows = contenders(store, recipe, run_id, policy.name)
        groups = list(grouped(rows, None, recipe.seed, policy.idx, policy.name))
        if not any(c.scores for g in groups for c in g.contenders):
            continue
        now = {(r.chosen_id, r.rejected_id) for r in store.mined_pairs(run_id, policy.name)}
        for rule in rules:
            ranks = rule in ("best_vs_worst", "best_vs_random", "anchored")
            left_out = {} if ranks else {"steady": 0.0, "length_control": None}
            options = Pairs.model_validate(recipe.pairs.model_dump() | left_out | {"rule": rule})
            mined, cost = mine_all(options, groups, recipe.training.max_length)
            row = {"of": of or policy.name, "rule": rule, "length_cost": cost.cost if cost else 0.0}
            found.append(row | _numbers(mined, now))
    return found


def _numbers(mined: list[Any], now: set[tuple[int, int]]) -> dict[str, Any]:
    pairs = [pair for m in mined for pair in m.pairs]
    outcomes: dict[str, int] = {}
    for m in mined:
        outcomes[m.outcome] = outcomes.get(m.outcome, 0) + 1
    n = len(pairs)
    return {
        "n": n,
        "outcomes": outcomes,
        "margin_mean": sum(b.mean - w.mean for b, w in pairs) / n if n else None,
        "longer_tokens_mean": sum(b.n_tokens - w.n_tokens for b, w in pairs) / n if n else None,
        "chosen_longer_share": sum(b.n_tokens > w.n_tokens for b, w in pairs) / n if n else None,
        "stored_now": sum((b.candidate_id, w.candidate_id) in now for b, w in pairs),
    }


def comparison(rows: list[dict[str, Any]]) -> None:
    """A line for each policy and rule."""
    table = table_of("of", "rule", "pairs", "stored", "margin", "longer by", "chosen longer", "others")
    for r in rows:
        others = ", ".join(f"{n} {o}" for o, n in r["outcomes"].items() if o != "pair")
        margin = longer = share = ""
        if r["n"]:
            margin, share = f"{r['margin_mean']:.3f}", f"{r['chosen_longer_share']:.0%}"
            longer = f"{r['longer_tokens_mean']:+.1f}"
        table.add_row(
            r["of"], r["rule"], str(r["n"]), str(r["stored_now"]), margin, longer, share, safe(others)
        )
    console.print(table)
