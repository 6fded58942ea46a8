"""The pairs of a run looked at for label noise: texts, lengths, likelihoods, and the judge asked again.

It reads a run and writes nothing. What asks the judge again does so on a sample, drawn evenly.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfreward import audit, calibration, stats
from selfreward.audit import Preference
from selfreward.calibration import ATTACKS, Said, Scale, attacked
from selfreward.files import packaged
from selfreward.ids import derive_seed
from selfreward.protocols import Answer, Question
from selfreward.recipe import Audit
from selfreward.records import Policy
from selfreward.rewards import JudgeReward
from selfreward.scorers.judge import JudgeScorer
from selfreward.scorers.pairwise import OPENING, PairwiseJudge
from selfreward.stages import calibrate, judges
from selfreward.stages.work import Work, blocks
from selfreward.stats import Interval

Parts = dict[int, list[float]]  # of a prompt: what is averaged, a value a pair


@dataclass(frozen=True, slots=True)
class Audited:
    """What an audit found: kinds of problems with the ids of their pairs, numbers, and those above bounds.

    `agreement` is the mean τ-b of two scorers on the answers of a prompt, by their names.
    """

    n: int
    problems: dict[str, list[int]]
    numbers: dict[str, Interval | None]
    agreement: dict[str, Interval | None]
    above: dict[str, float]


def examine(work: Work, of: str | None, sample: int, tell: Callable[[str], None]) -> Audited:
    """Every pair by its texts and numbers, and `sample` of them judged again; 0 asks no model."""
    pairs = work.store.pairs_to_audit(work.run.id, of)
    problems = _problems(pairs)
    marked = {i for ids in problems.values() for i in ids}
    numbers: dict[str, Interval | None] = {
        "problem_share": _mean(_by_prompt(pairs, lambda p: float(p.id in marked))),
        "length_only_accuracy": _mean(_by_prompt(pairs, _longer)),
        "likelihood_only_accuracy": _mean(_by_prompt(pairs, _likelier)),
    }
    judged = any(isinstance(r, JudgeReward) for r in work.recipe.rewards)
    asked = _evenly(pairs, sample) if judged else []
    tell(f"{len(pairs)} pairs read, {len(asked)} of them are judged again")
    numbers |= {"swap_unconfirmed": None, "rejudged_flips": None, "attack_success": None}
    if asked:
        numbers |= _asked_again(work, asked)
    agreement = _agreement(work.store.scores_by_scorer(work.run.id, of))
    return Audited(len(pairs), problems, numbers, agreement, above(numbers, work.recipe.audit))


def above(numbers: Mapping[str, Interval | None], bounds: Audit) -> dict[str, float]:
    """The numbers above their bounds, with these.

    A reader of lengths who is nearly always wrong knows the labels as well: both ways count.
    """
    found = {}
    for name, bound in bounds.model_dump(exclude={"sample"}).items():
        number = numbers.get(name)
        if bound is None or number is None:
            continue
        guessed = name.endswith("_accuracy")
        if (max(number.value, 1 - number.value) if guessed else number.value) > bound:
            found[name] = bound
    return found


def _problems(pairs: Sequence[Any]) -> dict[str, list[int]]:
    """Kinds of `selfreward.audit`, and `duplicate`: the same two texts in another pair of any prompt."""
    rows = [Preference(p.id, p.prompt, p.chosen, p.rejected, p.chosen_score, p.rejected_score) for p in pairs]
    found = audit.problems(rows)
    seen: dict[tuple[str, str], list[int]] = {}
    for p in pairs:
        seen.setdefault((p.chosen.strip(), p.rejected.strip()), []).append(p.id)
    again = sorted(i for ids in seen.values() if len(ids) > 1 for i in ids)
    return found | ({"duplicate": again} if again else {})


def _longer(pair: Any) -> float:
    more = pair.chosen_tokens - pair.rejected_tokens
    return float(more > 0) if more else 0.5


def _likelier(pair: Any) -> float | None:
    if pair.chosen_logprob is None or pair.rejected_logprob is None:
        return None
    return float(pair.chosen_logprob > pair.rejected_logprob)


def _by_prompt(pairs: Sequence[Any], value: Callable[[Any], float | None]) -> Parts:
    found: Parts = {}
    for pair in pairs:
        said = value(pair)
        if said is not None:
            found.setdefault(pair.prompt_id, []).append(said)
    return found


def _mean(parts: Parts, low: float = 0.0) -> Interval | None:
    """The mean over pairs with an interval over prompts; `n` counts pairs."""
    if not parts:
        return None
    found = stats.bounded([sum(v) for v in parts.values()], [float(len(v)) for v in parts.values()], low)
    return Interval(found.value, found.low, found.high, sum(map(len, parts.values())))


def _evenly(pairs: Sequence[Any], n: int) -> list[Any]:
    taken = min(n, len(pairs))
    return [pairs[k * len(pairs) // taken] for k in range(taken)]


def _asked_again(work: Work, pairs: Sequence[Any]) -> dict[str, Interval | None]:
    """The sample judged in other ways, by the weights that judged it."""
    found: dict[str, Parts] = {"swap_unconfirmed": {}, "rejudged_flips": {}}
    swayed: list[Said] = []
    scale = Scale(0.0, 1.0)
    for policy, group in itertools.groupby(pairs, key=lambda p: p.policy):
        own, comparing = _judges(work, work.policy(policy))
        scale = calibrate.scale_of(own)
        for block in blocks(list(group), work.recipe.engine.block):
            for pair, unconfirmed in zip(block, _swapped(comparing, block), strict=True):
                if unconfirmed is not None:
                    found["swap_unconfirmed"].setdefault(pair.prompt_id, []).append(unconfirmed)
            for pair, flipped in zip(block, _rejudged(own, block), strict=True):
                if flipped is not None:
                    found["rejudged_flips"].setdefault(pair.prompt_id, []).append(flipped)
            swayed += _attacked(own, block, scale)
    attacks = calibration.measures([], [], scale, swayed)["attack_success"]
    return {name: _mean(parts) for name, parts in found.items()} | {"attack_success": attacks}


def _judges(work: Work, policy: Policy) -> tuple[calibrate.Judge, PairwiseJudge]:
    """The judge of an iteration as the recipe has it, and one of the same weights that compares."""
    options = work.recipe.judge
    adapter = work.adapter(judges.judge_policy(work, policy))
    own = judges.open_judge(
        work.engine, judges.read_rubric(work.file(options.rubric), options.mode), options, adapter
    )
    if isinstance(own, PairwiseJudge):
        return own, own
    rubric = judges.read_rubric(packaged("rubrics/pairwise.md"), "pairwise")
    return own, PairwiseJudge(work.engine, rubric, adapter)


def _question(pair: Any, *texts: str) -> Question:
    seeds = [derive_seed("audit", pair.id, k) for k in range(len(texts))]
    answers = [Answer(t, "stop", s) for t, s in zip(texts, seeds, strict=True)]
    return Question(json.loads(pair.messages), answers, pair.reference)


def _swapped(judge: PairwiseJudge, pairs: Sequence[Any]) -> list[float | None]:
    """1 where, compared in both orders, the chosen answer does not win both; None where it can't be told."""
    compared = judge.compare([_question(p, p.chosen, p.rejected) for p in pairs])
    return [None if c.preference is None else float(c.preference <= 0.5) for (c,) in compared]


def _rejudged(judge: calibrate.Judge, pairs: Sequence[Any]) -> list[float | None]:
    """1 where the judge, drawn anew, no longer scores chosen above rejected; only draws can differ."""
    if not (isinstance(judge, JudgeScorer) and judge.mode == "sampled"):
        return [None] * len(pairs)
    said = calibrate.said(judge, [_question(p, p.chosen, p.rejected) for p in pairs])
    orders = [s.order(0, 1) for s in said]
    return [None if o is None else float(o <= 0) for o in orders]


def _attacked(judge: calibrate.Judge, pairs: Sequence[Any], scale: Scale) -> list[Said]:
    """Each rejected answer beside itself with an attack behind it, the kinds by turns."""
    claim = f"{OPENING} A" if scale.pairwise else f"{judge.rubric.opening} {scale.high:g}"
    kinds = itertools.cycle(ATTACKS)
    asked = [_question(p, p.rejected, attacked(p.rejected, next(kinds), claim)) for p in pairs]
    return calibrate.said(judge, asked)


def _agreement(rows: Sequence[Any]) -> dict[str, Interval | None]:
    """Mean τ-b of every two scorers over the prompts whose answers both scored."""
    by: dict[int, dict[str, dict[int, float]]] = {}
    for row in rows:
        by.setdefault(row.prompt_id, {}).setdefault(row.scorer, {})[row.candidate_id] = row.score
    names = sorted({name for scorers in by.values() for name in scorers})
    found: dict[str, Interval | None] = {}
    for one, two in itertools.combinations(names, 2):
        parts: Parts = {}
        for prompt, scorers in by.items():
            both = sorted(scorers.get(one, {}).keys() & scorers.get(two, {}).keys())
            tau = stats.kendall([scorers[one][c] for c in both], [scorers[two][c] for c in both])
            if tau is not None:
                parts[prompt] = [tau]
        found[f"{one} ~ {two}"] = _mean(parts, -1.0)
    return found
