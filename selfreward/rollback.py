"""Trying again: an iteration that collapsed grows anew from its M_t as a branch NAME~1, NAME~2, calmer.

What the changed keys do not touch is shared with the run the try grows from. A try is followed from then on,
also by the next `iterate`, and may roll back in turn.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from selfreward import branching, loop
from selfreward.collapse import calmer
from selfreward.collapse.screen import data_of, newest
from selfreward.errors import GateHalted
from selfreward.recipe import Recipe
from selfreward.recipe_file import with_changes
from selfreward.records import Run
from selfreward.stages.work import Work
from selfreward.store.halts import margins, tries_of
from selfreward.store.lineage import origins, runs

MADE_BY = "rollback"


def iterate(work: Work, start: str | None, goal: str, pause_before: str | None = None) -> Work:
    """`loop.iterate` that tries again where the recipe says so; the run or branch that it ended on.

    Raises the halt that no try is left for, or that no named change would help.
    """
    while True:
        try:
            loop.iterate(work, start, goal, pause_before)
            return work
        except GateHalted:
            again = _next_try(work)
            if again is None:
                raise
            work, start = again, None


def followed(work: Work) -> Work:
    """The newest try that grew from this run, with its changed keys, and from that in turn; or the run."""
    for row in tries_of(work.store, work.run.id):
        last = work.store.run(row.id)
        if last is not None:
            work = branching.on(replace(work, recipe=_recipe_of(work.recipe, last)), last)
            work.progress.say(f"going on with {last.name}, tried from {last.parent_policy} after a halt")
    return work


def _recipe_of(recipe: Recipe, run: Run) -> Recipe:
    """The present recipe, with the keys that a try may change as the run has them."""
    return with_changes(recipe, calmer.values(run.recipe))


def _next_try(work: Work) -> Work | None:
    """The next try of the iteration that halted; None where there is none left, or nothing to change."""
    gate, at = work.recipe.gate, loop.standing(work)
    if gate.on_collapse != "rollback" or at == "M0":
        return None
    again = work.run.made_by == MADE_BY and work.run.parent_policy == at
    origin = work.store.run(work.run.parent_id or 1) if again else work.run
    if origin is None:
        return None
    tries = [r for r in runs(work.store) if r.made_by == MADE_BY]
    attempt = 1 + sum((r.parent_id, r.parent_policy) == (origin.id, at) for r in tries)
    recipe = _recipe_of(work.recipe, origin)
    changes = _changes(work, recipe, attempt)
    if attempt > gate.retries or not changes:
        return None
    root = origin.name.partition("~")[0]
    name = f"{root}~{1 + sum(r.name.partition('~')[0] == root for r in tries)}"
    told = ", ".join(f"{k}: {v}" for k, v in changes.items())
    work.progress.say(f"back to {at}: try {attempt} of {gate.retries} is {name}, with {told}")
    parent = branching.on(replace(work, recipe=with_changes(recipe, changes)), origin)
    return branching.grow(parent, name, at, made_by=MADE_BY)


def _changes(work: Work, recipe: Recipe, attempt: int) -> dict[str, Any]:
    """What to change for the signs that halted."""
    halts = [a for a in work.store.alarms(work.run.id) if a.level == "halt"]
    if not halts:
        return {}
    policy, stage = newest(halts)
    signals = [a.signal for a in halts if (a.policy, a.stage) == (policy, stage)]
    data = data_of(policy, stage)
    read = margins(work.store, origins(work.store, work.run.id, data).pairs, data)
    return calmer.changes(recipe.model_dump(by_alias=True), stage, signals, read, attempt)
