"""The engine child: blocks of requests in, completions out, over a pipe; it ends when the pipe does.

Standard output is a log. A request that raises is answered with the error, one line; the child lives on, and
the driver decides.
"""

from __future__ import annotations

import json
import sys
import traceback
from typing import TYPE_CHECKING, Any

from selfreward.engines.process import join_driver
from selfreward.errors import SelfRewardError
from selfreward.protocols import Engine

if TYPE_CHECKING:
    from selfreward.engines.reward_model import RewardModel

CALLS = (
    "generate", "stream", "choice_logprobs", "token_logprobs", "token_stats", "chat_ids", "answer_ids",
    "rewards",
)  # fmt: skip


def open_engine(kind: str, settings: dict[str, Any]) -> Engine | RewardModel:
    """The engine of that name, its library imported only now."""
    match kind:
        case "transformers":
            from selfreward.engines.transformers_engine import TransformersEngine

            return TransformersEngine(**settings)
        case "vllm":
            from selfreward.engines.vllm_engine import VllmEngine

            return VllmEngine(**settings)
        case "openai":
            from selfreward.engines.openai_engine import OpenaiEngine

            return OpenaiEngine(**settings)
        case "openai-text":
            from selfreward.engines.text_engine import TextEngine

            return TextEngine(**settings)
        case "reward-model":
            from selfreward.engines.reward_model import RewardModel

            return RewardModel(**settings)
        case _:
            raise ValueError(f"no engine is called {kind!r}")


def serve(kind: str, settings: dict[str, Any]) -> None:
    """Answers `(call, block)` by `("ok", rows, spent)` or `("error", message, exit_code)` till the pipe ends.

    What `stream` yields goes out at once, each as `("part", row)` before the closing `("ok", [], spent)`.
    `spent` is requests and tokens on a server since the last answer, None where there is no server.
    """
    pipe = join_driver(watch=False)
    engine: Engine | RewardModel | None = None
    while True:
        try:
            call, block = pipe.recv()
        except EOFError:
            if (close := getattr(engine, "close", None)) is not None:
                close()
            return
        try:
            if call not in CALLS or (engine is not None and not hasattr(engine, call)):
                raise ValueError(f"an engine has no call {call!r}")
            engine = engine or open_engine(kind, settings)
            found = getattr(engine, call)(block)
            if call == "stream":
                for part in found:
                    pipe.send(("part", part))
                found = []
            spent = getattr(engine, "take_spent", None)
            reply: tuple[Any, ...] = ("ok", found, spent() if spent else None)
        except Exception as error:  # sent on: the driver says it to the user
            traceback.print_exc()
            code = error.exit_code if isinstance(error, SelfRewardError) else 4
            reply = ("error", f"{type(error).__name__}: {error}".splitlines()[0], code)
        pipe.send(reply)


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
