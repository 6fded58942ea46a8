"""Stage `pairs`: one mining row for every accepted prompt, and the pairs.

Cheap: recomputed whole until training starts.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfreward.ids import derive_seed, pair_id
from selfreward.pairs import Contender, Mined, Rule, mine, usable
from selfreward.pairs.filters import cap_form, moving_spreads, spread_of
from selfreward.pairs.lengths import LengthCost, balancing_cost
from selfreward.recipe import Pairs
from selfreward.records import Metric, MiningRow, PairRow, Policy, Stage, Stood
from selfreward.stages import comparing
from selfreward.stages.standing import compares_alone, contenders, label_weight, main_reward
from selfreward.stages.work import Work, flat
from selfreward.stats import Interval

Labels = Mapping[tuple[int, int], float]  # how sure the first of two candidates is the better one
ALWAYS = {"pairs.rule", "pairs.min_margin"}
COUNTED = 4096  # chats whose tokens the engine is asked to count at once


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
    lengths = _lengths(work, policy)
    dropped = work.store.dropped(work.run.id)
    sure = label_weight(work.store, work.recipe, work.run.id, policy.name)
    labels = _labels(work, policy)
    rows = contenders(work.store, work.recipe, work.run.id, policy.name)
    groups = grouped(rows, lengths, work.run.seed, policy.idx, policy.name)
    each, cost = mined_groups(work.recipe.pairs, groups, work.recipe.training.max_length)
    minings: list[MiningRow] = []
    pairs: list[PairRow] = []
    training = 0
    for group, found in each:
        found = found if labels is None else judged_alike(found, labels)
        own = [
            _pair(work, policy, group, best, worst, _weight(best, worst, labels, sure))
            for best, worst in found.pairs
        ]
        kept = sum((p.chosen_id, p.rejected_id) not in dropped for p in own)
        pairs += own  # a dropped one stays to be seen; it never trains
        training += kept
        minings.append(_mining(work, group, found, kept > 0))
    work.store.replace_mining(stage, policy.name, minings, pairs)
    stage.n_done = stage.n_total = len(minings)
    if sure:
        work.store.put_metrics([_consistency(work, policy, sure)])
    note = f"{training} pairs from {len(minings)} prompts"
    note += f", labels trusted to {sure.value:.3f}" if sure else ""
    return f"{note}; {told_cost(cost)}" if cost else note


def _lengths(work: Work, policy: Policy) -> dict[int, int]:
    """Tokens of each accepted prompt's chat."""
    chats = list(work.store.chats(work.run.id, policy.name))
    found: dict[int, int] = {}
    for start in range(0, len(chats), COUNTED):
        part = chats[start : start + COUNTED]
        counted = work.engine.chat_ids([json.loads(messages) for _, messages in part])
        found |= {key: len(ids) for (key, _), ids in zip(part, counted, strict=True)}
    return found


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
    rows: Iterable[tuple[Stood, tuple[float, ...]]],
    lengths: Mapping[int, int] | None,
    seed: int,
    idx: int,
    policy: str,
) -> Iterator[Group]:
    """The stored candidates with their scores, by prompt, as they come; those of another policy are anchors.

    `lengths` is tokens of each prompt's chat, None where nobody can count them: they are then taken for 0.
    """
    for prompt, members in itertools.groupby(rows, key=lambda r: r[0].prompt_id):
        group = list(members)
        slot = group[0][0].slot
        members_of = [_contender(row, scores, policy) for row, scores in group]
        drawn = derive_seed(seed, "pairs", idx, slot)
        yield Group(prompt, slot, lengths[prompt] if lengths is not None else 0, drawn, members_of)


def mined_groups(
    options: Pairs, groups: Iterable[Group], max_length: int
) -> tuple[Iterable[tuple[Group, Mined]], LengthCost | None]:
    """Each group with what `mine_all` makes of it.

    One after the other, and forgotten; all are held only where a setting looks at the iteration as a whole.
    """
    if options.length_control is None and options.spread_ema is None and options.format_cap is None:
        rule = _rule(options)
        return ((g, _mined(rule, g, max_length)) for g in groups), None
    held = list(groups)
    found, cost = mine_all(options, held, max_length)
    return zip(held, found, strict=True), cost


def mine_all(
    options: Pairs, groups: Sequence[Group], max_length: int
) -> tuple[list[Mined], LengthCost | None]:
    """What the recipe's rule makes of every group, and the length cost it found if it was to look for one."""
    rule = _rule(options)
    least = _least_spreads(options, rule, groups, max_length)

    def mined_at(cost: float) -> list[Mined]:
        found = [
            _mined(replace(rule, length_cost=cost, min_spread=spread), g, max_length)
            for g, spread in zip(groups, least, strict=True)
        ]
        return found if options.format_cap is None else cap_form(found, options.right_at, options.format_cap)

    if options.length_control is None:
        return mined_at(0.0), None
    cost = balancing_cost(mined_at)
    return mined_at(cost.cost), cost


def _rule(options: Pairs) -> Rule:
    return Rule(
        options.rule, options.min_margin, options.max_similarity, options.rho, options.steady,
        0.0, options.p_hat, options.right_at, options.min_spread,
    )  # fmt: skip


def _mined(rule: Rule, group: Group, max_length: int) -> Mined:
    return mine(rule, group.contenders, prompt_tokens=group.tokens, max_length=max_length, seed=group.seed)


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


def _contender(row: Stood, scores: tuple[float, ...], policy: str) -> Contender:
    return Contender(
        row.id, row.sample, row.text, row.finish, row.n_tokens, scores, anchor=row.policy != policy
    )


def _mining(work: Work, group: Group, mined: Mined, kept: bool) -> MiningRow:
    """The prompt's row; `kept` tells whether a pair is left that no person dropped."""
    return MiningRow(
        run_id=work.run.id,
        prompt_id=group.prompt,
        outcome="dropped_by_review" if mined.pairs and not kept else mined.outcome,
        margin=mined.margin,
        n_pairs=len(mined.pairs) if kept else 0,
        detail=mined.detail,
    )


def _pair(
    work: Work, policy: Policy, group: Group, best: Contender, worst: Contender, weight: float
) -> PairRow:
    return PairRow(
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
