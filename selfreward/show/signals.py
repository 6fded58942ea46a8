"""Signs of collapse: a verdict in full, and each signal of a run over its policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from selfreward.show.console import console, safe, table_of

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


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _threshold(f: Finding) -> str:
    return "" if f.threshold is None else f"{f.threshold:.3g}"
