"""What a run takes of a GPU's memory and of the disk, and what to change where that is too much.

Pure arithmetic on a model's shape and a recipe's sizes. The formulas follow this project's own engine and
trainer; activations, reserve and slack are estimates and say so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from selfreward.budget import Texts
from selfreward.shapes import DTYPE_BYTES, Shape, kv_bytes, parameters, passing_bytes, saved_bytes

GIB = 2**30
SCORED_AT_ONCE = 4096  # tokens of one scoring pass of the transformers engine
PROOF_ROWS = 4  # rows the trainer scores with whole logits at its end
HEAD_TILE = 4096 * 32768  # logits TRL 1.16 holds at a time: tokens by vocabulary
CHECKPOINTS = 3  # two kept and one being written
RESERVE = 1.0 * GIB  # a GPU's context, libraries and workspaces: a guess
SLACK = 0.05  # of everything else, for the allocator's gaps: a guess
VLLM_FED = 8192  # tokens vLLM feeds at once to one engine in a script (max_num_batched_tokens of 0.32)
VLLM_GRAPHS = 1.0 * GIB  # captured CUDA graphs: a guess
VLLM_CPU_CACHE = 2.0  # GiB the vllm engine takes for its cache on a CPU where the recipe says nothing


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides memory, lengths in tokens.

    `longest` is the widest row of generation, prompt and answer, `prompt` its prompt alone; `scored` the
    widest row that is read; `pair` the longest row of a pair, `example` that of SFT.
    """

    dtype: str
    batch: int
    longest: int
    scored: int
    shared: int  # opening that all rows of a judge's batch share, fed once
    micro_batch: int
    pair: int
    sft_micro_batch: int
    example: int
    checkpointing: bool
    processes: int  # that train at once, a GPU each
    prompt: int  # the longest prompt of generation
    gpu: bool


def engine_bytes(shape: Shape, adapter: int, s: Settings) -> dict[str, float]:
    """Peak bytes of the engine on its GPU by part; `adapter` is a LoRA's parameters, float32.

    Two adapters stay loaded (own and previous). The cache holds `batch` rows at their widest. `logits` is the
    larger of a step's distributions (the model's own, then float32 and float64 copies for the draw: 28 bytes
    a number) and a scoring pass. `activations`: a prompt's tokens of all rows in the widest layer.
    """
    width = DTYPE_BYTES[s.dtype]
    fed = max(s.batch * max(s.prompt, s.scored - s.shared), SCORED_AT_ONCE, s.scored)
    scoring = max(SCORED_AT_ONCE, s.scored) * shape.vocab * width
    parts = {
        "weights": float(parameters(shape) * width),
        "adapters": float(2 * 4 * adapter),
        "cache": float(s.batch * max(s.longest, s.scored) * kv_bytes(shape, width)),
        "logits": float(max(s.batch * shape.vocab * (width + 28), scoring)),
        "activations": float(fed * passing_bytes(shape, width)),
    }
    return parts | _reserve(parts, s)


@dataclass(frozen=True, slots=True)
class Vllm:
    """What the recipe tells vLLM; `context` is the longest row it promises to hold, in tokens."""

    tensor_parallel: int
    gpu_memory: float  # share of a GPU it takes
    kv_cache_gib: float | None
    context: int


def vllm_bytes(shape: Shape, adapter: int, s: Settings, v: Vllm, memory: float) -> dict[str, float]:
    """Bytes of vLLM on each of its GPUs by part; the cache is as stated, else what its share leaves.

    Weights are split among `tensor_parallel` GPUs, the adapter's one slot is not and has the model's dtype.
    Negative cache: the rest alone is more than the share.
    """
    width = DTYPE_BYTES[s.dtype]
    parts = {
        "weights": parameters(shape) * width / v.tensor_parallel,
        "adapters": float(width * adapter),
        "logits": float(s.batch * shape.vocab * (width + 12)),
        "activations": float(VLLM_FED * passing_bytes(shape, width)) / v.tensor_parallel,
    }
    parts |= _reserve(parts, s)
    parts["reserve"] += VLLM_GRAPHS * s.gpu
    if v.kv_cache_gib or not s.gpu:
        return parts | {"cache": (v.kv_cache_gib or VLLM_CPU_CACHE) * GIB}
    return parts | {"cache": v.gpu_memory * memory - sum(parts.values())}


def vllm_advice(shape: Shape, adapter: int, s: Settings, v: Vllm, memory: float, gpus: int) -> str | None:
    """What to change where vLLM would not start; None where its cache holds a row of `context` tokens."""
    token = kv_bytes(shape, DTYPE_BYTES[s.dtype]) / v.tensor_parallel
    parts = vllm_bytes(shape, adapter, s, v, memory)
    if sum(parts.values()) > memory:  # only where the cache's size is stated
        less = f"a smaller cache than {gib(parts['cache'])} (engine.kv_cache_gib), or a smaller model"
        return f"vLLM needs {gib(sum(parts.values()))} of {gib(memory)}: take {less}"
    if parts["cache"] >= v.context * token:
        return None
    need = max(s.longest, s.scored)
    told = f"vLLM has {gib(max(0.0, parts['cache']))} for its cache, a row of {v.context} tokens takes "
    told += gib(v.context * token)
    if v.context > need and parts["cache"] >= need * token:
        return f"{told}: set engine.context to {need}, the most this recipe's rows can take"
    if v.kv_cache_gib or not s.gpu:
        return f"{told}: set engine.kv_cache_gib to {math.ceil(need * token / GIB)}, engine.context to {need}"
    for n in (2, 4, 8, 16):
        wider = replace(v, tensor_parallel=n, context=need)
        left = vllm_bytes(shape, adapter, s, wider, memory)["cache"]
        if v.tensor_parallel < n <= gpus and left >= need * token * v.tensor_parallel / n:
            return f"{told}: set engine.tensor_parallel to {n} and engine.context to {need}"
    return f"{told}{_larger(shape, s, memory * gpus)}"


def training_bytes(shape: Shape, adapter: int, s: Settings, *, sft: bool = False) -> dict[str, float]:
    """Peak bytes of a trainer on its GPU by part; every process of several holds the whole base.

    Adapter, gradient, Adam's two moments and what several processes exchange are float32. Activations are
    `saved_bytes` a token and layer; with checkpointing a layer's input and one layer whole. `logits` of SFT
    is a tile of TRL's fused head, of DPO 12 bytes a number (the model's own, float32, their gradients) of
    whole rows, the most there can be; or those of the reference's pass over twice the pairs before the first
    step, or of the proof after the last, where they are more than a step's logits and activations together.
    """
    width = DTYPE_BYTES[s.dtype]
    rows, length = (s.sft_micro_batch, s.example) if sft else (2 * s.micro_batch, s.pair)
    tokens, layer = rows * length, saved_bytes(shape, width)
    kept = shape.layers * width * shape.hidden + layer if s.checkpointing else shape.layers * layer
    activations = float(tokens * kept)
    step = min(HEAD_TILE, tokens * shape.vocab) * 4 if sft else tokens * shape.vocab * 12
    scored = max(PROOF_ROWS * length, 0 if sft else 2 * tokens) * shape.vocab * (width + 8)
    parts = {
        "weights": float(parameters(shape) * width),
        "adapter": float(4 * adapter),
        "gradient and moments": float((12 if s.processes == 1 else 16) * adapter),
        "activations": activations,
        "logits": float(max(step, scored - activations)),
    }
    return parts | _reserve(parts, s)


def _reserve(parts: dict[str, float], s: Settings) -> dict[str, float]:
    return {"reserve": RESERVE * s.gpu + SLACK * sum(parts.values())}


def gib(n: float) -> str:
    """Bytes as GiB in three figures."""
    return f"{n / GIB:.3g} GiB"


def engine_advice(shape: Shape, adapter: int, s: Settings, memory: float) -> str | None:
    """What to change when the engine does not fit; None when it does."""
    need = sum(engine_bytes(shape, adapter, s).values())
    if need <= memory:
        return None
    told = f"the engine needs {gib(need)} of {gib(memory)}"
    batch = s.batch
    while batch > 1:
        batch = math.ceil(batch / 2)
        less = sum(engine_bytes(shape, adapter, replace(s, batch=batch)).values())
        if less <= memory:
            return f"{told}: set engine.batch to {batch} ({gib(less)})"
    return f"{told}, at engine.batch 1 still {gib(less if s.batch > 1 else need)}{_larger(shape, s, memory)}"


def training_advice(
    shape: Shape, adapter: int, s: Settings, memory: float, *, sft: bool = False
) -> str | None:
    """What to change when a training does not fit, the least change first; None when it fits."""
    name = "SFT" if sft else "DPO"
    need = sum(training_bytes(shape, adapter, s, sft=sft).values())
    if need <= memory:
        return None
    micro = "start.sft.micro_batch" if sft else "training.micro_batch"
    alone = replace(s, sft_micro_batch=1) if sft else replace(s, micro_batch=1)
    checkpointing = "training.gradient_checkpointing to true"
    least = replace(alone, checkpointing=True)
    steps = [
        (checkpointing, replace(s, checkpointing=True)),
        (f"{micro} to 1", alone),
        (f"{checkpointing} and {micro} to 1", least),
    ]
    told = f"{name} needs {gib(need)} of {gib(memory)}"
    for change, less in steps:
        smaller = sum(training_bytes(shape, adapter, less, sft=sft).values())
        if smaller <= memory:
            return f"{told}: set {change} ({gib(smaller)})"
    while not sft and least.pair > 256:
        least = replace(least, pair=least.pair // 2)
        shorter = sum(training_bytes(shape, adapter, least).values())
        if shorter <= memory:
            return f"{told}: set {steps[-1][0]}, and training.max_length to {least.pair} ({gib(shorter)})"
    return f"{told}, with checkpointing and micro_batch 1 still {gib(smaller)}{_larger(shape, s, memory)}"


def _larger(shape: Shape, s: Settings, memory: float) -> str:
    """The last resort: where the weights alone are too much, no setting helps."""
    weights = parameters(shape) * DTYPE_BYTES[s.dtype]
    if weights > memory:
        half = " (bfloat16 would halve them)" if s.dtype == "float32" else ""
        return f": the weights alone are {gib(weights)}{half}; take a smaller model or a larger GPU"
    return ": take a larger GPU or a smaller model"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows and texts the store will hold, in all; `letters` is bytes of text a token."""

    seeds: int
    prompts: int
    candidates: int
    judgements: int
    answers: int
    graded: int
    metrics: int
    stages: int
    letters: float


def store_bytes(rows: Rows, texts: Texts, *, sampled: bool) -> float:
    """Size of selfreward.db.

    A text costs its letters, and where its ids are kept four bytes a token; what a row costs besides was
    read from a demo run's pages (dbstat): schema and empty tables 180 kB, a stage 3.6 kB (its `made_from`),
    a prompt 160 bytes and its text twice, a candidate 120, a judgement 120 and 130 for the probabilities, an
    answer 100 and its item twice, a grade 130, a metric 110.
    """
    prompt, token = texts.prompt_text.n * rows.letters, rows.letters + 4
    reply = texts.judgement.n * rows.letters if sampled else 130.0
    answer = texts.probed.n * token + 2 * texts.question_text.n * rows.letters + 100
    return (
        180e3
        + 3600 * rows.stages
        + rows.seeds * (160 + 2 * prompt + texts.sft_row.n * rows.letters / 2)
        + rows.prompts * (160 + 2 * prompt)
        + rows.candidates * (120 + texts.candidate.n * token)
        + rows.judgements * (120 + reply)
        + rows.answers * answer
        + rows.graded * (130 + (texts.graded.n * rows.letters if sampled else 0))
        + rows.metrics * 110
    )


def adapter_bytes(lora: int, tensors: int, tokenizer: float) -> float:
    """An adapter folder: float32 weights, about 125 bytes of header a tensor, and the tokenizer with it."""
    return 4 * lora + 125 * tensors + tokenizer


def checkpoint_bytes(lora: int) -> float:
    """One half-way state of a training: the adapter and Adam's two moments, float32."""
    return 12 * lora
