"""From findings to one verdict: what happened, since when, the numbers that show it, two examples. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfreward.collapse import judging, limits, texts
from selfreward.collapse.judging import Score
from selfreward.collapse.limits import Finding, Limit, rank
from selfreward.collapse.texts import Answers
from selfreward.collapse.watch import Shift, Watch
from selfreward.diversity.phrases import loops

KINDS = ("absolute", "level", "baseline", "relative")
WHAT = {
    "no_text": "texts are missing or empty",
    "same_text": "prompts get one and the same text",
    "loop_share": "texts repeat a phrase over and over",
    "compression": "texts repeat each other",
    "self_repetition": "texts are made of the same phrases",
    "relevance": "texts are no nearer to their own prompts than to others'",
    "identical": "the texts of a prompt are the same",
    "within_distance": "the texts of a prompt hardly differ",
    "cut_share": "texts are cut off before they end",
    "length_ratio": "texts have grown",
    "shrink_ratio": "texts have shrunk",
    "distinct_2_ratio": "texts are less varied than before",
    "vendi_ratio": "there are fewer kinds of texts than before",
    "distance_ratio": "the texts of a prompt differ less than before",
    "new_word": "a word is nearly everywhere that was not before",
    "unasked_word": "a word that nobody asked for is nearly everywhere",
    "prompt_vendi_ratio": "there are fewer kinds of invented prompts than at first",
    "prompt_word": "a word is in nearly every invented prompt that was not before",
    "one_word": "one word is nearly everywhere",
    "faults": "verdicts cannot be read",
    "ties": "the judge gives all texts of a prompt the same score",
    "top_score": "the judge gives the best score to nearly everything",
    "same_score": "the judge gives one score to nearly everything",
    "spread": "the judge hardly tells the texts of a prompt apart",
    "length_correlation": "the judge scores length",
    "chosen_longer": "the longer text is nearly always the chosen one",
    "chosen_word": "a word is nearly always what parts the chosen text from the rejected",
    "kl_previous": "the policy has gone far from its parent in one step",
    "reward_fall": "the reward fell on the prompts of the probe though it was to rise",
    "train_drift": "the training goes far from its parent",
    "chosen_fall": "the training unlearns chosen answers as well as rejected ones",
    "train_margin": "the loss has nothing left to teach",
    "gradient_ratio": "the gradients have grown",
    "training": "the training stopped itself",
    "agreement": "the judge ranks otherwise than the one before",
    "score_shift": "the judge's scores have moved",
    "spread_ratio": "the judge's scores have lost their spread",
    "several": "several weak signs come together",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`level` of the worst finding, the sentences for the user, all findings, and the row of the change.

    `since_row` counts the lines of the judgements from 1; None without a change, or without a judgement.
    """

    level: str
    why: str
    findings: tuple[Finding, ...]
    since_row: int | None = None


def of_texts(
    answers: Sequence[Answers],
    against: Sequence[Answers] = (),
    levels: Mapping[str, Limit] = limits.LIMITS,
) -> list[Finding]:
    """Every text signal held against its limit."""
    found = [limits.judged(r, levels) for r in texts.readings(answers, against)]
    return found + limits.several(found, levels)


def of_judgements(
    rows: Sequence[Score], levels: Mapping[str, Limit] = limits.LIMITS, top: float | None = None
) -> tuple[list[Finding], int | None, str]:
    """The judge's findings, the line its change began at, and that change in words.

    Where a change is found the findings are those since it, if they are worse than those of the whole.
    """
    groups = judging.by_prompt(rows)
    watch = Watch(judging.top_of(rows) if top is None else top, levels)
    for group in groups:
        watch.add(group)
    whole = watch.whole()
    whole += limits.several(whole, levels)
    found = watch.worst()
    if found is None:
        return whole, None, ""
    shift, findings = found
    row, seen = _row(groups, shift.began) + 1, _row(groups, shift.seen + 1)
    said = f"since row {row} (seen at row {seen})"
    if rank(findings) < rank(whole):
        findings = []  # the whole tells more than what came after the change
    if rank(findings) == 0:
        findings = [*findings, _moved(shift, watch, said)]
    names = {f.signal for f in findings}
    return [*findings, *(f for f in whole if f.signal not in names)], row, said


def _moved(shift: Shift, watch: Watch, said: str) -> Finding:
    text = f"{shift.series} of the judge changed {said}, to nothing that is beyond a level"
    return Finding("change", "warn", None, None, text, n=len(watch.groups) - shift.began)


def _row(groups: Sequence[Sequence[Score]], group: int) -> int:
    return sum(len(g) for g in groups[:group])


def examples(answers: Sequence[Answers], findings: Sequence[Finding]) -> list[str]:
    """Texts that show the worst sign: looping ones, those of a prompt that are alike, or any."""
    bad = [f.signal for f in findings if f.level == limits.LEVELS[rank(findings)]]
    for signal in bad:
        match signal:
            case "loop_share":
                return [t for a in answers for t in a.readable if loops(t)][:2]
            case "identical" | "within_distance" | "distance_ratio":
                return next((a.readable[:2] for a in answers if len(a.readable) > 1), [])
    return [a.readable[0] if a.readable else "" for a in answers[:: max(1, len(answers) // 2)]][:2]


def _weight(finding: Finding) -> int:
    """Absolute signs first, comparisons last: the order in which they convince."""
    limit = limits.LIMITS.get(finding.signal)
    return KINDS.index(limit.kind) if limit else len(KINDS)


def verdict(
    findings: Sequence[Finding],
    since_row: int | None = None,
    said: str = "",
    examples: Sequence[str] = (),
) -> Verdict:
    """The findings as one level and two sentences."""
    level = limits.LEVELS[rank(findings)]
    if level == "ok":
        n = max((f.n for f in findings if f.n is not None), default=0)
        return Verdict(
            level, f"no sign of collapse in {len(findings)} signals of {n} prompts", tuple(findings)
        )
    at = sorted((f for f in findings if f.level == level), key=_weight)
    first = "; ".join(WHAT.get(f.signal, f.signal) for f in at[:3])
    head = first[0].upper() + first[1:] + (f", {said}" if said else "")
    numbers = "; ".join(f.message for f in at[:3])
    shown = [" ".join(t.split())[:80] for t in examples[:2]]
    tail = f" Examples: {' / '.join(map(repr, shown))}." if shown else ""
    return Verdict(level, f"{head}. Shown by: {numbers}.{tail}", tuple(findings), since_row)
