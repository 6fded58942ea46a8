"""Measures over policies for the terminal: a value with its n above its interval, in the width there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from selfreward.show.console import console

INNER = frozenset({"noise", "proof_gap", "moved"})  # what proves an adapter; nobody compares policies by it
OTHER_FORMS = ("_k1", "_answer")  # of the same divergence: in --json, in --signals and on the pages
GAP = 1  # cells between columns

Column = tuple[str, list[str]]


def measures(policies: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Tables of measures with a column a policy: one if they fit side by side, else one below the other.

    `policies` have `name` and `metrics`: value, low, high and n by name.
    """
    names = sorted({n for p in policies for n in p["metrics"]} - INNER)
    names = [n for n in names if not n.endswith(OTHER_FORMS)]
    if not names:
        return []
    first = ("measure", [name.replace("/", "/\n") for name in names])
    rest = [(p["name"], [_cell(p["metrics"].get(name)) for name in names]) for p in policies]
    return [_table([first, *part]) for part in _side_by_side(first, rest)]


def _side_by_side(first: Column, rest: Sequence[Column]) -> list[list[Column]]:
    """The columns in order, cut where the next one would not fit beside the first."""
    found: list[list[Column]] = []
    room = 0
    for column in rest:
        if not found or _width(column) > room:
            found.append([])
            room = console.width - _width(first)
        found[-1].append(column)
        room -= _width(column)
    return found


def _width(column: Column) -> int:
    name, cells = column
    return GAP + max(len(line) for cell in (name, *cells) for line in cell.split("\n"))


def _table(columns: Sequence[Column]) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for name, _ in columns:
        made.add_column(name, no_wrap=True)
    for cells in zip(*(cells for _, cells in columns), strict=True):
        made.add_row(*cells)
    return made


def _cell(measure: Mapping[str, Any] | None) -> str:
    if measure is None:
        return ""
    if measure["value"] is None:
        return f"not finite n={measure['n']}"
    said = f"{number(measure['value'], 3)} n={measure['n']}"
    if measure["low"] is None:
        return said
    return f"{said}\n[{number(measure['low'], 2)}, {number(measure['high'], 2)}]"


def number(value: float, digits: int) -> str:
    """A number to so many significant digits, at least those before its point: 0.0425, 5.1e-4, 128."""
    if value and abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
