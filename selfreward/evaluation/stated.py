r"""The numbers a line of text states. Pure.

A word with a digit is a number if all of it is one: 204, 1,234.50, .5, 3/4, 5kg. Parts of other words are not
(3rd, x2, 1e5, 10^2, a_3, 3:45, 3-step), nor are numbers that are denied ("not 203") or only name something
("step 3", "AIME 2024", "mod 1000").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

LONGEST = 400  # digits of a runaway number that are looked at; Python refuses to read more than 4300

_WORD = re.compile(r"(?:[\w.,^/'’]|(?<=\d):(?=\d))+")
_TIGHT = re.compile(r"\d[\d.]*(?:,[\d.]+)+[.,]?")
_SEEN = 48  # characters before a number that tell what it is
_UNIT = r"(?:km|mm|cm|kg|mg|lbs?|oz|ml|hrs?|mins?|secs?|mph|ft|in|[mgslh])"
_PLAIN = re.compile(rf"(\d{{1,3}}(?:,\d{{3}})+|\d+)?(\.\d+)?(?:{_UNIT}(?:\^?[23]|[²³])?)?")
_FRACTION = re.compile(r"(\d+)/(\d+)")
_SCALE = re.compile(r"\s*(thousand|million|billion)\b", re.IGNORECASE)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_JOIN = re.compile(
    r"[\s,;(]*(?:(?:and/)?or(?:[\s,]+[a-z]+){0,4}|and|to|vs\.?|[-&/+*×·÷,;±])[\s,]*[-+]?", re.IGNORECASE
)
_DENIED = re.compile(r"(?:\bnot|n['’]t|\brather than|\binstead of|≠|!=|\\neq?)\s*$", re.IGNORECASE)
_LABEL = re.compile(
    r"(?:\b(?:problem|question|step|part|case|eq|equation|figure|table|section|chapter|lemma|theorem|example"
    r"|exercise|option|method|approach|solution|attempt|line|note|mod|modulo|AIME(?: I{1,2})?|AMC)\.?[\s(]*"
    r"|\\[pb]?mod\s*[{(]?|#)$",
    re.IGNORECASE,
)
_GIVEN = re.compile(
    r"(?:[=≈:]|\b(?:is|are|equals|be|gives?|answer))\s*(?:about|exactly|approximately)?\s*$", re.IGNORECASE
)
_TIED = re.compile(r"-[^\W\d]|\^")
_CLEAN = (
    (re.compile(r"[−–‐‑]"), "-"),
    (re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}"), r" \1/\2 "),
    (re.compile(r"\{,\}|(?<=\d),\\!(?=\d)"), ","),
    (re.compile(r"(?<=\d)[\u2009\u202f\u00a0](?=\d{3}\b)|\\[!,](?=\d{3}\b)"), ""),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}(?:\s*\^\s*\{?[23]\}?)?"), r" \1 "),
    (re.compile(r"\^\s*\{?\\circ\}?|\\degree"), "° "),
    (re.compile(r"\\times|\\cdot"), "×"),
    (re.compile(r"\\(?:left|right|displaystyle|quad|qquad)\b|\\[,;:! \[\]()]|\\\\"), " "),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"-\s?\\?[$€£]\s?-?(?=\.?\d)|\\?[$€£]-(?=\.?\d)"), "-"),
    (re.compile(r"\\?[$€£]|\*\*|`"), " "),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stated:
    """A number, its place in the line, and whether it follows "=" or is otherwise given as a result."""

    value: Fraction
    start: int
    end: int
    equals: bool
    given: bool


def plain(line: str) -> str:
    """The line without the markup that stands between numbers and words."""
    for pattern, put in _CLEAN:
        line = pattern.sub(put, line)
    return line


def numbers(line: str) -> list[Stated]:
    """Every number a plain line states, in order."""
    found: list[Stated] = []
    for word in _words(line):
        stated = _number(line, word)
        if stated is None:
            continue
        mixed = found and "/" in word[0] and _mixed(line, found[-1], stated)
        if mixed:
            found[-1] = mixed
        else:
            found.append(stated)
    return found


def _words(line: str) -> Iterator[re.Match[str]]:
    """Words with a digit; a list without spaces (18,19) is a word for each of its numbers."""
    for word in _WORD.finditer(line):
        if _TIGHT.fullmatch(word[0]) and not _PLAIN.fullmatch(word[0].rstrip(".,")):
            yield from re.compile(r"[\d.]+").finditer(line, word.start(), word.end())
        elif re.search(r"\d", word[0]):
            yield word


def _mixed(line: str, whole: Stated, part: Stated) -> Stated | None:
    """A number such as 2 1/2, or None."""
    if not line[whole.end : part.start].isspace() or whole.value.denominator != 1 or not 0 < part.value < 1:
        return None
    value = whole.value + (part.value if whole.value >= 0 else -part.value)
    return Stated(value, whole.start, part.end, whole.equals, whole.given)


def _number(line: str, word: re.Match[str]) -> Stated | None:
    bare = word[0].rstrip(".,:'’/").strip("_")
    bare = bare.lstrip(".") if bare.startswith("..") else bare.lstrip("'’,")
    start = word.start() + word[0].index(bare)
    value, end = _value(bare), start + len(bare)
    signed = start > 0 and line[start - 1] in "-+" and not re.search(r"[\w)\]}.,°%]$", line[: start - 1][-1:])
    before = line[max(0, start - _SEEN) : start - signed]
    if value is None or re.search(r"[_^]\{?$", before) or _TIED.match(line, end):
        return None
    if _DENIED.search(before) or _LABEL.search(before):
        return None
    scale = _SCALE.match(line, end)
    if scale:
        value, end = value * _SCALES[scale[1].lower()], scale.end()
    value = -value if signed and line[start - 1] == "-" else value
    equals = before.rstrip().endswith(("=", "≈"))
    return Stated(value, start - signed, end, equals, _GIVEN.search(before) is not None)


def _value(bare: str) -> Fraction | None:
    """The value of a whole word, or None if it is no number."""
    part = _FRACTION.fullmatch(bare[: 2 * LONGEST])
    if part:
        return Fraction(int(part[1]), int(part[2])) if int(part[2]) else None
    whole = _PLAIN.fullmatch(bare)
    if not whole or not (whole[1] or whole[2]):
        return None
    digits, decimals = (whole[1] or "0").replace(",", "")[:LONGEST], (whole[2] or ".0")[1 : LONGEST + 1]
    return Fraction(int(digits)) + Fraction(int(decimals), 10 ** len(decimals))


def joined(between: str) -> bool:
    """Whether what stands between two numbers makes them alternatives, a list or a sum."""
    return _JOIN.fullmatch(between) is not None


def chains(line: str, found: list[Stated]) -> list[list[Stated]]:
    """The numbers grouped: alternatives, lists and what is still to be worked out stand together."""
    grouped = [[found[0]]]
    for before, after in pairwise(found):
        between = line[before.end : after.start] + ("-" if after.value < 0 else "")
        if joined(between):
            grouped[-1].append(after)
        else:
            grouped.append([after])
    return grouped
