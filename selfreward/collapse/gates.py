"""The gates' findings: is the data worth training on, is the new policy sound.

Pure: numbers in, findings out. This version knows the absolute signs alone: no pairs, nothing moved, not
finite, one text for all. Each holds whatever the size of the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from selfreward.collapse.limits import Finding

MOVED = 5.0  # a policy must differ from its parent by more than this many times the dtype's measured noise
FLOOR = 1e-5  # nats a token: what other kernels and batch shapes do in float32, whatever this run's noise was


def after_pairs(policy: str, outcomes: Mapping[str, int]) -> list[Finding]:
    """Gate 1. `outcomes` counts the mining rows of the iteration by outcome."""
    total, n = sum(outcomes.values()), outcomes.get("pair", 0)
    if n == 0:
        reasons = ", ".join(
            f"{count} {name}" for name, count in sorted(outcomes.items(), key=lambda o: (-o[1], o[0]))
        )
        why = f"{policy} has no pairs: of {total} prompts {reasons or 'none was mined'}"
        advice = _advice(outcomes)
        return [Finding("pairs", "halt", 0.0, 1.0, f"{why}. {advice}")]
    return [Finding("pairs", "ok", float(n), 1.0, f"{n} of {total} prompts made a pair")]


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
