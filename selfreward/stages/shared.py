"""What a branch may share: a finished stage of the run it grew from that would come out the same.

The same means equal keys, and that what it reads are the very rows its twin read. Nothing is copied but the
small rows of `stage` and `policy`.
"""

from __future__ import annotations

from typing import Any

from selfreward.records import Policy, Stage
from selfreward.stages import frozen
from selfreward.stages.work import Work
from selfreward.store.lineage import Step, pairs_now, trained_pairs


def twin(work: Work, step: Step, made_from: dict[str, Any]) -> Stage | None:
    """The parent run's stage that this one would repeat; None where it is to be made."""
    parent = work.run.parent_id
    if parent is None:
        return None
    theirs = work.store.stages(parent).get((step.policy, step.stage))
    if theirs is None or frozen.changes(theirs, made_from):
        return None
    if theirs.status != "done" and (theirs.status, step.stage) != ("skipped", "sft"):
        return None
    return theirs if _reads_the_same(work, parent, step) else None


def _reads_the_same(work: Work, parent: int, step: Step) -> bool:
    """Whether the rows before a stage are the same rows on both sides, not only equal ones."""
    mine, theirs = work.store.stages(work.run.id), work.store.stages(parent)
    policy = work.policy(step.policy)
    if step.stage in ("sft", "train"):
        before = policy.parent or "M0"
        if step.stage == "sft":
            return True
        if not _same_rows(mine, theirs, (before, "pairs")):
            return False
        made_in = work.store.policies(parent)[step.policy].made_in
        read = trained_pairs(work.store, made_in, step.policy)
        return read == pairs_now(work.store, work.run.id, before)  # but for reviews since
    upstream = frozen.UPSTREAM.get(step.stage)
    if upstream is None:  # the keys name the adapter and the files
        return True
    if step.stage == "pairs" and not _is_frozen(theirs, step.policy):
        return False
    return _same_rows(mine, theirs, (step.policy, upstream))


def _same_rows(
    mine: dict[tuple[str, str], Stage], theirs: dict[tuple[str, str], Stage], key: tuple[str, str]
) -> bool:
    return key in mine and key in theirs and mine[key].made_in == theirs[key].made_in


def _is_frozen(theirs: dict[tuple[str, str], Stage], policy: str) -> bool:
    """Pairs are mined anew until the training they feed has started: only then do they stay."""
    training = theirs.get((f"M{int(policy[1:]) + 1}", "train"))
    return training is not None and training.status == "done"


def taken(work: Work, twin: Stage) -> tuple[Stage, Policy | None]:
    """The stage's row as it is born, naming its twin's rows; for `sft` and `train` the policy too.

    The policy has the twin's adapter; its status is the caller's.
    """
    own = {"run_id": work.run.id, "seconds": 0.0, "attempt": 0, "error": None}
    made_in = {"made_in": twin.made_in if twin.status == "done" else work.run.id}
    stage = Stage(**(twin.model_dump() | own | made_in))
    if twin.name not in ("sft", "train"):
        return stage, None
    policy, theirs = work.policy(twin.policy), work.store.policies(twin.run_id)[twin.policy]
    policy.adapter, policy.sha256, policy.made_in = theirs.adapter, theirs.sha256, theirs.made_in
    return stage, policy
