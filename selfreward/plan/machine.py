"""What a run would have to work with: GPUs as told or as nvidia-smi says, else this machine's memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from selfreward import budget
from selfreward.budget import Device
from selfreward.errors import BadInput
from selfreward.files import models_folder
from selfreward.footprint import GIB
from selfreward.recipe import Recipe


def devices(gpus: int | None, memory: float | None, name: str | None) -> tuple[Device, int]:
    """One of the devices, and how many GPUs there are (0: the CPU does the work)."""
    if gpus is None and memory is None:
        found = _seen()
        if found:
            return budget.gpu(name or found[0][0], min(m for _, m in found)), len(found)
    if gpus == 0 or (gpus is None and memory is None):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return budget.cpu(cores, memory * GIB if memory else _ram()), 0
    if memory is None:
        raise BadInput("--gpus needs --gpu-memory, in GiB of one GPU: 24, 80")
    return budget.gpu(name or "a GPU", memory * GIB), gpus or 1


def _seen() -> list[tuple[str, float]]:
    """Name and bytes of every GPU the driver lists."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False).stdout
    except subprocess.TimeoutExpired:
        return []
    rows = [line.rsplit(",", 1) for line in said.splitlines() if "," in line]
    return [(n.strip(), float(m) * 2**20) for n, m in rows if m.strip().isdecimal()]


def _ram() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def config_of(recipe: Recipe, file: Path, given: Path | None) -> tuple[Path, Path | None]:
    """The model's config.json, and its folder where the tokenizer lies too; no weights are looked at.

    Raises `BadInput` where neither a folder, the user's cache nor the hub's cache holds it.
    """
    if given is not None:
        path = given / "config.json" if given.is_dir() else given
        if not path.is_file():
            raise BadInput(f"--config {given}: there is no such file")
        return path, path.parent
    name = recipe.model.id
    for folder in (file.parent / Path(name).expanduser(), models_folder() / name):
        if (folder / "config.json").is_file():
            return folder / "config.json", folder
    cached = _cached(name, recipe.model.revision) if name.count("/") == 1 else None
    if cached is None:
        raise BadInput(
            f"model {name!r}: no config.json here; name one with --config FILE, or "
            f"`selfreward doctor --fetch` once while online"
        )
    return cached, cached.parent


def _cached(name: str, revision: str | None) -> Path | None:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
