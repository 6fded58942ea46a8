"""Who grades: the policy itself, a fixed policy of the run, another local model, or an endpoint.

A grader's name says which it is and how it was asked; grades under two names never share a column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from selfreward.engines import model as models
from selfreward.engines.client import EngineClient
from selfreward.engines.server import is_here
from selfreward.errors import BadInput
from selfreward.protocols import Engine
from selfreward.records import Policy
from selfreward.stages.work import Work


@dataclass(frozen=True, slots=True)
class GraderOptions:
    """`who` is self, M0, M1, …, a model, or an address ending in /v1, which then serves `served_model`.

    `mode` is sampled (a greedy reply is read) or expected (the mean of the scale under its probabilities).
    """

    who: str = "M0"
    mode: str = "sampled"
    served_model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"


@dataclass(frozen=True, slots=True)
class Grader:
    """A grader ready to be asked; `told` says where texts go, `sha256` is of its adapter if it has one."""

    name: str
    engine: Engine
    adapter: str | None
    mode: str
    told: str
    sha256: str | None = None


@contextmanager
def open_grader(work: Work, policy: Policy, options: GraderOptions) -> Iterator[Grader]:
    """The grader of a policy's answers; a model of its own is gone when the block ends."""
    here = "nothing leaves this machine for grading"
    if options.who == "self" or re.fullmatch(r"M\d+", options.who):
        fixed = policy if options.who == "self" else _policy(work, options.who)
        name = f"self:{policy.name}" if options.who == "self" else fixed.name
        yield Grader(
            f"{name}/{options.mode}", work.engine, work.adapter(fixed), options.mode, here, fixed.sha256
        )
        return
    kind, settings, name, told = _outside(work, options)
    work.close_engine()  # two models at once are one too many for most machines
    engine = EngineClient(kind, settings, work.folder / "logs" / "grader.log", work.clock.timed)
    try:
        yield Grader(f"{name}/{options.mode}", engine, None, options.mode, told)
        engine.close()
    except BaseException:
        engine.abandon()
        raise


def _policy(work: Work, name: str) -> Policy:
    known = work.store.policies(work.run.id)
    if name not in known:
        raise BadInput(f"the grader {name} is no policy of this run: it has {', '.join(known)}")
    return known[name]


def _outside(work: Work, options: GraderOptions) -> tuple[str, dict[str, Any], str, str]:
    """Engine, settings and name of a grader that is no policy, and where its texts go."""
    if options.who.startswith(("http://", "https://")):
        if not options.served_model:
            raise BadInput(f"the grader {options.who} serves which model? --grader-model NAME says it")
        if options.mode == "expected":
            raise BadInput("an endpoint gives no exact probabilities: use --grade-by sampled")
        host = urlsplit(options.who).netloc
        told = f"questions and answers go to the grader at {host}"
        there = {
            "url": options.who,
            "served_model": options.served_model,
            "api_key_env": options.api_key_env,
        }
        name = f"{options.served_model}@{host}"
        here = "nothing leaves this machine for grading (the grader is a server on it)"
        return "openai-text", there, name, here if is_here(options.who) else told
    folder, identity = models.resolve(options.who, None, work.recipe_file.parent)
    settings: dict[str, Any] = {
        "model": str(folder),
        "dtype": work.dtype,
        "batch": work.recipe.engine.batch,
        "threads": work.threads,
    }
    kind, _, digest = identity.partition(" sha256:")
    name = f"{kind}:{digest[:12]}" if digest else identity
    return "transformers", settings, name, "nothing leaves this machine for grading"
