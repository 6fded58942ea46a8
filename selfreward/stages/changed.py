"""A recipe that is not the one the stored rows were made from: which keys differ, and the ways on."""

from __future__ import annotations

from collections.abc import Callable

from selfreward.errors import RecipeChanged
from selfreward.records import Stage
from selfreward.stages import frozen
from selfreward.stages.order import MAX_POLICY, MEASURES, index_of, steps_to, undone_by
from selfreward.stages.work import Work
from selfreward.store.lineage import Step, sharers


def check(work: Work, is_bound: Callable[[Stage], bool]) -> None:
    """Raises `RecipeChanged`, with every key, where a stage that is bound was made from another recipe."""
    found = differing(work, is_bound)
    if found:
        rows = [(f"{s.policy}/{s.stage}", c.key, c.then, c.now) for s, cs in found.items() for c in cs]
        raise RecipeChanged(_ways_on(work, list(found)), rows)


def differing(work: Work, is_bound: Callable[[Stage], bool]) -> dict[Step, list[frozen.Change]]:
    """The bound stages whose keys have other values now, in the order of the loop.

    What a branch was given with the policy it starts from is not held against its recipe.
    """
    known, taken_over = work.store.stages(work.run.id), given(work.run.parent_policy)
    found: dict[Step, list[frozen.Change]] = {}
    for step in steps_to(MAX_POLICY):
        stage = known.get(step)
        if stage is not None and step not in taken_over and is_bound(stage):
            changes = frozen.changes(stage, frozen.made_from(work, step.policy, step.stage))
            found |= {step: changes} if changes else {}
    return found


def given(start: str | None) -> set[Step]:
    """The steps whose results a branch took over with the policy it starts from; M0 comes with none."""
    return set() if start in (None, "M0") else set(steps_to(index_of(start)))


def fork(work: Work) -> str:
    """The last promoted policy that the present recipe would have made too: where a branch begins."""
    policies, known = work.store.policies(work.run.id), work.store.stages(work.run.id)
    taken_over, last = given(work.run.parent_policy), "M0"
    for name, policy in list(policies.items())[1:]:
        steps = [s for s in steps_to(policy.idx) if s.stage not in MEASURES and s not in taken_over]
        finished = all(s in known and known[s].status in ("done", "skipped") for s in steps)
        if policy.status != "promoted" or not finished:
            break
        if any(frozen.changes(known[s], frozen.made_from(work, s.policy, s.stage)) for s in steps):
            break
        last = name
    return last


def _ways_on(work: Work, found: list[Step]) -> str:
    """The refusal in one line, with the three ways on; what others share cannot be made again here."""
    again: list[Step] = []
    for step in found:
        if step not in {gone for first in again for gone in undone_by(first)[0]}:
            again.append(step)
    command = f"selfreward iterate --run {work.folder.name}"
    ways = ["put the keys back", f"`{command} --branch NEW`"]
    if not any(is_shared(work, step) for step in again):
        here = f" --branch {work.run.name}" if work.run.parent_id else ""
        restarts = " ".join(f"--restart-stage {s.policy}/{s.stage}" for s in again)
        ways.append(f"`{command}{here} {restarts}`")
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    verb = "were" if more else "was"
    ways_on = ", ".join(ways[:-1]) + f", or {ways[-1]}"
    return f"{found[0].policy}/{found[0].stage}{more} {verb} made from another recipe than this: {ways_on}"


def is_shared(work: Work, step: Step) -> bool:
    """Whether a stage, or what was made from it, is in two lineages: then it stays as it is."""
    own = work.store.stages(work.run.id)[step].made_in == work.run.id
    return not own or bool(sharers(work.store, work.run.id, *undone_by(step)))
