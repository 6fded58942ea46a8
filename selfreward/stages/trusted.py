"""The judge held against people after each training: `judge.calibration` names the answers that they rated.

Its numbers are metrics of stage `probe`, under `judge/`. A judge that orders answers no better than a coin
stops the run: what it would label next is noise.
"""

from __future__ import annotations

import math
from typing import Any

from selfreward import calibration
from selfreward.collapse import Finding
from selfreward.files import sha256_of
from selfreward.records import Metric, Policy
from selfreward.rewards import JudgeReward
from selfreward.stages import calibrate, judges
from selfreward.stages.work import Work
from selfreward.stats import Interval

ACCURACY = "judge/pairwise_accuracy"
ATTACKS = 40


def made_from(work: Work, policy: Policy) -> dict[str, Any]:
    """What decides these numbers; nothing where they are not asked for."""
    name = _file(work)
    if name is None:
        return {}
    own = judges.made_from(work, policy)
    return {
        "judge.calibration": sha256_of(work.file(name)),
        "judge.calibration_items": work.recipe.judge.calibration_items,
    } | {k: v for k, v in own.items() if k.startswith("judge.")}


def metrics(work: Work, policy: Policy) -> list[Metric]:
    """The numbers of the judge that the iteration of `policy` would have."""
    name, options = _file(work), work.recipe.judge
    if name is None:
        return []
    items, _ = calibrate.read_items(work.file(name), options.calibration_items)
    rubric = judges.read_rubric(work.file(options.rubric), options.mode)
    who = judges.judge_policy(work, policy)
    judge = judges.open_judge(work.engine, rubric, options, work.adapter(who))
    decided = judges.made_from(work, policy) | {"attacks": ATTACKS}
    kept = calibrate.kept_in(work.folder / "calibration", decided, items)
    block = work.recipe.engine.block

    def tell(done: int, of: int) -> None:
        work.progress.advance(done, of, 0)

    found = calibrate.calibrate(judge, items, kept, block=block, most_attacks=ATTACKS, tell=tell)
    return [_metric(work, policy, f"judge/{k}", v) for k, v in found.numbers.items() if v is not None]


def findings(work: Work, policy: Policy) -> list[Finding]:
    """What the gate after `probe` makes of the accuracy that is stored; nothing where none was measured."""
    row = work.store.metric(work.run.id, policy.name, ACCURACY)
    if _file(work) is None or row is None or row.value is None:
        return []
    found = Interval(row.value, row.low, row.high, row.n)
    said = (
        f"as a judge {judges.judge_policy(work, policy).name} orders {found.value:.1%} "
        f"[{found.low:.1%}, {found.high:.1%}] of {found.n} pairs as people did"
    )
    level, message = "ok", said
    if calibration.is_coin(found):
        judges_next = policy.idx > 0 or work.recipe.start.sft is None
        level = "halt" if judges_next else "warn"
        message = (
            f"{said}: no better than a coin. {_ways_on(work)}" if judges_next else f"{said}, like a coin"
        )
    elif found.low <= 0.5:
        level, message = "warn", f"{said}: too few to tell it from a coin"
    return [Finding("judge_accuracy", level, found.value, 0.5, message, found.low, found.high)]


def _ways_on(work: Work) -> str:
    judge = work.recipe.judge
    ways = [
        "an earlier judge (judge.policy: M0)"
        if judge.policy == "self"
        else "the policy itself (judge.policy: self)",
        *[f"judge.mode: {m}" for m in ("expected", "pairwise") if m != judge.mode],
        *(["judge.calibrate: content_free"] if judge.mode == "expected" and not judge.calibrate else []),
        "another scorer under `rewards`",
    ]
    return f"Under a new name try {', '.join(ways)}; gate.on_collapse: warn goes on with it"


def _file(work: Work) -> str | None:
    """The file to measure with; None where no judge rewards."""
    judged = any(isinstance(r, JudgeReward) for r in work.recipe.rewards)
    return work.recipe.judge.calibration if judged else None


def _metric(work: Work, policy: Policy, name: str, found: Interval) -> Metric:
    sound = math.isfinite(found.value)
    return Metric(
        run_id=work.run.id, policy=policy.name, stage="probe", name=name, n=found.n,
        value=found.value if sound else None, low=found.low, high=found.high,
    )  # fmt: skip
