"""The recipe's `rewards`: who scores the candidates, and what part each score has in the sum.

Each type is one scorer; `docs/rewards.md` says what it measures, what it needs and how it fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from selfreward.sections import Allowance, Count, SamplingOptions, Section, check_server

Answers = Literal["number", "text"]
COMMON = ("name", "weight", "role")


class Rewarding(Section):
    """What every reward says of itself: its name in the store, its weight, and its part.

    `score` is added up; `gate` is multiplied in before; `tie_break` decides among equal sums alone;
    `diagnostic` is stored and decides nothing.
    """

    unit: ClassVar[bool] = False  # whether its scores lie in 0..1, as a gate's must
    type: str
    name: str | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0
    role: Literal["score", "gate", "tie_break", "diagnostic"] = "score"

    @property
    def called(self) -> str:
        """What its judgements are stored under."""
        return self.name or self.type

    @property
    def decided(self) -> dict[str, Any]:
        """The settings without the common ones that are as they always were: older runs go on unchanged."""
        usual = {"name": None, "weight": 1.0, "role": "score"}
        return {k: v for k, v in self.model_dump().items() if k not in COMMON or v != usual[k]}


class JudgeReward(Rewarding):
    """Candidates are scored by the policy that wrote them, as `judge` says."""

    type: Literal["judge"] = "judge"


class RubricReward(Rewarding):
    """The same judge on a packaged rubric: four aspects, each with a score, or one mark from 1 to 10."""

    type: Literal["aspects", "direct-10"]

    @property
    def rubric(self) -> str:
        """The packaged file."""
        return f"rubrics/{self.type}.md"


class ExternalReward(Rewarding):
    """A judge of its own behind an OpenAI-compatible server; its replies are read like any judge's."""

    type: Literal["external"]
    url: str
    model: str
    rubric: str = "rubrics/additive.md"
    samples: Count = 1
    sampling: SamplingOptions = SamplingOptions(temperature=0.7, top_p=0.9, max_new_tokens=256)
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: Count = 16
    timeout: Annotated[float, Field(gt=0)] = 600.0
    limits: Allowance = Allowance()

    @model_validator(mode="after")
    def _one_server(self) -> ExternalReward:
        check_server("external", self.url, self.api_key_env)
        return self


class RewardModelReward(Rewarding):
    """A sequence classifier with one output, from the hub's cache or a folder, in an engine child."""

    type: Literal["reward-model"]
    model: str
    revision: str | None = None
    batch: Count = 16


class LengthReward(Rewarding):
    """A rule anyone can count: 1 at `best` words, falling to 0 outside `low`..`high`; 0 if unfinished."""

    unit: ClassVar[bool] = True
    type: Literal["length"]
    low: Count = 8
    best: Count = 16
    high: Count = 25

    @model_validator(mode="after")
    def _ordered(self) -> LengthReward:
        if not self.low <= self.best <= self.high:
            raise ValueError("low, best and high must be in this order")
        return self


class RuleReward(Rewarding):
    """A check anyone can repeat: of the answer against the reference, or of the text's form."""

    unit: ClassVar[bool] = True  # but for `length`
    type: Literal["rule"]
    check: Literal["reft", "accuracy", "format", "tag_count", "reasoning_steps", "length"] = "reft"
    answer: Answers = "number"


class MajorityReward(Rewarding):
    """1 for the answer most candidates of the prompt give, 0 for others."""

    unit: ClassVar[bool] = True
    type: Literal["majority"]
    answer: Answers = "number"


class ImplicitReward(Rewarding):
    """The log-ratio of the policy to M0; with `consistency` pairs are trained as soft labels."""

    type: Literal["implicit"]
    consistency: bool = True


class RlifReward(Rewarding):
    """How sure the policy is of its own words; no reward to be had alone without `i_know`."""

    type: Literal["rlif"]
    measure: Literal["self_certainty", "token_entropy", "trajectory_entropy"] = "self_certainty"
    i_know: bool = False


class RlprReward(Rewarding):
    """The mean probability of the reference answer after the candidate's words, less that without them."""

    unit: ClassVar[bool] = True
    type: Literal["rlpr"]
    opening: Annotated[str, Field(min_length=1)] = "Answer:"


class CodeReward(Rewarding):
    """The prompt's tests as a gate, then what linters find in the candidate's Python code."""

    unit: ClassVar[bool] = True
    type: Literal["code"]
    tools: list[Literal["pylint", "flake8", "mypy"]] = Field(default=["pylint", "flake8", "mypy"])
    seconds: Annotated[int, Field(ge=1)] = 4  # of CPU; ten times as many by the clock
    memory_mib: Annotated[int, Field(ge=64)] = 512


Reward = Annotated[
    JudgeReward
    | RubricReward
    | ExternalReward
    | RewardModelReward
    | LengthReward
    | RuleReward
    | MajorityReward
    | ImplicitReward
    | RlifReward
    | RlprReward
    | CodeReward,
    Field(discriminator="type"),
]


def check_rewards(rewards: Sequence[Rewarding]) -> None:
    """Raises ValueError where the rewards together cannot be meant."""
    names = [r.called for r in rewards]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise ValueError(f"two rewards are called {twice}: give one of them a name")
    for reward in rewards:
        length = isinstance(reward, RuleReward) and reward.check == "length"
        if reward.role == "gate" and (not reward.unit or length):
            raise ValueError(f"{reward.called} cannot be a gate: its scores do not lie between 0 and 1")
    scores = [r for r in rewards if r.role == "score"]
    if not scores:
        raise ValueError("no reward has the role score: there would be nothing to add up")
    if all(isinstance(r, RlifReward) and not r.i_know for r in scores):
        raise ValueError(
            "rlif as the only reward teaches a policy to be sure, not to be right, and collapses: set its "
            "role to diagnostic or tie_break beside another reward, or i_know to true"
        )
