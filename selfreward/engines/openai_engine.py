"""The `openai` engine: policies behind an OpenAI-compatible server, token ids in and token ids out.

It speaks /v1/completions with ids that our own template made and takes the ids the server sampled, so that
nothing is rendered twice; a server that gives no ids, or changes the ones it gets, is refused. The fields
beside OpenAI's own are those of `vllm serve` (0.32, entrypoints/openai/completion/protocol.py). A server
batches as it likes: this engine is not `invariant`.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from selfreward.engines import adapter as adapters
from selfreward.engines.chat import Chat
from selfreward.engines.choices import Walk
from selfreward.engines.pulse import PULSE
from selfreward.engines.server import Server, Unanswered
from selfreward.errors import BadInput
from selfreward.files import sha256_of
from selfreward.protocols import Choice, Completion, Message, Request, Scored

COMPLETIONS = "/completions"
NEUTRAL = {  # what a server would else take from the model's generation_config.json
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "watermarking": False,
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: token ids, the fields beside them, and what is made of the choice that comes back."""

    prompt: list[int]
    fields: dict[str, Any]
    read: Callable[[dict[str, Any]], Any]
    adapter: str | None


class OpenaiEngine:
    """An `Engine` on a server that takes and gives token ids, such as `vllm serve --enable-lora`.

    `model` is the base's folder here, for its tokenizer; `known_as` are more names of the same base, and the
    server must serve it under one of them. `concurrency` is requests on their way at once, `timeout` seconds
    for a whole reply, `context` a bound below the server's own.
    """

    invariant = False

    def __init__(
        self,
        model: str,
        *,
        url: str,
        served_model: str | None = None,
        known_as: Sequence[str] = (),
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 16,
        timeout: float = 600.0,
        context: int | None = None,
        chat_template: str | None = None,
        system: str | None = None,
        patience: float = 0.5,
    ) -> None:
        self.chat = Chat(model, chat_template, system)
        self.server = Server(
            url, key_env=api_key_env, concurrency=concurrency, timeout=timeout, patience=patience
        )
        self._folder, self._known_as, self._wanted = Path(model), known_as, served_model
        self._longest = context
        self._served: dict[str | None, str] = {}  # names by adapter, the base's own under None
        self._context_of_server: int | None = None

    def generate(self, block: Sequence[Request]) -> list[Completion]:
        """Draws one completion a request; a chat that leaves no room for the answer is a `too_long` fault."""
        found = dict(self.stream(block))
        return [found[i] for i in range(len(block))]

    def stream(self, block: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """The completions of `generate` with their places in the block, each as soon as it has come."""
        fed: list[tuple[int, Ask]] = []
        for i, request in enumerate(block):
            ids = self.chat.ids(request.messages, request.opening)
            if len(ids) + request.sampling.max_new_tokens > self._context:
                yield i, Completion(None, fault="too_long")
            else:
                read = partial(self._completion, request.sampling.max_new_tokens)
                fed.append((i, Ask(ids, self._sampling(request), read, request.adapter)))
        fed.sort(key=lambda x: (x[1].prompt, x[0]))  # what begins alike comes together, as caches want it
        for place, found in self._run([ask for _, ask in fed], faults=True):
            yield fed[place][0], found

    def choice_logprobs(self, block: Sequence[Choice]) -> list[list[float] | None]:
        """Exact log-probabilities of the choices, whatever number of tokens each takes; `(n, n_choices)`.

        Where paths of tokens part, one request asks for the tokens that may come next. A server that does not
        give every one of them is refused.
        """
        walk = Walk(self.chat, block, self._context)
        fed = [
            Ask(s.fed, _looking(s.following), partial(self._next, s.following), s.adapter) for s in walk.steps
        ]
        for place, found in self._run(fed):
            walk.learn(walk.steps[place], found)
        return walk.logprobs

    def token_logprobs(self, block: Sequence[Scored]) -> list[list[float]]:
        """Scores given tokens by teacher forcing; `(n, len(completion_ids))`."""
        rows = [[*s.prompt_ids, *s.completion_ids] for s in block]
        if too_long := [len(r) for r in rows if len(r) >= self._context]:
            raise BadInput(f"{max(too_long)} tokens to score do not fit a context of {self._context}")
        scoring = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        fed = [
            Ask(row, scoring, partial(self._scores, row, len(s.prompt_ids)), s.adapter)
            for row, s in zip(rows, block, strict=True)
        ]
        found = dict(self._run(fed))
        return [found[i] for i in range(len(block))]

    def chat_ids(self, chats: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Token ids of each chat as `generate` feeds them; asks no server."""
        return [self.chat.ids(chat) for chat in chats]

    def answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """Token ids of written answers with the end of turn; asks no server."""
        return [self.chat.answer_ids(text) for text in answers]

    def take_spent(self) -> tuple[int, int]:
        """Requests and tokens since the last call."""
        return self.server.take_spent()

    def close(self) -> None:
        """Closes the connections."""
        self.server.close()

    def _sampling(self, request: Request) -> dict[str, Any]:
        """Every field stated; only the stop ids, all of them, come from the model."""
        options = request.sampling
        return NEUTRAL | {
            "temperature": options.temperature,
            "top_p": options.top_p,
            "top_k": options.top_k,
            "max_tokens": options.max_new_tokens,
            "seed": request.seed,
            "ignore_eos": True,  # vLLM knows one end token; all of ours are below
            "stop_token_ids": sorted(self.chat.stop_ids),
            "logprobs": 0,  # of the sampled token, before temperature
        }

    def _run(self, fed: Sequence[Ask], faults: bool = False) -> Iterator[tuple[int, Any]]:
        """Asks everything and yields what each made of its choice, with its place, as it comes.

        With `faults` a request that has no answer gets a faulted completion. One adapter at a time, awaited
        before the next: vLLM 0.32 on a CPU gives wrong log-probabilities, off by nats, where rows of one
        batch wear different adapters.
        """

        async def one(ask: Ask, model: str) -> Any:
            own = {
                "model": model,
                "prompt": ask.prompt,
                "add_special_tokens": False,
                "return_token_ids": True,
            }
            spare = {"model": model, "prompt": ask.prompt[:1], "max_tokens": 1}

            def read(text: str) -> Any:
                return ask.read(self._choice(text, ask.prompt, model))

            try:
                return await self.server.ask(COMPLETIONS, own | ask.fields, read, spare=spare)
            except Unanswered as error:
                if not faults:
                    raise
                return Completion(None, fault=error.fault)

        for adapter in dict.fromkeys(ask.adapter for ask in fed):
            where = [place for place, ask in enumerate(fed) if ask.adapter == adapter]
            model = self._name(adapter)
            for k, found in self.server.each([partial(one, fed[place], model) for place in where]):
                PULSE.beat()
                yield where[k], found

    def _choice(self, text: str, prompt: list[int], model: str) -> dict[str, Any]:
        """The one choice of a reply, which must be to what was asked."""
        reply = json.loads(text)
        (choice,) = reply["choices"]
        self.server.count(reply.get("usage"))
        if choice.get("token_ids") is None:
            raise self.server.refuse("gives no token ids", "a policy needs a server that does, such as vLLM")
        if choice.get("prompt_token_ids") != prompt or reply.get("model", model) != model:
            raise self.server.refuse(
                "answers another prompt or as another model", "ask it with nothing in between"
            )
        if not choice["token_ids"] or choice["finish_reason"] not in ("stop", "length"):
            raise ValueError(choice["finish_reason"])  # broken off inside the server: asked again
        return dict(choice)

    def _completion(self, asked: int, choice: dict[str, Any]) -> Completion:
        """A draw of at most `asked` tokens; which token ends it decides what its end is called."""
        ids = tuple(int(t) for t in choice["token_ids"])
        ended = ids[-1] in self.chat.stop_ids
        if choice["finish_reason"] == "stop" and not ended:
            raise self.server.refuse(
                f"stops at token {ids[-1]}, which ends no answer of this model",
                "start it with `--generation-config vllm`",
            )
        if not ended and len(ids) < asked:
            return Completion(None, fault="too_long")  # a server cuts what its context does not hold
        logprobs = choice["logprobs"]["token_logprobs"]
        if len(logprobs) != len(ids):
            raise ValueError("a log-probability for each token")
        mean = math.fsum(logprobs) / len(ids)
        if not math.isfinite(mean):
            return Completion(None, fault="not_finite")
        return Completion(self.chat.decode(ids), ids, "stop" if ended else "length", mean)

    def _next(self, wanted: list[int], choice: dict[str, Any]) -> dict[int, float]:
        """Log-probabilities of the wanted next tokens, by token."""
        given = ((choice.get("logprobs") or {}).get("top_logprobs") or [{}])[0]
        missing = [t for t in wanted if f"token_id:{t}" not in given]
        if missing:
            raise self.server.refuse(
                f"does not give the log-probability of token {missing[0]}",
                "set judge.mode to sampled, or use a server with logprob_token_ids, such as vLLM",
            )
        return {t: float(given[f"token_id:{t}"]) for t in wanted}

    def _scores(self, row: list[int], start: int, choice: dict[str, Any]) -> list[float]:
        """Log-probabilities of a row's tokens from `start` on."""
        given = choice.get("prompt_logprobs")
        if given is None:
            raise self.server.refuse("does not score given tokens", "a policy needs a server such as vLLM")
        if len(given) != len(row):
            raise ValueError("a log-probability for each token")
        return [float(given[k][str(row[k])]["logprob"]) for k in range(start, len(row))]

    def _name(self, adapter: str | None) -> str:
        """What the server calls the base, or the adapter, which it loads under a name never used before."""
        if None not in self._served:
            self._served[None] = self._base()
        if adapter is not None and adapter not in self._served:
            folder = Path(adapter).resolve()
            name = f"{sha256_of(folder / adapters.WEIGHTS)[:16]}-{secrets.token_hex(4)}"
            advice = (
                "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, --enable-lora and --max-lora-rank "
                f"{adapters.rank(folder)}, where it can read {folder}"
            )
            body = {"lora_name": name, "lora_path": str(folder)}
            self.server.now(self.server.ask("/load_lora_adapter", body, str, advice=advice))
            self._served[adapter] = name
        return self._served[adapter]

    def _base(self) -> str:
        """The served name of the recipe's base; a server of another model is refused."""
        cards = self.server.now(self.server.ask("/models", None, lambda text: list(json.loads(text)["data"])))
        bases = [c for c in cards if not c.get("parent")]
        if self._wanted is not None:
            found = [c for c in bases if c["id"] == self._wanted and c.get("root") in (None, c["id"])]
            found += [c for c in bases if c["id"] == self._wanted and self._is_ours(str(c.get("root")))]
        else:
            found = [c for c in bases if self._is_ours(str(c.get("root") or c["id"]))]
        if not found:
            told = (
                ", ".join(f"{c['id']} ({c.get('root') or 'of no known origin'})" for c in bases) or "nothing"
            )
            raise self.server.refuse(
                f"serves {told}, not {self._wanted or self._names[0]}, the recipe's model",
                "start it with that model, or name the served one in engine.served_model",
            )
        self._context_of_server = found[0].get("max_model_len")
        return str(found[0]["id"])

    def _is_ours(self, name: str) -> bool:
        """Whether a name, a path or a hub cache's path is of the recipe's base."""
        parts = name.rstrip("/").split("/")
        cached = {"models--" + n.replace("/", "--") for n in self._known_as}
        return name in self._names or parts[-1] in self._names or bool(cached & set(parts))

    @property
    def _names(self) -> list[str]:
        return [*self._known_as, str(self._folder), self._folder.name]

    @property
    def _context(self) -> int:
        self._name(None)
        return min(self._longest or 2**31, self._context_of_server or 2**31)


def _looking(tokens: list[int]) -> dict[str, Any]:
    """Asks for the log-probabilities of exactly these next tokens; the one token drawn is thrown away."""
    return {
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": 0,
        "logprob_token_ids": tokens,
        "return_tokens_as_token_ids": True,
    }
