"""Stage `pairs`: one mining row for every accepted prompt, and the pairs.

Cheap: recomputed whole until training starts.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

from selfreward import collapse
from selfreward.collapse.gates import Iteration
from selfreward.collapse.judging import Score
from selfreward.collapse.limits import Finding, changed
from selfreward.collapse.texts import Answers
from selfreward.pairs import Contender, Mined, best_vs_worst
from selfreward.records import Mining, Pair, Policy, Stage, pair_id
from selfreward.scorers.judge import JudgeScorer
from selfreward.stages.judge import open_scorer
from selfreward.stages.work import Work, flat


def made_from(work: Work, policy: Policy) -> dict[str, Any]:
    """What decides the pairs of an iteration besides its judgements."""
    return flat(work.recipe.pairs, "pairs") | {"training.max_length": work.recipe.training.max_length}


def run(work: Work, stage: Stage) -> str:
    """Mines every prompt again and replaces the iteration's rows."""
    policy = work.policy(stage.policy)
    prompts = work.store.prompts(work.run.id, policy.name)
    chat_tokens = work.engine.chat_ids([json.loads(p.messages) for p in prompts])
    lengths = {p.id: len(ids) for p, ids in zip(prompts, chat_tokens, strict=True)}
    scorer = open_scorer(work, policy).name
    rows = work.store.contenders(work.run.id, policy.name, scorer)
    dropped = work.store.dropped(work.run.id)
    minings: list[Mining] = []
    pairs: list[Pair] = []
    for prompt, group in itertools.groupby(rows, key=lambda r: r[0].prompt_id):
        members = list(group)
        mined = best_vs_worst(
            [_contender(row, scores) for row, scores in members],
            prompt_tokens=lengths[prompt],
            max_length=work.recipe.training.max_length,
            min_margin=work.recipe.pairs.min_margin,
        )
        pair = _pair(work, policy, prompt, members[0][0].slot, mined)
        outcome = (
            "dropped_by_review" if pair and (pair.chosen_id, pair.rejected_id) in dropped else mined.outcome
        )
        if pair:
            pairs.append(pair)  # a dropped one stays to be seen; it never trains
        minings.append(
            Mining(
                run_id=work.run.id,
                prompt_id=prompt,
                outcome=outcome,
                margin=mined.margin,
                n_pairs=int(outcome == "pair"),
                detail=mined.detail,
            )
        )
    work.store.replace_mining(stage, policy.name, [*minings, *pairs])
    stage.n_done = stage.n_total = len(minings)
    return f"{sum(m.n_pairs for m in minings)} pairs from {len(minings)} prompts"


def _contender(row: Any, scores: tuple[float, ...]) -> Contender:
    return Contender(row.id, row.sample, row.text, row.finish, row.n_tokens, scores)


def _pair(work: Work, policy: Policy, prompt: int, slot: int, mined: Mined) -> Pair | None:
    if mined.best is None or mined.worst is None:
        return None
    return Pair(
        id=pair_id(work.run.id, policy.idx, slot, mined.best.sample, mined.worst.sample),
        run_id=work.run.id,
        prompt_id=prompt,
        chosen_id=mined.best.candidate_id,
        rejected_id=mined.worst.candidate_id,
        chosen_score=mined.best.mean,
        rejected_score=mined.worst.mean,
        rule=work.recipe.pairs.rule,
    )


def data_findings(work: Work, policy: Policy) -> list[Finding]:
    """What gate 1 makes of the iteration's texts, verdicts and pairs, beside those of M1."""
    limits = changed(work.recipe.gate.limits.model_dump())
    first = None if policy.name == "M1" else _iteration(work, work.policy("M1"))
    return collapse.of_data(_iteration(work, policy), first, limits)


def _iteration(work: Work, policy: Policy) -> Iteration:
    """The stored data of an iteration as the detector takes it."""
    run, scorer = work.run.id, open_scorer(work, policy)
    asked = {p.id: p.text for p in work.store.prompts(run, policy.name)}
    rows = [row for row, _ in work.store.contenders(run, policy.name, scorer.name)]
    groups = [list(g) for _, g in itertools.groupby(rows, key=lambda r: r.prompt_id)]
    verdicts = itertools.groupby(
        work.store.verdicts(run, policy.name, scorer.name), key=lambda v: v.prompt_id
    )
    return Iteration(
        [Answers(asked[g[0].prompt_id], tuple(c.text for c in g)) for g in groups],
        [sum(c.finish == "length" for c in g) / len(g) for g in groups],
        [[Score(asked[p], v.score, float(v.n_tokens)) for v in group] for p, group in verdicts],
        work.store.mining_outcomes(run, policy.name),
        work.store.pair_lengths(run, policy.name),
        scorer.rubric.high if isinstance(scorer, JudgeScorer) else None,
    )
