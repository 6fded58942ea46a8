"""What a training reads besides its iteration's pairs: judgements with a known score, and older pairs.

A policy that is trained on its answers alone forgets how to judge, and data that replaces its past lets
errors grow. Both shares are of all rows, and capped together by `training.mixed_at_most`.
"""

from __future__ import annotations

import random
from typing import Any

from selfreward import rubric as rubrics
from selfreward.errors import BadInput
from selfreward.files import sha256_of
from selfreward.ids import derive_seed
from selfreward.records import Policy, TrainedOn
from selfreward.stages.sft import judge_lines, written
from selfreward.stages.standing import trains_soft
from selfreward.stages.work import Work

KEYS = ("training.replay", "training.judge_share", "training.judge_file", "training.mixed_at_most")
Row = tuple[TrainedOn, dict[str, Any]]


def made_from(work: Work) -> dict[str, Any]:
    """What decides these rows; nothing where there are none, so that older runs go on unchanged."""
    options = work.recipe.training
    found: dict[str, Any] = {}
    if options.replay:
        found["training.replay"] = options.replay
    if options.judge_share:
        found["training.judge_share"] = options.judge_share
        found["training.judge_file"] = sha256_of(work.file(options.judge_file))
        found["judge.rubric"] = sha256_of(work.file(work.recipe.judge.rubric))
    return found


def count(work: Work, share: float, pairs: int) -> int:
    """How many rows make `share` of a training of so many pairs and all mixed rows, rounded down."""
    options = work.recipe.training
    total = pairs / (1 - options.replay - options.judge_share)
    return int(share * total + 1e-9)


def replayed(work: Work, policy: Policy, pairs: int) -> list[Any]:
    """Pairs of the iterations before the one that ends in `policy`, drawn by the run's seed, by id."""
    wanted = count(work, work.recipe.training.replay, pairs)
    earlier = [p.name for p in work.store.policies(work.run.id).values() if p.idx < policy.idx - 1]
    old = (
        [pair for name in earlier for pair in work.store.pairs_to_train(work.run.id, name)] if wanted else []
    )
    drawn = random.Random(derive_seed(work.recipe.seed, "replay", policy.idx))
    return sorted(drawn.sample(old, min(wanted, len(old))), key=lambda p: p.id)


def judgements(work: Work, policy: Policy, pairs: int) -> list[Row]:
    """Judge examples as pairs: the judgement with the known score, and one with another score."""
    options = work.recipe.training
    wanted = count(work, options.judge_share, pairs)
    if not wanted:
        return []
    _, lines = judge_lines(work, options.judge_file, None)
    drawn = random.Random(derive_seed(work.recipe.seed, "judge examples", policy.idx))
    numbers = [number for number, _ in lines]
    drawn.shuffle(numbers)
    rows = _rows(work, policy, numbers)
    return [row for row in rows if _length(row) <= options.max_length][:wanted]


def frozen_judgements(work: Work, policy: Policy) -> list[Row]:
    """The judge examples that a started training reads, made again as they were."""
    stored = [t for t in work.store.trained_on(work.run.id, policy.name) if t.kind == "judge"]
    return _rows(work, policy, [int(t.source.rpartition(":")[2]) for t in stored]) if stored else []


def _rows(work: Work, policy: Policy, numbers: list[int]) -> list[Row]:
    """Rows of the lines with these numbers, in this order."""
    name = work.recipe.training.judge_file
    rubric, lines = judge_lines(work, name, None)
    by_number = dict(lines)
    chosen = [by_number[number] for number in numbers]
    wrong = [_wrong(work, policy, number, by_number) for number in numbers]
    chats = [rubrics.render(rubric, [{"role": "user", "content": c["prompt"]}], c["answer"]) for c in chosen]
    prompts = work.engine.chat_ids(chats)
    good, bad = (work.engine.answer_ids([written(rubric, line) for line in side]) for side in (chosen, wrong))
    sure = {"weight": 1.0} | ({"smoothing": 0.0} if trains_soft(work.recipe) else {})
    return [
        (
            TrainedOn(run_id=0, policy="", position=0, kind="judge", source=f"{name}:{number}"),
            {"prompt_ids": prompt, "chosen_ids": c, "rejected_ids": r, **sure},
        )
        for number, prompt, c, r in zip(numbers, prompts, good, bad, strict=True)
    ]


def _wrong(work: Work, policy: Policy, number: int, lines: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """The judgement of another example with another score: wrong about this answer in its words too."""
    others = [line for line in lines.values() if line["score"] != lines[number]["score"]]
    if not others:
        raise BadInput(f"{work.recipe.training.judge_file} knows one score only: no judgement in it is wrong")
    return random.Random(derive_seed(work.recipe.seed, "wrong", policy.idx, number)).choice(others)


def _length(row: Row) -> int:
    ids = row[1]
    return len(ids["prompt_ids"]) + max(len(ids["chosen_ids"]), len(ids["rejected_ids"]))
