"""What SFT trains on: written answers, and judgements whose score is known by how they were made."""

from __future__ import annotations

import random
from typing import Any

from selfreward import rubric as rubrics
from selfreward.errors import BadInput
from selfreward.ids import derive_seed
from selfreward.records import TrainedOn
from selfreward.rubric import Rubric
from selfreward.stages import prompts as prompts_stage
from selfreward.stages.seeds import required_rows
from selfreward.stages.work import Work


def sft_rows(work: Work) -> list[tuple[TrainedOn, dict[str, Any]]]:
    """Written answers, and judgements with the score each was made to deserve; drawn by the run's seed."""
    sft = work.recipe.start.sft
    if sft is None:
        return []
    chosen: list[tuple[str, str, list[dict[str, str]], str]] = []
    for number, line in _drawn(work, sft.file, ("prompt", "answer"), sft.examples):
        chosen.append(
            ("seed", f"{sft.file}:{number}", [{"role": "user", "content": line["prompt"]}], line["answer"])
        )
    if sft.judge_file and sft.judge_examples != 0:
        rubric, lines = judge_lines(work, sft.judge_file, sft.judge_examples)
        for number, line in lines:
            chat = rubrics.render(rubric, [{"role": "user", "content": line["prompt"]}], line["answer"])
            reply = written(rubric, line)
            chosen.append(("judge", f"{sft.judge_file}:{number}", chat, reply))
    prompts = work.engine.chat_ids([chat for _, _, chat, _ in chosen])
    answers = work.engine.answer_ids([answer for _, _, _, answer in chosen])
    return [
        (
            TrainedOn(run_id=0, policy="", position=0, kind=kind, source=source),
            {"prompt_ids": prompt, "completion_ids": answer},
        )
        for (kind, source, _, _), prompt, answer in zip(chosen, prompts, answers, strict=True)
    ]


def check_files(work: Work) -> None:
    """Reads the files SFT would train on, while M1 is still to be made."""
    sft, m1 = work.recipe.start.sft, work.store.policies(work.run.id).get("M1")
    if sft is None or (m1 is not None and m1.status != "training"):
        return
    required_rows(work.file(sft.file), ("prompt", "answer"))
    if sft.judge_file and sft.judge_examples != 0:
        judge_lines(work, sft.judge_file, None)


def written(rubric: Rubric, line: dict[str, Any]) -> str:
    """A judge example as the judge would have written it."""
    return f"{line['judgement']}\n{rubric.opening} {line['score']}"


def judge_lines(work: Work, name: str, count: int | None) -> tuple[Rubric, list[tuple[int, dict[str, Any]]]]:
    """Judge examples, each with a score on the rubric's scale."""
    path = work.file(work.recipe.judge.rubric)
    rubric = rubrics.parse(path.read_text(encoding="utf-8"), str(path))
    if rubric.kind not in rubrics.SCALAR:
        raise BadInput(
            f"{name} teaches one score a judgement, and {path} is of kind {rubric.kind}; "
            "set start.sft.judge_file to null and training.judge_share to 0"
        )
    lines = _drawn(work, name, ("prompt", "answer", "score", "judgement"), count)
    for number, line in lines:
        if type(line["score"]) not in (int, float) or not rubric.low <= line["score"] <= rubric.high:
            raise BadInput(f"{name}, line {number}: score {line['score']} is outside the rubric's scale")
    return rubric, lines


def _drawn(
    work: Work, name: str, required: tuple[str, ...], count: int | None
) -> list[tuple[int, dict[str, Any]]]:
    """`count` lines of a file with their numbers, drawn by the run's seed, in file order."""
    near = prompts_stage.held_out(work)
    lines = [
        (n, row) for n, row in required_rows(work.file(name), required) if not near.reason(row["prompt"])
    ]
    if count is None or count >= len(lines):
        return lines
    return sorted(
        random.Random(derive_seed(work.recipe.seed, "sft", name)).sample(lines, count), key=lambda x: x[0]
    )
