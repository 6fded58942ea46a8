"""Branches and restarts: a run that grows from another's policy, and a stage that is made again.

A branch is small rows of its own that name the rows and adapters it shares; nothing is copied. What two
lineages share is frozen for both.
"""

from __future__ import annotations

import dataclasses
import json
import re

from selfreward import loop
from selfreward.errors import BadInput, StoreError
from selfreward.files import sha256_of_text
from selfreward.records import Policy, Prompt, Run, Stage
from selfreward.stages import changed, frozen
from selfreward.stages import prompts as prompts_stage
from selfreward.stages.order import MAX_POLICY, STAGES, index_of, steps_to, undone_by
from selfreward.stages.work import Work
from selfreward.store.database import now
from selfreward.store.lineage import Step, last_events, remove, runs, sharers

NAME = r"[a-z0-9][a-z0-9._-]*"  # "~" is left to the tries of a rollback
MAX_RUNS = 255
ASIDE = "set-aside"  # folders of policies that were made again, until `gc`


def enter(work: Work, name: str | None, start: str | None) -> tuple[Work, str | None]:
    """The run or branch to work on, made if it is new, and the policy to start from.

    `start` may name a branch, as `calmer/M2`: without `name` that one goes on, with it the new one grows from
    there. Without `start` a new branch grows from the last policy that the present recipe would have made.
    """
    grows_from, _, policy = (start or "").rpartition("/")
    if name is None and not grows_from:
        return work, start
    known = work.store.run_named(name or grows_from)
    if known is None and name is None:
        there = [r.name for r in runs(work.store) if r.id > 1]
        raise BadInput(f"there is no branch {grows_from}: the run has {', '.join(there) or 'none'}")
    if known is not None:
        _check_parent(work, known, grows_from, name)
        return on(work, known), policy or None
    parent = work if not grows_from else enter(work, grows_from, None)[0]
    assert name is not None
    grown = grow(parent, name, policy or None)
    return grown, policy or None


def _check_parent(work: Work, known: Run, grows_from: str, name: str | None) -> None:
    """`--from a/M1 --branch b` is only the same command again if b did grow from a."""
    if name is None or not grows_from or grows_from == known.name:
        return
    parent = work.store.run(known.parent_id) if known.parent_id else None
    if parent is None or parent.name != grows_from:
        raise BadInput(
            f"branch {known.name} exists and grew from {parent.name if parent else 'nothing'}, not from "
            f"{grows_from}: leave `--from` out to go on with it, or name another branch"
        )


def on(work: Work, run: Run) -> Work:
    """The same hands on another run of the file: one engine, one clock, one meter."""
    other = dataclasses.replace(work, run=run)
    other.meter = work.meter
    return other


def grow(parent: Work, name: str, start: str | None, made_by: str = "user") -> Work:
    """Makes a branch of the run `parent` is on, in one transaction; `parent.recipe` is the branch's.

    Policies up to `start` and the stages that made and measured them are taken over as they are. Later ones
    are shared as the loop comes to them, if they would come out the same.
    """
    if made_by == "user" and not re.fullmatch(NAME, name):
        rule = "lower-case letters, digits and . _ - only, a letter or digit first"
        raise BadInput(f"{name!r} cannot name a branch: {rule}")
    policies = parent.store.policies(parent.run.id)
    at = start or changed.fork(parent)
    if at not in policies or policies[at].status != "promoted":
        made = f"{loop.standing(parent)} is the newest" if policies else "nothing is made yet"
        raise BadInput(f"{at} is no promoted policy of {parent.run.name} to branch from: {made}")
    others = runs(parent.store)
    if len(others) >= MAX_RUNS:
        raise BadInput(f"a store holds at most {MAX_RUNS} runs: `selfreward gc --branch NAME` removes one")
    text = parent.recipe.model_dump_json(by_alias=True)
    run = Run(
        id=others[-1].id + 1, name=name, parent_id=parent.run.id, parent_policy=at, made_by=made_by,
        recipe=text, fingerprint=sha256_of_text(text), seed=parent.recipe.seed, created_at=now(),
    )  # fmt: skip
    work = on(parent, run)
    taken = [
        Policy(**(p.model_dump() | {"run_id": run.id})) for p in policies.values() if p.idx <= index_of(at)
    ]
    seeds = _own_seeds(parent, work, taken[0])
    known = parent.store.stages(parent.run.id)
    rows = [_taken(known[s], run.id) for s in steps_to(index_of(at)) if s in changed.given(at) and s in known]
    event = work.store.event(run.id, "branch", of=parent.run.name, policy=at, made_by=made_by)
    work.store.save(run, *taken, *[r for r in rows if r is not None], rows=seeds, events=[event])
    work.progress.say(f"branch {name} grows from {at} of {parent.run.name}")
    return work


def _own_seeds(parent: Work, work: Work, m0: Policy) -> list[Prompt]:
    """The seed prompts of a branch whose seed file holds other ones; they are then M0's in this run."""
    seeds = prompts_stage.seed_rows(work)
    stored = [p.text for p in parent.store.prompts(parent.run.id, "M0")]
    if not seeds or stored == [s.text for s in seeds if s.status == "accepted"]:
        return []
    m0.made_in = work.run.id
    return seeds


def _taken(stage: Stage, run_id: int) -> Stage | None:
    """A finished stage as the branch's own row naming whose rows it has; an unfinished one is not taken."""
    if stage.status not in ("done", "skipped"):
        return None
    made_in = stage.made_in if stage.status == "done" else run_id
    own = {"run_id": run_id, "made_in": made_in, "seconds": 0.0, "attempt": 0}
    return Stage(**(stage.model_dump() | own))


def restart(work: Work, wanted: list[str]) -> None:
    """Takes out the rows of stages such as `M2/train`, and all that was made from them, to be made again.

    The same command again after an interruption goes on instead. Raises `BadInput` for a stage that was never
    begun, `StoreError` where another lineage shares what would go.
    """
    for address in wanted:
        policy, _, stage = address.rpartition("/")
        if stage not in STAGES or not re.fullmatch(r"M(0|[1-9]\d?)", policy):
            raise BadInput(f"--restart-stage {address}: write it as POLICY/STAGE, for example M2/train")
        _restart(work, Step(policy, stage))


def _restart(work: Work, step: Step) -> None:
    known, told = work.store.stages(work.run.id), f"{step.policy}/{step.stage}"
    if _goes_on(work, step, known.get(step)):
        work.progress.say(f"{told} was taken out before and has not arrived since: going on with it")
        return
    if step not in known:
        begun = ", ".join("/".join(s) for s in steps_to(MAX_POLICY) if s in known)
        raise BadInput(f"{told} was never begun in {work.run.name}: it has {begun or 'no stage yet'}")
    steps, policies = undone_by(step)
    gone = [s for s in steps if s in known]
    _refuse_shared(work, step, gone, policies)
    lost = [p for p in work.store.policies(work.run.id) if p in policies and p != "M0"]
    work.store.backup("restart", f"{work.run.name}-{step.policy}-{step.stage}")
    event = work.store.event(
        work.run.id, "restart", policy=step.policy, stage=step.stage, policies=lost,
        stages=["/".join(s) for s in gone],
    )  # fmt: skip
    remove(work.store, work.run.id, gone, lost, event)
    loop.reopen(work, step)
    for name in lost:
        _set_aside(work, name)
    more = f" and {', '.join(lost)}" if lost else ""
    work.progress.say(f"{told}{more} of {work.run.name} will be made again")


def _goes_on(work: Work, step: Step, stage: Stage | None) -> bool:
    """Whether this restart is under way: taken out, and no command has arrived or been halted since."""
    for event in last_events(work.store, work.run.id, ("restart", "session")):
        detail = json.loads(event.detail)
        if event.kind == "session" and detail.get("ended") in ("arrived", "halted"):
            return False
        if event.kind == "restart" and (detail["policy"] == step.policy and detail["stage"] == step.stage):
            return stage is None or not frozen.changes(stage, frozen.made_from(work, step.policy, step.stage))
    return False


def _refuse_shared(work: Work, step: Step, gone: list[Step], policies: list[str]) -> None:
    told = f"{step.policy}/{step.stage}"
    stage = work.store.stages(work.run.id)[step]
    if stage.made_in != work.run.id:
        other = work.store.run(stage.made_in)
        raise StoreError(
            f"{told} of {work.run.name} is shared with {other.name if other else 'another run'} and frozen: "
            "`--branch NEW` makes another"
        )
    others = sharers(work.store, work.run.id, gone, policies)
    grown = [r.name for r in runs(work.store) if r.parent_id == work.run.id and r.parent_policy in policies]
    if others or grown:
        names = ", ".join(sorted({*others, *grown}))
        raise StoreError(
            f"{told} of {work.run.name} is frozen: {names} shares it or what was made from it. "
            "`--branch NEW` makes another"
        )


def _set_aside(work: Work, policy: str) -> None:
    """Moves the folder of a policy that is made again out of the way; `selfreward gc` removes it."""
    folder = work.home / policy
    if not folder.exists():
        return
    aside = work.folder / ASIDE
    aside.mkdir(exist_ok=True)
    number = 1 + len(list(aside.glob(f"{work.run.name}-{policy}-*")))
    folder.rename(aside / f"{work.run.name}-{policy}-{number}")
