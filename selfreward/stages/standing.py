"""How candidates stand after judging: each with its scores, of one scorer or of several made into one."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable

from selfreward import stats
from selfreward.pairs.mixing import Part, mixed
from selfreward.recipe import Recipe
from selfreward.records import Stood
from selfreward.rewards import ImplicitReward, JudgeReward, Rewarding
from selfreward.scorers.implicit import consistency
from selfreward.store import Store

Row = tuple[Stood, tuple[float, ...]]


def contenders(store: Store, recipe: Recipe, run_id: int, policy: str) -> Iterable[Row]:
    """Every candidate of an iteration with its scores, by (prompt, sample), anchors among them.

    A scorer that decides alone gives the scores of all its samples, as they are read; several give one
    number.
    """
    deciding = [r for r in recipe.rewards if r.role != "diagnostic"]
    if len(deciding) == 1:
        return store.contenders(run_id, policy, deciding[0].called)
    tables = [list(store.contenders(run_id, policy, r.called)) for r in deciding]
    found: list[Row] = []
    for _, group in itertools.groupby(zip(*tables, strict=True), key=lambda rows: rows[0][0].prompt_id):
        members = list(group)
        parts = [
            Part(r.role, r.weight, [_mean(rows[k][1]) for rows in members]) for k, r in enumerate(deciding)
        ]
        sums = mixed(parts)
        found += [(rows[0][0], () if s is None else (s,)) for rows, s in zip(members, sums, strict=True)]
    return found


def _mean(scores: tuple[float, ...]) -> float | None:
    return math.fsum(sorted(scores)) / len(scores) if scores else None


def main_reward(recipe: Recipe) -> Rewarding:
    """The reward that stands for the others where one is asked for: the first that is added up."""
    return next(r for r in recipe.rewards if r.role == "score")


def compares_alone(recipe: Recipe) -> bool:
    """Whether a judge that compares answers is the only one who decides."""
    deciding = [r for r in recipe.rewards if r.role != "diagnostic"]
    return len(deciding) == 1 and isinstance(deciding[0], JudgeReward) and recipe.judge.mode == "pairwise"


def trains_soft(recipe: Recipe) -> bool:
    """Whether a pair's weight is how sure its label is (CREAM, RLAIF), and not how much it counts."""
    return compares_alone(recipe) or any(
        isinstance(r, ImplicitReward) and r.consistency and r.role == "score" for r in recipe.rewards
    )


def label_weight(store: Store, recipe: Recipe, run_id: int, policy: str) -> stats.Interval | None:
    """CREAM's consistency of an iteration's rankings with those of the policy before; None without one."""
    reward = next((r for r in recipe.rewards if isinstance(r, ImplicitReward)), None)
    if reward is None or compares_alone(recipe) or not trains_soft(recipe):
        return None
    rows = store.details(run_id, policy, reward.called)
    groups = [
        [(r.score, float(json.loads(r.detail)["previous"])) for r in group]
        for _, group in itertools.groupby(rows, key=lambda r: r.prompt_id)
    ]
    return consistency(groups)
