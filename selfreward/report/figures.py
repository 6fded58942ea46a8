"""Figures as inline SVG: small, without ids that could clash, in the page's own text colour.

The same facts give the same bytes. matplotlib comes with `selfreward[report]` and is imported late.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from selfreward.errors import BadInput
from selfreward.report.words import meaning
from selfreward.wording import visible

INK = "#010203"  # stands in for the page's text colour
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b", "#7f7f7f")
MOST = len(COLOURS)  # policies in one picture; of more, these many in even steps, the last one always
PANELS = 24  # of the signals; the table beside them has all
LEVELS = {"ok": "#009e73", "warn": "#e69f00", "halt": "#d55e00", None: INK}

Draw = Callable[[Any], None]


def all_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """Every figure there is something to draw for, by name. Raises `BadInput` without matplotlib."""
    signals = _watched(facts["signals"])
    suites = {n: _values(parts) for n, parts in facts["suites"].items()}
    suites = {n: parts for n, parts in suites.items() if parts}
    drifts = [d for d in facts["drift"] if d["sqrt_kl"] is not None]
    drawn: dict[str, str] = {}
    if signals:
        drawn["signals"] = _grid("signals", list(signals), lambda a, n: _over(a, n, signals[n]))
    if len(drifts) > 1 and (panels := _against_drift(drifts, suites)):
        drawn["drift"] = _grid("drift", list(panels), lambda a, n: _line(a, n, panels[n]))
    for kind in ("scores", "lengths"):
        groups = _by_scorer(facts[kind])
        if groups:
            title = {"scores": "score", "lengths": "tokens"}[kind]
            drawn[kind] = _grid(
                kind, list(groups), lambda a, n, g=groups, t=title: _steps(a, t, n, g[n]), wide=True
            )
    for name, parts in suites.items():
        drawn[f"suite {name}"] = _rows_of(name, parts)
    return drawn


def _watched(signals: Mapping[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Signals with a value: first those a gate was not content with, then those with a threshold."""
    known = {n: [p for p in points if p["value"] is not None] for n, points in signals.items()}

    def rank(item: tuple[str, list[dict[str, Any]]]) -> tuple[bool, bool, bool, str]:
        name, points = item
        alarmed = any(p["level"] in ("warn", "halt") for p in points)
        watched = any(p["threshold"] is not None for p in points)
        return not alarmed, not watched, not name.startswith("probe/"), name

    ordered = sorted(((n, p) for n, p in known.items() if p), key=rank)
    return dict(ordered[:PANELS])


def _values(parts: Mapping[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Parts of a suite that are results: faults have their place in the table."""
    found = {n: [p for p in points if p["value"] is not None] for n, points in parts.items()}
    return {n: points for n, points in found.items() if points and not n.endswith("faults")}


def _by_scorer(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["scorer"] or "", []).append(row)
    return {n: _few(rows) for n, rows in groups.items()}


def _few(rows: Sequence[Any]) -> list[Any]:
    """At most `MOST` of them in even steps, first and last among them."""
    if len(rows) <= MOST:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (MOST - 1))] for i in range(MOST)]


def _against_drift(drifts: Sequence[dict[str, Any]], suites: Mapping[str, Any]) -> dict[str, Any]:
    """By what is on the y axis: (root of KL, value, low, high, policy)."""
    panels: dict[str, list[tuple[Any, ...]]] = {}
    for d in drifts:
        for scorer, found in d["proxy"].items():
            if found["mean"] is not None:
                row = (d["sqrt_kl"], found["mean"], None, None, d["policy"])
                panels.setdefault(f"proxy: mean score by {scorer}", []).append(row)
    at = {d["policy"]: d["sqrt_kl"] for d in drifts}
    for suite, parts in suites.items():
        for part, points in parts.items():
            rows = [(at[p["policy"]], p["value"], p["low"], p["high"], p["policy"])
                    for p in points if p["policy"] in at]  # fmt: skip
            if rows:
                panels[f"measured: {suite}/{part}"] = rows
    return dict(list(panels.items())[:12])


def _over(axes: Any, name: str, points: Sequence[dict[str, Any]]) -> None:
    """A signal over policies, with its intervals and, dashed, the level at which a gate would speak."""
    places = range(len(points))
    axes.plot(places, [p["value"] for p in points], color=INK, linewidth=0.8, alpha=0.5)
    for level in dict.fromkeys(p["level"] for p in points):
        mine = [(x, p) for x, p in zip(places, points, strict=True) if p["level"] == level]
        _intervals(axes, mine, LEVELS[level])
    limits = [(x, p["threshold"]) for x, p in zip(places, points, strict=True) if p["threshold"] is not None]
    _dashes(axes, [((x - 0.4, at), (x + 0.4, at)) for x, at in limits], LEVELS["halt"], "--", 1.2)
    step = max(1, -(-len(points) // 6))
    axes.set_xticks(list(places)[::step], [points[x]["policy"] for x in places][::step])
    axes.set_xlim(-0.6, len(points) - 0.4)
    _titled(axes, name.removeprefix("probe/"), meaning(name))


def _intervals(axes: Any, points: Sequence[tuple[float, Mapping[str, Any]]], colour: str) -> None:
    """Values as dots, their intervals behind them."""
    known = [(x, p) for x, p in points if p["low"] is not None and p["high"] is not None]
    _dashes(axes, [((x, p["low"]), (x, p["high"])) for x, p in known], colour, "-", 2.2)
    values = [p["value"] for _, p in points]
    axes.plot([x for x, _ in points], values, marker="o", markersize=4, color=colour, linestyle="none")


def _dashes(axes: Any, lines: Sequence[Any], colour: str, style: str, width: float) -> None:
    """Short lines as one path with gaps: many of them stay small."""
    gap = float("nan")
    ends = [end for start, stop in lines for end in (start, stop, (gap, gap))]
    if ends:
        alpha = 0.45 if style == "-" else 1.0
        xs, ys = zip(*ends, strict=True)
        axes.plot(xs, ys, color=colour, linewidth=width, linestyle=style, alpha=alpha)


def _line(axes: Any, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
    axes.plot([r[0] for r in rows], [r[1] for r in rows], color=INK, linewidth=0.8, alpha=0.5)
    for x, value, low, high, policy in rows:
        _intervals(axes, [(x, {"value": value, "low": low, "high": high})], COLOURS[0])
        axes.annotate(policy, (x, value), textcoords="offset points", xytext=(4, 4), fontsize=7, color=INK)
    axes.set_xlabel("√KL to the base (nats a token)", fontsize=7)
    axes.margins(0.15)
    _titled(axes, name, "")


def _steps(axes: Any, unit: str, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Distributions as shares of each policy's own total."""
    for row, colour in zip(rows, COLOURS, strict=False):
        total, parts = sum(row["counts"]) or 1, len(row["counts"])
        wide = (row["high"] - row["low"]) / parts
        edges = [row["low"] + wide * i for i in range(parts + 1)]
        axes.stairs(
            [c / total for c in row["counts"]], edges, color=colour, linewidth=1.4,
            label=f"{row['policy']} (n={total:,})",
        )  # fmt: skip
    axes.legend(fontsize=7, frameon=False, labelcolor=INK)
    axes.set_xlabel(unit, fontsize=7)
    axes.set_ylabel("share", fontsize=7)
    _titled(axes, name, "")


def _rows_of(suite: str, parts: Mapping[str, list[dict[str, Any]]]) -> str:
    """A suite's parts below each other, the policies beside each other in every row."""
    names = list(dict.fromkeys(p["policy"] for points in parts.values() for p in points))
    shown = _few(names)
    height = 0.7 + max(len(parts), 1) * (0.16 * len(shown) + 0.18)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for row, (part, points) in enumerate(parts.items()):
            mine = {p["policy"]: p for p in points}
            for i, policy in enumerate(shown):
                if policy in mine:
                    p, y = mine[policy], row + 0.7 * (i + 0.5) / len(shown) - 0.35
                    colour = COLOURS[i]
                    if p["low"] is not None:
                        axes.plot([p["low"], p["high"]], [y, y], color=colour, linewidth=2.2, alpha=0.45)
                    first = part == next(iter(parts))
                    axes.plot([p["value"]], [y], marker="o", markersize=4, color=colour, linestyle="none",
                              label=policy if first else None)  # fmt: skip
        axes.set_yticks(range(len(parts)), [_plain(n) for n in parts])
        axes.set_ylim(len(parts) - 0.4, -0.6)
        axes.legend(fontsize=7, frameon=False, labelcolor=INK, loc="center left", bbox_to_anchor=(1, 0.5))
        _titled(axes, suite, "")

    return _svg(f"suite {suite}", (7.2, min(height, 14)), draw, f"{suite}: results with 95 % intervals")


def _titled(axes: Any, title: str, below: str) -> None:
    axes.set_title(_plain(title) + (f"\n{below}" if below else ""), fontsize=7.5, loc="left")
    axes.tick_params(labelsize=7, length=2)
    axes.yaxis.get_offset_text().set_fontsize(7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _plain(text: str) -> str:
    """A label nobody reads as mathematics: matplotlib sets what stands between dollars as a formula."""
    return visible(" ".join(text.split()))[:60].replace("$", "\\$")


def _grid(name: str, panels: Sequence[str], draw: Callable[..., None], wide: bool = False) -> str:
    """Panels three (or two) in a row."""
    across = min(len(panels), 2 if wide else 3)
    down = -(-len(panels) // across)

    def whole(figure: Any) -> None:
        cells = figure.subplots(down, across, squeeze=False).flat
        for cell, panel in zip(cells, panels, strict=False):
            draw(cell, panel)
        for cell in list(figure.axes)[len(panels) :]:
            cell.set_axis_off()

    size = (5.3 * across if wide else 3.55 * across, (2.4 if wide else 1.75) * down)
    return _svg(name, size, whole, f"{name}: {', '.join(panels)}")


def _svg(name: str, size: tuple[float, float], draw: Draw, label: str) -> str:
    with _drawing(name) as figure_of:
        figure = figure_of(size)
        draw(figure)
        target = io.StringIO()
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inlined(target.getvalue(), label)


@contextmanager
def _drawing(name: str) -> Iterator[Callable[[tuple[float, float]], Any]]:
    """Has matplotlib set for one figure: text stays text, ids come from its name alone."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise BadInput(
            f"figures need {error.name}: `pip install 'selfreward[report]'` brings it; "
            "`selfreward report --md FILE` needs none"
        ) from None
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    ink = dict.fromkeys(inked, INK)
    plain = {"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}
    with matplotlib.rc_context(ink | plain), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's browser has the fonts, not we
        yield lambda size: Figure(figsize=size, layout="constrained")


def _inlined(svg: str, label: str) -> str:
    """The `svg` element alone: named for readers who can't see it, ids that nothing refers to left out."""
    from markupsafe import escape

    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", body)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    body = body.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    body = re.sub(r"(\d\.\d\d)\d+", r"\1", body)  # a hundredth of a point is seen by nobody
    return re.sub(r">\s+<", "><", body.replace(INK, "currentColor"))
