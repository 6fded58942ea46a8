"""Rules: the answer against the reference, or the form of the text. Nothing is sampled and nobody is asked.

What they measure and how each fails: `docs/rewards.md`. ReFT's rule is arXiv 2401.08967, section 3.2; the
others are the reward functions that Open-R1 trains with, written anew from their descriptions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from selfreward.evaluation.reading import Reading
from selfreward.protocols import Answer, Question, Verdict
from selfreward.scorers.reading import right_answer, stated

PARTIAL = 0.1  # ReFT: an answer that is wrong is worth a little more than none
STEPS = 3  # Open-R1: three marks of a step are a whole reasoning
COMPARING = frozenset({"reft", "accuracy", "length"})
_FORM = re.compile(r"\s*<think>\n?.*?\n?</think>\s*<answer>\n?.*?\n?</answer>\s*", re.DOTALL)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_STEP = re.compile(
    r"^\s*(?:step\s+\d+\b|\d+[.)]\s|[-*•]\s)|\b(?:first|second|third|next|then|finally)(?:ly)?,",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class RuleScorer:
    """One verdict a candidate by `check`; answers are compared as numbers or as texts (`answer`)."""

    check: str
    answer: str = "number"
    name: str = "rule"

    @property
    def needs(self) -> frozenset[str]:
        """A reference, where answers are compared."""
        return frozenset({"reference"}) if self.check in COMPARING else frozenset()

    def score(self, questions: Sequence[Question]) -> list[list[list[Verdict]]]:
        """A prompt without a reference that states an answer gives faults, not zeros."""
        return [[[v] for v in self._group(q)] for q in questions]

    def _group(self, question: Question) -> list[Verdict]:
        if self.check not in COMPARING:
            return [Verdict(_of_form(self.check, a.text)) for a in question.answers]
        right = right_answer(self.answer, question.reference)
        if right is None:
            return [Verdict(None, "no_reference") for _ in question.answers]
        read = [stated(self.answer, a.text, a.finish) for a in question.answers]
        if self.check == "length":
            return _by_length(question.answers, [r.value == right for r in read])
        return [Verdict(_worth(self.check, r, right), detail={"answer": _told(r)}) for r in read]


def _worth(check: str, found: Reading, right: Fraction | str) -> float:
    """1 for the right answer; a wrong one and none differ for ReFT alone."""
    if found.value == right:
        return 1.0
    return PARTIAL if check == "reft" and found.fault is None else 0.0


def _told(found: Reading) -> str:
    if found.fault:
        return found.fault
    return str(found.value) if found.value is not None else "not one answer"


def _of_form(check: str, text: str) -> float:
    """In 0..1, whatever the text says."""
    match check:
        case "format":
            alone = all(text.count(tag) == 1 for tag in _TAGS)
            return float(alone and _FORM.fullmatch(text) is not None)
        case "tag_count":
            return sum(text.count(tag) == 1 for tag in _TAGS) / len(_TAGS)
        case "reasoning_steps":
            return min(1.0, len(_STEP.findall(text)) / STEPS)
    raise ValueError(f"no rule {check!r}")


def _by_length(answers: Sequence[Answer], right: Sequence[bool]) -> list[Verdict]:
    """½ for the shortest of the group, −½ for the longest, linear between; a wrong answer never gains by it.

    Kimi k1.5 (arXiv 2501.12599, section 2.3.3), counted in sampled tokens; 0 where all are equally long.
    """
    lengths = [len(a.token_ids) or len(a.text.split()) for a in answers]
    low, high = min(lengths, default=0), max(lengths, default=0)
    found = []
    for length, is_right in zip(lengths, right, strict=True):
        worth = 0.5 - (length - low) / (high - low) if high > low else 0.0
        found.append(Verdict(worth if is_right else min(0.0, worth), detail={"length": length}))
    return found
