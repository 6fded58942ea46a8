"""Stage `judge`: every candidate gets verdicts; a block is all samples of all candidates of its prompts."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

from selfreward import rubric as rubrics
from selfreward.collapse.judging import Score
from selfreward.collapse.limits import Finding, changed
from selfreward.collapse.watch import Watch
from selfreward.errors import GateHalted, RecipeError
from selfreward.protocols import Answer, Question, Scorer, Verdict
from selfreward.recipe import JudgeReward, LengthReward
from selfreward.records import Alarm, Judgement, Policy, RubricRow, ScorerRow, Stage
from selfreward.rubric import Rubric
from selfreward.scorers.judge import JudgeScorer
from selfreward.scorers.length import LengthScorer
from selfreward.stages.work import Work, blocks, flat, sampling


def made_from(work: Work, policy: Policy) -> dict[str, Any]:
    """What decides the judgements of an iteration besides its candidates."""
    match work.recipe.rewards[0]:
        case JudgeReward():
            judge = work.recipe.judge
            keys: dict[str, Any] = {"judge.mode": judge.mode, "judge.rubric": rubric_of(work).sha256}
            if judge.mode == "sampled":
                keys |= {"judge.samples": judge.samples} | flat(judge.sampling, "judge.sampling")
            return keys | work.decided_by_engine(policy)
        case LengthReward() as reward:
            return flat(reward, "rewards.0")


def run(work: Work, stage: Stage) -> str:
    """Judges the prompts whose candidates have no judgement."""
    policy = work.policy(stage.policy)
    scorer = open_scorer(work, policy)
    work.store.save(*_provenance(work, policy, scorer))
    todo = work.store.unjudged(work.run.id, policy.name)
    stage.n_total = stage.n_total or work.recipe.candidates.n * len(
        work.store.prompts(work.run.id, policy.name)
    )
    watch = _watch(work, stage, scorer)
    for block in blocks(todo, work.recipe.engine.block):
        start = time.monotonic()
        candidates = work.store.candidates_of(work.run.id, block)
        rows = _judge(work, scorer, candidates)
        work.store.commit_block(stage, rows, len(candidates), 0, time.monotonic() - start)
        work.advance(stage)
        if watch is not None:
            prompts = {c.id: (c.prompt_id, c.n_tokens) for c in candidates}
            _look(work, stage, watch, [(*prompts[r.candidate_id], r.score) for r in rows])
    return f"{stage.n_done} candidates judged by {scorer.name}"


def _watch(work: Work, stage: Stage, scorer: Scorer) -> Watch | None:
    """The watch over a judge, with what it said before an interruption; a rule is not watched."""
    if not isinstance(scorer, JudgeScorer):
        return None
    watch = Watch(scorer.rubric.high, changed(work.recipe.gate.limits.model_dump()))
    said = work.store.verdicts(work.run.id, stage.policy, scorer.name)
    _look(work, stage, watch, [(v.prompt_id, v.n_tokens, v.score) for v in said])
    return watch


def _look(work: Work, stage: Stage, watch: Watch, said: list[tuple[int, int, float | None]]) -> None:
    """Shows the watch the verdicts of whole prompts; raises `GateHalted` where they show a broken judge."""
    for prompt, verdicts in itertools.groupby(said, key=lambda v: v[0]):
        watch.add([Score(str(prompt), score, float(tokens or 0)) for _, tokens, score in verdicts])
        if watch.due() and (halt := watch.halt()) is not None:
            _stop(work, stage, *halt)


def _stop(work: Work, stage: Stage, prompt: int, finding: Finding) -> None:
    """Writes the alarm down; the stage fails with it unless the recipe says to go on."""
    message = (
        f"the judge of {stage.policy} is broken since prompt {prompt + 1} of this stage: {finding.message}. "
        f"Look at its replies with `selfreward pairs list --of {stage.policy} --outcome too_few_scores`, "
        "or set gate.on_collapse to warn"
    )
    alarm = Alarm(
        run_id=work.run.id, policy=stage.policy, stage=stage.name, signal=finding.signal, level="halt",
        value=finding.value, low=finding.low, high=finding.high, threshold=finding.threshold, message=message,
    )  # fmt: skip
    work.store.put_findings(alarm)
    if work.recipe.gate.on_collapse == "halt":
        raise GateHalted(message)


def rubric_of(work: Work) -> Rubric:
    """The judge's rubric, read and checked: it must fit the mode."""
    path, mode = work.file(work.recipe.judge.rubric), work.recipe.judge.mode
    rubric = rubrics.parse(path.read_text(encoding="utf-8"), str(path))
    if rubric.kind == "pairwise":
        raise RecipeError(f"judge.rubric: {path} compares two answers; judge.mode {mode} asks about one")
    if mode == "expected" and rubric.kind not in rubrics.SCALAR:
        raise RecipeError(
            f"judge.rubric: {path} is of kind {rubric.kind}, which has no one number to weigh; "
            "use judge.mode: sampled"
        )
    return rubric


def open_scorer(work: Work, policy: Policy) -> Scorer:
    """The scorer of the recipe's reward; a judge judges with the policy's own weights."""
    match work.recipe.rewards[0]:
        case JudgeReward():
            judge = work.recipe.judge
            adapter = work.adapter(policy)
            return JudgeScorer(
                work.engine, rubric_of(work), judge.mode, judge.samples, sampling(judge.sampling), adapter
            )
        case LengthReward(low=low, best=best, high=high):
            return LengthScorer(low, best, high)


def _judge(work: Work, scorer: Scorer, candidates: list[Any]) -> list[Judgement]:
    """All samples of all candidates of the block; faulted candidates have nothing to judge."""
    groups = [list(g) for _, g in itertools.groupby(candidates, key=lambda c: c.prompt_id)]
    answered = [[c for c in group if c.fault is None] for group in groups]
    questions = [
        Question(
            json.loads(group[0].messages),
            [Answer(c.text, c.finish, c.seed) for c in group],
            reference=group[0].reference,
        )
        for group in answered
    ]
    rows = []
    for group, verdicts in zip(answered, scorer.score(questions), strict=True):
        for candidate, samples in zip(group, verdicts, strict=True):
            rows += [_row(work, scorer, candidate.id, i, v) for i, v in enumerate(samples)]
    return rows


def _row(work: Work, scorer: Scorer, candidate_id: int, sample: int, verdict: Verdict) -> Judgement:
    return Judgement(
        run_id=work.run.id,
        candidate_id=candidate_id,
        scorer=scorer.name,
        sample=sample,
        score=verdict.score,
        fault=verdict.fault,
        raw=verdict.raw,
        detail=json.dumps(verdict.detail) if verdict.detail is not None else None,
        seed=verdict.seed,
    )


def _provenance(work: Work, policy: Policy, scorer: Scorer) -> list[Any]:
    """The scorer's row, and its rubric's before it."""
    if not isinstance(scorer, JudgeScorer):
        settings = json.dumps(work.recipe.rewards[0].model_dump())
        return [
            ScorerRow(
                run_id=work.run.id, policy=policy.name, name=scorer.name, type=scorer.name, settings=settings
            )
        ]
    r = scorer.rubric
    return [
        RubricRow(sha256=r.sha256, name=r.name, kind=r.kind, low=r.low, high=r.high, text=r.text),
        ScorerRow(
            run_id=work.run.id,
            policy=policy.name,
            name=scorer.name,
            type="judge",
            mode=scorer.mode,
            rubric_sha256=r.sha256,
            judge=policy.name,
            judge_sha256=policy.sha256,
            settings=json.dumps(work.recipe.judge.model_dump()),
        ),
    ]
