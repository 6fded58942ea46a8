"""Memory and disk against sums worked by hand; advice that is taken makes it fit."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from selfreward.footprint import (
    GIB,
    RESERVE,
    Rows,
    Settings,
    Vllm,
    adapter_bytes,
    checkpoint_bytes,
    engine_advice,
    engine_bytes,
    store_bytes,
    training_advice,
    training_bytes,
    vllm_advice,
    vllm_bytes,
)  # fmt: skip
from selfreward.shapes import lora_parameters, shape_of
from tests.test_budget import TEXTS
from tests.test_shapes import LLAMA_8B, LLAMA_70B, SMOL

SHAPE, BIG = shape_of(SMOL), shape_of(LLAMA_8B)
LORA, BIG_LORA = 4_884_480, lora_parameters(BIG, 16)
SETTINGS = Settings(
    dtype="float32", batch=8, longest=200, prompt=80, scored=500, shared=250, micro_batch=2, pair=180,
    sft_micro_batch=4, example=300, checkpointing=False, processes=1, gpu=False,
)  # fmt: skip
LARGE = replace(SETTINGS, dtype="bfloat16", batch=64, longest=1200, pair=2048, example=600, gpu=True)


def test_the_engine_holds_weights_two_adapters_the_cache_and_a_steps_distributions() -> None:
    """SmolLM2 in float32, 8 rows of at most 500 tokens.

    Weights 4·134,515,008; adapters 2·4·4,884,480; cache 8·500·46,080 (2·30·192·4 bytes a token); logits: a
    scoring pass of 4096·49152·4 is more than 8·49152·32; activations 4096 tokens of
    4·(2·576 + 3·1536) + 4·576 = 25,344 bytes; 5 % of it all.
    """
    parts = engine_bytes(SHAPE, LORA, SETTINGS)
    named = [parts[k] for k in ("weights", "adapters", "cache", "logits", "activations")]
    assert named == [538_060_032, 39_075_840, 184_320_000, 805_306_368, 4096 * 25_344]
    assert parts["reserve"] == pytest.approx(0.05 * sum(named))
    on_gpu = engine_bytes(SHAPE, LORA, replace(SETTINGS, gpu=True))
    assert on_gpu["reserve"] - parts["reserve"] == pytest.approx(RESERVE)


def test_a_training_holds_the_adapter_its_gradient_and_two_moments() -> None:
    """SmolLM2 in float32, 2 pairs of 180 tokens: 720 tokens.

    Adapter 4·4,884,480, gradient and moments three times that, activations 720·30·39,936, logits
    720·49152·12 (the reference's 1440·49152·12 and the proof's 4·180·49152·12 are fewer than these and the
    activations). Several processes hold what they exchange besides.
    """
    parts = training_bytes(SHAPE, LORA, SETTINGS)
    named = [parts[k] for k in ("adapter", "gradient and moments", "activations", "logits")]
    assert named == [19_537_920, 58_613_760, 720 * 30 * 39_936, 720 * 49_152 * 12]
    four = training_bytes(SHAPE, LORA, replace(SETTINGS, processes=4))
    assert four["gradient and moments"] == 4 * 19_537_920


def test_checkpointing_keeps_a_layers_input_and_one_layer_whole() -> None:
    """SmolLM2: 720·(30·4·576 + 39,936); SFT has 4 rows of 300 tokens, and a tile of logits."""
    kept = training_bytes(SHAPE, LORA, replace(SETTINGS, checkpointing=True))["activations"]
    assert kept == 720 * (69_120 + 39_936)
    sft = training_bytes(SHAPE, LORA, SETTINGS, sft=True)
    assert sft["activations"] == 1200 * 30 * 39_936 and sft["logits"] == 1200 * 49_152 * 4


def test_the_proofs_whole_logits_count_where_they_are_more_than_a_step() -> None:
    """Llama 8B, bfloat16, one pair of 2048 tokens, checkpointing: the proof's 4·2048·128256·10 bytes."""
    small = replace(LARGE, micro_batch=1, checkpointing=True)
    parts = training_bytes(BIG, BIG_LORA, small)
    assert parts["activations"] + parts["logits"] == 4 * 2048 * 128_256 * 10


def test_the_references_pass_counts_where_it_is_more_than_a_step() -> None:
    """Llama 8B, 4 pairs a pass, checkpointing: the reference reads 8 at once, 16·2048·128256·10."""
    parts = training_bytes(BIG, BIG_LORA, replace(LARGE, micro_batch=4, checkpointing=True))
    assert parts["activations"] + parts["logits"] == 16 * 2048 * 128_256 * 10


@pytest.mark.parametrize("memory", [20, 24, 40, 80])
def test_the_advice_for_an_engine_makes_it_fit(memory: int) -> None:
    told = engine_advice(BIG, BIG_LORA, LARGE, memory * GIB)
    if told is None:
        assert sum(engine_bytes(BIG, BIG_LORA, LARGE).values()) <= memory * GIB
        return
    batch = re.search(r"engine\.batch to (\d+)", told)
    assert batch, told
    taken = engine_bytes(BIG, BIG_LORA, replace(LARGE, batch=int(batch[1])))
    twice = engine_bytes(BIG, BIG_LORA, replace(LARGE, batch=2 * int(batch[1])))
    assert sum(taken.values()) <= memory * GIB < sum(twice.values())


def test_vllm_leaves_its_cache_what_its_share_of_the_gpu_has_over() -> None:
    """Llama 8B on two GPUs of 80 GiB, 64 rows: 0.9·80 GiB less the rest.

    Weights 8,030,261,248 bytes each; the adapter's slot 2·41,943,040; logits 64·128256·14; activations
    8192·(2·(2·4096 + 3·14336) + 4·4096)/2; 5 % of these, a GiB of context and one of graphs.
    """
    v = Vllm(tensor_parallel=2, gpu_memory=0.9, kv_cache_gib=None, context=2000)
    parts = vllm_bytes(BIG, BIG_LORA, LARGE, v, 80 * GIB)
    held = [8_030_261_248, 83_886_080, 114_917_376, 8192 * 118_784 / 2]
    assert [parts[k] for k in ("weights", "adapters", "logits", "activations")] == held
    assert parts["cache"] == pytest.approx(72 * GIB - 1.05 * sum(held) - 2 * GIB)
    stated = vllm_bytes(BIG, BIG_LORA, LARGE, replace(v, kv_cache_gib=3.0), 80 * GIB)
    assert stated["cache"] == 3 * GIB
    assert vllm_bytes(BIG, BIG_LORA, replace(LARGE, gpu=False), v, 80 * GIB)["cache"] == 2 * GIB


@pytest.mark.parametrize(
    "memory, gpus, told",
    [(80, 1, None), (24, 1, "engine.context to 1200"), (16, 2, "tensor_parallel to 2 and"),
     (16, 1, "take a larger GPU")],
)  # fmt: skip
def test_vllm_starts_only_where_its_cache_holds_the_longest_row(
    memory: int, gpus: int, told: str | None
) -> None:
    """A row of Llama's own context of 131,072 tokens takes 16 GiB at 131,072 bytes a token."""
    v = Vllm(tensor_parallel=1, gpu_memory=0.9, kv_cache_gib=None, context=131_072)
    advice = vllm_advice(BIG, BIG_LORA, LARGE, v, memory * GIB, gpus)
    assert (advice is None) == (told is None) and (told or "") in (advice or "")
    taken = replace(v, context=1200, tensor_parallel=2 if "tensor_parallel" in (advice or "") else 1)
    left = vllm_bytes(BIG, BIG_LORA, LARGE, taken, memory * GIB)["cache"]
    assert (left >= 1200 * 131_072 / taken.tensor_parallel) == (told != "take a larger GPU")


def test_a_stated_cache_must_fit_beside_the_weights() -> None:
    v = Vllm(tensor_parallel=1, gpu_memory=0.9, kv_cache_gib=10.0, context=2000)
    assert "engine.kv_cache_gib" in (vllm_advice(BIG, BIG_LORA, LARGE, v, 24 * GIB, 1) or "")
    small = replace(v, kv_cache_gib=0.1)  # 819 tokens
    assert "kv_cache_gib to 1, engine.context to 1200" in (
        vllm_advice(BIG, BIG_LORA, LARGE, small, 24 * GIB, 1) or ""
    )


@pytest.mark.parametrize("memory", [26, 28, 32, 40, 60, 80, 200])
def test_the_advice_for_a_training_makes_it_fit(memory: int) -> None:
    told = training_advice(BIG, BIG_LORA, LARGE, memory * GIB)
    length = re.search(r"max_length to (\d+)", told or "")
    changed = replace(
        LARGE,
        checkpointing="checkpointing to true" in (told or ""),
        micro_batch=1 if "micro_batch to 1" in (told or "") else LARGE.micro_batch,
        pair=int(length[1]) if length else LARGE.pair,
    )
    assert sum(training_bytes(BIG, BIG_LORA, changed).values()) <= memory * GIB, told
    assert (told is None) == (memory == 200)


def test_the_least_change_is_told_first() -> None:
    """Checkpointing alone is enough in 80 GiB; nothing needs to be cut short."""
    told = training_advice(BIG, BIG_LORA, LARGE, 80 * GIB) or ""
    assert "gradient_checkpointing to true (" in told and "micro_batch" not in told


def test_a_change_is_told_only_where_it_alone_is_enough() -> None:
    """At the very bytes that checkpointing needs it is enough; with one byte less it is not."""
    wide = replace(LARGE, micro_batch=8)  # its step is more than the proof
    least = sum(training_bytes(BIG, BIG_LORA, replace(wide, checkpointing=True)).values())
    assert "micro_batch" not in (training_advice(BIG, BIG_LORA, wide, least) or "micro_batch")
    assert "micro_batch to 1" in (training_advice(BIG, BIG_LORA, wide, least - 1) or "")


def test_weights_that_are_too_many_are_said_to_be() -> None:
    """Llama 70B in bfloat16 is 131 GiB: no setting makes it fit into 80."""
    big = shape_of(LLAMA_70B)
    for told in (
        engine_advice(big, BIG_LORA, LARGE, 80 * GIB),
        training_advice(big, BIG_LORA, LARGE, 80 * GIB),
    ):
        assert told and "the weights alone are 131 GiB" in told


def test_a_checkpoint_is_three_adapters_and_an_adapter_its_weights_and_tokenizer() -> None:
    """SmolLM2's adapter of 420 tensors: 19,593,064 bytes in the demo run, 23,131,000 with its tokenizer."""
    assert adapter_bytes(LORA, 420, 0) == pytest.approx(19_593_064, rel=0.005)
    assert adapter_bytes(LORA, 420, 3_523_500) == pytest.approx(23_131_000, rel=0.01)
    assert checkpoint_bytes(LORA) == 3 * 19_537_920


def test_the_store_of_the_demo_run_is_predicted_within_15_percent() -> None:
    """Its file had 868,352 bytes.

    In it 192 seeds, 118 prompts and 224 candidates of 59.9 tokens, 224 judgements, 416 answers of 38.2,
    224 grades, 19 stages and 337 numbers; 4.9 letters a token.
    """
    lengths = {
        "candidate": 59.9,
        "prompt_text": 16.0,
        "sft_row": 132.0,
        "probed": 38.2,
        "question_text": 19.0,
    }
    texts = replace(TEXTS, **{k: replace(TEXTS.probe, n=v) for k, v in lengths.items()})
    rows = Rows(192, 118, 224, 224, 416, 224, 337, 19, 4.9)
    assert store_bytes(rows, texts, sampled=False) == pytest.approx(868_352, rel=0.15)


def test_the_store_grows_with_what_a_sampling_judge_writes() -> None:
    """1000 replies of 40 tokens at 5 letters take 70 bytes more each than the 130 of the probabilities."""
    rows = Rows(0, 0, 0, 1000, 0, 0, 0, 0, 5.0)
    assert store_bytes(rows, TEXTS, sampled=True) - store_bytes(rows, TEXTS, sampled=False) == 70_000
