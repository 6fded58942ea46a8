"""Stages `sft` and `train`: freeze the rows, let the trainer child make the adapter, take it in.

Starting freezes what is read: `trained_on` and a rows file with its sha256. The same job started again
resumes from the last sound checkpoint; an adapter that is already in place is adopted, not made twice.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from selfreward.engines import adapter as adapters
from selfreward.engines.adapter import WEIGHTS
from selfreward.errors import BadInput, GateHalted
from selfreward.files import place_folder, remove_folder, sha256_of, write_json
from selfreward.ids import derive_seed, unpack_ids
from selfreward.records import Policy, Stage, TrainedOn
from selfreward.stages import mixing, trainer_child, training_gate
from selfreward.stages import prompts as prompts_stage
from selfreward.stages.sft import check_files, sft_rows
from selfreward.stages.standing import trains_soft
from selfreward.stages.work import Work, flat
from selfreward.training.job import TrainingSpec, write_job, write_spec
from selfreward.training.launching import shown
from selfreward.training.log import LOG
from selfreward.training.order import shares

JOB = "job.json"  # in the adapter folder: which rows and settings made it
# Adapters' worth of disk: three checkpoints of three (weights, Adam's two moments), and the adapter.
ROOM = 10


def made_from_sft(work: Work, policy: Policy) -> dict[str, Any]:
    """What decides M1."""
    sft = work.recipe.start.sft
    if sft is None:
        given = work.recipe.start.adapter
        weights = (work.recipe_file.parent / Path(given).expanduser() / WEIGHTS) if given else None
        return {
            "start.sft": None,
            "start.adapter": sha256_of(weights) if weights and weights.is_file() else None,
        }
    files = [sft.file, *([sft.judge_file] if sft.judge_file else [])]
    rubric = sha256_of(work.file(work.recipe.judge.rubric))
    hashes: dict[str, Any] = {"judge.rubric": rubric} if sft.judge_file else {}
    hashes |= {"held_out": [sha256_of(f) for f in prompts_stage.held_out_files(work)]}
    hashes |= {f"start.sft.sha256.{i}": sha256_of(work.file(f)) for i, f in enumerate(files)}
    options = {k: v for k, v in flat(sft, "start.sft").items() if k != "start.sft.save_steps"}
    return options | hashes | flat(work.recipe.training.lora, "training.lora") | _decided(work, policy)


def made_from_train(work: Work, policy: Policy) -> dict[str, Any]:
    """What decides M2, M3, … besides the pairs."""
    apart = ("training.save_steps", "training.launch", *mixing.KEYS)
    options = {k: v for k, v in flat(work.recipe.training, "training").items() if k not in apart}
    own = {"pair_weight": "label"} if trains_soft(work.recipe) else {}
    return options | mixing.made_from(work) | own | _decided(work, policy)


def _decided(work: Work, policy: Policy) -> dict[str, Any]:
    """Machine, versions and weights; `training.processes` with its default resolved."""
    keys = work.decided_by_engine(work.policy(policy.parent or "M0"))
    served = ("engine.batch", "engine.block", "engine.type", "engine.served_model")
    own = {"training.processes": work.processes, "engine.threads": work.threads}
    return {k: v for k, v in keys.items() if k not in served} | own


def check(work: Work) -> None:
    """Before any work: what M1 is made from can be read, and steps can be shared by the processes."""
    check_files(work)
    if work.recipe.start.adapter and "M1" not in work.store.policies(work.run.id):
        _given_adapter(work)
    sft, training = work.recipe.start.sft, work.recipe.training
    world = trainer_child.launch_of(work).world
    shares(training.batch, training.micro_batch, world)
    if sft:
        shares(sft.batch, sft.micro_batch, world)


def run(work: Work, stage: Stage) -> str:
    """Trains the policy the stage is of, or goes on with it."""
    policy = work.policy(stage.policy)
    home = work.home / policy.name
    job, spec = home / "training", _spec(work, stage, policy)
    _check_room(work, spec)
    rows = _rows(work, stage, policy)
    job.mkdir(parents=True, exist_ok=True)
    training_gate.write_fixed(work, policy, job)
    work.close_engine()  # its memory is the trainer's now
    trainer_child.await_earlier(work, job)
    fingerprint = {"rows_sha256": write_job(job, spec, rows), "fingerprint": stage.fingerprint}
    if not _is_adopted(home / "adapter", fingerprint):
        remove_folder(home / "adapter")
        work.clock.timed("training", lambda: _train(work, stage, policy, job))
        write_json(job / "adapter" / JOB, fingerprint)
        place_folder(job / "adapter", home / "adapter")
    trainer_child.copy_log(work, stage, policy, job / LOG)
    training_gate.conclude(work, stage, job / LOG)
    shutil.rmtree(job / "checkpoints", ignore_errors=True)
    return f"trained on {len(rows)} rows in {stage.n_done} steps"


def _train(work: Work, stage: Stage, policy: Policy, job: Path) -> None:
    """Trains in passes that fit the memory; what was found out of it holds for the stage, resumed or not."""
    spec, world = _spec(work, stage, policy), trainer_child.launch_of(work).world
    while True:
        write_spec(job, trainer_child.smaller(spec, work.halvings, world))
        try:
            return trainer_child.train(work, stage, policy, job)
        except trainer_child.OutOfMemory as error:
            less = trainer_child.smaller(spec, work.halvings + 1, world).micro_batch
            work.trouble("memory", f"{error}: going on with {less} at once")


def adapter_of(work: Work, policy: Policy) -> tuple[str, str]:
    """Relative path and sha256 of a trained policy's adapter.

    Raises `GateHalted` if it equals its parent's.
    """
    path = work.home / policy.name / "adapter"
    found = sha256_of(path / WEIGHTS)
    parent = work.policy(policy.parent or "M0")
    if found == parent.sha256:
        raise GateHalted(
            f"the adapter of {policy.name} equals that of {parent.name}: training changed nothing"
        )
    return str(path.relative_to(work.folder)), found


def _given_adapter(work: Work) -> Path:
    """The folder that `start.adapter` names, if it fits the base."""
    given = (work.recipe_file.parent / Path(work.recipe.start.adapter or "").expanduser()).resolve()
    try:
        adapters.check(given, work.base)
    except BadInput as error:
        raise BadInput(f"start.adapter: {error}") from None
    return given


def take_adapter(work: Work, policy: Policy) -> tuple[str, str]:
    """Copies the LoRA folder that `start.adapter` names into the run; relative path and sha256."""
    given = _given_adapter(work)
    target, copy = work.home / policy.name / "adapter", work.home / policy.name / "adapter.part"
    if not target.exists():
        remove_folder(copy)
        shutil.copytree(given, copy)
        place_folder(copy, target)
    return str(target.relative_to(work.folder)), sha256_of(target / WEIGHTS)


def _is_adopted(adapter: Path, fingerprint: dict[str, Any]) -> bool:
    """Whether a finished adapter of exactly this job is in place: a crash came between rename and commit."""
    with contextlib.suppress(OSError, ValueError):
        return bool(json.loads((adapter / JOB).read_text(encoding="utf-8")) == fingerprint)
    return False


def _spec(work: Work, stage: Stage, policy: Policy) -> TrainingSpec:
    parent = work.policy(policy.parent or "M0")
    options, lora = work.recipe.training, work.recipe.training.lora
    own = work.recipe.start.sft if stage.name == "sft" else options
    if own is None:
        raise BadInput("start.sft is null: there is nothing to train")
    return TrainingSpec(
        method="sft" if stage.name == "sft" else "dpo",
        model=str(work.base),
        parent_adapter=work.adapter(parent),
        dtype=work.dtype,
        threads=max(1, work.threads // work.processes),
        seed=derive_seed(work.recipe.seed, stage.name, policy.idx) % 2**31,
        lr=own.lr,
        epochs=own.epochs,
        batch=own.batch,
        micro_batch=own.micro_batch,
        warmup=own.warmup,
        save_steps=own.save_steps,
        lora_r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        lora_targets=lora.targets,
        beta=options.beta,
        reference=options.reference,
        chat_template=work.chat_template,
        gradient_checkpointing=options.gradient_checkpointing,
        processes=trainer_child.launch_of(work).world,
    )


def _rows(work: Work, stage: Stage, policy: Policy) -> list[dict[str, Any]]:
    """The training's token ids; the first start freezes them, later ones read what is frozen."""
    frozen = bool(work.store.trained_on(work.run.id, policy.name))
    made = sft_rows(work) if stage.name == "sft" else _mixed_rows(work, policy, frozen)
    if not made:
        raise GateHalted(f"{policy.name} has nothing to train on")
    if not frozen:
        for position, (record, _) in enumerate(made):
            record.run_id, record.policy, record.position = work.run.id, policy.name, position
        work.store.add([record for record, _ in made])
    return [row for _, row in made]


def _mixed_rows(work: Work, policy: Policy, frozen: bool) -> list[tuple[TrainedOn, dict[str, Any]]]:
    """The iteration's pairs, then older ones, then judgements with a known score."""
    if frozen:
        old = _pair_rows(work, work.store.frozen_pairs(work.run.id, policy.name))
        return old + mixing.frozen_judgements(work, policy)
    pairs = work.store.pairs_to_train(work.run.id, policy.parent or "M0")
    if not pairs:
        return []
    replayed = _pair_rows(work, mixing.replayed(work, policy, len(pairs)), "replay")
    return _pair_rows(work, pairs) + replayed + mixing.judgements(work, policy, len(pairs))


def _pair_rows(work: Work, pairs: list[Any], kind: str = "pair") -> list[tuple[TrainedOn, dict[str, Any]]]:
    prompts = work.engine.chat_ids([json.loads(p.messages) for p in pairs])
    soft = trains_soft(work.recipe)
    return [
        (
            TrainedOn(run_id=0, policy="", position=0, kind=kind, pair_id=p.id, weight=p.weight),
            {
                "prompt_ids": ids,
                "chosen_ids": unpack_ids(p.chosen),
                "rejected_ids": unpack_ids(p.rejected),
                **({"weight": 1.0, "smoothing": 1.0 - p.weight} if soft else {"weight": p.weight}),
            },
        )
        for p, ids in zip(pairs, prompts, strict=True)
    ]


def _check_room(work: Work, spec: TrainingSpec) -> None:
    """Refuses to start a training whose files would not fit on the disk."""
    adapter = adapters.size(json.loads((work.base / "config.json").read_text(encoding="utf-8")), spec.lora_r)
    free = shutil.disk_usage(work.folder).free
    if free < ROOM * adapter:
        raise BadInput(
            f"{work.folder} has {free / 2**20:.1f} MiB free; the next training needs about "
            f"{ROOM * adapter / 2**20:.1f} MiB. "
            "Make room and run the same command again"
        )


def print_launch(work: Work) -> str:
    """The commands that would make M2, for `iterate --print-launch`."""
    launch, job = trainer_child.launch_of(work), (work.folder / "M2" / "training").resolve()
    shares(work.recipe.training.batch, work.recipe.training.micro_batch, launch.world)
    if launch.world == 1:
        return f"{sys.executable} -P -m selfreward.training {job}"
    return shown(launch, str(job), sys.executable)
