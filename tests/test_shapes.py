"""Parameters, adapters and caches from config.json alone, against sums worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from selfreward.shapes import kv_bytes, lora_parameters, parameters, saved_bytes, shape_of, working

SMOL: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9,
    "num_key_value_heads": 3, "num_hidden_layers": 30, "vocab_size": 49152, "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}  # fmt: skip
LLAMA_8B: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_key_value_heads": 8, "num_hidden_layers": 32, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_hidden_layers": 80,
}  # fmt: skip
QWEN25_05B: dict[str, Any] = {
    "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14,
    "num_key_value_heads": 2, "num_hidden_layers": 24, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
QWEN3_06B: dict[str, Any] = {
    "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 28, "vocab_size": 151936,
    "tie_word_embeddings": True, "attention_bias": False,
}  # fmt: skip
GEMMA2_2B: dict[str, Any] = {  # tie_word_embeddings is the library's default and not in the file
    "model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 256, "num_hidden_layers": 26, "vocab_size": 256000,
}  # fmt: skip
MIXTRAL: dict[str, Any] = {
    "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_key_value_heads": 8, "num_hidden_layers": 32, "vocab_size": 32000, "tie_word_embeddings": False,
    "num_local_experts": 8, "num_experts_per_tok": 2,
}  # fmt: skip
QWEN3_30B: dict[str, Any] = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "num_hidden_layers": 48, "vocab_size": 151936,
    "tie_word_embeddings": False, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
    "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip


@pytest.mark.parametrize(
    "config, total",
    [(SMOL, 134_515_008), (LLAMA_8B, 8_030_261_248), (LLAMA_70B, 70_553_706_496), (QWEN25_05B, 494_032_768),
     (QWEN3_06B, 596_049_920), (GEMMA2_2B, 2_614_341_888), (MIXTRAL, 46_702_792_704),
     (QWEN3_30B, 30_532_122_624)],
    ids=["smollm2", "llama-8b", "llama-70b", "qwen2.5", "qwen3-0.6b", "gemma2-2b", "mixtral", "qwen3-30b"],
)  # fmt: skip
def test_the_parameters_of_known_shapes_are_their_published_ones(config: dict[str, Any], total: int) -> None:
    """By hand, embeddings + layers·(attention + feed-forward + norms) + the last norm.

    SmolLM2: 49152·576 + 30·(2·576² + 2·576·192 + 3·576·1536 + 2·576) + 576 = 28,311,552 + 30·3,540,096 + 576.
    Llama 8B: 2·128256·4096 + 32·(2·4096² + 2·4096·1024 + 3·4096·14336 + 8192) + 4096
    = 1,050,673,152 + 32·218,112,000 + 4096. Llama 70B: 2,101,346,304 + 80·855,654,400 + 8192.
    Qwen2.5: 136,134,656 + 24·(1,835,008 + biases 896 + 2·128 + 13,074,432 + 1792) + 896.
    Qwen3-0.6B: 155,582,464 + 28·(6,291,456 + 9,437,184 + 2048 + two head norms of 128) + 1024.
    Gemma 2: 589,824,000 + 26·(14,155,776 + 63,700,992 + four norms of 2304) + 2304.
    Mixtral: 262,144,000 + 32·(41,943,040 + 8·176,160,768 + router 32,768 + 8192) + 4096.
    Qwen3-30B: 622,329,856 + 48·(18,874,368 + 128·4,718,592 + router 262,144 + 4096 + 256) + 2048.
    """
    shape = shape_of(config)
    assert parameters(shape) == total and shape.known


def test_a_mixture_works_with_its_chosen_experts_only() -> None:
    """Mixtral: head 131,072,000 + 32·(41,943,040 + 8192 + 32,768 + 2·176,160,768) = 12,748,587,008."""
    assert working(shape_of(MIXTRAL)) == 131_072_000 + 32 * (41_984_000 + 2 * 176_160_768)


def test_an_adapter_has_r_times_inputs_and_outputs_of_every_linear_layer() -> None:
    """SmolLM2, r = 16: 30·16·(2·1152 + 2·768 + 3·2112) = 4,884,480; q and v alone 30·16·(1152 + 768)."""
    shape = shape_of(SMOL)
    assert lora_parameters(shape, 16) == 4_884_480
    assert lora_parameters(shape, 16, ["q_proj", "v_proj"]) == 30 * 16 * 1920
    assert lora_parameters(shape, 32) == 2 * 4_884_480


def test_the_fused_experts_of_a_mixture_are_not_adapted() -> None:
    """Mixtral, r = 8: attention alone, 32·8·(2·8192 + 2·5120)."""
    assert lora_parameters(shape_of(MIXTRAL), 8) == 32 * 8 * (2 * 8192 + 2 * 5120)


def test_grouped_heads_make_the_cache_small() -> None:
    """Llama 8B in bfloat16: 2·32·(8·128)·2 = 131,072 bytes a token; with 32 key heads four times it."""
    assert kv_bytes(shape_of(LLAMA_8B), 2) == 131_072
    assert kv_bytes(shape_of(LLAMA_8B | {"num_key_value_heads": 32}), 2) == 4 * 131_072


def test_what_a_layer_keeps_for_the_backward_pass_is_the_stated_sum() -> None:
    """SmolLM2, h = q = 576, k = 192, i = 1536.

    float32: 8h + 8h + 4i + 4·(2q + 2k) + 12i = 9216 + 6144 + 6144 + 18432 = 39,936.
    bfloat16: 8h + 20h + 4q + 4i + 2·(2q + 2k) + 6i = 16128 + 2304 + 6144 + 3072 + 9216 = 36,864.
    """
    assert saved_bytes(shape_of(SMOL), 4) == 39_936
    assert saved_bytes(shape_of(SMOL), 2) == 36_864


def test_an_unknown_family_is_counted_and_marked_and_a_missing_size_is_named() -> None:
    assert not shape_of(SMOL | {"model_type": "newcomer"}).known
    inside = shape_of({"model_type": "gemma3", "text_config": GEMMA2_2B, "vision_config": {}})
    assert parameters(inside) == 2_614_341_888 and not inside.known
    with pytest.raises(ValueError, match="hidden_size"):
        shape_of({"model_type": "llama", "vocab_size": 5})
