"""Stage `judge`: every candidate gets verdicts; a block is all samples of all candidates of its prompts."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

from selfreward.collapse.judging import Score
from selfreward.collapse.limits import Finding, changed
from selfreward.collapse.watch import Watch
from selfreward.errors import GateHalted
from selfreward.ids import unpack_ids
from selfreward.protocols import Answer, Question, Scorer, Verdict
from selfreward.records import Alarm, Judgement, Policy, RubricRow, ScorerRow, Stage
from selfreward.rewards import ExternalReward, JudgeReward, LengthReward, Rewarding
from selfreward.rubric import Rubric
from selfreward.scorers.judge import JudgeScorer
from selfreward.scorers.length import LengthScorer
from selfreward.scorers.pairwise import PairwiseJudge
from selfreward.stages import accepted, comparing, judges, scoring
from selfreward.stages.asking import side_by_side
from selfreward.stages.work import Work, blocks, flat


def made_from(work: Work, policy: Policy) -> dict[str, Any]:
    """What decides the judgements of an iteration besides its candidates."""
    keys: dict[str, Any] = {}
    for place, reward in enumerate(work.recipe.rewards):
        prefix = f"rewards.{place}"
        match reward:
            case JudgeReward():
                keys |= judges.made_from(work, policy)
                alone = {"type": "judge"}  # says nothing that is not said already
                keys |= {} if reward.decided == alone else flat(reward.decided, prefix)
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
    judge = next((s for s in scorers if isinstance(s, JudgeScorer | PairwiseJudge)), None)
    watch = _watch(work, stage, judge)
    size = work.recipe.engine.block
    groups = (work.store.candidates_of(work.run.id, policy.name, b) for b in blocks(todo, size))
    own = all(isinstance(s, JudgeScorer | PairwiseJudge) and s.engine is work.engine for s in scorers)
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
            of_judge = [r for r in rows if judge and r.scorer == judge.name and not r.other_id]
            _look(work, stage, watch, [(*prompts[r.candidate_id], r.score) for r in of_judge])
    told = f"{stage.n_done} candidates judged by {', '.join(s.name for s in scorers)}"
    compared = [s for s in scorers if isinstance(s, PairwiseJudge)]
    return "; ".join([told, *(comparing.measure(work, stage, s.name) for s in compared)])


def _watch(work: Work, stage: Stage, scorer: Scorer | None) -> Watch | None:
    """The watch over the first judge, with what it said before an interruption; a rule is not watched."""
    top = top_of(scorer)
    if scorer is None or top is None:
        return None
    watch = Watch(top, changed(work.recipe.gate.limits.model_dump()))
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
    return judges.read_rubric(work.file(work.recipe.judge.rubric), work.recipe.judge.mode)


def top_of(scorer: Scorer | None) -> float | None:
    """Where a judge's scale ends; None for a rule, and for strengths, which have no end."""
    if isinstance(scorer, PairwiseJudge):
        return 1.0 if scorer.scalar == "copeland" else None
    return scorer.rubric.high if isinstance(scorer, JudgeScorer) else None


def open_scorers(work: Work, policy: Policy) -> list[Scorer]:
    """The scorers of the recipe's rewards, in their order."""
    return [_open(work, policy, reward) for reward in work.recipe.rewards]


def _open(work: Work, policy: Policy, reward: Rewarding) -> Scorer:
    """A judge wears the weights that `judge.policy` names."""
    match reward:
        case JudgeReward():
            adapter = work.adapter(judges.judge_policy(work, policy))
            return judges.open_judge(work.engine, rubric_of(work), work.recipe.judge, adapter, reward.called)
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
    if isinstance(scorer, PairwiseJudge):
        return comparing.rows(work, scorer, answered, questions)
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
        reasked=int(verdict.reasked),
    )


def _provenance(work: Work, policy: Policy, reward: Rewarding, scorer: Scorer) -> list[Any]:
    """The scorer's row, and its rubric's before it."""
    own: dict[str, Any] = {
        "run_id": work.run.id,
        "policy": policy.name,
        "name": scorer.name,
        "type": reward.type,
    }
    if not isinstance(scorer, JudgeScorer | PairwiseJudge):
        return [ScorerRow(**own, settings=json.dumps(reward.decided))]
    r, outside = scorer.rubric, isinstance(reward, ExternalReward)
    judge, who = reward.decided, policy
    if isinstance(reward, JudgeReward):
        judge, who = work.recipe.judge.model_dump(), judges.judge_policy(work, policy)
    return [
        RubricRow(sha256=r.sha256, name=r.name, kind=r.kind, low=r.low, high=r.high, text=r.text),
        ScorerRow(
            **own,
            mode="pairwise" if isinstance(scorer, PairwiseJudge) else scorer.mode,
            rubric_sha256=r.sha256,
            judge=reward.model if isinstance(reward, ExternalReward) else who.name,
            judge_sha256=None if outside else who.sha256,
            settings=json.dumps(judge),
        ),
    ]
