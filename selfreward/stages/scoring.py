"""The recipe's rewards besides the judge and the length rule: opened with what they need, and their keys."""

from __future__ import annotations

from functools import partial
from typing import Any

from selfreward import rubric as rubrics
from selfreward.engines import model as models
from selfreward.engines.client import EngineClient
from selfreward.engines.meter import Meter
from selfreward.errors import BadInput, RecipeError
from selfreward.protocols import Scorer
from selfreward.records import Policy
from selfreward.rewards import (
    CodeReward,
    ExternalReward,
    ImplicitReward,
    MajorityReward,
    Rewarding,
    RewardModelReward,
    RlifReward,
    RlprReward,
    RubricReward,
    RuleReward,
)
from selfreward.rubric import Rubric
from selfreward.scorers import lint, sandbox
from selfreward.scorers.code import CodeScorer
from selfreward.scorers.implicit import ImplicitScorer
from selfreward.scorers.judge import JudgeScorer
from selfreward.scorers.majority import MajorityScorer
from selfreward.scorers.reward_model import RewardModelScorer
from selfreward.scorers.rlif import RlifScorer
from selfreward.scorers.rlpr import RlprScorer
from selfreward.scorers.rule import RuleScorer
from selfreward.stages.work import Work, flat, sampling, versions


def open_scorer(work: Work, policy: Policy, reward: Rewarding) -> Scorer:
    """The scorer of a reward; no child starts before it is asked."""
    name, adapter = reward.called, work.adapter(policy)
    match reward:
        case RuleReward(check=check, answer=answer):
            return RuleScorer(check, answer, name)
        case MajorityReward(answer=answer):
            return MajorityScorer(answer, name)
        case ImplicitReward():
            before = work.adapter(work.policy(policy.parent or "M0"))
            return ImplicitScorer(work.engine, adapter, before, name)
        case RlifReward(measure=measure):
            return RlifScorer(work.engine.chat_ids, work.engine.token_stats, adapter, measure, name)
        case RlprReward(opening=opening):
            return RlprScorer(work.engine, adapter, opening, name)
        case CodeReward(tools=tools, seconds=seconds, memory_mib=memory):
            run = partial(sandbox.run, seconds=seconds, memory_mib=memory)
            return CodeScorer(run, partial(lint.findings, tools=tools), name)
        case RubricReward():
            judge, mode = work.recipe.judge, _mode(work, reward)
            draws, rubric = sampling(judge.sampling), _rubric(work, reward.rubric)
            return JudgeScorer(work.engine, rubric, mode, judge.samples, draws, adapter, name)
        case ExternalReward(samples=samples, sampling=options):
            rubric, engine = _rubric(work, reward.rubric), _server(work, reward)
            return JudgeScorer(engine, rubric, "sampled", samples, sampling(options), None, name)
        case RewardModelReward():
            return RewardModelScorer(_classifier(work, reward).rewards, name)
    raise ValueError(f"no scorer for a reward of type {reward.type}")


def made_from(work: Work, policy: Policy, reward: Rewarding, prefix: str) -> dict[str, Any]:
    """What decides a reward's verdicts. Where a server stands, and how many are asked at once, does not."""
    keys = flat(reward.decided, prefix)
    match reward:
        case ImplicitReward():
            before = work.policy(policy.parent or "M0").sha256
            return keys | {f"{prefix}.previous.sha256": before} | work.decided_by_engine(policy)
        case RlifReward() | RlprReward():
            return keys | work.decided_by_engine(policy)
        case CodeReward(tools=tools):
            return keys | versions(*tools)
        case RubricReward():
            judge = work.recipe.judge
            own = {
                f"{prefix}.rubric": _rubric(work, reward.rubric).sha256,
                f"{prefix}.mode": _mode(work, reward),
            }
            draws = {"judge.samples": judge.samples} | flat(judge.sampling, "judge.sampling")
            return keys | own | draws | work.decided_by_engine(policy)
        case ExternalReward():
            carried = ("url", "api_key_env", "concurrency", "timeout", "limits")
            told = {k: v for k, v in keys.items() if k.split(".")[2] not in carried}
            return told | {f"{prefix}.rubric": _rubric(work, reward.rubric).sha256}
        case RewardModelReward():
            return keys | {f"{prefix}.model": _folder(work, reward)[1]} | versions()
    return keys


def _mode(work: Work, reward: RubricReward) -> str:
    """Several numbers a reply can only be read; one can also be weighed."""
    return "sampled" if reward.type == "aspects" or work.recipe.judge.mode == "sampled" else "expected"


def _rubric(work: Work, name: str) -> Rubric:
    path = work.file(name)
    rubric = rubrics.parse(path.read_text(encoding="utf-8"), str(path))
    if rubric.kind == "pairwise":
        raise RecipeError(f"{path} compares two answers: a reward needs a rubric that asks about one")
    return rubric


def _server(work: Work, reward: ExternalReward) -> EngineClient:
    limits = reward.limits
    settings = {
        "url": reward.url, "served_model": reward.model, "api_key_env": reward.api_key_env,
        "concurrency": reward.concurrency, "timeout": reward.timeout,
    }  # fmt: skip
    meter = Meter(limits.hours, limits.requests, limits.tokens)
    return work.beside(reward.called, "openai-text", settings, meter)


def _classifier(work: Work, reward: RewardModelReward) -> EngineClient:
    settings = {
        "model": str(_folder(work, reward)[0]),
        "dtype": work.dtype,
        "batch": reward.batch,
        "threads": work.threads,
    }
    return work.beside(reward.called, "reward-model", settings)


def _folder(work: Work, reward: RewardModelReward) -> tuple[Any, str]:
    """The classifier's folder and identity; a hub model comes from the cache, or is fetched before work."""
    try:
        return models.resolve(reward.model, reward.revision, work.recipe_file.parent)
    except BadInput as error:
        raise BadInput(f"{reward.called}: {error}") from None
