"""Merging an adapter into its base, and the check that the result is the same policy: a child's work.

`python -m selfreward.engines.merge JOB` reads a JSON job (`base`, `adapter`, `to`, `dtype`, `threads`),
writes the merged model's files into the folder `to` and leaves `merge.json` there once the check has passed.
It works on the CPU, weight by weight, in float32; it knows no run and no store.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from selfreward.engines import adapter as adapters
from selfreward.engines.adapter import CONFIG, PREFIX, WEIGHTS
from selfreward.errors import BadInput, SelfRewardError, WorkFailed
from selfreward.files import write_json

RESULT = "merge.json"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# What a plain LoRA does not have, and what merging would silently leave out.
UNMERGEABLE = (
    "use_dora", "modules_to_save", "lora_bias", "fan_in_fan_out", "trainable_token_indices",
    "target_parameters", "layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora",
    "arrow_config", "kasa_config",
)  # fmt: skip
# Agreement is measured against what rounding alone does: the same policy, unmerged, computed in the stored
# dtype. Weights are rounded once in a merge and activations in every layer there: five times is far above it.
TIMES_NOISE, EXACT = 5.0, 1e-4  # nats a token; EXACT where the stored dtype rounds nothing
ROWS, PROMPT, ANSWER = 4, 256, 64  # of the check: rows, their last prompt tokens and first answer tokens


def refuse_unmergeable(base: Path, adapter: Path) -> None:
    """Raises `BadInput` for a base or an adapter whose merge would not be the policy.

    That is a quantised base, and whatever is not a plain LoRA of this base.
    """
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if config.get("quantization_config"):
        raise BadInput(f"{base.name} is quantised: an adapter cannot be merged into it; export it unmerged")
    lora = json.loads((adapter / CONFIG).read_text(encoding="utf-8")) if (adapter / CONFIG).is_file() else {}
    odd = [k for k in UNMERGEABLE if lora.get(k)] + ["bias"] * (lora.get("bias", "none") != "none")
    if odd:
        raise BadInput(f"{adapter} is not a plain LoRA ({', '.join(odd)}): export it unmerged")
    adapters.check(adapter, base)


def shards(base: Path) -> list[Path]:
    """The files that hold the base's weights, in order: those its index names, or the single one."""
    if (base / INDEX).is_file():
        index = json.loads((base / INDEX).read_text(encoding="utf-8"))
        return [base / name for name in sorted(set(index["weight_map"].values()))]
    return [base / SINGLE]


def scaling(config: dict[str, Any], layer: str, r: int) -> float:
    """What B·A is multiplied by: alpha / r, or alpha / √r for rank-stabilised LoRA (arXiv 2312.03732).

    `alpha_pattern` maps the end of a layer's name, as a regular expression, to its own alpha; `r` is the
    adapter's actual rank there, patterns included.
    """
    patterns = config.get("alpha_pattern") or {}
    own = next((a for p, a in patterns.items() if re.match(rf"(.*\.)?({p})$", layer)), None)
    alpha = float(own if own is not None else config["lora_alpha"])
    return alpha / math.sqrt(r) if config.get("use_rslora") else alpha / r


def merge(base: Path, adapter: Path, to: Path, dtype: str) -> None:
    """Writes W + scaling·B·A for every adapted weight and the others as they are, shard by shard.

    Sums are float32. `dtype` is what is stored: a torch name, or "base" for each weight's own.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    places: dict[str, str] = {}
    size = 0
    with safe_open(adapter / WEIGHTS, "pt") as lora:
        keys = [k for k in lora.keys() if ".lora_A." in k]  # noqa: SIM118
        left = {k.removeprefix(PREFIX).partition(".lora_")[0]: k for k in keys}
        for shard in shards(base):
            merged = {}
            with safe_open(shard, "pt") as weights:
                for name in weights.keys():  # noqa: SIM118
                    layer = name.removesuffix(".weight")
                    key = left.pop(layer, None)
                    merged[name] = _merged(weights.get_tensor(name), lora, key, config, layer, dtype)
            save_file(merged, to / shard.name, metadata={"format": "pt"})
            places |= dict.fromkeys(merged, shard.name)
            size += sum(w.numel() * w.element_size() for w in merged.values())
    if left:
        raise BadInput(f"{adapter} adapts {min(left)}, which is not among the base's weights")
    if (base / INDEX).is_file():
        write_json(to / INDEX, {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))})


def _merged(weight: Any, lora: Any, key: str | None, config: dict[str, Any], layer: str, dtype: str) -> Any:
    """One weight as it is stored."""
    import torch

    stored = weight.dtype if dtype == "base" or not weight.is_floating_point() else getattr(torch, dtype)
    if key is None:
        return weight.to(stored).contiguous()
    a, b = lora.get_tensor(key).float(), lora.get_tensor(key.replace(".lora_A.", ".lora_B.")).float()
    update = scaling(config, layer, a.shape[0]) * (b @ a)
    return (weight.float() + update).to(stored).contiguous()


def copy_beside(base: Path, adapter: Path, to: Path, dtype: str) -> None:
    """Config, generation config, tokenizer and chat template: the adapter's own first, else the base's."""
    for path in sorted(base.iterdir()):
        if path.suffix in (".json", ".jinja", ".model", ".txt") and not path.name.endswith(".index.json"):
            shutil.copyfile(path, to / path.name)
    for path in sorted(adapter.iterdir()):
        if path.name.startswith(("tokenizer", "special_tokens", "chat_template", "vocab", "merges")):
            shutil.copyfile(path, to / path.name)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if dtype != "base":
        config = {k: v for k, v in config.items() if k != "torch_dtype"} | {"dtype": dtype}
        for part in (v for v in config.values() if isinstance(v, dict) and "dtype" in v):
            part["dtype"] = dtype
    write_json(to / "config.json", config)


def check(base: Path, adapter: Path, merged: Path, dtype: str, threads: int | None) -> dict[str, float]:
    """Log-probabilities of fixed ids, merged against base + adapter, all in float32: nats a token.

    `gap` is their mean absolute difference, `noise` what rounding does to the unmerged policy when it is
    computed in the stored dtype, `moved` how far the adapter is from the base. Raises `WorkFailed` where the
    gap is not explained by rounding.
    """
    rows, stored = fixed_rows(base, adapter), _stored_dtype(merged, dtype)
    unmerged, bare = _scores(base, rows, "float32", threads, str(adapter), None)
    (own,) = _scores(merged, rows, "float32", threads, None)
    noise = 0.0
    if stored != "float32":
        (rounded,) = _scores(base, rows, stored, threads, str(adapter))
        noise = gap_of(unmerged, rounded)
    found = {"gap": gap_of(unmerged, own), "noise": noise, "moved": gap_of(unmerged, bare)}
    limit = max(TIMES_NOISE * noise, EXACT)
    if not found["gap"] <= limit:  # also when it is not a number
        raise WorkFailed(
            f"the merged model is not the policy: its log-probabilities are {found['gap']:.2e} nats a token "
            f"off, rounding explains {limit:.2e}. Nothing was exported"
        )
    return found


def fixed_rows(base: Path, adapter: Path) -> list[tuple[list[int], list[int]]]:
    """Prompt and completion ids to score: the adapter's proof, or ids spread over the vocabulary."""
    proof = adapter / "proof.json"
    if proof.is_file():
        rows = json.loads(proof.read_text(encoding="utf-8"))["rows"][:ROWS]
        return [(r["prompt_ids"][-PROMPT:], r["completion_ids"][:ANSWER]) for r in rows]
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    vocabulary = int((config.get("text_config") or config)["vocab_size"])
    ids = [(7919 * i + 13) % vocabulary for i in range(ROWS * 24)]  # 7919: a prime, so that few repeat
    return [(ids[i : i + 8], ids[i + 8 : i + 24]) for i in range(0, len(ids), 24)]


def gap_of(left: list[list[float]], right: list[list[float]]) -> float:
    """Mean absolute difference over all tokens."""
    gaps = [abs(a - b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True)]
    return math.fsum(gaps) / len(gaps)


def _scores(
    model: Path, rows: list[tuple[list[int], list[int]]], dtype: str, threads: int | None, *worn: str | None
) -> list[list[list[float]]]:
    """The engine's log-probabilities of the rows under each adapter, None for the bare weights."""
    from selfreward.engines.transformers_engine import TransformersEngine
    from selfreward.protocols import Scored

    engine = TransformersEngine(str(model), chat_template="plain", dtype=dtype, threads=threads)
    return [engine.token_logprobs([Scored(p, c, w) for p, c in rows]) for w in worn]


def _stored_dtype(merged: Path, dtype: str) -> str:
    if dtype != "base":
        return dtype
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def _check_memory(base: Path) -> None:
    """The check holds the model in float32: better to say so before an hour of merging."""
    need = 4 * sum(math.prod(shape) for shape in adapters.base_shapes(base).values())
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    stat = Path("/proc/meminfo")
    if stat.is_file():
        found = re.search(r"MemAvailable:\s+(\d+) kB", stat.read_text(encoding="utf-8"))
        free = int(found[1]) * 1024 if found else free
    if need > free:
        raise BadInput(
            f"checking a merge of {base.name} takes {need / 2**30:.1f} GiB of memory, "
            f"{free / 2**30:.1f} GiB are free: merge on a larger machine, or export the adapter unmerged"
        )


def main() -> int:
    """Merges and checks; ends with the exit code of what went wrong, its reason the log's last line."""
    from selfreward.engines.process import join_driver

    job = json.loads(sys.argv[1])
    join_driver(watch=True)
    base, adapter, to = (Path(job[k]) for k in ("base", "adapter", "to"))
    try:
        refuse_unmergeable(base, adapter)
        _check_memory(base)
        merge(base, adapter, to, job["dtype"])
        copy_beside(base, adapter, to, job["dtype"])
        found = check(base, adapter, to, job["dtype"], job["threads"])
        write_json(to / RESULT, {"dtype": job["dtype"]} | found)
    except SelfRewardError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
