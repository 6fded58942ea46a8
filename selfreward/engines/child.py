"""The engine child: blocks of requests in, completions out, over a pipe; it ends when the pipe does.

Standard output is a log. A request that raises is answered with the error, one line; the child lives on, and
the driver decides.
"""

from __future__ import annotations

import json
import sys
import traceback
from typing import TYPE_CHECKING, Any

from selfreward.engines.kinds import open_engine
from selfreward.engines.memory import ran_out
from selfreward.engines.process import join_driver
from selfreward.engines.pulse import PULSE
from selfreward.errors import SelfRewardError
from selfreward.protocols import Engine

if TYPE_CHECKING:
    from selfreward.engines.reward_model import RewardModel

CALLS = (
    "generate", "stream", "choice_logprobs", "token_logprobs", "token_stats", "chat_ids", "answer_ids",
    "rewards",
)  # fmt: skip


def serve(kind: str, settings: dict[str, Any]) -> None:
    """Answers `(number, call, block)` by `(number, "ok", rows, spent)` till the pipe ends.

    An error is `(number, "error", message, exit_code)`, `(number, "memory", message)` one of a batch that was
    too large. What `stream` yields goes out at once, each as `(number, "part", row)` before the closing
    `(number, "ok", [], spent)`. `spent` is requests and tokens on a server since the last answer, None where
    there is no server. While it works it sends `(-1, "beat")` now and then.
    """
    pipe = join_driver(watch=False)
    if (pool := settings.pop("pool", None)) is not None:
        from selfreward.engines.pool import Pool

        Pool(kind, settings, **pool).serve(pipe)
        return
    PULSE.to(lambda: pipe.send((-1, "beat")))
    engine: Engine | RewardModel | None = None
    while True:
        try:
            number, call, block = pipe.recv()
        except EOFError:
            if (close := getattr(engine, "close", None)) is not None:
                close()
            return
        try:
            engine = engine or open_engine(kind, settings)
            found = ask(engine, call, block)
            if call == "stream":
                for part in found:
                    pipe.send((number, "part", part))
                found = []
            spent = getattr(engine, "take_spent", None)
            reply: tuple[Any, ...] = ("ok", found, spent() if spent else None)
        except Exception as error:  # sent on: the driver says it to the user
            traceback.print_exc()
            code = error.exit_code if isinstance(error, SelfRewardError) else 4
            told = f"{type(error).__name__}: {error}".splitlines()[0]
            full = ran_out(error) and getattr(engine, "loaded", True)
            reply = ("memory", told) if full else ("error", told, code)
        pipe.send((number, *reply))


def ask(engine: Engine | RewardModel, call: str, block: list[Any]) -> Any:
    """What the engine answers; `invariant` is no call but what it says of itself."""
    if call == "invariant" and isinstance(engine, Engine):
        return engine.invariant
    if call not in CALLS or not hasattr(engine, call):
        raise ValueError(f"an engine has no call {call!r}")
    return getattr(engine, call)(block)


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
