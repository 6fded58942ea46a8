"""A reward model in a child of its own: a sequence classifier with one output, chats in, numbers out.

It knows the classifier's own tokenizer and template, and nothing of policies. Chats go in by length, padded
on the right and masked, so that a chat's number is its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfreward.errors import BadInput
from selfreward.protocols import Message


class RewardModel:
    """`AutoModelForSequenceClassification` from a folder; `batch` chats share a forward pass."""

    def __init__(
        self, model: str, *, dtype: str = "auto", batch: int = 16, threads: int | None = None
    ) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from selfreward.engines.transformers_engine import resolve_dtype

        if threads:
            torch.set_num_threads(threads)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded = AutoModelForSequenceClassification.from_pretrained(model, dtype=resolve_dtype(dtype))
        if loaded.config.num_labels != 1:
            raise BadInput(
                f"{model} gives {loaded.config.num_labels} numbers a text: a reward model has one output"
            )
        self.model: Any = loaded.to(device).eval()
        if self.model.config.pad_token_id is None:  # where the last token is, is told by what is no padding
            self.model.config.pad_token_id = self._pad
        self._batch = batch

    def rewards(self, chats: Sequence[Sequence[Message]]) -> list[float | None]:
        """One number a chat that ends in an answer; None for one that exceeds the context."""
        import torch

        rows = [self._ids(chat) for chat in chats]
        found: list[float | None] = [None] * len(rows)
        fits = sorted(
            (i for i, ids in enumerate(rows) if len(ids) <= self._context), key=lambda i: len(rows[i])
        )
        for start in range(0, len(fits), self._batch):
            part = fits[start : start + self._batch]
            width = len(rows[part[-1]])
            ids = torch.tensor([rows[i] + [self._pad] * (width - len(rows[i])) for i in part])
            mask = torch.tensor([[1] * len(rows[i]) + [0] * (width - len(rows[i])) for i in part])
            with torch.inference_mode():
                inputs = {
                    "input_ids": ids.to(self.model.device),
                    "attention_mask": mask.to(self.model.device),
                }
                logits = self.model(**inputs).logits.float()
            for i, value in zip(part, logits[:, 0].tolist(), strict=True):
                found[i] = value
        return found

    def _ids(self, chat: Sequence[Message]) -> list[int]:
        """By its own chat template; a classifier without one reads request and answer as two texts."""
        if not self.tokenizer.chat_template:
            asked = "\n".join(m["content"] for m in chat[:-1])
            ids: list[int] = self.tokenizer(asked, chat[-1]["content"], split_special_tokens=True)[
                "input_ids"
            ]
            return ids
        whole = self.tokenizer.apply_chat_template(
            [{"role": m["role"], "content": self._plain(m["content"])} for m in chat], tokenize=False
        )
        found: list[int] = self.tokenizer(whole, add_special_tokens=False)["input_ids"]
        return found

    def _plain(self, text: str) -> str:
        """Control tokens inside a text broken by a zero-width space, so that none is parsed."""
        added = [str(t) for t in self.tokenizer.added_tokens_decoder.values() if t.special]
        for token in sorted({*added, *self.tokenizer.all_special_tokens}, key=len, reverse=True):
            if len(token) > 1:
                text = text.replace(token, token[0] + "\u200b" + token[1:])
        return text

    @property
    def _pad(self) -> int:
        """An id to fill rows with; where there is none of its own, one that ends texts."""
        known = (self.tokenizer.pad_token_id, self.model.config.pad_token_id, self.tokenizer.eos_token_id)
        return int(next((i for i in known if i is not None), 0))

    @property
    def _context(self) -> int:
        return int(getattr(self.model.config, "max_position_embeddings", 0) or 2**31)


def is_classifier(folder: Path) -> bool:
    """Whether a model folder says that it is one: to be known before anything starts."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return any("SequenceClassification" in name for name in config.get("architectures") or [])
