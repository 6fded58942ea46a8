"""Adapter folders from the outside: what they are made for, and how large they get; no weights are loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from selfreward.errors import BadInput, StoreError
from selfreward.files import sha256_of

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."  # what peft writes before the base's own names


def check(folder: Path, base: Path) -> None:
    """Refuses a folder that is no plain LoRA of this base.

    Raises `BadInput` for what is missing, for DoRA and `modules_to_save` (vLLM serves neither), for a layer
    the base does not have, and for a layer of another shape.
    """
    if not (folder / WEIGHTS).is_file() or not (folder / CONFIG).is_file():
        raise BadInput(f"{folder} holds no {WEIGHTS} with its {CONFIG}")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("modules_to_save"):
        raise BadInput(f"{folder} is not a plain LoRA (no DoRA, no modules_to_save)")
    known = base_shapes(base)
    for name, shape in tensor_shapes(folder / WEIGHTS).items():
        layer, _, side = name.removeprefix(PREFIX).partition(".lora_")
        wanted = known.get(f"{layer}.weight")
        if any(part == "lm_head" or "embed" in part for part in layer.split(".")):
            raise BadInput(
                f"{folder} adapts {layer}: leave embedding and head out, engines do not serve them"
            )
        if wanted is None:
            raise BadInput(f"{folder} adapts {layer}, which {base.name} does not have: it is of another base")
        axis = 1 if side.startswith("A") else 0  # A reads what the layer reads, B writes what it writes
        if shape[axis] != wanted[axis]:
            raise BadInput(
                f"{folder} adapts {layer} with {shape[axis]} features, {base.name} has {wanted[axis]} there: "
                "it is of another base"
            )


def check_hash(folder: Path, name: str, sha256: str | None) -> None:
    """Raises `StoreError` where the weights are gone or are not those of the policy's row."""
    there = sha256_of(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else None
    if there != sha256:
        told = f"has sha256 {there[:12]}…, {(sha256 or '')[:12]}… was trained" if there else "is gone"
        raise StoreError(f"the adapter of {name}: {folder / WEIGHTS} {told}: put it back from a copy")


def rank(folder: Path) -> int:
    """The largest LoRA rank in the folder, patterns included."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])


def size(config: dict[str, Any], r: int) -> int:
    """Bytes of a float32 LoRA on every block's seven linear layers; unknown shapes count as a 7B model's."""
    shape = config.get("text_config") or config
    hidden, layers = int(shape.get("hidden_size", 4096)), int(shape.get("num_hidden_layers", 32))
    heads = int(shape.get("num_attention_heads", 32))
    head = int(shape.get("head_dim") or hidden // heads)
    inner = int(shape.get("intermediate_size", 4 * hidden))
    keys = int(shape.get("num_key_value_heads", heads)) * head
    return 4 * r * layers * (2 * (hidden + heads * head) + 2 * (hidden + keys) + 3 * (hidden + inner))


def linear_layers(base: Path) -> list[str]:
    """Last names of the base's matrices, embedding and head left out: what an adapter may be on."""
    found = {
        name.split(".")[-2]
        for name, shape in base_shapes(base).items()
        if name.endswith(".weight") and len(shape) == 2
    }
    return sorted(n for n in found if "embed" not in n and n != "lm_head")


def base_shapes(base: Path) -> dict[str, list[int]]:
    """Shape of every weight of a model folder, read from the headers of its files."""
    found: dict[str, list[int]] = {}
    for file in sorted(base.glob("*.safetensors")):
        found |= tensor_shapes(file)
    return found


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """Shapes by name from a safetensors header: eight bytes of length, then JSON."""
    with open(file, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
