"""`train.jsonl`: a line a step, which the driver copies into the store while the training runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from selfreward.errors import GateHalted
from selfreward.files import write_text
from selfreward.points import reach

LOG = "train.jsonl"

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
    "tokens/chosen": "chosen_tokens",
    "mean_token_accuracy": "token_accuracy",
}


def log_callback(path: Path) -> Any:
    """A trainer callback that appends a line a step and halts where a number is not finite."""
    from transformers import TrainerCallback

    class Log(TrainerCallback):  # type: ignore[misc]
        """Appends one line a step and stops a training whose loss is no longer a number."""

        def __init__(self) -> None:
            self.noted: dict[str, Any] = {}

        def note(self, **found: Any) -> None:
            """Something else of the step that ends now, for its line."""
            self.noted |= found

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                self._write({"step": state.global_step, "total": state.max_steps})

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            line = {ours: logs[theirs] for theirs, ours in LOGGED.items() if theirs in (logs or {})}
            if "loss" not in line:
                return
            bad = sorted(k for k, v in line.items() if not math.isfinite(v))
            reach("step", state.global_step)
            if state.is_world_process_zero:
                self._write({"step": state.global_step, "total": state.max_steps} | line | self.noted)
            self.noted = {}
            reach("step told", state.global_step)
            if bad:
                raise GateHalted(f"training is not finite at step {state.global_step}: {', '.join(bad)}")

        def _write(self, line: dict[str, Any]) -> None:
            with open(path, "a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")

    return Log()


def cut_log(path: Path, step: int) -> None:
    """Drops the lines of steps after the checkpoint that is resumed from: they will be written again."""
    if not path.exists():
        return
    told = [line for line in read_log(path) if "loss" in line and line["step"] <= step]
    write_text(path, "".join(json.dumps(line) + "\n" for line in told))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines up to the first that is not whole: still being written, or torn by a power cut."""
    found: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            found.append(json.loads(line))
        except ValueError:
            break
        if not line.endswith("\n"):
            found.pop()
    return found
