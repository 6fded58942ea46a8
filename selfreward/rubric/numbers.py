"""One number under one label, as a judge may write it: `Score: 4`, `**Score:** 4/5`, `Score: 4 out of 5`.

What is not plainly one number within the scale is a fault with its kind. A false score is worse than a
fault, so that ranges, alternatives, sums, hedges and quotations are all faults.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

Reading = tuple[float | None, str | None]  # a score, or the kind of fault

_NUMBER = r"-?\d+(?:\.\d{1,4}|,\d{1,2})?(?![.,]?\d)"
# A statement opens its line or a sentence: "Relevance score: 1" and 'it claims "Score: 5"' are about
# something else, and so is what stands quoted after ">".
_OPENS = re.compile(
    r"(?:^(?:\(?\d{1,2}[.)])?|[.!?;]\s|\b(?:verdict|conclusion|judge?ment|evaluation|assessment|result|overall|"
    r"summary|final answer):\s)[^\w'\"“”‘’«»>]*"
    r"(?:(?:my|the|final|overall|total|so|thus|therefore)\W+)*$",
    re.IGNORECASE,
)
_EXAMPLE = re.compile(
    r"\b(?:e\.g\.|i\.e\.|example|instance|such as|form|format|like|says?|states?|claims?|writes?|reads?|"
    r"contains?|quotes?|ends?(?: with)?|line)\W*$",
    re.IGNORECASE,
)
_SAYS = re.compile(
    rf"[\[({{\"'“‘«]*(?P<value>{_NUMBER})"
    rf"(?:\s*(?:points?\s*)?[(\[]?\s*(?:/|out of|of)\s*(?P<top>{_NUMBER}))?(?P<rest>.*)",
    re.IGNORECASE,
)
# Behind the number: a sum, a range, an alternative, a percentage, a condition, a doubt: no single score.
_MORE = re.compile(
    r"\d|⁄|^\w|^\s*[%‰?+±~≈^]|^\s*[-–—]+\s*$|^[-–/]\s*\w"
    r"|^[\s,;:(–—-]*(?:or|to|and|if|unless|no|not|wait|rather|actually|minus|plus|less|more|at|is|isn|was|would"
    r"|could|might|may|should|can|seems|percent|of|out|hundred|thousand|million|half|maybe|perhaps|ish)\b",
    re.IGNORECASE,
)
_ALONE = re.compile(rf"\s*{_NUMBER}(?:\s*(?:/|out of)\s*{_NUMBER})?\s*")
_MARKUP = re.compile(r"[*_`#]")
_KEYCAP = re.compile("\ufe0f?\u20e3")  # what makes 4 a keycap; any other mark on a digit may strike it out


def plain_lines(reply: str) -> list[str]:
    """The reply's lines without markup, full-width and other compatibility characters as their plain ones."""
    text = unicodedata.normalize("NFKC", "".join(map(_apart, _KEYCAP.sub("", reply)))).replace("−", "-")
    return _MARKUP.sub("", text).splitlines()


def _apart(char: str) -> str:
    """Keeps what stands raised, lowered or circled from becoming a digit of the number beside it."""
    if char.isascii():
        return char
    match unicodedata.decomposition(char).split(" ")[0]:
        case "<super>" | "<sub>":
            return "^"
        case "<circle>":
            return f" {char} "
    return char


def number_under(label: str, lines: list[str], low: float, high: float) -> Reading:
    """The number stated under the label, or `no_score`, `ambiguous`, `out_of_scale`.

    The last line with a statement decides, also when it cannot be read; another number stated under the
    same label anywhere is ambiguous.
    """
    stated = [found for i in range(len(lines)) if (found := _readings(label, lines, i, low, high))]
    if not stated:
        return None, "no_score"
    scores = {score for found in stated for score, _ in found if score is not None}
    if len(set(stated[-1])) > 1 or len(scores) > 1:
        return None, "ambiguous"
    return stated[-1][0]


@lru_cache(maxsize=64)
def statement(label: str) -> re.Pattern[str]:
    """The label in any case, its words joined by blanks, hyphens or nothing, before a colon or line end."""
    words = r"[\s-]*".join(re.escape(word) for word in re.split(r"[\s_-]+", label))
    return re.compile(rf"\b{words}(?:\s+(?:score|rating))?\s*(?:[:=]|$)\s*", re.IGNORECASE)


def opens(before: str) -> bool:
    """Whether a statement after this text is the judge's own: it opens a line or sentence, no quotation."""
    return bool(_OPENS.search(before)) and not _EXAMPLE.search(before)


def _readings(label: str, lines: list[str], at: int, low: float, high: float) -> list[Reading]:
    """What each statement of a line says, up to the next one; a bare label is followed by its number."""
    line = lines[at]
    statements = list(statement(label).finditer(line))
    ends = [m.start() for m in statements[1:]] + [len(line)] * bool(statements)
    found = []
    for m, end in zip(statements, ends, strict=True):
        after = line[m.end() : end]
        found.append(_value(line[: m.start()], after if after.strip() else _below(lines, at), low, high))
    return found


def _below(lines: list[str], at: int) -> str:
    """The next line that is not blank, if it is a number alone and no list of numbers."""
    following = [line for line in lines[at + 1 :] if line.strip()][:2]
    alone = [bool(_ALONE.fullmatch(line)) for line in following]
    return following[0].strip() if alone[:1] == [True] and alone[1:] != [True] else ""


def _value(before: str, after: str, low: float, high: float) -> Reading:
    if not opens(before):
        return None, "ambiguous"
    said = _SAYS.match(after)
    if not said:
        return None, "no_score"
    rest = said["rest"]
    if (said["top"] and _number(said["top"]) != high) or _MORE.search(rest) or _marked(rest):
        return None, "ambiguous"
    if len({ord(c) - int(c) for c in said["value"] if c.isdecimal()}) > 1:  # digits of two scripts
        return None, "ambiguous"
    value = _number(said["value"])
    return (value, None) if low <= value <= high else (None, "out_of_scale")


def _marked(rest: str) -> bool:
    """Whether a combining mark, such as a stroke, stands on the last digit."""
    return unicodedata.category(rest[:1] or " ").startswith("M")


def _number(text: str) -> float:
    return float(text.replace(",", "."))
