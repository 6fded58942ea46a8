"""What gate 1 reads: an iteration's texts, verdicts and pairs, as the detector takes them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from selfreward import collapse
from selfreward.collapse.gates import Iteration
from selfreward.collapse.judging import Score
from selfreward.collapse.limits import Finding, changed
from selfreward.collapse.texts import Answers
from selfreward.records import Policy
from selfreward.stages.judge import open_scorers, top_of
from selfreward.stages.standing import main_reward
from selfreward.stages.work import Work


def data_findings(work: Work, policy: Policy) -> list[Finding]:
    """What gate 1 makes of the iteration's texts, verdicts and pairs, beside those of M1."""
    limits = changed(work.recipe.gate.limits.model_dump())
    first = None if policy.name == "M1" else _iteration(work, work.policy("M1"))
    return collapse.of_data(_iteration(work, policy), first, limits)


def _iteration(work: Work, policy: Policy) -> Iteration:
    """The stored data of an iteration as the detector takes it."""
    run, reward = work.run.id, main_reward(work.recipe)
    prompts = work.store.prompts(run, policy.name)
    asked = {p.id: p.text for p in prompts}
    stored = [row for row, _ in work.store.contenders(run, policy.name, reward.called)]
    rows = [row for row in stored if row.policy == policy.name]  # an anchor's texts are of another
    groups = [list(g) for _, g in itertools.groupby(rows, key=lambda r: r.prompt_id)]
    verdicts = itertools.groupby(
        work.store.verdicts(run, policy.name, reward.called), key=lambda v: v.prompt_id
    )
    return Iteration(
        [Answers(asked[g[0].prompt_id], tuple(c.text for c in g)) for g in groups],
        [sum(c.finish == "length" for c in g) / len(g) for g in groups],
        [[Score(asked[p], v.score, float(v.n_tokens)) for v in group] for p, group in verdicts],
        work.store.mining_outcomes(run, policy.name),
        work.store.pair_lengths(run, policy.name),
        _top(work, policy),
        _preferred(work, policy, stored),
        [p.text for p in prompts if p.source == "self-instruct"],
    )


def _preferred(work: Work, policy: Policy, rows: Sequence[Any]) -> list[tuple[str, str]]:
    """The chosen and the rejected text of every pair."""
    said = {row.id: row.text for row in rows}
    pairs = work.store.mined_pairs(work.run.id, policy.name)
    return [(said[p.chosen_id], said[p.rejected_id]) for p in pairs]


def _top(work: Work, policy: Policy) -> float | None:
    """The highest score of the judge's scale, where a judge decides."""
    name = main_reward(work.recipe).called
    scorer = next(s for s in open_scorers(work, policy) if s.name == name)
    return top_of(scorer)
