"""The proof an adapter carries: its trainer's own log-probabilities of fixed token ids."""

from __future__ import annotations

import math
from typing import Any

from selfreward.training.job import TrainingSpec

PROOF_ROWS = 4


def prove(model: Any, spec: TrainingSpec, rows: list[dict[str, Any]], pad_id: int) -> dict[str, Any]:
    """The trainer's own log-probabilities of fixed tokens, under the new adapter and under the parent.

    `noise` is the mean absolute difference between scoring a row alone and in a padded batch: what rounding
    alone does in this dtype. `moved` is the mean absolute difference to the parent, both in nats a token.
    """
    key = "completion_ids" if spec.method == "sft" else "chosen_ids"
    fixed = [(r["prompt_ids"], r[key]) for r in rows[:PROOF_ROWS]]
    model.eval()
    model.set_adapter("default")
    alone = [logprobs_of(model, [pair], pad_id)[0] for pair in fixed]
    together = logprobs_of(model, fixed, pad_id)
    if spec.parent_adapter:
        model.load_adapter(spec.parent_adapter, "parent")
        model.set_adapter("parent")
        parent = [logprobs_of(model, [pair], pad_id)[0] for pair in fixed]
        model.set_adapter("default")
    else:
        with model.disable_adapter():
            parent = [logprobs_of(model, [pair], pad_id)[0] for pair in fixed]
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


def logprobs_of(model: Any, pairs: list[tuple[list[int], list[int]]], pad_id: int) -> list[list[float]]:
    """Log-probability of every completion token of rows padded on the right, `(n, len(completion))`."""
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
