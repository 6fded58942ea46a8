r"""What an answer states, read by fixed rules. Pure: text in, reading out.

The deciding place of a number is, in this order: what follows the last `####` (`number` only), the last
`\boxed{…}` that is not empty, the last line that states a number; there the last one counts. `integer` wants
0 to 999 (AIME), `number` any value, `phrase` words. docs/evaluation.md has the rules with examples.

Three outcomes: a value; a statement that is no one answer ("203 or 204", 3.5 where an integer is due), which
is wrong; nothing to read, which is a fault and no score.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from selfreward.evaluation.stated import Stated, chains, joined, numbers, plain

HIGHEST = 999  # of an AIME answer
Wanted = Callable[[Fraction], bool]

_BOX = re.compile(r"\\f?box(?:ed)?\s*(?:\{|(?=\d))")
_FINAL = re.compile(
    r"####(?P<rest>[ \t*]*(?:(?:final |the )*answer(?: is)?:?)?[ \t]*[-+−$€£\\]{0,3}\.?\d.*)", re.I
)
_LONE = re.compile(r"^\s*#{1,3}(?=-?\d[\d.,/]*\s*$)")  # a number alone behind too few marks
_HEADING = re.compile(r"[ \t*]*\d{1,2}[.)]\s+\S")
_ANSWER = re.compile(r"\banswer\b\W*(?:(?:is|would be)\b)?", re.IGNORECASE)
_MARKUP = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read: a `value`; neither value nor fault, a statement that is wrong; or the `fault`."""

    value: Fraction | str | None = None
    fault: str | None = None


WRONG = Reading()
UNREAD, CUT_OFF = Reading(fault="no_answer"), Reading(fault="cut_off")


def integer(text: str, finish: str = "stop") -> Reading:
    """The integer from 0 to 999 an answer states.

    A number beyond them, a decimal or a fraction is passed over as a quantity of the text, except where it is
    given as the result ("= 1204", "is 3.5") or nothing else stands in the deciding place: then it is wrong.
    """
    said, fault = after_thought(text, finish)
    return Reading(fault=fault) if fault else _box_or_line(said, finish, _is_aime)


def number(text: str, finish: str = "stop") -> Reading:
    """The number an answer states: commas, currency, units, decimals, fractions and signs understood."""
    said, fault = after_thought(text, finish)
    if fault:
        return Reading(fault=fault)
    for marked in reversed(list(_FINAL.finditer(said))):
        stated = numbers(plain(marked["rest"]))
        if stated and not _HEADING.match(marked["rest"]):
            return _one(chains(plain(marked["rest"]), stated)[0], lambda _: True)
    return _box_or_line(said, finish, lambda _: True)


def phrase(text: str, finish: str = "stop") -> Reading:
    r"""The words an answer states: the last `\boxed{…}`, else its last line, what follows "answer is" there.

    Case, outer punctuation and markup are left out, so "**B.**" is "b".
    """
    said, fault = after_thought(text, finish)
    box = last_box(said)
    if fault or (box is None and finish != "stop"):
        return Reading(fault=fault or "cut_off")
    lines = [line for line in said.splitlines() if plain_words(line)]
    if box is None and not lines:
        return UNREAD
    place = box if box is not None else _after_answer(lines[-1])
    return Reading(value=plain_words(place)) if plain_words(place) else UNREAD


def _after_answer(line: str) -> str:
    """What follows the last "answer is" of a line, if anything does; else the line."""
    ends = [m.end() for m in _ANSWER.finditer(line)]
    return line[ends[-1] :] if ends and plain_words(line[ends[-1] :]) else line


def plain_words(text: str) -> str:
    """Lower case without markup, dollar signs, outer punctuation and doubled spaces."""
    bare = _MARKUP.sub(r" \1 ", text).replace("$", " ").replace("*", " ").replace("`", " ")
    return " ".join(bare.casefold().split()).strip(" .,;:!?()[]{}\"'“”‘’#>-")


def after_thought(text: str, finish: str = "stop") -> tuple[str, str | None]:
    """What follows the last `</think>`, and the fault `cut_off` for a thought that never closes."""
    said = text.rpartition("</think>")[2]
    return said, "cut_off" if "<think>" in said else None


def last_box(text: str) -> str | None:
    r"""What stands in the last `\boxed{…}` (or `\fbox`) that is not empty, inner braces included."""
    return _last_boxes(text)[0]


def _last_boxes(text: str) -> tuple[str | None, str, str | None]:
    """The last box that is not empty, what stands before it since the one before, and that one."""
    last, start = None, 0
    for box in reversed(list(_BOX.finditer(text))):
        held = (
            _held(text, box.end())
            if box[0].endswith("{")
            else re.split(r"\D", text[box.end() :], maxsplit=1)[0]
        )
        if held.strip() and last is None:
            last, start = held, box.start()
        elif held.strip():
            return last, text[box.end() + len(held) : start], held
    return last, "", None


def _held(text: str, start: int) -> str:
    """Up to the brace that closes the one before `start`, or to the end."""
    depth = 1
    for brace in re.finditer(r"[{}]", text[start:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start : start + brace.start()]
    return text[start:]


def _is_aime(value: Fraction) -> bool:
    return value.denominator == 1 and 0 <= value <= HIGHEST


def _box_or_line(said: str, finish: str, wanted: Wanted) -> Reading:
    box, between, other = _last_boxes(said)
    if box is not None:
        last = _boxed(box, wanted)
        rivals = other is not None and joined(plain(between).strip("} ")) and _boxed(other, wanted) != last
        return WRONG if rivals else last
    return CUT_OFF if finish != "stop" else _last_line(said, wanted)


def _boxed(box: str, wanted: Wanted) -> Reading:
    """The one number of a box, after its last "=", with units beside it and nothing to be worked out."""
    nested = last_box(box)
    line = plain(nested if nested is not None else box).rpartition("=")[2]
    found = numbers(line)
    if not found:
        return WRONG if any(c.isdigit() for c in line) else UNREAD
    rest = line[: found[0].start] + " " + line[found[0].end :]
    alone = len(found) == 1 and not re.search(r"[-+*/^_×·\\\d]|\b[a-zA-Z]\b", rest)
    return _one(found, wanted) if alone else WRONG


def _last_line(said: str, wanted: Wanted) -> Reading:
    """The last line that states a number decides."""
    listed = {0}
    lines = []
    for line in (_LONE.sub("", line) for line in said.splitlines()):
        item = re.match(r"\s*(?:[-*>]\s+|\*\*)*(\d{1,2})[.)]\s+(?=\S)", line)
        counted = item is not None and int(item[1]) - 1 in listed
        if item is not None and counted:
            listed.add(int(item[1]))
        lines.append(line[item.end() :] if item is not None and counted else line)
    for line in reversed(lines):
        bare = plain(line)
        stated = numbers(bare)
        if stated:
            return _last_stated(chains(bare, stated), wanted)
    return UNREAD


def _last_stated(found: list[list[Stated]], wanted: Wanted) -> Reading:
    """The last chain of numbers that is meant as the answer."""
    for i in range(len(found) - 1, -1, -1):
        chain = found[i]
        worked_out = i > 0 and chain[0].equals and len({s.value for s in chain}) > 1
        meant = any(wanted(s.value) for s in chain) or chain[0].given
        if meant and not worked_out:
            return _one(chain, wanted)
    return WRONG


def _one(chain: list[Stated], wanted: Wanted) -> Reading:
    """The value of a chain if it is one and wanted."""
    values = {s.value for s in chain}
    value = values.pop()
    return Reading(value=value) if not values and wanted(value) else WRONG
