"""Pairs and prompts: a line each, one in full, and all of them in numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.text import Text

from selfreward.outlook import counted
from selfreward.show.console import console, rows_of, safe, short, sparkline, table_of

ASIDE = 110  # columns from which three texts stand beside each other in a list
BELOW = "prompt, + chosen, - rejected"


def pairs(rows: list[dict[str, Any]]) -> None:
    """A pair a line; on a terminal too narrow for that its texts below each other."""
    below = console.is_terminal and console.width < ASIDE
    texts = (BELOW,) if below else ("prompt", "chosen", "rejected")
    table = table_of("id", "of", "margin", "scores", "review", *texts)
    width = max(16, (console.width - 62) // 3) if console.is_terminal else 40
    for r in rows:
        scores = f"{r['chosen_score']:.2f} > {r['rejected_score']:.2f}"
        table.add_row(
            str(r["id"]),
            r["policy"],
            f"{r['margin']:.3f}",
            scores,
            "" if r["review"] == "auto" else r["review"],
            *((_below(r),) if below else (short(r[text], width) for text in texts)),
        )
    rows_of(table, "No pair fits.")


def _below(row: dict[str, Any]) -> Text:
    """Prompt, chosen and rejected, a line each, in what the other columns of a pair leave."""
    width = max(16, console.width - 49)
    lines = (("", "prompt"), ("+ ", "chosen"), ("- ", "rejected"))
    return Text("\n").join(
        Text(sign).append_text(short(row[text], width - len(sign))) for sign, text in lines
    )


def outcomes(rows: list[dict[str, Any]]) -> None:
    """Prompts that made no pair, and why."""
    table = table_of("prompt id", "of", "outcome", "margin", "text", "detail")
    for r in rows:
        margin = "" if r["margin"] is None else f"{r['margin']:.3f}"
        table.add_row(str(r["id"]), r["policy"], r["outcome"], margin, short(r["prompt"]), safe(r["detail"]))
    rows_of(table, "No prompt fits.")


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
    rows_of(table, "No prompt fits.")


def pair_data(found: dict[str, Any]) -> dict[str, Any]:
    """One pair as plain data, token ids left out."""

    def plain(row: Any) -> Any:
        return (
            {k: v for k, v in row._mapping.items() if not isinstance(v, bytes)} if row is not None else None
        )

    return {k: [plain(r) for r in v] if isinstance(v, list) else plain(v) for k, v in found.items()}


def stats_data(views: Any, of: str | None) -> dict[str, Any]:
    """The pairs in numbers, by policy.

    Outcomes, mean margin and scores, share of pairs whose chosen text is the longer one, margins as a
    histogram.
    """
    found: dict[str, Any] = {}
    from selfreward.agreement import agreement

    agreed: dict[str, list[Any]] = {}
    for a in agreement(views.reviewed(of)):
        agreed.setdefault(a.policy, []).append(asdict(a))
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
            "reviews": agreed.get(policy, []),
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
    table = table_of("of", "pairs", "margin", "", "chosen", "rejected", "tokens", "chosen longer", "others")
    for policy, d in data.items():
        others = ", ".join(counted(o, n) for o, n in d["outcomes"].items() if o != "pair")
        if "n" not in d:
            table.add_row(policy, "0", *[""] * 6, others)
            continue
        table.add_row(
            policy, str(d["n"]), f"{d['margin_mean']:.3f}", sparkline(d["margins"]["counts"]),
            f"{d['chosen_score_mean']:.2f}", f"{d['rejected_score_mean']:.2f}",
            f"{d['chosen_tokens_mean']:.0f} / {d['rejected_tokens_mean']:.0f}",
            f"{d['chosen_longer_share']:.0%}", others,
        )  # fmt: skip
    console.print(table)
    for policy, d in data.items():
        for a in d.get("reviews", []):
            console.print(safe(_agreement(policy, a)))


def _agreement(policy: str, a: dict[str, Any]) -> str:
    text = f"{policy} reviews by people: {a['kept']} kept, {a['dropped']} dropped"
    if a["agrees"]:
        s = a["agrees"]
        text += f"; {a['scorer']} agrees on {s['value']:.0%} [{s['low']:.0%}, {s['high']:.0%}] n={s['n']}"
    return text
