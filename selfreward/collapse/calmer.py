"""What to change when an iteration collapsed: named keys of the recipe by what the signs say. Pure.

A sign in the data (before a training) asks for other data; one of a training or of the policy it made asks
for a calmer training first. Each try goes further than the one before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from selfreward.collapse.limits import LIMITS

KEYS = (
    "training.beta", "training.lr", "pairs.min_margin", "pairs.length_control",
    "candidates.sampling.temperature",
)  # fmt: skip
TEMPERATURE = (1.25, 1.5)  # times the recipe's own, at the first and the second try, and never over HOTTEST
HOTTEST = 1.5
LENGTH = frozenset({"length", "judge length"})
ALIKE = frozenset({"within", "across", "loops"})
# A training that moved nothing, or an engine that does not wear the adapter, is not helped by calm.
STILL = frozenset({"moved", "proof_gap"})
# Candidates that all get one score or are all the same: other draws may differ.
TIED = frozenset({"ties", "pairs", "identical", "within_distance", "distance_ratio"})


def changes(
    recipe: Mapping[str, Any], stage: str, signals: Sequence[str], margins: Sequence[float], attempt: int
) -> dict[str, Any]:
    """The recipe's keys, as `section.key`, with their values for the `attempt`-th try (1, 2, …).

    `stage` is where the gate halted, `margins` are those of the pairs there were. Empty where no key of the
    recipe would help: a judge whose replies cannot be read does not get better by being asked again.
    """
    if set(signals) & STILL:
        return {}
    families = {LIMITS[s].family for s in signals if s in LIMITS}
    found: dict[str, Any] = {}
    trained = stage in ("train", "probe")
    if trained:
        found |= _training(recipe, attempt) | _margin(recipe, margins, attempt)
    if families & LENGTH and recipe["pairs"]["rule"].startswith("best_vs"):
        found["pairs.length_control"] = "auto"
    if (set(signals) & TIED and not trained) or (families & ALIKE and trained and attempt > 1):
        found |= _sampling(recipe, attempt)
    return {k: v for k, v in found.items() if v != _at(recipe, k)}


def _training(recipe: Mapping[str, Any], attempt: int) -> dict[str, Any]:
    training = recipe["training"]
    return {"training.beta": training["beta"] * 2**attempt, "training.lr": training["lr"] / 2**attempt}


def _margin(recipe: Mapping[str, Any], margins: Sequence[float], attempt: int) -> dict[str, Any]:
    """Leaves out the quarter, then the half, of the pairs with the least margins; never the last few."""
    if len(margins) < 8:
        return {}
    at = sorted(margins)[math.ceil(min(attempt, 2) * len(margins) / 4)]
    stricter = float(f"{at:.4g}")
    return {"pairs.min_margin": stricter} if stricter > recipe["pairs"]["min_margin"] else {}


def _sampling(recipe: Mapping[str, Any], attempt: int) -> dict[str, Any]:
    before = recipe["candidates"]["sampling"]["temperature"]
    hotter = min(HOTTEST, max(0.5, before) * TEMPERATURE[min(attempt, len(TEMPERATURE)) - 1])
    return {"candidates.sampling.temperature": round(hotter, 3)} if hotter > before else {}


def values(recipe: str) -> dict[str, Any]:
    """The keys that a try may change as a stored recipe, in JSON, has them."""
    stored = json.loads(recipe)
    return {k: _at(stored, k) for k in KEYS}


def _at(recipe: Mapping[str, Any], key: str) -> Any:
    found: Any = recipe
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
