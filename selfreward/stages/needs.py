"""Whether the recipe's rewards can have what they need, asked before any work starts.

An error names the scorer, the need, and what would meet it.
"""

from __future__ import annotations

import importlib.util
import os

from selfreward.engines import model as models
from selfreward.engines.reward_model import is_classifier
from selfreward.engines.server import is_here
from selfreward.errors import BadInput, RecipeError
from selfreward.rewards import (
    CodeReward,
    ExternalReward,
    ImplicitReward,
    JudgeReward,
    LengthReward,
    MajorityReward,
    Rewarding,
    RewardModelReward,
    RlifReward,
    RlprReward,
    RubricReward,
    RuleReward,
)
from selfreward.scorers import confined, lint
from selfreward.scorers.code import CodeScorer, tests_of
from selfreward.scorers.implicit import ImplicitScorer
from selfreward.scorers.judge import JudgeScorer
from selfreward.scorers.length import LengthScorer
from selfreward.scorers.majority import MajorityScorer
from selfreward.scorers.reward_model import RewardModelScorer
from selfreward.scorers.rlif import RlifScorer
from selfreward.scorers.rlpr import RlprScorer
from selfreward.scorers.rule import RuleScorer
from selfreward.stages.seeds import read_prompts
from selfreward.stages.work import Work


def check(work: Work) -> None:
    """Raises `RecipeError` for the first need of a reward that cannot be met."""
    for reward in work.recipe.rewards:
        for need in sorted(_needs(reward)):
            lack = _lack(work, reward, need)
            if lack is not None:
                raise RecipeError(f"rewards: {reward.called} needs {need}: {lack}")


def _needs(reward: Rewarding) -> frozenset[str]:
    """What the reward's scorer declares."""
    match reward:
        case RuleReward(check=rule):
            return RuleScorer(rule).needs
        case MajorityReward():
            return MajorityScorer.needs
        case ImplicitReward():
            return ImplicitScorer.needs
        case RlifReward():
            return RlifScorer.needs
        case RlprReward():
            return RlprScorer.needs
        case CodeReward():
            return CodeScorer.needs
        case RewardModelReward():
            return RewardModelScorer.needs
        case ExternalReward():
            return JudgeScorer.needs | {"network"}
        case JudgeReward() | RubricReward():
            return JudgeScorer.needs
        case LengthReward():
            return LengthScorer.needs
    raise TypeError(f"nobody knows what {type(reward).__name__} needs")


def _lack(work: Work, reward: Rewarding, need: str) -> str | None:
    """What is missing and the next move; None where the need is met."""
    recipe = work.recipe
    match need, reward:
        case "engine", _:  # every run has one
            return None
        case (("reference" | "checks"), _):
            return _lack_of_rows(work, need)
        case "group", _:
            if recipe.candidates.n >= 3:
                return None
            return f"of {recipe.candidates.n} candidates none is in a minority; set candidates.n to 3 or more"
        case "token_stats", _:
            if recipe.engine.type == "transformers":
                return None
            return (
                f"engine {recipe.engine.type} does not tell whole distributions; "
                "set engine.type to transformers, or leave this reward out"
            )
        case "two_policies", _:
            if recipe.start.sft is not None or recipe.start.adapter is not None:
                return None
            return "M1 is M0 itself, and their ratio is 1; set start.sft or start.adapter"
        case "sandbox", _:
            if confined.available():
                return None
            return (
                "code is run on Linux on x86-64 alone, where it can be held to limits; leave this reward out"
            )
        case "tools", CodeReward(tools=tools):
            gone = ", ".join(lint.missing(tools))
            return f"no {gone} here; `pip install 'selfreward[code]'`, or name fewer tools" if gone else None
        case "network", ExternalReward():
            return _lack_of_server(reward)
        case "reward_model", RewardModelReward():
            return _lack_of_classifier(work, reward)
    raise LookupError(f"nobody knows what would meet {need!r} of {type(reward).__name__}")


def _lack_of_rows(work: Work, need: str) -> str | None:
    """Prompts of the user's own may have references and checks; invented ones have none."""
    source = work.recipe.prompts.source
    if source == "self-instruct":
        return f"invented prompts have none; set prompts.from to a file with `{need}`"
    rows = read_prompts(work.file(source))
    told = [r for r in rows if (r["reference"] if need == "reference" else tests_of(r["checks"]))]
    if told:
        return None
    more = ", a text of Python under `tests`" if need == "checks" else ""
    return f"no line of {source} has `{need}`{more}; add it, or choose another reward"


def _lack_of_server(reward: ExternalReward) -> str | None:
    if importlib.util.find_spec("openai") is None:
        return "the package openai is not installed; `pip install 'selfreward[openai]'`"
    if not is_here(reward.url) and not os.environ.get(reward.api_key_env):
        return f"{reward.api_key_env} is not set; put the server's key into the environment under that name"
    return None


def _lack_of_classifier(work: Work, reward: RewardModelReward) -> str | None:
    try:
        folder, _ = models.resolve(reward.model, reward.revision, work.recipe_file.parent)
    except BadInput as error:
        return str(error)
    if not is_classifier(folder):
        return f"{folder} is no sequence classifier; name a model with one output, or use a judge"
    return None
