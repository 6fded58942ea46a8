"""Attention of a decoding step without copies: the same numbers as `sdpa`, and really used by the engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.integrations import sdpa_attention

from selfreward.engines.attention import attend
from selfreward.engines.transformers_engine import TransformersEngine
from selfreward.protocols import Request, Sampling

HEADS, SHARED, WIDTH, N, SEEN = 6, 2, 8, 3, 11
MODULE = SimpleNamespace(num_key_value_groups=HEADS // SHARED, is_causal=True)


def drawn(new: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """Query, keys and values as a layer gives them."""
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(N, HEADS, new, WIDTH, generator=g),
        torch.randn(N, SHARED, SEEN, WIDTH, generator=g),
        torch.randn(N, SHARED, SEEN, WIDTH, generator=g),
    )


def padded(new: int) -> torch.Tensor:
    """A mask of rows with 0, 2 and 4 positions of padding on the left."""
    mask = torch.ones(N, 1, new, SEEN, dtype=torch.bool)
    for row in range(N):
        mask[row, :, :, : 2 * row] = False
    return mask


@pytest.mark.parametrize("masked", [True, False])
def test_one_new_token_is_attended_as_sdpa_attends_it(masked: bool) -> None:
    """Guards: query heads given to the keys of another group, a mask or a scale forgotten."""
    mask = padded(1) if masked else None
    found, _ = attend(MODULE, *drawn(1), mask, scaling=0.5)
    wanted, _ = sdpa_attention.sdpa_attention_forward(MODULE, *drawn(1), mask, scaling=0.5)
    assert found.shape == (N, 1, HEADS, WIDTH)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("new", "more"),
    [
        (4, {}),
        (1, {"position_bias": torch.linspace(0, 3, SEEN).expand(N, HEADS, 1, SEEN)}),
        (1, {"dropout": 1.0}),
    ],
)
def test_anything_else_is_left_to_sdpa(new: int, more: dict[str, Any]) -> None:
    found, _ = attend(MODULE, *drawn(new), padded(new), **more)
    wanted, _ = sdpa_attention.sdpa_attention_forward(MODULE, *drawn(new), padded(new), **more)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_the_engine_copies_keys_for_its_prompts_and_never_for_a_step(
    tiny_policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two prompts of unequal length: a mask at every step."""
    copied: list[int] = []
    real = sdpa_attention.repeat_kv

    def counted(states: torch.Tensor, n: int) -> torch.Tensor:
        copied.append(states.shape[2])
        return real(states, n)

    monkeypatch.setattr(sdpa_attention, "repeat_kv", counted)
    engine = TransformersEngine(str(tiny_policy), dtype="float32", threads=1)
    sampling = Sampling(temperature=1.0, max_new_tokens=8)
    asked = [[{"role": "user", "content": text}] for text in ("one", "one two three four five")]
    engine.generate([Request(messages=chat, sampling=sampling, seed=i) for i, chat in enumerate(asked)])
    longest = max(map(len, engine.chat_ids(asked)))
    assert copied and max(copied) <= longest
