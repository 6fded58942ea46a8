"""Attention of a decoding step on a CPU: query heads that share keys and values are rows of one head.

With prompts of unequal length there is a mask, and transformers then copies keys and values for each query
head at every step: for a whole batch more bytes than the weights themselves. One new token needs no copy.
"""

from __future__ import annotations

from typing import Any

GROUPED = "sdpa_grouped"
PLAIN = frozenset({"use_cache", "position_ids", "sliding_window", "is_causal", "output_attentions"})


def group_heads(model: Any) -> Any:
    """Makes a model that was loaded with attention `sdpa` decode by grouped heads; returns it.

    A model whose attention transformers cannot exchange stays as it is.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(GROUPED, attend)
    AttentionMaskInterface.register(GROUPED, sdpa_mask)
    model.set_attn_implementation(GROUPED)
    return model


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Any, None]:
    """What `sdpa` gives, `(n, 1, heads, width)` for one new token a row; all else is left to `sdpa`."""
    from torch.nn.functional import scaled_dot_product_attention
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    n, heads, new, width = query.shape
    shared = key.shape[1]
    asked = {name for name, given in more.items() if given is not None} - PLAIN
    of_heads = attention_mask is not None and attention_mask.shape[1] != 1
    if new != 1 or heads == shared or dropout or asked or of_heads:
        found: tuple[Any, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return found
    grouped = query.reshape(n, shared, heads // shared, width)
    seen = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return seen.reshape(n, 1, heads, value.shape[-1]), None
