"""The recipe: every key is checked before anything starts, and an error names key, reason and next move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import selfreward
from selfreward.errors import RecipeError
from selfreward.files import models_folder
from selfreward.recipe_file import load, locate, parse
from selfreward.rewards import LengthReward


def written(folder: Path, text: str = "model: base\n") -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_model_alone_is_a_recipe() -> None:
    recipe = parse({"model": "base"}, "mine")
    assert (recipe.model.id, recipe.candidates.n, recipe.judge.samples, recipe.training.beta) == (
        "base",
        4,
        3,
        0.1,
    )


def test_the_template_states_the_defaults() -> None:
    import yaml

    source = (Path(selfreward.__file__).parent / "recipe_template.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(source.format(model="base", name="mine"))
    assert parse(data, "template") == parse({"model": "base"}, "mine")


@pytest.mark.parametrize(
    ("data", "unknown", "known"),
    [
        ({"trainig": {}}, "trainig", "training"),
        ({"training": {"lora": {"rank": 8}}}, "training.lora.rank", "training.lora.r"),
        ({"start": {"sft": {"epoch": 1}}}, "start.sft.epoch", "start.sft.epochs"),
        ({"prompts": {"form": "x"}}, "prompts.form", "prompts.from"),
        ({"model": {"id": "base", "revison": "x"}}, "model.revison", "model.revision"),
        ({"evaluate": {"problem": "x"}}, "evaluate.problem", "evaluate.problems"),
        ({"rewards": [{"type": "length", "hihg": 9}]}, "rewards.0.length.hihg", "rewards.0.length.high"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    data: dict[str, Any], unknown: str, known: str
) -> None:
    with pytest.raises(RecipeError) as refused:
        parse({"model": "base", **data}, "mine.yaml")
    assert str(refused.value) == f"mine.yaml: unknown key {unknown}; the nearest known one is {known}"


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"candidates": {"n": 1}}, "candidates.n = 1"),
        ({"judge": {"mode": "guess"}}, "judge.mode = 'guess'"),
        ({"training": {"lr": 0}}, "training.lr = 0"),
        ({"prompts": {"sampling": {"top_p": 1.5}}}, "prompts.sampling.top_p = 1.5"),
        (
            {"candidates": {"sampling": {"temperature": float("nan")}}},
            "candidates.sampling.temperature = nan",
        ),
        ({"rewards": []}, "rewards = []"),
        ({"rewards": [{"type": "length", "low": 9, "best": 3}]}, "low, best and high must be in this order"),
        ({"training": None}, "training = None"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(data: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError) as refused:
        parse({"model": "base", **data}, "mine.yaml")
    assert str(refused.value).startswith("mine.yaml: ") and key in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ({"type": "openai"}, "engine.type openai needs engine.url"),
        ({"type": "openai", "url": "127.0.0.1:8000"}, "engine.url is no http address"),
        ({"type": "openai", "url": "http://user:secret@host/v1"}, "engine.url holds no key"),
        ({"type": "openai", "url": "https://host/v1?key=secret"}, "engine.url holds no key"),
        ({"api_key_env": "sk-secret"}, "engine.api_key_env is the name of an environment variable"),
        ({"api_key_env": "secret"}, "engine.api_key_env is the name of an environment variable"),
        ({"limits": {"requests": 5}}, "engine.limits are for engine.type openai"),
    ],
)
def test_a_server_is_an_address_and_a_key_is_never_in_a_recipe(engine: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError) as refused:
        parse({"model": "base", "engine": engine}, "mine.yaml")
    assert told in str(refused.value) and "secret" not in str(refused.value)


def test_a_missing_model_is_said_to_be_missing() -> None:
    with pytest.raises(RecipeError, match=r"^mine.yaml: model is missing$"):
        parse({}, "mine.yaml")


def test_an_adapter_to_start_from_is_never_ignored_beside_an_sft() -> None:
    """`start.adapter` makes M1 only where `start.sft` is null: beside an SFT it would pass unsaid."""
    with pytest.raises(RecipeError, match=r"sft"):
        parse({"model": "base", "start": {"adapter": "lora"}}, "mine.yaml")
    assert (
        parse({"model": "base", "start": {"adapter": "lora", "sft": None}}, "mine.yaml").start.adapter
        == "lora"
    )


def test_a_recipe_never_changes() -> None:
    with pytest.raises(ValidationError):
        parse({"model": "base"}, "mine").training.lr = 1.0


def test_a_reward_is_the_type_it_says() -> None:
    recipe = parse({"model": "base", "rewards": [{"type": "length", "low": 1, "best": 2, "high": 3}]}, "mine")
    assert recipe.rewards == [LengthReward(type="length", low=1, best=2, high=3)]


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("training.lr=1e-4", "training.lr", 1e-4), ("candidates.n=8", "candidates.n", 8),
        ("model.dtype=float32", "model.dtype", "float32"), ("judge.mode=expected", "judge.mode", "expected"),
        ("start.sft=null", "start.sft", None), ("evaluate=null", "evaluate", None),
        ("prompts.from=a=b.jsonl", "prompts.source", "a=b.jsonl"),
        ("training.lora.targets=[q, v]", "training.lora.targets", ["q", "v"]),
    ],
)  # fmt: skip
def test_an_override_sets_one_key(tmp_path: Path, override: str, path: str, value: object) -> None:
    found: Any = load(written(tmp_path), [override])
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value and type(found) is type(value)


def test_an_override_keeps_its_neighbours(tmp_path: Path) -> None:
    path = written(tmp_path, "model: {id: base, revision: abc}\ntraining: {lr: 0.5, beta: 0.2}\n")
    recipe = load(path, ["training.lr=0.25", "training.lr=0.125"])
    assert (recipe.training.lr, recipe.training.beta, recipe.model.revision) == (0.125, 0.2, "abc")


@pytest.mark.parametrize(
    "override", ["training.lr", "=3", "seed.x=1", "trainig.lr=1", "prompts.filters.keywords=[a", "training={"]
)
def test_an_override_that_cannot_be_applied_is_a_recipe_error(tmp_path: Path, override: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load(written(tmp_path, "model: base\nseed: 1\n"), [override])
    assert "\n" not in str(refused.value)


def test_a_missing_recipe_names_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="does not exist: `selfreward init mine --model ID`"):
        load(tmp_path / "mine.yaml")


def test_broken_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"mine.yaml, line 3: not valid YAML"):
        load(written(tmp_path, "model: base\nseed: [1\ntraining: 3\n"))


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n"])
def test_a_file_that_is_no_mapping_is_no_recipe(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match="is not a recipe"):
        load(written(tmp_path, text))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"model: \xff\xfe")
    with pytest.raises(RecipeError, match="cannot be read"):
        load(path)


def test_a_file_beside_the_recipe_comes_before_a_packaged_one(tmp_path: Path) -> None:
    recipe = written(tmp_path)
    shipped = locate(recipe, "rubrics/additive.md")
    assert shipped.is_file() and not shipped.is_relative_to(tmp_path)
    (tmp_path / "rubrics").mkdir()
    (tmp_path / "rubrics" / "additive.md").write_text("mine", encoding="utf-8")
    assert locate(recipe, "rubrics/additive.md") == (tmp_path / "rubrics" / "additive.md").resolve()


def test_a_file_that_is_nowhere_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=rf"nowhere.md does not exist: neither {tmp_path.resolve()}/nowhere.md"
    ):
        locate(written(tmp_path), "nowhere.md")


def test_named_models_lie_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SELFREWARD_CACHE", raising=False)
    assert models_folder() == tmp_path / "cache" / "selfreward" / "models"
    monkeypatch.setenv("SELFREWARD_CACHE", str(tmp_path / "own"))
    assert models_folder() == tmp_path / "own" / "models"
