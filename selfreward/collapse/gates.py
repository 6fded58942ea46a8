"""The gates' findings: is the data worth training on, is the new policy sound.

Pure: numbers in, findings out. Absolute signs (no pairs, nothing moved, not finite, one text for all probe
prompts) hold whatever the size of the run; the data of an iteration is held against the limits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from selfreward import stats
from selfreward.collapse import choosing, judging, limits, texts
from selfreward.collapse.judging import Score
from selfreward.collapse.limits import LIMITS, Finding, Limit, Reading
from selfreward.collapse.texts import Answers

MOVED = 5.0  # a policy must differ from its parent by more than this many times the dtype's measured noise
FLOOR = 1e-5  # nats a token: what other kernels and batch shapes do in float32, whatever this run's noise was


COMPARABLE = ("pair", "tie", "below_margin", "identical_text")  # outcomes with two scored, finished answers
MOST_PROMPTS = 2000  # whose texts gate 1 reads, evenly taken: shares are then known to ± 2 points
PROMPT_SIGNS = {"vendi_ratio": "prompt_vendi_ratio", "new_word": "prompt_word"}


@dataclass(frozen=True, slots=True)
class Iteration:
    """What an iteration has made when its pairs are mined.

    `scores` holds every verdict of a prompt, `cut` the share of a prompt's answers that ended at the token
    limit, `pairs` the tokens of each pair's chosen and rejected text. `top` ends the judge's scale; None
    where the scorer is a rule, whose levels mean what its author wanted. `preferred` holds the chosen and the
    rejected text of each pair, `invented` the prompts the policy made up itself: those of a user's file are
    what they are.
    """

    answers: Sequence[Answers]
    cut: Sequence[float]
    scores: Sequence[Sequence[Score]]
    outcomes: Mapping[str, int]
    pairs: Sequence[tuple[int, int]]
    top: float | None
    preferred: Sequence[tuple[str, str]] = ()
    invented: Sequence[str] = ()


def after_pairs(policy: str, outcomes: Mapping[str, int]) -> list[Finding]:
    """Gate 1, the absolute sign. `outcomes` counts the mining rows of the iteration by outcome."""
    total, n = sum(outcomes.values()), outcomes.get("pair", 0)
    if n == 0:
        reasons = ", ".join(
            f"{count} {name}" for name, count in sorted(outcomes.items(), key=lambda o: (-o[1], o[0]))
        )
        why = f"{policy} has no pairs: of {total} prompts {reasons or 'none was mined'}"
        advice = _advice(outcomes)
        return [Finding("pairs", "halt", 0.0, 1.0, f"{why}. {advice}")]
    return [Finding("pairs", "ok", float(n), 1.0, f"{n} of {total} prompts made a pair")]


def of_data(
    now: Iteration, start: Iteration | None = None, levels: Mapping[str, Limit] = LIMITS
) -> list[Finding]:
    """Gate 1, what the iteration's texts, verdicts and pairs show.

    `start` is the first iteration's data, other prompts answered by M1: compared unpaired.
    """
    answers = _evenly(now.answers)
    before = _evenly(start.answers) if start else []
    found = [r for r in texts.readings(answers, before) if r.signal != "new_word"]  # prompts differ
    found += texts.unasked_word(answers, before) + _invented(now, start)
    found += _cut(now, start) + _judge(now, start) + _ties(now, start)
    found += choosing.chosen_longer(now.pairs) + choosing.chosen_word(now.preferred)
    findings = [limits.judged(r, levels) for r in found]
    return findings + limits.several(findings, levels)


def _evenly(answers: Sequence[Answers]) -> list[Answers]:
    n = min(MOST_PROMPTS, len(answers))
    return [answers[i * len(answers) // n] for i in range(n)]


def _cut(now: Iteration, start: Iteration | None) -> list[Reading]:
    if not now.cut:
        return []
    before = stats.estimate(start.cut) if start and start.cut else None
    return [judging.reading("cut_share", stats.estimate(now.cut), before)]


def _judge(now: Iteration, start: Iteration | None) -> list[Reading]:
    """All of the judge's health; of a rule only what could not be scored."""
    if not now.scores:
        return []
    same = start is not None and start.top == now.top
    found = judging.readings(now.scores, now.top or 1.0, start.scores if start and same else ())
    found = [r for r in found if r.signal != "ties"]  # mining counts them, on the means of the samples
    return found if now.top is not None else [r for r in found if r.signal == "faults"]


def _ties(now: Iteration, start: Iteration | None) -> list[Reading]:
    """Prompts whose answers all got the same score, of those that could have made a pair."""
    sides = [_of_outcomes(side.outcomes) for side in (now, start) if side]
    if not sides[0]:
        return []
    before = stats.estimate(sides[1]) if len(sides) > 1 and sides[1] else None
    return [judging.reading("ties", stats.estimate(sides[0]), before)]


def _of_outcomes(outcomes: Mapping[str, int]) -> list[float]:
    n = sum(outcomes.get(o, 0) for o in COMPARABLE)
    ties = outcomes.get("tie", 0)
    return [1.0] * ties + [0.0] * (n - ties)


def _invented(now: Iteration, start: Iteration | None) -> list[Reading]:
    """Whether the prompts a policy makes up narrow: their variety and their words beside the first ones."""
    if start is None or not start.invented or not now.invented:
        return []
    new, old = ([Answers(None, (p,)) for p in side.invented] for side in (now, start))
    found = texts.readings(new, old)
    return [replace(r, signal=PROMPT_SIGNS[r.signal]) for r in found if r.signal in PROMPT_SIGNS]


def _advice(outcomes: Mapping[str, int]) -> str:
    match max(outcomes, key=lambda o: (outcomes[o], o), default=""):
        case "tie" | "below_margin":
            return "Use `judge.mode: expected`, a lower `pairs.min_margin`, or sample more candidates"
        case "truncated":
            return "Raise candidates.sampling.max_new_tokens: answers are cut off before they end"
        case "too_few_scores":
            return "Look at the judge's replies with `selfreward pairs list --outcome too_few_scores`"
        case "identical_text":
            return "Raise candidates.sampling.temperature: all candidates of a prompt are the same text"
        case _:
            return "Look at `selfreward pairs stats`"


def after_probe(
    policy: str,
    *,
    texts: Sequence[str],
    kl: float | None,
    proof_gap: float | None,
    moved: float | None,
    noise: float,
) -> list[Finding]:
    """Gate 2.

    `moved` and `proof_gap` are mean absolute log-probability differences in nats a token, on fixed tokens.

    `moved`: engine with the new adapter against its parent. `proof_gap`: the engine against the trainer.
    None: the policy was not trained (it is the base).
    """
    found = []
    distinct = {t.strip() for t in texts}
    one = not distinct or (len(texts) > 1 and len(distinct) == 1)
    said = (
        f"{policy} answers every probe prompt with the same text: {next(iter(distinct))[:60]!r}"
        if distinct
        else f"{policy} answered no probe prompt: every answer is a fault"
    )
    found.append(
        Finding("one_text", "halt", float(len(distinct)), 2.0, said)
        if one
        else Finding(
            "one_text",
            "ok",
            float(len(distinct)),
            2.0,
            f"{len(distinct)} distinct answers to {len(texts)} prompts",
        )
    )
    numbers = {"kl_previous": kl, "moved": moved, "proof_gap": proof_gap}
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            found.append(Finding(name, "halt", None, None, f"{name} of {policy} is not a finite number"))
    if moved is not None and proof_gap is not None and math.isfinite(moved + proof_gap):
        found += _moved(policy, moved, proof_gap, noise)
    return found


def _moved(policy: str, moved: float, gap: float, noise: float) -> list[Finding]:
    floor = max(noise, FLOOR)
    agrees = gap <= MOVED * floor
    differs = moved > MOVED * max(gap, floor)
    return [
        Finding(
            "proof_gap",
            "ok" if agrees else "halt",
            gap,
            MOVED * floor,
            f"engine and trainer agree on {policy} within {gap:.2g} nats a token"
            if agrees
            else f"the engine does not answer as the trained {policy}: {gap:.2g} nats a token from the "
            f"trainer's own log-probabilities, more than {MOVED:g} x the noise {floor:.2g}. "
            "Check versions, dtype and adapter",
        ),
        Finding(
            "moved",
            "ok" if differs else "halt",
            moved,
            MOVED * max(gap, floor),
            f"{policy} moved {moved:.2g} nats a token from its parent"
            if differs
            else f"training moved {policy} by {moved:.2g} nats a token, within noise "
            f"({max(gap, floor):.2g}): nothing was learned. "
            "Raise training.lr or training.epochs, or use a finer dtype",
        ),
    ]
