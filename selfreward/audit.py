"""Preference data looked at without a model: what in its texts and scores makes a label doubtful.

Pure. A finding is a reason to look, not a verdict: some kinds rest on words and endings alone, and say so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from selfreward.near import similarity

NEAR = 0.9  # ROUGE-L F1 at and above which two answers are nearly the same text
DANGLES, RUNS_ON, PROSE = 4, 6, 8  # words before an ending is called cut off: see `cut_off`

_TOKENS = re.compile(
    r"<[|｜][^<>|｜\n]{1,40}[|｜]>"  # <|im_end|>, <|eot_id|>, <|start_header_id|>, <｜end▁of▁sentence｜>
    r"|</?(?:start|end)_of_turn>|<(?:start|end)_of_turn>|<<\/?SYS>>|\[/?INST\]|<(?:bos|eos|pad|unk)>|\[/?(?:BOS|EOS)\]"
    r"|^\s*<s>|</s>\s*$|</?think>"
)
_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b[^.\n]{0,40}\b(?:previous|prior|above|earlier|preceding|all|your)\b"
    r"[^.\n]{0,40}\b(?:instructions?|prompts?|rules?|rubrics?|text|criteria|guidelines|directions)\b"
    r"|\b(?:ignore|disregard|forget)\s+(?:everything|(?:all\s+)?(?:of\s+)?the\s+above)\b"
    r"|\b(?:ignore|disregard|override)\s+(?:the|your|these|any)\s+(?:\w+\s+)?(?:instructions?|rubric|criteria|prompt)\b",
    re.IGNORECASE,
)
_TO_THE_JUDGE = re.compile(
    r"(?:^|[\"“.!?:]\s*)\W*(?:(?:final|overall|total|my)\s+)?(?:score|rating|grade)\s*[:=]\s*\W{0,3}\d"
    r"|\[\[\s*(?:\d{1,2}|[AB])\s*\]\]|^\W*winner\s*:\s*[AB]\b"
    r"|\b(?:give|award|assign|rate|score|grade|mark)\b[^.\n]{0,40}\b(?:this|my|the|above)\s+"
    r"(?:answer|response|reply|output|completion)\b[^.\n]{0,40}"
    r"(?:\b(?:highest|maximum|top|full|perfect|best)\b|\b\d{1,3}\b)"
    r"|\b(?:give|award|assign)\b[^.\n]{0,30}\b(?:highest|maximum|top|full|perfect)\s+(?:score|marks?|rating|points?|grade)\b"
    r"|\b(?:give|award|assign)\b[^.\n]{0,30}\b(?:score|rating|grade|mark)\s+of\s+\W?\d"
    r"|\b(?:output|print|write|say|return|(?:respond|reply|answer)\s+with)\s+\W*(?:score|rating|grade)\s*:"
    r"|\bdeserves?\b[^.\n]{0,30}\b(?:highest|maximum|top|full|perfect)\s+(?:score|marks?|rating|points?|grade)\b"
    r"|\b(?:dear|attention|note to(?: the)?|as the|you are (?:the|a))\s+"
    r"(?:judge|grader|evaluator|reviewer|rater|marker)\b",
    re.IGNORECASE | re.MULTILINE,
)
_DANGLING = re.compile(
    r"(?:[,(–—]|\b(?:a|an|and|are|as|at|because|but|by|for|from|if|in|into|is|of|on|or|our|such|than|that|the|"
    r"their|these|this|to|was|were|when|where|which|while|who|with|your))\s*$",
    re.IGNORECASE,
)
_MARK = re.compile(r"^\s*(?:[-*•+]|\(?\w{1,3}[.)])\s+")  # of an item of a list
_SENTENCE = re.compile(r"[.!?][\"”’)]*\s+[A-Z\"“(]")


@dataclass(frozen=True, slots=True)
class Preference:
    """One line of preference data made anywhere; scores are whatever its maker's were, or None."""

    line: int  # from 1
    prompt: str
    chosen: str
    rejected: str
    chosen_score: float | None = None
    rejected_score: float | None = None


def problems(rows: Sequence[Preference]) -> dict[str, list[int]]:
    """Kinds of problems there are, each with the lines that have it, ascending; none is a clean file.

    Kinds: `empty`, `identical`, `near_identical`, `score_order` (the rejected one scored higher), `tie`,
    `template_token`, `cut_off`, `injection`, `both_directions` (a pair that also stands the other way round).
    """
    found: dict[str, list[int]] = {}
    for row in rows:
        for kind in _kinds(row):
            found.setdefault(kind, []).append(row.line)
    if turned := _both_directions(rows):
        found["both_directions"] = turned
    return found


def length_only_accuracy(rows: Sequence[Preference]) -> float | None:
    """Share of pairs whose chosen text is the longer one in characters, equal lengths as half; None of none.

    0.5 says that length tells nothing. Near 1 or 0 a reader of lengths alone knows the labels.
    """
    if not rows:
        return None
    longer = [(len(r.chosen.strip()), len(r.rejected.strip())) for r in rows]
    return sum(0.5 if c == r else float(c > r) for c, r in longer) / len(rows)


def _kinds(row: Preference) -> list[str]:
    """What is wrong with a line by itself."""
    chosen, rejected = row.chosen.strip(), row.rejected.strip()
    texts = (row.prompt, chosen, rejected)
    found = []
    if not all(text.strip() for text in texts):
        found.append("empty")
    if chosen == rejected:
        found.append("identical")
    elif chosen.casefold() == rejected.casefold() or similarity(chosen, rejected) >= NEAR:
        found.append("near_identical")
    if row.chosen_score is not None and row.rejected_score is not None:
        if row.chosen_score == row.rejected_score:
            found.append("tie")
        elif row.chosen_score < row.rejected_score:
            found.append("score_order")
    if any(_TOKENS.search(text) for text in texts):
        found.append("template_token")
    if cut_off(chosen) or cut_off(rejected):
        found.append("cut_off")
    if any(_ORDERS.search(text) for text in texts) or any(map(_TO_THE_JUDGE.search, (chosen, rejected))):
        found.append("injection")
    return found


def cut_off(text: str) -> bool:
    """Whether a text seems to break off.

    An open code fence; a last word or comma that wants another (4 words and more); a last line of prose that
    ends in a letter, after an earlier sentence (6 words) or as a long one (8 words, the last in lower case).
    Short texts, lists, verses and signatures get the benefit of the doubt.
    """
    if text.count("```") % 2:
        return True
    last = _MARK.sub("", (text.strip().splitlines() or [""])[-1])
    n, in_all = len(last.split()), len(text.split())
    if in_all >= DANGLES and _DANGLING.search(last):
        return True
    if not last[-1:].isalpha():
        return False
    return (n >= RUNS_ON and bool(_SENTENCE.search(last))) or (n >= PROSE and last.split()[-1].islower())


def _both_directions(rows: Sequence[Preference]) -> list[int]:
    """Lines whose two answers stand the other way round under the same prompt."""
    lines: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        key = (row.prompt.strip(), row.chosen.strip(), row.rejected.strip())
        lines.setdefault(key, []).append(row.line)
    return sorted(
        line
        for (prompt, chosen, rejected), found in lines.items()
        if chosen != rejected and (prompt, rejected, chosen) in lines
        for line in found
    )
