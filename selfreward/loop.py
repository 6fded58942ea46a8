"""The state machine: what may follow what, and when a run must stop.

This file alone writes `stage.status` and `policy.status`; every change is an `event` in the same transaction.
The store is the state: running again is resuming, and there is no other code path for it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from typing import Any

from selfreward import collapse, stages
from selfreward.collapse import Finding
from selfreward.errors import BadInput, GateHalted, Interrupted, SelfRewardError, StoreError
from selfreward.files import sha256_of_text
from selfreward.records import Alarm, Event, Policy, Stage
from selfreward.stages import accepted, changed, data_gate, frozen, needs, recipe_suites, shared
from selfreward.stages import probe as probe_stage
from selfreward.stages import prompts as prompts_stage
from selfreward.stages import train as train_stage
from selfreward.stages.order import MAX_POLICY, MEASURES, name_of, steps_to
from selfreward.stages.work import Work
from selfreward.store.database import now
from selfreward.store.lineage import Step

STAGE_MOVES = {
    "pending": {"running", "skipped"},
    "running": {"done", "failed"},
    "failed": {"running"},
    "done": {"running"},  # `pairs` alone, while the training it feeds is still pending
    "skipped": set(),
}
POLICY_MOVES = {
    "training": {"trained", "rejected"},
    "trained": {"promoted", "rejected"},
    "promoted": set(),
    "rejected": {"training", "trained"},  # by a person's word alone: `iterate --accept`
}


def iterate(work: Work, start: str | None, goal: str, pause_before: str | None = None) -> None:
    """Runs what is missing on the way to `goal`.

    `start` names the policy the first wanted iteration starts from.

    Raises `GateHalted` where a gate stops or a policy on the way was rejected, `BadInput` where `start` is
    missing.
    """
    begun = time.monotonic()
    needs.check(work)
    _begin_policies(work)
    _check_start(work, start, goal)
    changed.check(work, lambda stage: _is_bound(work, stage))
    train_stage.check(work)
    prompts_stage.check_file(work)
    ended = "interrupted"
    try:
        for step in steps_to(int(goal[1:])):
            if pause_before in (step.stage, f"{step.policy}/{step.stage}") and _is_missing(work, step):
                work.progress.say(
                    f"paused before {step.stage} of {step.policy}; "
                    "the same command without --pause-before goes on"
                )
                break
            work.stop.check()
            _take(work, step)
        else:
            ended = "arrived"
        work.close_engine()
    except BaseException as error:
        ended = "halted" if isinstance(error, GateHalted) else ended
        work.abandon_engine()
        raise
    finally:
        with contextlib.suppress(StoreError):  # what stopped the run is the news, not its time sheet
            _note_session(work, time.monotonic() - begun, ended)


def begin(work: Work) -> None:
    """M0 and the seed prompts, where they are not there yet."""
    _begin_policies(work)


def accept(work: Work, name: str, reason: str) -> None:
    """Lets the halts on the way to a policy pass, by a person's word: an event for ever, and the decision.

    The same again, after an interruption, changes nothing. Raises `BadInput` where nothing halted, or where
    there is nothing to go on with.
    """
    halts = accepted.standing_halts(work, name)
    if not halts and accepted.reason_for(work, name) is not None:
        return
    policy = work.store.policies(work.run.id).get(name)
    accepted.check(work, name, halts)
    told = [
        {"policy": a.policy, "stage": a.stage, "signal": a.signal, "value": a.value, "message": a.message}
        for a in halts
    ]
    events = [work.store.event(work.run.id, accepted.EVENT, policy=name, reason=reason, halts=told)]
    records = []
    if policy is not None and policy.status == "rejected":
        status = "trained" if policy.adapter else "training"
        events += _set_policy(work, policy, status, _accepted(reason, halts))
        records = [policy]
    with work.store.durable():
        work.store.save(*records, events=events)
    signs = ", ".join(f"{a.signal} of {a.policy}" for a in halts)
    work.progress.say(f"accepted on the way to {name}: {signs} ({reason})")


def _accepted(reason: str, halts: Sequence[Alarm]) -> str:
    return f"accepted over a halt: {reason} ({', '.join(a.signal for a in halts)})"


def _note_session(work: Work, wall: float, ended: str) -> None:
    seconds = {k: round(v, 3) for k, v in (work.clock.seconds | {"wall": wall}).items()}
    told = {"seconds": seconds, "ended": ended} | work.meter.spent
    work.store.save(events=[work.store.event(work.run.id, "session", **told)])


def standing(work: Work) -> str:
    """The newest promoted policy, M0 before there is another."""
    return max(
        (p for p in work.store.policies(work.run.id).values() if p.status == "promoted"), key=lambda p: p.idx
    ).name


def _begin_policies(work: Work) -> None:
    """M0 and the seed prompts, in one transaction; later starts check that both are still the same."""
    known = work.store.policies(work.run.id).get("M0")
    seeds = prompts_stage.seed_rows(work)
    if known is None:
        m0 = Policy(
            run_id=work.run.id, name="M0", idx=0, model=work.model, made_in=work.run.id, status="promoted",
            decision="the base", created_at=now(),
        )  # fmt: skip
        event = work.store.event(work.run.id, "policy", policy="M0", status="promoted")
        work.store.save(m0, rows=seeds, events=[event])
        return
    if known.model != work.model:
        raise StoreError(f"this run was made from {known.model}, the recipe now names {work.model}")
    stored = [p.text for p in work.store.prompts(work.run.id, "M0")]
    if not stored:
        work.store.save(rows=seeds)  # the first iterations used prompts of the user's own
    elif seeds and stored != [s.text for s in seeds if s.status == "accepted"]:
        raise StoreError(
            "prompts.seed_file holds other prompts than when this run began: "
            "put it back, or start a run under a new name"
        )


def _check_start(work: Work, start: str | None, goal: str) -> None:
    """`--from` never makes what comes before it, except where M1 is the base itself."""
    policies = work.store.policies(work.run.id)
    for policy in policies.values():
        if policy.status == "rejected" and policy.idx <= int(goal[1:]):
            raise GateHalted(_ways_on(work, policy))
    if start in (None, "M0"):
        return
    assert start is not None
    free = work.recipe.start.sft is None and start == "M1"
    if not free and (start not in policies or policies[start].status != "promoted"):
        here = standing(work)
        raise BadInput(f"{start} does not exist yet: `selfreward iterate --from {here}` makes it")
    if start in policies and policies[start].status == "promoted":
        following = name_of(int(start[1:]) + 1)
        if following in policies and policies[following].status == "promoted" and following != goal:
            work.progress.say(f"{following} is promoted already: going on to {goal}")


def _is_bound(work: Work, stage: Stage) -> bool:
    """Whether a stage keeps what it was made from."""
    return not _is_replaceable(work, stage) and not _made_nothing(work, stage)


def _ways_on(work: Work, policy: Policy) -> str:
    command = f"selfreward iterate --run {work.folder.name}"
    here = f" --branch {work.run.name}" if work.run.parent_id else ""
    return (
        f"{policy.name} was rejected: {policy.decision}. Three ways on: "
        f"another recipe on a branch, `{command} --from {policy.parent} --branch NEW --set KEY=VALUE`; "
        f"the training again with a changed one, `{command}{here} --restart-stage {policy.name}/train`; "
        f'or let it pass, `{command}{here} --accept {policy.name} --reason "…"`'
    )


def _is_missing(work: Work, step: Step) -> bool:
    stage = work.store.stages(work.run.id).get((step.policy, step.stage))
    return stage is None or stage.status not in ("done", "skipped")


def _take(work: Work, step: Step) -> None:
    """Brings one step to its end, whatever state it is in."""
    _make_policy(work, step)
    known = work.store.stages(work.run.id).get((step.policy, step.stage))
    stage = known or Stage(
        run_id=work.run.id, policy=step.policy, name=step.stage, made_in=work.run.id, status="pending"
    )
    if stage.status not in ("done", "skipped") or _is_replaceable(work, stage):
        made_from = frozen.made_from(work, step.policy, step.stage)
        twin = shared.twin(work, step, made_from) if known is None else None
        if twin is not None:
            stage = _share(work, twin)
        elif stage.status == "pending" and _is_left_out(work, step):
            _skip(work, stage, made_from)
        else:
            _run_stage(work, stage, made_from)
    _after(work, stage)  # also of a stage done before: a crash, or a halt, may have come between


def _share(work: Work, twin: Stage) -> Stage:
    """A finished stage of the run a branch grew from becomes the branch's too: no row is copied."""
    stage, policy = shared.taken(work, twin)
    detail = {"policy": stage.policy, "stage": stage.name, "status": stage.status, "made_in": stage.made_in}
    events = [work.store.event(work.run.id, "stage", **detail)]
    records: list[Stage | Policy] = [stage]
    if policy is not None:
        decision = (
            work.store.policies(twin.run_id)[twin.policy].decision if twin.status == "skipped" else None
        )
        events += _set_policy(work, policy, "trained", decision)
        events += _set_policy(work, policy, "promoted", decision) if twin.status == "skipped" else []
        records.append(policy)
    work.store.save(*records, events=events)
    work.progress.say(f"{stage.policy} {stage.name} is shared: nothing that decides it differs")
    return stage


def _make_policy(work: Work, step: Step) -> None:
    """A policy's row exists before its first stage."""
    if step.policy in work.store.policies(work.run.id):
        return
    idx = int(step.policy[1:])
    if idx > MAX_POLICY:
        raise BadInput(f"{step.policy}: a run holds at most M{MAX_POLICY}")
    policy = Policy(
        run_id=work.run.id, name=step.policy, idx=idx, parent=name_of(idx - 1), model=work.model,
        made_in=work.run.id, status="training", created_at=now(),
    )  # fmt: skip
    work.store.save(
        policy, events=[work.store.event(work.run.id, "policy", policy=step.policy, status="training")]
    )


def _is_left_out(work: Work, step: Step) -> bool:
    """Without `start.sft` nothing makes M1; without `evaluate` nothing is evaluated."""
    if step.stage == "sft":
        return work.recipe.start.sft is None
    return step.stage == "evaluate" and work.recipe.evaluate is None


def _skip(work: Work, stage: Stage, made_from: dict[str, Any]) -> None:
    """A stage with nothing to do; for `sft` M1 is the base again, or what `start.adapter` names."""
    frozen.freeze(stage, made_from)
    events = _set_stage(work, stage, "skipped")
    if stage.name != "sft":
        work.store.save(stage, events=events)
        return
    policy = work.policy(stage.policy)
    decision = "the base again: start.sft is null"
    if work.recipe.start.adapter:
        policy.adapter, policy.sha256 = train_stage.take_adapter(work, policy)
        decision = f"start.adapter: {work.recipe.start.adapter}"
    events += _set_policy(work, policy, "trained", decision)
    events += _set_policy(work, policy, "promoted", decision)
    work.store.save(stage, policy, events=events)


def _made_nothing(work: Work, stage: Stage) -> bool:
    """A stage that ended before its first row binds nobody: what stopped it may be mended in the recipe."""
    if stage.status == "done" or stage.n_done or stage.n_tokens:
        return False
    return not work.store.trained_on(work.run.id, stage.policy)


def _is_replaceable(work: Work, stage: Stage) -> bool:
    """`pairs` is mined anew, with newer reviews, as long as the training it feeds has not started."""
    return stage.name == "pairs" and stage.made_in == work.run.id and not _is_training(work, stage.policy)


def _is_training(work: Work, policy: str) -> bool:
    """Whether the training that an iteration's pairs feed has started: from then on they are frozen."""
    training = work.store.stages(work.run.id).get((name_of(int(policy[1:]) + 1), "train"))
    return training is not None and training.status != "pending"


def _run_stage(work: Work, stage: Stage, made_from: dict[str, Any]) -> None:
    """From pending, failed or running to running to done; an error is written down and goes on its way."""
    frozen.freeze(stage, made_from)
    stage.attempt += 1
    stage.started_at = stage.started_at or now()
    stage.error = None
    events = _set_stage(work, stage, "running")
    recipe = work.recipe.model_dump_json(by_alias=True)
    if work.run.recipe != recipe:
        work.run.recipe, work.run.fingerprint, work.run.seed = (
            recipe,
            sha256_of_text(recipe),
            work.recipe.seed,
        )
        events.append(work.store.event(work.run.id, "recipe", before=f"{stage.policy}/{stage.name}"))
    if busy := work.gpus_of(stage.name):
        events.append(work.store.event(work.run.id, "gpus", policy=stage.policy, stage=stage.name, n=busy))
    work.store.save(work.run, stage, events=events)
    work.enter(stage)
    work.progress.begin(stage.policy, stage.name, stage.n_done, stage.n_total)
    try:
        note = stages.RUN[stage.name](work, stage)
        stage.finished_at = now()
        _finish(work, stage)
        work.store.stage_ended()
    except Interrupted:
        raise  # the stage is running still: the same command goes on with it
    except SelfRewardError as error:
        stage.error = str(error)
        with contextlib.suppress(StoreError):  # a full disk takes no more: the stage is running still, then
            work.store.save(stage, events=_set_stage(work, stage, "failed"))
        if isinstance(error, GateHalted) and stage.name in ("sft", "train"):
            _reject(work, work.policy(stage.policy), str(error))
        raise
    work.progress.end(note)


def _finish(work: Work, stage: Stage) -> None:
    """`done`; with a training, the policy's adapter in the same transaction, on the disk when it returns."""
    if stage.name not in ("sft", "train"):
        work.store.save(stage, events=_set_stage(work, stage, "done"))
        return
    policy = work.policy(stage.policy)
    policy.adapter, policy.sha256 = train_stage.adapter_of(work, policy)
    events = _set_stage(work, stage, "done") + _set_policy(work, policy, "trained", None)
    with work.store.durable():
        work.store.save(stage, policy, events=events)


def _after(work: Work, stage: Stage) -> None:
    """The gates, and the promotion at the end."""
    if stage.name == "pairs":
        findings = collapse.after_pairs(stage.policy, work.store.mining_outcomes(work.run.id, stage.policy))
        if findings[0].level == "ok" and not _is_training(work, stage.policy):  # else it has been passed
            findings += data_gate.data_findings(work, work.policy(stage.policy))
        _gate(work, stage, findings, None)
    elif stage.name == "probe":
        policy = work.policy(stage.policy)
        _gate(work, stage, probe_stage.findings(work, policy), policy if policy.status == "trained" else None)
    elif stage.name == "evaluate":
        if stage.status == "done":
            _gate(work, stage, recipe_suites.findings(work, work.policy(stage.policy)), None)
        _promote(work, work.policy(stage.policy))


def _gate(work: Work, stage: Stage, findings: Sequence[Finding], policy: Policy | None) -> None:
    """Writes the findings; a halt rejects the policy at the gate and stops the run, or is said and passed."""
    known = accepted.reasons(work)
    findings = [accepted.softened(f, known.get((stage.policy, stage.name, f.signal))) for f in findings]
    work.store.put_findings(*(_alarm(work, stage, f) for f in findings))
    halts = [f for f in findings if f.level == "halt"]
    passes = work.recipe.gate.on_collapse == "warn" and not any(f.signal == "pairs" for f in halts)
    stops = halts[:1] if not passes else []
    for finding in findings:
        if finding.level != "ok" and finding not in stops:  # that one is the error's own line
            work.progress.say(f"{finding.level}: {finding.message}")
    if not stops:
        return
    if policy is not None:
        _reject(work, policy, stops[0].message)
    raise GateHalted(stops[0].message)


def _alarm(work: Work, stage: Stage, f: Finding) -> Alarm:
    return Alarm(
        run_id=work.run.id, policy=stage.policy, stage=stage.name, signal=f.signal, level=f.level,
        value=f.value if f.value is not None and math.isfinite(f.value) else None,
        low=f.low, high=f.high, threshold=f.threshold, message=f.message,
    )  # fmt: skip


def _promote(work: Work, policy: Policy) -> None:
    if policy.status != "trained":
        return
    reason = accepted.reason_for(work, policy.name)
    decision = "all gates passed" if reason is None else f"accepted over a halt: {reason}"
    events = _set_policy(work, policy, "promoted", decision)
    with work.store.durable():
        work.store.save(policy, events=events)
    work.progress.say(f"{policy.name} is promoted")
    try:
        work.store.backup("promoted", f"{work.run.name}-{policy.name}")
    except StoreError as error:  # the policy is safe; that nobody has a copy must be known
        work.progress.say(f"warn: {error}")
    _tell_verdict(work, policy)


def _reject(work: Work, policy: Policy, why: str) -> None:
    work.store.save(policy, events=_set_policy(work, policy, "rejected", why))
    _tell_verdict(work, policy)


def _tell_verdict(work: Work, policy: Policy) -> None:
    if work.on_verdict is not None:
        work.on_verdict(policy.name)


def _set_stage(work: Work, stage: Stage, status: str) -> list[Event]:
    """The one place that changes a stage's status; an illegal move is a bug and raises."""
    if stage.status != status and status not in STAGE_MOVES[stage.status]:
        raise ValueError(f"{stage.policy}/{stage.name} cannot go from {stage.status} to {status}")
    stage.status = status
    return [
        work.store.event(
            work.run.id, "stage", policy=stage.policy, stage=stage.name, status=status, attempt=stage.attempt
        )
    ]


def reopen(work: Work, step: Step) -> None:
    """After a measure was taken out: its policy stands at the gate again, unless later ones grew from it."""
    policies = work.store.policies(work.run.id)
    policy = policies.get(step.policy)
    if policy is None or step.stage not in MEASURES or policy.status not in ("promoted", "rejected"):
        return
    if policy.idx == 0 or name_of(policy.idx + 1) in policies or policy.adapter is None:
        return
    policy.status, policy.decision = "trained", None
    detail = {"policy": policy.name, "status": "trained", "decision": f"{step.stage} is made again"}
    work.store.save(policy, events=[work.store.event(work.run.id, "policy", **detail)])


def _set_policy(work: Work, policy: Policy, status: str, decision: str | None) -> list[Event]:
    """The one place that changes a policy's status."""
    if status not in POLICY_MOVES[policy.status]:
        raise ValueError(f"{policy.name} cannot go from {policy.status} to {status}")
    policy.status, policy.decision = status, decision
    return [work.store.event(work.run.id, "policy", policy=policy.name, status=status, decision=decision)]
