"""What the driver hands a trainer: a spec and rows of token ids, in a folder; cheap to import."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.files import sha256_of, sha256_of_text, write_json, write_text

LAUNCH = "launch.json"  # the command lines of a training of several processes
REFUSED = "refused.json"  # why a training ended itself: exit code and message, and whether memory ran out
STOP = "stop"  # there while the driver wants the training to save a checkpoint and end
ALIVE = "alive"  # touched by a training at work


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """All that decides an adapter besides its rows.

    Learning rates are LoRA's; `batch` counts rows per optimiser step.

    `method` is "sft" (rows of `prompt_ids`, `completion_ids`) or "dpo" (`prompt_ids`, `chosen_ids`,
    `rejected_ids`). `reference` is "previous" (the parent as it was) or "base". `micro_batch` rows share a
    forward pass. `processes` is how many must train together, None whatever a launcher starts.
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
    processes: int | None = None


def read_job(folder: Path) -> tuple[TrainingSpec, list[dict[str, Any]]]:
    """The trainer's side: spec and rows as `write_job` left them."""
    spec = TrainingSpec(**json.loads((folder / "spec.json").read_text(encoding="utf-8")))
    return spec, [json.loads(x) for x in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]


def write_job(folder: Path, spec: TrainingSpec, rows: list[dict[str, Any]]) -> str:
    """The driver's side: leaves spec and rows in `folder`; returns the sha256 of the rows file.

    Equal calls write equal bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(r, separators=(",", ":")) + "\n" for r in rows)
    write_text(folder / "rows.jsonl", text)
    write_spec(folder, spec)
    return sha256_of_text(text)


def write_spec(folder: Path, spec: TrainingSpec) -> None:
    """Leaves the spec alone: the same rows in other passes."""
    write_json(folder / "spec.json", dataclasses.asdict(spec))


def identity(folder: Path) -> str:
    """Sha256 of what decides the adapter: nobody goes on from the half-way state of other rows or settings.

    How a step is cut into passes and how often it is saved decide nothing.
    """
    spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    decided = {k: v for k, v in spec.items() if k not in ("micro_batch", "save_steps", "threads")}
    return sha256_of_text(json.dumps([decided, sha256_of(folder / "rows.jsonl")], sort_keys=True))
