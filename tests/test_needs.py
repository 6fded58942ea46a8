"""What a reward needs is asked for before any work: an error names the scorer, the need and what would do."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfreward.errors import RecipeError
from selfreward.recipe_file import locate, parse
from selfreward.scorers import confined
from selfreward.scorers.judge import JudgeScorer
from selfreward.scorers.length import LengthScorer
from selfreward.scorers.majority import MajorityScorer
from selfreward.scorers.rlpr import RlprScorer
from selfreward.stages import needs

LINES = [{"prompt": "What is 3 + 4?"}, {"prompt": "What is 1 + 1?"}]
WITH = {"reference": {"reference": "7"}, "checks": {"checks": {"tests": "assert f(1) == 2"}}}


def check(
    folder: Path, *rewards: dict[str, Any], more: dict[str, Any] | None = None, **sections: Any
) -> None:
    """The check on a recipe with these rewards; `more` is added to the second of two prompts of its own."""
    lines = [LINES[0], LINES[1] | (more or {})]
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    own = {"prompts": {"from": "p.jsonl"}} | sections
    recipe = parse({"model": "m", "rewards": list(rewards), **own}, "r.yaml")
    file = folder / "r.yaml"
    work: Any = SimpleNamespace(recipe=recipe, recipe_file=file, file=lambda name: locate(file, name))
    needs.check(work)


NO_START = {"start": {"sft": None}}


@pytest.mark.parametrize(
    ("reward", "sections", "told"),
    [
        ({"type": "rule"}, {}, r"rule needs reference: no line of p\.jsonl"),
        ({"type": "rule"}, {"prompts": {}}, "rule needs reference: invented prompts have none"),
        ({"type": "rlpr", "name": "mine"}, {}, "mine needs reference"),
        ({"type": "code", "tools": []}, {}, "code needs checks: no line"),
        ({"type": "majority"}, {"candidates": {"n": 2}}, "majority needs group: of 2 candidates"),
        ({"type": "implicit"}, NO_START, "implicit needs two_policies: M1 is M0 itself"),
        ({"type": "rlif", "i_know": True}, {"engine": {"type": "vllm"}}, "rlif needs token_stats: engine"),
        ({"type": "reward-model", "model": "./none"}, {}, "reward-model needs reward_model: model './none'"),
        ({"type": "judge"}, {}, None),
        ({"type": "rule", "check": "format"}, {"prompts": {}}, None),
        ({"type": "rlif", "i_know": True}, {}, None),
        ({"type": "implicit"}, {}, None),
        ({"type": "majority"}, {"prompts": {}}, None),
    ],
)  # fmt: skip
def test_a_need_that_cannot_be_met_is_named(
    reward: dict[str, Any], sections: dict[str, Any], told: str | None, tmp_path: Path
) -> None:
    if told is None:
        check(tmp_path, reward, **sections)
        return
    with pytest.raises(RecipeError, match=told):
        check(tmp_path, reward, **sections)


def test_a_need_of_any_reward_counts_and_one_line_meets_it(tmp_path: Path) -> None:
    """Guards: only the first of several rewards looked at."""
    with pytest.raises(RecipeError, match="rule needs reference"):
        check(tmp_path, {"type": "judge"}, {"type": "rule", "role": "diagnostic"})
    check(tmp_path, {"type": "rule"}, {"type": "rlpr"}, more=WITH["reference"])


def test_code_needs_a_sandbox_and_its_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(tmp_path, {"type": "code", "tools": []}, more=WITH["checks"])
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: known("no_such") if name == "flake8" else known(name)
    )
    with pytest.raises(RecipeError, match="code needs tools: no flake8 here"):
        check(tmp_path, {"type": "code", "tools": ["mypy", "flake8"]}, more=WITH["checks"])
    monkeypatch.setattr(confined, "available", lambda: False)
    with pytest.raises(RecipeError, match="code needs sandbox"):
        check(tmp_path, {"type": "code", "tools": []}, more=WITH["checks"])


def test_a_judge_outside_needs_its_key_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server on this machine wants none."""
    outside = {
        "type": "external",
        "url": "https://judge.example/v1",
        "model": "m",
        "api_key_env": "JUDGE_KEY",
    }
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: real("json") if name == "openai" else real(name)
    )
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(RecipeError, match="external needs network: JUDGE_KEY is not set"):
        check(tmp_path, outside)
    check(tmp_path, outside | {"url": "http://127.0.0.1:8000/v1"})
    monkeypatch.setenv("JUDGE_KEY", "k")
    check(tmp_path, outside)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openai" else real(name))
    with pytest.raises(RecipeError, match="external needs network: the package openai"):
        check(tmp_path, outside)


def test_a_language_model_is_no_reward_model(tiny_policy: Path, tmp_path: Path) -> None:
    """Guards: a head drawn at random whose numbers look like rewards."""
    with pytest.raises(RecipeError, match="is no sequence classifier"):
        check(tmp_path, {"type": "reward-model", "model": str(tiny_policy)})


def test_every_need_of_every_scorer_is_asked_about(tmp_path: Path) -> None:
    """Guards: a need that nobody asks about, which would count as met."""
    types: list[dict[str, Any]] = [
        {"type": "rule"}, {"type": "majority"}, {"type": "implicit"}, {"type": "rlif", "i_know": True},
        {"type": "rlpr"}, {"type": "code", "tools": []}, {"type": "judge"}, {"type": "length"},
        {"type": "external", "url": "http://127.0.0.1:1/v1", "model": "x"}, {"type": "aspects"},
        {"type": "direct-10"},
    ]  # fmt: skip
    for reward in types:
        if reward["type"] != "external" or importlib.util.find_spec("openai"):
            check(tmp_path, reward, more=WITH["reference"] | WITH["checks"])


@pytest.mark.parametrize("scorer", [JudgeScorer, LengthScorer, MajorityScorer, RlprScorer])
def test_a_need_nobody_knows_is_never_met(
    scorer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the scorer's class declares is what is read: one word more there stops the run."""
    called = {JudgeScorer: "judge", LengthScorer: "length", MajorityScorer: "majority", RlprScorer: "rlpr"}
    monkeypatch.setattr(scorer, "needs", scorer.needs | {"a moon"})
    with pytest.raises(LookupError, match="a moon"):
        check(tmp_path, {"type": called[scorer]}, more=WITH["reference"])
