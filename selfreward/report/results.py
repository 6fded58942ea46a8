"""What several samples and categories of a suite amount to, from its stored grades.

Counted as `selfreward evaluate` counts: unread answers are in no mean, an item of which none was read is left
out, and intervals are over items.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfreward import stats
from selfreward.evaluation.versus import Grade
from selfreward.stats import Interval

KEPT = "suites"  # in the run's folder: the question files that came from the hub


def parts(grades: Sequence[Grade], categories: Mapping[str, str]) -> Iterator[tuple[str, Interval]]:
    """pass@k where items have several samples that are right or wrong, and means by known category."""
    read: dict[str, list[float]] = {}
    for g in grades:
        if g.score is not None:
            read.setdefault(g.item, []).append(g.score)
    most = 1 + max((g.sample for g in grades), default=0)
    if most > 1 and read and all(s in (0.0, 1.0) for scores in read.values() for s in scores):
        for k in sorted({1, most, *(2**i for i in range(1, most.bit_length()) if 2**i < most)}):
            chances = [stats.pass_at_k(len(r), int(sum(r)), min(k, len(r))) for r in read.values()]
            yield f"pass@{k}", stats.bounded(chances, [1.0] * len(chances), 0.0, 1.0)
    by: dict[str, list[list[float]]] = {}
    for item, scores in read.items():
        if item in categories:
            by.setdefault(categories[item], []).append(scores)
    if len(by) > 1:
        for category in sorted(by):
            groups = by[category]
            yield (
                f"category {category}",
                stats.ratio([sum(g) for g in groups], [float(len(g)) for g in groups]),
            )


def categories_of(folder: Path, recipe: Mapping[str, Any]) -> dict[str, str]:
    """Category by question, from the files the run asked from: what it fetched, and what its recipe names.

    A file that is gone or is something else tells nothing.
    """
    asked = (recipe.get("evaluate") or {}).get("suites") or []
    named = [folder.parent / Path(s["data"]).expanduser() for s in asked if s.get("data")]
    found: dict[str, str] = {}
    for path in [*sorted((folder / KEPT).glob("*.jsonl")), *named]:
        with contextlib.suppress(OSError, ValueError):
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line) if line.strip() else None
                if isinstance(row, dict) and isinstance(row.get("category"), str):
                    found[_question(row)] = row["category"]
    return found


def _question(row: dict[str, Any]) -> str:
    """What the store calls a question: its first turn."""
    turns = row.get("turns")
    first = turns[0] if isinstance(turns, list) and turns else None
    return str(first or row.get("prompt") or row.get("problem") or row.get("question") or "")
