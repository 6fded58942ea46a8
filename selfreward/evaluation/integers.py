r"""Checking answers that are one integer. Pure: text in, verdict out.

Rules: the last `\boxed{…}` decides; without one, the last integer of the last line that has any. Two integers
joined as alternatives ("203 or 204") are no answer: wrong. A text without any integer is unread: a fault, not
a zero. Parts of decimals and fractions are no integers.
"""

from __future__ import annotations

import re

LONGEST = 1000  # digits of a runaway number that are looked at; Python refuses to read more than 4300

_GROUPED = r"\d{1,3}(?:,\d{3})+(?!,?\d)"
_INTEGER = re.compile(
    rf"(?<![\w.,])(?:(?<![\w)])-)?(?:{_GROUPED}|\d+)(?:\.0+)?(?![\w]|[.,]\d)|(?<=[,])\d+(?![\w]|[.,]\d)"
)
_BOX = re.compile(r"\\boxed\s*\{")
_LATEX = re.compile(r"\\text\s*\{([^{}]*)\}|\\[,;!%$ ]|\{,\}")
_JOINED = re.compile(r"[\s,]*(?:or(?: perhaps| maybe)?|/|-|–)[\s,]*-?", re.IGNORECASE)


def check(text: str, answer: int, finish: str = "stop") -> tuple[float | None, str | None]:
    r"""1 if right, 0 if wrong, or None with the fault: `no_answer`, or `cut_off` before any `\boxed{…}`."""
    if finish != "stop" and _last_box(text) is None:
        return None, "cut_off"
    stated = _stated(text)
    if stated is None:
        return None, "no_answer"
    return (1.0 if stated == [answer] else 0.0), None


def _stated(text: str) -> list[int] | None:
    """The integers of the deciding place: one is an answer, several are ambiguous, None is none."""
    box = _last_box(text)
    if box is not None:
        found = [value for value, _ in _integers(_plain(box))]
        return None if "\\frac" in box else found or None
    for line in reversed(text.splitlines()):
        plain = _plain(line)
        integers = _integers(plain)
        if integers:
            *before, (last, span) = integers
            if before and _JOINED.fullmatch(plain[before[-1][1][1] : span[0]]):
                return [before[-1][0], last]
            return [last]
    return None


def _last_box(text: str) -> str | None:
    r"""What stands in the last `\boxed{…}`, inner braces included."""
    starts = list(_BOX.finditer(text))
    if not starts:
        return None
    start = end = starts[-1].end()
    depth = 1
    while end < len(text) and depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[start : end - 1] if depth == 0 else text[start:]


def _plain(text: str) -> str:
    """Without the markup that stands between numbers and words."""
    bare = _LATEX.sub(lambda m: m[1] or ("," if m[0] == "{,}" else ""), text.replace("−", "-"))
    return bare.replace("$", " ").replace("*", " ")


def _integers(plain: str) -> list[tuple[int, tuple[int, int]]]:
    """Every integer with its place."""
    found = ((m[0].replace(",", "").split(".")[0], m.span()) for m in _INTEGER.finditer(plain))
    return [(int(digits[:LONGEST]), span) for digits, span in found]
