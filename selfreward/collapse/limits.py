"""The thresholds by name, and what it takes to pass one. Pure.

A halt needs all of: the whole 95 % interval beyond the halt level, at least `least` prompts, and, where
there is something to compare with, worse than it by an interval. Absolute signs need only the first two.
Signs that mean something only beside a baseline warn at most without one. What passes the level with less
than that warns, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from selfreward.stats import Interval

# absolute: no comparison excuses it; level: worse than the baseline where there is one; baseline: only beside
# one; relative: the comparison itself is what is measured.
Kind = Literal["absolute", "level", "baseline", "relative"]
LEAST = 64  # prompts: Wilson's interval of a half is then ± 12 points wide
WEAK_SIGNS = 3  # families of signals that must warn, each on its whole interval, to halt together
NEVER = float("inf")
LEVELS = ("ok", "warn", "halt")


@dataclass(frozen=True, slots=True)
class Limit:
    """When a signal warns and when it halts; `family` groups signals that see the same thing."""

    kind: Kind
    worse: Literal["high", "low"]
    warn: float
    halt: float
    family: str
    least: int = LEAST

    def passed(self, value: float, level: float) -> bool:
        """Whether a value lies beyond a level."""
        return value > level if self.worse == "high" else value < level

    def wholly(self, found: Interval, level: float) -> bool:
        """Whether the whole interval lies beyond a level."""
        return self.passed(found.low if self.worse == "high" else found.high, level)


# Reasons and the data behind them: docs/collapse.md.
LIMITS: Mapping[str, Limit] = {
    # texts
    "no_text": Limit("absolute", "high", 0.05, 0.20, "text"),
    "same_text": Limit("absolute", "high", 0.30, 0.80, "across"),
    "loop_share": Limit("level", "high", 0.15, 0.40, "loops"),
    "compression": Limit("level", "high", 4.0, 6.0, "across"),
    "self_repetition": Limit("level", "high", 0.60, 0.85, "across"),
    "relevance": Limit("baseline", "low", 0.70, 0.60, "relevance"),
    "identical": Limit("level", "high", 0.50, 0.70, "within"),
    "within_distance": Limit("level", "low", 0.20, 0.10, "within"),
    "cut_share": Limit("baseline", "high", 0.20, 0.30, "length"),
    "length_ratio": Limit("relative", "high", 1.3, 2.0, "length"),
    "shrink_ratio": Limit("relative", "high", 1.6, 4.0, "length"),
    "distinct_2_ratio": Limit("relative", "low", 0.85, 0.70, "across"),
    "vendi_ratio": Limit("relative", "low", 0.85, 0.70, "across"),
    "distance_ratio": Limit("relative", "low", 0.85, 0.50, "within"),
    "new_word": Limit("relative", "high", 0.30, 0.60, "topic"),
    "unasked_word": Limit("relative", "high", 0.30, 0.60, "topic"),
    "one_word": Limit("level", "high", 0.50, NEVER, "topic"),
    # prompts that a policy invented
    "prompt_vendi_ratio": Limit("relative", "low", 0.70, 0.50, "prompts"),
    "prompt_word": Limit("relative", "high", 0.30, 0.60, "prompts"),
    # judgements
    "faults": Limit("absolute", "high", 0.05, 0.20, "faults"),
    "ties": Limit("level", "high", 0.40, 0.70, "judge"),
    "top_score": Limit("level", "high", 0.60, 0.85, "judge"),
    "same_score": Limit("level", "high", 0.85, 0.95, "judge"),
    "spread": Limit("level", "low", 0.005, 0.001, "judge"),
    "length_correlation": Limit("level", "high", 0.60, 0.90, "judge length"),
    "chosen_longer": Limit("level", "high", 0.65, 0.80, "judge length"),
    "chosen_word": Limit("relative", "high", 0.30, 0.60, "chosen"),
    "agreement": Limit("level", "low", 0.20, 0.0, "judge"),
    # a policy on the probe's prompts; both policies score the same tokens, so that fewer answers tell
    "kl_previous": Limit("relative", "high", 0.3, 1.0, "drift", 32),
    "reward_fall": Limit("relative", "high", 0.0, 0.25, "reward", 32),
    # inside a training; `train_drift` is of fixed texts, each scored by both policies
    "train_drift": Limit("relative", "high", 0.3, 1.0, "drift", 16),
    "chosen_fall": Limit("relative", "high", 0.25, 1.0, "chosen"),
    "train_margin": Limit("absolute", "high", 10.0, NEVER, "margin"),
    "gradient_ratio": Limit("absolute", "high", 20.0, NEVER, "gradient", 11),
    # inside a stage, since a change: the change itself is the comparison
    "score_shift": Limit("relative", "high", 0.5, 3.0, "judge", 30),
    "spread_ratio": Limit("relative", "low", 0.5, 0.1, "judge", 30),
}


def changed(changes: Mapping[str, Mapping[str, float | None]]) -> dict[str, Limit]:
    """The limits with a recipe's own numbers: name → warn, halt, least; None keeps the default."""
    found = dict(LIMITS)
    for name, given in changes.items():
        kept = {k: v for k, v in given.items() if v is not None}
        found[name] = replace(found[name], **kept)  # type: ignore[arg-type]
    return found


@dataclass(frozen=True, slots=True)
class Reading:
    """What a signal shows; `change` is the comparison with `against`, a difference unless it is relative."""

    signal: str
    now: Interval
    against: float | None = None
    change: Interval | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One signal's verdict: `ok`, `warn` or `halt`, with the sentence for the user.

    `firm`: the whole interval is beyond the warn level, on enough prompts, and no comparison excuses it.
    """

    signal: str
    level: str
    value: float | None
    threshold: float | None
    message: str
    low: float | None = None
    high: float | None = None
    against: float | None = None
    n: int | None = None
    firm: bool = False


def judged(reading: Reading, limits: Mapping[str, Limit] = LIMITS) -> Finding:
    """A reading held against its limit; a signal without one is information and always `ok`."""
    limit = limits.get(reading.signal)
    now = reading.now
    if limit is None:
        return _finding(reading, "ok", None, f"{reading.signal} {shown(now)}{_of(reading)}", False)
    excuse = _excuse(reading, limit)
    level, threshold, reason = "ok", limit.warn, ""
    if limit.wholly(now, limit.halt) and not excuse:
        level, threshold = "halt", limit.halt
    elif limit.passed(now.value, limit.halt):
        level, threshold = "warn", limit.halt
        reason = excuse or "too few to tell: the interval reaches back over the level"
    elif limit.wholly(now, limit.warn):
        level, reason = "warn", excuse
    side = "above" if limit.worse == "high" else "below"
    text = f"{reading.signal} {shown(now)}{_of(reading)}"
    if level != "ok":
        text += f", {side} {threshold:g}" + (f" ({reason})" if reason else "")
    return _finding(reading, level, threshold, text, limit.wholly(now, limit.warn) and not excuse)


def _excuse(reading: Reading, limit: Limit) -> str:
    """Why a value beyond the level is no reason to halt; empty where it is one."""
    if reading.now.n < limit.least:
        return f"too few to tell: {reading.now.n} of the {limit.least} prompts it takes"
    if limit.kind in ("absolute", "relative"):
        return ""
    if reading.change is None:
        return "nothing to compare it with" if limit.kind == "baseline" else ""
    worse = reading.change.low > 0 if limit.worse == "high" else reading.change.high < 0
    return "" if worse else "no worse than what it is compared with"


def rank(findings: Sequence[Finding]) -> int:
    """0 where all is well, 1 with a warning, 2 with a halt."""
    return max((LEVELS.index(f.level) for f in findings), default=0)


def several(findings: Sequence[Finding], limits: Mapping[str, Limit] = LIMITS) -> list[Finding]:
    """A halt when firm warnings come from at least `WEAK_SIGNS` families; else nothing."""
    firm = [f for f in findings if f.firm and f.level == "warn"]
    families = {limits[f.signal].family for f in firm}
    if len(families) < WEAK_SIGNS:
        return []
    names = ", ".join(f.signal for f in firm)
    text = f"{len(families)} kinds of warnings together, each on its whole interval: {names}"
    n = min(f.n for f in firm if f.n is not None)
    return [Finding("several", "halt", float(len(families)), float(WEAK_SIGNS), text, n=n)]


def shown(found: Interval) -> str:
    """A value with its interval and n, for people."""
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}] of {found.n}"


def _of(reading: Reading) -> str:
    detail = f" ({reading.detail})" if reading.detail else ""
    return detail if reading.against is None else f"{detail} against {reading.against:.3g}"


def _finding(reading: Reading, level: str, threshold: float | None, text: str, firm: bool) -> Finding:
    now = reading.now
    return Finding(
        reading.signal, level, now.value, threshold, text, now.low, now.high, reading.against, now.n, firm
    )
