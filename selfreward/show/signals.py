"""Signs of collapse: a verdict in full, and each signal of a run over its policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from selfreward.show.console import BARS, console, safe, table_of

if TYPE_CHECKING:
    from selfreward.collapse.limits import Finding
    from selfreward.collapse.verdict import Verdict

STYLE = {"ok": "green", "warn": "yellow", "halt": "bold red"}


def verdict(found: Verdict) -> None:
    """A signal a line, the worst first, then the verdict."""
    table = table_of("signal", "value", "95 % interval", "n", "against", "level", "threshold")
    order = {"halt": 0, "warn": 1, "ok": 2}
    for f in sorted(found.findings, key=lambda f: order[f.level]):
        between = "" if f.low is None or f.high is None else f"{f.low:.3g} to {f.high:.3g}"
        table.add_row(
            f.signal, _shown(f.value), between, "" if f.n is None else str(f.n), _shown(f.against),
            Text(f.level, style=STYLE[f.level]), _threshold(f),
        )  # fmt: skip
    console.print(table)
    console.print(Text(found.level, style=STYLE[found.level]).append(": ").append(safe(found.why)))


def run(found: dict[str, list[dict[str, Any]]]) -> None:
    """A signal a line: a bar for each policy between least and greatest, and the newest in figures.

    Signals stand under the stage they were taken after.
    """
    table = table_of("", "of", "", "least", "most", "newest", "threshold", "level")
    table.padding = (0, 1, 0, 0)  # whole in 80 columns
    under = None
    for path, points in found.items():
        values = [p["value"] for p in points if p["value"] is not None]
        if not values:
            continue
        stage, _, name = path.partition("/")
        if stage != under:
            table.add_row(Text(f"after {stage}", style="bold"))
            under = stage
        newest = next(p for p in reversed(points) if p["value"] is not None)
        worst = max((p["level"] or "ok" for p in points), key=list(STYLE).index)
        table.add_row(
            name, f"{points[0]['policy']}-{points[-1]['policy']}", curve([p["value"] for p in points]),
            _shown(min(values)), _shown(max(values)), _shown(newest["value"]), _shown(newest["threshold"]),
            Text(worst, style=STYLE[worst]) if newest["threshold"] is not None else "",
        )  # fmt: skip
    console.print(table)


def curve(values: list[float | None]) -> str:
    """Numbers as eight-level bars between the least and the greatest; a gap where there is none."""
    known = [v for v in values if v is not None]
    low, high = min(known), max(known)
    if high == low:
        return "".join(" " if v is None else BARS[3] for v in values)
    top = len(BARS) - 1
    return "".join(" " if v is None else BARS[round((v - low) / (high - low) * top)] for v in values)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _threshold(f: Finding) -> str:
    return "" if f.threshold is None else f"{f.threshold:.3g}"
