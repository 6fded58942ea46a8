"""The recipe: the YAML file that defines a run, checked key by key before anything starts.

Defaults cite their source. Nothing below the loop ever sees a Recipe: workers take plain arguments.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from selfreward.rewards import ExternalReward, JudgeReward, Reward, RubricReward, check_rewards
from selfreward.sections import Allowance, Count, Probability, SamplingOptions, Section, Share, check_server


class Model(Section):
    """The base: a hub id, a folder, or the name of a model in the user's cache."""

    id: str
    revision: str | None = None
    chat_template: str | None = None  # a Jinja file, or `plain`; None: the model's own
    system: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


class EngineOptions(Section):
    """How completions are made.

    `batch` is rows decoded at once; `block` is prompts committed as one, or at least as one where an engine
    finishes them out of order. Then vLLM's: GPUs a policy is spread over, share of their memory, size of the
    key-value cache, longest chat and answer in tokens. Last a server's: where it is, what it calls the base,
    which environment variable holds its key, requests on their way at once, seconds a reply may take.
    """

    type: Literal["transformers", "vllm", "openai"] = "transformers"
    batch: Count = 64
    block: Count = 16
    threads: Count | None = None  # None: all CPUs this process may use
    hung_after: Annotated[float, Field(gt=0)] = 1800.0  # seconds without a sign of life, of a trainer too
    tensor_parallel: Count = 1
    gpu_memory: Share = 0.9
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None  # None: 2 on a CPU, what is left on a GPU
    context: Count | None = None  # None: the model's own
    url: str | None = None  # ends in /v1; `openai` only, as all below
    served_model: str | None = None  # None: the one that is the recipe's base
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: Count = 16
    timeout: Annotated[float, Field(gt=0)] = 600.0
    limits: Allowance = Allowance()

    @model_validator(mode="after")
    def _one_server(self) -> EngineOptions:
        check_server("engine", self.url, self.api_key_env)
        if self.type == "openai" and self.url is None:
            raise ValueError("engine.type openai needs engine.url, such as http://127.0.0.1:8000/v1")
        if self.type != "openai" and self.limits != Allowance():
            raise ValueError("engine.limits are for engine.type openai")
        return self


class Compute(Section):
    """Where an engine runs: in one process, or as Ray workers that share a run's blocks.

    Each worker holds a whole engine (`engine.tensor_parallel` GPUs). A worker that finishes no row for
    `timeout` seconds while it has some to make hangs: it is ended and its rows are made by another.
    """

    workers: Count = 1
    ray_address: str | None = None  # host:port of a cluster that is up; None: a Ray of our own, here
    timeout: Annotated[float, Field(gt=0)] = 1800.0

    @model_validator(mode="after")
    def _plain_address(self) -> Compute:
        given = self.ray_address
        if given is not None and not re.fullmatch(r"[\w.-]+:\d{1,5}", given):
            raise ValueError(
                f"compute.ray_address is {given!r}: write host:port, as `ray start --head` prints it"
            )
        return self


class Lora(Section):
    """The adapter's shape; `targets` is `auto` (every linear layer but the head) or module names."""

    r: Count = 16
    alpha: Count = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Literal["auto"] | list[str] = "auto"


class Sft(Section):
    """The training that makes M1: written answers, and judgements whose score is known by construction."""

    file: str = "seed/instructions.jsonl"
    judge_file: str | None = "seed/judge.jsonl"
    examples: Count | None = None  # None: all
    judge_examples: Annotated[int, Field(ge=0)] | None = None
    epochs: Annotated[float, Field(gt=0)] = 1.0
    batch: Count = 16  # Self-Rewarding LMs, section 3.1.2
    micro_batch: Count = 4
    lr: Annotated[float, Field(gt=0)] = 2e-4  # LoRA needs 10-50 x the paper's full-weight 5.5e-6
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    save_steps: Count = 50

    _whole = model_validator(mode="after")(lambda self: _whole_batches(self))


def _whole_batches(section: Any) -> Any:
    """A step is made of whole forward passes: any other `batch` would silently be a smaller one."""
    if section.batch % min(section.micro_batch, section.batch):
        raise ValueError(f"batch {section.batch} is not a multiple of micro_batch {section.micro_batch}")
    return section


class Start(Section):
    """Where M1 comes from: `sft`, an existing LoRA folder, or neither (M1 is the base)."""

    sft: Sft | None = Sft()
    adapter: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Start:
        if self.sft and self.adapter:
            raise ValueError("start.adapter makes M1 itself: set start.sft to null beside it")
        return self


class Filters(Section):
    """What an invented prompt must pass (Self-Instruct, section 2.2: ROUGE-L 0.7, 3 < words <= 150)."""

    rouge: Share = 0.7
    min_words: Count = 4
    max_words: Count = 150
    keywords: list[str] = Field(default=[
        "image", "images", "picture", "pictures", "graph", "graphs", "photo", "file", "files", "draw", "plot",
        "video", "audio", "map", "music", "flowchart", "diagram", "website", "url", "link",
    ])  # fmt: skip


class Prompts(Section):
    """The prompts an iteration works on. `from` is `self-instruct` or a file of the user's own."""

    source: str = Field("self-instruct", alias="from")
    count: Count = 64  # accepted prompts an iteration
    seed_file: str = "seed/instructions.jsonl"
    requests: Count = 16  # a round
    rounds: Count = 4  # at most
    seed_shots: Count = 6  # Self-Rewarding LMs: 8-shot, 6 of them seed, 2 generated
    own_shots: Annotated[int, Field(ge=0)] = 2
    sampling: SamplingOptions = SamplingOptions(temperature=0.6, top_p=0.9, max_new_tokens=256)
    filters: Filters = Filters()

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Anchor(Section):
    """Answers of an earlier policy beside an iteration's own, for `pairs.rule: anchored`."""

    policy: Literal["M0", "M1"] = "M0"
    n: Count = 1


class Candidates(Section):
    """How each prompt is answered: `n` samples (Self-Rewarding LMs: 4), and perhaps an anchor's."""

    n: Annotated[int, Field(ge=2, le=256)] = 4
    sampling: SamplingOptions = SamplingOptions()
    anchor: Anchor | None = None

    @model_validator(mode="after")
    def _countable(self) -> Candidates:
        if self.anchor and self.n + self.anchor.n > 256:
            raise ValueError("candidates.n and anchor.n together are more than the 256 a prompt can have")
        return self


class Judge(Section):
    """The language-model judge.

    `sampled` reads n replies; `expected` weighs each score by its probability; `pairwise` compares every two
    answers in both orders, and `scalar` makes one score of an answer's comparisons. `policy` is `self`, the
    policy that is judged, `previous`, the one before it, or M0 or M1 for all of them.
    """

    rubric: str = "rubrics/additive.md"  # of `pairwise`: rubrics/pairwise.md
    mode: Literal["sampled", "expected", "pairwise"] = "sampled"
    scalar: Literal["copeland", "bradley_terry"] = "copeland"
    policy: Literal["self", "previous", "M0", "M1"] = "self"  # whose weights judge
    samples: Count = 3  # Self-Rewarding LMs, section 3.1.2; `sampled` only
    sampling: SamplingOptions = SamplingOptions(temperature=0.7, top_p=0.9, max_new_tokens=256)
    reask: bool = False  # `sampled`: force a score after a reply that could not be read, marked as such
    calibrate: Literal["content_free", "within_prompt"] | None = None  # `expected`: remove the digit's prior
    calibration: str | None = None  # answers people rated: measured after each training, a coin stops the run
    calibration_items: Count | None = None  # None: all of the file; a coin is called one from 250 pairs on

    @model_validator(mode="after")
    def _fits_the_mode(self) -> Judge:
        if self.reask and self.mode != "sampled":
            raise ValueError(f"judge.reask is for judge.mode sampled: nothing is read in {self.mode}")
        if self.calibrate and self.mode != "expected":
            raise ValueError(f"judge.calibrate is for judge.mode expected: {self.mode} weighs no scores")
        return self

    @model_validator(mode="before")
    @classmethod
    def _rubric_of_the_mode(cls, data: Any) -> Any:
        """Comparing needs a rubric that asks for it: the packaged one, unless another is named."""
        if isinstance(data, dict) and data.get("mode") == "pairwise":
            return {"rubric": "rubrics/pairwise.md"} | data
        return data


class Pairs(Section):
    """How pairs are mined. A margin under `min_margin` makes none (0: any difference counts).

    Defaults are the paper's rule as it stands; `docs/rewards.md` says what each key is for.
    """

    rule: Literal["best_vs_worst", "best_vs_random", "above_margin", "length_band", "anchored"] = (
        "best_vs_worst"
    )
    min_margin: Annotated[float, Field(ge=0)] = 0.0
    max_similarity: Share | None = None  # ROUGE-L F1 of chosen and rejected; None: any two that differ
    rho: Annotated[float, Field(ge=0, lt=0.5)] = 0.1  # of `length_band`; ours, Meta-Rewarding tunes it
    steady: Annotated[float, Field(ge=0)] = 0.0  # deviations of the judge's samples taken off
    length_control: Literal["auto"] | None = None
    p_hat: tuple[Probability, Probability] | None = None
    right_at: float = 1.0  # the mean from which a candidate counts as right, for `p_hat`
    min_spread: Annotated[float, Field(ge=0)] = 0.0
    spread_ema: Annotated[float, Field(ge=0, lt=1)] | None = None  # decay of the mean spread to be reached
    format_cap: Probability | None = None  # share of pairs whose chosen side is not right either

    @model_validator(mode="after")
    def _fits(self) -> Pairs:
        ranks = self.rule in ("best_vs_worst", "best_vs_random", "anchored")
        if not ranks and (self.steady or self.length_control):
            raise ValueError(
                f"{self.rule} ranks nobody: steady and length_control are for best_vs_… and anchored"
            )
        if self.p_hat and self.p_hat[0] > self.p_hat[1]:
            raise ValueError("p_hat is low and high, in this order")
        return self


class Training(Section):
    """LoRA-DPO.

    Rates are LoRA's; `batch` is pairs per optimiser step; `micro_batch` pairs share a forward pass.
    """

    beta: Annotated[float, Field(gt=0)] = 0.1  # Self-Rewarding LMs, section 3.1.2
    lr: Annotated[float, Field(gt=0)] = 5e-5  # the paper's 1e-6 is full-weight; LoRA needs 10-50 x
    epochs: Annotated[float, Field(gt=0)] = 1.0
    batch: Count = 16
    micro_batch: Count = 2
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    max_length: Count = 2048  # tokens of prompt and answer; longer pairs are not mined, never cut
    save_steps: Count = 50
    processes: Count | None = None  # None: one for each GPU, one on a CPU; `batch` is of all together
    nodes: Count = 1  # machines that train together, each with `processes`
    launch: list[str] | None = None  # what starts a command on each of them, such as srun
    reference: Literal["previous", "base"] = "previous"
    gradient_checkpointing: bool = False
    lora: Lora = Lora()
    replay: Probability = 0.0  # share of rows that are pairs of earlier iterations
    judge_share: Probability = 0.0  # share of rows that are judgements, the known score against a wrong one
    judge_file: str = "seed/judge.jsonl"
    mixed_at_most: Annotated[float, Field(ge=0, lt=1)] = 0.15  # of both together; ours, to calibrate

    _whole = model_validator(mode="after")(lambda self: _whole_batches(self))

    @model_validator(mode="after")
    def _machines(self) -> Training:
        if (self.nodes > 1) != bool(self.launch):
            raise ValueError(
                "training.nodes and training.launch come together: launch is the command that starts one "
                "process on each machine, such as [srun, --nodes, '{nodes}', --ntasks-per-node, '1']"
            )
        known = ("{nodes}", "{rank}", "{master}")
        for word in self.launch or []:
            if unknown := [w for w in re.findall(r"\{\w*\}", word) if w not in known]:
                raise ValueError(f"training.launch has {unknown[0]}: it may have {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _capped(self) -> Training:
        if self.replay + self.judge_share > self.mixed_at_most + 1e-9:
            raise ValueError(
                f"replay {self.replay:g} and judge_share {self.judge_share:g} are more than "
                f"mixed_at_most {self.mixed_at_most:g}: lower them, or raise it"
            )
        return self


class Probe(Section):
    """Fixed held-out prompts answered at temperature 1 by every policy."""

    file: str = "probe.jsonl"
    count: Annotated[int, Field(ge=2)] = 64
    max_new_tokens: Count = 128


class AskedSuite(Section):
    """A suite asked of every policy: a known one (from the hub, or `data`) or a JSONL file.

    What is None is the suite's own. `role: tax` watches an ability: a drop against M1 is an alarm.
    """

    suite: str
    data: str | None = None
    name: str | None = None  # what its answers are stored under; None: the suite's, or the file's stem
    first: Count | None = None
    samples: Annotated[int, Field(ge=1, le=256)] = 1
    temperature: Annotated[float, Field(ge=0)] | None = None
    max_new_tokens: Count | None = None
    role: Literal["score", "tax"] = "score"


class Evaluate(Section):
    """The small offline suite: two-turn questions graded 1-10 by `grader`, and integer-answer problems.

    `suites` are asked besides; `budget` is the new tokens they may take a policy, each answer at its longest.
    """

    questions: str | None = "eval/two-turn.jsonl"
    problems: str | None = "eval/integers.jsonl"
    rubric: str = "rubrics/grade-10.md"
    grader: Literal["self", "M0"] = "M0"  # the same ruler for every policy
    temperature: Annotated[float, Field(ge=0)] = 0.7
    max_new_tokens: Count = 256
    suites: list[AskedSuite] | None = None
    budget: Count | None = None


class Limit(Section):
    """Another level for one signal, and the prompts it takes to halt; null keeps the default.

    Defaults and reasons: collapse/limits.py and docs/collapse.md.
    """

    warn: float | None = None
    halt: float | None = None
    least: Count | None = None


class Limits(Section):
    """The signals whose levels a recipe may change, by name."""

    no_text: Limit = Limit()
    same_text: Limit = Limit()
    loop_share: Limit = Limit()
    compression: Limit = Limit()
    self_repetition: Limit = Limit()
    relevance: Limit = Limit()
    identical: Limit = Limit()
    within_distance: Limit = Limit()
    cut_share: Limit = Limit()
    length_ratio: Limit = Limit()
    shrink_ratio: Limit = Limit()
    distinct_2_ratio: Limit = Limit()
    vendi_ratio: Limit = Limit()
    distance_ratio: Limit = Limit()
    unasked_word: Limit = Limit()
    one_word: Limit = Limit()
    prompt_vendi_ratio: Limit = Limit()
    prompt_word: Limit = Limit()
    faults: Limit = Limit()
    ties: Limit = Limit()
    top_score: Limit = Limit()
    same_score: Limit = Limit()
    spread: Limit = Limit()
    length_correlation: Limit = Limit()
    chosen_longer: Limit = Limit()
    chosen_word: Limit = Limit()
    kl_previous: Limit = Limit()
    reward_fall: Limit = Limit()
    train_drift: Limit = Limit()
    chosen_fall: Limit = Limit()
    train_margin: Limit = Limit()
    gradient_ratio: Limit = Limit()
    score_shift: Limit = Limit()
    spread_ratio: Limit = Limit()


class Gate(Section):
    """What a gate does when it finds collapse: stop, try again, or say so and go on; and its levels."""

    on_collapse: Literal["halt", "rollback", "warn"] = "halt"  # rollback: calmer tries as branches NAME~1, …
    retries: Annotated[int, Field(ge=1, le=9)] = 2  # tries of an iteration, with `rollback`
    limits: Limits = Limits()


class Audit(Section):
    """`pairs audit` of a run: pairs judged again, and what ends it with exit code 5; null bounds nothing.

    Bounds are ours. Lengths and likelihoods alone should not tell the labels, either way.
    """

    sample: Annotated[int, Field(ge=0)] = 32
    problem_share: Probability | None = 0.1
    length_only_accuracy: Probability | None = 0.8  # where gate 1 halts on chosen_longer
    likelihood_only_accuracy: Probability | None = 0.8
    swap_unconfirmed: Probability | None = 0.5  # more labels that the judge does not repeat than it repeats
    rejudged_flips: Probability | None = 0.3
    attack_success: Probability | None = 0.3


class StoreOptions(Section):
    """Where the store lies while a run writes it; docs/operations.md says when that matters."""

    path: str | None = None  # a folder on a local disk, to work on the store there
    network: Literal["auto"] | bool = "auto"  # whether several machines write the run's folder; `auto` looks


def _as_model(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


class Recipe(Section):
    """All that defines a run."""

    model: Annotated[Model, BeforeValidator(_as_model)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    engine: EngineOptions = EngineOptions()
    compute: Compute = Compute()
    start: Start = Start()
    prompts: Prompts = Prompts()
    candidates: Candidates = Candidates()
    rewards: list[Reward] = Field(default=[JudgeReward()], min_length=1)
    judge: Judge = Judge()
    pairs: Pairs = Pairs()
    training: Training = Training()
    probe: Probe = Probe()
    evaluate: Evaluate | None = Evaluate()
    gate: Gate = Gate()
    track: Literal["none", "wandb", "trackio", "tensorboard"] = "none"  # offline, in tracking/ of the run
    track_texts: bool = False  # some pairs' texts too, not numbers alone
    report: bool = True  # after each verdict on a policy, iterations/NAME/report.html is written anew
    audit: Audit = Audit()
    store: StoreOptions = StoreOptions()

    @field_validator("rewards")
    @classmethod
    def _go_together(cls, rewards: list[Reward]) -> list[Reward]:
        check_rewards(rewards)
        return rewards

    @model_validator(mode="after")
    def _has_anchors(self) -> Recipe:
        if self.pairs.rule == "anchored" and self.candidates.anchor is None:
            raise ValueError(
                "pairs.rule anchored rejects answers of an earlier policy: set candidates.anchor"
            )
        return self

    @model_validator(mode="after")
    def _workers_or_server(self) -> Recipe:
        if self.engine.type == "openai" and self.compute != Compute():
            raise ValueError("compute is for engines of our own: a server takes engine.concurrency requests")
        return self

    @property
    def files(self) -> list[str]:
        """Every file the recipe names, to be looked for before work starts."""
        sft, evaluate = self.start.sft, self.evaluate
        own = self.prompts.source
        template = self.model.chat_template
        named = [
            self.prompts.seed_file if own == "self-instruct" else own,
            template if template != "plain" else None,
            self.judge.rubric,
            *(r.rubric for r in self.rewards if isinstance(r, RubricReward | ExternalReward)),
            self.judge.calibration,
            self.training.judge_file if self.training.judge_share else None,
            self.probe.file,
            *([sft.file, sft.judge_file] if sft else []),
            *([evaluate.questions, evaluate.problems, evaluate.rubric] if evaluate else []),
            *[s.data or s.suite for s in (evaluate and evaluate.suites) or [] if s.data or "." in s.suite],
        ]
        return [n for n in named if n]
