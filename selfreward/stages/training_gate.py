"""The watch over a training while it runs: the driver reads the trainer's log and decides."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfreward.collapse import Finding
from selfreward.collapse.limits import changed
from selfreward.collapse.training import TrainingWatch
from selfreward.errors import GateHalted
from selfreward.files import write_text
from selfreward.ids import unpack_ids
from selfreward.records import Alarm, Policy, Stage
from selfreward.stages import accepted
from selfreward.stages.work import Work
from selfreward.training.fixed import FIXED, TEXTS
from selfreward.training.log import read_log


def write_fixed(work: Work, policy: Policy, job: Path) -> None:
    """The parent's first answers to the probe as token ids, for the trainer to score while it trains."""
    answers = [a for a in work.store.answers(work.run.id, policy.parent or "M0", "probe") if a.token_ids][
        :TEXTS
    ]
    prompts = work.engine.chat_ids([[{"role": "user", "content": a.item}] for a in answers])
    rows = [
        {"prompt_ids": list(p), "completion_ids": unpack_ids(a.token_ids)}
        for p, a in zip(prompts, answers, strict=True)
    ]
    write_text(job / FIXED, "".join(json.dumps(r, separators=(",", ":")) + "\n" for r in rows))


def watch_of(work: Work, stage: Stage) -> TrainingWatch | None:
    """The watch over a DPO training; SFT may go as far from its base as its texts ask for."""
    if stage.name != "train":
        return None
    options = work.recipe.training
    return TrainingWatch(options.batch, options.beta, changed(work.recipe.gate.limits.model_dump()))


def look(work: Work, stage: Stage, watch: TrainingWatch | None, path: Path) -> None:
    """Shows the watch what was logged since; raises `GateHalted` where the training is not worth going on."""
    _stop_at(work, stage, [f for f in _findings(work, stage, watch, path) if f.level == "halt"])


def conclude(work: Work, stage: Stage, path: Path) -> None:
    """What the whole log shows, written down: the same whenever and however often it is read."""
    findings = _findings(work, stage, watch_of(work, stage), path)
    work.store.put_findings(*(_alarm(work, stage, f) for f in findings))
    for finding in findings:
        if finding.level == "warn":
            work.progress.say(f"warn: {finding.message}")
    _stop_at(work, stage, [f for f in findings if f.level == "halt"])


def _stop_at(work: Work, stage: Stage, halts: Sequence[Finding]) -> None:
    if not halts or work.recipe.gate.on_collapse == "warn":
        return
    work.store.put_findings(*(_alarm(work, stage, f) for f in halts))
    raise GateHalted(
        f"the training of {stage.policy} collapses: {halts[0].message}. "
        "Lower training.lr, or raise training.beta"
    )


def _findings(work: Work, stage: Stage, watch: TrainingWatch | None, path: Path) -> list[Finding]:
    """The findings after the newest line; a halt at any line since the last look stays one."""
    findings: list[Finding] = []
    if watch is None or not path.exists():
        return findings
    for line in read_log(path):
        if line["step"] > watch.seen:
            findings = _worst(findings, watch.add(line), watch.seen)
    known = accepted.reasons(work)
    return [accepted.softened(f, known.get((stage.policy, stage.name, f.signal))) for f in findings]


def _worst(before: Sequence[Finding], now: Sequence[Finding], step: int) -> list[Finding]:
    """The newest findings, but a halt that was seen stays the one it was, with its step."""
    halts = {f.signal: f for f in before if f.level == "halt"}
    fresh = [
        replace(f, message=f"{f.message}, at step {step}") if f.level == "halt" else f
        for f in now
        if f.signal not in halts
    ]
    return fresh + list(halts.values())


def refused(work: Work, stage: Stage, message: str) -> None:
    """Writes down that a training stopped itself: a number was not finite, or there was no step to take."""
    finding = Finding("training", "halt", None, None, message)
    work.store.put_findings(_alarm(work, stage, finding))


def _alarm(work: Work, stage: Stage, f: Finding) -> Alarm:
    value = f.value if f.value is not None and math.isfinite(f.value) else None
    return Alarm(
        run_id=work.run.id, policy=stage.policy, stage=stage.name, signal=f.signal, level=f.level,
        value=value, low=f.low, high=f.high, threshold=f.threshold, message=f.message,
    )  # fmt: skip


def values(found: Any, n: int) -> dict[str, Any]:
    """A logged number as columns of `metric`: with its own interval and n, or of the step's `n` rows."""
    if not isinstance(found, dict):
        return {"value": found if math.isfinite(found) else None, "n": n}
    sound = all(math.isfinite(x) for x in found.values())
    return found if sound else {"value": None, "n": found["n"]}
