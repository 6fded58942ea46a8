"""Which stage comes when, and what goes when one is made again."""

from __future__ import annotations

from selfreward.store.lineage import Step

# An iteration of M_t, in order: the stage, and whose row it is (0: M_t, 1: the policy being made).
ITERATION = (
    ("prompts", 0),
    ("candidates", 0),
    ("judge", 0),
    ("pairs", 0),
    ("train", 1),
    ("probe", 1),
    ("evaluate", 1),
)
STAGES = ("sft", *dict(ITERATION))
DATA = tuple(stage for stage, side in ITERATION if side == 0)
MEASURES = ("probe", "evaluate")
MAX_POLICY = 63


def name_of(idx: int) -> str:
    """The name of the policy at an index: M0, M1, and so on."""
    return f"M{idx}"


def index_of(policy: str) -> int:
    """The inverse of `name_of`."""
    return int(policy[1:])


def steps_to(goal: int) -> list[Step]:
    """Every step from nothing to policy `goal`, in order. Start policies are probed and evaluated once."""
    found = [
        Step("M0", "probe"),
        Step("M0", "evaluate"),
        Step("M1", "sft"),
        Step("M1", "probe"),
        Step("M1", "evaluate"),
    ]
    for t in range(1, goal):
        found += [Step(name_of(t + side), stage) for stage, side in ITERATION]
    return found


def undone_by(step: Step) -> tuple[list[Step], list[str]]:
    """What goes when a stage is made again: the stages whose rows go, and the policies that go whole.

    Measures decide no row: only they themselves go.
    """
    if step.stage in MEASURES:
        return [step], []
    first = index_of(step.policy) + (step.stage in DATA)
    policies = [name_of(i) for i in range(first, MAX_POLICY + 1)]
    own = DATA[DATA.index(step.stage) :] if step.stage in DATA else ()
    return [Step(step.policy, s) for s in own] + [Step(p, s) for p in policies for s in STAGES], policies
