"""The `openai-text` engine: a model known by its texts alone, behind /v1/chat/completions; no policy.

It gives replies to read and nothing else: neither token ids to train on nor exact log-probabilities, for a
list of likeliest tokens may leave a choice out, and an unlisted one would be a guess.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from selfreward.engines.chat import storable
from selfreward.engines.server import Server, Unanswered
from selfreward.errors import BadInput
from selfreward.protocols import Choice, Completion, Message, Request, Scored

CHAT = "/chat/completions"


class TextEngine:
    """An `Engine` that generates; its completions have no token ids and no log-probability.

    `max_new_tokens` is sent as `max_tokens`, `top_k` only where it is not off: hosts refuse unknown fields.
    """

    invariant = False

    def __init__(
        self,
        *,
        url: str,
        served_model: str,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 16,
        timeout: float = 600.0,
        patience: float = 0.5,
    ) -> None:
        self._model = served_model
        self.server = Server(
            url, key_env=api_key_env, concurrency=concurrency, timeout=timeout, patience=patience
        )

    def generate(self, block: Sequence[Request]) -> list[Completion]:
        """One reply or fault per request."""
        found = dict(self.stream(block))
        return [found[i] for i in range(len(block))]

    def stream(self, block: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """The replies of `generate` with their places in the block, each as soon as it has come."""
        for request in block:
            if request.adapter is not None or request.opening:
                raise BadInput(
                    f"{self._model} is known by its texts alone: it takes no adapter and no opening"
                )
        yield from self.server.each([partial(self._one, request) for request in block])

    def choice_logprobs(self, block: Sequence[Choice]) -> list[list[float] | None]:
        """Refused: see above."""
        raise BadInput(f"{self._model} gives no exact log-probabilities: set judge.mode to sampled")

    def token_logprobs(self, block: Sequence[Scored]) -> list[list[float]]:
        """Refused: see above."""
        raise BadInput(f"{self._model} is known by its texts alone: it scores no tokens")

    def chat_ids(self, chats: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Refused: see above."""
        raise BadInput(f"{self._model} is known by its texts alone: it has no token ids")

    def answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """Refused: see above."""
        raise BadInput(f"{self._model} is known by its texts alone: it has no token ids")

    def take_spent(self) -> tuple[int, int]:
        """Requests and tokens since the last call."""
        return self.server.take_spent()

    def close(self) -> None:
        """Closes the connections."""
        self.server.close()

    async def _one(self, request: Request) -> Completion:
        options = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": m["role"], "content": storable(m["content"])} for m in request.messages],
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_tokens": options.max_new_tokens,
            "seed": request.seed,
        }
        if options.top_k:
            body["top_k"] = options.top_k
        spare = {"model": self._model, "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 1}
        try:
            return await self.server.ask(CHAT, body, self._completion, spare=spare)
        except Unanswered as error:
            return Completion(None, fault=error.fault)

    def _completion(self, text: str) -> Completion:
        reply = json.loads(text)
        (choice,) = reply["choices"]
        self.server.count(reply.get("usage"))
        said, finish = choice["message"].get("content"), choice["finish_reason"]
        if finish == "content_filter" or (said is None and choice["message"].get("refusal")):
            return Completion(None, fault="refused")
        if finish not in ("stop", "length") or not isinstance(said, str):
            raise ValueError(finish)
        return Completion(storable(said), finish=finish)
