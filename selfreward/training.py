"""The trainer child: rows of token ids and a parent adapter in, an adapter folder with its proof out.

`python -m selfreward.training FOLDER` reads `FOLDER/spec.json` and `FOLDER/rows.jsonl` and leaves
`FOLDER/adapter`. Nothing is rendered or tokenised here: prompt ids are what the engine was fed and completion
ids what it sampled. It knows no rubric, no recipe and no store; the driver tails `FOLDER/train.jsonl` and
moves the finished folder.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.errors import GateHalted, SelfRewardError
from selfreward.files import fsync, sha256_of, sha256_of_text, write_json, write_text

PROOF_ROWS = 4
MANIFEST = "complete.json"


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """All that decides an adapter besides its rows.

    Learning rates are LoRA's; `batch` counts rows per optimiser step.

    `method` is "sft" (rows of `prompt_ids`, `completion_ids`) or "dpo" (`prompt_ids`, `chosen_ids`,
    `rejected_ids`). `reference` is "previous" (the parent as it was) or "base". `micro_batch` rows share a
    forward pass.
    """

    method: str
    model: str
    parent_adapter: str | None
    dtype: str
    threads: int
    seed: int
    lr: float
    epochs: float
    batch: int
    micro_batch: int
    warmup: float
    save_steps: int
    lora_r: int
    lora_alpha: int
    lora_dropout: float
    lora_targets: str | list[str]
    beta: float = 0.1
    reference: str = "previous"
    chat_template: str | None = None
    gradient_checkpointing: bool = False


def train(folder: Path) -> None:
    """Runs or resumes the training of `folder` to its adapter.

    Raises `GateHalted` where nothing sound comes out.
    """
    import torch
    from transformers import set_seed

    from selfreward.engines.chat import Chat
    from selfreward.engines.transformers_engine import load_base

    spec = TrainingSpec(**json.loads((folder / "spec.json").read_text(encoding="utf-8")))
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic: Any = torch.utils.deterministic  # its switch is a property the module gains as it loads
    deterministic.fill_uninitialized_memory = False
    set_seed(spec.seed)
    chat = Chat(spec.model, spec.chat_template)
    base = load_base(spec.model, spec.dtype, spec.threads)
    trainer = build_trainer(spec, rows, base, chat.tokenizer, folder)
    checkpoint = last_sound_checkpoint(folder / "checkpoints")
    _cut_log(folder / "train.jsonl", int(checkpoint.name.split("-")[1]) if checkpoint else 0)
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
        callbacks=[_log_callback(folder / "train.jsonl")],
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
        callbacks=[_log_callback(folder / "train.jsonl")],
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


LOGGED = {  # TRL's names → ours, the ones the store keeps as metrics
    "loss": "loss",
    "learning_rate": "lr",
    "grad_norm": "grad_norm",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "logps/chosen": "logp_chosen",
    "logps/rejected": "logp_rejected",
    "mean_token_accuracy": "token_accuracy",
}


def _log_callback(path: Path) -> Any:
    from transformers import TrainerCallback

    class Log(TrainerCallback):  # type: ignore[misc]
        """Appends one line a step and stops a training whose loss is no longer a number."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._write({"step": state.global_step, "total": state.max_steps})

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            line = {ours: logs[theirs] for theirs, ours in LOGGED.items() if theirs in (logs or {})}
            if "loss" not in line:
                return
            bad = sorted(k for k, v in line.items() if not math.isfinite(v))
            self._write({"step": state.global_step, "total": state.max_steps} | line)
            if bad:
                raise GateHalted(f"training is not finite at step {state.global_step}: {', '.join(bad)}")

        def _write(self, line: dict[str, Any]) -> None:
            with open(path, "a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")

    return Log()


def _cut_log(path: Path, step: int) -> None:
    """Drops the lines of steps after the checkpoint that is resumed from: they will be written again."""
    if not path.exists():
        return
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    kept = [line for line in lines if "loss" in json.loads(line) and json.loads(line)["step"] <= step]
    path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def seal(checkpoint: Path) -> None:
    """Writes the manifest that makes a checkpoint count, last, after all its files are on the disk."""
    files = sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != MANIFEST)
    for path in files:
        fsync(path)
    write_json(checkpoint / MANIFEST, {str(p.relative_to(checkpoint)): sha256_of(p) for p in files})


def last_sound_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all there and equal to its manifest.

    Torn ones are renamed out of the way.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: -int(p.name.split("-")[1]))
    for checkpoint in found:
        if _is_sound(checkpoint):
            return checkpoint
        print(f"{checkpoint.name} is not complete: set aside", file=sys.stderr)
        checkpoint.rename(checkpoint.with_name(f"torn-{checkpoint.name}-{os.getpid()}"))
    return None


def _is_sound(checkpoint: Path) -> bool:
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((checkpoint / n).is_file() and sha256_of(checkpoint / n) == h for n, h in manifest.items())


def _save_adapter(model: Any, chat: Any, folder: Path) -> None:
    model.save_pretrained(folder, selected_adapters=["default"])
    chat.tokenizer.save_pretrained(folder)


def prove(model: Any, spec: TrainingSpec, rows: list[dict[str, Any]], pad_id: int) -> dict[str, Any]:
    """The trainer's own log-probabilities of fixed tokens, under the new adapter and under the parent.

    `noise` is the mean absolute difference between scoring a row alone and in a padded batch: what rounding
    alone does in this dtype. `moved` is the mean absolute difference to the parent, both in nats a token.
    """
    key = "completion_ids" if spec.method == "sft" else "chosen_ids"
    fixed = [(r["prompt_ids"], r[key]) for r in rows[:PROOF_ROWS]]
    model.eval()
    model.set_adapter("default")
    alone = [_score(model, [pair], pad_id)[0] for pair in fixed]
    together = _score(model, fixed, pad_id)
    if spec.parent_adapter:
        model.load_adapter(spec.parent_adapter, "parent")
        model.set_adapter("parent")
        parent = [_score(model, [pair], pad_id)[0] for pair in fixed]
        model.set_adapter("default")
    else:
        with model.disable_adapter():
            parent = [_score(model, [pair], pad_id)[0] for pair in fixed]
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "noise": mean_gap(alone, together),
        "moved": mean_gap(alone, parent),
        "rows": [
            {"prompt_ids": p, "completion_ids": c, "logprobs": a, "parent_logprobs": b}
            for (p, c), a, b in zip(fixed, alone, parent, strict=True)
        ],
    }


def mean_gap(left: list[list[float]], right: list[list[float]]) -> float:
    """Mean absolute difference over all tokens of rows of equal lengths."""
    gaps = [abs(a - b) for xs, ys in zip(left, right, strict=True) for a, b in zip(xs, ys, strict=True)]
    return math.fsum(gaps) / len(gaps)


def _score(model: Any, pairs: list[tuple[list[int], list[int]]], pad_id: int) -> list[list[float]]:
    import torch

    width = max(len(p) + len(c) for p, c in pairs)
    ids = torch.tensor(
        [[*p, *c] + [pad_id] * (width - len(p) - len(c)) for p, c in pairs], device=model.device
    )
    mask = torch.tensor(
        [[1] * (len(p) + len(c)) + [0] * (width - len(p) - len(c)) for p, c in pairs], device=model.device
    )
    with torch.no_grad():
        logprobs = (
            model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        )
    picked = logprobs.gather(2, ids[:, 1:, None])[:, :, 0]
    return [picked[i, len(p) - 1 : len(p) - 1 + len(c)].tolist() for i, (p, c) in enumerate(pairs)]


def write_job(folder: Path, spec: TrainingSpec, rows: list[dict[str, Any]]) -> str:
    """The driver's side: leaves spec and rows in `folder`; returns the sha256 of the rows file.

    Equal calls write equal bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(r, separators=(",", ":")) + "\n" for r in rows)
    write_text(folder / "rows.jsonl", text)
    write_json(folder / "spec.json", dataclasses.asdict(spec))
    return sha256_of_text(text)


def main() -> int:
    """Holds the folder's lock, trains, and ends with the exit code of what went wrong."""
    from selfreward.engines.process import join_driver

    join_driver(watch=True)
    folder = Path(sys.argv[1])
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            train(folder)
        except SelfRewardError as error:
            print(error, file=sys.stderr)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
