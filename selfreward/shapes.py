"""What a decoder is made of, read from its config.json: parameters, LoRA parameters, KV cache, activations.

Pure arithmetic, exact for the families named here and a guess for others (`known` says which). It knows no
machine, no recipe and no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")  # config keys of mixtures

# What a family has that its config.json does not say: the library's own defaults.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "mixtral": {},
    "smollm3": {"tied": True},
    "qwen2": {"qkv_bias": True},
    "qwen2_moe": {"qkv_bias": True},
    "qwen3": {"head_norms": True, "head_dim": 128},
    "qwen3_moe": {"head_norms": True},
    "gemma": {"tied": True, "head_dim": 256},
    "gemma2": {"tied": True, "head_dim": 256, "norms": 4},
    "gemma3_text": {"tied": True, "head_dim": 256, "norms": 4, "head_norms": True},
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder's sizes. `inner` is the width of a dense feed-forward, `expert_inner` that of one expert.

    `sparse` layers have `experts` of which `active` work on a token, and perhaps a shared one of width
    `shared_inner`. `known` is False where the family is not one this module was written for.
    """

    family: str
    known: bool
    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    tied: bool
    context: int
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    norms: int = 2
    head_norms: bool = False
    sparse: int = 0
    experts: int = 0
    active: int = 0
    expert_inner: int = 0
    shared_inner: int = 0

    @property
    def queries(self) -> int:
        """Features of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Features of all key heads, and of all value heads."""
        return self.kv_heads * self.head_dim


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape a config.json describes. Raises `ValueError` naming a size that is missing."""
    text = dict(config.get("text_config") or config)
    family = str(text.get("model_type", config.get("model_type", "?")))
    own = FAMILIES.get(family, {})
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        if not isinstance(text.get(key), int):
            raise ValueError(f"{key} is missing")
    hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
    bias = bool(text.get("attention_bias", False))
    return Shape(
        family=family,
        known=family in FAMILIES and "text_config" not in config,
        vocab=int(text["vocab_size"]),
        hidden=hidden,
        layers=int(text["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(text.get("num_key_value_heads") or heads),
        head_dim=int(text.get("head_dim") or own.get("head_dim") or hidden // heads),
        inner=int(text.get("intermediate_size") or 4 * hidden),
        tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", own.get("tied", False)))),
        context=int(text.get("max_position_embeddings") or 0),
        qkv_bias=bias or (bool(own.get("qkv_bias")) and bool(text.get("qkv_bias", True))),
        o_bias=bias,
        mlp_bias=bool(text.get("mlp_bias", False)),
        norms=int(own.get("norms", 2)),
        head_norms=bool(own.get("head_norms", False)),
        **_experts(text, family),
    )


def _experts(text: Mapping[str, Any], family: str) -> dict[str, int]:
    """The sparse part of a mixture; nothing for a dense model."""
    experts = next((int(text[k]) for k in EXPERTS if text.get(k)), 0)
    if experts == 0:
        return {}
    dense, every = list(text.get("mlp_only_layers") or []), int(text.get("decoder_sparse_step") or 1)
    layers = int(text["num_hidden_layers"])
    shared = int(text.get("shared_expert_intermediate_size") or 0) if family == "qwen2_moe" else 0
    return {
        "sparse": sum(i not in dense and (i + 1) % every == 0 for i in range(layers)),
        "experts": experts,
        "active": int(text.get("num_experts_per_tok") or 2),
        "expert_inner": int(text.get("moe_intermediate_size") or text.get("intermediate_size") or 0),
        "shared_inner": shared,
    }


def parameters(shape: Shape) -> int:
    """All weights of the model, tied embeddings once."""
    embeddings = shape.vocab * shape.hidden * (1 if shape.tied else 2)
    dense = (shape.layers - shape.sparse) * _feed_forward(shape, shape.inner)
    sparse = shape.sparse * _mixture(shape, shape.experts)
    return embeddings + shape.layers * _attention(shape) + dense + sparse + shape.hidden


def working(shape: Shape) -> int:
    """Weights that multiply one token: the chosen experts and the head, no embedding table."""
    dense = (shape.layers - shape.sparse) * _feed_forward(shape, shape.inner)
    sparse = shape.sparse * _mixture(shape, shape.active)
    return shape.vocab * shape.hidden + shape.layers * _attention(shape) + dense + sparse


def _attention(shape: Shape) -> int:
    """Projections, their biases and every norm of a layer."""
    weights = 2 * shape.hidden * (shape.queries + shape.keys)
    biases = shape.qkv_bias * (shape.queries + 2 * shape.keys) + shape.o_bias * shape.hidden
    return weights + biases + shape.norms * shape.hidden + shape.head_norms * 2 * shape.head_dim


def _feed_forward(shape: Shape, inner: int) -> int:
    return 3 * shape.hidden * inner + shape.mlp_bias * (2 * inner + shape.hidden)


def _mixture(shape: Shape, experts: int) -> int:
    """Router, so many experts, and the shared one with its gate."""
    shared = 3 * shape.hidden * shape.shared_inner + shape.hidden if shape.shared_inner else 0
    return shape.experts * shape.hidden + experts * 3 * shape.hidden * shape.expert_inner + shared


def lora_parameters(shape: Shape, r: int, targets: str | list[str] = "auto") -> int:
    """Weights of a LoRA of rank `r`: r·(inputs + outputs) for every linear layer it adapts.

    `auto` is every linear layer but the head. Experts are fused parameters in transformers 5, not linear
    layers: they are never adapted. A name that is no layer counts nothing.
    """
    wanted = TARGETS if isinstance(targets, str) else [t for t in TARGETS if t in targets]
    hidden, inner = shape.hidden, shape.inner
    ends = {
        "q_proj": hidden + shape.queries,
        "k_proj": hidden + shape.keys,
        "v_proj": hidden + shape.keys,
        "o_proj": hidden + shape.queries,
    }
    attention = shape.layers * sum(ends.get(t, 0) for t in wanted)
    feeds = sum(t not in ends for t in wanted)
    dense = (shape.layers - shape.sparse) * feeds * (hidden + inner)
    shared = shape.sparse * feeds * (hidden + shape.shared_inner) if shape.shared_inner else 0
    gate = shape.sparse * (hidden + 1) if shape.shared_inner and isinstance(targets, str) else 0
    return r * (attention + dense + shared + gate)


def kv_bytes(shape: Shape, width: int) -> int:
    """Bytes of keys and values of one token; `width` is bytes a number. Sliding windows are not deducted."""
    return 2 * shape.layers * shape.keys * width


def saved_bytes(shape: Shape, width: int) -> int:
    """Bytes one layer keeps of one token for the backward pass of a LoRA on a frozen base.

    Counted from the layer's own operations, every linear layer adapted: the inputs of two norms in float32
    (8h); queries, keys, values and the attention's output; gate, its activation and the up projection; and
    the input of every adapter in float32: a copy each where the base is narrower (q, k, v, gate, up: 20h;
    o: 4q; down: 4i), shared where it is float32 already (8h + 4i). An estimate, without
    the kernels' workspaces.
    """
    h, q, k = shape.hidden, shape.queries, shape.keys
    i = shape.active * shape.expert_inner + shape.shared_inner if shape.sparse else shape.inner
    inputs = 8 * h + 4 * i if width == 4 else 20 * h + 4 * q + 4 * i
    return 8 * h + inputs + width * (2 * q + 2 * k) + width * 3 * i


def passing_bytes(shape: Shape, width: int) -> int:
    """Bytes of one token inside the widest layer of a forward pass that keeps nothing."""
    i = shape.active * shape.expert_inner + shape.shared_inner if shape.sparse else shape.inner
    return width * (2 * shape.hidden + max(2 * shape.queries + 2 * shape.keys, 3 * i)) + 4 * shape.hidden
