"""From a YAML file to a Recipe: one line for whatever is wrong with it.

An unknown key is refused with the nearest known one. A relative path is looked for beside the recipe, then
among the packaged files.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from selfreward.errors import RecipeError
from selfreward.files import packaged
from selfreward.recipe import Recipe


def load(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Reads a recipe file, with `key.sub=value` overrides.

    Raises `RecipeError` naming file, key and next move.
    """
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(
            f"{path} does not exist: `selfreward init {path.stem} --model ID` writes it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise RecipeError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path} is not a recipe: it should be a mapping with at least `model:`")
    return changed(data, overrides or [], str(path))


def changed(data: dict[str, Any], overrides: list[str], name: str) -> Recipe:
    """A Recipe from plain data with `key.sub=value` overrides; `name` is what errors call it."""
    for override in overrides:
        _set(data, override)
    return parse(data, name)


def parse(data: dict[str, Any], name: str) -> Recipe:
    """A Recipe from plain data; `name` is what errors call it."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{name}: {_explain(error)}") from None


def with_changes(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with other values for some keys, written as `section.key`."""
    data = recipe.model_dump(by_alias=True)
    for key, value in changes.items():
        *path, last = key.split(".")
        at = data
        for part in path:
            at = at[part]
        at[last] = value
    return parse(data, "recipe")


def locate(recipe_file: Path, name: str) -> Path:
    """A file a recipe names: beside the recipe, else among the packaged ones.

    Raises `RecipeError` if neither.
    """
    beside = (recipe_file.parent / Path(name).expanduser()).resolve()
    for path in (beside, packaged(name)):
        if path.is_file():
            return path
    raise RecipeError(f"{name} does not exist: neither {beside} nor a packaged file of that name")


def _set(data: dict[str, Any], override: str) -> None:
    """Applies `a.b=value` in place; the value is read as YAML."""
    import yaml

    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override}: write it as key=value, for example training.lr=1e-4")
    *path, last = key.strip().split(".")
    at = data
    for part in path:
        if part == "model" and isinstance(at.get(part), str):
            at[part] = {"id": at[part]}
        inner = at.setdefault(part, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {override}: {part} has no keys below it")
        at = inner
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if isinstance(parsed, str) and re.fullmatch(r"\d+(\.\d*)?e-\d+", parsed):  # YAML 1.1 reads 1e-4 as text
        parsed = float(parsed)
    at[last] = parsed


def _explain(error: ValidationError) -> str:
    """The first problem in one line, an unknown key with the nearest known one."""
    problem = error.errors()[0]
    where = [str(p) for p in problem["loc"]]
    key = ".".join(where)
    if problem["type"] == "extra_forbidden":
        known = _keys_at(where[:-1])
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.0)
        return f"unknown key {key}" + (
            f"; the nearest known one is {'.'.join([*where[:-1], near[0]])}" if near else ""
        )
    if problem["type"] == "missing":
        return f"{key} is missing"
    if problem["type"] == "value_error":
        return f"{key}: {problem['ctx']['error']}" if key else str(problem["ctx"]["error"])
    return f"{key} = {problem['input']!r}: {problem['msg']}"


def _keys_at(path: list[str]) -> list[str]:
    section: Any = Recipe
    for part in path:
        fields = getattr(section, "model_fields", {})
        field = fields.get(part) or next((f for f in fields.values() if f.alias == part), None)
        if field is None:
            continue
        options = [o for o in _flatten(field.annotation) if isinstance(o, type) and issubclass(o, BaseModel)]
        section = next((o for o in options if _tag(o) in path), options[0]) if options else section
    return [f.alias or n for n, f in getattr(section, "model_fields", {}).items()]


def _tag(section: Any) -> str | None:
    """The `type` that tells a section from its siblings."""
    values = get_args(section.model_fields["type"].annotation) if "type" in section.model_fields else ()
    return values[0] if values else None


def _flatten(annotation: Any) -> list[Any]:
    inner = get_args(annotation)
    return [annotation] if not inner else [o for i in inner for o in _flatten(i)]
