"""The stages: each asks the store what is missing and commits it block by block.

None of them sets a status.
"""

from collections.abc import Callable
from typing import Any

from selfreward.records import Policy, Stage
from selfreward.stages import candidates, evaluate, judge, pairs, probe, prompts, train
from selfreward.stages.work import Work

RUN: dict[str, Callable[[Work, Stage], str]] = {
    "sft": train.run,
    "prompts": prompts.run,
    "candidates": candidates.run,
    "judge": judge.run,
    "pairs": pairs.run,
    "train": train.run,
    "probe": probe.run,
    "evaluate": evaluate.run,
}

MADE_FROM: dict[str, Callable[[Work, Policy], dict[str, Any]]] = {
    "sft": train.made_from_sft,
    "prompts": prompts.made_from,
    "candidates": candidates.made_from,
    "judge": judge.made_from,
    "pairs": pairs.made_from,
    "train": train.made_from_train,
    "probe": probe.made_from,
    "evaluate": evaluate.made_from,
}
