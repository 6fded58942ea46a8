"""Pairs and prompts: a line each, one in full, and all of them in numbers."""

from __future__ import annotations

import json
from typing import Any

from rich.text import Text

from selfreward.show.console import console, safe, short, sparkline, table_of


def pairs(rows: list[dict[str, Any]]) -> None:
    """A pair a line."""
    table = table_of("id", "of", "margin", "scores", "prompt", "chosen", "rejected")
    for r in rows:
        scores = f"{r['chosen_score']:.2f} > {r['rejected_score']:.2f}"
        table.add_row(
            str(r["id"]),
            r["policy"],
            f"{r['margin']:.3f}",
            scores,
            short(r["prompt"], 40),
            short(r["chosen"], 40),
            short(r["rejected"], 40),
        )
    console.print(table)


def outcomes(rows: list[dict[str, Any]]) -> None:
    """Prompts that made no pair, and why."""
    table = table_of("prompt id", "of", "outcome", "margin", "text", "detail")
    for r in rows:
        margin = "" if r["margin"] is None else f"{r['margin']:.3f}"
        table.add_row(str(r["id"]), r["policy"], r["outcome"], margin, short(r["prompt"]), safe(r["detail"]))
    console.print(table)


def prompts(rows: list[dict[str, Any]]) -> None:
    """A prompt a line."""
    table = table_of("id", "of", "round", "source", "status", "became", "text")
    for r in rows:
        state = r["status"] if r["reason"] is None else f"{r['status']}: {r['reason']}"
        table.add_row(
            str(r["id"]),
            r["policy"],
            str(r["round"]),
            r["source"],
            safe(state),
            r["outcome"] or "",
            short(r["text"], 80),
        )
    console.print(table)


def pair_data(found: dict[str, Any]) -> dict[str, Any]:
    """One pair as plain data, token ids left out."""

    def plain(row: Any) -> Any:
        return (
            {k: v for k, v in row._mapping.items() if not isinstance(v, bytes)} if row is not None else None
        )

    return {k: [plain(r) for r in v] if isinstance(v, list) else plain(v) for k, v in found.items()}


def pair(found: dict[str, Any]) -> None:
    """One pair in full: prompt, both texts, every judgement, parents, seeds, hashes."""
    p = found["pair"]
    console.print(
        Text(
            f"pair {p.id} of {p.policy}, rule {p.rule}, margin {p.margin:.4f}, review {p.review}",
            style="bold",
        )
    )
    for message in json.loads(p.messages):
        console.print(Text("\n[").append(safe(str(message["role"]))).append("]"), style="bold")
        console.print(safe(message["content"]))
    for side, score in (("chosen", p.chosen_score), ("rejected", p.rejected_score)):
        c = found[side]
        head = f"\n[{side}] score {score:.4f}, sample {c.sample}, {c.n_tokens} tokens, seed {c.seed}"
        console.print(Text(head, style="bold green" if side == "chosen" else "bold red"))
        console.print(safe(c.text))
        for j in found[f"{side}_judgements"]:
            said = f"score {j.score:.4f}" if j.score is not None else f"fault {j.fault}"
            console.print(safe(f"  {j.scorer} {j.sample}: {said} {_detail(j.detail)}"), style="dim")
            if j.raw:
                console.print(safe(j.raw))
    console.print(Text("\n[where it comes from]", style="bold"))
    console.print(
        safe(
            f"prompt {p.prompt_id}, {p.source}, round {p.round}; "
            f"policy {p.policy} {found['policy'].sha256 or 'base'}"
        )
    )
    for parent in found["parents"]:
        console.print(
            Text("  parent ")
            .append(safe(f"{parent.id} ({parent.policy}, {parent.source}): "))
            .append(short(parent.text, 80))
        )


def _detail(detail: str | None) -> str:
    if not detail:
        return ""
    return " ".join(
        f"{k}:{v:.3f}" if isinstance(v, float) else f"{k}:{v}" for k, v in json.loads(detail).items()
    )


def stats_data(views: Any, of: str | None) -> dict[str, Any]:
    """The pairs in numbers, by policy.

    Outcomes, mean margin and scores, share of pairs whose chosen text is the longer one, margins as a
    histogram.
    """
    found: dict[str, Any] = {}
    for row in views.mining_counts(of):
        found.setdefault(row.policy, {"outcomes": {}})["outcomes"][row.outcome] = row.n
    numbers: dict[str, list[Any]] = {}
    for row in views.pair_numbers(of):
        numbers.setdefault(row.policy, []).append(row)
    for policy, rows in numbers.items():
        n = len(rows)
        margins = [r.margin for r in rows]
        found[policy] |= {
            "n": n,
            "margin_mean": sum(margins) / n,
            "chosen_score_mean": sum(r.chosen_score for r in rows) / n,
            "rejected_score_mean": sum(r.rejected_score for r in rows) / n,
            "chosen_tokens_mean": sum(r.chosen_tokens for r in rows) / n,
            "rejected_tokens_mean": sum(r.rejected_tokens for r in rows) / n,
            "chosen_longer_share": sum(r.chosen_tokens > r.rejected_tokens for r in rows) / n,
            "margins": _histogram(margins),
        }
    return found


def _histogram(values: list[float], bins: int = 12) -> dict[str, Any]:
    top = max(values)
    counts = [0] * bins
    for v in values:
        counts[min(int(v / top * bins), bins - 1)] += 1
    return {"from": 0.0, "to": top, "counts": counts}


def pair_stats(data: dict[str, Any]) -> None:
    """A line of numbers and a row of bars for each iteration."""
    table = table_of(
        "of", "pairs", "other outcomes", "margin", "", "chosen", "rejected", "tokens", "chosen longer"
    )
    for policy, d in data.items():
        others = ", ".join(f"{n} {o}" for o, n in d["outcomes"].items() if o != "pair")
        if "n" not in d:
            table.add_row(policy, "0", others, *[""] * 6)
            continue
        table.add_row(
            policy, str(d["n"]), others, f"{d['margin_mean']:.3f}", sparkline(d["margins"]["counts"]),
            f"{d['chosen_score_mean']:.2f}", f"{d['rejected_score_mean']:.2f}",
            f"{d['chosen_tokens_mean']:.0f} / {d['rejected_tokens_mean']:.0f}",
            f"{d['chosen_longer_share']:.0%}",
        )  # fmt: skip
    console.print(table)
