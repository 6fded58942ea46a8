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
# What the check allows, in nats a token: float32 sums in another order, which now and then round a weight the
# other way; and a twentieth of what the adapter does.
EXACT, SHARE = 1e-4, 0.05
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
    """Log-probabilities of fixed ids under the merged files against base + adapter, in nats a token.

    `gap` is the mean absolute difference to peft's own merge, rounded to the stored dtype in memory: it must
    vanish. `rounding` is that to base + adapter unmerged and unrounded: what storing costs. `moved` is how
    far the adapter is from the base. All is computed in float32. Raises `WorkFailed` where a gap is left.
    """
    from selfreward.engines.transformers_engine import load_base

    rows = fixed_rows(base, adapter)
    bare, worn, expected = _references(base, adapter, rows, dtype, threads)
    own = _logprobs(load_base(str(merged), "float32", threads), rows)
    found = {"gap": gap_of(expected, own), "rounding": gap_of(worn, own), "moved": gap_of(worn, bare)}
    limit = EXACT + SHARE * found["moved"]
    if not found["gap"] <= limit:  # also when it is not a number
        raise WorkFailed(
            f"the merged model is not the policy: its log-probabilities are {found['gap']:.2e} nats a token "
            f"off beyond rounding, {limit:.2e} would do. Nothing was exported"
        )
    return found


def _references(
    base: Path, adapter: Path, rows: list[tuple[list[int], list[int]]], dtype: str, threads: int | None
) -> tuple[list[list[float]], list[list[float]], list[list[float]]]:
    """Log-probabilities of the bare base, with the adapter, and of peft's merge in the stored precision."""
    import torch
    from peft import PeftModel

    from selfreward.engines.transformers_engine import load_base

    model = load_base(str(base), "float32", threads)
    bare = _logprobs(model, rows)
    model = PeftModel.from_pretrained(model, str(adapter)).eval()
    adapted = {n.partition(".lora_A.")[0] for n, _ in model.named_parameters() if ".lora_A." in n}
    adapted = {n.removeprefix(PREFIX) for n in adapted}
    worn = _logprobs(model, rows)
    model = model.merge_and_unload()
    stored = getattr(torch, _stored_dtype(base, dtype))
    for name, weight in model.named_parameters():
        if dtype != "base" or name.removesuffix(".weight") in adapted:  # the others are as they were
            weight.data = weight.data.to(stored).float()
    return bare, worn, _logprobs(model, rows)


def _logprobs(model: Any, rows: list[tuple[list[int], list[int]]]) -> list[list[float]]:
    """Of every completion token after its prompt, each row by itself."""
    import torch

    found = []
    for prompt, completion in rows:
        ids = torch.tensor([[*prompt, *completion]], device=model.device)
        with torch.inference_mode():
            table = (
                model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
            )
        found.append(table.gather(1, ids[0, len(prompt) :, None])[:, 0].tolist())
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


def _stored_dtype(base: Path, dtype: str) -> str:
    if dtype != "base":
        return dtype
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
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
