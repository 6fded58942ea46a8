"""Whether a suite's questions stood among the prompts that trained a policy: a gain there is no news."""

from __future__ import annotations

from selfreward.near import HeldOut
from selfreward.records import Policy
from selfreward.stages.suites import Plan
from selfreward.stages.work import Work

NEAR = 0.7  # ROUGE-L F1, as in Self-Instruct


def leaks(work: Work, policy: Policy, asked: Plan) -> list[str]:
    """A sentence where training prompts of this policy or an earlier one are near a question of the suite.

    Suites of the recipe are kept out of training; one that is asked for later can only be checked.
    """
    held = HeldOut(NEAR)
    for task in asked.tasks:
        held.hold_out(task.chat[-1]["content"] if task.check is None else task.check.problem)
        if task.follow is not None:
            held.hold_out(task.follow)
    before = [p.name for p in work.store.policies(work.run.id).values() if p.idx < policy.idx]
    seen = {p.text for name in before for p in work.store.prompts(work.run.id, name)}
    found = sum(held.reason(text) is not None for text in seen)
    if not found:
        return []
    told = "prompt is a near-duplicate" if found == 1 else "prompts are near-duplicates"
    return [f"{found} training {told} of questions of {asked.name}: a gain of {policy.name} there is no news"]
