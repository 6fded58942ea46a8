"""How far people's reviews of pairs agree with each scorer.

Pure. A person who keeps a pair says that chosen is the better answer; one who drops it says that it is not,
or that the pair is worth nothing. A scorer agrees when it scored chosen above rejected and the pair was kept,
or when it did not and the pair was dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from selfreward.stats import Interval, share


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one scorer in one iteration; `unscored` pairs have a side it gave no score, and don't count."""

    policy: str
    scorer: str
    agrees: Interval | None
    kept: int
    dropped: int
    unscored: int


def agreement(reviewed: Iterable[Any]) -> list[Agreement]:
    """By policy and scorer, from rows of (policy, scorer, review, chosen, rejected): its scores or None."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for row in reviewed:
        groups.setdefault((row.policy, row.scorer or ""), []).append(row)
    return [_of(policy, scorer, rows) for (policy, scorer), rows in sorted(groups.items())]


def _of(policy: str, scorer: str, rows: list[Any]) -> Agreement:
    kept = sum(r.review == "keep" for r in rows)
    scored = [r for r in rows if r.chosen is not None and r.rejected is not None]
    hits = sum((r.chosen > r.rejected) == (r.review == "keep") for r in scored)
    found = share(hits, len(scored)) if scored else None
    return Agreement(policy, scorer, found, kept, len(rows) - kept, len(rows) - len(scored))
