"""The pair rules besides the paper's, and the filters: each a pure function of one prompt's contenders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfreward.pairs.filters import spread_of
from selfreward.pairs.mining import (
    EQUAL,
    Contender,
    Mined,
    Terms,
    best_vs_worst,
    first_pair,
    in_rank,
    rank,
    usable,
)  # fmt: skip

RULES = ("best_vs_worst", "best_vs_random", "above_margin", "length_band", "anchored")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with its settings; the defaults are the paper's rule as it stands."""

    name: str = "best_vs_worst"
    min_margin: float = 0.0
    max_similarity: float | None = None
    rho: float = 0.1
    steady: float = 0.0
    length_cost: float = 0.0
    p_hat: tuple[float, float] | None = None
    right_at: float = 1.0
    min_spread: float = 0.0  # of the means of a prompt's candidates

    def terms(self, prompt_tokens: int, max_length: int) -> Terms:
        """What this rule's settings mean for one prompt.

        `steady` takes so many standard deviations of the judge's samples off what is praised and adds them to
        what is blamed: of two equal means the steadier wins. `length_cost` is score a token.
        """
        cost, steady = self.length_cost, self.steady
        if not cost and not steady:
            return Terms(prompt_tokens, max_length, self.min_margin, self.max_similarity)
        return Terms(
            prompt_tokens,
            max_length,
            self.min_margin,
            self.max_similarity,
            praise=lambda c: c.mean - cost * c.n_tokens - steady * c.deviation,
            blame=lambda c: c.mean - cost * c.n_tokens + steady * c.deviation,
        )


def mine(
    rule: Rule, contenders: Sequence[Contender], *, prompt_tokens: int, max_length: int, seed: int
) -> Mined:
    """What the rule makes of one prompt; `seed` decides for `best_vs_random` alone."""
    terms = rule.terms(prompt_tokens, max_length)
    own = [c for c in contenders if not c.anchor]
    if refused := filtered(rule, own, terms):
        return refused
    match rule.name:
        case "best_vs_worst":
            return best_vs_worst(own, terms)
        case "best_vs_random":
            return best_vs_random(own, terms, seed)
        case "above_margin":
            return above_margin(own, terms)
        case "length_band":
            return length_band(own, terms, rule.rho)
        case "anchored":
            return anchored(contenders, terms)
    raise ValueError(f"no pair rule {rule.name!r}")


def best_vs_random(contenders: Sequence[Contender], terms: Terms, seed: int) -> Mined:
    """The best against any that is worse by the margin, drawn by the seed.

    Milder than the worst, which on easy prompts is broken in ways nothing is learned from.
    """
    able = usable(contenders, terms)
    if isinstance(able, Mined):
        return able
    top = max(map(terms.praise, able))
    best = min((c for c in able if top - terms.praise(c) < EQUAL), key=rank)
    worse = [c for c in able if best.mean - c.mean >= max(EQUAL, terms.min_margin - EQUAL)]
    others = sorted((c for c in worse if terms.differ(best, c)), key=rank)
    if others:
        return first_pair([(best, others[seed % len(others)])], terms)
    return first_pair([(best, min(able, key=lambda c: (c.mean, rank(c))))], terms)


def above_margin(contenders: Sequence[Contender], terms: Terms) -> Mined:
    """Every two whose means differ by the margin, the widest first.

    A text that stands twice with different scores can win over another text and lose to it: two pairs that
    say the opposite of the same texts are both left out.
    """
    able = usable(contenders, terms)
    if isinstance(able, Mined):
        return able
    wide = sorted(
        ((b, w) for b in able for w in able if b.mean - w.mean >= max(EQUAL, terms.min_margin - EQUAL)),
        key=lambda p: (p[1].mean - p[0].mean, rank(p[0]), rank(p[1])),
    )
    said: dict[tuple[str, str], tuple[Contender, Contender]] = {}
    for b, w in wide:
        if terms.differ(b, w):
            said.setdefault((rank(b)[0], rank(w)[0]), (b, w))
    found = [pair for (b, w), pair in said.items() if (w, b) not in said]
    if found:
        best, worst = found[0]
        return Mined("pair", best.mean - worst.mean, best, worst, more=tuple(found[1:]))
    return Mined("identical_text") if said else first_pair(wide[:1] or [_extremes(able)], terms)


def _extremes(able: Sequence[Contender]) -> tuple[Contender, Contender]:
    return (
        min(able, key=lambda c: (-c.mean, rank(c))),
        min(able, key=lambda c: (c.mean, rank(c))),
    )


def length_band(contenders: Sequence[Contender], terms: Terms, rho: float) -> Mined:
    """The shortest of the good against the longest of the bad (Meta-Rewarding, arXiv 2407.19594).

    Good is a mean in [(1 − ρ)·max + ρ·min, max], bad one in [min, (1 − ρ)·min + ρ·max]; ρ below 0.5 keeps
    the two apart. ρ = 0 chooses among ties alone.
    """
    able = usable(contenders, terms)
    if isinstance(able, Mined):
        return able
    top, bottom = max(c.mean for c in able), min(c.mean for c in able)
    good = [c for c in able if c.mean >= (1 - rho) * top + rho * bottom - EQUAL]
    bad = [c for c in able if c.mean <= (1 - rho) * bottom + rho * top + EQUAL]
    good.sort(key=lambda c: (c.n_tokens, -c.mean, rank(c)))
    bad.sort(key=lambda c: (-c.n_tokens, c.mean, rank(c)))
    return first_pair([(b, w) for b in good for w in bad], terms)


def anchored(contenders: Sequence[Contender], terms: Terms) -> Mined:
    """The policy's own best against the worst answer of an earlier policy.

    Chosen and rejected texts of one policy grow alike from iteration to iteration, and with them the signal
    dies; those of an anchor stay what they are (Temporal Self-Rewarding, arXiv 2508.06026).
    """
    able = usable(contenders, terms)
    if isinstance(able, Mined):
        return able
    own, anchors = [c for c in able if not c.anchor], [c for c in able if c.anchor]
    if not own or not anchors:
        whose = "the policy's own" if not own else "the anchor's"
        return Mined("too_few_scores", detail=f"none of {whose} answers is usable")
    top, bottom = max(map(terms.praise, own)), min(map(terms.blame, anchors))
    bests = in_rank([c for c in own if top - terms.praise(c) < EQUAL])
    worsts = in_rank([c for c in anchors if terms.blame(c) - bottom < EQUAL])
    if bests[0].mean < worsts[0].mean - EQUAL:
        return Mined("below_margin", margin=0.0, detail="every answer of the anchor scored higher")
    return first_pair([(b, w) for b in bests for w in worsts], terms)


def filtered(rule: Rule, contenders: Sequence[Contender], terms: Terms) -> Mined | None:
    """Why a prompt is not worth mining: everybody right or wrong, or everybody alike; None if it is.

    p̂ is the share of usable contenders with a mean of `right_at` or more. Prompts that are always or never
    answered rightly teach nothing about which answer is right.
    """
    if rule.p_hat is None and rule.min_spread <= 0:
        return None
    able = usable(contenders, terms)
    if isinstance(able, Mined):
        return None  # the rule will name its reason
    if rule.p_hat:
        right = sum(c.mean >= rule.right_at - EQUAL for c in able) / len(able)
        low, high = rule.p_hat
        if not low - EQUAL <= right <= high + EQUAL:
            return Mined("filtered", detail=f"p̂ {right:.2f} outside {low:g}..{high:g}")
    spread = spread_of(able)
    if spread < rule.min_spread - EQUAL:
        return Mined("filtered", detail=f"spread {spread:.3f} under {rule.min_spread:.4g}")
    return None
