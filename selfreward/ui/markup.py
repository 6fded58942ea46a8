"""From rows to HTML: the template environment, texts whose unseen signs are shown, curves as SVG points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.outlook import UNITS, counted, duration
from selfreward.wording import Part, pieces, spelled

LONGEST = 20_000  # characters of a text on a page, unless all of it is asked for
HERE = Path(__file__).resolve().parent


def environment(templates: Path = HERE / "templates") -> Any:
    """Jinja2 that escapes everywhere and fails on a name it does not know."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "seen": seen,
        "spelled": spelled,
        "marked": marked,
        "line": line,
        "figure": figure,
        "duration": duration,
        "counted": counted,
    }
    made.globals |= {"LONGEST": LONGEST, "UNITS": UNITS, "chart": chart, "span": span}
    return made


def seen(text: str | None) -> Any:
    """A text with each unseen character as a labelled sign of its own."""
    return _html([(text or "", False)])


def marked(parts: Iterable[Part]) -> Any:
    """A text in parts, those that differ marked."""
    return _html(parts)


def line(text: str | None, longest: int = 160) -> Any:
    """The beginning of a text on one line."""
    flat = " ".join((text or "")[: 2 * longest].split())
    return seen(flat if len(flat) <= longest else flat[: longest - 1] + "…")


def _html(parts: Iterable[Part]) -> Any:
    from markupsafe import Markup, escape

    found = []
    for text, differs in parts:
        inner = Markup("").join(
            Markup('<span class="unseen">{}</span>').format(f"U+{ord(piece):04X}")
            if unseen
            else escape(piece)
            for piece, unseen in pieces(text)
        )
        found.append(Markup("<mark>{}</mark>").format(inner) if differs else inner)
    return Markup("").join(found)


def figure(value: float | None) -> str:
    """Three significant digits; `not finite` for what the store could not keep."""
    return "not finite" if value is None else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Chart:
    """A curve in a box of `width` × `height`; None values leave gaps."""

    width: int
    height: int
    lines: list[str]
    low: float
    high: float
    first: int
    last: int


def chart(rows: Sequence[Any], width: int = 260, height: int = 90) -> Chart | None:
    """Rows of (step, value) as SVG polyline points; None when no value is finite."""
    values = [r.value for r in rows if r.value is not None]
    if not values:
        return None
    low, high, first, last = min(values), max(values), rows[0].step, rows[-1].step
    runs: list[list[str]] = [[]]
    for row in rows:
        if row.value is None:
            runs.append([])
            continue
        x = (row.step - first) / max(1, last - first) * width
        y = height - (row.value - low) / ((high - low) or 1.0) * height
        runs[-1].append(f"{x:.1f},{y:.1f}")
    return Chart(width, height, [" ".join(r) for r in runs if r], low, high, first, last)


def span(metric: Any, low: float, high: float, width: int = 120) -> tuple[float, float, float]:
    """Left, value and right of an interval on an axis from `low` to `high`, in pixels."""
    wide = (high - low) or 1.0
    ends = (metric.low, metric.value, metric.high)
    left, value, right = ((metric.value if e is None else e) for e in ends)
    return tuple(round(4 + (v - low) / wide * (width - 8), 1) for v in (left, value, right))
