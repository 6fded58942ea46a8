"""Suites graded from files, and two policies compared: tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selfreward.evaluation.versus import Comparison, is_self, sentence
from selfreward.show.console import console, safe, short, table_of

HEAD_TO_HEAD = {
    "win_rate": "win rate, a tie half a win",
    "length_controlled": "win rate at equal lengths",
    "consistency": "same verdict in both orders",
    "first_shown": "went to the one shown first",
}


def suite(data: dict[str, Any], rule: str, faults: dict[str, int]) -> None:
    """A suite's numbers, a line each."""
    console.print(
        safe(
            f"{data['suite']}: {data['n_items']} items x {data['n_samples']} samples, answers read by rule "
            f"{rule!r}, 95 % intervals over items"
        )
    )
    shares = {f"pass@{k}": found for k, found in data["pass_at_k"].items()}
    last = {f"maj@{k}": found for k, found in data["maj_at_k"].items() if k != "1"} | {"avg": data["avg"]}
    table = table_of("", *shares, "mean attempts", *last)
    for part in ("value", "low", "high"):
        cells = [_percent(found[part]) for found in shares.values()]
        spent = data["mean_attempts"][part]
        attempts = "-" if spent is None else f"{spent:.2f}"
        table.add_row(part, *cells, attempts, *[_percent(found[part]) for found in last.values()])
    console.print(table)
    counted = ", ".join(f"{n} {name}" for name, n in sorted(faults.items()) if name != "no_single")
    console.print(safe(f"faults (in no mean): {data['faults']}{f' ({counted})' if counted else ''}"))
    console.print(f"wrong because no one answer of the kind was stated: {faults.get('no_single', 0)}")


def asked(data: dict[str, Any], faults: dict[str, int]) -> None:
    """A suite that was asked of a policy: who, under which protocol, and its numbers."""
    if "win_rate" in data:
        _head_to_head(data)
    elif "items" in data:
        suite(data, data["grader"], faults)
    else:
        model = f"{data['policy']} (graded by itself)" if data["self_graded"] else data["policy"]
        gradings({model: data}, data["grader"], data["suite"])
    told = ", ".join(f"{k} {_value(v)}" for k, v in data["protocol"].items() if k not in ("suite", "data"))
    console.print(safe(f"{data['policy']} of run {data['run']}; protocol: {told}"))


def _head_to_head(data: dict[str, Any]) -> None:
    console.print(
        safe(f"{data['suite']}: {data['policy']} against {data['against']}, judged by {data['grader']}")
    )
    counts = ", ".join(f"{data[k]} {k}" for k in ("win", "tie", "lose", "faults", "identical"))
    console.print(safe(f"of {data['n']} questions read in both orders: {counts}"))
    table = table_of("share", "value")
    for key, name in HEAD_TO_HEAD.items():
        table.add_row(name, _range(data[key]))
    for category, found in data["categories"].items():
        table.add_row(short(f"win rate, {category}", 40), _range(found))
    console.print(table)


def _range(found: dict[str, float | None]) -> str:
    if found["value"] is None:
        return "-"
    return f"{100 * found['value']:.1f} % [{100 * (found['low'] or 0):.1f}, {100 * (found['high'] or 0):.1f}]"


def _value(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    return "-" if value is None else f"“{value}”" if isinstance(value, str) and " " in value else str(value)


def gradings(data: dict[str, Any], judge: str | None, name: str = "mt-bench") -> None:
    """Means by model: overall, turns, categories."""
    console.print(
        safe(f"{name}: graded 1 to 10 by {judge or 'an unnamed judge'}, 95 % intervals over questions")
    )
    table = table_of("mean of", *[short(model, 40).plain for model in data])
    names = ["overall", "turn_1", "turn_2"]
    for name in names:
        table.add_row(name, *[_span(found[name]) for found in data.values()])
    for category in dict.fromkeys(c for found in data.values() for c in found["categories"]):
        cells = [_span(found["categories"][category]) for found in data.values()]
        table.add_row(short(category, 40), *cells)
    for name in ("n", "faults", "duplicates"):
        table.add_row(name, *[str(found[name]) for found in data.values()])
    console.print(table)


def comparison(left: str, right: str, found: Sequence[Comparison], left_out: dict[str, str]) -> None:
    """A suite a line: both values, the difference, p and the verdict."""
    table = table_of("suite", left, right, f"{right} - {left}", "p (Holm)", "prompts")
    for c in found:
        table.add_row(
            short(c.suite, 40),
            *[f"{i.value:.3g} [{i.low:.3g}, {i.high:.3g}]" for i in (c.left, c.right)],
            f"{c.difference.value:+.3g} [{c.difference.low:+.3g}, {c.difference.high:+.3g}]",
            f"{c.p:.3g}",
            str(c.difference.n),
        )
    console.print(table)
    for c in found:
        verdict = f"{right} is {c.verdict}" if c.verdict != "can't tell" else sentence(c)
        seen = "" if c.detectable is None else f"; this many prompts show a difference of {c.detectable:.2g}"
        told = f"left out: {c.unread} unread on a side, {c.unpaired} without a partner of the same seed"
        own = [policy for policy in (left, right) if is_self(policy, c.grader)]
        by = f"{c.grader} ({' and '.join(own)} graded by itself)" if own else c.grader
        console.print(safe(f"{c.suite}: {verdict}{seen}. Graded by {by}; {told}"))
    for name, reason in left_out.items():
        console.print(safe(f"{name}: {reason}"))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _span(found: dict[str, float | None]) -> str:
    if found["value"] is None:
        return "-"
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
