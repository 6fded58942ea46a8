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
from selfreward.ids import unpack_ids
from selfreward.protocols import Answer, Question, Scorer, Verdict
from selfreward.records import Alarm, Judgement, Policy, RubricRow, ScorerRow, Stage
from selfreward.rewards import ExternalReward, JudgeReward, LengthReward, Rewarding
from selfreward.rubric import Rubric
from selfreward.scorers.judge import JudgeScorer
from selfreward.scorers.length import LengthScorer
from selfreward.stages import accepted, scoring
from selfreward.stages.asking import side_by_side
from selfreward.stages.work import Work, blocks, flat, sampling


def made_from(work: Work, policy: Policy) -> dict[str, Any]:
    """What decides the judgements of an iteration besides its candidates."""
    keys: dict[str, Any] = {}
    for place, reward in enumerate(work.recipe.rewards):
        prefix = f"rewards.{place}"
        match reward:
            case JudgeReward():
                judge = work.recipe.judge
                keys |= {"judge.mode": judge.mode, "judge.rubric": rubric_of(work).sha256}
                if judge.mode == "sampled":
                    keys |= {"judge.samples": judge.samples} | flat(judge.sampling, "judge.sampling")
                alone = {"type": "judge"}  # says nothing that is not said already
                keys |= {} if reward.decided == alone else flat(reward.decided, prefix)
                keys |= work.decided_by_engine(policy)
            case LengthReward():
                keys |= flat(reward.decided, prefix)
            case _:
                keys |= scoring.made_from(work, policy, reward, prefix)
    return keys


def run(work: Work, stage: Stage) -> str:
    """Judges the prompts whose candidates have no judgement."""
    policy = work.policy(stage.policy)
    scorers = open_scorers(work, policy)
    for reward, scorer in zip(work.recipe.rewards, scorers, strict=True):
        work.store.save(*_provenance(work, policy, reward, scorer))
    todo = work.store.unjudged(work.run.id, policy.name)
    stage.n_total = stage.n_total or asked_for(work) * len(work.store.prompts(work.run.id, policy.name))
    judge = next((s for s in scorers if isinstance(s, JudgeScorer)), None)
    watch = _watch(work, stage, judge)
    groups = (work.store.candidates_of(work.run.id, b) for b in blocks(todo, work.recipe.engine.block))
    own = all(isinstance(s, JudgeScorer) and s.engine is work.engine for s in scorers)
    start = time.monotonic()
    for candidates, rows in side_by_side(
        work,
        groups,
        lambda group: [row for scorer in scorers for row in _judge(work, scorer, group)],
        work.engine.at_once if own else 1,  # others' models and scripts belong to this thread
    ):
        work.store.commit_block(stage, rows, len(candidates), 0, time.monotonic() - start)
        start = time.monotonic()
        work.advance(stage)
        if watch is not None:
            prompts = {c.id: (c.prompt_id, c.n_tokens) for c in candidates}
            of_judge = [r for r in rows if judge is not None and r.scorer == judge.name]
            _look(work, stage, watch, [(*prompts[r.candidate_id], r.score) for r in of_judge])
    return f"{stage.n_done} candidates judged by {', '.join(s.name for s in scorers)}"


def _watch(work: Work, stage: Stage, scorer: Scorer | None) -> Watch | None:
    """The watch over the first judge, with what it said before an interruption; a rule is not watched."""
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
    known = accepted.reasons(work)
    if any((policy, name) == (stage.policy, stage.name) for policy, name, _ in known):
        return  # a person has seen this judge and lets it go on; its halt stays written down
    work.store.put_findings(alarm)
    if work.recipe.gate.on_collapse != "warn":
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


def open_scorers(work: Work, policy: Policy) -> list[Scorer]:
    """The scorers of the recipe's rewards, in their order."""
    return [_open(work, policy, reward) for reward in work.recipe.rewards]


def _open(work: Work, policy: Policy, reward: Rewarding) -> Scorer:
    """A judge judges with the policy's own weights."""
    match reward:
        case JudgeReward():
            judge = work.recipe.judge
            adapter, draws = work.adapter(policy), sampling(judge.sampling)
            return JudgeScorer(
                work.engine, rubric_of(work), judge.mode, judge.samples, draws, adapter, reward.called
            )
        case LengthReward(low=low, best=best, high=high):
            return LengthScorer(low, best, high, reward.called)
    return scoring.open_scorer(work, policy, reward)


def asked_for(work: Work) -> int:
    """Candidates of a prompt, anchors among them."""
    options = work.recipe.candidates
    return options.n + (options.anchor.n if options.anchor else 0)


def _judge(work: Work, scorer: Scorer, candidates: list[Any]) -> list[Judgement]:
    """All samples of all candidates of the block; faulted candidates have nothing to judge."""
    groups = [list(g) for _, g in itertools.groupby(candidates, key=lambda c: c.prompt_id)]
    answered = [[c for c in group if c.fault is None] for group in groups]
    questions = [
        Question(
            json.loads(group[0].messages),
            [Answer(c.text, c.finish, c.seed, tuple(unpack_ids(c.token_ids))) for c in group],
            reference=group[0].reference,
            checks=json.loads(group[0].checks) if group[0].checks else None,
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


def _provenance(work: Work, policy: Policy, reward: Rewarding, scorer: Scorer) -> list[Any]:
    """The scorer's row, and its rubric's before it."""
    own: dict[str, Any] = {
        "run_id": work.run.id,
        "policy": policy.name,
        "name": scorer.name,
        "type": reward.type,
    }
    if not isinstance(scorer, JudgeScorer):
        return [ScorerRow(**own, settings=json.dumps(reward.decided))]
    r, outside = scorer.rubric, isinstance(reward, ExternalReward)
    judge = work.recipe.judge.model_dump() if isinstance(reward, JudgeReward) else reward.decided
    return [
        RubricRow(sha256=r.sha256, name=r.name, kind=r.kind, low=r.low, high=r.high, text=r.text),
        ScorerRow(
            **own,
            mode=scorer.mode,
            rubric_sha256=r.sha256,
            judge=reward.model if isinstance(reward, ExternalReward) else policy.name,
            judge_sha256=None if outside else policy.sha256,
            settings=json.dumps(judge),
        ),
    ]
