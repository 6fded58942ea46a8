"""The verdict of each kind of rubric, read from the judge's own reply and from nothing else.

A reply that does not say what its rubric asks for, plainly and once, is a fault with its kind, never a guess:
`cut_off`, `no_score`, `ambiguous`, `out_of_scale`, `missing_aspect`, `missing_item`.
"""

from __future__ import annotations

import math
import re

from selfreward.protocols import Verdict
from selfreward.rubric.form import Rubric
from selfreward.rubric.numbers import Reading, number_under, opens, plain_lines, statement

LOW_MASS = (
    0.01  # below this share of probability on the scale's numbers the model was not about to give a score
)

_ITEM = re.compile(
    r"\W*(?:(?:item|statement|question|no\.?)\s*)?(?P<number>\d{1,3})\s*[.):=–-]+\s*(?P<said>.*)",
    re.IGNORECASE,
)
_YES_NO = re.compile(r"[\[(\"'“]*(?P<answer>yes|no)\b(?P<rest>.*)", re.IGNORECASE)
_UNSURE = re.compile(
    r"^\s*\?|^\W*(?:(?:/|or|and|\|)\W*(?:yes|no)\b|(?:partly|partially|mostly|somewhat|maybe|perhaps|unsure|"
    r"if|unless|kind of|sort of|half|almost|nearly|wait|rather|actually)\b)|^[/|]",
    re.IGNORECASE,
)
_WINNER = re.compile(
    r"[\[(\"'“]*(?i:(?:the\s+)?(?:answer|response|assistant|option)\s*)?[\[(\"'“]*"
    r"(?P<winner>[AB](?![\w'’])|(?:an?\s+|it(?:'|’)?s a\s+|it is a\s+)?(?:tie|draw)\b|[ab](?=\W*$))"
    r"(?P<rest>.*)",
)
_OTHER = re.compile(
    r"\b[AB]\b|\b(?:tie|draw|both|neither|or|if|unless|not|maybe|perhaps)\b|\?|/", re.IGNORECASE
)


def read(rubric: Rubric, reply: str, finish: str) -> Reading:
    """Score and fault of `verdict`."""
    found = verdict(rubric, reply, finish)
    return found.score, found.fault


def verdict(rubric: Rubric, reply: str, finish: str) -> Verdict:
    """What the reply says, by the rubric's kind; `finish` is how the reply ended, `stop` when by itself.

    A thinking judge is read after its thought. Of aspects and checklists the parts are in `detail`.
    """
    said = _after_thought(reply)
    if finish != "stop" or said is None:
        return Verdict(None, "cut_off", raw=reply)
    lines = plain_lines(said)
    detail: dict[str, object] | None = None
    match rubric.kind:
        case "aspects":
            score, fault, detail = _aspects(rubric, lines)
        case "checklist":
            score, fault, detail = _checklist(rubric, lines)
        case "pairwise":
            score, fault = _pairwise(lines)
        case _:
            score, fault = number_under(rubric.opening.rstrip(":"), lines, rubric.low, rubric.high)
    return Verdict(score, fault, raw=reply, detail=detail)


def _after_thought(reply: str) -> str | None:
    """What follows the thought, if there was one; None if the thought was never closed."""
    _, closed, rest = reply.partition("</think>")
    if closed:
        return rest
    return None if reply.lstrip().startswith("<think>") else reply


def _aspects(rubric: Rubric, lines: list[str]) -> tuple[float | None, str | None, dict[str, object]]:
    """The weighted mean of the aspects; the first fault in the rubric's order if one cannot be read."""
    parts = _split_at_labels([name for name, _ in rubric.aspects], lines)
    readings = {n: number_under(n, parts, rubric.low, rubric.high) for n, _ in rubric.aspects}
    faults = [fault for _, fault in readings.values() if fault]
    detail: dict[str, object] = {n: fault or score for n, (score, fault) in readings.items()}
    if faults:
        missing = len(faults) < len(readings) and faults[0] == "no_score"
        return None, "missing_aspect" if missing else faults[0], detail
    total = math.fsum(weight for _, weight in rubric.aspects)
    mean = math.fsum(w * (readings[n][0] or 0.0) for n, w in rubric.aspects) / total
    return min(max(mean, rubric.low), rubric.high), None, detail


def _split_at_labels(labels: list[str], lines: list[str]) -> list[str]:
    """Lines that state several aspects in a row ("Honesty: 4, Helpfulness: 3") as a line each."""
    found = "|".join(statement(label).pattern for label in labels)
    between = re.compile(rf"[,;|]\s*(?={found})", re.IGNORECASE)
    return [part for line in lines for part in between.split(line)]


def _checklist(rubric: Rubric, lines: list[str]) -> tuple[float | None, str | None, dict[str, object]]:
    """The share of yes, on the rubric's scale, when every item has one answer."""
    answers: dict[int, set[str]] = {}
    for line in lines:
        if match := _ITEM.match(line):
            number = int(match["number"])
            said = _answer(
                rubric.items[number - 1] if 1 <= number <= len(rubric.items) else "", match["said"]
            )
            if said:
                answers.setdefault(number, set()).add(said)
    detail: dict[str, object] = {str(n): " ".join(sorted(said)) for n, said in sorted(answers.items())}
    if not answers:
        return None, "no_score", detail
    expected = set(range(1, len(rubric.items) + 1))
    if answers.keys() - expected or any(said not in ({"yes"}, {"no"}) for said in answers.values()):
        return None, "ambiguous", detail
    if answers.keys() != expected:
        return None, "missing_item", detail
    share = sum(said == {"yes"} for said in answers.values()) / len(expected)
    return rubric.low + share * (rubric.high - rubric.low), None, detail


def _answer(item: str, said: str) -> str | None:
    """`yes`, `no`, or `unclear`; None for a line that does not begin with either, the item's words aside."""
    plain = " ".join(plain_lines(item))
    if plain and said.casefold().startswith(plain.casefold()):
        said = said[len(plain) :].lstrip(" .:-–—=>→")
    match = _YES_NO.match(said)
    if not match:
        return None
    return "unclear" if _UNSURE.search(match["rest"]) else match["answer"].lower()


def _pairwise(lines: list[str]) -> Reading:
    """1 for A, 0 for B, 0.5 for a stated tie; the last `Winner:` decides, and another one contradicts it."""
    stated = [_winner(line[: m.start()], line[m.end() :]) for line in lines
              for m in statement("winner").finditer(line)]  # fmt: skip
    if not stated:
        return None, "no_score"
    if len({score for score, _ in stated if score is not None}) > 1:
        return None, "ambiguous"
    return stated[-1]


def _winner(before: str, after: str) -> Reading:
    if not opens(before):
        return None, "ambiguous"
    match = _WINNER.match(re.sub(r"(?i)\b(tie|draw)\b", lambda m: m[0].lower(), after))
    if not match:
        return None, "no_score"
    if _OTHER.search(match["rest"]):
        return None, "ambiguous"
    return {"A": 1.0, "B": 0.0}.get(match["winner"].upper(), 0.5), None


def expectation(rubric: Rubric, probabilities: list[float]) -> Reading:
    """Mean score under the probabilities of the scale's numbers, renormalised; a fault if they hold no mass.

    The result lies within the scale by construction, rounding included.
    """
    mass = sum(probabilities)
    if not LOW_MASS <= mass < math.inf:  # also when it is not a number
        return None, "no_score"
    mean = sum(s * p for s, p in zip(rubric.scores, probabilities, strict=True)) / mass
    return min(max(mean, rubric.low), rubric.high), None


def without_prior(probabilities: list[float], prior: list[float]) -> list[float]:
    """The probabilities over those the scores have whatever the answer says, as shares of their old mass.

    What is so removed is the model's liking for a digit (Zhao et al. 2021, arXiv 2102.09690, who divide by
    the prediction for a text without content). A prior below 1e-6 of its mass is taken for that.
    """
    mass, floor = math.fsum(probabilities), 1e-6 * math.fsum(prior)
    parts = [p / max(q, floor) for p, q in zip(probabilities, prior, strict=True)]
    total = math.fsum(parts)
    return [mass * part / total for part in parts]
