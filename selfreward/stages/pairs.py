"""Stage `pairs`: one mining row for every accepted prompt, and the pairs.

Cheap: recomputed whole until training starts.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfreward.ids import derive_seed, pair_id
from selfreward.pairs import Contender, Mined, Rule, mine, usable
from selfreward.pairs.filters import cap_form, moving_spreads, spread_of
from selfreward.pairs.lengths import LengthCost, balancing_cost
from selfreward.recipe import Pairs
from selfreward.records import Metric, Mining, Pair, Policy, Stage
from selfreward.stages import comparing
from selfreward.stages.standing import compares_alone, contenders, label_weight, main_reward
from selfreward.stages.work import Work, flat
from selfreward.stats import Interval

Labels = Mapping[tuple[int, int], float]  # how sure the first of two candidates is the better one
ALWAYS = {"pairs.rule", "pairs.min_margin"}


@dataclass(frozen=True, slots=True)
class Group:
    """The candidates of one prompt, with what a rule needs to know of the prompt."""

    prompt: int
    slot: int
    tokens: int
    seed: int
    contenders: list[Contender]


def made_from(work: Work, policy: Policy) -> dict[str, Any]:
    """What decides the pairs of an iteration besides its judgements.

    A setting that is as it was before there was one is left out: older runs go on unchanged.
    """
    own, usual = flat(work.recipe.pairs, "pairs"), flat(Pairs(), "pairs")
    decided = {k: v for k, v in own.items() if k in ALWAYS or v != usual[k]}
    return decided | {"training.max_length": work.recipe.training.max_length}


def run(work: Work, stage: Stage) -> str:
    """Mines every prompt again and replaces the iteration's rows."""
    policy = work.policy(stage.policy)
    prompts = work.store.prompts(work.run.id, policy.name)
    chat_tokens = work.engine.chat_ids([json.loads(p.messages) for p in prompts])
    lengths = {p.id: len(ids) for p, ids in zip(prompts, chat_tokens, strict=True)}
    rows = contenders(work.store, work.recipe, work.run.id, policy.name)
    groups = grouped(rows, lengths, work.run.seed, policy.idx, policy.name)
    mined, cost = mine_all(work.recipe.pairs, groups, work.recipe.training.max_length)
    dropped = work.store.dropped(work.run.id)
    sure = label_weight(work.store, work.recipe, work.run.id, policy.name)
    labels = _labels(work, policy)
    minings: list[Mining] = []
    pairs: list[Pair] = []
    training = 0
    for group, found in zip(groups, mined, strict=True):
        found = found if labels is None else judged_alike(found, labels)
        own = [
            _pair(work, policy, group, best, worst, _weight(best, worst, labels, sure))
            for best, worst in found.pairs
        ]
        kept = sum((p.chosen_id, p.rejected_id) not in dropped for p in own)
        pairs += own  # a dropped one stays to be seen; it never trains
        training += kept
        minings.append(_mining(work, group, found, kept > 0))
    work.store.replace_mining(stage, policy.name, [*minings, *pairs])
    stage.n_done = stage.n_total = len(minings)
    if sure:
        work.store.put_metrics([_consistency(work, policy, sure)])
    note = f"{training} pairs from {len(minings)} prompts"
    note += f", labels trusted to {sure.value:.3f}" if sure else ""
    return f"{note}; {told_cost(cost)}" if cost else note


def _labels(work: Work, policy: Policy) -> Labels | None:
    """How sure a judge that compares is of every two candidates; None where it does not decide alone."""
    if not compares_alone(work.recipe):
        return None
    return comparing.labels(work, policy.name, main_reward(work.recipe).called)


def judged_alike(found: Mined, labels: Labels) -> Mined:
    """Without the pairs of which the judge, asked in both orders, does not say what their scalars say."""
    if not found.pairs:
        return found
    kept = [(b, w) for b, w in found.pairs if (b.candidate_id, w.candidate_id) in labels]
    if not kept:
        return Mined("tie", margin=0.0, detail="compared directly, the two orders do not agree on this pair")
    (best, worst), *more = kept
    return replace(found, margin=best.mean - worst.mean, best=best, worst=worst, more=tuple(more))


def _weight(best: Contender, worst: Contender, labels: Labels | None, sure: Interval | None) -> float:
    """How sure this pair's label is, or all of the iteration's are; 1 where nobody says."""
    if labels is not None:
        return labels[best.candidate_id, worst.candidate_id]
    return sure.value if sure else 1.0


def _consistency(work: Work, policy: Policy, sure: Interval) -> Metric:
    """How far the policy before ranks the candidates alike: 1 alike, ½ at random, 0 the other way round."""
    return Metric(
        run_id=work.run.id, policy=policy.name, stage="pairs", name="consistency",
        value=sure.value, n=sure.n, low=sure.low, high=sure.high,
    )  # fmt: skip


def grouped(
    rows: Sequence[tuple[Any, tuple[float, ...]]],
    lengths: Mapping[int, int] | None,
    seed: int,
    idx: int,
    policy: str,
) -> list[Group]:
    """The stored candidates with their scores, by prompt; those of another policy are anchors.

    `lengths` is tokens of each prompt's chat, None where nobody can count them: they are then taken for 0.
    """
    groups = []
    for prompt, members in itertools.groupby(rows, key=lambda r: r[0].prompt_id):
        group = list(members)
        slot = group[0][0].slot
        members_of = [_contender(row, scores, policy) for row, scores in group]
        drawn = derive_seed(seed, "pairs", idx, slot)
        groups.append(Group(prompt, slot, lengths[prompt] if lengths is not None else 0, drawn, members_of))
    return groups


def mine_all(
    options: Pairs, groups: Sequence[Group], max_length: int
) -> tuple[list[Mined], LengthCost | None]:
    """What the recipe's rule makes of every group, and the length cost it found if it was to look for one."""
    rule = Rule(
        options.rule, options.min_margin, options.max_similarity, options.rho, options.steady,
        0.0, options.p_hat, options.right_at, options.min_spread,
    )  # fmt: skip

    least = _least_spreads(options, rule, groups, max_length)

    def mined_at(cost: float) -> list[Mined]:
        found = [
            mine(
                replace(rule, length_cost=cost, min_spread=spread), g.contenders,
                prompt_tokens=g.tokens, max_length=max_length, seed=g.seed,
            )
            for g, spread in zip(groups, least, strict=True)
        ]  # fmt: skip
        return found if options.format_cap is None else cap_form(found, options.right_at, options.format_cap)

    if options.length_control is None:
        return mined_at(0.0), None
    cost = balancing_cost(mined_at)
    return mined_at(cost.cost), cost


def _least_spreads(options: Pairs, rule: Rule, groups: Sequence[Group], max_length: int) -> list[float]:
    """The spread each prompt must have: the recipe's, and with `spread_ema` what the ones before it had."""
    if options.spread_ema is None:
        return [rule.min_spread] * len(groups)
    able = [
        usable([c for c in g.contenders if not c.anchor], rule.terms(g.tokens, max_length)) for g in groups
    ]
    spreads = [None if isinstance(a, Mined) else spread_of(a) for a in able]
    return [max(rule.min_spread, m) for m in moving_spreads(spreads, options.spread_ema)]


def told_cost(cost: LengthCost) -> str:
    """The length cost in words."""
    return (
        f"{cost.cost:.3g} of score a token leaves chosen answers "
        f"{cost.difference:+.1f} tokens longer than rejected ones"
    )


def _contender(row: Any, scores: tuple[float, ...], policy: str) -> Contender:
    return Contender(
        row.id, row.sample, row.text, row.finish, row.n_tokens, scores, anchor=row.policy != policy
    )


def _mining(work: Work, group: Group, mined: Mined, kept: bool) -> Mining:
    """The prompt's row; `kept` tells whether a pair is left that no person dropped."""
    return Mining(
        run_id=work.run.id,
        prompt_id=group.prompt,
        outcome="dropped_by_review" if mined.pairs and not kept else mined.outcome,
        margin=mined.margin,
        n_pairs=len(mined.pairs) if kept else 0,
        detail=mined.detail,
    )


def _pair(work: Work, policy: Policy, group: Group, best: Contender, worst: Contender, weight: float) -> Pair:
    return Pair(
        id=pair_id(work.run.id, policy.idx, group.slot, best.sample, worst.sample),
        run_id=work.run.id,
        prompt_id=group.prompt,
        chosen_id=best.candidate_id,
        rejected_id=worst.candidate_id,
        chosen_score=best.mean,
        rejected_score=worst.mean,
        weight=weight,
        rule=work.recipe.pairs.rule,
    )
