"""Does this project run on this machine's GPU, and how well does it use it? One JSON line says so.

`python scripts/gpu_check.py [--model FOLDER]` needs an NVIDIA GPU, torch, transformers, peft, trl and this
package, no network. Without --model it makes a random model of a billion parameters. It generates, judges
(expected and sampled), trains DPO pairs, kills a training and goes on with it, and measures the handover from
engine to trainer. It ends with 0 if everything held, 4 if something did not or there is no GPU.

Each measurement runs in a process of its own, so that its peak of memory is its own. Shares of the peak are
of the maker's data sheet; null where the GPU is not one `selfreward.budget` knows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EXIT_FAILED = 4
# A billion parameters in the shape of the Llama family: 1,040,254,976 with the tied head.
RANDOM_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32768, "hidden_size": 2048,
    "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 64, "max_position_embeddings": 8192, "tie_word_embeddings": True, "bos_token_id": 0,
    "eos_token_id": 2, "pad_token_id": 2, "dtype": "bfloat16",
}  # fmt: skip
SPECIALS = ("<|begin|>", "<|turn|>", "<|end|>")
TEMPLATE = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
LARGEST_LOSS_GAP = 1e-3  # a resumed training on a GPU: kernels need not repeat their sums in the same order
PROOF_TIMES = 5.0  # engine and trainer agree within so many times the noise (docs/architecture.md)
LINE = "At the harbour the fishing boats come home before the tide turns and the gulls follow them. "


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="a model folder; default: random weights")
    parser.add_argument("--rows", type=_count, default=64, help="requests, and rows decoded at once")
    parser.add_argument("--tokens", type=_count, default=128, help="tokens an answer")
    parser.add_argument("--steps", type=_count, default=12, help="optimiser steps of a training, at least 8")
    parser.add_argument(
        "--keep", type=Path, help="work in this folder and leave it; default: a temporary one"
    )
    parser.add_argument("--phase", choices=sorted(PHASES), help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    return parser.parse_args(given)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a count")
    return value


def no_gpu() -> str | None:
    """Why nothing can be measured here, or None. Cheap signs come first: torch takes seconds to load."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    if shutil.which("nvidia-smi") is None and not Path("/proc/driver/nvidia/version").exists():
        return "no NVIDIA driver here"
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return None if torch.cuda.is_available() else "torch sees no GPU: is it a CPU build?"


def write_tokenizer(folder: Path, size: int) -> None:
    """A byte-level tokenizer of `size` ids with the template; ids above the bytes stand for filler words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    scores = [("Ġ", str(n)) for n in range(1, 6)]  # " 1" to " 5" are a token each, as in real tokenizers
    known = [*SPECIALS, *alphabet, *map("".join, scores)]
    words = known + [f"filler{i}" for i in range(len(known), size)]
    made = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=scores))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIALS))
    made.save(str(folder / "tokenizer.json"))
    begin, _, end = SPECIALS
    settings = {"bos_token": begin, "eos_token": end, "pad_token": end, "chat_template": TEMPLATE}
    settings["tokenizer_class"] = "TokenizersBackend"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def make_model(job: dict[str, Any]) -> dict[str, Any]:
    """Random weights on disk, as any model's."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    folder = Path(job["model"])
    folder.mkdir(parents=True, exist_ok=True)
    config = {k: v for k, v in RANDOM_CONFIG.items() if k not in ("architectures", "model_type", "dtype")}
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**config), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    write_tokenizer(folder, config["vocab_size"])
    return {"parameters": sum(p.numel() for p in model.parameters())}


def measure_engine(job: dict[str, Any]) -> dict[str, Any]:
    """Sampling, reading and judging through the project's own engine."""
    import torch

    from selfreward import rubric as rubrics
    from selfreward.engines.transformers_engine import TransformersEngine
    from selfreward.files import packaged
    from selfreward.protocols import Choice, Request, Sampling

    rows, tokens = job["rows"], job["tokens"]
    engine = TransformersEngine(job["model"], dtype="bfloat16", batch=rows)
    start = time.perf_counter()
    _ = engine.model
    torch.cuda.synchronize()
    found: dict[str, Any] = {"load_seconds": time.perf_counter() - start}
    draws = Sampling(1.0, 1.0, 0, tokens)
    chats = [[{"role": "user", "content": f"{i}. " + LINE * 4}] for i in range(rows)]
    requests = [Request(chat, i, draws) for i, chat in enumerate(chats)]
    found["generate"] = _generation(engine, requests)
    path = packaged("rubrics/additive.md")
    rubric = rubrics.parse(path.read_text(encoding="utf-8"), str(path))
    judged = [rubrics.render(rubric, chat, LINE * 6) for chat in chats]
    choices = tuple(f" {s}" for s in rubric.scores)
    asked = [Choice(chat, rubrics.OPENING, choices) for chat in judged]
    found["expected"] = _expected(engine, asked)
    found["sampled"] = _generation(engine, [Request(c, i, draws) for i, c in enumerate(judged)])
    again = engine.generate(requests)
    found["repeats"] = [c.token_ids for c in again] == [c.token_ids for c in engine.generate(requests)]
    return found


def _timed(call: Any) -> tuple[float, Any, float]:
    """Seconds of a call on a quiet GPU, what it returned, and the peak of memory in bytes."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    found = call()
    torch.cuda.synchronize()
    return time.perf_counter() - start, found, float(torch.cuda.max_memory_allocated())


def _generation(engine: Any, requests: list[Any]) -> dict[str, Any]:
    """Sampled tokens a second, prompts included; `steps` is how often the weights were read."""
    engine.generate(requests)  # kernels are chosen at the first call of a shape
    seconds, replies, peak = _timed(lambda: engine.generate(requests))
    lengths = [len(r.token_ids) for r in replies]
    prompts = [len(i) for i in engine.chat_ids([r.messages for r in requests])]
    return {
        "seconds": seconds, "tokens": sum(lengths), "tokens_per_second": sum(lengths) / seconds,
        "steps": max(lengths), "rows": len(requests), "prompt_tokens": sum(prompts), "peak_bytes": peak,
        "faults": sum(r.fault is not None for r in replies),
    }  # fmt: skip


def _expected(engine: Any, asked: list[Any]) -> dict[str, Any]:
    """Tokens a second of reading scores; the rubric that all chats open with is fed, and counted, once."""
    from selfreward.engines.decode import common_prefix

    engine.choice_logprobs(asked)
    seconds, rows, peak = _timed(lambda: engine.choice_logprobs(asked))
    ids = engine.chat_ids([a.messages for a in asked])
    tokens = sum(map(len, ids)) - common_prefix(ids) * (len(ids) - 1)
    sound = all(row is not None and sum(map(math.exp, row)) <= 1.001 for row in rows)
    return {
        "seconds": seconds, "judgements_per_second": len(asked) / seconds, "tokens": tokens,
        "tokens_per_second": tokens / seconds, "peak_bytes": peak, "sound": sound,
    }  # fmt: skip


def measure_training(job: dict[str, Any]) -> dict[str, Any]:
    """A whole DPO training in this process, for its peak of memory."""
    import torch

    from selfreward.training.trainer import train

    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    train(Path(job["folder"]))
    return {"seconds": time.perf_counter() - start, "peak_bytes": float(torch.cuda.max_memory_allocated())}


def measure_proof(job: dict[str, Any]) -> dict[str, Any]:
    """The engine's log-probabilities under the new adapter against what the trainer wrote."""
    from selfreward.engines.transformers_engine import TransformersEngine
    from selfreward.protocols import Scored
    from selfreward.training.proof import mean_gap

    proof = json.loads((Path(job["adapter"]) / "proof.json").read_text(encoding="utf-8"))
    engine = TransformersEngine(job["model"], dtype="bfloat16")
    asked = [Scored(r["prompt_ids"], r["completion_ids"], job["adapter"]) for r in proof["rows"]]
    gap = mean_gap(engine.token_logprobs(asked), [r["logprobs"] for r in proof["rows"]])
    return {"gap": gap, "noise": proof["noise"], "moved": proof["moved"]}


PHASES = {
    "make": make_model,
    "engine": measure_engine,
    "training": measure_training,
    "proof": measure_proof,
}


def phase(name: str, job: dict[str, Any], log: Path) -> dict[str, Any]:
    """Runs one phase in a child and returns what it found; its log is kept beside."""
    from selfreward.engines.process import QUIET

    line = [sys.executable, str(Path(__file__).resolve()), "--phase", name, "--job", json.dumps(job)]
    with open(log, "ab") as out:
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=out, env=os.environ | QUIET, check=False)
    said = done.stdout.decode().strip().splitlines()
    if done.returncode or not said:
        tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise RuntimeError(f"{name} ended with code {done.returncode}: {' | '.join(tail)}")
    found: dict[str, Any] = json.loads(said[-1])
    return found


def pairs(count: int, vocabulary: int) -> list[dict[str, list[int]]]:
    """Pairs of fixed ids, 128 of prompt and 128 of each answer; no specials among them."""

    def ids(start: int) -> list[int]:
        return [8 + (start + 7919 * i) % (min(vocabulary, 30000) - 8) for i in range(128)]

    return [
        {"prompt_ids": ids(3 * n), "chosen_ids": ids(1000 + 5 * n), "rejected_ids": ids(2000 + 11 * n)}
        for n in range(count)
    ]


def write_training(
    folder: Path, model: Path, parent: Path | None, steps: int, vocabulary: int, seed: int = 3
) -> int:
    """Leaves a DPO job of so many steps of 4 pairs; returns its tokens."""
    from selfreward.training.job import TrainingSpec, write_job

    spec = TrainingSpec(
        method="dpo", model=str(model), parent_adapter=str(parent) if parent else None, dtype="bfloat16",
        threads=8, seed=seed, lr=1e-3, epochs=1, batch=4, micro_batch=2, warmup=0.0, save_steps=4, lora_r=16,
        lora_alpha=32, lora_dropout=0.0, lora_targets="auto", beta=0.1,
    )  # fmt: skip
    rows = pairs(4 * steps, vocabulary)
    write_job(folder, spec, rows)
    return sum(2 * len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in rows)


def losses(folder: Path) -> list[float]:
    """Of every step that `train.jsonl` tells whole."""
    path = folder / "train.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(x)["loss"] for x in lines if x.endswith("}") and "loss" in x]


def watch(folder: Path, log: Path, until: Any) -> dict[str, Any]:
    """Starts the trainer as the driver does; times of its log's lines, killed where `until` says so."""
    from selfreward.engines import process

    start = time.perf_counter()
    child = process.start("selfreward.training", [str(folder)], log, 8)
    begun, seen = None, []
    while child.process.poll() is None:
        if begun is None and (folder / "train.jsonl").exists():
            begun = time.perf_counter() - start
        done = len(losses(folder))
        seen += [time.perf_counter()] * (done - len(seen))
        if until(done):
            child.process.kill()
            break
        time.sleep(0.02)
    code = child.close()
    steps = len(seen) - 1
    pace = (seen[-1] - seen[0]) / steps if steps > 0 and seen[-1] > seen[0] else None
    return {"code": code, "begun_seconds": begun, "step_seconds": pace, "log": str(log)}


def measure_resume(work: Path, model: Path, parent: Path, steps: int, vocabulary: int) -> dict[str, Any]:
    """One training whole, the same killed after its first checkpoint and gone on with: the same losses?"""
    whole, broken = work / "whole", work / "broken"
    for folder in (whole, broken):
        tokens = write_training(folder, model, parent, steps, vocabulary)
    one = watch(whole, work / "whole.log", lambda _: False)
    sealed = broken / "checkpoints" / "checkpoint-4" / "complete.json"
    cut = watch(broken, work / "broken.log", lambda done: done > 4 and sealed.exists())
    had = len(losses(broken))
    two = watch(broken, work / "broken.log", lambda _: False)
    left, right = losses(whole), losses(broken)
    gap = max((abs(a - b) for a, b in zip(left, right, strict=False)), default=math.inf)
    ended = one["code"] == two["code"] == 0 and len(left) == len(right) == steps
    return {
        "killed_after": had, "codes": [one["code"], cut["code"], two["code"]],
        "steps": [len(left), len(right)], "largest_loss_gap": gap, "step_seconds": one["step_seconds"],
        "begun_seconds": one["begun_seconds"], "tokens_per_step": tokens / steps,
        "held": ended and gap <= LARGEST_LOSS_GAP and 4 < had < steps,
    }  # fmt: skip


def measure_handover(work: Path, model: Path, vocabulary: int) -> dict[str, Any]:
    """From the engine's last answer to the trainer's first step, both children as the driver starts them."""
    from selfreward.engines.client import EngineClient
    from selfreward.protocols import Request, Sampling

    folder = work / "handover"
    write_training(folder, model, None, 2, vocabulary)
    settings = {"model": str(model), "dtype": "bfloat16", "batch": 8}
    engine = EngineClient("transformers", settings, work / "handover-engine.log")
    engine.generate([Request([{"role": "user", "content": LINE}], 1, Sampling(1.0, 1.0, 0, 8))])
    start = time.perf_counter()
    engine.close()
    closed = time.perf_counter() - start
    trainer = watch(folder, work / "handover.log", lambda done: done >= 1)
    return {"engine_closed_seconds": closed, "trainer_begun_seconds": trainer["begun_seconds"]}


def shares(found: dict[str, Any], config: dict[str, Any], name: str, memory: float) -> dict[str, Any]:
    """Shares of the GPU's peaks: bandwidth while sampling, FLOP/s while reading and training.

    A token costs 2 FLOP a working weight forward and 2 backward: no base weight has a gradient.
    """
    from selfreward.budget import gpu
    from selfreward.shapes import kv_bytes, parameters, shape_of, working

    device, shape = gpu(name, memory), shape_of(config)
    if not device.known:
        return {"bandwidth_while_sampling": None, "flops_while_reading": None, "flops_while_training": None}
    made, read, resume = found["engine"]["generate"], found["engine"]["expected"], found["resume"]
    cached = made["prompt_tokens"] + made["tokens"] / 2  # of all rows, half way through their answers
    moved = made["steps"] * (2 * parameters(shape) + cached * kv_bytes(shape, 2))
    pace = resume["tokens_per_step"] / resume["step_seconds"] if resume["step_seconds"] else None
    return {
        "bandwidth_while_sampling": moved / made["seconds"] / device.bandwidth,
        "flops_while_reading": 2 * working(shape) * read["tokens_per_second"] / device.flops,
        "flops_while_training": 4 * working(shape) * pace / device.flops if pace else None,
    }


def verdict(found: dict[str, Any]) -> list[str]:
    """What did not hold, in words; nothing where all did."""
    told = []
    engine, proof, resume = found["engine"], found["proof"], found["resume"]
    if engine["generate"]["faults"] or engine["sampled"]["faults"]:
        told.append("requests ended in faults")
    if not engine["expected"]["sound"]:
        told.append("choice log-probabilities are no probabilities")
    if not engine["repeats"]:
        told.append("the same block gave other tokens")
    if not proof["gap"] <= PROOF_TIMES * proof["noise"] < proof["moved"]:
        told.append("engine and trainer disagree, or training moved nothing beyond noise")
    if not resume["held"]:
        told.append("a resumed training is another one")
    return told


def run(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Every phase in turn."""
    import torch

    model = options.model.resolve() if options.model else work / "model"
    log, job = work / "phases.log", {"model": str(model), "rows": options.rows, "tokens": options.tokens}
    if options.model is None:
        phase("make", job, log)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    vocabulary, steps = (config.get("text_config") or config)["vocab_size"], max(8, options.steps)
    properties = torch.cuda.get_device_properties(0)
    found: dict[str, Any] = {"gpu": properties.name, "memory_bytes": properties.total_memory}
    found |= {"model": options.model and model.name, "engine": phase("engine", job, log)}
    first = work / "first"
    write_training(first, model, None, steps, vocabulary)
    found["training"] = phase("training", {"folder": str(first)}, log)
    adapter = first / "adapter"
    found["proof"] = phase("proof", {"model": str(model), "adapter": str(adapter)}, log)
    found["resume"] = measure_resume(work, model, adapter, steps, vocabulary)
    found["handover"] = measure_handover(work, model, vocabulary)
    begun, load = found["handover"]["trainer_begun_seconds"], found["engine"]["load_seconds"]
    found["handover"]["beyond_load_seconds"] = (
        found["handover"]["engine_closed_seconds"] + begun - load if begun is not None else None
    )
    found["shares"] = shares(found, config, properties.name, properties.total_memory)
    wrong = verdict(found)
    return found | {"torch": torch.__version__, "ok": not wrong, "wrong": wrong}


def main() -> int:
    """One JSON line, and how it ends."""
    options = arguments()
    if options.phase:
        print(json.dumps(PHASES[options.phase](json.loads(options.job))), flush=True)
        return 0
    reason = no_gpu()
    if reason:
        print(f"gpu_check: {reason}; nothing was measured", file=sys.stderr)
        return EXIT_FAILED
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[0]  # a trainer without a launcher takes one
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    work = options.keep.resolve() if options.keep else Path(tempfile.mkdtemp(prefix="gpu-check-"))
    try:
        found = run(options, work)
    except RuntimeError as error:
        print(f"gpu_check: {error} (logs: {work})", file=sys.stderr)
        return EXIT_FAILED
    print(json.dumps(found))
    if not options.keep:
        shutil.rmtree(work, ignore_errors=True)
    return 0 if found["ok"] else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
