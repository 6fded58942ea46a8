"""A judge beside people, and the labels of a run: a number a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfreward.show.console import console, safe, table_of

if TYPE_CHECKING:
    from selfreward.stages.auditing import Audited
    from selfreward.stats import Interval

WORDS = {
    "pairwise_accuracy": "pairs ordered as people did",
    "five_best": "top scores that people put first too",
    "exact_match": "items ordered just as people did",
    "spearman": "Spearman",
    "kendall_tau_b": "Kendall's tau-b",
    "position_consistency": "both orders say the same",
    "ties": "pairs it ties",
    "faults": "replies that could not be read",
    "length_correlation": "correlation of score and length",
    "longer_wins": "pairs won by the longer text",
    "attack_success": "attacks that sway it",
}


def calibration(
    told: dict[str, Any], numbers: dict[str, Interval | None], histogram: dict[str, Interval | None]
) -> None:
    """Every number with its interval and n, then the share of each score."""
    console.print(
        safe(
            f"{told['judge']} as a judge ({told['mode']}) of {told['items']} items of {told['data']}, "
            f"{told['asked']} verdicts; 95 % intervals"
        )
    )
    table = table_of("measure", "value", "low", "high", "n", "")
    for name, found in numbers.items():
        table.add_row(name, *_cells(found), safe(WORDS[name]))
    for mark, found in histogram.items():
        table.add_row(f"score {mark}", *_cells(found), "")
    console.print(table)


def _cells(found: Interval | None) -> list[str]:
    if found is None:
        return ["-", "-", "-", "0"]
    return [f"{found.value:.3f}", f"{found.low:.3f}", f"{found.high:.3f}", str(found.n)]


AUDIT_WORDS = {
    "problem_share": "pairs with a problem of their texts",
    "length_only_accuracy": "labels that lengths alone tell",
    "likelihood_only_accuracy": "labels that likelihoods alone tell",
    "swap_unconfirmed": "labels not confirmed by comparing in both orders",
    "rejudged_flips": "labels that another draw of the judge turns",
    "attack_success": "attacks on rejected answers that sway the judge",
}


def audit(found: Audited) -> None:
    """Problems by kind, then every number with its bound where it is above it."""
    console.print(f"{found.n} pairs; 95 % intervals")
    for kind, ids in found.problems.items():
        some = ", ".join(map(str, ids[:6])) + (", …" if len(ids) > 6 else "")
        console.print(safe(f"{kind:<16} {len(ids):>6}   pair {some}"))
    table = table_of("measure", "value", "low", "high", "n", "")
    for name, number in found.numbers.items():
        over = f", above {found.above[name]:g}" if name in found.above else ""
        table.add_row(name, *_cells(number), safe(AUDIT_WORDS[name] + over))
    for names, number in found.agreement.items():
        table.add_row(safe(names), *_cells(number), "Kendall's tau-b of two scorers")
    console.print(table)
