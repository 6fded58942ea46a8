"""Two policies on the same prompts and seeds: the difference, its interval, and one verdict. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfreward import stats
from selfreward.stats import Interval

LEVEL = 0.05
BEARER = "adapter.sha256"  # of a protocol: who answered, and no condition
RULES = ("integer", "number", "phrase", "own")  # graders that check: right or wrong; all others give 1 to 10
SCALES = {"integers": (0.0, 1.0), "two-turn": (1.0, 10.0)}  # of the loop's own suites


@dataclass(frozen=True, slots=True)
class Grade:
    """A grade of one answer; `seed` is the answer's, `score` None a fault."""

    item: str
    turn: int
    sample: int
    seed: int | None
    grader: str | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A suite on two policies. `p` is Holm's over all suites; `detectable` and `needed` may be None."""

    suite: str
    grader: str
    left: Interval
    right: Interval
    difference: Interval
    p: float
    verdict: str
    needed: int | None
    detectable: float | None
    unread: int
    unpaired: int


@dataclass(frozen=True, slots=True)
class _Pairing:
    """Scores of both sides by prompt, and how many answers were left out."""

    left: list[list[float]]
    right: list[list[float]]
    unread: int
    unpaired: int

    @property
    def differences(self) -> list[float]:
        """Right minus left, a mean a prompt."""
        both = zip(self.left, self.right, strict=True)
        return [(math.fsum(r) - math.fsum(a)) / len(a) for a, r in both]


def compare(
    suites: Mapping[str, tuple[Sequence[Grade], Sequence[Grade]]],
) -> tuple[list[Comparison], dict[str, str]]:
    """A comparison of each suite, and of those that cannot be compared the reason.

    Only answers to the same prompt, turn and sample, drawn with the same seed, read on both sides and graded
    by the same grader are used. `better` and `worse` need both Holm's p over the suites at most 0.05 and an
    interval that does not hold 0.
    """
    found: dict[str, _Pairing] = {}
    left_out: dict[str, str] = {}
    for name, (left, right) in suites.items():
        by = [{g.grader for g in side if g.grader} for side in (left, right)]
        pairing = _paired(left, right)
        if by[0] != by[1] and all(by):
            left_out[name] = f"graded by {_names(by[0])} and by {_names(by[1])}: two graders are not compared"
        elif not pairing.left:
            left_out[name] = "no answer to the same prompt and seed was read on both sides"
        else:
            found[name] = pairing
    ps = stats.holm([stats.sign_flip(pairing.differences) for pairing in found.values()])
    done = [
        _compared(name, _names({g.grader for side in suites[name] for g in side if g.grader}), pairing, p)
        for (name, pairing), p in zip(found.items(), ps, strict=True)
    ]
    return done, left_out


def by_grader(
    left: str, lefts: Mapping[str, Sequence[Grade]], right: str, rights: Mapping[str, Sequence[Grade]]
) -> tuple[dict[str, tuple[list[Grade], list[Grade]]], dict[str, str]]:
    """Both sides' grades by suite, and by suite and grader where a side has several; what only one side has.

    An answer that failed has no grader and is every grader's.
    """
    both: dict[str, tuple[list[Grade], list[Grade]]] = {}
    lone: dict[str, str] = {}
    for suite in dict.fromkeys([*lefts, *rights]):
        sides = [list(side.get(suite, ())) for side in (lefts, rights)]
        graders = [sorted({g.grader for g in side if g.grader}) for side in sides]
        if max(map(len, graders)) < 2:
            both[suite] = (sides[0], sides[1])
            continue
        for by in sorted({*graders[0], *graders[1]}):
            missing = [name for name, had in zip((left, right), graders, strict=True) if by not in had]
            if missing:
                lone[f"{suite} ({by})"] = f"{' and '.join(missing)} has no grades by it"
            else:
                mine, theirs = ([g for g in side if g.grader in (by, None)] for side in sides)
                both[f"{suite} ({by})"] = (mine, theirs)
    return both, lone


def apart(
    suites: Iterable[str], left: Mapping[str, Mapping[str, Any]], right: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Suites that the two sides answered under different protocols, with the reason; adapters may differ.

    A suite's name may have its grader behind it, as in `mt-bench (M0/sampled)`.
    """
    found = {}
    for name in suites:
        sides = [
            {k: v for k, v in p.get(name.split(" (")[0], {}).items() if k != BEARER} for p in (left, right)
        ]
        keys = sorted(k for k in sides[0].keys() | sides[1].keys() if sides[0].get(k) != sides[1].get(k))
        if all(sides) and keys:
            found[name] = f"answered under two protocols ({', '.join(keys)} differ): not compared"
    return found


def is_self(policy: str, grader: str) -> bool:
    """Whether this policy graded its own answers."""
    return grader.rpartition("/")[0] in (policy, f"self:{policy}")


def _names(graders: set[str]) -> str:
    return ", ".join(sorted(graders))


def _paired(left: Sequence[Grade], right: Sequence[Grade]) -> _Pairing:
    theirs = {(g.item, g.turn, g.sample): g for g in right}
    sides: dict[str, tuple[list[float], list[float]]] = {}
    unread = unpaired = 0
    for mine in left:
        other = theirs.pop((mine.item, mine.turn, mine.sample), None)
        if other is None or other.seed != mine.seed:
            unpaired += 1
        elif mine.score is None or other.score is None:
            unread += 1
        else:
            both = sides.setdefault(mine.item, ([], []))
            both[0].append(mine.score)
            both[1].append(other.score)
    lefts, rights = [s[0] for s in sides.values()], [s[1] for s in sides.values()]
    return _Pairing(lefts, rights, unread, unpaired + len(theirs))


def _compared(name: str, grader: str, pairing: _Pairing, p: float) -> Comparison:
    scores = [x for side in (pairing.left, pairing.right) for values in side for x in values]
    low, high = SCALES.get(name, (0.0, 1.0) if grader.split("+")[0] in RULES else (1.0, 10.0))
    low, high = min(low, *scores), max(high, *scores)
    sides = [
        stats.bounded([math.fsum(v) for v in side], [float(len(v)) for v in side], low, high)
        for side in (pairing.left, pairing.right)
    ]
    difference = stats.clustered_difference(pairing.left, pairing.right, high - low)
    verdict = "can't tell"
    if p <= LEVEL and difference.low > 0:
        verdict = "better"
    elif p <= LEVEL and difference.high < 0:
        verdict = "worse"
    needed = _needed(pairing.differences) if verdict == "can't tell" else None
    differs = len(set(pairing.differences)) > 1
    detectable = stats.detectable(pairing.differences) if differs else None
    return Comparison(
        name, grader, sides[0], sides[1], difference, p, verdict, needed, detectable, pairing.unread,
        pairing.unpaired,
    )  # fmt: skip


def _needed(differences: Sequence[float]) -> int | None:
    """How many prompts more would tell, at least 1; None where nothing differs or one prompt is all."""
    if len(differences) < 2:
        return None
    total = stats.prompts_needed(differences)
    return None if total is None else max(1, total - len(differences))


def sentence(found: Comparison) -> str:
    """The verdict in words."""
    if found.verdict != "can't tell":
        return found.verdict
    if found.needed is None:
        alike = "all prompts came out alike" if found.difference.n > 1 else "one prompt is too few"
        return f"can't tell ({alike})"
    return f"can't tell (needs about {found.needed} more prompts)"
