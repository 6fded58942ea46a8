"""Teacher-forced log-probabilities of fixed texts while a training runs: how far it has gone, without a draw.

The texts are the parent's own answers to prompts nobody trains on, so that the mean of log π_parent − log π
over their tokens is an estimate of KL[π_parent ‖ π] (k1). Nothing is sampled and no random state is touched:
the training is the same with and without it. Every process scores them all, as a sharded model needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selfreward import stats
from selfreward.training.proof import logprobs_of

FIXED = "fixed.jsonl"  # in the job's folder: rows of prompt_ids, completion_ids
TEXTS = 16  # that are scored: about one step's work on the demo policy
LOOKS = 4  # at a training: after each quarter but the last, which the probe measures
TOGETHER = 4  # texts a forward pass


def read_fixed(folder: Path) -> list[tuple[list[int], list[int]]]:
    """Prompt and completion ids of the fixed texts of a job; none where the driver left none."""
    path = folder / FIXED
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [(row["prompt_ids"], row["completion_ids"]) for row in map(json.loads, lines)]


def drift_callback(folder: Path, model: Any, pad_id: int, log: Any) -> Any:
    """A trainer callback that hands `log` the drift at its steps; `model` is still the parent now."""
    from transformers import TrainerCallback

    texts = read_fixed(folder)
    before = _sums(model, texts, pad_id)

    class Drift(TrainerCallback):  # type: ignore[misc]
        """Scores the fixed texts after every quarter of the steps."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            every = max(1, -(-state.max_steps // LOOKS))
            if texts and state.global_step % every == 0 and state.global_step < state.max_steps:
                after = _sums(kwargs["model"], texts, pad_id)
                log.note(drift=_drift(before, after, [len(c) for _, c in texts]))

    return Drift()


def _drift(before: list[float], after: list[float], tokens: list[int]) -> dict[str, float]:
    lost = [a - b for a, b in zip(before, after, strict=True)]
    found = stats.interval_of(stats.linearised(lost, tokens))
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def _sums(model: Any, texts: list[tuple[list[int], list[int]]], pad_id: int) -> list[float]:
    """Σ log p of each text's tokens, in evaluation mode, which is undone."""
    training = model.training
    model.eval()
    parts = [texts[i : i + TOGETHER] for i in range(0, len(texts), TOGETHER)]
    found = [sum(row) for part in parts for row in logprobs_of(model, part, pad_id)]
    model.train(training)
    return found
