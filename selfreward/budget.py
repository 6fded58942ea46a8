"""What a run will cost before it starts, in tokens and hours.

Pure arithmetic on plain numbers; whoever calls it has counted texts and looked at the machine. Every amount
says how it is known: `given`, `counted` from files, `measured` in an earlier run, `guess`, or `bound`, the
most it can be. A sum is known no better than its worst part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from selfreward.shapes import Shape, kv_bytes, parameters, working

How = Literal["given", "counted", "measured", "guess", "bound"]
KINDS: tuple[How, ...] = ("given", "counted", "measured", "guess", "bound")  # best known first


@dataclass(frozen=True, slots=True)
class Amount:
    """A number and how it is known."""

    n: float
    how: How = "counted"

    def __add__(self, other: Amount) -> Amount:
        parts = [a for a in (self, other) if a.n] or [self]
        return Amount(self.n + other.n, _worst(a.how for a in parts))

    def __mul__(self, other: Amount | float) -> Amount:
        if isinstance(other, Amount):
            return Amount(self.n * other.n, _worst([self.how, other.how]))
        return Amount(self.n * other, self.how)


def total(amounts: Iterable[Amount]) -> Amount:
    """The sum, known as well as its worst part."""
    found = Amount(0)
    for amount in amounts:
        found = found + amount
    return found


def _worst(hows: Iterable[How]) -> How:
    return KINDS[max((KINDS.index(h) for h in hows), default=0)]


NONE = Amount(0)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The recipe's counts. `judging` is the judge's mode, None for a reward without a judge."""

    iterations: int
    requests: Amount  # for new prompts an iteration; 0 with prompts of the user's own
    prompts: int
    candidates: int
    judging: str | None
    samples: int
    grading: str
    adapted: bool  # M1 has an adapter: trained, or given
    sft_epochs: float  # 0: no SFT
    epochs: float
    probes: int
    questions: int
    problems: int
    suites: Amount = NONE  # new tokens of `evaluate.suites` a policy, each answer at its longest


@dataclass(frozen=True, slots=True)
class Texts:
    """Mean tokens of one text of each kind; a chat's include its template and the answer's opening.

    `judge` and `grade` are the judge's chats around an empty request and answer; `request_text` and
    `question_text` are what goes into them.
    """

    invite: Amount  # the request for new prompts
    invention: Amount  # its reply
    prompt: Amount  # a prompt as a chat
    prompt_text: Amount
    candidate: Amount
    judge: Amount
    judgement: Amount
    paired: Amount  # prompts that make a pair, 0..1
    chosen: Amount
    rejected: Amount
    sft_rows: Amount
    sft_row: Amount
    probe: Amount
    probed: Amount  # its answer
    question: Amount
    question_text: Amount
    answered: Amount  # answer of the evaluation
    problem: Amount
    solved: Amount
    grade: Amount
    graded: Amount  # reply of a sampling grader


@dataclass(frozen=True, slots=True)
class Load:
    """Tokens of one stage of one policy.

    `generated` is sampled, `fed` are the prompts of that, `scored` is read without sampling, `trained` goes
    through the trainer; prompts that several samples share count once.
    """

    policy: str
    stage: str
    generated: Amount = NONE
    fed: Amount = NONE
    scored: Amount = NONE
    trained: Amount = NONE


@dataclass(frozen=True, slots=True)
class Rates:
    """Tokens a second: sampled (feeding their prompts included), read without sampling, trained."""

    generate: Amount
    prefill: Amount
    train: Amount


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU, or the machine where there is none: memory in bytes, peak FLOP/s, bytes/s.

    `name` is as the driver calls it; `known` is False where the peaks are another's.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    gpu: bool
    known: bool


# Dense bfloat16 FLOP/s and bytes/s of the makers' data sheets; the first name found in the GPU's counts.
GPUS: tuple[tuple[str, float, float], ...] = (
    ("H200", 989e12, 4.8e12),
    ("H100 PCIe", 756e12, 2.0e12),
    ("H100", 989e12, 3.35e12),
    ("A100", 312e12, 1.94e12),
    ("L40S", 362e12, 0.864e12),
    ("L4", 121e12, 0.3e12),
    ("A10", 125e12, 0.6e12),
    ("RTX 4090", 165e12, 1.01e12),
    ("RTX 3090", 71e12, 0.936e12),
    ("T4", 65e12, 0.32e12),
)


def gpu(name: str, memory: float) -> Device:
    """A GPU by the driver's name; one that is not listed is given an A100's peaks and marked."""
    found = next((g for g in GPUS if g[0].lower() in name.lower()), None)
    _, flops, bandwidth = found or GPUS[3]
    return Device(name, memory, flops, bandwidth, gpu=True, known=found is not None)


# A core's FLOP/s in the demo run's judging (2 cores of an AMD EPYC, float32, 530 tokens/s of a 135M model).
CORE_FLOPS, CORE_BANDWIDTH = 70e9, 10e9


def cpu(cores: int, memory: float) -> Device:
    """A machine without a GPU."""
    return Device(f"{cores} CPU cores", memory, cores * CORE_FLOPS, cores * CORE_BANDWIDTH, False, False)


def loads(sizes: Sizes, texts: Texts) -> list[Load]:
    """Every stage's tokens in the loop's order, M0's probe to the last policy's evaluation."""
    found = [_probe("M0", sizes, texts, 0), _evaluate("M0", sizes, texts)]
    found.append(Load("M1", "sft", trained=texts.sft_rows * texts.sft_row * sizes.sft_epochs))
    found += [_probe("M1", sizes, texts, 1 + sizes.adapted), _evaluate("M1", sizes, texts)]
    for t in range(1, sizes.iterations + 1):
        now, made = f"M{t}", f"M{t + 1}"
        weights = 3 if t > 1 or sizes.adapted else 2  # own, previous and M0, where they differ
        found += [_prompts(now, sizes, texts), _candidates(now, sizes, texts), _judge(now, sizes, texts)]
        found += [_train(made, sizes, texts), _probe(made, sizes, texts, weights)]
        found.append(_evaluate(made, sizes, texts))
    return [x for x in found if any(a.n for a in (x.generated, x.scored, x.trained))]


def _prompts(policy: str, sizes: Sizes, texts: Texts) -> Load:
    n = sizes.requests
    return Load(policy, "prompts", generated=texts.invention * n, fed=texts.invite * n)


def _candidates(policy: str, sizes: Sizes, texts: Texts) -> Load:
    n = sizes.prompts * sizes.candidates
    return Load(policy, "candidates", generated=texts.candidate * n, fed=texts.prompt * sizes.prompts)


def _judge(policy: str, sizes: Sizes, texts: Texts) -> Load:
    n = sizes.prompts * sizes.candidates
    chat = (texts.judge + texts.prompt_text + texts.candidate) * n
    if sizes.judging == "pairwise":  # every two, in both orders
        both = texts.judge + texts.prompt_text + texts.candidate * 2
        return Load(policy, "judge", scored=both * (n * (sizes.candidates - 1)))
    if sizes.judging == "expected":
        return Load(policy, "judge", scored=chat)
    if sizes.judging == "sampled":
        return Load(policy, "judge", generated=texts.judgement * (n * sizes.samples), fed=chat)
    return Load(policy, "judge")


def _train(policy: str, sizes: Sizes, texts: Texts) -> Load:
    pair = texts.prompt * 2 + texts.chosen + texts.rejected
    return Load(policy, "train", trained=pair * texts.paired * (sizes.prompts * sizes.epochs))


def _probe(policy: str, sizes: Sizes, texts: Texts, scorings: int) -> Load:
    """The answers, and each scored again under so many policies."""
    again = (texts.probe + texts.probed) * (sizes.probes * scorings)
    generated, fed = texts.probed * sizes.probes, texts.probe * sizes.probes
    return Load(policy, "probe", generated=generated, fed=fed, scored=again)


def _evaluate(policy: str, sizes: Sizes, texts: Texts) -> Load:
    """Two turns a question, the second after the first and its answer; one grade a turn."""
    turns, q = 2 * sizes.questions, texts.question_text
    generated = texts.answered * turns + texts.solved * sizes.problems + sizes.suites
    fed = (texts.question * 2 + texts.answered + q) * sizes.questions + texts.problem * sizes.problems
    chats = (texts.grade * 2 + q * 3 + texts.answered * 3) * sizes.questions
    if sizes.grading == "expected":
        return Load(policy, "evaluate", generated=generated, fed=fed, scored=chats)
    return Load(policy, "evaluate", generated=generated + texts.graded * turns, fed=fed + chats)


def summed(rows: Sequence[Load]) -> Load:
    """All of them as one."""
    kinds = [f.name for f in fields(Load)[2:]]
    return Load("all", "all", **{k: total(getattr(r, k) for r in rows) for k in kinds})


def hours(load: Load, rates: Rates) -> Amount:
    """Hours of a load; the loading of models (once a policy, once a training) is not in it."""
    sides = (
        (load.generated, rates.generate),
        (load.scored, rates.prefill),
        (load.trained, rates.train),
    )
    spent = [(tokens.n / rate.n / 3600, tokens.how, rate.how) for tokens, rate in sides if tokens.n]
    guessed = any(rate == "guess" for _, _, rate in spent)  # a bound at a guessed rate bounds nothing
    how = "guess" if guessed else _worst(h for _, *hows in spent for h in hows)
    return Amount(math.fsum(n for n, _, _ in spent), how)


# Shares of the peak that a guess assumes for reading, training and (a CPU) sampling: the CPU's are the demo
# run's, the GPU's are not measured. LAYER_SECONDS is the host's work for a layer of a decoding step.
GPU_SHARES, CPU_SHARES = (0.4, 0.3, 0.4), (1.0, 0.45, 0.2)
BANDWIDTH_SHARE, LAYER_SECONDS = 0.6, 0.001
TENSOR_SHARE = 0.6  # of a GPU's work that is left where a model is split among several: a guess
VLLM_LAYER_SECONDS = 0.0001  # its steps are captured graphs: a guess


def guessed_rates(
    shape: Shape,
    width: int,
    device: Device,
    rows: float,
    tokens: float,
    layer_seconds: float = LAYER_SECONDS,
    engine_gpus: int = 1,
) -> Rates:
    """Rates from the device's peaks: a guess, good to a factor of two or three.

    A token costs 2 FLOP a working weight forward; LoRA-DPO costs 6: forward, the backward pass of the
    activations (no base weight has a gradient), and the reference's forward. A step of generation reads the
    weights and the cache of `rows` rows of `tokens` tokens once. `engine_gpus` share an engine's work.
    """
    flops = 2 * working(shape)
    read, train, sample = GPU_SHARES if device.gpu else CPU_SHARES
    moved = parameters(shape) * width + rows * tokens * kv_bytes(shape, width)
    busy = max(moved / (BANDWIDTH_SHARE * device.bandwidth), rows * flops / (sample * device.flops))
    gpus = engine_gpus * (TENSOR_SHARE if engine_gpus > 1 else 1.0)
    step = busy / gpus + (layer_seconds * shape.layers if device.gpu else 0.0)
    return Rates(
        Amount(rows / step, "guess"),
        Amount(gpus * read * device.flops / flops, "guess"),
        Amount(train * device.flops / (3 * flops), "guess"),
    )
