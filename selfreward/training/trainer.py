"""TRL's trainers with our rows passed through: no text is rendered, no answer cut, no default left unsaid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfreward.errors import GateHalted
from selfreward.files import write_json
from selfreward.training.checkpoints import last_sound_checkpoint, seal
from selfreward.training.job import TrainingSpec, read_job
from selfreward.training.log import cut_log, log_callback
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
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic: Any = torch.utils.deterministic  # its switch is a property the module gains as it loads
    deterministic.fill_uninitialized_memory = False
    set_seed(spec.seed)
    chat = Chat(spec.model, spec.chat_template)
    base = load_base(spec.model, spec.dtype, spec.threads)
    trainer = build_trainer(spec, rows, base, chat.tokenizer, folder)
    checkpoint = last_sound_checkpoint(folder / "checkpoints")
    cut_log(folder / "train.jsonl", int(checkpoint.name.split("-")[1]) if checkpoint else 0)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.state.global_step == 0:
        raise GateHalted("training made no optimiser step: there are fewer rows than one batch needs")
    _save_adapter(trainer.model, chat, folder / "adapter")
    write_json(folder / "adapter" / "proof.json", prove(trainer.model, spec, rows, chat.pad_id))


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
            "labels": [-100] * len(r["prompt_ids"]) + r["completion_ids"],
        }
        for r in rows
    ]
    return _sound(SFTTrainer)(
        model=_with_adapter(base, spec),
        args=SFTConfig(max_length=None, **_arguments(spec, folder)),
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
        callbacks=[log_callback(folder / "train.jsonl")],
    )


def _dpo_trainer(
    spec: TrainingSpec, rows: list[dict[str, Any]], base: Any, tokenizer: Any, folder: Path
) -> Any:
    """A parent adapter continues with itself as frozen reference; a fresh LoRA has the base as reference."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class PairTrainer(_sound(DPOTrainer)):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset  # token ids already: TRL would render and tokenise text again

    trainer = PairTrainer(
        model=_with_adapter(base, spec) if spec.parent_adapter else base,
        args=DPOConfig(max_length=None, beta=spec.beta, loss_type=["sigmoid"], **_arguments(spec, folder)),
        train_dataset=Dataset.from_list(
            [{k: r[k] for k in ("prompt_ids", "chosen_ids", "rejected_ids")} for r in rows]
        ),
        processing_class=tokenizer,
        peft_config=None if spec.parent_adapter else _lora(spec),
        callbacks=[log_callback(folder / "train.jsonl")],
    )
    if spec.reference == "base" and "ref" in trainer.model.peft_config:
        trainer.model.delete_adapter("ref")  # TRL then switches adapters off for the reference
    return trainer


def _sound(trainer: Any) -> Any:
    """The trainer class with two repairs.

    A resumed PeftModel gets its trained adapter back, and checkpoints are sealed. transformers 5.19 loads
    only sub-folders when there are any, and TRL's frozen `ref` adapter makes one: optimiser and scheduler
    resume, the adapter silently does not.
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
            super()._save_checkpoint(model, trial)
            seal(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """Checkpoints are half-way states, not models to publish."""

    return Sound


def _lora(spec: TrainingSpec) -> Any:
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
    return get_peft_model(base, _lora(spec))


def _arguments(spec: TrainingSpec, folder: Path) -> dict[str, Any]:
    """Every default of the library that would change a result is stated."""
    import torch

    micro = min(spec.micro_batch, spec.batch)
    return {
        "output_dir": str(folder / "checkpoints"),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": max(1, spec.batch // micro),
        "learning_rate": spec.lr,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
        "warmup_steps": spec.warmup,
        "num_train_epochs": spec.epochs,
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
        "dataloader_pin_memory": torch.cuda.is_available(),
        "disable_tqdm": True,
    }


def _save_adapter(model: Any, chat: Any, folder: Path) -> None:
    model.save_pretrained(folder, selected_adapters=["default"])
    chat.tokenizer.save_pretrained(folder)
