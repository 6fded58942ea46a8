"""What the parts say to each other: requests, completions, verdicts, and two Protocols with several bearers.

An engine knows chats, seeds and adapters; it knows nothing of rubrics, rewards or the store. A scorer knows
rubrics and answers; it knows nothing of tables. Everything here is plain data, cheap to import and safe to
send through a pipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

Message = dict[str, str]
"""One turn: `{"role": "system" | "user" | "assistant", "content": …}`."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; every field is stated, engines add nothing of their own.

    Temperature 0 is greedy. `top_p` 1 and `top_k` 0 are off.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 256


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to draw: a chat ending in a user turn, optionally with the answer's first words given.

    `seed` decides the draw together with the chat and the sampling. `adapter` is a LoRA folder, None for the
    base.
    """

    messages: Sequence[Message]
    seed: int
    sampling: Sampling = field(default_factory=Sampling)
    adapter: str | None = None
    opening: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine returns for one request: a text, or a fault with its reason, never both, never neither.

    `token_ids` includes the stop token; `text` is their decoding without it. `mean_logprob` is in nats per
    token under the untempered distribution (temperature 1, nothing cut off).
    """

    text: str | None
    token_ids: tuple[int, ...] = ()
    finish: Literal["stop", "length"] | None = None
    mean_logprob: float | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A question with a closed list of next texts: the log-probability of each is wanted."""

    messages: Sequence[Message]
    opening: str
    choices: tuple[str, ...]
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class TokenStat:
    """What an engine's whole distribution says at one given token, in nats.

    `logprob` of the token, `entropy` of the distribution, `certainty`: KL(uniform ‖ distribution).
    """

    logprob: float
    entropy: float
    certainty: float


@dataclass(frozen=True, slots=True)
class Scored:
    """Given tokens to score: the log-probability of each of `completion_ids` after `prompt_ids`."""

    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no row for what was asked, by the name a store keeps."""

    kind: str


@runtime_checkable
class Engine(Protocol):
    """Turns blocks of chats into completions and log-probabilities, in the order of the requests."""

    @property
    def invariant(self) -> bool:
        """Whether a block's requests alone decide its rows: the same block gives the same tokens again."""
        ...

    def generate(self, block: Sequence[Request]) -> list[Completion]:
        """One completion or fault per request."""
        ...

    def choice_logprobs(self, block: Sequence[Choice]) -> Sequence[list[float] | Fault | None]:
        """Log-probability in nats of each choice as the next text; None where a chat exceeds the context.

        A `Fault` where no engine lives to answer.
        """
        ...

    def token_logprobs(self, block: Sequence[Scored]) -> list[list[float]]:
        """Log-probability in nats of every completion token, the stop token included.

        The shape is `(n, len(completion_ids))`.
        """
        ...

    def chat_ids(self, chats: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Token ids of each chat with an assistant turn's opening: just what `generate` feeds the model."""
        ...

    def answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """Token ids of written answers, closed by the token that ends an assistant turn."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a scorer says of one candidate, once: a score or the kind of fault, with the reply it is from.

    `reasked` marks a score that was forced after a reply that could not be read.
    """

    score: float | None
    fault: str | None = None
    raw: str | None = None
    detail: dict[str, object] | None = None
    seed: int | None = None
    reasked: bool = False

    def __post_init__(self) -> None:
        if (self.score is None) == (self.fault is None):
            raise ValueError(f"a verdict is a score or a fault, never both and never neither: {self!r}")


@dataclass(frozen=True, slots=True)
class Answer:
    """A candidate as a scorer sees it; `token_ids` are what was sampled, the stop token included."""

    text: str
    finish: str
    seed: int
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt with its candidates, as a scorer sees them.

    `reference` is the right answer and `checks` the tests of the prompt, where its file has them.
    """

    messages: Sequence[Message]
    answers: Sequence[Answer]
    reference: str | None = None
    checks: Mapping[str, object] | None = None


class Scorer(Protocol):
    """Gives candidates their verdicts.

    `needs` names what must be there, and is looked at before any work: `engine`, `token_stats` (the whole
    distribution of every token), `reference`, `checks`, `group` (three candidates or more), `two_policies`,
    `sandbox`, `tools`, `network`, `reward_model`.
    """

    @property
    def name(self) -> str:
        """What its verdicts are stored under."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What must be there before it scores."""
        ...

    def score(self, questions: Sequence[Question]) -> list[list[list[Verdict]]]:
        """Verdicts by question, by candidate, by judge sample."""
        ...
