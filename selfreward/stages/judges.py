"""Opens a judge: whose weights it wears, which rubric fits its mode, and the scorer made of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfreward import rubric as rubrics
from selfreward.errors import RecipeError
from selfreward.protocols import Engine
from selfreward.recipe import Judge
from selfreward.records import Policy
from selfreward.rubric import Rubric
from selfreward.scorers.judge import JudgeScorer
from selfreward.scorers.pairwise import PairwiseJudge
from selfreward.stages.work import Work, flat, sampling


def judge_policy(work: Work, policy: Policy) -> Policy:
    """Whose weights judge the candidates of `policy`: its own, or the earlier ones that the recipe names."""
    match work.recipe.judge.policy:
        case "self":
            return policy
        case "previous":
            return work.policy(policy.parent or policy.name)
        case name:
            return work.policy(name)


def made_from(work: Work, policy: Policy) -> dict[str, Any]:
    """What decides the verdicts of a judge on the candidates of `policy`."""
    judge = work.recipe.judge
    rubric = read_rubric(work.file(judge.rubric), judge.mode)
    keys: dict[str, Any] = {"judge.mode": judge.mode, "judge.rubric": rubric.sha256}
    if judge.mode == "sampled":
        keys |= {"judge.samples": judge.samples} | flat(judge.sampling, "judge.sampling")
    if judge.mode == "pairwise":
        keys |= {"judge.scalar": judge.scalar}
    added = {"judge.reask": judge.reask, "judge.calibrate": judge.calibrate}
    keys |= {k: v for k, v in added.items() if v}  # older runs have none of them and go on unchanged
    return keys | work.decided_by_engine(judge_policy(work, policy))


def read_rubric(path: Path, mode: str) -> Rubric:
    """A rubric file, checked: it must fit the mode."""
    rubric = rubrics.parse(path.read_text(encoding="utf-8"), str(path))
    if mode == "pairwise":
        if rubric.kind != "pairwise":
            raise RecipeError(f"judge.rubric: {path} asks about one answer; judge.mode pairwise compares two")
        return rubric
    if rubric.kind == "pairwise":
        raise RecipeError(
            f"judge.rubric: {path} compares two answers; judge.mode {mode} asks about one: "
            "use judge.mode: pairwise"
        )
    if mode == "expected" and rubric.kind not in rubrics.SCALAR:
        raise RecipeError(
            f"judge.rubric: {path} is of kind {rubric.kind}, which has no one number to weigh; "
            "use judge.mode: sampled"
        )
    return rubric


def open_judge(
    engine: Engine, rubric: Rubric, options: Judge, adapter: str | None, name: str = "judge"
) -> JudgeScorer | PairwiseJudge:
    """The judge of a mode, wearing `adapter`; its rubric has been checked."""
    if options.mode == "pairwise":
        return PairwiseJudge(engine, rubric, adapter, options.scalar, name)
    if options.reask and rubric.kind not in rubrics.SCALAR:
        raise RecipeError(
            f"judge.reask forces one number, and rubric {rubric.name} is of kind {rubric.kind}: leave it out"
        )
    return JudgeScorer(
        engine, rubric, options.mode, options.samples, sampling(options.sampling), adapter, name,
        reask=options.reask, calibrate=options.calibrate,
    )  # fmt: skip
