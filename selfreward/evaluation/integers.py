"""Checking answers that are one integer. Pure: text in, verdict out.

Rules: the last `\\boxed{…}` decides; without one, the last line with an integer does. A line that offers
alternatives ("203 or 204") is no answer: wrong. A text without any integer is unread: a fault, not a zero.
"""

from __future__ import annotations

import re

_BOXED = re.compile(r"\\boxed\s*\{([^{}]*)\}")
_INTEGER = re.compile(r"(?<![\w.,])-?\d{1,3}(?:,\d{3})+(?![\d,]*\d)|(?<![\w.])-?\d+(?:\.0+)?(?![\w]|\.\d)")
_ALTERNATIVES = re.compile(r"\d\s*(?:or|either|/)\s*-?\d", re.IGNORECASE)


def check(text: str, answer: int) -> tuple[float | None, str | None]:
    """1 if right, 0 if wrong, or (None, "no_answer") where no integer is stated."""
    stated = _stated(text)
    if stated is None:
        return None, "no_answer"
    return (1.0 if stated == [answer] else 0.0), None


def _stated(text: str) -> list[int] | None:
    """The integers of the deciding place: one if it is an answer, several if it is ambiguous, None if there is none."""
    boxed = _BOXED.findall(text)
    if boxed:
        return _integers(boxed[-1]) or None
    for line in reversed(text.splitlines()):
        found = _integers(line)
        if found:
            return found[-2:] if _ALTERNATIVES.search(line) else found[-1:]
    return None


def _integers(text: str) -> list[int]:
    plain = text.replace("$", " ").replace("*", " ")
    return [int(float(m.replace(",", ""))) for m in _INTEGER.findall(plain)]
