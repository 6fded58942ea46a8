"""TRL's trainers with our rows passed through: no text is rendered, no answer cut, no default left unsaid."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from selfreward.engines.pulse import PULSE
from selfreward.errors import BadInput, GateHalted, Interrupted
from selfreward.files import fsync, write_json
from selfreward.points import reach
from selfreward.training.checkpoints import last_sound_checkpoint, seal
from selfreward.training.driven import driven_callback
from selfreward.training.fixed import drift_callback
from selfreward.training.job import ALIVE, STOP, TrainingSpec, identity, read_job
from selfreward.training.log import LOG, cut_log, log_callback
from selfreward.training.order import in_steps, shares
from selfreward.training.preference import collator, pair_length, pair_trainer, with_reference
from selfreward.training.proof import prove


def train(folder: Path) -> None:
    """Runs or resumes the training of `folder` to its adapter.

    Raises `GateHalted` where nothing sound comes out.
    """
    import torch
    from transformers import set_seed

    from selfreward.engines.chat import Chat
    from selfreward.engines.transformers_engine import load_base

    spec, rows = read_job(folder)
    if process_of()[0] == 0:
        PULSE.to((folder / ALIVE).touch)
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic: Any = torch.utils.deterministic  # its switch is a property the module gains as it loads
    deterministic.fill_uninitialized_memory = False
    set_seed(spec.seed)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    chat = Chat(spec.model, spec.chat_template)
    base = load_base(spec.model, spec.dtype, spec.threads)
    trainer = build_trainer(spec, rows, base, chat.tokenizer, folder)
    check_active(spec, **active(trainer))
    checkpoint = _resume_point(folder)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if 0 < trainer.state.global_step < trainer.state.max_steps and (folder / STOP).exists():
        raise Interrupted(f"saved at step {trainer.state.global_step} of {trainer.state.max_steps}")
    if trainer.state.global_step == 0:
        raise GateHalted("training made no optimiser step: there are no rows")
    if trainer.is_world_process_zero():
        fsync(folder / LOG)  # its last steps must not be lost behind an adapter that is kept
        _save_adapter(trainer.model, chat, folder / "adapter")
        proof = prove(trainer.model, spec, rows, chat.pad_id) | active(trainer)
        write_json(folder / "adapter" / "proof.json", proof)


def _resume_point(folder: Path) -> Path | None:
    """The checkpoint to go on from, found by the first process alone and told to the others."""
    from accelerate.utils import broadcast_object_list

    found: list[str | None] = [None]
    if process_of()[0] == 0:
        checkpoint = last_sound_checkpoint(folder / "checkpoints", identity(folder), process_of()[1])
        cut_log(folder / LOG, int(checkpoint.name.split("-")[1]) if checkpoint else 0)
        found = [str(checkpoint) if checkpoint else None]
    if process_of()[1] > 1:
        broadcast_object_list(found, from_process=0)
    return Path(found[0]) if found[0] else None


def process_of() -> tuple[int, int]:
    """This process's rank and how many there are, as the launcher says."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def active(trainer: Any) -> dict[str, Any]:
    """What the training really ran as."""
    state = trainer.accelerator.state
    return {"distributed": state.distributed_type.value, "world_size": state.num_processes}


def check_active(spec: TrainingSpec, distributed: str, world_size: int) -> None:
    """Raises `BadInput` where other processes train together than were asked for: steps would be others."""
    if spec.processes is not None and spec.processes != world_size:
        raise BadInput(
            f"{spec.processes} processes were asked for and {world_size} train together ({distributed}): "
            "look at training.launch and at what `iterate --print-launch` shows"
        )


def build_trainer(
    spec: TrainingSpec, rows: list[dict[str, Any]], base: Any, tokenizer: Any, folder: Path
) -> Any:
    """TRL's trainer for the method with our rows passed through.

    `base` becomes a PeftModel with adapter `default`.
    """
    return (_sft_trainer if spec.method == "sft" else _dpo_trainer)(spec, rows, base, tokenizer, folder)


def _sft_trainer(
    spec: TrainingSpec, rows: list[dict[str, Any]], base: Any, tokenizer: Any, folder: Path
) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = [
        {
            "input_ids": r["prompt_ids"] + r["completion_ids"],
            "labels": [-100] * len(r["prompt_ids"])
            + (r["completion_ids"] if r["weight"] else [-100] * len(r["completion_ids"])),
        }
        for r in in_steps(rows, spec, lambda r: len(r["prompt_ids"]) + len(r["completion_ids"]))
    ]
    model = _with_adapter(base, spec)
    log = log_callback(folder / LOG)
    return _sound(SFTTrainer)(
        model=model,
        args=SFTConfig(max_length=None, **arguments(spec, folder)),
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
        callbacks=[drift_callback(folder, model, _pad_id(tokenizer), log), log, driven_callback(folder)],
    )


def _pad_id(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


def _dpo_trainer(
    spec: TrainingSpec, rows: list[dict[str, Any]], base: Any, tokenizer: Any, folder: Path
) -> Any:
    """A parent adapter goes on with itself as frozen reference; a fresh LoRA has the base as reference."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    options = DPOConfig(
        max_length=None, beta=spec.beta, loss_type=["sigmoid"], remove_unused_columns=False,
        **arguments(spec, folder),
    )  # fmt: skip
    pad_id = _pad_id(tokenizer)
    model = _with_adapter(base, spec)
    log = log_callback(folder / LOG)
    drift = drift_callback(folder, model, pad_id, log)
    known = with_reference(model, rows, spec, pad_id, *process_of())
    trainer = pair_trainer(_sound(DPOTrainer))(
        model=model,
        args=options,
        train_dataset=Dataset.from_list(in_steps(known, spec, pair_length)),
        data_collator=collator(pad_id),
        processing_class=tokenizer,
        callbacks=[drift, log, driven_callback(folder)],
    )
    trainer.model.delete_adapter("ref")  # TRL's frozen copy: its answers are in the rows already
    return trainer


def _sound(trainer: Any) -> Any:
    """The trainer class with three repairs.

    Rows keep their order, a resumed PeftModel gets its trained adapter back, and checkpoints are sealed.
    transformers 5.19 loads only sub-folders when there are any, and TRL's frozen `ref` adapter makes one:
    optimiser and scheduler resume, the adapter silently does not.
    """

    class Sound(trainer):  # type: ignore[misc]
        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            from peft import set_peft_model_state_dict
            from safetensors.torch import load_file

            weights = load_file(Path(resume_from_checkpoint) / "adapter_model.safetensors")
            found = set_peft_model_state_dict(model or self.model, weights, adapter_name="default")
            if found.unexpected_keys:
                raise RuntimeError(
                    f"checkpoint {resume_from_checkpoint} is of another adapter: {found.unexpected_keys[:3]}"
                )

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            reach("save", self.state.global_step)
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                world = self.accelerator.num_processes
                fsync(Path(self.args.output_dir).parent / LOG)  # the steps before it are told for good
                checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
                seal(checkpoint, identity(checkpoint.parent.parent), world)

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            from torch.utils.data import SequentialSampler

            return SequentialSampler(train_dataset or self.train_dataset)  # the rows lie in their order

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """Checkpoints are half-way states, not models to publish."""

    return Sound


def lora(spec: TrainingSpec) -> Any:
    """A fresh adapter's shape: every linear layer but the head, unless the spec names others."""
    from peft import LoraConfig

    targets = "all-linear" if spec.lora_targets == "auto" else spec.lora_targets
    return LoraConfig(
        r=spec.lora_r,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )


def _with_adapter(base: Any, spec: TrainingSpec) -> Any:
    from peft import PeftModel, get_peft_model

    if spec.parent_adapter:
        return PeftModel.from_pretrained(base, spec.parent_adapter, is_trainable=True)
    return get_peft_model(base, lora(spec))


def arguments(spec: TrainingSpec, folder: Path) -> dict[str, Any]:
    """Every default of the library that would change a result is stated."""
    import torch

    micro, passes = shares(spec.batch, spec.micro_batch, process_of()[1])
    return {
        "output_dir": str(folder / "checkpoints"),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": passes,
        "learning_rate": spec.lr,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
        "warmup_steps": spec.warmup,
        "num_train_epochs": 1,  # the epochs lie one after the other in the rows
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": False,  # the base is loaded in its dtype and the adapter stays float32, as in the engine
        "fp16": False,
        "gradient_checkpointing": spec.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": spec.save_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "seed": spec.seed,
        "data_seed": spec.seed,
        "use_cpu": not torch.cuda.is_available(),
        "ddp_backend": "gloo" if process_of()[1] > 1 and not torch.cuda.is_available() else None,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "disable_tqdm": True,
    }


def _save_adapter(model: Any, chat: Any, folder: Path) -> None:
    model.save_pretrained(folder, selected_adapters=["default"])
    chat.tokenizer.save_pretrained(folder)
