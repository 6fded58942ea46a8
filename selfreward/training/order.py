"""The order rows train in: whole steps, each row once an epoch, the same whatever the number of processes.

A step that is short is filled with rows of weight 0, and the weights of a step are scaled so that their mean
is 1: the mean over its rows is then the weighted mean over its real ones, however they are spread over
forward passes and processes. Inside a step rows go by length, which changes what is padded and not the sum.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from selfreward.errors import BadInput
from selfreward.training.job import TrainingSpec

Row = dict[str, Any]


def in_steps(rows: list[Row], spec: TrainingSpec, length: Callable[[Row], int]) -> list[Row]:
    """Copies of the rows with their `weight` in the step and `row`, their place in `rows`.

    Each epoch has an order of its own from the seed; a broken last epoch takes the beginning of its order.
    """
    numbered = [row | {"row": i, "weight": float(row.get("weight", 1.0))} for i, row in enumerate(rows)]
    left = round(spec.epochs * len(rows))
    arranged: list[Row] = []
    for epoch in range(left // max(len(rows), 1) + 1):
        order = random.Random(f"{spec.seed} {epoch}").sample(numbered, len(numbered))[:left]
        left -= len(order)
        for start in range(0, len(order), spec.batch):
            arranged += _whole(order[start : start + spec.batch], spec.batch, length)
    return arranged


def _whole(step: list[Row], batch: int, length: Callable[[Row], int]) -> list[Row]:
    step = sorted(step, key=lambda row: (length(row), row["row"]))
    total = sum(row["weight"] for row in step)
    scaled = [row | {"weight": row["weight"] * batch / total} for row in step]
    return [step[0] | {"weight": 0.0}] * (batch - len(step)) + scaled


def shares(batch: int, micro_batch: int, world: int) -> tuple[int, int]:
    """Rows of a forward pass, and the passes each of `world` processes adds up, so that a step has `batch`.

    Raises `BadInput` where a step cannot be shared out evenly.
    """
    micro = min(micro_batch, batch // world)
    if micro < 1 or batch % (micro * world):
        raise BadInput(
            f"training.batch {batch} cannot be shared evenly by {world} processes of "
            f"training.micro_batch {micro_batch}: make it a multiple of both"
        )
    return micro, batch // (micro * world)
