"""DPO on rows of token ids: TRL's trainer with our rows, our weights and a reference computed once."""

from __future__ import annotations

from typing import Any

from selfreward.engines.pulse import PULSE
from selfreward.points import reach
from selfreward.training.job import TrainingSpec
from selfreward.training.order import Row


def pair_trainer(parent: Any) -> Any:
    """A subclass of `parent`, TRL's `DPOTrainer`, that takes ids as they are and weighs each pair.

    The loss is −w·log σ(β·Δ), Δ the chosen's log-ratio to the reference less the rejected's (Rafailov et al.
    2023, equation 7). A pair with `smoothing` s has −w·((1 − s)·log σ(β·Δ) + s·log σ(−β·Δ)): with s = 1 − C
    this is CREAM's loss (arXiv 2410.12735) for a label that is trusted to C.
    """
    import torch
    from torch.nn.functional import logsigmoid

    class PairTrainer(parent):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset  # token ids already: TRL would render and tokenise text again

        def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False) -> Any:
            weight, reference = inputs["weight"], inputs["reference"]
            chosen, rejected = answer_logps(model, inputs).chunk(2)
            rewards = self.beta * (torch.stack([chosen, rejected], dim=1) - reference)
            margin = rewards[:, 0] - rewards[:, 1]
            tokens = inputs["completion_mask"].sum(dim=1).chunk(2)[0]
            self._note(weight, rewards.detach(), chosen.detach(), rejected.detach(), tokens)
            learnt = logsigmoid(margin)
            if "smoothing" in inputs:
                other = inputs["smoothing"]
                learnt = (1 - other) * learnt + other * logsigmoid(-margin)
            loss = -(weight * learnt).mean()
            return (loss, None) if return_outputs else loss

        def _note(self, weight: Any, rewards: Any, chosen: Any, rejected: Any, tokens: Any) -> None:
            """Values of every real pair of the step; TRL's `log` takes their means."""
            columns = [weight, rewards[:, 0], rewards[:, 1], chosen, rejected, tokens.to(chosen.dtype)]
            table = torch.stack(columns, dim=1)
            for w, win, lose, up, down, length in self.accelerator.gather(table).tolist():
                if w == 0.0:
                    continue
                found = {
                    "rewards/chosen": win, "rewards/rejected": lose, "rewards/margins": win - lose,
                    "rewards/accuracies": float(win > lose), "logps/chosen": up, "logps/rejected": down,
                    "tokens/chosen": length,
                }  # fmt: skip
                for name, value in found.items():
                    self._metrics["train"][name].append(value)

    return PairTrainer


def collator(pad_id: int) -> Any:
    """Rows to tensors: TRL's own for the ids, chosen above rejected, and our two columns beside them."""
    import torch
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    ids = DataCollatorForPreference(pad_token_id=pad_id)

    def collate(rows: list[Row]) -> dict[str, Any]:
        found: dict[str, Any] = ids(rows)
        found["weight"] = torch.tensor([row["weight"] for row in rows])
        for column in ("reference", "smoothing"):
            if column in rows[0]:
                found[column] = torch.tensor([row[column] for row in rows])
        return found

    return collate


def answer_logps(model: Any, inputs: dict[str, Any]) -> Any:
    """Σ log p of each row's answer tokens, `(2n,)`; the head sees no position before any answer."""
    import torch

    asked = inputs["completion_mask"][:, 1:].bool()  # position t predicts token t + 1
    first = int(asked.any(dim=0).nonzero()[0])
    kept = torch.arange(first, asked.shape[1], device=asked.device)
    logits = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        use_cache=False,
        logits_to_keep=kept,
    ).logits.float()
    targets = inputs["input_ids"][:, first + 1 :]
    picked = logits.gather(2, targets[:, :, None])[:, :, 0] - logits.logsumexp(dim=2)
    return (picked * asked[:, first:]).sum(dim=1)


def with_reference(
    model: Any, rows: list[Row], spec: TrainingSpec, pad_id: int, rank: int, world: int
) -> list[Row]:
    """The rows with `reference`: (chosen, rejected) log-probabilities under the frozen policy.

    The policy about to be trained *is* the reference; for `reference: base` its adapter is taken off. Each
    process scores its share.
    """
    import contextlib

    import torch
    from accelerate.utils import gather_object

    own = rows[rank::world]
    order = sorted(range(len(own)), key=lambda i: pair_length(own[i]))
    found: dict[int, list[float]] = {}
    collate = collator(pad_id)
    model.eval()
    bare = model.disable_adapter() if spec.reference == "base" else contextlib.nullcontext()
    with torch.no_grad(), bare:
        for start in range(0, len(order), 2 * spec.micro_batch):
            part = order[start : start + 2 * spec.micro_batch]
            reach("batch", len(part))
            PULSE.beat()
            inputs = collate([own[i] | {"weight": 1.0} for i in part])
            logps = answer_logps(model, {k: v.to(model.device) for k, v in inputs.items()})
            for i, values in zip(part, torch.stack(logps.chunk(2), dim=1).tolist(), strict=True):
                found[rank + i * world] = values
    model.train()
    everywhere = gather_object(list(found.items())) if world > 1 else list(found.items())
    known = dict(everywhere)
    return [row | {"reference": known[i]} for i, row in enumerate(rows)]


def pair_length(row: Row) -> int:
    """Tokens of the longer side."""
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
