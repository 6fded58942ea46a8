"""Items asked of an engine, group by group as they can be committed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from selfreward.engines.client import EngineClient
from selfreward.errors import SelfRewardError
from selfreward.protocols import Completion, Request
from selfreward.stages.work import Work, blocks

PATIENCE = 5.0  # seconds that finished rows of a streaming engine wait for their commit
WINDOW = 4096  # items handed to a streaming engine at once: bounds what the pipe holds
Item = TypeVar("Item")


def answered(
    work: Work, todo: list[Item], asked: Callable[[Item], list[Request]]
) -> Iterator[list[tuple[Item, list[Request], list[Completion]]]]:
    """Items with all their completions, a group to commit at a time.

    With an invariant engine a group is a block of items in their order, generated whole. Others finish
    items as they like: a group is then what came in since the last, at least a block or `PATIENCE`
    seconds of it.
    """
    size = work.recipe.engine.block
    if work.recipe.engine.type == "transformers":
        for block in blocks(todo, size):
            requests = [asked(item) for item in block]
            replies = iter(work.engine.generate([r for row in requests for r in row]))
            yield [(i, row, [next(replies) for _ in row]) for i, row in zip(block, requests, strict=True)]
        return
    for window in blocks(todo, size if work.meter.limited else WINDOW):  # a limit ends a window
        yield from _as_they_come(work.engine, window, [asked(item) for item in window], size)


def _as_they_come(
    engine: EngineClient, todo: list[Item], requests: list[list[Request]], size: int
) -> Iterator[list[tuple[Item, list[Request], list[Completion]]]]:
    owner = [k for k, row in enumerate(requests) for _ in row]
    first = [0, *itertools.accumulate(len(row) for row in requests)]
    found: dict[int, dict[int, Completion]] = {k: {} for k in range(len(todo))}
    ready: list[int] = []
    last = time.monotonic()
    stopped: SelfRewardError | None = None
    try:
        for place, reply in engine.stream([r for row in requests for r in row]):
            k = owner[place]
            found[k][place - first[k]] = reply
            if len(found[k]) == len(requests[k]):
                ready.append(k)
            if ready and (len(ready) >= size or time.monotonic() - last > PATIENCE):
                yield [(todo[k], requests[k], _in_order(found.pop(k))) for k in ready]
                ready, last = [], time.monotonic()
    except SelfRewardError as error:  # what has come is kept
        stopped = error
    if ready:
        yield [(todo[k], requests[k], _in_order(found.pop(k))) for k in ready]
    if stopped is not None:
        raise stopped


def _in_order(found: dict[int, Completion]) -> list[Completion]:
    return [found[i] for i in range(len(found))]
