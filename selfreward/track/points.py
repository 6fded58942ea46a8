"""What a tracker is told: every measure of the store as a point on a curve."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from selfreward.outlook import STAGE_ORDER
from selfreward.store import PairFilter
from selfreward.store.accounts import Accounts
from selfreward.wording import visible

CURVES = ("sft", "train")  # these go by optimiser step, everything else by policy
TEXTS = 3  # pairs of an iteration, those with the largest margins


@dataclass(frozen=True, slots=True)
class Point:
    """`tag` at `x`: a policy's index (M2 is 2), or for a training the optimiser step, as `axis` says.

    `stage` is the stage's place in an iteration.
    """

    tag: str
    axis: str
    x: int
    value: float
    policy: int
    stage: int


class Told:
    """Remembers what was told, so that a second look tells what is new or has changed."""

    def __init__(self, texts: bool) -> None:
        self._values: dict[tuple[str, int], float] = {}
        self._texts: set[str] | None = set() if texts else None

    def points(self, views: Accounts) -> Iterator[Point]:
        """Points that were not told yet, intervals as series of their own."""
        for row in views.measures():
            stage = STAGE_ORDER.index(row.stage)
            curve = row.stage in CURVES and not row.name.startswith(("cost/", "gate/"))
            tag = f"{row.policy}/{row.name}" if curve else f"{row.stage}/{row.name}"
            axis, x = ("step", row.step) if curve else ("policy", row.idx)
            for ending, value in (("", row.value), ("/low", row.low), ("/high", row.high)):
                if value is not None and self._values.get((tag + ending, x)) != value:
                    self._values[tag + ending, x] = value
                    yield Point(tag + ending, axis, x, value, row.idx, stage)

    def texts(self, views: Accounts) -> Iterator[tuple[str, int, str]]:
        """(tag, policy's index, Markdown) of pairs not told yet; nothing unless texts were asked for."""
        if self._texts is None:
            return
        for policy in views.status()["policies"]:
            for row in views.page(PairFilter(of=policy.name, sort="-margin"), TEXTS).rows:
                tag = f"{policy.name}/pair {row.id}"
                if tag not in self._texts:
                    self._texts.add(tag)
                    yield tag, policy.idx, _told(row)


def _told(row: Any) -> str:
    """A pair's beginnings as a JSON block: no text in it can end the block or be markup."""
    parts = {"margin": row.margin, **{k: visible(getattr(row, k)) for k in ("prompt", "chosen", "rejected")}}
    return "    " + json.dumps(parts, indent=1, ensure_ascii=False).replace("\n", "\n    ")
