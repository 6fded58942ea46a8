"""Can this machine run that recipe? Looks, and changes nothing (but fetches the model where asked)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from selfreward.engines import model
from selfreward.errors import SelfRewardError
from selfreward.recipe import Recipe
from selfreward.recipe_file import load, locate
from selfreward.stages.work import LIBRARIES


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: fine or not, and what was found."""

    name: str
    ok: bool
    found: str


def examine(recipe_file: Path, *, fetch: bool) -> list[Check]:
    """Every check, in order; a recipe that cannot be read ends the list."""
    checks = [_packages(), _gpus()]
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
    return [*checks, _disk(recipe_file.parent, folder)]


def _checked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except SelfRewardError as error:
        return Check(name, False, str(error))


def _packages() -> Check:
    found, missing = [], []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    return Check("packages", not missing, f"missing: {', '.join(missing)}" if missing else ", ".join(found))


def _gpus() -> Check:
    if shutil.which("nvidia-smi") is None:
        return Check("GPUs", True, "none seen: the CPU will do the work, in float32")
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    seen = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    return Check("GPUs", bool(seen), seen.replace("\n", "; ") or "nvidia-smi sees none")


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


def _disk(place: Path, folder: Path) -> Check:
    free = shutil.disk_usage(place).free
    size = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    return Check(
        "disk",
        free > size,
        f"{free / 2**30:.1f} GiB free here; the base's weights are {size / 2**30:.2f} GiB",
    )
