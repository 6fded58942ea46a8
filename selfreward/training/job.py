"""What the driver hands a trainer: a spec and rows of token ids, in a folder; cheap to import."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.files import sha256_of_text, write_json, write_text

LAUNCH = "launch.json"  # the command lines of a training of several processes
REFUSED = "refused.json"  # why a training ended itself: exit code and message


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
    write_json(folder / "spec.json", dataclasses.asdict(spec))
    return sha256_of_text(text)
