"""Items asked of an engine, group by group as they can be committed, as many at once as it has workers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TypeVar

from selfreward.engines.client import EngineClient
from selfreward.errors import SelfRewardError
from selfreward.protocols import Completion, Request
from selfreward.stages.work import Work, blocks

PATIENCE = 5.0  # seconds that finished rows of a streaming engine wait for their commit
WINDOW = 4096  # items handed to a streaming engine at once: bounds what the pipe holds
Item = TypeVar("Item")
Rows = TypeVar("Rows")


def answered(
    work: Work, todo: list[Item], asked: Callable[[Item], list[Request]], size: int | None = None
) -> Iterator[list[tuple[Item, list[Request], list[Completion]]]]:
    """Items with all their completions, a group to commit at a time.

    With an invariant engine a group is a block of `size` items (`engine.block`, if it is not given) in their
    order, generated whole. Others finish items as they like: a group is then what came in since the last, at
    least a block or `PATIENCE` seconds of it.
    """
    size, engine = size or work.recipe.engine.block, work.engine
    if engine.invariant:

        def whole(block: list[Item]) -> list[tuple[Item, list[Request], list[Completion]]]:
            requests = [asked(item) for item in block]
            replies = iter(engine.generate([r for row in requests for r in row]))
            return [(i, row, [next(replies) for _ in row]) for i, row in zip(block, requests, strict=True)]

        yield from (found for _, found in side_by_side(work, blocks(todo, size), whole, engine.at_once))
        return
    for window in blocks(todo, size if work.meter.limited else WINDOW):  # a limit ends a window
        yield from _as_they_come(work.engine, window, [asked(item) for item in window], size)


def side_by_side(
    work: Work, items: Iterable[Item], do: Callable[[Item], Rows], at_once: int
) -> Iterator[tuple[Item, Rows]]:
    """Each item with `do(item)`: one after the other, or `at_once` in threads, as they come.

    `do` may ask the engine and nothing that belongs to one thread, such as the store. Where an item fails
    no further one is begun, what the others found is yielded, and then the error is raised.
    """
    if at_once == 1:
        yield from ((item, do(item)) for item in items)
        return
    work.engine.start()
    left, running = iter(items), dict[Future[Rows], Item]()
    stopped: Exception | None = None
    threads = ThreadPoolExecutor(at_once)
    try:
        while True:
            free = 0 if stopped else at_once - len(running)
            running |= {threads.submit(do, item): item for item in itertools.islice(left, free)}
            if not running:
                break
            done, _ = work.clock.timed("workers", partial(wait, running, return_when=FIRST_COMPLETED))
            for future in sorted(done, key=list(running).index):
                item, error = running.pop(future), future.exception()
                if error is None:
                    yield item, future.result()
                elif isinstance(error, Exception):
                    stopped = stopped or error
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    if stopped is not None:
        raise stopped


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
