"""The trainer child as its driver sees it: started, heard, started again where it failed, told to stop."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from selfreward.engines import process
from selfreward.engines.client import TRIES
from selfreward.errors import BadInput, GateHalted, Interrupted, WorkFailed
from selfreward.files import check_room, remove_folder, write_json
from selfreward.records import Metric, Policy, Stage
from selfreward.stages import training_gate
from selfreward.stages.work import Work
from selfreward.stopping import GOES_ON
from selfreward.training.job import ALIVE, LAUNCH, REFUSED, STOP, TrainingSpec
from selfreward.training.launching import Launch, lines
from selfreward.training.log import LOG, read_log

LOOK = 1.0  # seconds between two looks at a training


class _Failed(Exception):
    """The child ended without its adapter, and may do better."""


class OutOfMemory(Exception):
    """The training has to be gone on with in smaller passes."""


def await_earlier(work: Work, job: Path) -> None:
    """A trainer holds a lock on its folder: one whose driver was killed is given its moments to be gone."""
    job.mkdir(parents=True, exist_ok=True)
    with open(job / "lock", "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            work.progress.say(f"waiting for an earlier training in {job} to end")
            fcntl.flock(lock, fcntl.LOCK_EX)


def smaller(spec: TrainingSpec, times: int, processes: int) -> TrainingSpec:
    """The same training with `micro_batch` halved that often; the rows of a step stay what they are.

    Raises `WorkFailed` where it cannot be halved so often.
    """
    micro = min(spec.micro_batch, spec.batch)
    for _ in range(times):
        fitting = [m for m in range(1, micro // 2 + 1) if spec.batch % (m * processes) == 0]
        if not fitting:
            raise WorkFailed(
                "the training ran out of memory with one row at a time: "
                "set training.gradient_checkpointing, or a smaller training.max_length"
            )
        micro = fitting[-1]
    return dataclasses.replace(spec, micro_batch=micro)


def train(work: Work, stage: Stage, policy: Policy, job: Path) -> None:
    """Runs the training of `job` to its adapter; a failure is tried again from the last checkpoint.

    Raises `WorkFailed` after `TRIES` failures at one step, `OutOfMemory`, `Interrupted`, and what the trainer
    refused.
    """
    failures, place = 0, -1
    while True:
        try:
            _attempt(work, stage, policy, job)
            return
        except _Failed as failed:
            failures, place = (failures + 1 if stage.n_done == place else 1), stage.n_done
            told = f"training {policy.name} {failed}"
            if failures == TRIES:
                raise WorkFailed(
                    f"{told}; {TRIES} times after step {place}: run the same command again once it is mended"
                ) from None
            work.trouble("restart", f"{told}: started again")


def _attempt(work: Work, stage: Stage, policy: Policy, job: Path) -> None:
    """One child, from its start to its end."""
    remove_folder(job / "adapter")
    for name in (STOP, ALIVE, REFUSED):
        (job / name).unlink(missing_ok=True)
    log = work.home / "logs" / f"{policy.name}-{stage.name}.log"
    child = _start(work, job, log)
    start = time.monotonic()
    try:
        hung = _listen(work, stage, policy, job, child)
    except BaseException:
        child.process.kill()
        child.close()
        raise
    if hung:
        child.process.kill()
    code = child.close()
    copy_log(work, stage, policy, job / LOG)
    stage.seconds += time.monotonic() - start
    if code == 0:
        return
    if (job / REFUSED).exists():
        _raise_refusal(work, stage, json.loads((job / REFUSED).read_text(encoding="utf-8")))
    if work.stop.asked:
        raise Interrupted(f"training {policy.name} was stopped by {work.stop.asked}; {GOES_ON}")
    check_room(log.parent)
    reason = f"gave no sign of life for {work.patience:g} s" if hung else f"ended with code {code}"
    raise _Failed(f"{reason}: {child.log_tail()} (log: {log})")


def _listen(work: Work, stage: Stage, policy: Policy, job: Path, child: process.Child) -> bool:
    """Copies the child's log into `metric` until it ends, or hangs: then True."""
    sign, heard, watch = None, time.monotonic(), training_gate.watch_of(work, stage)
    while child.process.poll() is None:
        copy_log(work, stage, policy, job / LOG)
        training_gate.look(work, stage, watch, job / LOG)
        if work.stop.asked:
            (job / STOP).touch()
        with contextlib.suppress(OSError):
            if (seen := (job / ALIVE).stat().st_mtime_ns) != sign:
                sign, heard = seen, time.monotonic()
        if time.monotonic() - heard > work.patience:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(timeout=LOOK)
    return False


def _raise_refusal(work: Work, stage: Stage, refused: dict[str, object]) -> None:
    if refused.get("memory"):
        raise OutOfMemory(f"training {stage.policy} ran out of memory ({refused['message']})")
    kind = {e.exit_code: e for e in (GateHalted, BadInput, Interrupted)}.get(
        int(str(refused["exit_code"])), WorkFailed
    )
    ending = f"; {GOES_ON}" if kind is Interrupted else ""
    message = f"{stage.policy}: {refused['message']}{ending}"
    if kind is GateHalted:
        training_gate.refused(work, stage, message)
    raise kind(message)


def launch_of(work: Work) -> Launch:
    """How the recipe's trainings are started; several machines meet where the run is started."""
    options = work.recipe.training
    master = socket.gethostname() if options.nodes > 1 else "127.0.0.1"
    return Launch(work.processes, options.nodes, tuple(options.launch or ()), master)


def _start(work: Work, job: Path, log: Path) -> process.Child:
    """One trainer, or as many ranks as the recipe says, each with its share of the threads."""
    launch = launch_of(work)
    if launch.world > 1:
        job = job.resolve()
        told = {"lines": lines(launch, str(job), sys.executable), "elsewhere": bool(launch.prefix)}
        write_json(job / LAUNCH, told)
        threads = max(1, work.threads // launch.processes)
        return process.start("selfreward.training.launch", [str(job)], log, threads)
    one_gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]  # several need a launcher
    extra = {"CUDA_VISIBLE_DEVICES": one_gpu}
    return process.start("selfreward.training", [str(job)], log, work.threads, extra)


def copy_log(work: Work, stage: Stage, policy: Policy, path: Path) -> None:
    """Rows of `train.jsonl` as metrics; a line that is still being written waits for the next look."""
    if not path.exists():
        return
    sft = work.recipe.start.sft
    n_rows = sft.batch if stage.name == "sft" and sft else work.recipe.training.batch
    metrics: list[Metric] = []
    for found in read_log(path):
        step, stage.n_total = found.pop("step"), found.pop("total")
        if step > stage.n_done:
            stage.n_done = step
            metrics += [
                Metric(
                    run_id=work.run.id, policy=policy.name, stage=stage.name, name=f"train/{name}", step=step,
                    **training_gate.values(value, n_rows),
                )
                for name, value in found.items()
            ]  # fmt: skip
    if metrics:
        work.store.put_metrics(metrics)
        work.store.commit_block(stage, [], 0)
    work.advance(stage)
